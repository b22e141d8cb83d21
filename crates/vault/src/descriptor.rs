//! The object `everhold-vault`: that this is a vault, of which version, and whose.
//!
//! ```text
//! everhold-vault 1
//! {"id":"…32 hexadecimal digits…","created":"2025-01-02T03:04:05Z","check":"…64…"}
//! ```
//!
//! The first line can be read without knowing the rest. `check` covers all that is before it, under a key derived from
//! the vault's: a wrong key, or a descriptor that someone changed, is told at once.
//!
//! A vault comes to be with this object and not before: its first key slots are made first, and who loses against
//! another creator removes his again. Slots that stay behind after a crash name another vault, and are not looked at.

use crate::format::{Keys, Salt};
use crate::inventory::keep_vault_inventory;
use crate::keys::{self, DataKey, KeyError, NewSlot, SLOTS, Slot, Unlock, VaultId};
use crate::read::ReadError;
use crate::store::{Created, Store, StoreError};
use bytes::Bytes;
use jiff::Timestamp;
use ring::rand::SecureRandom;

/// The object's name.
pub const DESCRIPTOR: &str = "everhold-vault";

/// The version of the format that this program writes and reads.
pub const FORMAT: u32 = 1;

const PURPOSE: &str = "everhold 1 vault descriptor check";

/// Why a vault can't be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key can't be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is a vault already.
    #[error("{url}: there is a vault already: {id}, made {created:.0}")]
    Exists {
        /// Where.
        url: String,
        /// Its id.
        id: VaultId,
        /// When it was made.
        created: Timestamp,
    },
    /// There is something else.
    #[error(
        "{url}: it is not empty and not a vault; choose an empty place, so that nothing of others is among the vault"
    )]
    NotEmpty {
        /// Where.
        url: String,
    },
    /// There is nothing.
    #[error("{url}: there is no vault here")]
    NoVault {
        /// Where.
        url: String,
    },
    /// The vault was made by a later Everhold.
    #[error(
        "{url}: the vault has format {found}, and this Everhold knows format {FORMAT}: use a later Everhold"
    )]
    Later {
        /// Where.
        url: String,
        /// Its format.
        found: u32,
    },
    /// The descriptor is not whole.
    #[error("{url}: the object {DESCRIPTOR} is damaged: {why}")]
    Damaged {
        /// Where.
        url: String,
        /// In words.
        why: String,
    },
    /// The key is another vault's, or the descriptor was changed.
    #[error("{url}: the key does not belong to the vault {id}")]
    WrongKey {
        /// Where.
        url: String,
        /// The vault.
        id: VaultId,
    },
}

impl From<ReadError> for VaultError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            bad @ ReadError::Bad { .. } => Self::Damaged { url: String::new(), why: bad.to_string() },
        }
    }
}

/// What a vault says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its id.
    pub id: VaultId,
    /// When it was made.
    pub created: Timestamp,
    /// The version of its format.
    pub format: u32,
    check: blake3::Hash,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Rest {
    id: VaultId,
    created: Timestamp,
    check: String,
}

impl Descriptor {
    fn new(id: VaultId, created: Timestamp, key: &DataKey) -> Self {
        Self { id, created, format: FORMAT, check: check_value(id, created, FORMAT, key) }
    }

    fn encode(&self) -> Result<Bytes, VaultError> {
        let rest = Rest { id: self.id, created: self.created, check: self.check.to_hex().to_string() };
        let rest = serde_json::to_string(&rest)
            .map_err(|e| VaultError::Damaged { url: String::new(), why: e.to_string() })?;
        Ok(format!("{DESCRIPTOR} {}\n{rest}\n", self.format).into())
    }

