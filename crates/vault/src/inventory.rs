//! Inventories: what must be in a vault, so that a listing that lacks something is told from one that never had it.
//!
//! There is one for each stream (`h/STREAM/i/EPOCH`) and one for what is not in a stream (`i/EPOCH`). Each is replaced in place by
//! the writer of its epoch only; the highest epoch counts, and its writer removes those of older ones. More objects than an
//! inventory lists are fine: they are newer. What is to be deleted leaves the inventory first, so that whoever reads the
//! inventory before and after a listing, and finds it unchanged, can take what the listing lacks for lost.

use crate::bundles::{self, BUNDLES, Description};
use crate::claim::Writer;
use crate::descriptor::DESCRIPTOR;
use crate::format::{FormatError, Keys, PartName, Salt, StreamId, open_object, seal_object};
use crate::keys::{self, VaultId};
use crate::read::{Access, ReadError, ReadResult};
use crate::store::{Object, Store};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// An inventory's text is never longer; a reader takes no more.
const MOST: u64 = 256 << 20;

/// One object that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name below what the inventory is of.
    pub name: String,
    /// Its size in bytes, if that stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The hash of its bytes as [`Keys::plain`] has it, for what has no seal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// What it is, for people, where the name does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
}

impl Listed {
    /// An object of that name and size.
    pub fn new(name: impl Into<String>, size: u64) -> Self {
        Self { name: name.into(), size: Some(size), hash: None, what: None }
    }
}

/// What must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Since when, in milliseconds since 1970.
    pub at: u64,
    /// The objects, by name.
    pub objects: Vec<Listed>,
    /// The streams that must have an inventory of their own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub streams: BTreeSet<String>,
}

/// An inventory that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its object.
    pub object: String,
    /// Its writer's epoch.
    pub epoch: u32,
    /// What it says, if it is whole.
    pub inventory: Result<Inventory, FormatError>,
}

impl Inventory {
    /// The same objects and streams, whenever they were listed.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.objects, &self.streams) == (&other.objects, &other.streams)
    }

    /// The sealed object of this name.
    ///
    /// # Errors
    /// When it can't be written as text.
    pub fn seal(&self, keys: &Keys, salt: &Salt, name: &str) -> Result<Bytes, FormatError> {
        let text = serde_json::to_vec(self).map_err(|_| FormatError::Damaged("it can't be written"))?;
        let packed =
            zstd::bulk::compress(&text, 3).map_err(|_| FormatError::Damaged("it can't be compressed"))?;
        Ok(seal_object(keys, salt, name, &packed).into())
    }

    /// Opens the sealed object of this name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(keys: &Keys, name: &str, object: &[u8]) -> Result<Self, FormatError> {
        const NO_SENSE: FormatError = FormatError::Damaged("its text makes no sense");
        let packed = open_object(keys, name, object)?;
        let mut text = Vec::new();
        let reader = zstd::stream::read::Decoder::new(&packed[..]).map_err(|_| NO_SENSE)?;
        reader.take(MOST + 1).read_to_end(&mut text).map_err(|_| NO_SENSE)?;
        if text.len() as u64 > MOST {
            return Err(FormatError::Damaged("it is too long"));
        }
        serde_json::from_slice(&text).map_err(|_| NO_SENSE)
    }
}

/// The epoch of an inventory in `dir`, which is empty or ends with a slash.
pub fn epoch_of(dir: &str, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(dir)?.strip_prefix("i/")?;
    let epoch = u32::from_str_radix(digits, 16).ok()?;
    (object(dir, epoch) == name).then_some(epoch)
}

/// The name of the inventory of `dir` of an epoch.
pub fn object(dir: &str, epoch: u32) -> String {
    format!("{dir}i/{epoch:08x}")
}

