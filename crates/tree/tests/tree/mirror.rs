//! Mirrors of trees that change between passes, and during them.

use crate::change::{Change, change, changes};
use crate::ground::{Image, Mounted, Pair, bytes, identical, options};
use everhold_tree::{Error, Mirror, Options, Tree};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// File times move on by more than the settling time of these tests.
fn settle() {
    std::thread::sleep(Duration::from_millis(60));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever happens between passes, a pass makes the destination what the source is.
    #[test]
    fn every_pass_ends_with_an_identical_tree(rounds in prop::collection::vec((changes(25), any::<[bool; 2]>()), 1..5)) {
        let pair = Pair::new();
        let mut mirror = pair.mirror();
        for (changes, [settled, last]) in rounds {
            for change in &changes {
                change.make(&pair.source());
            }
            if settled {
                settle();
            }
            let cancel = AtomicBool::new(false);
            if last {
                mirror.last_pass(&cancel, &mut |_| {}).unwrap();
            } else {
                mirror.pass(&cancel, &mut |_| {}).unwrap();
            }
            prop_assert_eq!(pair.differences(), vec![]);
        }
        mirror.sync().unwrap();
    }

    /// Whatever is at the destination of a new mirror, and however often passes were stopped in the middle.
    #[test]
    fn a_killed_run_is_taken_over(
        (source, dest) in (changes(40), changes(40)),
        stops in prop::collection::vec((0..1500u64, changes(10)), 0..4),
        copied in any::<bool>(),
    ) {
        let pair = Pair::new();
        for change in &source {
            change.make(&pair.source());
        }
        if copied {
            pair.mirror().pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
        }
        for change in &dest {
            change.make(&pair.dest());
        }
        let mut mirror = pair.mirror();
        for (after, changes) in stops {
            let cancel = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_micros(after));
                    cancel.store(true, Ordering::Relaxed);
                });
                match mirror.pass(&cancel, &mut |_| {}) {
                    Ok(_) | Err(Error::Cancelled) => {}
                    Err(error) => panic!("{error}"),
                }
            });
            for change in &changes {
                change.make(&pair.source());
            }
        }
        mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
        prop_assert_eq!(pair.differences(), vec![]);
    }
}

/// Ends the threads that wait for it, also when the test fails: a scope waits for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes random changes until it is told to stop, and counts those that could be made.
fn hammer(root: &Path, stop: &AtomicBool, made: &AtomicU64) {
    let mut runner = TestRunner::default();
    while !stop.load(Ordering::Relaxed) {
        let change = change().new_tree(&mut runner).unwrap().current();
        made.fetch_add(u64::from(change.make(root)), Ordering::Relaxed);
    }
}

#[test]
fn a_tree_in_use_is_copied_pass_after_pass() {
    for _ in 0..12 {
        let pair = Pair::new();
        // A writer that loses its processor between setting a file's times and writing to it must not look settled.
        let mut mirror = pair.mirror_with(Options { settling: Duration::from_secs(5), ..options() });
        let stop = AtomicBool::new(false);
        let cancel = AtomicBool::new(false);
        let mut passes = 0;
        let made = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let (root, stop, made) = (pair.source(), &stop, &made);
            for _ in 0..2 {
                let root = root.clone();
                scope.spawn(move || hammer(&root, stop, made));
            }
            let _stop = Stop(stop);
            let end = std::time::Instant::now() + Duration::from_millis(250);
            while std::time::Instant::now() < end || made.load(Ordering::Relaxed) < 50 || passes < 2 {
                // What gets another kind while it is copied may be an error; another pass goes on.
                if let Err(error) = mirror.pass(&cancel, &mut |_| {}) {
                    assert!(matches!(error, Error::System { .. }), "{error}");
                }
                passes += 1;
            }
        });
        mirror.last_pass(&cancel, &mut |_| {}).unwrap();
        assert_eq!(mirror.differences().unwrap(), []);
        assert_eq!(pair.differences(), []);
    }
}

#[test]
fn a_database_file_that_is_written_all_the_time_is_copied() {
    let pair = Pair::new();
    let file =
        File::options().write(true).create(true).truncate(true).open(pair.source().join("ibdata")).unwrap();
    file.write_all_at(&vec![1; 48 << 20], 0).unwrap();
    let mut mirror = pair.mirror();
    let (stop, cancel) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 1u64;
            while !stop.load(Ordering::Relaxed) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                file.write_all_at(&[state as u8; 8192], (state >> 33) % (6 << 10) * 8192).unwrap();
            }
        });
        let _stop = Stop(&stop);
        let unsettled: u64 = (0..4).map(|_| mirror.pass(&cancel, &mut |_| {}).unwrap().unsettled).sum();
        assert!(unsettled > 0);
        let still = mirror.last_pass(&cancel, &mut |_| {}).unwrap_err();
        assert!(
            matches!(&still, Error::StillChanging { path, count: 1 } if path.ends_with("ibdata")),
            "{still}"
        );
    });
    mirror.last_pass(&cancel, &mut |_| {}).unwrap();
    assert_eq!(pair.differences(), []);
}

