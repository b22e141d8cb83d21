//! Random writes, discards, cuts, crashes, absent vaults, merges and retention against a model in memory: whatever happens,
//! every cut that is listed restores to what the volume held at that cut.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use common::cut_at_rest;
use everhold_history::restore::{Progress, chain_to, write_difference, write_point};
use everhold_history::{
    Changes, Error, Opened, Parts, Right, Steps, Terms, Wake, Writer, difference, upkeep,
};
use jiff::Timestamp;
use linux::direct::Pool;
use model::Keep;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vault::claim::{Epoch, Writer as Claimant, claim};
use vault::format::{BLOCK, Keys, StreamId};
use vault::plan::Rules;
use vault::read::Access;
use vault::store::{AbsentStore, MemoryStore, Op, Store};

const BLOCKS: u64 = 256;

/// Marks in memory: they outlive the daemon, and are lost with the host.
#[derive(Default)]
struct Marks {
    set: Mutex<BTreeSet<u64>>,
    events: AtomicU64,
    token: AtomicU64,
}

impl Changes for Marks {
    fn events(&self) -> u64 {
        self.events.load(Ordering::SeqCst)
    }
    fn is_clean(&self) -> bool {
        self.set.lock().unwrap().is_empty()
    }
    fn is_broken(&self) -> bool {
        false
    }
    fn dirty(&self) -> Vec<Range<u64>> {
        self.set.lock().unwrap().iter().map(|block| *block..*block + 1).collect()
    }
    fn clear(&self, ranges: &[Range<u64>]) {
        let mut set = self.set.lock().unwrap();
        ranges.iter().cloned().flatten().for_each(|block| {
            set.remove(&block);
        });
    }
    fn mark(&self, ranges: &[Range<u64>]) {
        self.set.lock().unwrap().extend(ranges.iter().cloned().flatten());
        self.events.fetch_add(1, Ordering::SeqCst);
    }
    fn token(&self) -> u64 {
        self.token.load(Ordering::SeqCst)
    }
    fn set_token(&self, token: u64) {
        self.token.store(token, Ordering::SeqCst);
    }
}

type Content = Vec<u64>;

struct World {
    dir: tempfile::TempDir,
    store: MemoryStore,
    image: File,
    marks: Marks,
    pool: Arc<Pool>,
    /// One number for each block; 0 is a hole.
    content: Content,
    /// What the volume held at each point, as last made.
    points: BTreeMap<u64, Content>,
    /// The newest cut that was said to be durable, with its content.
    acknowledged: Option<(u64, Content)>,
    writer: Option<Writer>,
    epoch: u32,
    now: u64,
    next: u64,
}

