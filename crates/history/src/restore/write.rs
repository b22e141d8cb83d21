//! The workers that fetch, check and write what is handed out to them.

use super::{Progress, Restore};
use crate::error::{Error, Result, file};
use crate::step::Step;
use crate::writer::SIZE;
use linux::direct::Sink;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vault::format::{BLOCK, Content, Unsealer};
use vault::read::{Access, Located, ReadError, fetch, unseal};

/// Blocks, or runs of zeros, that are read in one go; with what waits, this bounds the memory.
const BATCH: usize = 1024;
/// Bytes that are written in one go.
const RUN: usize = 1 << 20;
/// So many bytes are written at least before it is noted how far it has come: each time waits for the disk.
const NOTED: u64 = 32 << 20;

/// The most blocks that are handed out and not written yet, with this many workers: each has a batch, as many wait, and one is
/// being put together.
pub const fn most_in_flight(workers: usize) -> usize {
    (2 * workers + 1) * BATCH
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Batch {
    number: u64,
    blocks: Vec<Located>,
}

impl Batch {
    fn end(&self) -> u64 {
        self.blocks.last().map_or(0, |located| located.entry.end())
    }
}

/// How far all workers together have come: they finish in any order.
#[derive(Default)]
struct Done {
    /// The number of the first batch that is not finished.
    next: u64,
    /// Finished batches after it, and their ends.
    early: BTreeMap<u64, u64>,
    /// All before this block is written.
    end: u64,
    /// Bytes written when it was last noted, and what `end` was then.
    noted_at: u64,
    noted: u64,
    noting: bool,
}

impl Done {
    fn finish(&mut self, number: u64, end: u64) {
        self.early.insert(number, end);
        while let Some(end) = self.early.remove(&self.next) {
            self.next += 1;
            self.end = end;
        }
    }
}

impl Restore<'_> {
    /// Fetches, checks and writes blocks, with several workers and bounded memory. `blocks` ascend and begin at or after `from`;
    /// the volume is `size` bytes long.
    pub(super) fn write(
        &self,
        mut blocks: impl Iterator<Item = Result<Located>>,
        from: u64,
        size: u64,
    ) -> Result<()> {
        let (progress, workers) = (self.progress, self.workers.max(1));
        progress.position.fetch_max((from * SIZE).min(size), Ordering::Relaxed);
        progress.total.store(size, Ordering::Relaxed);
        let (send, receive) = sync_channel::<Batch>(workers);
        let receive = Mutex::new(receive);
        let done = Mutex::new(Done { end: from, noted: from, ..Done::default() });
        let flying = AtomicU64::new(0);
        let failed: Mutex<Option<Error>> = Mutex::default();
        let fail = |error: Error| {
            lock(&failed).get_or_insert(error);
        };
        let ends = || {
            if progress.stop.load(Ordering::Relaxed) {
                fail(Error::Stopped);
            }
            lock(&failed).is_some()
        };
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let mut worker = Worker::new(self.access, self.into, progress);
                    loop {
                        let batch = lock(&receive).recv();
                        let Ok(batch) = batch else { return };
                        // What is left is taken from the channel all the same, so that nobody waits for room in it.
                        if !ends()
                            && let Err(error) =
                                worker.write(&batch.blocks).and_then(|()| self.finished(&batch, &done, size))
                        {
                            fail(error);
                        }
                        flying.fetch_sub(batch.blocks.len() as u64, Ordering::Relaxed);
                        self.steps.at(Step::RestoreHalf);
                    }
                });
            }
            let mut batch = Vec::with_capacity(BATCH);
            let mut number = 0;
            loop {
                let next = blocks.next();
                match next {
                    Some(Ok(located)) => {
                        if batch.last_mut().is_some_and(|last| grow(last, &located)) {
                            continue;
                        }
                        let now = flying.fetch_add(1, Ordering::Relaxed) + 1;
                        progress.in_flight.fetch_max(now, Ordering::Relaxed);
                        batch.push(located);
                        if batch.len() < BATCH {
                            continue;
                        }
                    }
                    Some(Err(error)) => {
                        fail(error);
                        break;
                    }
                    None if batch.is_empty() => break,
                    None => {}
                }
                let blocks = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                if ends() || send.send(Batch { number, blocks }).is_err() {
                    break;
                }
                number += 1;
            }
            drop(send);
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        self.into.sync_data().map_err(file("write the image"))?;
        progress.position.fetch_max(size, Ordering::Relaxed);
        self.steps.at(Step::RestoreWritten);
        Ok(())
    }

    /// A batch is written; from time to time it is noted how far all of them are durable.
    fn finished(&self, batch: &Batch, done: &Mutex<Done>, size: u64) -> Result<()> {
        let written = self.progress.written.load(Ordering::Relaxed);
        let durable = {
            let mut done = lock(done);
            done.finish(batch.number, batch.end());
            self.progress.position.fetch_max((done.end * SIZE).min(size), Ordering::Relaxed);
            // Where the first of all is the last to finish, there is nothing to note yet.
            let nothing_new = done.end == done.noted || written < done.noted_at + NOTED;
            if self.note.is_none() || done.noting || nothing_new {
                return Ok(());
            }
            done.noting = true;
            (done.noted_at, done.noted) = (written, done.end);
            done.end
        };
        let noted = self.note.map_or(Ok(()), |note| {
            self.into.sync_data().map_err(file("write the image"))?;
            note.keep(self.into, durable)
        });
        lock(done).noting = false;
        noted?;
        self.steps.at(Step::RestoreNoted);
        Ok(())
    }
}

