//! What the tests stand on: directories, mounts that go with the test, and small things the standard library lacks.

use everhold_tree::compare::Difference;
use everhold_tree::{Entry, Mirror, Options, Skip, Tree, Walk, compare};
use linux::mounts::{self, MountFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All entries of a tree.
pub fn walk(root: &Path, skip: &Skip) -> Vec<Entry> {
    let tree = Tree::open(root).unwrap();
    Walk::new(&tree, skip).unwrap().map(Result::unwrap).collect()
}

/// The paths of all entries.
pub fn paths(root: &Path) -> Vec<PathBuf> {
    walk(root, &Skip::new()).into_iter().map(|entry| entry.path).collect()
}

/// A path of any bytes.
pub fn bytes(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// A mount that goes when the test ends, however it ends.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(source: &str, at: &Path, fstype: &str, data: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        mounts::mount(Path::new(source), at, fstype, MountFlags::empty(), data).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = mounts::unmount(&self.0).or_else(|_| mounts::unmount_lazy(&self.0)) {
            eprintln!("{error}");
        }
    }
}

/// A directory for a tree so deep that the standard library's removal would run out of descriptors.
pub struct Deep(Option<tempfile::TempDir>);

impl Deep {
    pub fn new() -> Self {
        Self(Some(tempfile::tempdir().unwrap()))
    }

    pub fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        let path = self.0.take().map(tempfile::TempDir::keep).unwrap();
        let removed = std::process::Command::new("rm").arg("-rf").arg(&path).status().unwrap();
        assert!(removed.success());
    }
}

/// Options of a mirror that need not wait long for files to be settled.
pub fn options() -> Options {
    Options { settling: Duration::from_millis(20), ..Options::default() }
}

/// All differences of two trees.
pub fn differences(one: &Path, other: &Path) -> Vec<Difference> {
    compare(&Tree::open(one).unwrap(), &Tree::open(other).unwrap(), &Skip::new()).unwrap()
}

/// Asserts that there are none.
pub fn identical(one: &Path, other: &Path) {
    assert_eq!(differences(one, other), []);
}

/// A source and a destination.
pub struct Pair(tempfile::TempDir);

impl Pair {
    pub fn new() -> Self {
        let ground = tempfile::tempdir().unwrap();
        std::fs::create_dir(ground.path().join("source")).unwrap();
        std::fs::create_dir(ground.path().join("dest")).unwrap();
        Self(ground)
    }

    pub fn source(&self) -> PathBuf {
        self.0.path().join("source")
    }

    pub fn dest(&self) -> PathBuf {
        self.0.path().join("dest")
    }

    pub fn mirror(&self) -> Mirror {
        self.mirror_with(options())
    }

    pub fn mirror_with(&self, options: Options) -> Mirror {
        let tree = |path: PathBuf| Tree::open(&path).unwrap();
        Mirror::new(tree(self.source()), tree(self.dest()), options).unwrap()
    }

    pub fn differences(&self) -> Vec<Difference> {
        differences(&self.source(), &self.dest())
    }
}

/// A small ext4 file system of its own, mounted.
pub struct Image {
    pub mounted: PathBuf,
    _mount: Mounted,
    _device: linux::loopdev::LoopHandle,
}

impl Image {
    pub fn new(ground: &Path, size: u64) -> Self {
        let path = ground.join("image");
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(size).unwrap();
        let made =
            std::process::Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&path).status().unwrap();
        assert!(made.success());
        let options = linux::loopdev::LoopOptions { read_only: false, direct_io: false, block_size: 0 };
        let device = linux::loopdev::attach(&file, &path, &options).unwrap();
        let mounted = ground.join("mounted");
        let mount = Mounted::new(device.path().to_str().unwrap(), &mounted, "ext4", "");
        Self { mounted, _mount: mount, _device: device }
    }
}
