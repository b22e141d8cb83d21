//! A vault that is open, and the right to write to it.

use super::VaultError;
use crate::Clock;
use crate::engine::lock;
use model::{VaultName, VolumeId};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vault::Store;
use vault::claim::{self, ClaimError, Epoch, Writer};
use vault::descriptor::VaultError as FormatError;
use vault::format::{Keys, StreamId};
use vault::inventory::keep_vault_inventory;
use vault::keys::{DataKey, VaultId};
use vault::read::Access;

type Result<T> = std::result::Result<T, VaultError>;

/// Who this host is, as far as it does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct Me {
    pub(super) node: String,
    pub(super) host: String,
    pub(super) boot_id: String,
}

/// Whether this daemon may write.
#[derive(Debug, Clone, Default)]
pub(super) enum ClaimState {
    /// It has not asked.
    #[default]
    None,
    /// It is the writer.
    Held(Epoch),
    /// Another one is; whether this one was before.
    Taken { url: String, epoch: Epoch, by: Box<Writer>, lost: bool },
    /// The claims can't be read.
    Unclear(String),
}

/// The claim of one vault, shared by all that is opened of it, one after the other.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// Held while the vault is being claimed, which may take long.
    claiming: Mutex<()>,
    /// Never held for long.
    state: Mutex<ClaimState>,
}

/// What the vault's inventory says, as far as this daemon wrote it: the epoch, the streams, and when.
pub(super) type Inventoried = Option<(Epoch, BTreeSet<StreamId>, Instant)>;

/// Slots and claims of others are listed after this at the latest.
const RENEW: Duration = Duration::from_secs(600);

pub(super) type ClaimCell = Arc<Claim>;

/// A vault that is open.
pub struct OpenVault {
    /// Its name on this host.
    pub name: VaultName,
    /// Its identity.
    pub vault_id: [u8; 16],
    /// Where it is.
    pub store: Arc<dyn Store>,
    /// The keys made from its data key.
    pub keys: Keys,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// What shares a file system with it and is lost with it, in words; `None` if nothing is known to.
    pub same_disk: Option<String>,
    pub(super) data_key: DataKey,
    pub(super) me: Me,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) claim: ClaimCell,
    pub(super) inventoried: Mutex<Inventoried>,
    /// Held while a bundle is stored or removed.
    pub(super) shelving: Mutex<()>,
}

