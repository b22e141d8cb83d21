//! Restores that are interrupted: they go on from where they were, and who waits for them learns how far they are.

use crate::history::{create, cuts, mounted, wait_for_cut_of};
use crate::{alone, in_kernel, sandbox, with_docker};
use engine::{Fault, HistoryStep};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::{BUSYBOX, S3Fault, S3Server, Sandbox, until};

const LONG: Duration = Duration::from_secs(60);
/// Several times what is written between two notes of how far a restore has come.
const BYTES: usize = 120 << 20;

/// Bytes that don't compress, the same each time.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(BYTES);
    while bytes.len() < BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// A volume `data` at rest with noise in it, and a snapshot `before` of other noise.
pub fn with_noise(sandbox: &Sandbox, options: &[&str]) {
    create(sandbox, "data", &[&["size=256MiB", "protect=1s"], options].concat());
    let path = mounted(sandbox, "data");
    std::fs::write(path.join("noise"), noise()).expect("write");
    std::fs::File::open(path.join("noise")).and_then(|file| file.sync_all()).expect("sync");
    sandbox.ok(&["snapshot", "create", "data", "before"]);
    // In the same blocks.
    let file = std::fs::File::options().write(true).open(path.join("noise")).expect("open");
    let other: Vec<u8> = noise().into_iter().map(|byte| !byte).collect();
    std::os::unix::fs::FileExt::write_all_at(&file, &other, 0).expect("write");
    drop(file);
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
}

const RESTORE: [&str; 6] = ["restore", "data", "--at", "before", "--as", "copy"];

/// What a command that succeeds shows on a terminal.
fn on_a_terminal(sandbox: &Sandbox, words: &[&str]) -> String {
    let line = format!("{} {}", env!("CARGO_BIN_EXE_everhold"), words.join(" "));
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("EVERHOLD_SOCKET", sandbox.socket())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("run script");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {shown}");
    shown
}

/// What the daemon says about the work on a volume.
pub fn work(sandbox: &Sandbox, volume: &str) -> Option<Value> {
    let progress = sandbox.rest("/v1/progress");
    progress["work"].as_array().expect("a list").iter().find(|work| work["volume"] == volume).cloned()
}

pub fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// Waits until a volume can be used, and checks that it has all the noise.
#[track_caller]
pub fn becomes_whole(sandbox: &Sandbox, volume: &str) {
    until("the volume can be used", LONG, || {
        sandbox.run(&["volume", "mount", volume, "--id", "test"]).status.success()
    });
    let read = std::fs::read(mounted(sandbox, volume).join("noise")).expect("the noise");
    assert!(read == noise(), "{volume} has what was written");
    sandbox.ok(&["volume", "unmount", volume, "--id", "test"]);
    until("unmounted", LONG, || in_kernel(sandbox) == (0, 0));
}

/// Everything of a volume that is only there while it is restored.
fn left_over(home: &Path) -> Vec<String> {
    let names = std::fs::read_dir(home).expect("the home").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "image" && name != "volume.json");
    names
}

#[test]
fn a_new_volume_is_finished_wherever_its_restore_was_killed() {
    let mut sandbox = alone();
    with_noise(&sandbox, &[]);
    let whole = number(&sandbox.json(&["restore", "data", "--at", "before", "--as", "at-once"]), "fetched");
    assert!(whole > BYTES as u64, "noise does not compress: {whole}");
    let steps = [HistoryStep::RestoreHalf, HistoryStep::RestoreNoted, HistoryStep::RestoreWritten];
    let faults = steps.map(|step| format!("{step:?}"));
    for fault in faults.into_iter().chain(Fault::OF_RESTORE_AS.map(|fault| format!("{fault:?}"))) {
        sandbox.stop().env("EVERHOLD_FAULT", &fault).start();
        let _dies = sandbox.run(&RESTORE);
        sandbox.wait_for_crash().no_env("EVERHOLD_FAULT").start();
        becomes_whole(&sandbox, "copy");
        let done = work(&sandbox, "copy").expect("what was done");
        assert!(done["ended"].is_string() && done["trouble"].is_null(), "{fault}: {done}");
        if fault == "RestoreNoted" {
            let (resumed, fetched) = (number(&done, "resumed"), number(&done, "fetched"));
            assert!(resumed > 0 && number(&done, "done") == number(&done, "total"), "{done}");
            assert!(fetched + (8 << 20) < whole, "{fault}: {fetched} of {whole} were fetched again");
        }
        let detail = sandbox.json(&["volume", "inspect", "copy"]);
        assert_eq!(left_over(Path::new(detail["home"].as_str().expect("a home"))), [""; 0], "{fault}");
        sandbox.ok(&["volume", "rm", "copy"]);
        sandbox.ok(&["trash", "empty", "--yes"]);
    }
}

