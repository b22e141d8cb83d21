//! Vaults: made, opened elsewhere, claimed, taken over, absent; and no secret where it does not belong.

use crate::{alone, sandbox};
use ::vault::descriptor::Descriptor;
use ::vault::keys::{self, DataKey, NewSlot};
use ::vault::store::{DirOptions, DirStore, Store};
use ring::rand::SystemRandom;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::{S3_KEY, S3_SECRET, S3Server, Sandbox, until, until_some};

const SOON: Duration = Duration::from_secs(30);

fn vault(sandbox: &Sandbox, name: &str) -> Value {
    let listed = sandbox.json(&["vault", "ls"]);
    listed["vaults"]
        .as_array()
        .unwrap()
        .iter()
        .find(|vault| vault["name"] == name)
        .cloned()
        .unwrap_or_default()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn write(sandbox: &Sandbox, name: &str, text: &str) -> String {
    let path = sandbox.dir().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn secret_line(kit: &str) -> &str {
    kit.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).expect("a recovery kit")
}

/// None of these is where people and programs look, nor in any file but `allowed`.
fn assert_nowhere(sandbox: &Sandbox, secrets: &[&str], allowed: &[PathBuf]) {
    let listed = sandbox.ok(&["vault", "ls", "--json"]) + &sandbox.ok(&["status", "--json"]);
    for text in [listed, sandbox.log(), sandbox.metrics()] {
        for secret in secrets {
            assert!(!text.contains(secret), "a secret is in: {text}");
        }
    }
    let mut dirs = vec![sandbox.state()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if !allowed.contains(&path) {
                let bytes = std::fs::read(&path).unwrap_or_default();
                for secret in secrets {
                    let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                    assert!(!found, "a secret is in {}", path.display());
                }
            }
        }
    }
}

#[test]
fn a_vault_is_there_from_the_start_and_goes_only_with_a_kit() {
    let mut sandbox = alone();
    let local = vault(&sandbox, "local");
    assert_eq!((&local["state"], &local["has_kit"]), (&"ok".into(), &false.into()), "{local}");
    assert!(local["warning"].as_str().unwrap().contains("does not survive the loss of that disk"), "{local}");
    let status = sandbox.ok(&["status"]);
    assert!(status.contains("does not survive the loss of that disk"), "{status}");
    let key = sandbox.state().join("vaults/local.key");
    let (dir, node) = (sandbox.state().join("vault-local"), sandbox.state().join("node-id"));
    assert_eq!((mode(&dir), mode(&key), mode(&node)), (0o700, 0o600, 0o600));
    let (identity, id) = (std::fs::read_to_string(&node).unwrap(), local["id"].clone());

    let (code, words) = sandbox.fails(&["vault", "rm", "local"]);
    assert!(code == 4 && words.contains("`everhold vault kit local`"), "{code} {words}");
    let kit = sandbox.ok(&["vault", "kit", "local"]);
    assert!(kit.contains("# vault:       local"), "{kit}");
    let checked = sandbox.json(&["vault", "check", "local"]);
    assert_eq!(checked["slots"].as_array().unwrap().len(), 1, "the slot of nobody is gone: {checked}");
    assert_eq!(checked["claim"]["mine"], true, "who changes its slots writes to it");
    let key_text = std::fs::read_to_string(&key).unwrap();
    let hex = key_text.lines().nth(2).unwrap().to_owned();
    assert_nowhere(&sandbox, &[secret_line(&kit), &hex], std::slice::from_ref(&key));

    sandbox.kill().start();
    assert_eq!(std::fs::read_to_string(&node).unwrap(), identity);
    assert_eq!(
        until_some("local is open", SOON, || Some(vault(&sandbox, "local")).filter(|v| v["state"] == "ok"))["id"],
        id
    );
    let told = sandbox.ok(&["vault", "rm", "local"]);
    assert!(told.contains("stays at") && told.contains("--kit-file"), "{told}");
    assert!(!key.exists() && dir.join("everhold-vault").exists());
    sandbox.stop().start();
    assert_eq!(sandbox.json(&["vault", "ls"])["vaults"], Value::Array(Vec::new()), "it does not come back");
    let kit_file = write(&sandbox, "kit", &kit);
    let url = format!("file://{}", dir.display());
    let back = sandbox.json(&["vault", "add", "local", &url, "--kit-file", &kit_file]);
    assert_eq!((&back["result"], &back["vault"]["id"]), (&"opened".into(), &id));
}

