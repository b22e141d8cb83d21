//! Every change of every byte is detected, and every cut-off end.

use crate::golden::{Objects, access, load, parts, store, stream};
use crate::parsers::{DATA_KEY, VAULT, keys};
use everhold_vault::descriptor::{DESCRIPTOR, Descriptor};
use everhold_vault::format::{
    BLOCK, Content, DATA_AT, Entry, FormatError, Kind, PartName, Table, Unsealer, check_whole, open_object,
    open_table, read_trailer, table_range,
};
use everhold_vault::keys::{DataKey, VaultId};
use everhold_vault::store::Store;

/// One bit, another one, and all of a byte.
fn flips(at: usize) -> [u8; 3] {
    [1 << (at % 8), 1 << ((at + 3) % 8), 0xff]
}

/// Calls `check` with every damaged copy of `body`, and what was done to it.
fn each_flip(body: &[u8], range: std::ops::Range<usize>, mut check: impl FnMut(&[u8], &str)) {
    let mut body = body.to_vec();
    for at in range {
        for flip in flips(at) {
            body[at] ^= flip;
            check(&body, &format!("byte {at} ^ {flip:#04x}"));
            body[at] ^= flip;
        }
    }
}

/// All shorter ones, from either end, and longer ones.
fn each_length(body: &[u8], mut check: impl FnMut(&[u8], &str)) {
    for at in 0..body.len() {
        check(&body[..at], &format!("cut off at {at}"));
        check(&body[at + 1..], &format!("without its first {}", at + 1));
    }
    check(&[body, &[0]].concat(), "longer");
    check(&[body, body].concat(), "twice");
}

/// What reading the end alone tells.
fn by_tail(name: &PartName, body: &[u8], tail: usize) -> Result<(Table, u64), FormatError> {
    let trailer = read_trailer(&body[body.len().saturating_sub(tail)..], body.len() as u64)?;
    let range = table_range(&trailer);
    let table = open_table(&keys(), &VAULT, name, &trailer, &body[range.start as usize..range.end as usize])?;
    Ok((table, trailer.volume_size))
}

#[test]
fn every_changed_byte_of_a_part_is_detected() {
    let objects = load();
    for (name, body) in parts(&objects) {
        check_whole(&keys(), &VAULT, &name, body).unwrap();
        each_flip(body, 0..body.len(), |damaged, what| {
            assert!(check_whole(&keys(), &VAULT, &name, damaged).is_err(), "{name}: {what}");
        });
    }
}

#[test]
fn every_cut_off_part_is_detected() {
    let objects = load();
    for (name, body) in parts(&objects) {
        each_length(body, |damaged, what| {
            assert!(check_whole(&keys(), &VAULT, &name, damaged).is_err(), "{name}: {what}");
            assert!(by_tail(&name, damaged, 4096).is_err(), "{name}: {what}");
        });
    }
}

#[test]
fn the_end_of_a_part_alone_never_deceives() {
    let objects = load();
    for (name, body) in parts(&objects) {
        let whole = by_tail(&name, body, body.len()).unwrap();
        let trailer = read_trailer(body, body.len() as u64).unwrap();
        each_flip(body, trailer.table_at as usize..body.len(), |damaged, what| {
            match by_tail(&name, damaged, 112) {
                Err(_) => {}
                // Eight bytes of nothing, and the hash of the whole, which only a reader of the whole looks at.
                Ok(read) => {
                    assert!(read == whole, "{name}: {what}");
                    let at: usize = what.split(' ').nth(1).unwrap().parse().unwrap();
                    let unread = body.len() - 56..body.len() - 16;
                    assert!(unread.contains(&at), "{name}: {what} was not detected");
                }
            }
        });
    }
}

#[test]
fn every_changed_byte_of_a_block_is_detected() {
    let objects = load();
    for (name, body) in parts(&objects) {
        let (table, _) = by_tail(&name, body, 4096).unwrap();
        let (mut at, mut unsealer) = (DATA_AT as usize, Unsealer::new(&keys(), stream().0));
        let mut content = [0; BLOCK];
        for entry in &table.entries {
            let len = entry.sealed_len() as usize;
            if len == 0 {
                continue;
            }
            let sealed = &body[at..at + len];
            at += len;
            unsealer.open(entry.block, entry, sealed, &mut content).unwrap();
            let damaged = |sealed: &[u8], what: &str| {
                let mut content = [0; BLOCK];
                assert!(unsealer.open(entry.block, entry, sealed, &mut content).is_err(), "{what}");
            };
            let mut damaged = damaged;
            each_flip(sealed, 0..len, &mut damaged);
            each_length(sealed, &mut damaged);
            for (block, other) in other_entries(entry) {
                assert!(unsealer.open(block, &other, sealed, &mut content).is_err(), "{other:?}");
            }
            let mut elsewhere = Unsealer::new(&keys(), [1; 16]);
            assert!(elsewhere.open(entry.block, entry, sealed, &mut content).is_err(), "of another stream");
        }
        assert_eq!(at as u64, read_trailer(body, body.len() as u64).unwrap().table_at);
    }
}

