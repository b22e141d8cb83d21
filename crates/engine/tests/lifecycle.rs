//! Random verbs, crashes and restarts on simulated drivers, against a model of what should be.
//!
//! The model knows which volumes exist, with which size, holders and labels. A crash at a fault point may leave the verb
//! done or not done; nothing else may be different, and nothing may leak.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use everhold_engine as engine;
use everhold_engine::{
    Clock, Engine, Error, Fault, Faults, HoldLine, NoContainers, Parts, PoolSettings, Settings,
};
use jiff::{SignedDuration, Timestamp};
use model::{
    Access, Defaults, DriverKind, FsKind, HolderKind, Labels, Options, Percent, Provisioning, Size, Volume,
    VolumeName,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use storage::Drivers;

#[derive(Debug, Clone)]
enum Verb {
    Create(u8, u8),
    Attach(u8, u8),
    Detach(u8, u8),
    Grow(u8, u8),
    Label(u8, u8),
    Rename(u8, u8),
    Remove(u8),
    Restore(u8),
    Empty(u8),
    Restart,
    Reboot,
    Later,
}

fn verb() -> impl Strategy<Value = Verb> {
    let name = 0_u8..4;
    prop_oneof![
        4 => (name.clone(), 1_u8..4).prop_map(|(n, size)| Verb::Create(n, size)),
        3 => (name.clone(), 0_u8..3).prop_map(|(n, id)| Verb::Attach(n, id)),
        3 => (name.clone(), 0_u8..3).prop_map(|(n, id)| Verb::Detach(n, id)),
        2 => (name.clone(), 1_u8..9).prop_map(|(n, size)| Verb::Grow(n, size)),
        1 => (name.clone(), 0_u8..3).prop_map(|(n, value)| Verb::Label(n, value)),
        2 => (name.clone(), name.clone()).prop_map(|(n, to)| Verb::Rename(n, to)),
        3 => name.clone().prop_map(Verb::Remove),
        2 => name.clone().prop_map(Verb::Restore),
        1 => name.prop_map(Verb::Empty),
        1 => Just(Verb::Restart),
        1 => Just(Verb::Reboot),
        1 => Just(Verb::Later),
    ]
}

/// What a live volume should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Live {
    mib: u64,
    /// What its creator asked for: asking for that again is no conflict, whatever it has grown to.
    asked: u64,
    holders: BTreeSet<String>,
    label: Option<String>,
}

/// What should be there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Model {
    live: BTreeMap<String, Live>,
    /// What is in the trash, by name; a name may be there more than once.
    trash: Vec<(String, Live)>,
}

struct TurnedClock(AtomicI64);

impl Clock for TurnedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<TurnedClock>,
    boot: u32,
}

const TTL: i64 = 1000;

impl World {
    fn new() -> Self {
        // In memory: thousands of transactions, and a crash here is one of the process, not of the disk.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let world = Self { dir, clock: Arc::new(TurnedClock(AtomicI64::new(1_000_000))), boot: 0 };
        world.write_boot_id();
        world
    }

    fn write_boot_id(&self) {
        std::fs::write(self.dir.path().join("boot_id"), format!("boot-{}\n", self.boot)).unwrap();
    }

    fn settings(&self) -> Settings {
        let path = self.dir.path();
        Settings {
            state: path.join("state"),
            boot_id_file: path.join("boot_id"),
            defaults: Defaults {
                driver: DriverKind::Sim,
                pool: "default".parse().unwrap(),
                image_size: Size::from_mib(1),
                tmpfs_size: Size::from_mib(1),
                fs: FsKind::Ext4,
                provisioning: Provisioning::Thin,
                protect: false,
                protection: model::Protection::default(),
            },
            trash_ttl: Duration::from_secs(TTL.unsigned_abs()),
            pools: vec![PoolSettings {
                name: "default".parse().unwrap(),
                path: path.join("pool"),
                labels: Labels::new(),
                reserve: Percent::new(0).unwrap(),
                hold: HoldLine::Off,
                overcommit: Percent::new(1000).unwrap(),
            }],
            claim_wait: Duration::from_secs(5),
            history: everhold_engine::HistorySettings::default(),
        }
    }

    fn open(&self, faults: Faults) -> Engine {
        let parts = Parts {
            settings: self.settings(),
            drivers: Drivers::all_sim(),
            containers: Arc::new(NoContainers),
            clock: self.clock.clone(),
            guard: None,
            tracking: Arc::new(everhold_engine::Tracking::none("a test").unwrap()),
            faults,
        };
        let (engine, repairs) = Engine::open(parts).expect("the engine opens");
        for repair in repairs {
            assert!(repair.done, "{repair}");
        }
        engine
    }
}