#[test]
fn a_lost_catalog_and_a_crash_at_the_start_lose_no_vault() {
    let mut sandbox = alone();
    let id = vault(&sandbox, "local")["id"].clone();
    sandbox.stop();
    std::fs::remove_file(sandbox.state().join("catalog.redb")).unwrap();
    sandbox.start();
    until("local is open", SOON, || vault(&sandbox, "local")["state"] == "ok");
    assert_eq!(vault(&sandbox, "local")["id"], id);
    // As after a crash between the vault and its record.
    sandbox.stop();
    std::fs::remove_file(sandbox.state().join("catalog.redb")).unwrap();
    std::fs::remove_file(sandbox.state().join("vaults/local.json")).unwrap();
    sandbox.start();
    assert_eq!(vault(&sandbox, "local")["id"], id);
}

#[test]
fn one_host_writes_and_another_takes_over() {
    let (mut one, mut two) = (sandbox(), sandbox());
    one.start();
    two.start();
    let url = format!("file://{}/shared", one.dir().display());
    let made = one.run(&["vault", "add", "shared", &url]);
    assert!(made.status.success(), "{made:?}");
    let kit = String::from_utf8(made.stdout).unwrap();
    assert!(String::from_utf8(made.stderr).unwrap().contains("not shown again"));
    let again = one.json(&["vault", "add", "shared", &url]);
    assert_eq!((&again["result"], &again["kit"]), (&"already-there".into(), &Value::Null));
    let (code, words) = one.fails(&["vault", "add", "other", &url]);
    assert!(code == 4 && words.contains("known already, as shared"), "{words}");

    let kit_file = write(&two, "kit", &kit);
    let (code, words) = two.fails(&["vault", "add", "shared", &url]);
    assert!(code == 2 && words.contains("no key was given") && words.contains("--kit-file"), "{words}");
    let other_kit = write(&two, "other-kit", &one.ok(&["vault", "kit", "local"]));
    let (code, words) = two.fails(&["vault", "add", "shared", &url, "--kit-file", &other_kit]);
    assert!(code == 2 && words.contains("opens with this recovery kit"), "{code} {words}");
    let (code, words) = two.fails(&["vault", "add", "shared", &url, "--kit-file", &kit_file]);
    assert!(code == 4 && words.contains("has been writing to") && words.contains("--take-over"), "{words}");
    assert_eq!(vault(&two, "shared"), Value::Null, "nothing is recorded");

    let read = two.json(&["vault", "add", "shared", &url, "--kit-file", &kit_file, "--read-only"]);
    assert_eq!((&read["result"], &read["vault"]["state"]), (&"opened".into(), &"read-only".into()));
    assert_eq!(two.fails(&["vault", "kit", "shared"]).0, 11);
    let checked = two.json(&["vault", "check", "shared"]);
    assert_eq!((&checked["claim"]["mine"], &checked["vault"]["abilities"]), (&false.into(), &Value::Null));

    let taken = two.json(&["vault", "add", "shared", &url, "--take-over"]);
    assert_eq!((&taken["result"], &taken["vault"]["state"]), (&"taken-over".into(), &"ok".into()), "{taken}");
    assert_eq!(two.json(&["vault", "add", "shared", &url, "--take-over"])["result"], "already-there");
    let out = one.run(&["vault", "check", "shared", "--json"]);
    let checked: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((out.status.code(), &checked["vault"]["state"]), (Some(4), &"refused".into()), "{checked}");
    let problem = checked["vault"]["problem"].as_str().unwrap();
    assert!(problem.contains("took the vault over from this host"), "{problem}");
    assert_eq!(vault(&one, "shared")["state"], "refused", "it stays so");
    one.stop().start();
    assert_eq!(one.json(&["vault", "add", "shared", &url, "--take-over"])["result"], "taken-over");
    assert_eq!(two.run(&["vault", "check", "shared"]).status.code(), Some(4));
    assert_eq!(vault(&two, "shared")["state"], "refused");

    let hex = std::fs::read_to_string(one.state().join("vaults/shared.key")).unwrap();
    let secrets = [secret_line(&kit), hex.lines().nth(2).unwrap()];
    assert_nowhere(&one, &secrets, &[one.state().join("vaults/shared.key")]);
    assert_nowhere(&two, &secrets, &[two.state().join("vaults/shared.key")]);
    let told = one.ok(&["vault", "rm", "shared"]);
    assert!(told.contains(&url), "{told}");
}

