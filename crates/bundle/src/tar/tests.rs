//! Whatever is written is read again as it was, and what is damaged is not read as something else.

use super::header::{Header, OCTAL_12};
use super::read::Archive;
use super::sparse::Extent;
use super::{Kind, Meta, Time, padding, pax, sparse, write};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::Read;

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>().prop_filter("no zero, no slash", |byte| *byte != 0 && *byte != b'/'), 1..130)
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(name(), 1..4).prop_map(|names| names.join(&b'/'))
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::File),
        1 => path().prop_map(Kind::Link),
        1 => path().prop_map(Kind::Symlink),
        1 => Just(Kind::Directory),
        1 => Just(Kind::Fifo),
        1 => (0..4096_u32, 0..1_048_576_u32).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        1 => (0..4096_u32, 0..1_048_576_u32).prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
    ]
}

fn time() -> impl Strategy<Value = Time> {
    let secs =
        prop_oneof![-5_000_000_000_i64..5_000_000_000, 0..20_i64, -3..3_i64, Just(OCTAL_12 as i64 + 1)];
    (secs, prop_oneof![Just(0), 0..1_000_000_000_u32]).prop_map(|(secs, nanos)| Time { secs, nanos })
}

/// Runs of data with holes between, and the size of the file.
fn map() -> impl Strategy<Value = (Vec<Extent>, u64)> {
    (vec((1..5000_u64, 1..3000_u64), 0..40), 0..5000_u64).prop_map(|(runs, end)| {
        let mut at = 0;
        let mut extents = Vec::new();
        for (hole, len) in runs {
            extents.push(Extent { offset: at + hole, len });
            at += hole + len;
        }
        (sparse::tidy(extents, at + end), at + end)
    })
}

fn meta() -> impl Strategy<Value = Meta> {
    let attribute = ("[a-z%=.3D25]{1,40}", vec(any::<u8>(), 0..80));
    let attribute = attribute.prop_map(|(name, value)| (name.into_bytes(), value));
    let owners = (any::<u32>(), prop_oneof![0..70_000_u32, any::<u32>()]);
    let file = prop_oneof![
        3 => (0..4000_u64).prop_map(|size| (None, size)),
        1 => map().prop_map(|(extents, size)| (Some(extents), size)),
    ];
    (path(), kind(), 0..0o10000_u32, owners, time(), vec(attribute, 0..4), file, any::<bool>()).prop_map(
        |(path, kind, mode, (uid, gid), mtime, xattrs, (sparse, size), whiteout)| {
            let file = kind == Kind::File;
            let (sparse, size) = if file { (sparse, size) } else { (None, 0) };
            Meta { path, kind, mode, uid, gid, mtime, size, xattrs, sparse, whiteout }
        },
    )
}

