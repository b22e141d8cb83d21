//! The destination's names: makes, links, renames and removes entries, always in open directories and never through a
//! symlink. Knows nothing of contents, and of the source only what an entry says.

use super::meta::refused;
use crate::cursor::Cursor;
use crate::entry::{Entry, Kind, Stat};
use crate::error::{Error, Result, is_gone};
use crate::walk::{Skip, Tree, Walk};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The destination.
pub(super) struct Place {
    tree: Tree,
    at: Cursor,
    /// A second place, for what needs two.
    other: Cursor,
}

/// A file at the destination, open for reading and writing.
pub(super) struct Opened {
    pub file: File,
    pub inode: u64,
    pub size: u64,
    pub names: u32,
    /// It was made just now: there is nothing in it.
    pub fresh: bool,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.tree).finish()
    }
}

impl Place {
    pub(super) fn new(tree: Tree) -> Result<Self> {
        let root = || Cursor::new(tree.as_fd()).map_err(|errno| tree.fails("open", Path::new(""), errno));
        let (at, other) = (root()?, root()?);
        Ok(Self { tree, at, other })
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The directory of that path, open.
    pub(super) fn dir(&mut self, path: &Path) -> Result<BorrowedFd<'_>> {
        let Self { tree, at, .. } = self;
        at.go(path).map_err(|errno| refused(tree, "openat", path, errno))
    }

