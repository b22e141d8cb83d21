//! Detach: a holder no longer uses a volume.

use crate::engine::Engine;
use crate::{Change, Fault, Result};
use model::{Attachment, Volume, VolumeName};
use std::sync::Arc;

const STATE: &str = "the volume is still mounted, and the attachment is kept";

impl Engine {
    /// Ends the use of a volume by the holder `id`; the last one's end unmounts it. An unknown holder is no error.
    ///
    /// # Errors
    /// A driver that can't unmount; the attachment is kept then.
    pub fn detach(&self, name: &VolumeName, id: &str) -> Result<Change> {
        let _claim = self.claim(name, "detach")?;
        let volume = self.volume(name)?;
        if volume.attachment(id).is_none() {
            return Ok(Change::AlreadyThere);
        }
        self.detach_claimed(&volume, |attachment| attachment.id == id)?;
        Ok(Change::Done)
    }

    /// Drops attachments, unmounting first if they are the last.
    pub(crate) fn detach_claimed(
        &self,
        volume: &Volume,
        gone: impl Fn(&Attachment) -> bool,
    ) -> Result<Arc<Volume>> {
        if volume.attachments.iter().all(&gone) {
            // A frozen file system can't be unmounted; with its last holder gone nothing will write to it.
            self.holds.release(volume.id);
            let used = self.in_use_at(volume);
            self.with_driver(volume, "detach", STATE, |driver, place| driver.detach(place))?;
            self.fault(Fault::DetachUnmounted);
            self.set_path(volume.id, None);
            self.unfollow_if_gone(volume, used);
        }
        self.drop_attachments(volume, gone)
    }
}
