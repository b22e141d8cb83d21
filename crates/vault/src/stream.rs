//! One stream: what is in it, and what is done to it.
//!
//! What reads here sees a listing and picks from it; what writes adds objects and, later and in two phases, deletes them.
//! Nothing is ever changed in place.

use crate::format::{
    BuiltPart, EraName, Kind, PartBuilder, PartName, Salt, Sealed, StreamId, open_object, seal_object,
};
use crate::read::{Access, Merged, ReadError, ReadResult, fetch};
use crate::segment::{Listing, Segment};
use crate::store::{Created, Object, Store, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A named cut, which retention never removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// The point.
    pub point: u64,
    /// When the point was, in milliseconds since 1970.
    pub time: u64,
    /// When it was named, in milliseconds since 1970.
    pub created: u64,
}

/// Objects that are to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned {
    /// Their names.
    pub names: Vec<String>,
    /// Since when, in milliseconds since 1970.
    pub at: u64,
}

/// All that is in a stream.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Its segments, without those that are condemned.
    pub listing: Listing,
    /// Its named cuts.
    pub snapshots: Vec<Snapshot>,
    /// What is to be deleted, with the name of the list.
    pub condemned: Vec<(String, Condemned)>,
    /// Objects that could not be read, and why.
    pub damaged: Vec<String>,
}

impl Access {
    fn dir(&self) -> String {
        format!("h/{}/", self.stream)
    }

    fn object<T: for<'a> Deserialize<'a>>(&self, name: &str) -> ReadResult<T> {
        let bad = |why| ReadError::Bad { object: name.to_owned(), why };
        let body = self.store.read(name, None)?;
        let text = open_object(&self.keys, name, &body).map_err(bad)?;
        serde_json::from_slice(&text)
            .map_err(|_| bad(crate::format::FormatError::Damaged("its text makes no sense")))
    }

    fn seal<T: Serialize>(&self, name: &str, salt: &Salt, value: &T) -> ReadResult<Bytes> {
        let text = serde_json::to_vec(value).map_err(|error| StoreError::Refused {
            store: self.store.url().to_owned(),
            why: error.to_string(),
        })?;
        Ok(seal_object(&self.keys, salt, name, &text).into())
    }

    /// Reads what is in the stream.
    ///
    /// # Errors
    /// When the store can't be listed. What is damaged is listed as such.
    pub fn state(&self) -> ReadResult<State> {
        self.state_of(&self.store.list(&self.dir())?)
    }

    /// What these objects of the stream are.
    ///
    /// # Errors
    /// When the store fails. What is damaged is listed as such.
    pub fn state_of(&self, objects: &[Object]) -> ReadResult<State> {
        let mut state = State { listing: Listing::read(objects), ..State::default() };
        let (snapshots, condemned) = (format!("{}n/", self.dir()), format!("{}d/", self.dir()));
        for name in std::mem::take(&mut state.listing.others) {
            if name.starts_with(&snapshots) {
                match self.object(&name) {
                    Ok(snapshot) => state.snapshots.push(snapshot),
                    Err(error) => state.note(&name, error)?,
                }
            } else if name.starts_with(&condemned) {
                match self.object(&name) {
                    Ok(list) => state.condemned.push((name, list)),
                    Err(error) => state.note(&name, error)?,
                }
            } else {
                // Whoever lists what must be there looks for the description here.
                state.listing.others.push(name);
            }
        }
        let gone: BTreeSet<&str> =
            state.condemned.iter().flat_map(|(_, list)| list.names.iter().map(String::as_str)).collect();
        let stream = self.stream;
        state.listing.segments.retain(|segment| {
            segment.part_names(stream).all(|name| !gone.contains(name.to_string().as_str()))
        });
        state.snapshots.sort_by_key(|snapshot| snapshot.point);
        Ok(state)
    }

