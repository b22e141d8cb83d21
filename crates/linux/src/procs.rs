//! Which processes use a file system or a tree of files, in any mount namespace. It does not know why they do.
//!
//! What a process has open is looked at through the magic links of `/proc` (proc(5)): they lead to the file itself, so they work
//! for namespaces that this process is not in. Threads with a working directory of their own are not looked at.

use crate::mounts::{self, MountInfo};
use crate::{KernelError, Result};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Kills all processes of the control group that a process is in, and of those below it. They must be frozen, so that none can
/// make another one meanwhile; a killed process never returns to its program, also when it is thawed.
///
/// # Errors
/// The process is in no control group that can be frozen, or in the host's own. What `kill(2)` says, but for processes that
/// have ended.
pub fn kill_with(pid: u32) -> Result<()> {
    let path = Path::new("/proc").join(pid.to_string()).join("cgroup");
    let told = fs::read_to_string(&path).map_err(|source| KernelError::on("read", &path, source))?;
    let Some(group) = freezable(&told).filter(|group| *group != "/") else {
        return Err(KernelError::invalid("read", &path, "it names no control group of its own"));
    };
    let entries =
        fs::read_dir("/proc").map_err(|source| KernelError::on("readdir", Path::new("/proc"), source))?;
    for entry in entries.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let told = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let is_in = freezable(&told)
            .and_then(|path| path.strip_prefix(group))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(process) = rustix::process::Pid::from_raw(other).filter(|_| is_in) else { continue };
        match rustix::process::kill_process(process, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(KernelError::on("kill", &entry.path(), errno)),
        }
    }
    Ok(())
}

/// The control group by which a process is frozen, of `/proc/PID/cgroup` (cgroups(7)): that of the controller `freezer` where
/// it is in a hierarchy of version 1, and that of version 2 otherwise.
fn freezable(told: &str) -> Option<&str> {
    let lines = || told.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let first = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == "freezer"));
    first.or_else(|| lines().find(|(controllers, _)| controllers.is_empty())).map(|(_, path)| path)
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Files whose `st_dev` is this number, and the block device itself.
    Device(u64),
    /// A directory and all below it, by whatever path the process knows it.
    Tree(&'a Path),
}

/// A process, and what it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its ID in this process's PID namespace.
    pub pid: u32,
    /// The name of its program, at most 15 bytes (`/proc/PID/comm`).
    pub command: String,
    /// What it uses; never empty.
    pub uses: Vec<Use>,
}

/// One use of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// By which means.
    pub what: What,
    /// The file, as the process knows it; ` (deleted)` at the end if it has no name any more.
    pub path: PathBuf,
    /// What the process may do.
    pub access: Access,
}

/// The means by which a process uses a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An open file, by its descriptor.
    Fd(u32),
    /// The working directory.
    Cwd,
    /// The root directory.
    Root,
    /// A file mapped into memory, such as a program or a library.
    Map,
}

/// What may be done with an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading, or nothing (`O_PATH`).
    Read,
    /// Writing.
    Write,
    /// Both.
    ReadWrite,
}

/// The processes that use a file system or a tree. A process that ends meanwhile, or that this one may not look into, is not among
/// them.
///
/// # Errors
/// `/proc` that can't be read; a tree that does not exist.
pub fn open_files(target: &Target<'_>) -> Result<Vec<Holder>> {
    let mut search = Search::new(target)?;
    let failed = |source| KernelError::on("read directory", Path::new("/proc"), source);
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = number(&entry.file_name()) else { continue };
        let uses = search.uses_of(&entry.path());
        if !uses.is_empty() {
            let comm = fs::read(entry.path().join("comm")).unwrap_or_default();
            let command = String::from_utf8_lossy(&comm).trim_end().to_owned();
            holders.push(Holder { pid, command, uses });
        }
    }
    holders.sort_unstable_by_key(|holder| holder.pid);
    Ok(holders)
}

fn number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

/// What `statx(2)` says about a file.
struct Seen {
    dev: u64,
    mount: u64,
}

/// Where a mount shows which part of its file system.
struct Shown {
    dev: u64,
    root: PathBuf,
    target: PathBuf,
}

struct Search<'a> {
    dev: u64,
    /// `None`: the whole device.
    tree: Option<Tree<'a>>,
    /// Mounts of all namespaces met so far; their IDs are unique on the host.
    mounts: HashMap<u64, Shown>,
    namespaces: HashSet<PathBuf>,
}