/// An archive of these entries, whose data is made of `seed`.
fn archive(entries: &[Meta], seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for meta in entries {
        bytes.extend(write::head(meta));
        let stored = write::stored(meta);
        bytes.extend((0..stored).map(|at| seed.wrapping_add(at as u8)));
        bytes.resize(bytes.len() + padding(stored) as usize, 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// As it is read: a directory's path ends with a slash, and an empty run at a map's end is left out.
fn as_read(mut meta: Meta) -> Meta {
    if meta.kind == Kind::Directory {
        meta.path.push(b'/');
    }
    if let Some(extents) = &mut meta.sparse {
        extents.retain(|extent| extent.len > 0);
    }
    meta
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(entries in vec(meta(), 0..6), seed in any::<u8>()) {
        let bytes = archive(&entries, seed);
        let mut archive = Archive::new(&bytes[..]);
        for meta in &entries {
            prop_assert_eq!(archive.next().unwrap(), Some(as_read(meta.clone())));
            // Every second one is skipped, not read.
            if meta.size % 2 == 0 {
                let mut data = Vec::new();
                archive.read_to_end(&mut data).unwrap();
                prop_assert_eq!(data.len() as u64, write::stored(meta));
                prop_assert!(data.iter().enumerate().all(|(at, byte)| *byte == seed.wrapping_add(at as u8)));
            }
        }
        prop_assert_eq!(archive.next().unwrap(), None);
        prop_assert_eq!(archive.position(), bytes.len() as u64);
    }

    #[test]
    fn an_archive_that_is_cut_off_is_an_error(entries in vec(meta(), 1..4), cut in any::<prop::sample::Index>()) {
        let bytes = archive(&entries, 0);
        let cut = cut.index(bytes.len());
        let mut archive = Archive::new(&bytes[..cut]);
        let error = loop {
            match archive.next() {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        prop_assert!(error.is_some());
    }

    #[test]
    fn rubbish_never_panics(mut bytes in vec(any::<u8>(), 0..4096), entries in vec(meta(), 1..3), at in any::<prop::sample::Index>()) {
        // As it is, and in the middle of something good.
        let mut good = archive(&entries, 0);
        let at = at.index(good.len());
        let some = bytes.len().min(good.len() - at).min(20);
        good[at..at + some].copy_from_slice(&bytes[..some]);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        for bytes in [bytes, good] {
            let mut archive = Archive::new(&bytes[..]);
            while let Ok(Some(_)) = archive.next() {}
        }
    }

    #[test]
    fn headers_are_read_as_written(size in any::<u64>(), mtime in any::<i64>(), uid in 0..1_u64 << 55, kind in any::<u8>()) {
        let size = size >> 1;
        let header = Header { name: b"a/b".to_vec(), prefix: b"p".to_vec(), mode: 0o644, uid, gid: 7, size, mtime, kind, ..Header::default() };
        let block = header.render();
        prop_assert_eq!(Header::parse(&block), Some(header));
        // The last two bytes of the checksum's field end it; nothing hangs on them.
        for byte in (0..154).chain(156..512) {
            let mut damaged = block;
            damaged[byte] ^= 0x11;
            prop_assert_ne!(Header::parse(&damaged), Header::parse(&block));
        }
    }

    #[test]
    fn times_are_read_as_written(time in time()) {
        prop_assert_eq!(pax::time(pax::time_text(time).as_bytes()), Some(time));
    }

    #[test]
    fn records_are_read_as_written(records in vec((vec(1..60_u8, 1..30), vec(any::<u8>(), 0..1200)), 0..8)) {
        let mut bytes = Vec::new();
        for (key, value) in &records {
            pax::push(&mut bytes, key, value);
        }
        let parsed = pax::parse(&bytes).unwrap();
        prop_assert_eq!(parsed.len(), records.len());
        for ((key, value), (read_key, read_value)) in records.iter().zip(parsed) {
            prop_assert_eq!((&key[..], &value[..]), (read_key, read_value));
        }
    }

    #[test]
    fn names_of_attributes_survive(name in vec(any::<u8>(), 0..40), text in "[%=253D]{0,20}") {
        for name in [&name[..], text.as_bytes()] {
            let encoded = pax::encode_name(name);
            prop_assert!(!encoded.contains(&b'='));
            prop_assert_eq!(pax::decode_name(&encoded), name);
        }
    }
}

#[test]
fn too_many_holes_become_data() {
    let many: Vec<Extent> =
        (0..sparse::EXTENTS_MAX as u64 + 10).map(|at| Extent { offset: at * 8192, len: 4096 }).collect();
    let size = many.last().map(|last| last.offset + last.len).unwrap();
    let tidy = sparse::tidy(many.clone(), size);
    assert!(tidy.len() <= sparse::EXTENTS_MAX);
    assert_eq!((tidy[0].offset, tidy.last().map(|last| last.offset + last.len)), (0, Some(size)));
}

#[test]
fn maps_that_lie_are_refused() {
    let read = |text: &str, size| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        sparse::read(&mut &bytes[..], size, bytes.len() as u64).map(|(extents, _)| extents)
    };
    assert_eq!(read("1\n0\n10\n", 10).unwrap(), [Extent { offset: 0, len: 10 }]);
    for (text, size) in [
        ("1\n0\n11\n", 10),
        ("1\n18446744073709551615\n2\n", 10),
        ("2\n5\n5\n0\n5\n", 10),
        ("2\n0\n6\n5\n5\n", 10),
        ("99999999\n", 10),
        ("1\n-1\n1\n", 10),
        ("2\n0\n5\n", 10),
        ("1\n000000000000000000000000\n1\n", 10),
    ] {
        assert!(read(text, size).is_err(), "{text:?}");
    }
}