/// The inventory that counts among these objects. `None`: there is none; or it was removed since they were listed.
///
/// # Errors
/// When the store fails.
pub fn find(store: &dyn Store, keys: &Keys, dir: &str, objects: &[Object]) -> ReadResult<Option<Found>> {
    let newest = objects.iter().filter_map(|o| Some((epoch_of(dir, &o.name)?, o))).max_by_key(|(e, _)| *e);
    let Some((epoch, object)) = newest else { return Ok(None) };
    match store.read(&object.name, None) {
        Ok(body) => {
            let inventory = Inventory::open(keys, &object.name, &body);
            Ok(Some(Found { object: object.name.clone(), epoch, inventory }))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Puts an inventory in place of its writer's last one, and removes those of older writers.
fn put(
    store: &dyn Store,
    keys: &Keys,
    dir: &str,
    epoch: u32,
    inventory: &Inventory,
    there: &[Object],
    salt: Salt,
) -> ReadResult<()> {
    let name = object(dir, epoch);
    let body =
        inventory.seal(keys, &salt, &name).map_err(|why| ReadError::Bad { object: name.clone(), why })?;
    store.replace(&name, body)?;
    for old in there.iter().filter(|object| epoch_of(dir, &object.name).is_some_and(|old| old < epoch)) {
        store.delete(&old.name)?;
    }
    Ok(())
}

/// Writes the inventory of `dir` if it would say something else than the one that is there. `false`: it stays as it is,
/// also since a newer writer has one.
fn renew(
    store: &dyn Store,
    keys: &Keys,
    dir: &str,
    epoch: u32,
    salt: Salt,
    make: impl FnOnce(Option<(u32, &Inventory)>) -> ReadResult<Option<Inventory>>,
) -> ReadResult<bool> {
    let there = store.list(&format!("{dir}i/"))?;
    let found = find(store, keys, dir, &there)?;
    if found.as_ref().is_some_and(|found| found.epoch > epoch) {
        return Ok(false);
    }
    let before = found.as_ref().and_then(|found| Some((found.epoch, found.inventory.as_ref().ok()?)));
    let Some(inventory) = make(before)? else { return Ok(false) };
    let same = before.is_some_and(|(_, before)| before.says_the_same(&inventory));
    if same && found.is_some_and(|found| found.epoch == epoch) {
        return Ok(false);
    }
    put(store, keys, dir, epoch, &inventory, &there, salt)?;
    Ok(true)
}

impl Access {
    /// Says what must be in the stream from now on: `objects` (full names, with sizes if these stay), its snapshots, which
    /// are looked up, and what had to be there until now and is not `gone` on purpose: what is lost stays listed. Whoever
    /// unnames cuts at the same time must be kept out.
    ///
    /// # Errors
    /// When the store fails; the inventory is the old or the new one.
    pub fn keep_inventory(
        &self,
        epoch: u32,
        at: u64,
        objects: &BTreeMap<String, Option<u64>>,
        gone: &dyn Fn(&str) -> bool,
        salt: Salt,
    ) -> ReadResult<bool> {
        let dir = format!("h/{}/", self.stream);
        let snapshots = self.store.list(&format!("{dir}n/"))?;
        renew(&*self.store, &self.keys, &dir, epoch, salt, |before| {
            let short = |name: &str| name.strip_prefix(&dir).unwrap_or(name).to_owned();
            let listed = |(name, size): (&String, &Option<u64>)| Listed {
                name: short(name),
                size: *size,
                hash: None,
                what: None,
            };
            let mut all: Vec<Listed> = objects.iter().map(listed).collect();
            let before = before.map_or(&[][..], |(_, before)| &before.objects);
            all.extend(before.iter().filter(|old| !gone(&format!("{dir}{}", old.name))).cloned());
            for Object { name, size } in &snapshots {
                if !all.iter().any(|old| old.name == short(name)) {
                    let what = self.snapshot(name).ok().map(|s| format!("{} of cut {}", s.name, s.point));
                    all.push(Listed { what, ..Listed::new(short(name), *size) });
                }
            }
            Ok(Some(Inventory { at, objects: by_name(all, before), streams: BTreeSet::new() }))
        })
    }

    /// Takes these objects (full names) out of the inventory, since they are about to be deleted.
    ///
    /// # Errors
    /// When the store fails; nothing must be deleted then.
    pub fn leave_inventory(&self, epoch: u32, at: u64, names: &[String], salt: Salt) -> ReadResult<bool> {
        let dir = format!("h/{}/", self.stream);
        renew(&*self.store, &self.keys, &dir, epoch, salt, |before| {
            let Some((_, before)) = before else { return Ok(None) };
            let mut after = Inventory { at, ..before.clone() };
            after.objects.retain(|old| !names.iter().any(|name| *name == format!("{dir}{}", old.name)));
            Ok(Some(after))
        })
    }
}

/// Each name once, as it was listed before if it was.
fn by_name(all: Vec<Listed>, before: &[Listed]) -> Vec<Listed> {
    let mut names: BTreeMap<String, Listed> = BTreeMap::new();
    for listed in all {
        names.entry(listed.name.clone()).or_insert(listed);
    }
    for old in before {
        if let Some(listed) = names.get_mut(&old.name) {
            *listed = old.clone();
        }
    }
    names.into_values().collect()
}

/// Says what must be in the vault besides its streams and the chunks of bundles, which their descriptions list: all that is there now or had to be but `leaving`, and these
/// streams. Claims that are not there were removed by a newer one, if the epoch is a new one.
///
/// # Errors
/// When the store fails; the inventory is the old or the new one.
#[expect(clippy::too_many_arguments, reason = "each is another thing to say")]
pub fn keep_vault_inventory(
    store: &dyn Store,
    keys: &Keys,
    vault: VaultId,
    epoch: u32,
    at: u64,
    streams: &[StreamId],
    leaving: &[String],
    salt: Salt,
) -> ReadResult<bool> {
    let mut objects = Vec::new();
    for prefix in ["k/", "w/"] {
        for Object { name, .. } in store.list(prefix)? {
            if leaving.contains(&name) {
                continue;
            }
            let body = match store.read(&name, None) {
                Err(error) if error.is_not_found() => continue,
                other => other?,
            };
            let what = if prefix == "k/" {
                match keys::head(&body) {
                    // One of a creation that another one overtook.
                    Some((of, _)) if of != vault => continue,
                    head => head.map(|(_, label)| label),
                }
            } else {
                serde_json::from_slice::<Writer>(&body).ok().map(|writer| writer.host)
            };
            objects.push(plain(keys, name, &body, what));
        }
    }
    objects.push(plain(keys, DESCRIPTOR.to_owned(), &store.read(DESCRIPTOR, None)?, None));
    let descriptions = store.list(BUNDLES)?;
    renew(store, keys, "", epoch, salt, |before| {
        let mut all = before.map(|(_, before)| before.streams.clone()).unwrap_or_default();
        all.extend(streams.iter().map(ToString::to_string));
        let (old_epoch, old) = before.map_or((epoch, &[][..]), |(old, before)| (old, &before.objects));
        for Object { name, size } in &descriptions {
            let Some((id, None)) = bundles::parse(name) else { continue };
            // What a description says never changes, so it is read once.
            if leaving.contains(name) || old.iter().any(|old| old.name == *name) {
                continue;
            }
            let about = match store.read(name, None) {
                Err(error) if error.is_not_found() => continue,
                other => Description::open(keys, id, &other?).ok(),
            };
            let what = about.map(|about| about.label.name);
            objects.push(Listed { what, ..Listed::new(name.clone(), *size) });
        }
        let gone = |name: &String| leaving.contains(name) || (old_epoch < epoch && name.starts_with("w/"));
        objects.extend(old.iter().filter(|old| !gone(&old.name)).cloned());
        Ok(Some(Inventory { at, objects: by_name(objects, old), streams: all }))
    })
}

fn plain(keys: &Keys, name: String, body: &[u8], what: Option<String>) -> Listed {
    Listed { hash: Some(keys.plain(&name, body)), what, ..Listed::new(name, body.len() as u64) }
}

/// Why an object that is listed can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is not there.
    Missing,
    /// It has another size.
    Size {
        /// What it should have.
        listed: u64,
        /// What it has.
        found: u64,
    },
    /// It is there and not what it should be.
    Damaged(String),
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Size { listed, found } => write!(f, "has {found} bytes and should have {listed}"),
            Self::Damaged(why) => write!(f, "is damaged: {why}"),
        }
    }
}

