//! Checks of the machine: kernel, rights, helper programs, memory, clock, the daemon's own places.

use super::{Finding, install, quote};
use crate::facts::{Facts, Namespace, Presence};
use crate::version;
use model::Size;

pub(super) fn kernel(facts: &Facts) -> Finding {
    let Some(release) = &facts.host.kernel else { return Finding::advice("the version is not known") };
    let found = format!("Linux {release}");
    match version::parse(release) {
        None => Finding::advice(found),
        Some(version) if version < (5, 8) => Finding::problem(format!("{found}, too old")),
        Some(version) if version < (5, 15) => Finding::warning(found),
        Some(_) => Finding::ok(found),
    }
}

/// Bits of `linux/capability.h`, as in the systemd unit; BPF and PERFMON are part of SYS_ADMIN for the kernel.
const CAPABILITIES: [(u32, &str); 7] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (4, "CAP_FSETID"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (24, "CAP_SYS_RESOURCE"),
];

pub(super) fn privileges(facts: &Facts) -> Finding {
    let Some(set) = facts.host.capabilities else {
        return Finding::advice("the rights of this process are not known");
    };
    let missing: Vec<_> =
        CAPABILITIES.iter().filter(|(bit, _)| set >> bit & 1 == 0).map(|(_, name)| *name).collect();
    let found =
        format!("{} without {}", if facts.host.root { "root" } else { "not root, and" }, missing.join(", "));
    if missing.is_empty() {
        return Finding::ok("all that are needed");
    }
    if !facts.host.root {
        return Finding::warning(format!("{found}: some of what follows could not be seen"))
            .recommend("examine as root")
            .command("sudo everhold doctor");
    }
    if missing.contains(&"CAP_SYS_ADMIN") {
        return Finding::problem(format!("{found}, as in an unprivileged container"))
            .recommend("run the daemon on the host itself, or in a privileged container");
    }
    Finding::warning(found)
}

pub(super) fn mount_namespace(facts: &Facts) -> Finding {
    match facts.host.namespace {
        Namespace::OfTheHost => Finding::ok("the same as that of process 1"),
        Namespace::Own => {
            Finding::warning("another than that of process 1: a container, or a hardened service")
        }
        Namespace::Unknown => Finding::advice("not known: process 1 can't be looked at"),
    }
}

pub(super) fn helper_programs(facts: &Facts) -> Finding {
    let missing: Vec<_> = facts.host.helpers.iter().filter(|helper| !helper.there).collect();
    if missing.is_empty() {
        let names: Vec<_> = facts.host.helpers.iter().map(|helper| helper.name).collect();
        return Finding::ok(format!("{} are there", names.join(", ")));
    }
    let names: Vec<_> = missing.iter().map(|helper| helper.name).collect();
    let mut packages: Vec<_> = missing.iter().map(|helper| helper.package).collect();
    packages.dedup();
    let found = format!("missing: {}", names.join(", "));
    // ext4 is the default; xfs is there for who asks for it.
    let finding =
        if packages.contains(&"e2fsprogs") { Finding::problem(found) } else { Finding::advice(found) };
    finding.command(install(&facts.host.distribution, &packages))
}

pub(super) fn e2fsprogs(facts: &Facts) -> Finding {
    let Some(text) = &facts.host.e2fsprogs else { return Finding::advice("the version is not known") };
    match version::parse(text) {
        Some(version) if version >= (1, 47) => Finding::ok(text),
        _ => Finding::advice(text),
    }
}

pub(super) fn daemon(facts: &Facts) -> Finding {
    match &facts.daemon {
        Ok(daemon) => Finding::ok(format!("answers; {} volumes", daemon.volumes.len())),
        Err(why) => {
            Finding::problem(format!("does not answer: {why}")).command("systemctl enable --now everhold")
        }
    }
}

pub(super) fn state_directory(facts: &Facts) -> Finding {
    let state = &facts.state;
    let path = state.path.display();
    let fstype = state.mount.as_ref().map_or("an unknown file system", |mount| &mount.fstype);
    if matches!(fstype, "tmpfs" | "ramfs" | "overlay") {
        return Finding::problem(format!(
            "{path} is on {fstype}, and lost with the next reboot or container"
        ));
    }
    if state.mount.as_ref().is_some_and(|mount| mount.has("ro")) {
        return Finding::problem(format!("{path} is on a file system that is mounted read-only"));
    }
    match state.there {
        Presence::There => Finding::ok(format!("{path} on {fstype}")),
        Presence::Absent => Finding::advice(format!("{path} does not exist yet; the daemon makes it")),
        Presence::Hidden => Finding::advice(format!("{path} can't be seen without root")),
    }
}

