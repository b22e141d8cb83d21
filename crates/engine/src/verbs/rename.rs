//! Rename: another name for the same volume.

use crate::engine::Engine;
use crate::{Change, Error, Fault, Result};
use model::{Volume, VolumeName};
use std::sync::Arc;

impl Engine {
    /// Gives a volume another name. Its data does not move.
    ///
    /// # Errors
    /// [`Error::InUse`]: a holder knows the volume by its old name and would let go of it by that name.
    pub fn rename(&self, name: &VolumeName, to: &VolumeName) -> Result<(Change, Arc<Volume>)> {
        if name == to {
            return Ok((Change::AlreadyThere, self.usable(name)?));
        }
        let _claim = self.claims.take([name, to], "rename")?;
        let volume = self.usable(name)?;
        let volume = self.refuse_if_held_by_someone(&volume, "rename")?;
        if self.read().live(to).is_some() {
            return Err(Error::NameTaken(to.clone()));
        }
        let renamed = Volume { name: to.clone(), ..(*volume).clone() };
        Ok((Change::Done, self.describe_and_record(renamed, Fault::RenameDescribed)?))
    }
}
