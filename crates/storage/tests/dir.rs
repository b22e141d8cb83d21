//! What only the driver `dir` has to prove: host directories, links, and mounts inside of its data.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod ground;

use everhold_storage::{DirDriver, Driver, Error, Place};
use ground::{FileSystem, ground, new_id, spec};
use linux::{Change, mounts};
use model::{Dir, DriverSpec, ErrorKind, Size, Spec, VolumeId};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// `srv`, where `path=` may be; `own`, where Everhold keeps its own; `etc`, which is neither.
struct Host {
    dir: TempDir,
    driver: DirDriver,
    id: VolumeId,
}

impl Host {
    fn new() -> Self {
        let dir = ground();
        for part in ["srv/app/data", "srv/own/pool", "etc", "pool/home", "mnt"] {
            fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        fs::write(dir.path().join("etc/shadow"), "secret").unwrap();
        fs::write(dir.path().join("srv/app/data/kept"), "yes").unwrap();
        let driver = DirDriver::new(
            vec![dir.path().join("srv"), dir.path().join("no-such-root")],
            vec![dir.path().join("srv/own/pool"), dir.path().join("pool")],
        );
        Self { dir, driver, id: new_id() }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    fn admit(&self, path: &Path) -> Result<PathBuf, Error> {
        let spec = self.driver.admit(spec(in_place(path)), &self.path("pool"))?;
        match spec.driver {
            DriverSpec::Dir(dir) => Ok(dir.path.unwrap()),
            _ => panic!("another driver"),
        }
    }

    fn place<'a>(&'a self, spec: &'a Spec, home: &'a Path, mountpoint: &'a Path) -> Place<'a> {
        Place { id: self.id, uuid: self.id, spec, home, mountpoint, project: None }
    }
}

fn in_place(path: &Path) -> DriverSpec {
    DriverSpec::Dir(Dir { size: None, path: Some(path.to_owned()) })
}

fn own() -> DriverSpec {
    DriverSpec::Dir(Dir { size: None, path: None })
}

#[test]
fn only_directories_under_the_allowed_roots_are_used_in_place() {
    let host = Host::new();
    assert_eq!(host.admit(&host.path("srv/app/data")).unwrap(), host.path("srv/app/data"));
    assert_eq!(host.admit(&host.path("srv/app/../app/./data/")).unwrap(), host.path("srv/app/data"));

    symlink(host.path("srv/app/data"), host.path("srv/link-inside")).unwrap();
    assert_eq!(
        host.admit(&host.path("srv/link-inside")).unwrap(),
        host.path("srv/app/data"),
        "recorded without links"
    );
    symlink(host.path("etc"), host.path("srv/link-outside")).unwrap();
    symlink("../..", host.path("srv/app/up")).unwrap();
    symlink("loop", host.path("srv/loop")).unwrap();
    symlink(host.path("pool/home"), host.path("srv/link-to-pool")).unwrap();
    fs::create_dir(host.path("srv-next-to-it")).unwrap();

    for (path, why) in [
        (PathBuf::from("/"), "root of the host"),
        (PathBuf::from("srv/app"), "not absolute"),
        (host.path("srv/nothing"), "does not exist"),
        (host.path("srv/app/data/kept"), "not a directory"),
        (host.path("etc"), "not under"),
        (host.path("srv-next-to-it"), "not under"),
        (host.path("srv/../etc"), "not under"),
        (host.path("srv/link-outside"), "not under"),
        (host.path("srv/app/up/etc"), "not under"),
        (PathBuf::from("/proc/self/root"), "root of the host"),
        (host.path("srv/loop"), "can't be used"),
        (host.path("srv/link-to-pool"), "not under"),
        (host.path("srv/own/pool"), "Everhold's own"),
        (host.path("srv/own"), "contains"),
        (host.path("srv"), "contains"),
    ] {
        let error = host.admit(&path).expect_err(&path.display().to_string());
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(why), "{}: {error}", path.display());
        let next = error.next_step();
        assert!(next.contains("[dir] allowed-paths") && next.contains("srv"), "{next}");
    }
}

#[test]
fn another_volumes_data_is_not_a_path() {
    let host = Host::new();
    let everywhere = DirDriver::new(vec![PathBuf::from("/")], vec![host.path("pool")]);
    let home = host.path("pool/home");
    let other = spec(own());
    everywhere.create(&host.place(&other, &home, &host.path("mnt/v"))).unwrap();
    symlink(host.path("pool"), host.path("srv/pool-by-link")).unwrap();
    for path in [
        home.join("data"),
        home.clone(),
        host.path("pool"),
        host.dir.path().to_owned(),
        host.path("srv/pool-by-link/home/data"),
    ] {
        let error = everywhere
            .admit(spec(in_place(&path)), &host.path("pool"))
            .expect_err(&path.display().to_string());
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn no_allowed_root_means_no_host_directory() {
    let host = Host::new();
    let closed = DirDriver::new(vec![], vec![]);
    let error = closed.admit(spec(in_place(&host.path("srv/app"))), &host.path("pool")).unwrap_err();
    assert!(error.next_step().contains("is empty"), "{}", error.next_step());
}

#[test]
fn a_directory_in_place_is_never_made_changed_or_deleted() {
    let host = Host::new();
    let (home, mountpoint) = (host.path("pool/home"), host.path("mnt/v"));
    let path = host.path("srv/app/data");
    let before = fs::metadata(&path).unwrap().permissions();
    let settings = spec(in_place(&path));
    let place = host.place(&settings, &home, &mountpoint);

    host.driver.create(&place).unwrap();
    assert_eq!(host.driver.attach(&place).unwrap().path, path);
    let seen = host.driver.observe(&place);
    assert_eq!((seen.path, seen.problems), (Some(path.clone()), vec![]));
    host.driver.detach(&place).unwrap();
    assert_eq!(host.driver.destroy(&place).unwrap(), Change::AlreadyThere);
    assert_eq!(fs::read_to_string(path.join("kept")).unwrap(), "yes");
    assert_eq!(fs::metadata(&path).unwrap().permissions(), before);
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);

    fs::remove_dir_all(&path).unwrap();
    let error = host.driver.attach(&place).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert!(!path.exists(), "attach did not make it");
    assert_eq!(host.driver.observe(&place).problems.len(), 1);
    host.driver.detach(&place).unwrap();
    host.driver.destroy(&place).unwrap();
}

#[test]
fn a_directory_in_place_can_be_read_only_for_its_holders_alone() {
    let host = Host::new();
    let (home, mountpoint) = (host.path("pool/home"), host.path("mnt/v"));
    let path = host.path("srv/app/data");
    let settings = Spec { readonly: true, ..spec(in_place(&path)) };
    let place = host.place(&settings, &home, &mountpoint);
    host.driver.create(&place).unwrap();
    assert_eq!(host.driver.attach(&place).unwrap().path, mountpoint);
    assert_eq!(fs::read_to_string(mountpoint.join("kept")).unwrap(), "yes");
    assert!(fs::write(mountpoint.join("new"), "x").is_err());
    fs::write(path.join("new"), "x").unwrap();
    assert_eq!(host.driver.destroy(&place).unwrap(), Change::Done, "unmounted");
    assert!(!mountpoint.exists() && path.join("new").exists());
}

#[test]
fn a_link_put_in_the_way_after_admission_is_noticed() {
    let host = Host::new();
    let (home, mountpoint) = (host.path("pool/home"), host.path("mnt/v"));
    let path = host.path("srv/app/data");
    for (moved, link) in [("srv/app/data", "srv/app/data"), ("srv/app", "srv/app")] {
        let aside = host.path("srv/aside");
        fs::rename(host.path(moved), &aside).unwrap();
        symlink(host.path("etc"), host.path(link)).unwrap();
        fs::create_dir_all(host.path("etc/data")).unwrap();
        for readonly in [false, true] {
            let settings = Spec { readonly, ..spec(in_place(&path)) };
            let place = host.place(&settings, &home, &mountpoint);
            let error = host.driver.attach(&place).unwrap_err();
            assert!(matches!(error, Error::Replaced { .. }), "{error}");
            assert!(mounts::at(&mountpoint).unwrap().is_none());
            let seen = host.driver.observe(&place);
            assert_eq!((seen.path, seen.problems.len()), (None, 1));
            host.driver.destroy(&place).unwrap();
        }
        assert_eq!(fs::read_to_string(host.path("etc/shadow")).unwrap(), "secret");
        fs::remove_file(host.path(link)).unwrap();
        fs::rename(&aside, host.path(moved)).unwrap();
    }
    // A record that was never admitted, such as one rebuilt from a description that somebody has edited.
    let settings = spec(in_place(&host.path("etc")));
    let error = host.driver.attach(&host.place(&settings, &home, &mountpoint)).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[test]
fn a_link_in_the_place_of_the_data_is_not_followed() {
    let host = Host::new();
    let (home, mountpoint) = (host.path("pool/home"), host.path("mnt/v"));
    for readonly in [false, true] {
        let settings = Spec { readonly, ..spec(own()) };
        let place = host.place(&settings, &home, &mountpoint);
        host.driver.create(&place).unwrap();
        fs::remove_dir(home.join("data")).unwrap();
        symlink(host.path("etc"), home.join("data")).unwrap();
        let error = host.driver.attach(&place).unwrap_err();
        assert!(matches!(error, Error::Replaced { .. }), "{error}");
        assert!(host.driver.create(&place).is_err());
        assert_eq!(host.driver.observe(&place).problems.len(), 1);
        assert_eq!(host.driver.destroy(&place).unwrap(), Change::Done);
        assert_eq!(fs::read_to_string(host.path("etc/shadow")).unwrap(), "secret");
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
    }
}

#[test]
fn a_link_in_the_place_of_a_half_made_volume_is_not_followed() {
    let host = Host::new();
    let (home, mountpoint) = (host.path("pool/home"), host.path("mnt/v"));
    symlink(host.path("etc"), home.join("data.new")).unwrap();
    let settings = spec(own());
    host.driver.create(&host.place(&settings, &home, &mountpoint)).unwrap();
    assert!(fs::symlink_metadata(home.join("data")).unwrap().is_dir());
    assert_eq!(fs::read_to_string(host.path("etc/shadow")).unwrap(), "secret");
}

#[test]
fn destroy_is_refused_while_something_is_mounted_in_the_data() {
    let host = Host::new();
    let (home, mountpoint) = (host.path("pool/home"), host.path("mnt/v"));
    let settings = spec(own());
    let place = host.place(&settings, &home, &mountpoint);
    host.driver.create(&place).unwrap();
    let data = host.driver.attach(&place).unwrap().path;
    fs::create_dir_all(data.join("a/planted")).unwrap();
    fs::write(data.join("a/mine"), "x").unwrap();
    fs::write(data.join("z"), "x").unwrap();
    symlink(host.path("etc"), data.join("link")).unwrap();
    mounts::bind(&host.path("etc"), &data.join("a/planted"), false).unwrap();

    let refused = host.driver.destroy(&place);
    let kept = [data.join("a/mine"), data.join("z"), host.path("etc/shadow")].map(|path| path.exists());
    mounts::unmount(&data.join("a/planted")).unwrap();
    let error = refused.expect_err("something is mounted inside");
    assert!(error.to_string().contains("a/planted"), "{error}");
    assert_eq!(kept, [true; 3], "refused before the first file was deleted");

    assert_eq!(host.driver.destroy(&place).unwrap(), Change::Done);
    assert_eq!(
        fs::read_to_string(host.path("etc/shadow")).unwrap(),
        "secret",
        "the link was deleted, not followed"
    );
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}

#[test]
fn an_interrupted_read_only_mount_is_finished() {
    let host = Host::new();
    let (home, mountpoint) = (host.path("pool/home"), host.path("mnt/v"));
    let settings = Spec { readonly: true, ..spec(own()) };
    let place = host.place(&settings, &home, &mountpoint);
    host.driver.create(&place).unwrap();
    fs::create_dir(&mountpoint).unwrap();
    mounts::bind(&home.join("data"), &mountpoint, false).unwrap();
    assert_eq!(host.driver.observe(&place).problems.len(), 1, "writable");
    assert_eq!(host.driver.attach(&place).unwrap().change, Change::Done);
    assert!(fs::write(mountpoint.join("new"), "x").is_err());
    host.driver.destroy(&place).unwrap();
}

#[test]
fn a_foreign_mount_in_the_way_is_reported() {
    let host = Host::new();
    let (home, mountpoint) = (host.path("pool/home"), host.path("mnt/v"));
    let settings = Spec { readonly: true, ..spec(own()) };
    let place = host.place(&settings, &home, &mountpoint);
    host.driver.create(&place).unwrap();
    fs::create_dir(&mountpoint).unwrap();
    mounts::bind(&host.path("etc"), &mountpoint, true).unwrap();
    let attached = host.driver.attach(&place);
    let problems = host.driver.observe(&place).problems;
    mounts::unmount(&mountpoint).unwrap();
    assert!(matches!(attached, Err(Error::Replaced { .. })), "{attached:?}");
    assert_eq!(problems.len(), 1);
    host.driver.destroy(&place).unwrap();
}

#[test]
fn size_is_refused_where_nobody_keeps_it() {
    let pool = FileSystem::try_new(&["mkfs.ext4", "-q"], 16, "defaults").unwrap();
    let driver = DirDriver::new(vec![], vec![]);
    let asked = spec(DriverSpec::Dir(Dir { size: Some(Size::from_mib(1)), path: None }));
    let error = driver.admit(asked.clone(), pool.root()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("ext4"), "it says what the file system is: {error}");
    for way_out in ["prjquota", "driver=image"] {
        assert!(error.next_step().contains(way_out), "{}", error.next_step());
    }
    // Should a record ask for it all the same, nothing without a limit is made.
    let home = pool.root().join("home");
    fs::create_dir(&home).unwrap();
    let mountpoint = pool.root().join("mnt");
    let id = new_id();
    let place = Place { id, uuid: id, spec: &asked, home: &home, mountpoint: &mountpoint, project: Some(7) };
    driver.create(&place).unwrap_err();
    assert!(!home.join("data").exists());
    driver.destroy(&place).unwrap();
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}
