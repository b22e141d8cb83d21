//! Walks a tree that others are changing, without reading files.
//!
//! The tree is hostile: a container may swap a directory for a symlink while it is walked. So every name is resolved in an
//! open directory, no symlink is followed, and the number of open descriptors does not grow with the depth. Parents come
//! before what is in them, and names in the order of their bytes: the order of `Path`'s own comparison.

use crate::cursor::Cursor;
use crate::entry::{Entry, Kind, Mount, Stat};
use crate::error::{Error, Result, is_gone};
use crate::xattrs::{self, Of, Xattrs};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest path that is walked, in bytes. The kernel has no limit, and someone who makes a million directories within
/// each other must not get all our memory.
pub const LONGEST: usize = 32 * 1024;

/// Directories whose content is left out, by their paths from the root. Other entries are not affected.
pub type Skip = BTreeSet<PathBuf>;

/// The root of a tree, open.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
    shown: PathBuf,
    mount: Mount,
    inode: (u64, u64),
}

impl Tree {
    /// Opens a directory. Symlinks on the way to it are followed, and none from there on.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|errno| Error::on("open", path, errno))?;
        Self::from_fd(fd, path)
    }

    /// An open directory, with the path by which errors call it.
    pub fn from_fd(fd: OwnedFd, shown: &Path) -> Result<Self> {
        let stat = Stat::of(fd.as_fd()).map_err(|errno| Error::on("statx", shown, errno))?;
        if !stat.is_dir() {
            return Err(Error::on("open", shown, Errno::NOTDIR));
        }
        Ok(Self { fd, shown: shown.to_owned(), mount: stat.mount(), inode: stat.inode() })
    }

    /// The path by which errors call it.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// How errors call one of its entries.
    pub fn show(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.shown.clone() } else { self.shown.join(path) }
    }

    pub(crate) fn mount(&self) -> Mount {
        self.mount
    }

    pub(crate) fn inode(&self) -> (u64, u64) {
        self.inode
    }

    pub(crate) fn fails(&self, call: &'static str, path: &Path, errno: Errno) -> Error {
        Error::on(call, &self.show(path), errno)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A walk through a tree: an iterator whose first entry is the root.
///
/// What [`Walk::open`], [`Walk::xattrs`] and [`Walk::parent`] give belongs to the entry that came last, until the next one
/// is asked for. What vanishes before it was looked at is left out; what cannot be read for another reason is an error,
/// after which the walk may go on.
pub struct Walk<'t> {
    tree: &'t Tree,
    skip: &'t Skip,
    cursor: Cursor,
    /// What is still to come in each directory from the root to this one.
    names: Vec<std::vec::IntoIter<OsString>>,
    /// Of the directory here.
    path: PathBuf,
    /// The last entry, if it is a directory to go into.
    into: Option<(OsString, (u64, u64))>,
    begun: bool,
    vanished: u64,
    /// A buffer for names, as directories are read.
    buffer: Vec<MaybeUninit<u8>>,
}

impl<'t> Walk<'t> {
    /// A walk that begins at the root.
    pub fn new(tree: &'t Tree, skip: &'t Skip) -> Result<Self> {
        let cursor = Cursor::new(tree.as_fd()).map_err(|errno| tree.fails("open", Path::new(""), errno))?;
        let buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        let (names, path) = (Vec::new(), PathBuf::new());
        Ok(Self { tree, skip, cursor, names, path, into: None, begun: false, vanished: 0, buffer })
    }

