//! Histories of hosts that crash.

use crate::history::{create, cuts, mounted, now, wait_for_cut_of};
use crate::sandbox;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use testkit::{Sandbox, until};

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
