//! From a vault to an image file.
//!
//! Blocks are handed out in ascending order to a few workers. How far they all have come is said in a [`Progress`], and where the
//! caller gives a [`Note`], it is kept beside the image, so that an interrupted restore goes on from there.

mod note;
mod write;

pub use note::Note;
pub use write::most_in_flight;

use crate::difference::difference;
use crate::error::{Error, Result, file};
use crate::step::Steps;
use crate::writer::SIZE;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vault::Segment;
use vault::read::{Access, Located, Merged};

/// What is told while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Blocks written or found as they should be.
    pub blocks: AtomicU64,
    /// Bytes written.
    pub written: AtomicU64,
    /// Bytes of blocks read from the vault, as they are sealed there.
    pub fetched: AtomicU64,
    /// The end of what is done, in bytes of the volume; only grows.
    pub position: AtomicU64,
    /// What `position` will be at the end: the length of the volume. 0: not known yet.
    pub total: AtomicU64,
    /// What `position` was when this run began: the work of one that was interrupted.
    pub resumed: AtomicU64,
    /// The most blocks that were handed out and not written yet, at any time.
    pub in_flight: AtomicU64,
    /// Set by who wants it to end soon.
    pub stop: AtomicBool,
}

/// One restore: from where, into what, and who is told.
#[derive(Clone, Copy)]
pub struct Restore<'a> {
    /// The stream.
    pub access: &'a Access,
    /// The image.
    pub into: &'a File,
    /// Threads that fetch, check and write.
    pub workers: usize,
    /// Who is told.
    pub progress: &'a Progress,
    /// Where tests end the process.
    pub steps: &'a Steps,
    /// Where is kept how far it has come. `None`: nowhere, as it can begin anew.
    pub note: Option<&'a Note>,
}

/// The chain of a point.
///
/// # Errors
/// [`Error::NoWay`] with what is missing.
pub fn chain_to(segments: &[Segment], point: u64) -> Result<Vec<&Segment>> {
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

impl Restore<'_> {
    /// Writes a point into an image that holds nothing else: it is emptied, unless the note says that this point is half in it.
    /// Every block is checked.
    ///
    /// # Errors
    /// When something can't be read, is damaged, or can't be written; what is noted stays.
    pub fn point(&self, chain: &[&Segment]) -> Result<()> {
        let size = volume_size(self.access, chain)?;
        let from = self.resume()?;
        if from == 0 {
            self.into.set_len(0).map_err(file("empty the image"))?;
        }
        self.whole(chain, size, from, true)
    }

    fn whole(&self, chain: &[&Segment], size: u64, from: u64, zeroed: bool) -> Result<()> {
        self.into.set_len(size).map_err(file("set the length of the image"))?;
        let wanted = move |located: &Located| {
            located.entry.block * SIZE < size && !(zeroed && located.entry.sealed_len() == 0)
        };
        let mut merged = Merged::new(self.access, chain);
        merged.seek(from)?;
        let blocks = merged
            .map(|located| Ok(located?))
            .filter(move |located: &Result<Located>| located.as_ref().map_or(true, wanted));
        self.write(blocks, from, size)
    }

    /// Writes into an image that has the point of the chain `now` the blocks in which the point of the chain `then` differs.
    /// May be interrupted, and done again.
    ///
    /// # Errors
    /// When something can't be read, is damaged, or can't be written; what is noted stays.
    pub fn difference(&self, now: &[&Segment], then: &[&Segment]) -> Result<()> {
        let size = volume_size(self.access, then)?;
        let from = self.resume()?;
        let is = self.into.metadata().map_err(file("stat of the image"))?.len();
        if is < size {
            self.into.set_len(size).map_err(file("set the length of the image"))?;
        }
        let end = size.max(is);
        let wanted = move |located: &Located| located.entry.block * SIZE < end && located.entry.end() > from;
        let blocks =
            difference(self.access, now, then).filter(move |located| located.as_ref().map_or(true, wanted));
        self.write(blocks, from, end)
    }

    /// The block from which to go on.
    fn resume(&self) -> Result<u64> {
        let from = self.note.map_or(Ok(0), |note| note.read(self.into))?;
        self.progress.resumed.store(from * SIZE, Ordering::Relaxed);
        Ok(from)
    }
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
    Restore { access, into, workers, progress, steps, note: None }.whole(chain, size, 0, zeroed)
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
    Restore { access, into, workers, progress, steps, note: None }.difference(now, then)
}
