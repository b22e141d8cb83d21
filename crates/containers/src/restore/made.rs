//! What a restore has made so far: all of it goes again unless all of it gets to be there.

use crate::engine;
use crate::error::{Error, Result};
use crate::recover::unless_used;
use crate::relocate::adopt;
use docker::{Api, encode};
use model::ErrorKind;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What was made where nothing was. Volumes of Everhold are targets of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Names of images that were not there.
    pub images: Vec<String>,
    /// Volumes of Docker's own.
    pub volumes: Vec<MadeVolume>,
    /// IDs of networks.
    pub networks: Vec<String>,
    /// Containers.
    pub containers: Vec<MadeContainer>,
    /// IDs of containers, in the order in which they are started.
    pub start: Vec<String>,
}

/// A volume of Docker's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeVolume {
    /// Its name.
    pub name: String,
    /// The inode of its directory, once it is made: another one of that name is somebody else's.
    pub inode: Option<u64>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeContainer {
    /// Its name.
    pub name: String,
    /// Its image, which no container has that is not of a restore.
    pub image: String,
    /// Its ID, once it is made.
    pub id: Option<String>,
}

impl Made {
    /// Whether any of the containers has run: what it has written is nowhere else.
    pub(crate) fn has_run(&self, api: &Api) -> Result<bool> {
        for id in self.containers.iter().filter_map(|made| made.id.as_deref()) {
            if engine::inspect(api, id)?.is_some_and(|container| container.has_run()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Starts what is to be started, as far as that is possible.
    pub(crate) fn start_all(&self, api: &Api) -> Result<()> {
        for container in &self.start {
            match engine::start(api, container) {
                Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
                Err(error) => tracing::warn!(%error, container, "a restored container does not start"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Removes the containers, of which the rest may be in use.
    pub(crate) fn remove_containers(&self, api: &Api) -> Result<()> {
        for container in &self.containers {
            match &container.id {
                Some(id) => engine::remove(api, id)?,
                // Made just before the journal could say so, if it was.
                None => {
                    let found = engine::inspect(api, &container.name)?;
                    if let Some(found) =
                        found.filter(|found| found.state() == "created" && found.image() == container.image)
                    {
                        engine::remove(api, found.id())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes the rest. What others use by now is theirs.
    pub(crate) fn remove_rest(&self, api: &Api) -> Result<()> {
        for volume in &self.volumes {
            volume.remove(api)?;
        }
        for network in &self.networks {
            unless_used(api.delete(&format!("/networks/{}", encode(network))).map_err(Error::from))?;
        }
        for image in &self.images {
            unless_used(api.delete(&format!("/images/{}", encode(image))).map_err(Error::from))?;
        }
        Ok(())
    }
}

impl MadeVolume {
    fn remove(&self, api: &Api) -> Result<()> {
        let Some(found) = engine::volume(api, "local", &self.name)? else { return Ok(()) };
        let path = format!("/volumes/{}", encode(&self.name));
        let directory = PathBuf::from(found["Mountpoint"].as_str().unwrap_or_default());
        match self.inode {
            Some(inode) if directory.symlink_metadata().is_ok_and(|found| found.ino() == inode) => {
                unless_used(api.delete(&path).map_err(Error::from))
            }
            Some(_) => Ok(()),
            None => unless_used(adopt::remove_empty(api, &self.name)),
        }
    }
}