fn name(number: u8) -> VolumeName {
    format!("v{number}").parse().unwrap()
}

fn observed(engine: &Engine) -> Model {
    let seen = |volume: &Volume| Live {
        mib: volume.spec.size().unwrap().bytes() >> 20,
        asked: volume.asked["size"].parse::<u64>().unwrap() >> 20,
        holders: volume.attachments.iter().map(|attachment| attachment.id.clone()).collect(),
        label: volume.spec.labels.get("l").cloned(),
    };
    let live = engine.volumes().into_iter().map(|volume| {
        assert_eq!(volume.pending, None, "{} has unfinished business", volume.name);
        assert_eq!(volume.fenced, None);
        let live = seen(&volume);
        assert_eq!(engine.path_of(volume.id).is_some(), !live.holders.is_empty(), "{}", volume.name);
        (volume.name.to_string(), live)
    });
    let mut trash: Vec<_> = engine.trash().iter().map(|v| (v.name.to_string(), seen(v))).collect();
    trash.sort();
    Model { live: live.collect(), trash }
}

/// Calls the engine; `Ok(true)`: the verb says that it did something.
fn perform(engine: &Engine, verb: &Verb) -> Result<(), Error> {
    match verb {
        Verb::Create(n, mib) => {
            let options = Options::parse_words([format!("size={mib}MiB")]).unwrap();
            engine.create(&name(*n), &options).map(drop)
        }
        Verb::Attach(n, id) => {
            engine.attach(&name(*n), &format!("h{id}"), HolderKind::Cli, Access::ReadWrite).map(drop)
        }
        Verb::Detach(n, id) => engine.detach(&name(*n), &format!("h{id}")).map(drop),
        Verb::Grow(n, mib) => engine.grow(&name(*n), Size::from_mib(u64::from(*mib))).map(drop),
        Verb::Label(n, value) => {
            engine.label(&name(*n), &Labels::from([("l".into(), format!("{value}"))]), &[]).map(drop)
        }
        Verb::Rename(n, to) => engine.rename(&name(*n), &name(*to)).map(drop),
        Verb::Remove(n) => engine.remove(&name(*n)).map(drop),
        Verb::Restore(n) => engine.restore(name(*n).as_str(), None).map(drop),
        Verb::Empty(n) => engine.empty_trash(Some(name(*n).as_str()), false).map(drop),
        Verb::Restart | Verb::Reboot | Verb::Later => Ok(()),
    }
}

impl Model {
    /// What the verb should do, or `None` if it should be refused.
    fn after(&self, verb: &Verb) -> Option<Self> {
        let mut next = self.clone();
        match verb {
            Verb::Create(n, mib) => {
                let key = name(*n).to_string();
                match next.live.get(&key) {
                    Some(live) if [live.mib, live.asked].contains(&u64::from(*mib)) => {}
                    Some(_) => return None,
                    None => {
                        let mib = u64::from(*mib);
                        next.live.insert(key, Live { mib, asked: mib, ..Live::default() });
                    }
                }
            }
            Verb::Attach(n, id) => {
                next.live.get_mut(name(*n).as_str())?.holders.insert(format!("h{id}"));
            }
            Verb::Detach(n, id) => {
                next.live.get_mut(name(*n).as_str())?.holders.remove(&format!("h{id}"));
            }
            Verb::Grow(n, mib) => {
                let live = next.live.get_mut(name(*n).as_str())?;
                if u64::from(*mib) < live.mib {
                    return None;
                }
                live.mib = u64::from(*mib);
            }
            Verb::Label(n, value) => next.live.get_mut(name(*n).as_str())?.label = Some(value.to_string()),
            Verb::Rename(n, to) => {
                let (from, to) = (name(*n).to_string(), name(*to).to_string());
                if from != to {
                    let live = next.live.get(&from)?.clone();
                    if !live.holders.is_empty() || next.live.contains_key(&to) {
                        return None;
                    }
                    next.live.remove(&from);
                    next.live.insert(to, live);
                } else if !next.live.contains_key(&from) {
                    return None;
                }
            }
            Verb::Remove(n) => {
                let key = name(*n).to_string();
                match next.live.get(&key) {
                    Some(live) if !live.holders.is_empty() => return None,
                    Some(live) => {
                        next.trash.push((key.clone(), live.clone()));
                        next.live.remove(&key);
                    }
                    None => {}
                }
            }
            Verb::Restore(n) => {
                let key = name(*n).to_string();
                let (at, taken) = (self.only_in_trash(&key)?, next.live.contains_key(&key));
                if taken {
                    return None;
                }
                let (_, live) = next.trash.remove(at);
                next.live.insert(key, live);
            }
            Verb::Empty(n) => {
                next.trash.remove(self.only_in_trash(name(*n).as_str())?);
            }
            Verb::Restart | Verb::Later => {}
            Verb::Reboot => next.live.values_mut().for_each(|live| live.holders.clear()),
        }
        next.trash.sort();
        Some(next)
    }

