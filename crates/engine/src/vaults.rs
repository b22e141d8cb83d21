//! The vaults that this host knows: added, opened, claimed, checked, forgotten.
//!
//! A vault may be absent at any time; nothing here keeps the daemon from starting or answering. Listing never waits for one.

mod add;
mod bundles;
mod check;
mod error;
mod files;
mod local;
mod open;
mod record;

pub use add::{VaultAdd, VaultAdded, VaultChange};
pub use bundles::{Bundle, BundleToStore, Bundles};
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
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vault::claim::Epoch;
use vault::descriptor::{DESCRIPTOR, Descriptor, VaultError as FormatError};
use vault::format::Keys;
use vault::keys::VaultId;
use vault::store::{AbsentStore, Environment, Reserve};
use vault::url::{Location, OpenOptions};
use vault::{Abilities, Store};

/// A vault that is well is looked at this often.
const LOOK: Duration = Duration::from_secs(60);
/// One that is not reachable is tried again after this, and then more and more seldom.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How often it is seen which vault is due.
const TICK: Duration = Duration::from_secs(1);

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
            shelving: Mutex::default(),
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
