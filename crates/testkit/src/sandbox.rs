//! The directory that a test has for itself, and its end.

use crate::output_of;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sandboxes are below `/tmp` whatever `TMPDIR` says: the path of a Unix socket holds 107 bytes.
const ROOT: &str = "/tmp";
const PREFIX: &str = "everhold-test-";

/// A daemon, perhaps a Docker Engine, and a directory.
pub struct Sandbox {
    pub(crate) dir: PathBuf,
    pub(crate) binary: PathBuf,
    pub(crate) plugin: String,
    pub(crate) daemon: Option<Child>,
    pub(crate) config: String,
    pub(crate) docker_section: String,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) docker: bool,
}

impl Sandbox {
    /// An empty sandbox for this `everhold` binary (`env!("CARGO_BIN_EXE_everhold")`); nothing is started yet.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(ROOT).join(format!("{PREFIX}{id}"));
        std::fs::create_dir_all(&dir).expect("make the sandbox");
        Self {
            dir,
            binary: binary.into(),
            plugin: format!("eh{id}"),
            daemon: None,
            config: String::new(),
            docker_section: String::new(),
            env: Vec::new(),
            docker: false,
        }
    }

    /// The sandbox's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name under which Docker knows the plugin (`docker volume create -d NAME`).
    pub fn driver(&self) -> &str {
        &self.plugin
    }

    /// A host file system in a file, mounted below the sandbox: one that a test may fill up.
    pub fn small_disk(&self, name: &str, mkfs: &[&str], bytes: u64) -> PathBuf {
        let (image, at) = (self.dir.join(format!("{name}.disk")), self.dir.join(name));
        std::fs::create_dir_all(&at).expect("make the mount point");
        std::fs::File::create(&image).and_then(|file| file.set_len(bytes)).expect("make the disk");
        checked(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        checked(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        at
    }
}

impl Sandbox {
    /// As [`Sandbox::small_disk`], on a device with sectors of 4096 bytes, which direct I/O must keep to.
    pub fn disk_with_large_sectors(&self, name: &str, bytes: u64) -> PathBuf {
        let (image, at) = (self.dir.join(format!("{name}.disk")), self.dir.join(name));
        std::fs::create_dir_all(&at).expect("make the mount point");
        std::fs::File::create(&image).and_then(|file| file.set_len(bytes)).expect("make the disk");
        let device = checked(Command::new("losetup").args(["-f", "--show", "-b", "4096"]).arg(&image));
        let device = device.trim();
        checked(Command::new("mkfs.ext4").arg("-q").arg(device));
        checked(Command::new("mount").arg(device).arg(&at));
        // It goes with the mount from now on.
        checked(Command::new("losetup").args(["-d", device]));
        at
    }
}

/// Runs a command to its end; panics with its output if it fails.
#[track_caller]
pub(crate) fn checked(command: &mut Command) -> String {
    let output = output_of(command);
    expect_success(&format!("{command:?}"), &output)
}

#[track_caller]
pub(crate) fn expect_success(what: &str, output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of {}/daemon.log ---\n{}", self.dir.display(), self.log_tail(60));
        }
        self.end_containers();
        if let Some(mut daemon) = self.daemon.take() {
            let _asked = daemon.kill();
            let _gone = daemon.wait();
        }
        take_down(&self.dir);
    }
}

/// Ends and removes everything of a sandbox.
fn take_down(dir: &Path) {
    let plugin = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
    if let Some(id) = plugin {
        let _gone = std::fs::remove_file(format!("/run/docker/plugins/eh{id}.sock"));
    }
    if dir.join("docker").is_dir() {
        let stopped =
            Command::new(crate::docker::script("dockerd.sh")).arg("stop").arg(dir.join("docker")).status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("could not stop the Docker Engine in {}", dir.display());
        }
    }
    // What a failed test left frozen would hang the unmount. Deepest first: what is mounted on top goes first.
    let mut mounts = linux::mounts::below(dir).unwrap_or_default();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.target.components().count()));
    for mount in mounts {
        if mount.source.starts_with("/dev/loop") {
            let _thawed = linux::freeze::thaw(&mount.target);
        }
        if linux::mounts::unmount(&mount.target).is_err() {
            let _detached = linux::mounts::unmount_lazy(&mount.target);
        }
    }
    if let Err(error) = std::fs::remove_dir_all(dir) {
        eprintln!("could not remove {}: {error}", dir.display());
    }
}

/// Takes down what test runs left that were killed.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(ROOT) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let Some((pid, _)) = id.split_once('-') else { continue };
        if !Path::new("/proc").join(pid).exists() {
            take_down(&entry.path());
        }
    }
}
