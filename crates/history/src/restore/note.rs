//! How far a restore has come, beside its image.

use crate::error::{Result, file};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// The file in which it is kept, for one restore: nothing is believed that was noted for another one.
#[derive(Debug, Clone)]
pub struct Note {
    path: PathBuf,
    what: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Text {
    /// Version of this file's layout.
    everhold: u32,
    /// Which restore.
    what: String,
    /// The inode of the image, so that another file in its place is not taken for it.
    image: u64,
    /// All before this block is durable.
    block: u64,
}

impl Note {
    /// Kept in `path`; `what` says which restore it is of: what is restored, and over what.
    pub fn new(path: PathBuf, what: String) -> Self {
        Self { path, what }
    }

    /// Forgets what is noted in `path`, for whatever restore; durable when it returns.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(file(format!("remove {}", path.display()))(error)),
            Ok(()) => Ok(path.parent().map_or(Ok(()), linux::fs::sync_dir)?),
        }
    }

    /// The block before which all is durable in this image; 0 if nothing is known of it.
    pub(super) fn read(&self, image: &File) -> Result<u64> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other.map_err(file(format!("read {}", self.path.display())))?,
        };
        let inode = image.metadata().map_err(file("stat of the image"))?.ino();
        let known = serde_json::from_slice::<Text>(&bytes)
            .ok()
            .filter(|text| text.everhold == VERSION && text.what == self.what && text.image == inode);
        // What is not of this restore, or can't be read, only costs the work done before.
        Ok(known.map_or(0, |text| text.block))
    }

    /// All before this block is durable.
    pub(super) fn keep(&self, image: &File, block: u64) -> Result<()> {
        let inode = image.metadata().map_err(file("stat of the image"))?.ino();
        let text = Text { everhold: VERSION, what: self.what.clone(), image: inode, block };
        let bytes = serde_json::to_vec(&text).map_err(io::Error::from);
        let bytes = bytes.map_err(file(format!("write {}", self.path.display())))?;
        Ok(linux::fs::write_atomically(&self.path, &bytes, 0o600)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_noted_for_this_restore_into_this_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let image = |name: &str| File::create(dir.path().join(name)).unwrap();
        let (this, other) = (image("this"), image("other"));
        let at = dir.path().join("note");
        let note = Note::new(at.clone(), "point 7".to_owned());
        assert_eq!(note.read(&this).unwrap(), 0);
        note.keep(&this, 17).unwrap();
        note.keep(&this, 18).unwrap();
        assert_eq!(note.read(&this).unwrap(), 18);
        assert_eq!(note.read(&other).unwrap(), 0);
        assert_eq!(Note::new(at.clone(), "point 8".to_owned()).read(&this).unwrap(), 0);
        fs::write(&at, "torn").unwrap();
        assert_eq!(note.read(&this).unwrap(), 0);
        Note::remove(&at).unwrap();
        Note::remove(&at).unwrap();
        assert!(!at.exists());
    }
}