    /// The directory that an entry is in, open, and its name there.
    pub(super) fn parent<'p>(&mut self, path: &'p Path) -> Result<(BorrowedFd<'_>, &'p OsStr)> {
        let (dir, name) = split(path);
        Ok((self.dir(dir)?, name))
    }

    /// What is there of that name.
    pub(super) fn stat(&mut self, path: &Path) -> Result<Option<Stat>> {
        let (dir, name) = self.parent(path)?;
        match Stat::at(dir, name) {
            Ok(stat) => Ok(Some(stat)),
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) => Err(refused(&self.tree, "statx", path, errno)),
        }
    }

    /// Makes a directory unless it is there, instead of whatever else is there. Says whether it was made.
    pub(super) fn make_dir(&mut self, path: &Path, skip: &Skip) -> Result<bool> {
        if path.as_os_str().is_empty() {
            return Ok(false);
        }
        let (dir, name) = self.parent(path)?;
        match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(refused(&self.tree, "mkdirat", path, errno)),
        }
        if let Some(stat) = self.stat(path)?
            && stat.is_dir()
        {
            if stat.is_foreign(self.tree.mount()) && !skip.contains(path) {
                return Err(Error::MountPoint { path: self.tree.show(path) });
            }
            return Ok(false);
        }
        self.remove(path)?;
        let (dir, name) = self.parent(path)?;
        rustix::fs::mkdirat(dir, name, Mode::RWXU)
            .map_err(|errno| refused(&self.tree, "mkdirat", path, errno))?;
        Ok(true)
    }

    /// Makes a regular file, if there is nothing of that name.
    pub(super) fn create(&mut self, path: &Path) -> Result<Option<Opened>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (dir, name) = self.parent(path)?;
        match rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => self.opened(path, fd, true),
            Err(Errno::EXIST) => Ok(None),
            Err(errno) => Err(refused(&self.tree, "openat", path, errno)),
        }
    }

    /// Opens the regular file of that name, if there is one.
    pub(super) fn open(&mut self, path: &Path) -> Result<Option<Opened>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let (dir, name) = self.parent(path)?;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => self.opened(path, fd, false),
            // A directory, a socket, a device without a driver.
            Err(Errno::ISDIR | Errno::NXIO | Errno::NODEV) => Ok(None),
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) => Err(refused(&self.tree, "openat", path, errno)),
        }
    }

    fn opened(&self, path: &Path, fd: OwnedFd, fresh: bool) -> Result<Option<Opened>> {
        let stat = Stat::of(fd.as_fd()).map_err(|errno| refused(&self.tree, "statx", path, errno))?;
        let regular = stat.file_type() == FileType::RegularFile;
        let (inode, size, names) = (stat.inode().1, stat.size(), stat.names());
        Ok(regular.then(|| Opened { file: File::from(fd), inode, size, names, fresh }))
    }

    /// Makes a symlink, a pipe, a socket or a device.
    pub(super) fn make_node(&mut self, entry: &Entry) -> Result<()> {
        let (dir, name) = self.parent(&entry.path)?;
        let node = |sort, rdev| rustix::fs::mknodat(dir, name, sort, Mode::RUSR | Mode::WUSR, rdev);
        let (call, made) = match &entry.kind {
            Kind::Symlink(target) => ("symlinkat", rustix::fs::symlinkat(target, dir, name)),
            Kind::Fifo => ("mknodat", node(FileType::Fifo, 0)),
            Kind::Socket => ("mknodat", node(FileType::Socket, 0)),
            Kind::CharDevice { rdev } => ("mknodat", node(FileType::CharacterDevice, *rdev)),
            Kind::BlockDevice { rdev } => ("mknodat", node(FileType::BlockDevice, *rdev)),
            Kind::File | Kind::Directory => ("mknodat", Err(Errno::INVAL)),
        };
        made.map_err(|errno| refused(&self.tree, call, &entry.path, errno))
    }

    /// The kind of what is there, with its inode and how many names that has.
    pub(super) fn node(&mut self, path: &Path) -> Result<Option<Entry>> {
        let home = self.tree.mount();
        let (dir, name) = self.parent(path)?;
        match Stat::at(dir, name).and_then(|stat| stat.entry(path, home, dir, name)) {
            Ok(entry) => Ok(Some(entry)),
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) => Err(refused(&self.tree, "statx", path, errno)),
        }
    }

    /// Gives an entry another name. Says whether there was such an entry.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<bool> {
        self.two(from, to, "renameat", |from_dir, from, to_dir, to| {
            rustix::fs::renameat(from_dir, from, to_dir, to)
        })
    }

    /// Gives an inode one more name.
    pub(super) fn link(&mut self, from: &Path, to: &Path) -> Result<()> {
        let linked = self.two(from, to, "linkat", |from_dir, from, to_dir, to| {
            rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())
        })?;
        if linked { Ok(()) } else { Err(refused(&self.tree, "linkat", from, Errno::NOENT)) }
    }

    fn two(
        &mut self,
        from: &Path,
        to: &Path,
        call: &'static str,
        act: impl Fn(BorrowedFd<'_>, &OsStr, BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> Result<bool> {
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let Self { tree, at, other } = self;
        let from_dir = match other.go(from_dir) {
            Ok(dir) => dir,
            Err(errno) if is_gone(errno) => {
                other.forget();
                return Ok(false);
            }
            Err(errno) => return Err(refused(tree, "openat", from, errno)),
        };
        let to_dir = at.go(to_dir).map_err(|errno| refused(tree, "openat", to, errno))?;
        match act(from_dir, from_name, to_dir, to_name) {
            Ok(()) => Ok(true),
            Err(errno) if is_gone(errno) => Ok(false),
            Err(errno) => Err(refused(tree, call, to, errno)),
        }
    }

    /// Removes what is there with all that is in it, but nothing that is mounted there. Says how many names that were.
    pub(super) fn remove(&mut self, path: &Path) -> Result<u64> {
        // Whose parent was removed with it is not there.
        let (dir, name) = match self.at.go(split(path).0) {
            Ok(dir) => (dir, split(path).1),
            Err(errno) if is_gone(errno) => {
                self.at.forget();
                return Ok(0);
            }
            Err(errno) => return Err(refused(&self.tree, "openat", path, errno)),
        };
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => return Ok(1),
            Err(errno) if is_gone(errno) => return Ok(0),
            // What POSIX and Linux say of directories; a file that is immutable fails again below.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(refused(&self.tree, "unlinkat", path, errno)),
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return self.remove_full(path),
            Err(Errno::BUSY) => return Err(Error::MountPoint { path: self.tree.show(path) }),
            Err(Errno::NOTDIR) => return Err(refused(&self.tree, "unlinkat", path, Errno::PERM)),
            Err(errno) => return Err(refused(&self.tree, "unlinkat", path, errno)),
        }
        self.left();
        Ok(1)
    }

    /// Removes a directory that is not empty.
    fn remove_full(&mut self, path: &Path) -> Result<u64> {
        let (shown, all) = (self.tree.show(path), Skip::new());
        let fd = self.dir(path)?.try_clone_to_owned().map_err(|error| Error::on("dup", &shown, error))?;
        let tree = Tree::from_fd(fd, &shown)?;
        if tree.mount() != self.tree.mount() {
            return Err(Error::MountPoint { path: shown });
        }
        let mut within = Vec::new();
        for entry in Walk::new(&tree, &all)? {
            let entry = entry?;
            if entry.foreign {
                return Err(Error::MountPoint { path: tree.show(&entry.path) });
            }
            within.push((entry.is_dir(), entry.path));
        }
        let mut cursor = Cursor::new(tree.as_fd()).map_err(|errno| Error::on("open", &shown, errno))?;
        for (is_dir, inner) in within.iter().rev().filter(|(_, inner)| !inner.as_os_str().is_empty()) {
            let flags = if *is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let (dir, name) = split(inner);
            let removed = cursor.go(dir).and_then(|dir| rustix::fs::unlinkat(dir, name, flags));
            removed.map_err(|errno| refused(&tree, "unlinkat", inner, errno))?;
        }
        let (dir, name) = self.parent(path)?;
        rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
            .map_err(|errno| refused(&self.tree, "unlinkat", path, errno))?;
        self.left();
        Ok(within.len() as u64)
    }

    /// A directory went: neither place may be below it.
    fn left(&mut self) {
        self.at.forget();
        self.other.forget();
    }
}

