//! Files, directories and the file systems under them: space, alignment, clones, durable writes, careful deletion. It does
//! not know what the files are for.

mod remove;

pub use remove::remove_tree;

use crate::{KernelError, Result};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::borrow::Cow;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// `O_NOFOLLOW`, for `OpenOptionsExt::custom_flags`: fail if the last part of the path is a symbolic link.
pub const NOFOLLOW: i32 = libc::O_NOFOLLOW;
/// `ELOOP`: what the kernel says to [`NOFOLLOW`] at a link.
pub const IS_A_LINK: i32 = libc::ELOOP;

/// The space of a file system (`statvfs(3)`), in bytes where not said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it, without the file system's own data.
    pub total: u64,
    /// What is free, with what only root may use.
    pub free: u64,
    /// What is free for everybody.
    pub available: u64,
    /// Number of files there may be; 0 where the file system has no such number.
    pub files: u64,
    /// Number of files that may still be made.
    pub files_free: u64,
    /// The unit of allocation.
    pub block_size: u64,
}

/// The space of the file system that `path` is on. In a directory with a project quota, ext4 and XFS answer for the quota.
///
/// # Errors
/// A path that can't be looked at.
pub fn space(path: &Path) -> Result<Space> {
    let stat = rustix::fs::statvfs(path).map_err(|errno| KernelError::on("statvfs", path, errno))?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bfree.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
        files: stat.f_files,
        files_free: stat.f_ffree,
        block_size: stat.f_frsize,
    })
}

/// The type of a file system (`linux/magic.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FsType {
    /// ext4, ext3 and ext2: they share their number.
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
    Overlay,
    Nfs,
    Fuse,
    /// The `f_type` of anything else.
    Other(u64),
}

impl FsType {
    /// Its name as in `/proc/filesystems`; a number in hexadecimal where it is not known.
    pub fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
            Self::Overlay => "overlay",
            Self::Nfs => "nfs",
            Self::Fuse => "fuse",
            Self::Other(magic) => return Cow::Owned(format!("{magic:#x}")),
        })
    }

    fn of_magic(magic: u64) -> Self {
        match magic {
            0xEF53 => Self::Ext4,
            0x5846_5342 => Self::Xfs,
            0x9123_683E => Self::Btrfs,
            0x0102_1994 => Self::Tmpfs,
            0x794C_7630 => Self::Overlay,
            0x6969 => Self::Nfs,
            0x6573_5546 => Self::Fuse,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The type of the file system that `path` is on (`statfs(2)`).
///
/// # Errors
/// A path that can't be looked at.
pub fn fstype(path: &Path) -> Result<FsType> {
    let stat = rustix::fs::statfs(path).map_err(|errno| KernelError::on("statfs", path, errno))?;
    // The field is signed on some architectures, the numbers are 32 bits wide.
    #[allow(clippy::unnecessary_cast)]
    Ok(FsType::of_magic(stat.f_type as u64 & 0xFFFF_FFFF))
}

/// Makes a file at least `length` bytes long and gives it all its space (`fallocate(2)`). Content stays.
///
/// # Errors
/// `ENOSPC`; `EOPNOTSUPP` where the file system can't, in which case nothing is written instead.
pub fn allocate(file: &File, length: u64) -> Result<()> {
    retry(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length))
        .map_err(|errno| KernelError::on_fd("fallocate", file, errno))
}

/// Gives the space of a range (bytes) back; it reads as zeros then, and the length stays (`FALLOC_FL_PUNCH_HOLE`).
///
/// # Errors
/// `EOPNOTSUPP` where the file system can't.
pub fn punch(file: &File, offset: u64, length: u64) -> Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    retry(|| rustix::fs::fallocate(file, flags, offset, length))
        .map_err(|errno| KernelError::on_fd("punch hole in", file, errno))
}

fn retry(call: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(call)
}

