//! The one error type of this room. It knows the operation, the path and the kernel's answer, and not what that means for
//! a volume.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

/// An operation that the kernel refused.
#[derive(Debug)]
pub struct KernelError {
    /// What was tried, in the words of the manual (`mount`, `LOOP_CONFIGURE`, `fsync`).
    pub op: &'static str,
    /// What it was tried on, where that is known.
    pub path: Option<PathBuf>,
    /// The kernel's answer.
    pub source: io::Error,
}

/// The result of a kernel operation.
pub type Result<T> = std::result::Result<T, KernelError>;

/// What an idempotent verb found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was done now.
    Done,
    /// There was nothing to do.
    AlreadyThere,
}

impl KernelError {
    /// The kernel's error number (`errno.h`), where the error is the kernel's.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// There is no such file or directory (`ENOENT`).
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(libc::ENOENT) || self.source.kind() == io::ErrorKind::NotFound
    }

    /// The file system, or the quota, is full (`ENOSPC`, `EDQUOT`).
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOSPC | libc::EDQUOT))
    }

    /// An error on a path.
    pub(crate) fn on(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { op, path: Some(path.to_owned()), source: source.into() }
    }

    /// An error on an open file, named by the path that the kernel knows for it.
    pub(crate) fn on_fd(op: &'static str, fd: impl AsFd, source: impl Into<io::Error>) -> Self {
        let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        Self { op, path: std::fs::read_link(link).ok(), source: source.into() }
    }

    /// What was read there does not make sense.
    pub(crate) fn invalid(op: &'static str, path: &Path, what: impl Into<String>) -> Self {
        Self::on(op, path, io::Error::new(io::ErrorKind::InvalidData, what.into()))
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} {}: {}", self.op, path.display(), self.source),
            None => write!(f, "{}: {}", self.op, self.source),
        }
    }
}

impl std::error::Error for KernelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_failed_where_and_why() {
        let error = KernelError::on("mount", Path::new("/mnt"), io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(error.to_string(), "mount /mnt: No space left on device (os error 28)");
        assert!(error.is_no_space() && !error.is_not_found());
        assert_eq!(error.errno(), Some(28));
        assert!(std::error::Error::source(&error).is_some());
        let bare = KernelError { op: "sync", path: None, source: io::ErrorKind::NotFound.into() };
        assert!(bare.is_not_found());
        assert_eq!(bare.to_string(), "sync: entity not found");
    }

    #[test]
    fn an_open_file_is_named() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let error = KernelError::on_fd("fsync", &file, io::Error::from_raw_os_error(libc::EIO));
        assert!(error.path.unwrap().ends_with("stat"));
    }
}
