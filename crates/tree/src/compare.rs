//! Every difference between two trees, by reading both. Not compared are access and change times, holes (what is read there
//! is), and the label of SELinux, which the destination's own policy may give.

use crate::entry::{Entry, Kind};
use crate::error::{Error, Result};
use crate::walk::{Skip, Tree, Walk};
use crate::xattrs::{SELINUX, Xattrs};
use rustix::fd::AsFd;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What is read at once.
const READ: usize = 1024 * 1024;

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where, from the roots.
    pub path: PathBuf,
    /// What differs.
    pub what: What,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The second tree does not have it.
    OnlyInFirst,
    /// The first tree does not have it.
    OnlyInSecond,
    /// It is a file here and a directory there, or the like.
    Kind,
    /// The size of a file.
    Size(u64, u64),
    /// The content of a file, from about this offset on. Files of different sizes are not read.
    Content(u64),
    /// The target of a symlink.
    Target,
    /// The number of a device.
    Device(u64, u64),
    /// Permissions and set-ID bits.
    Mode(u32, u32),
    /// Owner and group.
    Owner((u32, u32), (u32, u32)),
    /// When the content changed.
    Mtime,
    /// The extended attributes of these names.
    Xattrs(Vec<OsString>),
    /// It is another name of these paths (the first of each tree): hard links.
    Links(PathBuf, PathBuf),
    /// It changed or vanished while it was compared: a tree is in use.
    Moving,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.as_os_str().is_empty() { Path::new(".") } else { &self.path };
        write!(f, "{}: ", path.display())?;
        match &self.what {
            What::OnlyInFirst => write!(f, "only in the first tree"),
            What::OnlyInSecond => write!(f, "only in the second tree"),
            What::Kind => write!(f, "not the same kind of file"),
            What::Size(one, other) => write!(f, "{one} bytes in the first tree, {other} in the second"),
            What::Content(offset) => write!(f, "the content differs near byte {offset}"),
            What::Target => write!(f, "the symlinks have different targets"),
            What::Device(one, other) => {
                write!(f, "device {one:#x} in the first tree, {other:#x} in the second")
            }
            What::Mode(one, other) => {
                write!(f, "mode {one:04o} in the first tree, {other:04o} in the second")
            }
            What::Owner(one, other) => {
                write!(
                    f,
                    "owner {}:{} in the first tree, {}:{} in the second",
                    one.0, one.1, other.0, other.1
                )
            }
            What::Mtime => write!(f, "the times of modification differ"),
            What::Xattrs(names) => {
                let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
                write!(f, "extended attributes differ: {}", names.join(", "))
            }
            What::Links(one, other) => write!(
                f,
                "not the same hard links: the same file as {} in the first tree, as {} in the second",
                one.display(),
                other.display()
            ),
            What::Moving => write!(f, "it changed while it was compared"),
        }
    }
}

/// All differences of two trees, in the order of a walk. Both must be at rest.
pub fn compare(first: &Tree, second: &Tree, skip: &Skip) -> Result<Vec<Difference>> {
    let mut sides = (Side::new(first, skip)?, Side::new(second, skip)?);
    let mut found = Vec::new();
    loop {
        sides.0.fetch()?;
        sides.1.fetch()?;
        let order = match (&sides.0.entry, &sides.1.entry) {
            (None, None) => return Ok(found),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.path.cmp(&other.path),
        };
        let one = if order.is_le() { sides.0.take() } else { None };
        let other = if order.is_ge() { sides.1.take() } else { None };
        match (one, other) {
            (Some(one), Some(other)) => pair(&mut sides, &one, &other, &mut found)?,
            (Some(one), None) => found.push(Difference { path: one.path, what: What::OnlyInFirst }),
            (None, Some(other)) => found.push(Difference { path: other.path, what: What::OnlyInSecond }),
            (None, None) => return Ok(found),
        }
    }
}

/// One of the trees.
struct Side<'t> {
    tree: &'t Tree,
    walk: Walk<'t>,
    /// The entry that the walk is at, until it was compared.
    entry: Option<Entry>,
    /// The first path of each inode with several names.
    firsts: HashMap<(u64, u64), PathBuf>,
}

impl<'t> Side<'t> {
    fn new(tree: &'t Tree, skip: &'t Skip) -> Result<Self> {
        Ok(Self { tree, walk: Walk::new(tree, skip)?, entry: None, firsts: HashMap::new() })
    }

    fn fetch(&mut self) -> Result<()> {
        if self.entry.is_none() {
            self.entry = self.walk.next().transpose()?;
        }
        Ok(())
    }