    /// Puts the parts of one segment, in order. It exists once the last is there.
    ///
    /// # Errors
    /// When one can't be put. Those before it are strays then, unless it is tried again with the same parts.
    pub fn put(&self, parts: &[BuiltPart]) -> ReadResult<()> {
        for part in parts {
            // The names have a random number: one that is there already was put by this same attempt.
            let _there: Created = self.store.create(&part.name.to_string(), part.body.clone())?;
        }
        Ok(())
    }

    /// Says that the points after `after` are of this epoch, whatever older writers may still put.
    ///
    /// # Errors
    /// When it can't be put.
    pub fn begin_era(&self, epoch: u32, after: u64) -> ReadResult<()> {
        let name = EraName { stream: self.stream, epoch, after }.to_string();
        let _there: Created = self.store.create(&name, Bytes::from_static(b"era\n"))?;
        Ok(())
    }

    /// Merges a chain into one segment, block by block as they are sealed. `salts` gives what must be random.
    ///
    /// # Errors
    /// When something can't be read or put; nothing is lost then.
    pub fn merge(
        &self,
        chain: &[&Segment],
        run: u32,
        salts: &mut dyn FnMut() -> Salt,
    ) -> ReadResult<Segment> {
        self.merge_to(chain, run, salts, &mut |part| {
            self.store.create(&part.name.to_string(), part.body)?;
            Ok(())
        })
    }

    /// Merges a chain, and hands the parts over in order.
    ///
    /// # Errors
    /// When something can't be read, or `put` fails.
    pub fn merge_to(
        &self,
        chain: &[&Segment],
        run: u32,
        salts: &mut dyn FnMut() -> Salt,
        put: &mut dyn FnMut(BuiltPart) -> ReadResult<()>,
    ) -> ReadResult<Segment> {
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else {
            return Err(StoreError::Refused { store: String::new(), why: "nothing to merge".into() }.into());
        };
        let merged = Segment { from: first.from, run, parts: Vec::new(), ..(*last).clone() };
        self.merge_as(chain, merged, salts, put)
    }

    /// Merges a chain into the segment that is named so; it gets its parts.
    fn merge_as<E: From<ReadError>>(
        &self,
        chain: &[&Segment],
        mut merged: Segment,
        salts: &mut dyn FnMut() -> Salt,
        put: &mut dyn FnMut(BuiltPart) -> Result<(), E>,
    ) -> Result<Segment, E> {
        let end = chain.last().and_then(|last| last.part_names(self.stream).zip(&last.parts).last());
        let volume_size = match end {
            Some((name, size)) => self.table(name, *size)?.0.trailer.volume_size,
            None => 0,
        };
        let Segment { from, to, time, epoch, run, kind, .. } = merged;
        let stream = self.stream;
        let name = |part: usize, last| PartName {
            stream,
            from,
            to,
            time,
            epoch,
            run,
            kind,
            part: part as u32,
            last,
        };
        let is_base = from == 0;
        let mut building = PartBuilder::new();
        let mut batch = Vec::new();
        let mut blocks = Merged::new(self, chain).peekable();
        while let Some(located) = blocks.next() {
            let located = located?;
            // In a base, what is not there is zero.
            if !(is_base && located.entry.sealed_len() == 0) {
                batch.push(located);
            }
            if batch.len() < BATCH && blocks.peek().is_some() {
                continue;
            }
            fetch::<E>(self, &batch, |located, bytes| {
                if building.is_full() || building.len() > PART_BYTES {
                    let built = std::mem::take(&mut building).build(
                        &self.keys,
                        &self.vault,
                        name(merged.parts.len(), false),
                        volume_size,
                        salts(),
                    );
                    merged.parts.push(built.body.len() as u64);
                    put(built)?;
                }
                building.copy(Sealed { entry: located.entry, bytes });
                Ok(())
            })?;
            batch.clear();
        }
        let built =
            building.build(&self.keys, &self.vault, name(merged.parts.len(), true), volume_size, salts());
        merged.parts.push(built.body.len() as u64);
        put(built)?;
        Ok(merged)
    }

