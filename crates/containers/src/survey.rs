//! Facts about a Docker host for the audit: gathered without changing anything, without reading what files contain, and without
//! Everhold's daemon.

mod content;
mod layer;
mod processes;

use crate::container::{self, Container};
use crate::error::Result;
use audit::Rules;
use audit::facts::{self, EngineFacts, Host, MountKind, Protection, State};
use docker::{Api, encode};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is asked for.
pub struct Asked<'a> {
    /// Containers by name or ID; all of them if empty.
    pub containers: &'a [String],
    /// Tells noise from data.
    pub rules: &'a Rules,
    /// What Everhold knows of its own volumes; `None` where its daemon could not be asked.
    pub protection: Option<BTreeMap<String, Protection>>,
    /// The driver of Everhold's volumes.
    pub driver: &'a str,
    /// The time.
    pub now: jiff::Timestamp,
}

/// Looks at the host.
///
/// # Errors
/// No engine, or no such container. What else can't be looked at is in the facts, in words.
pub fn survey(api: &Api, asked: &Asked<'_>) -> Result<Host> {
    let version: Value = api.get("/version")?;
    let info: Value = api.get("/info")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let root = text(&info["DockerRootDir"]);
    let space = linux::fs::space(Path::new(&root)).ok();
    let device = Path::new(&root).metadata().ok().map(|metadata| metadata.dev());
    let engine = EngineFacts {
        version: text(&version["Version"]),
        storage_driver: text(&info["Driver"]),
        root: Some(root).filter(|root| !root.is_empty()),
        fs_size: space.map(|space| space.total),
        fs_free: space.map(|space| space.available),
    };
    let mut unreadable = Vec::new();
    let listed: Vec<Value> = api.get("/containers/json?all=true")?;
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut containers = Vec::new();
    let wanted = wanted(api, asked.containers)?;
    for id in listed.iter().filter_map(|container| container["Id"].as_str()) {
        // Removed since: then it can't lose anything any more.
        let Some(container) = Container::find(api, id)? else { continue };
        for mount in container.mounts() {
            if let Some(volume) = mount.name {
                users.entry(volume).or_default().push(container.name().to_owned());
            }
        }
        if wanted.is_empty() || wanted.contains(id) {
            containers.push(facts_of(api, &container, asked, device));
        }
    }
    let volumes = volumes(api, asked, &users, &containers, device, &mut unreadable)?;
    if asked.protection.is_none() && volumes.iter().any(|volume| volume.driver == asked.driver) {
        unreadable.push(
            "Everhold's daemon does not answer, so what it keeps of its volumes is not known".to_owned(),
        );
    }
    Ok(Host { engine, now: asked.now, containers, volumes, unreadable })
}

/// The IDs of what was asked for.
fn wanted(api: &Api, names: &[String]) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for name in names {
        ids.insert(crate::engine::present(api, name)?.id().to_owned());
    }
    Ok(ids)
}