impl fmt::Debug for OpenVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenVault")
            .field("name", &self.name)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl OpenVault {
    /// Its identity.
    pub fn id(&self) -> VaultId {
        VaultId(self.vault_id)
    }

    /// What stands for a volume in the names of its history.
    pub fn stream_of(&self, volume: VolumeId) -> StreamId {
        StreamId(self.keys.name(volume.as_bytes()))
    }

    /// What is needed to read and write one stream.
    pub fn access(&self, stream: StreamId) -> Access {
        Access { store: Arc::clone(&self.store), keys: self.keys.clone(), vault: self.vault_id, stream }
    }

    /// The data key.
    pub fn data_key(&self) -> &DataKey {
        &self.data_key
    }

    /// The epoch in which this daemon writes, if it has claimed the vault and has not seen another writer.
    pub fn epoch(&self) -> Option<Epoch> {
        match *lock(&self.claim.state) {
            ClaimState::Held(epoch) => Some(epoch),
            _ => None,
        }
    }

    /// Says what must be in the vault besides its streams, if that may be another than before; with `stream`, which has an
    /// inventory of its own now.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub fn keep_inventory(&self, epoch: Epoch, stream: Option<StreamId>) -> Result<()> {
        let mut done = lock(&self.inventoried);
        if let Some((last, streams, at)) = &*done
            && *last == epoch
            && stream.is_none_or(|stream| streams.contains(&stream))
            && at.elapsed() < RENEW
        {
            return Ok(());
        }
        self.write_inventory(&mut done, epoch, stream, &[])
    }

    /// The same, whatever it said before; without `leaving`, which are to be deleted.
    ///
    /// # Errors
    /// [`VaultError::Store`]; nothing must be deleted then.
    pub(super) fn renew_inventory(&self, epoch: Epoch, leaving: &[String]) -> Result<()> {
        self.write_inventory(&mut lock(&self.inventoried), epoch, None, leaving)
    }

    /// Takes an object out of the inventory and then deletes it; meanwhile nobody lists it again.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub(super) fn delete_listed(&self, epoch: Epoch, name: &str) -> Result<()> {
        let mut done = lock(&self.inventoried);
        self.write_inventory(&mut done, epoch, None, &[name.to_owned()])?;
        Ok(self.store.delete(name)?)
    }

    fn write_inventory(
        &self,
        done: &mut Inventoried,
        epoch: Epoch,
        stream: Option<StreamId>,
        leaving: &[String],
    ) -> Result<()> {
        let mut streams = done.take().map(|(_, streams, _)| streams).unwrap_or_default();
        streams.extend(stream);
        let at = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        let all: Vec<_> = streams.iter().copied().collect();
        let (store, keys) = (&*self.store, &self.keys);
        let salt = history::salt();
        keep_vault_inventory(store, keys, self.id(), epoch.0, at, &all, leaving, salt)
            .map_err(FormatError::from)?;
        *done = Some((epoch, streams, Instant::now()));
        Ok(())
    }

    fn state(&self) -> ClaimState {
        lock(&self.claim.state).clone()
    }

    fn set(&self, state: ClaimState) {
        *lock(&self.claim.state) = state;
    }

    /// The right to write: claims the vault at the first call. Another writer is an error that stays until the vault is
    /// taken over or checked.
    ///
    /// # Errors
    /// [`VaultError::ReadOnly`], [`VaultError::AnotherWriter`], [`VaultError::Claim`]; [`VaultError::Store`], after which asking again may
    /// help.
    pub fn writable(&self) -> Result<Epoch> {
        if self.read_only {
            return Err(VaultError::ReadOnly { name: self.name.clone() });
        }
        if let Some(epoch) = self.epoch() {
            return Ok(epoch);
        }
        let _one = lock(&self.claim.claiming);
        match self.state() {
            ClaimState::Held(epoch) => Ok(epoch),
            ClaimState::None => self.claim(false),
            state => Err(self.refusal(&state)),
        }
    }

    /// Makes sure that nobody has claimed the vault after `epoch`: one cheap call, for after every put, before what was put
    /// counts as durable.
    ///
    /// # Errors
    /// As [`OpenVault::writable`].
    pub fn confirm(&self, epoch: Epoch) -> Result<()> {
        if claim::still_mine(&*self.store, epoch)? {
            return Ok(());
        }
        let state = match claim::newest(&*self.store)? {
            // This daemon itself has claimed anew meanwhile; what was put in the old epoch does not count.
            Some((newer, Ok(by))) if by.node == self.me.node && self.epoch() != Some(epoch) => {
                let why = format!("this host has claimed it anew meanwhile ({newer})");
                return Err(VaultError::Claim { name: self.name.clone(), why });
            }
            Some((_, Ok(by))) if by.node == self.me.node => ClaimState::Unclear(format!(
                "{} has this host's own identity ({}) and claimed it: is the state directory, with its node-id, a copy?",
                by.host, by.node
            )),
            Some((epoch, Ok(by))) => {
                tracing::error!(
                    vault = %self.name, host = by.host, node = by.node, %epoch,
                    "another host has taken the vault over; nothing more is written to it"
                );
                let url = self.store.url().to_owned();
                ClaimState::Taken { url, epoch, by: Box::new(by), lost: true }
            }
            Some((epoch, Err(why))) => ClaimState::Unclear(format!("the claim {epoch} can't be read: {why}")),
            None => ClaimState::Unclear("its claims are gone".to_owned()),
        };
        let error = self.refusal(&state);
        let mut held = lock(&self.claim.state);
        // Not if it was taken over again meanwhile.
        if matches!(*held, ClaimState::Held(now) if now == epoch) {
            *held = state;
        }
        Err(error)
    }

    /// Why this daemon may not write, if it was refused.
    pub fn refused(&self) -> Option<VaultError> {
        let state = self.state();
        matches!(state, ClaimState::Taken { .. } | ClaimState::Unclear(_)).then(|| self.refusal(&state))
    }

    fn refusal(&self, state: &ClaimState) -> VaultError {
        let name = self.name.clone();
        match state {
            ClaimState::Taken { url, epoch, by, lost } => VaultError::AnotherWriter {
                name,
                url: url.clone(),
                epoch: *epoch,
                by: by.clone(),
                lost: *lost,
            },
            ClaimState::Unclear(why) => VaultError::Claim { name, why: why.clone() },
            ClaimState::None | ClaimState::Held(_) => {
                VaultError::Claim { name, why: "it is not claimed".to_owned() }
            }
        }
    }

    /// Claims the vault; `claiming` is held.
    fn claim(&self, take_over: bool) -> Result<Epoch> {
        let Me { node, host, boot_id } = self.me.clone();
        let since = self.clock.now();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let me = Writer { node, host, boot_id, since, version };
        match claim::claim(&*self.store, &me, take_over) {
            Ok(epoch) => {
                tracing::info!(vault = %self.name, %epoch, take_over, "the vault is claimed for writing");
                self.set(ClaimState::Held(epoch));
                // It is renewed with the next upkeep.
                if let Err(error) = self.keep_inventory(epoch, None) {
                    tracing::warn!(vault = %self.name, %error, "the vault's inventory could not be renewed yet");
                }
                Ok(epoch)
            }
            Err(ClaimError::Store(error)) => Err(error.into()),
            Err(error) => {
                let lost = matches!(self.state(), ClaimState::Taken { lost: true, .. });
                self.set(match &error {
                    ClaimError::Taken { url, epoch, by } => {
                        ClaimState::Taken { url: url.clone(), epoch: *epoch, by: by.clone(), lost }
                    }
                    other => ClaimState::Unclear(other.to_string()),
                });
                let error = VaultError::of_claim(&self.name, error, lost);
                tracing::error!(vault = %self.name, "{error}");
                Err(error)
            }
        }
    }

    /// Claims the vault in another's place; says whether there was need to.
    pub(super) fn take_over(&self) -> Result<bool> {
        if self.read_only {
            return Err(VaultError::ReadOnly { name: self.name.clone() });
        }
        let _one = lock(&self.claim.claiming);
        if let Some(epoch) = self.epoch()
            && claim::still_mine(&*self.store, epoch)?
        {
            return Ok(false);
        }
        self.claim(true).map(|_| true)
    }

    /// Looks at the claims again: what was refused is asked for again, what is held is confirmed.
    pub(super) fn look_again(&self) -> Result<()> {
        match self.state() {
            ClaimState::None => Ok(()),
            ClaimState::Held(epoch) => self.confirm(epoch),
            ClaimState::Taken { .. } | ClaimState::Unclear(_) => {
                let _one = lock(&self.claim.claiming);
                self.claim(false).map(drop)
            }
        }
    }
}
