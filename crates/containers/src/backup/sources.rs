//! Where the data of a backup is on this host, and how much it is.

use super::document::SavedVolume;
use super::{Asked, Tools};
use crate::container::{Container, Mount};
use crate::engine::present;
use crate::error::{Error, Result};
use crate::files::Layers;
use crate::journal::{Journal, Target};
use crate::relocate::{directory_inside, estimate_at};
use docker::{Api, encode};
use model::ErrorKind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What goes into a bundle.
pub(super) struct Kept {
    /// The writable layer of each container.
    pub(super) layers: Vec<KeptLayer>,
    /// The volumes, each once.
    pub(super) volumes: Vec<KeptVolume>,
    /// What does not go in, in words.
    pub(super) notes: Vec<String>,
}

impl Kept {
    pub(super) fn bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(|layer| layer.bytes).sum();
        layers + self.volumes.iter().map(|volume| volume.bytes).sum::<u64>()
    }
}

pub(super) struct KeptLayer {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

pub(super) struct KeptVolume {
    pub(super) saved: SavedVolume,
    pub(super) origin: Origin,
    pub(super) bytes: u64,
}

/// How a volume's files are reached.
pub(super) enum Origin {
    /// On this host.
    Path(PathBuf),
    /// As a container sees it: an open directory.
    Open(OwnedFd),
}

impl Origin {
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Open(directory) => format!("/proc/self/fd/{}", directory.as_raw_fd()).into(),
        }
    }
}

/// The containers that were asked for; at least one.
pub(super) fn containers(api: &Api, asked: &Asked) -> Result<Vec<Container>> {
    let mut found: Vec<Container> = Vec::new();
    for name in &asked.containers {
        let container = present(api, name)?;
        if !found.iter().any(|other| other.id() == container.id()) {
            found.push(container);
        }
    }
    if let Some(project) = &asked.project {
        let label = format!("com.docker.compose.project={project}");
        let filter = docker::filters(&[("label", &label)]);
        let listed: Vec<Value> = api.get(&format!("/containers/json?all=true&{filter}"))?;
        for id in listed.iter().filter_map(|container| container["Id"].as_str()) {
            found.extend(Container::find(api, id)?);
        }
        if listed.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no container belongs to a compose project {project}"),
                "`docker compose ls --all` lists the projects",
            ));
        }
    }
    for container in &found {
        if matches!(container.state(), "dead" | "removing") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the container {} is {}: its engine has given it up",
                    container.name(),
                    container.state()
                ),
                "save what you need with `docker cp`, then remove it",
            ));
        }
    }
    // In the order in which they were started: who needs another was started after it.
    found.sort_by_key(|container| {
        container.document()["State"]["StartedAt"].as_str().unwrap_or_default().to_owned()
    });
    match found.is_empty() {
        true => {
            Err(Error::new(ErrorKind::InvalidInput, "no container was named", "name one, or a --project"))
        }
        false => Ok(found),
    }
}

/// Where everything is.
pub(super) fn kept(tools: &Tools<'_>, containers: &[Container], journal: &mut Journal) -> Result<Kept> {
    let mut kept = Kept { layers: Vec::new(), volumes: Vec::new(), notes: Vec::new() };
    let mut seen: BTreeMap<String, ()> = BTreeMap::new();
    for container in containers {
        let layers = Layers::of(container)?;
        let (bytes, _) = estimate_at(&layers.upper)?;
        kept.layers.push(KeptLayer { path: layers.upper, bytes });
        for mount in container.mounts() {
            match (&*mount.kind, &mount.name) {
                ("volume", Some(name)) => {
                    if seen.insert(name.clone(), ()).is_none() {
                        kept.volumes.push(volume(tools, containers, name, journal)?);
                    }
                }
                ("bind", _) => kept.notes.push(format!(
                    "{} of the host, which {} has at {}, is not in the bundle: it is no volume (`everhold adopt` makes it one)",
                    mount.source.display(),
                    container.name(),
                    mount.destination.display()
                )),
                (kind, _) => kept.notes.push(format!(
                    "what {} has in memory at {} ({kind}) is not in the bundle",
                    container.name(),
                    mount.destination.display()
                )),
            }
        }
    }
    Ok(kept)
}

fn volume(
    tools: &Tools<'_>,
    containers: &[Container],
    name: &str,
    journal: &mut Journal,
) -> Result<KeptVolume> {
    let described: Value = tools.api.get(&format!("/volumes/{}", encode(name)))?;
    let driver = described["Driver"].as_str().unwrap_or_default();
    let special = described["Options"].as_object().is_some_and(|options| !options.is_empty());
    let origin = if driver == "local" && !special {
        Origin::Path(described["Mountpoint"].as_str().unwrap_or_default().into())
    } else if driver == tools.volumes.driver() {
        let r#use = journal.record.r#use.clone();
        journal.note(|record| record.targets.push(Target { name: name.to_owned(), made: false }))?;
        Origin::Path(tools.volumes.mount(name, &r#use)?)
    } else {
        match inside(containers, name)? {
            Some(open) => Origin::Open(open),
            None => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the volume {name} of the driver {driver} can only be looked into while a container uses it"
                    ),
                    "start the container that has it, then try again",
                ));
            }
        }
    };
    let (bytes, _) = estimate_at(&origin.path())?;
    Ok(KeptVolume { saved: SavedVolume::of(name, &described, tools.volumes.driver()), origin, bytes })
}

/// A volume as a running container sees it.
fn inside(containers: &[Container], name: &str) -> Result<Option<OwnedFd>> {
    for container in containers {
        let uses = |mount: &Mount| mount.name.as_deref() == Some(name);
        if let (Some(_), Some(mount)) = (container.pid(), container.mounts().into_iter().find(uses)) {
            return directory_inside(container, &mount.destination).map(Some);
        }
    }
    Ok(None)
}

/// How much the images are, each once.
pub(super) fn image_bytes(api: &Api, containers: &[Container]) -> Result<u64> {
    let mut images: Vec<&str> = containers.iter().map(Container::image_id).collect();
    images.sort_unstable();
    images.dedup();
    let mut bytes = 0;
    for id in images {
        let image: Value = api.get(&format!("/images/{}/json", encode(id)))?;
        bytes += image["Size"].as_u64().unwrap_or_default();
    }
    Ok(bytes)
}

/// Says before anything is written that it will not fit.
pub(super) fn enough_room(api: &Api, asked: &Asked, containers: &[Container], kept: &Kept) -> Result<()> {
    let mut wanted = kept.bytes();
    if !asked.image_by_reference {
        wanted += image_bytes(api, containers)?;
    }
    let mut partial = asked.to.clone().into_os_string();
    partial.push(".partial");
    let there = Path::new(&partial).metadata().map_or(0, |metadata| metadata.len());
    let directory =
        asked.to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = directory.metadata() {
        return Err(Error::on(directory, &error));
    }
    let room = linux::fs::space(directory)?.available.saturating_add(there);
    if wanted.saturating_add(wanted / 50) <= room {
        return Ok(());
    }
    let size = model::Size::from_bytes;
    Err(Error::new(
        ErrorKind::NoSpace,
        format!(
            "the bundle will be about {}, and there is room for {} at {}",
            size(wanted),
            size(room),
            directory.display()
        ),
        "choose another place, or leave the images out with --image-by-reference",
    ))
}
