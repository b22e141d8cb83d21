//! Grow: more room, while writers go on.

use crate::engine::Engine;
use crate::{Change, Error, Fault, Result};
use model::{DriverSpec, Intent, Provisioning, Size, Volume, VolumeName};
use std::sync::Arc;

const STATE: &str = "the data is untouched, and the volume has its old size; it can be asked for again";

impl Engine {
    /// Grows a volume to `to`. The same size again is no error.
    ///
    /// # Errors
    /// [`Error::Shrink`], no room in the pool, or a driver that can't.
    pub fn grow(&self, name: &VolumeName, to: Size) -> Result<(Change, Arc<Volume>)> {
        let _claim = self.claim(name, "grow")?;
        self.grow_claimed(name, to)
    }

    pub(crate) fn grow_claimed(&self, name: &VolumeName, to: Size) -> Result<(Change, Arc<Volume>)> {
        let volume = self.usable(name)?;
        let spec = self.with_driver(&volume, "grow", "nothing was changed", |driver, place| {
            driver.admit(volume.spec.with_size(to), place.home)
        })?;
        let to = spec.size().unwrap_or(to);
        let Some(is) = volume.spec.size() else {
            return Err(Error::Invalid(format!("the volume {name} has no size limit that could grow")));
        };
        let resuming = matches!(volume.pending, Some(Intent::Grow { .. }));
        if to < is {
            return Err(Error::Shrink { name: name.clone(), is, asked: to });
        }
        if to == is && !resuming {
            return Ok((Change::AlreadyThere, volume));
        }
        let going = {
            let _placing = self.placing();
            let pool = self.pool(&volume.spec.pool)?;
            pool.refuse_if_held()?;
            let more = spec.promised().saturating_sub(volume.spec.promised());
            let thick =
                matches!(&spec.driver, DriverSpec::Image(image) if image.provisioning == Provisioning::Thick);
            let now = if thick { more.saturating_add(self.still_to_come(pool)?) } else { Size::default() };
            pool.check_promise(self.promised(&spec.pool), spec.promised(), more, now)?;
            self.record(Volume { pending: Some(Intent::Grow { to }), ..(*volume).clone() })?
        };
        self.fault(Fault::GrowRecorded);
        match self.finish_grow(&going, to) {
            Ok(grown) => Ok((Change::Done, grown)),
            Err(error) => {
                // Nothing was lost, and nothing has to be finished: the driver starts from wherever it is.
                self.record(Volume { pending: None, ..(*going).clone() })?;
                Err(error)
            }
        }
    }

    /// Grows and records it; the intent is recorded.
    pub(crate) fn finish_grow(&self, volume: &Volume, to: Size) -> Result<Arc<Volume>> {
        self.with_driver(volume, "grow", STATE, |driver, place| driver.grow(place, to))?;
        self.fault(Fault::GrowDone);
        let grown = Volume { spec: volume.spec.with_size(to), pending: None, ..volume.clone() };
        crate::description::write(&grown, &self.home(&grown)?)?;
        self.record(grown)
    }
}
