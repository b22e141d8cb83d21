//! Things that tests need and that are taken away also when a test fails.

use everhold_linux::command::Tool;
use everhold_linux::freeze;
use everhold_linux::loopdev::{self, LoopHandle, LoopOptions};
use everhold_linux::mounts::{self, MountFlags};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const PLAIN: LoopOptions = LoopOptions { read_only: false, direct_io: true, block_size: 4096 };

/// A directory whose mounts go before it does.
pub struct Sandbox {
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Sandbox {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        Self { dir: Some(dir), path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A sparse file.
    pub fn image(&self, name: &str, mib: u64) -> File {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(self.join(name)).unwrap();
        file.set_len(mib << 20).unwrap();
        file
    }

    /// A sparse file with a file system.
    pub fn formatted(&self, name: &str, mkfs: &'static str, options: &[&str]) -> File {
        let file = self.image(name, if mkfs == "mkfs.xfs" { 320 } else { 32 });
        let path = self.join(name);
        let mut args = vec!["-q"];
        // The device has sectors of 4 KiB, and a file system with smaller ones could not be mounted from it.
        args.extend(if mkfs == "mkfs.xfs" { ["-s", "size=4096"] } else { ["-b", "4096"] });
        args.extend(options);
        args.push(path.to_str().unwrap());
        Tool::new(mkfs).run(&args, Duration::from_secs(60)).unwrap();
        file
    }

    pub fn attach(&self, name: &str, file: &File) -> LoopHandle {
        loopdev::attach(file, &self.join(name), &PLAIN).unwrap()
    }

    /// A new file system, mounted at the directory of that name.
    pub fn mounted(&self, name: &str, mkfs: &'static str, options: &[&str]) -> PathBuf {
        let image = format!("{name}.image");
        let file = self.formatted(&image, mkfs, options);
        let device = self.attach(&image, &file);
        let target = self.dir(name);
        mounts::mount(device.path(), &target, mkfs.strip_prefix("mkfs.").unwrap(), MountFlags::empty(), "")
            .unwrap();
        target
    }

    pub fn tmpfs(&self, name: &str, data: &str) -> PathBuf {
        let target = self.dir(name);
        mounts::mount(Path::new("everhold-test"), &target, "tmpfs", MountFlags::empty(), data).unwrap();
        target
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for mount in mounts::below(&self.path).unwrap_or_default().iter().rev() {
            // Nothing below can be looked at, and no process ends, while it is frozen.
            if let Err(error) = freeze::thaw(&mount.target) {
                // A tmpfs can't be frozen.
                assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
            }
            if let Err(error) = mounts::unmount_lazy(&mount.target) {
                eprintln!("{error}");
            }
        }
        let left = mounts::below(&self.path).unwrap_or_default();
        match self.dir.take() {
            // Never delete through a mount point.
            Some(dir) if !left.is_empty() => eprintln!("left behind: {}", dir.keep().display()),
            dir => drop(dir),
        }
    }
}

/// A shell script that says "ready" when it is, then waits for its standard input to end.
pub struct Script {
    child: Child,
}

impl Script {
    pub fn start(program: &[&str], script: &str) -> Self {
        let script = format!("set -e; {script}; echo ready; read -r _ || :");
        let mut all = program.to_vec();
        all.extend(["sh", "-c", &script]);
        let mut child = Command::new(all[0])
            .args(&all[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let script = Self { child };
        assert_eq!(line, "ready\n");
        script
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, and waits.
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("{error}");
        }
    }
}

/// Waits for what the kernel does a moment later and tells nobody about (a device detached by its last user).
pub fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < until, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
