//! The image file: where it is, and whether it is what the record says.

use crate::{Error, Place, Result};
use linux::superblock::{self, Superblock};
use linux::{Change, KernelError};
use model::{FsKind, Size, VolumeId};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The directory in the file system that holders see.
pub(super) fn data(mountpoint: &Path) -> PathBuf {
    mountpoint.join("data")
}

pub(super) fn failed(op: &'static str, path: &Path, source: io::Error) -> KernelError {
    KernelError { op, path: Some(path.to_owned()), source }
}

/// The files of one volume.
pub(super) struct Files {
    pub(super) image: PathBuf,
    pub(super) seed: PathBuf,
}

impl Files {
    pub(super) fn of(place: &Place<'_>) -> Self {
        Self::named(place, "image")
    }

    fn named(place: &Place<'_>, image: &str) -> Self {
        let [image, seed] = [image, "seed"].map(|name| place.home.join(name));
        Self { image, seed }
    }

    /// While the volume is being made, its image has another name: what is called `image` is whole.
    pub(super) fn unfinished(place: &Place<'_>) -> Self {
        Self::named(place, "image.new")
    }

    /// Gives the image its name.
    pub(super) fn finish(&self, as_files: &Self) -> Result<()> {
        Ok(std::fs::rename(&self.image, &as_files.image)
            .map_err(|source| failed("rename", &self.image, source))?)
    }

    /// A new, empty image file that only root can read.
    pub(super) fn make(&self) -> Result<File> {
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).to_owned();
        Ok(options.open(&self.image).map_err(|source| failed("create", &self.image, source))?)
    }

    /// The image file, made if it is not there.
    pub(super) fn make_or_open(&self) -> Result<File> {
        match self.open() {
            Err(Error::Missing { .. }) => self.make(),
            other => other,
        }
    }

    /// The image file, if it is a file at all. A link is not followed: nobody should be able to point us elsewhere.
    pub(super) fn open(&self) -> Result<File> {
        let options = OpenOptions::new().read(true).write(true).custom_flags(linux::fs::NOFOLLOW).to_owned();
        let file = options.open(&self.image).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: self.image.clone() },
            io::ErrorKind::IsADirectory => self.replaced("not a regular file"),
            // ELOOP: a symbolic link.
            _ if source.raw_os_error() == Some(linux::fs::IS_A_LINK) => self.replaced("not a regular file"),
            _ => failed("open", &self.image, source).into(),
        })?;
        let metadata = file.metadata().map_err(|source| failed("stat", &self.image, source))?;
        if metadata.is_file() { Ok(file) } else { Err(self.replaced("not a regular file")) }
    }

    fn replaced(&self, found: &str) -> Error {
        Error::Replaced { path: self.image.clone(), found: found.to_owned() }
    }

    pub(super) fn size(&self, file: &File) -> Result<Size> {
        let metadata = file.metadata().map_err(|source| failed("stat", &self.image, source))?;
        Ok(Size::from_bytes(metadata.len()))
    }

    /// An image may be longer than recorded (growing was interrupted), never shorter.
    pub(super) fn check_size(&self, file: &File, should: Size) -> Result<()> {
        let is = self.size(file)?;
        if is < should { Err(Error::Truncated { path: self.image.clone(), is, should }) } else { Ok(()) }
    }

    /// The file system inside must be the volume's own: its UUID is the volume's ID.
    pub(super) fn check_identity(&self, file: &File, id: VolumeId, fs: FsKind) -> Result<Superblock> {
        let found = superblock::probe(file)?;
        match &found {
            Superblock::Ext4(ext4) if fs == FsKind::Ext4 && ext4.uuid == *id.as_bytes() => Ok(found),
            Superblock::Xfs(xfs) if fs == FsKind::Xfs && xfs.uuid == *id.as_bytes() => Ok(found),
            Superblock::Ext4(_) | Superblock::Xfs(_) | Superblock::Btrfs(_) => {
                Err(self.replaced("it holds the file system of something else (another UUID)"))
            }
            Superblock::None => Err(self.replaced("it holds no file system")),
        }
    }

    /// Gives back what a failed growth took.
    pub(super) fn cut_back(&self, file: &File, size: Size) {
        if let Err(error) = file.set_len(size.bytes()) {
            tracing::warn!(path = %self.image.display(), %error, "could not give back the space of a failed growth");
        }
    }

    /// Removes the image and what goes with it, as far as it is there.
    pub(super) fn remove(&self) -> Result<Change> {
        linux::fs::remove_tree(&self.seed)
            .or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
        remove_file(&self.image)
    }
}

fn remove_file(path: &Path) -> Result<Change> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(Change::Done),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Change::AlreadyThere),
        Err(source) => Err(failed("unlink", path, source).into()),
    }
}
