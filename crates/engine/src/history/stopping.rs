//! Containers that are stopped for a restore in place, and always started again: which ones is recorded before the first is
//! stopped.

use crate::engine::Engine;
use crate::{Error, Fault, Result};
use model::{Stopped, Volume, VolumeId};
use std::time::{Duration, Instant};

/// The container engine says that they are stopped before the last unmount may have come through.
const UNMOUNTED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(2);

impl Engine {
    /// Stops the containers that use a volume. If one can't be stopped, those that were are started again.
    pub(crate) fn stop_holders(&self, volume: &Volume) -> Result<()> {
        let uses = self.containers.using(&volume.name).map_err(Error::Invalid)?;
        let mut holders: Vec<Stopped> = Vec::new();
        for container in uses.into_iter().filter(crate::ContainerUse::is_active) {
            if !holders.iter().any(|known| known.id == container.id) {
                holders.push(Stopped { id: container.id, name: container.name });
            }
        }
        if holders.is_empty() {
            return Ok(());
        }
        self.change_restart(volume.id, |restart| {
            restart.extend(
                holders.iter().filter(|holder| !restart.contains(holder)).cloned().collect::<Vec<_>>(),
            );
        })?;
        self.fault(Fault::RestoreStopRecorded);
        for container in &holders {
            if let Err(why) = self.containers.stop(&container.id) {
                let again = self.start_again(volume.id).err();
                let again = again.map(|error| format!("; {error}")).unwrap_or_default();
                return Err(Error::Invalid(format!(
                    "container {} could not be stopped: {why}{again}",
                    container.name
                )));
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < UNMOUNTED
            && self.volume(&volume.name).is_ok_and(|volume| !volume.attachments.is_empty())
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.fault(Fault::RestoreStopped);
        Ok(())
    }

    /// Starts what was stopped for this volume; gives the names of those that run again. Those that could not be started are tried
    /// again from time to time.
    pub(crate) fn start_again(&self, id: VolumeId) -> Result<Vec<String>> {
        let stopped = self.read().get(id).map(|volume| volume.restart.clone()).unwrap_or_default();
        let (mut started, mut failed) = (Vec::new(), Vec::new());
        for container in stopped.iter().rev() {
            match self.containers.start(&container.id) {
                Ok(()) => started.push(container.clone()),
                Err(why) => failed.push(format!("{}: {why}", container.name)),
            }
        }
        if !started.is_empty() {
            self.change_restart(id, |restart| restart.retain(|container| !started.contains(container)))?;
        }
        if failed.is_empty() {
            return Ok(started.into_iter().map(|container| container.name).collect());
        }
        Err(Error::Invalid(format!(
            "containers could not be started again: {}; it is tried again by itself",
            failed.join("; ")
        )))
    }

    /// Not while they are started: each asks for its volume then, which takes the claim.
    fn change_restart(&self, id: VolumeId, change: impl FnOnce(&mut Vec<Stopped>)) -> Result<()> {
        let Some(volume) = self.read().get(id) else { return Ok(()) };
        let _claim = self.claim(&volume.name, "restore")?;
        let Some(volume) = self.read().get(id) else { return Ok(()) };
        let mut restart = volume.restart.clone();
        change(&mut restart);
        self.record(Volume { restart, ..(*volume).clone() }).map(drop)
    }

    /// Starts what an interrupted restore had stopped, once its volume is whole.
    pub fn start_stopped(&self) -> Duration {
        let waiting: Vec<_> = {
            let table = self.read();
            let whole = |volume: &&std::sync::Arc<Volume>| {
                !volume.restart.is_empty() && volume.is_live() && volume.restoring().is_none()
            };
            table.all().filter(whole).cloned().collect()
        };
        for volume in waiting {
            let going = &self.histories.going;
            // Who stopped them is at it still.
            if going.at_work(volume.id).is_some() || !going.is_due(volume.id) {
                continue;
            }
            let started = self.start_again(volume.id);
            going.failed(volume.id, started.is_err());
            match started {
                Ok(started) => tracing::warn!(
                    volume = %volume.name,
                    containers = started.join(", "),
                    "had been stopped for a restore that was interrupted; started again"
                ),
                Err(error) => tracing::error!(volume = %volume.name, %error, "stopped for a restore"),
            }
        }
        LOOK
    }
}