    /// Its place, if there is exactly one of that name.
    fn only_in_trash(&self, key: &str) -> Option<usize> {
        let mut places = self.trash.iter().enumerate().filter(|(_, entry)| entry.0 == key).map(|(at, _)| at);
        places.next().filter(|_| places.next().is_none())
    }
}

/// Nothing on disk but what the records know.
fn check_no_leak(world: &World, engine: &Engine) {
    assert_eq!(engine.orphans(), Vec::<std::path::PathBuf>::new(), "homes that nobody knows");
    let homes = std::fs::read_dir(world.dir.path().join("pool/volumes")).unwrap().count();
    assert_eq!(homes, engine.volumes().len() + engine.trash().len());
}

fn run(steps: &[(Verb, Option<Fault>)]) {
    let mut world = World::new();
    let mut model = Model::default();
    let mut engine = Some(world.open(Faults::None));
    for (verb, fault) in steps {
        // Expiry takes several volumes, and a crash leaves some of them: more states than this model has.
        let fault = fault.as_ref().filter(|_| !matches!(verb, Verb::Later));
        if matches!(verb, Verb::Restart | Verb::Reboot | Verb::Later) || fault.is_some() {
            engine = None;
        }
        if matches!(verb, Verb::Reboot) {
            world.boot += 1;
            world.write_boot_id();
        }
        let open = engine
            .take()
            .unwrap_or_else(|| world.open(fault.map_or(Faults::None, |fault| Faults::Panic(*fault))));
        let expected = model.after(verb);
        let outcome = catch_unwind(AssertUnwindSafe(|| perform(&open, verb)));
        let (open, crashed) = match outcome {
            Ok(result) => {
                assert_eq!(result.is_ok(), expected.is_some(), "{verb:?} said {result:?} on {model:#?}");
                (open, false)
            }
            Err(_) => {
                drop(open);
                let open = world.open(Faults::None);
                // The daemon does so at its start: interrupted destruction goes on.
                open.expire_trash();
                (open, true)
            }
        };
        if matches!(verb, Verb::Later) {
            world.clock.0.fetch_add(TTL + 1, Ordering::Relaxed);
            open.expire_trash();
            model.trash.clear();
        }
        let now = observed(&open);
        let after = expected.unwrap_or_else(|| model.clone());
        if crashed {
            assert!(
                now == model || now == after,
                "a crash in {verb:?} left {now:#?}\nneither {model:#?}\nnor {after:#?}"
            );
        } else if !matches!(verb, Verb::Later) {
            assert_eq!(now, after, "after {verb:?}");
        }
        model = now;
        check_no_leak(&world, &open);
        engine = Some(open);
    }
    drop(engine);
    check_rebuilt(&world, &model);
}

