//! `kill -9` between any two steps of every verb, with the real kernel: each volume is as before or as asked, and
//! nothing leaks.

use crate::{alone, growing_fs, id, in_kernel, sandbox, volumes};
use engine::Fault;
use std::collections::BTreeSet;
use std::path::PathBuf;
use testkit::Sandbox;

/// What there is: name, size, state of every volume, live and in the trash.
fn picture(sandbox: &Sandbox) -> BTreeSet<String> {
    let live = volumes(sandbox, "volume");
    let trash = volumes(sandbox, "trash");
    let rows = |list: &[serde_json::Value], state: &str| -> Vec<String> {
        list.iter().map(|v| format!("{state} {} {} {}", v["name"], v["size"], v["labels"])).collect()
    };
    rows(&live, "live").into_iter().chain(rows(&trash, "trash")).collect()
}

/// The data of `name` is what was written.
fn assert_data(sandbox: &Sandbox, name: &str) {
    let path = sandbox.ok(&["volume", "mount", name, "--id", "check"]);
    assert_eq!(std::fs::read_to_string(PathBuf::from(path.trim()).join("file")).expect("the data"), "kept");
    sandbox.ok(&["volume", "unmount", name, "--id", "check"]);
}

fn write_data(sandbox: &Sandbox, name: &str) {
    let path = sandbox.ok(&["volume", "mount", name, "--id", "write"]);
    std::fs::write(PathBuf::from(path.trim()).join("file"), "kept").expect("write");
    sandbox.ok(&["volume", "unmount", name, "--id", "write"]);
}

fn assert_no_leak(sandbox: &Sandbox, mounted: usize) {
    assert_eq!(in_kernel(sandbox), (mounted, mounted), "mounts and loop devices");
    let known = volumes(sandbox, "volume").len() + volumes(sandbox, "trash").len();
    let homes = std::fs::read_dir(sandbox.pool().join("volumes")).expect("the pool").count();
    assert_eq!(homes, known, "every home belongs to a volume");
    let mountpoints = std::fs::read_dir(sandbox.state().join("mnt")).expect("mnt").count();
    assert_eq!(mountpoints, mounted, "mount points");
}

type Case = (&'static [&'static str], &'static [&'static str], &'static [Fault], bool);

/// What is done before, the verb, its fault points, and whether the volume `data` is there to be checked afterwards.
const CASES: [Case; 9] = [
    (
        &[],
        &["volume", "create", "new", "-o", "size=32MiB"],
        &[Fault::CreateRecorded, Fault::CreateHome, Fault::CreateMade, Fault::CreateDescribed],
        true,
    ),
    (&[], &["volume", "mount", "data", "--id", "h"], &[Fault::AttachRecorded, Fault::AttachMounted], true),
    (
        &["volume mount data --id h"],
        &["volume", "unmount", "data", "--id", "h"],
        &[Fault::DetachUnmounted],
        true,
    ),
    (&[], &["volume", "grow", "data", "400MiB"], &[Fault::GrowRecorded, Fault::GrowDone], true),
    (&[], &["volume", "label", "data", "env=prod"], &[Fault::LabelDescribed], true),
    (&[], &["volume", "rename", "data", "other"], &[Fault::RenameDescribed], false),
    (&[], &["volume", "rm", "data"], &[Fault::RemoveDescribed], false),
    (&["volume rm data"], &["trash", "restore", "data"], &[Fault::RestoreDescribed], false),
    (
        &["volume rm data"],
        &["trash", "empty", "--yes"],
        &[Fault::DestroyRecorded, Fault::DestroyData, Fault::DestroyHome],
        false,
    ),
];

