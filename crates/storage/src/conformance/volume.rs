//! A volume under test: it plays the engine's part, and takes everything away again also when a check fails.

use super::Fixture;
use crate::{Attached, Driver, Place};
use linux::Change;
use model::{Size, Spec, VolumeId};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Stands for the description that the engine keeps in each home.
const DESCRIPTION: &str = "volume.json";

pub(super) struct Volume<'a> {
    driver: &'a dyn Driver,
    fixture: &'a Fixture,
    id: VolumeId,
    pub spec: Spec,
    pub home: PathBuf,
    pub mountpoint: PathBuf,
}

impl<'a> Volume<'a> {
    /// A home with a description in it, and no volume yet.
    pub fn nothing(driver: &'a dyn Driver, fixture: &'a Fixture, spec: Spec) -> Self {
        let id = (fixture.new_id)();
        let (pool, mounts) = (fixture.root.join("pool"), fixture.root.join("mnt"));
        let home = pool.join(id.to_string());
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&mounts).unwrap();
        fs::write(home.join(DESCRIPTION), "{}").unwrap();
        let spec = driver.admit(spec, &pool).expect("the fixture's settings are admitted");
        Self { driver, fixture, id, spec, home, mountpoint: mounts.join(id.to_string()) }
    }

    /// A volume as [`Driver::create`] leaves it.
    pub fn created(driver: &'a dyn Driver, fixture: &'a Fixture, spec: Spec) -> Self {
        let volume = Self::nothing(driver, fixture, spec);
        volume.create();
        volume
    }

    pub fn place(&self) -> Place<'_> {
        Place {
            id: self.id,
            uuid: self.id,
            spec: &self.spec,
            home: &self.home,
            mountpoint: &self.mountpoint,
            project: self.fixture.project,
        }
    }

    pub fn create(&self) {
        self.driver.create(&self.place()).expect("create");
    }

    pub fn attach(&self) -> Attached {
        self.driver.attach(&self.place()).expect("attach")
    }

    pub fn detach(&self) -> Change {
        self.driver.detach(&self.place()).expect("detach")
    }

    pub fn destroy(&self) -> Change {
        self.driver.destroy(&self.place()).expect("destroy")
    }

    /// Grows and, as the engine does, records the new size.
    pub fn grow(&mut self, to: Size) -> Change {
        let change = self.driver.grow(&self.place(), to).expect("grow");
        self.spec = self.spec.with_size(to);
        change
    }

    /// What is in the home besides the description.
    pub fn parts(&self) -> Vec<PathBuf> {
        let mut parts: Vec<_> = fs::read_dir(&self.home)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with(DESCRIPTION))
            .collect();
        parts.sort();
        parts
    }

    /// Deletes the parts behind the driver's back.
    pub fn delete_parts(&self) {
        for part in self.parts() {
            if part.symlink_metadata().unwrap().is_dir() {
                fs::remove_dir_all(part).unwrap();
            } else {
                fs::remove_file(part).unwrap();
            }
        }
    }

    /// Nothing of it is left but what the engine put in its home.
    pub fn assert_gone(&self) {
        assert_eq!(self.parts(), Vec::<PathBuf>::new(), "the home has only the description");
        assert!(self.home.join(DESCRIPTION).exists(), "the description is the engine's to delete");
        assert!(!self.mountpoint.exists(), "{} is still there", self.mountpoint.display());
        assert_eq!(mounts_below(&self.mountpoint), Vec::<PathBuf>::new(), "still mounted");
        assert_eq!(
            loops_below_after_a_while(&self.home),
            Vec::<PathBuf>::new(),
            "loop devices still attached"
        );
    }

    /// Detaches and destroys it, and checks that nothing of it is left.
    pub fn end(self) {
        self.detach();
        self.destroy();
        self.assert_gone();
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        // A check that holds has done this itself; after one that does not, the next still wants a clean host.
        let undone = self.driver.detach(&self.place()).and_then(|_| self.driver.destroy(&self.place()));
        drop(undone);
        if std::thread::panicking() {
            drop(linux::mounts::unmount(&self.mountpoint));
            drop(fs::remove_dir(&self.mountpoint));
        }
        drop(fs::remove_dir_all(&self.home));
    }
}

/// Writes `file` as the user `uid` until `mib` MiB are written or the kernel refuses.
///
/// Another process does it: root has privileges that let it pass a quota, and this process is root.
pub(super) fn write_as(uid: u32, gid: u32, file: &Path, mib: u64) -> Output {
    Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "conv=fsync,notrunc", "status=none"])
        .arg(format!("of={}", file.display()))
        .arg(format!("count={mib}"))
        .env("LC_ALL", "C")
        .uid(uid)
        .gid(gid)
        .output()
        .expect("dd runs")
}

/// The mount points at or below `dir`, from the kernel's own table.
///
/// # Panics
/// If the kernel does not show its mounts.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

/// The files below `dir` that loop devices use, deleted or not.
///
/// # Panics
/// If the kernel does not show its block devices.
pub fn loops_below(dir: &Path) -> Vec<PathBuf> {
    let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    let files = devices.filter_map(|device| fs::read_to_string(device.join("loop/backing_file")).ok());
    files.map(|file| PathBuf::from(file.trim_end())).filter(|file| file.starts_with(dir)).collect()
}

/// [`loops_below`], once the kernel has let go of what is only held for a moment (udev looks at each new device).
fn loops_below_after_a_while(dir: &Path) -> Vec<PathBuf> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let left = loops_below(dir);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// No home, mount point, mount or loop device of any check is left.
pub(super) fn assert_nothing_left(root: &Path) {
    for part in ["pool", "mnt"] {
        assert_eq!(mounts_below(&root.join(part)), Vec::<PathBuf>::new(), "left mounted");
    }
    assert_eq!(loops_below_after_a_while(&root.join("pool")), Vec::<PathBuf>::new(), "loop devices left");
    for part in ["pool", "mnt"] {
        let left: Vec<_> = match fs::read_dir(root.join(part)) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        };
        assert_eq!(left, Vec::<PathBuf>::new(), "left in {part}");
    }
}
