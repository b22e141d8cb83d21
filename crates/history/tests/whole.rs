//! A small vault, made by the real code in a directory: every single object that is missing and every changed byte is found,
//! and named; what is whole gives no alarm.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use everhold_history::restore::{Progress, chain_to, write_point};
use everhold_history::{Steps, Terms, salt, upkeep};
use jiff::Timestamp;
use model::Keep;
use ring::rand::SystemRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vault::Store;
use vault::check::{self, Report};
use vault::claim::{Writer as Claimant, claim};
use vault::descriptor;
use vault::format::{BLOCK, Keys, Kind, PartBuilder, PartName, Sealer, StreamId};
use vault::inventory::keep_vault_inventory;
use vault::keys::{DataKey, NewSlot, RecoveryKit, SecretString, VaultId};
use vault::plan::Rules;
use vault::read::Access;
use vault::store::{DirOptions, DirStore};
use vault::stream::Snapshot;

const BEGUN: u64 = 1_700_000_000_000;
/// Longer objects are changed in every seventh byte, and in all at either end.
const SHORT: usize = 300;
const ENDS: usize = 64;

struct Made {
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    id: VaultId,
    key: DataKey,
    stream: StreamId,
    access: Access,
    /// Parts that count no more, so that nobody misses them.
    unneeded: BTreeSet<String>,
    cuts: Vec<(u64, u64)>,
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(ms as i64).unwrap()
}

fn claimant(node: &str) -> Claimant {
    Claimant {
        node: node.repeat(32),
        host: format!("host-{node}"),
        boot_id: "boot".into(),
        since: at(BEGUN),
        version: "test".into(),
    }
}

/// Puts the segment that ends at point `to`; the first has two parts.
fn put(access: &Access, epoch: u32, to: u64, time: u64) {
    let mut sealer = Sealer::new(&access.keys, access.stream.0, salt());
    let parts = if to == 1 { 2 } else { 1 };
    let mut built = Vec::new();
    for part in 0..parts {
        let mut building = PartBuilder::new();
        let mut content = [0; BLOCK];
        let line = format!("point {to}, part {part}\n");
        content.iter_mut().zip(line.bytes().cycle()).for_each(|(to, from)| *to = from);
        building.add(&mut sealer, u64::from(part) * 8 + to % 4, &content);
        building.add_zeros(u64::from(part) * 8 + 6, 2);
        let name = PartName {
            stream: access.stream,
            from: to - 1,
            to,
            time,
            epoch,
            run: to as u32,
            kind: Kind::Cut,
            part,
            last: part + 1 == parts,
        };
        built.push(building.build(&access.keys, &access.vault, name, 64 * BLOCK as u64, salt()));
    }
    access.put(&built).unwrap();
}

