//! How often one mount ID uses a volume.
//!
//! For the engine the same ID twice is one attachment: asking again is no second use. For Docker it is one:
//! `docker cp` into or out of a running container mounts the container's volumes again, under the ID that the
//! container has them mounted with, and sends `Unmount` with that ID when it is done. Passed on, that would take the
//! volume away while the container runs.

use model::VolumeName;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Use = (VolumeName, String);

/// The uses beyond the first of each mount ID.
///
/// In memory only: what is lost with the daemon is a `docker cp` that is under way just then.
#[derive(Debug, Default)]
pub(super) struct Uses {
    further: Mutex<HashMap<Use, u32>>,
}

impl Uses {
    fn further(&self) -> MutexGuard<'_, HashMap<Use, u32>> {
        self.further.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mount succeeded; `first` if the engine did not know the ID.
    pub(super) fn mounted(&self, volume: &VolumeName, id: &str, first: bool) {
        let key = (volume.clone(), id.to_owned());
        if first {
            self.further().remove(&key);
        } else {
            *self.further().entry(key).or_default() += 1;
        }
    }

    /// Ends one use. Whether it was the last one of this ID, which is for the engine to end.
    pub(super) fn unmounted(&self, volume: &VolumeName, id: &str) -> bool {
        let key = (volume.clone(), id.to_owned());
        let mut further = self.further();
        match further.get_mut(&key) {
            Some(more) if *more > 1 => *more -= 1,
            Some(_) => {
                further.remove(&key);
            }
            None => return true,
        }
        false
    }

    /// A Docker Engine has just started: whatever an earlier one was copying has ended.
    pub(super) fn clear(&self) {
        self.further().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_use_is_for_the_engine() {
        let (uses, volume) = (Uses::default(), "v".parse().unwrap());
        uses.mounted(&volume, "id", true);
        uses.mounted(&volume, "id", false);
        uses.mounted(&volume, "id", false);
        assert!(!uses.unmounted(&volume, "id"));
        assert!(!uses.unmounted(&volume, "id"));
        assert!(uses.unmounted(&volume, "id"));
        assert!(uses.unmounted(&volume, "another"));
        assert!(uses.further().is_empty());
    }

    #[test]
    fn a_new_docker_engine_copies_nothing_yet() {
        let (uses, volume) = (Uses::default(), "v".parse().unwrap());
        uses.mounted(&volume, "id", false);
        uses.clear();
        assert!(uses.unmounted(&volume, "id"));
    }
}
