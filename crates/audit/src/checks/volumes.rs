//! Volumes by themselves.

use super::Draft;
use super::layer::size;
use super::save::adopt;
use crate::case::Context;
use crate::facts::{Protection, Volume};
use crate::report::{Severity, holds_data};
use crate::words::{bytes, list, quote};

fn used(volume: &Volume) -> Option<u64> {
    volume.content.as_ref().and_then(|content| content.used)
}

fn is_gone(volume: &Volume) -> bool {
    volume.content.as_ref().is_some_and(|content| !content.exists)
}

fn is_dangling(volume: &Volume) -> bool {
    volume.used_by.is_empty() && holds_data(volume.content.as_ref()) == Some(true)
}

pub(super) fn directory_gone(context: &Context<'_>) -> Vec<Draft> {
    let gone = context.host.volumes.iter().filter(|volume| is_gone(volume));
    gone.map(|volume| {
        let place = volume.mountpoint.as_ref().filter(|place| !place.is_empty());
        let at = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let users = match volume.used_by.as_slice() {
            [] => String::new(),
            users => format!("; {} needs it", list(users, 4)),
        };
        // Where nobody needs it, there is nothing to be kept but its name.
        let command = match volume.used_by.as_slice() {
            [] => format!("docker volume rm {}", quote(&volume.name)),
            _ => format!("docker ps -a --filter {}", quote(&format!("volume={}", volume.name))),
        };
        Draft::new(Severity::Risk, format!("the directory of volume {}{at} is gone{users}", volume.name))
            .volume(&volume.name)
            .command(command)
    })
    .collect()
}

pub(super) fn dangling(context: &Context<'_>) -> Vec<Draft> {
    let dangling = context.host.volumes.iter().filter(|volume| is_dangling(volume));
    // Everhold's own go to the trash when they are removed, and come back from there.
    let dangling = dangling.filter(|volume| volume.protection == Protection::Unknown);
    dangling
        .map(|volume| {
            let used = used(volume);
            let kind = if volume.anonymous { "a volume without a name" } else { "volume" };
            let found = format!("{kind} {} has data{} and no container", volume.name, size(used));
            Draft::new(Severity::Risk, found).volume(&volume.name).command(adopt(context, volume)).bytes(used)
        })
        .collect()
}

pub(super) fn without_history(context: &Context<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for volume in &context.host.volumes {
        let empty = holds_data(volume.content.as_ref()) == Some(false);
        // These have findings of their own, which say more.
        let said = volume.anonymous || is_dangling(volume) && volume.protection == Protection::Unknown;
        if empty || said || is_gone(volume) {
            continue;
        }
        let (found, command) = match &volume.protection {
            Protection::Unknown => ("has no history, and no backup of it is known", adopt(context, volume)),
            Protection::None => {
                ("is Everhold's, and has no history", format!("everhold protect {}", quote(&volume.name)))
            }
            Protection::Unseen | Protection::Protected { .. } => continue,
        };
        let service = context.all().find_map(|case| {
            let mut mounts = case.container.mounts.iter();
            mounts.find_map(|mount| {
                (mount.volume.as_ref() == Some(&volume.name)).then(|| case.service_on(mount)).flatten()
            })
        });
        let (severity, of) = match service {
            Some(service) => (Severity::Risk, format!(", with the data of {},", service.name)),
            None => (Severity::Advice, String::new()),
        };
        let draft = Draft::new(severity, format!("volume {}{of} {found}", volume.name));
        let draft = draft.volume(&volume.name).bytes(used(volume));
        drafts.push(draft.command(command));
    }
    drafts
}

pub(super) fn behind(context: &Context<'_>) -> Vec<Draft> {
    let behind = context.host.volumes.iter().filter_map(|volume| match &volume.protection {
        Protection::Protected { behind: Some(behind) } => Some((volume, behind)),
        _ => None,
    });
    behind
        .map(|(volume, behind)| {
            Draft::new(Severity::Risk, format!("the history of volume {} is behind: {behind}", volume.name))
                .volume(&volume.name)
                .command("everhold protection")
        })
        .collect()
}

/// The part in use, in percent, if it is too much.
fn too_full(size: Option<u64>, free: Option<u64>, context: &Context<'_>) -> Option<(u64, u64)> {
    let (size, free) = (size.filter(|size| *size > 0)?, free?);
    let used = size.saturating_sub(free);
    let percent = u64::try_from(u128::from(used) * 100 / u128::from(size)).ok()?;
    (percent >= u64::from(context.rules.settings.near_full_percent)).then_some((percent, free))
}

pub(super) fn nearly_full(context: &Context<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for volume in &context.host.volumes {
        let Some(content) = volume.content.as_ref().filter(|content| content.exists && content.fs_is_own)
        else {
            continue;
        };
        let Some((percent, free)) = too_full(content.fs_size, content.fs_free, context) else { continue };
        let found = format!("volume {} is {percent} % full, {} are free", volume.name, bytes(free));
        let draft = Draft::new(Severity::Risk, found).volume(&volume.name);
        let place = volume.mountpoint.as_ref().filter(|place| !place.is_empty());
        drafts.push(match (&volume.protection, place) {
            (Protection::Unknown, Some(place)) => draft.command(format!("du -xhd1 {}", quote(place))),
            (Protection::Unknown, None) => draft,
            _ => draft.command(format!("everhold volume grow {} …", quote(&volume.name))),
        });
    }
    drafts
}

/// Once, from what the engine's root says, or from any volume that lies on it.
pub(super) fn host_nearly_full(context: &Context<'_>) -> Vec<Draft> {
    let engine = &context.host.engine;
    let shared = context.host.volumes.iter().filter(|volume| volume.driver == "local");
    let shared = shared.filter_map(|volume| volume.content.as_ref());
    let mut shared =
        shared.filter(|content| content.exists && !content.fs_is_own && content.fs_size.is_some());
    let (size, free) = match (engine.fs_size, engine.fs_free) {
        (Some(size), Some(free)) => (Some(size), Some(free)),
        _ => shared.next().map_or((None, None), |content| (content.fs_size, content.fs_free)),
    };
    let Some((percent, free)) = too_full(size, free, context) else { return Vec::new() };
    let at = engine.root.as_ref().map(|root| format!(" of {root}")).unwrap_or_default();
    let found = format!("the file system{at} is {percent} % full, {} are free", bytes(free));
    let draft = Draft::new(Severity::Risk, found).command("docker system df");
    vec![match &engine.root {
        Some(root) => draft.path(root),
        None => draft,
    }]
}