/// Puts another vault in the place of this one, as anybody can who may write there: the id and the recipient are there to be
/// read.
fn exchange(dir: &Path) {
    let store = DirStore::open(dir, DirOptions::default()).unwrap();
    let there = Descriptor::read(&store).unwrap();
    let slots = keys::slots(&store, there.id).unwrap();
    std::fs::rename(dir, dir.with_extension("before")).unwrap();
    std::fs::create_dir(dir).unwrap();
    let store = DirStore::open(dir, DirOptions::default()).unwrap();
    let (id, created, key) = (there.id, there.created, DataKey::from_bytes([8; 32]));
    for slot in slots {
        let slot = NewSlot::Recipient { recipient: slot.recipient.unwrap(), label: slot.label };
        keys::add_slot(&store, id, &key, &slot, created, &SystemRandom::new()).unwrap();
    }
    let says = format!("everhold-vault 1\n{id}\n{created}\n");
    let check = blake3::keyed_hash(&key.derive("everhold 1 vault descriptor check"), says.as_bytes());
    let text =
        format!("everhold-vault 1\n{{\"id\":\"{id}\",\"created\":\"{created}\",\"check\":\"{check}\"}}\n");
    store.create("everhold-vault", text.into()).unwrap();
}

#[test]
fn an_exchanged_vault_is_refused_with_its_kit() {
    let sandbox = alone();
    let dir = sandbox.dir().join("far");
    let url = format!("file://{}", dir.display());
    let kit = sandbox.ok(&["vault", "add", "far", &url]);
    let fingerprint = kit.lines().find_map(|line| line.strip_prefix("# fingerprint: ")).unwrap().to_owned();
    assert_eq!(sandbox.json(&["vault", "check", "far"])["fingerprint"], *fingerprint);
    let another = sandbox.ok(&["vault", "kit", "far"]);
    assert!(another.contains(&fingerprint), "every kit of a vault has the same: {another}");
    sandbox.ok(&["vault", "rm", "far"]);

    let kit_file = write(&sandbox, "kit", &kit);
    let old: String = kit
        .lines()
        .filter(|line| !line.contains("fingerprint:"))
        .fold(String::new(), |text, line| text + line + "\n");
    let old_kit = write(&sandbox, "old-kit", &old);
    let identity = write(&sandbox, "identity", secret_line(&kit));
    let noted = write(&sandbox, "noted", &format!("# fingerprint: {fingerprint}\n{}\n", secret_line(&kit)));
    let torn = write(&sandbox, "torn", &kit.replace(&fingerprint, &fingerprint[..20]));
    let add = |file: &str, more: &[&str]| {
        sandbox.run(&[&["vault", "add", "far", &url, "--kit-file", file, "--json"], more].concat())
    };
    let opened = |file: &str, warned: bool| {
        let out = add(file, &[]);
        assert!(out.status.success(), "{out:?}");
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(answer["result"], "opened");
        assert_eq!(answer["notes"].to_string().contains("can't be told"), warned, "{answer}");
        let checked = sandbox.json(&["vault", "check", "far"]);
        sandbox.ok(&["vault", "rm", "far"]);
        checked["fingerprint"].as_str().unwrap().to_owned()
    };
    for (file, warned) in [(&kit_file, false), (&noted, false), (&old_kit, true), (&identity, true)] {
        assert_eq!(opened(file, warned), fingerprint);
    }
    let out = sandbox.run(&["vault", "add", "far", &url, "--identity-file", &identity]);
    let words = String::from_utf8(out.stderr).unwrap();
    assert!(
        out.status.success() && words.contains(&fingerprint) && words.contains("can't be told"),
        "{words}"
    );
    sandbox.ok(&["vault", "rm", "far"]);
    let (code, words) = sandbox.fails(&["vault", "add", "far", &url, "--kit-file", &torn]);
    assert!(code == 2 && words.contains("line 8 of the recovery kit, the fingerprint"), "{code} {words}");

    exchange(&dir);
    let before: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for file in [&kit_file, &noted] {
        for more in [&[][..], &["--read-only"], &["--take-over"]] {
            let out = add(file, more);
            let words = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
            assert_eq!(out.status.code(), Some(9), "{words}");
            for says in
                ["not the vault that the recovery kit is for", &fingerprint, "nothing was written", "k/…"]
            {
                assert!(words.contains(says), "{says}: {words}");
            }
        }
    }
    assert_eq!(vault(&sandbox, "far"), Value::Null, "nothing is recorded");
    assert!(!sandbox.state().join("vaults/far.key").exists());
    let after: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(after, before, "nothing was written there");
    // What can't tell opens it, says so, and says which fingerprint it has.
    assert_ne!(opened(&old_kit, true), fingerprint);

    std::fs::rename(&dir, dir.with_extension("exchanged")).unwrap();
    std::fs::rename(dir.with_extension("before"), &dir).unwrap();
    assert_eq!(opened(&kit_file, false), fingerprint);
    assert_nowhere(&sandbox, &[secret_line(&kit)], &[]);
}

