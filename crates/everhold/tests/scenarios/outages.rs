//! Histories of hosts that crash, of vaults that are away for long, and of vaults that two hosts want to write to.

use crate::history::{Counter, counted, create, cuts, mounted, wait_for_cut, wait_for_cut_of};
use crate::{sandbox, with_vault_keys};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use testkit::{S3Server, Sandbox, until};

/// Pseudo-random, so that nothing of it compresses; another one for each number.
fn noise(n: u64, bytes: usize) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

/// Writes it to the same place of the same file as before, durably.
fn overwrite(path: &Path, content: &[u8]) {
    let file = std::fs::File::options().write(true).create(true).truncate(false).open(path).expect("open");
    file.write_all_at(content, 0).expect("write");
    file.sync_all().expect("sync");
}

/// What `everhold protection` says of the volume.
fn protection(sandbox: &Sandbox, name: &str) -> serde_json::Value {
    let told = sandbox.json(&["protection"]);
    let volumes = told["volumes"].as_array().expect("volumes");
    volumes.iter().find(|volume| volume["name"] == name).cloned().unwrap_or_default()
}

#[track_caller]
fn assert_whole(sandbox: &Sandbox, name: &str) {
    let verified = sandbox.json(&["verify", name]);
    assert!(verified.to_string().contains("\"problems\":[]"), "{verified}");
}

#[test]
fn what_was_written_before_a_host_crash_is_found_by_comparing() {
    let mut sandbox = sandbox();
    std::fs::write(sandbox.dir().join("boot_id"), "first\n").expect("write");
    sandbox.start();
    create(&sandbox, "data", &["size=64MiB", "protect=200ms"]);
    let path = mounted(&sandbox, "data");
    overwrite(&path.join("early"), &noise(1, 1 << 20));
    overwrite(&path.join("late"), &noise(2, 1 << 20));
    wait_for_cut_of(&sandbox, "data", &path);
    sandbox.kill();
    let before = noise(3, 1 << 20);
    overwrite(&path.join("late"), &before);
    // The host goes down: what the kernel had marked is gone, and so is what was noted in memory.
    linux::track::remove(&sandbox.state().join("bpf")).expect("unpin");
    std::fs::remove_dir_all(sandbox.dir().join("run/history")).expect("what is in memory");
    // And nothing marks this.
    overwrite(&path.join("unmarked"), &noise(4, 1 << 20));
    std::fs::remove_file(path.join("early")).expect("remove");
    for mount in linux::mounts::below(&sandbox.state().join("mnt")).expect("mounts") {
        linux::mounts::unmount(&mount.target).expect("unmount");
    }
    std::fs::write(sandbox.dir().join("boot_id"), "second\n").expect("write");

    let restarted = jiff::Timestamp::now();
    sandbox.start();
    let known = cuts(&sandbox, "data");
    assert!(!known.is_empty(), "the cuts from before");
    until("what is at rest is cut", Duration::from_secs(30), || {
        cuts(&sandbox, "data").last().is_some_and(|(_, time)| *time > restarted)
    });
    assert!(sandbox.log().contains("finds changes by comparing"), "{}", sandbox.log());
    assert_whole(&sandbox, "data");
    let there = cuts(&sandbox, "data");
    assert!(known.iter().all(|cut| there.contains(cut)), "{known:?} {there:?}");

    sandbox.ok(&["restore", "data", "--at", "now", "--as", "copy"]);
    let copy = mounted(&sandbox, "copy");
    let read = |name: &str| std::fs::read(copy.join(name)).expect("a file");
    assert!(read("late") == before && read("unmarked") == noise(4, 1 << 20) && !copy.join("early").exists());
    let (point, _) = *known.last().expect("a cut");
    sandbox.ok(&["restore", "data", "--at", &format!("#{point}"), "--as", "old"]);
    let old = mounted(&sandbox, "old");
    let read = |name: &str| std::fs::read(old.join(name)).expect("a file");
    assert!(read("early") == noise(1, 1 << 20) && read("late") == noise(2, 1 << 20));
    assert!(!old.join("unmarked").exists());
    // And marks are to be trusted again.
    let path = mounted(&sandbox, "data");
    overwrite(&path.join("late"), &noise(5, 1 << 20));
    wait_for_cut_of(&sandbox, "data", &path);
    assert_whole(&sandbox, "data");
    for name in ["data", "copy", "old"] {
        sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
    }
}

