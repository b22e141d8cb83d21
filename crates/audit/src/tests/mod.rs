//! Each finding appears where it should, with nothing else, and a healthy host has none.

mod breaks;
mod commands;
mod numbers;
mod outputs;
mod rules;
mod stage;

use crate::checks::TABLE;
use crate::facts::*;
use crate::{Report, examine};
use breaks::{FINE, LAYERS, MOUNTS, VOLUMES};
use stage::*;
use std::collections::BTreeSet;

fn report(host: &Host) -> Report {
    examine(host, stage::rules())
}

fn after(change: fn(&mut Host)) -> Report {
    let mut host = healthy();
    change(&mut host);
    report(&host)
}

fn assert_readable(report: &Report) {
    for finding in &report.findings {
        for text in [&finding.found, &finding.why] {
            assert!(!text.trim().is_empty() && !text.ends_with('.') && !text.contains("  "), "{finding:?}");
            assert!(!text.contains("1 files") && !text.contains("..") && !text.contains(" ,"), "{finding:?}");
        }
    }
}

#[test]
fn a_healthy_host_has_no_findings() {
    let report = report(&healthy());
    assert_eq!(report.findings, []);
    assert!(!report.would_lose());
}

#[test]
fn every_finding_appears_where_it_should_and_alone() {
    for (at, (expected, change)) in LAYERS.iter().chain(MOUNTS).chain(VOLUMES).enumerate() {
        let report = after(*change);
        let found: Vec<_> = report.findings.iter().map(|finding| (finding.code, finding.severity)).collect();
        assert_eq!(found, *expected, "case {at}: {:#?}", report.findings);
        assert_readable(&report);
        let loss = expected.iter().any(|(_, severity)| *severity == crate::Severity::Loss);
        assert_eq!(report.would_lose(), loss);
        assert_eq!(report.summary.losing_containers, u64::from(loss));
    }
}

#[test]
fn what_is_fine_is_not_complained_of() {
    for (at, change) in FINE.iter().enumerate() {
        let report = after(*change);
        assert_eq!(report.findings, [], "case {at}");
    }
}

#[test]
fn every_check_has_a_case_in_which_it_complains() {
    let cases = LAYERS.iter().chain(MOUNTS).chain(VOLUMES);
    let tried: BTreeSet<&str> = cases.flat_map(|(codes, _)| codes.iter().map(|(code, _)| *code)).collect();
    let all: BTreeSet<&str> = TABLE.iter().map(|check| check.code).collect();
    assert_eq!(tried, all);
    assert_eq!(all.len(), TABLE.len(), "a code stands twice in the table");
    for code in all {
        assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
    }
}

/// The one finding of this code.
fn finding(report: &Report, code: &str) -> crate::Finding {
    let mut found = report.findings.iter().filter(|finding| finding.code == code);
    let one = found.next().unwrap_or_else(|| panic!("no {code}: {:#?}", report.findings)).clone();
    assert_eq!(found.next(), None);
    one
}

#[test]
fn commands_and_sizes_are_exact() {
    let mut host = healthy();
    host.containers[0].mounts.clear();
    host.volumes.clear();
    host.containers[0].name = "my db".into();
    host.containers[0].layer =
        layer(&[("/var/lib/postgresql/data/base/1", 3 * GIB), ("/opt/it's/big", 20 * MIB)]);
    let report = report(&host);
    let data = finding(&report, "data-in-layer");
    assert_eq!(data.command.as_deref(), Some("everhold rescue 'my db' --path /var/lib/postgresql/data"));
    assert_eq!(data.bytes, Some(3 * GIB));
    assert_eq!(
        data.found,
        "the data of PostgreSQL at /var/lib/postgresql/data is in the writable layer: 3 GiB in 1 file, last written 1 hour ago"
    );
    assert!(
        data.why.ends_with("/var/lib/postgresql since version 18 of the official image")
            || data.why.contains("PGDATA")
    );
    let rest = finding(&report, "files-in-layer");
    assert_eq!(rest.bytes, Some(20 * MIB), "the data is not counted again");
    assert_eq!(rest.command.as_deref(), Some(r"everhold rescue 'my db' --path '/opt/it'\''s'"));
    assert_eq!(report.summary.lost_bytes, 3 * GIB + 20 * MIB);
    assert_eq!(report.containers.iter().find(|c| c.name == "my db").unwrap().lost_bytes, 3 * GIB + 20 * MIB);
}

