//! From facts and rules to a report.

use crate::case::{Case, Context};
use crate::checks;
use crate::facts::{Host, MountKind};
use crate::report::{
    ContainerReport, Finding, MountReport, Report, Severity, Summary, VolumeReport, holds_data, sorted,
};
use crate::rules::Rules;
use crate::words::{bytes, capital, count};
use std::collections::BTreeSet;

/// Judges a host. Never fails: what is not known is said to be unknown.
pub fn examine(host: &Host, rules: &Rules) -> Report {
    let context = Context::new(host, rules);
    let findings = checks::judge(&context);
    let containers = sorted(host).into_iter().map(|at| container(&context.cases[at], &findings)).collect();
    let mut volumes: Vec<VolumeReport> = host.volumes.iter().map(VolumeReport::new).collect();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Report {
        version: 1,
        taken: host.now,
        engine: host.engine.version.clone(),
        storage_driver: host.engine.storage_driver.clone(),
        summary: summary(host, rules, &findings),
        findings,
        containers,
        volumes,
    }
}

fn container(case: &Case<'_>, findings: &[Finding]) -> ContainerReport {
    let container = case.container;
    let mut mounts: Vec<MountReport> = container
        .mounts
        .iter()
        .map(|mount| MountReport::new(mount, case.service_on(mount).map(|service| service.name.clone())))
        .collect();
    mounts.sort_by(|a, b| a.destination.cmp(&b.destination));
    let own = findings.iter().filter(|finding| finding.container.as_ref() == Some(&container.name));
    ContainerReport {
        name: container.name.clone(),
        id: container.id.clone(),
        image: container.image.clone(),
        state: container.state.word().to_owned(),
        services: case.services.iter().map(|found| found.service.name.clone()).collect(),
        lost_bytes: own.filter(|finding| finding.severity == Severity::Loss).filter_map(|f| f.bytes).sum(),
        mounts,
        layer: container.layer.as_ref().ok().cloned(),
        layer_error: container.layer.as_ref().err().cloned(),
    }
}

fn summary(host: &Host, rules: &Rules, findings: &[Finding]) -> Summary {
    let of = |severity| findings.iter().filter(move |finding| finding.severity == severity);
    let number = |severity| of(severity).count() as u64;
    let losing: BTreeSet<&String> = of(Severity::Loss).filter_map(|f| f.container.as_ref()).collect();
    let lost_bytes = of(Severity::Loss).filter_map(|finding| finding.bytes).sum();
    let unsure = of(Severity::Loss).any(|finding| finding.bytes.is_none());
    let unseen = findings.iter().filter(|finding| finding.code == "not-looked-at").count() as u64;
    let (survives, surviving_bytes) = survives(host, rules);
    let mut sentences = Vec::new();
    sentences.extend(survives);
    sentences.extend(small(findings));
    if unseen > 0 {
        let were = if unseen == 1 {
            "1 thing could not be looked at".to_owned()
        } else {
            format!("{unseen} things could not be looked at")
        };
        sentences.push(format!("{were}, and may hold more; the notes name what."));
    }
    Summary {
        headline: headline(host, losing.len() as u64, lost_bytes, unsure, unseen > 0, has_small(findings)),
        sentences,
        containers: host.containers.len() as u64,
        losing_containers: losing.len() as u64,
        lost_bytes,
        surviving_bytes,
        losses: number(Severity::Loss),
        risks: number(Severity::Risk),
        advice: number(Severity::Advice),
        notes: number(Severity::Note),
        unseen,
    }
}

/// Whether files in a layer go too that are too small to count as a loss.
fn has_small(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.code == "files-in-layer" && finding.severity == Severity::Risk)
}