    /// The entry, which names its inode from now on.
    fn take(&mut self) -> Option<Entry> {
        let entry = self.entry.take()?;
        if entry.nlink > 1 && !entry.is_dir() {
            self.firsts.entry(entry.inode()).or_insert_with(|| entry.path.clone());
        }
        Some(entry)
    }

    fn first(&self, entry: &Entry) -> PathBuf {
        let linked = (!entry.is_dir()).then(|| self.firsts.get(&entry.inode())).flatten();
        linked.unwrap_or(&entry.path).clone()
    }

    fn fails(&self, call: &'static str, entry: &Entry, error: std::io::Error) -> Error {
        Error::on(call, &self.tree.show(&entry.path), error)
    }
}

/// Compares two entries of the same path, which the walks are at.
fn pair(
    sides: &mut (Side<'_>, Side<'_>),
    one: &Entry,
    other: &Entry,
    found: &mut Vec<Difference>,
) -> Result<()> {
    let mut differs = |what| found.push(Difference { path: one.path.clone(), what });
    let firsts = (sides.0.first(one), sides.1.first(other));
    if firsts.0 != firsts.1 {
        differs(What::Links(firsts.0, firsts.1));
    }
    match (&one.kind, &other.kind) {
        (Kind::Symlink(target), Kind::Symlink(other)) if target != other => differs(What::Target),
        (Kind::CharDevice { rdev }, Kind::CharDevice { rdev: other })
        | (Kind::BlockDevice { rdev }, Kind::BlockDevice { rdev: other })
            if rdev != other =>
        {
            differs(What::Device(*rdev, *other));
        }
        (kind, other) if std::mem::discriminant(kind) != std::mem::discriminant(other) => differs(What::Kind),
        _ => {}
    }
    if one.mode != other.mode {
        differs(What::Mode(one.mode, other.mode));
    }
    if (one.uid, one.gid) != (other.uid, other.gid) {
        differs(What::Owner((one.uid, one.gid), (other.uid, other.gid)));
    }
    if one.mtime != other.mtime {
        differs(What::Mtime);
    }
    match (sides.0.walk.xattrs(one)?, sides.1.walk.xattrs(other)?) {
        (Some(mine), Some(others)) => {
            let names = different(&mine, &others);
            if !names.is_empty() {
                differs(What::Xattrs(names));
            }
        }
        _ => differs(What::Moving),
    }
    if one.is_file() && other.is_file() {
        if one.size != other.size {
            differs(What::Size(one.size, other.size));
        } else {
            match (sides.0.walk.open(one)?, sides.1.walk.open(other)?) {
                (Some(mine), Some(others)) => {
                    if let Some(offset) = contents(sides, one, &mine, &others)? {
                        differs(What::Content(offset));
                    }
                }
                _ => differs(What::Moving),
            }
        }
    }
    Ok(())
}

/// The names of attributes that one has and the other has not, or with another value.
fn different(one: &Xattrs, other: &Xattrs) -> Vec<OsString> {
    let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| *name != SELINUX && one.get(*name) != other.get(*name)).cloned().collect()
}

/// The first place, about, where two files of the same size differ. What is a hole in both is not read.
fn contents(sides: &(Side<'_>, Side<'_>), entry: &Entry, one: &File, other: &File) -> Result<Option<u64>> {
    let mut buffers = (vec![0; READ], vec![0; READ]);
    let mut position = 0;
    while position < entry.size {
        let next = (data(one, position, entry.size), data(other, position, entry.size));
        position = next.0.min(next.1);
        let length = (entry.size - position).min(READ as u64) as usize;
        let (mine, others) = (&mut buffers.0[..length], &mut buffers.1[..length]);
        one.read_exact_at(mine, position).map_err(|error| sides.0.fails("pread", entry, error))?;
        other.read_exact_at(others, position).map_err(|error| sides.1.fails("pread", entry, error))?;
        // Comparing slices is much faster than looking for the byte.
        if mine != others {
            let at = mine.iter().zip(others.iter()).position(|(mine, other)| mine != other);
            return Ok(Some(position + at.unwrap_or(0) as u64));
        }
        position += length as u64;
    }
    Ok(None)
}

/// Where there is data from an offset on; the end if there is none.
fn data(file: &File, from: u64, end: u64) -> u64 {
    match rustix::fs::seek(file.as_fd(), SeekFrom::Data(from)) {
        Ok(offset) => offset.clamp(from, end),
        Err(Errno::NXIO) => end,
        Err(_) => from,
    }
}
