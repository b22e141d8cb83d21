//! What the engine is told at start-up.

use crate::engine::make_dir;
use crate::{Error, Result};
use model::{Defaults, Labels, Percent, PoolName, Size};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A place where drivers put volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Its name.
    pub name: PoolName,
    /// Its directory; made if absent.
    pub path: PathBuf,
    /// What people say about it.
    pub labels: Labels,
    /// New volumes are refused when less than this share of its file system is free.
    pub reserve: Percent,
    /// Writers of thin images are held when less than this much is free.
    pub hold: HoldLine,
    /// How much all volumes together may promise, as a share of the file system's size.
    pub overcommit: Percent,
}

/// The free space under which writers are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldLine {
    /// The larger of 1 % of the file system and 256 MiB, but at most half of the reserve (5 % without a reserve).
    Auto,
    /// This much.
    Below(Size),
    /// Never: writers get I/O errors when the disk is full.
    Off,
}

/// What the engine is told at start-up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the catalog and of the mount points.
    pub state: PathBuf,
    /// The file with the kernel's boot ID; another file only in tests of a reboot.
    pub boot_id_file: PathBuf,
    /// What holds where a request is silent.
    pub defaults: Defaults,
    /// How long a removed volume stays restorable.
    pub trash_ttl: Duration,
    /// The pools; at least one.
    pub pools: Vec<PoolSettings>,
    /// How long a verb waits for another one on the same volume.
    pub claim_wait: Duration,
    /// How histories are kept.
    pub history: crate::HistorySettings,
}

impl Settings {
    /// Makes the directories that are absent, and gives all of them their real paths: the kernel's mount table knows no
    /// symbolic links.
    pub(crate) fn make_directories(&mut self) -> Result<()> {
        make_dir(&self.state, 0o711)?;
        self.state = real(&self.state)?;
        for pool in &mut self.pools {
            make_dir(&pool.path.join("volumes"), 0o700)?;
            pool.path = real(&pool.path)?;
        }
        Ok(())
    }

    /// The catalog's file.
    pub fn catalog(&self) -> PathBuf {
        self.state.join("catalog.redb")
    }

    /// The lock file that keeps a second daemon off.
    pub fn lock(&self) -> PathBuf {
        self.state.join("daemon.lock")
    }

    /// What the daemon keeps for the history of a volume while it is on its way to the vault.
    pub fn history(&self, id: model::VolumeId) -> PathBuf {
        self.state.join("history").join(id.to_string())
    }

    /// Where files are put that are on their way into a vault or out of one: for root alone.
    pub fn spool(&self) -> PathBuf {
        self.state.join("spool")
    }

    /// The directory of the mount points, one below it for each volume that is mounted.
    pub fn mountpoints(&self) -> PathBuf {
        self.state.join("mnt")
    }
}

fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|source| {
        Error::Kernel(linux::KernelError { op: "resolve", path: Some(path.to_owned()), source })
    })
}
