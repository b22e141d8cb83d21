//! What can be asked without changing anything.

use crate::containers::ContainerUse;
use crate::engine::{Engine, lock};
use crate::{Hold, Result};
use linux::procs::{Holder as Process, Target, open_files};
use model::{Intent, Volume, VolumeName};
use std::path::PathBuf;
use std::sync::Arc;
use storage::{Observation, Usage};

/// All about one volume.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Its record.
    pub volume: Arc<Volume>,
    /// Its directory in the pool.
    pub home: PathBuf,
    /// What the driver sees.
    pub seen: Observation,
    /// Whether its writers are held because the pool is full.
    pub held: bool,
}

/// Who uses a volume.
#[derive(Debug)]
pub struct Holders {
    /// Its record, with the attachments.
    pub volume: Arc<Volume>,
    /// The containers that have it among their mounts, or why they are not known.
    pub containers: std::result::Result<Vec<ContainerUse>, String>,
    /// The processes with open files on it, in any mount namespace.
    pub processes: Vec<Process>,
}

/// The daemon at a glance.
#[derive(Debug, Clone)]
pub struct Status {
    /// Live volumes.
    pub volumes: usize,
    /// Of these, attached ones.
    pub attached: usize,
    /// Volumes in the trash.
    pub trashed: usize,
    /// Names of fenced volumes, with the reason.
    pub fenced: Vec<(VolumeName, String)>,
    /// Names of pools whose writers are held.
    pub held_pools: Vec<String>,
    /// The vaults, as last seen.
    pub vaults: Vec<crate::VaultView>,
    /// The state directory.
    pub state: PathBuf,
    /// The kernel's boot ID.
    pub boot_id: String,
}

impl Engine {
    /// All about one volume.
    ///
    /// # Errors
    /// [`crate::Error::NoVolume`].
    pub fn inspect(&self, name: &VolumeName) -> Result<Inspection> {
        let volume = self.volume(name)?;
        let half = matches!(volume.pending, Some(Intent::Import { .. }));
        let mut seen = if half {
            // There is nothing to be seen before it is whole.
            Observation::default()
        } else {
            self.with_driver(&volume, "inspect", "", |driver, place| Ok(driver.observe(place)))?
        };
        seen.notes.extend(self.refuse_half_restored(&volume).err().map(|error| error.to_string()));
        if !volume.attachments.is_empty() && seen.path.is_none() {
            seen.problems.push(storage::Problem {
                what: "it is attached, but its mount is gone".into(),
                next: "restart a container that uses it, or the daemon: either mounts it again".into(),
            });
        }
        if let Some(reason) = &volume.fenced {
            seen.problems
                .push(storage::Problem { what: reason.clone(), next: "see the daemon's log".into() });
        }
        if let Some(error) = self.held_error(&volume) {
            seen.problems.push(storage::Problem { what: error.to_string(), next: error.next_step() });
        }
        Ok(Inspection { home: self.home(&volume)?, held: self.holds.is_held(volume.id), volume, seen })
    }

    /// How full a volume is; constant time.
    ///
    /// # Errors
    /// [`crate::Error::NoVolume`], or a driver that can't tell.
    pub fn usage(&self, name: &VolumeName) -> Result<Usage> {
        let volume = self.volume(name)?;
        self.usage_of(&volume)
    }

    /// How full this volume is.
    ///
    /// # Errors
    /// A driver that can't tell.
    pub fn usage_of(&self, volume: &Volume) -> Result<Usage> {
        if matches!(volume.pending, Some(Intent::Import { .. })) {
            return Ok(Usage::default());
        }
        self.with_driver(volume, "usage", "nothing was changed", |driver, place| driver.usage(place))
    }

    /// Who uses a volume.
    ///
    /// # Errors
    /// [`crate::Error::NoVolume`], or `/proc` that can't be read.
    pub fn holders(&self, name: &VolumeName) -> Result<Holders> {
        use std::os::unix::fs::MetadataExt;
        let volume = self.volume(name)?;
        let processes = match self.path_of(volume.id) {
            None => Vec::new(),
            Some(path) => {
                let freezable =
                    self.with_driver(&volume, "inspect", "", |driver, place| Ok(driver.freezable(place)))?;
                let own_device = freezable.and_then(|mountpoint| std::fs::metadata(mountpoint).ok());
                let found = match own_device {
                    Some(metadata) => open_files(&Target::Device(metadata.dev())),
                    None => open_files(&Target::Tree(&path)),
                };
                match found {
                    // Its mount or directory is gone, behind our back: `inspect` says so, and nobody can be in it.
                    Err(error) if error.is_not_found() => Vec::new(),
                    other => other?,
                }
            }
        };
        Ok(Holders { containers: self.containers.using(name), processes, volume })
    }

    /// The daemon at a glance.
    pub fn status(&self) -> Status {
        let held = self.pools.iter().filter(|pool| matches!(*lock(&pool.hold), Hold::Held { .. }));
        let held_pools = held.map(|pool| pool.settings.name.to_string()).collect();
        let live = self.volumes();
        Status {
            volumes: live.len(),
            attached: live.iter().filter(|volume| !volume.attachments.is_empty()).count(),
            trashed: self.trash().len(),
            fenced: live.iter().filter_map(|v| Some((v.name.clone(), v.fenced.clone()?))).collect(),
            held_pools,
            vaults: self.vaults().list(),
            state: self.settings.state.clone(),
            boot_id: self.boot_id.clone(),
        }
    }
}
