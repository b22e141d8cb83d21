//! Mounts, freezing, quotas and superblocks.

use crate::sandbox::{Sandbox, Script};
use everhold_linux::Change::{AlreadyThere, Done};
use everhold_linux::mounts::{self, MountFlags};
use everhold_linux::superblock::{self, Superblock};
use everhold_linux::{freeze, host, quota};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn mounting_and_unmounting() {
    let sandbox = Sandbox::new();
    let target = sandbox.tmpfs("a b\\c", "size=1m");
    let mount = mounts::at(&target).unwrap().unwrap();
    assert_eq!((mount.fstype.as_str(), mount.source.as_str()), ("tmpfs", "everhold-test"));
    assert_eq!(mount.dev, target.metadata().unwrap().dev());
    assert_eq!(mount.target, target);
    assert!(!mount.read_only());
    mounts::remount(&target, MountFlags::RDONLY | MountFlags::NODEV, "").unwrap();
    assert!(mounts::at(&target).unwrap().unwrap().read_only());
    assert_eq!(mounts::unmount(&target).unwrap(), Done);
    assert_eq!(mounts::unmount(&target).unwrap(), AlreadyThere);
    assert_eq!(mounts::unmount(&sandbox.join("none")).unwrap(), AlreadyThere);
    assert_eq!(mounts::unmount_lazy(&target).unwrap(), AlreadyThere);
    assert_eq!(mounts::at(&target).unwrap(), None);
    let error = mounts::mount(Path::new("x"), &target, "no-such-fs", MountFlags::empty(), "").unwrap_err();
    assert_eq!((error.errno(), error.path.as_deref()), (Some(libc::ENODEV), Some(target.as_path())));
}

#[test]
fn a_mount_in_use_is_busy() {
    let sandbox = Sandbox::new();
    let target = sandbox.tmpfs("m", "size=1m");
    let file = File::create(target.join("file")).unwrap();
    assert_eq!(mounts::unmount(&target).unwrap_err().errno(), Some(libc::EBUSY));
    assert_eq!(mounts::unmount_lazy(&target).unwrap(), Done);
    drop(file);
}

#[test]
fn the_mount_on_top_is_found_also_through_a_link() {
    let sandbox = Sandbox::new();
    sandbox.tmpfs("m", "size=1m");
    let target = sandbox.tmpfs("m", "size=2m");
    sandbox.tmpfs("m/inner", "size=3m");
    std::os::unix::fs::symlink(sandbox.path(), sandbox.join("link")).unwrap();
    let by_link = sandbox.join("link/m");
    for path in [&target, &by_link] {
        assert!(mounts::at(path).unwrap().unwrap().super_options.contains("size=2048k"));
    }
    assert_eq!(mounts::at(&sandbox.join("link")).unwrap(), None);
    for path in [sandbox.path(), &sandbox.join("link")] {
        let targets: Vec<_> = mounts::below(path).unwrap().into_iter().map(|mount| mount.target).collect();
        assert_eq!(targets, [target.clone(), target.clone(), target.join("inner")]);
    }
    // Not what only begins with the same letters.
    assert_eq!(mounts::below(&sandbox.dir("m2")).unwrap(), []);
    // umount2 follows no link at the end.
    std::os::unix::fs::symlink(&target, sandbox.join("direct")).unwrap();
    assert!(mounts::unmount(&sandbox.join("direct")).is_err());
    assert_eq!(mounts::unmount(&target.join("inner")).unwrap(), Done);
    assert_eq!(mounts::unmount(&by_link).unwrap(), Done);
    assert!(mounts::at(&target).unwrap().unwrap().super_options.contains("size=1024k"));
}

#[test]
fn a_read_only_bind_keeps_the_other_flags() {
    let sandbox = Sandbox::new();
    let source = sandbox.dir("source");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mounts::mount(Path::new("x"), &source, "tmpfs", flags, "size=1m").unwrap();
    fs::write(source.join("file"), "x").unwrap();
    let (writable, read_only) = (sandbox.dir("writable"), sandbox.dir("read-only"));
    mounts::bind(&source, &writable, false).unwrap();
    mounts::bind(&source, &read_only, true).unwrap();
    fs::write(writable.join("file"), "y").unwrap();
    let error = fs::write(read_only.join("file"), "z").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::read_to_string(read_only.join("file")).unwrap(), "y");
    let mount = mounts::at(&read_only).unwrap().unwrap();
    assert!(mount.read_only());
    for option in ["nosuid", "nodev", "noatime"] {
        assert!(mount.options.split(',').any(|has| has == option), "{option} is lost: {}", mount.options);
    }
    // A single file too.
    let (from, to) = (source.join("file"), sandbox.join("file"));
    File::create(&to).unwrap();
    mounts::bind(&from, &to, true).unwrap();
    assert_eq!(fs::write(&to, "z").unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert!(mounts::bind(&source, &sandbox.join("none"), true).unwrap_err().is_not_found());
}

