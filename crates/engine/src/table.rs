//! The records in memory, for everything that must answer without touching a disk.

use model::{Intent, Volume, VolumeId, VolumeName};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// All records, and the names of the live ones.
#[derive(Default)]
pub(crate) struct Table {
    volumes: HashMap<VolumeId, Arc<Volume>>,
    names: BTreeMap<VolumeName, VolumeId>,
}

impl Table {
    pub(crate) fn put(&mut self, volume: Volume) -> Arc<Volume> {
        self.forget_name(volume.id);
        if volume.is_live() {
            self.names.insert(volume.name.clone(), volume.id);
        }
        let volume = Arc::new(volume);
        self.volumes.insert(volume.id, Arc::clone(&volume));
        volume
    }

    pub(crate) fn remove(&mut self, id: VolumeId) {
        self.forget_name(id);
        self.volumes.remove(&id);
    }

    fn forget_name(&mut self, id: VolumeId) {
        if let Some(old) = self.volumes.get(&id)
            && self.names.get(&old.name) == Some(&id)
        {
            self.names.remove(&old.name);
        }
    }

    pub(crate) fn get(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.volumes.get(&id).cloned()
    }

    /// The live volume of that name.
    pub(crate) fn live(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        self.get(*self.names.get(name)?)
    }

    /// The live volumes, by name.
    pub(crate) fn all_live(&self) -> Vec<Arc<Volume>> {
        self.names.values().filter_map(|id| self.get(*id)).collect()
    }

    /// Every record, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Volume>> {
        self.volumes.values()
    }

    /// The trash, newest first; not what is being destroyed, which can't be restored any more.
    pub(crate) fn trash(&self) -> Vec<Arc<Volume>> {
        let mut trash: Vec<_> = self
            .all()
            .filter(|v| v.pending != Some(Intent::Destroy))
            .filter_map(|v| Some((v.trashed()?.at, Arc::clone(v))))
            .collect();
        trash.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.id.cmp(&b.1.id)));
        trash.into_iter().map(|(_, volume)| volume).collect()
    }
}