fn facts_of(api: &Api, container: &Container, asked: &Asked<'_>, device: Option<u64>) -> facts::Container {
    let owned = |texts: &mut dyn Iterator<Item = &str>| texts.map(str::to_owned).collect::<Vec<_>>();
    let process = container.pid().map(processes::of).unwrap_or_default();
    let layers = crate::files::Layers::of(container);
    let env = container.texts("/Config/Env").filter_map(|pair| pair.split_once('='));
    let labels = container.document().pointer("/Config/Labels").and_then(Value::as_object);
    let labels = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let config = |key: &str| container.document()["Config"][key].as_str().unwrap_or_default().to_owned();
    let mut command = vec![container.document()["Path"].as_str().unwrap_or_default().to_owned()];
    command.extend(container.texts("/Args").map(str::to_owned));
    let mounts = container.mounts();
    let mut facts = facts::Container {
        id: container.id().to_owned(),
        name: container.name().to_owned(),
        image: container.image().to_owned(),
        image_id: container.image_id().to_owned(),
        state: state(container.state()),
        hostname: Some(config("Hostname")).filter(|name| !name.is_empty()),
        env: env.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        command,
        processes: process.names,
        exposed_ports: owned(&mut container.keys("/Config/ExposedPorts")),
        declared_volumes: owned(&mut container.keys("/Config/Volumes")),
        labels: labels.collect(),
        user: config("User"),
        uid: process.uid,
        gids: process.gids,
        restart_policy: container.document()["HostConfig"]["RestartPolicy"]["Name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        auto_remove: container.removes_itself(),
        read_only_root: container.is("/HostConfig/ReadonlyRootfs"),
        mounts: mounts
            .iter()
            .map(|mount| mount_facts(container, mount, layers.as_ref().ok(), device))
            .collect(),
        layer: Ok(audit::Layer::default()),
    };
    let watched = asked.rules.data_paths(&facts);
    facts.layer = layer::of(api, container, &layers, asked.rules, watched);
    facts
}

fn state(word: &str) -> State {
    match word {
        "created" => State::Created,
        "running" => State::Running,
        "paused" => State::Paused,
        "restarting" => State::Restarting,
        "exited" => State::Exited,
        "dead" => State::Dead,
        other => State::Other(other.to_owned()),
    }
}

fn mount_facts(
    container: &Container,
    mount: &container::Mount,
    layers: Option<&crate::files::Layers>,
    device: Option<u64>,
) -> facts::Mount {
    let content = content::of_mount(container, mount, device);
    let image = layers.map(|layers| content::image_names(layers, &mount.destination));
    let copied_up = match (&image, &content) {
        (Some(names), Some(content)) if content.exists && content.signatures.len() < content::NAMES => {
            Some(names.iter().all(|name| content.signatures.contains(name)))
        }
        _ => None,
    };
    facts::Mount {
        kind: match mount.kind.as_str() {
            "volume" => MountKind::Volume,
            "bind" => MountKind::Bind,
            "tmpfs" => MountKind::Tmpfs,
            other => MountKind::Other(other.to_owned()),
        },
        volume: mount.name.clone(),
        anonymous: mount.is_anonymous(),
        source: mount.source.display().to_string(),
        destination: mount.destination.display().to_string(),
        driver: mount.driver.clone(),
        read_write: mount.read_write,
        content,
        shadows: image.map(|names| names.len() as u64),
        copied_up,
    }
}

/// The volumes: all, or those of the containers that were asked for.
fn volumes(
    api: &Api,
    asked: &Asked<'_>,
    users: &BTreeMap<String, Vec<String>>,
    containers: &[facts::Container],
    device: Option<u64>,
    unreadable: &mut Vec<String>,
) -> Result<Vec<facts::Volume>> {
    // An engine asks all of its plugins, and waits long for one that is gone: words, and not the end of the audit.
    let listing: Value = api.get("/volumes").unwrap_or_else(|error| {
        unreadable.push(format!("Docker did not list its volumes: {error}"));
        Value::Null
    });
    for warning in listing["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        unreadable.push(format!("Docker could not list all volumes: {warning}"));
    }
    let named: BTreeSet<&str> = containers
        .iter()
        .flat_map(|container| &container.mounts)
        .filter_map(|mount| mount.volume.as_deref())
        .collect();
    let mut volumes = Vec::new();
    for volume in listing["Volumes"].as_array().into_iter().flatten() {
        let name = volume["Name"].as_str().unwrap_or_default().to_owned();
        if !asked.containers.is_empty() && !named.contains(name.as_str()) {
            continue;
        }
        let driver = volume["Driver"].as_str().unwrap_or_default().to_owned();
        let mut mountpoint = volume["Mountpoint"].as_str().unwrap_or_default().to_owned();
        if driver != "local" && mountpoint.is_empty() {
            // Of a plugin's volume Docker tells only when it is asked for it alone.
            let alone: Option<Value> = api.find(&format!("/volumes/{}", encode(&name))).unwrap_or_default();
            mountpoint =
                alone.and_then(|alone| Some(alone["Mountpoint"].as_str()?.to_owned())).unwrap_or_default();
        }
        let special = volume["Options"].as_object().is_some_and(|options| !options.is_empty());
        let seen = containers.iter().flat_map(|container| &container.mounts);
        let seen =
            seen.filter(|mount| mount.volume.as_ref() == Some(&name)).find_map(|mount| mount.content.clone());
        // A volume with options is a mount that is there only while somebody uses it.
        let content = seen.or_else(|| {
            let is_mounted = || linux::mounts::is_mount_point(Path::new(&mountpoint)).unwrap_or_default();
            let there = !mountpoint.is_empty() && (!special || is_mounted());
            if there { content::at(Path::new(&mountpoint), device) } else { None }
        });
        let labels = volume["Labels"].as_object().into_iter().flatten();
        volumes.push(facts::Volume {
            anonymous: container::is_made_up(&name),
            labels: labels
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            used_by: users.get(&name).cloned().unwrap_or_default(),
            protection: match (&asked.protection, driver == asked.driver) {
                (Some(known), true) => known.get(&name).cloned().unwrap_or(Protection::None),
                _ => Protection::Unknown,
            },
            mountpoint: Some(mountpoint).filter(|path| !path.is_empty()),
            content,
            driver,
            name,
        });
    }
    Ok(volumes)
}
