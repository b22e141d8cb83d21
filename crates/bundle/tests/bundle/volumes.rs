//! Volumes come out as they were, whatever happened to them while they were written.

use crate::ground::{
    Garden, assert_same, bundle_of, differences, preamble, snapshot, unpack, verified, volume,
};
use bundle::{Error, Skip, Watch, Writer};
use proptest::prelude::*;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_at_rest_comes_out_as_it_was(seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        Garden::new(&tree, seed).grow(60);
        let reader = bundle_of(&tree, &dir.path().join("b.tar"));
        prop_assert_eq!(reader.volumes()[0].layers, 1);
        unpack(&reader, "data", &dir.path().join("out"));
        let found = differences(&tree, &dir.path().join("out"));
        prop_assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn what_changes_between_looks_is_in_it(seed in any::<u64>(), looks in 1..4_u64, steps in 1..40_u64, settled in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let (tree, file) = (dir.path().join("tree"), dir.path().join("b.tar"));
        let mut garden = Garden::new(&tree, seed);
        garden.grow(50);
        let mut writer = Writer::create(&file, &preamble()).unwrap();
        // With this, what is old enough is known to be unchanged, and is not read again.
        let rest = || if settled { std::thread::sleep(Duration::from_millis(45)) };
        if settled {
            writer.settling(Duration::from_millis(20));
        }
        rest();
        let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
        for _ in 1..looks {
            garden.grow(steps);
            rest();
            writer.settle(&mut live).unwrap();
        }
        garden.grow(steps);
        writer.last_look(&mut live).unwrap();
        writer.seal(live).unwrap();
        writer.finish().unwrap();
        unpack(&verified(&file), "data", &dir.path().join("out"));
        let found = differences(&tree, &dir.path().join("out"));
        prop_assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn a_writer_in_the_background_is_caught_up_with(seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let (tree, file) = (dir.path().join("tree"), dir.path().join("b.tar"));
        Garden::new(&tree, seed).grow(60);
        let stop = Arc::new(AtomicBool::new(false));
        let background = std::thread::spawn({
            let (tree, stop) = (tree.clone(), Arc::clone(&stop));
            move || {
                let mut garden = Garden::new(&tree, seed ^ 0x5555);
                while !stop.load(Ordering::Relaxed) {
                    garden.step();
                }
            }
        });
        let mut writer = Writer::create(&file, &preamble()).unwrap();
        let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
        for _ in 0..3 {
            writer.settle(&mut live).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        background.join().unwrap();
        writer.last_look(&mut live).unwrap();
        writer.seal(live).unwrap();
        writer.finish().unwrap();
        unpack(&verified(&file), "data", &dir.path().join("out"));
        let found = differences(&tree, &dir.path().join("out"));
        prop_assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn blocks_that_changed_are_patched_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, file) = (dir.path().join("tree"), dir.path().join("b.tar"));
    fs::create_dir(&tree).unwrap();
    // Large enough for several threads.
    fs::write(tree.join("database"), vec![7; 40 << 20]).unwrap();
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
    let database = OpenOptions::new().write(true).open(tree.join("database")).unwrap();
    for look in 0..4 {
        for page in 0..20 {
            database.write_all_at(&[page as u8 + look; 8192], page * (2 << 20) + 12_345).unwrap();
        }
        let looked = if look < 3 { writer.settle(&mut live) } else { writer.last_look(&mut live) }.unwrap();
        assert!(looked.patched >= 20 * 8192 && looked.patched <= 20 * (128 << 10), "{looked:?}");
        assert_eq!((looked.written, looked.removed), (0, 0));
    }
    writer.seal(live).unwrap();
    let summary = writer.finish().unwrap();
    let reader = verified(&file);
    assert_eq!(reader.volumes()[0].layers, 1);
    assert_eq!(reader.members(), summary.members);
    unpack(&reader, "data", &dir.path().join("out"));
    assert_same(&tree, &dir.path().join("out"));
}

#[test]
fn what_is_settled_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, file) = (dir.path().join("tree"), dir.path().join("b.tar"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("old"), vec![7; 3 << 20]).unwrap();
    fs::write(tree.join("touched"), vec![7; 1 << 20]).unwrap();
    // What was written shortly before a look may have been written after it, too.
    std::thread::sleep(Duration::from_millis(45));
    let read = Arc::new(AtomicU64::new(0));
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    writer.settling(Duration::from_millis(20));
    let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
    let count = Arc::clone(&read);
    writer.watch(Watch {
        progress: Box::new(move |bytes| {
            count.fetch_add(bytes, Ordering::Relaxed);
        }),
        ..Watch::default()
    });
    OpenOptions::new().write(true).open(tree.join("touched")).unwrap().write_all_at(b"x", 5).unwrap();
    writer.last_look(&mut live).unwrap();
    assert_eq!(read.load(Ordering::Relaxed), 1 << 20);
    writer.seal(live).unwrap();
    writer.finish().unwrap();
    unpack(&verified(&file), "data", &dir.path().join("out"));
    assert_same(&tree, &dir.path().join("out"));
}

#[test]
fn files_that_grow_or_shrink_a_little_are_patched_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, file) = (dir.path().join("tree"), dir.path().join("b.tar"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("table"), vec![7; (8 << 20) + 100]).unwrap();
    fs::write(tree.join("after"), "what follows is not harmed").unwrap();
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
    let table = OpenOptions::new().write(true).open(tree.join("table")).unwrap();
    let size = 8 << 20;
    // Longer, up to the last byte of the room, shorter by a lot, longer by a hole where data was; and a header of 512 bytes alone.
    let sizes = [size + 8192, size + (size >> 6), size / 2, size + 4096, size + (size >> 6) - 512 + 1];
    for (look, size) in sizes.into_iter().enumerate() {
        if look == 3 {
            table.set_len(size).unwrap();
        } else {
            table.set_len(size - 1).unwrap();
            table.write_all_at(&[9], size - 1).unwrap();
        }
        let looked = if look < 4 { writer.settle(&mut live) } else { writer.last_look(&mut live) }.unwrap();
        assert_eq!(looked.written, 0, "{look} {looked:?}");
    }
    writer.seal(live).unwrap();
    writer.finish().unwrap();
    let reader = verified(&file);
    assert_eq!(reader.volumes()[0].layers, 1);
    unpack(&reader, "data", &dir.path().join("out"));
    assert_same(&tree, &dir.path().join("out"));
}