/// A catalog rebuilt from the descriptions says the same, but for the attachments.
fn check_rebuilt(world: &World, model: &Model) {
    let catalog = world.dir.path().join("state/catalog.redb");
    std::fs::write(&catalog, b"not a catalog").unwrap();
    assert!(matches!(try_open(world), Err(Error::CatalogDamaged { .. })), "a damaged catalog is refused");
    let scanned = engine::rebuild(&world.settings(), false, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(scanned.unknown, Vec::<String>::new());
    let engine = world.open(Faults::None);
    let mut expected = model.clone();
    expected.live.values_mut().for_each(|live| live.holders.clear());
    let mut rebuilt = observed(&engine);
    rebuilt.live.values_mut().for_each(|live| live.holders.clear());
    assert_eq!(rebuilt, expected);
}

fn try_open(world: &World) -> Result<Engine, Error> {
    let parts = Parts {
        settings: world.settings(),
        drivers: Drivers::all_sim(),
        containers: Arc::new(NoContainers),
        clock: world.clock.clone(),
        guard: None,
        tracking: Arc::new(everhold_engine::Tracking::none("a test").unwrap()),
        faults: Faults::None,
    };
    Engine::open(parts).map(|(engine, _)| engine)
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![3 => Just(None), 1 => proptest::sample::select(Fault::ALL.to_vec()).prop_map(Some)]
}

proptest! {
    #[test]
    fn random_verbs_and_crashes_match_the_model(steps in proptest::collection::vec((verb(), fault()), 1..30)) {
        run(&steps);
    }
}

/// Every fault point is reached by the verb that it belongs to, and start-up ends in one of the two states.
#[test]
fn every_fault_point_leaves_the_old_state_or_the_new_one() {
    let prepare = |verbs: &[Verb]| verbs.iter().map(|verb| (verb.clone(), None)).collect::<Vec<_>>();
    let cases: [(&[Verb], Verb, &[Fault]); 9] = [
        (
            &[],
            Verb::Create(0, 1),
            &[Fault::CreateRecorded, Fault::CreateHome, Fault::CreateMade, Fault::CreateDescribed],
        ),
        (&[Verb::Create(0, 1)], Verb::Attach(0, 0), &[Fault::AttachRecorded, Fault::AttachMounted]),
        (&[Verb::Create(0, 1), Verb::Attach(0, 0)], Verb::Detach(0, 0), &[Fault::DetachUnmounted]),
        (&[Verb::Create(0, 1)], Verb::Grow(0, 5), &[Fault::GrowRecorded, Fault::GrowDone]),
        (&[Verb::Create(0, 1)], Verb::Label(0, 1), &[Fault::LabelDescribed]),
        (&[Verb::Create(0, 1)], Verb::Rename(0, 1), &[Fault::RenameDescribed]),
        (&[Verb::Create(0, 1)], Verb::Remove(0), &[Fault::RemoveDescribed]),
        (&[Verb::Create(0, 1), Verb::Remove(0)], Verb::Restore(0), &[Fault::RestoreDescribed]),
        (
            &[Verb::Create(0, 1), Verb::Remove(0)],
            Verb::Empty(0),
            &[Fault::DestroyRecorded, Fault::DestroyData, Fault::DestroyHome],
        ),
    ];
    let mut reached = 0;
    for (before, verb, faults) in cases {
        for fault in faults {
            let world = World::new();
            let engine = world.open(Faults::None);
            before.iter().for_each(|verb| perform(&engine, verb).unwrap());
            drop(engine);
            let engine = world.open(Faults::Panic(*fault));
            let crashed = catch_unwind(AssertUnwindSafe(|| perform(&engine, &verb))).is_err();
            assert!(crashed, "{verb:?} does not pass {fault:?}");
            reached += 1;
            let mut steps = prepare(before);
            steps.push((verb.clone(), Some(*fault)));
            run(&steps);
        }
    }
    assert_eq!(reached, Fault::ALL.len(), "every fault point has its case");
}

#[test]
fn a_second_engine_is_refused_with_the_pid_of_the_first() {
    let world = World::new();
    let _first = world.open(Faults::None);
    match try_open(&world) {
        Err(Error::SecondDaemon { pid, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("a second engine: {:?}", other.map(|_| ())),
    }
}

#[test]
fn two_hundred_creations_of_one_name_make_one_volume() {
    let world = World::new();
    let engine = world.open(Faults::None);
    let options = Options::parse_words(["size=1MiB"]).unwrap();
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..200).map(|_| scope.spawn(|| engine.create(&name(0), &options).unwrap().0)).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap())
            .filter(|change| *change == engine::Change::Done)
            .count()
    });
    assert_eq!((done, engine.volumes().len()), (1, 1));
    check_no_leak(&world, &engine);
}

#[test]
fn promises_are_kept_within_the_pool() {
    let world = World::new();
    let engine = world.open(Faults::None);
    let total = linux::fs::space(Path::new(world.dir.path())).unwrap().total;
    let too_large =
        Options::parse_words([format!("size={}B", total + (1 << 20)), "driver=image".into()]).unwrap();
    let error = engine.create(&name(0), &too_large).unwrap_err();
    assert!(matches!(error, Error::LargerThanPool { .. }), "{error}");
    let most =
        Options::parse_words([format!("size={}B", total / (1 << 20) * (1 << 20)), "driver=image".into()])
            .unwrap();
    let made = (0..30).map(|n| engine.create(&name(n), &most)).take_while(Result::is_ok).count();
    assert_eq!(made, 10, "overcommit 1000% of one pool");
    assert!(matches!(engine.create(&name(200), &most), Err(Error::OverPromised { .. })));
    assert!(observed(&engine).live.len() == 10);
}

#[test]
fn the_trash_expires_and_says_until_when() {
    let world = World::new();
    let engine = world.open(Faults::None);
    engine.create(&name(0), &Options::default()).unwrap();
    let (_, removed) = engine.remove(&name(0)).unwrap();
    let trashed = removed.unwrap().trashed().unwrap();
    assert_eq!(trashed.expires.duration_since(trashed.at), SignedDuration::from_secs(TTL));
    world.clock.0.fetch_add(TTL - 1, Ordering::Relaxed);
    assert!(engine.expire_trash().is_empty());
    world.clock.0.fetch_add(1, Ordering::Relaxed);
    assert_eq!(engine.expire_trash().len(), 1);
    check_no_leak(&world, &engine);
}
