//! What overlayfs notes in the upper directory of a container about what is gone or hidden below.

use crate::error::{Error, Result};
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tree::walk::Walk;
use tree::{Entry, Kind};

/// What an entry of an upper directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upper {
    /// Itself.
    Plain,
    /// Itself, and nothing of what lower layers have in this directory.
    Opaque,
    /// The name is gone.
    Whiteout,
}

/// Says what an entry means.
///
/// # Errors
/// It means something that image layers can't say.
pub(super) fn meaning(walk: &Walk<'_>, entry: &Entry, root: &Path) -> Result<Upper> {
    if entry.kind == (Kind::CharDevice { rdev: 0 }) {
        return Ok(Upper::Whiteout);
    }
    let refuse = |why| Err(Error::Unrepresentable { path: root.join(&entry.path), why });
    if entry.name().as_bytes().starts_with(b".wh.") {
        return refuse("its name begins with .wh., which means in image layers that something is gone");
    }
    if !entry.is_dir() && !entry.is_file() {
        return Ok(Upper::Plain);
    }
    let Some(directory) = walk.parent() else { return Ok(Upper::Plain) };
    let mut path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    path.push(entry.name());
    let value = |name: &str| -> Result<Option<Vec<u8>>> {
        for namespace in ["trusted", "user"] {
            let mut buffer = [0; 256];
            let full = format!("{namespace}.overlay.{name}");
            match rustix::fs::lgetxattr(&path, full.as_str(), &mut buffer[..]) {
                Ok(len) => return Ok(Some(buffer[..len].to_vec())),
                // Longer than any that matters here, but there.
                Err(Errno::RANGE) => return Ok(Some(Vec::new())),
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(Error::source(&root.join(&entry.path), error)),
            }
        }
        Ok(None)
    };
    if value("redirect")?.is_some() {
        return refuse("it was renamed by reference (overlayfs redirect_dir), which image layers can't say");
    }
    if entry.is_file() && value("metacopy")?.is_some() {
        return refuse("it has its data in a lower layer (overlayfs metacopy), which image layers can't say");
    }
    let opaque = entry.is_dir() && value("opaque")?.is_some_and(|value| value == b"y");
    Ok(if opaque { Upper::Opaque } else { Upper::Plain })
}
