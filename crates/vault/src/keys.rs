//! A vault's key, and the slots it is kept in.
//!
//! The data key is drawn once. It lies in the vault as often as wanted, in objects `k/ID` that are never changed: each is a
//! line of JSON and then a file as `age` writes it, so that it can also be opened without Everhold:
//!
//! ```text
//! tail -n +2 k/ID | age --decrypt -i recovery-kit.txt
//! ```

mod kit;

pub use kit::{Fingerprint, RecoveryKit};

use crate::store::{Created, Store, StoreError};
use age::secrecy::ExposeSecret;
pub use age::secrecy::SecretString;
use bytes::Bytes;
use jiff::Timestamp;
use ring::rand::SecureRandom;
use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Where slots are.
pub(crate) const SLOTS: &str = "k/";

/// What a slot's plaintext begins with.
const PLAIN: &str = "everhold data key 1";

/// The work a passphrase takes: 2^18, most of a second and 256 MiB. It is not measured, as `age` would do: on a slow host
/// that gives a slot that is easy to try elsewhere.
const WORK: u8 = 18;

/// The most work that opening a slot may take, whoever wrote it: 2^20, some seconds and 1 GiB.
const MOST_WORK: u8 = 20;

/// Why a key can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No slot opens with what was given.
    #[error("none of the vault's {slots} key slots opens with this {what}{}", if *.damaged > 0 {
        format!(" ({damaged} of them can't be read)") } else { String::new() })]
    NoneOpens {
        /// How many there are.
        slots: usize,
        /// How many of them are not what they should be.
        damaged: usize,
        /// `recovery kit` or `passphrase`.
        what: &'static str,
    },
    /// The text holds no key.
    #[error("there is no line beginning with AGE-SECRET-KEY-1 in the recovery kit, or it is not whole")]
    BadIdentity,
    /// The line that says which data key a recovery kit is for can't be read.
    #[error("line {line} of the recovery kit, the fingerprint, is not whole: it has 32 hexadecimal digits")]
    BadFingerprint {
        /// Which line of the text.
        line: usize,
    },
    /// What opens is not what the recovery kit is for.
    #[error("this is not the vault that the recovery kit is for: the kit says that its fingerprint is {says}, and it is \
        {found}. Another vault was put in its place, or a digit of the kit is wrong", says = one_of(says))]
    Exchanged {
        /// What the kit says.
        says: Vec<Fingerprint>,
        /// What the vault's key has.
        found: Fingerprint,
    },
    /// The text is no recipient.
    #[error("{0:?} is not an age recipient (age1…): {1}")]
    BadRecipient(String, &'static str),
    /// A passphrase is too easy to guess.
    #[error("a passphrase must have at least {0} characters")]
    ShortPassphrase(usize),
    /// Sealing failed.
    #[error("can't seal the key: {0}")]
    Seal(String),
    /// A vault would have no slot.
    #[error("a vault needs a key slot: without one nobody could open it")]
    NoSlot,
    /// The last slot is not removed.
    #[error("{0} is the last key slot: without it nobody could open the vault")]
    LastSlot(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

fn one_of(fingerprints: &[Fingerprint]) -> String {
    fingerprints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// The identity of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VaultId(pub [u8; 16]);

impl VaultId {
    /// Draws one.
    pub fn draw(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| KeyError::Random)?;
        Ok(Self(id))
    }
}

impl fmt::Display for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for VaultId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        unhex(text).map(Self).ok_or("a vault's id has 32 hexadecimal digits")
    }
}

impl TryFrom<String> for VaultId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl From<VaultId> for String {
    fn from(id: VaultId) -> Self {
        id.to_string()
    }
}

/// The key of all that is in a vault. It is wiped from memory when dropped, and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; 32]);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

impl DataKey {
    /// Draws one.
    pub fn draw(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut key = Self([0; 32]);
        random.fill(&mut key.0).map_err(|_| KeyError::Random)?;
        Ok(key)
    }

