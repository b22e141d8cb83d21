//! What the tests stand on: trees made and changed by chance from a seed, what a tree is, and small bundles.

use bundle::{LayerForm, Preamble, Reader, Skip, Writer};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

pub fn preamble() -> Preamble {
    Preamble { made: "2024-05-06T07:08:09Z".parse().unwrap(), by: "everhold 0.0.0".into() }
}

/// A bundle of one volume that is at rest.
pub fn bundle_of(tree: &Path, file: &Path) -> Reader {
    let mut writer = Writer::create(file, &preamble()).unwrap();
    let mut live = writer.layer(tree, volume("data"), Skip::new()).unwrap();
    writer.last_look(&mut live).unwrap();
    writer.seal(live).unwrap();
    writer.finish().unwrap();
    verified(file)
}

pub fn volume(name: &str) -> LayerForm {
    LayerForm::Volume { name: name.into() }
}

pub fn verified(file: &Path) -> Reader {
    let mut reader = Reader::open(file).unwrap();
    reader.verify(&mut |_| true).unwrap();
    reader
}

/// Unpacks a volume into a new directory.
pub fn unpack(reader: &Reader, name: &str, dest: &Path) {
    fs::create_dir_all(dest).unwrap();
    reader.unpack_volume(name, dest, &mut |_| true).unwrap();
}

/// Numbers by chance (xorshift64*).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len() as u64) as usize) }
    }

    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len as usize + 8);
        while (bytes.len() as u64) < len {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(len as usize);
        bytes
    }

    fn name(&mut self) -> PathBuf {
        let mut name = match self.below(8) {
            0 => b".wh.".to_vec(),
            1 => self.bytes(40).into_iter().filter(|byte| *byte != 0 && *byte != b'/').collect(),
            2 => vec![b'n'; 120],
            _ => b"f".to_vec(),
        };
        name.extend(self.below(1000).to_string().into_bytes());
        PathBuf::from(std::ffi::OsString::from_vec(name))
    }
}

/// A tree that is changed by chance.
pub struct Garden {
    pub root: PathBuf,
    pub chance: Chance,
    /// Without what layers of images can't have.
    pub plain: bool,
}

impl Garden {
    pub fn new(root: &Path, seed: u64) -> Self {
        fs::create_dir_all(root).unwrap();
        Self { root: root.to_owned(), chance: Chance::new(seed), plain: false }
    }