#[test]
fn what_is_no_place_for_a_vault_is_said() {
    let sandbox = alone();
    let dir = sandbox.dir().join("photos");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("a.jpg"), "x").unwrap();
    let url = format!("file://{}", dir.display());
    let (code, words) = sandbox.fails(&["vault", "add", "x", &url]);
    assert!(code == 4 && words.contains("not empty and not a vault"), "{words}");
    std::fs::write(dir.join("everhold-vault"), "everhold-vault 2\n").unwrap();
    let (code, words) = sandbox.fails(&["vault", "add", "x", &url]);
    assert!(code == 8 && words.contains("use a later Everhold"), "{words}");
    let kit = write(&sandbox, "kit", "AGE-SECRET-KEY-1NOTAKEY\n");
    let empty = format!("file://{}/nowhere", sandbox.dir().display());
    let (code, words) = sandbox.fails(&["vault", "add", "x", &empty, "--kit-file", &kit]);
    assert!(
        code == 12 && words.contains("no such directory") && !words.contains("NOTAKEY"),
        "{code} {words}"
    );
    for (words, says) in [
        (vec!["/srv/vault"], "write file:///srv/vault"),
        (vec!["file:///srv/x", "--region", "y"], "for s3: only"),
        (vec!["s3://key:secretsecret@bucket/x"], "keys do not belong into a URL"),
        (vec!["s3://bucket/x", "--take-over", "--read-only"], "cannot be used with"),
    ] {
        let (code, told) = sandbox.fails(&[&["vault", "add", "x"], &words[..]].concat());
        assert!(code == 2 && told.contains(says) && !told.contains("secretsecret"), "{code} {told}");
    }
    assert_eq!(sandbox.fails(&["vault", "check", "nowhere"]).0, 3);
    assert!(sandbox.ok(&["vault", "rm", "nowhere"]).contains("There was no vault"));
}

#[test]
fn a_vault_that_volumes_need_is_not_forgotten() {
    let sandbox = alone();
    let url = format!("file://{}/far", sandbox.dir().display());
    sandbox.ok(&["vault", "add", "far", &url]);
    sandbox.ok(&["volume", "create", "data", "-o", "size=32MiB", "-o", "protect=on", "-o", "vault=far"]);
    let (code, words) = sandbox.fails(&["vault", "rm", "far"]);
    assert!(code == 5 && words.contains("the history of data is in the vault far"), "{words}");
    sandbox.ok(&["volume", "rm", "data"]);
    let (_, words) = sandbox.fails(&["vault", "rm", "far"]);
    assert!(words.contains("data (in the trash)"), "{words}");
    sandbox.ok(&["trash", "empty", "--yes"]);
    sandbox.ok(&["vault", "rm", "far"]);
}

