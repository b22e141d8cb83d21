//! A copy of an image in which nothing changes, for a volume that is in use and whose changed blocks nobody marks.
//!
//! On a pool with reflinks it shares the image's blocks. Elsewhere it is a real copy, for which writers wait, so only little fits.

use super::Tracking;
use history::{Error, Result};
use linux::KernelError;
use linux::direct::{Pool, Reader};
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub(crate) struct Still {
    image: PathBuf,
    path: PathBuf,
    pool: Arc<Pool>,
}

impl Still {
    /// Of this image; nothing is made yet.
    pub(crate) fn of(image: &Path, tracking: &Tracking) -> Self {
        // One name only: what a daemon that was killed left behind is written over.
        Self {
            image: image.to_owned(),
            path: image.with_file_name("still"),
            pool: Arc::clone(&tracking.pool),
        }
    }

    /// Makes it, while the file system is frozen, before the deadline.
    pub(crate) fn take(&self, deadline: Instant) -> Result<PathBuf> {
        let failed = |op: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Kernel(KernelError { op, path: Some(path), source })
        };
        let into = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(failed("create", &self.path))?;
        let reader = Reader::open(&self.image)?;
        if linux::fs::clone_file(reader.file(), &into).is_ok() {
            return Ok(self.path.clone());
        }
        let size = reader.file().metadata().map_err(failed("stat", &self.image))?.len();
        into.set_len(size).map_err(failed("truncate", &self.path))?;
        let data: Vec<_> = linux::direct::data_ranges(reader.file())?
            .into_iter()
            .map(|range| range.start & !4095..range.end.next_multiple_of(4096))
            .collect();
        let left = reader.read_many(&self.pool, &data, Some(deadline), |range, content| {
            into.write_all_at(content, range.start).map_err(failed("write", &self.path))
        })?;
        if left.is_empty() {
            // Behind the image's end was nothing.
            into.set_len(size).map_err(failed("truncate", &self.path))?;
            return Ok(self.path.clone());
        }
        let all: u64 = data.iter().map(|range| range.end - range.start).sum();
        Err(Error::NotStill(format!(
            "its {} MiB can't be copied in the time that writers may be made to wait; on a pool with reflinks (XFS, btrfs) nothing \
             need be copied",
            all >> 20
        )))
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "a copy that was compared stays behind");
            }
            _ => {}
        }
    }
}
