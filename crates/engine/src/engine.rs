//! The engine itself: what it is made of, how it opens, and the few steps that every verb shares.

use crate::claims::{Claim, Claims};
use crate::history::Histories;
use crate::hold::Holds;
use crate::pools::Pool;
use crate::recovery::{self, Repair};
use crate::table::Table;
use crate::{Catalog, Clock, Containers, Error, Fault, Faults, Guard, Result, Settings, Tracking, Vaults};
use linux::lock::{LockError, PidLock};
use model::{Intent, PoolName, Volume, VolumeId, VolumeName};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use storage::{Driver, Drivers, Place};

/// What an engine is put together from.
pub struct Parts {
    /// What it is told.
    pub settings: Settings,
    /// How volumes are stored.
    pub drivers: Drivers,
    /// Who knows which containers use a volume.
    pub containers: Arc<dyn Containers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What thaws file systems if this process dies. `None`: nothing is ever frozen.
    pub guard: Option<Guard>,
    /// Who tracks changed blocks.
    pub tracking: Arc<Tracking>,
    /// Where tests end the process.
    pub faults: Faults,
}

/// The lifecycle of volumes on one host.
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) drivers: Drivers,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) claims: Claims,
    pub(crate) pools: Vec<Pool>,
    pub(crate) holds: Holds,
    pub(crate) boot_id: String,
    /// Held while a new promise is checked and recorded.
    placing: Mutex<()>,
    pub(crate) vaults: Arc<Vaults>,
    pub(crate) histories: Histories,
    catalog: Arc<Catalog>,
    table: Arc<RwLock<Table>>,
    /// Where attached volumes are, so that nobody has to ask the kernel.
    paths: Mutex<HashMap<VolumeId, PathBuf>>,
    faults: Faults,
    _lock: PidLock,
}

/// A mutex whose data is whole at every step, so that a panic elsewhere does not matter.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| {
        Error::Kernel(linux::KernelError { op: "create directory", path: Some(path.to_owned()), source })
    })
}

impl Engine {
    /// Opens the state directory, takes it for this process alone, and finishes or undoes what was interrupted.
    ///
    /// # Errors
    /// [`Error::SecondDaemon`], a damaged catalog, or a directory that can't be used.
    pub fn open(parts: Parts) -> Result<(Self, Vec<Repair>)> {
        let Parts { mut settings, drivers, containers, clock, guard, tracking, faults } = parts;
        let histories = Histories::new(settings.history.clone(), tracking, crate::history::steps(faults));
        settings.make_directories()?;
        let lock = take_lock(&settings)?;
        histories.tracking.begin();
        // Nobody but root may reach a set-user-ID file that a container wrote.
        make_dir(&settings.mountpoints(), 0o700)?;
        let pools = settings.pools.iter().map(Pool::new).collect();
        let boot_id = linux::host::boot_id(&settings.boot_id_file)?;
        refuse_lost_catalog(&settings)?;
        let catalog = Arc::new(Catalog::open(&settings.catalog())?);
        let table = catalog.truth();
        for volume in catalog.load()? {
            table.write().unwrap_or_else(PoisonError::into_inner).put(volume);
        }
        let vaults = Vaults::load(&settings, Arc::clone(&catalog), Arc::clone(&clock), &boot_id)?;
        let engine = Self {
            histories,
            vaults: Arc::new(vaults),
            claims: Claims::new(settings.claim_wait),
            holds: Holds::new(guard),
            placing: Mutex::default(),
            table,
            paths: Mutex::default(),
            _lock: lock,
            settings,
            drivers,
            containers,
            clock,
            pools,
            boot_id,
            catalog,
            faults,
        };
        let repairs = recovery::run(&engine);
        Ok((engine, repairs))
    }

