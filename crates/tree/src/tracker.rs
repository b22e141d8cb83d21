//! What a tree was at the last look, to tell what changed since. In memory only, and it reads no file itself: who walks the
//! tree asks it about every entry, reads what it says must be read, and tells it what was found.
//!
//! When is an unread file surely unchanged? Its size, times and inode must be what was noted, and that is not enough:
//! - Time stamps have the grain of the kernel's tick (1 to 10 ms), so a file may change after it was read without getting
//!   another time.
//! - A write through a mapping to a page that is dirty already sets no time. Writing the page out makes it read-only, and
//!   the next write to it sets the times again. So a look begins with `syncfs(2)`, if another look is to follow.
//! - A direct write sets the times when it begins, and its data may arrive later, after the file was read. `syncfs(2)` does
//!   not wait for it.
//!
//! So a file whose times were later than the start of that `syncfs(2)` less [`Tracker::SETTLING`] is not settled: its content
//! is looked at again in the next look. The same goes for file systems whose times do not tell (see `trust`).

use crate::entry::{Entry, Kind, Time};
use crate::error::Result;
use crate::marks::{Hashing, Marks};
use crate::trust;
use crate::walk::Tree;
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is known of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There was nothing of that path.
    New,
    /// It is surely what it was: content, metadata and extended attributes.
    Unchanged,
    /// It may have changed, in any way.
    Suspect(Known),
}

/// What was noted of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// It was the same inode.
    pub same_inode: bool,
    /// The marks of its content, if it was a file and its content was noted.
    pub marks: Option<Arc<Marks>>,
}

/// What a tree was at the last look.
#[derive(Debug)]
pub struct Tracker {
    hashing: Hashing,
    settling: Duration,
    notes: HashMap<Arc<OsStr>, Note>,
    /// Counts looks.
    look: u32,
    /// What is older than this is settled. `None` if nothing noted in this look is.
    settled: Option<Time>,
}

/// About 90 bytes with its place in the table, without the path and the marks.
#[derive(Debug)]
struct Note {
    inode: (u64, u64),
    size: u64,
    mtime: (i64, u32),
    ctime_nanoseconds: u32,
    ctime_seconds: i64,
    /// The look that it was last seen in.
    seen: u32,
    sort: u8,
    settled: bool,
    marks: Option<Arc<Marks>>,
}

impl Tracker {
    /// What was written so shortly before a look is looked at again in the next. Longer than any time stamp's grain by far, for
    /// the sake of direct writes in flight: on an overloaded disk they take seconds. It costs another look at what was
    /// written lately, which an application in use writes again anyway.
    pub const SETTLING: Duration = Duration::from_secs(10);

    /// It knows nothing yet.
    pub fn new() -> Self {
        Self::with_settling(Self::SETTLING)
    }

    /// With another settling time, no less than 20 ms: for tests, and for sources that nobody writes around the page cache.
    pub fn with_settling(settling: Duration) -> Self {
        Self {
            hashing: Hashing::new(),
            settling: settling.max(Duration::from_millis(20)),
            notes: HashMap::new(),
            look: 0,
            settled: None,
        }
    }

    /// How its marks are made.
    pub fn hashing(&self) -> Hashing {
        self.hashing
    }

    /// Begins a look: notes the time and syncs the tree's file system. Walk after this, not before.
    ///
    /// The time is that of the kernel's wall clock, which file times are made of. No other clock can be compared with them,
    /// so this one is not handed in. If it is turned back, files look unsettled; if it is turned ahead, nothing happens:
    /// what is written after that has later times.
    pub fn begin(&mut self, tree: &Tree) -> Result<()> {
        let now = clock_gettime(ClockId::Realtime);
        rustix::fs::syncfs(tree).map_err(|errno| tree.fails("syncfs", Path::new(""), errno))?;
        self.look += 1;
        self.settled = trust::are_times_trusted(tree).then(|| before(now.tv_sec, now.tv_nsec, self.settling));
        Ok(())
    }

    /// Begins a look that nothing is written after, such as one while all writers are paused. It needs no sync, which would
    /// last as long as the disk takes for what everybody wrote: what changed until now shows by the sync of the look
    /// before. In return, what is noted in this look is not settled.
    pub fn begin_last(&mut self) {
        self.look += 1;
        self.settled = None;
    }

    /// What is known of an entry that was found in this look.
    pub fn judge(&mut self, entry: &Entry) -> Verdict {
        let Some(note) = self.notes.get_mut(entry.path.as_os_str()) else { return Verdict::New };
        note.seen = self.look;
        if note.settled && note.is_of(entry) {
            return Verdict::Unchanged;
        }
        let same_inode = note.inode == entry.inode() && note.sort == sort(&entry.kind);
        Verdict::Suspect(Known { same_inode, marks: note.marks.clone() })
    }

