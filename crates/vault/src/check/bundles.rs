//! Whether all chunks of all bundles are there and, if asked, whether they can be read.

use super::{Finding, Reading, words};
use crate::bundles::{Description, about_name, chunk_name, grouped};
use crate::format::{BundleId, Keys, open_chunk};
use crate::inventory::Wrong;
use crate::read::ReadResult;
use crate::store::{Object, Store};
use std::collections::BTreeMap;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
    pub(super) read: u64,
}

pub(super) fn look(store: &dyn Store, keys: &Keys, objects: &[Object], deep: bool) -> ReadResult<Found> {
    let mut found = Found::default();
    for (id, (described, chunks)) in grouped(objects) {
        if described {
            one(store, keys, id, &chunks, deep, &mut found)?;
        } else {
            found.notes.push(format!(
                "bundles/{id}/: {} chunks of a bundle that was not stored to the end, or is being stored; the next one that is \
                 stored clears them away",
                chunks.len()
            ));
        }
    }
    Ok(found)
}

fn one(
    store: &dyn Store,
    keys: &Keys,
    id: BundleId,
    chunks: &BTreeMap<u32, u64>,
    deep: bool,
    found: &mut Found,
) -> ReadResult<()> {
    let (mut reading, mut about) = (Reading::default(), None);
    reading.one(store, &about_name(id), |object| {
        about = Some(Description::open(keys, id, object).map_err(words)?);
        Ok(())
    })?;
    let mut wrong: BTreeMap<String, Wrong> = BTreeMap::new();
    let mut name = "of which the name is lost".to_owned();
    if let Some(about) = &about {
        name.clone_from(&about.label.name);
        let lacks = about.compare(chunks);
        let whole = lacks.is_empty();
        let mut hasher = blake3::Hasher::new();
        for number in (0..about.chunks.len() as u32).filter(|number| deep && !lacks.contains_key(number)) {
            reading.one(store, &chunk_name(id, number), |object| {
                let (chunk, length) = about.place(id, number);
                hasher.update(&open_chunk(keys, &chunk, length, object).map_err(words)?);
                Ok(())
            })?;
        }
        if deep && whole && reading.damaged.is_empty() && hasher.finalize().to_hex().as_str() != about.hash {
            let why = "its chunks are not those of the bundle that it describes".to_owned();
            wrong.insert(about_name(id), Wrong::Damaged(why));
        }
        wrong.extend(lacks.into_iter().map(|(number, wrong)| (chunk_name(id, number), wrong)));
    }
    wrong.extend(reading.damaged.into_iter().map(|(object, why)| (object, Wrong::Damaged(why))));
    found.read += reading.read;
    let means = format!("the bundle {name} can't be restored; all others can");
    found.findings.extend(wrong.into_iter().map(|(object, wrong)| Finding {
        object,
        wrong: wrong.to_string(),
        means: means.clone(),
        cuts: None,
    }));
    Ok(())
}