    /// The present moment, by the engine's clock.
    pub fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    /// What the engine was told at start-up.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The live volumes, by name; not those that are still being made.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        let mut live = self.read().all_live();
        live.retain(|volume| volume.pending != Some(Intent::Create) || volume.fenced.is_some());
        live
    }

    /// What can be restored, newest first.
    pub fn trash(&self) -> Vec<Arc<Volume>> {
        self.read().trash()
    }

    /// The live volume of that name.
    ///
    /// # Errors
    /// [`Error::NoVolume`].
    pub fn volume(&self, name: &VolumeName) -> Result<Arc<Volume>> {
        let table = self.read();
        let made = |volume: &Arc<Volume>| volume.pending != Some(Intent::Create) || volume.fenced.is_some();
        table.live(name).filter(made).ok_or_else(|| Error::NoVolume {
            name: name.to_string(),
            in_trash: table.all().any(|volume| !volume.is_live() && volume.name == *name),
        })
    }

    /// Where a volume is attached, if it is; answers at once.
    pub fn path_of(&self, id: VolumeId) -> Option<PathBuf> {
        lock(&self.paths).get(&id).cloned()
    }

    pub(crate) fn set_path(&self, id: VolumeId, path: Option<PathBuf>) {
        let mut paths = lock(&self.paths);
        match path {
            Some(path) => paths.insert(id, path),
            None => paths.remove(&id),
        };
    }

    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn placing(&self) -> MutexGuard<'_, ()> {
        lock(&self.placing)
    }

    pub(crate) fn claim(&self, name: &VolumeName, verb: &'static str) -> Result<Claim<'_>> {
        self.claims.take([name], verb)
    }

    /// The live volume of that name, free to be worked on.
    pub(crate) fn usable(&self, name: &VolumeName) -> Result<Arc<Volume>> {
        let volume = self.volume(name)?;
        self.refuse_half_restored(&volume)?;
        self.refuse_fenced(volume)
    }

    pub(crate) fn refuse_fenced(&self, volume: Arc<Volume>) -> Result<Arc<Volume>> {
        match &volume.fenced {
            None => Ok(volume),
            Some(reason) => Err(Error::Fenced { name: volume.name.clone(), reason: reason.clone() }),
        }
    }

    /// Records a volume; durable when it returns.
    pub(crate) fn record(&self, volume: Volume) -> Result<Arc<Volume>> {
        self.catalog.put(&volume)?;
        Ok(self.change().put(volume))
    }

    /// Records several volumes in one transaction.
    pub(crate) fn record_all(&self, volumes: Vec<Volume>) -> Result<()> {
        self.catalog.put_all(&volumes)?;
        let mut table = self.change();
        for volume in volumes {
            table.put(volume);
        }
        Ok(())
    }

    /// Describes a volume beside its data, then records it.
    pub(crate) fn describe_and_record(&self, volume: Volume, between: Fault) -> Result<Arc<Volume>> {
        match crate::description::write(&volume, &self.home(&volume)?) {
            // Removing and restoring must work on a full disk, where they are needed most. The record is what holds; start-up
            // makes the description say the same.
            Err(Error::Kernel(error)) if error.is_no_space() => {
                tracing::warn!(volume = %volume.name, %error, "its description is written at the next start");
            }
            other => other?,
        }
        self.fault(between);
        self.record(volume)
    }

    pub(crate) fn forget(&self, id: VolumeId) -> Result<()> {
        self.catalog.remove(id)?;
        self.set_path(id, None);
        self.change().remove(id);
        Ok(())
    }

    pub(crate) fn next_project(&self) -> Result<u32> {
        self.catalog.next_project()
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.faults.at(fault);
    }

    pub(crate) fn pool(&self, name: &PoolName) -> Result<&Pool> {
        self.pools.iter().find(|pool| pool.settings.name == *name).ok_or_else(|| Error::NoPool {
            name: name.clone(),
            known: self.pools.iter().map(|pool| pool.settings.name.to_string()).collect(),
        })
    }

    /// The directory in the pool that is this volume's.
    pub(crate) fn home(&self, volume: &Volume) -> Result<PathBuf> {
        Ok(self.pool(&volume.spec.pool)?.home(volume.id))
    }

    pub(crate) fn driver(&self, volume: &Volume) -> &dyn Driver {
        self.drivers.get(volume.spec.kind())
    }

    /// Calls `work` with the volume's driver and place, and says what state the data is in should it fail.
    pub(crate) fn with_driver<T>(
        &self,
        volume: &Volume,
        verb: &'static str,
        state: &'static str,
        work: impl FnOnce(&dyn Driver, &Place<'_>) -> storage::Result<T>,
    ) -> Result<T> {
        let home = self.home(volume)?;
        let mountpoint = self.settings.mountpoints().join(volume.id.to_string());
        let place = Place {
            id: volume.id,
            uuid: volume.superblock_uuid(),
            spec: &volume.spec,
            home: &home,
            mountpoint: &mountpoint,
            project: volume.project,
        };
        work(self.driver(volume), &place).map_err(|source| Error::Storage {
            name: volume.name.clone(),
            verb,
            source,
            state,
        })
    }
}

/// No catalog and no volumes is a new installation; no catalog and volumes is a loss that must not look like one.
fn refuse_lost_catalog(settings: &Settings) -> Result<()> {
    let path = settings.catalog();
    let lost = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len() == 0,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if lost && settings.pools.iter().any(|pool| crate::scan::has_volumes(&pool.path)) {
        let why = "it is empty or absent, and the pools have volumes".to_owned();
        return Err(Error::CatalogDamaged { path, why });
    }
    Ok(())
}

fn take_lock(settings: &Settings) -> Result<PidLock> {
    PidLock::acquire(&settings.lock()).map_err(|error| match error {
        LockError::Held { pid } => Error::SecondDaemon { pid, state: settings.state.clone() },
        LockError::Io(error) => Error::Kernel(error),
    })
}
