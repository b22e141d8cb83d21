//! Which volumes' blocks are tracked, and how: by the kernel where it can, else by comparing.

use crate::engine::lock;
use linux::direct::Pool;
use linux::dirty::Stats;
use linux::track::{Bitmap, Tracker};
use model::VolumeId;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use storage::Devices;

/// Threads that read changed blocks. They wait for disks, not for processors.
const READERS: usize = 8;

/// The kernel's tracking of changed blocks, shared between the driver, which makes devices, and the histories.
pub struct Tracking {
    wanted: std::result::Result<PathBuf, String>,
    kernel: OnceLock<std::result::Result<Tracker, String>>,
    stats: Option<Stats>,
    pub(crate) pool: Arc<Pool>,
    protected: Mutex<HashSet<VolumeId>>,
}

impl Tracking {
    /// Tracks in the kernel, with what it keeps in the bpffs at `dir` (mounted there if it is not) once the engine opens.
    ///
    /// # Errors
    /// When the host gives no threads. A kernel that can't track is no error: blocks are compared then.
    pub fn at(dir: &Path) -> linux::Result<Self> {
        Self::with(Ok(dir.to_owned()))
    }

    /// Tracks nothing: everything is compared.
    ///
    /// # Errors
    /// When the host gives no threads.
    pub fn none(why: &str) -> linux::Result<Self> {
        Self::with(Err(why.to_owned()))
    }

    fn with(wanted: std::result::Result<PathBuf, String>) -> linux::Result<Self> {
        let stats = Stats::open().unwrap_or_else(|error| {
            tracing::debug!(%error, "what is dirty in memory can't be seen");
            None
        });
        let pool = Arc::new(Pool::new(READERS)?);
        Ok(Self { wanted, kernel: OnceLock::new(), stats, pool, protected: Mutex::default() })
    }

    /// Begins to track; not before it is certain that this is the only daemon with this state.
    pub(crate) fn begin(&self) {
        let kernel = self.kernel.get_or_init(|| {
            let dir = self.wanted.as_ref().map_err(Clone::clone)?;
            Tracker::open(dir).map_err(|error| error.to_string())
        });
        if let (Err(why), Ok(_)) = (kernel, &self.wanted) {
            tracing::warn!(why, "changed blocks are not tracked; they are found by comparing");
        }
    }

    fn tracker(&self) -> Option<&Tracker> {
        self.kernel.get()?.as_ref().ok()
    }

    /// How changes are found, in words.
    pub fn method(&self) -> String {
        match self.kernel.get() {
            Some(Ok(_)) => "tracking".to_owned(),
            Some(Err(why)) => format!("comparing ({why})"),
            None => "comparing".to_owned(),
        }
    }

    /// Whether the kernel tracks.
    pub(crate) fn tracks(&self) -> bool {
        self.tracker().is_some()
    }

    /// From now on the volume's devices are followed.
    pub(crate) fn protect(&self, id: VolumeId) {
        lock(&self.protected).insert(id);
    }

    /// The volume's devices are not followed any more, and what is known of its changes is forgotten.
    pub(crate) fn unprotect(&self, id: VolumeId) {
        lock(&self.protected).remove(&id);
        self.forget(id);
    }

    fn forget(&self, id: VolumeId) {
        let Some(tracker) = self.tracker() else { return };
        if let Err(error) = tracker.forget(&id.to_string()) {
            tracing::warn!(volume = %id, %error, "could not forget its marks");
        }
    }

    /// The marks of a volume, wherever its device is now.
    pub(crate) fn marks(&self, id: VolumeId) -> Option<Bitmap> {
        let tracker = self.tracker()?;
        tracker.bitmap(&id.to_string()).unwrap_or_else(|error| {
            tracing::warn!(volume = %id, %error, "its marks can't be had");
            None
        })
    }

    /// Sees to it that the device is followed.
    pub(crate) fn follow(&self, id: VolumeId, device: u64, bytes: u64) {
        let Some(tracker) = self.tracker() else { return };
        if let Err(error) = tracker.follow(&id.to_string(), device, bytes) {
            tracing::error!(volume = %id, %error, "its changes can't be tracked; they will be found by comparing");
            // What is written from now on would be missed.
            self.forget(id);
        }
    }

    /// The device is not the volume's any more; the marks stay.
    pub(crate) fn unfollow(&self, device: u64) {
        let Some(tracker) = self.tracker() else { return };
        if let Err(error) = tracker.unfollow(device) {
            tracing::warn!(%error, "a device is still followed");
        }
    }

    /// Begins anew with marks that are not the whole truth.
    pub(crate) fn forget_broken(&self, id: VolumeId) {
        if self.marks(id).is_some_and(|marks| marks.overflowed()) {
            self.forget(id);
        }
    }

    /// Whether something of the file system on this device is only in memory; `true` if that can't be told.
    pub(crate) fn may_be_dirty(&self, device: u64, is_xfs: bool) -> bool {
        let Some(stats) = &self.stats else { return true };
        !matches!(stats.is_dirty(device, is_xfs), Ok(Some(false)))
    }
}

impl Devices for Tracking {
    fn ready(&self, id: VolumeId, device: u64, bytes: u64) {
        if lock(&self.protected).contains(&id) {
            self.follow(id, device, bytes);
        }
    }

    fn changed_behind(&self, id: VolumeId) {
        if let Some(marks) = self.marks(id) {
            marks.set_token(0);
        }
    }
}
