//! The lifecycle of volumes: what exists, who holds it, what was begun, and what happens when it is interrupted.
//!
//! The engine owns the catalog and calls the drivers. It knows nothing of Docker's protocol, of HTTP or of the command
//! line, and it is synchronous: whoever calls it from an async runtime does so on a thread that may block.

mod autogrow;
mod catalog;
mod claims;
mod clock;
mod containers;
mod description;
mod engine;
mod error;
mod fault;
mod guard;
mod history;
mod hold;
mod pools;
mod recovery;
mod scan;
mod settings;
mod table;
mod vaults;
mod verbs;
mod views;
mod watch;

pub use self::history::{
    CutView, Gap, HistorySettings, Progress, ProtectionStatus, Restored, Schedule, StoredHistory, Timeline,
    Tracking, Verified,
};
pub use ::history::Step as HistoryStep;
pub use catalog::Catalog;
pub use clock::{Clock, SystemClock};
pub use containers::{ContainerUse, Containers, NoContainers};
pub use engine::{Engine, Parts};
pub use error::{Error, Result};
pub use fault::{Fault, Faults};
pub use guard::{Guard, run_guard};
pub use hold::Hold;
pub use linux::Change;
pub use linux::procs::{Access as FileAccess, Holder as Process, Use as FileUse};
pub use pools::PoolStatus;
pub use recovery::Repair;
pub use scan::{Scanned, rebuild};
pub use settings::{HoldLine, PoolSettings, Settings};
pub use vaults::{
    Bundle, BundleToStore, Bundles, OpenVault, VaultAccess, VaultAdd, VaultAdded, VaultChange, VaultChecked,
    VaultError, VaultRecord, VaultState, VaultView, Vaults,
};
pub use views::{Holders, Inspection, Status};
pub use watch::Watch;
