//! A small vault with one of everything, committed in `golden/`. Today's code writes the same bytes, reads them, and so does
//! a second reader.
//!
//! `UPDATE=1 cargo test -p everhold-vault --test format golden_bytes` writes it anew. That is for a new version of the format,
//! whose old golden vault stays beside it, and for a new zstd whose output differs; for nothing else.

use crate::parsers::{DATA_KEY, VAULT, keys};
use crate::second_reader;
use everhold_vault::claim::{self, Writer};
use everhold_vault::descriptor::{self, DESCRIPTOR, Descriptor, VaultError};
use everhold_vault::format::{BLOCK, Kind, PartBuilder, PartName, Salt, Sealer, StreamId};
use everhold_vault::inventory::keep_vault_inventory;
use everhold_vault::keys::{
    self as slots, DataKey, KeyError, NewSlot, RecoveryKit, SecretString, Unlock, VaultId,
};
use everhold_vault::read::{Access, Merged, fetch, unseal};
use everhold_vault::store::{MemoryStore, Store};
use everhold_vault::stream::{self, Snapshot};
use everhold_vault::{Segment, chain};
use jiff::Timestamp;
use ring::rand::SystemRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PASSPHRASE: &str = "a passphrase for tests";
const MADE: &str = "2025-01-02T03:04:05Z";
/// The time of point 0; every point is a second later.
const TIME: u64 = 1_735_787_045_000;

pub type Objects = BTreeMap<String, Vec<u8>>;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/golden")
}

pub fn stream() -> StreamId {
    StreamId(keys().name(b"the golden volume"))
}

/// The golden vault as it is in the repository.
pub fn load() -> Objects {
    fn walk(at: &Path, root: &Path, objects: &mut Objects) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, objects);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                objects.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let (root, mut objects) = (dir().join("vault"), Objects::new());
    if root.is_dir() {
        walk(&root, &root, &mut objects);
    }
    objects
}

/// The recovery kit as it is written today, and as it was before it had a fingerprint.
const KIT: &str = "recovery-kit.txt";
const OLD_KIT: &str = "recovery-kit-without-fingerprint.txt";

fn kit(name: &str) -> String {
    std::fs::read_to_string(dir().join(name)).unwrap()
}

fn opens_with(kit: &str) -> Unlock {
    Unlock::Kit(SecretString::from(kit.to_owned()))
}

pub fn store(objects: &Objects) -> MemoryStore {
    let store = MemoryStore::new();
    for (name, body) in objects {
        store.replace(name, body.clone().into()).unwrap();
    }
    store
}

pub fn access(store: &MemoryStore) -> Access {
    Access { store: Arc::new(store.clone()), keys: keys(), vault: VAULT, stream: stream() }
}

/// The names of the parts, with their bodies.
pub fn parts(objects: &Objects) -> Vec<(PartName, &[u8])> {
    objects.iter().filter_map(|(name, body)| Some((name.parse().ok()?, &body[..]))).collect()
}

/// Which block is what in the golden vault.
#[derive(Clone)]
enum Is {
    Zero,
    /// Compresses.
    Text(u64),
    /// Does not.
    Noise(u64),
}

fn content(is: &Is) -> [u8; BLOCK] {
    let mut content = [0; BLOCK];
    match is {
        Is::Zero => {}
        Is::Text(seed) => {
            let line = format!("block {seed} of the golden volume\n");
            content.iter_mut().zip(line.bytes().cycle()).for_each(|(to, from)| *to = from);
        }
        Is::Noise(seed) => {
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
        }
    }
    content
}

/// What one segment holds: block and content, and where a new part begins.
struct Made {
    from: u64,
    epoch: u32,
    run: u32,
    kind: Kind,
    parts: Vec<Vec<(u64, u32, Is)>>,
    blocks: u64,
    /// Without its last part.
    unfinished: bool,
}

