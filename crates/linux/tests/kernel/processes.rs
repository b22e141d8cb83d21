//! Who has what open, and locks between processes.

use crate::sandbox::{Sandbox, Script};
use everhold_linux::lock::{LockError, PidLock};
use everhold_linux::procs::{Access, Holder, Target, Use, What, open_files};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn of(holders: &[Holder], pid: u32) -> &[Use] {
    holders.iter().find(|holder| holder.pid == pid).map_or(&[], |holder| &holder.uses)
}

fn has(uses: &[Use], what: What, path: &Path, access: Access) -> bool {
    uses.contains(&Use { what, path: path.to_owned(), access })
}

#[test]
fn every_kind_of_use_is_seen() {
    let sandbox = Sandbox::new();
    let volume = sandbox.mounted("volume", "mkfs.ext4", &[]);
    let dev = volume.metadata().unwrap().dev();
    fs::copy("/bin/sh", volume.join("shell")).unwrap();
    let dir = volume.display();
    let script = format!(
        "cd {dir}; exec 3<>{dir}/both 4>{dir}/write 5<{dir}/shell 6<>{dir}/gone; rm {dir}/gone; exec {dir}/shell -c 'echo ready; read -r _'"
    );
    let process = Script::start(&[], &script);
    let bystander = Script::start(&[], "cd /");
    let tree = Target::Tree(&volume);
    for target in [Target::Device(dev), tree] {
        let holders = open_files(&target).unwrap();
        let uses = of(&holders, process.pid());
        assert!(has(uses, What::Cwd, &volume, Access::Read), "{uses:?}");
        assert!(has(uses, What::Fd(3), &volume.join("both"), Access::ReadWrite), "{uses:?}");
        assert!(has(uses, What::Fd(4), &volume.join("write"), Access::Write), "{uses:?}");
        assert!(has(uses, What::Fd(5), &volume.join("shell"), Access::Read), "{uses:?}");
        assert!(has(uses, What::Fd(6), &volume.join("gone (deleted)"), Access::ReadWrite), "{uses:?}");
        assert!(has(uses, What::Map, &volume.join("shell"), Access::Read), "{uses:?}");
        assert_eq!(of(&holders, bystander.pid()), []);
        let holder = holders.iter().find(|holder| holder.pid == process.pid()).unwrap();
        assert_eq!(holder.command, "shell");
    }
    let pid = process.pid();
    process.end();
    assert_eq!(of(&open_files(&Target::Device(dev)).unwrap(), pid), []);
}

#[test]
fn a_tree_is_recognised_in_another_namespace_under_another_name() {
    let sandbox = Sandbox::new();
    let tree = sandbox.dir("tree");
    let (beside, inside) = (sandbox.dir("tree-beside"), sandbox.dir("container"));
    sandbox.dir("tree/sub");
    // Like a container: what it sees at /…/container is our /…/tree/sub.
    let script = format!(
        "mount --bind {0}/sub {1}; exec 3>{1}/file 4>{2}/other",
        tree.display(),
        inside.display(),
        beside.display()
    );
    let container = Script::start(&["unshare", "-m", "--propagation", "private"], &script);
    let holders = open_files(&Target::Tree(&tree)).unwrap();
    let uses = of(&holders, container.pid());
    assert_eq!(uses.len(), 1, "{uses:?}");
    assert!(has(uses, What::Fd(3), &inside.join("file"), Access::Write), "{uses:?}");
    let holders = open_files(&Target::Tree(&beside)).unwrap();
    assert!(has(of(&holders, container.pid()), What::Fd(4), &beside.join("other"), Access::Write));
    assert!(open_files(&Target::Tree(&sandbox.join("none"))).unwrap_err().is_not_found());
}

#[test]
fn a_tree_is_known_by_a_link_too() {
    let sandbox = Sandbox::new();
    let tree = sandbox.dir("tree");
    std::os::unix::fs::symlink(&tree, sandbox.join("link")).unwrap();
    let _open = File::create(tree.join("file")).unwrap();
    let holders = open_files(&Target::Tree(&sandbox.join("link"))).unwrap();
    assert!(of(&holders, std::process::id()).iter().any(|found| found.path == tree.join("file")));
}

#[test]
fn who_reads_the_device_uses_the_file_system() {
    let sandbox = Sandbox::new();
    let file = sandbox.image("image", 1);
    let device = sandbox.attach("image", &file);
    let holders = open_files(&Target::Device(device.dev())).unwrap();
    assert!(of(&holders, std::process::id()).iter().any(|found| found.path == device.path()));
}

#[test]
fn processes_that_come_and_go_do_not_matter() {
    let sandbox = Sandbox::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(std::process::Command::new("true").status().unwrap().success());
            }
        });
        for _ in 0..20 {
            open_files(&Target::Tree(sandbox.path())).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn one_process_at_a_time_has_the_lock() {
    let sandbox = Sandbox::new();
    let path = sandbox.join("lock");
    let lock = PidLock::acquire(&path).unwrap();
    match PidLock::acquire(&path) {
        Err(LockError::Held { pid }) => assert_eq!(pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    let try_lock =
        || std::process::Command::new("flock").arg("-n").arg(&path).arg("true").status().unwrap().success();
    assert!(!try_lock(), "another process got it too");
    drop(lock);
    assert!(try_lock());

    // Another process has it, with its own number, and is killed.
    let text = path.display().to_string();
    let other = Script::start(&["flock", "-n", "-F", &text], &format!("echo $$ >{text}"));
    match PidLock::acquire(&path) {
        Err(LockError::Held { pid }) => assert_eq!(pid, other.pid()),
        other => panic!("{other:?}"),
    }
    drop(other);
    let lock = PidLock::acquire(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    drop(lock);
    assert!(
        matches!(PidLock::acquire(&sandbox.join("none/lock")), Err(LockError::Io(error)) if error.is_not_found())
    );
}
