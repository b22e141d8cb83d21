//! Random changes to a tree: what files are and become in real life, and stranger. What cannot be done (no such file, a
//! directory in the way) is left undone.

use crate::ground::bytes;
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags, makedev,
};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// `u::rwx,u:70000:r--,g::r--,m::r--,o::---`.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x04\0\x70\x11\x01\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
/// `cap_net_bind_service=ep`.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[derive(Debug, Clone)]
pub enum Change {
    Write {
        at: PathBuf,
        offset: u64,
        length: usize,
        byte: u8,
    },
    /// The same, and the time of modification is set back to what it was.
    Stealthily {
        at: PathBuf,
        offset: u64,
        length: usize,
        byte: u8,
    },
    Resize {
        at: PathBuf,
        size: u64,
    },
    Punch {
        at: PathBuf,
        offset: u64,
        length: u64,
    },
    Dir(PathBuf),
    Symlink {
        at: PathBuf,
        target: PathBuf,
    },
    Node {
        at: PathBuf,
        sort: u8,
        minor: u32,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Exchange {
        one: PathBuf,
        other: PathBuf,
    },
    Remove(PathBuf),
    Mode {
        at: PathBuf,
        mode: u32,
    },
    Owner {
        at: PathBuf,
        uid: u32,
        gid: u32,
    },
    Attribute {
        at: PathBuf,
        which: usize,
        value: Option<u8>,
    },
    Time {
        at: PathBuf,
        seconds: i64,
        nanoseconds: i64,
    },
}

/// A path: names are few, so that changes meet.
fn path() -> impl Strategy<Value = PathBuf> {
    let dir = prop_oneof![4 => Just(&b""[..]), 2 => Just(&b"d"[..]), 1 => Just(&b"d/e"[..]), 1 => Just(&b"\xff\n"[..])];
    let name = prop::sample::select(vec![&b"a"[..], b"b", b"c", b"d", b"e", b"\xff\n", b"-", b"zz"]);
    (dir, name).prop_map(|(dir, name)| bytes(dir).join(bytes(name)))
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..300_000u64, (0..12u64).prop_map(|block| block * 65_536)]
}

pub fn change() -> impl Strategy<Value = Change> {
    let length = || prop_oneof![0..9usize, 0..200_000usize];
    let writes = prop_oneof![
        6 => (path(), offset(), length(), any::<u8>())
            .prop_map(|(at, offset, length, byte)| Change::Write { at, offset, length, byte }),
        2 => (path(), offset(), 1..70_000usize, any::<u8>())
            .prop_map(|(at, offset, length, byte)| Change::Stealthily { at, offset, length, byte }),
        1 => (path(), offset()).prop_map(|(at, size)| Change::Resize { at, size }),
        1 => (path(), offset(), 1..200_000u64).prop_map(|(at, offset, length)| Change::Punch { at, offset, length }),
    ];
    let names = prop_oneof![
        4 => path().prop_map(Change::Dir),
        1 => (path(), path()).prop_map(|(at, target)| Change::Symlink { at, target }),
        1 => (path(), 0..4u8, 1..900u32).prop_map(|(at, sort, minor)| Change::Node { at, sort, minor }),
        3 => (path(), path()).prop_map(|(from, to)| Change::Link { from, to }),
        2 => (path(), path()).prop_map(|(from, to)| Change::Rename { from, to }),
        1 => (path(), path()).prop_map(|(one, other)| Change::Exchange { one, other }),
        2 => path().prop_map(Change::Remove),
    ];
    let at = || prop_oneof![9 => path(), 1 => Just(PathBuf::new())];
    let metadata = prop_oneof![
        (at(), 0..0o10000u32).prop_map(|(at, mode)| Change::Mode { at, mode }),
        (at(), 0..100_000u32, 0..100_000u32).prop_map(|(at, uid, gid)| Change::Owner { at, uid, gid }),
        (at(), 0..6usize, any::<Option<u8>>()).prop_map(|(at, which, value)| Change::Attribute {
            at,
            which,
            value
        }),
        (at(), -2_000_000_000..4_000_000_000i64, 0..1_000_000_000i64)
            .prop_map(|(at, seconds, nanoseconds)| Change::Time { at, seconds, nanoseconds }),
    ];
    prop_oneof![3 => writes, 4 => names, 2 => metadata]
}

