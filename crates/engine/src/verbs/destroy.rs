//! Destroy: the only verb that can't be taken back. Only the trash is emptied, by request or by expiry.

use crate::engine::Engine;
use crate::history::NOTE;
use crate::{Error, Fault, Result, description};
use model::{Intent, Volume};
use std::io::ErrorKind as Io;
use std::path::Path;
use std::sync::Arc;

const STATE: &str = "its destruction was begun and goes on at the next start or `everhold trash empty`";

fn ignore_absent(result: std::io::Result<()>, op: &'static str, path: &Path) -> Result<()> {
    match result {
        Err(source) if source.kind() != Io::NotFound => {
            Err(Error::Kernel(linux::KernelError { op, path: Some(path.to_owned()), source }))
        }
        _ => Ok(()),
    }
}

impl Engine {
    /// Destroys what is in the trash: `which` (a name or an ID), or everything.
    /// With `dry_run` it only says what would be destroyed.
    ///
    /// # Errors
    /// The first error; what was destroyed before it is gone, the rest is still in the trash.
    pub fn empty_trash(&self, which: Option<&str>, dry_run: bool) -> Result<Vec<Arc<Volume>>> {
        let chosen = match which {
            Some(text) => vec![self.in_trash(text)?],
            None => self.trash().into_iter().chain(self.going()).collect(),
        };
        if dry_run {
            return Ok(chosen);
        }
        let mut first_error = None;
        let mut gone = Vec::new();
        for volume in chosen {
            match self.destroy(&volume) {
                Ok(()) => gone.push(volume),
                Err(error) => {
                    tracing::error!(volume = %volume.name, id = %volume.id, %error, "could not be destroyed");
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(gone), Err)
    }

    /// What is being destroyed, or was when it was interrupted.
    fn going(&self) -> Vec<Arc<Volume>> {
        self.read().all().filter(|v| !v.is_live() && v.pending == Some(Intent::Destroy)).cloned().collect()
    }

    /// Destroys what has expired, and goes on with what was interrupted.
    pub fn expire_trash(&self) -> Vec<Arc<Volume>> {
        let now = self.clock.now();
        let over = |v: &Arc<Volume>| v.trashed().is_some_and(|trashed| trashed.expires <= now);
        let expired = self.trash().into_iter().filter(over).chain(self.going());
        expired
            .filter(|volume| match self.destroy(volume) {
                Ok(()) => {
                    tracing::info!(volume = %volume.name, id = %volume.id, "its time in the trash is over; destroyed");
                    true
                }
                Err(error) => {
                    tracing::error!(volume = %volume.name, id = %volume.id, %error, "has expired but could not be destroyed");
                    false
                }
            })
            .collect()
    }

    fn destroy(&self, volume: &Volume) -> Result<()> {
        let _claim = self.claims.take([volume.id], "destroy")?;
        // Restored, and perhaps removed again, or destroyed, while this waited for the claim?
        let now = self.read().get(volume.id).filter(|now| now.life == volume.life);
        let Some(now) = now else { return Err(Error::NotInTrash(volume.name.to_string())) };
        let going = self.record(Volume { pending: Some(Intent::Destroy), ..(*now).clone() })?;
        self.fault(Fault::DestroyRecorded);
        self.destroy_now(&going)
    }

    /// Removes a volume's data, home and record, in that order; each step may have been done before.
    pub(crate) fn destroy_now(&self, volume: &Volume) -> Result<()> {
        let home = self.home(volume)?;
        // Also without a home: what is in memory or mounted is not there.
        self.with_driver(volume, "destroy", STATE, |driver, place| driver.destroy(place))?;
        self.fault(Fault::DestroyData);
        if home.exists() {
            ::history::restore::Note::remove(&home.join(NOTE))?;
            let file = home.join(description::FILE);
            ignore_absent(std::fs::remove_file(&file), "unlink", &file)?;
            // Not recursive: what the driver left behind, or someone else put there, is not ours to delete.
            ignore_absent(std::fs::remove_dir(&home), "rmdir", &home)?;
        }
        self.fault(Fault::DestroyHome);
        // What is in the vault stays; what was on its way there goes with the volume.
        self.histories.forget(volume.id);
        match linux::fs::remove_tree(&self.settings.history(volume.id)) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        self.forget(volume.id)
    }
}
