//! Every parser of what comes from a vault, given anything. None may panic, and what one takes must make sense.
//!
//! The fuzz targets in `fuzz/` call these functions too.

use super::raw;
use everhold_vault::claim;
use everhold_vault::descriptor::{DESCRIPTOR, Descriptor};
use everhold_vault::format::{
    BLOCK, Content, Entry, EraName, Keys, Kind, PartBuilder, PartName, Sealed, StreamId, Table, Unsealer,
    check_whole, open_object, open_table, read_trailer, seal_object, table_range,
};
use everhold_vault::inventory::{Inventory, compare};
use everhold_vault::keys::{self as slots, DataKey, SecretString, Unlock, VaultId};
use everhold_vault::read::Access;
use everhold_vault::store::{MemoryStore, Store};
use everhold_vault::{Listing, Object};
use std::sync::Arc;

pub const DATA_KEY: [u8; 32] = [7; 32];
pub const VAULT: [u8; 16] = [0x11; 16];
/// The small object of the golden vault that [`object`] opens.
const OBJECT: &str = "h/793565240e04d295fdfc1790d061d00b/about";
const PART: &str = "h/793565240e04d295fdfc1790d061d00b/s/0000000000000002-0000000000000000-019424f86858-00000001-00000060-c-000000e";

pub fn keys() -> Keys {
    Keys::new(&DATA_KEY)
}

/// The part of the golden vault that [`part`] and [`table`] take their input for.
pub fn part_name() -> PartName {
    PART.parse().unwrap()
}

/// One name on each line.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut objects = Vec::new();
    for line in text.lines() {
        if let Ok(name) = line.parse::<PartName>() {
            assert_eq!(name.to_string(), line);
        }
        if let Ok(name) = line.parse::<EraName>() {
            assert_eq!(name.to_string(), line);
        }
        if let Ok(name) = line.parse::<StreamId>() {
            assert_eq!(name.to_string(), line);
        }
        objects.push(Object { name: line.to_owned(), size: 1 });
    }
    let listing = Listing::read(&objects);
    let parts: usize = listing.segments.iter().map(|segment| segment.parts.len()).sum();
    assert_eq!(parts + listing.strays.len() + listing.eras.len() + listing.others.len(), objects.len());
    assert!(listing.segments.is_sorted_by_key(|segment| (segment.to, segment.from)));
}

/// The end of a part that is said to be as long as the first eight bytes say; once more with what is looked at first
/// as it should be.
pub fn trailer(data: &[u8]) {
    let Some((total, tail)) = data.split_first_chunk::<8>() else { return };
    let mut right = tail.to_vec();
    if let Some(at) = tail.len().checked_sub(16) {
        right[at..at + 8].copy_from_slice(total);
        right[at + 8..].copy_from_slice(b"\r\nGESHVE");
    }
    let total = u64::from_le_bytes(*total);
    for (tail, total) in [(tail, total), (tail, tail.len() as u64), (&right, total)] {
        if let Ok(trailer) = read_trailer(tail, total) {
            let range = table_range(&trailer);
            assert!(range.start <= range.end && range.end <= total);
        }
    }
}

pub fn part(data: &[u8]) {
    part_as(&part_name(), data);
}

/// A part, read whole and by its end.
pub fn part_as(name: &PartName, data: &[u8]) {
    let whole = check_whole(&keys(), &VAULT, name, data);
    let Ok(trailer) = read_trailer(data, data.len() as u64) else {
        assert!(whole.is_err());
        return;
    };
    let range = table_range(&trailer);
    let sealed = &data[range.start as usize..range.end as usize];
    let table = open_table(&keys(), &VAULT, name, &trailer, sealed);
    if let Ok((_, whole)) = whole {
        assert_eq!(table, Ok(whole));
    }
}

/// The name as the second reader has it.
fn raw_name(name: &PartName) -> raw::Name {
    let PartName { stream, from, to, time, epoch, run, kind, part, last } = *name;
    raw::Name { stream: stream.0, to, from, time, epoch, run, cut: kind == Kind::Cut, part, last }
}

