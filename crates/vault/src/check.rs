//! Whether all of a vault is there (against its inventories), and, if asked, whether all of it can be read.
//!
//! Nothing is written. What is found wrong is in the report; an error is only what keeps the check from being made.

mod bundles;

use crate::claim::Writer;
use crate::descriptor::{DESCRIPTOR, Descriptor, VaultError};
use crate::format::{
    BLOCK, Content, DATA_AT, EraName, FormatError, Keys, PartName, StreamId, check_whole, open_object,
};
use crate::inventory::{self, CutAt, Found, Inventory, Wrong};
use crate::keys::{self, DataKey, VaultId};
use crate::read::{Access, ReadResult};
use crate::store::{Object, Store, StoreError};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Something that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// What is wrong with it, in words.
    pub wrong: String,
    /// What that means, in words.
    pub means: String,
    /// The cuts that can't be restored without it: from the first to the last, with their times in milliseconds since 1970.
    pub cuts: Option<(CutAt, CutAt)>,
}

/// What was found in one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// What is missing or damaged.
    pub findings: Vec<Finding>,
    /// What is no loss, and worth knowing.
    pub notes: Vec<String>,
    /// The cuts that can be restored as far as is known.
    pub left: Vec<CutAt>,
    /// Those that should be there and can't be restored.
    pub lost: Vec<CutAt>,
    /// Bytes that were read and found to be as they were written.
    pub read: u64,
}

/// What was found in a vault.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Whether all was read, and not only listed.
    pub deep: bool,
    /// What is missing or damaged outside of streams.
    pub findings: Vec<Finding>,
    /// What is no loss, and worth knowing.
    pub notes: Vec<String>,
    /// The streams, with what they are of if that can be read.
    pub streams: Vec<(StreamId, Option<serde_json::Value>, StreamReport)>,
    /// Objects in the vault.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were read and found to be as they were written.
    pub read: u64,
}

impl Report {
    /// Everything that is missing or damaged.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(self.streams.iter().flat_map(|(_, _, stream)| &stream.findings))
    }
}

/// How often it is looked again, when what is listed changes meanwhile.
const LOOKS: usize = 6;
/// After so many objects in a row that can't be read, it is not the objects.
const IN_A_ROW: usize = 4;

/// What reading objects one by one has told.
#[derive(Default)]
struct Reading {
    damaged: BTreeMap<String, String>,
    read: u64,
    failed: usize,
}

