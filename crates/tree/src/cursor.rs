//! A place in a tree, held by open directories: going down and up resolves one name at a time and no symlink ever. Knows
//! nothing of entries.
//!
//! However deep the place is, few descriptors are open: those of the root and of the deepest directories. A directory
//! that was closed is found again through its child's `..`, and if the child was moved away meanwhile, from the root.

use crate::entry::Stat;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// So many directories, the deepest, are held open.
const OPEN: usize = 32;

/// A place in a tree.
pub(crate) struct Cursor {
    root: OwnedFd,
    levels: Vec<Level>,
}

/// One directory on the way from the root, without the root.
struct Level {
    name: OsString,
    inode: (u64, u64),
    fd: Option<OwnedFd>,
}

impl Cursor {
    /// At the root, which is opened anew: offsets are not shared with whoever has it open.
    pub(crate) fn new(root: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        Ok(Self { root: open_dir(root, OsStr::new("."))?, levels: Vec::new() })
    }

    /// The root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory here. Without one it is gone, or was moved away while the place was below it.
    pub(crate) fn here(&self) -> Option<BorrowedFd<'_>> {
        match self.levels.last() {
            None => Some(self.root.as_fd()),
            Some(level) => level.fd.as_ref().map(AsFd::as_fd),
        }
    }

    /// Into a directory of that name. What it says of that directory is of the one that was opened.
    pub(crate) fn down(&mut self, name: &OsStr) -> rustix::io::Result<Stat> {
        let fd = open_dir(self.here().ok_or(Errno::NOENT)?, name)?;
        let stat = Stat::of(fd.as_fd())?;
        self.levels.push(Level { name: name.to_owned(), inode: stat.inode(), fd: Some(fd) });
        if let Some(far) = self.levels.len().checked_sub(OPEN + 1) {
            self.levels[far].fd = None;
        }
        Ok(stat)
    }

    /// Out of this directory, into the one it was entered from. At the root it stays.
    pub(crate) fn up(&mut self) {
        let Some(left) = self.levels.pop() else { return };
        let Some(level) = self.levels.last() else { return };
        if level.fd.is_some() {
            return;
        }
        let inode = level.inode;
        let through_child = left.fd.and_then(|fd| reopen(fd.as_fd(), OsStr::new(".."), inode));
        let found = through_child.or_else(|| self.again_from_root());
        if let Some(level) = self.levels.last_mut() {
            level.fd = found;
        }
    }

    /// The directory here, found from the root again, if every directory on the way is the one it was.
    fn again_from_root(&self) -> Option<OwnedFd> {
        let mut dir: Option<OwnedFd> = None;
        for level in &self.levels {
            let parent = dir.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            dir = Some(reopen(parent, &level.name, level.inode)?);
        }
        dir
    }

    /// To the directory of that path from the root, through as many of the open ones as are on the way.
    pub(crate) fn go(&mut self, path: &Path) -> rustix::io::Result<BorrowedFd<'_>> {
        let shared = self.shared(path);
        while self.levels.len() > shared {
            self.up();
        }
        for component in path.components().skip(shared) {
            let Component::Normal(name) = component else { return Err(Errno::INVAL) };
            self.down(name)?;
        }
        self.here().ok_or(Errno::NOENT)
    }

    /// How many leading components of the path are those of this place.
    fn shared(&self, path: &Path) -> usize {
        let names = path.components().map(Component::as_os_str);
        self.levels.iter().zip(names).take_while(|(level, name)| level.name == *name).count()
    }

    /// Forgets the way, so that the next time it is found from the root.
    pub(crate) fn forget(&mut self) {
        self.levels.clear();
    }
}

/// Opens a directory by its name, without following a symlink.
fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    debug_assert!(!name.as_bytes().contains(&b'/'));
    match openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner, or root of the same user namespace, may keep the access time as it is.
        Err(Errno::PERM) => openat(parent, name, flags, Mode::empty()),
        other => other,
    }
}

/// The same, if it is the directory of that inode.
fn reopen(parent: BorrowedFd<'_>, name: &OsStr, inode: (u64, u64)) -> Option<OwnedFd> {
    let fd = open_dir(parent, name).ok()?;
    let same = Stat::of(fd.as_fd()).is_ok_and(|stat| stat.inode() == inode);
    same.then_some(fd)
}