#[test]
fn a_rebuilt_catalog_knows_what_is_half_restored() {
    let mut sandbox = alone();
    with_noise(&sandbox, &[]);
    let restores = [("data", &["restore", "data", "--at", "before", "--yes"][..]), ("copy", &RESTORE[..])];
    for (volume, restore) in restores {
        sandbox.stop().env("EVERHOLD_FAULT", "RestoreNoted").start();
        let _dies = sandbox.run(restore);
        sandbox.wait_for_crash().no_env("EVERHOLD_FAULT");
        std::fs::remove_file(sandbox.state().join("catalog.redb")).expect("lose the catalog");
        let config = sandbox.config_file();
        sandbox.ok(&["recover", "--scan", "--config", config.to_str().expect("a path")]);
        sandbox.start();
        becomes_whole(&sandbox, volume);
        let done = work(&sandbox, volume).expect("what was done");
        assert!(number(&done, "resumed") > 0, "{done}");
    }
}

#[test]
fn what_waits_for_its_vault_says_so_and_can_be_joined_or_removed() {
    let server = S3Server::start();
    let mut sandbox = sandbox();
    for (key, value) in server.environment() {
        sandbox.env(&key, &value);
    }
    sandbox.start();
    let endpoint = server.endpoint();
    sandbox.ok(&["vault", "add", "far", "s3://vaults/history", "--endpoint", &endpoint]);
    with_noise(&sandbox, &["vault=far"]);
    sandbox.stop().env("EVERHOLD_FAULT", "RestoreNoted").start();
    let _dies = sandbox.run(&RESTORE);
    sandbox.wait_for_crash().no_env("EVERHOLD_FAULT");
    server.set_off(true);
    sandbox.start();
    until("it is tried in vain", LONG, || {
        work(&sandbox, "copy").is_some_and(|work| work["trouble"].is_string() && work["ended"].is_null())
    });
    let (_, told) = sandbox.fails(&["volume", "mount", "copy", "--id", "test"]);
    assert!(told.contains("being restored to cut"), "{told}");
    assert!(sandbox.ok(&["status"]).contains("at work"), "{}", sandbox.ok(&["status"]));
    assert_eq!(sandbox.json(&["volume", "inspect", "copy"])["state"], "restoring");
    let (_, told) = sandbox.fails(&["volume", "grow", "copy", "1GiB"]);
    assert!(told.contains("being restored to cut"), "{told}");
    // Removed as it is, and taken back, it goes on: nothing has to be begun anew.
    sandbox.ok(&["volume", "rm", "copy"]);
    server.set_off(false);
    until("the vault is back", LONG, || sandbox.run(&["history", "data"]).status.success());
    // Slow enough to be met at work.
    server.inject_times(Some("GET"), "/s/", 0, 40, S3Fault::Stall(Duration::from_secs(1)));
    sandbox.ok(&["trash", "restore", "copy"]);
    std::thread::scope(|scope| {
        let both = [scope.spawn(|| sandbox.json(&RESTORE)), scope.spawn(|| sandbox.json(&RESTORE))];
        until("it is at work", LONG, || {
            work(&sandbox, "copy").is_some_and(|work| number(&work, "resumed") > 0)
        });
        let shown = on_a_terminal(&sandbox, &RESTORE);
        assert!(shown.contains(" of 256MiB") && shown.contains("gone on with from"), "{shown}");
        assert!(shown.contains("copy: has"), "{shown}");
        for one in both {
            assert_eq!(one.join().expect("no panic")["name"], "copy");
        }
    });
    becomes_whole(&sandbox, "copy");
    let (_, told) = sandbox.fails(&RESTORE);
    assert!(told.contains("taken"), "{told}");
    // Given up while it goes on.
    server.inject_times(Some("GET"), "/s/", 0, 100, S3Fault::Stall(Duration::from_millis(300)));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| sandbox.run(&["restore", "data", "--at", "before", "--as", "other"]));
        until("it is at work", LONG, || {
            work(&sandbox, "other").is_some_and(|work| number(&work, "total") > 0)
        });
        sandbox.ok(&["volume", "rm", "other"]);
        assert!(!other.join().expect("no panic").status.success(), "it was not restored");
    });
    sandbox.ok(&["trash", "empty", "--yes"]);
    let homes = std::fs::read_dir(sandbox.pool().join("volumes")).expect("the pool").count();
    assert_eq!(homes, 2, "nothing is left of what was given up");
}

