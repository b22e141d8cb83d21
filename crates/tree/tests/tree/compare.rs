//! That nothing goes unnoticed.

use crate::ground::{Pair, options};
use everhold_tree::compare::{Difference, What};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, UNIX_EPOCH};

fn build(root: &Path) {
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("dir/file"), vec![1; 3 << 20]).unwrap();
    fs::hard_link(root.join("dir/file"), root.join("link")).unwrap();
    fs::write(root.join("other"), "other").unwrap();
    symlink("here", root.join("symlink")).unwrap();
    mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(300, 1))
        .unwrap();
    File::create(root.join("sparse")).unwrap().set_len(1 << 40).unwrap();
}

/// What is found after something was done to the second tree, whose directories keep their times.
fn after(change: impl Fn(&Path)) -> Vec<(String, What)> {
    let pair = Pair::new();
    build(&pair.source());
    pair.mirror_with(options()).pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(pair.differences(), []);
    let keep = ["", "dir"].map(|dir| pair.dest().join(dir));
    let times = keep.clone().map(|dir| fs::metadata(dir).unwrap().modified().unwrap());
    change(&pair.dest());
    for (dir, time) in keep.iter().zip(times).filter(|(dir, _)| dir.is_dir()) {
        File::open(dir).unwrap().set_modified(time).unwrap();
    }
    let found = pair.differences();
    found.into_iter().map(|Difference { path, what }| (path.display().to_string(), what)).collect()
}

/// Writes without changing the time.
fn write(path: PathBuf, bytes: &[u8], offset: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn every_kind_of_difference_is_found() {
    let one = |path: &str, what| vec![(path.to_owned(), what)];
    assert_eq!(after(|root| fs::remove_file(root.join("other")).unwrap()), one("other", What::OnlyInFirst));
    assert_eq!(after(|root| fs::write(root.join("more"), "").unwrap()), one("more", What::OnlyInSecond));
    let content = after(|root| write(root.join("link"), b"\x02", 2_500_000));
    assert_eq!(
        content,
        [("dir/file".to_owned(), What::Content(2_500_000)), ("link".to_owned(), What::Content(2_500_000))]
    );
    assert_eq!(
        after(|root| write(root.join("sparse"), b"1", 1 << 39)),
        one("sparse", What::Content(1 << 39))
    );
    assert_eq!(after(|root| write(root.join("sparse"), b"\0", 1 << 39)), []);
    assert_eq!(after(|root| write(root.join("other"), b"r", 5)), one("other", What::Size(5, 6)));
    let mode = |name: &'static str, mode| {
        move |root: &Path| fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap()
    };
    assert_eq!(after(mode("other", 0o4644)), one("other", What::Mode(0o644, 0o4644)));
    assert_eq!(after(mode("dir", 0o700)), one("dir", What::Mode(0o755, 0o700)));
    let owner = after(|root| lchown(root.join("symlink"), Some(1), Some(2)).unwrap());
    assert_eq!(owner, one("symlink", What::Owner((0, 0), (1, 2))));
    let attribute = |root: &Path| {
        rustix::fs::lsetxattr(root.join("symlink"), "trusted.a", b"1", XattrFlags::empty()).unwrap()
    };
    assert_eq!(after(attribute), one("symlink", What::Xattrs(vec!["trusted.a".into()])));
    let time = |root: &Path| {
        File::open(root.join("other")).unwrap().set_modified(UNIX_EPOCH + Duration::from_nanos(1)).unwrap();
    };
    assert_eq!(after(time), one("other", What::Mtime));
}

#[test]
fn replaced_entries_are_found() {
    let times = |found: Vec<(String, What)>| -> Vec<_> {
        found.into_iter().filter(|(_, what)| *what != What::Mtime).collect()
    };
    let replaced = after(|root| {
        fs::remove_file(root.join("symlink")).unwrap();
        symlink("there", root.join("symlink")).unwrap();
    });
    assert_eq!(times(replaced), [("symlink".to_owned(), What::Target)]);
    let replaced = after(|root| {
        fs::remove_file(root.join("device")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, root.join("device"), FileType::CharacterDevice, mode, makedev(300, 2)).unwrap();
    });
    assert_eq!(times(replaced), [("device".to_owned(), What::Device(makedev(300, 1), makedev(300, 2)))]);
    let replaced = after(|root| {
        fs::remove_file(root.join("other")).unwrap();
        fs::create_dir(root.join("other")).unwrap();
        fs::set_permissions(root.join("other"), fs::Permissions::from_mode(0o644)).unwrap();
    });
    assert_eq!(times(replaced), [("other".to_owned(), What::Kind)]);
    let replaced = after(|root| {
        fs::remove_file(root.join("link")).unwrap();
        fs::copy(root.join("dir/file"), root.join("link")).unwrap();
    });
    assert_eq!(times(replaced), [("link".to_owned(), What::Links("dir/file".into(), "link".into()))]);
    let replaced = after(|root| {
        fs::remove_dir_all(root.join("dir")).unwrap();
    });
    assert_eq!(
        times(replaced),
        [
            ("dir".to_owned(), What::OnlyInFirst),
            ("dir/file".to_owned(), What::OnlyInFirst),
            ("link".to_owned(), What::Links("dir/file".into(), "link".into()))
        ]
    );
}

#[test]
fn differences_are_told_in_words() {
    let told = |path: &str, what| Difference { path: path.into(), what }.to_string();
    assert_eq!(
        told("a/b", What::Mode(0o644, 0o4755)),
        "a/b: mode 0644 in the first tree, 4755 in the second"
    );
    assert_eq!(told("", What::Mtime), ".: the times of modification differ");
    assert_eq!(told("x", What::Xattrs(vec!["user.a".into()])), "x: extended attributes differ: user.a");
}
