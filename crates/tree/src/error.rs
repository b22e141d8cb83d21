//! The one error type of this room: which system call failed on what, and what that means for the tree.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

/// The result of what this room does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a tree could not be walked, copied or compared. A source is only ever read: whatever failed, it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call was refused.
    #[error("{call} {}: {source}", path.display())]
    System {
        /// What was tried, in the words of the manual (`openat`, `setxattr user.mime_type`).
        call: Cow<'static, str>,
        /// What it was tried on.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The destination, or its owner's quota, is full. The pass has ended there, and the destination is incomplete. With
    /// more room the next pass goes on with what is there.
    #[error(
        "{call} {}: no space left at the destination{}; what was copied stays, and another pass goes on with it when \
         there is more room",
        path.display(),
        missing.map(|bytes| format!(", about {bytes} bytes are missing")).unwrap_or_default()
    )]
    NoSpace {
        /// What was tried.
        call: Cow<'static, str>,
        /// What could not be written.
        path: PathBuf,
        /// About how many more bytes must be free, where that could be told. A lower bound: metadata is not counted.
        missing: Option<u64>,
    },
    /// The tree was expected to be at rest, and was not. The destination may be none of the states the source was in.
    #[error(
        "{} of the source changed during the last pass (the first: {}): something still writes there; stop it and \
         copy again",
        count,
        path.display()
    )]
    StillChanging {
        /// The first entry that changed, in the source.
        path: PathBuf,
        /// How many did.
        count: u64,
    },
    /// The one who asked for it does not want it any more. What was copied stays, and another pass goes on with it.
    #[error("stopped before the end, as asked; what was copied stays, and another pass goes on with it")]
    Cancelled,
    /// Source and destination lie in each other, so the copy would contain itself.
    #[error("{} and {} are the same directory or one is within the other: choose another destination", source_path.display(), dest_path.display())]
    Nested {
        /// The source.
        source_path: PathBuf,
        /// The destination.
        dest_path: PathBuf,
    },
    /// A path is longer than [`crate::walk::LONGEST`] bytes: nobody nests directories so deep but to do harm.
    #[error("{} is nested too deep: its path has more than {} bytes; remove it or exclude it", start.display(), crate::walk::LONGEST)]
    TooDeep {
        /// The first components of the path.
        start: PathBuf,
    },
    /// One mount lies in the way of what must be removed at the destination.
    #[error("{} at the destination is a mount point and must go: unmount it and copy again", path.display())]
    MountPoint {
        /// The mount point.
        path: PathBuf,
    },
}

impl Error {
    /// A system call that failed on a path.
    pub(crate) fn on(call: impl Into<Cow<'static, str>>, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::System { call: call.into(), path: path.to_owned(), source: source.into() }
    }

    /// The kernel's error number, where the kernel refused something.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            Self::NoSpace { .. } => Some(rustix::io::Errno::NOSPC.raw_os_error()),
            _ => None,
        }
    }
}

/// Whether something is not there (any more), as opposed to not readable: the tree is in use.
pub(crate) fn is_gone(errno: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
}
