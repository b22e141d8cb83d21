//! What the commands print and how they end.

use crate::host::Host;
use std::process::Stdio;

#[test]
fn a_volume_from_create_to_trash_and_back() {
    let host = Host::started();
    let created = host.ok(&["volume", "create", "pgdata", "--label", "env=prod", "-o", "mode=0750"]);
    assert_eq!(created, "pgdata: created (dir)\n");
    assert_eq!(host.ok(&["volume", "create", "pgdata", "-o", "mode=0750"]), "pgdata: as asked for already\n");
    let list = host.ok(&["volume", "ls"]);
    assert!(list.starts_with("NAME") && list.contains("pgdata") && list.contains("env=prod"), "{list}");
    assert!(!list.contains('\x1b'), "no colours in a pipe");

    host.ok(&["volume", "label", "pgdata", "team=db", "--unset", "env"]);
    assert_eq!(host.json(&["volume", "inspect", "pgdata"])["labels"], serde_json::json!({"team": "db"}));
    let path = host.ok(&["volume", "mount", "pgdata"]);
    std::fs::write(format!("{}/file", path.trim()), "kept").unwrap();
    assert!(host.ok(&["volume", "holders", "pgdata"]).contains("attachment"));
    let (code, said) = host.fails(&["volume", "rm", "pgdata"]);
    assert_eq!(code, 5, "{said}");
    host.ok(&["volume", "unmount", "pgdata"]);
    assert_eq!(host.fails(&["volume", "unmount", "pgdata"]).0, 3);

    host.ok(&["volume", "rename", "pgdata", "orders"]);
    assert_eq!(host.ok(&["volume", "rm", "orders", "--dry-run"]), "orders: would be moved to the trash\n");
    assert!(host.ok(&["volume", "rm", "orders"]).starts_with("orders: in the trash until "));
    assert_eq!(host.json(&["volume", "rm", "orders"])["result"], "already-there");
    assert!(host.ok(&["trash", "ls"]).contains("orders"));
    assert_eq!(host.ok(&["trash", "restore", "orders", "--as", "again"]), "again is back.\n");
    let path = host.ok(&["volume", "mount", "again"]);
    assert_eq!(std::fs::read(format!("{}/file", path.trim())).unwrap(), b"kept");
    host.ok(&["volume", "unmount", "again"]);
    assert!(host.ok(&["volume", "usage"]).contains("again"));
    assert_eq!(host.json(&["volume", "usage", "again"])["name"], "again");

    host.ok(&["volume", "rm", "again"]);
    let (code, said) = host.fails(&["trash", "empty"]);
    assert!(code == 2 && said.contains("--yes"), "{said}");
    assert!(host.ok(&["trash", "empty", "--dry-run"]).contains("would be destroyed"));
    assert!(host.ok(&["trash", "empty", "--yes"]).contains("destroyed"));
    assert_eq!(host.json(&["trash", "ls"]), serde_json::json!({"volumes": []}));
}

#[test]
fn pools_and_status() {
    let host = Host::started();
    let pools = host.json(&["pool", "ls"]);
    assert_eq!(pools["pools"][0]["name"], "default");
    assert!(host.ok(&["pool", "ls"]).contains("default"));
    assert_eq!(host.json(&["pool", "release", "default"])["result"], "already-there");
    assert_eq!(host.json(&["status"])["pid"], host.pid());
    assert!(host.ok(&["status"]).contains(&format!("pid {}", host.pid())));
}

#[test]
fn errors_say_what_and_what_next_and_have_their_exit_code() {
    let host = Host::started();
    let (code, said) = host.fails(&["volume", "inspect", "nowhere"]);
    assert_eq!(code, 3);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!(lines[0], "everhold: there is no volume nowhere");
    assert!(lines[1].starts_with("Data: ") && lines[2].starts_with("Next: "), "{said}");
    let (code, said) = host.fails(&["volume", "inspect", "nowhere", "--json"]);
    let problem: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, problem["code"].as_str()), (3, Some("not-found")));

    host.ok(&["volume", "create", "a"]);
    for (words, code) in [
        (&["volume", "create", "../etc"][..], 2),
        (&["volume", "create", "b", "-o", "sise=1GiB"], 2),
        (&["volume", "create", "b", "-o", "size=1GiB", "--size", "2GiB"], 2),
        (&["volume", "create", "b", "-o", "readonly"], 2),
        (&["volume", "create"], 2),
        (&["volume", "rm", ""], 2),
        (&["volume", "label", "a"], 2),
        (&["volume", "frobnicate"], 2),
        (&["volume", "create", "a", "--driver", "image"], 4),
        (&["volume", "create", "b", "--pool", "fast"], 3),
        (&["trash", "restore", "a"], 3),
        (&["pool", "release", "fast"], 3),
        (&["volume", "ls", "--socket", "/nowhere/everhold.sock"], 12),
    ] {
        assert_eq!(host.fails(words).0, code, "{words:?}");
    }
    let (_, said) = host.fails(&["volume", "create", "b", "-o", "sise=1GiB"]);
    assert!(said.contains("did you mean `size`?"), "{said}");
}

#[test]
fn a_full_disk_under_the_output_is_an_error_and_a_closed_pipe_is_not() {
    let host = Host::started();
    let run = |stdout: Stdio| {
        let mut command = host.command();
        command.env("EVERHOLD_SOCKET", host.socket()).args(["status"]).stdout(stdout).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(run(full.into()), Some(1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(writer.into()), Some(0));
}

#[test]
fn completions_man_pages_and_help() {
    let host = Host::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(host.ok(&["completions", shell]).contains("everhold"), "{shell}");
    }
    let dir = host.dir.path().join("man");
    std::fs::create_dir(&dir).unwrap();
    host.ok(&["man", "--dir", dir.to_str().unwrap()]);
    assert!(dir.join("everhold.1").exists() && dir.join("everhold-volume-create.1").exists());
    assert!(host.ok(&["--help"]).contains("Exit codes:"));
    assert!(host.ok(&["volume", "create", "--help"]).contains("autogrow"));
    assert!(host.ok(&["--version"]).starts_with("everhold "));
}

#[test]
fn the_doctor_answers_with_or_without_a_daemon() {
    let host = Host::started();
    let config = host.config();
    let words = ["doctor", "--json", "--config", config.to_str().unwrap()];
    let output = host.run(&words);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["checks"].as_array().is_some_and(|checks| !checks.is_empty()));
    assert!(matches!(output.status.code(), Some(0 | 1)));
    drop(host);
    let host = Host::new();
    let config = host.config();
    let output = host.run(&["doctor", "--config", config.to_str().unwrap()]);
    assert!(!output.stdout.is_empty());
}
