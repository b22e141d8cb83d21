//! Files and file systems: space, allocation, clones, atomic writes, and a recursive delete that stays where it is.

use crate::{KernelError, Result, ioctl, mounts};
use rustix::fs::{self as sys, AtFlags, FallocateFlags, FileType, Mode, OFlags};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Refuses to follow a symbolic link at the end of a path; for `OpenOptionsExt::custom_flags`.
pub const NOFOLLOW: i32 = libc::O_NOFOLLOW;
/// What the kernel says then.
pub const IS_A_LINK: i32 = libc::ELOOP;

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Free bytes, with those kept for root.
    pub free: u64,
    /// Free bytes that anybody may use.
    pub available: u64,
    /// Inodes in all; 0 where there is no limit.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// How full the file system is that `path` is on. (statvfs(3))
pub fn space(path: &Path) -> Result<Space> {
    let found = sys::statvfs(path).map_err(|errno| KernelError::at("statvfs", path, errno))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space {
        total: bytes(found.f_blocks),
        free: bytes(found.f_bfree),
        available: bytes(found.f_bavail),
        files: found.f_files,
        files_free: found.f_ffree,
    })
}

/// A type of file system. (linux/magic.h)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsType {
    /// ext2, ext3 or ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// Memory.
    Tmpfs,
    /// A stack of directories.
    Overlay,
    /// The network.
    Nfs,
    /// A user's program.
    Fuse,
    /// Another one, by its magic number.
    Other(u64),
}

impl FsType {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
            Self::Overlay => "overlay",
            Self::Nfs => "nfs",
            Self::Fuse => "fuse",
            Self::Other(_) => "other",
        }
    }
}

impl std::fmt::Display for FsType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Other(magic) => write!(f, "other ({magic:#x})"),
            known => f.pad(known.name()),
        }
    }
}

/// The type of the file system that `path` is on.
pub fn fstype(path: &Path) -> Result<FsType> {
    let found = sys::statfs(path).map_err(|errno| KernelError::at("statfs", path, errno))?;
    #[expect(clippy::cast_sign_loss, reason = "a magic number")]
    let magic = found.f_type as u64 & 0xffff_ffff;
    Ok(match magic {
        0xEF53 => FsType::Ext4,
        0x5846_5342 => FsType::Xfs,
        0x9123_683E => FsType::Btrfs,
        0x0102_1994 => FsType::Tmpfs,
        0x794C_7630 => FsType::Overlay,
        0x6969 => FsType::Nfs,
        0x6573_5546 => FsType::Fuse,
        other => FsType::Other(other),
    })
}

/// Gives `file` real blocks up to `length` bytes, and that length. (fallocate(2))
pub fn allocate(file: &File, length: u64) -> Result<()> {
    sys::fallocate(file, FallocateFlags::empty(), 0, length).map_err(|errno| KernelError {
        op: "allocate",
        path: None,
        source: errno.into(),
    })
}

/// Bytes that the file takes on its file system.
pub fn allocated(path: &Path) -> Result<u64> {
    let metadata = std::fs::symlink_metadata(path).map_err(|source| KernelError::at("stat", path, source))?;
    Ok(metadata.blocks().saturating_mul(512))
}

/// The alignment in bytes that direct I/O on `file` needs; `None` where it is not possible or not known. (statx(2), 6.1)
pub fn direct_io_alignment(file: &File) -> Result<Option<u32>> {
    const STATX_DIOALIGN: u32 = 0x2000;
    let flags = sys::StatxFlags::from_bits_retain(STATX_DIOALIGN);
    let found = sys::statx(file, c"", AtFlags::EMPTY_PATH, flags).map_err(|errno| KernelError {
        op: "statx",
        path: None,
        source: errno.into(),
    })?;
    let known = found.stx_mask & STATX_DIOALIGN != 0;
    Ok(Some(found.stx_dio_offset_align).filter(|align| known && *align > 0))
}

/// Makes `to` share all blocks of `from`. (FICLONE)
pub fn clone_file(from: &File, to: &File) -> Result<()> {
    sys::ioctl_ficlone(to, from).map_err(|errno| KernelError {
        op: "FICLONE",
        path: None,
        source: errno.into(),
    })
}

/// Whether files in `directory` can share blocks, found by trying.
pub fn reflink_supported(directory: &Path) -> Result<bool> {
    let temporary = || {
        let options =
            std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).to_owned();
        options.open(directory)
    };
    let (Ok(mut from), Ok(to)) = (temporary(), temporary()) else { return Ok(false) };
    from.write_all(&[1; 4096]).map_err(|source| KernelError::at("write in", directory, source))?;
    Ok(clone_file(&from, &to).is_ok())
}

/// Makes the names in `directory` durable.
pub fn sync_dir(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(|source| KernelError::at("fsync directory", directory, source))
}

/// Puts `bytes` at `path` in one step: who reads it sees the old content or the new, also after a power loss.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    let write = || -> io::Result<()> {
        let options =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).to_owned();
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    if let Err(source) = write() {
        // Best effort: a half-written temporary file is overwritten by the next attempt.
        let _removed = std::fs::remove_file(&temporary);
        return Err(KernelError::at("write", path, source));
    }
    sync_dir(directory)
}

