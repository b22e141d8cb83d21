//! What the kernel at hand may not have: quotas on directories, and ext4 that grows under its users.
//!
//! Debian's kernel has both. The one test of this file starts it in a virtual machine, and itself in there, where it runs the
//! checks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod ground;

use everhold_storage::conformance::{Abilities, Fixture, Interruption, run};
use everhold_storage::{Attached, DirDriver, Driver, ImageDriver, NoDevices, Place, Usage};
use ground::{FileSystem, new_id, spec};
use linux::Change;
use model::{
    Dir, DriverSpec, ErrorKind as Kind, FsKind, Image, MountOptions, Provisioning, Size, Spec, VolumeId,
};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Set in the virtual machine.
const INSIDE: &str = "EVERHOLD_IN_QEMU";
/// What runs there.
const CHECKS: [(&str, fn()); 9] = [
    ("conformance_of_dir_on_ext4", conformance_of_dir_on_ext4),
    ("conformance_of_dir_on_xfs", conformance_of_dir_on_xfs),
    ("conformance_of_ext4_images", conformance_of_ext4_images),
    ("conformance_of_small_ext4_images", conformance_of_small_ext4_images),
    ("a_quota_on_ext4_is_the_volume_s_own_limit", a_quota_on_ext4_is_the_volume_s_own_limit),
    ("a_quota_on_xfs_is_the_volume_s_own_limit", a_quota_on_xfs_is_the_volume_s_own_limit),
    (
        "a_size_that_is_counted_and_not_enforced_is_refused",
        a_size_that_is_counted_and_not_enforced_is_refused,
    ),
    ("an_ext4_image_grows_while_it_is_written", an_ext4_image_grows_while_it_is_written),
    ("an_ext4_image_that_is_full_grows_under_its_writer", an_ext4_image_that_is_full_grows_under_its_writer),
];
/// File systems with project quotas, which scripts/qemu.sh makes.
const EXT4: &str = "/mnt/quota-ext4";
const XFS: &str = "/mnt/quota-xfs";
/// Long enough for mkfs on a processor that is emulated.
const TOOL_DEADLINE: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// What the writer under a growing image writes at a time: the block's number, over and over.
const BLOCK: u64 = 64 << 10;
const NUMBERS: usize = BLOCK as usize / 8;

