//! Paths of an archive below a directory, and nothing outside of it.
//!
//! An archive may be hostile, and a name that was made a moment ago may be a symbolic link. So a parent directory is always opened by
//! the kernel with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, and what is done there is done with the last name alone.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A path that is taken apart: names without `.`, `..` and empty ones. No names: the directory itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(Vec<u8>);

impl Place {
    /// Takes a path of an archive. `None`: it is absolute, or leads upwards, or is empty.
    pub fn parse(path: &[u8]) -> Option<Self> {
        if path.is_empty() || path.starts_with(b"/") || path.contains(&0) {
            return None;
        }
        let mut names = Vec::new();
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return None,
                name => names.push(name),
            }
        }
        Some(Self(names.join(&b'/')))
    }

    /// The names, with slashes between.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Parent and last name; `None` for the directory itself.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            None => (Self(Vec::new()), &self.0),
            Some(slash) => (Self(self.0[..slash].to_vec()), &self.0[slash + 1..]),
        })
    }

    /// A name in this directory.
    pub fn join(&self, name: &[u8]) -> Self {
        if self.0.is_empty() {
            return Self(name.to_vec());
        }
        Self([&self.0[..], b"/", name].concat())
    }
}

/// The most bytes of a path that are handed to the kernel at once; it takes 4095.
const STRIDE: usize = 3000;

/// Opens what is at a place, never through a symbolic link. Paths may be longer than the kernel's limit.
///
/// # Errors
/// `ENOENT`, `ELOOP` (a symbolic link is on the way), `ENOTDIR`, …
pub(super) fn open(root: BorrowedFd<'_>, place: &Place, flags: OFlags) -> Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    let mut rest = place.bytes();
    loop {
        let base = at.as_ref().map_or(root, AsFd::as_fd);
        // A name is at most 255 bytes long (or does not exist), so there is a slash near.
        let split =
            if rest.len() <= STRIDE { None } else { rest[..STRIDE].iter().rposition(|byte| *byte == b'/') };
        match split {
            Some(slash) => {
                at = Some(beneath(base, &rest[..slash], OFlags::PATH | OFlags::DIRECTORY)?);
                rest = &rest[slash + 1..];
            }
            None => return beneath(base, rest, flags),
        }
    }
}

fn beneath(base: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        // The kernel may ask to try again when something was renamed meanwhile.
        match rustix::fs::openat2(base, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Removes what is at a place, with all that is below. Answers whether there was something.
pub(super) fn remove(root: BorrowedFd<'_>, place: &Place) -> Result<bool> {
    let Some((parent, name)) = place.split() else { return Ok(false) };
    let parent = match open(root, &parent, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => return Ok(false),
        result => result?,
    };
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    // Without recursion: a hostile tree may be deep. One descriptor at a time is open.
    let mut stack = vec![place.clone()];
    while let Some(top) = stack.last().cloned() {
        match below(root, &top)? {
            Some(directory) => stack.push(directory),
            None => {
                if let Some((parent, name)) = top.split() {
                    let parent = open(root, &parent, OFlags::PATH | OFlags::DIRECTORY)?;
                    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
                }
                stack.pop();
            }
        }
    }
    Ok(true)
}

/// Removes everything from a directory but directories, of which the first is answered.
fn below(root: BorrowedFd<'_>, place: &Place) -> Result<Option<Place>> {
    let directory = open(root, place, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names: Vec<CString> = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    for name in names {
        let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Some(place.join(name.to_bytes())));
        }
        rustix::fs::unlinkat(&directory, &name, AtFlags::empty())?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_are_taken_apart() {
        let bytes = |path: &[u8]| Place::parse(path).map(|place| place.bytes().to_vec());
        assert_eq!(bytes(b"./a//b/./c/"), Some(b"a/b/c".to_vec()));
        assert_eq!(bytes(b"./"), Some(Vec::new()));
        for bad in [&b""[..], b"/a", b"a/../b", b"..", b"a\0b"] {
            assert_eq!(bytes(bad), None);
        }
    }

    #[test]
    fn nothing_is_opened_through_a_link_or_removed_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("a/b/c")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "x").unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink(&outside, root.join("a/b/out")).unwrap();
        let fd: OwnedFd = std::fs::File::open(&root).unwrap().into();
        let place = |path: &str| Place::parse(path.as_bytes()).unwrap();
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        assert_eq!(open(fd.as_fd(), &place("out"), directory).unwrap_err(), Errno::LOOP);
        assert_eq!(remove(fd.as_fd(), &place("out/file")).unwrap_err(), Errno::LOOP);
        assert!(remove(fd.as_fd(), &place("a")).unwrap());
        assert!(!remove(fd.as_fd(), &place("a")).unwrap());
        assert!(outside.join("file").exists() && !root.join("a").exists());
    }

    #[test]
    fn deep_trees_are_opened_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let fd: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let mut place = place_of("d");
        let name = "n".repeat(100);
        rustix::fs::mkdirat(&fd, "d", Mode::RWXU).unwrap();
        for _ in 0..200 {
            let parent = open(fd.as_fd(), &place, OFlags::PATH | OFlags::DIRECTORY).unwrap();
            rustix::fs::mkdirat(&parent, name.as_str(), Mode::RWXU).unwrap();
            place = place.join(name.as_bytes());
        }
        assert!(place.bytes().len() > 20_000);
        assert!(remove(fd.as_fd(), &place_of("d")).unwrap());
        assert!(!dir.path().join("d").exists());
    }

    fn place_of(path: &str) -> Place {
        Place::parse(path.as_bytes()).unwrap()
    }
}