struct Tree<'a> {
    path: &'a Path,
    /// The device of its mount, and the directory within that file system: the same in every namespace.
    inside: Option<(u64, PathBuf)>,
}

impl<'a> Search<'a> {
    fn new(target: &Target<'a>) -> Result<Self> {
        let (dev, tree) = match *target {
            Target::Device(dev) => (dev, None),
            Target::Tree(path) => {
                let seen = look(path).map_err(|errno| KernelError::on("stat", path, errno))?;
                (seen.dev, Some((path, seen.mount)))
            }
        };
        let mut search = Self { dev, tree: None, mounts: HashMap::new(), namespaces: HashSet::new() };
        if let Some((path, mount)) = tree {
            search.learn(mounts::table()?);
            let full = fs::canonicalize(path).map_err(|source| KernelError::on("resolve", path, source))?;
            search.tree = Some(Tree { path, inside: search.inside(mount, &full) });
        }
        Ok(search)
    }

    fn learn(&mut self, table: Vec<MountInfo>) {
        for MountInfo { id, dev, root, target, .. } in table {
            self.mounts.entry(id).or_insert(Shown { dev, root, target });
        }
    }

    /// The place of a path within its file system, whatever it is mounted as.
    fn inside(&self, mount: u64, path: &Path) -> Option<(u64, PathBuf)> {
        let shown = self.mounts.get(&mount)?;
        let rest = path.strip_prefix(&shown.target).ok()?;
        // Joining nothing would add a slash.
        let inside = if rest.as_os_str().is_empty() { shown.root.clone() } else { shown.root.join(rest) };
        Some((shown.dev, inside))
    }

    fn uses_of(&mut self, process: &Path) -> Vec<Use> {
        let mut uses = Vec::new();
        for (what, name) in [(What::Cwd, "cwd"), (What::Root, "root")] {
            if let Some(path) = self.matches(process, &process.join(name), None) {
                uses.push(Use { what, path, access: Access::Read });
            }
        }
        self.add_open(process, &mut uses);
        self.add_mapped(process, &mut uses);
        uses
    }

    fn add_open(&mut self, process: &Path, uses: &mut Vec<Use>) {
        // Unreadable: it has ended, or belongs to somebody we may not look into.
        let Ok(entries) = fs::read_dir(process.join("fd")) else { return };
        for entry in entries.flatten() {
            let Some(fd) = number(&entry.file_name()) else { continue };
            if let Some(path) = self.matches(process, &entry.path(), None) {
                let info = fs::read_to_string(process.join(format!("fdinfo/{fd}"))).unwrap_or_default();
                uses.push(Use { what: What::Fd(fd), path, access: access_of(&info) });
            }
        }
    }

    fn add_mapped(&mut self, process: &Path, uses: &mut Vec<Use>) {
        let Ok(maps) = fs::read(process.join("maps")) else { return };
        // A program has several mappings of one file: each file counts once, with the most that may be done.
        let mapped: Vec<Mapped<'_>> = maps.split(|byte| *byte == b'\n').filter_map(Mapped::parse).collect();
        let written: HashSet<_> = mapped.iter().filter(|map| map.writes).map(Mapped::file).collect();
        let mut done = BTreeSet::new();
        for map in &mapped {
            // Where st_dev can differ from the device of the file system, it is an anonymous one (btrfs, overlay).
            let possible = map.dev == self.dev || rustix::fs::major(self.dev) == 0;
            if !possible || !done.insert(map.file()) {
                continue;
            }
            let link = process.join("map_files").join(OsStr::from_bytes(map.range));
            if let Some(path) = self.matches(process, &link, Some(map)) {
                let access = if written.contains(&map.file()) { Access::ReadWrite } else { Access::Read };
                uses.push(Use { what: What::Map, path, access });
            }
        }
    }

    /// The path behind a magic link, if it is what is looked for. A mapping whose link may not be followed is judged by its line.
    fn matches(&mut self, process: &Path, link: &Path, map: Option<&Mapped<'_>>) -> Option<PathBuf> {
        let seen = match (look(link), map) {
            (Ok(seen), _) => seen,
            (Err(_), Some(map)) => Seen { dev: map.dev, mount: 0 },
            (Err(_), None) => return None,
        };
        if seen.dev != self.dev {
            return None;
        }
        let path = match (fs::read_link(link), map) {
            (Ok(path), _) => path,
            (Err(_), Some(map)) => map.path(),
            (Err(_), None) => return None,
        };
        let Some(tree) = &self.tree else { return Some(path) };
        if path.starts_with(tree.path) {
            return Some(path);
        }
        if !self.mounts.contains_key(&seen.mount) {
            self.learn_namespace(process);
        }
        let (dev, place) = self.inside(seen.mount, &path)?;
        let (tree_dev, tree_place) = self.tree.as_ref()?.inside.as_ref()?;
        (dev == *tree_dev && place.starts_with(tree_place)).then_some(path)
    }