/// Takes a run of zeros into the one before it: to punch a hole costs as much for one block as for many.
fn grow(last: &mut Located, next: &Located) -> bool {
    let (end, begin) = (last.entry.end(), next.entry.block);
    match (&mut last.entry.content, next.entry.content) {
        (Content::Zeros { count }, Content::Zeros { count: more }) if end == begin => {
            let grown = count.checked_add(more);
            *count = grown.unwrap_or(*count);
            grown.is_some()
        }
        _ => false,
    }
}

/// What one worker uses for all its batches.
struct Worker<'a> {
    access: &'a Access,
    into: &'a File,
    sink: Sink<'a>,
    progress: &'a Progress,
    unsealer: Unsealer,
    run: Run,
    content: [u8; BLOCK],
}

/// Blocks that follow each other and are written in one go.
struct Run {
    at: u64,
    bytes: Vec<u8>,
}

impl Run {
    fn write(&mut self, sink: &mut Sink<'_>, progress: &Progress) -> Result<()> {
        if !self.bytes.is_empty() {
            sink.write_all_at(&self.bytes, self.at).map_err(file("write the image"))?;
            progress.written.fetch_add(self.bytes.len() as u64, Ordering::Relaxed);
            self.bytes.clear();
        }
        Ok(())
    }

    /// The block at `at`; what it does not follow is written first.
    fn add(
        &mut self,
        at: u64,
        content: &[u8; BLOCK],
        sink: &mut Sink<'_>,
        progress: &Progress,
    ) -> Result<()> {
        if self.at + self.bytes.len() as u64 != at || self.bytes.len() >= RUN {
            self.write(sink, progress)?;
            self.at = at;
        }
        self.bytes.extend_from_slice(content);
        Ok(())
    }
}

impl<'a> Worker<'a> {
    fn new(access: &'a Access, into: &'a File, progress: &'a Progress) -> Self {
        let run = Run { at: 0, bytes: Vec::with_capacity(RUN) };
        let sink = Sink::new(into);
        Self { access, into, sink, progress, unsealer: access.unsealer(), run, content: [0; BLOCK] }
    }

    fn write(&mut self, batch: &[Located]) -> Result<()> {
        let Self { access, into, sink, progress, unsealer, run, content } = self;
        let len = into.metadata().map_err(file("stat of the image"))?.len();
        let mut each = |located: &Located, sealed: &[u8]| -> Result<()> {
            let at = located.entry.block * SIZE;
            progress.blocks.fetch_add(located.entry.blocks(), Ordering::Relaxed);
            progress.fetched.fetch_add(sealed.len() as u64, Ordering::Relaxed);
            if let Content::Zeros { count } = located.entry.content {
                return match len.saturating_sub(at).min(u64::from(count) * SIZE) {
                    0 => Ok(()),
                    zeros => Ok(linux::fs::punch(into, at, zeros)?),
                };
            }
            unseal(unsealer, located, sealed, content)?;
            run.add(at, content, sink, progress)
        };
        fetch::<Failed>(access, batch, |located, sealed| each(located, sealed).map_err(Failed))
            .map_err(|failed| failed.0)?;
        run.write(sink, progress)
    }
}

struct Failed(Error);

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self(error.into())
    }
}