    /// Notes what an entry is: as it was found before it was read, and its marks as they were read. With `steady` false
    /// something is known to have changed in between, and it is looked at again next time.
    pub fn note(&mut self, entry: &Entry, marks: Option<Arc<Marks>>, steady: bool) {
        let old = self.settled.is_some_and(|settled| entry.mtime < settled && entry.ctime < settled);
        let note = Note {
            inode: entry.inode(),
            size: entry.size,
            mtime: (entry.mtime.seconds, entry.mtime.nanoseconds),
            ctime_seconds: entry.ctime.seconds,
            ctime_nanoseconds: entry.ctime.nanoseconds,
            seen: self.look,
            sort: sort(&entry.kind),
            // A foreign file's file system was not synced, and may be one whose times tell nothing.
            settled: steady && old && !entry.foreign,
            marks,
        };
        match self.notes.get_mut(entry.path.as_os_str()) {
            Some(known) => *known = note,
            None => {
                self.notes.insert(Arc::from(entry.path.as_os_str()), note);
            }
        }
    }

    /// The marks that were noted of a path.
    pub fn marks(&self, path: &Path) -> Option<Arc<Marks>> {
        self.notes.get(path.as_os_str())?.marks.clone()
    }

    /// Knows nothing of a path any more. Says whether it did.
    pub fn forget(&mut self, path: &Path) -> bool {
        self.notes.remove(path.as_os_str()).is_some()
    }

    /// Knows nothing any more of what is below a path.
    pub(crate) fn forget_below(&mut self, path: &Path) {
        self.notes.retain(|noted, _| Path::new(noted) == path || !Path::new(noted).starts_with(path));
    }

    /// Whether an entry is what was noted of it, settled or not.
    pub fn is_as_noted(&self, entry: &Entry) -> bool {
        self.notes.get(entry.path.as_os_str()).is_some_and(|note| note.is_of(entry))
    }

    /// Whether anything is known of a path.
    pub fn knows(&self, path: &Path) -> bool {
        self.notes.contains_key(path.as_os_str())
    }

    /// When the names in a directory had changed, as it was noted.
    pub(crate) fn dir_mtime(&self, path: &Path) -> Option<Time> {
        let note = self.notes.get(path.as_os_str()).filter(|note| note.sort == sort(&Kind::Directory))?;
        let (seconds, nanoseconds) = note.mtime;
        Some(Time { seconds, nanoseconds })
    }

    /// Whether a path was noted as a file of that inode, and was not seen in this look: it may have got another name.
    pub(crate) fn may_be_moved(&self, path: &OsStr, inode: (u64, u64)) -> bool {
        let note = self.notes.get(path);
        note.is_some_and(|note| {
            note.inode == inode && note.seen != self.look && note.sort == sort(&Kind::File)
        })
    }

    /// Ends a look: forgets what was neither judged nor noted in it and gives those paths, in the order of a walk. Only
    /// for a walk that came to its end.
    pub fn finish(&mut self) -> Vec<PathBuf> {
        let mut gone: Vec<PathBuf> = self
            .notes
            .extract_if(|_, note| note.seen != self.look)
            .map(|(path, _)| PathBuf::from(&*path))
            .collect();
        gone.sort_unstable();
        gone
    }

    /// A path of each file that is known, by its inode.
    pub(crate) fn inodes(&self) -> HashMap<(u64, u64), Arc<OsStr>> {
        let files = self.notes.iter().filter(|(_, note)| note.sort == sort(&Kind::File));
        files.map(|(path, note)| (note.inode, path.clone())).collect()
    }

    /// How many entries are known.
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new()
    }
}

impl Note {
    fn is_of(&self, entry: &Entry) -> bool {
        let ctime = (self.ctime_seconds, self.ctime_nanoseconds);
        self.inode == entry.inode()
            && self.size == entry.size
            && self.mtime == (entry.mtime.seconds, entry.mtime.nanoseconds)
            && ctime == (entry.ctime.seconds, entry.ctime.nanoseconds)
            && self.sort == sort(&entry.kind)
    }
}

/// One number for each kind.
fn sort(kind: &Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink(_) => 2,
        Kind::Fifo => 3,
        Kind::Socket => 4,
        Kind::CharDevice { .. } => 5,
        Kind::BlockDevice { .. } => 6,
    }
}

/// So much before a time.
fn before(seconds: i64, nanoseconds: i64, by: Duration) -> Time {
    let all = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds) - by.as_nanos() as i128;
    Time { seconds: all.div_euclid(1_000_000_000) as i64, nanoseconds: all.rem_euclid(1_000_000_000) as u32 }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