    /// The key of these bytes, as [`DataKey::expose`] gave them.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for where the daemon keeps it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key for one purpose. Purposes are never used again for another one.
    pub fn derive(&self, purpose: &'static str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }
}

/// A slot to make.
#[derive(Debug, Clone)]
pub enum NewSlot {
    /// For who has the identity of an age recipient.
    Recipient {
        /// `age1…`
        recipient: String,
        /// Whose it is, for people; not secret.
        label: String,
    },
    /// For who knows a passphrase.
    Passphrase {
        /// The passphrase.
        passphrase: SecretString,
        /// Whose it is, for people; not secret.
        label: String,
        /// The logarithm of the work to try one; most of a second's if none is given.
        work: Option<u8>,
    },
}

/// The shortest passphrase, in characters. The vault may be read by others, who can try as many as they like.
const SHORTEST: usize = 12;

impl NewSlot {
    /// A slot for a recovery kit.
    pub fn for_kit(kit: &RecoveryKit) -> Self {
        Self::Recipient { recipient: kit.recipient(), label: "recovery kit".to_owned() }
    }

    fn head(&self, vault: VaultId, made: Timestamp) -> SlotHead {
        let (kind, label, recipient) = match self {
            Self::Recipient { recipient, label } => (SlotKind::Recipient, label, Some(recipient.clone())),
            Self::Passphrase { label, .. } => (SlotKind::Passphrase, label, None),
        };
        SlotHead { version: 1, vault, kind, label: label.clone(), recipient, made }
    }

    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let seal = |recipient: &dyn age::Recipient| -> Result<Vec<u8>, KeyError> {
            let failed = |e: &dyn fmt::Display| KeyError::Seal(e.to_string());
            let encryptor =
                age::Encryptor::with_recipients(std::iter::once(recipient)).map_err(|e| failed(&e))?;
            let mut sealed = Vec::new();
            let mut writer = encryptor.wrap_output(&mut sealed).map_err(|e| failed(&e))?;
            writer.write_all(plain).and_then(|()| writer.finish()).map_err(|e| failed(&e))?;
            Ok(sealed)
        };
        match self {
            Self::Recipient { recipient, .. } => {
                let parsed = age::x25519::Recipient::from_str(recipient.trim());
                seal(&parsed.map_err(|why| KeyError::BadRecipient(recipient.clone(), why))?)
            }
            Self::Passphrase { passphrase, work, .. } => {
                if passphrase.expose_secret().chars().count() < SHORTEST {
                    return Err(KeyError::ShortPassphrase(SHORTEST));
                }
                let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(work.unwrap_or(WORK).clamp(1, MOST_WORK));
                seal(&recipient)
            }
        }
    }
}

/// How a slot is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotKind {
    /// With an identity.
    Recipient,
    /// With a passphrase.
    Passphrase,
}

/// The first line of a slot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct SlotHead {
    #[serde(rename = "everhold-key")]
    version: u32,
    vault: VaultId,
    kind: SlotKind,
    label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<String>,
    made: Timestamp,
}

/// A slot that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The object's name without `k/`.
    pub id: String,
    /// How it is opened.
    pub kind: SlotKind,
    /// Whose it is.
    pub label: String,
    /// The recipient it is for.
    pub recipient: Option<String>,
    /// When it was made.
    pub made: Timestamp,
}

/// What opens a slot.
#[derive(Clone)]
pub enum Unlock {
    /// The text of a recovery kit, or any identity file of `age`.
    Kit(SecretString),
    /// A passphrase.
    Passphrase(SecretString),
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kit(_) => "Kit(…)",
            Self::Passphrase(_) => "Passphrase(…)",
        })
    }
}

impl Unlock {
    fn identities(&self) -> Result<Vec<Box<dyn age::Identity>>, KeyError> {
        match self {
            Self::Passphrase(passphrase) => {
                let mut identity = age::scrypt::Identity::new(passphrase.clone());
                identity.set_max_work_factor(MOST_WORK);
                Ok(vec![Box::new(identity)])
            }
            Self::Kit(text) => kit::identities(text.expose_secret()),
        }
    }

