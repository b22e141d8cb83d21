//! Deleting a tree without ever leaving it: no mount point is crossed, no link followed. It is the most dangerous function here,
//! so it knows only names within directories that it has open.

use crate::{KernelError, Result, mounts};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Directories of the tree that are open at a time, however deep it is.
const OPEN_AT_MOST: usize = 64;
/// How often a directory may turn out not to be empty after all was deleted from it: somebody else is writing into it.
const ROUNDS: u32 = 64;
/// Bytes for names read at a time; a name takes up to about 280.
const NAMES: usize = 32 << 10;

/// Deletes a directory and all that is in it, or a file, or a symbolic link (never what it points to).
///
/// Where something is mounted at or below the path, nothing is deleted. What is mounted while it is deleting stops it there:
/// the kernel refuses to enter (`RESOLVE_NO_XDEV` of `openat2(2)`, Linux 5.6, which knows bind mounts too) and to unlink.
///
/// # Errors
/// `EBUSY` or `EXDEV` with the path of the mount point; `ENOENT`; with the path of what can't be deleted, `EPERM` (immutable) and
/// `EACCES`. What was deleted before stays deleted.
pub fn remove_tree(path: &Path) -> Result<()> {
    // A link is no mount point, but what it points to may well be one.
    let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    if !is_link && let Some(mount) = mounts::below(path)?.first() {
        return Err(KernelError::on("remove the mount point", &mount.target, Errno::BUSY));
    }
    walk(path)
}

/// Deletes without looking at the table of mounts first: what the kernel itself refuses is all that protects.
fn walk(path: &Path) -> Result<()> {
    let (Some(name), base) = (path.file_name(), super::parent(path)) else {
        return Err(KernelError::on("remove", path, Errno::INVAL));
    };
    let name = CString::new(name.as_bytes()).map_err(|error| KernelError::on("remove", path, error))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let outside = rustix::fs::openat(CWD, base, flags, Mode::empty())
        .map_err(|errno| KernelError::on("open", base, errno))?;
    let Some(dir) = remove_or_open(outside.as_fd(), &name, FileType::Unknown, || path.to_owned())? else {
        return Ok(());
    };
    let mut walk = Walk { base, outside, stack: Vec::new() };
    walk.enter(name, dir)?;
    while walk.step()? {}
    Ok(())
}

/// Removes what is no directory; opens what is one.
fn remove_or_open(
    dir: BorrowedFd<'_>,
    name: &CString,
    kind: FileType,
    path: impl Fn() -> PathBuf,
) -> Result<Option<OwnedFd>> {
    if !matches!(kind, FileType::Directory | FileType::Unknown) {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(None),
            // It has become a directory since its name was read.
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(KernelError::on("unlink", &path(), errno)),
        }
    }
    match open_inside(dir, name) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT) if kind == FileType::Directory => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => Ok(None),
            Err(errno) => Err(KernelError::on("unlink", &path(), errno)),
        },
        Err(Errno::XDEV) => Err(KernelError::on("remove the mount point", &path(), Errno::XDEV)),
        Err(errno) => Err(KernelError::on("open", &path(), errno)),
    }
}

fn open_inside(dir: BorrowedFd<'_>, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    // EAGAIN: a rename or mount somewhere on the host kept the kernel from being sure.
    loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A directory on the way down.
struct Level {
    name: CString,
    /// `None` while deeper levels need the descriptors.
    dir: Option<OwnedFd>,
    /// Device and inode, to know it again.
    identity: (u64, u64),
    /// Names that were read and not worked on yet.
    names: Vec<(CString, FileType)>,
    rounds: u32,
}

/// The way down, without recursion: a tree may be deeper than any stack.
struct Walk<'a> {
    base: &'a Path,
    outside: OwnedFd,
    stack: Vec<Level>,
}

