//! Extended attributes.

use crate::ground::Mounted;
use everhold_tree::xattrs::{Of, Xattrs, read, write};
use proptest::prelude::*;
use rustix::fd::AsFd;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::symlink;

/// The wire form of `u::rw-,u:70000:r--,g::r--,m::r--,o::---`.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x70\x11\x01\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
/// `cap_net_bind_service=ep`.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn set<const N: usize>(list: [(&str, &[u8]); N]) -> Xattrs {
    list.map(|(name, value)| (OsString::from(name), value.to_vec())).into()
}

#[test]
fn attributes_of_every_kind_of_entry() {
    let root = tempfile::tempdir().unwrap();
    let dir = File::open(root.path()).unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    fs::create_dir(root.path().join("dir")).unwrap();
    symlink("file", root.path().join("link")).unwrap();
    mknodat(CWD, root.path().join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let file = set([
        ("user.a", b"1"),
        ("trusted.b", b""),
        ("security.capability", CAPABILITY),
        ("system.posix_acl_access", ACL),
    ]);
    let other = set([("trusted.b", b"\0\xff")]);
    let dir_attributes =
        set([("user.a", b"1"), ("system.posix_acl_default", ACL), ("system.posix_acl_access", ACL)]);
    for (name, wanted) in [("file", &file), ("dir", &dir_attributes), ("link", &other), ("fifo", &other)] {
        let of = Of::Named(dir.as_fd(), OsStr::new(name));
        assert!(write(of, wanted).unwrap());
        assert_eq!(&read(of).unwrap(), wanted);
        assert!(!write(of, wanted).unwrap());
    }
    // The link's went to the link, and an open file's are those of its name.
    let open = File::open(root.path().join("file")).unwrap();
    assert_eq!(read(Of::Open(open.as_fd())).unwrap(), file);
    assert!(write(Of::Open(open.as_fd()), &set([("user.a", b"2")])).unwrap());
    assert_eq!(read(Of::Named(dir.as_fd(), OsStr::new("file"))).unwrap(), set([("user.a", b"2")]));
}

#[test]
fn what_overlayfs_keeps_is_neither_read_nor_written_nor_removed() {
    let root = tempfile::tempdir().unwrap();
    let dir = File::open(root.path()).unwrap();
    for name in ["trusted.overlay.opaque", "user.overlay.origin"] {
        rustix::fs::fsetxattr(&dir, name, b"y", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let of = Of::Open(dir.as_fd());
    assert_eq!(read(of).unwrap(), Xattrs::new());
    assert!(!write(of, &set([("trusted.overlay.redirect", b"x")])).unwrap());
    assert!(rustix::fs::fgetxattr(&dir, "trusted.overlay.opaque", &mut [0; 9]).unwrap() == 1);
    assert!(rustix::fs::fgetxattr(&dir, "trusted.overlay.redirect", &mut [0; 9]).is_err());
}

#[test]
fn a_file_system_that_takes_none_is_an_error_only_if_there_are_some() {
    let root = tempfile::tempdir().unwrap();
    let mounted = Mounted::new("none", &root.path().join("m"), "ramfs", "");
    let dir = File::open(&mounted.0).unwrap();
    let of = Of::Open(dir.as_fd());
    assert_eq!(read(of).unwrap(), Xattrs::new());
    assert!(!write(of, &Xattrs::new()).unwrap());
    let failure = write(of, &set([("user.a", b"1")])).unwrap_err();
    assert_eq!(failure.on(&mounted.0).errno(), Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()));
    assert!(!write(of, &set([("security.selinux", b"u:r:t")])).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was there, what is written is there and nothing else.
    #[test]
    fn what_is_written_is_read(
        sets in prop::collection::vec(prop::collection::btree_map(
            "user\\.[a-zA-Z\u{e4}]{1,100}", prop::collection::vec(any::<u8>(), 0..60), 0..20), 1..4)
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of = Of::Open(file.as_file().as_fd());
        for wanted in sets {
            let wanted: Xattrs = wanted.into_iter().map(|(name, value)| (OsString::from(name), value)).collect();
            let present = read(of).unwrap();
            prop_assert_eq!(write(of, &wanted).unwrap(), present != wanted);
            prop_assert_eq!(read(of).unwrap(), wanted);
        }
    }
}