#[test]
fn the_move_of_version_18_is_explained() {
    let report = after(MOUNTS[3].1);
    let missed = finding(&report, "volume-misses-data");
    assert_eq!(
        missed.found,
        "volume pgdata is mounted at /var/lib/postgresql/data and is empty; the data of PostgreSQL is at /var/lib/postgresql/18/docker (PGDATA=/var/lib/postgresql/18/docker), in a volume without a name (3 GiB)"
    );
    assert!(missed.why.contains("/var/lib/postgresql since version 18"), "{}", missed.why);
    assert_eq!(missed.bytes, Some(3 * GIB));
    // All of the volume that has it, whatever of it is data.
    let command = missed.command.unwrap();
    assert!(
        command.starts_with("everhold rescue ") && command.ends_with(" --path /var/lib/postgresql"),
        "{command}"
    );
    assert!(
        finding(&after(MOUNTS[4].1), "volume-misses-data").found.contains("has files that are not in use")
    );
}

#[test]
fn an_empty_volume_beside_unnamed_data_is_pointed_out() {
    let mut host = healthy();
    host.containers[3].mounts = vec![
        mount("meant", "/wrong", content(0, &[])),
        mount(&anonymous('b'), "/state", content(7 * MIB, &["x"])),
    ];
    let found = finding(&report(&host), "data-on-anonymous-volume").found;
    assert_eq!(
        found,
        "data at /state is on a volume without a name (7 MiB); volume meant at /wrong is empty"
    );
}

#[test]
fn two_databases_on_the_same_files_are_said_to_destroy_them() {
    let report = after(MOUNTS[14].1);
    let shared = finding(&report, "shared-writable");
    assert_eq!(shared.found, "volume pgdata is writable in 2 containers: db and db2 (exited)");
    assert!(shared.why.contains("two servers on the same files destroy the data"), "{}", shared.why);
    assert!(!finding(&after(MOUNTS[13].1), "shared-writable").why.contains("destroy"));
}

#[test]
fn a_read_only_container_gets_what_it_needs() {
    let mut host = healthy();
    let web = &mut host.containers[1];
    web.read_only_root = false;
    web.mounts.clear();
    let note = finding(&report(&host), "could-be-read-only");
    assert_eq!(
        note.command.as_deref(),
        Some("docker run --read-only --tmpfs /run --tmpfs /tmp --tmpfs /var/cache/nginx … nginx:1.29")
    );
    // Anything else that it wrote speaks against it.
    let mut tally = crate::Tally::new(stage::rules());
    tally.add(b"/srv/made", crate::Change::Added, crate::Kind::Directory, 0, 0, now());
    host.containers[1].layer = Ok(tally.finish());
    assert_eq!(report(&host).findings, []);
    // The engine makes mount points.
    host.containers[1].mounts = vec![tmpfs("/srv/made/deeper", content(0, &[]))];
    assert_eq!(
        finding(&report(&host), "could-be-read-only").found,
        "could run with a read-only root: nothing was written to its layer"
    );
}

#[test]
fn a_host_of_which_nothing_is_known_is_no_problem_and_not_safe_either() {
    let mut host = healthy();
    for container in &mut host.containers {
        container.layer = Err("no permission".into());
        container.uid = None;
        container.hostname = None;
        container.processes.clear();
        for mount in &mut container.mounts {
            (mount.content, mount.shadows, mount.copied_up) = (None, None, None);
        }
    }
    host.volumes.clear();
    host.engine = EngineFacts::default();
    let report = report(&host);
    assert!(report.findings.iter().all(|finding| finding.code == "not-looked-at"), "{:#?}", report.findings);
    assert_eq!(report.summary.unseen, 6);
    assert!(report.summary.headline.ends_with("as far as could be seen."));
}
