//! Tracking changed blocks, against loop devices that are really written to.

// Clippy would have a list of numbers.
#![allow(clippy::single_range_in_vec_init)]

use crate::sandbox::{PLAIN, Sandbox};
use crate::unseen::Unseen;
use everhold_linux::direct::Buffer;
use everhold_linux::loopdev::{self, LoopHandle, LoopOptions};
use everhold_linux::track::{self, BLOCK, Bitmap, TrackError, Tracker};
use everhold_linux::{Change, mounts};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A tracker of its own, which goes with the mount of its bpffs.
struct Ground {
    sandbox: Sandbox,
    tracker: Tracker,
}

impl Ground {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let tracker = Tracker::open(&sandbox.join("bpf")).unwrap();
        Self { sandbox, tracker }
    }

    fn device(&self, name: &str, mib: u64) -> LoopHandle {
        let file = self.sandbox.image(name, mib);
        self.sandbox.attach(name, &file)
    }

    /// A new device that is followed.
    fn followed(&self, name: &str, mib: u64) -> (LoopHandle, Bitmap) {
        let device = self.device(name, mib);
        let following = self.tracker.follow(name, device.dev(), mib * MIB).unwrap();
        assert!(following.fresh && following.bitmap.is_clean());
        (device, following.bitmap)
    }

    fn bpf(&self) -> PathBuf {
        self.sandbox.join("bpf")
    }

    /// As if the daemon had been started again.
    fn reopen(&mut self) {
        self.tracker = Tracker::open(&self.bpf()).unwrap();
    }
}

fn direct(device: &LoopHandle) -> File {
    let flag = rustix::fs::OFlags::DIRECT.bits() as i32;
    OpenOptions::new().read(true).write(true).custom_flags(flag).open(device.path()).unwrap()
}

/// Writes around the page cache.
fn write(device: &File, blocks: Range<u64>, byte: u8) {
    let mut buffer = Buffer::new(((blocks.end - blocks.start) * BLOCK) as usize);
    buffer.fill(byte);
    device.write_all_at(&buffer, blocks.start * BLOCK).unwrap();
}

