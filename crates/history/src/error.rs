//! Why a cut or a restore failed.

use linux::KernelError;
use std::time::Duration;
use vault::StoreError;
use vault::read::ReadError;

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a cut or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in the vault can't be read or written.
    #[error(transparent)]
    Vault(#[from] ReadError),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A file of the daemon's own.
    #[error("{what}: {source}")]
    File {
        /// Which, and what was done.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There are no marks, and a copy to compare could not be made in time.
    #[error("its changed blocks can't be tracked, and it can't be compared while it is in use: {0}")]
    NotStill(String),
    /// The file system could not be frozen.
    #[error("could not freeze: {0}")]
    Freeze(String),
    /// Too much changed for the time that writers may be made to wait.
    #[error("{left} blocks were left when writers had waited {} ms, {attempts} times", waited.as_millis())]
    TooMuch {
        /// How many blocks.
        left: u64,
        /// How often it was tried.
        attempts: u32,
        /// How long writers waited in the last attempt.
        waited: Duration,
    },
    /// Another writer has the vault.
    #[error("another writer has claimed the vault (epoch {epoch} is not the newest any more)")]
    Fenced {
        /// The epoch that was ours.
        epoch: u32,
    },
    /// The spool has no room left.
    #[error("the vault does not take what is cut, and the spool is full ({bytes} bytes wait)")]
    SpoolFull {
        /// What waits.
        bytes: u64,
    },
    /// The vault is away, and no cut can be made without it.
    #[error(
        "no cut can be made until {url} is back ({why}); what is written until then is in the first cut after that"
    )]
    NeedsVault {
        /// The vault's store.
        url: String,
        /// Why it is needed.
        why: &'static str,
    },
    /// There is no way to the point.
    #[error("the cut {point} can't be put together: {why}")]
    NoWay {
        /// The point.
        point: u64,
        /// What is missing.
        why: String,
    },
    /// The volume was attached meanwhile.
    #[error("the volume was taken into use meanwhile")]
    InUse,
    /// Someone wanted it to end.
    #[error("it was stopped before it was finished")]
    Stopped,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Vault(error.into())
    }
}

pub(crate) fn file(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::File { what, source }
}
