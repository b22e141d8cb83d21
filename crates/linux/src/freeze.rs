//! Freezing and flushing a file system. (linux/fs.h: FIFREEZE, FITHAW; syncfs(2))

use crate::{Change, KernelError, Result, ioctl};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

const FIFREEZE: libc::c_ulong = 0xC004_5877;
const FITHAW: libc::c_ulong = 0xC004_5878;

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| KernelError::at("open", path, source))
}

fn call(file: &File, path: &Path, request: libc::c_ulong, op: &'static str, there: i32) -> Result<Change> {
    match ioctl::number(file.as_fd(), request, 0) {
        Ok(_) => Ok(Change::Done),
        Err(error) if error.raw_os_error() == Some(there) => Ok(Change::AlreadyThere),
        Err(source) => Err(KernelError::at(op, path, source)),
    }
}

/// Flushes the file system that `path` is on and holds all its writers until it is thawed.
pub fn freeze(path: &Path) -> Result<Change> {
    freeze_fd(&open(path)?, path)
}

/// As [`freeze`], on an open file or directory of the file system.
pub fn freeze_fd(file: &File, path: &Path) -> Result<Change> {
    call(file, path, FIFREEZE, "freeze", libc::EBUSY)
}

/// Lets the writers go on.
pub fn thaw(path: &Path) -> Result<Change> {
    thaw_fd(&open(path)?, path)
}

/// As [`thaw`], on an open file or directory of the file system.
pub fn thaw_fd(file: &File, path: &Path) -> Result<Change> {
    call(file, path, FITHAW, "thaw", libc::EINVAL)
}

/// Writes everything of the file system that `path` is on.
pub fn sync(path: &Path) -> Result<()> {
    rustix::fs::syncfs(open(path)?).map_err(|errno| KernelError::at("syncfs", path, errno))
}