fn blkdiscard(device: &LoopHandle, bytes: Range<u64>, zero: bool) {
    let mut command = Command::new("blkdiscard");
    if zero {
        command.arg("--zeroout");
    }
    command.args(["-f", "-o", &bytes.start.to_string(), "-l", &(bytes.end - bytes.start).to_string()]);
    let output = command.arg(device.path()).output().unwrap();
    assert!(output.status.success(), "{bytes:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn blocks(ranges: &[Range<u64>]) -> BTreeSet<u64> {
    ranges.iter().cloned().flatten().collect()
}

fn touched(bytes: Range<u64>) -> Range<u64> {
    bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
}

/// Numbers that look random (xorshift64*), the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}

fn seed() -> u64 {
    std::env::var("EVERHOLD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::process::id().into())
}

/// Writes of all kinds; what they touch, and nothing else, is marked.
fn all_kinds_of_writes(block_size: u32, seed: u64) {
    let ground = Ground::new();
    let size = 256 * MIB;
    let file = ground.sandbox.image("one", 256);
    let options = LoopOptions { block_size, ..PLAIN };
    let device = loopdev::attach(&file, &ground.sandbox.join("one"), &options).unwrap();
    let bitmap = ground.tracker.follow("one", device.dev(), size).unwrap().bitmap;
    assert_eq!((bitmap.block_size(), bitmap.len_blocks()), (BLOCK, size / BLOCK));
    let out = direct(&device);
    let buffered = OpenOptions::new().write(true).open(device.path()).unwrap();
    let mut numbers = Numbers(seed | 1);
    let sector = u64::from(block_size);
    for round in 0..30 {
        let mut model = BTreeSet::new();
        for _ in 0..20 {
            let most = if numbers.below(8) == 0 { 40 * MIB } else { 100 * 1024 };
            let length = (numbers.below(most) / sector + 1) * sector;
            let start = numbers.below((size - length) / sector) * sector;
            let bytes = start..start + length;
            match numbers.below(5) {
                0 => blkdiscard(&device, bytes.clone(), false),
                1 => blkdiscard(&device, bytes.clone(), true),
                2 => {
                    buffered.write_all_at(&vec![round; length as usize], start).unwrap();
                    buffered.sync_all().unwrap();
                }
                _ => {
                    let mut buffer = Buffer::new(length as usize);
                    buffer.fill(round);
                    out.write_all_at(&buffer, start).unwrap();
                }
            }
            model.extend(touched(bytes));
        }
        // Reading marks nothing.
        out.read_exact_at(&mut Buffer::new(MIB as usize), 0).unwrap();
        let dirty = bitmap.dirty();
        let seen = blocks(&dirty);
        let missing: Vec<_> = model.difference(&seen).take(20).collect();
        let extra: Vec<_> = seen.difference(&model).take(20).collect();
        assert!(
            seen == model,
            "seed {seed}, sectors of {block_size}, round {round}: not marked {missing:?}, marked in vain {extra:?}"
        );
        assert!(!bitmap.is_clean() && !bitmap.overflowed());
        assert_eq!(bitmap.dirty(), dirty, "looking changes nothing");
        bitmap.clear(&dirty);
        assert_eq!(bitmap.dirty(), []);
        assert!(bitmap.is_clean());
    }
}

#[test]
fn writes_of_all_kinds_mark_what_they_touch() {
    let seed = seed();
    all_kinds_of_writes(4096, seed);
    all_kinds_of_writes(512, seed);
}

#[test]
fn the_largest_requests_are_not_lost() {
    let ground = Ground::new();
    let gib = 1024 * MIB;
    let (device, bitmap) = ground.followed("one", 12 * 1024);
    blkdiscard(&device, 0..12 * gib, false);
    assert_eq!(blocks(&bitmap.dirty()).len() as u64, 12 * gib / BLOCK, "in requests of up to 4 GiB");
    let whole: Range<u64> = 0..12 * gib / BLOCK;
    bitmap.clear(&[whole]);
    assert!(bitmap.dirty().is_empty() && bitmap.is_clean());

    let some = 5 * gib + 8 * BLOCK..6 * gib + 12 * BLOCK;
    blkdiscard(&device, some.clone(), false);
    let (dirty, least) = (bitmap.dirty(), touched(some));
    let [range] = &dirty[..] else { panic!("{dirty:?}") };
    assert!(range.start <= least.start && range.end >= least.end, "{range:?} for {least:?}");
    assert!(
        range.end - range.start <= least.end - least.start + 2 * 16 * MIB / BLOCK,
        "{range:?} for {least:?}"
    );

    // A part of it is cleared: the rest stays, and what is discarded now is marked again.
    let part = least.start + 1000..least.start + 1010;
    bitmap.clear(std::slice::from_ref(&part));
    assert_eq!(bitmap.dirty(), [range.start..part.start, part.end..range.end]);
    blkdiscard(&device, least.start * BLOCK..least.end * BLOCK, false);
    assert_eq!(bitmap.dirty(), dirty);
    bitmap.clear(&dirty);
    assert_eq!(bitmap.dirty(), []);
    bitmap.mark(&[part.start..part.end]);
    assert!(!bitmap.is_clean());
    assert_eq!(bitmap.dirty(), [part]);
}

#[test]
fn devices_do_not_mix() {
    let ground = Ground::new();
    let (one, one_bits) = ground.followed("one", 16);
    let (other, other_bits) = ground.followed("other", 16);
    let nobody = ground.device("nobody", 16);
    write(&direct(&one), 1..2, 1);
    write(&direct(&other), 2..3, 1);
    write(&direct(&nobody), 3..4, 1);
    assert_eq!((one_bits.dirty(), other_bits.dirty()), (vec![1..2], vec![2..3]));
    assert_eq!(ground.tracker.ids().unwrap(), ["one", "other"].map(String::from).into());
    assert!(ground.tracker.bitmap("nobody").unwrap().is_none());

    // The number of the other device is now that of another image.
    let following = ground.tracker.follow("nobody", other.dev(), 16 * MIB).unwrap();
    assert!(following.fresh);
    write(&direct(&other), 7..8, 1);
    assert_eq!((following.bitmap.dirty(), other_bits.dirty()), (vec![7..8], vec![2..3]));
    // The other image has another device. Its bits are what they were.
    let following = ground.tracker.follow("other", nobody.dev(), 16 * MIB).unwrap();
    write(&direct(&nobody), 9..10, 1);
    assert_eq!(following.bitmap.dirty(), [2..3, 9..10]);
    // One image moves to another device, and has the first no more.
    ground.tracker.follow("one", other.dev(), 16 * MIB).unwrap();
    write(&direct(&one), 11..12, 1);
    write(&direct(&other), 12..13, 1);
    assert_eq!(one_bits.dirty(), [1..2, 12..13]);

    assert_eq!(ground.tracker.unfollow(other.dev()).unwrap(), Change::Done);
    assert_eq!(ground.tracker.unfollow(other.dev()).unwrap(), Change::AlreadyThere);
    write(&direct(&other), 14..15, 1);
    assert_eq!(one_bits.dirty(), [1..2, 12..13]);
    assert_eq!(ground.tracker.forget("other").unwrap(), Change::Done);
    assert_eq!(ground.tracker.forget("other").unwrap(), Change::AlreadyThere);
    assert!(following.bitmap.overflowed(), "nobody goes on with bits that are gone");
    let ids = ground.tracker.ids().unwrap();
    assert_eq!(ids, ["nobody", "one"].map(String::from).into());
    for bad in ["", ".", "a.b", "a/b", &"x".repeat(129)] {
        assert!(matches!(ground.tracker.forget(bad), Err(TrackError::BadName { .. })), "{bad:?}");
    }
}

#[test]
fn tracking_goes_on_without_a_daemon() {
    let mut ground = Ground::new();
    let (device, bitmap) = ground.followed("one", 16);
    let out = direct(&device);
    write(&out, 1..2, 1);
    bitmap.set_token(7);
    drop(bitmap);
    let elsewhere = Sandbox::new();
    drop(std::mem::replace(&mut ground.tracker, Tracker::open(&elsewhere.join("bpf")).unwrap()));
    write(&out, 3..4, 1);
    ground.reopen();
    let following = ground.tracker.follow("one", device.dev(), 16 * MIB).unwrap();
    assert!(!following.fresh);
    assert_eq!((following.bitmap.token(), following.bitmap.dirty()), (7, vec![1..2, 3..4]));

    // Until a token is set, nobody has made anything of them.
    let other = ground.device("other", 16);
    assert!(ground.tracker.follow("other", other.dev(), 16 * MIB).unwrap().fresh);
    assert!(ground.tracker.follow("other", other.dev(), 16 * MIB).unwrap().fresh);

    let bpf = ground.bpf();
    ground.tracker.close_all().unwrap();
    assert!(!bpf.join("layout1").exists());
    assert_eq!(track::remove(&bpf).unwrap(), Change::AlreadyThere);
    let before = following.bitmap.events();
    write(&out, 3..4, 1);
    assert_eq!(following.bitmap.events(), before);
}

#[test]
fn another_program_takes_over_without_a_gap() {
    let mut ground = Ground::new();
    let (device, bitmap) = ground.followed("one", 16);
    bitmap.set_token(1);
    write(&direct(&device), 1..2, 1);
    let layout = ground.bpf().join("layout1");
    let programs = || -> Vec<_> {
        let names = std::fs::read_dir(&layout).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with("program")).collect()
    };
    let ours = programs();
    let (version, _) = ours[0].split_once('-').unwrap();
    for name in &ours {
        let (name, other) = (layout.join(name), layout.join(name.replace(version, "program987")));
        // One that knows nothing of requests that begin.
        if name.to_str().unwrap().ends_with("-3") {
            std::fs::remove_file(name)
        } else {
            std::fs::rename(name, other)
        }
        .unwrap();
    }
    assert_eq!((ours.len(), programs().len()), (4, 3));
    ground.reopen();
    assert_eq!(BTreeSet::from_iter(programs()), BTreeSet::from_iter(ours.clone()));
    write(&direct(&device), 3..4, 1);
    let following = ground.tracker.follow("one", device.dev(), 16 * MIB).unwrap();
    assert!(!following.fresh);
    assert_eq!(following.bitmap.dirty(), [1..2, 3..4]);

    // While one of them is missing, something may have been missed.
    let first = ours.iter().find(|name| name.ends_with("-0")).unwrap();
    std::fs::remove_file(layout.join(first)).unwrap();
    ground.reopen();
    assert_eq!(ground.tracker.ids().unwrap(), BTreeSet::new());
    assert!(ground.tracker.follow("one", device.dev(), 16 * MIB).unwrap().fresh);

    std::fs::create_dir(ground.bpf().join("layout77")).unwrap();
    let error = Tracker::open(&ground.bpf()).unwrap_err();
    assert!(matches!(&error, TrackError::OtherLayout { found, .. } if found == "77"), "{error}");
    assert_eq!(track::remove(&ground.bpf()).unwrap(), Change::Done);
    ground.reopen();
    assert_eq!(ground.tracker.ids().unwrap(), BTreeSet::new());
}

#[test]
fn a_bpffs_may_be_above() {
    let ground = Ground::new();
    let below = Tracker::open(&ground.bpf().join("a").join("b")).unwrap();
    assert!(mounts::at(&ground.bpf().join("a")).unwrap().is_none());
    assert_eq!(below.ids().unwrap(), BTreeSet::new());
    below.close_all().unwrap();
    std::fs::remove_dir(ground.bpf().join("a").join("b")).unwrap();
}

#[test]
fn writes_behind_the_end_are_told() {
    let ground = Ground::new();
    let device = ground.device("one", 32);
    let bitmap = ground.tracker.follow("one", device.dev(), 16 * MIB).unwrap().bitmap;
    let out = direct(&device);
    let end = 16 * MIB / BLOCK;
    write(&out, end - 1..end, 1);
    assert!(!bitmap.overflowed());
    write(&out, end - 2..end + 1, 1);
    assert!(bitmap.overflowed() && !bitmap.is_clean());
    assert_eq!(bitmap.dirty(), [end - 2..end]);
    write(&out, end + 5..end + 6, 1);
    assert_eq!(bitmap.dirty(), [end - 2..end]);
    // The new ones have all that may have been written there.
    let grown = ground.tracker.follow("one", device.dev(), 32 * MIB).unwrap().bitmap;
    assert!(!grown.overflowed());
    assert_eq!(grown.dirty(), [end - 2..2 * end]);
    assert!(bitmap.overflowed(), "these are not the volume's any more");
}

/// Writes random blocks until told to stop; each is counted when it is done.
fn write_randomly(
    device: &File,
    range: Range<u64>,
    seed: u64,
    stop: &AtomicBool,
    writes: &AtomicU64,
) -> BTreeSet<u64> {
    let mut numbers = Numbers(seed | 1);
    let mut written = BTreeSet::new();
    while !stop.load(Ordering::SeqCst) {
        let length = numbers.below(8) + 1;
        let start = range.start + numbers.below(range.end - range.start - length);
        write(device, start..start + length, numbers.below(256) as u8);
        written.extend(start..start + length);
        writes.fetch_add(1, Ordering::SeqCst);
    }
    written
}

#[test]
fn bits_grow_while_they_are_set() {
    let ground = Ground::new();
    let (device, bitmap) = ground.followed("one", 1);
    bitmap.set_token(9);
    // Large enough from the beginning, so that the writers do not care.
    let file = OpenOptions::new().read(true).write(true).open(ground.sandbox.join("one")).unwrap();
    file.set_len(64 * MIB).unwrap();
    device.refresh_size().unwrap();
    let out = direct(&device);
    let (stop, writes, seed) = (AtomicBool::new(false), AtomicU64::new(0), seed());
    let written: BTreeSet<u64> = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|n| {
                let (out, stop, writes) = (&out, &stop, &writes);
                scope.spawn(move || write_randomly(out, 0..MIB / BLOCK, seed + n, stop, writes))
            })
            .collect();
        for mib in 2..=64 {
            let before = writes.load(Ordering::SeqCst);
            while writes.load(Ordering::SeqCst) < before + 20 {
                thread::yield_now();
            }
            let following = ground.tracker.follow("one", device.dev(), mib * MIB).unwrap();
            assert!(!following.fresh && following.bitmap.len_blocks() == mib * MIB / BLOCK);
        }
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let bitmap = ground.tracker.bitmap("one").unwrap().unwrap();
    assert_eq!((bitmap.token(), bitmap.overflowed()), (9, false));
    assert_eq!(blocks(&bitmap.dirty()), written, "seed {seed}");
}

