//! Data on the wrong kind of mount, and mounts that miss the data or hide the image's.

use super::Draft;
use super::layer::{in_layer, size};
use crate::case::{Case, Context, is_bare};
use crate::facts::{Mount, MountKind};
use crate::report::{Severity, holds_data};
use crate::words::{amount, quote};
use std::collections::BTreeSet;

/// A volume or a directory was mounted for the data, which is elsewhere.
pub(super) fn volume_misses_data(case: &Case<'_>, context: &Context<'_>) -> Vec<Draft> {
    // Several mounts may miss the same data: its bytes and its command are said once.
    let mut said = BTreeSet::new();
    let container = case.container;
    let draft = |missed: &crate::case::Missed<'_>| {
        let (mount, data) = (missed.mount, &missed.data);
        let first = said.insert(data.path.clone());
        let which = match &mount.volume {
            Some(volume) => format!("volume {volume}"),
            None => format!("host directory {}", mount.source),
        };
        let state = match &mount.content {
            Some(content) if is_bare(content) => " and is empty",
            Some(_) => " and has files that are not in use",
            None => "",
        };
        let told = match &data.told {
            Some(told) => format!(" ({told})"),
            None => String::new(),
        };
        let (place, severity, bytes) = match data.home {
            None => {
                let held = in_layer(case, &data.path).unwrap_or_default();
                (format!("the writable layer ({})", amount(held)), Severity::Loss, Some(held.bytes))
            }
            Some(home) => {
                let used = home.content.as_ref().and_then(|content| content.used);
                let severity = if container.auto_remove { Severity::Loss } else { Severity::Risk };
                (format!("a volume without a name{}", size(used)), severity, used)
            }
        };
        let found = format!(
            "{which} is mounted at {}{state}; the data of {} is at {}{told}, in {place}",
            mount.destination, data.service.name, data.path
        );
        let draft = Draft::new(severity, found).container(&container.name).mount(mount);
        let draft = draft.more(&data.service.advice);
        match data.home {
            _ if !first => draft,
            None => draft.bytes(bytes).rescue(context, container, std::slice::from_ref(&data.path)),
            Some(home) => draft.bytes(bytes).rescue_volume(context, container, home),
        }
    };
    case.missed.iter().map(draft).collect()
}

/// The data of a service in memory.
pub(super) fn data_on_tmpfs(case: &Case<'_>, context: &Context<'_>) -> Vec<Draft> {
    let name = &case.container.name;
    let mounts = case.container.mounts.iter().filter(|mount| mount.kind == MountKind::Tmpfs);
    let held = mounts.filter_map(|mount| Some((mount, case.service_on(mount)?)));
    held.map(|(mount, service)| {
        let used = mount.content.as_ref().and_then(|content| content.used);
        let found =
            format!("the data of {} is on a tmpfs at {}{}", service.name, mount.destination, size(used));
        // The memory of a container that stopped is gone already.
        let held = case.container.state.is_alive() && !mount.content.as_ref().is_some_and(is_bare);
        let severity = if held { Severity::Loss } else { Severity::Risk };
        Draft::new(severity, found)
            .container(name)
            .mount(mount)
            .more(&service.advice)
            .rescue_memory(context, case.container, &mount.destination)
            .bytes(used)
    })
    .collect()
}

/// Data on a volume that nobody named. Once for each volume, at the first container that uses it.
pub(super) fn data_on_anonymous_volume(context: &Context<'_>) -> Vec<Draft> {
    let mut said: BTreeSet<&str> = BTreeSet::new();
    let mut drafts = Vec::new();
    // Those that remove themselves first: with them it is a loss.
    let (removing, staying): (Vec<_>, Vec<_>) = context
        .cases
        .iter()
        .filter(|case| context.kept_for(case.container).is_none())
        .partition(|case| case.container.auto_remove);
    for case in removing.into_iter().chain(staying) {
        for mount in case.container.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            let Some(volume) = mount.volume.as_deref().filter(|_| mount.anonymous) else { continue };
            let named_by_other = |missed: &crate::case::Missed<'_>| {
                missed.data.home.is_some_and(|home| home.volume.as_deref() == Some(volume))
            };
            let told = context.cases.iter().any(|case| case.missed.iter().any(named_by_other));
            if !told && is_held(case, mount) && said.insert(volume) {
                drafts.push(anonymous(case, mount, context));
            }
        }
    }
    drafts
}