    pub(crate) fn decode(url: &str, body: &[u8]) -> Result<Self, VaultError> {
        let damaged = |why: String| VaultError::Damaged { url: url.to_owned(), why };
        let end = body.iter().position(|b| *b == b'\n').unwrap_or(body.len());
        let line = std::str::from_utf8(&body[..end]).unwrap_or_default();
        // Of a later version no more is known than how it begins.
        let number = line.strip_prefix(DESCRIPTOR).and_then(|rest| rest.strip_prefix(' '));
        let format = number
            .and_then(|number| number.parse::<u32>().ok().filter(|format| format.to_string() == number));
        let format = format.ok_or_else(|| damaged("the first line is not that of a vault".to_owned()))?;
        if format > FORMAT {
            return Err(VaultError::Later { url: url.to_owned(), found: format });
        }
        if format != FORMAT {
            return Err(damaged(format!("there is no format {format}")));
        }
        let rest: Rest = serde_json::from_slice(&body[end..]).map_err(|e| damaged(e.to_string()))?;
        let check = blake3::Hash::from_hex(&rest.check).map_err(|e| damaged(e.to_string()))?;
        let read = Self { id: rest.id, created: rest.created, format, check };
        // Other ways to write the same are not what any writer writes.
        if read.encode()? != body {
            return Err(damaged("it is not written as a vault's is".to_owned()));
        }
        Ok(read)
    }

    /// Reads the descriptor of the vault in a store. No key is needed.
    pub fn read(store: &dyn Store) -> Result<Self, VaultError> {
        match store.read(DESCRIPTOR, None) {
            Ok(body) => Self::decode(store.url(), &body),
            Err(e) if e.is_not_found() => Err(VaultError::NoVault { url: store.url().to_owned() }),
            Err(e) => Err(e.into()),
        }
    }

    /// Checks that a key is this vault's.
    pub fn check(&self, url: &str, key: &DataKey) -> Result<(), VaultError> {
        // The comparison of hashes takes the same time always.
        if check_value(self.id, self.created, self.format, key) == self.check {
            return Ok(());
        }
        Err(VaultError::WrongKey { url: url.to_owned(), id: self.id })
    }
}

fn check_value(id: VaultId, created: Timestamp, format: u32, key: &DataKey) -> blake3::Hash {
    let key = zeroize::Zeroizing::new(key.derive(PURPOSE));
    blake3::keyed_hash(&key, format!("{DESCRIPTOR} {format}\n{id}\n{created}\n").as_bytes())
}

/// A vault that was made or opened.
#[derive(Debug)]
pub struct Opened {
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// Its key.
    pub key: DataKey,
}

/// Makes a vault in an empty store, with a key that is in these slots. Of two creators at once, one succeeds.
pub fn create(
    store: &dyn Store,
    slots: &[NewSlot],
    now: Timestamp,
    random: &dyn SecureRandom,
) -> Result<Opened, VaultError> {
    if slots.is_empty() {
        return Err(KeyError::NoSlot.into());
    }
    match Descriptor::read(store) {
        Err(VaultError::NoVault { .. }) => {}
        Ok(there) => return Err(exists(store, &there)),
        Err(e) => return Err(e),
    }
    if !store.is_empty(&[SLOTS, "probe/", DESCRIPTOR])? {
        return Err(VaultError::NotEmpty { url: store.url().to_owned() });
    }
    let id = VaultId::draw(random)?;
    let key = DataKey::draw(random)?;
    let descriptor = Descriptor::new(id, now, &key);
    let body = descriptor.encode()?;
    let mut made = Vec::new();
    let result = make(store, &descriptor, &key, slots, &mut made, body, random);
    if result.is_err() {
        for slot in &made {
            if let Err(error) = store.delete(&format!("{SLOTS}{}", slot.id)) {
                tracing::debug!(%error, "a key slot of a vault that was not made stays behind");
            }
        }
    }
    result?;
    // The first writer makes it if it can't be made now.
    let (keys, at) = (Keys::new(key.expose()), u64::try_from(now.as_millisecond()).unwrap_or(0));
    let mut salt = Salt::default();
    random.fill(&mut salt).map_err(|_| KeyError::Random)?;
    if let Err(error) = keep_vault_inventory(store, &keys, id, 0, at, &[], &[], salt) {
        tracing::warn!(%error, "the new vault has no inventory yet");
    }
    Ok(Opened { descriptor, key })
}

