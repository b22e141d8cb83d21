//! One entry of a tree: everything that `statx(2)` says of it and a symlink's target. Not its content, nor its extended
//! attributes: those have to be asked for.

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A file's time stamp: since 1970, before it if the seconds are negative. The nanoseconds count forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds, less than 10⁹.
    pub nanoseconds: u32,
}

impl From<StatxTimestamp> for Time {
    fn from(time: StatxTimestamp) -> Self {
        Self { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, with its target as it is written there.
    Symlink(OsString),
    /// A named pipe.
    Fifo,
    /// The node of a socket.
    Socket,
    /// A character device with the given number (the kernel's `dev_t`, as `makedev(3)` makes it).
    CharDevice {
        /// The number.
        rdev: u64,
    },
    /// A block device with the given number.
    BlockDevice {
        /// The number.
        rdev: u64,
    },
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From the root of the tree; empty for the root itself. Its bytes need not be UTF-8.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Permissions with the set-user-ID, set-group-ID and sticky bits: no more than `0o7777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// In bytes, as the file system says: for directories that is anything.
    pub size: u64,
    /// Allocated, in units of 512 bytes.
    pub blocks: u64,
    /// When the content changed.
    pub mtime: Time,
    /// When content or metadata changed. Nobody can set it, but by turning the clock.
    pub ctime: Time,
    /// The device, as the kernel says. On overlayfs it differs from file to file.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// How many names the inode has, here or elsewhere.
    pub nlink: u32,
    /// It lies on another mount than the root of the tree, that is, it is a mount point: it, if it is a file, or what is
    /// below it, belongs to another tree.
    pub foreign: bool,
}

impl Entry {
    /// Which inode it is.
    pub fn inode(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Its name in its directory; empty for the root.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

/// What tells mounts from each other. The identifier of the mount where the kernel gives it (5.8); the device otherwise,
/// which is only right for directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mount {
    id: Option<u64>,
    dev: u64,
}

impl Mount {
    pub(crate) fn id(self) -> Option<u64> {
        self.id
    }

    fn differs(self, other: Mount, is_dir: bool) -> bool {
        match (self.id, other.id) {
            (Some(one), Some(other)) => one != other,
            _ => is_dir && self.dev != other.dev,
        }
    }
}

/// What `statx(2)` said, and what of it an [`Entry`] has no place for.
#[derive(Clone, Copy)]
pub(crate) struct Stat(Statx);

impl Stat {
    /// Of an open file or directory.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        Self::at(fd, OsStr::new(""))
    }

    /// Of a name in a directory, without following a symlink; of the directory itself if the name is empty.
    pub(crate) fn at(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Self> {
        let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        if name.is_empty() {
            flags |= AtFlags::EMPTY_PATH;
        }
        statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).map(Self)
    }

    pub(crate) fn inode(&self) -> (u64, u64) {
        (makedev(self.0.stx_dev_major, self.0.stx_dev_minor), self.0.stx_ino)
    }

    pub(crate) fn mount(&self) -> Mount {
        let known = self.0.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Mount { id: known.then_some(self.0.stx_mnt_id), dev: self.inode().0 }
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(u32::from(self.0.stx_mode))
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    pub(crate) fn size(&self) -> u64 {
        self.0.stx_size
    }

    /// How many names the inode has.
    pub(crate) fn names(&self) -> u32 {
        self.0.stx_nlink
    }

    /// Whether nothing happened to an inode since the entry was found, as far as its numbers and times say.
    pub(crate) fn is_still(&self, entry: &Entry) -> bool {
        let times = (Time::from(self.0.stx_mtime), Time::from(self.0.stx_ctime));
        self.inode() == entry.inode() && self.0.stx_size == entry.size && times == (entry.mtime, entry.ctime)
    }

    pub(crate) fn is_foreign(&self, home: Mount) -> bool {
        self.mount().differs(home, self.is_dir())
    }

    /// The entry that this is of. The directory and the name in it are for the target of a symlink.
    pub(crate) fn entry(
        self,
        path: &Path,
        home: Mount,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> rustix::io::Result<Entry> {
        let kind = match self.file_type() {
            FileType::Symlink => Kind::Symlink(target(dir, name)?),
            other => self.kind(other)?,
        };
        let stat = self.0;
        Ok(Entry {
            path: path.to_owned(),
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            mtime: stat.stx_mtime.into(),
            ctime: stat.stx_ctime.into(),
            dev: self.inode().0,
            ino: stat.stx_ino,
            nlink: stat.stx_nlink,
            foreign: self.is_foreign(home),
        })
    }

    fn kind(&self, of: FileType) -> rustix::io::Result<Kind> {
        let rdev = makedev(self.0.stx_rdev_major, self.0.stx_rdev_minor);
        match of {
            FileType::RegularFile => Ok(Kind::File),
            FileType::Directory => Ok(Kind::Directory),
            FileType::Fifo => Ok(Kind::Fifo),
            FileType::Socket => Ok(Kind::Socket),
            FileType::CharacterDevice => Ok(Kind::CharDevice { rdev }),
            FileType::BlockDevice => Ok(Kind::BlockDevice { rdev }),
            // What it is cannot be told, so it cannot be copied either.
            FileType::Symlink | FileType::Unknown => Err(Errno::INVAL),
        }
    }
}

fn target(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OsString> {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(target) => Ok(OsString::from_vec(target.into_bytes())),
        // It was a symlink a moment ago, and is something else now.
        Err(Errno::INVAL) => Err(Errno::NOENT),
        Err(errno) => Err(errno),
    }
}
