//! Checks of what the tracking of changed blocks needs. Where it can't work, a cut compares whole volumes: slower, never wrong.

use super::Finding;
use crate::facts::{Facts, Presence};

pub(super) fn bpf(facts: &Facts) -> Finding {
    match (facts.tracking.bpf, facts.tracking.btf) {
        (true, true) => Finding::ok("bpf(2) is there, with type information"),
        (true, false) => Finding::ok("bpf(2) is there, without type information, which is not needed"),
        (false, _) => Finding::warning("the kernel has no bpf(2)"),
    }
}

pub(super) fn bpf_file_system(facts: &Facts) -> Finding {
    if facts.tracking.bpffs {
        return Finding::ok("mounted at /sys/fs/bpf");
    }
    Finding::advice("not mounted at /sys/fs/bpf").command("mount -t bpf bpf /sys/fs/bpf")
}

pub(super) fn lockdown(facts: &Facts) -> Finding {
    match facts.tracking.lockdown.as_deref() {
        None => Finding::ok("not in this kernel, or not to be seen"),
        Some("confidentiality") => Finding::warning("confidentiality"),
        Some(mode) => Finding::ok(mode),
    }
}

pub(super) fn tracepoint(facts: &Facts) -> Finding {
    let tracking = &facts.tracking;
    match tracking.tracepoint {
        Presence::There => Finding::ok("block:block_rq_complete is there"),
        Presence::Hidden => Finding::advice("not known; only root can see it"),
        Presence::Absent if tracking.tracing && !tracking.tracefs => {
            Finding::warning("tracefs is not mounted").command("mount -t tracefs tracefs /sys/kernel/tracing")
        }
        Presence::Absent => Finding::warning("the kernel has no block:block_rq_complete"),
    }
}