/// Seals what a table should be, whatever it is, as a writer with the key could: what follows the seal is tried.
fn sealed_table(
    name: &PartName,
    text: &[u8],
    entries: u32,
    first: u64,
    end: u64,
    data_len: u64,
) -> (Vec<u8>, Vec<u8>) {
    let salt = [9; 16];
    let mut fields = Vec::new();
    fields.extend((128 + data_len).to_le_bytes());
    fields.extend((text.len() as u32 + 16).to_le_bytes());
    fields.extend(entries.to_le_bytes());
    fields.extend(first.to_le_bytes());
    fields.extend(end.to_le_bytes());
    fields.extend(4096_u64.to_le_bytes());
    fields.extend(salt);
    fields.extend([0; 8]);
    let aad = [&raw::header(&VAULT, &raw_name(name))[..], &fields].concat();
    let purpose = raw::purpose(&DATA_KEY, "everhold vault 1: tables");
    let sealed = raw::seal(&purpose, &salt, 0, &aad, text);
    let total = 128 + data_len + sealed.len() as u64 + 112;
    fields.extend([0; 32]);
    fields.extend(total.to_le_bytes());
    fields.extend(b"\r\nGESHVE");
    (sealed, fields)
}

/// The rows of a table: sealed as they are, compressed or (the first byte is odd) not even that.
pub fn table(data: &[u8]) {
    let _table = open_rows(data);
}

/// The table that was made of these rows.
pub fn open_rows(data: &[u8]) -> Option<Table> {
    let (how, rows) = data.split_first()?;
    let rows = &rows[..rows.len().min(1 << 20)];
    let text = if how % 2 == 1 { rows.to_vec() } else { zstd::bulk::compress(rows, 1).unwrap() };
    let number = |row: &[u8], at: usize, len: usize| {
        row.iter().skip(at).take(len).rev().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte))
    };
    let table: Vec<&[u8]> = rows.chunks(48).collect();
    let first = table.first().map_or(0, |row| number(row, 0, 7));
    let end = table.last().map_or(0, |row| {
        let blocks = if row.get(7) == Some(&0) { number(row, 8, 4) } else { 1 };
        number(row, 0, 7) + blocks
    });
    let data_len: u64 = table.iter().filter(|row| row.get(7) != Some(&0)).map(|row| number(row, 8, 4)).sum();
    // Half of the time the rest fits, and half of the time it does not.
    let data_len = if how & 2 == 0 { data_len } else { data_len + 1 };
    let name = part_name();
    let (sealed, end_of_part) = sealed_table(&name, &text, table.len() as u32, first, end, data_len);
    let total = 128 + data_len + sealed.len() as u64 + 112;
    let trailer = read_trailer(&end_of_part, total).ok()?;
    let table = open_table(&keys(), &VAULT, &name, &trailer, &sealed).ok()?;
    assert!(how & 2 == 0, "its data has another length");
    assert_eq!(table.entries.iter().map(|entry| u64::from(entry.sealed_len())).sum::<u64>(), data_len);
    assert!(table.entries.windows(2).all(|pair| pair[0].end() <= pair[1].block));
    assert!(table.entries.iter().all(|entry| entry.sealed_len() <= 4112 && entry.blocks() > 0));
    // Runs of zeros that touch are joined when it is written again.
    let joins = table.entries.windows(2).any(|pair| {
        pair.iter().all(|entry| matches!(entry.content, Content::Zeros { .. }))
            && pair[0].end() == pair[1].block
    });
    if data_len > 1 << 20 || joins {
        return Some(table);
    }
    let mut again = PartBuilder::new();
    for entry in &table.entries {
        again.copy(Sealed { entry: *entry, bytes: &vec![0; entry.sealed_len() as usize] });
    }
    let again = again.build(&keys(), &VAULT, name, 4096, [1; 16]);
    assert_eq!(check_whole(&keys(), &VAULT, &name, &again.body).unwrap().1, table);
    Some(table)
}