#[test]
fn every_verb_interrupted_at_every_step() {
    let mut reached = 0;
    for (before, verb, faults, data_stays) in CASES {
        for fault in faults {
            let mut sandbox = alone();
            sandbox.ok(&["volume", "create", "data", "-o", "size=320MiB", "-o", growing_fs()]);
            write_data(&sandbox, "data");
            for words in before {
                sandbox.ok(&words.split(' ').collect::<Vec<_>>());
            }
            let old = picture(&sandbox);
            sandbox.stop().env("EVERHOLD_FAULT", &format!("{fault:?}")).start();
            sandbox.fails(verb);
            sandbox.wait_for_crash().no_env("EVERHOLD_FAULT").start();
            reached += 1;

            let after_crash = picture(&sandbox);
            let holders = volumes(&sandbox, "volume")
                .iter()
                .filter(|v| v["attachments"].as_array().is_some_and(|list| !list.is_empty()))
                .count();
            assert_no_leak(&sandbox, holders);
            // Asking again ends where it would have ended, and the one crash left either that or the old state.
            // Where the crash came after the fact, restore and rename have nothing left that goes by the old name.
            let done_already = matches!(verb[1], "restore" | "rename") && after_crash != old;
            if !done_already {
                sandbox.ok(verb);
            }
            let asked = picture(&sandbox);
            assert!(
                after_crash == old || after_crash == asked,
                "{fault:?}: {after_crash:?} is neither {old:?} nor {asked:?}"
            );
            sandbox.run(&["volume", "unmount", "data", "--id", "h"]);
            if data_stays {
                assert_data(&sandbox, "data");
            } else if let Some(name) =
                ["data", "other"].into_iter().find(|name| asked.iter().any(|row| row.contains(name)))
            {
                if asked.iter().any(|row| row.starts_with("trash")) {
                    sandbox.ok(&["trash", "restore", name]);
                }
                assert_data(&sandbox, name);
            }
            assert_no_leak(&sandbox, 0);
        }
    }
    assert_eq!(reached, Fault::ALL.len(), "every fault point has its case");
}

#[test]
fn a_reboot_drops_attachments_and_checks_the_images() {
    let mut sandbox = sandbox();
    std::fs::write(sandbox.dir().join("boot_id"), "first\n").unwrap();
    sandbox.start();
    sandbox.ok(&["volume", "create", "data", "-o", "size=64MiB"]);
    sandbox.ok(&["volume", "create", "memory", "-o", "driver=tmpfs", "-o", "size=8MiB"]);
    let path = PathBuf::from(sandbox.ok(&["volume", "mount", "data", "--id", "h"]).trim());
    let memory = PathBuf::from(sandbox.ok(&["volume", "mount", "memory", "--id", "h"]).trim());
    std::fs::write(memory.join("file"), "gone").unwrap();
    std::fs::write(path.join("file"), "kept").unwrap();
    std::fs::File::open(path.join("file")).and_then(|file| file.sync_all()).unwrap();
    // What a power cut leaves of an image: a copy of it as it is now, with a journal to replay.
    let image = sandbox.pool().join("volumes").join(id(&sandbox, "data")).join("image");
    let copy = sandbox.dir().join("copy");
    linux::freeze::sync(&path).unwrap();
    std::fs::copy(&image, &copy).unwrap();
    sandbox.kill();
    for mount in linux::mounts::below(&sandbox.state()).unwrap() {
        linux::mounts::unmount(&mount.target).unwrap();
    }
    std::fs::copy(&copy, &image).unwrap();
    std::fs::write(sandbox.dir().join("boot_id"), "second\n").unwrap();

    sandbox.start();
    assert!(sandbox.log().contains("from before the reboot"), "{}", sandbox.log());
    for name in ["data", "memory"] {
        assert_eq!(sandbox.json(&["volume", "inspect", name])["attachments"], serde_json::json!([]));
    }
    assert_data(&sandbox, "data");
    let told = sandbox.ok(&["volume", "inspect", "memory"]);
    assert!(told.contains("lost on reboot"), "{told}");
    let memory = PathBuf::from(sandbox.ok(&["volume", "mount", "memory", "--id", "h"]).trim());
    assert!(!memory.join("file").exists());
}

#[test]
fn a_lost_catalog_is_rebuilt_from_the_descriptions() {
    let mut sandbox = alone();
    sandbox.ok(&["volume", "create", "data", "-o", "size=32MiB", "--label", "env=prod"]);
    write_data(&sandbox, "data");
    sandbox.ok(&["volume", "create", "removed", "-o", "size=32MiB"]);
    sandbox.ok(&["volume", "rm", "removed"]);
    sandbox.ok(&["volume", "create", "mounted", "-o", "size=32MiB"]);
    sandbox.ok(&["volume", "mount", "mounted", "--id", "h"]);
    let before = picture(&sandbox);
    sandbox.kill();

    let catalog = sandbox.state().join("catalog.redb");
    let whole = std::fs::read(&catalog).unwrap();
    // Damage of several kinds: never a wrong catalog, and never a crash without a word.
    let mut flipped = whole.clone();
    flipped[64..4096].iter_mut().for_each(|byte| *byte ^= 0x55);
    for damage in [b"garbage".to_vec(), whole[..whole.len() / 2].to_vec(), flipped] {
        std::fs::write(&catalog, damage).unwrap();
        let told = sandbox.start_in_vain();
        assert!(told.contains("recover --scan"), "{told}");
    }
    let config = sandbox.config_file();
    let config = config.to_str().unwrap();
    sandbox.ok(&["recover", "--scan", "--dry-run", "--config", config]);
    sandbox.ok(&["recover", "--scan", "--config", config]);
    sandbox.start();
    assert_eq!(picture(&sandbox), before);
    assert_data(&sandbox, "data");
    let mounted = sandbox.json(&["volume", "inspect", "mounted"]);
    assert_eq!(
        mounted["attachments"].as_array().map(Vec::len),
        Some(1),
        "a mounted volume has a holder: {mounted}"
    );
    sandbox.fails(&["recover", "--scan", "--config", config]);
}

