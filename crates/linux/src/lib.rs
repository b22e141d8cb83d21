//! The kernel: loop devices, mounts, freezing, quotas, helper programs. It knows nothing of volumes.
//!
//! The only room with `unsafe`, and there only in [`ioctl`], which wraps the few calls that no library has.

pub mod command;
pub mod freeze;
pub mod fs;
pub mod host;
mod ioctl;
pub mod lock;
pub mod loopdev;
pub mod mounts;
pub mod procs;
pub mod quota;
pub mod superblock;

use std::io;
use std::path::{Path, PathBuf};

/// The result of a kernel operation.
pub type Result<T> = std::result::Result<T, KernelError>;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{op}{}: {source}", show(path.as_deref()))]
pub struct KernelError {
    /// The operation.
    pub op: &'static str,
    /// What it was done to.
    pub path: Option<PathBuf>,
    /// The reason.
    pub source: io::Error,
}

fn show(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!(" {}", path.display()))
}

impl KernelError {
    pub(crate) fn at(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { op, path: Some(path.to_owned()), source: source.into() }
    }

    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether what was named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the disk, or a quota, is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Whether an idempotent operation had anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It did something.
    Done,
    /// It was so already.
    AlreadyThere,
}
