//! The report for programs, for terminals and for browsers.

use super::stage::*;
use super::{after, report};
use crate::facts::*;
use crate::{Severity, html, text};
use std::path::Path;

/// A bit of everything, as a small company may have it.
pub(super) fn mixed() -> Host {
    let mut host = healthy();
    let mut lost = postgres("orders-db");
    lost.image = "postgres:latest".into();
    lost.read_only_root = false;
    lost.restart_policy = "no".into();
    lost.layer = layer(&[
        ("/var/lib/postgresql/data/base/16384/16397", 3 * GIB),
        ("/var/lib/postgresql/data/base/16384/16403", GIB / 4),
        ("/var/lib/postgresql/data/PG_VERSION", 3),
        ("/tmp/sort", 8 * MIB),
        ("/root/.psql_history", 812),
    ]);
    let mut moved = postgres("crm-db");
    moved.image = "postgres:18".into();
    moved.env.insert("PGDATA".into(), "/var/lib/postgresql/18/docker".into());
    moved.mounts = vec![
        mount("crm", "/var/lib/postgresql/data", content(0, &[])),
        mount(&anonymous('a'), "/var/lib/postgresql", content(700 * MIB, &["18", "data"])),
    ];
    let mut shop = container("shop", "registry.example:5000/shop/web:2026-11");
    shop.layer = layer(&[
        ("/srv/shop/uploads/2026/11/catalogue.pdf", 310 * MIB),
        ("/srv/shop/uploads/2026/10/photos.zip", 140 * MIB),
        ("/srv/shop/config/local.yml", 900),
        ("/etc/shop.conf", 120),
        ("/var/log/shop/access.log", 44 * MIB),
    ]);
    shop.mounts = vec![Mount { read_write: false, ..bind("/etc/shop", "/etc/shop", content(4096, &["a"])) }];
    shop.read_only_root = false;
    let mut old = container("import-2019", "busybox:1.31");
    old.state = State::Exited;
    old.layer = Err("permission denied".into());
    host.containers[1].read_only_root = false;
    let unknown =
        |volume: Volume| Volume { driver: "local".into(), protection: Protection::Unknown, ..volume };
    for mount in &moved.mounts {
        host.volumes.push(unknown(volume(mount, "crm-db")));
    }
    let left = mount("wiki_images", "/x", content(5 * GIB, &["a", "b"]));
    host.volumes.push(Volume { used_by: vec![], ..unknown(volume(&left, "")) });
    host.engine.fs_free = Some(7 * GIB);
    host.containers.extend([lost, moved, shop, old]);
    host
}

/// Compares with a file in `tests/golden`; `UPDATE=1` renews it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == text, "{name} changed; look at it and renew it with UPDATE=1:\n{text}");
}

fn lines(host: &Host) -> String {
    let line = |line: crate::Line| {
        assert_eq!(
            line.severity.is_some(),
            ["LOSS", "RISK", "ADVICE", "NOTE"].iter().any(|tag| line.text.starts_with(tag))
        );
        format!("{}{}\n", "  ".repeat(line.indent), line.text)
    };
    text(&report(host)).into_iter().map(line).collect()
}

#[test]
fn the_json_shape_is_stable() {
    let json = serde_json::to_string_pretty(&report(&mixed())).unwrap();
    assert!(json.starts_with("{\n  \"version\": 1,"));
    golden("report.json", &(json + "\n"));
}

#[test]
fn the_text_is_compact() {
    golden("report.txt", &lines(&mixed()));
    assert_eq!(
        lines(&healthy()),
        "Nothing would be lost if the 4 containers were removed now.\n\
         12 GiB in 1 named volume and what is in 1 host directory would survive.\n\n\
         Nothing to lose in 4 containers: app, cache, db, web.\n\n\
         What is left out here is in --json, and in --html FILE.\n"
    );
    let mut one = container("one", "busybox:1");
    one.layer = layer(&[("/srv/a", 2 * GIB)]);
    let said = lines(&host(vec![one]));
    assert!(
        said.contains("\n    largest and newest /srv/a (2 GiB), of 2026-11-20 11:00 UTC\n")
            && !said.contains("left out"),
        "{said}"
    );
}

#[test]
fn the_page_is_stable() {
    golden("report.html", &html(&report(&mixed())));
}

