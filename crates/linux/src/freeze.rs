//! Freezing, thawing and syncing whole file systems. It does not know who will thaw what it froze.

use crate::sys;
use crate::{Change, KernelError, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// Any file or directory of a file system stands for it. Reading needs no permission to write, which a frozen file system
/// would make wait.
fn open(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| KernelError::on("open", path, errno))
}

/// Stops all writing to the file system that `path` is on, with everything written out (`FIFREEZE`, linux/fs.h).
///
/// Writers wait until [`thaw`]; the file system stays frozen when this process ends.
///
/// # Errors
/// `EOPNOTSUPP` on a file system that can't freeze (tmpfs), `EPERM` without `CAP_SYS_ADMIN`.
pub fn freeze(path: &Path) -> Result<Change> {
    freeze_fd(&open(path)?, path)
}

/// [`freeze`] by an open file; `path` is only for errors.
///
/// # Errors
/// As [`freeze`].
pub fn freeze_fd(file: &File, path: &Path) -> Result<Change> {
    match sys::fifreeze(file) {
        Ok(()) => Ok(Change::Done),
        Err(Errno::BUSY) => Ok(Change::AlreadyThere),
        Err(errno) => Err(KernelError::on("FIFREEZE", path, errno)),
    }
}

/// Lets writers go on (`FITHAW`, linux/fs.h). `AlreadyThere`: it was not frozen.
///
/// # Errors
/// `EOPNOTSUPP`, `EPERM` as [`freeze`].
pub fn thaw(path: &Path) -> Result<Change> {
    thaw_fd(&open(path)?, path)
}

/// [`thaw`] by an open file; `path` is only for errors.
///
/// # Errors
/// As [`thaw`].
pub fn thaw_fd(file: &File, path: &Path) -> Result<Change> {
    match sys::fithaw(file) {
        Ok(()) => Ok(Change::Done),
        Err(Errno::INVAL) => Ok(Change::AlreadyThere),
        Err(errno) => Err(KernelError::on("FITHAW", path, errno)),
    }
}

/// Writes out everything of the file system that `path` is on (`syncfs(2)`).
///
/// # Errors
/// What the device said, also about an earlier write that failed since `path` was opened.
pub fn sync(path: &Path) -> Result<()> {
    rustix::fs::syncfs(open(path)?).map_err(|errno| KernelError::on("syncfs", path, errno))
}