/// Entries that differ in one thing.
fn other_entries(entry: &Entry) -> Vec<(u64, Entry)> {
    let Content::Data { compressed, len, hash, salt, count } = entry.content else { return Vec::new() };
    let with = |compressed, hash, salt, count| Entry {
        block: entry.block,
        content: Content::Data { compressed, len, hash, salt, count },
    };
    let mut others = vec![
        (entry.block + 1, *entry),
        (entry.block, with(!compressed, hash, salt, count)),
        (entry.block, with(compressed, hash, salt, count + 1)),
        (entry.block, Entry { block: entry.block, content: Content::Zeros { count: 1 } }),
    ];
    for bit in 0..128 {
        let mut flip = [0; 16];
        flip[bit / 8] = 1 << (bit % 8);
        let xor = |bytes: [u8; 16]| std::array::from_fn(|at| bytes[at] ^ flip[at]);
        others.push((entry.block, with(compressed, xor(hash), salt, count)));
        others.push((entry.block, with(compressed, hash, xor(salt), count)));
    }
    others
}

#[test]
fn a_part_is_bound_to_its_name_and_vault() {
    let objects = load();
    for (name, body) in parts(&objects) {
        let opens = |vault: &[u8; 16], name: &PartName| {
            let trailer = read_trailer(body, body.len() as u64).unwrap();
            let range = table_range(&trailer);
            let sealed = &body[range.start as usize..range.end as usize];
            let by_tail = open_table(&keys(), vault, name, &trailer, sealed).is_ok();
            assert_eq!(by_tail, check_whole(&keys(), vault, name, body).is_ok());
            by_tail
        };
        assert!(opens(&VAULT, &name));
        assert!(!opens(&[0x12; 16], &name));
        let mut stream = name.stream;
        stream.0[3] ^= 1;
        for other in [
            PartName { stream, ..name },
            PartName { from: name.from ^ 8, ..name },
            PartName { to: name.to ^ 8, ..name },
            PartName { time: name.time ^ 1, ..name },
            PartName { epoch: name.epoch ^ 1, ..name },
            PartName { run: name.run ^ 1, ..name },
            PartName { part: name.part ^ 1, ..name },
            PartName { kind: if name.kind == Kind::Cut { Kind::Partial } else { Kind::Cut }, ..name },
            PartName { last: !name.last, ..name },
        ] {
            assert!(!opens(&VAULT, &other), "{name} as {other}");
        }
        for (other, _) in parts(&objects) {
            assert_eq!(opens(&VAULT, &other), other == name, "{name} as {other}");
        }
    }
}

fn sealed(objects: &Objects) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    let is_sealed = |name: &str| {
        name.starts_with("i/") || ["/n/", "/d/", "/i/", "/about"].iter().any(|k| name.contains(k))
    };
    objects.iter().filter(move |(name, _)| is_sealed(name))
}

#[test]
fn every_change_of_a_sealed_object_is_detected() {
    let objects = load();
    assert_eq!(sealed(&objects).count(), 5);
    for (name, body) in sealed(&objects) {
        open_object(&keys(), name, body).unwrap();
        let damaged = |damaged: &[u8], what: &str| {
            assert!(open_object(&keys(), name, damaged).is_err(), "{name}: {what}");
        };
        each_flip(body, 0..body.len(), damaged);
        each_length(body, damaged);
        for (other, _) in objects.iter().filter(|(other, _)| *other != name) {
            assert!(open_object(&keys(), other, body).is_err(), "{name} as {other}");
        }
    }
}

#[test]
fn no_change_of_a_descriptor_deceives() {
    let objects = load();
    let body = &objects[DESCRIPTOR];
    let (store, key) = (store(&objects), DataKey::from_bytes(DATA_KEY));
    let whole = Descriptor::read(&store).unwrap();
    assert_eq!(whole.id, VaultId(VAULT));
    let mut tolerated = 0;
    let mut check = |damaged: &[u8], what: &str| {
        store.replace(DESCRIPTOR, damaged.to_vec().into()).unwrap();
        let read = Descriptor::read(&store).and_then(|read| read.check("", &key).map(|()| read));
        if let Ok(read) = read {
            tolerated += 1;
            // Capital letters, or other white space: it says the same.
            assert_eq!(read, whole, "{what}");
        }
    };
    each_flip(body, 0..body.len(), &mut check);
    each_length(body, &mut check);
    assert!(tolerated < 60, "{tolerated}");
}

#[test]
fn a_damaged_object_is_told_and_hides_nothing_else() {
    let objects = load();
    // Descriptions and inventories are not read for this.
    let is_read = |name: &String| name.contains("/n/") || name.contains("/d/");
    let names: Vec<String> = sealed(&objects).map(|(name, _)| name.clone()).filter(is_read).collect();
    assert_eq!(names.len(), 2);
    for name in names {
        let store = store(&objects);
        assert!(store.corrupt(&name, 30));
        let state = access(&store).state().unwrap();
        assert_eq!(state.damaged.len(), 1);
        assert!(state.damaged[0].starts_with(&name));
        assert_eq!(state.cuts().len(), 4);
    }
}
