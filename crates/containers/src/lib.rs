//! Whole containers: what would be lost with them, their data moved to volumes of ours, backups of them.
//!
//! * [`survey`]: facts about a Docker host, for the audit.
//! * [`relocate`]: `rescue` and `adopt`: data moves to volumes, and containers are given back on them.
//! * [`backup`] and [`restore`]: whole containers in one file.
//! * [`settings`]: what a container's settings are, as pure rules.
//!
//! What these begin is in a [`Journal`] before it is done: [`recover`] finishes or undoes it when its process is gone.
//!
//! Everything is done from the engine's own host, by root, through the engine's API and in the file systems. Volumes are handed in
//! as [`Volumes`]; nothing here knows Everhold's daemon.

pub mod backup;
pub mod container;
mod engine;
mod error;
pub mod files;
pub mod hooks;
mod journal;
mod recover;
pub mod relocate;
pub mod restore;
pub mod settings;
pub mod survey;
mod tools;
mod volumes;

pub use container::Container;
pub use error::{Error, Result};
pub use journal::Journal;
pub use recover::{Outcome, recover, recover_all};
pub use tools::{Event, Tools};
pub use volumes::Volumes;
