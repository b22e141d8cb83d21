//! Bundles: files of any size, each kept as sealed chunks and a description.
//!
//! A bundle is there once its description is, which is written last; chunks without one are left over from a store that was
//! interrupted. What is in a bundle is not known here, nor are names beyond that they are texts.

use crate::format::{
    BundleId, Chunk, FormatError, Keys, Salt, open_chunk, open_object, seal_chunk, seal_object,
};
use crate::inventory::Wrong;
use crate::read::{ReadError, ReadResult};
use crate::store::{Created, Object, Store};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Where bundles are.
pub(crate) const BUNDLES: &str = "bundles/";
/// The last part of the name of a description.
const ABOUT: &str = "about";
/// How many bytes of a bundle are in one chunk: few requests, and little to be done again after a failed one.
pub const CHUNK: u64 = 32 << 20;
/// The largest chunk that is read, whoever wrote it.
const MOST: u64 = 256 << 20;

/// Why a bundle could not be stored or fetched.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The vault could not be read or written, or what is there is not what it should be.
    #[error(transparent)]
    Vault(#[from] ReadError),
    /// The file could not be read or written.
    #[error("the bundle's file: {0}")]
    File(#[from] io::Error),
}

impl From<crate::StoreError> for BundleError {
    fn from(error: crate::StoreError) -> Self {
        Self::Vault(error.into())
    }
}

/// What a bundle is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its name, unique in the vault.
    pub name: String,
    /// The instant that it is of, in milliseconds since 1970.
    pub instant: u64,
    /// When it was stored, in milliseconds since 1970.
    pub stored: u64,
    /// The containers in it.
    pub containers: Vec<String>,
}

/// A bundle's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// What it is, for people.
    #[serde(flatten)]
    pub label: Label,
    /// Its bytes.
    pub size: u64,
    /// The bytes in every chunk but the last, which may have fewer.
    pub chunk: u64,
    /// The BLAKE3 hash of all bytes: 64 digits.
    pub hash: String,
    /// The sizes of the chunks' objects.
    pub chunks: Vec<u64>,
}

/// How many chunks so many bytes are: at least one.
fn count(size: u64, chunk: u64) -> u64 {
    size.div_ceil(chunk).max(1)
}

/// How many bytes are in a chunk.
fn length(size: u64, chunk: u64, number: u32) -> u64 {
    chunk.min(size.saturating_sub(u64::from(number) * chunk))
}

/// The name of a bundle's description.
pub fn about_name(id: BundleId) -> String {
    format!("{BUNDLES}{id}/{ABOUT}")
}

/// The name of a bundle's chunk.
pub fn chunk_name(id: BundleId, number: u32) -> String {
    format!("{BUNDLES}{id}/{number:08x}")
}

/// Whose object that is, and which of its chunks; `None`: the description.
pub fn parse(name: &str) -> Option<(BundleId, Option<u32>)> {
    let (id, rest) = name.strip_prefix(BUNDLES)?.split_once('/')?;
    let id: BundleId = id.parse().ok()?;
    if rest == ABOUT {
        return Some((id, None));
    }
    let number = u32::from_str_radix(rest, 16).ok()?;
    (chunk_name(id, number) == name).then_some((id, Some(number)))
}

impl Description {
    /// Opens the sealed object.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(keys: &Keys, id: BundleId, object: &[u8]) -> Result<Self, FormatError> {
        const NO_SENSE: FormatError = FormatError::Damaged("its text makes no sense");
        let text = open_object(keys, &about_name(id), object)?;
        let about: Self = serde_json::from_slice(&text).map_err(|_| NO_SENSE)?;
        let fits =
            (1..=MOST).contains(&about.chunk) && count(about.size, about.chunk) == about.chunks.len() as u64;
        if fits && about.chunks.len() <= u32::MAX as usize { Ok(about) } else { Err(NO_SENSE) }
    }

    /// Bytes that it has in the vault.
    pub fn stored(&self) -> u64 {
        self.chunks.iter().sum()
    }

    /// Where a chunk of it belongs, and how many bytes are in it.
    pub(crate) fn place(&self, bundle: BundleId, number: u32) -> (Chunk, usize) {
        let last = number as usize + 1 == self.chunks.len();
        (Chunk { bundle, number, last }, length(self.size, self.chunk, number) as usize)
    }

    /// Which of its chunks are not there as they should be, given the sizes of those that are.
    pub fn compare(&self, there: &BTreeMap<u32, u64>) -> BTreeMap<u32, Wrong> {
        let look = |(number, listed): (usize, &u64)| match there.get(&(number as u32)) {
            None => Some((number as u32, Wrong::Missing)),
            Some(found) if found != listed => {
                Some((number as u32, Wrong::Size { listed: *listed, found: *found }))
            }
            Some(_) => None,
        };
        self.chunks.iter().enumerate().filter_map(look).collect()
    }
}

