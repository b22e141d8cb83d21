//! What the caller knows and hands in.

use model::Percent;
use std::path::PathBuf;
use std::time::SystemTime;

/// Where to look, and what the daemon and Docker said.
#[derive(Debug, Clone)]
pub struct Context {
    /// The time on the wall clock.
    pub now: SystemTime,
    /// `/`. Tests hand in a tree with `proc`, `sys`, `etc`, `run` and programs of its own. The other paths of
    /// this structure are not below it.
    pub root: PathBuf,
    /// The directory of the catalog.
    pub state: PathBuf,
    /// The directory with one mount point for each mounted volume, named by its ID.
    pub mountpoints: PathBuf,
    /// The socket of the volume plugin; its directory is where Docker has to look.
    pub plugin_socket: PathBuf,
    /// The pools of the configuration.
    pub pools: Vec<PoolPlace>,
    /// What Docker says of itself. `Ok(None)`: no Docker Engine is wanted here; `Err`: why it does not answer.
    pub docker: Result<Option<DockerFacts>, String>,
    /// What the daemon says. `Err`: why it does not answer.
    pub daemon: Result<DaemonFacts, String>,
}

/// A pool of the configuration.
#[derive(Debug, Clone)]
pub struct PoolPlace {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// The share of its file system that new volumes must leave free.
    pub reserve: Percent,
}

/// What the Engine API says (`/version`, `/info`, `/volumes`).
#[derive(Debug, Clone)]
pub struct DockerFacts {
    /// `Version`: `20.10.24+dfsg1`.
    pub version: String,
    /// `ApiVersion`: `1.41`.
    pub api_version: String,
    /// `Driver`: `overlay2`.
    pub storage_driver: String,
    /// `Backing Filesystem` of `DriverStatus`: `extfs`, `xfs`.
    pub backing_fs: Option<String>,
    /// Whether `SecurityOptions` has `name=rootless`.
    pub rootless: bool,
    /// `LiveRestoreEnabled`.
    pub live_restore: bool,
    /// The names of the volumes that Docker lists with our driver. `None`: not asked, or no answer in time.
    pub volumes: Option<Vec<String>>,
}

/// What the daemon's catalog holds.
#[derive(Debug, Clone)]
pub struct DaemonFacts {
    /// The names of the live volumes.
    pub volumes: Vec<String>,
    /// The IDs of all volumes, also of those in the trash and of those being made or destroyed.
    pub ids: Vec<String>,
}