fn make(
    store: &dyn Store,
    descriptor: &Descriptor,
    key: &DataKey,
    slots: &[NewSlot],
    made: &mut Vec<Slot>,
    body: Bytes,
    random: &dyn SecureRandom,
) -> Result<(), VaultError> {
    for slot in slots {
        made.push(keys::add_slot(store, descriptor.id, key, slot, descriptor.created, random)?);
    }
    match store.create(DESCRIPTOR, body) {
        Ok(Created::New) => Ok(()),
        Ok(Created::Exists) => {
            let there = Descriptor::read(store)?;
            // The store may have lost the answer of an earlier attempt.
            if there == *descriptor { Ok(()) } else { Err(exists(store, &there)) }
        }
        // What the creation did is not known. While that is so, the slots stay: without them the vault would be lost.
        Err(e @ StoreError::Failed { .. }) => match Descriptor::read(store) {
            Ok(there) if there == *descriptor => Ok(()),
            Ok(there) => Err(exists(store, &there)),
            Err(_) => {
                made.clear();
                Err(e.into())
            }
        },
        Err(e) => Err(e.into()),
    }
}

fn exists(store: &dyn Store, there: &Descriptor) -> VaultError {
    VaultError::Exists { url: store.url().to_owned(), id: there.id, created: there.created }
}

