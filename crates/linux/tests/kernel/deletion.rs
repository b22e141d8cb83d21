//! Recursive deletion, which must never leave its tree.

use crate::sandbox::Sandbox;
use everhold_linux::fs::remove_tree;
use everhold_linux::mounts;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[test]
fn trees_files_and_links_are_deleted() {
    let sandbox = Sandbox::new();
    let outside = sandbox.dir("outside");
    fs::write(outside.join("keep"), "x").unwrap();
    let tree = sandbox.dir("tree/a/b/c");
    for index in 0..3000 {
        fs::write(tree.join(format!("a-rather-long-name-so-that-one-buffer-is-not-enough-{index}")), "")
            .unwrap();
    }
    sandbox.dir("tree/empty");
    symlink(&outside, sandbox.join("tree/link")).unwrap();
    symlink("nowhere", sandbox.join("tree/a/dangling")).unwrap();
    assert!(Command::new("mkfifo").arg(sandbox.join("tree/fifo")).status().unwrap().success());
    remove_tree(&sandbox.join("tree")).unwrap();
    assert!(!sandbox.join("tree").exists());

    symlink(&outside, sandbox.join("link")).unwrap();
    remove_tree(&sandbox.join("link")).unwrap();
    assert!(sandbox.join("link").symlink_metadata().is_err());
    assert!(outside.join("keep").exists(), "a link was followed");
    fs::write(sandbox.join("file"), "").unwrap();
    remove_tree(&sandbox.join("file")).unwrap();
    assert!(remove_tree(&sandbox.join("file")).unwrap_err().is_not_found());
    assert!(remove_tree(&sandbox.join("outside/..")).is_err());
    assert!(outside.join("keep").exists());
}

#[test]
fn what_is_mounted_in_the_tree_is_named_and_nothing_is_deleted() {
    let sandbox = Sandbox::new();
    let precious = sandbox.dir("precious");
    fs::write(precious.join("data"), "x").unwrap();
    let tree = sandbox.dir("tree");
    fs::write(tree.join("file"), "x").unwrap();
    let point = sandbox.dir("tree/a/point");
    let refused = |mounted: &Path| {
        let error = remove_tree(&tree).unwrap_err();
        assert_eq!(error.path.as_deref(), Some(mounted), "{error}");
        assert_eq!(error.errno(), Some(libc::EBUSY));
        assert!(tree.join("file").exists() && precious.join("data").exists());
    };
    // The same file system: the device number says nothing.
    mounts::bind(&precious, &point, false).unwrap();
    refused(&point);
    mounts::unmount(&point).unwrap();
    let memory = sandbox.tmpfs("tree/a/memory", "size=1m");
    refused(&memory);
    mounts::unmount(&memory).unwrap();
    // A file on a file.
    mounts::bind(&precious.join("data"), &tree.join("file"), false).unwrap();
    refused(&tree.join("file"));
    mounts::unmount(&tree.join("file")).unwrap();
    // The tree itself.
    mounts::bind(&precious, &tree, false).unwrap();
    let error = remove_tree(&tree).unwrap_err();
    assert_eq!(error.path.as_deref(), Some(tree.as_path()));
    mounts::unmount(&tree).unwrap();
    // The same, reached by a link on the way.
    symlink(sandbox.path(), sandbox.join("way")).unwrap();
    mounts::bind(&precious, &point, false).unwrap();
    assert!(remove_tree(&sandbox.join("way/tree")).is_err());
    refused(&point);
    mounts::unmount(&point).unwrap();
    // A link to a mount point is only a link.
    mounts::bind(&precious, &point, false).unwrap();
    symlink(&point, sandbox.join("to-point")).unwrap();
    remove_tree(&sandbox.join("to-point")).unwrap();
    mounts::unmount(&point).unwrap();
    remove_tree(&sandbox.join("way/tree")).unwrap();
    assert!(!tree.exists() && precious.join("data").exists());
}

#[test]
fn a_tree_deeper_than_any_path_is_deleted() {
    let sandbox = Sandbox::new();
    let tree = sandbox.dir("tree");
    // 200 names of 100 bytes at a time, moved below one another: no path can be that long.
    let name = "d".repeat(100);
    for _ in 0..100 {
        let chain = sandbox.join("chain");
        let mut deepest = chain.clone();
        deepest.extend(std::iter::repeat_n(&name, 30));
        fs::create_dir_all(&deepest).unwrap();
        fs::write(deepest.join("file"), "").unwrap();
        if tree.join("below").exists() {
            fs::rename(tree.join("below"), deepest.join("below")).unwrap();
        }
        fs::rename(&chain, tree.join("below")).unwrap();
    }
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn what_can_not_be_deleted_is_named() {
    struct Immutable<'a>(&'a Path);
    impl Drop for Immutable<'_> {
        fn drop(&mut self) {
            Command::new("chattr").arg("-i").arg(self.0).status().unwrap();
        }
    }
    let sandbox = Sandbox::new();
    let stuck = sandbox.dir("tree/a").join("stuck");
    fs::write(&stuck, "x").unwrap();
    assert!(Command::new("chattr").arg("+i").arg(&stuck).status().unwrap().success());
    let guard = Immutable(&stuck);
    let error = remove_tree(&sandbox.join("tree")).unwrap_err();
    assert_eq!((error.errno(), error.path.as_deref()), (Some(libc::EPERM), Some(stuck.as_path())), "{error}");
    drop(guard);
    remove_tree(&sandbox.join("tree")).unwrap();
}

#[test]
fn writers_meanwhile_do_not_send_it_elsewhere() {
    let sandbox = Sandbox::new();
    let outside = sandbox.dir("outside");
    fs::write(outside.join("keep"), "x").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A directory and a link to the outside take turns under one name.
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let here = sandbox.join("tree/a/b");
                if fs::create_dir_all(&here).is_ok() && fs::write(here.join("file"), "").is_ok() {
                    let _gone = fs::rename(&here, sandbox.join("tree/away"));
                    let _gone = symlink(&outside, &here);
                }
            }
        });
        for _ in 0..500 {
            // It may meet names that change; it must not follow them.
            let _raced = remove_tree(&sandbox.join("tree"));
            assert!(outside.join("keep").exists());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let _maybe_gone = remove_tree(&sandbox.join("tree"));
    assert!(outside.join("keep").exists() && !sandbox.join("tree").exists());
}
