//! What the engine asks of a container engine. Docker answers it in the `docker` room.

use model::{Volume, VolumeName};
use serde::{Deserialize, Serialize};

/// One container's use of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUse {
    /// The container's full ID.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// The image that it was made from.
    pub image: String,
    /// `running`, `exited`, `paused`, … as the engine says it.
    pub state: String,
    /// Where the volume is mounted in it.
    pub destination: String,
    /// Whether it is mounted read-only there.
    pub read_only: bool,
}

impl ContainerUse {
    /// The container has processes, or is about to, that can reach the volume.
    pub fn is_active(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting" | "removing")
    }
}

/// Someone who knows which containers use a volume.
pub trait Containers: Send + Sync {
    /// The containers that have this volume among their mounts, running or not.
    ///
    /// Answers within a few seconds.
    ///
    /// # Errors
    /// In words, when the container engine does not answer.
    fn using(&self, volume: &VolumeName) -> Result<Vec<ContainerUse>, String>;

    /// Stops a running container, as its own settings say, and waits until it has stopped.
    ///
    /// # Errors
    /// In words.
    fn stop(&self, container: &str) -> Result<(), String> {
        Err(format!("no container engine can stop {container}"))
    }

    /// Starts a container that was stopped. That it runs, or is gone, is fine.
    ///
    /// # Errors
    /// In words.
    fn start(&self, container: &str) -> Result<(), String> {
        Err(format!("no container engine can start {container}"))
    }

    /// Tells the container engine of a volume that came to be without it (restored, or renamed), with the options and labels
    /// that it should know it by. Best effort, within a few seconds.
    ///
    /// # Errors
    /// In words.
    fn introduce(&self, volume: &Volume) -> Result<(), String> {
        let _nobody = volume;
        Ok(())
    }
}

/// No container engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoContainers;

impl Containers for NoContainers {
    fn using(&self, _: &VolumeName) -> Result<Vec<ContainerUse>, String> {
        Err("no container engine is configured".to_owned())
    }
}