/// The space that a file takes, in bytes, holes not counted.
///
/// # Errors
/// A path that can't be looked at.
pub fn allocated(path: &Path) -> Result<u64> {
    let metadata = std::fs::symlink_metadata(path).map_err(|source| KernelError::on("stat", path, source))?;
    // The unit of st_blocks is 512 bytes whatever the file system's blocks are (inode(7)).
    Ok(metadata.blocks().saturating_mul(512))
}

/// What direct I/O on a file must be aligned to in bytes, in the file and in memory (`STATX_DIOALIGN`, Linux 6.1). `None`: the
/// file can't do direct I/O, or the kernel does not tell.
///
/// # Errors
/// `statx(2)` that fails.
pub fn direct_io_alignment(file: &File) -> Result<Option<u32>> {
    let seen = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .map_err(|errno| KernelError::on_fd("statx", file, errno))?;
    let alignment = seen.stx_dio_offset_align.max(seen.stx_dio_mem_align);
    let told = seen.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    Ok((told && seen.stx_dio_offset_align > 0).then_some(alignment))
}

/// Whether files in this directory can share their blocks, found out by doing it with two files that have no name. `false`
/// also where nameless files can't be made.
///
/// # Errors
/// A directory that can't be written to, or is full.
pub fn reflink_supported(dir: &Path) -> Result<bool> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let nameless = || rustix::fs::openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR).map(File::from);
    let (from, to) = match (nameless(), nameless()) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(Errno::OPNOTSUPP | Errno::ISDIR), _) => return Ok(false),
        (Err(errno), _) | (_, Err(errno)) => return Err(KernelError::on("O_TMPFILE", dir, errno)),
    };
    from.write_all_at(&[1; 4096], 0).map_err(|source| KernelError::on("write", dir, source))?;
    match rustix::fs::ioctl_ficlone(&to, &from) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::XDEV) => Ok(false),
        Err(errno) => Err(KernelError::on("FICLONE", dir, errno)),
    }
}

/// Gives `to` the content of `from`, with shared blocks (`FICLONE`, linux/fs.h).
///
/// # Errors
/// `EOPNOTSUPP` without reflinks, `EXDEV` across file systems, `ENOSPC`.
pub fn clone_file(from: &File, to: &File) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::ioctl_ficlone(to, from))
        .map_err(|errno| KernelError::on_fd("FICLONE to", to, errno))
}

/// The names of files that [`write_atomically`] has not finished begin so. A crash can leave one; it means nothing.
pub const UNFINISHED: &str = ".everhold-unfinished-";

/// Puts a whole file in place, with exactly these permissions, whatever the umask: who opens it finds the old content or the
/// new one, also after a crash. It is durable on return.
///
/// # Errors
/// A directory that can't be written to, a full file system. The old file is untouched then; only if the last step
/// (`fsync` of the directory) fails, the new one is in place and may not be durable.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let dir = parent(path);
    let (temporary, file) = unfinished(dir)?;
    let written = fill(&file, bytes, mode)
        .map_err(|(op, source)| KernelError::on(op, &temporary, source))
        .and_then(|()| {
            std::fs::rename(&temporary, path).map_err(|source| KernelError::on("rename to", path, source))
        });
    if let Err(error) = written {
        if let Err(undo) = std::fs::remove_file(&temporary) {
            tracing::warn!(path = %temporary.display(), %undo, "an unfinished file could not be removed");
        }
        return Err(error);
    }
    sync_dir(dir)
}

fn fill(mut file: &File, bytes: &[u8], mode: u32) -> std::result::Result<(), (&'static str, io::Error)> {
    file.write_all(bytes).map_err(|error| ("write", error))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(|error| ("chmod", error))?;
    file.sync_all().map_err(|error| ("fsync", error))
}

fn unfinished(dir: &Path) -> Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path, file)),
            // Left by a process of an earlier boot that had our ID.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(KernelError::on("create", &path, source)),
        }
    }
}

/// The directory of a path, also of one without any.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable (`fsync(2)` of the directory).
///
/// # Errors
/// A directory that can't be opened; what the device said.
pub fn sync_dir(path: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| KernelError::on("open", path, errno))?;
    rustix::fs::fsync(dir).map_err(|errno| KernelError::on("fsync", path, errno))
}
