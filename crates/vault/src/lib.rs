//! The vault: its format, its keys, and where it is kept.
//!
//! It knows streams, points and segments, and bundles as bytes with a name; it refuses to know volumes, file systems, clocks and the daemon.

pub mod bundles;
pub mod chain;
pub mod check;
pub mod claim;
pub mod descriptor;
pub mod format;
pub mod inventory;
pub mod keys;
pub mod plan;
pub mod read;
mod segment;
pub mod store;
pub mod stream;
pub mod url;

pub use segment::{Listing, Segment};
pub use store::{Abilities, Ability, Created, Object, Store, StoreError, StoreResult};
