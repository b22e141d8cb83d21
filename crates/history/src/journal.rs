//! What was taken from the marks and is not durable yet, one file for each point.
//!
//! It only has to outlive the daemon: should the host go down, the marks are gone too and everything is compared. So
//! nothing here waits for a disk.

use crate::error::{Result, file};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

const PREFIX: &str = "taken-";

pub(crate) struct Journal {
    dir: PathBuf,
    open: Option<(u64, File)>,
}

impl Journal {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: None }
    }

    fn path(dir: &Path, point: u64) -> PathBuf {
        dir.join(format!("{PREFIX}{point}"))
    }

    /// Writes down that these blocks go into this point.
    pub(crate) fn append(&mut self, point: u64, ranges: &[Range<u64>]) -> Result<()> {
        let path = Self::path(&self.dir, point);
        let failed = || file(format!("write {}", path.display()));
        if self.open.as_ref().is_none_or(|(open, _)| *open != point) {
            let opened = OpenOptions::new().append(true).create(true).open(&path).map_err(failed())?;
            self.open = Some((point, opened));
        }
        let mut bytes = Vec::with_capacity(ranges.len() * 16);
        for range in ranges {
            bytes.extend_from_slice(&range.start.to_le_bytes());
            bytes.extend_from_slice(&range.end.to_le_bytes());
        }
        match &mut self.open {
            Some((_, open)) => open.write_all(&bytes).map_err(failed()),
            None => Ok(()),
        }
    }

    /// The point is durable.
    pub(crate) fn forget(dir: &Path, point: u64) {
        match fs::remove_file(Self::path(dir, point)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // Left there, it only makes the next start copy something twice.
                tracing::warn!(point, %error, "could not forget what was taken");
            }
            _ => {}
        }
    }

    /// What was taken for points after `newest`; what was for others is forgotten.
    pub(crate) fn left(dir: &Path, newest: u64) -> Result<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        let failed = || file(format!("read {}", dir.display()));
        for entry in fs::read_dir(dir).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            let point = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u64>().ok());
            match point {
                Some(point) if point <= newest => Self::forget(dir, point),
                Some(_) => {
                    let bytes = fs::read(entry.path()).map_err(failed())?;
                    // A record that is cut off was not acted on: its marks were not cleared.
                    ranges.extend(bytes.chunks_exact(16).map(|record| {
                        let word = |at: usize| {
                            let mut word = [0; 8];
                            word.copy_from_slice(&record[at..at + 8]);
                            u64::from_le_bytes(word)
                        };
                        word(0)..word(8)
                    }));
                }
                None => {}
            }
        }
        Ok(ranges)
    }
}
