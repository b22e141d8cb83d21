//! Any table comes back as it was; no parser panics, whatever it is given.

use crate::golden::{load, parts, stream};
use crate::parsers::{self, VAULT, keys, part_name};
use everhold_vault::format::{
    Content, Entry, EraName, Kind, PartBuilder, PartName, Sealed, StreamId, check_whole, open_table,
    read_trailer, table_range,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Gaps and contents of entries, which make an ascending table.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let gap = prop_oneof![3 => 0..3_u64, 1 => 0..1_u64 << 40];
    let zeros = (1..u32::MAX).prop_map(|count| Content::Zeros { count });
    let data = (any::<bool>(), 0..4113_u32, any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u32>()).prop_map(
        |(compressed, len, hash, salt, count)| Content::Data { compressed, len, hash, salt, count },
    );
    vec((gap, prop_oneof![1 => zeros, 2 => data]), 0..40).prop_map(|list| {
        let mut next = 0;
        let mut last_zero = false;
        let entry = |(gap, content): (u64, Content)| {
            let is_zero = matches!(content, Content::Zeros { .. });
            // Runs of zeros that touch would be joined.
            let block = next + gap + u64::from(is_zero && last_zero);
            let entry = Entry { block, content };
            (next, last_zero) = (entry.end(), is_zero);
            entry
        };
        list.into_iter().map(entry).collect()
    })
}

prop_compose! {
    fn part_names()(
        stream: [u8; 16],
        from in 0..u64::MAX,
        more: u64,
        time in 0..1_u64 << 48,
        epoch: u32,
        run: u32,
        cut: bool,
        part in 0..1_u32 << 24,
        last: bool,
    ) -> PartName {
        let kind = if cut { Kind::Cut } else { Kind::Partial };
        let to = from + 1 + more % (u64::MAX - from);
        PartName { stream: StreamId(stream), from, to, time, epoch, run, kind, part, last }
    }
}

proptest! {
    #[test]
    fn any_table_comes_back(entries in entries(), name in part_names(), size: u64, salt: [u8; 16]) {
        let mut part = PartBuilder::new();
        for entry in &entries {
            part.copy(Sealed { entry: *entry, bytes: &vec![7; entry.sealed_len() as usize] });
        }
        let built = part.build(&keys(), &VAULT, name, size, salt);
        let (trailer, table) = check_whole(&keys(), &VAULT, &name, &built.body).unwrap();
        prop_assert_eq!(&table.entries, &entries);
        prop_assert_eq!(trailer.volume_size, size);
        let tail = &built.body[built.body.len() - 112..];
        prop_assert_eq!(read_trailer(tail, built.body.len() as u64), Ok(trailer));
        let range = table_range(&trailer);
        let sealed = &built.body[range.start as usize..range.end as usize];
        prop_assert_eq!(open_table(&keys(), &VAULT, &name, &trailer, sealed), Ok(table));
    }

    #[test]
    fn any_name_comes_back(name in part_names(), epoch: u32, after: u64) {
        prop_assert_eq!(name.to_string().parse(), Ok(name));
        let era = EraName { stream: name.stream, epoch, after };
        prop_assert_eq!(era.to_string().parse(), Ok(era));
    }

    #[test]
    fn any_bytes_are_refused_in_order(data in vec(any::<u8>(), 0..600)) {
        for parser in parsers::ALL {
            parser(&data);
        }
    }

    #[test]
    fn any_rows_are_taken_or_refused_in_order(how: u8, rows in vec((0..9_u64, 0..4_u8, 0..9_u32, any::<bool>()), 0..20)) {
        let mut data = vec![how];
        let mut next = 0;
        for (gap, kind, len, long) in rows {
            next += gap;
            // About as long as may be.
            let len = if long { 4108 + len } else { len };
            data.extend((next | u64::from(kind) << 56).to_le_bytes());
            data.extend(len.to_le_bytes());
            data.extend([0; 36]);
        }
        parsers::table(&data);
    }

    #[test]
    fn any_text_is_refused_in_order(text in "[a-z0-9/{}\":,\\-\n ]{0,200}") {
        for parser in parsers::ALL {
            parser(text.as_bytes());
        }
    }
}

