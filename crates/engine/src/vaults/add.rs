//! Vaults that become known: made in an empty place, opened where there is one, or reached in another way.

use super::open::ClaimCell;
use super::{FormatError, Known, OpenVault, VaultAccess, VaultError, VaultRecord, VaultView, Vaults};
use crate::Result;
use crate::engine::lock;
use jiff::Timestamp;
use model::VaultName;
use ring::rand::SystemRandom;
use std::sync::{Arc, Mutex};
use vault::Store;
use vault::descriptor::{self, Descriptor};
use vault::format::Keys;
use vault::keys::{NewSlot, RecoveryKit, SecretString, Unlock, VaultId};
use vault::url::Location;
use zeroize::Zeroizing;

/// A vault to be added.
#[derive(Debug, Clone)]
pub struct VaultAdd {
    /// Its name on this host.
    pub name: VaultName,
    /// Where it is.
    pub url: Location,
    /// How it is reached.
    pub access: VaultAccess,
    /// Recipients of `age` that can open a new vault besides the recovery kit.
    pub recipients: Vec<String>,
    /// Opens an existing vault, or becomes a slot of a new one.
    pub passphrase: Option<SecretString>,
    /// The text of a recovery kit or of an identity file of `age`; opens an existing vault.
    pub kit: Option<SecretString>,
    /// Become its writer in another host's place.
    pub take_over: bool,
    /// Never write to it.
    pub read_only: bool,
}

/// What adding a vault did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultChange {
    /// There was nothing, and a vault was made.
    Created,
    /// The vault that was there is known now.
    Opened,
    /// It was known, and is reached in another way now.
    Changed,
    /// It was known, and this host is its writer now.
    TakenOver,
    /// Nothing had to be done.
    AlreadyThere,
}

/// The answer to adding a vault.
#[derive(Debug)]
pub struct VaultAdded {
    /// What was done.
    pub change: VaultChange,
    /// The vault.
    pub vault: VaultView,
    /// The recovery kit of a vault that was made. It is kept nowhere.
    pub kit: Option<Zeroizing<String>>,
    /// What could not be told of a vault that was opened.
    pub notes: Vec<String>,
}

impl Vaults {
    /// Makes a vault in an empty place, or opens the one that is there.
    ///
    /// # Errors
    /// A place that can't be used, a key that does not open, another writer; nothing is recorded then.
    pub fn add(&self, add: VaultAdd) -> Result<VaultAdded> {
        if let Some(problem) = add.access.problem(&add.url) {
            return Err(VaultError::Invalid(problem).into());
        }
        if add.take_over && add.read_only {
            return Err(VaultError::Invalid(
                "to take a vault over is to write to it: not with --read-only".into(),
            )
            .into());
        }
        let _one = lock(&self.changing);
        if let Some(known) = self.find(&add.name) {
            return self.add_again(&known, &add);
        }
        let may_create = add.kit.is_none() && !add.read_only;
        let store = self.store(&add.url, &add.access, may_create)?;
        match Descriptor::read(&*store) {
            Ok(there) => self.add_existing(&add, &store, &there),
            Err(FormatError::NoVault { .. }) if may_create => self.add_new(&add, &store),
            Err(error) => Err(VaultError::from(error).into()),
        }
    }

    fn add_new(&self, add: &VaultAdd, store: &Arc<dyn Store>) -> Result<VaultAdded> {
        let (kit, now) = (RecoveryKit::draw(), self.clock.now());
        let mut slots = vec![NewSlot::for_kit(&kit)];
        slots.extend(add.recipients.iter().map(|recipient| NewSlot::Recipient {
            recipient: recipient.clone(),
            label: "recipient".to_owned(),
        }));
        slots.extend(add.passphrase.iter().map(|passphrase| NewSlot::Passphrase {
            passphrase: passphrase.clone(),
            label: "passphrase".to_owned(),
            work: None,
        }));
        let made =
            descriptor::create(&**store, &slots, now, &SystemRandom::new()).map_err(VaultError::from)?;
        let id = made.descriptor.id;
        self.files.write_key(&add.name, id, &made.key)?;
        let known = self.put(record(add, id, now), ClaimCell::default())?;
        tracing::info!(vault = %add.name, url = %add.url, %id, "a vault was made");
        // So that who comes to the same place later is told. It is claimed again before the first write.
        if let Err(error) = self.open_known(&known, true).and_then(|open| Ok(open.writable()?)) {
            tracing::warn!(vault = %add.name, %error, "the new vault is not claimed yet");
        }
        let text = kit.text(add.name.as_str(), id, &made.key, &add.url.to_string(), now);
        Ok(VaultAdded {
            change: VaultChange::Created,
            vault: known.view(),
            kit: Some(text),
            notes: Vec::new(),
        })
    }