    /// The same segment as if it had been made in this epoch: its parts are handed over in order, block by block as they are
    /// sealed, and have the same names each time.
    ///
    /// # Errors
    /// When something can't be read, or `put` fails.
    pub fn reissue<E: From<ReadError>>(
        &self,
        segment: &Segment,
        epoch: u32,
        salts: &mut dyn FnMut() -> Salt,
        put: &mut dyn FnMut(BuiltPart) -> Result<(), E>,
    ) -> Result<(), E> {
        let target = Segment { epoch, parts: Vec::new(), ..segment.clone() };
        self.merge_as(&[segment], target, salts, put).map(drop)
    }

    /// Names what is to be deleted, in an object whose name is returned; it does not count any more from now on.
    ///
    /// # Errors
    /// When it can't be put; everything is as it was then.
    pub fn condemn(&self, names: Vec<String>, at: u64, salt: Salt) -> ReadResult<String> {
        let name = format!("{}d/{}", self.dir(), hex(&salt));
        let body = self.seal(&name, &salt, &Condemned { names, at })?;
        self.store.create(&name, body)?;
        Ok(name)
    }

    /// The object of a named cut.
    pub fn snapshot_object(&self, name: &str) -> String {
        format!("{}n/{}", self.dir(), hex(&self.keys.name(name.as_bytes())))
    }

    /// The named cut in this object.
    pub(crate) fn snapshot(&self, object: &str) -> ReadResult<Snapshot> {
        self.object(object)
    }

    /// Names a cut.
    ///
    /// # Errors
    /// When it can't be put.
    pub fn name_cut(&self, snapshot: &Snapshot, salt: Salt) -> ReadResult<Created> {
        let name = self.snapshot_object(&snapshot.name);
        let body = self.seal(&name, &salt, snapshot)?;
        Ok(self.store.create(&name, body)?)
    }

    /// Takes the name of a cut away; retention decides about it then. The object must have left the inventory.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn unname_cut(&self, name: &str) -> ReadResult<()> {
        Ok(self.store.delete(&self.snapshot_object(name))?)
    }

    /// Says what the stream is of.
    ///
    /// # Errors
    /// When it can't be put.
    pub fn describe<T: Serialize>(&self, about: &T, salt: Salt) -> ReadResult<()> {
        let name = format!("{}about", self.dir());
        let body = self.seal(&name, &salt, about)?;
        Ok(self.store.replace(&name, body)?)
    }

    /// What the stream is of.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn about<T: for<'a> Deserialize<'a>>(&self) -> ReadResult<T> {
        self.object(&format!("{}about", self.dir()))
    }
}

/// The streams of a vault, each with its objects, from one listing.
///
/// # Errors
/// When the store can't be listed.
pub fn streams(store: &dyn Store) -> ReadResult<BTreeMap<StreamId, Vec<Object>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for object in store.list("h/")? {
        if let Some(id) = object.name.split('/').nth(1).and_then(|id| id.parse::<StreamId>().ok()) {
            found.entry(id).or_default().push(object);
        }
    }
    Ok(found)
}

/// Blocks that are read in one go.
const BATCH: usize = 2048;
/// A part is closed when it is about so long.
const PART_BYTES: usize = 64 << 20;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    /// What is damaged is told, and does not keep the rest from being read.
    fn note(&mut self, name: &str, error: ReadError) -> ReadResult<()> {
        match error {
            ReadError::Bad { why, .. } => {
                self.damaged.push(format!("{name}: {why}"));
                Ok(())
            }
            // Deleted since it was listed.
            error if error.is_not_found() => Ok(()),
            error => Err(error),
        }
    }

    /// The points that can be restored to: number and time, ascending.
    pub fn cuts(&self) -> Vec<(u64, u64)> {
        let mut cuts: Vec<_> = self.listing.cuts();
        cuts.retain(|(point, _)| *point > 0);
        cuts
    }

    /// The newest point.
    pub fn newest(&self) -> u64 {
        self.listing.newest()
    }

    /// When the newest cut was.
    pub fn newest_cut(&self) -> Option<(u64, u64)> {
        self.listing.segments.iter().rev().find(|s| s.kind == Kind::Cut).map(|s| (s.to, s.time))
    }
}
