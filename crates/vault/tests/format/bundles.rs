//! Bundles come back as they were stored; whatever is missing, exchanged or cut off is an error that names it; and the objects are
//! what the document says.

use crate::parsers::{DATA_KEY, keys};
use crate::raw::{open, purpose};
use everhold_vault::Store;
use everhold_vault::bundles::{BundleError, Bundles, Kept, Label, about_name, chunk_name};
use everhold_vault::format::BundleId;
use everhold_vault::store::MemoryStore;
use proptest::prelude::*;
use std::sync::Arc;

const ID: BundleId = BundleId([5; 16]);

fn label(name: &str) -> Label {
    Label { name: name.to_owned(), instant: 1, stored: 2, containers: vec!["web".to_owned()] }
}

fn salt(of: BundleId, number: u32) -> [u8; 16] {
    (u128::from(of.0[0]) << 64 | u128::from(number)).to_le_bytes()
}

fn store(bundles: &Bundles, id: BundleId, bytes: &[u8], chunk: u64) -> Kept {
    let (mut storing, mut from, mut number) = (bundles.begin(id, bytes.len() as u64, chunk), bytes, 0);
    while storing.next(&mut from, &salt(id, number)).unwrap() {
        number += 1;
        assert!(bundles.list().unwrap().bundles.iter().all(|kept| kept.id != id), "not to be seen yet");
    }
    storing.finish(label("web-1"), &salt(id, u32::MAX)).unwrap()
}

fn fetch(bundles: &Bundles, kept: &Kept) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    bundles.fetch(kept, &mut bytes).map(|()| bytes)
}

fn empty() -> (Arc<MemoryStore>, Bundles) {
    let store = Arc::new(MemoryStore::default());
    (Arc::clone(&store), Bundles::new(store, keys()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_stored_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..2000), chunk in 1..700_u64) {
        let (_, bundles) = empty();
        let kept = store(&bundles, ID, &bytes, chunk);
        prop_assert_eq!(&bundles.list().unwrap().bundles, &vec![kept.clone()]);
        prop_assert_eq!(kept.about.chunks.len(), bytes.len().div_ceil(chunk as usize).max(1));
        prop_assert_eq!(fetch(&bundles, &kept).unwrap(), bytes);
        bundles.remove(ID).unwrap();
        prop_assert_eq!(bundles.list().unwrap(), Default::default());
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is(at in any::<prop::sample::Index>(), chunk in 0..4_u32, bit in 0..8_u8) {
        let (memory, bundles) = empty();
        let kept = store(&bundles, ID, &[7; 1000], 300);
        let name = chunk_name(ID, chunk);
        let mut object = memory.read(&name, None).unwrap().to_vec();
        let at = at.index(object.len());
        object[at] ^= 1 << bit;
        memory.replace(&name, object.into()).unwrap();
        let error = fetch(&bundles, &kept).unwrap_err().to_string();
        prop_assert!(error.contains(&name), "{}", error);
    }
}

#[test]
fn each_chunk_that_is_missing_exchanged_or_cut_off_is_named() {
    let (memory, bundles) = empty();
    let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * n % 251) as u8).collect();
    let kept = store(&bundles, ID, &bytes, 250);
    let other = BundleId([6; 16]);
    store(&bundles, other, &bytes, 250);
    for number in 0..4 {
        let name = chunk_name(ID, number);
        let whole = memory.read(&name, None).unwrap();
        let fails = |what: &str| {
            let error = fetch(&bundles, &kept).unwrap_err().to_string();
            assert!(error.contains(&name), "{what}: {error}");
        };
        memory.delete(&name).unwrap();
        fails("missing");
        assert_eq!(bundles.lacks(&kept).unwrap().unwrap().0, name);
        let others = (0..4).filter(|other| *other != number).map(|other| chunk_name(ID, other));
        for from in others.chain([chunk_name(other, number)]) {
            memory.replace(&name, memory.read(&from, None).unwrap()).unwrap();
            fails(&from);
        }
        for length in [0, 1, 31, 32, whole.len() - 1] {
            memory.replace(&name, whole.slice(..length)).unwrap();
            fails("cut off");
            assert!(bundles.lacks(&kept).unwrap().is_some());
        }
        memory.replace(&name, whole).unwrap();
    }
    assert_eq!(bundles.lacks(&kept).unwrap(), None);
    assert_eq!(fetch(&bundles, &kept).unwrap(), bytes);
    // The description of another bundle, and none.
    memory.replace(&about_name(ID), memory.read(&about_name(other), None).unwrap()).unwrap();
    assert!(bundles.list().unwrap().damaged[0].contains(&about_name(ID)));
    memory.delete(&about_name(ID)).unwrap();
    assert!(bundles.list().unwrap().unfinished.contains(&ID));
}

#[test]
fn a_file_that_ends_early_is_not_stored() {
    let (_, bundles) = empty();
    let mut storing = bundles.begin(ID, 1000, 300);
    let mut from = &[0; 500][..];
    assert!(storing.next(&mut from, &salt(ID, 0)).unwrap());
    assert!(matches!(storing.next(&mut from, &salt(ID, 1)), Err(BundleError::File(_))));
    assert!(storing.finish(label("x"), &salt(ID, 2)).is_err());
    assert!(bundles.list().unwrap().bundles.is_empty());
}

/// With none of the vault's code.
#[test]
fn the_objects_are_what_the_document_says() {
    let (memory, bundles) = empty();
    let bytes = [&[0; 900][..], &blake3::hash(b"noise").as_bytes()[..]].concat();
    store(&bundles, ID, &bytes, 900);
    let mut read = Vec::new();
    let digits = "05".repeat(16);
    for number in 0..2_u32 {
        let object = memory.read(&format!("bundles/{digits}/{number:08x}"), None).unwrap();
        assert_eq!(object[..10], *b"EVHBUN\r\n\x01\x00");
        let flags = object[10];
        assert_eq!(flags, [2, 1][number as usize], "the first is compressed, the second the last");
        assert_eq!(object[11..16], [0; 5]);
        let aad = [&[5; 16][..], &number.to_le_bytes(), &object[..16]].concat();
        let key = purpose(&DATA_KEY, "everhold vault 1: bundle chunks");
        let text = open(&key, &object[16..32], 0, &aad, &object[32..]).unwrap();
        read.extend(if flags & 2 != 0 { zstd::decode_all(&text[..]).unwrap() } else { text });
    }
    assert_eq!(read, bytes);
    let name = format!("bundles/{digits}/about");
    let about = memory.read(&name, None).unwrap();
    let key = purpose(&DATA_KEY, "everhold vault 1: objects");
    let text = open(&key, &about[10..26], 0, name.as_bytes(), &about[26..]).unwrap();
    let about: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let size = |number: u32| memory.size(&chunk_name(ID, number)).unwrap().unwrap();
    let expected = serde_json::json!({
        "name": "web-1", "instant": 1, "stored": 2, "containers": ["web"], "size": 932, "chunk": 900,
        "hash": blake3::hash(&bytes).to_hex().as_str(), "chunks": [size(0), size(1)],
    });
    assert_eq!(about, expected);
}