fn made() -> Vec<Made> {
    let segment =
        |from, epoch, run, kind, parts| Made { from, epoch, run, kind, parts, blocks: 64, unfinished: false };
    let fourth = || vec![vec![(0, 3, Is::Zero), (60, 1, Is::Text(460))]];
    vec![
        Made {
            blocks: 61,
            ..segment(
                0,
                1,
                0x10,
                Kind::Partial,
                vec![
                    vec![(0, 1, Is::Text(100)), (1, 1, Is::Noise(101)), (2, 3, Is::Zero)],
                    vec![(10, 1, Is::Text(110)), (12, 1, Is::Noise(112))],
                ],
            )
        },
        Made {
            blocks: 61,
            ..segment(
                1,
                1,
                0x20,
                Kind::Cut,
                vec![vec![
                    (1, 1, Is::Text(201)),
                    (10, 2, Is::Zero),
                    (20, 1, Is::Text(220)),
                    (60, 1, Is::Noise(260)),
                ]],
            )
        },
        // Of a writer that has been replaced: void.
        segment(2, 1, 0x30, Kind::Cut, vec![vec![(0, 1, Is::Text(666))]]),
        segment(2, 2, 0x31, Kind::Cut, vec![vec![(2, 1, Is::Text(302)), (63, 1, Is::Noise(363))]]),
        Made {
            unfinished: true,
            ..segment(3, 2, 0x40, Kind::Cut, vec![vec![(0, 1, Is::Text(667))], vec![]])
        },
        segment(3, 2, 0x41, Kind::Cut, fourth()),
        // The same again.
        segment(3, 2, 0x42, Kind::Cut, fourth()),
        // Nothing changed.
        segment(4, 2, 0x50, Kind::Cut, vec![vec![]]),
    ]
}

/// Salts from a counter: in a test, what they seal is not secret.
fn salts() -> impl FnMut() -> Salt {
    let mut count = 0_u64;
    move || {
        count += 1;
        let mut salt = [0xa5; 16];
        salt[..8].copy_from_slice(&count.to_le_bytes());
        salt
    }
}

fn put(access: &Access, made: &Made, salt: &mut impl FnMut() -> Salt) {
    let mut sealer = Sealer::new(&access.keys, access.stream.0, salt());
    let mut built = Vec::new();
    for (at, blocks) in made.parts.iter().enumerate() {
        let mut part = PartBuilder::new();
        for (block, count, is) in blocks {
            match is {
                Is::Zero => part.add_zeros(*block, *count),
                is => part.add(&mut sealer, *block, &content(is)),
            }
        }
        let (from, to) = (made.from, made.from + 1);
        let name = PartName {
            stream: access.stream,
            from,
            to,
            time: TIME + to * 1000,
            epoch: made.epoch,
            run: made.run,
            kind: made.kind,
            part: at as u32,
            last: at + 1 == made.parts.len(),
        };
        built.push(part.build(&access.keys, &access.vault, name, made.blocks * BLOCK as u64, salt()));
    }
    if made.unfinished {
        built.pop();
    }
    access.put(&built).unwrap();
}

fn writer(node: &str) -> Writer {
    Writer {
        node: node.to_owned(),
        host: format!("host-{node}"),
        boot_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        since: MADE.parse().unwrap(),
        version: "0.1.0".to_owned(),
    }
}