    pub fn grow(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn all(&self, directories: bool) -> Vec<PathBuf> {
        let all = snapshot(&self.root);
        let fits = |seen: &Seen| (seen.mode & 0o170_000 == 0o040_000) == directories;
        all.iter().filter(|(_, seen)| fits(seen)).map(|(path, _)| self.root.join(path)).collect()
    }

    fn new_path(&mut self) -> PathBuf {
        let directory = self.chance.pick(&self.all(true)).cloned().unwrap_or_else(|| self.root.clone());
        let mut name = self.chance.name();
        if self.plain && name.as_os_str().as_bytes().starts_with(b".wh.") {
            name = "plain".into();
        }
        directory.join(name)
    }

    fn old(&mut self) -> Option<PathBuf> {
        let all = self.all(false);
        self.chance.pick(&all).cloned()
    }

    fn old_file(&mut self) -> Option<PathBuf> {
        let all: Vec<PathBuf> =
            self.all(false).into_iter().filter(|path| path.symlink_metadata().unwrap().is_file()).collect();
        self.chance.pick(&all).cloned()
    }

    /// One change. What does not work because of what is there is no change.
    pub fn step(&mut self) {
        let fresh = self.new_path();
        match self.chance.below(24) {
            0..=4 => self.file(&fresh),
            5 | 6 => drop(fs::create_dir(&fresh)),
            7 => drop(symlink("/nowhere/at all", &fresh)),
            8 => self.node(&fresh),
            9 => {
                if let Some(old) = self.old() {
                    drop(fs::hard_link(old, &fresh));
                }
            }
            10 => {
                if let Some(old) = self.old() {
                    drop(fs::rename(old, &fresh));
                }
            }
            11 => {
                let directories = self.all(true);
                if let Some(old) = self.chance.pick(&directories).filter(|old| **old != self.root) {
                    drop(fs::rename(old, &fresh));
                }
            }
            12 => {
                if let Some(old) = self.old() {
                    fs::remove_file(old).unwrap();
                }
            }
            13 => {
                let directories = self.all(true);
                if let Some(old) = self.chance.pick(&directories).filter(|old| **old != self.root) {
                    fs::remove_dir_all(old).unwrap();
                }
            }
            14 => {
                // A file becomes a directory, or the other way.
                if let Some(old) = self.old() {
                    fs::remove_file(&old).unwrap();
                    fs::create_dir(&old).unwrap();
                }
                let directories = self.all(true);
                if let Some(old) = self.chance.pick(&directories).filter(|old| **old != self.root).cloned() {
                    fs::remove_dir_all(&old).unwrap();
                    self.file(&old);
                }
            }
            15..=19 => self.write(),
            _ => self.metadata(),
        }
    }

    fn file(&mut self, path: &Path) {
        let Ok(file) = OpenOptions::new().write(true).create_new(true).open(path) else { return };
        match self.chance.below(4) {
            0 => {
                // Holes at the beginning, between and at the end.
                for _ in 0..self.chance.below(4) {
                    let (at, len) = (self.chance.below(2_000_000), self.chance.below(90_000));
                    file.write_all_at(&self.chance.bytes(len), at).unwrap();
                }
                file.set_len(2_200_000).unwrap();
            }
            1 => {
                let len = self.chance.below(400_000);
                file.write_all_at(&self.chance.bytes(len), 0).unwrap();
            }
            _ => {
                let len = self.chance.below(3000);
                file.write_all_at(&self.chance.bytes(len), 0).unwrap();
            }
        }
    }

    fn node(&mut self, path: &Path) {
        let kind =
            *self.chance.pick(&[FileType::Fifo, FileType::CharacterDevice, FileType::BlockDevice]).unwrap();
        let device = if kind == FileType::Fifo {
            0
        } else {
            rustix::fs::makedev(1, 3 + self.chance.below(300) as u32)
        };
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).ok();
    }

    fn write(&mut self) {
        let Some(path) = self.old_file() else { return };
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let before = file.metadata().unwrap();
        let size = before.len();
        match self.chance.below(6) {
            0 => file.set_len(self.chance.below(size + 70_000)).unwrap(),
            1 => file.write_all_at(&self.chance.bytes(5000), size).unwrap(),
            2 if size > 0 => {
                use rustix::fs::FallocateFlags;
                let at = self.chance.below(size);
                let len = self.chance.below(size - at) + 1;
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, at, len).unwrap();
            }
            3 if size > 0 => {
                // Written without a trace in the time of writing.
                file.write_all_at(b"x", self.chance.below(size)).unwrap();
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                    last_modification: Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() },
                };
                rustix::fs::futimens(&file, &times).unwrap();
            }
            _ if size > 0 => {
                let at = self.chance.below(size);
                let len = (self.chance.below(9000) + 1).min(size - at);
                file.write_all_at(&self.chance.bytes(len), at).unwrap();
            }
            _ => {}
        }
    }

    fn metadata(&mut self) {
        let all: Vec<PathBuf> = snapshot(&self.root).into_keys().map(|path| self.root.join(path)).collect();
        let Some(path) = self.chance.pick(&all).cloned() else { return };
        let link = path.symlink_metadata().unwrap().is_symlink();
        match self.chance.below(6) {
            0 => {
                let ids = [0, 1, 1000, 65534, 3_000_000];
                let (uid, gid) = (*self.chance.pick(&ids).unwrap(), *self.chance.pick(&ids).unwrap());
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(CWD, &path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            }
            1 if !link => {
                let mode = [0o644, 0o600, 0o4755, 0o2775, 0o1777, 0o000];
                let mode = *self.chance.pick(&mode).unwrap();
                rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).unwrap();
            }
            2 => {
                let secs = *self.chance.pick(&[0, 1, 1_000_000_000, -5, 4_000_000_000]).unwrap();
                let nanos = *self.chance.pick(&[0, 1, 999_999_999]).unwrap();
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                    last_modification: Timespec { tv_sec: secs, tv_nsec: nanos },
                };
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            }
            3 => {
                let name = *self
                    .chance
                    .pick(&["trusted.a", "trusted.b=%3D", "user.c", "security.capability"])
                    .unwrap();
                let value = match name {
                    "security.capability" => [&[0, 0, 0, 2, 0, 4, 0, 0][..], &[0; 12]].concat(),
                    _ => {
                        let len = self.chance.below(60);
                        self.chance.bytes(len)
                    }
                };
                // Not everything takes everything: links have no attributes of users.
                rustix::fs::lsetxattr(&path, name, &value, XattrFlags::empty()).ok();
            }
            // By hand, an attribute that a directory has lost stays.
            4 if !self.plain => {
                rustix::fs::lremovexattr(&path, "trusted.a").ok();
            }
            _ if !link => {
                let name =
                    *self.chance.pick(&["system.posix_acl_access", "system.posix_acl_default"]).unwrap();
                rustix::fs::lsetxattr(&path, name, &acl(self.chance.below(3) as u32), XattrFlags::empty())
                    .ok();
            }
            _ => {}
        }
    }
}

