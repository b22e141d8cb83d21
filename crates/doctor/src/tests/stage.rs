//! A tree that looks like a host on which everything is as recommended.

use crate::context::{Context, DaemonFacts, DockerFacts, PoolPlace};
use crate::facts::{Facts, gather};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

pub(super) const ID: &str = "7d444840-9dc0-11d1-b245-5ffdce74fad2";
pub(super) const GONE: &str = "00000000-0000-4000-8000-000000000000";
pub(super) const GIB: u64 = 1 << 30;

/// A host on which everything is as recommended.
pub(super) struct Stage {
    pub(super) dir: TempDir,
    pub(super) context: Context,
    pub(super) mounts: Vec<String>,
    _plugin: UnixListener,
}

impl Stage {
    pub(super) fn new() -> Self {
        // In memory: a hundred of them are made and deleted.
        let memory = tempfile::tempdir_in("/dev/shm");
        let dir = memory.or_else(|_| tempfile::tempdir()).unwrap();
        let base = dir.path().canonicalize().unwrap();
        for made in ["root", "state/mnt", "docker/plugins", &format!("pool/volumes/{ID}")] {
            fs::create_dir_all(base.join(made)).unwrap();
        }
        let plugin_socket = base.join("docker/plugins/everhold.sock");
        let docker = DockerFacts {
            version: "20.10.24+dfsg1".into(),
            api_version: "1.41".into(),
            storage_driver: "overlay2".into(),
            backing_fs: Some("extfs".into()),
            rootless: false,
            live_restore: true,
            volumes: Some(vec!["pgdata".into()]),
        };
        let place =
            PoolPlace { name: "default".into(), path: base.join("pool"), reserve: "5%".parse().unwrap() };
        let mut stage = Self {
            context: Context {
                now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
                root: base.join("root"),
                state: base.join("state"),
                mountpoints: base.join("state/mnt"),
                plugin_socket: plugin_socket.clone(),
                pools: vec![place],
                docker: Ok(Some(docker)),
                daemon: Ok(DaemonFacts { volumes: vec!["pgdata".into()], ids: vec![ID.into()] }),
            },
            mounts: Vec::new(),
            _plugin: UnixListener::bind(plugin_socket).unwrap(),
            dir,
        };
        stage.furnish();
        stage
    }

    /// The files of `/proc`, `/sys`, `/etc`, `/run` and the programs.
    fn furnish(&mut self) {
        let files = [
            ("/proc/sys/kernel/osrelease", "6.1.0-18-amd64"),
            ("/proc/sys/kernel/unprivileged_bpf_disabled", "2"),
            ("/proc/self/status", "Name:\teverhold\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff"),
            ("/proc/meminfo", "MemTotal:       8388608 kB\nMemFree: 1 kB"),
            ("/proc/sys/vm/dirty_bytes", "0"),
            ("/proc/sys/vm/dirty_ratio", "20"),
            ("/proc/sys/vm/dirty_background_bytes", "0"),
            ("/proc/sys/vm/dirty_background_ratio", "10"),
            ("/sys/fs/cgroup/cgroup.controllers", "cpu io memory"),
            ("/sys/kernel/security/lockdown", "[none] integrity confidentiality"),
            ("/sys/kernel/tracing/events/block/block_rq_complete/format", "name: block_rq_complete"),
            ("/sys/module/apparmor/parameters/enabled", "Y"),
            ("/sys/module/loop/parameters/max_loop", "8"),
            ("/sys/devices/sdb/queue/scheduler", "[none] mq-deadline bfq"),
            ("/sys/devices/sdb/queue/rotational", "0"),
            ("/sys/devices/sdb/sdb1/partition", "1"),
            ("/sys/block/loop0/size", "0"),
            ("/run/systemd/timesync/synchronized", ""),
            ("/etc/os-release", "ID=debian"),
            ("/dev/loop-control", ""),
            ("/usr/sbin/apparmor_parser", ""),
            ("/usr/sbin/mkfs.ext4", ""),
            ("/usr/sbin/e2fsck", ""),
            ("/usr/sbin/resize2fs", ""),
            ("/usr/sbin/mkfs.xfs", ""),
            ("/usr/sbin/xfs_growfs", ""),
        ];
        for (path, text) in files {
            self.write(path, text);
        }
        self.link("/proc/self/ns/mnt", "mnt:[1]");
        self.link("/proc/1/ns/mnt", "mnt:[1]");
        self.link("/sys/dev/block/8:17", "../../devices/sdb/sdb1");
        self.use_loop("loop3", &self.image(ID), "1");
        let pool = self.context.pools[0].path.display().to_string();
        let mount = format!("{}/{ID}", self.context.mountpoints.display());
        self.mount("8:1", "/", "ext4", "/dev/sda1", "rw");
        self.mount("8:17", &pool, "xfs", "/dev/sdb1", "rw");
        self.mount("0:30", "/sys/fs/bpf", "bpf", "bpf", "rw");
        self.mount("0:31", "/sys/kernel/tracing", "tracefs", "tracefs", "rw");
        self.mount("7:3", &mount, "ext4", "/dev/loop3", "rw");
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.context.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    pub(super) fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    pub(super) fn link(&self, path: &str, to: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.is_symlink() {
            fs::remove_file(&path).unwrap();
        }
        symlink(to, path).unwrap();
    }

    pub(super) fn image(&self, id: &str) -> String {
        self.context.pools[0].path.join("volumes").join(id).join("image").display().to_string()
    }

    pub(super) fn use_loop(&self, name: &str, backing: &str, dio: &str) {
        self.write(&format!("/sys/block/{name}/loop/backing_file"), backing);
        self.write(&format!("/sys/block/{name}/loop/dio"), dio);
    }

    pub(super) fn mount(&mut self, device: &str, target: &str, fstype: &str, source: &str, options: &str) {
        self.mounts
            .push(format!("9 1 {device} / {target} rw,relatime shared:1 - {fstype} {source} {options}"));
    }

    /// Changes the line of the mount table with `mark` in it.
    pub(super) fn remount(&mut self, mark: &str, from: &str, to: &str) {
        let line = self.mounts.iter_mut().find(|line| line.contains(mark)).unwrap();
        assert!(line.contains(from), "{line}");
        *line = line.replace(from, to);
    }

    pub(super) fn docker(&mut self) -> &mut DockerFacts {
        self.context.docker.as_mut().unwrap().as_mut().unwrap()
    }

    pub(super) fn facts(&self) -> Facts {
        self.write("/proc/self/mountinfo", &self.mounts.join("\n"));
        let mut facts = gather(&self.context);
        // What no tree can feign: programs that run, and the file system of the pool.
        facts.host.e2fsprogs = Some("1.47.0".into());
        if let Some(Ok(standing)) = facts.pools.first_mut().map(|pool| pool.standing.as_mut()) {
            standing.total = 100 * GIB;
            standing.available = 60 * GIB;
            standing.inodes = (1000, 900);
            standing.reflinks = Some(true);
            standing.direct_io = Some(true);
            standing.project_quota = Some(true);
        }
        facts
    }
}