/// The path of the directory that an entry is in, and its name there.
fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
}

/// Whether a directory is another one or lies within it, on the same mount.
pub(super) fn is_within(inner: &Tree, outer: &Tree) -> Result<bool> {
    let fails = |errno| inner.fails("openat", Path::new(".."), errno);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (mut last, mut inode) = (None::<OwnedFd>, inner.inode());
    loop {
        if inode == outer.inode() {
            return Ok(true);
        }
        let dir = last.as_ref().map_or(inner.as_fd(), AsFd::as_fd);
        let up = rustix::fs::openat(dir, "..", flags, Mode::empty()).map_err(fails)?;
        let stat = Stat::of(up.as_fd()).map_err(fails)?;
        // The root of all, or of what is mounted: what is above does not see what is below.
        if stat.inode() == inode || stat.is_foreign(inner.mount()) {
            return Ok(false);
        }
        inode = stat.inode();
        last = Some(up);
    }
}

/// The paths at the destination that are not known, from the top: what is below one is not among them.
pub(super) fn unknown(tree: &Tree, skip: &Skip, known: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in Walk::new(tree, skip)? {
        let path = entry?.path;
        let below = found.last().is_some_and(|top| path.starts_with(top));
        if !below && !known(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The paths at the destination that the source has no entry of, from the top.
pub(super) fn missing(source: &Tree, dest: &Tree, skip: &Skip) -> Result<Vec<PathBuf>> {
    let mut wanted = Walk::new(source, skip)?;
    let mut next = wanted.next().transpose()?;
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in Walk::new(dest, skip)? {
        let path = entry?.path;
        if found.last().is_some_and(|top| path.starts_with(top)) {
            continue;
        }
        while next.as_ref().is_some_and(|wanted| wanted.path < path) {
            next = wanted.next().transpose()?;
        }
        if next.as_ref().is_none_or(|wanted| wanted.path != path) {
            found.push(path);
        }
    }
    Ok(found)
}
