//! The documents of a bundle: what is common to its containers. `docs/bundle-format.md` describes them.

use super::sources::Kept;
use crate::container::{Container, is_made_up};
use crate::error::Result;
use docker::{Api, encode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// `project.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// The instant that everything is of.
    pub instant: Timestamp,
    /// The engine's version.
    pub engine: String,
    /// The engine's processor architecture, as Docker calls it.
    pub architecture: String,
    /// The compose project, where all belong to one.
    pub project: Option<String>,
    /// The containers, in the order in which they are started.
    pub containers: Vec<SavedContainer>,
    /// The volumes.
    pub volumes: Vec<SavedVolume>,
    /// The networks that somebody has made.
    pub networks: Vec<SavedNetwork>,
    /// What is not in the bundle.
    pub notes: Vec<String>,
}

/// A container in the bundle; its settings are in a document of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedContainer {
    /// Its ID then.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it ran.
    pub running: bool,
    /// The image that it was made from, as it was asked for.
    pub image: String,
    /// The tag of the image in the bundle, which has its writable layer.
    pub saved_image: String,
    /// That image's ID.
    pub saved_image_id: String,
}

/// A volume in the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedVolume {
    /// Its name.
    pub name: String,
    /// Its driver's name.
    pub driver: String,
    /// Whether that was Everhold, whatever it was called there.
    pub everhold: bool,
    /// Whether Docker made its name up.
    pub anonymous: bool,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A network that somebody has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedNetwork {
    /// Its name.
    pub name: String,
    /// What an engine is to be asked for, without the name.
    pub creation: Value,
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

impl SavedVolume {
    pub(super) fn of(name: &str, described: &Value, ours: &str) -> Self {
        let driver = described["Driver"].as_str().unwrap_or_default();
        Self {
            name: name.to_owned(),
            driver: driver.to_owned(),
            everhold: driver == ours,
            anonymous: is_made_up(name),
            options: texts(&described["Options"]),
            labels: texts(&described["Labels"]),
        }
    }
}

/// What the names of all images of backups begin with.
pub(crate) const IMAGES: &str = "everhold-backup/";

/// The name of a container's image in the bundle. Docker allows lower case only.
pub(super) fn tag(container: &str, instant: Timestamp) -> String {
    let name: String = container.to_lowercase().trim_end_matches(['.', '-', '_']).to_owned();
    // Separators may not follow each other in any way one likes.
    let mut plain = String::new();
    for character in name.chars() {
        let separator = !character.is_ascii_alphanumeric();
        if !(separator && plain.ends_with('-')) {
            plain.push(if separator { '-' } else { character });
        }
    }
    format!("{IMAGES}{}:{}", plain.trim_matches('-'), instant.strftime("%Y%m%dt%H%M%Sz"))
}

/// As [`tag`], and none that another container of the bundle has: `Web` and `web`, or `a_b` and `a-b`, are not one.
pub(super) fn free_tag(container: &str, instant: Timestamp, taken: &[SavedContainer]) -> String {
    let plain = tag(container, instant);
    let is_free = |tag: &String| !taken.iter().any(|saved| saved.saved_image == *tag);
    let numbered = (2..).map(|number| format!("{plain}-{number}"));
    std::iter::once(plain.clone()).chain(numbered).find(is_free).unwrap_or_default()
}

/// A config document with what a layer store needs to know of an image that is not in the bundle.
pub(super) fn config_of(described: &Value) -> Vec<u8> {
    let config = json!({
        "architecture": described["Architecture"],
        "os": described["Os"],
        "config": described["Config"],
        "rootfs": { "type": "layers", "diff_ids": described["RootFS"]["Layers"] },
        "history": [],
    });
    config.to_string().into_bytes()
}

pub(super) fn saved_container(container: &Container, tag: &str, image: String) -> SavedContainer {
    SavedContainer {
        id: container.id().to_owned(),
        name: container.name().to_owned(),
        running: container.is_running(),
        image: container.image().to_owned(),
        saved_image: tag.to_owned(),
        saved_image_id: image,
    }
}

/// Of the engine's networks those that the containers are on, and that are not there by themselves.
fn networks(api: &Api, containers: &[Container]) -> Result<Vec<SavedNetwork>> {
    let names: BTreeSet<&str> =
        containers.iter().flat_map(|container| container.keys("/NetworkSettings/Networks")).collect();
    let mut networks = Vec::new();
    for name in names.into_iter().filter(|name| !["bridge", "host", "none"].contains(name)) {
        let Some(network) = api.find::<Value>(&format!("/networks/{}", encode(name)))? else { continue };
        let mut creation = serde_json::Map::new();
        for key in
            ["Driver", "EnableIPv4", "EnableIPv6", "IPAM", "Internal", "Attachable", "Options", "Labels"]
        {
            if !network[key].is_null() {
                creation.insert(key.to_owned(), network[key].clone());
            }
        }
        networks.push(SavedNetwork { name: name.to_owned(), creation: creation.into() });
    }
    Ok(networks)
}

pub(super) fn project(
    api: &Api,
    containers: &[Container],
    saved: Vec<SavedContainer>,
    kept: &Kept,
    instant: Timestamp,
) -> Result<Project> {
    let version: Value = api.get("/version")?;
    let text = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
    let mut projects: Vec<&str> = containers
        .iter()
        .map(|container| container.label("com.docker.compose.project").unwrap_or_default())
        .collect();
    projects.dedup();
    Ok(Project {
        instant,
        engine: text("Version"),
        architecture: text("Arch"),
        project: match projects[..] {
            [one] if !one.is_empty() => Some(one.to_owned()),
            _ => None,
        },
        containers: saved,
        volumes: kept.volumes.iter().map(|volume| volume.saved.clone()).collect(),
        networks: networks(api, containers)?,
        notes: kept.notes.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_what_docker_takes() {
        let at = Timestamp::UNIX_EPOCH;
        for (name, tag_of_it) in [
            ("web", "everhold-backup/web:19700101t000000z"),
            ("My_App.1--x-", "everhold-backup/my-app-1-x:19700101t000000z"),
        ] {
            assert_eq!(tag(name, at), tag_of_it);
        }
    }

    #[test]
    fn no_two_containers_have_one_image() {
        let mut taken: Vec<SavedContainer> = Vec::new();
        for name in ["a_b", "A-b", "a.b"] {
            let tag = free_tag(name, Timestamp::UNIX_EPOCH, &taken);
            taken.push(saved_container(&Container::from_document(json!({})), &tag, String::new()));
        }
        let tags: Vec<&str> = taken.iter().map(|saved| saved.saved_image.as_str()).collect();
        let first = "everhold-backup/a-b:19700101t000000z";
        assert_eq!(tags, [first, &format!("{first}-2"), &format!("{first}-3")]);
    }
}