/// Segments, merged ones, snapshots, a list of condemned objects, two slots, two claims, an era, a description.
fn make() -> Made {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let store: Arc<dyn Store> = Arc::new(DirStore::open(dir.path(), DirOptions::default()).unwrap());
    let passphrase = NewSlot::Passphrase {
        passphrase: SecretString::from("a passphrase for tests".to_owned()),
        label: "tests".to_owned(),
        work: Some(4),
    };
    let slots = [NewSlot::for_kit(&RecoveryKit::draw()), passphrase];
    let made = descriptor::create(&*store, &slots, at(BEGUN), &SystemRandom::new()).unwrap();
    let (id, key) = (made.descriptor.id, made.key);
    let keys = Keys::new(key.expose());
    let stream = StreamId(keys.name(b"a volume"));
    let access = Access { store: Arc::clone(&store), keys: keys.clone(), vault: id.0, stream };

    assert_eq!(claim(&*store, &claimant("a"), false).unwrap().0, 1);
    access.describe(&serde_json::json!({ "name": "pgdata" }), salt()).unwrap();
    let mut time = BEGUN;
    for to in 1..=12 {
        time += 20_000;
        put(&access, 1, to, time);
    }
    assert_eq!(claim(&*store, &claimant("b"), true).unwrap().0, 2);
    access.begin_era(2, 12).unwrap();
    // What the writer that was replaced still put.
    put(&access, 1, 13, time + 1000);
    for to in 13..=18 {
        time += 20_000;
        put(&access, 2, to, time);
    }
    for point in [4, 18] {
        let time = BEGUN + point * 20_000;
        let name = format!("before-{point}");
        access.name_cut(&Snapshot { name, point, time, created: time }, salt()).unwrap();
    }
    let keep: Keep = "1s:1m,1m:10m,10m:1h".parse().unwrap();
    let (keeping, rules) = (Mutex::default(), Rules::default());
    let kept_up = |time: u64, grace: u64| {
        let grace = Duration::from_secs(grace);
        let terms = Terms { keep: &keep, needed: &[], rules: &rules, grace, keeping: &keeping };
        upkeep(&access, 2, &terms, at(time), &Steps::default()).unwrap()
    };
    let (mut merged, mut deleted) = (0, 0);
    for _ in 0..3 {
        time += 120_000;
        let done = kept_up(time, 60);
        (merged, deleted) = (merged + done.merged, deleted + done.deleted);
    }
    // One more merge, whose sources stay condemned.
    for to in 19..=21 {
        time += 10_000;
        put(&access, 2, to, time);
    }
    time += 120_000;
    for _ in 0..2 {
        kept_up(time, 600);
    }
    assert!(merged > 0 && deleted > 0, "{merged} merged, {deleted} deleted");
    keep_vault_inventory(&*store, &keys, id, 2, time, &[stream], &[], salt()).unwrap();

    let state = access.state().unwrap();
    assert!(!state.condemned.is_empty() && state.snapshots.len() == 2);
    assert!(state.listing.segments.len() > 2 && state.listing.segments.iter().any(|s| s.to - s.from > 1));
    let condemned = state.condemned.iter().flat_map(|(_, list)| list.names.clone());
    let unneeded = condemned.chain(state.listing.strays.iter().map(ToString::to_string)).collect();
    let cuts = state.cuts();
    Made { dir, store, id, key, stream, access, unneeded, cuts }
}

impl Made {
    /// What is checked knows nothing but the vault: no daemon says what should be there.
    fn check(&self, deep: bool) -> Report {
        check::vault(&self.store, self.id, &self.key, deep, &|_| 0).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.dir.path()).join(name)
    }

    /// What a cut holds, as far as it can be restored.
    fn restored(&self, point: u64) -> Result<Vec<u8>, String> {
        let access = &self.access;
        let state = access.state().map_err(|error| error.to_string())?;
        let chain = chain_to(&state.listing.segments, point).map_err(|error| error.to_string())?;
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        write_point(access, &chain, &file, true, 2, &Progress::default(), &Steps::default())
            .map_err(|error| error.to_string())?;
        let mut content = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut content)).unwrap();
        Ok(content)
    }

    fn names(&self) -> Vec<String> {
        self.store.list("").unwrap().into_iter().map(|object| object.name).collect()
    }
}

fn found(report: &Report) -> BTreeSet<String> {
    report.all_findings().map(|finding| finding.object.clone()).collect()
}

#[test]
fn nothing_is_reported_of_a_whole_vault() {
    let made = make();
    for deep in [false, true] {
        let report = made.check(deep);
        assert_eq!(found(&report), BTreeSet::new(), "deep: {deep}");
        let (stream, about, checked) = &report.streams[0];
        assert_eq!((*stream, &checked.left, checked.lost.len()), (made.stream, &made.cuts, 0));
        assert_eq!(about.as_ref().unwrap()["name"], "pgdata");
    }
}

