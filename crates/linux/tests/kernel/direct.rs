//! Reading with many requests in flight, and what the kernel tells about unwritten data.

use crate::sandbox::{Sandbox, soon};
use everhold_linux::direct::{self, MAX_READ, Pool, Reader};
use everhold_linux::dirty::Stats;
use everhold_linux::freeze;
use everhold_linux::mounts::{self, MountFlags};
use std::fs::{File, Permissions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

/// Every eight bytes say where they are.
fn content(range: Range<u64>) -> Vec<u8> {
    (range.start / 8..range.end / 8).flat_map(|word| (word * 8 + 1).to_le_bytes()).collect()
}

fn read_all(reader: &Reader, pool: &Pool, ranges: &[Range<u64>]) -> Vec<(Range<u64>, Vec<u8>)> {
    let mut got = Vec::new();
    let left = reader
        .read_many(pool, ranges, None, |range, bytes| -> everhold_linux::Result<()> {
            got.push((range, bytes.to_vec()));
            Ok(())
        })
        .unwrap();
    assert!(left.is_empty());
    got
}

fn check_reading(path: &Path, direct: bool) {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    // Its end is no multiple of anything.
    let size = 9 * MAX_READ + 4096 + 1000;
    file.write_all_at(&content(0..size), 0).unwrap();
    file.sync_all().unwrap();
    let reader = Reader::open(path).unwrap();
    assert_eq!(reader.is_direct(), direct);
    let end = (size / 4096 + 3) * 4096;
    let ranges = [4096..8192, 8192..12288, 40960..3 * MAX_READ, 9 * MAX_READ..end, 0..4096];
    for threads in [1, 2, 16] {
        let pool = Pool::new(threads).unwrap();
        let got = read_all(&reader, &pool, &ranges);
        assert_eq!(got[0].0, 4096..12288, "what meets is read as one");
        let mut expected = ranges.iter().flat_map(|range| {
            let mut bytes = content(range.start..range.end.min(size));
            bytes.resize((range.end - range.start) as usize, 0);
            bytes
        });
        let mut at = None;
        for (range, bytes) in got {
            assert_eq!(range.end - range.start, bytes.len() as u64);
            assert!(at.is_none_or(|at| at <= range.start || range.start == 0));
            at = Some(range.end);
            assert!(
                bytes.into_iter().eq(expected.by_ref().take((range.end - range.start) as usize)),
                "{range:?}"
            );
        }
        assert_eq!(expected.next(), None);
        // Nobody waits longer than asked; what was not read is said.
        let left = reader
            .read_many(&pool, &ranges, Some(Instant::now()), |_, _| -> everhold_linux::Result<()> {
                panic!("too late")
            })
            .unwrap();
        assert_eq!(left, [4096..12288, 40960..3 * MAX_READ, 9 * MAX_READ..end, 0..4096]);
        let error = reader
            .read_many(&pool, &[ranges[0].clone(), 1..4096], None, |_, _| -> everhold_linux::Result<()> {
                Ok(())
            })
            .unwrap_err();
        // Who is given something may say that it is enough.
        let stopped = reader.read_many(&pool, &ranges, None, |_, _| {
            Err(everhold_linux::KernelError {
                op: "sink",
                path: None,
                source: std::io::Error::from_raw_os_error(5),
            })
        });
        assert_eq!(stopped.unwrap_err().op, "sink");
        assert_eq!(error.errno(), Some(22), "{error}");
    }
}

#[test]
fn many_ranges_are_read_in_order() {
    let sandbox = Sandbox::new();
    check_reading(&sandbox.join("file"), true);
}

#[test]
fn where_direct_io_can_not_be_the_page_cache_is_read() {
    let text = std::fs::read("/proc/filesystems").unwrap();
    let reader = Reader::open(Path::new("/proc/filesystems")).unwrap();
    assert!(!reader.is_direct());
    let whole: Range<u64> = 0..MAX_READ;
    let got = read_all(&reader, &Pool::new(2).unwrap(), &[whole]);
    assert!(got[0].1.starts_with(&text) && got[0].1[text.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn data_and_holes() {
    let sandbox = Sandbox::new();
    let file = sandbox.image("image", 64);
    assert_eq!(direct::data_ranges(&file).unwrap(), []);
    file.write_all_at(&[1; 8192], 1 << 20).unwrap();
    file.write_all_at(&[1; 4096], 40 << 20).unwrap();
    file.sync_all().unwrap();
    let mib = 1_u64 << 20;
    assert_eq!(direct::data_ranges(&file).unwrap(), [mib..mib + 8192, 40 * mib..40 * mib + 4096]);
    assert_eq!(direct::data_ranges(&File::open("/proc/self/stat").unwrap()).unwrap_or_default(), []);
}

type Change = fn(&Path);
/// What changes a file system that has a file and a directory.
const CHANGES: [(&str, Change); 7] = [
    ("write", |root| std::fs::write(root.join("file"), "more").unwrap()),
    ("create", |root| drop(File::create(root.join("new")).unwrap())),
    ("mkdir", |root| std::fs::create_dir(root.join("new")).unwrap()),
    ("rename", |root| std::fs::rename(root.join("file"), root.join("other")).unwrap()),
    ("unlink", |root| std::fs::remove_file(root.join("file")).unwrap()),
    ("chmod", |root| std::fs::set_permissions(root.join("dir"), Permissions::from_mode(0o700)).unwrap()),
    ("truncate", |root| File::options().write(true).open(root.join("file")).unwrap().set_len(0).unwrap()),
];

#[test]
fn what_is_only_in_memory_is_seen() {
    let sandbox = Sandbox::new();
    let stats = Stats::open().unwrap().expect("this kernel has a debugfs");
    for (mkfs, fstype) in [("mkfs.ext4", "ext4"), ("mkfs.xfs", "xfs")] {
        let image = sandbox.formatted(fstype, mkfs, &[]);
        let device = sandbox.attach(fstype, &image);
        let target = sandbox.dir(&format!("{fstype}.mnt"));
        let is_dirty = || stats.is_dirty(device.dev(), fstype == "xfs").unwrap().unwrap();
        for (name, change) in CHANGES {
            mounts::mount(device.path(), &target, fstype, MountFlags::empty(), "").unwrap();
            std::fs::write(target.join("file"), "something").unwrap();
            std::fs::create_dir_all(target.join("dir")).unwrap();
            freeze::freeze(&target).unwrap();
            freeze::thaw(&target).unwrap();
            // Only the whole system's sync takes the device itself off the list before its time.
            soon("clean", || {
                rustix::fs::sync();
                !is_dirty()
            });
            change(&target);
            // Of these ext4 tells nobody until it commits its journal.
            let hidden = fstype == "ext4" && ["create", "rename", "unlink"].contains(&name);
            assert!(is_dirty() || hidden, "{name} on {fstype} was not seen");
            std::fs::remove_dir(target.join("new"))
                .or_else(|_| std::fs::remove_file(target.join("new")))
                .ok();
            // A process that another test is just starting may have our file for a moment.
            soon("unmounted", || mounts::unmount(&target).is_ok());
        }
    }
    assert_eq!(stats.is_dirty(rustix::fs::makedev(7, 99_999), true).unwrap(), None);
}