/// A list of rights with one more user.
pub fn acl(user: u32) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1, 7, u32::MAX), (2, 5, 1000 + user), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 1, u32::MAX)]
    {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(rights));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

/// All that an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    owners: (u32, u32),
    size: u64,
    mtime: (i64, i64),
    device: u64,
    target: Option<PathBuf>,
    content: Option<blake3::Hash>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same inode.
    same_as: Option<PathBuf>,
}

/// All entries of a tree by path.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let full = root.join(&path);
        let stat = full.symlink_metadata().unwrap();
        if stat.is_dir() {
            left.extend(fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        }
        seen.insert(path, look(&full, &stat));
    }
    let mut inodes: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for path in seen.keys() {
        let stat = root.join(path).symlink_metadata().unwrap();
        if !stat.is_dir() && stat.nlink() > 1 {
            inodes.entry(stat.ino()).or_default().push(path.clone());
        }
    }
    // Other names may be in layers below.
    for paths in inodes.into_values().filter(|paths| paths.len() > 1) {
        for path in &paths {
            if let Some(entry) = seen.get_mut(path) {
                entry.same_as = Some(paths[0].clone());
            }
        }
    }
    seen
}

fn look(path: &Path, stat: &fs::Metadata) -> Seen {
    let mut names = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut xattrs = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        xattrs.insert(name.to_vec(), value);
    }
    Seen {
        mode: stat.mode(),
        owners: (stat.uid(), stat.gid()),
        size: if stat.is_file() { stat.size() } else { 0 },
        mtime: (stat.mtime(), stat.mtime_nsec()),
        device: stat.rdev(),
        target: fs::read_link(path).ok(),
        content: stat.is_file().then(|| {
            let mut bytes = Vec::new();
            File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
            blake3::hash(&bytes)
        }),
        xattrs,
        same_as: None,
    }
}

/// What differs between two trees, in words, as this file sees it and as the room of trees does.
pub fn differences(one: &Path, other: &Path) -> Vec<String> {
    let mut found = changed(&snapshot(one), &snapshot(other));
    let (one, other) = (tree::Tree::open(one).unwrap(), tree::Tree::open(other).unwrap());
    found.extend(tree::compare(&one, &other, &Skip::new()).unwrap().iter().map(ToString::to_string));
    found
}

/// The same of two trees as they were seen.
pub fn changed(one: &BTreeMap<PathBuf, Seen>, other: &BTreeMap<PathBuf, Seen>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, seen) in one {
        match other.get(path) {
            None => found.push(format!("{} is missing: {seen:?}", path.display())),
            Some(there) if there != seen => {
                found.push(format!("{}:\n  {seen:?}\n  {there:?}", path.display()))
            }
            _ => {}
        }
    }
    found.extend(
        other
            .keys()
            .filter(|path| !one.contains_key(*path))
            .map(|path| format!("{} is too much", path.display())),
    );
    found
}

/// Fails when two trees differ.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let found = differences(one, other);
    assert!(found.is_empty(), "{}", found.join("\n"));
}
