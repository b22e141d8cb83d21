//! Label: what people and policies say about a volume.

use crate::engine::Engine;
use crate::{Change, Error, Fault, Result};
use model::{Labels, Volume, VolumeName, check_label};
use std::sync::Arc;

impl Engine {
    /// Sets and removes labels.
    ///
    /// # Errors
    /// A label that is not usable.
    pub fn label(&self, name: &VolumeName, set: &Labels, unset: &[String]) -> Result<(Change, Arc<Volume>)> {
        for (key, value) in set {
            check_label(key, value).map_err(|error| Error::Invalid(error.to_string()))?;
        }
        let _claim = self.claim(name, "label")?;
        let volume = self.usable(name)?;
        let mut labelled = (*volume).clone();
        labelled.spec.labels.extend(set.clone());
        for key in unset {
            labelled.spec.labels.remove(key);
        }
        if labelled == *volume {
            return Ok((Change::AlreadyThere, volume));
        }
        Ok((Change::Done, self.describe_and_record(labelled, Fault::LabelDescribed)?))
    }
}