/// Which listed objects are not there as they should be, by full name. `gone` are those whose absence is in order.
pub fn compare(
    dir: &str,
    inventory: &Inventory,
    objects: &[Object],
    gone: impl Fn(&str) -> bool,
) -> BTreeMap<String, Wrong> {
    let there: BTreeMap<&str, u64> = objects.iter().map(|o| (o.name.as_str(), o.size)).collect();
    let mut wrong = BTreeMap::new();
    for listed in &inventory.objects {
        let name = format!("{dir}{}", listed.name);
        match (there.get(name.as_str()), listed.size) {
            (None, _) if gone(&name) => {}
            (None, _) => {
                wrong.insert(name, Wrong::Missing);
            }
            (Some(found), Some(size)) if *found != size => {
                wrong.insert(name, Wrong::Size { listed: size, found: *found });
            }
            _ => {}
        }
    }
    wrong
}

/// A cut: its point and its time in milliseconds since 1970.
pub type CutAt = (u64, u64);

/// What it means that objects of a stream can't be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// The cuts that can't be restored any more, ascending.
    pub lost: Vec<CutAt>,
    /// Those that can.
    pub left: Vec<CutAt>,
    /// For each part that can't be used, the cuts that need it.
    pub by_object: BTreeMap<String, Vec<CutAt>>,
}

/// What is lost with these objects, given all that is there or should be (with the bad ones, without what is condemned).
pub fn lost(stream: StreamId, all: &[Object], bad: &BTreeSet<String>, condemned: &BTreeSet<String>) -> Lost {
    let cuts = |without: &dyn Fn(&str) -> bool| {
        let objects: Vec<Object> = all.iter().filter(|o| !without(&o.name)).cloned().collect();
        let mut listing = crate::Listing::read(&objects);
        listing.segments.retain(|s| s.part_names(stream).all(|name| !condemned.contains(&name.to_string())));
        let reach = crate::chain::reachable(&listing.segments);
        let mut cuts = listing.cuts();
        cuts.retain(|(point, _)| reach.contains(point));
        cuts
    };
    let whole = cuts(&|_| false);
    let left = cuts(&|name| bad.contains(name));
    let minus = |some: &[CutAt]| -> Vec<CutAt> {
        let some: BTreeSet<&CutAt> = some.iter().collect();
        whole.iter().filter(|cut| !some.contains(cut)).copied().collect()
    };
    let mut by_object = BTreeMap::new();
    // Each costs a look at the whole listing.
    for object in bad.iter().filter(|name| name.parse::<PartName>().is_ok()).take(MOST_SINGLY) {
        by_object.insert(object.clone(), minus(&cuts(&|name| name == object)));
    }
    Lost { lost: minus(&left), left, by_object }
}

/// Of how many objects it is said what each alone means.
const MOST_SINGLY: usize = 100;
