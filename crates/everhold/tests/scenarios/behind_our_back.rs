//! Things that others do to what is ours.

use crate::{alone, id, in_kernel, with_docker};
use std::path::PathBuf;
use testkit::{BUSYBOX, Sandbox};

fn image(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.pool().join("volumes").join(id(sandbox, name)).join("image")
}

#[test]
fn images_deleted_truncated_or_replaced_are_never_mounted() {
    let sandbox = alone();
    for name in ["deleted", "truncated", "replaced", "swapped", "linked"] {
        sandbox.ok(&["volume", "create", name, "-o", "size=32MiB"]);
    }
    std::fs::remove_file(image(&sandbox, "deleted")).unwrap();
    let cut = std::fs::OpenOptions::new().write(true).open(image(&sandbox, "truncated")).unwrap();
    cut.set_len(1 << 20).unwrap();
    std::fs::write(image(&sandbox, "replaced"), vec![7; 32 << 20]).unwrap();
    let other = image(&sandbox, "linked");
    std::fs::copy(&other, image(&sandbox, "swapped")).unwrap();
    std::fs::rename(&other, sandbox.dir().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(sandbox.dir().join("elsewhere"), &other).unwrap();

    for (name, word) in [
        ("deleted", "missing"),
        ("truncated", "cut short"),
        ("replaced", "no file system"),
        ("swapped", "something else"),
        ("linked", "not a regular file"),
    ] {
        let (code, told) = sandbox.fails(&["volume", "mount", name]);
        assert_eq!(code, 9, "{name}: {told}");
        assert!(told.contains(word) && told.contains("Next:"), "{name}: {told}");
        let inspected = sandbox.ok(&["volume", "inspect", name]);
        assert!(inspected.contains(word), "{name}: {inspected}");
        // It can still be removed and destroyed.
        sandbox.ok(&["volume", "rm", name]);
    }
    sandbox.ok(&["trash", "empty", "--yes"]);
    assert_eq!(in_kernel(&sandbox), (0, 0));
    assert!(sandbox.dir().join("elsewhere").exists(), "a link's target is not ours to delete");
}

#[test]
fn a_mount_undone_by_someone_else_never_leads_to_two_devices() {
    let mut sandbox = with_docker(&["busybox"]);
    sandbox.volume("data", &["size=64MiB"]);
    let run =
        ["run", "-d", "--name", "first", "--network", "none", "-v", "data:/data", BUSYBOX, "sleep", "1000"];
    sandbox.docker(&run);
    let mountpoint = sandbox.state().join("mnt").join(id(&sandbox, "data"));
    linux::mounts::unmount(&mountpoint).unwrap();
    // The first container still has the file system; the second must get that one and no other.
    sandbox.shell(&["-v", "data:/data"], "echo second > /data/file");
    assert_eq!(sandbox.docker(&["exec", "first", "cat", "/data/file"]), "second");
    assert_eq!(in_kernel(&sandbox).1, 1, "one loop device");

    // The same across a restart of the daemon.
    linux::mounts::unmount(&mountpoint).unwrap();
    sandbox.kill().start();
    assert!(sandbox.log().contains("mounted again"), "{}", sandbox.log());
    sandbox.shell(&["-v", "data:/data"], "echo third > /data/file");
    assert_eq!(sandbox.docker(&["exec", "first", "cat", "/data/file"]), "third");
    assert_eq!(in_kernel(&sandbox), (1, 1));
    sandbox.docker(&["rm", "-f", "first"]);
    assert_eq!(in_kernel(&sandbox), (0, 0));
}

#[test]
fn a_read_only_state_directory_is_refused_in_words_and_loses_nothing() {
    let mut sandbox = alone();
    sandbox.ok(&["volume", "create", "data", "-o", "size=32MiB"]);
    sandbox.stop();
    let state = sandbox.state();
    linux::mounts::bind(&state, &state, true).unwrap();
    let told = sandbox.start_in_vain();
    assert!(told.contains("Read-only file system") && told.contains(&state.display().to_string()), "{told}");
    linux::mounts::unmount(&state).unwrap();
    sandbox.start();
    sandbox.ok(&["volume", "mount", "data", "--id", "h"]);
    sandbox.ok(&["volume", "unmount", "data", "--id", "h"]);
}

#[test]
fn a_description_that_can_not_be_written_changes_nothing() {
    let sandbox = alone();
    sandbox.ok(&["volume", "create", "data", "-o", "size=32MiB"]);
    let home = image(&sandbox, "data").parent().unwrap().to_owned();
    linux::mounts::bind(&home, &home, true).unwrap();
    for words in [
        &["volume", "rm", "data"][..],
        &["volume", "rename", "data", "other"],
        &["volume", "label", "data", "a=b"],
    ] {
        let (_, told) = sandbox.fails(words);
        assert!(told.contains("Read-only file system") && told.contains("Next:"), "{told}");
    }
    linux::mounts::unmount(&home).unwrap();
    let inspected = sandbox.json(&["volume", "inspect", "data"]);
    assert_eq!(inspected["labels"], serde_json::json!({}));
    sandbox.ok(&["volume", "rm", "data"]);
}

#[test]
fn holders_are_shown_as_lsof_would() {
    let sandbox = alone();
    for driver in ["image", "dir"] {
        let option = format!("driver={driver}");
        sandbox.ok(&["volume", "create", driver, "-o", &option]);
        let path = PathBuf::from(sandbox.ok(&["volume", "mount", driver, "--id", "h"]).trim());
        let writing = std::fs::File::create(path.join("written")).unwrap();
        let reading = std::fs::File::open(path.join("written")).unwrap();
        let told = sandbox.json(&["volume", "holders", driver]);
        let me = u64::from(std::process::id());
        let process = told["processes"].as_array().unwrap().iter().find(|process| process["pid"] == me);
        let text = process.unwrap_or_else(|| panic!("{told}")).to_string();
        assert!(text.contains("read-write") && text.contains("data/written"), "{text}");
        drop((writing, reading));
        // Other tests of this process start programs, and between fork and exec those have our files too.
        testkit::until("the files are closed", std::time::Duration::from_secs(10), || {
            !sandbox.json(&["volume", "holders", driver])["processes"].to_string().contains("written")
        });
        sandbox.ok(&["volume", "unmount", driver, "--id", "h"]);
    }
}

#[test]
fn deleted_files_give_their_space_back_to_the_host() {
    let sandbox = alone();
    for fs in ["ext4", "xfs"] {
        sandbox.ok(&["volume", "create", fs, "-o", "size=512MiB", "-o", &format!("fs={fs}")]);
        let path = PathBuf::from(sandbox.ok(&["volume", "mount", fs, "--id", "h"]).trim());
        let allocated = || sandbox.json(&["volume", "usage", fs])["allocated"].as_u64().unwrap() >> 20;
        let before = allocated();
        std::fs::write(path.join("file"), vec![7; 128 << 20]).unwrap();
        linux::freeze::sync(&path).unwrap();
        let full = allocated();
        assert!(full >= before + 128, "{fs}: {before} {full}");
        std::fs::remove_file(path.join("file")).unwrap();
        testkit::until("the space is given back", std::time::Duration::from_secs(20), || {
            linux::freeze::sync(&path).unwrap();
            allocated() < full - 120
        });
        let seen = sandbox.json(&["volume", "inspect", fs]);
        assert_eq!(seen["direct_io"], serde_json::json!(true), "{seen}");
        sandbox.ok(&["volume", "unmount", fs, "--id", "h"]);
    }
}

#[test]
fn where_direct_io_is_not_possible_it_works_and_says_so() {
    let mut sandbox = crate::sandbox();
    let disk = sandbox.disk_with_large_sectors("disk", 256 << 20);
    sandbox.configure(&format!("[pool.default]\npath = \"{}\"\n", disk.display())).start();
    for (name, size, direct) in [("large", "size=64MiB", true), ("small", "size=8MiB", false)] {
        sandbox.ok(&["volume", "create", name, "-o", size]);
        let path = PathBuf::from(sandbox.ok(&["volume", "mount", name, "--id", "h"]).trim());
        std::fs::write(path.join("file"), "kept").unwrap();
        let seen = sandbox.json(&["volume", "inspect", name]);
        assert_eq!(seen["direct_io"], serde_json::json!(direct), "{seen}");
        assert_eq!(sandbox.ok(&["volume", "inspect", name]).contains("cached twice"), !direct);
        sandbox.ok(&["volume", "unmount", name, "--id", "h"]);
    }
}
