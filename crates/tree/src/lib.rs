//! File trees with everything that a file has: walked without reading, and copied while they are in use.
//!
//! The source may be hostile: a container may swap a directory for a symlink while it is looked at. So this room works with
//! open directories and single names, and never follows a symlink, neither in a source nor in a destination. It knows
//! nothing of volumes, containers or who pauses whom.

pub mod compare;
pub mod content;
mod cursor;
pub mod entry;
mod error;
pub mod marks;
pub mod mirror;
pub mod tracker;
mod trust;
pub mod walk;
pub mod xattrs;

pub use compare::compare;
pub use entry::{Entry, Kind, Time};
pub use error::{Error, Result};
pub use mirror::{Mirror, Options, Pass, Progress};
pub use tracker::Tracker;
pub use walk::{Skip, Tree, Walk, estimate};
