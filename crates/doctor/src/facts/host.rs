//! The machine: kernel, rights, programs, memory, clock, security modules.

use super::tree::{Presence, Tree};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Facts about the machine as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// `6.1.0-18-amd64`.
    pub kernel: Option<String>,
    /// `ID` and `ID_LIKE` of os-release(5).
    pub distribution: String,
    /// Effective capabilities of this process, as a bit set.
    pub capabilities: Option<u64>,
    pub root: bool,
    pub namespace: Namespace,
    pub helpers: Vec<Helper>,
    /// What `mke2fs -V` says of itself: `1.47.0`.
    pub e2fsprogs: Option<String>,
    pub memory: Option<u64>,
    pub dirty_bytes: Option<u64>,
    pub dirty_ratio: Option<u64>,
    pub dirty_background_bytes: Option<u64>,
    pub dirty_background_ratio: Option<u64>,
    /// Whether control groups have the unified hierarchy only (version 2). `None`: none mounted.
    pub cgroup2: Option<bool>,
    pub security: Security,
    pub clock: Clock,
    pub docker_config: bool,
}

/// A program that the daemon calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Helper {
    pub name: &'static str,
    /// The package, by the same name on Debian, Fedora, SUSE and Arch.
    pub package: &'static str,
    pub there: bool,
}

/// Whether this process sees the mounts that the rest of the host sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    OfTheHost,
    Own,
    Unknown,
}

/// Mandatory access control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Security {
    /// `Some(true)`: enforcing; `Some(false)`: permissive; `None`: off.
    pub selinux: Option<bool>,
    pub apparmor: bool,
    pub apparmor_parser: bool,
}

/// What is known of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Seconds since 1970; 0 before.
    pub now: u64,
    /// systemd-timesyncd has set the clock since boot.
    pub timesyncd: bool,
    /// Another service that keeps the time is running.
    pub service: Option<&'static str>,
}

const HELPERS: [(&str, &str); 5] = [
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_growfs", "xfsprogs"),
];

/// Where the daemon looks for programs; it ignores `PATH`.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Files that exist while a time service runs.
const TIME_SERVICES: [(&str, &str); 4] = [
    ("chronyd", "/run/chrony/chronyd.pid"),
    ("chronyd", "/run/chronyd.pid"),
    ("ntpd", "/run/ntpd.pid"),
    ("openntpd", "/run/openntpd.pid"),
];

pub(super) fn look(tree: Tree<'_>, now: SystemTime) -> Host {
    let vm = |name: &str| tree.number(&format!("/proc/sys/vm/{name}"));
    Host {
        kernel: tree.text("/proc/sys/kernel/osrelease"),
        distribution: distribution(tree),
        capabilities: tree
            .field("/proc/self/status", "CapEff")
            .and_then(|set| u64::from_str_radix(&set, 16).ok()),
        root: tree
            .field("/proc/self/status", "Uid")
            .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")),
        namespace: namespace(tree),
        helpers: HELPERS
            .map(|(name, package)| Helper { name, package, there: program(tree, name).is_some() })
            .to_vec(),
        e2fsprogs: program(tree, "mkfs.ext4").and_then(|path| mke2fs_version(&path)),
        memory: tree.field("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text)),
        dirty_bytes: vm("dirty_bytes"),
        dirty_ratio: vm("dirty_ratio"),
        dirty_background_bytes: vm("dirty_background_bytes"),
        dirty_background_ratio: vm("dirty_background_ratio"),
        cgroup2: tree.has("/sys/fs/cgroup").then(|| tree.has("/sys/fs/cgroup/cgroup.controllers")),
        security: Security {
            selinux: tree.number("/sys/fs/selinux/enforce").map(|enforce| enforce == 1),
            apparmor: tree.text("/sys/module/apparmor/parameters/enabled").as_deref() == Some("Y"),
            apparmor_parser: program(tree, "apparmor_parser").is_some(),
        },
        clock: Clock {
            now: now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            timesyncd: tree.has("/run/systemd/timesync/synchronized"),
            service: TIME_SERVICES.iter().find(|(_, file)| tree.has(file)).map(|(name, _)| *name),
        },
        docker_config: tree.presence("/etc/docker/daemon.json") != Presence::Absent,
    }
}

fn distribution(tree: Tree<'_>) -> String {
    let text = tree.text("/etc/os-release").unwrap_or_default();
    let values = text.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    values.map(|value| value.trim_matches('"')).collect::<Vec<_>>().join(" ")
}

fn namespace(tree: Tree<'_>) -> Namespace {
    match (tree.link("/proc/self/ns/mnt"), tree.link("/proc/1/ns/mnt")) {
        (Some(own), Some(init)) if own == init => Namespace::OfTheHost,
        (Some(_), Some(_)) => Namespace::Own,
        _ => Namespace::Unknown,
    }
}

fn program(tree: Tree<'_>, name: &str) -> Option<std::path::PathBuf> {
    PROGRAM_DIRS.iter().map(|dir| tree.path(dir).join(name)).find(|path| path.is_file())
}

/// From the first line on standard error: `mke2fs 1.47.0 (5-Feb-2023)`.
fn mke2fs_version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("-V").env_clear().stdin(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&output.stderr).split_whitespace().nth(1).map(str::to_owned)
}

/// `24684084 kB` in bytes.
fn kibibytes(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
