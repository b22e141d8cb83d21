//! Volumes as people read them.

use crate::cli::labels;
use crate::output::human::{share, size, span, time};
use crate::output::{Output, Table, Tone, plain};
use api::v1::{self, Access};
use engine::{Clock, SystemClock};

/// The list.
pub fn volumes(volumes: &[v1::Volume]) -> Table {
    let now = SystemClock.now();
    let mut table = Table::new(["NAME", "DRIVER", "SIZE", "POOL", "STATE", "HOLDERS", "AGE", "LABELS"]);
    for volume in volumes {
        table.row([
            volume.name.clone(),
            volume.driver.clone(),
            size(volume.size),
            volume.pool.clone(),
            volume.state.as_str().to_owned(),
            volume.attachments.len().to_string(),
            span(volume.created, now),
            labels(&volume.labels),
        ]);
    }
    table
}

/// How full they are.
pub fn usages(usages: &[v1::Usage]) -> Table {
    let mut table = Table::new(["NAME", "SIZE", "USED", "USE%", "ON HOST", "INODES", "IUSE%"]);
    for usage in usages {
        let inodes = usage.inodes;
        table.row([
            usage.name.clone(),
            size(usage.size),
            size(usage.used),
            share(usage.used, usage.size),
            size(usage.allocated),
            inodes.map_or_else(String::new, |inodes| format!("{}/{}", inodes.used, inodes.total)),
            share(inodes.map(|inodes| inodes.used), inodes.map(|inodes| inodes.total)),
        ]);
    }
    table
}

fn access(access: Access) -> String {
    match access {
        Access::ReadWrite => "rw",
        Access::ReadOnly => "ro",
    }
    .to_owned()
}

/// All about one.
pub fn detail(out: &Output, detail: &v1::VolumeDetail) {
    let volume = &detail.volume;
    let line = |key: &str, value: &str| {
        out.line(&format!("{} {}", out.tone(&format!("{key:<11}"), Tone::Head), value));
    };
    let tone = match volume.state {
        v1::VolumeState::Ready | v1::VolumeState::Attached => Tone::Good,
        v1::VolumeState::Growing | v1::VolumeState::Creating => Tone::Warn,
        _ => Tone::Bad,
    };
    line("name", &volume.name);
    line("id", &volume.id);
    line("state", &out.tone(volume.state.as_str(), tone));
    line("driver", &volume.driver);
    line("size", &size(volume.size));
    line("pool", &volume.pool);
    line("created", &time(volume.created));
    if !volume.labels.is_empty() {
        line("labels", &labels(&volume.labels));
    }
    let mut options = volume.options.clone();
    for shown in ["driver", "size", "pool"] {
        options.remove(shown);
    }
    line("options", &labels(&options));
    line("home", &plain(&detail.home));
    if let Some(path) = &volume.path {
        line("path", &plain(path));
    }
    if let Some(device) = &detail.device {
        let how = match detail.direct_io {
            Some(true) => " (direct I/O)",
            Some(false) => " (through the page cache)",
            None => "",
        };
        line("device", &format!("{device}{how}"));
    }
    if detail.held {
        line("held", &out.tone("its writers wait: the pool is full", Tone::Bad));
    }
    for held in &volume.attachments {
        let what = format!(
            "{} {} ({}, since {})",
            held.holder,
            plain(&held.id),
            access(held.access),
            time(held.since)
        );
        line("attachment", &what);
    }
    for note in &detail.notes {
        line("note", &plain(note));
    }
    for problem in &detail.problems {
        line("problem", &out.tone(&plain(&problem.what), Tone::Bad));
        line("  next", &plain(&problem.next));
    }
}

/// What removing did.
pub fn removed(out: &Output, name: &str, removed: &v1::VolumeRemoved) {
    let Some(volume) = &removed.volume else {
        out.note(&format!("{name}: there is no such volume; nothing to do"));
        return;
    };
    match (removed.result, volume.trashed) {
        (v1::Outcome::WouldRemove, _) => out.line(&format!("{}: would be moved to the trash", volume.name)),
        (_, Some(trashed)) => {
            out.line(&format!("{}: in the trash until {}", volume.name, time(trashed.expires)));
            out.note(&format!("`everhold trash restore {}` brings it back", volume.name));
        }
        (_, None) => out.line(&format!("{}: removed", volume.name)),
    }
}

/// Who uses it.
pub fn holders(out: &Output, holders: &v1::Holders) {
    let now = SystemClock.now();
    let mut table = Table::new(["HOLDER", "NAME", "WHAT", "ACCESS", "STATE"]);
    for container in &holders.containers {
        table.row([
            "container".to_owned(),
            container.name.clone(),
            format!("{} at {}", container.image, container.destination),
            access(container.access),
            container.state.clone(),
        ]);
    }
    for process in &holders.processes {
        let more = match process.files.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let file = process.files.first().map(String::as_str).unwrap_or_default();
        table.row([
            "process".to_owned(),
            format!("{} ({})", process.command, process.pid),
            format!("{file}{more}"),
            access(process.access),
            "open".to_owned(),
        ]);
    }
    for held in &holders.attachments {
        table.row([
            "attachment".to_owned(),
            held.id.clone(),
            held.holder.clone(),
            access(held.access),
            format!("{} old", span(held.since, now)),
        ]);
    }
    out.table(&table, &format!("Nobody uses {}.", holders.volume));
    if let Some(why) = &holders.containers_unknown {
        out.note(&format!("Containers are not known: {}", plain(why)));
    }
}