    /// The fingerprints of which the data key must have one; none if any key is taken.
    fn fingerprints(&self) -> Result<Vec<Fingerprint>, KeyError> {
        match self {
            Self::Passphrase(_) => Ok(Vec::new()),
            Self::Kit(text) => kit::fingerprints(text.expose_secret()),
        }
    }

    /// Whether what it opens can only be the vault that is meant. An identity alone opens what anybody has sealed for it;
    /// for a passphrase, only who knows it can seal.
    pub fn can_tell(&self) -> bool {
        match self {
            Self::Passphrase(_) => true,
            Self::Kit(_) => self.fingerprints().is_ok_and(|fingerprints| !fingerprints.is_empty()),
        }
    }

    fn fits(&self, kind: SlotKind) -> bool {
        matches!(
            (self, kind),
            (Self::Kit(_), SlotKind::Recipient) | (Self::Passphrase(_), SlotKind::Passphrase)
        )
    }
}

/// Puts the key into one more slot.
pub fn add_slot(
    store: &dyn Store,
    vault: VaultId,
    key: &DataKey,
    slot: &NewSlot,
    made: Timestamp,
    random: &dyn SecureRandom,
) -> Result<Slot, KeyError> {
    let hex = |bytes: &[u8]| Zeroizing::new(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>());
    let plain = Zeroizing::new(format!("{PLAIN}\n{vault}\n{}\n", hex(&key.0).as_str()));
    let head = slot.head(vault, made);
    let mut body = serde_json::to_vec(&head).map_err(|e| KeyError::Seal(e.to_string()))?;
    body.push(b'\n');
    body.extend(slot.seal(plain.as_bytes())?);
    let body = Bytes::from(body);
    loop {
        let mut id = [0; 8];
        random.fill(&mut id).map_err(|_| KeyError::Random)?;
        let id = hex(&id).to_string();
        if store.create(&format!("{SLOTS}{id}"), body.clone())? == Created::New {
            let SlotHead { kind, label, recipient, made, .. } = head;
            return Ok(Slot { id, kind, label, recipient, made });
        }
    }
}

/// All objects of slots: the id, and the head and the rest of the body if it is one.
type Bodies = Vec<(String, Option<(SlotHead, Bytes)>)>;

fn bodies(store: &dyn Store) -> Result<Bodies, KeyError> {
    let mut bodies = Vec::new();
    for object in store.list(SLOTS)? {
        let body = match store.read(&object.name, None) {
            Ok(body) => body,
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e.into()),
        };
        let end = body.iter().position(|b| *b == b'\n');
        let parsed =
            end.and_then(|end| Some((serde_json::from_slice(&body[..end]).ok()?, body.slice(end + 1..))));
        bodies.push((object.name[SLOTS.len()..].to_owned(), parsed));
    }
    Ok(bodies)
}

/// The slots of a vault.
pub fn slots(store: &dyn Store, vault: VaultId) -> Result<Vec<Slot>, KeyError> {
    let ours = bodies(store)?.into_iter().filter_map(|(id, body)| Some((id, body?.0)));
    let slot = |(id, head): (String, SlotHead)| {
        let SlotHead { kind, label, recipient, made, .. } = head;
        Slot { id, kind, label, recipient, made }
    };
    Ok(ours.filter(|(_, head)| head.vault == vault).map(slot).collect())
}

/// Removes a slot, unless it is the last. Who opened the vault with it may still have the key.
pub fn remove_slot(store: &dyn Store, vault: VaultId, id: &str) -> Result<(), KeyError> {
    let slots = slots(store, vault)?;
    if slots.iter().all(|slot| slot.id == id) && !slots.is_empty() {
        return Err(KeyError::LastSlot(id.to_owned()));
    }
    Ok(store.delete(&format!("{SLOTS}{id}"))?)
}

