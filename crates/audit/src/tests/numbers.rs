//! No byte is counted twice and none is forgotten, whatever is mounted where.

use super::report;
use super::stage::*;
use crate::facts::*;
use crate::report::{Report, Severity};
use proptest::prelude::*;
use std::collections::BTreeSet;

const FILES: [&str; 9] = [
    "/var/lib/postgresql/data/base/1",
    "/var/lib/postgresql/data/pg.pid",
    "/var/lib/postgresql/18/docker/base/1",
    "/var/lib/postgresql/notes",
    "/srv/pg/base/1",
    "/srv/app/file",
    "/etc/app.conf",
    "/tmp/x",
    "/var/log/x",
];

const PLACES: [&str; 6] = [
    "/var/lib/postgresql",
    "/var/lib/postgresql/data",
    "/var/lib/postgresql/18/docker",
    "/srv/pg",
    "/srv",
    "/data",
];

fn any_mount() -> impl Strategy<Value = Mount> {
    let content = prop_oneof![
        Just(None),
        Just(Some(content(0, &[]))),
        Just(Some(content(5, &["PG_VERSION"]))),
        Just(Some(content(7, &["data", "other"]))),
        Just(Some(Content::default())),
    ];
    (0..5_u8, prop::sample::select(&PLACES[..]), content, any::<bool>()).prop_map(
        |(kind, destination, held, read_write)| {
            let empty = content_or_empty(held.clone());
            let mount = match kind {
                0 => mount("pgdata", destination, empty),
                1 => mount("other", destination, empty),
                2 => mount(&anonymous('a'), destination, empty),
                3 => bind("/host/dir", destination, empty),
                _ => tmpfs(destination, empty),
            };
            Mount { content: held, read_write, ..mount }
        },
    )
}

fn content_or_empty(held: Option<Content>) -> Content {
    held.unwrap_or_default()
}

fn any_container() -> impl Strategy<Value = Container> {
    let files = prop::collection::btree_set(prop::sample::select(&FILES[..]), 0..FILES.len());
    let mounts = prop::collection::vec(any_mount(), 0..4);
    let directory =
        prop::sample::select(vec!["/var/lib/postgresql/data", "/var/lib/postgresql/18/docker", "/srv/pg"]);
    (files, mounts, directory, any::<bool>(), any::<bool>(), 1_u64..20).prop_map(
        |(files, mut mounts, directory, auto_remove, read_only_root, mib)| {
            // The engine mounts one thing at one place.
            let mut seen = BTreeSet::new();
            mounts.retain(|mount| seen.insert(mount.destination.clone()));
            let files: Vec<(&str, u64)> = files.into_iter().map(|file| (file, mib * MIB)).collect();
            let mut db = postgres("db");
            db.env.insert("PGDATA".into(), directory.into());
            db.layer = layer(&files);
            Container { mounts, auto_remove, read_only_root, ..db }
        },
    )
}

/// Bytes of the layer that findings name.
fn of_layer(report: &Report) -> u64 {
    let named = report.findings.iter().filter(|finding| match finding.code {
        "data-in-layer" | "files-in-layer" => true,
        "volume-misses-data" => finding.found.contains("in the writable layer"),
        _ => false,
    });
    named.filter_map(|finding| finding.bytes).sum()
}

proptest! {
    #[test]
    fn every_byte_of_the_layer_is_in_one_finding(container in any_container(), reverse in any::<bool>()) {
        let layer = container.layer.clone().unwrap();
        let directory = container.env["PGDATA"].clone();
        let covered = container.mounts.iter().any(|mount| crate::tally::is_below(&directory, &mount.destination));
        let noise = if covered { 0 } else { layer.below(&directory).noise.bytes };
        let mut host = host(vec![container.clone(), super::container("busy", "busybox")]);
        host.volumes = container.mounts.iter().filter(|mount| mount.volume.is_some()).map(|mount| volume(mount, "db")).collect();
        host.volumes.sort_by(|a, b| a.name.cmp(&b.name));
        host.volumes.dedup_by(|a, b| a.name == b.name);
        let straight = report(&host);
        prop_assert_eq!(of_layer(&straight), layer.matter.bytes + noise, "{:#?}", straight.findings);

        let mut said = BTreeSet::new();
        for finding in &straight.findings {
            let what = (finding.code, &finding.container, &finding.volume, &finding.path);
            prop_assert!(said.insert(format!("{what:?}")), "said twice: {:?}", finding);
        }
        let losses: u64 = straight.findings.iter().filter(|finding| finding.severity == Severity::Loss).filter_map(|finding| finding.bytes).sum();
        prop_assert_eq!(straight.summary.lost_bytes, losses);
        prop_assert_eq!(straight.would_lose(), straight.summary.losing_containers > 0);

        // The order in which an engine lists things says nothing.
        if reverse {
            host.containers.reverse();
            host.volumes.reverse();
            let mut other = report(&host);
            let mut one = straight;
            let key = |finding: &crate::Finding| format!("{finding:?}");
            one.findings.sort_by_key(key);
            other.findings.sort_by_key(key);
            prop_assert_eq!(one, other);
        }
    }
}