#[test]
fn only_what_changed_is_read_and_only_changed_blocks_are_written() {
    let pair = Pair::new();
    let (large, small) = (pair.source().join("large"), pair.source().join("small"));
    fs::write(&large, vec![1; 3 << 20]).unwrap();
    fs::write(&small, vec![2; 100_000]).unwrap();
    settle();
    let mut mirror = pair.mirror();
    let mut pass = || mirror.pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    let first = pass();
    assert_eq!((first.entries, first.files_looked_at), (3, 2));
    assert_eq!((first.bytes_read, first.bytes_written), ((3 << 20) + 100_000, (3 << 20) + 100_000));
    let second = pass();
    assert_eq!((second.files_looked_at, second.bytes_read, second.bytes_written), (0, 0, 0));
    File::options().write(true).open(&large).unwrap().write_all_at(&[3; 8192], 1 << 20).unwrap();
    let third = pass();
    assert_eq!((third.files_looked_at, third.bytes_read, third.bytes_written), (1, 3 << 20, 65_536));
    // It was written just before the third pass began.
    let fourth = pass();
    assert_eq!((fourth.files_looked_at, fourth.bytes_read, fourth.bytes_written), (1, 3 << 20, 0));
    // A file that got another name is not written again, also if it changed at the same time.
    fs::create_dir(pair.source().join("archive")).unwrap();
    fs::rename(&large, pair.source().join("archive/1")).unwrap();
    File::options().write(true).open(pair.source().join("archive/1")).unwrap().write_all_at(&[4], 5).unwrap();
    let fifth = pass();
    assert_eq!((fifth.files_looked_at, fifth.bytes_written), (1, 65_536));
    fs::remove_file(&small).unwrap();
    let sixth = pass();
    assert_eq!((sixth.removed, sixth.bytes_written), (1, 0));
    assert_eq!(pair.differences(), []);
}

