//! Volumes that Docker has just created and whose labels are not known yet.

use model::VolumeName;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The names of volumes that the plugin created and whose labels nobody has asked Docker for yet.
///
/// Shared by the plugin, which adds, and by [`crate::follow_labels`], which takes away. So a volume's labels are
/// brought over once, when it is new, and a label that the operator takes off later stays off.
#[derive(Debug, Default)]
pub struct NewVolumes {
    names: Mutex<BTreeSet<VolumeName>>,
}

impl NewVolumes {
    fn names(&self) -> MutexGuard<'_, BTreeSet<VolumeName>> {
        // Each change is one step: whole even if somebody panicked.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, name: VolumeName) {
        self.names().insert(name);
    }

    pub(crate) fn forget(&self, name: &VolumeName) {
        self.names().remove(name);
    }

    pub(crate) fn all(&self) -> Vec<VolumeName> {
        self.names().iter().cloned().collect()
    }
}