    /// The directory that the last entry is in; the root itself for the root. Without one it was moved away.
    pub fn parent(&self) -> Option<BorrowedFd<'_>> {
        self.cursor.here()
    }

    /// Opens the last entry, a regular file, for reading. `None` if it is not that file any more.
    pub fn open(&self, entry: &Entry) -> Result<Option<File>> {
        let opened = self.parent().ok_or(Errno::NOENT).and_then(|dir| open_file(dir, entry.name()));
        match opened {
            Ok(fd) => match Stat::of(fd.as_fd()) {
                Ok(stat) if stat.inode() == entry.inode() => Ok(Some(File::from(fd))),
                Ok(_) => Ok(None),
                Err(errno) => Err(self.tree.fails("statx", &entry.path, errno)),
            },
            // A socket or a device without a driver is there now.
            Err(Errno::NXIO | Errno::NODEV) => Ok(None),
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) => Err(self.tree.fails("openat", &entry.path, errno)),
        }
    }

    /// The extended attributes of the last entry. `None` if it is gone.
    pub fn xattrs(&self, entry: &Entry) -> Result<Option<Xattrs>> {
        let Some(dir) = self.parent() else { return Ok(None) };
        let of = if entry.path.as_os_str().is_empty() { Of::Open(dir) } else { Of::Named(dir, entry.name()) };
        match xattrs::read(of) {
            Ok(mut found) => {
                // By now something of another kind may have the name, and its attributes are none that this one could have.
                found.retain(|name, _| can_have(&entry.kind, name));
                Ok(Some(found))
            }
            Err(failure) if is_gone(failure.errno) => Ok(None),
            Err(failure) => Err(failure.on(&self.tree.show(&entry.path))),
        }
    }

    /// How many entries, or contents of directories, were gone or replaced when they were looked at.
    pub fn vanished(&self) -> u64 {
        self.vanished
    }

    fn step(&mut self) -> Result<Option<Entry>> {
        if !self.begun {
            self.begun = true;
            return self.root().map(Some);
        }
        if let Some((name, inode)) = self.into.take() {
            self.enter(&name, inode)?;
        }
        while let Some(names) = self.names.last_mut() {
            let Some(name) = names.next() else {
                self.leave();
                continue;
            };
            let Some(dir) = self.cursor.here() else {
                self.vanished += 1 + names.len() as u64;
                self.leave();
                continue;
            };
            let path = self.path.join(&name);
            if path.as_os_str().len() > LONGEST {
                let start = self.tree.show(&path.components().take(4).collect::<PathBuf>());
                return Err(Error::TooDeep { start });
            }
            let looked = Stat::at(dir, &name).and_then(|stat| stat.entry(&path, self.tree.mount, dir, &name));
            match looked {
                Ok(entry) => {
                    if entry.is_dir() && !entry.foreign && !self.skip.contains(&entry.path) {
                        self.into = Some((name, entry.inode()));
                    }
                    return Ok(Some(entry));
                }
                Err(errno) if is_gone(errno) => self.vanished += 1,
                Err(errno) => return Err(self.tree.fails("statx", &path, errno)),
            }
        }
        Ok(None)
    }

    fn root(&mut self) -> Result<Entry> {
        let (dir, path, none) = (self.cursor.root(), PathBuf::new(), OsStr::new(""));
        let entry = Stat::at(dir, none).and_then(|stat| stat.entry(&path, self.tree.mount, dir, none));
        let entry = entry.map_err(|errno| self.tree.fails("statx", &path, errno))?;
        let names = if self.skip.contains(&path) { Vec::new() } else { self.list(&path)? };
        self.names.push(names.into_iter());
        Ok(entry)
    }

    /// Into the directory that was the last entry, if it still is.
    fn enter(&mut self, name: &OsStr, inode: (u64, u64)) -> Result<()> {
        let path = self.path.join(name);
        match self.cursor.down(name) {
            // Another one, or something was mounted there a moment ago.
            Ok(stat) if stat.inode() != inode || stat.is_foreign(self.tree.mount) => {
                self.cursor.up();
                self.vanished += 1;
                return Ok(());
            }
            Ok(_) => {}
            Err(errno) if is_gone(errno) => {
                self.vanished += 1;
                return Ok(());
            }
            Err(errno) => return Err(self.tree.fails("openat", &path, errno)),
        }
        match self.list(&path) {
            Ok(names) => {
                self.names.push(names.into_iter());
                self.path = path;
                Ok(())
            }
            Err(error) => {
                self.cursor.up();
                Err(error)
            }
        }
    }

    fn leave(&mut self) {
        self.names.pop();
        self.path.pop();
        self.cursor.up();
    }

    /// The names in the directory here, in order.
    fn list(&mut self, path: &Path) -> Result<Vec<OsString>> {
        let Some(dir) = self.cursor.here() else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        let mut listing = RawDir::new(dir, &mut self.buffer);
        while let Some(item) = listing.next() {
            match item {
                Ok(item) => {
                    let name = item.file_name().to_bytes();
                    if name != b"." && name != b".." {
                        names.push(OsStr::from_bytes(name).to_owned());
                    }
                }
                // It was removed while it was open.
                Err(errno) if is_gone(errno) => break,
                Err(errno) => return Err(self.tree.fails("getdents64", path, errno)),
            }
        }
        // A directory that changes while it is read may give a name twice.
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// Opens a file to read it: never a symlink, and without waiting for whoever may be at the other end of a pipe.
fn open_file(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// Whether an entry of this kind can have an attribute of this name (xattr(7), acl(5)).
fn can_have(kind: &Kind, name: &OsStr) -> bool {
    let name = name.as_bytes();
    match kind {
        Kind::Directory => true,
        _ if name == b"system.posix_acl_default" => false,
        Kind::File => true,
        Kind::Symlink(_) if name == b"system.posix_acl_access" => false,
        _ => !name.starts_with(b"user."),
    }
}

/// How much a tree is, without reading it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Allocated bytes, each inode once. A copy takes about as many.
    pub bytes: u64,
    /// Entries: a file for each of its names, and the root.
    pub entries: u64,
    /// Regular files, each inode once.
    pub files: u64,
}

/// Says how much a tree is. It may be in use: then that is about what it was.
pub fn estimate(tree: &Tree, skip: &Skip) -> Result<Estimate> {
    let mut sum = Estimate::default();
    let mut linked = std::collections::HashSet::new();
    for entry in Walk::new(tree, skip)? {
        let entry = entry?;
        sum.entries += 1;
        let again = entry.nlink > 1 && !entry.is_dir() && !linked.insert(entry.inode());
        if !again {
            sum.bytes += entry.blocks * 512;
            sum.files += u64::from(entry.kind == Kind::File);
        }
    }
    Ok(sum)
}