/// Builds the vault with today's code; the slots, whose making is random, are those that are there.
fn build(slots: &Objects) -> Objects {
    let store = store(slots);
    let made_at: Timestamp = MADE.parse().unwrap();
    let check = blake3::keyed_hash(
        &blake3::derive_key("everhold 1 vault descriptor check", &DATA_KEY),
        format!("everhold-vault 1\n{}\n{MADE}\n", "11".repeat(16)).as_bytes(),
    );
    let descriptor = format!(
        "everhold-vault 1\n{{\"id\":\"{}\",\"created\":\"{made_at}\",\"check\":\"{check}\"}}\n",
        "11".repeat(16)
    );
    store.replace(DESCRIPTOR, descriptor.into()).unwrap();
    let (access, mut salt) = (access(&store), salts());
    assert_eq!(claim::claim(&store, &writer("a"), false).unwrap().0, 1);
    access.describe(&serde_json::json!({ "name": "golden" }), salt()).unwrap();
    for made in made() {
        if made.epoch == 2 && made.from == 2 {
            assert_eq!(claim::claim(&store, &writer("b"), true).unwrap().0, 2);
            access.begin_era(2, 2).unwrap();
        }
        put(&access, &made, &mut salt);
    }
    let snapshot = |point| Snapshot {
        name: format!("before-{point}"),
        point,
        time: TIME + point * 1000,
        created: TIME + 9000,
    };
    access.name_cut(&snapshot(3), salt()).unwrap();
    let segments = access.state().unwrap().listing.segments;
    let chain = chain::chain(&segments, 0, 2).unwrap();
    access.merge(&chain, 0x60, &mut salt).unwrap();
    let names = chain.iter().flat_map(|segment| segment.part_names(stream())).map(|name| name.to_string());
    access.condemn(names.collect(), TIME + 10_000, salt()).unwrap();
    inventory(&access, &mut salt);
    store.objects().into_iter().map(|(name, body)| (name, body.to_vec())).collect()
}

/// Writes down what must be there, as upkeep does.
pub fn inventory(access: &Access, salt: &mut impl FnMut() -> Salt) {
    let state = access.state().unwrap();
    let mut must = BTreeMap::new();
    for segment in &state.listing.segments {
        let parts = segment.part_names(access.stream).zip(&segment.parts);
        must.extend(parts.map(|(name, size)| (name.to_string(), Some(*size))));
    }
    must.extend(state.listing.eras.iter().map(|era| (era.to_string(), None)));
    must.extend(state.condemned.iter().map(|(list, _)| (list.clone(), None)));
    must.insert(format!("h/{}/about", access.stream), None);
    assert!(access.keep_inventory(2, TIME + 11_000, &must, &|_| false, salt()).unwrap());
    let (store, vault) = (&*access.store, VaultId(access.vault));
    let streams = [access.stream];
    let kept =
        keep_vault_inventory(store, &access.keys, vault, 2, TIME + 11_000, &streams, &[], salt()).unwrap();
    assert!(kept);
}

/// What the volume holds at each cut.
fn expected() -> BTreeMap<u64, (u64, Vec<u8>)> {
    let (mut cuts, mut volume) = (BTreeMap::new(), Vec::new());
    for made in made().into_iter().filter(|made| !matches!(made.run, 0x30 | 0x40 | 0x42)) {
        volume.resize(made.blocks as usize * BLOCK, 0);
        for (block, count, is) in made.parts.iter().flatten() {
            for at in *block as usize..*block as usize + *count as usize {
                volume[at * BLOCK..(at + 1) * BLOCK].copy_from_slice(&content(is));
            }
        }
        if made.kind == Kind::Cut {
            cuts.insert(made.from + 1, (TIME + (made.from + 1) * 1000, volume.clone()));
        }
    }
    cuts
}

fn only_slots(mut objects: Objects) -> Objects {
    objects.retain(|name, _| name.starts_with("k/"));
    objects
}

fn update() {
    let mut slots = only_slots(load());
    if slots.is_empty() {
        let (store, kit, random) = (MemoryStore::new(), RecoveryKit::draw(), SystemRandom::new());
        let (vault, key, made) = (VaultId(VAULT), DataKey::from_bytes(DATA_KEY), MADE.parse().unwrap());
        let passphrase = NewSlot::Passphrase {
            passphrase: SecretString::from(PASSPHRASE.to_owned()),
            label: "tests".to_owned(),
            work: Some(4),
        };
        for slot in [NewSlot::for_kit(&kit), passphrase] {
            slots::add_slot(&store, vault, &key, &slot, made, &random).unwrap();
        }
        slots = store.objects().into_iter().map(|(name, body)| (name, body.to_vec())).collect();
        std::fs::create_dir_all(dir()).unwrap();
        let text = kit.text("golden", vault, &key, "memory:", made);
        std::fs::write(dir().join(KIT), text.as_bytes()).unwrap();
    }
    let root = dir().join("vault");
    if root.exists() {
        std::fs::remove_dir_all(&root).unwrap();
    }
    for (name, body) in build(&slots) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, body).unwrap();
    }
}