#[test]
fn a_growth_that_was_interrupted_is_finished() {
    let mut ground = Ground::new();
    let (device, bitmap) = ground.followed("one", 1);
    bitmap.set_token(9);
    write(&direct(&device), 5..6, 1);
    // The larger bits are there and have the device, and the old ones still have the name.
    let layout = ground.bpf().join("layout1");
    let other = ground.tracker.follow("larger", device.dev(), 4 * MIB).unwrap();
    std::fs::rename(layout.join("volumes/larger"), layout.join("growing/one")).unwrap();
    write(&direct(&device), 8..9, 1);
    assert_eq!(other.bitmap.dirty(), [8..9]);
    ground.reopen();
    let grown = ground.tracker.bitmap("one").unwrap().unwrap();
    assert_eq!((grown.token(), grown.dirty(), grown.volume_bytes()), (9, vec![5..6, 8..9], 4 * MIB));

    // The same, before the device has been pointed at the larger bits.
    ground.tracker.follow("larger", device.dev(), 8 * MIB).unwrap();
    std::fs::rename(layout.join("volumes/larger"), layout.join("growing/one")).unwrap();
    ground.tracker.follow("one", device.dev(), 4 * MIB).unwrap();
    write(&direct(&device), 10..11, 1);
    let grown = ground.tracker.follow("one", device.dev(), 8 * MIB).unwrap();
    assert_eq!(grown.bitmap.dirty(), [5..6, 8..9, 10..11]);
    assert_eq!(grown.bitmap.len_blocks(), 8 * MIB / BLOCK);
}

