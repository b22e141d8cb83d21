//! The daemon at a glance.

use super::Vault;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The daemon at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process ID.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// Live volumes.
    pub volumes: u64,
    /// Of these, attached ones.
    pub attached: u64,
    /// Volumes in the trash.
    pub trashed: u64,
    /// Volumes that nothing more is done to until someone has looked.
    pub fenced: Vec<Fenced>,
    /// Names of pools whose writers are held because they are full.
    pub held_pools: Vec<String>,
    /// The vaults, as last seen.
    #[serde(default)]
    pub vaults: Vec<Vault>,
    /// The state directory.
    pub state: String,
    /// The kernel's boot ID.
    pub boot_id: String,
}

/// A volume whose undo failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fenced {
    /// The volume's name.
    pub name: String,
    /// What failed.
    pub reason: String,
}

impl Status {
    pub(crate) fn of(status: engine::Status, version: &str, started: Timestamp) -> Self {
        Self {
            version: version.to_owned(),
            pid: std::process::id(),
            started,
            volumes: status.volumes as u64,
            attached: status.attached as u64,
            trashed: status.trashed as u64,
            fenced: status
                .fenced
                .into_iter()
                .map(|(name, reason)| Fenced { name: name.to_string(), reason })
                .collect(),
            held_pools: status.held_pools,
            vaults: status.vaults.into_iter().map(Vault::from).collect(),
            state: status.state.display().to_string(),
            boot_id: status.boot_id,
        }
    }
}