#[test]
fn golden_bytes_are_what_todays_code_writes() {
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        update();
    }
    let golden = load();
    let built = build(&only_slots(golden.clone()));
    assert_eq!(built.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    for (name, body) in &built {
        let at = body.iter().zip(&golden[name]).position(|(a, b)| a != b);
        assert!(*body == golden[name], "{name} differs at byte {at:?}; its length is {}", body.len());
    }
}

#[test]
fn golden_vault_is_opened_and_read() {
    let objects = load();
    let store = store(&objects);
    let passphrase = Unlock::Passphrase(SecretString::from(PASSPHRASE.to_owned()));
    for unlock in [opens_with(&kit(KIT)), opens_with(&kit(OLD_KIT)), passphrase] {
        let opened = descriptor::open(&store, &unlock).unwrap();
        assert_eq!((opened.key.expose(), opened.descriptor.id), (&DATA_KEY, VaultId(VAULT)));
    }
    Descriptor::read(&store).unwrap().check("", &DataKey::from_bytes(DATA_KEY)).unwrap();
    assert_eq!(claim::newest(&store).unwrap().unwrap().1.unwrap(), writer("b"));
    assert_eq!(stream::streams(&store).unwrap().into_keys().collect::<Vec<_>>(), [stream()]);
    let access = access(&store);
    assert_eq!(access.about::<serde_json::Value>().unwrap()["name"], "golden");
    let state = access.state().unwrap();
    assert_eq!(state.damaged, Vec::<String>::new());
    assert_eq!(state.snapshots[0].point, 3);
    let runs: Vec<u32> = state.listing.segments.iter().map(|segment| segment.run).collect();
    assert_eq!(runs, [0x60, 0x31, 0x41, 0x50], "the segments that count");
    let strays: BTreeSet<u32> = state.listing.strays.iter().map(|name| name.run).collect();
    assert_eq!(strays, BTreeSet::from([0x30, 0x40, 0x42]), "void, unfinished, twice");
    assert_eq!(state.condemned[0].1.names.len(), 3);
    let cuts: BTreeSet<u64> = state.cuts().into_iter().map(|(point, _)| point).collect();
    assert_eq!(cuts, BTreeSet::from([2, 3, 4, 5]));
    for (point, (_, content)) in expected() {
        let chain = chain::chain(&state.listing.segments, 0, point).unwrap();
        assert!(restore(&access, &chain) == content, "point {point}");
    }
}

fn restore(access: &Access, chain: &[&Segment]) -> Vec<u8> {
    let last = chain.last().unwrap();
    let (name, size) = last.part_names(access.stream).zip(&last.parts).last().unwrap();
    let size = access.table(name, *size).unwrap().0.trailer.volume_size;
    let mut volume = vec![0; size as usize];
    let blocks: Vec<_> = Merged::new(access, chain).map(Result::unwrap).collect();
    let mut unsealer = access.unsealer();
    fetch::<everhold_vault::read::ReadError>(access, &blocks, |located, sealed| {
        let mut content = [0; BLOCK];
        if !sealed.is_empty() {
            unseal(&mut unsealer, located, sealed, &mut content)?;
            let at = located.entry.block as usize * BLOCK;
            volume[at..at + BLOCK].copy_from_slice(&content);
        }
        Ok(())
    })
    .unwrap();
    volume
}

