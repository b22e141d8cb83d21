//! Histories: what is protected, when it is cut, and what is brought back.

mod views;

pub use views::{CutView, Gap, ProtectionStatus, Restored, Timeline, Verified};

use crate::{Change, Engine, Error, Result};
use model::{At, Protection, SnapshotName, VolumeName};

fn todo<T>() -> Result<T> {
    Err(Error::Invalid("history is being built".into()))
}

impl Engine {
    /// Protects a volume from now on, or changes how; `None` ends it. What is in the vault stays there.
    ///
    /// # Errors
    /// No such volume, a driver that has no history, or no such vault.
    pub fn protect(&self, _name: &VolumeName, _protection: Option<Protection>) -> Result<Change> {
        todo()
    }

    /// How protection is doing, for each volume that has it.
    pub fn protection_status(&self, _name: &VolumeName) -> Option<ProtectionStatus> {
        None
    }

    /// The history of a volume.
    ///
    /// # Errors
    /// No such volume, no history, or a vault that can't be read.
    pub fn history(&self, _name: &VolumeName) -> Result<Timeline> {
        todo()
    }

    /// Cuts now, and gives the cut a name.
    ///
    /// # Errors
    /// When no cut could be made, or the name is taken by another.
    pub fn snapshot(&self, _name: &VolumeName, _snapshot: &SnapshotName) -> Result<(Change, CutView)> {
        todo()
    }

    /// Takes the name away; retention decides about the cut then.
    ///
    /// # Errors
    /// No such snapshot.
    pub fn remove_snapshot(&self, _name: &VolumeName, _snapshot: &SnapshotName) -> Result<Change> {
        todo()
    }

    /// Brings a volume back to a cut, in place: the present is cut first, then what differs is rewritten.
    ///
    /// # Errors
    /// When it is attached (and `stop_containers` is not set), no such cut, or a vault that can't be read.
    pub fn restore_in_place(&self, _name: &VolumeName, _at: &At, _stop_containers: bool) -> Result<Restored> {
        todo()
    }

    /// Makes a new volume with the content of a cut.
    ///
    /// # Errors
    /// No such cut, the name is taken, or a vault that can't be read.
    pub fn restore_as(&self, _name: &VolumeName, _at: &At, _new: &VolumeName) -> Result<Restored> {
        todo()
    }

    /// Makes a new volume with the content of this one, now.
    ///
    /// # Errors
    /// The name is taken, or no consistent point could be had.
    pub fn clone_volume(&self, _name: &VolumeName, _new: &VolumeName) -> Result<Restored> {
        todo()
    }

    /// Restores a cut (the newest, if none is given) to scratch, and checks every block and the file system.
    ///
    /// # Errors
    /// When it could not be tried. What is found wrong is in the answer.
    pub fn verify(&self, _name: &VolumeName, _at: Option<&At>) -> Result<Verified> {
        todo()
    }
}
