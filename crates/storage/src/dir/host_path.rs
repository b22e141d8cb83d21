//! Which existing directories `path=` may use. Decided on real paths, with every symbolic link followed.

use crate::{Error, Result};
use std::fs;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

/// The operator's word on `path=`.
#[derive(Debug)]
pub(super) struct HostPaths {
    roots: Vec<PathBuf>,
    off_limits: Vec<PathBuf>,
}

/// Follows links where it can: what does not exist (yet) has none.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

impl HostPaths {
    pub(super) fn new(roots: Vec<PathBuf>, off_limits: Vec<PathBuf>) -> Self {
        Self { roots, off_limits }
    }

    fn refused(&self, what: String) -> Error {
        let roots: Vec<_> = self.roots.iter().map(|root| root.display().to_string()).collect();
        let instead = if roots.is_empty() {
            "`[dir] allowed-paths` in the configuration is empty, so no host directory may be used; add one there".into()
        } else {
            format!(
                "use an existing directory under {}, or add one to `[dir] allowed-paths` in the configuration",
                roots.join(", ")
            )
        };
        Error::Refused { what, instead }
    }

    /// The real path of a directory that may be used.
    pub(super) fn admit(&self, asked: &Path) -> Result<PathBuf> {
        let name = asked.display();
        if !asked.is_absolute() {
            return Err(self.refused(format!("path={name} is not absolute")));
        }
        let real = fs::canonicalize(asked).map_err(|error| match error.kind() {
            Io::NotFound => self.refused(format!("path={name} does not exist")),
            _ => self.refused(format!("path={name} can't be used: {error}")),
        })?;
        if !real.is_dir() {
            return Err(self.refused(format!("path={name} is not a directory")));
        }
        self.check(asked, &real)?;
        Ok(real)
    }

    /// Whether a volume may have `path`, which has no links in it. `asked` is what the error is about.
    fn check(&self, asked: &Path, path: &Path) -> Result<()> {
        let name = if asked == path {
            format!("path={}", asked.display())
        } else {
            format!("path={} (which is {})", asked.display(), path.display())
        };
        if path == Path::new("/") {
            return Err(self.refused(format!("{name} is the root of the host")));
        }
        // The roots are the operator's and may have links of their own; they are followed at each look.
        if !self.roots.iter().any(|root| path.starts_with(real(root))) {
            return Err(self.refused(format!("{name} is not under a directory that volumes may use")));
        }
        for own in self.off_limits.iter().map(|own| real(own)) {
            if path.starts_with(&own) {
                return Err(self
                    .refused(format!("{name} is Everhold's own, or another volume's ({})", own.display())));
            }
            if own.starts_with(path) {
                return Err(self.refused(format!(
                    "{name} contains {}, where Everhold keeps other volumes",
                    own.display()
                )));
            }
        }
        Ok(())
    }

    /// Looks again at a path that was admitted once.
    ///
    /// The check for allowed directories is made again too: a record may have been rebuilt from a description on disk,
    /// and the operator may have changed the configuration.
    pub(super) fn still_the_same(&self, path: &Path) -> Result<()> {
        let now = match fs::canonicalize(path) {
            Ok(now) => now,
            Err(error) if error.kind() == Io::NotFound => {
                return Err(Error::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(super::failed("resolve", path, error)),
        };
        let replaced = |found: String| Err(Error::Replaced { path: path.to_owned(), found });
        if now != path {
            return replaced(format!("a symbolic link in it leads to {} now", now.display()));
        }
        if !now.is_dir() {
            return replaced("not a directory".into());
        }
        self.check(path, &now)
    }
}