fn headline(host: &Host, losing: u64, lost: u64, unsure: bool, unseen: bool, small: bool) -> String {
    if losing == 0 {
        let nothing = if small { "Nothing but small changes" } else { "Nothing" };
        return match host.containers.len() {
            0 => "There are no containers, so nothing would be lost.".to_owned(),
            _ if unseen => {
                format!(
                    "{nothing} would be lost if the containers were removed now, as far as could be seen."
                )
            }
            1 => format!("{nothing} would be lost if the container were removed now."),
            all => format!("{nothing} would be lost if the {all} containers were removed now."),
        };
    }
    let what = match (lost, unsure) {
        (0, _) => "data".to_owned(),
        (lost, true) => format!("at least {}", bytes(lost)),
        (lost, false) => bytes(lost),
    };
    format!("{} would lose {what} if removed now.", count(losing, "container"))
}

/// What lies on volumes with a name, and on host directories that containers write to.
fn survives(host: &Host, rules: &Rules) -> (Option<String>, u64) {
    let named = host.volumes.iter().filter(|volume| !volume.anonymous);
    let held: Vec<_> = named.filter(|volume| holds_data(volume.content.as_ref()) != Some(false)).collect();
    let used = |volume: &&&crate::facts::Volume| volume.content.as_ref().and_then(|content| content.used);
    let total: u64 = held.iter().filter_map(|volume| used(&volume)).sum();
    let certain = held.iter().all(|volume| used(&volume).is_some());
    let binds: BTreeSet<&str> = host
        .containers
        .iter()
        .flat_map(|container| &container.mounts)
        .filter(|mount| mount.kind == MountKind::Bind && mount.read_write)
        .filter(|mount| {
            mount.content.as_ref().is_some_and(|content| content.exists && content.is_directory())
        })
        .filter(|mount| !rules.settings.may_be_shared(&mount.source))
        .map(|mount| mount.source.as_str())
        .collect();
    let volumes = match (held.len() as u64, total) {
        (0, _) => None,
        (number, 0) => Some(format!("what is in {}", count(number, "named volume"))),
        (number, total) => {
            let least = if certain { "" } else { "at least " };
            Some(format!("{least}{} in {}", bytes(total), count(number, "named volume")))
        }
    };
    let binds = match binds.len() as u64 {
        0 => None,
        1 => Some("1 host directory".to_owned()),
        number => Some(format!("{number} host directories")),
    };
    let what = match (volumes, binds) {
        (Some(volumes), Some(binds)) => Some(format!("{volumes} and what is in {binds}")),
        (Some(volumes), None) => Some(volumes),
        (None, binds) => binds.map(|binds| format!("what is in {binds}")),
    };
    let sentence = what.map(|what| format!("{} would survive.", capital(&what)));
    (sentence, total)
}

/// What is at risk without being a loss.
fn small(findings: &[Finding]) -> Vec<String> {
    let risks = |code: &'static str| {
        findings.iter().filter(move |finding| finding.code == code && finding.severity == Severity::Risk)
    };
    let mut sentences = Vec::new();
    let layers = risks("files-in-layer").count() as u64;
    if layers > 0 {
        let total = risks("files-in-layer").filter_map(|finding| finding.bytes).sum();
        let has = if layers == 1 { "has" } else { "have" };
        sentences.push(format!(
            "{} {has} small changes in the writable layer ({}), which go too.",
            count(layers, "container"),
            bytes(total)
        ));
    }
    // Of several mounts that miss the same data, the first has the command.
    let missed = || risks("volume-misses-data").filter(|finding| finding.command.is_some());
    let loose = || risks("data-on-anonymous-volume").chain(missed());
    let number = loose().count() as u64;
    if number > 0 {
        let total: u64 = loose().filter_map(|finding| finding.bytes).sum();
        let held = if total == 0 { "data".to_owned() } else { bytes(total) };
        let (volumes, name) = if number == 1 { ("1 volume", "a name") } else { ("volumes", "names") };
        sentences.push(format!(
            "{} on {volumes} without {name} would be left behind, and lost with docker rm -v or compose down -v.",
            capital(&held)
        ));
    }
    sentences
}