#[test]
fn summaries_are_in_plain_words() {
    let headline = |host: &Host| report(host).summary.headline;
    assert_eq!(headline(&host(vec![])), "There are no containers, so nothing would be lost.");
    let quiet = || container("a", "busybox");
    assert_eq!(headline(&host(vec![quiet()])), "Nothing would be lost if the container were removed now.");
    let mut losing = quiet();
    losing.layer = layer(&[("/srv/a", 2 * GIB)]);
    assert_eq!(headline(&host(vec![losing.clone()])), "1 container would lose 2 GiB if removed now.");
    let mut second = losing.clone();
    second.name = "b".into();
    let both = host(vec![losing.clone(), second]);
    assert_eq!(headline(&both), "2 containers would lose 4 GiB if removed now.");
    assert_eq!(report(&both).summary.sentences, [] as [&str; 0]);
    let mut memory = postgres("m");
    memory.mounts =
        vec![tmpfs("/var/lib/postgresql/data", Content { used: None, ..content(1, &["PG_VERSION"]) })];
    assert_eq!(headline(&host(vec![memory.clone()])), "1 container would lose data if removed now.");
    assert_eq!(
        headline(&host(vec![memory, losing])),
        "2 containers would lose at least 2 GiB if removed now."
    );
    let small = after(|host| host.containers[3].layer = layer(&[("/etc/app.conf", 2048)]));
    assert_eq!(
        small.summary.headline,
        "Nothing but small changes would be lost if the 4 containers were removed now."
    );
    assert!(!small.would_lose());
    assert_eq!(
        small.summary.sentences[1],
        "1 container has small changes in the writable layer (2 KiB), which go too."
    );
    let loose = after(|host| {
        host.containers[3].mounts.push(mount(&anonymous('b'), "/state", content(7 * MIB, &["x"])));
    });
    assert_eq!(
        loose.summary.sentences[1],
        "7 MiB on 1 volume without a name would be left behind, and lost with docker rm -v or compose down -v."
    );
}

const HOSTILE: &str = "</title><script>alert(1)</script>\"'&\x1b[31m\u{202e}";

/// Every text that comes from outside is hostile.
fn hostile() -> Host {
    let mut host = mixed();
    let evil = |text: &mut String| text.push_str(HOSTILE);
    evil(&mut host.engine.version);
    evil(&mut host.engine.storage_driver);
    host.unreadable.push(HOSTILE.into());
    for container in &mut host.containers {
        evil(&mut container.name);
        evil(&mut container.image);
        container.state = State::Other(HOSTILE.into());
        for mount in &mut container.mounts {
            evil(&mut mount.source);
            evil(&mut mount.destination);
            mount.volume.iter_mut().for_each(evil);
        }
        if let Err(why) = &mut container.layer {
            evil(why);
        }
        if container.name.starts_with("shop") {
            let path = format!("/srv/{HOSTILE}/x");
            container.layer = layer(&[(&path, GIB)]);
        }
    }
    for volume in &mut host.volumes {
        evil(&mut volume.name);
        evil(&mut volume.driver);
        volume.used_by.iter_mut().for_each(evil);
    }
    host
}

#[test]
fn nothing_hostile_gets_into_the_page() {
    let plain = html(&report(&mixed()));
    let page = html(&report(&hostile()));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"));
    assert!(!page.contains("<script") && !page.contains('\x1b') && !page.contains('\u{202e}'));
    // Tags that the hostile names would have closed or opened are the page's own.
    assert_eq!(page.matches("<title").count(), 1);
    assert_eq!(page.matches("</title>").count(), 1);
    let tags = |page: &str| page.matches('<').count() == page.matches('>').count();
    assert!(tags(&plain) && tags(&page));
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_says_severity_in_words() {
    let page = html(&report(&mixed()));
    for outside in ["http://", "https://", "src=", "url(", "@import", "<link", "<img", "javascript:"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for said in [
        "lang=\"en\"",
        "scope=\"col\"",
        "scope=\"row\"",
        "<caption>",
        "@media print",
        "prefers-color-scheme: dark",
        ">Loss<",
        ">Risk<",
    ] {
        assert!(page.contains(said), "{said}");
    }
    for tag in [
        "p", "table", "tr", "th", "td", "section", "article", "pre", "code", "ul", "li", "div", "main",
        "tbody", "span",
    ] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn nothing_acts_on_a_terminal() {
    for line in text(&report(&hostile())) {
        assert!(!line.text.chars().any(char::is_control) && !line.text.contains('\u{202e}'), "{line:?}");
    }
}

#[test]
fn findings_are_sorted_and_every_severity_is_counted() {
    let report = report(&mixed());
    assert!(report.findings.is_sorted_by(|a, b| a.severity >= b.severity));
    let count =
        |severity| report.findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let summary = &report.summary;
    assert_eq!(
        [summary.losses, summary.risks, summary.advice, summary.notes],
        [Severity::Loss, Severity::Risk, Severity::Advice, Severity::Note].map(count)
    );
    assert!(Severity::ALL.iter().all(|severity| count(*severity) > 0), "the staged host has all of them");
}