#[test]
fn the_table_is_whole_while_mounts_come_and_go() {
    let sandbox = Sandbox::new();
    let steady: Vec<_> = (0..20).map(|index| sandbox.tmpfs(&format!("steady-{index}"), "size=1m")).collect();
    let moving = sandbox.dir("moving");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                mounts::mount(Path::new("x"), &moving, "tmpfs", MountFlags::empty(), "size=1m").unwrap();
                mounts::unmount(&moving).unwrap();
            }
        });
        for _ in 0..300 {
            let table = mounts::table().unwrap();
            let missing: Vec<_> =
                steady.iter().filter(|path| !table.iter().any(|mount| mount.target == **path)).collect();
            stop.store(!missing.is_empty(), std::sync::atomic::Ordering::Relaxed);
            assert_eq!(missing, Vec::<&std::path::PathBuf>::new());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn writers_wait_while_frozen() {
    let sandbox = Sandbox::new();
    for mkfs in ["mkfs.ext4", "mkfs.xfs"] {
        let target = sandbox.mounted(mkfs, mkfs, &[]);
        freeze::sync(&target).unwrap();
        assert_eq!(freeze::thaw(&target).unwrap(), AlreadyThere);
        assert_eq!(freeze::freeze(&target).unwrap(), Done);
        // Opened while frozen, read-only.
        assert_eq!(freeze::freeze(&target).unwrap(), AlreadyThere);
        let (done, is_done) = mpsc::channel();
        let file = target.join("file");
        let writer = std::thread::spawn(move || done.send(fs::write(file, "x")).unwrap());
        assert!(is_done.recv_timeout(Duration::from_millis(200)).is_err(), "written while frozen");
        let dir = File::open(&target).unwrap();
        assert_eq!(freeze::thaw_fd(&dir, &target).unwrap(), Done);
        is_done.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        writer.join().unwrap();
        assert_eq!(freeze::freeze_fd(&dir, &target).unwrap(), Done);
        assert_eq!(freeze::thaw(&target).unwrap(), Done);
        assert_eq!(freeze::thaw(&target).unwrap(), AlreadyThere);
    }
    let memory = sandbox.tmpfs("memory", "size=1m");
    assert_eq!(freeze::freeze(&memory).unwrap_err().errno(), Some(libc::EOPNOTSUPP));
    assert!(freeze::freeze(&sandbox.join("none")).unwrap_err().is_not_found());
}

#[test]
fn quotas_that_the_kernel_does_not_keep_are_not_supported() {
    let sandbox = Sandbox::new();
    let ext4 = sandbox.mounted("ext4", "mkfs.ext4", &[]);
    let xfs = sandbox.mounted("xfs", "mkfs.xfs", &[]);
    let memory = sandbox.tmpfs("memory", "size=1m");
    for path in [&ext4, &xfs, &memory] {
        assert!(!quota::supported(path).unwrap());
        assert!(quota::set_limit(path, 7, 1 << 20).is_err());
        assert!(quota::usage(path, 7).is_err());
    }
    assert!(quota::supported(&sandbox.join("none")).unwrap_err().is_not_found());
    assert!(quota::set_project(&ext4, 7).is_err(), "made without projects");
}

#[test]
fn what_is_made_in_a_project_belongs_to_it() {
    // XFS has projects also where the kernel counts no quotas; ext4 with projects can't be mounted there.
    let sandbox = Sandbox::new();
    let dir = sandbox.mounted("xfs", "mkfs.xfs", &[]).join("dir");
    fs::create_dir(&dir).unwrap();
    assert_eq!(quota::project_of(&dir).unwrap(), 0);
    quota::set_project(&dir, 4711).unwrap();
    assert_eq!(quota::project_of(&dir).unwrap(), 4711);
    fs::create_dir(dir.join("inner")).unwrap();
    fs::write(dir.join("inner/file"), "x").unwrap();
    assert_eq!(quota::project_of(&dir.join("inner/file")).unwrap(), 4711);
    assert_eq!(quota::set_project(&dir.join("inner/file"), 1).unwrap_err().errno(), Some(libc::ENOTDIR));
}

const UUID: &str = "6e8bc430-9c3a-11d9-9669-0800200c9a66";
const BYTES: [u8; 16] =
    [0x6e, 0x8b, 0xc4, 0x30, 0x9c, 0x3a, 0x11, 0xd9, 0x96, 0x69, 0x08, 0x00, 0x20, 0x0c, 0x9a, 0x66];

#[test]
fn the_superblock_of_ext4_tells_its_life() {
    let sandbox = Sandbox::new();
    let file = sandbox.formatted("image", "mkfs.ext4", &["-U", UUID]);
    let read = || match superblock::probe(&file).unwrap() {
        Superblock::Ext4(ext4) => ext4,
        other => panic!("{other:?}"),
    };
    let fresh = read();
    assert_eq!(fresh.uuid, BYTES);
    assert_eq!((fresh.block_size, fresh.blocks), (4096, 8 << 10));
    assert_eq!((fresh.clean, fresh.has_errors, fresh.needs_recovery), (true, false, false));
    assert_eq!(fresh.mounted_at, 0);
    let target = sandbox.dir("mnt");
    let device = sandbox.attach("image", &file);
    mounts::mount(device.path(), &target, "ext4", MountFlags::empty(), "").unwrap();
    fs::write(target.join("file"), "x").unwrap();
    freeze::sync(&target).unwrap();
    assert!(read().needs_recovery);
    mounts::unmount(&target).unwrap();
    let after = read();
    assert_eq!((after.clean, after.has_errors, after.needs_recovery), (true, false, false));
    assert!(after.mounted_at > 1_700_000_000);
    // A device is read like a file.
    assert_eq!(superblock::probe(device.file()).unwrap(), Superblock::Ext4(after));
}

#[test]
fn the_superblock_of_xfs_and_of_nothing() {
    let sandbox = Sandbox::new();
    let file = sandbox.formatted("image", "mkfs.xfs", &["-m", &format!("uuid={UUID}")]);
    match superblock::probe(&file).unwrap() {
        Superblock::Xfs(xfs) => assert_eq!((xfs.uuid, xfs.block_size, xfs.blocks), (BYTES, 4096, 320 << 8)),
        other => panic!("{other:?}"),
    }
    // Made over one another, only the last one counts.
    let path = sandbox.join("image");
    let run = |tool: &'static str, args: &[&str]| {
        let mut args = args.to_vec();
        args.push(path.to_str().unwrap());
        everhold_linux::command::Tool::new(tool).run(&args, Duration::from_secs(60)).unwrap();
    };
    run("mkfs.ext4", &["-q", "-F"]);
    assert!(matches!(superblock::probe(&file).unwrap(), Superblock::Ext4(_)));
    run("mkfs.xfs", &["-q", "-f"]);
    assert!(matches!(superblock::probe(&file).unwrap(), Superblock::Xfs(_)));
    for size in [0, 1, 1 << 20] {
        let empty = sandbox.image("empty", 0);
        empty.set_len(size).unwrap();
        assert_eq!(superblock::probe(&empty).unwrap(), Superblock::None);
    }
}

