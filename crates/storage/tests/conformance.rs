//! Every driver passes the same checks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod ground;

use everhold_storage::conformance::{Abilities, Fixture, Interruption, run};
use everhold_storage::{DirDriver, Driver, ImageDriver, NoDevices, Place, SimDriver, TmpfsDriver};
use ground::{FileSystem, ground, new_id, spec};
use model::{Dir, DriverSpec, ErrorKind, FsKind, Image, MountOptions, Provisioning, Sim, Size, Tmpfs};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Long enough for mkfs on a busy machine.
const TOOL_DEADLINE: Duration = Duration::from_secs(60);

/// CAP_SYS_RESOURCE, which EXT4_IOC_RESIZE_FS asks for; not every test machine gives it to root. (linux/capability.h)
fn may_use_reserved_resources() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & 1 << 24 != 0
}

/// As a killed creation of an XFS image leaves it: made, and mounted to make the directory in it.
fn leave_xfs_mounted(place: &Place<'_>) {
    let (image, target) = (place.home.join("image.new"), place.mountpoint);
    fs::File::create(&image).and_then(|file| file.set_len(320 << 20)).unwrap();
    fs::create_dir(target).unwrap();
    let (image, target) = (image.to_str().unwrap(), target.to_str().unwrap());
    assert!(ground::run("mkfs.xfs", &["-q", "-m", &format!("uuid={}", place.id), image]));
    assert!(ground::run("mount", &["-o", "loop", image, target]));
}

fn image(fs: FsKind, provisioning: Provisioning, size: Size, grown: Size) -> Fixture {
    let image = Image {
        size,
        fs,
        provisioning,
        autogrow: None,
        mount_options: MountOptions::default(),
        selinux: None,
    };
    Fixture {
        root: Path::new("").to_owned(),
        spec: spec(DriverSpec::Image(image)),
        new_id,
        project: None,
        abilities: Abilities {
            files: true,
            limit: true,
            grows_here: fs == FsKind::Xfs || may_use_reserved_resources(),
            grows_to: Some(grown),
            attaches: true,
            detaches: true,
            kept_in_home: true,
        },
        interruptions: vec![
            Interruption {
                name: "an empty image file",
                leave: |place| fs::write(place.home.join("image.new"), "").unwrap(),
            },
            Interruption {
                name: "an image with half a file system, and its seed",
                leave: |place| {
                    fs::write(place.home.join("image.new"), vec![0x53; 3 << 20]).unwrap();
                    fs::create_dir_all(place.home.join("seed/data")).unwrap();
                },
            },
        ],
    }
}

fn run_on_image(fs: FsKind, provisioning: Provisioning, size: Size, grown: Size) {
    let ground = ground();
    let mut fixture = Fixture { root: ground.path().to_owned(), ..image(fs, provisioning, size, grown) };
    if fs == FsKind::Xfs {
        let name = "an image that is mounted to be finished";
        fixture.interruptions.push(Interruption { name, leave: leave_xfs_mounted });
    }
    run(&ImageDriver::new(TOOL_DEADLINE, std::sync::Arc::new(NoDevices)), &fixture);
}

#[test]
fn image_ext4() {
    run_on_image(FsKind::Ext4, Provisioning::Thin, Size::from_mib(48), Size::from_mib(96));
}

#[test]
fn image_ext4_small() {
    // Small blocks and no journal.
    run_on_image(FsKind::Ext4, Provisioning::Thin, Size::from_mib(6), Size::from_mib(24));
}

#[test]
fn image_thick() {
    run_on_image(FsKind::Ext4, Provisioning::Thick, Size::from_mib(48), Size::from_mib(96));
}

#[test]
fn image_xfs() {
    run_on_image(FsKind::Xfs, Provisioning::Thin, Size::from_mib(320), Size::from_mib(448));
}

fn dir(root: &Path, size: Option<Size>) -> Fixture {
    Fixture {
        root: root.to_owned(),
        spec: spec(DriverSpec::Dir(Dir { size, path: None })),
        new_id,
        project: size.map(|_| 0x4556_0001),
        abilities: Abilities {
            files: true,
            limit: size.is_some(),
            grows_here: true,
            grows_to: size.map(|size| size.saturating_add(size)),
            attaches: false,
            detaches: true,
            kept_in_home: true,
        },
        interruptions: vec![Interruption {
            name: "a directory with another owner",
            leave: |place| fs::create_dir(place.home.join("data.new")).unwrap(),
        }],
    }
}

#[test]
fn dir_on_the_host() {
    let ground = ground();
    run(&DirDriver::new(vec![], vec![]), &dir(ground.path(), None));
}

/// With quotas, or where the kernel was built without them a refusal: never a size that nobody keeps.
fn dir_with_size(mkfs: &[&str]) {
    let size = Size::from_mib(16);
    let driver = DirDriver::new(vec![], vec![]);
    if let Some(pool) = FileSystem::try_new(mkfs, 400, "prjquota") {
        run(&driver, &dir(pool.root(), Some(size)));
        return;
    }
    let pool = FileSystem::try_new(&mkfs[..1], 400, "defaults").expect("mounted without quotas");
    let error = driver.admit(dir(pool.root(), Some(size)).spec, pool.root()).expect_err("no quotas, no size");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.next_step().contains("prjquota"), "{}", error.next_step());
}

#[test]
fn dir_with_size_on_ext4() {
    dir_with_size(&["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"]);
}

#[test]
fn dir_with_size_on_xfs() {
    dir_with_size(&["mkfs.xfs", "-q"]);
}

#[test]
fn tmpfs() {
    let ground = ground();
    let tmpfs = Tmpfs { size: Size::from_mib(16), mount_options: MountOptions::default(), selinux: None };
    let fixture = Fixture {
        root: ground.path().to_owned(),
        spec: spec(DriverSpec::Tmpfs(tmpfs)),
        new_id,
        project: None,
        abilities: Abilities {
            files: true,
            limit: true,
            grows_here: true,
            grows_to: Some(Size::from_mib(32)),
            attaches: true,
            detaches: false,
            kept_in_home: false,
        },
        interruptions: vec![],
    };
    run(&TmpfsDriver::new(), &fixture);
}

#[test]
fn sim() {
    let ground = ground();
    let fixture = Fixture {
        root: ground.path().to_owned(),
        spec: spec(DriverSpec::Sim(Sim { size: Size::from_mib(16) })),
        new_id,
        project: None,
        abilities: Abilities {
            files: false,
            limit: false,
            grows_here: true,
            grows_to: Some(Size::from_gib(32)),
            attaches: true,
            detaches: true,
            kept_in_home: true,
        },
        interruptions: vec![Interruption {
            name: "a state that was being written",
            leave: |place| fs::write(place.home.join("sim.state.new"), "1").unwrap(),
        }],
    };
    run(&SimDriver::new(), &fixture);
}
