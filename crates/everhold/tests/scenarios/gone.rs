//! Nothing is left but the vault: the host is gone, or the volume was destroyed.

use crate::history::{create, cuts, mounted, now, wait_for_cut};
use crate::restores::{becomes_whole, number, with_noise, work};
use crate::{alone, growing_fs, id, sandbox, volumes, with_docker, with_vault_keys};
use engine::{Fault, HistoryStep};
use jiff::Timestamp;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use testkit::{S3Fault, S3Server, Sandbox, until, until_some};

const LONG: Duration = Duration::from_secs(60);
/// What a vault says of a volume is renewed soon.
const BRISK: &str = "[history]\nprotect = \"off\"\nupkeep = \"1s\"\n";

fn histories(sandbox: &Sandbox, vault: &str) -> Vec<Value> {
    let listed = sandbox.json(&["vault", "histories", vault]);
    listed["histories"].as_array().expect("a list").clone()
}

/// Writes a text that a cut has, and says when that was so.
fn write(sandbox: &Sandbox, volume: &str, text: &str) -> Timestamp {
    let path = mounted(sandbox, volume).join("text");
    std::fs::write(&path, text).expect("write");
    std::fs::File::open(&path).and_then(|file| file.sync_all()).expect("sync");
    wait_for_cut(sandbox, volume);
    now()
}

fn text(sandbox: &Sandbox, volume: &str) -> String {
    let text = std::fs::read_to_string(mounted(sandbox, volume).join("text")).expect("the text");
    sandbox.ok(&["volume", "unmount", volume, "--id", "test"]);
    text
}

/// Makes the vault `far` on a host; the kit is in a file.
fn far(sandbox: &Sandbox) -> (String, String) {
    let url = format!("file://{}/far", sandbox.dir().display());
    let kit = sandbox.ok(&["vault", "add", "far", &url]);
    let file = sandbox.dir().join("kit");
    std::fs::write(&file, kit).expect("keep the kit");
    (url, file.display().to_string())
}