#[test]
fn a_bucket_that_comes_and_goes() {
    let server = S3Server::start();
    let mut sandbox = sandbox();
    for (key, value) in server.environment() {
        sandbox.env(&key, &value);
    }
    sandbox.start();
    let passphrase = write(&sandbox, "passphrase", "correct horse battery staple\n");
    let add = |name: &str, url: &str, more: &[&str]| {
        let endpoint = server.endpoint();
        let words = ["vault", "add", name, url, "--endpoint", &endpoint, "--json"];
        sandbox.run(&[&words[..], more].concat())
    };
    let made = add("far", "s3://vaults/one", &["--passphrase-file", &passphrase]);
    let made: Value =
        serde_json::from_slice(&made.stdout).unwrap_or_else(|error| panic!("{error}: {made:?}"));
    assert_eq!((&made["result"], &made["vault"]["warning"]), (&"created".into(), &Value::Null));
    let kit = made["kit"].as_str().unwrap().to_owned();
    let checked = sandbox.json(&["vault", "check", "far"]);
    assert_eq!(checked["vault"]["abilities"]["conditional_put"], "yes", "{checked}");
    assert_eq!((&checked["claim"]["mine"], checked["slots"].as_array().unwrap().len()), (&true.into(), 2));
    assert!(
        checked["vault"]["used"].as_u64().unwrap() > 0 && !checked["costs"].as_array().unwrap().is_empty()
    );

    // Wrong keys, no bucket, http elsewhere: said, without the keys.
    let wrong = format!("[default]\naws_access_key_id = {S3_KEY}\naws_secret_access_key = not-the-secret\n");
    let wrong = write(&sandbox, "wrong", &wrong);
    let mut told = Vec::new();
    for (url, more, code, says) in [
        ("s3://vaults/two", &["--credentials-file", wrong.as_str()][..], 12, "credentials from"),
        ("s3://vaults/two", &["--credentials-file", &wrong, "--profile", "x"], 12, "no profile [x]"),
        ("s3://no-such-bucket/two", &[], 12, "NoSuchBucket"),
    ] {
        let out = add("bad", url, more);
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(code) && text.contains(says), "{url} {more:?}: {text}");
        told.push(text);
    }
    let (code, words) =
        sandbox.fails(&["vault", "add", "bad", "s3://vaults/x", "--endpoint", "http://192.0.2.1:9"]);
    assert!(code == 12 && words.contains("not encrypted"), "{words}");
    assert!(told.iter().all(|text| !text.contains("not-the-secret") && !text.contains(S3_KEY)), "{told:?}");

    // Absent at the start: the daemon answers, and finds it later.
    server.set_off(true);
    sandbox.stop().start();
    sandbox.ok(&["volume", "ls"]);
    let away = until_some("it is seen to be absent", SOON, || {
        Some(vault(&sandbox, "far")).filter(|vault| vault["state"] == "unreachable")
    });
    assert!(away["since"].is_string() && away["problem"].is_string(), "{away}");
    let (code, words) = sandbox.fails(&["vault", "check", "far"]);
    assert_eq!(code, 12, "{words}");
    server.set_off(false);
    until("it is found", Duration::from_secs(90), || vault(&sandbox, "far")["state"] == "ok");

    // Forgotten, and opened with the passphrase.
    let again = sandbox.ok(&["vault", "rm", "far"]);
    assert!(again.contains("s3://vaults/one?endpoint="), "{again}");
    let url = server.url("one");
    let opened = sandbox.json(&["vault", "add", "back", &url, "--passphrase-file", &passphrase]);
    assert_eq!((&opened["result"], &opened["vault"]["id"]), (&"opened".into(), &made["vault"]["id"]));
    let secrets = [S3_SECRET, S3_KEY, "not-the-secret", "correct horse battery", secret_line(&kit)];
    assert_nowhere(&sandbox, &secrets, &[]);
}
