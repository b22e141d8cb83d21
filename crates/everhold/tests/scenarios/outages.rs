//! Histories of hosts that crash, of vaults that are away for long, and of vaults that two hosts want to write to.

use crate::history::{Counter, counted, create, cuts, mounted, now, wait_for_cut, wait_for_cut_of};
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

    let restarted = now();
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
    // Several times what the spool holds, in cuts of a mebibyte each.
    for n in 1..=24 {
        let waiting = || protection(&sandbox, "data")["waiting"].as_u64().expect("a number");
        let waited = waiting();
        overwrite(&path.join("file"), &noise(n, 1 << 20));
        // One more, or few again because they were merged.
        until("it is cut", Duration::from_secs(30), || waiting() != waited);
    }
    assert!(sandbox.log().contains("its cuts were merged into one"), "{}", sandbox.log());
    let spooled = protection(&sandbox, "data")["waiting_bytes"].as_u64().expect("bytes");
    assert!((1..=8 << 20).contains(&spooled), "{spooled} bytes wait");
    // Neither a crash nor a graceful end loses what waits, or what is written until the vault is there again.
    sandbox.kill().start();
    overwrite(&path.join("file"), &noise(25, 1 << 20));
    overwrite(&path.join("after the crash"), &noise(26, 1 << 20));
    sandbox.stop().start();
    overwrite(&path.join("file"), &noise(27, 1 << 20));

    server.set_off(false);
    until("the vault is found", Duration::from_secs(90), || {
        sandbox.run(&["vault", "check", "far"]).status.success()
    });
    wait_for_cut_of(&sandbox, "data", &path);
    assert_whole(&sandbox, "data");
    let there = cuts(&sandbox, "data");
    assert!(before.iter().all(|cut| there.contains(cut)), "{before:?} {there:?}");
    assert!(there.last().expect("a cut").0 > before.last().expect("a cut").0 + 20, "they were cuts");
    assert!(there.len() < before.len() + 20, "and not each is there: {there:?}");
    let history = sandbox.json(&["history", "data"]);
    assert!(history["gaps"].as_array().is_some_and(|gaps| !gaps.is_empty()), "{history}");
    assert!(sandbox.ok(&["history", "data"]).contains("cuts were merged while the vault was"));
    let (old, _) = *before.last().expect("a cut");
    for (at, name, n) in [("now".to_owned(), "copy", 27), (format!("#{old}"), "old", 0)] {
        sandbox.ok(&["restore", "data", "--at", &at, "--as", name]);
        let copy = mounted(&sandbox, name);
        assert!(std::fs::read(copy.join("file")).expect("read") == noise(n, 1 << 20), "{name}");
        let since = std::fs::read(copy.join("after the crash")).ok();
        assert!(since == (n > 0).then(|| noise(26, 1 << 20)), "{name}");
        sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
    }
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
}