    fn add_existing(&self, add: &VaultAdd, store: &Arc<dyn Store>, there: &Descriptor) -> Result<VaultAdded> {
        let url = add.url.to_string();
        if let Some(known) = lock(&self.known).values().find(|known| known.record.id == there.id) {
            return Err(VaultError::Known { url, known: known.record.name.clone() }.into());
        }
        let unlock = match (&add.kit, &add.passphrase) {
            (Some(kit), _) => Unlock::Kit(kit.clone()),
            (None, Some(passphrase)) => Unlock::Passphrase(passphrase.clone()),
            (None, None) => {
                return Err(VaultError::Locked { url, id: there.id, created: there.created }.into());
            }
        };
        if !add.recipients.is_empty() {
            let why = "there is a vault already: recipients are for one that is made; add it without them";
            return Err(VaultError::Invalid(why.into()).into());
        }
        let opened = descriptor::open(&**store, &unlock).map_err(VaultError::from)?;
        let id = opened.descriptor.id;
        let claim = ClaimCell::default();
        if !add.read_only {
            let candidate = OpenVault {
                name: add.name.clone(),
                vault_id: id.0,
                store: Arc::clone(store),
                keys: Keys::new(opened.key.expose()),
                read_only: false,
                same_disk: None,
                data_key: opened.key.clone(),
                me: self.me.clone(),
                clock: Arc::clone(&self.clock),
                claim: Arc::clone(&claim),
                inventoried: Mutex::default(),
                shelving: Mutex::default(),
            };
            if add.take_over { candidate.take_over().map(drop) } else { candidate.writable().map(drop) }?;
        }
        self.files.write_key(&add.name, id, &opened.key)?;
        let known = self.put(record(add, id, self.clock.now()), claim)?;
        if let Err(error) = self.open_known(&known, true) {
            tracing::warn!(vault = %add.name, %error, "the vault was added and has gone");
        }
        tracing::info!(vault = %add.name, url, %id, read_only = add.read_only, "a vault was opened");
        let mut notes = Vec::new();
        if !unlock.can_tell() {
            let fingerprint = opened.key.fingerprint(id);
            tracing::warn!(
                vault = %add.name, %fingerprint,
                "what the vault was opened with has no fingerprint: another vault in its place could not be told"
            );
            notes.push(format!(
                "what it was opened with has no line `# fingerprint: …` (kits of earlier versions and identity files of age \
                 have none), so whether another vault was put in its place can't be told. The fingerprint of this one is \
                 {fingerprint}: compare it with what `everhold vault check` says on a host that knows the vault"
            ));
            if !add.read_only {
                notes.push(format!("`everhold vault kit {}` prints a kit with the fingerprint", add.name));
            }
        }
        Ok(VaultAdded { change: VaultChange::Opened, vault: known.view(), kit: None, notes })
    }

    /// The name is known: the same vault reached in the same way, in another way, or another vault.
    fn add_again(&self, known: &Arc<Known>, add: &VaultAdd) -> Result<VaultAdded> {
        let old = &known.record;
        let new = VaultRecord {
            id: old.id,
            added: old.added,
            has_kit: old.has_kit,
            ..record(add, old.id, old.added)
        };
        let (mut known, mut change) = (Arc::clone(known), VaultChange::AlreadyThere);
        if new != *old {
            if new.url != old.url || new.access != old.access {
                let key = self.files.read_key(&old.name, old.id)?;
                let store = self.store(&new.url, &new.access, false)?;
                match Descriptor::read(&*store) {
                    Ok(there) if there.id == old.id => {
                        there.check(store.url(), &key).map_err(VaultError::from)?;
                    }
                    Ok(_) | Err(FormatError::NoVault { .. }) => {
                        return Err(VaultError::OtherPlace {
                            name: old.name.clone(),
                            url: old.url.to_string(),
                        }
                        .into());
                    }
                    Err(error) => return Err(VaultError::from(error).into()),
                }
            }
            let claim = Arc::clone(&known.claim);
            known = self.put(new, claim)?;
            change = VaultChange::Changed;
            if let Err(error) = self.open_known(&known, true) {
                tracing::warn!(vault = %add.name, %error, "the vault was changed and can't be opened");
            }
        }
        if add.take_over && self.open_known(&known, true)?.take_over()? {
            change = VaultChange::TakenOver;
        }
        Ok(VaultAdded { change, vault: known.view(), kit: None, notes: Vec::new() })
    }
}

fn record(add: &VaultAdd, id: VaultId, added: Timestamp) -> VaultRecord {
    VaultRecord {
        name: add.name.clone(),
        url: add.url.clone(),
        id,
        added,
        access: add.access.clone(),
        read_only: add.read_only,
        // Whoever made or opened it here has something that opens it.
        has_kit: true,
    }
}