#[test]
fn holes_stay_holes() {
    let pair = Pair::new();
    let file = File::create(pair.source().join("sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    for block in [0u64, 20, 21, 1000, 1 << 23] {
        file.write_all_at(&[7; 4096], block * 4096).unwrap();
    }
    let mut mirror = pair.mirror();
    let pass = mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(pass.bytes_written, 5 * 4096);
    let blocks = |path: PathBuf| fs::metadata(path.join("sparse")).unwrap().blocks();
    mirror.sync().unwrap();
    assert!(blocks(pair.dest()).abs_diff(blocks(pair.source())) <= 16);
    linux::fs::punch(&file, 20 * 4096, 8192).unwrap();
    mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    mirror.sync().unwrap();
    assert_eq!(pair.differences(), []);
    assert!(blocks(pair.dest()).abs_diff(blocks(pair.source())) <= 16);
}

#[test]
fn through_overlayfs() {
    let ground = tempfile::tempdir().unwrap();
    let at = |name: &str| ground.path().join(name);
    for dir in ["lower/d", "upper", "work", "dest"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    for (name, byte) in [("lower/large", 1), ("lower/d/kept", 2), ("lower/gone", 3), ("lower/linked", 4)] {
        fs::write(at(name), vec![byte; 300_000]).unwrap();
    }
    fs::hard_link(at("lower/linked"), at("lower/d/linked")).unwrap();
    let paths = ["lower", "upper", "work"].map(|dir| at(dir).display().to_string());
    let data = format!("lowerdir={},upperdir={},workdir={}", paths[0], paths[1], paths[2]);
    let merged = Mounted::new("overlay", &at("merged"), "overlay", &data);
    settle();
    let (source, dest) = (Tree::open(&merged.0).unwrap(), Tree::open(&at("dest")).unwrap());
    let mut mirror = Mirror::new(source, dest, options()).unwrap();
    let mut pass = || mirror.pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    pass();
    identical(&merged.0, &at("dest"));
    assert_eq!(pass().files_looked_at, 0);
    // Copied up, whited out, made opaque.
    File::options().write(true).open(merged.0.join("large")).unwrap().write_all_at(b"x", 70_000).unwrap();
    fs::remove_file(merged.0.join("gone")).unwrap();
    fs::rename(merged.0.join("d/kept"), merged.0.join("moved")).unwrap();
    fs::remove_dir_all(merged.0.join("d")).unwrap();
    fs::create_dir(merged.0.join("d")).unwrap();
    pass();
    identical(&merged.0, &at("dest"));
    for change in sampled(300) {
        change.make(&merged.0);
    }
    pass();
    identical(&merged.0, &at("dest"));
}

fn sampled(count: usize) -> Vec<Change> {
    let mut runner = TestRunner::default();
    (0..count).map(|_| change().new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn a_full_destination_is_an_error_of_its_own_and_can_be_gone_on_with() {
    let ground = tempfile::tempdir().unwrap();
    let source = ground.path().join("source");
    fs::create_dir(&source).unwrap();
    for name in 0..40u8 {
        fs::write(source.join(name.to_string()), vec![name; 1 << 20]).unwrap();
    }
    let before = ground.path().join("before");
    fs::create_dir(&before).unwrap();
    let tree = |path: &Path| Tree::open(path).unwrap();
    Mirror::new(tree(&source), tree(&before), options())
        .unwrap()
        .pass(&AtomicBool::new(false), &mut |_| {})
        .unwrap();
    let image = Image::new(ground.path(), 24 << 20);
    let mut mirror = Mirror::new(tree(&source), tree(&image.mounted), options()).unwrap();
    let error = mirror.pass(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    let Error::NoSpace { path, missing, .. } = &error else { panic!("{error}") };
    assert!(path.starts_with(&image.mounted), "{error}");
    assert!(missing.is_some_and(|bytes| (10 << 20..30 << 20).contains(&bytes)), "{error}");
    identical(&before, &source);
    for name in 0..25u8 {
        fs::remove_file(source.join(name.to_string())).unwrap();
    }
    mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    identical(&source, &image.mounted);
    // Neither is there room for what goes and what comes at the same time, when all is known.
    for name in 25..40u8 {
        fs::remove_file(source.join(name.to_string())).unwrap();
        fs::write(source.join(format!("new {name}")), vec![name; 1 << 20]).unwrap();
    }
    mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    identical(&source, &image.mounted);
}

#[test]
fn nothing_is_written_through_symlinks_of_the_destination() {
    let pair = Pair::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "mine").unwrap();
    fs::create_dir(outside.path().join("in")).unwrap();
    fs::create_dir_all(pair.source().join("dir/in")).unwrap();
    fs::write(pair.source().join("dir/file"), "other").unwrap();
    fs::write(pair.source().join("file"), "other").unwrap();
    symlink(outside.path(), pair.dest().join("dir")).unwrap();
    symlink(outside.path().join("file"), pair.dest().join("file")).unwrap();
    symlink(outside.path(), pair.dest().join("gone")).unwrap();
    pair.mirror().last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(pair.differences(), []);
    assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
}

#[test]
fn skipped_and_mounted_is_left_alone_on_both_sides() {
    let pair = Pair::new();
    for dir in ["skip/in", "mount/in"] {
        fs::create_dir_all(pair.source().join(dir)).unwrap();
    }
    fs::create_dir_all(pair.dest().join("skip/kept")).unwrap();
    let _source = Mounted::new("none", &pair.source().join("mount"), "tmpfs", "");
    fs::write(pair.source().join("mount/not mine"), "").unwrap();
    let options = Options { skip: [PathBuf::from("skip")].into(), ..options() };
    let mut mirror = pair.mirror_with(options);
    mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    let found = crate::ground::paths(&pair.dest());
    assert_eq!(found, ["", "mount", "skip", "skip/kept"].map(PathBuf::from));
    // What is mounted in the way is not emptied.
    fs::create_dir(pair.dest().join("more")).unwrap();
    let in_the_way = Mounted::new("none", &pair.dest().join("more"), "tmpfs", "");
    fs::write(in_the_way.0.join("file"), "").unwrap();
    let error = pair.mirror().pass(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, Error::MountPoint { path } if *path == in_the_way.0), "{error}");
    fs::create_dir(pair.source().join("more")).unwrap();
    let error = pair.mirror().pass(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, Error::MountPoint { path } if *path == in_the_way.0), "{error}");
    assert!(in_the_way.0.join("file").exists());
}

#[test]
fn a_directory_that_comes_back_after_a_stopped_pass_is_whole() {
    let pair = Pair::new();
    fs::create_dir(pair.source().join("p")).unwrap();
    fs::write(pair.source().join("p/x"), "x").unwrap();
    settle();
    let mut mirror = pair.mirror();
    mirror.pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    fs::rename(pair.source().join("p"), pair.source().join("q")).unwrap();
    fs::write(pair.source().join("p"), "a file").unwrap();
    // Something at the destination that cannot be removed ends the pass behind `p`.
    let in_the_way = Mounted::new("none", &pair.dest().join("pp"), "tmpfs", "");
    fs::write(pair.source().join("pp"), "").unwrap();
    assert!(mirror.pass(&AtomicBool::new(false), &mut |_| {}).is_err());
    drop(in_the_way);
    fs::remove_file(pair.source().join("p")).unwrap();
    fs::rename(pair.source().join("q"), pair.source().join("p")).unwrap();
    mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(pair.differences(), []);
}

#[test]
fn hard_links_are_parted_and_joined() {
    let pair = Pair::new();
    let at = |name: &str| pair.source().join(name);
    let mut mirror = pair.mirror();
    let mut check = || {
        mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
        assert_eq!(pair.differences(), []);
    };
    fs::write(at("b"), vec![1; 200_000]).unwrap();
    fs::hard_link(at("b"), at("d")).unwrap();
    symlink("x", at("s")).unwrap();
    fs::hard_link(at("s"), at("t")).unwrap();
    check();
    // A name gets a file of its own: the other one keeps its content.
    for name in ["d", "t"] {
        fs::remove_file(at(name)).unwrap();
    }
    fs::write(at("d"), vec![2; 200_000]).unwrap();
    symlink("x", at("t")).unwrap();
    std::os::unix::fs::lchown(at("t"), Some(7), Some(7)).unwrap();
    check();
    // The first name moves over to the other file, and a third joins.
    fs::remove_file(at("b")).unwrap();
    fs::hard_link(at("d"), at("b")).unwrap();
    fs::hard_link(at("d"), at("a")).unwrap();
    check();
    File::options().write(true).open(at("a")).unwrap().write_all_at(&[3], 100_000).unwrap();
    fs::remove_file(at("a")).unwrap();
    check();
}

#[test]
fn a_name_that_was_not_noted_does_not_know_what_was_written_through_another() {
    let pair = Pair::new();
    let at = |name: &str| pair.source().join(name);
    let put = |name: &str, byte| fs::write(at(name), vec![byte; 100_000]).unwrap();
    put("a", 1);
    fs::hard_link(at("a"), at("b")).unwrap();
    let mut mirror = pair.mirror();
    mirror.pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    put("a", 2);
    // Ends the pass when `a` was copied, and before `b` is known to be another name of it.
    let in_the_way = Mounted::new("none", &pair.dest().join("c"), "tmpfs", "");
    put("c", 1);
    assert!(mirror.pass(&AtomicBool::new(false), &mut |_| {}).is_err());
    drop(in_the_way);
    assert_eq!(fs::read(pair.dest().join("b")).unwrap()[0], 2);
    put("a", 1);
    fs::remove_file(at("a")).unwrap();
    mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(pair.differences(), []);
}

#[test]
fn a_copy_within_itself_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    fs::create_dir_all(root.path().join("ab")).unwrap();
    let tree = |path: &str| Tree::open(&root.path().join(path)).unwrap();
    for (source, dest) in [("a", "a/b"), ("a/b", "a"), ("a", "a"), ("", "a/b")] {
        let error = Mirror::new(tree(source), tree(dest), options()).unwrap_err();
        assert!(matches!(error, Error::Nested { .. }), "{error}");
    }
    Mirror::new(tree("a"), tree("ab"), options()).unwrap();
    // What is mounted below the source is not part of it.
    let mounted = Mounted::new("none", &root.path().join("a/b"), "tmpfs", "");
    Mirror::new(tree("a"), Tree::open(&mounted.0).unwrap(), options()).unwrap();
}

#[test]
fn deep_trees_and_odd_names_are_copied_and_removed() {
    let pair = Pair::new();
    let mut path = pair.source();
    for _ in 0..300 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(bytes(b"\xfe\xff")), "deep").unwrap();
    let mut mirror = pair.mirror();
    mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(pair.differences(), []);
    fs::remove_dir_all(pair.source().join("d")).unwrap();
    fs::write(pair.source().join("d"), "").unwrap();
    mirror.last_pass(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(pair.differences(), []);
}

#[test]
fn progress_is_told_and_the_end_is_all() {
    let pair = Pair::new();
    fs::write(pair.source().join("a"), vec![1; 200_000]).unwrap();
    let mut told = Vec::new();
    let pass = pair.mirror().pass(&AtomicBool::new(false), &mut |progress| told.push(progress)).unwrap();
    let last = told.last().unwrap();
    assert_eq!((last.entries, last.files_looked_at, last.bytes_read), (2, 1, 200_000));
    assert_eq!((pass.bytes_written, last.bytes_written), (200_000, 200_000));
}
