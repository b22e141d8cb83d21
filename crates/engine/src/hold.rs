//! Holding writers when a pool runs full.
//!
//! A thin image takes its space as it is written. When the pool has none left, the write fails inside the image, and a
//! database that gets an I/O error stops, or worse. So before that happens the writers are held: their file system
//! is frozen, they wait, and they go on where they were when space has returned.
//!
//! Freezing flushes what the page cache has not written yet, and that needs space too. So what counts is
//! not the free space but the free space less the dirty data that may still go there.

use crate::engine::{Engine, lock};
use crate::pools::Pool;
use crate::{Error, Guard, Result};
use history::Frozen;
use jiff::Timestamp;
use model::{PoolName, Size, Volume, VolumeId};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Whether the writers of a pool are held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Hold {
    /// They write.
    #[default]
    Open,
    /// They wait.
    Held {
        /// Since when.
        since: Timestamp,
    },
    /// The operator let them go on although the pool is full; they are held again only after space had returned.
    Overridden,
}

/// How fast a writer may fill a pool, in bytes a second; sets how often to look.
const FASTEST_WRITER: u64 = 4 << 30;
/// How long a writer takes for so many bytes, at the least.
pub(crate) fn time_to_write(bytes: u64) -> Duration {
    Duration::from_millis(bytes / (FASTEST_WRITER / 1000))
}

const LOOK_OFTEN: Duration = Duration::from_millis(20);
const LOOK_SELDOM: Duration = Duration::from_millis(500);

/// What is frozen now.
pub(crate) struct Holds {
    guard: Option<Guard>,
    frozen: Mutex<HashMap<VolumeId, (PathBuf, File)>>,
    /// What is being frozen, on a thread of its own: freezing one volume must not keep the others waiting.
    freezing: Mutex<HashSet<VolumeId>>,
    /// What could not be frozen, and has been said.
    failed: Mutex<HashSet<VolumeId>>,
}

/// A file system that is frozen for a cut.
pub(crate) struct CutFreeze<'a> {
    holds: &'a Holds,
    id: VolumeId,
    mountpoint: PathBuf,
    frozen: Option<File>,
    since: Instant,
    guarded: bool,
}

impl Frozen for CutFreeze<'_> {
    fn since(&self) -> Instant {
        self.since
    }

    fn thaw(&mut self) {
        let Some(file) = self.frozen.take() else { return };
        if let Err(error) = linux::freeze::thaw_fd(&file, &self.mountpoint) {
            tracing::error!(path = %self.mountpoint.display(), %error, "could not thaw; `fsfreeze -u` on this path does it");
        }
    }
}

impl Drop for CutFreeze<'_> {
    fn drop(&mut self) {
        self.thaw();
        if self.guarded {
            self.holds.let_go(&self.mountpoint);
        }
        lock(&self.holds.freezing).remove(&self.id);
    }
}

impl Holds {
    pub(crate) fn new(guard: Option<Guard>) -> Self {
        Self { guard, frozen: Mutex::default(), freezing: Mutex::default(), failed: Mutex::default() }
    }

    pub(crate) fn is_held(&self, id: VolumeId) -> bool {
        lock(&self.frozen).contains_key(&id)
    }

    fn freeze(&self, id: VolumeId, mountpoint: PathBuf) -> std::result::Result<(), String> {
        let Some(guard) = &self.guard else { return Err("there is no guard process".into()) };
        let file = File::open(&mountpoint).map_err(|error| error.to_string())?;
        refuse_host(&file, &mountpoint)?;
        guard.protect(&mountpoint).map_err(|error| error.to_string())?;
        if let Err(error) = linux::freeze::freeze_fd(&file, &mountpoint) {
            // The guard has it open, which would keep it from being unmounted.
            self.let_go(&mountpoint);
            return Err(error.to_string());
        }
        lock(&self.frozen).insert(id, (mountpoint, file));
        Ok(())
    }

