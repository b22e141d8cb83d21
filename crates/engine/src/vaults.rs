//! The vaults that this host knows: added, opened, claimed, checked, forgotten.
//!
//! A vault may be absent at any time; nothing here keeps the daemon from starting or answering. Listing never waits for one.

mod check;
mod error;
mod files;
mod open;
mod record;

pub use check::VaultChecked;
pub use error::VaultError;
pub use open::OpenVault;
pub use record::{VaultAccess, VaultRecord};

use crate::engine::{Engine, lock};
use crate::{Catalog, Clock, Error, Result, Settings};
use files::Files;
use jiff::Timestamp;
use model::VaultName;
use open::{ClaimCell, Me};
use ring::rand::SystemRandom;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vault::claim::Epoch;
use vault::descriptor::{self, DESCRIPTOR, Descriptor, VaultError as FormatError};
use vault::format::Keys;
use vault::keys::{self, NewSlot, RecoveryKit, SecretString, Slot, Unlock, VaultId};
use vault::store::{AbsentStore, Environment, Reserve};
use vault::url::{Location, OpenOptions};
use vault::{Abilities, Store};
use zeroize::Zeroizing;

/// The vault that is there from the start.
const LOCAL: &str = "local";
/// That it was made once; when the operator has forgotten it, it does not come back.
const LOCAL_MADE: &str = "local-vault-made";
/// Who can open the first slot of the vault that is there from the start.
const NOBODY: &str = "nobody: the vault was made unattended";

/// A vault that is well is looked at this often.
const LOOK: Duration = Duration::from_secs(60);
/// One that is not reachable is tried again after this, and then more and more seldom.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How often it is seen which vault is due.
const TICK: Duration = Duration::from_secs(1);

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

/// How a vault stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultState {
    /// It can be read and, as far as is known, written.
    Ok,
    /// It can be read, and was added to be read only.
    ReadOnly,
    /// It has not been reached yet since the start.
    Opening,
    /// It can't be reached.
    Unreachable,
    /// Another host writes to it.
    Refused,
    /// It can be reached and not be used: another vault is there, it is damaged, its key is gone.
    Failed,
}

/// How a vault stands, as last seen.
#[derive(Debug, Clone)]
pub struct VaultView {
    /// Its record.
    pub record: VaultRecord,
    /// How it stands.
    pub state: VaultState,
    /// Since when it is not reachable or not usable.
    pub since: Option<Timestamp>,
    /// What is wrong, in words.
    pub problem: Option<String>,
    /// What would be lost together with it, in words.
    pub warning: Option<String>,
    /// The epoch in which this host writes.
    pub epoch: Option<Epoch>,
    /// What its store can do, as last tried.
    pub abilities: Option<Abilities>,
    /// Bytes in it, as last counted.
    pub used: Option<u64>,
}

#[derive(Debug, Default)]
struct Health {
    open: Option<Arc<OpenVault>>,
    /// Since when, in words, and whether trying again may help.
    trouble: Option<(Timestamp, String, bool)>,
    tries: u32,
    due: Option<Instant>,
    abilities: Option<Abilities>,
    used: Option<u64>,
}

struct Known {
    record: VaultRecord,
    /// Held while it is being opened.
    opening: Mutex<()>,
    health: Mutex<Health>,
    claim: ClaimCell,
    looking: AtomicBool,
}

impl Known {
    fn new(record: VaultRecord, claim: ClaimCell) -> Arc<Self> {
        Arc::new(Self {
            record,
            opening: Mutex::default(),
            health: Mutex::default(),
            claim,
            looking: AtomicBool::new(false),
        })
    }

    fn view(&self) -> VaultView {
        let health = lock(&self.health);
        let refused = health.open.as_ref().and_then(|open| open.refused());
        let (state, since, problem) = match (&health.trouble, refused, &health.open) {
            (Some((since, why, again)), ..) => {
                let state = if *again { VaultState::Unreachable } else { VaultState::Failed };
                (state, Some(*since), Some(why.clone()))
            }
            (None, Some(VaultError::AnotherWriter { ref by, .. }), _) if !self.record.read_only => {
                let since = by.since;
                (VaultState::Refused, Some(since), refused_words(&health))
            }
            (None, Some(_), _) => (VaultState::Refused, None, refused_words(&health)),
            (None, None, None) => (VaultState::Opening, None, None),
            (None, None, Some(_)) if self.record.read_only => (VaultState::ReadOnly, None, None),
            (None, None, Some(_)) => (VaultState::Ok, None, None),
        };
        VaultView {
            record: self.record.clone(),
            state,
            since,
            problem,
            warning: health.open.as_ref().and_then(|open| open.same_disk.clone()),
            epoch: health.open.as_ref().and_then(|open| open.epoch()),
            abilities: health.abilities.clone(),
            used: health.used,
        }
    }
}

