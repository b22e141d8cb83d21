//! Mounts of this process's mount namespace. (mount(2), proc(5) on mountinfo)

use crate::{Change, KernelError, Result};
use rustix::mount::{self as sys, MountPropagationFlags, UnmountFlags};
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Flags of a mount.
pub use rustix::mount::MountFlags as Flags;

/// Flags of a mount, with the words of mount(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountFlags(Flags);

impl MountFlags {
    /// Refuses writes.
    pub const RDONLY: Self = Self(Flags::RDONLY);

    /// No flags.
    pub const fn empty() -> Self {
        Self(Flags::empty())
    }

    /// The flag that this mount option stands for; `None` if it is the file system's own.
    pub fn from_option(option: &str) -> Option<Self> {
        let flag = match option {
            "ro" => Flags::RDONLY,
            "noatime" => Flags::NOATIME,
            "relatime" => Flags::RELATIME,
            "strictatime" => Flags::STRICTATIME,
            "nodiratime" => Flags::NODIRATIME,
            "lazytime" => Flags::LAZYTIME,
            "sync" => Flags::SYNCHRONOUS,
            "dirsync" => Flags::DIRSYNC,
            "nosuid" => Flags::NOSUID,
            "nodev" => Flags::NODEV,
            "noexec" => Flags::NOEXEC,
            _ => return None,
        };
        Some(Self(flag))
    }
}

impl std::ops::BitOrAssign for MountFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's ID.
    pub id: u64,
    /// Device number of the file system, as in `st_dev`.
    pub dev: u64,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// The mount point.
    pub target: PathBuf,
    /// Options of the mount.
    pub options: String,
    /// The file system's type.
    pub fstype: String,
    /// What is mounted: a device, or whatever the file system says.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

impl MountInfo {
    /// Whether writes are refused, by the mount or by the file system.
    pub fn read_only(&self) -> bool {
        self.options.split(',').chain(self.super_options.split(',')).any(|option| option == "ro")
    }
}

/// Mounts `source` at `target`.
pub fn mount(source: &Path, target: &Path, fstype: &str, flags: MountFlags, data: &str) -> Result<()> {
    let data =
        CString::new(data).map_err(|_| KernelError::at("mount at", target, io::ErrorKind::InvalidInput))?;
    sys::mount(source, target, fstype, flags.0, data.as_c_str())
        .map_err(|errno| KernelError::at("mount at", target, errno))
}

/// Changes the options of the file system mounted at `target`.
pub fn remount(target: &Path, flags: MountFlags, data: &str) -> Result<()> {
    let data =
        CString::new(data).map_err(|_| KernelError::at("remount", target, io::ErrorKind::InvalidInput))?;
    sys::mount_remount(target, flags.0, data.as_c_str())
        .map_err(|errno| KernelError::at("remount", target, errno))
}

/// Shows the directory `source` at `target` too.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    sys::mount_bind(source, target).map_err(|errno| KernelError::at("bind mount at", target, errno))?;
    if read_only {
        // The kernel ignores "read-only" on the bind itself; it takes a second call.
        if let Err(errno) = sys::mount_remount(target, Flags::BIND | Flags::RDONLY, c"") {
            unmount(target)?;
            return Err(KernelError::at("remount read-only", target, errno));
        }
    }
    Ok(())
}

/// Keeps what is mounted below `target` from other mount namespaces, and the reverse.
pub fn make_private(target: &Path) -> Result<()> {
    sys::mount_change(target, MountPropagationFlags::PRIVATE)
        .map_err(|errno| KernelError::at("make private", target, errno))
}

fn unmount_with(target: &Path, flags: UnmountFlags) -> Result<Change> {
    use rustix::io::Errno;
    match sys::unmount(target, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(Change::Done),
        // Not a mount point, or not there at all.
        Err(Errno::INVAL | Errno::NOENT) => Ok(Change::AlreadyThere),
        Err(errno) => Err(KernelError::at("unmount", target, errno)),
    }
}

/// Unmounts what is mounted at `target`, after everything is written.
///
/// # Errors
/// `EBUSY` while a process of this namespace uses it.
pub fn unmount(target: &Path) -> Result<Change> {
    unmount_with(target, UnmountFlags::empty())
}

/// Takes the mount out of sight now; the kernel ends it with its last user.
pub fn unmount_lazy(target: &Path) -> Result<Change> {
    unmount_with(target, UnmountFlags::DETACH)
}

/// Every mount, in the order of mounting.
pub fn table() -> Result<Vec<MountInfo>> {
    let path = Path::new("/proc/self/mountinfo");
    let bytes = std::fs::read(path).map_err(|source| KernelError::at("read", path, source))?;
    Ok(parse(&bytes))
}

/// The mount on top at exactly this path.
pub fn at(target: &Path) -> Result<Option<MountInfo>> {
    Ok(table()?.into_iter().rfind(|mount| mount.target == target))
}

/// The mounts at `path` or below it.
pub fn below(path: &Path) -> Result<Vec<MountInfo>> {
    let mut mounts = table()?;
    mounts.retain(|mount| mount.target.starts_with(path));
    Ok(mounts)
}

fn parse(bytes: &[u8]) -> Vec<MountInfo> {
    bytes.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut words = line.split(|byte| *byte == b' ');
    let text =
        |words: &mut dyn Iterator<Item = &[u8]>| Some(String::from_utf8_lossy(words.next()?).into_owned());
    let id = text(&mut words)?.parse().ok()?;
    let _parent = words.next()?;
    let device = text(&mut words)?;
    let (major, minor) = device.split_once(':')?;
    let dev = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(words.next()?);
    let target = unescape(words.next()?);
    let options = text(&mut words)?;
    // Any number of optional fields, then a dash.
    words.by_ref().find(|word| *word == b"-")?;
    let fstype = text(&mut words)?;
    let source = unescape(words.next()?).to_string_lossy().into_owned();
    let super_options = text(&mut words).unwrap_or_default();
    Some(MountInfo { id, dev, root, target, options, fstype, source, super_options })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| {
            after.get(at).filter(|byte| (b'0'..=b'7').contains(byte)).map(|byte| u32::from(byte - b'0'))
        };
        let octal = (first == b'\\').then(|| Some(digit(0)? * 64 + digit(1)? * 8 + digit(2)?)).flatten();
        if let Some(byte) = octal.and_then(|value| u8::try_from(value).ok()) {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_with_everything() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = &parse(line)[0];
        assert_eq!(mount.target, Path::new(r"/mnt 2\x"));
        assert_eq!((mount.fstype.as_str(), mount.source.as_str()), ("ext3", "/dev/root"));
        assert_eq!((libc::major(mount.dev), libc::minor(mount.dev)), (98, 0));
        assert!(!mount.read_only());
    }

    #[test]
    fn odd_lines_are_left_out_not_fatal() {
        assert!(parse(b"\n1 2 3\nx y z - a\n1 2 a:b / / rw - x y z\n").is_empty());
        assert!(!table().unwrap().is_empty());
    }
}
