//! Remove: to the trash, with everything, for a while.

use crate::engine::Engine;
use crate::{Change, Error, Fault, Result};
use jiff::{SignedDuration, Timestamp};
use model::{Intent, Life, Trashed, Volume, VolumeName};
use std::sync::Arc;

impl Engine {
    /// Moves a volume to the trash. A volume that is there already, or never was, is no error: the caller's wish holds.
    ///
    /// # Errors
    /// [`Error::InUse`] naming the holders.
    pub fn remove(&self, name: &VolumeName) -> Result<(Change, Option<Arc<Volume>>)> {
        // Nobody waits for what is not wanted any more.
        self.stop_import(name);
        let _claim = self.claim(name, "remove")?;
        let volume = match self.volume(name) {
            Err(Error::NoVolume { .. }) => return Ok((Change::AlreadyThere, None)),
            other => other?,
        };
        let volume = self.refuse_if_held_by_someone(&volume, "remove")?;
        if volume.pending == Some(Intent::Create) {
            // A creation that failed and could not be undone: there is nothing to keep.
            self.destroy_now(&volume)?;
            return Ok((Change::Done, None));
        }
        let at = self.clock.now();
        let ttl = SignedDuration::try_from(self.settings.trash_ttl).unwrap_or(SignedDuration::MAX);
        let expires = at.checked_add(ttl).unwrap_or(Timestamp::MAX);
        let trashed = Volume { life: Life::Trashed(Trashed { at, expires }), ..(*volume).clone() };
        let trashed = match self.describe_and_record(trashed.clone(), Fault::RemoveDescribed) {
            // The home is gone, behind our back: there is nothing to describe, and no reason to keep the name.
            Err(Error::Kernel(error)) if error.is_not_found() => self.record(trashed)?,
            other => other?,
        };
        Ok((Change::Done, Some(trashed)))
    }

    /// What `remove` would say, without doing it.
    ///
    /// # Errors
    /// As [`Engine::remove`].
    pub fn check_remove(&self, name: &VolumeName) -> Result<Arc<Volume>> {
        let volume = self.volume(name)?;
        if volume.attachments.len() > self.stale(&volume).len() {
            return Err(self.in_use(&volume, "remove"));
        }
        Ok(volume)
    }
}