#[test]
fn a_namespace_of_its_own_is_not_in_our_table() {
    let sandbox = Sandbox::new();
    let target = sandbox.dir("mnt");
    let script = format!("mount -t tmpfs x {}", target.display());
    let container = Script::start(&["unshare", "-m", "--propagation", "private"], &script);
    assert_eq!(mounts::below(&target).unwrap(), []);
    container.end();
    assert!(host::has_cap_sys_admin().unwrap());
    assert!(host::io_scheduler(sandbox.path().metadata().unwrap().dev()).is_ok());
}

#[test]
fn a_mount_point_is_told_from_a_directory_at_no_cost() {
    let sandbox = Sandbox::new();
    let at = sandbox.dir("at");
    assert!(!mounts::is_mount_point(&at).unwrap());
    assert!(!mounts::is_mount_point(&at.join("absent")).unwrap());
    mounts::mount(Path::new("none"), &at, "tmpfs", MountFlags::empty(), "size=64k").unwrap();
    assert!(mounts::is_mount_point(&at).unwrap());
    mounts::unmount(&at).unwrap();
    // A bind mount of the same file system too, which has the same device number as its parent.
    mounts::bind(&sandbox.dir("other"), &at, false).unwrap();
    assert!(mounts::is_mount_point(&at).unwrap());
    mounts::unmount(&at).unwrap();
}