/// A bundle that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What stands for it in names.
    pub id: BundleId,
    /// Its description.
    pub about: Description,
}

/// What a vault has of bundles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Those that are there, by name.
    pub bundles: Vec<Kept>,
    /// Objects that are not what they should be, in words.
    pub damaged: Vec<String>,
    /// What interrupted stores and removals have left.
    pub unfinished: BTreeSet<BundleId>,
}

/// The objects of bundles: for each, whether there is a description, and its chunks' sizes.
pub(crate) fn grouped(objects: &[Object]) -> BTreeMap<BundleId, (bool, BTreeMap<u32, u64>)> {
    let mut all: BTreeMap<_, (bool, BTreeMap<u32, u64>)> = BTreeMap::new();
    for object in objects {
        match parse(&object.name) {
            Some((id, None)) => all.entry(id).or_default().0 = true,
            Some((id, Some(number))) => drop(all.entry(id).or_default().1.insert(number, object.size)),
            None => {}
        }
    }
    all
}

/// The bundles of a vault.
#[derive(Debug, Clone)]
pub struct Bundles {
    store: Arc<dyn Store>,
    keys: Keys,
}

impl Bundles {
    /// Of this vault.
    pub fn new(store: Arc<dyn Store>, keys: Keys) -> Self {
        Self { store, keys }
    }

