//! What the tracking of changed blocks needs from the kernel.

use super::mounts::Mount;
use super::tree::{Presence, Tree};

/// BPF and tracepoints.
#[derive(Debug, Clone)]
pub(crate) struct Tracking {
    /// The `bpf(2)` system call is compiled in.
    pub bpf: bool,
    /// Type information for BPF. The tracker does without.
    pub btf: bool,
    /// The mode in force: `none`, `integrity`, `confidentiality`. `None`: the kernel has no lockdown.
    pub lockdown: Option<String>,
    /// The BPF file system is at its usual place.
    pub bpffs: bool,
    /// A tracefs is mounted at one of its usual places.
    pub tracefs: bool,
    /// The directory that tracefs is mounted at exists: the kernel has tracing.
    pub tracing: bool,
    /// `block:block_rq_complete`.
    pub tracepoint: Presence,
}

const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

pub(super) fn look(tree: Tree<'_>, mounts: &[Mount]) -> Tracking {
    let mounted = |target: &str, fstype: &str| {
        mounts.iter().any(|mount| mount.fstype == fstype && mount.target.as_os_str() == target)
    };
    let tracepoints =
        TRACEFS.map(|dir| tree.presence(&format!("{dir}/events/block/block_rq_complete/format")));
    let best = [Presence::There, Presence::Hidden].into_iter().find(|best| tracepoints.contains(best));
    Tracking {
        // This switch exists exactly where CONFIG_BPF_SYSCALL is set (kernel/bpf/syscall.c).
        bpf: tree.has("/proc/sys/kernel/unprivileged_bpf_disabled"),
        btf: tree.has("/sys/kernel/btf/vmlinux"),
        lockdown: tree.text("/sys/kernel/security/lockdown").as_deref().and_then(in_brackets),
        bpffs: mounted("/sys/fs/bpf", "bpf"),
        tracefs: TRACEFS.iter().any(|dir| mounted(dir, "tracefs")),
        tracing: tree.has(TRACEFS[0]),
        tracepoint: best.unwrap_or(Presence::Absent),
    }
}

/// The chosen one of `none [integrity] confidentiality`.
pub(super) fn in_brackets(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(chosen, _)| chosen.to_owned())
}