fn block_of(value: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    if value != 0 {
        for (at, word) in block.chunks_exact_mut(8).enumerate() {
            // Half of the blocks can be compressed.
            let salt = if value.is_multiple_of(2) { at as u64 } else { 0 };
            let word_value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt * salt * value);
            word.copy_from_slice(&word_value.to_le_bytes());
        }
    }
    block
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let image =
            File::options().read(true).write(true).create(true).truncate(true).open(dir.path().join("image"));
        let image = image.unwrap();
        image.set_len(BLOCKS * BLOCK as u64).unwrap();
        Self {
            dir,
            store: MemoryStore::new(),
            image,
            marks: Marks::default(),
            pool: Arc::new(Pool::new(2).unwrap()),
            content: vec![0; BLOCKS as usize],
            points: BTreeMap::new(),
            acknowledged: None,
            writer: None,
            epoch: 0,
            now: 1_700_000_000_000,
            next: 1,
        }
    }

    fn access(&self) -> Access {
        Access {
            store: Arc::new(self.store.clone()),
            keys: Keys::new(&[7; 32]),
            vault: [9; 16],
            stream: StreamId([3; 16]),
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A daemon starts, or finds that the vault is back.
    fn start(&mut self) -> bool {
        if let Some(writer) = &self.writer {
            if !writer.outbox().is_away() || self.access().state().is_err() {
                return true;
            }
            writer.outbox().spill().unwrap();
        }
        let me = Claimant {
            node: "00112233445566778899aabbccddeeff".into(),
            host: "here".into(),
            boot_id: "boot".into(),
            since: Timestamp::from_millisecond(self.now as i64).unwrap(),
            version: "test".into(),
        };
        let right = match claim(&self.store, &me, false) {
            Ok(Epoch(epoch)) => {
                self.epoch = epoch;
                Right::Epoch(epoch)
            }
            Err(_) => Right::Away,
        };
        let mut access = self.access();
        if right == Right::Away {
            access.store = Arc::new(AbsentStore::new("memory:", "it is away"));
        }
        let parts = Parts {
            access,
            right,
            home: self.home(),
            volatile: self.dir.path().join("volatile"),
            image: self.dir.path().join("image"),
            pool: Arc::clone(&self.pool),
            spool: 1 << 20,
            // So that many a cut has partial points before it.
            portion: 16,
            wake: Wake::default(),
            steps: Steps::default(),
        };
        match Writer::open(parts, Some(&self.marks)) {
            Ok((writer, opened)) => {
                if self.points.is_empty() {
                    assert_ne!(opened, Opened::Trusted);
                }
                self.writer = Some(writer);
                true
            }
            Err(Error::NeedsVault { why, .. }) => {
                assert_eq!(right, Right::Away, "{why}");
                false
            }
            Err(_) => false,
        }
    }

    fn write(&mut self, block: u64, count: u64) {
        for block in block..(block + count).min(BLOCKS) {
            let value = self.next;
            self.next += 1;
            self.image.write_all_at(&block_of(value), block * BLOCK as u64).unwrap();
            self.content[block as usize] = value;
            self.marks.mark(std::slice::from_ref(&(block..block + 1)));
        }
    }

    fn discard(&mut self, block: u64, count: u64) {
        let end = (block + count).min(BLOCKS);
        if block >= end {
            return;
        }
        linux::fs::punch(&self.image, block * BLOCK as u64, (end - block) * BLOCK as u64).unwrap();
        self.content[block as usize..end as usize].fill(0);
        self.marks.mark(std::slice::from_ref(&(block..end)));
    }

    fn cut(&mut self) {
        if !self.start() {
            return;
        }
        self.now += 1000;
        let writer = self.writer.as_mut().unwrap();
        match cut_at_rest(writer, Some(&self.marks), self.now) {
            Ok(made) => {
                if let Some(cut) = made {
                    self.points.insert(cut.point, self.content.clone());
                }
            }
            // A vault that can't be read for comparing, or a spool that is full: the next cut has it.
            Err(Error::Vault(_) | Error::SpoolFull { .. } | Error::File { .. } | Error::NoWay { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn upload(&mut self) {
        let Some(writer) = &self.writer else { return };
        let _may_fail = writer.outbox().upload();
        if let Some((point, _)) = writer.outbox().durable_cut() {
            let content = self.points[&point].clone();
            if let Some((before, _)) = &self.acknowledged {
                assert!(*before <= point, "what was durable went away");
            }
            self.acknowledged = Some((point, content));
        }
    }

    fn upkeep(&mut self, minutes: u64) {
        self.now += minutes * 60_000;
        if self.writer.is_none() {
            return;
        }
        let keep: Keep = "1s:1m,1m:10m,10m:1h".parse().unwrap();
        let now = Timestamp::from_millisecond(self.now as i64).unwrap();
        let grace = Duration::from_secs(30);
        let terms =
            Terms { keep: &keep, needed: &[], rules: &Rules::default(), grace, keeping: &Mutex::default() };
        let _may_fail = upkeep(&self.access(), self.epoch, &terms, now, &Steps::default());
    }

    fn restore_in_place(&mut self, pick: usize) {
        if !self.start() {
            return;
        }
        self.cut();
        self.upload();
        let writer = self.writer.as_ref().unwrap();
        if !writer.outbox().is_idle()
            || self.acknowledged.as_ref().map(|(point, _)| *point) != Some(writer.newest().0)
        {
            return;
        }
        if self.points.get(&writer.newest().0) != Some(&self.content) {
            return;
        }
        let access = self.access();
        let Ok(state) = access.state() else { return };
        let cuts = state.cuts();
        let (point, _) = cuts[pick % cuts.len()];
        let now = chain_to(&state.listing.segments, writer.newest().0).unwrap();
        let then = chain_to(&state.listing.segments, point).unwrap();
        let ranges: Vec<_> = difference(&access, &now, &then).collect::<Result<Vec<_>, _>>().unwrap();
        let ranges: Vec<_> = ranges.iter().map(|l| l.entry.block..l.entry.end().min(BLOCKS)).collect();
        self.marks.mark(&ranges);
        let (progress, steps) = (Progress::default(), Steps::default());
        write_difference(&access, &now, &then, &self.image, 2, &progress, &steps).unwrap();
        self.content = self.points[&point].clone();
        self.check_image();
    }

    fn check_image(&self) {
        for (block, value) in self.content.iter().enumerate() {
            let mut is = [0; BLOCK];
            self.image.read_exact_at(&mut is, (block * BLOCK) as u64).unwrap();
            assert_eq!(is, block_of(*value), "block {block} of the image");
        }
    }

    /// Every cut that is listed is what it was.
    fn check_all(&self) {
        let access = self.access();
        let state = access.state().unwrap();
        assert!(state.damaged.is_empty());
        for (point, _) in state.cuts() {
            let chain = chain_to(&state.listing.segments, point).unwrap();
            let into = self.dir.path().join("restored");
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(&into).unwrap();
            write_point(&access, &chain, &file, true, 2, &Progress::default(), &Steps::default()).unwrap();
            let expected = self.points.get(&point).unwrap_or_else(|| panic!("cut {point} was never made"));
            for (block, value) in expected.iter().enumerate() {
                let mut is = [0; BLOCK];
                file.read_exact_at(&mut is, (block * BLOCK) as u64).unwrap();
                assert_eq!(is, block_of(*value), "block {block} of cut {point}");
            }
        }
        if let Some((point, _)) = &self.acknowledged {
            assert!(state.newest() >= *point, "the newest durable cut {point} is gone");
        }
    }
}

/// The object of a cut is on its way when the daemon dies, and arrives when the next one has gone on without the vault.
#[test]
fn what_arrives_late_takes_no_place() {
    let mut world = World::new();
    world.write(0, 40);
    world.cut();
    world.upload();
    world.write(10, 4);
    world.cut();
    let before = world.store.list("h/").unwrap();
    world.upload();
    let put = world.store.list("h/").unwrap();
    let late: Vec<_> = put.iter().filter(|object| !before.contains(object)).collect();
    assert_eq!(late.len(), 1, "{late:?}");
    let body = world.store.read(&late[0].name, None).unwrap();
    world.store.delete(&late[0].name).unwrap();
    // Nor was it noted.
    let (point, _) = world.writer.as_ref().unwrap().newest();
    world.writer = None;
    let durable = world.home().join("durable");
    let noted = std::fs::read_to_string(&durable).unwrap();
    let noted = noted.replace(&format!("[{point},"), &format!("[{},", point - 1));
    std::fs::write(&durable, noted).unwrap();
    world.acknowledged = None;
    world.marks.mark(std::slice::from_ref(&(10..14)));

    world.store.set_absent(true);
    world.write(12, 4);
    world.cut();
    let writer = world.writer.as_ref().expect("it goes on");
    assert!(writer.outbox().is_away() && writer.newest().0 > point, "{:?}", writer.newest());
    world.write(30, 1);
    world.cut();
    world.store.set_absent(false);
    assert!(world.start());
    world.upload();
    world.check_all();
    let newest = world.access().state().unwrap().newest();
    world.store.create(&late[0].name, body).unwrap();
    world.check_all();
    let state = world.access().state().unwrap();
    assert!(state.newest() == newest && state.listing.strays.iter().any(|name| name.to == point));
    assert!(
        world.acknowledged.as_ref().is_some_and(|(cut, content)| *cut == newest && *content == world.content)
    );
}

#[derive(Debug, Clone)]
enum Action {
    Write(u64, u64),
    Discard(u64, u64),
    Cut,
    Upload,
    /// The daemon is killed: what was in its memory is gone.
    KillDaemon,
    /// The host goes down: the marks are gone too.
    KillHost,
    Absent(bool),
    Fail(u64),
    Upkeep(u64),
    Restore(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..BLOCKS, 1..24u64).prop_map(|(block, count)| Action::Write(block, count)),
        2 => (0..BLOCKS, 1..64u64).prop_map(|(block, count)| Action::Discard(block, count)),
        8 => Just(Action::Cut),
        6 => Just(Action::Upload),
        2 => Just(Action::KillDaemon),
        1 => Just(Action::KillHost),
        2 => any::<bool>().prop_map(Action::Absent),
        1 => (0..1000u64).prop_map(Action::Fail),
        3 => (0..30u64).prop_map(Action::Upkeep),
        1 => (0..100usize).prop_map(Action::Restore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn every_listed_cut_is_what_the_volume_held(actions in prop::collection::vec(action(), 1..80)) {
        let mut world = World::new();
        let mut absent = false;
        let faults = actions.iter().filter(|action| matches!(action, Action::Fail(_))).count();
        for action in actions {
            match action {
                Action::Write(block, count) => world.write(block, count),
                Action::Discard(block, count) => world.discard(block, count),
                Action::Cut => world.cut(),
                Action::Upload => world.upload(),
                Action::KillDaemon => world.writer = None,
                Action::KillHost => {
                    world.writer = None;
                    world.marks = Marks::default();
                }
                Action::Absent(is) => {
                    absent = is;
                    world.store.set_absent(is);
                }
                Action::Fail(after) => world.store.inject(Some(Op::Create), "", after % 3, vault::store::Fault::FailAfter),
                Action::Upkeep(minutes) => world.upkeep(minutes),
                Action::Restore(pick) => if !absent { world.restore_in_place(pick) },
            }
            if !absent {
                world.check_all();
            }
        }
        // Once the vault is back, everything is there. Each round may meet a fault that has not come yet.
        world.store.set_absent(false);
        for _ in 0..8 + faults {
            world.cut();
            world.upload();
        }
        world.check_all();
        let (point, content) = world.acknowledged.clone().expect("a cut at last");
        prop_assert_eq!(&content, &world.content);
        prop_assert_eq!(world.access().state().unwrap().newest(), point);
    }
}
