//! What can go wrong, in words for the person who wants the backup, or wants it back.

use std::io;
use std::path::{Path, PathBuf};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a bundle could not be written, read or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is there already.
    #[error("{} exists already; nothing was written: choose another name, or remove it first", path.display())]
    Exists {
        /// The bundle.
        path: PathBuf,
    },
    /// Another process writes the same bundle.
    #[error("another process is writing {}; wait for it, or choose another name", partial.display())]
    Busy {
        /// The file that is being written.
        partial: PathBuf,
    },
    /// An earlier attempt was interrupted.
    #[error("an earlier attempt left {}; take it over to go on from there, or remove it", partial.display())]
    Interrupted {
        /// What it left.
        partial: PathBuf,
    },
    /// There is something that is not ours under the name of the partial file.
    #[error("{} is not an interrupted bundle; it was left as it is: move it away, or choose another name", partial.display())]
    Foreign {
        /// The file.
        partial: PathBuf,
    },
    /// The disk is full.
    #[error(
        "there is no room left for {}; what was written so far is kept for the next attempt: make room and try again, or abandon it",
        partial.display()
    )]
    Full {
        /// What is kept.
        partial: PathBuf,
        /// What the kernel said: also quotas and limits of file sizes.
        source: io::Error,
    },
    /// Writing failed.
    #[error(
        "{} could not be written: {source}; what was written so far is kept for the next attempt",
        partial.display()
    )]
    Write {
        /// What is kept.
        partial: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An earlier step on this writer failed, so that what it holds can't become a bundle.
    #[error("writing {} failed before; begin again: what is complete in it is taken over", partial.display())]
    Broken {
        /// What is kept.
        partial: PathBuf,
    },
    /// A file or directory of this host, other than the bundle.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was done, as in "could not open".
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The tree that is backed up could not be walked or read.
    #[error("{}: {why}; the bundle is not complete", path.display())]
    Source {
        /// The tree.
        path: PathBuf,
        /// What failed.
        why: String,
    },
    /// Something in a tree can't be put into a tar file.
    #[error("{} can't be backed up: {why}; nothing of the container was changed", path.display())]
    Unrepresentable {
        /// The entry, in its tree.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// A paused tree changed all the same.
    #[error(
        "{} changed while everything that writes to it should have been paused; the bundle would not be of one instant: \
         find out who else writes there, and try again",
        path.display()
    )]
    Moving {
        /// The entry, in its tree.
        path: PathBuf,
    },
    /// The engine's stream of an image is not as it should be.
    #[error("the image from the engine can't be used: {why}; nothing of it is kept: save it again")]
    Archive {
        /// What is wrong.
        why: String,
    },
    /// A document that was handed in is not what it should be.
    #[error("{what}: {why}")]
    Document {
        /// Which one.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// An image needs a layer that is neither in the bundle nor said to be elsewhere.
    #[error("the image {image} needs the layer {digest}, which was not written to the bundle")]
    NoBlob {
        /// A name of the image.
        image: String,
        /// The missing layer.
        digest: String,
    },
    /// It is no bundle at all.
    #[error("{} is not a bundle, or the beginning of one that was cut off: {why}; nothing was touched", path.display())]
    NotBundle {
        /// The file.
        path: PathBuf,
        /// How one can tell.
        why: String,
    },
    /// It was written by a later version.
    #[error(
        "{} has format version {found}, and this program knows up to {}; use the version of everhold that wrote it ({by})",
        path.display(), crate::VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// Who wrote it.
        by: String,
    },
    /// It is not as it was written.
    #[error("{} is damaged: {member} at byte {offset}: {what}; nothing was taken from it: use another copy", path.display())]
    Damaged {
        /// The bundle.
        path: PathBuf,
        /// The member of the tar file, or what stands there instead.
        member: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// It was not verified, and nobody said to do without.
    #[error("{} was not verified yet; verify it first, or say that its content may be used as it is", path.display())]
    Unverified {
        /// The bundle.
        path: PathBuf,
    },
    /// There is no such thing in the bundle.
    #[error("there is no {what} in {}", path.display())]
    Absent {
        /// The bundle.
        path: PathBuf,
        /// What was asked for.
        what: String,
    },
    /// A volume would be unpacked onto something.
    #[error("{} is not empty; nothing was unpacked: volumes are unpacked into empty directories only", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// An archive in the bundle wants to leave the directory, or makes no sense.
    #[error("{member}, entry {entry}: {why}; {} holds what was unpacked before it: do not use it", dest.display())]
    Hostile {
        /// The member of the bundle.
        member: String,
        /// The path in it.
        entry: String,
        /// What it tried.
        why: String,
        /// Where it was unpacked.
        dest: PathBuf,
    },
    /// Unpacking failed.
    #[error("{doing} {entry} in {}: {source}; the directory holds a part of the volume only: empty it and try again", dest.display())]
    Unpack {
        /// What was done, as in "could not create".
        doing: &'static str,
        /// The entry.
        entry: String,
        /// Where it is unpacked.
        dest: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Someone wanted it to end.
    #[error("it was stopped before it was finished")]
    Stopped,
}

impl Error {
    /// An error of a file that is not the bundle: for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// What is backed up could not be read.
    pub(crate) fn source(path: &Path, why: impl std::fmt::Display) -> Self {
        Self::Source { path: path.to_owned(), why: why.to_string() }
    }

    /// Writing the bundle itself failed.
    pub(crate) fn write(partial: &Path, source: io::Error) -> Self {
        let partial = partial.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { partial, source }
            }
            _ => Self::Write { partial, source },
        }
    }
}