/// A kit is drawn; but for the identity, today's code writes the one in the repository.
#[test]
fn golden_kit_is_what_todays_code_writes() {
    let (golden, drawn) = (kit(KIT), RecoveryKit::draw());
    let (vault, key) = (VaultId(VAULT), DataKey::from_bytes(DATA_KEY));
    let text = drawn.text("golden", vault, &key, "memory:", MADE.parse().unwrap());
    let last = |text: &str| text.lines().last().unwrap().to_owned();
    let recipient =
        |text: &str| text.split("# for:         ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let text = text.replace(&last(&text), &last(&golden)).replace(&drawn.recipient(), &recipient(&golden));
    assert_eq!(text, golden);
    assert_eq!(last(&golden), last(&kit(OLD_KIT)), "the same identity");
    assert!(opens_with(&golden).can_tell() && !opens_with(&kit(OLD_KIT)).can_tell());
}

#[test]
fn an_exchanged_vault_is_refused_with_a_kit() {
    let (golden, mine) = (store(&load()), DataKey::from_bytes([8; 32]));
    let recipient =
        slots::slots(&golden, VaultId(VAULT)).unwrap().into_iter().find_map(|slot| slot.recipient);
    // What anybody can make who can write to the store: the id and the recipient are there to be read.
    let exchanged = MemoryStore::new();
    let slot = NewSlot::Recipient { recipient: recipient.unwrap(), label: "recovery kit".to_owned() };
    slots::add_slot(&exchanged, VaultId(VAULT), &mine, &slot, MADE.parse().unwrap(), &SystemRandom::new())
        .unwrap();
    let id = "11".repeat(16);
    let check = blake3::keyed_hash(
        &blake3::derive_key("everhold 1 vault descriptor check", &[8; 32]),
        format!("everhold-vault 1\n{id}\n{MADE}\n").as_bytes(),
    );
    let descriptor =
        format!("everhold-vault 1\n{{\"id\":\"{id}\",\"created\":\"{MADE}\",\"check\":\"{check}\"}}\n");
    exchanged.replace(DESCRIPTOR, descriptor.into()).unwrap();
    let everything = |store: &MemoryStore| -> Objects {
        store.objects().into_iter().map(|(name, body)| (name, body.to_vec())).collect()
    };
    let refused = descriptor::open(&exchanged, &opens_with(&kit(KIT))).unwrap_err();
    assert!(matches!(refused, VaultError::Key(KeyError::Exchanged { .. })), "{refused}");
    assert!(second_reader::read(&everything(&exchanged), &kit(KIT)).unwrap_err().contains("the kit is for"));
    // So it was before kits had a fingerprint.
    assert_eq!(descriptor::open(&exchanged, &opens_with(&kit(OLD_KIT))).unwrap().key.expose(), &[8; 32]);
    // Its slots beside the right ones keep nobody out.
    for (name, body) in everything(&exchanged).into_iter().filter(|(name, _)| name.starts_with("k/")) {
        golden.replace(&name, body.into()).unwrap();
    }
    assert_eq!(descriptor::open(&golden, &opens_with(&kit(KIT))).unwrap().key.expose(), &DATA_KEY);
    second_reader::read(&everything(&golden), &kit(KIT)).unwrap();
}

#[test]
fn golden_vault_is_read_by_a_second_reader() {
    let read = second_reader::read(&load(), &kit(KIT)).unwrap();
    let history = &read[&stream().to_string()];
    assert!(history.cuts == expected(), "{:?}", history.cuts.keys());
    assert_eq!(history.about["name"], "golden");
    assert_eq!(history.snapshots[0]["name"], "before-3");
    // Blocks went into the merged segment as the two cuts had sealed them, under their salts.
    assert_eq!(history.salts[&(0, 2)].len(), 2);
    assert!(!history.salts.contains_key(&(0, 1)), "condemned");
    assert_eq!(history.missing, Vec::<String>::new());
}

#[test]
fn golden_vault_without_what_was_condemned_is_the_same() {
    let mut objects = load();
    let access = access(&store(&objects));
    for name in access.state().unwrap().condemned.into_iter().flat_map(|(_, list)| list.names) {
        objects.remove(&name).unwrap();
    }
    let read = second_reader::read(&objects, &kit(OLD_KIT)).unwrap();
    assert!(read[&stream().to_string()].cuts == expected());
}
