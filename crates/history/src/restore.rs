//! From a vault to an image file.

use crate::error::{Error, Result, file};
use crate::step::{Step, Steps};
use crate::writer::SIZE;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use vault::Segment;
use vault::format::{BLOCK, Content};
use vault::read::{Access, Located, Merged, ReadError, fetch, unseal};

/// Blocks that are read in one go; with what waits, this bounds the memory.
const BATCH: usize = 1024;
/// Bytes that are written in one go.
const RUN: usize = 1 << 20;

/// What is told while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Blocks written or found as they should be.
    pub blocks: AtomicU64,
    /// Bytes written.
    pub written: AtomicU64,
}

/// The chain of a point.
///
/// # Errors
/// [`Error::NoWay`] with what is missing.
pub fn chain_to<'a>(segments: &'a [Segment], point: u64) -> Result<Vec<&'a Segment>> {
    vault::chain::chain(segments, 0, point)
        .ok_or_else(|| Error::NoWay { point, why: vault::chain::missing(segments, point) })
}

/// The size that the volume had at the end of this chain.
///
/// # Errors
/// When it can't be read.
pub fn volume_size(access: &Access, chain: &[&Segment]) -> Result<u64> {
    let Some(last) = chain.last() else { return Ok(0) };
    let Some((name, size)) = last.part_names(access.stream).zip(&last.parts).last() else { return Ok(0) };
    Ok(access.table(name, *size)?.0.trailer.volume_size)
}

/// Writes a point into a file that is new, or that an interrupted call of this began: `zeroed` says that it is all zeros.
/// Every block is checked.
///
/// # Errors
/// When something can't be read, is damaged, or can't be written.
pub fn write_point(
    access: &Access,
    chain: &[&Segment],
    into: &File,
    zeroed: bool,
    workers: usize,
    progress: &Progress,
    steps: &Steps,
) -> Result<()> {
    let size = volume_size(access, chain)?;
    into.set_len(size).map_err(file("set the length of the image"))?;
    let blocks =
        Merged::new(access, chain).map(|located| Ok(located?)).filter(|located: &Result<Located>| {
            located.as_ref().map_or(true, |located| {
                located.entry.block * SIZE < size && !(zeroed && located.entry.sealed_len() == 0)
            })
        });
    write_blocks(access, blocks, into, workers, progress, steps)
}

/// Writes into an image that has the point of the chain `now` the blocks in which the point of the chain `then` differs.
/// May be interrupted, and done again.
///
/// # Errors
/// When something can't be read, is damaged, or can't be written.
pub fn write_difference(
    access: &Access,
    now: &[&Segment],
    then: &[&Segment],
    into: &File,
    workers: usize,
    progress: &Progress,
    steps: &Steps,
) -> Result<()> {
    let size = volume_size(access, then)?;
    let is = into.metadata().map_err(file("stat of the image"))?.len();
    if is < size {
        into.set_len(size).map_err(file("set the length of the image"))?;
    }
    let difference = difference(access, now, then)
        .filter(|located| located.as_ref().map_or(true, |located| located.entry.block * SIZE < size.max(is)));
    write_blocks(access, difference, into, workers, progress, steps)
}

/// The blocks of the point of `then` that are not the same in the point of `now`, in order.
pub fn difference(
    access: &Access,
    now: &[&Segment],
    then: &[&Segment],
) -> impl Iterator<Item = Result<Located>> {
    let mut now = Merged::new(access, now).peekable();
    let mut then = Merged::new(access, then).peekable();
    // What a run of zeros on either side still covers.
    let mut queue = std::collections::VecDeque::new();
    std::iter::from_fn(move || {
        loop {
            if let Some(ready) = queue.pop_front() {
                return Some(Ok(ready));
            }
            let (a, b) = match (now.peek(), then.peek()) {
                (Some(Err(_)), _) => return now.next().map(|error| error.map_err(Error::from)),
                (_, Some(Err(_))) => return then.next().map(|error| error.map_err(Error::from)),
                (a, b) => (
                    a.and_then(|a| a.as_ref().ok()).map_or(u64::MAX, |a| a.entry.block),
                    b.and_then(|b| b.as_ref().ok()).map_or(u64::MAX, |b| b.entry.block),
                ),
            };
            if a == u64::MAX && b == u64::MAX {
                return None;
            }
            if a < b {
                // Data that is there now, and was not there then, nor zeros that say so: it was a hole.
                if let Some(Ok(mut located)) = now.next()
                    && located.entry.sealed_len() > 0
                {
                    located.entry.content = Content::Zeros { count: 1 };
                    queue.push_back(located);
                }
            } else if b < a {
                // A run of zeros may cover blocks that are data now: those differ too, and zeros are never wrong here.
                if let Some(Ok(located)) = then.next() {
                    queue.push_back(located);
                }
            } else if let (Some(Ok(is)), Some(Ok(was))) = (now.next(), then.next()) {
                let same = match (&is.entry.content, &was.entry.content) {
                    (Content::Data { hash: is, .. }, Content::Data { hash: was, .. }) => is == was,
                    (Content::Zeros { .. }, Content::Zeros { count: _ }) => false,
                    _ => false,
                };
                if !same {
                    queue.push_back(was);
                }
            }
        }
    })
}

