//! Volumes as people read them.

use crate::cli::labels;
use crate::output::human::{moment, share, size, span, time};
use crate::output::{Output, Table, Tone, plain};
use api::v1::{self, Access};
use engine::{Clock, SystemClock};
use jiff::Timestamp;

/// The list.
pub fn volumes(volumes: &[v1::Volume], protection: &v1::Protections) -> Table {
    let now = SystemClock.now();
    let mut table =
        Table::new(["NAME", "DRIVER", "SIZE", "POOL", "STATE", "HISTORY", "HOLDERS", "AGE", "LABELS"]);
    for volume in volumes {
        table.row([
            volume.name.clone(),
            volume.driver.clone(),
            size(volume.size),
            volume.pool.clone(),
            volume.state.as_str().to_owned(),
            history(&volume.name, protection, now),
            volume.attachments.len().to_string(),
            span(volume.created, now),
            labels(&volume.labels),
        ]);
    }
    table
}

/// The history of one volume in a word or two; nothing for a driver that has none.
fn history(name: &str, protection: &v1::Protections, now: Timestamp) -> String {
    if protection.unprotected.iter().any(|other| other == name) {
        return "none".to_owned();
    }
    let Some(status) = protection.volumes.iter().find(|status| status.name == name) else {
        return String::new();
    };
    if status.verified_whole == Some(false) {
        return "DAMAGED".to_owned();
    }
    match (status.newest_time, status.behind_since) {
        _ if status.trouble.is_some() => "in trouble".to_owned(),
        (_, Some(since)) => format!("{} behind", span(since, now)),
        (Some(_), None) => "up to date".to_owned(),
        (None, None) => "no cut yet".to_owned(),
    }
}

/// What `inspect` says about a history.
fn protection(out: &Output, line: &dyn Fn(&str, &str), status: &v1::ProtectionStatus) {
    let now = SystemClock.now();
    let word = |text: &Option<String>| plain(text.as_deref().unwrap_or("-"));
    let asked = &status.protection;
    let group =
        asked.group.as_ref().map_or_else(String::new, |group| format!(", with group {}", plain(group)));
    line("history", &format!("a cut every {} in vault {}{group}", word(&asked.interval), word(&asked.vault)));
    line("  keeps", &word(&asked.keep));
    line(
        "  newest",
        &match (status.newest_cut, status.newest_time) {
            (Some(cut), Some(at)) => format!("cut #{cut} of {}, {} old", moment(at), span(at, now)),
            _ => out.tone("no cut is durable yet", Tone::Warn),
        },
    );
    if let Some(since) = status.behind_since {
        let text = format!("{}: there are changes that no durable cut has", span(since, now));
        line("  behind", &out.tone(&text, Tone::Warn));
    }
    if status.waiting > 0 {
        let text =
            format!("{} in {} segments for the vault", size(Some(status.waiting_bytes)), status.waiting);
        line("  waiting", &text);
    }
    line("  finds", &format!("changes by {}", plain(&status.method)));
    if let Some(ms) = status.last_freeze_ms {
        line("  freeze", &format!("{ms}ms in the last cut"));
    }
    line(
        "  verified",
        &match (status.verified, status.verified_whole) {
            (Some(at), Some(true)) => format!("whole, {} ago", span(at, now)),
            (Some(at), _) => out.tone(&format!("DAMAGED, {} ago", span(at, now)), Tone::Bad),
            (None, _) => "not since the daemon started".to_owned(),
        },
    );
    if let Some(trouble) = &status.trouble {
        line("  trouble", &out.tone(&plain(trouble), Tone::Bad));
    }
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
        v1::VolumeState::Growing | v1::VolumeState::Creating | v1::VolumeState::Restoring => Tone::Warn,
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
    match &detail.protection {
        Some(status) => protection(out, &line, status),
        None if volume.driver == "image" => {
            let text = format!("none; `everhold protect {}` begins one", volume.name);
            line("history", &out.tone(&text, Tone::Warn));
        }
        None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_how_each_history_is_doing() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let status = |name: &str, newest, behind, trouble: Option<&str>, whole| v1::ProtectionStatus {
            name: name.to_owned(),
            protection: v1::Protect::default(),
            method: "tracking".to_owned(),
            newest_cut: None,
            newest_time: newest,
            behind_since: behind,
            waiting: 0,
            waiting_bytes: 0,
            trouble: trouble.map(str::to_owned),
            last_freeze_ms: None,
            last_cut_ms: None,
            verified: None,
            verified_whole: whole,
        };
        let protection = v1::Protections {
            volumes: vec![
                status("new", None, None, None, None),
                status("idle", Some(at(1)), None, None, Some(true)),
                status("late", Some(at(1)), Some(at(40)), None, None),
                status("stuck", Some(at(1)), Some(at(40)), Some("the spool is full"), None),
                status("rotten", Some(at(1)), None, None, Some(false)),
            ],
            unprotected: vec!["bare".to_owned()],
        };
        for (name, text) in [
            ("new", "no cut yet"),
            ("idle", "up to date"),
            ("late", "1m behind"),
            ("stuck", "in trouble"),
            ("rotten", "DAMAGED"),
            ("bare", "none"),
            ("a-directory", ""),
        ] {
            assert_eq!(history(name, &protection, at(100)), text, "{name}");
        }
    }
}