fn refused_words(health: &Health) -> Option<String> {
    health.open.as_ref().and_then(|open| open.refused()).map(|error| error.to_string())
}

/// The vaults of this host.
pub struct Vaults {
    state: PathBuf,
    pools: Vec<(String, PathBuf)>,
    files: Files,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    environment: Environment,
    me: Me,
    /// Held while one is added or forgotten.
    changing: Mutex<()>,
    known: Mutex<BTreeMap<VaultName, Arc<Known>>>,
}

impl Vaults {
    pub(crate) fn load(
        settings: &Settings,
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        boot_id: &str,
    ) -> Result<Self> {
        let files = Files::new(&settings.state);
        let mut known = BTreeMap::new();
        for (name, bytes) in catalog.vaults() {
            let record = VaultRecord::decode(&bytes).map_err(|why| Error::CatalogDamaged {
                path: settings.catalog(),
                why: format!("the record of the vault {name}: {why}"),
            })?;
            known.insert(record.name.clone(), Known::new(record, ClaimCell::default()));
        }
        let me = Me { node: files.node_id()?, host: linux::host::hostname(), boot_id: boot_id.to_owned() };
        let vaults = Self {
            state: settings.state.clone(),
            pools: settings.pools.iter().map(|pool| (pool.name.to_string(), pool.path.clone())).collect(),
            catalog,
            clock,
            environment: Environment::of_process(),
            me,
            changing: Mutex::default(),
            known: Mutex::new(known),
            files,
        };
        // What a lost catalog, or a crash before it was written, has left.
        for record in vaults.files.records() {
            if vaults.find(&record.name).is_none() {
                tracing::warn!(vault = %record.name, "the vault was not in the catalog, and is now");
                vaults.put(record, ClaimCell::default())?;
            }
        }
        Ok(vaults)
    }

    /// This host's identity as a writer.
    pub fn node(&self) -> &str {
        &self.me.node
    }

    fn find(&self, name: &VaultName) -> Option<Arc<Known>> {
        lock(&self.known).get(name).cloned()
    }

    fn get(&self, name: &VaultName) -> Result<Arc<Known>> {
        self.find(name).ok_or_else(|| {
            let known = lock(&self.known).keys().map(ToString::to_string).collect();
            VaultError::NoSuch { name: name.clone(), known }.into()
        })
    }

    /// Describes it, then records it, then knows it.
    fn put(&self, record: VaultRecord, claim: ClaimCell) -> Result<Arc<Known>> {
        let text = record.encode().map_err(VaultError::Invalid)?;
        self.files.write_record(&record, &text)?;
        self.catalog.put_vault(record.name.as_str(), &text)?;
        let known = Known::new(record, claim);
        lock(&self.known).insert(known.record.name.clone(), Arc::clone(&known));
        Ok(known)
    }

    /// The vaults by name, as last seen; never waits for one.
    pub fn list(&self) -> Vec<VaultView> {
        lock(&self.known).values().map(|known| known.view()).collect()
    }

    /// The vault of that name, open. One that could not be reached just now is not tried again at once.
    ///
    /// # Errors
    /// [`VaultError::NoSuch`], [`VaultError::Unreachable`], and what else keeps a vault from being opened.
    pub fn open(&self, name: &VaultName) -> Result<Arc<OpenVault>> {
        self.open_known(&*self.get(name)?, false)
    }

    /// Whether it could be reached when it was last looked at; never waits for it.
    pub(crate) fn is_there(&self, name: &VaultName) -> bool {
        self.find(name).is_some_and(|known| {
            let health = lock(&known.health);
            health.open.is_some() && health.trouble.is_none()
        })
    }

    /// What this host itself knows of a vault that is away: its keys and its identity, with a store that says that it is away.
    ///
    /// # Errors
    /// [`VaultError::NoSuch`], [`VaultError::KeptKey`].
    pub(crate) fn away(&self, name: &VaultName) -> Result<(Arc<dyn Store>, Keys, VaultId)> {
        let known = self.get(name)?;
        let record = &known.record;
        let key = self.files.read_key(name, record.id)?;
        let store = AbsentStore::new(record.url.to_string(), format!("the vault {name} is away"));
        Ok((Arc::new(store), Keys::new(key.expose()), record.id))
    }

