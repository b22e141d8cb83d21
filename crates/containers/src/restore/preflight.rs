//! What a restore refuses before anything is made: names that are taken, drivers that can't be used, no room, no image.

use super::names::Names;
use super::{Asked, Tools};
use crate::backup::{Project, SavedContainer, SavedVolume};
use crate::engine::{self, inspect};
use crate::error::{Error, Result};
use bundle::Reader;
use docker::encode;
use model::ErrorKind;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Refuses before anything is made.
pub(super) fn preflight(
    asked: &Asked,
    tools: &Tools<'_>,
    project: &Project,
    names: &Names,
    reader: &Reader,
) -> Result<()> {
    let version: Value = tools.api.get("/version")?;
    if version["Arch"].as_str().is_some_and(|arch| arch != project.architecture) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the bundle is of an engine for {}, and this one is for {}",
                project.architecture, version["Arch"]
            ),
            "restore it on a host of that kind",
        ));
    }
    for container in &project.containers {
        let name = names.container(&container.name);
        if inspect(tools.api, &name)?.is_some() {
            return Err(exists("container", &name, &format!("`docker rename {name} {name}-old`")));
        }
    }
    for saved in &project.containers {
        check_image(saved)?;
    }
    for volume in &project.volumes {
        let name = names.volume(volume);
        free(tools, &name, driver_of(volume, asked, tools) == tools.volumes.driver())?;
        check_driver(asked, tools, volume)?;
    }
    enough_room(asked, tools, project, reader)?;
    check_absent(tools, project, reader)
}

/// There is no volume of that name.
pub(super) fn free(tools: &Tools<'_>, name: &str, ours: bool) -> Result<()> {
    let known = engine::volume(tools.api, "local", name)?.is_some()
        || engine::volume(tools.api, tools.volumes.driver(), name)?.is_some();
    if known || (ours && tools.volumes.exists(name)?) { Err(taken(name)) } else { Ok(()) }
}

pub(super) fn taken(volume: &str) -> Error {
    exists("volume", volume, "rename or remove it")
}

/// Images of backups have names of their own; what else a bundle says would take a name away from an image that others use.
fn check_image(saved: &SavedContainer) -> Result<()> {
    if !saved.saved_image.starts_with(crate::backup::IMAGES) {
        return Err(Error::new(
            ErrorKind::Damaged,
            format!(
                "the image of {} is called {} in the bundle, which no backup calls one",
                saved.name, saved.saved_image
            ),
            "use another copy of the backup",
        ));
    }
    Ok(())
}

fn exists(kind: &str, name: &str, free_it: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("there is a {kind} {name} already"),
        format!("{free_it}, or restore under another name with --as"),
    )
}

/// The driver that a volume will have.
pub(super) fn driver_of<'a>(volume: &'a SavedVolume, asked: &'a Asked, tools: &'a Tools<'_>) -> &'a str {
    match &asked.volume_driver {
        Some(driver) => driver,
        None if volume.everhold => tools.volumes.driver(),
        None => &volume.driver,
    }
}

fn check_driver(asked: &Asked, tools: &Tools<'_>, volume: &SavedVolume) -> Result<()> {
    let driver = driver_of(volume, asked, tools);
    let unusable = |why: &str| {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("the volume {} is of the driver {driver}, {why}", volume.name),
            "`--volume-driver local` makes it a volume of Docker's own",
        ))
    };
    if driver == "local" {
        return match volume.options.is_empty() || asked.volume_driver.is_some() {
            true => Ok(()),
            false => unusable("with options for a mount of its own, into which nothing is written unasked"),
        };
    }
    if driver != tools.volumes.driver() {
        return unusable("into which only that driver could write");
    }
    let info: Value = tools.api.get("/info")?;
    let plugins = info["Plugins"]["Volume"].as_array().into_iter().flatten();
    // An engine calls a plugin up when it first needs it, so that it does not list ours means nothing if the daemon answers.
    if !plugins.into_iter().any(|plugin| plugin == driver) && tools.volumes.room().is_err() {
        return unusable("and Everhold's daemon does not run here");
    }
    Ok(())
}

fn enough_room(asked: &Asked, tools: &Tools<'_>, project: &Project, reader: &Reader) -> Result<()> {
    let info: Value = tools.api.get("/info")?;
    let root = PathBuf::from(info["DockerRootDir"].as_str().unwrap_or("/"));
    let (mut engine, mut ours) = (image_bytes(reader), 0);
    for volume in &project.volumes {
        let bytes = volume_bytes(reader, &volume.name);
        if driver_of(volume, asked, tools) == tools.volumes.driver() {
            ours += bytes
        } else {
            engine += bytes
        }
    }
    let size = model::Size::from_bytes;
    let short = |wanted, room, place: String| {
        Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "what is in the bundle takes about {}, and there is room for {} in {place}",
                size(wanted),
                size(room)
            ),
            "make room there, then try again",
        ))
    };
    let room = linux::fs::space(&root)?.available;
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    let place = if ours > 0 { tools.volumes.place()? } else { None };
    // Both on one disk.
    let all = if place.is_some_and(|place| device(&place) == device(&root)) { engine + ours } else { engine };
    if all > room {
        return short(all, room, root.display().to_string());
    }
    if ours > 0 {
        let room = tools.volumes.room()?;
        if ours > room {
            return short(ours, room, "the pool".to_owned());
        }
    }
    Ok(())
}

fn image_bytes(reader: &Reader) -> u64 {
    let images = reader.members().iter().filter(|member| member.role == bundle::Role::Image);
    images.map(|member| member.size).sum()
}

pub(super) fn volume_bytes(reader: &Reader, name: &str) -> u64 {
    reader.volumes().into_iter().find(|volume| volume.name == name).map_or(0, |volume| volume.size)
}

/// Layers that are not in the bundle must be here.
fn check_absent(tools: &Tools<'_>, project: &Project, reader: &Reader) -> Result<()> {
    let absent = reader.absent();
    if absent.is_empty() {
        return Ok(());
    }
    let mut here: Vec<String> = Vec::new();
    for container in &project.containers {
        if let Some(image) = tools.api.find::<Value>(&format!("/images/{}/json", encode(&container.image)))? {
            let layers = image["RootFS"]["Layers"].as_array().into_iter().flatten();
            here.extend(layers.filter_map(|layer| layer.as_str().map(str::to_owned)));
        }
    }
    if absent.iter().all(|layer| here.contains(&layer.to_string())) {
        return Ok(());
    }
    let images: Vec<&str> = project.containers.iter().map(|container| container.image.as_str()).collect();
    Err(Error::new(
        ErrorKind::NotFound,
        "the bundle was made without the images' layers, and this engine does not have them",
        format!("get the very same images first: `docker pull {}`", images.join(" ")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_of_a_bundle_takes_no_name_of_others() {
        let mut saved: SavedContainer = serde_json::from_value(json!({
            "id": "web", "name": "web", "running": true, "image": "i", "saved_image": "s", "saved_image_id": "x",
        }))
        .unwrap();
        saved.saved_image = "postgres:16".to_owned();
        assert!(check_image(&saved).is_err());
        saved.saved_image = "everhold-backup/web:20260101t000000z".to_owned();
        assert_eq!(check_image(&saved), Ok(()));
    }
}