impl Reading {
    /// Reads an object and hands it to `look`, which says what is wrong with it.
    fn one(
        &mut self,
        store: &dyn Store,
        name: &str,
        look: impl FnOnce(&[u8]) -> Result<(), String>,
    ) -> ReadResult<()> {
        match store.read(name, None) {
            Ok(body) => {
                self.failed = 0;
                match look(&body) {
                    Ok(()) => self.read += body.len() as u64,
                    Err(why) => drop(self.damaged.insert(name.to_owned(), why)),
                }
                Ok(())
            }
            // Deleted since it was listed; if it should be there, the listing that follows tells.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error @ StoreError::Failed { .. }) if self.failed + 1 < IN_A_ROW => {
                self.failed += 1;
                self.damaged.insert(name.to_owned(), error.to_string());
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn words(error: FormatError) -> String {
    error.to_string()
}

/// Opens every block of a part, and compares all hashes.
fn look_at_part(access: &Access, name: &PartName, body: &[u8]) -> Result<(), String> {
    let (_, table) = check_whole(&access.keys, &access.vault, name, body).map_err(words)?;
    let (mut at, mut content, mut unsealer) = (DATA_AT as usize, [0; BLOCK], access.unsealer());
    for entry in table.entries.iter().filter(|entry| matches!(entry.content, Content::Data { .. })) {
        let end = at + entry.sealed_len() as usize;
        let sealed = body.get(at..end).ok_or("a block in it is cut off")?;
        unsealer
            .open(entry.block, entry, sealed, &mut content)
            .map_err(|_| format!("block {} is not what its table says", entry.block))?;
        at = end;
    }
    Ok(())
}

fn look_at(access: &Access, name: &str, body: &[u8]) -> Result<(), String> {
    let dir = format!("h/{}/", access.stream);
    if let Ok(part) = name.parse::<PartName>() {
        return look_at_part(access, &part, body);
    }
    if name.parse::<EraName>().is_ok() {
        return if body == b"era\n" { Ok(()) } else { Err("it says something else".to_owned()) };
    }
    if inventory::epoch_of(&dir, name).is_some() {
        return Inventory::open(&access.keys, name, body).map(drop).map_err(words);
    }
    let text = open_object(&access.keys, name, body).map_err(words)?;
    let fits = match name[dir.len()..].split('/').next() {
        Some("n") => serde_json::from_slice::<crate::stream::Snapshot>(&text).is_ok(),
        Some("d") => serde_json::from_slice::<crate::stream::Condemned>(&text).is_ok(),
        _ => serde_json::from_slice::<serde_json::Value>(&text).is_ok(),
    };
    if fits { Ok(()) } else { Err("its text makes no sense".to_owned()) }
}

/// Objects of a kind that this version has.
fn is_known(dir: &str, name: &str) -> bool {
    let short = &name[dir.len()..];
    name.parse::<PartName>().is_ok()
        || name.parse::<EraName>().is_ok()
        || inventory::epoch_of(dir, name).is_some()
        || short == "about"
        || short.strip_prefix("n/").or_else(|| short.strip_prefix("d/")).is_some_and(|id| !id.contains('/'))
}

/// Checks one stream; `must_have` says that there must be an inventory, `durable` is the newest point that its writer knows
/// to be in the vault.
///
/// # Errors
/// When the store fails.
pub fn stream(access: &Access, deep: bool, must_have: bool, durable: u64) -> ReadResult<StreamReport> {
    let dir = format!("h/{}/", access.stream);
    let mut reading = Reading::default();
    if deep {
        for Object { name, .. } in access.store.list(&dir)? {
            if is_known(&dir, &name) {
                reading.one(&*access.store, &name, |body| look_at(access, &name, body))?;
            }
        }
    }
    let mut before: Option<Option<Found>> = None;
    for look in 1.. {
        let objects = access.store.list(&dir)?;
        let found = inventory::find(&*access.store, &access.keys, &dir, &objects)?;
        let report = compare(access, &objects, found.as_ref(), &reading, must_have, durable)?;
        // What is deleted leaves the inventory first: if that is the same before and after the listing, what the listing
        // lacks is lost.
        if report.findings.is_empty() || before.as_ref() == Some(&found) || look == LOOKS {
            return Ok(report);
        }
        before = Some(found);
    }
    Ok(StreamReport::default())
}

fn compare(
    access: &Access,
    objects: &[Object],
    found: Option<&Found>,
    reading: &Reading,
    must_have: bool,
    durable: u64,
) -> ReadResult<StreamReport> {
    let (stream, dir) = (access.stream, format!("h/{}/", access.stream));
    let mut report = StreamReport { read: reading.read, ..StreamReport::default() };
    let state = access.state_of(objects)?;
    let condemned: BTreeSet<String> =
        state.condemned.iter().flat_map(|(_, list)| list.names.iter().cloned()).collect();
    let there: BTreeSet<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    let mut wrong: BTreeMap<String, Wrong> = BTreeMap::new();
    let mut what: BTreeMap<String, String> = BTreeMap::new();
    let mut all: Vec<Object> = objects.to_vec();
    match found.map(|found| (found, &found.inventory)) {
        Some((found, Err(why))) => {
            wrong.insert(found.object.clone(), Wrong::Damaged(why.to_string()));
        }
        Some((_, Ok(inventory))) => {
            wrong = inventory::compare(&dir, inventory, objects, |name| condemned.contains(name));
            for listed in &inventory.objects {
                let name = format!("{dir}{}", listed.name);
                if let Some(words) = &listed.what {
                    what.insert(name.clone(), words.clone());
                }
                if wrong.get(&name) == Some(&Wrong::Missing) {
                    all.push(Object { name, size: listed.size.unwrap_or(0) });
                }
            }
        }
        None if must_have => {
            wrong.insert(inventory::object(&dir, 0), Wrong::Missing);
        }
        None => report.notes.push(format!(
            "{dir}: it has no inventory yet, so an object that is missing in it would not be noticed"
        )),
    }
    let small = state.damaged.iter().filter_map(|words| words.split_once(": "));
    let read = reading.damaged.iter().map(|(name, why)| (name.as_str(), why.as_str()));
    for (name, why) in small.chain(read).filter(|(name, _)| there.contains(name)) {
        wrong.entry(name.to_owned()).or_insert_with(|| Wrong::Damaged(why.to_owned()));
    }
    let bad: BTreeSet<String> = wrong.keys().cloned().collect();
    let lost = inventory::lost(stream, &all, &bad, &condemned);
    let counted: BTreeSet<String> = crate::Listing::read(&all)
        .segments
        .iter()
        .flat_map(|segment| segment.part_names(stream).map(|name| name.to_string()))
        .filter(|name| !condemned.contains(name))
        .collect();
    for (name, wrong) in wrong {
        let cuts = match lost.by_object.get(&name) {
            Some(cuts) => cuts.clone(),
            None if name.parse::<PartName>().is_ok() => lost.lost.clone(),
            None => Vec::new(),
        };
        let means = meaning(&dir, &name, &cuts, counted.contains(&name), what.get(&name));
        let cuts = cuts.first().copied().zip(cuts.last().copied());
        report.findings.push(Finding { object: name, wrong: wrong.to_string(), means, cuts });
    }
    // What is newer than the inventory: it must lead on without a gap, and as far as its writer knows.
    let newest = state.newest();
    let expected = newest.max(durable);
    if report.findings.is_empty() && crate::chain::chain(&state.listing.segments, 0, expected).is_none() {
        report.findings.push(Finding {
            object: format!("{dir}s/"),
            wrong: crate::chain::missing(&state.listing.segments, expected),
            means: format!("point {expected} was in the vault, and can't be restored any more"),
            cuts: None,
        });
    }
    (report.lost, report.left) = (lost.lost, lost.left);
    Ok(report)
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms after 1970"), |time| format!("{time:.3}"))
}

/// Cuts in words: which, and of when.
pub fn range(cuts: &[CutAt]) -> String {
    match (cuts.first(), cuts.last()) {
        (Some((one, at)), Some((other, _))) if one == other => format!("cut {one} ({})", time(*at)),
        (Some((first, from)), Some((last, to))) => {
            format!("{} cuts from {first} ({}) to {last} ({})", cuts.len(), time(*from), time(*to))
        }
        _ => "no cut".to_owned(),
    }
}

fn meaning(dir: &str, name: &str, cuts: &[CutAt], counted: bool, what: Option<&String>) -> String {
    if name.parse::<PartName>().is_ok() {
        return match (cuts.is_empty(), counted) {
            (false, _) => format!("{} can't be restored; all others can", range(cuts)),
            (true, true) => "every cut can be restored without it".to_owned(),
            (true, false) => "no cut needs it: it is of no segment that counts".to_owned(),
        };
    }
    let all = "; every cut can be restored";
    if let Ok(era) = name.parse::<EraName>() {
        return format!(
            "segments of writers before epoch {} that end after point {} count again, though they should not",
            era.epoch, era.after
        );
    }
    if inventory::epoch_of(dir, name).is_some() {
        return format!(
            "whether anything else is missing can't be told until its writer has made a new one{all}"
        );
    }
    match name[dir.len()..].split('/').next() {
        Some("n") => {
            let which = what.map_or(String::new(), |what| format!(" {what}"));
            format!("the name of a snapshot{which} is gone: retention may remove its cut{all}")
        }
        Some("d") => format!("objects that were to be deleted stay{all}"),
        Some("about") => format!("whose history it is can't be told from the vault alone{all}"),
        _ => "it is of no known kind".to_owned(),
    }
}

/// Checks a whole vault. `durable` says of a stream which point its writer knows to be in the vault.
///
/// # Errors
/// When the store fails.
pub fn vault(
    store: &Arc<dyn Store>,
    id: VaultId,
    key: &DataKey,
    deep: bool,
    durable: &dyn Fn(StreamId) -> u64,
) -> Result<Report, VaultError> {
    let keys = Keys::new(key.expose());
    let mut report = Report { deep, ..Report::default() };
    let (mut before, mut must_have) = (None, BTreeSet::new());
    let mut streams = BTreeSet::new();
    for look in 1..=LOOKS {
        let objects = store.list("")?;
        let found = inventory::find(&**store, &keys, "", &objects)?;
        let (mut findings, mut notes, mut read) =
            top(&**store, id, key, &keys, &objects, found.as_ref(), deep)?;
        let kept = bundles::look(&**store, &keys, &objects, deep)?;
        findings.extend(kept.findings);
        notes.extend(kept.notes);
        read += kept.read;
        report.objects = objects.len() as u64;
        report.bytes = objects.iter().map(|object| object.size).sum();
        streams = objects
            .iter()
            .filter_map(|o| o.name.strip_prefix("h/")?.split('/').next()?.parse::<StreamId>().ok())
            .collect();
        if let Some(Found { inventory: Ok(inventory), .. }) = &found {
            must_have = inventory.streams.iter().filter_map(|id| id.parse::<StreamId>().ok()).collect();
        }
        let done = findings.is_empty() || before.as_ref() == Some(&found) || look == LOOKS;
        (report.findings, report.notes, report.read) = (findings, notes, read);
        before = Some(found);
        if done {
            break;
        }
    }
    streams.extend(&must_have);
    for id_of in streams {
        let access = Access { store: Arc::clone(store), keys: keys.clone(), vault: id.0, stream: id_of };
        let checked = stream(&access, deep, must_have.contains(&id_of), durable(id_of))?;
        report.read += checked.read;
        report.streams.push((id_of, access.about().ok(), checked));
    }
    Ok(report)
}

/// What is not in a stream.
fn top(
    store: &dyn Store,
    id: VaultId,
    key: &DataKey,
    keys: &Keys,
    objects: &[Object],
    found: Option<&Found>,
    deep: bool,
) -> ReadResult<(Vec<Finding>, Vec<String>, u64)> {
    let (mut wrong, mut notes, mut reading) = (BTreeMap::new(), Vec::new(), Reading::default());
    let mut what: BTreeMap<String, String> = BTreeMap::new();
    let mut hashes: BTreeMap<String, String> = BTreeMap::new();
    match found.map(|found| (found, &found.inventory)) {
        None => drop(wrong.insert(inventory::object("", 0), Wrong::Missing)),
        Some((found, Err(why))) => {
            wrong.insert(found.object.clone(), Wrong::Damaged(why.to_string()));
        }
        Some((found, Ok(inventory))) => {
            // A claim that is newer than the inventory removes old ones.
            let newer = objects.iter().any(|object| epoch_of_claim(&object.name) > Some(found.epoch));
            wrong = inventory::compare("", inventory, objects, |name| newer && name.starts_with("w/"));
            for listed in &inventory.objects {
                what.extend(listed.what.clone().map(|what| (listed.name.clone(), what)));
                hashes.extend(listed.hash.clone().map(|hash| (listed.name.clone(), hash)));
            }
        }
    }
    for Object { name, .. } in objects.iter().filter(|object| !object.name.starts_with("h/")) {
        let look = |body: &[u8]| match hashes.get(name) {
            Some(hash) if *hash == keys.plain(name, body) => Ok(()),
            Some(_) => Err("it is not what was put there".to_owned()),
            None if name.starts_with("k/") => keys::look_at_slot(body),
            None if name.starts_with("w/") => {
                serde_json::from_slice::<Writer>(body).map(drop).map_err(|error| error.to_string())
            }
            None => Ok(()),
        };
        if name == DESCRIPTOR {
            let check = |body: &[u8]| {
                let descriptor = Descriptor::decode(store.url(), body).map_err(|error| error.to_string())?;
                if descriptor.id != id {
                    return Err(format!("it is that of another vault, {}", descriptor.id));
                }
                descriptor.check(store.url(), key).map_err(|error| error.to_string())
            };
            reading.one(store, name, check)?;
        } else if name.starts_with("k/") || name.starts_with("w/") {
            // They are small and have no seal, so they are always read.
            reading.one(store, name, look)?;
        } else if inventory::epoch_of("", name).is_some() {
            if deep {
                reading
                    .one(store, name, |body| Inventory::open(keys, name, body).map(drop).map_err(words))?;
            }
        } else if !name.starts_with("probe/") && crate::bundles::parse(name).is_none() {
            notes.push(format!("{name}: not of this version of the format; it was passed over"));
        }
    }
    for (name, why) in reading.damaged {
        wrong.entry(name).or_insert(Wrong::Damaged(why));
    }
    if !objects.iter().any(|object| object.name == DESCRIPTOR) {
        wrong.insert(DESCRIPTOR.to_owned(), Wrong::Missing);
    }
    let finding = |(object, wrong): (String, Wrong)| {
        let means = top_meaning(&object, what.get(&object));
        Finding { wrong: wrong.to_string(), means, object, cuts: None }
    };
    Ok((wrong.into_iter().map(finding).collect(), notes, reading.read))
}

fn epoch_of_claim(name: &str) -> Option<u32> {
    u32::from_str_radix(name.strip_prefix("w/")?, 16).ok()
}

fn top_meaning(name: &str, what: Option<&String>) -> String {
    let which = what.map_or(String::new(), |what| format!(" ({what})"));
    let all = "; every cut can be restored by who has the data key";
    match name.split('/').next() {
        Some("k") => format!("that key slot{which} does not open the vault any more{all}"),
        Some("w") => format!("that a writer{which} claimed the vault can't be told from it any more{all}"),
        Some("bundles") => format!("the bundle{which} can't be restored any more; all others can"),
        Some("i") => {
            format!(
                "whether a stream or a key slot is missing can't be told until the writer has made a new one{all}"
            )
        }
        _ => format!("the vault can't be opened by those who do not know it yet{all}"),
    }
}
