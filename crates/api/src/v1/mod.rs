//! What goes over the wire in version 1: plain data with documented units, and how the engine's types become it.
//!
//! Sizes are whole numbers of bytes, times are RFC 3339 in UTC. Fields are added, never renamed or removed; a reader
//! ignores what it does not know. Requests are strict: an unknown field is an error, since it may be a misspelt wish.

mod bundle;
mod history;
mod holders;
mod pairs;
mod pool;
mod problem;
mod progress;
mod request;
mod status;
mod stored;
mod trash;
mod usage;
mod vault;
mod volume;

pub use bundle::{Bundle, BundleRemoved, BundleStored, Bundles, FetchBundle, StoreBundle};
pub use history::{
    CloneVolume, Cut, Gap, History, NamedCut, Protect, Protected, ProtectionStatus, Protections, RestoreCut,
    RestoredCut, Snapshot, SnapshotCreate, Snapshots, Verified, Verify,
};
pub use holders::{Container, Holders, Process};
pub use pairs::Pairs;
pub use pool::{HoldState, Pool, PoolReleased, Pools};
pub use problem::Problem;
pub use progress::{Progress, Work};
pub use request::{Attach, CheckVault, Create, DryRun, Grow, Labels, Rename, Restore, SizeText};
pub use status::{Fenced, Status};
pub use stored::{Here, RestoreStored, StoredHistories, StoredHistory};
pub use trash::{Destroyed, Trash};
pub use usage::{Inodes, Usage, Usages};
pub use vault::{
    Abilities, Secret, Vault, VaultAdd, VaultAdded, VaultChecked, VaultClaim, VaultFinding, VaultForgotten,
    VaultHistory, VaultKit, VaultSlot, VaultState, Vaults,
};
pub use volume::{
    Access, Attached, Attachment, Detached, Finding, Outcome, Trashed, Volume, VolumeChanged, VolumeDetail,
    VolumeRemoved, VolumeState, Volumes,
};
