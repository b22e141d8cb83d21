//! Pools.

use super::{Outcome, Problem};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pools {
    /// How each pool stands.
    pub pools: Vec<Pool>,
    /// One for each pool that can't be looked at.
    pub problems: Vec<Problem>,
}

/// How a pool stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The type of the file system that it is on, such as `ext4`.
    pub file_system: String,
    /// Bytes of its file system.
    pub total: u64,
    /// Bytes that can still be used.
    pub free: u64,
    /// New volumes are refused when fewer bytes than this are free.
    pub reserve: u64,
    /// Writers of thin images are held when fewer bytes than this are free. `null`: never.
    pub hold_below: Option<u64>,
    /// Bytes that its volumes may grow to, all together; those in the trash count.
    pub promised: u64,
    /// Bytes that they may be promised.
    pub promise_limit: u64,
    /// Live volumes.
    pub volumes: u64,
    /// Volumes in the trash.
    pub trashed: u64,
    /// Whether writers are held.
    pub hold: HoldState,
    /// Since when they are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Timestamp>,
}

/// Whether the writers of a pool are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HoldState {
    /// They write.
    Open,
    /// They wait for space.
    Held,
    /// The operator let them go on although the pool is full.
    Overridden,
}

/// The answer to releasing the writers of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolReleased {
    /// `released`, or `already-there` when no writer was held.
    pub result: Outcome,
    /// The pool's name.
    pub pool: String,
}

impl From<engine::PoolStatus> for Pool {
    fn from(pool: engine::PoolStatus) -> Self {
        let (hold, held_since) = match pool.hold {
            engine::Hold::Open => (HoldState::Open, None),
            engine::Hold::Held { since } => (HoldState::Held, Some(since)),
            engine::Hold::Overridden => (HoldState::Overridden, None),
        };
        Self {
            name: pool.name.to_string(),
            path: pool.path.display().to_string(),
            labels: pool.labels,
            file_system: pool.fstype,
            total: pool.total.bytes(),
            free: pool.free.bytes(),
            reserve: pool.reserve.bytes(),
            hold_below: pool.hold_below.map(model::Size::bytes),
            promised: pool.promised.bytes(),
            promise_limit: pool.promise_limit.bytes(),
            volumes: pool.volumes as u64,
            trashed: pool.trashed as u64,
            hold,
            held_since,
        }
    }
}