/// Daemons come and go while the vault is away: each goes on from what waits.
fn cuts_go_on_without(mut sandbox: Sandbox, place: &[&str], set_away: &dyn Fn(bool)) {
    sandbox.configure("[history]\nprotect = \"off\"\n").start();
    sandbox.ok(&[&["vault", "add", "far"], place].concat());
    create(&sandbox, "data", &["size=64MiB", "protect=200ms", "keep=1s:1h", "vault=far"]);
    let path = mounted(&sandbox, "data");
    overwrite(&path.join("file"), &noise(0, 1 << 20));
    wait_for_cut_of(&sandbox, "data", &path);
    let before = cuts(&sandbox, "data");

    set_away(true);
    let mut moments = Vec::new();
    for n in 1..=4 {
        // By accident and in order, in turn; the first does not know yet that the vault is away.
        if n % 2 == 1 {
            sandbox.kill()
        } else {
            sandbox.stop()
        };
        overwrite(&path.join("file"), &noise(10 * n, 1 << 20));
        sandbox.start();
        let waiting = || protection(&sandbox, "data")["waiting"].as_u64().expect("a number");
        until("what no daemon saw is cut", Duration::from_secs(60), || waiting() >= 2 * n - 1);
        overwrite(&path.join("file"), &noise(10 * n + 1, 1 << 20));
        until("it is cut", Duration::from_secs(30), || waiting() >= 2 * n);
        moments.push((now(), 10 * n + 1));
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = protection(&sandbox, "data");
    assert!(told["trouble"].as_str().is_some_and(|why| why.ends_with("the vault far is away")), "{told}");

    set_away(false);
    until("the vault is found", Duration::from_secs(90), || {
        sandbox.run(&["vault", "check", "far"]).status.success()
    });
    // Without anything new to be cut.
    until("what waits is put", Duration::from_secs(90), || protection(&sandbox, "data")["waiting"] == 0);
    assert_eq!(
        sandbox.log().matches("finds changes by comparing").count(),
        1,
        "the first cut: {}",
        sandbox.log()
    );
    assert_whole(&sandbox, "data");
    let there = cuts(&sandbox, "data");
    assert!(before.iter().all(|cut| there.contains(cut)), "{before:?} {there:?}");
    assert!(there.len() >= before.len() + 8, "each cut is there: {before:?} {there:?}");
    let history = sandbox.json(&["history", "data"]);
    assert_eq!(history["gaps"], serde_json::json!([]), "{history}");
    overwrite(&path.join("file"), &noise(99, 1 << 20));
    wait_for_cut_of(&sandbox, "data", &path);
    moments.push((now(), 99));
    for (at, n) in moments {
        let copy = format!("copy-{n}");
        sandbox.ok(&["restore", "data", "--at", &at.to_string(), "--as", &copy]);
        let path = mounted(&sandbox, &copy);
        assert!(std::fs::read(path.join("file")).expect("read") == noise(n, 1 << 20), "{n} at {at}");
        sandbox.ok(&["volume", "unmount", &copy, "--id", "test"]);
    }
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
}

#[test]
fn cuts_go_on_without_the_directory() {
    let sandbox = sandbox();
    let (vault, hidden) = (sandbox.dir().join("far"), sandbox.dir().join("hidden"));
    let url = format!("file://{}", vault.display());
    let set_away = move |away: bool| {
        let (from, to) = if away { (&vault, &hidden) } else { (&hidden, &vault) };
        std::fs::rename(from, to).expect("rename");
    };
    cuts_go_on_without(sandbox, &[&url], &set_away);
}

#[test]
fn cuts_go_on_without_the_bucket() {
    let server = S3Server::start();
    let endpoint = server.endpoint();
    let place = ["s3://vaults/history", "--endpoint", &endpoint];
    cuts_go_on_without(with_vault_keys(&server), &place, &|away| server.set_off(away));
}

/// The segments' parts that were put in this epoch, of all streams.
fn put_in_epoch(vault: &Path, epoch: u32) -> Vec<String> {
    let streams = std::fs::read_dir(vault.join("h")).expect("streams").flatten();
    let parts = streams.flat_map(|stream| std::fs::read_dir(stream.path().join("s")).into_iter().flatten());
    let names = parts.flatten().map(|part| part.file_name().to_string_lossy().into_owned());
    let is_of = |name: &String| {
        let field = name.split('-').nth(3).expect("an epoch");
        u32::from_str_radix(field, 16).expect("an epoch") == epoch
    };
    let mut names: Vec<String> = names.filter(is_of).collect();
    names.sort();
    assert!(!names.is_empty(), "nothing was put in epoch {epoch}");
    names
}

/// Two hosts, one place for a vault: only one writes, and no cut of the other is among its.
fn only_one_writes(mut one: Sandbox, mut two: Sandbox, place: &[&str], kept_at: &Path) {
    for sandbox in [&mut one, &mut two] {
        sandbox.configure("[history]\nprotect = \"off\"\nupkeep = \"1h\"\n").start();
    }
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
        protection(&one, "data")["trouble"].as_str().is_some_and(|why| why.contains("took the vault over"))
    });
    let durable = protection(&one, "data")["newest_cut"].clone();
    let all = cuts(&one, "data");
    let put = put_in_epoch(kept_at, 1);
    // It has turns enough to do harm while the second goes on.
    wait_for_cut(&two, "data");
    wait_for_cut(&two, "data");
    let told = protection(&one, "data");
    assert!(told["newest_cut"] == durable && told["trouble"].is_string(), "{told}");
    assert_eq!(put_in_epoch(kept_at, 1), put, "it puts nothing more");
    assert_eq!(cuts(&one, "data"), all, "and what it has cut is there as it was");
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
    let kept_at = one.dir().join("shared");
    let url = format!("file://{}", kept_at.display());
    only_one_writes(one, two, &[&url], &kept_at);
}

#[test]
fn only_one_of_two_hosts_writes_to_a_bucket() {
    let server = S3Server::start();
    let endpoint = server.endpoint();
    let place = ["s3://vaults/shared", "--endpoint", &endpoint];
    only_one_writes(
        with_vault_keys(&server),
        with_vault_keys(&server),
        &place,
        &server.bucket_dir().join("shared"),
    );
}