/// Nothing is cleared meanwhile: then not even what completes unseen is missed. Other trackers come and go.
#[test]
fn no_write_of_many_is_missed() {
    let ground = Ground::new();
    let (mib, writers) = (128, 4);
    let (device, bitmap) = ground.followed("one", mib);
    let out = direct(&device);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let sandbox = Sandbox::new();
            while !stop.load(Ordering::SeqCst) {
                Tracker::open(&sandbox.join("bpf")).unwrap().close_all().unwrap();
            }
        });
        let each = mib * MIB / BLOCK / writers;
        let writers: Vec<_> = (0..writers)
            .map(|n| {
                let out = &out;
                scope.spawn(move || {
                    (n * each..(n + 1) * each).for_each(|block| write(out, block..block + 1, 7))
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::SeqCst);
        assert!(written.iter().all(Result::is_ok) && other.join().is_ok());
    });
    assert_eq!(bitmap.dirty(), [0..mib * MIB / BLOCK]);
}

/// What a cut does: clear, then read. In the end, the copy is the device.
fn copy_while_it_is_written(noise: bool) {
    let ground = Ground::new();
    let mib = 8;
    let (device, bitmap) = ground.followed("one", mib);
    let unseen = Unseen::of(&ground.sandbox, device.dev());
    let out = direct(&device);
    let size = mib * MIB;
    let mut copy = vec![0; size as usize];
    let mut copied = 0;
    let mut take = |copy: &mut [u8]| {
        let dirty = bitmap.dirty();
        bitmap.clear(&dirty);
        for range in &dirty {
            let mut buffer = Buffer::new(((range.end - range.start) * BLOCK) as usize);
            out.read_exact_at(&mut buffer, range.start * BLOCK).unwrap();
            copy[(range.start * BLOCK) as usize..(range.end * BLOCK) as usize].copy_from_slice(&buffer);
            copied += range.end - range.start;
        }
    };
    let (stop, writes, seed) = (AtomicBool::new(false), AtomicU64::new(0), seed());
    thread::scope(|scope| {
        for n in 0..4 {
            let (out, stop, writes) = (&out, &stop, &writes);
            scope.spawn(move || write_randomly(out, 0..size / BLOCK, seed + n, stop, writes));
        }
        if noise {
            // Updates of maps, during which programs on classic tracepoints are left out.
            let (tracker, stop) = (&ground.tracker, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    tracker.follow("noise", 0, MIB).unwrap();
                    tracker.unfollow(0).unwrap();
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            take(&mut copy);
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(writes.load(Ordering::SeqCst) > 100);
    take(&mut copy);
    assert!(bitmap.dirty().is_empty() && bitmap.is_clean() && copied > 100);
    let mut now = Buffer::new(size as usize);
    out.read_exact_at(&mut now, 0).unwrap();
    let differs = |block: &u64| {
        let bytes = (block * BLOCK) as usize..((block + 1) * BLOCK) as usize;
        now[bytes.clone()] != copy[bytes]
    };
    let missed: BTreeSet<_> = (0..size / BLOCK).filter(differs).collect();
    let unseen = unseen.blocks();
    assert!(
        missed.is_subset(&unseen),
        "seed {seed}, {writes:?} writes: {missed:?}, not to be seen {unseen:?}"
    );
}

#[test]
fn a_copy_that_is_cleared_first_misses_nothing() {
    copy_while_it_is_written(false);
}

#[test]
fn a_copy_misses_nothing_while_maps_change() {
    copy_while_it_is_written(true);
}

/// The oldest kernel that we care about, where the kernel's structures and the log of XFS look different.
#[test]
fn under_debian_s_kernel() {
    let this = "tracking::under_debian_s_kernel";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/qemu.sh");
    // A file system with direct I/O; the directory for temporary files has none there.
    let output = Command::new(script)
        .args(["run", "--limit", "600", "--", "env", "TMPDIR=/mnt/quota-ext4"])
        .arg(std::env::current_exe().unwrap())
        .args(["tracking::", "direct::", "--skip", this, "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = said.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(
        output.status.success() && passed > 10,
        "{}, {passed} passed:\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
