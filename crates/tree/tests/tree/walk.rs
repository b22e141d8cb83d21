//! Walks.

use crate::ground::{Deep, Mounted, bytes, paths, walk};
use everhold_tree::{Kind, Skip, Tree, Walk, estimate};
use rustix::fs::{
    CWD, FileType, Mode, OFlags, RenameFlags, makedev, mkdirat, mknodat, openat, renameat_with,
};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn parents_come_first_and_names_in_the_order_of_their_bytes() {
    let root = tempfile::tempdir().unwrap();
    for dir in ["a", "a-b", "a/c", "B"] {
        fs::create_dir(root.path().join(dir)).unwrap();
    }
    for file in [&b"a/z"[..], b"a/\xff\xfe", b"a.txt", b"a/c/\n", b"\x01", b"B/\xc3\xa4"] {
        fs::write(root.path().join(bytes(file)), "").unwrap();
    }
    let found = paths(root.path());
    let wanted: [&[u8]; 11] =
        [b"", b"\x01", b"B", b"B/\xc3\xa4", b"a", b"a/c", b"a/c/\n", b"a/z", b"a/\xff\xfe", b"a-b", b"a.txt"];
    assert_eq!(found, wanted.map(|path| bytes(path).to_owned()));
    assert!(found.is_sorted());
}

#[test]
fn an_entry_says_what_stat_says() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::write(at("file"), vec![1; 10_000]).unwrap();
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o6751)).unwrap();
    std::os::unix::fs::chown(at("file"), Some(70_000), Some(3)).unwrap();
    fs::hard_link(at("file"), at("again")).unwrap();
    symlink("to \u{e4} nowhere", at("link")).unwrap();
    let node =
        |name: &str, kind, rdev| mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o640), rdev).unwrap();
    node("fifo", FileType::Fifo, 0);
    node("socket", FileType::Socket, 0);
    node("char", FileType::CharacterDevice, makedev(1, 3));
    node("block", FileType::BlockDevice, makedev(7, 300));
    let found = walk(root.path(), &Skip::new());
    for entry in &found {
        let stat = fs::symlink_metadata(at(entry.path.to_str().unwrap())).unwrap();
        assert_eq!((entry.mode, entry.uid, entry.gid), (stat.mode() & 0o7777, stat.uid(), stat.gid()));
        assert_eq!(
            (entry.size, entry.blocks, u64::from(entry.nlink)),
            (stat.size(), stat.blocks(), stat.nlink())
        );
        assert_eq!(entry.inode(), (stat.dev(), stat.ino()));
        assert_eq!(
            (entry.mtime.seconds, i64::from(entry.mtime.nanoseconds)),
            (stat.mtime(), stat.mtime_nsec())
        );
        assert_eq!(
            (entry.ctime.seconds, i64::from(entry.ctime.nanoseconds)),
            (stat.ctime(), stat.ctime_nsec())
        );
        assert!(!entry.foreign);
    }
    let kind = |name: &str| found.iter().find(|entry| entry.path == Path::new(name)).unwrap().kind.clone();
    assert_eq!(kind("link"), Kind::Symlink("to \u{e4} nowhere".into()));
    assert_eq!(
        [kind(""), kind("file"), kind("fifo"), kind("socket")],
        [Kind::Directory, Kind::File, Kind::Fifo, Kind::Socket]
    );
    assert_eq!(kind("char"), Kind::CharDevice { rdev: makedev(1, 3) });
    assert_eq!(kind("block"), Kind::BlockDevice { rdev: makedev(7, 300) });
    let sum = estimate(&Tree::open(root.path()).unwrap(), &Skip::new()).unwrap();
    let blocks =
        found.iter().filter(|entry| entry.path != Path::new("again")).map(|entry| entry.blocks * 512).sum();
    assert_eq!((sum.bytes, sum.entries, sum.files), (blocks, 8, 1));
}

