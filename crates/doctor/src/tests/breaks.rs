//! What makes each check complain, and how loudly.

use super::stage::{GIB, GONE, ID, Stage};
use crate::facts::{Facts, Presence, Standing};
use crate::report::Verdict::{self, Advice, Problem, Warning};
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

/// How to make a check complain.
pub(super) enum Break {
    Host(fn(&mut Stage)),
    /// For what no tree can feign.
    Facts(fn(&mut Facts)),
    Pool(fn(&mut Standing)),
}

pub(super) const BREAKS: &[(&str, Verdict, Break)] = &[
    ("kernel", Problem, Break::Host(|host| host.write("/proc/sys/kernel/osrelease", "5.4.0-150-generic"))),
    ("kernel", Warning, Break::Host(|host| host.write("/proc/sys/kernel/osrelease", "5.10.0-28-amd64"))),
    ("kernel", Advice, Break::Host(|host| host.remove("/proc/sys/kernel/osrelease"))),
    (
        "privileges",
        Problem,
        Break::Host(|host| host.write("/proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb")),
    ),
    (
        "privileges",
        Warning,
        Break::Host(|host| host.write("/proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t000001fffeffffff")),
    ),
    (
        "privileges",
        Warning,
        Break::Host(|host| host.write("/proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0")),
    ),
    ("mount-namespace", Warning, Break::Host(|host| host.link("/proc/self/ns/mnt", "mnt:[2]"))),
    ("mount-namespace", Advice, Break::Host(|host| host.remove("/proc/1/ns/mnt"))),
    ("helper-programs", Problem, Break::Host(|host| host.remove("/usr/sbin/e2fsck"))),
    ("helper-programs", Advice, Break::Host(|host| host.remove("/usr/sbin/mkfs.xfs"))),
    ("e2fsprogs-version", Advice, Break::Facts(|facts| facts.host.e2fsprogs = Some("1.46.2".into()))),
    ("daemon", Problem, Break::Host(|host| host.context.daemon = Err("connection refused".into()))),
    ("state-directory", Problem, Break::Host(|host| host.remount("/dev/sda1", "- ext4", "- tmpfs"))),
    ("state-directory", Problem, Break::Host(|host| host.remount("/dev/sda1", "rw,relatime", "ro,relatime"))),
    ("state-directory", Advice, Break::Host(|host| host.context.state = "/nowhere/everhold".into())),
    ("plugin-socket", Problem, Break::Host(|host| fs::remove_file(&host.context.plugin_socket).unwrap())),
    ("plugin-socket", Problem, Break::Host(|host| host.context.plugin_socket = host.dir.path().join("pool"))),
    ("plugin-socket", Warning, Break::Host(|host| host.context.daemon = Err("connection refused".into()))),
    (
        "plugin-socket",
        Warning,
        Break::Host(|host| {
            let elsewhere = host.dir.path().join("everhold.sock");
            fs::rename(&host.context.plugin_socket, &elsewhere).unwrap();
            host.context.plugin_socket = elsewhere;
        }),
    ),
    ("docker", Problem, Break::Host(|host| host.context.docker = Err("no such file".into()))),
    ("docker", Advice, Break::Host(|host| host.context.docker = Ok(None))),
    ("docker-version", Warning, Break::Host(|host| host.docker().version = "19.03.15".into())),
    ("docker-version", Advice, Break::Host(|host| host.docker().version = "dev".into())),
    ("docker-storage-driver", Warning, Break::Host(|host| host.docker().storage_driver = "vfs".into())),
    ("docker-storage-driver", Advice, Break::Host(|host| host.docker().storage_driver = "btrfs".into())),
    ("docker-rootless", Problem, Break::Host(|host| host.docker().rootless = true)),
    ("docker-live-restore", Advice, Break::Host(|host| host.docker().live_restore = false)),
    ("docker-volumes", Warning, Break::Host(|host| host.docker().volumes = None)),
    ("docker-volumes", Warning, Break::Host(|host| host.docker().volumes = Some(Vec::new()))),
    (
        "docker-volumes",
        Warning,
        Break::Host(|host| host.docker().volumes = Some(vec!["pgdata".into(), "lost".into()])),
    ),
    ("docker-volumes", Advice, Break::Host(|host| host.context.daemon = Err("connection refused".into()))),
    (
        "pool-file-system",
        Problem,
        Break::Host(|host| fs::remove_dir_all(host.context.pools[0].path.clone()).unwrap()),
    ),
    (
        "pool-file-system",
        Warning,
        Break::Host(|host| {
            fs::remove_dir_all(host.context.pools[0].path.clone()).unwrap();
            host.context.daemon = Err("connection refused".into());
        }),
    ),
    (
        "pool-file-system",
        Problem,
        Break::Host(|host| host.context.pools[0].path = host.path("/etc/os-release")),
    ),
    ("pool-file-system", Problem, Break::Pool(|standing| standing.mount.fstype = "tmpfs".into())),
    ("pool-file-system", Problem, Break::Pool(|standing| standing.mount.fstype = "nfs4".into())),
    ("pool-file-system", Problem, Break::Pool(|standing| standing.mount.fstype = "fuse.sshfs".into())),
    ("pool-file-system", Problem, Break::Host(|host| host.remount("/dev/sdb1", "- xfs", "- overlay"))),
    ("pool-file-system", Warning, Break::Pool(|standing| standing.mount.fstype = "zfs".into())),
    ("pool-space", Problem, Break::Pool(|standing| standing.available = 5 * GIB - 1)),
    ("pool-space", Warning, Break::Pool(|standing| standing.available = 5 * GIB)),
    ("pool-inodes", Warning, Break::Pool(|standing| standing.inodes.1 = 49)),
    ("pool-inodes", Problem, Break::Pool(|standing| standing.inodes.1 = 0)),
    ("pool-direct-io", Warning, Break::Pool(|standing| standing.direct_io = Some(false))),
    ("pool-direct-io", Advice, Break::Pool(|standing| standing.direct_io = None)),
    ("pool-direct-io", Warning, Break::Host(|host| host.write("/sys/block/loop3/loop/dio", "0"))),
    ("pool-reflinks", Advice, Break::Pool(|standing| standing.reflinks = Some(false))),
    ("pool-project-quota", Advice, Break::Pool(|standing| standing.project_quota = Some(false))),
    (
        "pool-io-scheduler",
        Advice,
        Break::Host(|host| host.write("/sys/devices/sdb/queue/scheduler", "none mq-deadline [bfq]")),
    ),
    ("pool-io-scheduler", Advice, Break::Host(|host| host.write("/sys/devices/sdb/queue/rotational", "1"))),
    ("pool-io-scheduler", Advice, Break::Host(|host| host.remove("/sys/devices/sdb/queue/scheduler"))),
    ("pool-mount-options", Problem, Break::Host(|host| host.remount("/dev/sdb1", "sdb1 rw", "sdb1 ro"))),
    (
        "pool-mount-options",
        Problem,
        Break::Host(|host| host.remount("/dev/sdb1", "sdb1 rw", "sdb1 rw,nobarrier")),
    ),
    (
        "pool-mount-options",
        Warning,
        Break::Host(|host| host.remount("/dev/sdb1", "sdb1 rw", "sdb1 rw,data=journal")),
    ),
    ("pool-mount-options", Warning, Break::Host(|host| host.remount("/dev/sdb1", "sdb1 rw", "sdb1 rw,sync"))),
    (
        "pool-mount-options",
        Advice,
        Break::Host(|host| host.remount("/dev/sdb1", "sdb1 rw", "sdb1 rw,compress=zstd:3")),
    ),
    ("pool-mount-options", Advice, Break::Host(|host| host.remount("/dev/sdb1", "rw,relatime", "rw"))),
    (
        "pool-own-file-system",
        Advice,
        Break::Host(|host| host.mounts.retain(|line| !line.contains("/dev/sdb1"))),
    ),
    ("loop-devices", Problem, Break::Host(|host| host.remove("/dev/loop-control"))),
    (
        "deleted-images",
        Problem,
        Break::Host(|host| host.use_loop("loop3", &format!("{} (deleted)", host.image(ID)), "1")),
    ),
    ("stale-loop-devices", Warning, Break::Host(|host| host.use_loop("loop4", &host.image(GONE), "1"))),
    (
        "stale-loop-devices",
        Warning,
        Break::Host(|host| host.use_loop("loop4", &format!("{} (deleted)", host.image(GONE)), "1")),
    ),
    (
        "stale-loop-devices",
        Warning,
        Break::Host(|host| {
            // The daemon is down: the directories in the pool say which volumes there are.
            host.context.daemon = Err("connection refused".into());
            host.use_loop("loop4", &host.image(GONE), "1");
        }),
    ),
    ("stale-loop-devices", Advice, Break::Facts(|facts| facts.ids = None)),
    (
        "stale-mounts",
        Warning,
        Break::Host(|host| {
            let target = host.context.mountpoints.join(GONE).display().to_string();
            host.mount("7:9", &target, "ext4", "/dev/loop9", "rw");
        }),
    ),
    ("stale-mounts", Advice, Break::Facts(|facts| facts.ids = None)),
    ("dirty-pages", Advice, Break::Host(|host| host.write("/proc/meminfo", "MemTotal: 16777216 kB"))),
    ("dirty-pages", Warning, Break::Host(|host| host.write("/proc/meminfo", "MemTotal: 268435456 kB"))),
    ("dirty-pages", Warning, Break::Host(|host| host.write("/proc/sys/vm/dirty_bytes", "17179869184"))),
    ("bpf", Warning, Break::Host(|host| host.remove("/proc/sys/kernel/unprivileged_bpf_disabled"))),
    ("bpf-file-system", Advice, Break::Host(|host| host.mounts.retain(|line| !line.contains("bpf")))),
    (
        "kernel-lockdown",
        Warning,
        Break::Host(|host| host.write("/sys/kernel/security/lockdown", "none integrity [confidentiality]")),
    ),
    (
        "tracepoint",
        Warning,
        Break::Host(|host| host.remove("/sys/kernel/tracing/events/block/block_rq_complete/format")),
    ),
    (
        "tracepoint",
        Warning,
        Break::Host(|host| {
            host.remove("/sys/kernel/tracing/events/block/block_rq_complete/format");
            host.mounts.retain(|line| !line.contains("tracefs"));
        }),
    ),
    ("tracepoint", Advice, Break::Facts(|facts| facts.tracking.tracepoint = Presence::Hidden)),
    ("selinux", Advice, Break::Host(|host| host.write("/sys/fs/selinux/enforce", "1"))),
    ("apparmor", Warning, Break::Host(|host| host.remove("/usr/sbin/apparmor_parser"))),
    ("clock", Problem, Break::Host(|host| host.context.now = UNIX_EPOCH + Duration::from_secs(86_400))),
    ("clock", Advice, Break::Host(|host| host.remove("/run/systemd/timesync/synchronized"))),
    ("cgroups", Advice, Break::Host(|host| host.remove("/sys/fs/cgroup/cgroup.controllers"))),
];