#[test]
fn growing_a_volume_can_be_killed_at_any_moment() {
    let mut sandbox = alone();
    let mut interrupted = 0;
    for round in 0_u64..8 {
        let name = format!("data{round}");
        sandbox.ok(&["volume", "create", &name, "-o", "size=320MiB", "-o", growing_fs()]);
        write_data(&sandbox, &name);
        let growing = std::thread::scope(|scope| {
            let client = scope.spawn(|| sandbox.run(&["volume", "grow", &name, "8GiB"]));
            // From before the first step to after the last one.
            std::thread::sleep(std::time::Duration::from_millis(4 + round * 5));
            let killed = std::process::Command::new("kill").args(["-9", &sandbox.pid().to_string()]).status();
            assert!(killed.expect("kill").success());
            client.join().expect("the client")
        });
        interrupted += usize::from(!growing.status.success());
        sandbox.wait_for_crash().start();
        assert_data(&sandbox, &name);
        sandbox.ok(&["volume", "grow", &name, "8GiB"]);
        assert_data(&sandbox, &name);
        let home = sandbox.pool().join("volumes").join(id(&sandbox, &name));
        // A growth whose program was killed goes on in the kernel, and its file system with it.
        testkit::until("the kernel has finished", std::time::Duration::from_secs(120), || {
            in_kernel(&sandbox) == (0, 0)
        });
        let check = if growing_fs() == "fs=ext4" { ("e2fsck", "-fn") } else { ("xfs_repair", "-n") };
        let checked = std::process::Command::new(check.0).arg(check.1).arg(home.join("image")).output();
        let checked = checked.expect(check.0);
        assert!(checked.status.success(), "the file system is not whole: {checked:?}");
        sandbox.ok(&["volume", "rm", &name]);
        sandbox.ok(&["trash", "empty", "--yes"]);
    }
    assert!(interrupted > 0, "no growth was interrupted: this proves nothing");
}

#[test]
fn a_lost_catalog_is_not_a_new_installation() {
    let mut sandbox = alone();
    sandbox.ok(&["volume", "create", "data", "-o", "size=32MiB"]);
    write_data(&sandbox, "data");
    sandbox.stop();
    let catalog = sandbox.state().join("catalog.redb");
    for lose in [|path: &PathBuf| std::fs::remove_file(path), |path: &PathBuf| std::fs::write(path, "")] {
        lose(&catalog).unwrap();
        let told = sandbox.start_in_vain();
        assert!(told.contains("recover --scan"), "{told}");
    }
    let config = sandbox.config_file();
    sandbox.ok(&["recover", "--scan", "--config", config.to_str().unwrap()]);
    sandbox.start();
    assert_data(&sandbox, "data");
}

#[test]
fn a_read_only_volume_that_was_left_writable_is_mounted_anew() {
    let mut sandbox = alone();
    sandbox.ok(&["volume", "create", "sealed", "-o", "size=320MiB", "-o", "fs=xfs", "-o", "readonly=true"]);
    sandbox.stop();
    // What a growth that is killed leaves.
    let volumes = std::fs::read_dir(sandbox.pool().join("volumes")).unwrap();
    let home = volumes.flatten().next().unwrap().path();
    let at = sandbox.state().join("mnt").join(home.file_name().unwrap());
    let leave = || {
        std::fs::create_dir(&at).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-o", "loop"])
            .arg(home.join("image"))
            .arg(&at)
            .status();
        assert!(mounted.unwrap().success());
    };
    leave();
    sandbox.start();
    assert_eq!(in_kernel(&sandbox), (0, 0), "start-up unmounts what nobody holds");
    leave();
    let path = PathBuf::from(sandbox.ok(&["volume", "mount", "sealed", "--id", "h"]).trim());
    let error = std::fs::write(path.join("file"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    sandbox.ok(&["volume", "unmount", "sealed", "--id", "h"]);
    assert_eq!(in_kernel(&sandbox), (0, 0));
}