/// Whether there is data on it. Where that could not be seen, a service that has its data there says so.
fn is_held(case: &Case<'_>, mount: &Mount) -> bool {
    holds_data(mount.content.as_ref()).unwrap_or_else(|| case.service_on(mount).is_some())
}

fn anonymous(case: &Case<'_>, mount: &Mount, context: &Context<'_>) -> Draft {
    let container = case.container;
    let severity = if container.auto_remove { Severity::Loss } else { Severity::Risk };
    let used = mount.content.as_ref().and_then(|content| content.used);
    let service = case.service_on(mount);
    let what = service.map_or_else(|| "data".to_owned(), |service| format!("the data of {}", service.name));
    // Whoever mounted an empty one with a name may have meant it for this.
    let bare = |other: &&Mount| {
        let named = other.kind == MountKind::Volume && !other.anonymous && other.read_write;
        named && other.content.as_ref().is_some_and(is_bare)
    };
    let hint = container.mounts.iter().find(bare).map(|other| {
        let name = other.volume.as_deref().unwrap_or_default();
        format!("; volume {name} at {} is empty", other.destination)
    });
    let hint = hint.unwrap_or_default();
    let found = format!("{what} at {} is on a volume without a name{}{hint}", mount.destination, size(used));
    Draft::new(severity, found)
        .container(&container.name)
        .mount(mount)
        .more(service.map_or("", |service| service.advice.as_str()))
        .rescue_volume(context, container, mount)
        .bytes(used)
}

/// Copies what the image has beneath a mount into it, if nothing is in the way; otherwise shows it.
fn reveal(image: &str, mount: &Mount, bare: bool) -> String {
    let beneath = &mount.destination;
    let source = match mount.kind {
        MountKind::Volume => mount.volume.as_deref(),
        MountKind::Bind => Some(mount.source.as_str()),
        _ => None,
    };
    match source.filter(|source| bare && !source.is_empty() && !source.contains(':')) {
        Some(source) => format!(
            "docker run --rm --user 0 --entrypoint cp -v {} {} -a {} /mnt",
            quote(&format!("{source}:/mnt")),
            quote(image),
            quote(&format!("{}/.", beneath.trim_end_matches('/')))
        ),
        None => format!("docker run --rm --entrypoint ls {} -lA {}", quote(image), quote(beneath)),
    }
}

/// What the image has beneath a mount.
pub(super) fn hides_image_content(case: &Case<'_>, _: &Context<'_>) -> Vec<Draft> {
    let hides = |mount: &&Mount| {
        let hidden = mount.shadows.is_some_and(|entries| entries > 0) && mount.copied_up != Some(true);
        // A volume with content got the image's at its first use; that later images differ can't be told from names unseen.
        let unsure = mount.kind == MountKind::Volume && mount.copied_up.is_none();
        // Memory over a scratch directory is what it is for.
        let scratch =
            mount.kind == MountKind::Tmpfs && ["/tmp", "/run", "/var/tmp"].contains(&&*mount.destination);
        hidden && !unsure && !scratch
    };
    // A mount that misses the data has a finding that says more.
    let is_missed = |mount: &&Mount| case.missed.iter().any(|missed| std::ptr::eq(missed.mount, *mount));
    let mounts = case.container.mounts.iter().filter(hides).filter(|mount| !is_missed(mount));
    mounts
        .map(|mount| {
            let entries = mount.shadows.unwrap_or_default();
            let bare = mount.content.as_ref().is_some_and(is_bare);
            let (severity, empty) = if bare { (Severity::Risk, "empty ") } else { (Severity::Note, "") };
            let kind = match mount.kind {
                MountKind::Bind => "host directory",
                MountKind::Tmpfs => "tmpfs",
                _ => "volume",
            };
            let entries = if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
            let found = format!(
                "the {empty}{kind} at {} hides {entries} that the image has there",
                mount.destination
            );
            Draft::new(severity, found).container(&case.container.name).mount(mount).command(reveal(
                &case.container.image,
                mount,
                bare,
            ))
        })
        .collect()
}