/// What a disk of today writes in a few seconds, and in about half of the time that Docker waits.
const DIRTY_ADVICE: u64 = 2 << 30;
const DIRTY_WARNING: u64 = 8 << 30;

const SYSCTL: &str = "printf 'vm.dirty_bytes = 1073741824\\nvm.dirty_background_bytes = 268435456\\n' \
                      > /etc/sysctl.d/60-everhold.conf && sysctl --load=/etc/sysctl.d/60-everhold.conf";

pub(super) fn dirty_pages(facts: &Facts) -> Finding {
    let host = &facts.host;
    // A setting in bytes that is not zero overrides the one in percent (Documentation/admin-guide/sysctl/vm.rst).
    let limit = |name: &str, bytes: Option<u64>, ratio: Option<u64>| match bytes.filter(|bytes| *bytes > 0) {
        Some(bytes) => Some((bytes, format!("vm.{name}_bytes = {bytes}"))),
        None => Some((host.memory? / 100 * ratio?, format!("vm.{name}_ratio = {}", ratio?))),
    };
    let background = limit("dirty_background", host.dirty_background_bytes, host.dirty_background_ratio)
        .map(|(_, text)| text);
    let Some((bound, text)) = limit("dirty", host.dirty_bytes, host.dirty_ratio) else {
        return Finding::advice("not known");
    };
    let background = background.map(|text| format!(", {text}")).unwrap_or_default();
    let found = format!("{text}{background}: up to {} may wait to be written", Size::from_bytes(bound));
    match bound {
        _ if bound <= DIRTY_ADVICE => Finding::ok(found),
        _ if bound <= DIRTY_WARNING => Finding::advice(found).command(SYSCTL),
        _ => Finding::warning(found).command(SYSCTL),
    }
}

pub(super) fn cgroups(facts: &Facts) -> Finding {
    match facts.host.cgroup2 {
        Some(true) => Finding::ok("version 2"),
        Some(false) => Finding::advice("version 1, or both mixed"),
        None => Finding::advice("none are mounted"),
    }
}

/// 2024-01-01, before which this program did not exist.
const OLDEST: u64 = 1_704_067_200;

pub(super) fn clock(facts: &Facts) -> Finding {
    let clock = facts.host.clock;
    let set = "timedatectl set-ntp true";
    if clock.now < OLDEST {
        return Finding::problem("the clock shows a time before 2024").command(set);
    }
    if clock.timesyncd {
        return Finding::ok("synchronised by systemd-timesyncd");
    }
    match clock.service {
        Some(service) => Finding::ok(format!("{service} is running")),
        None => Finding::advice("not known whether it is synchronised: no time service was found")
            .command(format!("{} && {set}", install(&facts.host.distribution, &["chrony"]))),
    }
}

pub(super) fn plugin_socket(facts: &Facts) -> Finding {
    let plugin = &facts.plugin;
    let path = plugin.path.display();
    let searched = plugin.path.parent().is_some_and(|dir| dir.ends_with("docker/plugins"));
    match (plugin.there, plugin.is_socket) {
        (Presence::There, true) if !searched => {
            Finding::warning(format!("{path} is where Docker does not look for plugins"))
        }
        (Presence::There, true) if facts.daemon.is_ok() => Finding::ok(path.to_string()),
        (Presence::There, true) => {
            Finding::warning(format!("{path} is left of a daemon that does not answer"))
                .command("systemctl restart everhold")
        }
        (Presence::There, false) => Finding::problem(format!("{path} is not a socket"))
            .command(format!("rm {} && systemctl restart everhold", quote(&plugin.path))),
        (Presence::Absent, _) if facts.daemon.is_ok() => {
            Finding::problem(format!("{path} does not exist although the daemon runs"))
                .command("systemctl restart everhold")
        }
        (Presence::Absent, _) => Finding::advice(format!("{path} does not exist; the daemon makes it")),
        (Presence::Hidden, _) => Finding::advice(format!("{path} can't be seen without root")),
    }
}