impl Walk<'_> {
    /// Does one thing. `false`: nothing is left.
    fn step(&mut self) -> Result<bool> {
        let Some(level) = self.stack.last_mut() else { return Ok(false) };
        let Some(dir) = level.dir.take() else {
            return Err(self.failed("open", None, Errno::BADF));
        };
        let worked = match level.names.pop() {
            Some((name, kind)) => self.remove(&dir, name, kind),
            None => self.read_or_leave(&dir),
        };
        // `remove` may have gone down, and then this directory is not the last one any more.
        match worked? {
            Step::Stay => self.put_back(self.stack.len() - 1, dir),
            Step::Down => self.put_back(self.stack.len() - 2, dir),
            // It is gone, and `read_or_leave` has seen to it that the one above is open.
            Step::Up => {}
        }
        Ok(true)
    }

    fn put_back(&mut self, index: usize, dir: OwnedFd) {
        if let Some(level) = self.stack.get_mut(index) {
            level.dir = Some(dir);
        }
        // The ones near the top of the tree are needed last.
        let excess = self.stack.len().saturating_sub(OPEN_AT_MOST);
        if let Some(level) = excess.checked_sub(1).and_then(|index| self.stack.get_mut(index)) {
            level.dir = None;
        }
    }

    fn remove(&mut self, dir: &OwnedFd, name: CString, kind: FileType) -> Result<Step> {
        let opened = remove_or_open(dir.as_fd(), &name, kind, || self.path(Some(&name)))?;
        match opened {
            None => Ok(Step::Stay),
            Some(child) => self.enter(name, child).map(|()| Step::Down),
        }
    }

    fn enter(&mut self, name: CString, dir: OwnedFd) -> Result<()> {
        let stat = rustix::fs::fstat(&dir).map_err(|errno| self.failed("stat", Some(&name), errno))?;
        let identity = (stat.st_dev, stat.st_ino);
        self.stack.push(Level { name, dir: Some(dir), identity, names: Vec::new(), rounds: 0 });
        Ok(())
    }

    /// Reads more names; once there are none, removes the directory itself.
    fn read_or_leave(&mut self, dir: &OwnedFd) -> Result<Step> {
        let names = read_names(dir.as_fd()).map_err(|errno| self.failed("read directory", None, errno))?;
        let index = self.stack.len() - 1;
        if !names.is_empty() {
            self.stack[index].names = names;
            return Ok(Step::Stay);
        }
        let name = self.stack[index].name.clone();
        let above = match index.checked_sub(1) {
            None => None,
            Some(above) => {
                if self.stack[above].dir.is_none() {
                    let reopened = self.reopen_above(dir, above)?;
                    self.stack[above].dir = Some(reopened);
                }
                self.stack[above].dir.as_ref()
            }
        };
        match rustix::fs::unlinkat(above.unwrap_or(&self.outside), &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {
                self.stack.pop();
                Ok(Step::Up)
            }
            // The kernel may skip names while others are deleted, and somebody may still write here: read again.
            Err(Errno::NOTEMPTY) if self.stack[index].rounds < ROUNDS => {
                self.stack[index].rounds += 1;
                rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))
                    .map_err(|errno| self.failed("read directory", None, errno))?;
                Ok(Step::Stay)
            }
            Err(errno) => Err(self.failed("rmdir", None, errno)),
        }
    }

    /// `..` of a directory that was moved meanwhile is not where we came from; so it must be the very same directory.
    fn reopen_above(&self, dir: &OwnedFd, above: usize) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let opened = rustix::fs::openat2(dir, c"..", flags, Mode::empty(), resolve)
            .map_err(|errno| self.failed("open the parent of", None, errno))?;
        let stat =
            rustix::fs::fstat(&opened).map_err(|errno| self.failed("stat the parent of", None, errno))?;
        match (stat.st_dev, stat.st_ino) == self.stack[above].identity {
            true => Ok(opened),
            // Somebody moves directories about in the tree.
            false => Err(self.failed("open the parent of", None, Errno::STALE)),
        }
    }

    fn failed(&self, op: &'static str, name: Option<&CString>, errno: Errno) -> KernelError {
        KernelError::on(op, &self.path(name), errno)
    }

    fn path(&self, name: Option<&CString>) -> PathBuf {
        let mut path = self.base.to_owned();
        path.extend(
            self.stack
                .iter()
                .map(|level| &level.name)
                .chain(name)
                .map(|name| OsStr::from_bytes(name.to_bytes())),
        );
        path
    }
}

enum Step {
    Stay,
    Down,
    Up,
}

/// One buffer full of names, without `.` and `..`. Empty: the end of the directory.
fn read_names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); NAMES];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
        if entries.is_buffer_empty() && !names.is_empty() {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::MountFlags;
    use std::fs;

    struct Mounted(PathBuf);

    impl Drop for Mounted {
        fn drop(&mut self) {
            mounts::unmount_lazy(&self.0).unwrap();
        }
    }

    /// Something is mounted after the table was read.
    #[test]
    fn a_mount_that_nobody_knew_of_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let (precious, tree) = (dir.path().join("precious"), dir.path().join("tree"));
        let point = tree.join("a/point");
        fs::create_dir_all(&point).unwrap();
        fs::create_dir_all(precious.join("inner")).unwrap();
        fs::write(precious.join("data"), "x").unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        let stopped_at = |place: &Path, errno| {
            let error = walk(&tree).unwrap_err();
            assert_eq!((error.path.as_deref(), error.errno()), (Some(place), Some(errno)), "{error}");
            assert!(precious.join("data").exists() && precious.join("inner").exists());
        };
        // On the same file system, another file system, a file, the top.
        mounts::bind(&precious, &point, false).unwrap();
        let mounted = Mounted(point.clone());
        stopped_at(&point, libc::EXDEV);
        drop(mounted);
        mounts::mount(Path::new("x"), &point, "tmpfs", MountFlags::empty(), "size=1m").unwrap();
        let mounted = Mounted(point.clone());
        stopped_at(&point, libc::EXDEV);
        drop(mounted);
        fs::write(tree.join("file"), "x").unwrap();
        mounts::bind(&precious.join("data"), &tree.join("file"), false).unwrap();
        let mounted = Mounted(tree.join("file"));
        stopped_at(&tree.join("file"), libc::EBUSY);
        drop(mounted);
        mounts::bind(&precious, &tree, false).unwrap();
        let mounted = Mounted(tree.clone());
        stopped_at(&tree, libc::EXDEV);
        drop(mounted);
        walk(&tree).unwrap();
        assert!(!tree.exists() && precious.join("data").exists());
    }
}