fn objects(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("the vault").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => dirs.push(path),
                false => found.push((path.display().to_string(), std::fs::read(&path).expect("an object"))),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn another_host_restores_what_a_dead_one_left() {
    let (mut dead, mut other) = (sandbox(), sandbox());
    let fast =
        format!("[pool.default]\npath = \"{0}/a\"\n[pool.fast]\npath = \"{0}/b\"\n", dead.dir().display());
    dead.configure(&format!("{BRISK}{fast}")).start();
    let (url, kit) = far(&dead);
    let options = ["size=320MiB", growing_fs(), "protect=200ms", "vault=far", "pool=fast", "mode=0750"];
    create(&dead, "draft", &[&options[..], &["label.team=db"]].concat());
    let first = write(&dead, "draft", "first");
    // What it is called and how large it is at the end counts.
    dead.ok(&["volume", "unmount", "draft", "--id", "test"]);
    dead.ok(&["volume", "rename", "draft", "orders"]);
    dead.ok(&["volume", "label", "orders", "env=prod"]);
    until("the vault says so", LONG, || {
        histories(&dead, "far")[0]["volume"] == "orders"
            && histories(&dead, "far")[0]["labels"]["env"] == "prod"
    });
    write(&dead, "orders", "second");
    dead.ok(&["volume", "grow", "orders", "384MiB"]);
    until("the vault says so", LONG, || number(&histories(&dead, "far")[0], "size") == 384 << 20);
    let mine = &histories(&dead, "far")[0];
    assert_eq!((&mine["here"], &mine["id"]), (&"yes".into(), &id(&dead, "orders").into()), "{mine}");
    dead.ok(&["snapshot", "create", "orders", "release"]);
    let known = (id(&dead, "orders"), cuts(&dead, "orders"));
    dead.kill();

    let slow =
        format!("[pool.default]\npath = \"{0}/a\"\n[pool.slow]\npath = \"{0}/b\"\n", other.dir().display());
    other.configure(&format!("{BRISK}{slow}")).start();
    other.ok(&["vault", "add", "dr", &url, "--kit-file", &kit, "--read-only"]);
    let before = objects(&dead.dir().join("far"));
    let [found] = &histories(&other, "dr")[..] else { panic!("one history") };
    assert_eq!((&found["volume"], &found["id"]), (&"orders".into(), &known.0.clone().into()), "{found}");
    assert_eq!((number(found, "size"), &found["here"]), (384 << 20, &"no".into()), "{found}");
    assert_eq!(found["labels"], serde_json::json!({"env": "prod", "team": "db"}));
    assert_eq!(number(found, "cuts"), known.1.len() as u64, "{found}");
    let newest: Timestamp = found["newest_time"].as_str().expect("a time").parse().expect("a time");
    assert_eq!(Some(newest), known.1.last().map(|(_, time)| *time));
    assert_eq!(found["problems"], serde_json::json!([]));
    let shown = other.ok(&["vault", "histories", "dr"]);
    assert!(shown.contains("orders") && shown.contains(&known.0) && shown.contains("team=db"), "{shown}");

    let history = other.json(&["history", "--vault", "dr", "orders"]);
    assert_eq!(history["cuts"].as_array().map(Vec::len), Some(known.1.len()));
    assert_eq!(history, other.json(&["history", "--vault", "dr", &known.0]));
    let shown = other.ok(&["history", "--vault", "dr", "orders"]);
    assert!(shown.contains("release"), "{shown}");

    let restore = ["restore", "--vault", "dr", "orders", "--at"];
    let shown = other.ok(&[&restore[..], &[&first.to_string(), "--as", "then"]].concat());
    assert!(shown.contains("then: has cut #") && shown.contains("everhold protect then"), "{shown}");
    let again = ["--at", "release", "--as", "orders", "--pool", "slow"];
    other.ok(&[&["restore", "--vault", "dr", &known.0][..], &again].concat());
    assert_eq!((text(&other, "then"), text(&other, "orders")), ("first".to_owned(), "second".to_owned()));
    // As it was, but for what another host can't know.
    let (then, orders) =
        (other.json(&["volume", "inspect", "then"]), other.json(&["volume", "inspect", "orders"]));
    assert_eq!((&then["pool"], &orders["pool"]), (&"default".into(), &"slow".into()));
    assert_eq!(
        (&orders["options"]["mode"], &orders["labels"]["team"]),
        (&"0750".into(), &"db".into()),
        "{orders}"
    );
    assert_eq!(orders["protection"], Value::Null, "to a vault that is only read there would never be a cut");
    assert_ne!(orders["id"], known.0.as_str());

    // What is not there is said.
    for (words, code, says) in [
        (vec!["history", "--vault", "dr", "draft"], 3, "everhold vault histories dr"),
        (vec!["history", "--vault", "nowhere", "orders"], 3, "no vault nowhere"),
        (
            vec!["restore", "--vault", "dr", "orders", "--at", "#9999", "--as", "x"],
            2,
            "its history goes from",
        ),
        (
            vec!["restore", "--vault", "dr", "orders", "--at", "release", "--as", "x", "--pool", "fast"],
            3,
            "slow",
        ),
        (vec!["restore", "--vault", "dr", "orders", "--at", "release", "--as", "then"], 4, "taken"),
    ] {
        let (is, told) = other.fails(&words);
        assert!(is == code && told.contains(says), "{words:?}: {is} {told}");
    }
    assert!(before == objects(&dead.dir().join("far")), "the vault was read, and nothing else");

    // The other host takes the vault over: what it restores now has a history again.
    other.ok(&["vault", "add", "dr", &url, "--take-over"]);
    let shown = other.ok(&["restore", "--vault", "dr", &known.0, "--at", "release", "--as", "again"]);
    assert!(shown.contains("history of its own in vault dr"), "{shown}");
    assert_eq!(text(&other, "again"), "second");
    until("it is cut", LONG, || !cuts(&other, "again").is_empty());
    let names: Vec<_> = histories(&other, "dr").iter().map(|one| one["volume"].clone()).collect();
    assert_eq!(names, ["again", "orders"]);
}

#[test]
fn containers_start_on_another_host_as_they_were_described() {
    let mut dead = sandbox();
    let pools =
        format!("[pool.default]\npath = \"{0}/a\"\n[pool.fast]\npath = \"{0}/b\"\n", dead.dir().display());
    dead.configure(&pools).start();
    let (url, kit) = far(&dead);
    let options = ["size=64MiB", "protect=200ms", "vault=far", "pool=fast", "label.team=db"];
    create(&dead, "data", &options);
    write(&dead, "data", "kept");
    dead.kill();
    let other = with_docker(&["busybox"]);
    other.ok(&["vault", "add", "dr", &url, "--kit-file", &kit, "--read-only"]);
    other.ok(&["restore", "--vault", "dr", "data", "--at", "now", "--as", "data"]);
    // As `docker compose up` does with the file that was written for the other host.
    other.volume("data", &options);
    let asked = other.docker(&["volume", "inspect", "-f", "{{.Options.pool}} {{.Options.vault}}", "data"]);
    assert_eq!(asked, "fast far", "what is compared with the file is as it was written there");
    assert_eq!(other.shell(&["-v", "data:/data"], "cat /data/text"), "kept");
}

#[test]
fn what_grew_after_it_was_described_comes_back_as_large_as_it_was() {
    let (mut dead, mut other) = (sandbox(), sandbox());
    dead.configure("[history]\nprotect = \"off\"\nupkeep = \"1h\"\n").start();
    let (url, kit) = far(&dead);
    create(&dead, "data", &["size=320MiB", growing_fs(), "protect=200ms", "vault=far"]);
    let small = write(&dead, "data", "small");
    dead.ok(&["volume", "grow", "data", "384MiB"]);
    write(&dead, "data", "large");
    dead.kill();
    other.start();
    other.ok(&["vault", "add", "dr", &url, "--kit-file", &kit, "--read-only"]);
    assert_eq!(number(&histories(&other, "dr")[0], "size"), 320 << 20, "as it was described");
    for (at, name) in [(small.to_string(), "small"), ("now".to_owned(), "large")] {
        other.ok(&["restore", "--vault", "dr", "data", "--at", &at, "--as", name]);
        assert_eq!(text(&other, name), name);
    }
    let size = |name: &str| number(&other.json(&["volume", "inspect", name]), "size");
    assert_eq!((size("small"), size("large")), (320 << 20, 384 << 20));
}

#[test]
fn a_destroyed_volume_comes_back_from_its_vault() {
    let sandbox = alone();
    create(&sandbox, "data", &["size=64MiB", "protect=200ms"]);
    let first = write(&sandbox, "data", "first");
    write(&sandbox, "data", "second");
    let was = id(&sandbox, "data");
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
    sandbox.ok(&["volume", "rm", "data"]);
    assert_eq!(histories(&sandbox, "local")[0]["here"], "trash");
    sandbox.ok(&["trash", "empty", "--yes"]);
    assert_eq!(volumes(&sandbox, "volume").len() + volumes(&sandbox, "trash").len(), 0);
    let (_, told) = sandbox.fails(&["history", "data"]);
    assert!(told.contains("no volume data"), "{told}");

    let [left] = &histories(&sandbox, "local")[..] else { panic!("one history") };
    assert_eq!((&left["volume"], &left["here"]), (&"data".into(), &"no".into()), "{left}");
    sandbox.ok(&["restore", "--vault", "local", "data", "--at", "now", "--as", "data"]);
    sandbox.ok(&["restore", "--vault", "local", &was, "--at", &first.to_string(), "--as", "then"]);
    assert_eq!((text(&sandbox, "data"), text(&sandbox, "then")), ("second".to_owned(), "first".to_owned()));
    assert_ne!(id(&sandbox, "data"), was, "it begins a history of its own");
    until("both are cut", LONG, || ["data", "then"].iter().all(|name| !cuts(&sandbox, name).is_empty()));
    assert_eq!(histories(&sandbox, "local").len(), 3);
}

/// What brings the newest cut of a history in the vault `local` back.
fn newest<'a>(which: &'a str, new: &'a str) -> [&'a str; 8] {
    ["restore", "--vault", "local", which, "--at", "now", "--as", new]
}

