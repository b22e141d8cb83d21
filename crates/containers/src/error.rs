//! What goes wrong with whole containers, for the person who reads it: what failed, what state the data is in, what to do next.

use crate::files::Hidden;
use docker::ApiError;
use model::ErrorKind;
use std::fmt::Display;
use std::path::Path;

/// Why a verb on a whole container failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    /// The kind, which decides the exit code.
    pub kind: ErrorKind,
    /// What failed.
    pub what: String,
    /// What state containers and data are in.
    pub state: String,
    /// What to do next.
    pub next: String,
}

/// The result of a verb on a whole container.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure before anything was changed.
    pub fn new(kind: ErrorKind, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { kind, what: what.into(), state: "nothing was changed".to_owned(), next: next.into() }
    }

    /// The same with another state of the data.
    #[must_use]
    pub fn with_state(self, state: impl Into<String>) -> Self {
        Self { state: state.into(), ..self }
    }

    /// The same, with what was being done.
    #[must_use]
    pub fn while_doing(self, what: impl Display) -> Self {
        Self { what: format!("{what}: {}", self.what), ..self }
    }

    pub(crate) fn on(path: &Path, source: &std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Forbidden,
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        };
        let next = match kind {
            ErrorKind::NoSpace => "make room, then try again",
            ErrorKind::Forbidden => "run it as root",
            _ => "see what is wrong with it, then try again",
        };
        Self::new(kind, format!("{}: {source}", path.display()), next)
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        let (kind, next) = match &error {
            ApiError::Unreachable { .. } | ApiError::Silent { .. } => {
                (ErrorKind::Unavailable, "see whether the Docker Engine runs, then try again")
            }
            ApiError::Refused { status: 404, .. } => {
                (ErrorKind::NotFound, "`docker ps -a` lists what there is")
            }
            ApiError::Refused { status: 403 | 409, .. } => {
                (ErrorKind::Conflict, "see what the engine says, then try again")
            }
            _ => (ErrorKind::Internal, "see what the engine says, then try again"),
        };
        Self::new(kind, error.to_string(), next)
    }
}

impl From<Hidden> for Error {
    fn from(error: Hidden) -> Self {
        let (kind, next) = match &error {
            Hidden::Driver { .. } => {
                (ErrorKind::Unsupported, "use `docker cp`, or an engine with the storage driver overlay2")
            }
            Hidden::Unreadable { .. } => (ErrorKind::Forbidden, "run it as root on the engine's own host"),
            Hidden::Union(_) => (ErrorKind::Internal, "start the container, then try again"),
        };
        Self::new(kind, error.to_string(), next)
    }
}

impl From<linux::KernelError> for Error {
    fn from(error: linux::KernelError) -> Self {
        let kind = if error.is_no_space() { ErrorKind::NoSpace } else { ErrorKind::Internal };
        Self::new(kind, error.to_string(), "see what is wrong with it, then try again")
    }
}

impl From<bundle::Error> for Error {
    fn from(error: bundle::Error) -> Self {
        use bundle::Error as E;
        let (kind, next) = match &error {
            E::Full { .. } => {
                (ErrorKind::NoSpace, "make room, then ask again: what is complete is gone on with")
            }
            E::Exists { .. } | E::Foreign { .. } => {
                (ErrorKind::Conflict, "name another file, or move that one away")
            }
            E::Busy { .. } => (ErrorKind::Busy, "wait until it has ended"),
            E::Moving { .. } => {
                (ErrorKind::InUse, "see who writes there besides the containers (`fuser -v -m`), and stop it")
            }
            E::NotBundle { .. } => {
                (ErrorKind::InvalidInput, "name a file that `everhold container backup` has written")
            }
            E::Damaged { .. } | E::Hostile { .. } => (ErrorKind::Damaged, "use another copy of the backup"),
            E::Version { .. } | E::Unrepresentable { .. } => (ErrorKind::Unsupported, "see what it says"),
            E::Unpack { source, .. } if is_full(source) => (ErrorKind::NoSpace, "make room, then try again"),
            E::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                (ErrorKind::NotFound, "name a file that is there")
            }
            _ => (ErrorKind::Internal, "see what is wrong there, then try again"),
        };
        Self::new(kind, error.to_string(), next)
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