#[test]
fn holes_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let sparse = OpenOptions::new().write(true).create_new(true).open(tree.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"in the middle", 1 << 39).unwrap();
    let reader = bundle_of(&tree, &dir.path().join("b.tar"));
    assert!(reader.size() < 100_000);
    unpack(&reader, "data", &dir.path().join("out"));
    let out = dir.path().join("out/sparse").metadata().unwrap();
    assert_eq!(out.len(), 1 << 40);
    assert!(out.blocks() < 1000);
    let mut read = [0; 13];
    fs::File::open(dir.path().join("out/sparse")).unwrap().read_exact_at(&mut read, 1 << 39).unwrap();
    assert_eq!(&read, b"in the middle");
}

#[test]
fn content_of_skipped_directories_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, file) = (dir.path().join("tree"), dir.path().join("b.tar"));
    fs::create_dir_all(tree.join("a/skipped/deep")).unwrap();
    fs::write(tree.join("a/kept"), "x").unwrap();
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    let skip = Skip::from(["a/skipped".into()]);
    let mut live = writer.layer(&tree, volume("data"), skip).unwrap();
    writer.last_look(&mut live).unwrap();
    writer.seal(live).unwrap();
    writer.finish().unwrap();
    unpack(&verified(&file), "data", &dir.path().join("out"));
    let paths: Vec<_> = snapshot(&dir.path().join("out")).into_keys().collect();
    assert_eq!(paths, ["", "a", "a/kept", "a/skipped"].map(std::path::PathBuf::from));
}

#[test]
fn who_writes_in_the_pause_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, file) = (dir.path().join("tree"), dir.path().join("b.tar"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), vec![1; 64 << 20]).unwrap();
    let mut writer = Writer::create(&file, &preamble()).unwrap();
    let mut live = writer.layer(&tree, volume("data"), Skip::new()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let background = std::thread::spawn({
        let (path, stop) = (tree.join("file"), Arc::clone(&stop));
        move || {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all_at(b"still", 5).unwrap();
            }
        }
    });
    let error = writer.last_look(&mut live).unwrap_err();
    stop.store(true, Ordering::Relaxed);
    background.join().unwrap();
    assert!(matches!(&error, Error::Moving { path } if path.ends_with("file")), "{error}");
    assert!(matches!(writer.project(b"{}"), Err(Error::Broken { .. })));
    writer.abandon().unwrap();
    assert!(fs::read_dir(dir.path()).unwrap().count() == 1);
}

#[test]
fn only_an_empty_directory_is_unpacked_into() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let reader = bundle_of(&tree, &dir.path().join("b.tar"));
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "").unwrap();
    let unpack = |name: &str| reader.unpack_volume(name, &out, &mut |_| true);
    assert!(matches!(unpack("data"), Err(Error::NotEmpty { .. })));
    assert!(matches!(unpack("other"), Err(Error::Absent { .. })));
}

#[test]
fn a_tree_without_last_look_is_not_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&dir.path().join("b.tar"), &preamble()).unwrap();
    let live = writer.layer(dir.path(), volume("data"), Skip::new()).unwrap();
    assert!(writer.seal(live).is_err());
}
