//! What only the driver `tmpfs` has to prove: the content is the mount.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod ground;

use everhold_storage::{Driver, Error, Place, TmpfsDriver};
use ground::{ground, new_id, spec};
use linux::{Change, mounts};
use model::{DriverSpec, ErrorKind, Size, Spec, Tmpfs};
use std::fs;
use std::os::unix::fs::MetadataExt;

fn tmpfs(options: &str, selinux: Option<&str>) -> Spec {
    spec(DriverSpec::Tmpfs(Tmpfs {
        size: Size::from_mib(4),
        mount_options: options.parse().unwrap(),
        selinux: selinux.map(str::to_owned),
    }))
}

#[test]
fn the_content_stays_until_the_end() {
    let ground = ground();
    let (home, mountpoint) = (ground.path().join("home"), ground.path().join("v"));
    fs::create_dir(&home).unwrap();
    let settings = tmpfs("nosuid,nodev,noexec,noatime", None);
    let id = new_id();
    let place = Place { id, uuid: id, spec: &settings, home: &home, mountpoint: &mountpoint, project: None };
    let driver = TmpfsDriver::new();
    driver.create(&place).unwrap();
    let path = driver.attach(&place).unwrap().path;
    fs::write(path.join("kept"), "yes").unwrap();
    assert_eq!(driver.detach(&place).unwrap(), Change::AlreadyThere);
    assert_eq!(fs::read_to_string(path.join("kept")).unwrap(), "yes");

    std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
    assert_eq!(driver.grow(&place, Size::from_mib(8)).unwrap(), Change::Done);
    assert_eq!(driver.usage(&place).unwrap().size, Some(8 << 20));
    assert_eq!(driver.usage(&place).unwrap().allocated, Some(0), "nothing of the pool");
    assert_eq!(fs::metadata(&path).unwrap().uid(), 7, "growing leaves the owner alone");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(mountpoint.to_str().unwrap())).unwrap();
    for option in ["nosuid", "nodev", "noexec", "noatime"] {
        assert!(line.contains(option), "growing keeps {option}: {line}");
    }

    let seen = driver.observe(&place);
    assert!(seen.notes.iter().any(|note| note == "in memory: lost on reboot"), "{seen:?}");
    assert_eq!(driver.freezable(&place), None);
    assert_eq!(driver.destroy(&place).unwrap(), Change::Done);
    assert!(!mountpoint.exists());
}

#[test]
fn a_foreign_mount_is_neither_used_nor_unmounted() {
    let ground = ground();
    let (home, mountpoint) = (ground.path().join("home"), ground.path().join("v"));
    for dir in [&home, &mountpoint] {
        fs::create_dir(dir).unwrap();
    }
    let settings = tmpfs("", None);
    let id = new_id();
    let place = Place { id, uuid: id, spec: &settings, home: &home, mountpoint: &mountpoint, project: None };
    let other = Place { id: new_id(), ..place };
    let driver = TmpfsDriver::new();
    let path = driver.attach(&other).unwrap().path;
    fs::write(path.join("kept"), "yes").unwrap();
    let (attached, destroyed) = (driver.attach(&place), driver.destroy(&place));
    let grown = driver.grow(&place, Size::from_mib(8));
    let problems = driver.observe(&place).problems;
    let kept = fs::read_to_string(path.join("kept"));
    mounts::unmount(&mountpoint).unwrap();
    assert!(matches!(attached, Err(Error::Replaced { .. })), "{attached:?}");
    assert!(matches!(destroyed, Err(Error::Replaced { .. })), "{destroyed:?}");
    assert!(matches!(grown, Err(Error::Replaced { .. })), "{grown:?}");
    assert_eq!((problems.len(), kept.unwrap().as_str()), (1, "yes"));
    assert_eq!(driver.destroy(&place).unwrap(), Change::Done, "the empty mount point");
}

#[test]
fn what_the_host_cannot_do_is_refused_at_once() {
    let ground = ground();
    let driver = TmpfsDriver::new();
    for asked in [tmpfs("commit=5", None), tmpfs("data=journal", None)] {
        assert_eq!(driver.admit(asked, ground.path()).unwrap_err().kind(), ErrorKind::Unsupported);
    }
    let odd = Spec {
        driver: DriverSpec::Tmpfs(Tmpfs {
            size: Size::from_bytes((1 << 20) + 1),
            mount_options: Default::default(),
            selinux: None,
        }),
        ..tmpfs("", None)
    };
    let admitted = driver.admit(odd, ground.path()).unwrap();
    assert_eq!(admitted.size(), Some(Size::from_bytes((1 << 20) + (64 << 10))), "whole pages");
    // A context that SELinux would take apart is refused with and without SELinux.
    let error = driver.admit(tmpfs("", Some("a:b:c\",size=1")), ground.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}