#[test]
fn inside_a_debian_kernel() {
    if std::env::var_os(INSIDE).is_some() {
        for (name, check) in CHECKS {
            println!("checking {name}");
            check();
        }
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/qemu.sh");
    let output = Command::new(script)
        .args(["run", "--limit", "600", "--", "env", &format!("{INSIDE}=1")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside_a_debian_kernel", "--nocapture"])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let checked = said.lines().filter(|line| line.contains("checking ")).count();
    assert!(
        output.status.success() && checked == CHECKS.len() && said.contains("1 passed; 0 failed"),
        "{}, {checked} of {} checks begun:\n{said}\n{}",
        output.status,
        CHECKS.len(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A directory of the test's own on one of the machine's file systems.
fn ground_on(file_system: &str) -> TempDir {
    let dir = tempfile::tempdir_in(file_system).expect("made by scripts/qemu.sh, which runs this test");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn ext4_image(size: Size) -> Spec {
    spec(DriverSpec::Image(Image {
        size,
        fs: FsKind::Ext4,
        provisioning: Provisioning::Thin,
        autogrow: None,
        mount_options: MountOptions::default(),
        selinux: None,
    }))
}

fn conformance_of_dir(file_system: &str) {
    let ground = ground_on(file_system);
    let fixture = Fixture {
        root: ground.path().to_owned(),
        spec: spec(DriverSpec::Dir(Dir { size: Some(Size::from_mib(16)), path: None })),
        new_id,
        project: Some(0x4556_0001),
        abilities: Abilities {
            files: true,
            limit: true,
            grows_to: Some(Size::from_mib(32)),
            grows_here: true,
            attaches: false,
            detaches: true,
            kept_in_home: true,
        },
        interruptions: vec![Interruption {
            name: "a directory with another owner",
            leave: |place| fs::create_dir(place.home.join("data.new")).unwrap(),
        }],
    };
    run(&DirDriver::new(vec![], vec![]), &fixture);
}

fn conformance_of_dir_on_ext4() {
    conformance_of_dir(EXT4);
}

fn conformance_of_dir_on_xfs() {
    conformance_of_dir(XFS);
}

fn conformance_of_ext4_image(size: Size, grows_to: Size) {
    let ground = ground_on(XFS);
    let fixture = Fixture {
        root: ground.path().to_owned(),
        spec: ext4_image(size),
        new_id,
        project: None,
        abilities: Abilities {
            files: true,
            limit: true,
            grows_to: Some(grows_to),
            grows_here: true,
            attaches: true,
            detaches: true,
            kept_in_home: true,
        },
        interruptions: vec![Interruption {
            name: "an empty image file",
            leave: |place| fs::write(place.home.join("image.new"), "").unwrap(),
        }],
    };
    run(&ImageDriver::new(TOOL_DEADLINE, std::sync::Arc::new(NoDevices)), &fixture);
}

fn conformance_of_ext4_images() {
    conformance_of_ext4_image(Size::from_mib(48), Size::from_mib(96));
}

fn conformance_of_small_ext4_images() {
    // Small blocks and no journal.
    conformance_of_ext4_image(Size::from_mib(6), Size::from_mib(24));
}

/// One volume; the test plays the engine's part.
struct Volume<'a> {
    driver: &'a dyn Driver,
    id: VolumeId,
    spec: Spec,
    home: PathBuf,
    mountpoint: PathBuf,
    project: Option<u32>,
}

impl<'a> Volume<'a> {
    fn create(driver: &'a dyn Driver, ground: &Path, spec: Spec, project: Option<u32>) -> Self {
        let id = new_id();
        let home = ground.join(id.to_string());
        let mountpoint = ground.join(format!("{id}.mnt"));
        fs::create_dir(&home).unwrap();
        let spec = driver.admit(spec, ground).unwrap();
        let volume = Self { driver, id, spec, home, mountpoint, project };
        driver.create(&volume.place()).unwrap();
        volume
    }

    fn place(&self) -> Place<'_> {
        Place {
            id: self.id,
            uuid: self.id,
            spec: &self.spec,
            home: &self.home,
            mountpoint: &self.mountpoint,
            project: self.project,
        }
    }

    fn attach(&self) -> PathBuf {
        let Attached { path, .. } = self.driver.attach(&self.place()).unwrap();
        path
    }

    fn grow(&mut self, to: Size) {
        assert_eq!(self.driver.grow(&self.place(), to).unwrap(), Change::Done);
        assert_eq!(self.driver.grow(&self.place(), to).unwrap(), Change::AlreadyThere);
        self.spec = self.spec.with_size(to);
    }

    fn usage(&self) -> Usage {
        self.driver.usage(&self.place()).unwrap()
    }

    fn end(self) {
        self.driver.detach(&self.place()).unwrap();
        self.driver.destroy(&self.place()).unwrap();
    }
}

/// An ordinary user's process that keeps a file open and writes to it when it is told how many MiB.
///
/// The user is ordinary because ext4's quotas do not bind a process with CAP_SYS_RESOURCE.
struct Writer(Child, BufReader<std::process::ChildStdout>);

impl Writer {
    fn open(file: &Path, spec: &Spec) -> Self {
        let script = r#"exec 3>"$0"; while read -r mib; do
            said=$(dd if=/dev/zero bs=64K count=$((mib * 16)) conv=fsync status=none 2>&1 >&3)
            said=${said//$'\n'/ }; echo "${said:-written}"
        done"#;
        let mut child = Command::new("bash")
            .args(["-c", script])
            .arg(file)
            .env("LC_ALL", "C")
            .uid(spec.owner.uid)
            .gid(spec.owner.gid)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self(child, said)
    }

    /// Appends, and says how that went.
    fn write(&mut self, mib: u64) -> String {
        writeln!(self.0.stdin.as_mut().unwrap(), "{mib}").unwrap();
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

/// `refusal`: what a write gets that would go beyond the limit.
fn a_quota_is_the_volume_s_own_limit(file_system: &str, refusal: &str) {
    let ground = ground_on(file_system);
    let driver = DirDriver::new(vec![], vec![]);
    let eight = spec(DriverSpec::Dir(Dir { size: Some(Size::from_mib(8)), path: None }));
    let mut one = Volume::create(&driver, ground.path(), eight.clone(), Some(501));
    let other = Volume::create(&driver, ground.path(), eight.clone(), Some(502));
    let (path, other_path) = (one.attach(), other.attach());
    assert_eq!(one.usage().size, Some(8 * MIB));

    // Below a directory that the application made: what is made later is counted too.
    let deeper = path.join("deeper");
    fs::create_dir(&deeper).unwrap();
    std::os::unix::fs::chown(&deeper, Some(one.spec.owner.uid), Some(one.spec.owner.gid)).unwrap();
    let file = deeper.join("file");
    let mut writer = Writer::open(&file, &one.spec);
    assert_eq!(writer.write(5), "written");
    // While a file is open, XFS counts what it holds ready for more of it.
    let used = one.usage().used.unwrap();
    assert!((5 * MIB..=8 * MIB).contains(&used), "{used} bytes used after 5 MiB");
    let said = writer.write(5);
    assert!(said.contains(refusal), "10 MiB went into 8: {said:?}");
    assert!((7 * MIB..=8 * MIB).contains(&length(&file)), "{} bytes in 8 MiB", length(&file));
    let used = one.usage().used.unwrap();
    assert!((7 * MIB..=8 * MIB).contains(&used), "{used} bytes used of 8 MiB");

    // What an application asks of its file system (df) is its volume's.
    let space = linux::fs::space(&path).unwrap();
    assert_eq!(space.total, 8 * MIB);
    assert!(space.free <= MIB, "{} bytes free", space.free);

    // The other is as empty as before, and full on its own account.
    assert!(other.usage().used.unwrap() < MIB / 4, "{:?}", other.usage());
    let mut other_writer = Writer::open(&other_path.join("file"), &other.spec);
    assert_eq!(other_writer.write(6), "written");
    let said = other_writer.write(6);
    assert!(said.contains(refusal), "12 MiB went into 8: {said:?}");
    other_writer.end();

    let before = length(&file);
    one.grow(Size::from_mib(24));
    assert_eq!(one.usage().size, Some(24 * MIB));
    assert_eq!(other.usage().size, Some(8 * MIB), "only one of them has grown");
    assert_eq!(writer.write(12), "written", "the same open file goes on");
    assert_eq!(length(&file), before + 12 * MIB);
    let said = writer.write(12);
    assert!(said.contains(refusal), "more than 24 MiB went into 24: {said:?}");
    writer.end();

    // Nothing of a limit or of what it counted stays with the number of the project.
    one.end();
    let next = Volume::create(&driver, ground.path(), eight, Some(501));
    assert_eq!(next.usage().size, Some(8 * MIB));
    assert!(next.usage().used.unwrap() < MIB / 4, "{:?}", next.usage());
    next.end();
    other.end();
    for project in [501, 502] {
        // No quota of that number is as good.
        let left = linux::quota::usage(ground.path(), project).map_or(0, |usage| usage.limit);
        assert_eq!(left, 0, "limit of project {project}");
    }
}

fn a_quota_on_ext4_is_the_volume_s_own_limit() {
    a_quota_is_the_volume_s_own_limit(EXT4, "Disk quota exceeded");
}

fn a_quota_on_xfs_is_the_volume_s_own_limit() {
    // XFS says of a project what it would say of a file system.
    a_quota_is_the_volume_s_own_limit(XFS, "No space left on device");
}

fn a_size_that_is_counted_and_not_enforced_is_refused() {
    let ext4 = ["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"];
    for (mkfs, options) in [(&ext4[..], "defaults"), (&["mkfs.xfs", "-q"], "pqnoenforce")] {
        let pool = FileSystem::try_new(mkfs, 400, options).expect("mounted");
        let sized = spec(DriverSpec::Dir(Dir { size: Some(Size::from_mib(8)), path: None }));
        let error = DirDriver::new(vec![], vec![]).admit(sized, pool.root()).expect_err("nobody keeps it");
        assert_eq!(error.kind(), Kind::Unsupported, "{mkfs:?}: {error}");
    }
}

/// Writes numbered blocks to `file` until `blocks` are written, waiting whenever there is no room.
fn write_patiently(file: &Path, blocks: u64, written: &AtomicU64, refused: &AtomicU64) {
    let mut out = File::create(file).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    for block in 0..blocks {
        let bytes = block.to_le_bytes().repeat(NUMBERS);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    assert!(Instant::now() < deadline, "no room for block {block}, and none was made");
                    refused.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("block {block}: {error}"),
            }
        }
        out.sync_data().unwrap_or_else(|error| panic!("block {block}: {error}"));
        written.store(block + 1, Ordering::SeqCst);
    }
}

/// Grows once the writer is well on its way, or once it has been refused.
fn an_ext4_image_grows_under_a_writer(ground: &Path, once_refused: bool) {
    let driver = ImageDriver::new(TOOL_DEADLINE, std::sync::Arc::new(NoDevices));
    let mut volume = Volume::create(&driver, ground, ext4_image(Size::from_mib(32)), None);
    let file = volume.attach().join("file");
    let before = volume.usage().size.unwrap();
    let (written, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let blocks = 64 * MIB / BLOCK;
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_patiently(&file, blocks, &written, &refused));
        while written.load(Ordering::SeqCst) < 64 || once_refused && refused.load(Ordering::SeqCst) == 0 {
            assert!(!writer.is_finished(), "the writer has ended");
            thread::sleep(Duration::from_millis(5));
        }
        volume.grow(Size::from_mib(96));
        writer.join().unwrap();
    });
    let usage = volume.usage();
    assert!(usage.size.unwrap() > before + 60 * MIB, "{before} to {usage:?}");
    assert!(usage.used.unwrap() >= 64 * MIB, "{usage:?}");

    driver.detach(&volume.place()).unwrap();
    let image = volume.home.join("image");
    assert!(ground::run("e2fsck", &["-f", "-n", image.to_str().unwrap()]), "no errors in the file system");
    let file = volume.attach().join("file");
    let bytes = fs::read(file).unwrap();
    assert_eq!(bytes.len() as u64, blocks * BLOCK);
    let numbers = bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()));
    for (at, number) in numbers.enumerate() {
        assert_eq!(number, (at / NUMBERS) as u64, "block {}", at / NUMBERS);
    }
    volume.end();
}

fn an_ext4_image_grows_while_it_is_written() {
    an_ext4_image_grows_under_a_writer(ground_on(EXT4).path(), false);
}

fn an_ext4_image_that_is_full_grows_under_its_writer() {
    an_ext4_image_grows_under_a_writer(ground_on(XFS).path(), true);
}