/// Opens any one slot of a vault. What a recovery kit's fingerprint does not fit is never taken.
pub fn unlock(store: &dyn Store, vault: VaultId, with: &Unlock) -> Result<DataKey, KeyError> {
    let (identities, says) = (with.identities()?, with.fingerprints()?);
    let (mut slots, mut damaged, mut exchanged) = (0, 0, None);
    for (id, body) in bodies(store)? {
        let Some((head, sealed)) = body else {
            (slots, damaged) = (slots + 1, damaged + 1);
            continue;
        };
        // One of a creation that another one overtook.
        if head.vault != vault {
            continue;
        }
        slots += 1;
        if !with.fits(head.kind) {
            continue;
        }
        match open_slot(vault, &sealed, &identities) {
            Ok(Some(key)) => {
                let found = key.fingerprint(vault);
                if says.is_empty() || says.contains(&found) {
                    return Ok(key);
                }
                // Who puts a slot beside the right one does not keep anybody out.
                tracing::warn!(slot = id, %found, "a key slot holds another key than the recovery kit is for");
                exchanged = Some(found);
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(slot = id, why, "a key slot is damaged");
                damaged += 1;
            }
        }
    }
    if let Some(found) = exchanged {
        return Err(KeyError::Exchanged { says, found });
    }
    let what = match with {
        Unlock::Kit(_) => "recovery kit",
        Unlock::Passphrase(_) => "passphrase",
    };
    Err(KeyError::NoneOpens { slots, damaged, what })
}

/// Opens one slot; `None` if it is for another identity.
fn open_slot(
    vault: VaultId,
    sealed: &[u8],
    with: &[Box<dyn age::Identity>],
) -> Result<Option<DataKey>, String> {
    use age::DecryptError as E;
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|e| e.to_string())?;
    let mut reader = match decryptor.decrypt(with.iter().map(AsRef::as_ref)) {
        Ok(reader) => reader,
        // A wrong passphrase is told as the last of these.
        Err(E::NoMatchingKeys | E::KeyDecryptionFailed | E::DecryptionFailed) => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut plain = Zeroizing::new(String::with_capacity(256));
    reader.read_to_string(&mut plain).map_err(|e| e.to_string())?;
    let mut lines = plain.lines();
    if lines.next() != Some(PLAIN) || lines.next().and_then(|l| l.parse().ok()) != Some(vault) {
        return Err("it holds something else".to_owned());
    }
    let key = lines.next().and_then(unhex).map(DataKey::from_bytes);
    key.map(Some).ok_or_else(|| "the key in it is not whole".to_owned())
}

/// The vault and the label in the first line of a slot.
pub(crate) fn head(body: &[u8]) -> Option<(VaultId, String)> {
    let end = body.iter().position(|byte| *byte == b'\n')?;
    serde_json::from_slice::<SlotHead>(&body[..end]).ok().map(|head| (head.vault, head.label))
}

