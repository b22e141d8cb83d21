//! Loop devices.

use crate::sandbox::{PLAIN, Sandbox, Script, soon};
use everhold_linux::Change;
use everhold_linux::loopdev::{self, LoopOptions};
use everhold_linux::mounts::{self, MountFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Barrier;

#[test]
fn a_device_shows_its_file_and_goes_with_its_last_user() {
    let sandbox = Sandbox::new();
    let file = sandbox.image("image", 8);
    assert!(loopdev::find(&file).unwrap().is_none());
    let device = sandbox.attach("image", &file);
    assert_eq!(device.size_bytes().unwrap(), 8 << 20);
    assert_eq!(device.path().metadata().unwrap().rdev(), device.dev());
    assert!(device.direct_io().unwrap(), "the sandbox is not on a file system with direct I/O");
    file.write_all_at(b"hello", 4096).unwrap();
    file.sync_all().unwrap();
    let mut seen = [0; 5];
    device.file().read_exact_at(&mut seen, 4096).unwrap();
    assert_eq!(&seen, b"hello");

    let info = loopdev::list().unwrap().into_iter().find(|info| info.number == device.number()).unwrap();
    assert_eq!(info.backing_file, sandbox.join("image"));
    assert_eq!(info.dev, device.dev());
    assert!(info.autoclear && info.direct_io && !info.deleted && !info.read_only);

    file.set_len(16 << 20).unwrap();
    assert_eq!(device.size_bytes().unwrap(), 8 << 20);
    device.refresh_size().unwrap();
    assert_eq!(device.size_bytes().unwrap(), 16 << 20);

    let again = loopdev::find(&file).unwrap().unwrap();
    assert_eq!(again.number(), device.number());
    drop(device);
    assert!(loopdev::find(&file).unwrap().is_some(), "one handle still holds it");
    drop(again);
    soon("detached", || loopdev::find(&file).unwrap().is_none());
}

#[test]
fn options_are_kept() {
    let sandbox = Sandbox::new();
    let file = sandbox.image("image", 1);
    let options = LoopOptions { read_only: true, direct_io: false, block_size: 1024 };
    let device = loopdev::attach(&file, &sandbox.join("image"), &options).unwrap();
    assert!(!device.direct_io().unwrap());
    let info = loopdev::list().unwrap().into_iter().find(|info| info.number == device.number()).unwrap();
    assert!(info.read_only && !info.direct_io);
    let queue = format!("/sys/block/loop{}/queue/logical_block_size", device.number());
    assert_eq!(std::fs::read_to_string(queue).unwrap().trim(), "1024");
}

#[test]
fn where_direct_io_can_not_be_the_device_is_made_all_the_same() {
    let sandbox = Sandbox::new();
    let file = sandbox.image("image", 1);
    // Smaller than what the file's own device may be able to write; the kernel decides, and says so.
    let options = LoopOptions { block_size: 512, ..PLAIN };
    let device = loopdev::attach(&file, &sandbox.join("image"), &options).unwrap();
    device.direct_io().unwrap();
    let bad = LoopOptions { block_size: 3000, ..PLAIN };
    let error = loopdev::attach(&file, &sandbox.join("image"), &bad).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
}

#[test]
fn a_deleted_or_renamed_file_is_found() {
    let sandbox = Sandbox::new();
    let file = sandbox.image("old (deleted)", 1);
    let device = sandbox.attach("old (deleted)", &file);
    let info = |number| loopdev::list().unwrap().into_iter().find(|info| info.number == number).unwrap();
    assert!(!info(device.number()).deleted, "the name only looks like it");
    std::fs::rename(sandbox.join("old (deleted)"), sandbox.join("new")).unwrap();
    assert_eq!(loopdev::find(&file).unwrap().unwrap().number(), device.number());
    std::fs::hard_link(sandbox.join("new"), sandbox.join("other")).unwrap();
    let other = File::open(sandbox.join("other")).unwrap();
    assert_eq!(loopdev::find(&other).unwrap().unwrap().number(), device.number());
    std::fs::remove_file(sandbox.join("other")).unwrap();
    std::fs::remove_file(sandbox.join("new")).unwrap();
    assert_eq!(loopdev::find(&file).unwrap().unwrap().number(), device.number());
    let seen = info(device.number());
    assert!(seen.deleted);
    assert_eq!(seen.backing_file, sandbox.join("new"));
    // A new file of that name is another file.
    let fresh = sandbox.image("new", 1);
    assert!(loopdev::find(&fresh).unwrap().is_none());
}

#[test]
fn a_file_on_a_file_system_without_a_device_is_found() {
    let sandbox = Sandbox::new();
    let tmpfs = sandbox.tmpfs("memory", "size=8m");
    let file = sandbox.image("memory/image", 1);
    let device = loopdev::attach(&file, &tmpfs.join("image"), &PLAIN).unwrap();
    assert_eq!(loopdev::find(&file).unwrap().unwrap().number(), device.number());
}

#[test]
fn a_lazily_unmounted_image_is_found_while_a_file_on_it_is_open() {
    let sandbox = Sandbox::new();
    let file = sandbox.formatted("image", "mkfs.ext4", &[]);
    let device = sandbox.attach("image", &file);
    let number = device.number();
    let target = sandbox.dir("mnt");
    mounts::mount(device.path(), &target, "ext4", MountFlags::empty(), "").unwrap();
    drop(device);
    let open = File::create(target.join("file")).unwrap();
    let dev = target.metadata().unwrap().dev();
    assert!(loopdev::is_backed_by(dev, &file).unwrap());
    assert!(!loopdev::is_backed_by(dev, &sandbox.image("other", 1)).unwrap());
    assert!(!loopdev::is_backed_by(sandbox.path().metadata().unwrap().dev(), &file).unwrap());
    assert_eq!(mounts::unmount_lazy(&target).unwrap(), Change::Done);
    assert_eq!(mounts::at(&target).unwrap(), None);
    assert_eq!(loopdev::find(&file).unwrap().unwrap().number(), number);
    drop(open);
    soon("detached", || loopdev::find(&file).unwrap().is_none());
}

#[test]
fn an_image_that_only_another_mount_namespace_has_is_found() {
    let sandbox = Sandbox::new();
    let file = sandbox.formatted("image", "mkfs.ext4", &[]);
    let target = sandbox.dir("mnt");
    let device = sandbox.attach("image", &file);
    let number = device.number();
    let script = format!("mount {} {}", device.path().display(), target.display());
    let container = Script::start(&["unshare", "-m", "--propagation", "private"], &script);
    drop(device);
    assert_eq!(mounts::at(&target).unwrap(), None, "it is not ours");
    let (found, change) = loopdev::find_or_attach(&file, &sandbox.join("image"), &PLAIN).unwrap();
    assert_eq!((found.number(), change), (number, Change::AlreadyThere));
    // The same file system, not a second one: it can be mounted here too.
    mounts::mount(found.path(), &target, "ext4", MountFlags::empty(), "").unwrap();
    mounts::unmount(&target).unwrap();
    drop(found);
    assert_eq!(loopdev::find(&file).unwrap().unwrap().number(), number);
    container.end();
    soon("detached", || loopdev::find(&file).unwrap().is_none());
}

#[test]
fn threads_at_the_same_time_get_devices_of_their_own() {
    let sandbox = Sandbox::new();
    for round in 0..10 {
        let start = Barrier::new(3);
        let devices: Vec<_> = std::thread::scope(|scope| {
            let one = |index: u32| {
                let (sandbox, start) = (&sandbox, &start);
                scope.spawn(move || {
                    let name = format!("image-{round}-{index}");
                    let file = sandbox.image(&name, 1);
                    start.wait();
                    let device = sandbox.attach(&name, &file);
                    assert_eq!(loopdev::find(&file).unwrap().unwrap().number(), device.number());
                    device
                })
            };
            let threads = [one(0), one(1), one(2)];
            threads.map(|thread| thread.join().unwrap()).into_iter().collect()
        });
        let numbers: BTreeSet<_> = devices.iter().map(loopdev::LoopHandle::number).collect();
        assert_eq!(numbers.len(), 3);
    }
}

#[test]
fn threads_at_the_same_time_make_one_device_for_one_file() {
    let sandbox = Sandbox::new();
    let path = sandbox.join("image");
    sandbox.image("image", 1);
    for _ in 0..10 {
        let start = Barrier::new(3);
        let found: Vec<_> = std::thread::scope(|scope| {
            let one = || {
                // Not a duplicate of one descriptor: every thread is as far apart as a process.
                let file = File::options().read(true).write(true).open(&path).unwrap();
                start.wait();
                loopdev::find_or_attach(&file, &path, &PLAIN).unwrap()
            };
            let threads = [scope.spawn(one), scope.spawn(one), scope.spawn(one)];
            threads.map(|thread| thread.join().unwrap()).into_iter().collect()
        });
        let numbers: BTreeSet<_> = found.iter().map(|(device, _)| device.number()).collect();
        let made = found.iter().filter(|(_, change)| *change == Change::Done).count();
        assert_eq!((numbers.len(), made), (1, 1), "{found:?}");
        drop(found);
        let file = File::open(&path).unwrap();
        soon("detached", || loopdev::find(&file).unwrap().is_none());
    }
}