/// What a block should be, sealed whatever it is; the first byte says whether it is said to be compressed.
pub fn block(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    let (stream, salt, compressed) = ([0x22; 16], [5; 16], how % 2 == 1);
    let aad = raw::block_aad(&stream, 77, compressed);
    let sealed = raw::seal(&raw::purpose(&DATA_KEY, "everhold vault 1: blocks"), &salt, 3, &aad, text);
    let plain = if compressed { zstd::bulk::decompress(text, BLOCK).ok() } else { Some(text.to_vec()) };
    let plain = plain.filter(|plain| plain.len() == BLOCK);
    let hash = plain.as_ref().map_or([0; 16], |plain| keys().hash(plain));
    let content = Content::Data { compressed, len: sealed.len() as u32, hash, salt, count: 3 };
    let (entry, mut content, mut unsealer) =
        (Entry { block: 77, content }, [0; BLOCK], Unsealer::new(&keys(), stream));
    let opened = unsealer.open(77, &entry, &sealed, &mut content);
    assert_eq!(opened.is_ok(), plain.is_some());
    if let Some(plain) = plain {
        assert!(content[..] == plain);
    }
    // And as if it were a sealed block itself.
    assert!(unsealer.open(77, &entry, text, &mut content).is_err());
}

pub fn object(data: &[u8]) {
    object_as(OBJECT, data);
}

pub fn object_as(name: &str, data: &[u8]) {
    let _opened = open_object(&keys(), name, data);
}

/// The text in the small objects of a stream, sealed as it should be.
pub fn texts(data: &[u8]) {
    let store = MemoryStore::new();
    let access =
        Access { store: Arc::new(store.clone()), keys: keys(), vault: VAULT, stream: StreamId([0; 16]) };
    for name in ["about", "n/00", "d/00"] {
        let name = format!("h/{}/{name}", access.stream);
        let body = seal_object(&access.keys, &[1; 16], &name, data);
        store.replace(&name, body.into()).unwrap();
    }
    let state = access.state().unwrap();
    assert_eq!(state.snapshots.len() + state.condemned.len() + state.damaged.len(), 2);
    let _about = access.about::<serde_json::Value>();
    // And what a person has copied from a kit.
    if let Ok(print) = String::from_utf8_lossy(data).parse::<slots::Fingerprint>() {
        assert_eq!(print.to_string().parse(), Ok(print));
    }
}

/// What an inventory should be, sealed as it should be: compressed, or (the first byte is odd) not even that.
pub fn inventory(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    let name = "i/00000001";
    let packed = if how % 2 == 1 { text.to_vec() } else { zstd::bulk::compress(text, 1).unwrap() };
    let sealed = seal_object(&keys(), &[1; 16], name, &packed);
    // And as if it were an inventory's object itself.
    assert!(Inventory::open(&keys(), name, data).is_err());
    let Ok(read) = Inventory::open(&keys(), name, &sealed) else { return };
    let again = read.seal(&keys(), &[2; 16], name).unwrap();
    assert_eq!(Inventory::open(&keys(), name, &again).unwrap(), read);
    // Nothing is there: everything that it lists is missing.
    let names: std::collections::BTreeSet<_> = read.objects.iter().map(|listed| &listed.name).collect();
    assert_eq!(compare("", &read, &[], |_| false).len(), names.len());
}

pub fn descriptor(data: &[u8]) {
    let store = MemoryStore::new();
    store.replace(DESCRIPTOR, data.to_vec().into()).unwrap();
    if let Ok(descriptor) = Descriptor::read(&store) {
        let _checked = descriptor.check("", &DataKey::from_bytes(DATA_KEY));
    }
}

pub fn claims(data: &[u8]) {
    let store = MemoryStore::new();
    store.replace("w/00000001", data.to_vec().into()).unwrap();
    let newest = claim::newest(&store).unwrap().unwrap();
    let Ok(writer) = newest.1 else { return };
    // The same node claims again; what it wrote is read as it was.
    assert_eq!(claim::claim(&store, &writer, false).unwrap().0, 2);
    assert_eq!(claim::newest(&store).unwrap().unwrap().1, Ok(writer));
}

/// A key slot.
pub fn slot(data: &[u8]) {
    let store = MemoryStore::new();
    store.replace("k/00", data.to_vec().into()).unwrap();
    let _slots = slots::slots(&store, VaultId(VAULT)).unwrap();
    let _key = slots::unlock(
        &store,
        VaultId(VAULT),
        &Unlock::Kit(SecretString::from(include_str!("golden/recovery-kit.txt"))),
    );
}

/// All of them, each of which is a fuzz target.
pub const ALL: [fn(&[u8]); 11] =
    [names, trailer, part, table, block, object, texts, inventory, descriptor, claims, slot];