fn destroy(sandbox: &Sandbox, volume: &str) {
    sandbox.ok(&["volume", "rm", volume]);
    sandbox.ok(&["trash", "empty", "--yes"]);
}

#[test]
fn histories_of_one_name_are_told_apart() {
    let sandbox = alone();
    let mut ids = Vec::new();
    for content in ["old", "new"] {
        create(&sandbox, "data", &["size=64MiB", "protect=200ms"]);
        write(&sandbox, "data", content);
        ids.push(id(&sandbox, "data"));
        sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
        if content == "old" {
            destroy(&sandbox, "data");
        }
    }
    let (code, told) = sandbox.fails(&newest("data", "copy"));
    assert!(
        code == 4 && ids.iter().all(|id| told.contains(id)) && told.contains("give the ID"),
        "{code} {told}"
    );
    assert_eq!(sandbox.fails(&["history", "--vault", "local", "data"]).0, 4);
    sandbox.ok(&newest(&ids[0], "older"));
    sandbox.ok(&newest(&ids[1], "newer"));
    assert_eq!((text(&sandbox, "older"), text(&sandbox, "newer")), ("old".to_owned(), "new".to_owned()));
}

#[test]
fn a_damaged_description_is_told_and_keeps_little_from_being_restored() {
    let mut sandbox = alone();
    create(&sandbox, "gone", &["size=64MiB", "protect=200ms"]);
    write(&sandbox, "gone", "gone");
    sandbox.ok(&["volume", "unmount", "gone", "--id", "test"]);
    // Its file system has the ID of another volume.
    sandbox.ok(&["clone", "gone", "cloned", "--at", "now"]);
    create(&sandbox, "here", &["size=64MiB", "protect=200ms"]);
    write(&sandbox, "here", "here");
    sandbox.ok(&["volume", "unmount", "here", "--id", "test"]);
    until("the clone is cut", LONG, || !cuts(&sandbox, "cloned").is_empty());
    let [gone, cloned, here] = ["gone", "cloned", "here"].map(|name| id(&sandbox, name));
    destroy(&sandbox, "gone");
    destroy(&sandbox, "cloned");

    let all = histories(&sandbox, "local");
    let stream = |id: &str| {
        let found = all.iter().find(|one| one["id"] == id).expect("the history");
        found["stream"].as_str().expect("a stream").to_owned()
    };
    for id in [&gone, &cloned, &here] {
        let about = sandbox.state().join(format!("vault-local/h/{}/about", stream(id)));
        let mut bytes = std::fs::read(&about).expect("the description");
        bytes[40] ^= 1;
        std::fs::write(&about, bytes).expect("damage it");
    }
    let listed = histories(&sandbox, "local");
    let of = |id: &str| listed.iter().find(|one| one["stream"] == stream(id).as_str()).expect("the history");
    for lost in [of(&gone), of(&cloned)] {
        assert_eq!((&lost["volume"], &lost["id"], &lost["size"]), (&Value::Null, &Value::Null, &Value::Null));
        assert!(number(lost, "cuts") > 0 && lost["newest_time"].is_string(), "{lost}");
        let problem = lost["problems"][0].as_str().expect("words");
        assert!(problem.contains("its description can't be read"), "{lost}");
    }
    // This host still knows this one.
    let known = of(&here);
    assert_eq!((&known["volume"], &known["id"]), (&"here".into(), &here.as_str().into()), "{known}");
    assert!(known["problems"][0].is_string(), "{known}");
    let output = sandbox.run(&["vault", "histories", "local"]);
    let shown =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(shown.contains(&stream(&gone)) && shown.contains("can't be read"), "{shown}");
    assert!(sandbox.ok(&["history", "--vault", "local", &stream(&gone)]).contains('#'));
    let (code, told) = sandbox.fails(&newest("gone", "copy"));
    assert!(code == 3 && told.contains("of 2 histories it can't be told"), "{code} {told}");

    sandbox.ok(&newest("here", "copy"));
    sandbox.ok(&newest(&stream(&gone), "back"));
    assert_eq!((text(&sandbox, "copy"), text(&sandbox, "back")), ("here".to_owned(), "gone".to_owned()));
    assert_eq!(number(&sandbox.json(&["volume", "inspect", "back"]), "size"), 64 << 20);
    let (code, told) = sandbox.fails(&newest(&stream(&cloned), "never"));
    assert!(code == 9 && told.contains("can't be told") && told.contains("/about"), "{code} {told}");
    // The daemon that has the volume writes it anew.
    sandbox.stop().start();
    let described = until_some("it is described again", LONG, || {
        let all = histories(&sandbox, "local");
        all.into_iter().find(|one| one["id"] == here.as_str() && one["problems"] == serde_json::json!([]))
    });
    assert_eq!(described["volume"], "here");
}