    /// Freezes for a cut, until the answer is dropped. Not what is held already, nor what is about to be.
    pub(crate) fn freeze_for_cut(
        &self,
        id: VolumeId,
        mountpoint: &Path,
    ) -> std::result::Result<CutFreeze<'_>, String> {
        let Some(guard) = &self.guard else { return Err("there is no guard process".into()) };
        if !lock(&self.freezing).insert(id) {
            return Err("its writers are being held, as the pool is full".into());
        }
        // From here on dropping it undoes what was done.
        let mut freeze = CutFreeze {
            holds: self,
            id,
            mountpoint: mountpoint.to_owned(),
            frozen: None,
            since: Instant::now(),
            guarded: false,
        };
        if self.is_held(id) {
            return Err("its writers are held, as the pool is full".into());
        }
        let file = File::open(mountpoint).map_err(|error| error.to_string())?;
        refuse_host(&file, mountpoint)?;
        guard.protect(mountpoint).map_err(|error| error.to_string())?;
        freeze.guarded = true;
        // Only while it freezes: thawing waits for nothing.
        let hurry = linux::grace::hurry();
        freeze.since = Instant::now();
        let frozen = linux::freeze::freeze_fd(&file, mountpoint).map_err(|error| error.to_string())?;
        drop(hurry);
        if frozen == linux::Change::AlreadyThere {
            return Err(format!(
                "somebody else has frozen it (`fsfreeze -u {}` thaws)",
                mountpoint.display()
            ));
        }
        freeze.frozen = Some(file);
        Ok(freeze)
    }

    /// Lets the writers of one volume go on, if they are held.
    pub(crate) fn release(&self, id: VolumeId) {
        let Some((mountpoint, file)) = lock(&self.frozen).remove(&id) else { return };
        if let Err(error) = linux::freeze::thaw_fd(&file, &mountpoint) {
            tracing::error!(path = %mountpoint.display(), %error, "could not thaw; `fsfreeze -u` on this path does it");
        }
        self.let_go(&mountpoint);
    }

    fn let_go(&self, mountpoint: &Path) {
        if let Some(guard) = &self.guard
            && let Err(error) = guard.release(mountpoint)
        {
            tracing::warn!(path = %mountpoint.display(), %error, "the guard did not let go");
        }
    }

    /// Whether someone would thaw what is frozen if this process ended now; if not, and nobody can be had, thaws it.
    fn check_guard(&self) {
        if lock(&self.frozen).is_empty() {
            return;
        }
        let Some(guard) = &self.guard else { return };
        if let Err(error) = guard.check() {
            tracing::error!(%error, "no guard process can be had: writers go on, or nobody could thaw them");
            let held: Vec<_> = lock(&self.frozen).keys().copied().collect();
            held.into_iter().for_each(|id| self.release(id));
        }
    }
}

/// Freezing a path where nothing is mounted would freeze the host's own file system.
fn refuse_host(file: &File, mountpoint: &Path) -> std::result::Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let here = file.metadata().map_err(|error| error.to_string())?.dev();
    let parent = mountpoint.parent().ok_or("the mount point is the root")?;
    let above = std::fs::metadata(parent).map_err(|error| error.to_string())?.dev();
    if here == above { Err(format!("nothing is mounted at {}", mountpoint.display())) } else { Ok(()) }
}

impl Engine {
    /// Looks at every pool, holds or releases writers, and says when to look again.
    pub fn watch_pools(self: &Arc<Self>) -> Duration {
        self.holds.check_guard();
        let next = self.pools.iter().map(|pool| {
            self.watch_pool(pool).unwrap_or_else(|error| {
                tracing::warn!(pool = %pool.settings.name, %error, "could not look at the pool");
                LOOK_SELDOM
            })
        });
        next.min().unwrap_or(LOOK_SELDOM)
    }

    fn watch_pool(self: &Arc<Self>, pool: &Pool) -> Result<Duration> {
        let space = pool.space()?;
        let Some(line) = pool.hold_line(&space) else { return Ok(LOOK_SELDOM) };
        let state = lock(&pool.hold).clone();
        if !matches!(state, Hold::Held { .. }) {
            // The operator may have released them while the last one was being frozen.
            self.release_frozen(pool);
        }
        let thin = self.thin_and_attached(pool);
        if thin.is_empty() && state == Hold::Open {
            return Ok(LOOK_SELDOM);
        }
        // Some way above the line, so that a pool at the line does not flutter.
        let enough = line.saturating_add(line / 4);
        let mut dirty = linux::host::dirty_bytes()?;
        if space.available.saturating_sub(dirty) <= enough {
            // Only now is it worth asking every volume.
            dirty = self.own_dirty(&thin)?;
        }
        let free = space.available.saturating_sub(dirty);
        let clear = free > enough;
        match state {
            Hold::Held { .. } if clear => {
                self.release_held(pool, Hold::Open);
                tracing::warn!(pool = %pool.settings.name, available = space.available, "space has returned: writers go on");
            }
            Hold::Held { .. } => self.hold_writers(pool),
            Hold::Overridden if clear => *lock(&pool.hold) = Hold::Open,
            Hold::Overridden => {}
            Hold::Open if free >= line => {
                return Ok(time_to_write(free - line).clamp(LOOK_OFTEN, LOOK_SELDOM));
            }
            Hold::Open => {
                *lock(&pool.hold) = Hold::Held { since: self.clock.now() };
                lock(&self.holds.failed).clear();
                tracing::error!(
                    pool = %pool.settings.name, path = %pool.settings.path.display(), available = space.available, dirty, line,
                    "the pool is full: writers of its thin volumes are held until space returns (or `everhold pool release {}`)",
                    pool.settings.name
                );
                self.hold_writers(pool);
            }
        }
        Ok(LOOK_OFTEN)
    }

