//! Reading the small files of `/proc`, `/sys` and `/etc` below a root.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The root of what is looked at: `/`, or a directory made by a test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a>(pub &'a Path);

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    Absent,
    /// Not to be seen with the rights of this process.
    Hidden,
}

impl Tree<'_> {
    /// The path on this system of an absolute `path`.
    pub(super) fn path(self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The trimmed text of a file, if it can be read.
    pub(super) fn text(self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A file with one number.
    pub(super) fn number(self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    pub(super) fn presence(self, path: &str) -> Presence {
        match std::fs::metadata(self.path(path)) {
            Ok(_) => Presence::There,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Presence::Absent
            }
            Err(_) => Presence::Hidden,
        }
    }

    pub(super) fn has(self, path: &str) -> bool {
        self.presence(path) == Presence::There
    }

    /// Where a symbolic link points, unresolved.
    pub(super) fn link(self, path: &str) -> Option<PathBuf> {
        std::fs::read_link(self.path(path)).ok()
    }

    /// The value after `key` in a file of `key: value` lines.
    pub(super) fn field(self, path: &str, key: &str) -> Option<String> {
        let text = self.text(path)?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        lines.next().map(|value| value.trim().to_owned())
    }
}