fn cross_device(path: &Path) -> KernelError {
    let text = "is a mount point: unmount it first; nothing below it was deleted";
    KernelError::at("delete", path, io::Error::other(text))
}

/// One directory being emptied.
struct Level {
    fd: OwnedFd,
    path: PathBuf,
    entries: Vec<(CString, FileType)>,
}

impl Level {
    fn read(fd: OwnedFd, path: PathBuf) -> Result<Self> {
        let failed = |errno| KernelError::at("read directory", &path, errno);
        let mut entries = Vec::new();
        for entry in sys::Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                entries.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        Ok(Self { fd, path, entries })
    }
}

/// Opens a directory without following a link and without crossing into another mount.
fn open_below(parent: &OwnedFd, name: &CString, path: &Path) -> Result<OwnedFd> {
    use rustix::io::Errno;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = sys::ResolveFlags::NO_XDEV | sys::ResolveFlags::NO_SYMLINKS | sys::ResolveFlags::BENEATH;
    sys::openat2(parent, name.as_c_str(), flags, Mode::empty(), resolve).map_err(|errno| match errno {
        Errno::XDEV => cross_device(path),
        errno => KernelError::at("open", path, errno),
    })
}

/// Deletes `path` and everything below it. Never follows a symbolic link, never enters another mount, not even a
/// bind mount of the same file system.
///
/// # Errors
/// A mount point at `path` or below it, before anything is deleted; or an entry that can't be deleted, by its path.
pub fn remove_tree(path: &Path) -> Result<()> {
    let metadata = std::fs::symlink_metadata(path).map_err(|source| KernelError::at("stat", path, source))?;
    let real = std::fs::canonicalize(path.parent().unwrap_or(Path::new("/")))
        .map_err(|source| KernelError::at("resolve", path, source))?
        .join(path.file_name().unwrap_or_default());
    if let Some(mount) = mounts::below(&real)?.first() {
        return Err(cross_device(&mount.target));
    }
    if !metadata.is_dir() {
        return std::fs::remove_file(path).map_err(|source| KernelError::at("unlink", path, source));
    }
    let top = sys::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| KernelError::at("open", path, errno))?;
    // A stack of our own: a container can make a tree deeper than ours would be.
    let mut levels = vec![Level::read(top, path.to_owned())?];
    while let Some(level) = levels.last_mut() {
        let Some((name, kind)) = level.entries.pop() else {
            let done = level.path.clone();
            levels.pop();
            remove_emptied(levels.last(), &done)?;
            continue;
        };
        let here = level.path.join(OsStr::from_bytes(name.to_bytes()));
        let is_dir = match kind {
            FileType::Unknown => {
                let stat = sys::statat(&level.fd, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| KernelError::at("stat", &here, errno))?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            known => known == FileType::Directory,
        };
        if is_dir {
            let fd = open_below(&level.fd, &name, &here)?;
            levels.push(Level::read(fd, here)?);
        } else {
            sys::unlinkat(&level.fd, name.as_c_str(), AtFlags::empty())
                .map_err(|errno| KernelError::at("unlink", &here, errno))?;
        }
    }
    Ok(())
}

fn remove_emptied(parent: Option<&Level>, path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    let removed = match parent {
        Some(parent) => sys::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR),
        None => sys::rmdir(path),
    };
    removed.map_err(|errno| KernelError::at("rmdir", path, errno))
}

/// Flags of a file or directory that only the kernel keeps. (linux/fs.h: struct fsxattr)
#[repr(C)]
#[derive(Default)]
pub(crate) struct FsXattr {
    pub(crate) xflags: u32,
    pub(crate) extsize: u32,
    pub(crate) nextents: u32,
    pub(crate) projid: u32,
    pub(crate) cowextsize: u32,
    pub(crate) pad: [u8; 8],
}

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801C_581F;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401C_5820;

pub(crate) fn get_xattr(file: &File, path: &Path) -> Result<FsXattr> {
    let mut flags = FsXattr::default();
    ioctl::structure(file.as_fd(), FS_IOC_FSGETXATTR, &mut flags)
        .map(|_| flags)
        .map_err(|source| KernelError::at("FS_IOC_FSGETXATTR", path, source))
}

pub(crate) fn set_xattr(file: &File, path: &Path, mut flags: FsXattr) -> Result<()> {
    ioctl::structure(file.as_fd(), FS_IOC_FSSETXATTR, &mut flags)
        .map(drop)
        .map_err(|source| KernelError::at("FS_IOC_FSSETXATTR", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernel_s_sizes() {
        assert_eq!(size_of::<FsXattr>(), 28);
    }

    #[test]
    fn deep_trees_and_links_out_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", 800).collect();
        std::fs::create_dir_all(tree.join(deep)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
    }

    #[test]
    fn writes_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomically(&path, b"one", 0o600).unwrap();
        write_atomically(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