/// Fetches, checks and writes blocks, with several workers and bounded memory.
fn write_blocks(
    access: &Access,
    mut blocks: impl Iterator<Item = Result<Located>>,
    into: &File,
    workers: usize,
    progress: &Progress,
    steps: &Steps,
) -> Result<()> {
    let (send, receive) = sync_channel::<Vec<Located>>(workers);
    let receive = Mutex::new(receive);
    let failed: Mutex<Option<Error>> = Mutex::default();
    let fail = |error: Error| {
        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
    };
    let has_failed = || failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some();
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| {
                loop {
                    let batch = receive.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
                    let Ok(batch) = batch else { return };
                    if has_failed() {
                        continue;
                    }
                    if let Err(error) = write_batch(access, &batch, into, progress) {
                        fail(error);
                    }
                    steps.at(Step::RestoreHalf);
                }
            });
        }
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            match blocks.next() {
                Some(Ok(located)) => batch.push(located),
                Some(Err(error)) => {
                    fail(error);
                    break;
                }
                None => break,
            }
            if batch.len() == BATCH {
                if has_failed() || send.send(std::mem::take(&mut batch)).is_err() {
                    break;
                }
                batch.reserve(BATCH);
            }
        }
        if !batch.is_empty() && !has_failed() && send.send(batch).is_err() {
            fail(Error::InUse);
        }
        drop(send);
    });
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => into.sync_data().map_err(file("write the image")),
    }
}

fn write_batch(access: &Access, batch: &[Located], into: &File, progress: &Progress) -> Result<()> {
    let mut unsealer = access.unsealer();
    let mut run: (u64, Vec<u8>) = (0, Vec::with_capacity(RUN));
    let mut content = [0; BLOCK];
    let write = |run: &mut (u64, Vec<u8>)| -> Result<()> {
        if !run.1.is_empty() {
            into.write_all_at(&run.1, run.0).map_err(file("write the image"))?;
            progress.written.fetch_add(run.1.len() as u64, Ordering::Relaxed);
            run.1.clear();
        }
        Ok(())
    };
    let handle = |located: &Located, sealed: &[u8], run: &mut (u64, Vec<u8>)| -> Result<()> {
        let at = located.entry.block * SIZE;
        progress.blocks.fetch_add(located.entry.blocks(), Ordering::Relaxed);
        if let Content::Zeros { count } = located.entry.content {
            write(run)?;
            let len = u64::from(count) * SIZE;
            let end = into.metadata().map_err(file("stat of the image"))?.len();
            return match end.saturating_sub(at).min(len) {
                0 => Ok(()),
                len => Ok(linux::fs::punch(into, at, len)?),
            };
        }
        unseal(&mut unsealer, located, sealed, &mut content)?;
        if run.0 + run.1.len() as u64 != at || run.1.len() >= RUN {
            write(run)?;
            run.0 = at;
        }
        run.1.extend_from_slice(&content);
        Ok(())
    };
    let mut handle = handle;
    fetch::<Failed>(access, batch, |located, sealed| handle(located, sealed, &mut run).map_err(Failed))
        .map_err(|failed| failed.0)?;
    write(&mut run)
}

struct Failed(Error);

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self(error.into())
    }
}
