//! Where objects are kept: a flat set of named, immutable byte strings.
//!
//! A store knows nothing of what is in the objects. Its calls block: they are made from threads that have nothing else to do.

mod absent;
mod aws_files;
mod dir;
mod memory;
mod s3;

pub use absent::AbsentStore;
pub use aws_files::{Credentials, Environment};
pub use dir::{DirOptions, DirStore, Reserve};
pub use memory::{Call, Fault, MemoryStore, Op};
pub use s3::{S3Options, S3Store};

use bytes::Bytes;
use std::fmt;
use std::ops::Range;

/// What went wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{store}: there is no object {name}")]
    NotFound {
        /// The store's URL.
        store: String,
        /// The object.
        name: String,
    },
    /// The store has no room left, or less than its reserve.
    #[error("{store}: no space for {name}: {why}")]
    NoSpace {
        /// The store's URL.
        store: String,
        /// The object.
        name: String,
        /// In words.
        why: String,
    },
    /// The store refuses: wrong credentials, no such bucket, a read-only file system. Trying again does not help.
    #[error("{store}: {why}")]
    Refused {
        /// The store's URL.
        store: String,
        /// In words, without any secret.
        why: String,
    },
    /// The store can't be reached, or failed; trying again may help. What a write did is not known.
    #[error("{store}: {op} {name}: {why}")]
    Failed {
        /// The store's URL.
        store: String,
        /// What was tried.
        op: &'static str,
        /// The object.
        name: String,
        /// In words, without any secret.
        why: String,
    },
}

impl StoreError {
    /// Whether the object is known not to be there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// The result of a store's call.
pub type StoreResult<T> = Result<T, StoreError>;

/// What a creation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is there now, and durable.
    New,
    /// One of that name was there already; it is as it was.
    Exists,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name, `/`-separated, relative to the vault.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Whether a store can do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ability {
    /// It was tried, and works.
    Yes,
    /// It was tried, and does not.
    No,
    /// It could not be found out.
    Unknown,
}

/// What a store can do, found out by trying.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Abilities {
    /// An object can be created only if there is none of that name: two writers can't both claim a vault.
    pub conditional_put: Ability,
    /// The store keeps older versions of replaced and deleted objects.
    pub versions: Ability,
    /// The store can refuse to delete an object before a date.
    pub object_lock: Ability,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// A flat set of named objects.
///
/// A name is `/`-separated, of `[a-z0-9.-]` parts that do not begin with a dot.
pub trait Store: Send + Sync + fmt::Debug {
    /// The URL, without credentials.
    fn url(&self) -> &str;

    /// Creates an object in one atomic step, never replacing one: whole, durable and visible, or not there. When the
    /// store has no conditional put, it looks first, which leaves a race.
    fn create(&self, name: &str, body: Bytes) -> StoreResult<Created>;

    /// Creates or replaces an object in one atomic step.
    fn replace(&self, name: &str, body: Bytes) -> StoreResult<()>;

    /// Reads an object, or a range of it. A range beyond its end is an error ([`StoreError::Failed`]).
    fn read(&self, name: &str, range: Option<Range<u64>>) -> StoreResult<Bytes>;

    /// The size of an object; `None` if there is none of that name.
    fn size(&self, name: &str) -> StoreResult<Option<u64>>;

    /// All objects whose names begin with `prefix` (whole path parts: it ends with `/` or is empty), by name.
    fn list(&self, prefix: &str) -> StoreResult<Vec<Object>>;

    /// Whether there is nothing at all: also nothing that is not an object of a vault, such as a person's files.
    ///
    /// Objects below `ignoring` do not count.
    fn is_empty(&self, ignoring: &[&str]) -> StoreResult<bool> {
        Ok(self.list("")?.iter().all(|o| ignoring.iter().any(|p| o.name.starts_with(p))))
    }

    /// Deletes an object; that it was not there is fine.
    fn delete(&self, name: &str) -> StoreResult<()>;

    /// Tries what the store can do, with objects of its own (`probe/…`) that it deletes again.
    fn abilities(&self) -> StoreResult<Abilities>;
}

/// The longest name, in bytes: what is left of S3's 1,024 below a long prefix.
const LONGEST_NAME: usize = 700;

/// Checks that a name is one an object may have.
fn check_name(store: &str, name: &str) -> StoreResult<()> {
    let fine = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.len() <= 255
            && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
    };
    if name.len() <= LONGEST_NAME && name.split('/').all(fine) {
        return Ok(());
    }
    Err(StoreError::Refused {
        store: store.to_owned(),
        why: format!("{name:?} is not the name of an object"),
    })
}

/// Checks that a prefix is empty or whole path parts that end with `/`.
fn check_prefix(store: &str, prefix: &str) -> StoreResult<()> {
    match prefix.strip_suffix('/') {
        None if prefix.is_empty() => Ok(()),
        Some(parts) => check_name(store, parts),
        None => Err(StoreError::Refused {
            store: store.to_owned(),
            why: format!("the prefix {prefix:?} does not end with a slash"),
        }),
    }
}

/// Checks that a range lies in an object of `size` bytes.
fn check_range(store: &str, name: &str, range: &Range<u64>, size: u64) -> StoreResult<()> {
    if range.start <= range.end && range.end <= size {
        return Ok(());
    }
    Err(StoreError::Failed {
        store: store.to_owned(),
        op: "read",
        name: name.to_owned(),
        why: format!("bytes {} to {} were asked for, and it has {size}", range.start, range.end),
    })
}

/// A name no other writer makes, for objects and files that are gone again soon.
fn unique() -> StoreResult<String> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 12];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| StoreError::Failed {
        store: String::new(),
        op: "draw",
        name: "a random name".to_owned(),
        why: "the system gives no random numbers".to_owned(),
    })?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Tries whether [`Store::create`] refuses a second object of the same name.
fn probe_conditional(store: &dyn Store) -> StoreResult<Ability> {
    let name = format!("probe/{}", unique()?);
    store.create(&name, Bytes::from_static(b"first"))?;
    let second = store.create(&name, Bytes::from_static(b"second"))?;
    let kept = store.read(&name, None)?;
    store.delete(&name)?;
    Ok(if second == Created::Exists && kept == "first" { Ability::Yes } else { Ability::No })
}