    fn open_known(&self, known: &Known, at_once: bool) -> Result<Arc<OpenVault>> {
        let waiting = || {
            let health = lock(&known.health);
            match (&health.open, &health.trouble) {
                (Some(open), _) => Some(Ok(Arc::clone(open))),
                (None, Some((since, why, _)))
                    if !at_once && health.due.is_some_and(|due| due > Instant::now()) =>
                {
                    let (since, why) = (*since, why.clone());
                    Some(Err(VaultError::Unreachable { name: known.record.name.clone(), since, why }.into()))
                }
                _ => None,
            }
        };
        if let Some(answer) = waiting() {
            return answer;
        }
        let _opening = lock(&known.opening);
        if let Some(answer) = waiting() {
            return answer;
        }
        let opened = self.try_open(known);
        let mut health = lock(&known.health);
        match opened {
            Ok(open) => {
                let open = Arc::new(open);
                health.open = Some(Arc::clone(&open));
                self.well(known, &mut health);
                Ok(open)
            }
            Err(error) => {
                self.unwell(known, &mut health, &error);
                Err(error.into())
            }
        }
    }

    fn try_open(&self, known: &Known) -> std::result::Result<OpenVault, VaultError> {
        let record = &known.record;
        let data_key = self.files.read_key(&record.name, record.id)?;
        let store = self.store(&record.url, &record.access, false)?;
        let descriptor = Descriptor::read(&*store)?;
        if descriptor.id != record.id {
            return Err(VaultError::OtherPlace {
                name: record.name.clone(),
                url: format!(
                    "{} no more: the vault there is {}, not {}",
                    record.url, descriptor.id, record.id
                ),
            });
        }
        descriptor.check(store.url(), &data_key)?;
        Ok(OpenVault {
            name: record.name.clone(),
            vault_id: record.id.0,
            keys: Keys::new(data_key.expose()),
            read_only: record.read_only,
            same_disk: self.same_disk(&record.url),
            store,
            data_key,
            me: self.me.clone(),
            clock: Arc::clone(&self.clock),
            claim: Arc::clone(&known.claim),
            inventoried: Mutex::default(),
        })
    }

    fn store(
        &self,
        url: &Location,
        access: &VaultAccess,
        create: bool,
    ) -> std::result::Result<Arc<dyn Store>, VaultError> {
        // Where the pools are, the vault leaves them what they keep in reserve.
        let shared = matches!(url, Location::Dir(path) if self.shares(path).is_some());
        let reserve = if shared { Reserve::Percent(5) } else { Reserve::Bytes(0) };
        let options = OpenOptions { create, reserve, s3: access.options(&self.environment) };
        Ok(Arc::from(vault::url::open(url, &options)?))
    }

    /// What has the same file system as this directory, in words.
    fn shares(&self, path: &Path) -> Option<String> {
        // The directory, or what it will be made in.
        let device =
            |path: &Path| path.ancestors().find_map(|at| std::fs::metadata(at).ok()).map(|m| m.dev());
        let own = device(path)?;
        let pool = self.pools.iter().find(|(_, pool)| device(pool) == Some(own));
        match pool {
            Some((name, _)) => Some(format!("the pool {name}")),
            None => (device(&self.state) == Some(own)).then(|| "the state directory".to_owned()),
        }
    }

    fn same_disk(&self, url: &Location) -> Option<String> {
        let Location::Dir(path) = url else { return None };
        let what = self.shares(path)?;
        Some(format!(
            "it is on the same disk as {what}: it does not survive the loss of that disk; add a vault elsewhere with \
             `everhold vault add`"
        ))
    }

    fn well(&self, known: &Known, health: &mut Health) {
        if let Some((since, ..)) = health.trouble.take() {
            tracing::info!(vault = %known.record.name, %since, "the vault is reachable again");
        }
        health.tries = 0;
        health.due = Some(Instant::now() + LOOK);
    }