#[test]
fn a_full_spool_makes_a_history_coarser_and_loses_nothing() {
    let server = S3Server::start();
    let mut sandbox = with_vault_keys(&server);
    sandbox.configure("[history]\nprotect = \"off\"\nspool = \"8MiB\"\n").start();
    sandbox.ok(&["vault", "add", "far", "s3://vaults/history", "--endpoint", &server.endpoint()]);
    create(&sandbox, "data", &["size=64MiB", "protect=200ms", "keep=1s:1h", "vault=far"]);
    let path = mounted(&sandbox, "data");
    overwrite(&path.join("file"), &noise(0, 1 << 20));
    wait_for_cut_of(&sandbox, "data", &path);
    let before = cuts(&sandbox, "data");

    server.set_off(true);
    // Five times what the spool holds, in cuts of a mebibyte each.
    let mut written = 0;
    let mut fill = |sandbox: &Sandbox, times: u64| {
        for _ in 0..times {
            written += 1;
            let cut = || protection(sandbox, "data")["waiting"].as_u64().expect("a number");
            let waited = cut();
            overwrite(&path.join("file"), &noise(written, 1 << 20));
            // One more, or few again because they were merged.
            until("it is cut", Duration::from_secs(30), || cut() != waited);
            assert_eq!(protection(sandbox, "data")["trouble"].as_str().filter(|t| t.contains("spool")), None);
        }
        written
    };
    fill(&sandbox, 20);
    let merged = |sandbox: &Sandbox| sandbox.log().matches("its cuts were merged into one").count();
    assert!(merged(&sandbox) > 0, "more than the spool holds was cut");
    let spooled = protection(&sandbox, "data")["waiting_bytes"].as_u64().expect("bytes");
    assert!(spooled <= 8 << 20, "{spooled} bytes wait");
    // Neither a graceful end nor a crash loses what waits.
    sandbox.stop().start();
    fill(&sandbox, 10);
    sandbox.kill().start();
    let last = fill(&sandbox, 10);
    assert!(merged(&sandbox) > 1);

    server.set_off(false);
    until("the vault has it all", Duration::from_secs(90), || {
        let told = protection(&sandbox, "data");
        told["waiting"] == 0 && told["trouble"].is_null()
    });
    wait_for_cut_of(&sandbox, "data", &path);
    assert_whole(&sandbox, "data");
    let there = cuts(&sandbox, "data");
    assert!(before.iter().all(|cut| there.contains(cut)), "{before:?} {there:?}");
    assert!(there.last().expect("a cut").0 > before.last().expect("a cut").0 + 30, "each was a cut");
    assert!(there.len() < before.len() + 30, "and not each is there: {there:?}");
    let history = sandbox.json(&["history", "data"]);
    assert!(history["gaps"].as_array().is_some_and(|gaps| !gaps.is_empty()), "{history}");
    assert!(sandbox.ok(&["history", "data"]).contains("cuts were merged while the vault was"));
    let (old, _) = *before.last().expect("a cut");
    for (at, name, n) in [("now".to_owned(), "copy", last), (format!("#{old}"), "old", 0)] {
        sandbox.ok(&["restore", "data", "--at", &at, "--as", name]);
        assert!(std::fs::read(mounted(&sandbox, name).join("file")).expect("read") == noise(n, 1 << 20));
        sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
    }
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
}

/// Two hosts, one place for a vault: only one writes, and no cut of the other is among its.
fn only_one_writes(mut one: Sandbox, mut two: Sandbox, place: &[&str]) {
    one.start();
    two.start();
    let kit = one.dir().join("kit");
    std::fs::write(&kit, one.ok(&[&["vault", "add", "shared"], place].concat())).expect("write");
    create(&one, "data", &["size=64MiB", "protect=200ms", "vault=shared"]);
    let path = mounted(&one, "data");
    let counter = Counter::start(vec![path.join("n")]);
    wait_for_cut(&one, "data");

    let kit = kit.display().to_string();
    let words = [&["vault", "add", "shared"], place, &["--kit-file", &kit]].concat();
    let (code, told) = two.fails(&words);
    assert!(code == 4 && told.contains("has been writing to"), "{code} {told}");
    wait_for_cut(&one, "data");
    assert_eq!(protection(&one, "data")["trouble"], serde_json::Value::Null, "unharmed");

    two.ok(&[&words[..], &["--take-over"]].concat());
    create(&two, "data", &["size=64MiB", "protect=200ms", "vault=shared"]);
    let theirs = mounted(&two, "data");
    let other = Counter::start(vec![theirs.join("other")]);
    until("the first says that it was replaced", Duration::from_secs(30), || {
        protection(&one, "data")["trouble"].as_str().is_some_and(|why| why.contains("took"))
    });
    let durable = protection(&one, "data")["newest_cut"].clone();
    // It has turns enough to do harm while the second goes on.
    wait_for_cut(&two, "data");
    wait_for_cut(&two, "data");
    let told = protection(&one, "data");
    assert!(told["newest_cut"] == durable && told["trouble"].is_string(), "{told}");
    let last_of_two = other.stop();
    wait_for_cut_of(&two, "data", &theirs);
    assert_whole(&two, "data");
    two.ok(&["restore", "data", "--at", "now", "--as", "copy"]);
    let copy = mounted(&two, "copy");
    assert!(counted(&copy.join("other")) == last_of_two && !copy.join("n").exists());

    // The way back: what the first has cut is whole, and it goes on from there.
    one.ok(&[&["vault", "add", "shared"], place, &["--take-over"]].concat());
    wait_for_cut(&one, "data");
    let last = counter.stop();
    wait_for_cut_of(&one, "data", &path);
    assert_whole(&one, "data");
    let points = cuts(&one, "data");
    assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1), "{points:?}");
    one.ok(&["restore", "data", "--at", "now", "--as", "copy"]);
    let copy = mounted(&one, "copy");
    assert!(counted(&copy.join("n")) == last && !copy.join("other").exists());
    for sandbox in [&one, &two] {
        for name in ["data", "copy"] {
            sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
        }
    }
}

#[test]
fn only_one_of_two_hosts_writes_to_a_directory() {
    let (one, two) = (sandbox(), sandbox());
    let url = format!("file://{}/shared", one.dir().display());
    only_one_writes(one, two, &[&url]);
}

#[test]
fn only_one_of_two_hosts_writes_to_a_bucket() {
    let server = S3Server::start();
    let endpoint = server.endpoint();
    let place = ["s3://vaults/shared", "--endpoint", &endpoint];
    only_one_writes(with_vault_keys(&server), with_vault_keys(&server), &place);
}
