//! Checks of mandatory access control.

use super::{Finding, install};
use crate::facts::Facts;

pub(super) fn selinux(facts: &Facts) -> Finding {
    match facts.host.security.selinux {
        None => Finding::ok("off"),
        Some(false) => Finding::ok("permissive"),
        Some(true) => Finding::advice("enforcing").command(
            "docker volume create -d everhold -o selinux=system_u:object_r:container_file_t:s0 NAME",
        ),
    }
}

pub(super) fn apparmor(facts: &Facts) -> Finding {
    let security = facts.host.security;
    match (security.apparmor, security.apparmor_parser) {
        (false, _) => Finding::ok("off"),
        (true, true) => Finding::ok("on; Docker's own profile leaves volumes alone"),
        (true, false) => Finding::warning("on, but its parser is missing")
            .command(install(&facts.host.distribution, &["apparmor"])),
    }
}
