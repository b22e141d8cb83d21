//! Brings a directory to what another one is, pass after pass while that one is in use, and at last while it is at rest.
//!
//! What the destination holds is known from the passes before: nobody else may write there while a mirror lives. What is
//! not known (the first pass finds something, a pass was stopped) is compared by content. So however often it was stopped,
//! the end of a pass without an error finds the destination as the source was seen.

mod copy;
mod meta;
mod pass;
mod place;

use crate::compare::{Difference, compare};
use crate::error::{Error, Result};
use crate::marks::Marks;
use crate::tracker::Tracker;
use crate::walk::{Skip, Tree, Walk, estimate};
use place::Place;
use rustix::fs::fstatvfs;
use std::collections::{BTreeSet, HashMap};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How a tree is copied.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directories whose content is neither copied nor touched at the destination.
    pub skip: Skip,
    /// See [`Tracker::SETTLING`].
    pub settling: Duration,
    /// How many threads copy contents.
    pub threads: NonZero<usize>,
}

impl Default for Options {
    /// All of the tree; as many threads as there are processors, but no more than four.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let threads = cores.min(const { NonZero::new(4).unwrap() });
        Self { skip: Skip::new(), settling: Tracker::SETTLING, threads }
    }
}

/// How far a pass is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries of the source that were looked at.
    pub entries: u64,
    /// Files whose content was looked at, or is being.
    pub files_looked_at: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes written to the destination.
    pub bytes_written: u64,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Entries of the source, its root included.
    pub entries: u64,
    /// Files whose content was looked at.
    pub files_looked_at: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes written to the destination.
    pub bytes_written: u64,
    /// Names removed from the destination.
    pub removed: u64,
    /// Files that changed while they were read. They come again in the next pass.
    pub unsettled: u64,
    /// How long it took.
    pub took: Duration,
}

/// A source, a destination, and what the destination holds of the source.
#[derive(Debug)]
pub struct Mirror {
    source: Tree,
    dest: Place,
    options: Options,
    tracker: Tracker,
    /// The contents of files at the destination, by inode, that have several names there or had. A note of one name does
    /// not know what was written through another. `None`: not known.
    shared: HashMap<u64, Option<Arc<Marks>>>,
    /// Directories at the destination whose time must be set again.
    touched: BTreeSet<PathBuf>,
    /// All that is at the destination is known: the last pass came to its end.
    complete: bool,
}

impl Mirror {
    /// A mirror of a directory in another. The source is never written. The destination may hold anything: what is the
    /// same as in the source is kept, everything else goes.
    pub fn new(source: Tree, dest: Tree, options: Options) -> Result<Self> {
        let nested = place::is_within(&dest, &source)? || place::is_within(&source, &dest)?;
        if nested {
            let (source_path, dest_path) = (source.shown().to_owned(), dest.shown().to_owned());
            return Err(Error::Nested { source_path, dest_path });
        }
        let tracker = Tracker::with_settling(options.settling);
        let (shared, touched) = (HashMap::new(), BTreeSet::new());
        Ok(Self { source, dest: Place::new(dest)?, options, tracker, shared, touched, complete: false })
    }

    /// Brings the destination to what the source is, while the source may be in use. What changes meanwhile may be copied as
    /// it was, as it is or in parts of both: the next pass looks at it again.
    ///
    /// `progress` is called about ten times a second. After an error, and after `cancel` was set, another pass goes on.
    pub fn pass(&mut self, cancel: &AtomicBool, progress: &mut dyn FnMut(Progress)) -> Result<Pass> {
        self.run(false, cancel, progress)
    }

    /// The same while the source is at rest: afterwards the destination is exactly the source. If anything of the source
    /// changed from its beginning to its end, that is [`Error::StillChanging`].
    ///
    /// Unlike a live pass it does not wait for the source's disk. What it had to look at, a further pass looks at again.
    ///
    /// What does not show: a write through a mapping to a page that was dirty already when the pass began. Who pauses all
    /// writers has none.
    pub fn last_pass(&mut self, cancel: &AtomicBool, progress: &mut dyn FnMut(Progress)) -> Result<Pass> {
        let done = self.run(true, cancel, progress)?;
        self.check_rest(done.unsettled)?;
        Ok(done)
    }

    /// Reads both sides, and says in what they differ: nothing, after a last pass.
    pub fn differences(&self) -> Result<Vec<Difference>> {
        compare(&self.source, self.dest.tree(), &self.options.skip)
    }

    /// Writes all of the destination's file system to its disk. Nothing that was copied is durable before.
    pub fn sync(&self) -> Result<()> {
        let tree = self.dest.tree();
        rustix::fs::syncfs(tree).map_err(|errno| tree.fails("syncfs", Path::new(""), errno))
    }

    fn run(
        &mut self,
        at_rest: bool,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Pass> {
        let was_complete = self.complete;
        let mut done = pass::run(self, at_rest, cancel, progress);
        if was_complete && matches!(done, Err(Error::NoSpace { .. })) {
            // A pass after one that was stopped first removes what is not in the source any more.
            done = pass::run(self, at_rest, cancel, progress);
        }
        done.map_err(|error| self.measured(error))
    }

    /// Looks whether everything is as the pass that just ended had found it.
    fn check_rest(&self, unsettled: u64) -> Result<()> {
        let (mut same, mut changed, mut first) = (0u64, 0u64, None);
        for entry in Walk::new(&self.source, &self.options.skip)? {
            let entry = entry?;
            if self.tracker.is_as_noted(&entry) {
                same += 1;
            } else {
                changed += 1;
                first.get_or_insert(entry.path);
            }
        }
        let gone = (self.tracker.len() as u64).saturating_sub(same + changed);
        let count = (changed + gone).max(unsettled);
        if count == 0 {
            return Ok(());
        }
        Err(Error::StillChanging { path: self.source.show(&first.unwrap_or_default()), count })
    }

    /// Says how much room is missing, if it is room that an error is about.
    fn measured(&self, error: Error) -> Error {
        let Error::NoSpace { call, path, .. } = error else { return error };
        let dest = self.dest.tree();
        let sum = |tree| estimate(tree, &self.options.skip).map(|sum| sum.bytes).ok();
        let free = fstatvfs(dest).map(|stat| stat.f_bavail * stat.f_frsize).ok();
        let missing =
            || sum(&self.source)?.checked_sub(sum(dest)?)?.checked_sub(free?).filter(|&bytes| bytes > 0);
        Error::NoSpace { call, path, missing: missing() }
    }
}