/// Opens the vault in a store.
pub fn open(store: &dyn Store, with: &Unlock) -> Result<Opened, VaultError> {
    let descriptor = Descriptor::read(store)?;
    let key = keys::unlock(store, descriptor.id, with)?;
    descriptor.check(store.url(), &key)?;
    Ok(Opened { descriptor, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::RecoveryKit;
    use crate::store::{DirOptions, DirStore, Fault, MemoryStore, Op};
    use age::secrecy::SecretString;
    use ring::rand::SystemRandom;
    use std::sync::Barrier;

    fn now() -> Timestamp {
        "2025-01-02T03:04:05Z".parse().unwrap()
    }

    fn with(kit: &RecoveryKit) -> Unlock {
        // The identity alone, which opens whatever was sealed for it.
        let text = kit.text("n", VaultId([0; 16]), &DataKey::from_bytes([0; 32]), "u", now());
        Unlock::Kit(SecretString::from(text.lines().last().unwrap().to_owned()))
    }

    fn new_vault(store: &dyn Store, kit: &RecoveryKit) -> Result<Opened, VaultError> {
        create(store, &[NewSlot::for_kit(kit)], now(), &SystemRandom::new())
    }

    #[test]
    fn a_vault_is_made_once_and_opened() {
        let (store, kit) = (MemoryStore::new(), RecoveryKit::draw());
        assert!(matches!(open(&store, &with(&kit)), Err(VaultError::NoVault { .. })));
        let none = create(&store, &[], now(), &SystemRandom::new());
        assert!(matches!(none, Err(VaultError::Key(KeyError::NoSlot))));
        let made = new_vault(&store, &kit).unwrap();
        let opened = open(&store, &with(&kit)).unwrap();
        assert_eq!(opened.descriptor, made.descriptor);
        assert_eq!(opened.key.expose(), made.key.expose());
        assert!(
            matches!(new_vault(&store, &kit), Err(VaultError::Exists { id, .. }) if id == made.descriptor.id)
        );
        assert_eq!(store.list("k/").unwrap().len(), 1, "the second creation leaves no slot");
        let wrong = opened.descriptor.check("u", &DataKey::from_bytes([0; 32]));
        assert!(matches!(wrong, Err(VaultError::WrongKey { .. })));
    }

    #[test]
    fn of_two_creators_one_succeeds() {
        for _ in 0..20 {
            let (store, barrier) = (MemoryStore::new(), Barrier::new(4));
            let made: Vec<_> = std::thread::scope(|scope| {
                let creators: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            let kit = RecoveryKit::draw();
                            barrier.wait();
                            new_vault(&store, &kit).map(|_| kit)
                        })
                    })
                    .collect();
                creators.into_iter().filter_map(|c| c.join().unwrap().ok()).collect()
            });
            assert_eq!(made.len(), 1);
            open(&store, &with(&made[0])).unwrap();
            assert_eq!(store.list("k/").unwrap().len(), 1);
        }
    }

    #[test]
    fn a_lost_acknowledgement_is_no_failure() {
        let (store, kit) = (MemoryStore::new(), RecoveryKit::draw());
        store.inject(Some(Op::Create), DESCRIPTOR, 0, Fault::FailAfter);
        new_vault(&store, &kit).unwrap();
        open(&store, &with(&kit)).unwrap();
    }

    #[test]
    fn a_vault_that_may_be_there_keeps_its_slots() {
        let (store, kit) = (MemoryStore::new(), RecoveryKit::draw());
        store.inject(Some(Op::Create), DESCRIPTOR, 0, Fault::FailAfter);
        store.inject(Some(Op::Read), DESCRIPTOR, 1, Fault::FailBefore);
        assert!(matches!(new_vault(&store, &kit), Err(VaultError::Store(_))));
        open(&store, &with(&kit)).unwrap();
    }

    #[test]
    fn a_creation_that_failed_can_be_made_again() {
        // Look for a vault, look whether it is empty, make the slot, make the vault.
        for (call, fault) in (0..4).flat_map(|call| [(call, Fault::FailBefore), (call, Fault::FailAfter)]) {
            let (store, kit) = (MemoryStore::new(), RecoveryKit::draw());
            store.inject(None, "", call, fault);
            let first = new_vault(&store, &kit);
            assert_eq!(first.is_ok(), (call, fault) == (3, Fault::FailAfter));
            if first.is_err() {
                new_vault(&store, &kit).unwrap();
            }
            open(&store, &with(&kit)).unwrap();
        }
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let kit = RecoveryKit::draw();
        for other in ["letter.txt", "Photos/a.jpg", ".git/config"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("lost+found")).unwrap();
            let store = DirStore::open(dir.path(), DirOptions::default()).unwrap();
            let path = dir.path().join(other);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            let error = new_vault(&store, &kit).unwrap_err();
            assert!(matches!(error, VaultError::NotEmpty { .. }), "{error}");
            std::fs::remove_file(&path).unwrap();
            std::fs::remove_dir_all(dir.path().join(".git")).unwrap_or(());
            store.abilities().unwrap();
            new_vault(&store, &kit).unwrap();
        }
    }

    #[test]
    fn a_later_vault_is_refused_and_says_so() {
        let (store, kit) = (MemoryStore::new(), RecoveryKit::draw());
        store.replace(DESCRIPTOR, "everhold-vault 2\n\u{1}anything".into()).unwrap();
        for error in [open(&store, &with(&kit)).unwrap_err(), new_vault(&store, &kit).unwrap_err()] {
            assert_eq!(
                error.to_string(),
                "memory:: the vault has format 2, and this Everhold knows format 1: use a later Everhold"
            );
        }
    }

    #[test]
    fn every_change_of_a_descriptor_is_told() {
        let (store, kit) = (MemoryStore::new(), RecoveryKit::draw());
        new_vault(&store, &kit).unwrap();
        let length = store.objects()[DESCRIPTOR].len();
        for at in 0..length - 1 {
            store.corrupt(DESCRIPTOR, at);
            assert!(open(&store, &with(&kit)).is_err(), "byte {at}");
            store.corrupt(DESCRIPTOR, at);
        }
    }

    #[test]
    fn the_bytes_stay_the_same() {
        let key = DataKey::from_bytes([7; 32]);
        let body = Descriptor::new(VaultId([0x11; 16]), now(), &key).encode().unwrap();
        let check = "df32541737093ff25a7e05a44d836b1f86c885c86f6bbe7db4a50508822afea6";
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            format!(
                "everhold-vault 1\n{{\"id\":\"{}\",\"created\":\"2025-01-02T03:04:05Z\",\"check\":\"{check}\"}}\n",
                "11".repeat(16)
            )
        );
    }
}
