//! Space, clones, durable writes.

use crate::sandbox::Sandbox;
use everhold_linux::fs::{self as linux, FsType};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};

#[test]
fn file_systems_say_what_they_are() {
    let sandbox = Sandbox::new();
    let ext4 = sandbox.mounted("ext4", "mkfs.ext4", &[]);
    let xfs = sandbox.mounted("xfs", "mkfs.xfs", &[]);
    let memory = sandbox.tmpfs("memory", "size=4m,nr_inodes=100");
    for (path, fstype, name) in
        [(&ext4, FsType::Ext4, "ext4"), (&xfs, FsType::Xfs, "xfs"), (&memory, FsType::Tmpfs, "tmpfs")]
    {
        let found = linux::fstype(path).unwrap();
        assert_eq!((found, found.to_string().as_str()), (fstype, name));
    }
    assert!(linux::fstype("/proc".as_ref()).unwrap().name().starts_with("0x"));
    let space = linux::space(&memory).unwrap();
    assert_eq!((space.total, space.free, space.available, space.files), (4 << 20, 4 << 20, 4 << 20, 100));
    fs::write(memory.join("file"), vec![1; 1 << 20]).unwrap();
    let after = linux::space(&memory).unwrap();
    assert_eq!((after.total, after.free, after.files_free), (4 << 20, 3 << 20, space.files_free - 1));
    // What ext4 keeps for root is free, and not available.
    let space = linux::space(&ext4).unwrap();
    assert!(space.available < space.free && space.free < space.total);
    assert!(linux::space(&sandbox.join("none")).unwrap_err().is_not_found());
}

#[test]
fn only_some_file_systems_share_blocks() {
    let sandbox = Sandbox::new();
    let ext4 = sandbox.mounted("ext4", "mkfs.ext4", &[]);
    let xfs = sandbox.mounted("xfs", "mkfs.xfs", &[]);
    let memory = sandbox.tmpfs("memory", "size=1m");
    assert!(linux::reflink_supported(&xfs).unwrap());
    assert!(!linux::reflink_supported(&ext4).unwrap() && !linux::reflink_supported(&memory).unwrap());
    assert_eq!(fs::read_dir(&xfs).unwrap().count(), 0, "the probe left something");
    let clone = |dir: &std::path::Path| {
        fs::write(dir.join("from"), vec![7; 1 << 20]).unwrap();
        let (from, to) = (File::open(dir.join("from")).unwrap(), File::create(dir.join("to")).unwrap());
        linux::clone_file(&from, &to)
    };
    clone(&xfs).unwrap();
    assert_eq!(fs::read(xfs.join("to")).unwrap(), vec![7; 1 << 20]);
    let error = clone(&ext4).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EOPNOTSUPP));
    assert_eq!(error.path.unwrap(), ext4.join("to"));
}

#[test]
fn space_is_given_and_taken_back() {
    let sandbox = Sandbox::new();
    let file = sandbox.image("file", 0);
    linux::allocate(&file, 4 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4 << 20);
    assert!(linux::allocated(&sandbox.join("file")).unwrap() >= 4 << 20);
    file.write_all_at(&[1; 4096], 1 << 20).unwrap();
    linux::punch(&file, 1 << 20, 3 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4 << 20);
    let allocated = linux::allocated(&sandbox.join("file")).unwrap();
    assert!((1 << 20..2 << 20).contains(&allocated), "{allocated}");
    let small = sandbox.tmpfs("small", "size=1m");
    let error = linux::allocate(&File::create(small.join("file")).unwrap(), 2 << 20).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert_eq!(error.path.unwrap(), small.join("file"));
}

#[test]
fn direct_io_has_an_alignment_or_is_not_there() {
    let sandbox = Sandbox::new();
    let alignment = linux::direct_io_alignment(&sandbox.image("file", 1)).unwrap().unwrap();
    assert!(alignment.is_power_of_two() && (512..=4096).contains(&alignment), "{alignment}");
    assert_eq!(linux::direct_io_alignment(&File::open("/proc/self/status").unwrap()).unwrap(), None);
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let small = sandbox.tmpfs("small", "size=1m");
    let path = small.join("file");
    linux::write_atomically(&path, b"one", 0o640).unwrap();
    let old = File::open(&path).unwrap();
    linux::write_atomically(&path, b"two", 0o4755).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o4755);
    let mut seen = [0; 3];
    old.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"one", "who has it open keeps what he has");
    let error = linux::write_atomically(&path, &vec![0; 2 << 20], 0o600).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 1, "the unfinished file is left");
    assert!(linux::write_atomically(&small.join("none/file"), b"", 0o600).unwrap_err().is_not_found());
    // Another thing in the way.
    assert!(linux::write_atomically(&small, b"", 0o600).is_err());
    assert_eq!(fs::read_dir(sandbox.path()).unwrap().count(), 1);
    // A name as long as names can be.
    linux::write_atomically(&small.join("n".repeat(255)), b"x", 0o600).unwrap();
}
