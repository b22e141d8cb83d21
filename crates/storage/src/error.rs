//! Why a driver could not do what was asked, what state the data is in, and what to do next.

use linux::KernelError;
use linux::command::CommandError;
use model::{ErrorKind, Size};
use std::path::PathBuf;

/// The result of a driver's verb.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong in a driver.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A helper program (mkfs, e2fsck, …) is missing, failed or took too long.
    #[error(transparent)]
    Tool(#[from] CommandError),
    /// What the volume is made of is gone.
    #[error("{} is missing", path.display())]
    Missing {
        /// The file or directory.
        path: PathBuf,
    },
    /// The image is shorter than recorded.
    #[error("{} is cut short: {is} of {should}", path.display())]
    Truncated {
        /// The image file.
        path: PathBuf,
        /// Its size now.
        is: Size,
        /// Its size as recorded.
        should: Size,
    },
    /// Something else stands in the place of the volume.
    #[error("{} is not this volume's: {found}", path.display())]
    Replaced {
        /// The file or directory.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The file system inside has errors that can't be repaired without deciding something.
    #[error("the file system in {} has errors that need a decision: {report}", path.display())]
    NeedsRepair {
        /// The image file.
        path: PathBuf,
        /// What the checker said.
        report: String,
    },
    /// The host, its file system or this driver can't do that.
    #[error("{what}")]
    Unsupported {
        /// What can't be done, and why.
        what: String,
        /// What can be done instead.
        instead: String,
    },
    /// The settings ask for something that must not be.
    #[error("{what}")]
    Refused {
        /// What must not be, and why.
        what: String,
        /// What to do instead.
        instead: String,
    },
}

impl Error {
    /// The kind, for the table that maps errors to the outside.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kernel(error) if error.is_no_space() => ErrorKind::NoSpace,
            Self::Kernel(_) => ErrorKind::Internal,
            Self::Tool(CommandError::TimedOut { .. }) => ErrorKind::TimedOut,
            Self::Tool(CommandError::NotFound { .. }) => ErrorKind::Unsupported,
            Self::Tool(CommandError::Failed { stderr, .. }) if stderr.contains("No space left on device") => {
                ErrorKind::NoSpace
            }
            Self::Tool(_) => ErrorKind::Internal,
            Self::Missing { .. }
            | Self::Truncated { .. }
            | Self::Replaced { .. }
            | Self::NeedsRepair { .. } => ErrorKind::Damaged,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Refused { .. } => ErrorKind::InvalidInput,
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> String {
        match self {
            Self::Kernel(error) if error.is_no_space() => {
                "free space on the pool's file system (`everhold pool ls`, `everhold trash empty`), then try again".into()
            }
            Self::Kernel(_) => "see `everhold doctor` and the kernel log (`dmesg`), then try again".into(),
            Self::Tool(CommandError::NotFound { .. }) => "install the program, then try again".into(),
            Self::Tool(_) => "see the kernel log (`dmesg`), then try again".into(),
            Self::Missing { path } => format!(
                "put {} back from a copy; while a container still runs on the volume, its loop device \
                 (`losetup -l`) has all of the data: copy it from there first",
                path.display()
            ),
            Self::Truncated { path, should, .. } => format!(
                "nothing was mounted or changed; keep a copy of {0}, then `truncate -s {1} {0}` and check it with \
                 `e2fsck -fn` or `xfs_repair -n` to see what is left",
                path.display(),
                should.bytes()
            ),
            Self::Replaced { path, .. } => {
                format!("nothing was mounted or changed; put the volume's own file or directory back at {}", path.display())
            }
            Self::NeedsRepair { path, .. } => format!(
                "nothing was mounted; make a copy of {0} (`cp --sparse=always`), then run `e2fsck -f {0}` (ext4) or \
                 `xfs_repair {0}` (xfs) and answer its questions",
                path.display()
            ),
            Self::Unsupported { instead, .. } | Self::Refused { instead, .. } => instead.clone(),
        }
    }
}
