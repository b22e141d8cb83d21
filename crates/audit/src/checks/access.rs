//! Who writes where, and who can't.

use super::Draft;
use crate::case::{Case, Context};
use crate::facts::{Container, Content, Mount, MountKind};
use crate::report::{Severity, named};
use crate::words::{count, list, quote};
use std::collections::BTreeMap;

/// The same volume or host path, writable in several containers.
pub(super) fn shared_writable(context: &Context<'_>) -> Vec<Draft> {
    let mut users: BTreeMap<(bool, &str), Vec<(&Case<'_>, &Mount)>> = BTreeMap::new();
    for case in context.all() {
        for mount in case.container.mounts.iter().filter(|mount| mount.read_write) {
            let Some(key) = key(mount, context) else { continue };
            let uses = users.entry(key).or_default();
            if !uses.iter().any(|(other, _)| other.container.id == case.container.id) {
                uses.push((case, mount));
            }
        }
    }
    // Those that were asked for stand first.
    let asked = |case: &Case<'_>| context.cases.iter().any(|asked| std::ptr::eq(asked, case));
    let shared = users
        .into_iter()
        .filter(|(_, uses)| uses.len() > 1 && uses.first().is_some_and(|(case, _)| asked(case)));
    shared.map(|((volume, source), uses)| shared_by(volume, source, &uses)).collect()
}

fn shared_by(volume: bool, source: &str, uses: &[(&Case<'_>, &Mount)]) -> Draft {
    let servers: Vec<String> = uses
        .iter()
        .filter(|(case, mount)| case.service_on(mount).is_some_and(|service| service.class.is_database()))
        .map(|(case, _)| named(case.container))
        .collect();
    let names: Vec<String> = uses.iter().map(|(case, _)| named(case.container)).collect();
    let what = if volume { format!("volume {source}") } else { format!("host directory {source}") };
    let found =
        format!("{what} is writable in {}: {}", count(names.len() as u64, "container"), list(&names, 6));
    let draft = Draft::new(Severity::Risk, found).path(source);
    let draft = if volume { Draft { path: None, ..draft }.volume(source) } else { draft };
    let draft = draft.command(format!("docker ps -a --filter {}", quote(&format!("volume={source}"))));
    if servers.len() > 1 {
        let more = format!(
            "{} keep a database there: two servers on the same files destroy the data, so never let them run at the same time",
            list(&servers, 6)
        );
        draft.more(&more)
    } else {
        draft.more("Mount it read-only (:ro) where it is only read")
    }
}

/// What identifies the files that a mount shows; `None` if any number of containers may share it.
fn key<'a>(mount: &'a Mount, context: &Context<'_>) -> Option<(bool, &'a str)> {
    match mount.kind {
        MountKind::Volume => mount.volume.as_deref().map(|name| (true, name)),
        MountKind::Bind => {
            let source = mount.source.as_str();
            let free = context.rules.settings.may_be_shared(source);
            (!free && source.starts_with('/')).then_some((false, source))
        }
        _ => None,
    }
}

/// A mount whose top directory the main process can't write.
pub(super) fn not_writable(case: &Case<'_>, _: &Context<'_>) -> Vec<Draft> {
    let container = case.container;
    let Some((uid, gids)) = identity(container) else { return Vec::new() };
    let is_for_data = |mount: &Mount| match mount.kind {
        MountKind::Volume => true,
        // Configuration is often mounted without :ro and never written.
        MountKind::Bind => {
            case.service_on(mount).is_some() || container.declared_volumes.contains(&mount.destination)
        }
        _ => false,
    };
    let mounts = container.mounts.iter().filter(|mount| mount.read_write && is_for_data(mount));
    let held = mounts.filter_map(|mount| mount.content.as_ref().map(|content| (mount, content)));
    let refused =
        held.filter(|(_, content)| content.exists && content.is_directory() && !writes(uid, &gids, content));
    refused
        .map(|(mount, content)| {
            let runs = if container.state.is_alive() { "runs" } else { "would run" };
            let found = format!(
                "{} belongs to user {} and group {} with mode {:04o}; the container's process {runs} as user {uid} and can't write there",
                mount.destination,
                content.uid,
                content.gid,
                content.mode & 0o7777
            );
            let draft = Draft::new(Severity::Risk, found).container(&container.name).mount(mount);
            let gid = gids.first().map(|gid| format!(":{gid}")).unwrap_or_default();
            match mount.source.as_str() {
                source if source.starts_with('/') => draft.command(format!("chown {uid}{gid} {}", quote(source))),
                _ => draft,
            }
        })
        .collect()
}

/// The user and groups of the main process; from the configuration if it does not run.
fn identity(container: &Container) -> Option<(u32, Vec<u32>)> {
    if let Some(uid) = container.uid {
        return Some((uid, container.gids.clone()));
    }
    let (user, group) = container.user.split_once(':').unwrap_or((&container.user, ""));
    let uid = user.parse().ok()?;
    // Without a number, groups are not known: nothing is said then.
    let gid: u32 = group.parse().ok()?;
    Some((uid, vec![gid]))
}

/// The kernel's rule: the first class that fits decides. Write and search permission are both needed to make a file.
fn writes(uid: u32, gids: &[u32], content: &Content) -> bool {
    let shift = match () {
        () if uid == 0 => return true,
        () if uid == content.uid => 6,
        () if gids.contains(&content.gid) => 3,
        () => 0,
    };
    (content.mode >> shift) & 0o3 == 0o3
}
