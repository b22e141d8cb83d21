//! Backups of containers in vaults.

use super::Outcome;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A bundle in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bundle {
    /// Its name, unique in the vault.
    pub name: String,
    /// The instant that it is of.
    #[schema(value_type = String, format = DateTime)]
    pub instant: Timestamp,
    /// When it was stored.
    #[schema(value_type = String, format = DateTime)]
    pub stored_at: Timestamp,
    /// The containers in it.
    pub containers: Vec<String>,
    /// Its bytes.
    pub size: u64,
    /// The bytes that it has in the vault.
    pub stored: u64,
}

/// The bundles in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bundles {
    /// The vault.
    pub vault: String,
    /// By name.
    pub bundles: Vec<Bundle>,
    /// What can't be read, in words.
    pub problems: Vec<String>,
}

/// A file that is to be stored as a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreBundle {
    /// Its name, unique in the vault.
    pub name: String,
    /// The file, in the directory `spool` of the daemon's state directory.
    pub path: String,
    /// The instant that it is of.
    #[schema(value_type = String, format = DateTime)]
    pub instant: Timestamp,
    /// The containers in it.
    #[serde(default)]
    pub containers: Vec<String>,
}

/// Where a bundle is to be fetched to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchBundle {
    /// A file that is not there yet, in the directory `spool` of the daemon's state directory.
    pub path: String,
}

/// A bundle that is in the vault now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleStored {
    /// `created`, or `already-there`.
    pub result: Outcome,
    /// The bundle.
    pub bundle: Bundle,
}

/// A bundle that is in the vault no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleRemoved {
    /// `destroyed`, or `already-there`.
    pub result: Outcome,
    /// What it was; `null` if there was none.
    pub bundle: Option<Bundle>,
}

impl From<engine::Bundle> for Bundle {
    fn from(bundle: engine::Bundle) -> Self {
        let stored = bundle.about.stored();
        Self {
            name: bundle.about.label.name,
            instant: bundle.instant,
            stored_at: bundle.stored,
            containers: bundle.about.label.containers,
            size: bundle.about.size,
            stored,
        }
    }
}
