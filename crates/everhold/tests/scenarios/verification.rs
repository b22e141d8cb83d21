//! Cuts are restored and checked by a schedule, what is found is remembered, and what is wrong is said loudly.

use crate::history::{create, mounted, wait_for_cut_of};
use crate::{id, sandbox};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::{Sandbox, until};

fn verdict(sandbox: &Sandbox, name: &str) -> Option<bool> {
    let status = sandbox.json(&["protection"]);
    let volumes = status["volumes"].as_array().expect("volumes");
    volumes.iter().find(|volume| volume["name"] == name).and_then(|volume| volume["verified_whole"].as_bool())
}

fn by_schedule(every: &str) -> Sandbox {
    let mut sandbox = sandbox();
    sandbox.configure(&format!("[history]\nprotect = \"off\"\nupkeep = \"1s\"\nverify = \"{every}\"\n"));
    sandbox.start();
    sandbox
}

fn write_and_rest(sandbox: &Sandbox, name: &str) {
    let path = mounted(sandbox, name);
    std::fs::write(path.join("file"), vec![7; 3 << 20]).expect("write");
    wait_for_cut_of(sandbox, name, &path);
    sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
}

#[test]
fn volumes_are_verified_by_a_schedule_and_that_is_remembered() {
    let mut sandbox = by_schedule("1s");
    create(&sandbox, "small", &["size=64MiB", "protect=100ms"]);
    create(&sandbox, "large", &["size=320MiB", "fs=xfs", "protect=100ms"]);
    for name in ["small", "large"] {
        write_and_rest(&sandbox, name);
        until("it is verified", Duration::from_secs(60), || verdict(&sandbox, name) == Some(true));
        let home = sandbox.state().join("pools/default/volumes").join(id(&sandbox, name));
        until("no scratch stays", Duration::from_secs(10), || !home.join("verify").exists());
    }
    sandbox.kill();
    sandbox.configure("[history]\nprotect = \"off\"\nverify = \"off\"\n");
    sandbox.start();
    for name in ["small", "large"] {
        assert_eq!(verdict(&sandbox, name), Some(true), "also after a restart");
    }
}

/// The objects of segments of a directory vault.
fn parts(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(parts(&path));
        } else if path.parent().is_some_and(|parent| parent.ends_with("s")) {
            found.push(path);
        }
    }
    found
}

#[test]
fn damage_in_a_vault_is_found_and_the_object_is_named() {
    let sandbox = by_schedule("1s");
    create(&sandbox, "data", &["size=64MiB", "protect=100ms"]);
    write_and_rest(&sandbox, "data");
    until("it is whole", Duration::from_secs(60), || verdict(&sandbox, "data") == Some(true));
    let mut all = parts(&sandbox.state().join("vault-local/h"));
    all.sort_by_key(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
    let largest = all.pop().expect("a segment");
    let file = std::fs::File::options().read(true).write(true).open(&largest).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5000).expect("read");
    file.write_all_at(&[byte[0] ^ 1], 5000).expect("write");
    until("the damage is found", Duration::from_secs(60), || verdict(&sandbox, "data") == Some(false));
    let name = largest.file_name().and_then(|name| name.to_str()).expect("a name");
    let (_, told) = sandbox.fails(&["verify", "data"]);
    assert!(told.contains(name) || sandbox.log().contains(name), "the object is named: {told}");
    assert!(sandbox.log().contains("found something wrong"), "said loudly");
    let checked = sandbox.run(&["vault", "check", "local", "--deep"]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && told.contains(name), "{told}");
    // One object that is gone is noticed without reading anything.
    std::fs::remove_file(&largest).expect("remove");
    let checked = sandbox.run(&["vault", "check", "local"]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && told.contains(name), "{told}");
}

#[test]
fn a_flaw_in_the_file_system_itself_is_found() {
    let sandbox = by_schedule("off");
    create(&sandbox, "data", &["size=64MiB", "protect=100ms"]);
    write_and_rest(&sandbox, "data");
    // As if the file system's own code had done it: the block bitmap of the first group is all ones.
    let image = sandbox.state().join("pools/default/volumes").join(id(&sandbox, "data")).join("image");
    let told = std::process::Command::new("dumpe2fs").arg(&image).output().expect("dumpe2fs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let bitmap = told.lines().find_map(|line| line.trim().strip_prefix("Inode bitmap at "));
    let bitmap: u64 =
        bitmap.and_then(|at| at.split([' ', ',']).next()).and_then(|at| at.parse().ok()).expect("its place");
    let file = std::fs::File::options().write(true).open(&image).expect("open");
    let size: u64 =
        told.lines().find_map(|line| line.strip_prefix("Block size:")?.trim().parse().ok()).expect("a size");
    file.write_all_at(&vec![0xff; size as usize / 2], bitmap * size).expect("write");
    file.sync_all().expect("sync");
    sandbox.ok(&["protect", "data", "--off"]);
    sandbox.ok(&["protect", "data", "--interval", "100ms"]);
    until("it is cut as it is", Duration::from_secs(30), || {
        let out = sandbox.run(&["verify", "data"]);
        String::from_utf8_lossy(&out.stdout).contains("verify") || !out.status.success()
    });
    assert_eq!(verdict(&sandbox, "data"), Some(false));
}