#[test]
fn every_missing_object_is_found() {
    let made = make();
    let mut missed = Vec::new();
    let (mut kinds, mut lossy) = (BTreeSet::new(), 0);
    let whole: BTreeMap<u64, _> =
        made.cuts.iter().map(|(point, _)| (*point, made.restored(*point).unwrap())).collect();
    for name in made.names() {
        let body = std::fs::read(made.path(&name)).unwrap();
        std::fs::remove_file(made.path(&name)).unwrap();
        let report = made.check(false);
        // What is said to be left can be restored, and what is said to be lost can't. Without its era, what a replaced writer put
        // has a place again.
        for (_, _, checked) in report.streams.iter().filter(|_| !name.contains("/e/")) {
            for (point, _) in checked.left.iter().filter(|(point, _)| whole.contains_key(point)) {
                assert!(made.restored(*point).as_ref() == Ok(&whole[point]), "{name}: cut {point} is left");
            }
            for (point, _) in &checked.lost {
                made.restored(*point).expect_err("a cut that is lost");
            }
        }
        std::fs::write(made.path(&name), body).unwrap();
        if made.unneeded.contains(&name) {
            assert_eq!(found(&report), BTreeSet::new(), "{name} was to be deleted anyway");
            continue;
        }
        kinds.insert(name.rsplit_once('/').map_or("", |(kind, _)| kind).to_owned());
        // Of an inventory that is not there nobody knows the epoch.
        let expected = match name.rsplit_once("i/") {
            Some((dir, _)) if dir.is_empty() || dir.ends_with('/') => format!("{dir}i/00000000"),
            _ => name.clone(),
        };
        if !found(&report).contains(&expected) {
            missed.push(format!("{name}: {:?}", found(&report)));
        }
        // Whatever is lost, all the other cuts are still found.
        for (_, _, checked) in &report.streams {
            let mut all: Vec<_> = checked.left.iter().chain(&checked.lost).copied().collect();
            all.sort_unstable();
            // Without its era, a segment of the replaced writer counts again, and without its list what was condemned.
            if name.contains("/e/") || name.contains("/d/") {
                assert!(made.cuts.iter().all(|cut| checked.left.contains(cut)), "{name}");
            } else {
                assert_eq!(all, made.cuts, "{name}");
            }
            lossy += usize::from(!checked.lost.is_empty());
            let range = checked.lost.first().copied().zip(checked.lost.last().copied());
            let said = checked.findings.iter().find(|f| f.object == name).and_then(|f| f.cuts);
            if range.is_some() {
                assert_eq!(said, range, "{name}: the range of time");
            }
        }
    }
    assert!(missed.is_empty(), "not found when missing:\n{}", missed.join("\n"));
    assert!(kinds.len() >= 9 && lossy > 2, "{kinds:?}, {lossy}");
    assert_eq!(found(&made.check(true)), BTreeSet::new(), "all was put back");
}

#[test]
fn every_changed_byte_is_found() {
    let made = make();
    let mut missed = Vec::new();
    let mut flips = 0;
    for name in made.names() {
        let body = std::fs::read(made.path(&name)).unwrap();
        let len = body.len();
        for byte in (0..len).filter(|b| len <= SHORT || b % 7 == 0 || *b < ENDS || b + ENDS >= len) {
            let mut damaged = body.clone();
            damaged[byte] ^= 1 << (byte % 8);
            std::fs::write(made.path(&name), damaged).unwrap();
            flips += 1;
            match check::vault(&made.store, made.id, &made.key, true, &|_| 0) {
                Ok(report) if found(&report).contains(&name) => {}
                Ok(report) => missed.push(format!("{name}, byte {byte} of {len}: {:?}", found(&report))),
                Err(error) => missed.push(format!("{name}, byte {byte} of {len}: no report: {error}")),
            }
        }
        std::fs::write(made.path(&name), body).unwrap();
    }
    let first: Vec<_> = missed.iter().take(20).cloned().collect();
    assert!(missed.is_empty(), "{} of {flips} changes not found:\n{}", missed.len(), first.join("\n"));
    assert!(flips > 2000, "{flips}");
}