    /// What running volumes may still take from the pool for data that their users have written already.
    pub(crate) fn still_to_come(&self, pool: &Pool) -> Result<Size> {
        self.own_dirty(&self.thin_and_attached(pool)).map(Size::from_bytes)
    }

    fn thin_and_attached(&self, pool: &Pool) -> Vec<Arc<Volume>> {
        let table = self.read();
        let mine = |v: &&Arc<Volume>| {
            v.spec.pool == pool.settings.name && v.spec.is_thin() && !v.attachments.is_empty()
        };
        table.all().filter(mine).cloned().collect()
    }

    /// The dirty data in memory that may belong to these volumes: all that there is, but no more than they can still take
    /// from the pool. The kernel does not say whose it is, so this errs towards holding too early: a hold ends when what is
    /// dirty has been written.
    fn own_dirty(&self, thin: &[Arc<Volume>]) -> Result<u64> {
        if thin.is_empty() {
            return Ok(0);
        }
        let room = |volume: &Arc<Volume>| {
            let usage = self.with_driver(volume, "look at", "", |driver, place| driver.usage(place)).ok()?;
            Some(volume.spec.promised().bytes().saturating_sub(usage.allocated?))
        };
        Ok(linux::host::dirty_bytes()?.min(thin.iter().filter_map(room).fold(0, u64::saturating_add)))
    }

    /// Freezes what is not frozen yet; volumes that a verb is at work on get their turn at the next look.
    fn hold_writers(self: &Arc<Self>, pool: &Pool) {
        for volume in self.thin_and_attached(pool) {
            if self.holds.is_held(volume.id) || !lock(&self.holds.freezing).insert(volume.id) {
                continue;
            }
            let engine = Arc::clone(self);
            let started = std::thread::Builder::new().name("freeze".into()).spawn({
                let volume = Arc::clone(&volume);
                move || {
                    engine.hold_one(&volume);
                    lock(&engine.holds.freezing).remove(&volume.id);
                }
            });
            if let Err(error) = started {
                tracing::error!(volume = %volume.name, %error, "no thread to hold its writers");
                lock(&self.holds.freezing).remove(&volume.id);
            }
        }
    }

    fn hold_one(&self, volume: &Volume) {
        let Some(_claim) = self.claims.try_take(&volume.name, "hold writers") else { return };
        // Detached meanwhile?
        let Some(now) = self.read().get(volume.id).filter(|now| !now.attachments.is_empty()) else { return };
        let mountpoint = self.with_driver(&now, "hold", "", |driver, place| Ok(driver.freezable(place)));
        let Ok(Some(mountpoint)) = mountpoint else { return };
        match self.holds.freeze(volume.id, mountpoint) {
            Ok(()) => tracing::warn!(volume = %volume.name, "its writers are held: the pool is full"),
            Err(error) if lock(&self.holds.failed).insert(volume.id) => {
                tracing::error!(volume = %volume.name, error, "its writers could not be held; tried again until they are");
            }
            Err(_) => {}
        }
    }

    fn release_held(&self, pool: &Pool, then: Hold) {
        *lock(&pool.hold) = then;
        self.release_frozen(pool);
    }

    fn release_frozen(&self, pool: &Pool) {
        if lock(&self.holds.frozen).is_empty() {
            return;
        }
        for volume in self.thin_and_attached(pool) {
            self.holds.release(volume.id);
        }
    }

    /// Lets the writers of a pool go on although it is full. They get I/O errors when the last block is gone.
    ///
    /// # Errors
    /// [`Error::NoPool`].
    pub fn release_pool(&self, name: &PoolName) -> Result<crate::Change> {
        let pool = self.pool(name)?;
        if !matches!(*lock(&pool.hold), Hold::Held { .. }) {
            return Ok(crate::Change::AlreadyThere);
        }
        self.release_held(pool, Hold::Overridden);
        tracing::warn!(pool = %name, "the operator released the writers of a full pool");
        Ok(crate::Change::Done)
    }

    /// Lets every held writer go on; for the end of the daemon.
    pub fn release_all(&self) {
        let held: Vec<_> = lock(&self.holds.frozen).keys().copied().collect();
        held.into_iter().for_each(|id| self.holds.release(id));
    }

    /// Why the writers of this volume wait, or are about to.
    pub(crate) fn held_error(&self, volume: &Volume) -> Option<Error> {
        let at_risk = volume.spec.is_thin() && !volume.attachments.is_empty();
        at_risk.then(|| self.pool(&volume.spec.pool).ok()?.refuse_if_held().err()).flatten()
    }
}
