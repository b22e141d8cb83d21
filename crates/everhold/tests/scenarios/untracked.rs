//! Histories where the kernel can't say which blocks change: everything is compared, and every cut is of one moment all the same.

use crate::history::{Counter, counted, create, cuts, mounted, wait_for_cut_of};
use crate::sandbox;
use testkit::Sandbox;

/// On a pool that is made with `mkfs`; a bpffs can't be mounted on a file.
fn untracked(mkfs: &[&str]) -> Sandbox {
    let mut sandbox = sandbox();
    let disk = sandbox.small_disk("disk", mkfs, 1 << 30);
    sandbox.configure(&format!(
        "[history]\ntracking = \"/proc/version\"\ncompare = \"1s\"\nfrozen = \"2s\"\n[pool.default]\npath = \"{}\"\nreserve = \"1%\"\n",
        disk.display()
    ));
    sandbox.start();
    sandbox
}

fn goes_on(sandbox: &Sandbox) {
    create(sandbox, "data", &["size=64MiB", "protect=1s"]);
    let path = mounted(sandbox, "data");
    let counter = Counter::start(vec![path.join("one"), path.join("two")]);
    wait_for_cut_of(sandbox, "data", &path);
    wait_for_cut_of(sandbox, "data", &path);
    let status = sandbox.json(&["protection"]);
    let method = status["volumes"][0]["method"].as_str().expect("a method");
    assert!(method.starts_with("comparing ("), "and why: {method}");
    let last = counter.stop();
    wait_for_cut_of(sandbox, "data", &path);
    let all = cuts(sandbox, "data");
    assert!(all.len() >= 3, "{all:?}");
    for (at, (point, _)) in all.iter().enumerate() {
        let verified = sandbox.json(&["verify", "data", "--at", &format!("#{point}")]);
        assert!(verified.to_string().contains("\"problems\":[]"), "{verified}");
        let name = format!("copy{at}");
        sandbox.ok(&["restore", "data", "--at", &format!("#{point}"), "--as", &name]);
        let copy = mounted(sandbox, &name);
        if copy.join("two").exists() {
            let (one, two) = (counted(&copy.join("one")), counted(&copy.join("two")));
            assert!(one == two || one == two + 1, "written one after the other: {one}, {two}");
        }
        if at + 1 == all.len() {
            assert_eq!(counted(&copy.join("one")), last);
        }
        sandbox.ok(&["volume", "unmount", &name, "--id", "test"]);
        sandbox.ok(&["volume", "rm", &name]);
    }
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
}

#[test]
fn a_volume_in_use_is_compared_by_a_clone_of_its_image() {
    goes_on(&untracked(&["mkfs.xfs", "-q"]));
}

#[test]
fn a_small_volume_in_use_is_compared_by_a_copy_where_there_are_no_clones() {
    goes_on(&untracked(&["mkfs.ext4", "-q"]));
}
