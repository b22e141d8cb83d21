//! The vault that is there from the start, made while nobody looks on, and the kits that open it or any other.

use super::open::ClaimCell;
use super::{OpenVault, VaultAccess, VaultError, VaultRecord, Vaults};
use crate::engine::lock;
use crate::{Error, Result};
use model::VaultName;
use ring::rand::SystemRandom;
use std::path::Path;
use std::sync::Arc;
use vault::descriptor::{self, DESCRIPTOR, Descriptor};
use vault::keys::{self, NewSlot, RecoveryKit, Slot, VaultId};
use vault::url::Location;
use zeroize::Zeroizing;

/// The vault that is there from the start.
const LOCAL: &str = "local";
/// That it was made once; when the operator has forgotten it, it does not come back.
const LOCAL_MADE: &str = "local-vault-made";
/// Who can open the first slot of the vault that is there from the start.
const NOBODY: &str = "nobody: the vault was made unattended";

impl Vaults {
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
}