pub fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..most)
}

impl Change {
    /// Does it, if it can be done. Says whether it was.
    pub fn make(&self, root: &Path) -> bool {
        self.attempt(root).is_ok()
    }

    fn attempt(&self, root: &Path) -> std::io::Result<()> {
        let at = |path: &Path| if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
        match self {
            Self::Write { at: path, offset, length, byte } => write(&at(path), *offset, *length, *byte),
            Self::Stealthily { at: path, offset, length, byte } => {
                let time = fs::symlink_metadata(at(path))?.modified()?;
                write(&at(path), *offset, *length, *byte)?;
                open(&at(path))?.set_modified(time)
            }
            Self::Resize { at: path, size } => open(&at(path))?.set_len(*size),
            Self::Punch { at: path, offset, length } => {
                Ok(linux::fs::punch(&open(&at(path))?, *offset, *length).map_err(|error| error.source)?)
            }
            Self::Dir(path) => fs::create_dir(at(path)),
            Self::Symlink { at: path, target } => symlink(target, at(path)),
            Self::Node { at: path, sort, minor } => {
                let sorts =
                    [FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::BlockDevice];
                let sort = sorts[usize::from(*sort)];
                let device = matches!(sort, FileType::CharacterDevice | FileType::BlockDevice);
                let rdev = if device { makedev(300, *minor) } else { 0 };
                Ok(rustix::fs::mknodat(CWD, at(path), sort, Mode::from_raw_mode(0o644), rdev)?)
            }
            Self::Link { from, to } => fs::hard_link(at(from), at(to)),
            Self::Rename { from, to } => fs::rename(at(from), at(to)),
            Self::Exchange { one, other } => {
                Ok(rustix::fs::renameat_with(CWD, at(one), CWD, at(other), RenameFlags::EXCHANGE)?)
            }
            Self::Remove(path) => match fs::symlink_metadata(at(path))?.is_dir() {
                true => fs::remove_dir_all(at(path)),
                false => fs::remove_file(at(path)),
            },
            Self::Mode { at: path, mode } => {
                if fs::symlink_metadata(at(path))?.is_symlink() {
                    return Ok(());
                }
                fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))
            }
            Self::Owner { at: path, uid, gid } => std::os::unix::fs::lchown(at(path), Some(*uid), Some(*gid)),
            Self::Attribute { at: path, which, value } => attribute(&at(path), *which, *value),
            Self::Time { at: path, seconds, nanoseconds } => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: *nanoseconds };
                let times = Timestamps { last_access: time, last_modification: time };
                Ok(rustix::fs::utimensat(CWD, at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
        }
    }
}

/// A regular file only: opening a device or a pipe would be something else.
fn open(at: &Path) -> std::io::Result<File> {
    match fs::symlink_metadata(at) {
        Ok(stat) if !stat.is_file() => Err(std::io::ErrorKind::InvalidInput.into()),
        // Somebody else may put a pipe there just now, which nobody reads: it is refused then, and not waited for.
        _ => {
            let nonblocking = OFlags::NONBLOCK.bits() as i32;
            File::options().write(true).create(true).truncate(false).custom_flags(nonblocking).open(at)
        }
    }
}

fn write(at: &Path, offset: u64, length: usize, byte: u8) -> std::io::Result<()> {
    open(at)?.write_all_at(&vec![byte; length], offset)
}

fn attribute(at: &Path, which: usize, value: Option<u8>) -> std::io::Result<()> {
    let names = [
        "user.a",
        "user.b",
        "trusted.c",
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
    ];
    let name = names[which];
    let is_dir = fs::symlink_metadata(at)?.mode() & 0o170_000 == 0o040_000;
    match value {
        None => Ok(rustix::fs::lremovexattr(at, name)?),
        Some(value) => {
            let any = vec![value; usize::from(value)];
            let value = match name {
                "security.capability" if is_dir => return Ok(()),
                "security.capability" => CAPABILITY,
                name if name.starts_with("system") => ACL,
                _ => &any,
            };
            Ok(rustix::fs::lsetxattr(at, name, value, XattrFlags::empty())?)
        }
    }
}
