//! Mounting, unmounting, and the table of mounts. It does not know what is mounted, or why.

use crate::{Change, KernelError, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::ops::{BitOr, BitOrAssign};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Flags of `mount(2)` (`linux/mount.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountFlags(u32);

impl MountFlags {
    /// `MS_RDONLY`
    pub const RDONLY: Self = Self(1);
    /// `MS_NOSUID`: set-ID bits have no effect.
    pub const NOSUID: Self = Self(2);
    /// `MS_NODEV`: device nodes can't be opened.
    pub const NODEV: Self = Self(4);
    /// `MS_NOEXEC`: nothing can be executed.
    pub const NOEXEC: Self = Self(8);
    /// `MS_SYNCHRONOUS`
    pub const SYNCHRONOUS: Self = Self(16);
    /// `MS_REMOUNT`: change the flags of what is mounted.
    pub const REMOUNT: Self = Self(32);
    /// `MS_DIRSYNC`
    pub const DIRSYNC: Self = Self(128);
    /// `MS_NOSYMFOLLOW`
    pub const NOSYMFOLLOW: Self = Self(256);
    /// `MS_NOATIME`
    pub const NOATIME: Self = Self(1024);
    /// `MS_NODIRATIME`
    pub const NODIRATIME: Self = Self(2048);
    /// `MS_BIND`
    pub const BIND: Self = Self(4096);
    /// `MS_RELATIME`
    pub const RELATIME: Self = Self(1 << 21);
    /// `MS_STRICTATIME`
    pub const STRICTATIME: Self = Self(1 << 24);
    /// `MS_LAZYTIME`
    pub const LAZYTIME: Self = Self(1 << 25);

    /// No flag.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flag for an option of mount(8), such as `noatime`; no flag for an option that is the kernel's default, such as
    /// `suid`; `None` for what the kernel has no flag for, which is for the file system to understand.
    pub fn from_option(option: &str) -> Option<Self> {
        Some(match option {
            "ro" => Self::RDONLY,
            "nosuid" => Self::NOSUID,
            "nodev" => Self::NODEV,
            "noexec" => Self::NOEXEC,
            "sync" => Self::SYNCHRONOUS,
            "dirsync" => Self::DIRSYNC,
            "nosymfollow" => Self::NOSYMFOLLOW,
            "noatime" => Self::NOATIME,
            "nodiratime" => Self::NODIRATIME,
            "relatime" => Self::RELATIME,
            "strictatime" => Self::STRICTATIME,
            "lazytime" => Self::LAZYTIME,
            "defaults" | "rw" | "suid" | "dev" | "exec" | "async" | "atime" | "diratime" | "symfollow"
            | "nolazytime" => Self::empty(),
            _ => return None,
        })
    }
}

impl BitOr for MountFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for MountFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Mounts a file system (`mount(2)`). `data` is the file system's own options, separated by commas.
///
/// # Errors
/// What the kernel says about the source or the target, with the target's path: `EBUSY`, `ENODEV` (no such file system type),
/// `EINVAL` (no such file system on the source, or an option it does not know; the kernel log says more).
pub fn mount(source: &Path, target: &Path, fstype: &str, flags: MountFlags, data: &str) -> Result<()> {
    let data = CString::new(data).map_err(|error| KernelError::on("mount", target, error))?;
    let flags = rustix::mount::MountFlags::from_bits_retain(flags.0);
    rustix::mount::mount(source, target, fstype, flags, data.as_c_str())
        .map_err(|errno| KernelError::on("mount", target, errno))
}

/// Makes a directory or file visible at another place too. Where read-only is asked for and refused, the bind is undone.
///
/// # Errors
/// What `mount(2)` says, with the target's path.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    rustix::mount::mount_bind(source, target).map_err(|errno| KernelError::on("bind", target, errno))?;
    if !read_only {
        return Ok(());
    }
    // MS_BIND alone ignores MS_RDONLY; it takes a remount.
    let made_read_only = inherited_flags(target)
        .and_then(|flags| remount(target, flags | MountFlags::BIND | MountFlags::RDONLY, ""));
    if let Err(error) = made_read_only {
        if let Err(undo) = unmount(target) {
            tracing::warn!(%undo, "a writable bind could not be undone");
        }
        return Err(error);
    }
    Ok(())
}

/// Changes the flags and options of what is mounted at `target` (`MS_REMOUNT`). All flags are set anew.
///
/// # Errors
/// What `mount(2)` says, with the target's path.
pub fn remount(target: &Path, flags: MountFlags, data: &str) -> Result<()> {
    mount(Path::new(""), target, "", flags | MountFlags::REMOUNT, data)
}

/// Keeps mounts below `target` from spreading to other mount namespaces, and theirs from coming here (`MS_PRIVATE`).
///
/// # Errors
/// `EINVAL` where `target` is not a mount point.
pub fn make_private(target: &Path) -> Result<()> {
    rustix::mount::mount_change(target, rustix::mount::MountPropagationFlags::PRIVATE)
        .map_err(|errno| KernelError::on("make private", target, errno))
}

/// A remount sets all flags of the mount, so those that came with the source are given again.
fn inherited_flags(target: &Path) -> Result<MountFlags> {
    let has = rustix::fs::statvfs(target).map_err(|errno| KernelError::on("statvfs", target, errno))?.f_flag;
    let pairs = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let mut flags = MountFlags::empty();
    for (theirs, ours) in pairs {
        if has.contains(theirs) {
            flags |= ours;
        }
    }
    Ok(flags)
}

/// Unmounts what is mounted at `target` (`umount2(2)`), which must not be a symbolic link. `AlreadyThere`: nothing is mounted
/// there, or there is no such path.
///
/// # Errors
/// `EBUSY` while somebody in this mount namespace uses it.
pub fn unmount(target: &Path) -> Result<Change> {
    detach(target, UnmountFlags::NOFOLLOW)
}

/// Takes the mount out of the tree at once; the file system goes when its last user does (`MNT_DETACH`).
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn unmount_lazy(target: &Path) -> Result<Change> {
    detach(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
}

fn detach(target: &Path, flags: UnmountFlags) -> Result<Change> {
    match rustix::mount::unmount(target, flags) {
        Ok(()) => Ok(Change::Done),
        Err(Errno::NOENT) => Ok(Change::AlreadyThere),
        // Also the answer for a mount that is locked to its parent (user namespaces), which is not "not mounted".
        Err(Errno::INVAL) if matches!(at(target), Ok(None)) => Ok(Change::AlreadyThere),
        Err(errno) => Err(KernelError::on("unmount", target, errno)),
    }
}

/// One line of `/proc/PID/mountinfo` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's ID, unique while it is mounted.
    pub id: u64,
    /// The ID of the mount it is on.
    pub parent: u64,
    /// The file system's device number. Files on it have it in `st_dev`, except on btrfs.
    pub dev: u64,
    /// The directory of the file system that is visible here.
    pub root: PathBuf,
    /// The mount point, seen from the process's root directory.
    pub target: PathBuf,
    /// Options of this mount.
    pub options: String,
    /// The type of the file system.
    pub fstype: String,
    /// What was mounted: a device for most file systems.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

impl MountInfo {
    /// Nothing can be written through it, because of the mount or of the file system.
    pub fn read_only(&self) -> bool {
        [&self.options, &self.super_options]
            .iter()
            .any(|options| options.split(',').any(|option| option == "ro"))
    }
}

/// Whether something is mounted at exactly this path; nothing there at all counts as no. Constant time, unlike [`at`].
///
/// (statx(2): `STATX_ATTR_MOUNT_ROOT`, kernel 5.8)
///
/// # Errors
/// A path that can't be looked at.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE) {
        Ok(seen) => Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(KernelError::on("statx", path, errno)),
    }
}

/// Whether the file system at `path`, or its mount, refuses writes. Constant time.
///
/// # Errors
/// A path that can't be looked at.
pub fn is_read_only(path: &Path) -> Result<bool> {
    let seen = rustix::fs::statvfs(path).map_err(|errno| KernelError::on("statvfs", path, errno))?;
    Ok(seen.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// The mounts that this process sees, in the kernel's order.
///
/// # Errors
/// `/proc/self/mountinfo` that can't be read or understood.
pub fn table() -> Result<Vec<MountInfo>> {
    const PATH: &str = "/proc/self/mountinfo";
    /// Reading is in pieces, and a mount that comes or goes in between may hide another. Then it is read again; a host that
    /// never rests gets the last reading.
    const READINGS: u32 = 8;
    let failed = |source| KernelError::on("read", Path::new(PATH), source);
    let mut file = File::open(PATH).map_err(failed)?;
    let mut text = Vec::new();
    for _ in 0..READINGS {
        text.clear();
        file.rewind().map_err(failed)?;
        file.read_to_end(&mut text).map_err(failed)?;
        if !changed(&file).map_err(|errno| failed(errno.into()))? {
            break;
        }
    }
    parse(&text)
        .map_err(|line| KernelError::invalid("read", Path::new(PATH), format!("unexpected line {line:?}")))
}

/// Whether the table has changed since it was opened or last asked about: proc(5) promises `POLLPRI` then.
fn changed(mountinfo: &File) -> rustix::io::Result<bool> {
    let mut fds = [PollFd::new(mountinfo, PollFlags::PRI)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now)))?;
    Ok(fds[0].revents().intersects(PollFlags::PRI | PollFlags::ERR))
}

/// Parses a whole table; the error is the first line that is not of it.
pub(crate) fn parse(text: &[u8]) -> std::result::Result<Vec<MountInfo>, String> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| parse_line(line).ok_or_else(|| String::from_utf8_lossy(line).into_owned()))
        .collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, with any number of fields before the
/// hyphen. An empty field is a field: sources can be empty.
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || fields.next();
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let (id, parent, dev) = (number(next()?)?, number(next()?)?, parse_dev(next()?)?);
    let (root, target, options) = (path(next()?), path(next()?), text(next()?));
    while next()? != b"-" {}
    let (fstype, source) = (text(next()?), text(next()?));
    let super_options = next().map(text).unwrap_or_default();
    Some(MountInfo { id, parent, dev, root, target, options, fstype, source, super_options })
}

/// `major:minor` as the number that `stat(2)` has.
pub(crate) fn parse_dev(field: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// Space, tab, newline and backslash come as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\').then(|| octal(after.first_chunk()?)).flatten();
        match code {
            Some(code) => {
                plain.push(code);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    let valid = digits.iter().all(|digit| (b'0'..=b'7').contains(digit));
    valid.then(|| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()).flatten()
}

/// The mount at exactly this path, the one on top if there are several. `None`: there is no such path, or it is not a mount
/// point. Symbolic links on the way are followed.
///
/// # Errors
/// `/proc/self/mountinfo` that can't be read.
pub fn at(target: &Path) -> Result<Option<MountInfo>> {
    // Without the table where the kernel can say that it is none (Linux 5.8); DONT_SYNC asks no server.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, target, flags, StatxFlags::MNT_ID) {
        Ok(seen) if seen.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            if !seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                return Ok(None);
            }
            if seen.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
                return Ok(table()?.into_iter().find(|mount| mount.id == seen.stx_mnt_id));
            }
        }
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        // A file system whose server is gone still is a mount.
        Ok(_) | Err(_) => {}
    }
    let target = resolved(target);
    let mut mounts = table()?;
    mounts.retain(|mount| mount.target == target);
    let top = mounts.iter().rposition(|mount| !mounts.iter().any(|other| other.parent == mount.id));
    Ok(top.map(|index| mounts.swap_remove(index)))
}

/// All mounts at or below a path, in the kernel's order: outer before inner.
///
/// # Errors
/// `/proc/self/mountinfo` that can't be read.
pub fn below(path: &Path) -> Result<Vec<MountInfo>> {
    let path = resolved(path);
    let mut mounts = table()?;
    mounts.retain(|mount| mount.target.starts_with(&path));
    Ok(mounts)
}

/// The path as the table has it: absolute and without symbolic links. What can't be looked at stays as it is.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(path) = std::fs::canonicalize(path) {
        return path;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => {
            std::fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned()).join(name)
        }
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;

    const SAMPLE: &str = "\
22 27 0:20 / /proc rw,nosuid - proc proc rw
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root ro,errors=continue
40 36 7:1000 /a\\040b /mnt/x\\134y\\011\\012z rw - ext4 /dev/loop1000 rw
41 36 0:99 / /empty rw -  tmp  rw
";

    #[test]
    fn lines_of_all_kinds() {
        let mounts = parse(&SAMPLE.as_bytes()[..SAMPLE.find("41 36").unwrap()]).unwrap();
        assert_eq!(mounts.len(), 3);
        assert_eq!((mounts[1].id, mounts[1].parent), (36, 35));
        assert_eq!(mounts[1].dev, rustix::fs::makedev(98, 0));
        assert_eq!(mounts[1].root, Path::new("/mnt1"));
        assert!(mounts[1].read_only() && !mounts[0].read_only());
        assert_eq!(mounts[2].root, Path::new("/a b"));
        assert_eq!(mounts[2].target, Path::new("/mnt/x\\y\t\nz"));
        assert_eq!(mounts[2].dev, rustix::fs::makedev(7, 1000));
        assert_eq!(mounts[2].source, "/dev/loop1000");
    }

    #[test]
    fn an_empty_source_is_a_source() {
        let mounts = parse(b"41 36 0:99 / /empty ro - tmpfs  rw,size=4k\n").unwrap();
        assert_eq!((mounts[0].fstype.as_str(), mounts[0].source.as_str()), ("tmpfs", ""));
        assert_eq!(mounts[0].super_options, "rw,size=4k");
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for odd in ["x", "1 2 3 / / rw - a b c", "1 2 0:1 / / rw ext4 /dev/x rw", "1 2 0:1 / / rw - ext4"] {
            assert_eq!(parse(odd.as_bytes()).unwrap_err(), odd);
        }
    }

    #[test]
    fn options_become_flags() {
        let flags = MountFlags::from_option("noatime").unwrap() | MountFlags::from_option("nosuid").unwrap();
        assert!(
            flags.contains(MountFlags::NOATIME | MountFlags::NOSUID) && !flags.contains(MountFlags::RDONLY)
        );
        assert_eq!(MountFlags::from_option("rw"), Some(MountFlags::empty()));
        assert_eq!(MountFlags::from_option("discard"), None);
    }

    #[test]
    fn the_root_is_mounted_and_a_file_is_not() {
        let before = table().unwrap();
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().fstype, "proc");
        assert!(before.iter().any(|mount| mount.target == Path::new("/")));
        assert_eq!(at(Path::new("/proc/self/status")).unwrap(), None);
        assert_eq!(at(Path::new("/no/such/path")).unwrap(), None);
        // Others mount and unmount meanwhile: what is there before and after was there in between.
        let (below, after) = (below(Path::new("/")).unwrap(), table().unwrap());
        assert!(before.iter().filter(|mount| after.contains(mount)).all(|mount| below.contains(mount)));
    }

    fn escape(bytes: &[u8]) -> Vec<u8> {
        let escaped = |byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            other => vec![*other],
        };
        bytes.iter().flat_map(escaped).collect()
    }

    proptest! {
        #[test]
        fn what_the_kernel_writes_is_read_back(
            id in any::<u32>(), major in 0..4096_u32, minor in 0..1_048_576_u32,
            root in prop::collection::vec(1..=255_u8, 0..40),
            target in prop::collection::vec(1..=255_u8, 0..40),
            source in "[ -~]{0,20}",
            tags in prop::collection::vec("(shared|master):[0-9]{1,5}", 0..3),
        ) {
            let mut line = format!("{id} 1 {major}:{minor} /").into_bytes();
            line.extend(escape(&root));
            line.extend(b" /");
            line.extend(escape(&target));
            line.extend(b" rw,relatime");
            for tag in &tags {
                line.push(b' ');
                line.extend(tag.bytes());
            }
            line.extend(b" - ext4 ");
            line.extend(escape(source.as_bytes()));
            line.extend(b" rw,x=y\n");
            let mounts = parse(&line).unwrap();
            prop_assert_eq!(mounts.len(), 1);
            let mount = &mounts[0];
            prop_assert_eq!(mount.id, u64::from(id));
            prop_assert_eq!(mount.dev, rustix::fs::makedev(major, minor));
            prop_assert_eq!(&mount.root.as_os_str().as_bytes()[1..], &root[..]);
            prop_assert_eq!(&mount.target.as_os_str().as_bytes()[1..], &target[..]);
            prop_assert_eq!(&mount.source, &source);
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(mounts) = parse(&bytes) {
                prop_assert!(mounts.len() <= bytes.len());
            }
        }
    }
}
