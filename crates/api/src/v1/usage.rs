//! How full volumes are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How full a volume is, from counters that are there anyway; never a walk of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// The volume's name.
    pub name: String,
    /// Bytes that the application can fill in all. `null`: no limit of its own.
    pub size: Option<u64>,
    /// Bytes in use as the application sees it. `null`: not known without a walk, or not mounted.
    pub used: Option<u64>,
    /// Bytes that the volume takes from its pool on the host. `null`: not known without a walk.
    pub allocated: Option<u64>,
    /// Inodes. `null`: no limit of its own, or not mounted.
    pub inodes: Option<Inodes>,
}

/// A count of inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inodes {
    /// How many there can be.
    pub total: u64,
    /// How many are in use.
    pub used: u64,
}

/// How full all volumes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usages {
    /// One for each live volume that can be looked at, by name.
    pub usages: Vec<Usage>,
}