/// Tables that only who has the key could have sealed.
#[test]
fn rows_that_make_no_sense_are_refused() {
    const LAST: u64 = (1 << 56) - 1;
    let table = |rows: &[(u64, u64, u32)]| {
        let mut data = vec![0];
        for (block, kind, len) in rows {
            data.extend((block | kind << 56).to_le_bytes());
            data.extend(len.to_le_bytes());
            data.extend([0; 36]);
        }
        parsers::open_rows(&data)
    };
    for good in
        [&[][..], &[(0, 0, 1)], &[(3, 1, 4112), (4, 2, 0)], &[(LAST - 1, 0, 1)], &[(0, 0, 9), (9, 0, 1)]]
    {
        assert_eq!(table(good).unwrap().entries.len(), good.len(), "{good:?}");
    }
    for bad in [
        &[(0, 0, 0)][..],
        &[(0, 1, 4113)],
        &[(0, 3, 1)],
        &[(0, 255, 1)],
        &[(4, 1, 9), (4, 1, 9)],
        &[(4, 1, 9), (3, 1, 9)],
        &[(4, 0, 9), (12, 1, 9)],
        &[(LAST, 0, 1)],
        &[(LAST - 1, 0, 2)],
        &[(LAST, 1, 9)],
    ] {
        assert_eq!(table(bad), None, "{bad:?}");
    }
    let full = |entries| table(&(0..entries).map(|block| (block, 1, 16)).collect::<Vec<_>>()).is_some();
    assert!(full(16_384) && !full(16_385));
}

/// An end that claims to be of a part shorter than it is.
#[test]
fn a_trailer_that_is_longer_than_its_part_is_refused() {
    let mut tail = vec![0xff; 112];
    tail[8..12].copy_from_slice(&100_u32.to_le_bytes());
    tail[96..104].copy_from_slice(&5_u64.to_le_bytes());
    tail[104..].copy_from_slice(b"\r\nGESHVE");
    assert!(read_trailer(&tail, 5).is_err());
}

/// The parsers' own inputs are the golden ones, so that what is nearly right is nearly right for them.
#[test]
fn golden_inputs_are_taken() {
    let objects = load();
    let name = part_name();
    check_whole(&keys(), &VAULT, &name, &objects[&name.to_string()]).unwrap();
    assert_eq!(name.stream, stream());
    for body in objects.values() {
        for parser in parsers::ALL {
            parser(body);
        }
    }
}

/// What the fuzz targets do, for a bounded number of inputs that are nearly right.
#[test]
fn mutated_golden_inputs_are_taken_or_refused_in_order() {
    let objects = load();
    let mut seeds: Vec<Vec<u8>> = objects.values().cloned().collect();
    let all: Vec<&str> = objects.keys().map(String::as_str).collect();
    seeds.push(all.join("\n").into_bytes());
    // Texts, and rows behind the seal.
    seeds.push(br#"{"name":"a","point":1,"time":2,"created":3,"names":["b"],"at":4}"#.to_vec());
    let mut rows = vec![0];
    for (block, kind, len) in [(0_u64, 2_u64, 100_u32), (1, 1, 4112), (5, 0, 9), (14, 2, 16)] {
        rows.extend((block | kind << 56).to_le_bytes());
        rows.extend(len.to_le_bytes());
        rows.extend([3; 36]);
    }
    seeds.push(rows);
    let mut dice = Dice(1);
    for round in 0..3000 {
        let mut data = seeds[round % seeds.len()].clone();
        for _ in 0..dice.below(4) {
            mutate(&mut data, &mut dice);
        }
        for parser in parsers::ALL {
            parser(&data);
        }
    }
    for (name, body) in parts(&objects) {
        parsers::part_as(&name, body);
        for _ in 0..100 {
            let mut data = body.to_vec();
            mutate(&mut data, &mut dice);
            parsers::part_as(&name, &data);
        }
    }
    for (name, body) in objects.iter().filter(|(name, _)| name.starts_with(&format!("h/{}/", stream()))) {
        for _ in 0..100 {
            let mut data = body.clone();
            mutate(&mut data, &mut dice);
            parsers::object_as(name, &data);
        }
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }
}

fn mutate(data: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(data.len());
    match dice.below(6) {
        _ if data.is_empty() => data.push(dice.below(256) as u8),
        0 => data.truncate(at),
        1 => data.insert(at, dice.below(256) as u8),
        2 => drop(data.remove(at)),
        3 => {
            let end = (at + dice.below(64)).min(data.len());
            let piece = data[at..end].to_vec();
            let to = dice.below(data.len());
            data.splice(to..to, piece);
        }
        4 => {
            let ends = [0x00, 0x01, 0x7f, 0x80, 0xff];
            data[at] = ends[dice.below(ends.len())];
        }
        _ => data[at] ^= 1 << dice.below(8),
    }
}
