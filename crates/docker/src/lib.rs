//! Docker, from both sides: the volume plugin that a Docker Engine calls, and the Engine API that Everhold asks.
//!
//! * [`plugin`]: the server of the volume plugin protocol v1. Docker calls it to create, mount and remove volumes.
//! * [`DockerEngine`]: the few questions that Everhold has for a Docker Engine: who uses a volume, what
//!   it was labelled, what engine it is. There may be none; then everything else works all the same.
//! * [`Api`]: the same engine for work on whole containers, which room `containers` does.
//! * [`follow_labels`]: the background task that brings labels over, which the plugin protocol does not carry.
//!
//! What a container reads and writes never passes through here, and nothing here decides about a volume: the engine does.
//!
//! # When a Docker Engine dies
//! A container engine that is killed never says `Unmount`. Its mount IDs stay in the catalog as attachments that nobody
//! will end: Docker makes a new ID for each start of a container. Nothing is decided on that alone, since the containers may
//! well be running (they do, under their shims, until the engine is back; with live-restore they go on
//! after that too). When the event stream is there again, [`follow_labels`] calls
//! [`engine::Engine::drop_all_stale`], which asks [`DockerEngine`] who is running and drops the rest. It calls it once more a
//! little later, for attachments that were too young to be judged the first time. A volume that is asked to be removed, or
//! is exclusive, is checked at that moment too.

mod api;
mod client;
mod docker_engine;
mod inventory;
mod labels;
mod newly;
pub mod plugin;

pub use api::{Api, Download, Executed, Stat};
pub use client::{ApiError, encode, filters};
pub use docker_engine::DockerEngine;
pub use hyper::Method;
pub use inventory::{EngineFacts, KnownVolumes};
pub use labels::follow as follow_labels;
pub use newly::NewVolumes;