#[test]
fn a_tree_of_thousands_of_levels_takes_few_descriptors() {
    const DEEP: usize = 6_000;
    let root = Deep::new();
    let mut dir = openat(CWD, root.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..DEEP {
        mkdirat(&dir, "d", Mode::from_raw_mode(0o700)).unwrap();
        let file = openat(&dir, "e", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
        drop(file);
        dir = openat(&dir, "d", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    }
    drop(dir);
    let tree = Tree::open(root.path()).unwrap();
    let skip = Skip::new();
    let (mut dirs, mut files, mut most) = (0, 0, 0);
    for (count, entry) in Walk::new(&tree, &skip).unwrap().enumerate() {
        let entry = entry.unwrap();
        dirs += usize::from(entry.kind == Kind::Directory);
        files += usize::from(entry.kind == Kind::File);
        if count % 500 == 0 {
            let mine = fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
            most = most.max(mine.filter(|path| path.starts_with(root.path())).count());
        }
    }
    assert_eq!((dirs, files), (DEEP + 1, DEEP));
    assert!((3..50).contains(&most), "{most} descriptors");
}

#[test]
fn the_content_of_skipped_directories_and_other_mounts_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for dir in ["skipped/in", "kept/skipped", "mount/under"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("file"), "").unwrap();
    let _mounted = Mounted::new("none", &at("mount"), "tmpfs", "");
    fs::create_dir(at("mount/inside")).unwrap();
    let _bound = {
        linux::mounts::bind(&at("kept"), &at("skipped/in"), false).unwrap();
        Mounted(at("skipped/in"))
    };
    let skip: Skip = ["skipped", "file", "nothing"].map(PathBuf::from).into();
    let found = walk(root.path(), &skip);
    let shown: Vec<_> = found.iter().map(|entry| (entry.path.to_str().unwrap(), entry.foreign)).collect();
    let wanted = [
        ("", false),
        ("file", false),
        ("kept", false),
        ("kept/skipped", false),
        ("mount", true),
        ("skipped", false),
    ];
    assert_eq!(shown, wanted);
    // A bind mount has the same device, and is another mount all the same.
    let found = walk(root.path(), &Skip::new());
    assert!(found.iter().any(|entry| entry.path == Path::new("skipped/in") && entry.foreign));
    assert!(!found.iter().any(|entry| entry.path.starts_with("skipped/in/skipped")));
    assert!(walk(root.path(), &[PathBuf::new()].into()).len() == 1);
}

#[test]
fn a_symlink_that_is_swapped_in_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "").unwrap();
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/mine"), "").unwrap();
    symlink(outside.path(), at("link")).unwrap();
    let stop = AtomicBool::new(false);
    let mut seen = BTreeSet::new();
    let mut opened = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, at("dir"), CWD, at("link"), RenameFlags::EXCHANGE).unwrap();
            }
        });
        let tree = Tree::open(root.path()).unwrap();
        let skip = Skip::new();
        for _ in 0..3_000 {
            let mut walk = Walk::new(&tree, &skip).unwrap();
            while let Some(entry) = walk.next() {
                let entry = entry.unwrap();
                if entry.is_file() {
                    opened += usize::from(walk.open(&entry).unwrap().is_some());
                }
                seen.insert(entry.path);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let wanted: BTreeSet<_> = ["", "dir", "dir/mine", "link", "link/mine"].map(PathBuf::from).into();
    assert_eq!(seen, wanted);
    assert!(opened > 0);
}

#[test]
fn what_vanishes_in_the_middle_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for dir in ["a", "b", "c/d"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    for file in ["b/1", "c/d/1", "c/e", "z"] {
        fs::write(at(file), "").unwrap();
    }
    let (tree, skip) = (Tree::open(root.path()).unwrap(), Skip::new());
    let mut walk = Walk::new(&tree, &skip).unwrap();
    let mut seen = Vec::new();
    while let Some(entry) = walk.next() {
        let entry = entry.unwrap();
        match entry.path.to_str().unwrap() {
            "a" => fs::remove_dir_all(at("b")).unwrap(),
            // Moved out while the walk is in it.
            "c/d/1" => fs::rename(at("c/d"), at("moved")).unwrap(),
            "z" => {
                fs::write(at("another"), "").unwrap();
                fs::rename(at("another"), at("z")).unwrap();
                assert!(walk.open(&entry).unwrap().is_none());
                fs::remove_file(at("z")).unwrap();
                assert!(walk.open(&entry).unwrap().is_none() && walk.xattrs(&entry).unwrap().is_none());
            }
            _ => {}
        }
        seen.push(entry.path);
    }
    assert_eq!(seen, ["", "a", "c", "c/d", "c/d/1", "c/e", "z"].map(PathBuf::from));
    assert_eq!(walk.vanished(), 1);
}

#[test]
fn a_path_without_end_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    let mut dir = openat(CWD, root.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..130 {
        mkdirat(&dir, &name, Mode::from_raw_mode(0o700)).unwrap();
        dir = openat(&dir, &name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let (tree, skip) = (Tree::open(root.path()).unwrap(), Skip::new());
    let error = Walk::new(&tree, &skip).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, everhold_tree::Error::TooDeep { .. }), "{error}");
    assert!(error.to_string().len() < 1200);
}
