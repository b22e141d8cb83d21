//! Whole containers: what would be lost with them, their data moved to volumes of ours, backups of them.
//!
//! * [`survey`]: facts about a Docker host, for the audit.
//! * [`relocate`]: `rescue` and `adopt`: data moves to volumes, and containers are given back on them.
//! * [`settings`]: what a container's settings are, as pure rules.
//!
//! Everything is done from the engine's own host, by root, through the engine's API and in the file systems. Volumes are handed in
//! as [`Volumes`]; nothing here knows Everhold's daemon.

pub mod backup;
pub mod container;
mod error;
pub mod files;
pub mod hooks;
pub mod relocate;
pub mod restore;
pub mod settings;
pub mod survey;
mod volumes;

pub use container::Container;
pub use error::{Error, Result};
pub use volumes::Volumes;