    fn unwell(&self, known: &Known, health: &mut Health, error: &VaultError) {
        // An empty mount point looks like a directory without a vault.
        let again =
            error.store().is_some() || matches!(error, VaultError::Format(FormatError::NoVault { .. }));
        let since = health.trouble.as_ref().map_or_else(|| self.clock.now(), |(since, ..)| *since);
        if health.trouble.is_none() {
            tracing::warn!(vault = %known.record.name, %error, "the vault can't be used");
        }
        health.trouble = Some((since, error.to_string(), again));
        health.due = Some(Instant::now() + LONGEST_RETRY.min(RETRY * 2_u32.pow(health.tries.min(6))));
        health.tries += 1;
    }

    /// Looks at a vault: opens it, or sees whether it is still there and this host still its writer.
    fn look(&self, known: &Known) {
        let Ok(open) = self.open_known(known, true) else { return };
        let seen = match open.epoch() {
            Some(epoch) => open.confirm(epoch),
            None => match open.store.size(DESCRIPTOR) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(FormatError::NoVault { url: open.store.url().to_owned() }.into()),
                Err(error) => Err(error.into()),
            },
        };
        let mut health = lock(&known.health);
        match seen {
            Err(error) if error.store().is_some() || matches!(error, VaultError::Format(_)) => {
                self.unwell(known, &mut health, &error);
            }
            // Another writer is in the claim.
            _ => self.well(known, &mut health),
        }
    }

    /// Makes the vault that is there from the start, once in the life of this state directory.
    ///
    /// # Errors
    /// A directory that can't be written; one that is there and no vault of ours.
    pub fn make_local(&self) -> Result<()> {
        let _one = lock(&self.changing);
        if self.catalog.is_marked(LOCAL_MADE)? {
            return Ok(());
        }
        let name: VaultName =
            LOCAL.parse().map_err(|error: model::NameError| Error::Invalid(error.to_string()))?;
        if self.find(&name).is_none() {
            let dir = self.state.join("vault-local");
            let id = match dir.join(DESCRIPTOR).exists() {
                // A crash came between.
                true => {
                    Descriptor::read(&*self.store(
                        &Location::Dir(dir.clone()),
                        &VaultAccess::default(),
                        false,
                    )?)
                    .map_err(VaultError::from)?
                    .id
                }
                false => self.new_local(&name, &dir)?,
            };
            self.files.read_key(&name, id)?;
            let (added, access) = (self.clock.now(), VaultAccess::default());
            let url = Location::Dir(dir);
            let record = VaultRecord { name, url, id, added, access, read_only: false, has_kit: false };
            let known = self.put(record, ClaimCell::default())?;
            let open = self.open_known(&known, true)?;
            tracing::info!(
                vault = LOCAL,
                url = open.store.url(),
                "a vault was made; `everhold vault kit local` prints a recovery kit"
            );
        }
        self.catalog.mark(LOCAL_MADE)?;
        Ok(())
    }

    fn new_local(&self, name: &VaultName, dir: &Path) -> Result<VaultId> {
        let failed = |op: &'static str, path: &Path, source| {
            Error::Kernel(linux::KernelError { op, path: Some(path.to_owned()), source })
        };
        // Under another name until its key is kept.
        let unfinished = dir.with_extension("new");
        match std::fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove", &unfinished, error));
            }
            _ => {}
        }
        let store = self.store(&Location::Dir(unfinished.clone()), &VaultAccess::default(), true)?;
        let kit = RecoveryKit::draw();
        let slot = NewSlot::Recipient { recipient: kit.recipient(), label: NOBODY.to_owned() };
        let made = descriptor::create(&*store, &[slot], self.clock.now(), &SystemRandom::new())
            .map_err(VaultError::from)?;
        self.files.write_key(name, made.descriptor.id, &made.key)?;
        std::fs::rename(&unfinished, dir).map_err(|error| failed("rename", dir, error))?;
        std::fs::File::open(&self.state)
            .and_then(|state| state.sync_all())
            .map_err(|error| failed("sync", &self.state, error))?;
        Ok(made.descriptor.id)
    }

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

    /// One more recovery kit of a vault. It is kept nowhere.
    ///
    /// # Errors
    /// A vault that can't be written.
    pub fn kit(&self, name: &VaultName) -> Result<Zeroizing<String>> {
        let _one = lock(&self.changing);
        let known = self.get(name)?;
        if known.record.read_only {
            return Err(VaultError::ReadOnly { name: name.clone() }.into());
        }
        let open = self.open_known(&known, true)?;
        let (kit, now) = (RecoveryKit::draw(), self.clock.now());
        let slot = NewSlot::for_kit(&kit);
        keys::add_slot(&*open.store, open.id(), &open.data_key, &slot, now, &SystemRandom::new())
            .map_err(VaultError::from)?;
        if !known.record.has_kit {
            let claim = Arc::clone(&known.claim);
            let record = VaultRecord { has_kit: true, ..known.record.clone() };
            let again = self.put(record, claim)?;
            let mut health = lock(&again.health);
            *health = std::mem::take(&mut *lock(&known.health));
        }
        // The slot that nobody can open has done its duty.
        if let Err(error) = self.remove_nobodys(&open) {
            tracing::debug!(vault = %name, %error, "a slot that nobody can open stays");
        }
        tracing::info!(vault = %name, "a recovery kit was made");
        Ok(kit.text(name.as_str(), open.id(), &open.data_key, &known.record.url.to_string(), now))
    }

    fn remove_nobodys(&self, open: &OpenVault) -> std::result::Result<(), VaultError> {
        let slots = keys::slots(&*open.store, open.id())?;
        let nobodys: Vec<&Slot> = slots.iter().filter(|slot| slot.label == NOBODY).collect();
        // They leave the inventory first, which is the writer's to change.
        let epoch = open.writable()?;
        open.confirm(epoch)?;
        let names: Vec<String> = nobodys.iter().map(|slot| format!("k/{}", slot.id)).collect();
        // Also so that the new slot is in it.
        open.renew_inventory(epoch, &names)?;
        for slot in nobodys {
            keys::remove_slot(&*open.store, open.id(), &slot.id)?;
        }
        Ok(())
    }

    /// Forgets a vault; what is in it stays. `None`: there is none of that name.
    fn forget(&self, name: &VaultName, users: impl FnOnce() -> Vec<String>) -> Result<Option<VaultView>> {
        let _one = lock(&self.changing);
        let Some(known) = self.find(name) else { return Ok(None) };
        let volumes = users();
        if !volumes.is_empty() {
            return Err(VaultError::InUse { name: name.clone(), volumes }.into());
        }
        if !known.record.has_kit {
            return Err(VaultError::NoKit { name: name.clone() }.into());
        }
        self.files.forget_record(name)?;
        self.catalog.remove_vault(name.as_str())?;
        lock(&self.known).remove(name);
        self.files.forget_key(name)?;
        tracing::info!(vault = %name, url = %known.record.url, "the vault was forgotten; what is in it stays");
        Ok(Some(known.view()))
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

impl Engine {
    /// The vaults.
    pub fn vaults(&self) -> &Arc<Vaults> {
        &self.vaults
    }

    /// Forgets a vault that no volume's history is in; what is in it stays. `None`: there is none of that name.
    ///
    /// # Errors
    /// [`VaultError::InUse`], [`VaultError::NoKit`].
    pub fn forget_vault(&self, name: &VaultName) -> Result<Option<VaultView>> {
        let uses = |volume: &model::Volume| {
            let protected =
                volume.spec.protection.as_ref().is_some_and(|protection| protection.vault == *name);
            let restoring = volume.restoring().is_some_and(|(vault, ..)| vault == name);
            protected || restoring
        };
        let users = || {
            let table = self.read();
            let users = table.all().filter(|volume| uses(volume)).map(|volume| {
                if volume.is_live() {
                    volume.name.to_string()
                } else {
                    format!("{} (in the trash)", volume.name)
                }
            });
            let mut users: Vec<_> = users.collect();
            users.sort();
            users
        };
        self.vaults.forget(name, users)
    }

    /// Looks at the vaults that are due, each on a thread of its own, since one may hang; says when to look again.
    pub(crate) fn watch_vaults(&self) -> Duration {
        let now = Instant::now();
        let all: Vec<_> = lock(&self.vaults.known).values().cloned().collect();
        for known in all {
            let due = lock(&known.health).due.is_none_or(|due| due <= now);
            if !due || known.looking.swap(true, Ordering::AcqRel) {
                continue;
            }
            let vaults = Arc::clone(&self.vaults);
            let looker = Arc::clone(&known);
            let look = move || {
                vaults.look(&looker);
                looker.looking.store(false, Ordering::Release);
            };
            if let Err(error) = std::thread::Builder::new().name("vault".to_owned()).spawn(look) {
                tracing::warn!(%error, "no thread to look at a vault");
                known.looking.store(false, Ordering::Release);
            }
        }
        TICK
    }
}
