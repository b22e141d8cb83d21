//! Restore: out of the trash, in the old name or a new one.

use crate::engine::Engine;
use crate::{Error, Fault, Result};
use model::{Life, Volume, VolumeName};
use std::sync::Arc;

impl Engine {
    /// The one trashed volume with this name or ID.
    ///
    /// # Errors
    /// [`Error::NotInTrash`], or [`Error::SeveralInTrash`] for a name that was removed more than once.
    pub fn in_trash(&self, which: &str) -> Result<Arc<Volume>> {
        let mut found: Vec<_> = self
            .trash()
            .into_iter()
            .filter(|volume| volume.name.as_str() == which || volume.id.to_string() == which)
            .collect();
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(Error::NotInTrash(which.to_owned())),
            (Some(volume), true) => Ok(volume),
            (Some(last), false) => Err(Error::SeveralInTrash {
                name: which.to_owned(),
                ids: found.iter().chain([&last]).map(|volume| volume.id.to_string()).collect(),
            }),
        }
    }

    /// Brings a volume back from the trash as it was, under its own name or `as_name`.
    ///
    /// # Errors
    /// [`Error::NameTaken`] when another volume has the name by now.
    pub fn restore(&self, which: &str, as_name: Option<&VolumeName>) -> Result<Arc<Volume>> {
        let volume = self.in_trash(which)?;
        let name = as_name.unwrap_or(&volume.name);
        let claim = self.claims.take([volume.id.to_string(), name.to_string()], "restore")?;
        let volume = self.in_trash(&volume.id.to_string())?;
        if self.read().live(name).is_some() {
            return Err(Error::NameTaken(name.clone()));
        }
        let back = Volume { life: Life::Live, name: name.clone(), ..(*volume).clone() };
        let back = self.describe_and_record(back, Fault::RestoreDescribed)?;
        drop(claim);
        // Docker forgot the volume's options when it was removed, and docker-compose refuses one without them. Not under the
        // claim: Docker asks us about the volume before it answers.
        if let Err(error) = self.containers.introduce(&back) {
            tracing::info!(volume = %back.name, error, "Docker was not told of the restored volume's options");
        }
        Ok(back)
    }
}
