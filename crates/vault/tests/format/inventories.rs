//! Inventories come back as they were written, stay small, and show each object that is missing and nothing else.

use crate::parsers::keys;
use everhold_vault::format::{EraName, Kind, PartName, StreamId};
use everhold_vault::inventory::{Inventory, Listed, Wrong, compare, lost};
use everhold_vault::{Listing, Object, chain};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::collections::BTreeSet;

const STREAM: StreamId = StreamId([3; 16]);

fn dir() -> String {
    format!("h/{STREAM}/")
}

fn part(from: u64, to: u64, part: u32, last: bool, run: u32) -> String {
    let (time, epoch, kind) = (1_700_000_000_000 + to * 1000, 1, Kind::Cut);
    PartName { stream: STREAM, from, to, time, epoch, run, kind, part, last }.to_string()
}

/// A chain of segments of one or two parts, some that span others of it, and small objects.
fn objects() -> impl Strategy<Value = Vec<Object>> {
    (2..12_u64, vec(any::<bool>(), 12), vec((0..12_u64, 2..6_u64), 0..4), 0..4_u32).prop_map(
        |(points, two, spans, small)| {
            let mut names = BTreeSet::new();
            for to in 1..=points {
                let parts = 1 + u32::from(two[to as usize - 1]);
                names.extend((0..parts).map(|at| part(to - 1, to, at, at + 1 == parts, to as u32)));
            }
            names.extend(
                spans
                    .iter()
                    .filter(|(from, len)| from + len <= points)
                    .map(|(from, len)| part(*from, from + len, 0, true, 99)),
            );
            names.extend((0..small).map(|at| format!("h/{STREAM}/n/{at:032x}")));
            names.insert(EraName { stream: STREAM, epoch: 1, after: 0 }.to_string());
            names.into_iter().map(|name| Object { size: name.len() as u64, name }).collect()
        },
    )
}

fn inventory_of(objects: &[Object]) -> Inventory {
    let listed = objects.iter().map(|object| Listed::new(&object.name[dir().len()..], object.size));
    Inventory { at: 1, objects: listed.collect(), streams: BTreeSet::new() }
}

/// The cuts to which there is a chain.
fn restorable(objects: &[Object]) -> BTreeSet<u64> {
    let listing = Listing::read(objects);
    let cuts = listing.cuts().into_iter().map(|(point, _)| point);
    cuts.filter(|point| chain::chain(&listing.segments, 0, *point).is_some()).collect()
}

fn points(cuts: &[(u64, u64)]) -> BTreeSet<u64> {
    cuts.iter().map(|(point, _)| *point).collect()
}

fn listed() -> impl Strategy<Value = Listed> {
    let text = || proptest::option::of(".{0,12}");
    ("[a-z0-9/.-]{1,20}", proptest::option::of(any::<u64>()), text(), text())
        .prop_map(|(name, size, hash, what)| Listed { name, size, hash, what })
}

proptest! {
    #[test]
    fn any_inventory_comes_back(
        at: u64,
        objects in vec(listed(), 0..20),
        streams in btree_set("[0-9a-f]{32}", 0..4),
        epoch: u32,
    ) {
        let inventory = Inventory { at, objects, streams };
        let name = everhold_vault::inventory::object("", epoch);
        let sealed = inventory.seal(&keys(), &[5; 16], &name).unwrap();
        prop_assert_eq!(Inventory::open(&keys(), &name, &sealed), Ok(inventory));
        let other = everhold_vault::inventory::object("", epoch ^ 1);
        prop_assert!(Inventory::open(&keys(), &other, &sealed).is_err(), "of another epoch");
    }

    #[test]
    fn any_one_that_is_missing_is_reported_and_nothing_else(
        objects in objects(),
        pick in any::<proptest::sample::Index>(),
        newer: bool,
    ) {
        let inventory = inventory_of(&objects);
        let mut there = objects.clone();
        if newer {
            let next = Listing::read(&objects).newest();
            there.push(Object { name: part(next, next + 1, 0, true, 7), size: 1 });
        }
        prop_assert!(compare(&dir(), &inventory, &there, |_| false).is_empty());
        prop_assert!(lost(STREAM, &there, &BTreeSet::new(), &BTreeSet::new()).lost.is_empty());

        let all = there.clone();
        let gone = there.remove(pick.index(objects.len())).name;
        let wrong = compare(&dir(), &inventory, &there, |_| false);
        prop_assert_eq!(wrong.into_iter().collect::<Vec<_>>(), [(gone.clone(), Wrong::Missing)]);
        // Condemned, it is in order.
        prop_assert!(compare(&dir(), &inventory, &there, |name| name == gone).is_empty());

        let found = lost(STREAM, &all, &BTreeSet::from([gone.clone()]), &BTreeSet::new());
        let (before, after) = (restorable(&all), restorable(&there));
        prop_assert_eq!(points(&found.left), after.clone());
        prop_assert_eq!(points(&found.lost), before.difference(&after).copied().collect::<BTreeSet<_>>());
        if gone.parse::<PartName>().is_ok() {
            prop_assert_eq!(&found.by_object[&gone], &found.lost);
        } else {
            prop_assert!(found.lost.is_empty());
        }
    }

    #[test]
    fn another_size_is_reported(objects in objects(), pick in any::<proptest::sample::Index>()) {
        let inventory = inventory_of(&objects);
        let mut there = objects.clone();
        let at = pick.index(objects.len());
        there[at].size += 1;
        let wrong = compare(&dir(), &inventory, &there, |_| false);
        let size = Wrong::Size { listed: objects[at].size, found: objects[at].size + 1 };
        prop_assert_eq!(wrong.into_iter().collect::<Vec<_>>(), [(objects[at].name.clone(), size)]);
    }
}

/// As many segments as a second for ten minutes, a minute for a day and so on leave, with times and runs as they come.
#[test]
fn an_inventory_of_2300_segments_stays_small() {
    let mut objects = Vec::new();
    let mut time = 1_700_000_000_000;
    for to in 1..=2300_u64 {
        let noise = blake3::hash(&to.to_le_bytes());
        let run = u32::from_le_bytes(noise.as_bytes()[..4].try_into().unwrap());
        let odd = u64::from(u16::from_le_bytes(noise.as_bytes()[4..6].try_into().unwrap()));
        time += 1000 + odd % 50;
        let (epoch, kind) = (3, Kind::Cut);
        let name = PartName { stream: STREAM, from: to - 1, to, time, epoch, run, kind, part: 0, last: true };
        objects.push(Object { name: name.to_string(), size: 4_000 + odd * 17 });
    }
    let sealed = inventory_of(&objects).seal(&keys(), &[5; 16], &format!("{}i/00000003", dir())).unwrap();
    assert!(sealed.len() < 100 << 10, "{} bytes", sealed.len());
    eprintln!("an inventory of 2,300 segments has {} bytes", sealed.len());
}
