//! Looking at a whole vault: what its store can do, who writes, and whether all is there that should be.

use super::{FormatError, VaultError, VaultView, Vaults};
use crate::engine::{Engine, lock};
use crate::{Error, Result};
use model::VaultName;
use std::collections::HashMap;
use vault::check::Report;
use vault::claim::{Epoch, Writer};
use vault::descriptor::Descriptor;
use vault::format::StreamId;
use vault::keys::{self, Fingerprint, Slot};

/// What a check found.
#[derive(Debug)]
pub struct VaultChecked {
    /// The vault.
    pub vault: VaultView,
    /// The newest claim, who made it if that can be read, and whether that is this host.
    pub claim: Option<(Epoch, std::result::Result<Writer, String>, bool)>,
    /// What its key is known by.
    pub fingerprint: Fingerprint,
    /// The slots of its key.
    pub slots: Vec<Slot>,
    /// What is in it, and what is missing or damaged.
    pub report: Report,
}

impl Vaults {
    /// Tries what the vault's store can do, looks at its claims and its slots, and compares what is there with what should be;
    /// if `deep`, everything is read too. `durable` says of a stream which point is known to be in the vault.
    ///
    /// # Errors
    /// A vault that can't be reached or used. Another writer is no error here, but part of the answer, and so is what is
    /// missing or damaged.
    pub fn check(
        &self,
        name: &VaultName,
        deep: bool,
        durable: &dyn Fn(&vault::format::Keys, StreamId) -> u64,
    ) -> Result<VaultChecked> {
        let known = self.get(name)?;
        self.look(&known);
        let open = self.open_known(&known, true)?;
        let asked = |error: VaultError| {
            self.unwell(&known, &mut lock(&known.health), &error);
            Error::from(error)
        };
        match open.look_again() {
            Err(error) if error.store().is_some() => return Err(asked(error)),
            _ => {}
        }
        let store = &*open.store;
        match Descriptor::read(store) {
            // Told in the report, with all the rest.
            Ok(_) | Err(FormatError::Damaged { .. }) => {}
            Err(error) => return Err(asked(error.into())),
        }
        // Trying is writing.
        let abilities = match known.record.read_only {
            true => None,
            false => Some(store.abilities().map_err(|error| asked(error.into()))?),
        };
        let claim = vault::claim::newest(store).map_err(|error| asked(error.into()))?;
        let claim = claim.map(|(epoch, by)| {
            let mine = by.as_ref().is_ok_and(|by| by.node == self.me.node);
            (epoch, by, mine)
        });
        let slots = keys::slots(store, open.id()).map_err(VaultError::from)?;
        let report = vault::check::vault(&open.store, open.id(), &open.data_key, deep, &|stream| {
            durable(&open.keys, stream)
        })
        .map_err(|error| asked(error.into()))?;
        for (object, wrong) in report.all_findings().map(|finding| (&finding.object, &finding.wrong)) {
            tracing::error!(vault = %name, object, wrong, "the vault is not whole");
        }
        {
            let mut health = lock(&known.health);
            health.abilities = abilities.or(health.abilities.take());
            health.used = Some(report.bytes);
            self.well(&known, &mut health);
        }
        let fingerprint = open.data_key.fingerprint(open.id());
        Ok(VaultChecked { vault: known.view(), claim, fingerprint, slots, report })
    }
}

impl Engine {
    /// Looks at a vault: [`Vaults::check`], with what this daemon knows to be in it.
    ///
    /// # Errors
    /// As there.
    pub fn check_vault(&self, name: &VaultName, deep: bool) -> Result<VaultChecked> {
        let here: HashMap<_, _> = self
            .protected()
            .into_iter()
            .filter(|(_, protection)| protection.vault == *name)
            .filter_map(|(volume, _)| {
                let outbox = lock(&self.histories.known(volume.id)?.outbox).clone()?;
                Some((volume.id, outbox.durable()))
            })
            .collect();
        self.vaults.check(name, deep, &|keys, stream| {
            let of = here.iter().find(|(id, _)| StreamId(keys.name(id.as_bytes())) == stream);
            of.map_or(0, |(_, durable)| *durable)
        })
    }
}
