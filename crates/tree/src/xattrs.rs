//! Extended attributes, ACLs among them (`system.posix_acl_access` and `system.posix_acl_default` are their wire form), of
//! any entry and without following symlinks. What overlayfs keeps for itself is neither read nor written.

use crate::error::Error;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names with their namespaces (`user.comment`), and values.
pub type Xattrs = BTreeMap<OsString, Vec<u8>>;

/// Whose attributes.
#[derive(Debug, Clone, Copy)]
pub enum Of<'a> {
    /// Those of an open file or directory (not one opened with `O_PATH`).
    Open(BorrowedFd<'a>),
    /// Those of a name in an open directory: of a symlink itself, if it is one. Needs `/proc`.
    Named(BorrowedFd<'a>, &'a OsStr),
}

/// What was refused, of which attribute.
#[derive(Debug)]
pub struct Failure {
    /// The system call.
    pub call: &'static str,
    /// The attribute, where it was about one.
    pub name: Option<OsString>,
    /// The kernel's answer.
    pub errno: Errno,
}

impl Failure {
    /// The error that this is for an entry.
    pub fn on(self, path: &Path) -> Error {
        match self.name {
            Some(name) => Error::on(format!("{} {}", self.call, name.display()), path, self.errno),
            None => Error::on(self.call, path, self.errno),
        }
    }
}

/// The label that SELinux gives by its own policy: copied if the destination takes it.
pub const SELINUX: &str = "security.selinux";

/// Whether an attribute belongs to the file, and not to the overlayfs that it is seen through.
pub fn is_carried(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

/// All attributes that are carried. None where the file system has no attributes.
pub fn read(of: Of<'_>) -> Result<Xattrs, Failure> {
    let list = match full(|buffer| of.list(buffer)) {
        Ok(list) => list,
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        Err(errno) => return Err(Failure { call: "listxattr", name: None, errno }),
    };
    let mut found = Xattrs::new();
    for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes) {
        if !is_carried(name) {
            continue;
        }
        match full(|buffer| of.get(name, buffer)) {
            Ok(value) => {
                found.insert(name.to_owned(), value);
            }
            // Removed since it was listed; or listed by a security module that is not there.
            Err(Errno::NODATA) => {}
            Err(Errno::OPNOTSUPP) if name == SELINUX => {}
            Err(errno) => return Err(Failure { call: "getxattr", name: Some(name.to_owned()), errno }),
        }
    }
    Ok(found)
}

/// Makes the attributes what they should be: writes those that differ and removes the others. Says whether it changed any.
pub fn write(of: Of<'_>, wanted: &Xattrs) -> Result<bool, Failure> {
    let present = read(of)?;
    let mut changed = false;
    for name in present.keys().filter(|name| !wanted.contains_key(*name) && *name != SELINUX) {
        match of.remove(name) {
            Ok(()) => changed = true,
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(Failure { call: "removexattr", name: Some(name.clone()), errno }),
        }
    }
    for (name, value) in wanted.iter().filter(|(name, value)| present.get(*name) != Some(*value)) {
        if !is_carried(name) {
            continue;
        }
        match of.set(name, value) {
            Ok(()) => changed = true,
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL) if name == SELINUX => {}
            Err(errno) => return Err(Failure { call: "setxattr", name: Some(name.clone()), errno }),
        }
    }
    Ok(changed)
}

/// Asks with a buffer that is usually enough, and with larger ones while it was not: an attribute may grow in between.
fn full(ask: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0u8; 1024];
    match ask(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    // The kernel gives no more than this for a value or a list.
    let mut large = vec![0u8; 64 * 1024];
    let length = ask(&mut large)?;
    large.truncate(length);
    Ok(large)
}

impl Of<'_> {
    fn list(self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Of::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Of::Named(dir, name) => rustix::fs::llistxattr(by_proc(dir, name), buffer),
        }
    }

    fn get(self, attribute: &OsStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Of::Open(fd) => rustix::fs::fgetxattr(fd, attribute, buffer),
            Of::Named(dir, name) => rustix::fs::lgetxattr(by_proc(dir, name), attribute, buffer),
        }
    }

    fn set(self, attribute: &OsStr, value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Of::Open(fd) => rustix::fs::fsetxattr(fd, attribute, value, XattrFlags::empty()),
            Of::Named(dir, name) => {
                rustix::fs::lsetxattr(by_proc(dir, name), attribute, value, XattrFlags::empty())
            }
        }
    }

    fn remove(self, attribute: &OsStr) -> rustix::io::Result<()> {
        match self {
            Of::Open(fd) => rustix::fs::fremovexattr(fd, attribute),
            Of::Named(dir, name) => rustix::fs::lremovexattr(by_proc(dir, name), attribute),
        }
    }
}

/// A path that resolves in an open directory, for the calls that take no directory (`setxattrat(2)` came with Linux 6.13).
fn by_proc(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(name);
    path
}
