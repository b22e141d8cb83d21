//! Ground to try drivers on: a directory of the test's own, and file systems in files.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use model::{DriverSpec, Labels, Owner, Spec, VolumeId};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A directory that every user may pass, removed at the end.
pub fn ground() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

pub fn new_id() -> VolumeId {
    VolumeId::from_uuid(uuid::Uuid::new_v4())
}

/// Settings of a volume that an ordinary user owns.
pub fn spec(driver: DriverSpec) -> Spec {
    Spec {
        driver,
        pool: "default".parse().unwrap(),
        owner: Owner { uid: 1234, gid: 4321, mode: "0750".parse().unwrap() },
        exclusive: false,
        readonly: false,
        protection: None,
        labels: Labels::new(),
    }
}

/// Runs a program of the host and says whether it worked.
pub fn run(program: &str, arguments: &[&str]) -> bool {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    output.status.success()
}

/// A file system of its own, mounted, and unmounted at the end.
pub struct FileSystem {
    _dir: TempDir,
    root: PathBuf,
}

impl FileSystem {
    /// Makes it with `mkfs` and mounts it with `options`; `None` if the kernel refuses to mount it like that.
    pub fn try_new(mkfs: &[&str], mib: u64, options: &str) -> Option<Self> {
        let dir = ground();
        let (file, root) = (dir.path().join("fs"), dir.path().join("root"));
        fs::File::create(&file).and_then(|file| file.set_len(mib << 20)).unwrap();
        fs::create_dir(&root).unwrap();
        let (file_text, root_text) = (file.to_str().unwrap(), root.to_str().unwrap());
        let mut arguments = mkfs[1..].to_vec();
        arguments.push(file_text);
        assert!(run(mkfs[0], &arguments), "{mkfs:?}");
        if !run("mount", &["-o", &format!("loop,{options}"), file_text, root_text]) {
            return None;
        }
        Some(Self { _dir: dir, root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // The loop device of `mount -o loop` goes with the mount.
        let unmounted = run("umount", &[self.root.to_str().unwrap()]);
        assert!(unmounted || std::thread::panicking(), "{} is still in use", self.root.display());
    }
}