#[test]
fn a_restore_from_a_vault_is_finished_whatever_kills_the_daemon() {
    let (mut dead, mut other) = (sandbox(), sandbox());
    dead.start();
    let (url, kit) = far(&dead);
    with_noise(&dead, &["vault=far"]);
    dead.kill();
    other.start();
    other.ok(&["vault", "add", "dr", &url, "--kit-file", &kit, "--read-only"]);
    let restore = ["restore", "--vault", "dr", "data", "--at", "before", "--as", "copy"];
    let steps = [HistoryStep::RestoreHalf, HistoryStep::RestoreNoted, HistoryStep::RestoreWritten];
    let faults = steps.map(|step| format!("{step:?}"));
    for fault in faults.into_iter().chain(Fault::OF_RESTORE_AS.map(|fault| format!("{fault:?}"))) {
        other.stop().env("EVERHOLD_FAULT", &fault).start();
        let _dies = other.run(&restore);
        other.wait_for_crash().no_env("EVERHOLD_FAULT").start();
        becomes_whole(&other, "copy");
        let done = work(&other, "copy").expect("what was done");
        assert!(done["ended"].is_string() && done["trouble"].is_null(), "{fault}: {done}");
        other.ok(&["volume", "rm", "copy"]);
        other.ok(&["trash", "empty", "--yes"]);
    }
}