    /// What there is.
    ///
    /// # Errors
    /// When the store fails; what is damaged is part of the answer.
    pub fn list(&self) -> ReadResult<Listed> {
        let mut listed = Listed::default();
        for (id, (described, _)) in grouped(&self.store.list(BUNDLES)?) {
            if !described {
                listed.unfinished.insert(id);
                continue;
            }
            match self.store.read(&about_name(id), None) {
                Ok(object) => match Description::open(&self.keys, id, &object) {
                    Ok(about) => listed.bundles.push(Kept { id, about }),
                    Err(why) => listed.damaged.push(format!("{}: {why}", about_name(id))),
                },
                // Removed since it was listed.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let key = |kept: &Kept| (kept.about.label.name.clone(), kept.about.label.instant, kept.id);
        listed.bundles.sort_by_key(key);
        Ok(listed)
    }

    /// Begins to store a bundle of `size` bytes under an ID that was never used, in chunks of `chunk` bytes.
    pub fn begin(&self, id: BundleId, size: u64, chunk: u64) -> Storing {
        let hasher = blake3::Hasher::new();
        Storing { of: self.clone(), id, size, chunk: chunk.clamp(1, MOST), chunks: Vec::new(), hasher }
    }

    /// Writes all bytes of a bundle to `to`. Each chunk is checked before it is written, and all together at the end: after an
    /// error, what was written is not to be used.
    ///
    /// # Errors
    /// The first chunk that is missing or not what it should be, by name.
    pub fn fetch(&self, kept: &Kept, to: &mut dyn Write) -> Result<(), BundleError> {
        let mut hasher = blake3::Hasher::new();
        for number in 0..kept.about.chunks.len() as u32 {
            let object = chunk_name(kept.id, number);
            let sealed = self.store.read(&object, None)?;
            let (chunk, length) = kept.about.place(kept.id, number);
            let content = open_chunk(&self.keys, &chunk, length, &sealed)
                .map_err(|why| ReadError::Bad { object, why })?;
            hasher.update(&content);
            to.write_all(&content)?;
        }
        if hasher.finalize().to_hex().as_str() == kept.about.hash {
            return Ok(());
        }
        let why = FormatError::Damaged("its chunks are not those of the bundle that it describes");
        Err(ReadError::Bad { object: about_name(kept.id), why }.into())
    }

    /// The first chunk of a bundle that a listing does not have as it should be.
    ///
    /// # Errors
    /// When the store fails.
    pub fn lacks(&self, kept: &Kept) -> ReadResult<Option<(String, Wrong)>> {
        let objects = self.store.list(&format!("{BUNDLES}{}/", kept.id))?;
        let there = grouped(&objects).remove(&kept.id).unwrap_or_default().1;
        Ok(kept
            .about
            .compare(&there)
            .into_iter()
            .next()
            .map(|(number, wrong)| (chunk_name(kept.id, number), wrong)))
    }

    /// Removes a bundle, or what is left of one; its description first, so that it is never there in part.
    ///
    /// # Errors
    /// When the store fails; what is left is no bundle, or all of it.
    pub fn remove(&self, id: BundleId) -> ReadResult<()> {
        self.store.delete(&about_name(id))?;
        for object in self.store.list(&format!("{BUNDLES}{id}/"))? {
            if parse(&object.name).is_some() {
                self.store.delete(&object.name)?;
            }
        }
        Ok(())
    }
}

/// A bundle that is being stored.
#[derive(Debug)]
pub struct Storing {
    of: Bundles,
    id: BundleId,
    size: u64,
    chunk: u64,
    chunks: Vec<u64>,
    hasher: blake3::Hasher,
}

impl Storing {
    /// Stores the next chunk. `false`: there is none.
    ///
    /// # Errors
    /// When the store fails or the file ends early; nothing of the bundle is to be seen.
    pub fn next(&mut self, from: &mut dyn Read, salt: &Salt) -> Result<bool, BundleError> {
        let number = self.chunks.len() as u32;
        if u64::from(number) == count(self.size, self.chunk) {
            return Ok(false);
        }
        let last = u64::from(number) + 1 == count(self.size, self.chunk);
        let mut content = vec![0; length(self.size, self.chunk, number) as usize];
        from.read_exact(&mut content)?;
        self.hasher.update(&content);
        let chunk = Chunk { bundle: self.id, number, last };
        let object = seal_chunk(&self.of.keys, &chunk, salt, &content);
        drop(content);
        let (name, size) = (chunk_name(self.id, number), object.len() as u64);
        self.create(&name, object)?;
        self.chunks.push(size);
        Ok(true)
    }

    /// Describes the bundle, after the last chunk; from then on it is there.
    ///
    /// # Errors
    /// When the store fails, or chunks are missing.
    pub fn finish(self, label: Label, salt: &Salt) -> Result<Kept, BundleError> {
        let hash = self.hasher.finalize().to_hex().to_string();
        let about =
            Description { label, size: self.size, chunk: self.chunk, hash, chunks: self.chunks.clone() };
        let kept = Kept { id: self.id, about };
        let name = about_name(self.id);
        let bad = |object, why| BundleError::from(ReadError::Bad { object, why });
        if self.chunks.len() as u64 != count(self.size, self.chunk) {
            return Err(bad(name, FormatError::Damaged("not all of it was stored")));
        }
        if let Some((object, _)) = self.of.lacks(&kept)? {
            return Err(bad(object, FormatError::Damaged("it is gone since it was stored")));
        }
        let text = serde_json::to_vec(&kept.about)
            .map_err(|_| bad(name.clone(), FormatError::Damaged("it can't be written")))?;
        self.create(&name, seal_object(&self.of.keys, salt, &name, &text))?;
        Ok(kept)
    }

    fn create(&self, name: &str, object: Vec<u8>) -> Result<(), BundleError> {
        let object = bytes::Bytes::from(object);
        match self.of.store.create(name, object.clone())? {
            Created::New => Ok(()),
            // An answer that was lost: it is there since the first try.
            Created::Exists if self.of.store.read(name, None)? == object => Ok(()),
            Created::Exists => {
                let why = FormatError::Foreign("another one of that name is there already");
                Err(ReadError::Bad { object: name.to_owned(), why }.into())
            }
        }
    }
}
