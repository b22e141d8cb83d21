//! Gives an entry at the destination its owner, extended attributes, mode and time, in the order that keeps them: a change of
//! owner takes set-user-ID bits and capabilities away, an ACL changes the mode, and anything sets the time.

use crate::entry::{Entry, Kind, Time};
use crate::error::{Error, Result};
use crate::walk::Tree;
use crate::xattrs::{self, Of, Xattrs};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;

/// To an open file or directory.
pub(super) fn give(tree: &Tree, fd: BorrowedFd<'_>, entry: &Entry, xattrs: &Xattrs) -> Result<()> {
    let fails = |call| move |errno| failed(tree, call, entry, errno);
    rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
        .map_err(fails("fchown"))?;
    give_xattrs(tree, Of::Open(fd), entry, xattrs)?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(fails("fchmod"))?;
    rustix::fs::futimens(fd, &times(entry.mtime)).map_err(fails("futimens"))
}

/// To anything else, by its name.
pub(super) fn give_name(
    tree: &Tree,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    xattrs: &Xattrs,
) -> Result<()> {
    let fails = |call| move |errno| failed(tree, call, entry, errno);
    let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(fails("fchownat"))?;
    give_xattrs(tree, Of::Named(dir, name), entry, xattrs)?;
    // Symlinks have no mode.
    if !matches!(entry.kind, Kind::Symlink(_)) {
        // fchmodat(2) follows symlinks, and is not asked by name therefore.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(fails("openat"))?;
        let path = format!("/proc/self/fd/{}", node.as_fd().as_raw_fd());
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(fails("chmod"))?;
    }
    rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(fails("utimensat"))
}

/// The time alone, to an open directory.
pub(super) fn give_time(fd: BorrowedFd<'_>, mtime: Time) -> rustix::io::Result<()> {
    rustix::fs::futimens(fd, &times(mtime))
}

fn give_xattrs(tree: &Tree, of: Of<'_>, entry: &Entry, xattrs: &Xattrs) -> Result<()> {
    xattrs::write(of, xattrs).map(drop).map_err(|failure| match failure.errno {
        errno @ (Errno::NOSPC | Errno::DQUOT) => failed(tree, failure.call, entry, errno),
        _ => failure.on(&tree.show(&entry.path)),
    })
}

fn times(mtime: Time) -> Timestamps {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
    Timestamps { last_access, last_modification }
}

/// What was refused at the destination. How much is missing, if it is room, is found out at the end.
pub(super) fn failed(tree: &Tree, call: &'static str, entry: &Entry, errno: Errno) -> Error {
    refused(tree, call, &entry.path, errno)
}

/// The same of a path.
pub(super) fn refused(tree: &Tree, call: &'static str, path: &std::path::Path, errno: Errno) -> Error {
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            Error::NoSpace { call: call.into(), path: tree.show(path), missing: None }
        }
        _ => tree.fails(call, path, errno),
    }
}