#[test]
fn a_restore_from_a_vault_can_be_asked_for_again_after_a_kill() {
    let server = S3Server::start();
    let (mut dead, mut other) = (with_vault_keys(&server), with_vault_keys(&server));
    dead.start();
    let url = server.url("history");
    let kit = dead.ok(&["vault", "add", "far", &url]);
    with_noise(&dead, &["vault=far"]);
    dead.kill();
    other.start();
    let file = other.dir().join("kit");
    std::fs::write(&file, kit).expect("keep the kit");
    let file = file.display().to_string();
    other.ok(&["vault", "add", "dr", &url, "--kit-file", &file, "--read-only"]);
    let restore = ["restore", "--vault", "dr", "data", "--at", "before", "--as", "copy"];
    // Slow enough to be met at work.
    server.inject_times(Some("GET"), "/s/", 0, 40, S3Fault::Stall(Duration::from_millis(500)));
    let begun = std::process::Command::new(env!("CARGO_BIN_EXE_everhold"))
        .args(restore)
        .env("EVERHOLD_SOCKET", other.socket())
        .spawn();
    let mut begun = begun.expect("run everhold");
    until("it is at work", LONG, || work(&other, "copy").is_some_and(|work| number(&work, "total") > 0));
    other.kill();
    assert!(!begun.wait().expect("its end").success(), "the daemon was killed");
    other.start();
    let (_, told) = other.fails(&["volume", "mount", "copy", "--id", "test"]);
    assert!(told.contains("being restored to cut"), "{told}");
    assert_eq!(other.json(&restore)["name"], "copy");
    becomes_whole(&other, "copy");
}