/// What is wrong with a slot, as far as can be told without what opens it.
pub(crate) fn look_at_slot(body: &[u8]) -> Result<(), String> {
    let end = body.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    serde_json::from_slice::<SlotHead>(&body[..end]).map_err(|error| error.to_string())?;
    age::Decryptor::new_buffered(&body[end + 1..]).map(drop).map_err(|error| error.to_string())
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use ring::rand::SystemRandom;

    fn made() -> Timestamp {
        "2025-01-02T03:04:05Z".parse().unwrap()
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    fn passphrase(text: &str) -> NewSlot {
        NewSlot::Passphrase { passphrase: secret(text), label: "ops".to_owned(), work: Some(4) }
    }

    #[test]
    fn any_one_slot_opens_the_vault() {
        let (store, random) = (MemoryStore::new(), SystemRandom::new());
        let (vault, key) = (VaultId::draw(&random).unwrap(), DataKey::draw(&random).unwrap());
        let (kit, stranger) = (RecoveryKit::draw(), RecoveryKit::draw());
        let add = |slot: &NewSlot| add_slot(&store, vault, &key, slot, made(), &random).unwrap();
        let first = add(&NewSlot::for_kit(&kit));
        let second = add(&passphrase("correct horse battery"));
        assert_eq!(slots(&store, vault).unwrap().len(), 2);

        let text = kit.text("home", vault, &key, "s3://b/x", made());
        for with in [Unlock::Kit(secret(&text)), Unlock::Passphrase(secret("correct horse battery"))] {
            assert_eq!(unlock(&store, vault, &with).unwrap().expose(), key.expose());
        }
        let other = stranger.text("x", vault, &key, "y", made());
        for (with, what) in [
            (Unlock::Kit(secret(&other)), "recovery kit"),
            (Unlock::Passphrase(secret("wrong")), "passphrase"),
        ] {
            let error = unlock(&store, vault, &with).unwrap_err().to_string();
            assert_eq!(error, format!("none of the vault's 2 key slots opens with this {what}"));
        }
        // Another vault's slots are not looked at.
        let elsewhere = unlock(&store, VaultId([7; 16]), &Unlock::Kit(secret(&text)));
        assert!(matches!(elsewhere, Err(KeyError::NoneOpens { slots: 0, .. })));

        remove_slot(&store, vault, &first.id).unwrap();
        assert!(unlock(&store, vault, &Unlock::Kit(secret(&text))).is_err());
        assert!(matches!(remove_slot(&store, vault, &second.id), Err(KeyError::LastSlot(_))));
    }

    #[test]
    fn a_damaged_slot_is_told_and_does_not_hinder_others() {
        let (store, random) = (MemoryStore::new(), SystemRandom::new());
        let (vault, key, kit) = (VaultId([1; 16]), DataKey::draw(&random).unwrap(), RecoveryKit::draw());
        let slot = add_slot(&store, vault, &key, &NewSlot::for_kit(&kit), made(), &random).unwrap();
        let name = format!("k/{}", slot.id);
        let unlock = || unlock(&store, vault, &Unlock::Kit(secret(&kit.text("x", vault, &key, "y", made()))));
        let length = store.objects()[&name].len();
        for at in 0..length {
            store.corrupt(&name, at);
            // A bit of the label may be another one, never one of the key.
            if let Ok(found) = unlock() {
                assert_eq!(found.expose(), key.expose());
            }
            store.corrupt(&name, at);
        }
        store.corrupt(&name, length - 1);
        assert!(unlock().unwrap_err().to_string().contains("1 of them can't be read"));
        add_slot(&store, vault, &key, &NewSlot::for_kit(&kit), made(), &random).unwrap();
        assert_eq!(unlock().unwrap().expose(), key.expose());
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = DataKey::from_bytes([0x5a; 32]);
        let kit = RecoveryKit::draw();
        let printed = format!(
            "{key:?} {kit:?} {:?} {:?}",
            Unlock::Passphrase(secret("hunter2hunter2")),
            passphrase("hunter2hunter2")
        );
        for hidden in ["5a5a", "90, 90", "AGE-SECRET", "hunter2"] {
            assert!(!printed.contains(hidden), "{printed}");
        }
    }

    #[test]
    fn bad_slots_are_refused() {
        let slot = NewSlot::Recipient { recipient: "ssh-ed25519 AAAA".to_owned(), label: String::new() };
        assert!(matches!(slot.seal(b"x"), Err(KeyError::BadRecipient(..))));
        assert!(matches!(passphrase("short").seal(b"x"), Err(KeyError::ShortPassphrase(_))));
    }

    #[test]
    fn derived_keys_differ_and_stay_the_same() {
        let key = DataKey::from_bytes([1; 32]);
        assert_eq!(key.derive("a"), blake3::derive_key("a", &[1; 32]));
        assert_ne!(key.derive("a"), key.derive("b"));
    }
}