#[test]
fn containers_stopped_for_a_restore_run_again_whatever_happens() {
    let faults = Fault::OF_STOPPING.into_iter().chain(Fault::OF_RESTORE);
    let faults: Vec<String> = faults.map(|fault| format!("{fault:?}")).collect();
    let mut sandbox = with_docker(&["busybox"]);
    sandbox.volume("data", &["size=64MiB", "protect=200ms"]);
    for name in ["one", "two"] {
        let run = ["run", "-d", "--name", name, "--network", "none", "-v", "data:/data", BUSYBOX];
        sandbox.docker(&[&run[..], &["sh", "-c", "trap exit TERM; while :; do sleep 1; done"]].concat());
    }
    let inside = |sandbox: &Sandbox, script: &str| {
        sandbox.docker(&["exec", "one", "sh", "-c", script]).trim().to_owned()
    };
    inside(&sandbox, "echo before > /data/file; sync");
    sandbox.ok(&["snapshot", "create", "data", "before"]);
    let run = |sandbox: &Sandbox, name: &str| {
        let asked = ["inspect", "-f", "{{.State.Running}}", name];
        sandbox.try_docker(&asked).stdout == b"true\n"
    };
    for fault in faults {
        inside(&sandbox, "echo after > /data/file; sync");
        sandbox.ok(&["snapshot", "create", "data", &format!("after-{}", fault.to_lowercase())]);
        sandbox.stop().env("EVERHOLD_FAULT", &fault).start();
        let _dies = sandbox.run(&["restore", "data", "--at", "before", "--stop-containers", "--yes"]);
        sandbox.wait_for_crash().no_env("EVERHOLD_FAULT");
        let stopped = fault != "RestoreStopRecorded";
        assert_eq!(run(&sandbox, "one"), !stopped, "{fault}");
        sandbox.start();
        until("both run again", LONG, || run(&sandbox, "one") && run(&sandbox, "two"));
        // As it was before, where the restore had not begun; never half.
        let content = if fault.starts_with("RestorePoint") { "before" } else { "after" };
        assert_eq!(inside(&sandbox, "cat /data/file"), content, "{fault}");
    }
    // What is not interrupted starts them too.
    let told = sandbox.json(&["restore", "data", "--at", "before", "--stop-containers", "--yes"]);
    assert_eq!(told["restarted"].as_array().map(Vec::len), Some(2), "{told}");
    assert!(run(&sandbox, "one") && run(&sandbox, "two"));
    assert_eq!(inside(&sandbox, "cat /data/file"), "before");
}

/// Some of it, another part for each number.
fn piece(n: usize, bytes: usize) -> Vec<u8> {
    noise()[n << 10..][..bytes].to_vec()
}

#[test]
fn a_new_volume_shares_blocks_where_the_pool_can_and_the_old_one_is_at_rest() {
    let mut sandbox = sandbox();
    let disk = sandbox.small_disk("disk", &["mkfs.xfs", "-q"], 1 << 30);
    let pool = format!(
        "[history]\nprotect = \"off\"\n[pool.default]\npath = \"{}\"\nreserve = \"1%\"\n",
        disk.display()
    );
    sandbox.configure(&pool).start();
    create(&sandbox, "data", &["size=128MiB", "protect=200ms"]);
    let path = mounted(&sandbox, "data");
    std::fs::write(path.join("large"), piece(1, 32 << 20)).expect("write");
    std::fs::write(path.join("file"), piece(2, 1 << 20)).expect("write");
    wait_for_cut_of(&sandbox, "data", &path);
    let (then, _) = *cuts(&sandbox, "data").last().expect("a cut");
    std::fs::write(path.join("file"), piece(3, 2 << 20)).expect("write");
    std::fs::write(path.join("new"), piece(4, 1 << 20)).expect("write");
    wait_for_cut_of(&sandbox, "data", &path);
    let at = format!("#{then}");

    // In use, all of it comes from the vault.
    let read = sandbox.json(&["restore", "data", "--at", &at, "--as", "read"]);
    assert_eq!(read["how"], "vault", "{read}");
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
    let shared = sandbox.json(&["restore", "data", "--at", &at, "--as", "shared"]);
    assert_eq!(shared["how"], "reflink", "{shared}");
    let written = |told: &serde_json::Value| told["written"].as_u64().expect("bytes");
    assert!(written(&read) > 32 << 20 && written(&shared) < 8 << 20, "{read} {shared}");
    let image = |name: &str| {
        let detail = sandbox.json(&["volume", "inspect", name]);
        std::fs::read(Path::new(detail["home"].as_str().expect("a home")).join("image")).expect("the image")
    };
    assert!(image("read") == image("shared"), "every byte, whichever way it came");
    for name in ["read", "shared"] {
        let copy = mounted(&sandbox, name);
        assert!(std::fs::read(copy.join("large")).expect("read") == piece(1, 32 << 20), "{name}");
        assert!(std::fs::read(copy.join("file")).expect("read") == piece(2, 1 << 20), "{name}");
        assert!(!copy.join("new").exists(), "{name}");
        sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
    }
    // And the old one is as it was.
    let path = mounted(&sandbox, "data");
    assert!(
        std::fs::read(path.join("file")).expect("read") == piece(3, 2 << 20) && path.join("new").exists()
    );
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
}