    fn learn_namespace(&mut self, process: &Path) {
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else { return };
        if self.namespaces.insert(namespace)
            && let Ok(text) = fs::read(process.join("mountinfo"))
            && let Ok(table) = mounts::parse(&text)
        {
            self.learn(table);
        }
    }
}

/// Looks without asking a server that may be gone, and follows the link.
fn look(path: &Path) -> rustix::io::Result<Seen> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let seen = rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    let block_device = rustix::fs::FileType::from_raw_mode(seen.stx_mode.into()).is_block_device();
    let (major, minor) = match block_device {
        // Whoever reads the device reads the file system.
        true => (seen.stx_rdev_major, seen.stx_rdev_minor),
        false => (seen.stx_dev_major, seen.stx_dev_minor),
    };
    Ok(Seen { dev: rustix::fs::makedev(major, minor), mount: seen.stx_mnt_id })
}

/// `flags:` of fdinfo is the open mode in octal (proc(5)).
fn access_of(fdinfo: &str) -> Access {
    let flags =
        fdinfo.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    match flags.unwrap_or(0) & (libc::O_ACCMODE | libc::O_PATH) {
        libc::O_WRONLY => Access::Write,
        libc::O_RDWR => Access::ReadWrite,
        _ => Access::Read,
    }
}

/// A line of `/proc/PID/maps` that is of a file:
/// `55d0a000-55d0b000 r--p 00001000 fe:00 1234       /usr/bin/x`.
struct Mapped<'a> {
    range: &'a [u8],
    /// The process may change the file through it: writable and shared.
    writes: bool,
    dev: u64,
    inode: u64,
    name: &'a [u8],
}

impl<'a> Mapped<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let (range, permissions, _offset) = (fields.next()?, fields.next()?, fields.next()?);
        let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
        let hex = |digits| u32::from_str_radix(digits, 16).ok();
        let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let name = fields.next().unwrap_or_default().trim_ascii_start();
        (inode != 0).then_some(Self {
            range,
            writes: permissions.get(1) == Some(&b'w') && permissions.get(3) == Some(&b's'),
            dev: rustix::fs::makedev(hex(major)?, hex(minor)?),
            inode,
            name,
        })
    }

    fn file(&self) -> (u64, u64) {
        (self.dev, self.inode)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.name.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_is_frozen() {
        let first = "12:pids:/a\n5:cpu,freezer:/docker/x\n0::/unified\n";
        assert_eq!(freezable(first), Some("/docker/x"));
        assert_eq!(freezable("0::/system.slice/docker-x.scope\n"), Some("/system.slice/docker-x.scope"));
        assert_eq!(freezable(""), None);
    }

    #[test]
    fn lines_of_maps() {
        let map = Mapped::parse(b"55d0a000-55d0b000 rw-s 00001000 fe:0a 1234       /usr/bin/a b (deleted)")
            .unwrap();
        assert_eq!(map.range, b"55d0a000-55d0b000");
        assert_eq!(map.path(), Path::new("/usr/bin/a b (deleted)"));
        assert!(map.writes);
        assert_eq!(map.file(), (rustix::fs::makedev(0xfe, 0x0a), 1234));
        assert!(!Mapped::parse(b"1000-2000 rw-p 0 fe:00 1 /x").unwrap().writes);
        assert!(Mapped::parse(b"7ffd0000-7ffd1000 rw-p 00000000 00:00 0      [stack]").is_none());
        assert!(Mapped::parse(b"").is_none());
    }

    #[test]
    fn access_is_read_from_fdinfo() {
        assert_eq!(access_of("pos:\t0\nflags:\t0100000\nmnt_id:\t29\n"), Access::Read);
        assert_eq!(access_of("pos:\t0\nflags:\t02100001\n"), Access::Write);
        assert_eq!(access_of("flags:\t0100002\n"), Access::ReadWrite);
        assert_eq!(access_of("flags:\t012000000\n"), Access::Read);
        assert_eq!(access_of(""), Access::Read);
    }
}
