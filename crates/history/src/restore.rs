//! From a vault to an image file.

use crate::difference::difference;
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
