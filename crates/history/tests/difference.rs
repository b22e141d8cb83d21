//! In which blocks two points differ, against a model; and seeking, on which it rests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use everhold_history::{difference, touched};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use vault::Segment;
use vault::format::{BLOCK, Content, Keys, Kind, PartBuilder, PartName, Salt, Sealer, StreamId};
use vault::read::{Access, Located, Merged, unseal};
use vault::store::MemoryStore;

const BLOCKS: u64 = 120;

/// What a segment says: a block with a value, or a run of zeros.
type Says = BTreeMap<u64, (u8, u64)>;
type Point = BTreeMap<u64, u8>;

fn says() -> impl Strategy<Value = Says> {
    let one = (0..BLOCKS, 0..4u8, 1..30u64);
    prop::collection::vec(one, 0..14).prop_map(|all| {
        let mut says = Says::new();
        let mut end = 0;
        let mut all: Vec<_> = all;
        all.sort();
        for (block, value, count) in all {
            // One after the other, as in a table.
            let block = block.max(end);
            let count = if value == 0 { count } else { 1 };
            says.insert(block, (value, count));
            end = block + count;
        }
        says
    })
}

fn apply(point: &mut Point, says: &Says) {
    for (block, (value, count)) in says {
        for block in *block..block + count {
            if *value == 0 {
                point.remove(&block);
            } else {
                point.insert(block, *value);
            }
        }
    }
}

struct Stream {
    access: Access,
    salts: u64,
}

impl Stream {
    fn new() -> Self {
        let access = Access {
            store: Arc::new(MemoryStore::new()),
            keys: Keys::new(&[7; 32]),
            vault: [9; 16],
            stream: StreamId([3; 16]),
        };
        Self { access, salts: 0 }
    }

    fn salt(&mut self) -> Salt {
        self.salts += 1;
        u128::from(self.salts).to_le_bytes()
    }

    /// A segment whose parts have few entries each.
    fn put(&mut self, from: u64, to: u64, run: u32, says: &Says, entries: usize) -> Segment {
        let salt = self.salt();
        let mut sealer = Sealer::new(&self.access.keys, self.access.stream.0, salt);
        let entered: Vec<_> = says.iter().collect();
        let mut chunks: Vec<_> = entered.chunks(entries).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let mut segment = Segment { from, to, time: to, epoch: 1, run, kind: Kind::Cut, parts: Vec::new() };
        for (part, chunk) in chunks.iter().enumerate() {
            let mut building = PartBuilder::new();
            for (block, (value, count)) in *chunk {
                if *value == 0 {
                    building.add_zeros(**block, *count as u32);
                } else {
                    building.add(&mut sealer, **block, &[*value; BLOCK]);
                }
            }
            let name = PartName {
                stream: self.access.stream,
                from,
                to,
                time: to,
                epoch: 1,
                run,
                kind: Kind::Cut,
                part: part as u32,
                last: part + 1 == chunks.len(),
            };
            let salt = self.salt();
            let built = building.build(&self.access.keys, &self.access.vault, name, BLOCKS * 2 * 4096, salt);
            segment.parts.push(built.body.len() as u64);
            self.access.put(&[built]).unwrap();
        }
        segment
    }

    /// What is there, block by block; 0 for zeros.
    fn read(&self, located: &Located) -> Vec<(u64, u8)> {
        match located.entry.content {
            Content::Zeros { count } => {
                (0..u64::from(count)).map(|at| (located.entry.block + at, 0)).collect()
            }
            Content::Data { len, .. } => {
                let range = located.at..located.at + u64::from(len);
                let sealed = self.access.store.read(&located.part.object, Some(range)).unwrap();
                let mut content = [0; BLOCK];
                unseal(&mut self.access.unsealer(), located, &sealed, &mut content).unwrap();
                vec![(located.entry.block, content[0])]
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_differs_makes_one_point_of_the_other(
        shared in prop::collection::vec(says(), 0..4),
        now in prop::collection::vec(says(), 0..4),
        then in prop::collection::vec(says(), 0..4),
        entries in 1..5usize,
    ) {
        let mut stream = Stream::new();
        let mut base = Point::new();
        let mut both = Vec::new();
        for (at, says) in shared.iter().enumerate() {
            both.push(stream.put(at as u64, at as u64 + 1, 0, says, entries));
            apply(&mut base, says);
        }
        let mut ends = Vec::new();
        for (run, more) in [(1, &now), (2, &then)] {
            let (mut chain, mut point) = (both.clone(), base.clone());
            for (at, says) in more.iter().enumerate() {
                let from = (shared.len() + at) as u64;
                chain.push(stream.put(from, from + 1, run, says, entries));
                apply(&mut point, says);
            }
            ends.push((chain, point));
        }
        let (now, then) = (&ends[0], &ends[1]);
        let (now_chain, then_chain) = (now.0.iter().collect::<Vec<_>>(), then.0.iter().collect::<Vec<_>>());
        let mut made = now.1.clone();
        let touched: Vec<_> =
            touched(&stream.access, &now_chain, &then_chain).collect::<Result<_, _>>().unwrap();
        let mut end = 0;
        for located in difference(&stream.access, &now_chain, &then_chain) {
            let located = located.unwrap();
            prop_assert!(located.entry.block >= end, "in order, and each once");
            end = located.entry.end();
            for (block, value) in stream.read(&located) {
                prop_assert!(touched.iter().any(|range| range.contains(&block)));
                if value == 0 { made.remove(&block); } else { made.insert(block, value); }
            }
        }
        prop_assert_eq!(&made, &then.1);
    }

    #[test]
    fn seeking_passes_over_what_is_before(
        chain in prop::collection::vec(says(), 1..5),
        entries in 1..5usize,
        seeks in prop::collection::vec(0..BLOCKS * 2, 1..6),
    ) {
        let mut stream = Stream::new();
        let segments: Vec<_> =
            chain.iter().enumerate().map(|(at, says)| stream.put(at as u64, at as u64 + 1, 0, says, entries)).collect();
        let segments: Vec<_> = segments.iter().collect();
        let all: Vec<(u64, u8)> =
            Merged::new(&stream.access, &segments).flat_map(|located| stream.read(&located.unwrap())).collect();
        let mut merged = Merged::new(&stream.access, &segments);
        let mut seeks = seeks;
        seeks.sort_unstable();
        let mut passed = 0;
        for seek in &seeks {
            merged.seek(*seek).unwrap();
            // Something is read in between, too.
            let next = merged.next().map(|located| stream.read(&located.unwrap()));
            let expected = all.iter().find(|(block, _)| *block >= (*seek).max(passed));
            prop_assert_eq!(next.as_ref().map(|next| next[0]), expected.copied());
            passed = next.map_or(u64::MAX, |next| next[next.len() - 1].0 + 1);
        }
        let rest: Vec<_> = merged.flat_map(|located| stream.read(&located.unwrap())).collect();
        let expected: Vec<_> = all.iter().copied().filter(|(block, _)| *block >= passed).collect();
        prop_assert_eq!(rest, expected);
    }
}
