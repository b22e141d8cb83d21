//! Backups of whole containers in vaults: whole, or not there.

use crate::host::{gone, running, settled, small};
use crate::{with_docker, with_vault_keys};
use serde_json::Value;
use std::path::{Path, PathBuf};
use testkit::{S3Server, Sandbox};

fn spooled(sandbox: &Sandbox) -> usize {
    std::fs::read_dir(sandbox.state().join("spool")).map_or(0, Iterator::count)
}

/// The chunks in a directory vault.
fn chunks(vault: &Path) -> Vec<PathBuf> {
    let bundles = std::fs::read_dir(vault.join("bundles")).into_iter().flatten().flatten();
    let objects = bundles.flat_map(|bundle| std::fs::read_dir(bundle.path()).unwrap().flatten());
    objects.map(|object| object.path()).filter(|path| !path.ends_with("about")).collect()
}

#[test]
fn a_backup_in_a_vault_comes_back_from_there() {
    let server = S3Server::start();
    let mut sandbox = with_vault_keys(&server);
    sandbox.start_docker(&["busybox"]).start();
    let endpoint = server.endpoint();
    sandbox.ok(&["vault", "add", "far", "s3://vaults/one", "--endpoint", &endpoint]);
    small(&sandbox);
    let (code, told) = sandbox.fails(&["container", "backup", "small", "--to", "vault:nowhere"]);
    assert!(code == 3 && told.contains("there is no vault nowhere"), "{told}");
    for vault in ["vault", "vault:far"] {
        let made = sandbox.json(&["container", "backup", "small", "--to", vault]);
        let name = made["file"].as_str().unwrap().to_owned();
        let listed = sandbox.json(&["container", "ls", vault]);
        let [bundle] = listed["bundles"].as_array().unwrap().as_slice() else { panic!("{listed}") };
        assert!(name.ends_with(bundle["name"].as_str().unwrap()), "{name}: {listed}");
        // A vault keeps milliseconds.
        let ms = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
        assert_eq!((ms(&bundle["instant"]), &bundle["size"]), (ms(&made["instant"]), &made["size"]));
        assert_eq!(bundle["containers"], serde_json::json!(["small"]));
        assert_eq!(sandbox.json(&["container", "check", &name])["project"]["instant"], made["instant"]);
        gone(&sandbox);
        sandbox.ok(&["container", "restore", &name]);
        assert_eq!(sandbox.docker(&["exec", "small", "cat", "/d/x"]), "unmistakable");
        let plain = vault.strip_prefix("vault:").unwrap_or("local");
        let checked = sandbox.json(&["vault", "check", plain, "--deep"]);
        assert_eq!((&checked["findings"], &checked["notes"]), (&Value::Array(vec![]), &Value::Array(vec![])));
        let (code, told) = sandbox.fails(&["container", "rm", &name]);
        assert!(code == 2 && told.contains("--yes"), "{told}");
        sandbox.ok(&["container", "rm", &name, "--yes"]);
        assert_eq!(sandbox.json(&["container", "ls", vault])["bundles"], Value::Array(vec![]));
        let (code, _) = sandbox.fails(&["container", "restore", &name]);
        assert_eq!(code, 3);
        let checked = sandbox.json(&["vault", "check", plain]);
        assert_eq!(checked["findings"], Value::Array(vec![]), "{checked}");
    }
    assert_eq!(spooled(&sandbox), 0);
}

#[test]
fn a_backup_is_in_a_vault_whole_or_not_at_all() {
    let mut sandbox = with_docker(&["busybox"]);
    small(&sandbox);
    let vault = sandbox.state().join("vault-local");
    let backup = ["container", "backup", "small", "--to", "vault"];
    for fault in ["BundleChunk", "BundleChunks"] {
        sandbox.stop().env("EVERHOLD_FAULT", fault).start();
        sandbox.fails(&backup);
        sandbox.wait_for_crash().no_env("EVERHOLD_FAULT").start();
        assert_eq!(sandbox.json(&["container", "ls"])["bundles"], Value::Array(vec![]), "{fault}");
        assert_eq!(chunks(&vault).len(), 1, "{fault}");
        let checked = sandbox.json(&["vault", "check", "local"]);
        assert_eq!(checked["findings"], Value::Array(vec![]), "{checked}");
        assert!(checked["notes"].to_string().contains("was not stored to the end"), "{checked}");
        assert!(running(&sandbox, "small") && settled(&sandbox) && spooled(&sandbox) == 0, "{fault}");
    }
    // It is there, and nobody was told.
    sandbox.stop().env("EVERHOLD_FAULT", "BundleDescribed").start();
    sandbox.fails(&backup);
    sandbox.wait_for_crash().no_env("EVERHOLD_FAULT").start();
    let listed = sandbox.json(&["container", "ls"]);
    let name = format!("vault/{}", listed["bundles"][0]["name"].as_str().unwrap());
    sandbox.ok(&["container", "check", &name]);
    sandbox.ok(&["container", "rm", &name, "--yes"]);

    let made = sandbox.json(&backup);
    let name = made["file"].as_str().unwrap();
    let stored = chunks(&vault);
    assert_eq!(stored.len(), 1, "what was left is cleared away");
    gone(&sandbox);

    let whole = std::fs::read(&stored[0]).unwrap();
    let mut bad = whole.clone();
    bad[whole.len() / 2] ^= 1;
    std::fs::write(&stored[0], &bad).unwrap();
    let (code, told) = sandbox.fails(&["container", "restore", name]);
    assert!(code == 9 && told.contains("bundles/") && told.contains("/00000000"), "{code}: {told}");
    std::fs::remove_file(&stored[0]).unwrap();
    let (code, told) = sandbox.fails(&["container", "restore", name]);
    assert!(code == 9 && told.contains("/00000000"), "{code}: {told}");
    let checked = sandbox.run(&["vault", "check", "local", "--json"]);
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let [finding] = checked["findings"].as_array().unwrap().as_slice() else { panic!("{checked}") };
    assert!(finding["object"].as_str().unwrap().ends_with("/00000000"), "{finding}");
    assert_eq!(finding["wrong"], "is missing");
    assert_eq!(sandbox.docker(&["ps", "-aq"]), "");
    assert!(!sandbox.docker(&["volume", "ls", "-q"]).lines().any(|volume| volume == "data"));
    std::fs::write(&stored[0], &whole).unwrap();
    sandbox.ok(&["container", "restore", name]);
    assert_eq!(sandbox.docker(&["exec", "small", "cat", "/d/x"]), "unmistakable");
    assert_eq!(spooled(&sandbox), 0);
}
