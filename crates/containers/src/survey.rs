//! Facts about a Docker host for the audit: gathered without changing anything, without reading what files contain, and without
//! Everhold's daemon.

mod content;
mod layer;
mod processes;
mod user;

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
    let wanted = wanted(api, asked.containers)?;
    let mut all = Vec::new();
    for id in listed.iter().filter_map(|container| container["Id"].as_str()) {
        // One that was removed since can't lose anything any more.
        all.extend(Container::find(api, id)?);
    }
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for container in &all {
        for volume in container.mounts().into_iter().filter_map(|mount| mount.name) {
            users.entry(volume).or_default().push(container.name().to_owned());
        }
    }
    let (looked_at, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|container| wanted.is_empty() || wanted.contains(container.id()));
    // Where user numbers of containers are others on the host, those in a container's files say nothing.
    let options = info["SecurityOptions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut options = options.map(|option| option.split(',').next().unwrap_or_default());
    let same_users = !options.any(|option| ["name=userns", "name=rootless"].contains(&option));
    let look = |container| look(api, container, &all, asked, device, same_users);
    let containers: Vec<_> = looked_at.into_iter().map(look).collect();
    let others = others.into_iter().map(|container| outline(container, &all)).collect();
    let volumes = volumes(api, asked, &users, &containers, device, &mut unreadable)?;
    if asked.protection.is_none() && volumes.iter().any(|volume| volume.driver == asked.driver) {
        unreadable.push(
            "Everhold's daemon does not answer, so what it keeps of its volumes is not known".to_owned(),
        );
    }
    Ok(Host { engine, now: asked.now, containers, others, volumes, unreadable })
}

/// The IDs of what was asked for.
fn wanted(api: &Api, names: &[String]) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for name in names {
        ids.insert(crate::engine::present(api, name)?.id().to_owned());
    }
    Ok(ids)
}

/// All that is known of a container.
fn look(
    api: &Api,
    container: &Container,
    all: &[Container],
    asked: &Asked<'_>,
    device: Option<u64>,
    same_users: bool,
) -> facts::Container {
    let layers = crate::files::Layers::of(container);
    let process = container.pid().map(processes::of).unwrap_or_default();
    let will_be =
        || layers.as_ref().ok().filter(|_| same_users).and_then(|layers| user::of(container, layers));
    let (uid, gids) = match process.uid {
        Some(uid) => (Some(uid), process.gids),
        None => will_be().map_or((None, Vec::new()), |(uid, gids)| (Some(uid), gids)),
    };
    let mut facts = facts::Container {
        processes: process.names,
        uid,
        gids,
        mounts: container
            .mounts()
            .iter()
            .map(|mount| mount_facts(container, mount, layers.as_ref().ok(), device))
            .collect(),
        ..outline(container, all)
    };
    let watched = asked.rules.data_paths(&facts);
    facts.layer = layer::of(api, container, &layers, asked.rules, watched);
    facts
}

/// What the engine says of a container.
fn outline(container: &Container, all: &[Container]) -> facts::Container {
    let owned = |texts: &mut dyn Iterator<Item = &str>| texts.map(str::to_owned).collect::<Vec<_>>();
    let env = container.texts("/Config/Env").filter_map(|pair| pair.split_once('='));
    let labels = container.document().pointer("/Config/Labels").and_then(Value::as_object);
    let labels = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let config = |key: &str| container.document()["Config"][key].as_str().unwrap_or_default().to_owned();
    let mut command = vec![container.document()["Path"].as_str().unwrap_or_default().to_owned()];
    command.extend(container.texts("/Args").map(str::to_owned));
    facts::Container {
        id: container.id().to_owned(),
        name: container.name().to_owned(),
        image: container.image().to_owned(),
        image_id: container.image_id().to_owned(),
        state: state(container.state()),
        hostname: Some(config("Hostname")).filter(|name| !name.is_empty()),
        env: env.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        command,
        processes: Vec::new(),
        exposed_ports: owned(&mut container.keys("/Config/ExposedPorts")),
        declared_volumes: owned(&mut container.keys("/Config/Volumes")),
        labels: labels.collect(),
        user: config("User"),
        uid: None,
        gids: Vec::new(),
        restart_policy: container.document()["HostConfig"]["RestartPolicy"]["Name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        auto_remove: container.removes_itself(),
        read_only_root: container.is("/HostConfig/ReadonlyRootfs"),
        dependents: dependents(container, all),
        mounts: container.mounts().iter().map(bare_mount).collect(),
        layer: Ok(audit::Layer::default()),
    }
}

/// Containers that live in this one's network or in other namespaces of it.
fn dependents(container: &Container, all: &[Container]) -> Vec<String> {
    let joins = |other: &&Container| {
        ["NetworkMode", "IpcMode", "PidMode"].iter().any(|mode| {
            let mode = other.document()["HostConfig"][*mode].as_str().unwrap_or_default();
            let owner = mode.strip_prefix("container:");
            owner.is_some_and(|owner| owner == container.id() || owner == container.name())
        })
    };
    let others = all.iter().filter(|other| other.id() != container.id());
    others.filter(joins).map(|other| other.name().to_owned()).collect()
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
    facts::Mount { content, shadows: image.map(|names| names.len() as u64), copied_up, ..bare_mount(mount) }
}

/// A mount as the engine tells of it.
fn bare_mount(mount: &container::Mount) -> facts::Mount {
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
        content: None,
        shadows: None,
        copied_up: None,
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
        let texts = |key: &str| -> BTreeMap<String, String> {
            let pairs = volume[key].as_object().into_iter().flatten();
            pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        let options = texts("Options");
        let seen = containers.iter().flat_map(|container| &container.mounts);
        let seen =
            seen.filter(|mount| mount.volume.as_ref() == Some(&name)).find_map(|mount| mount.content.clone());
        // A volume with options is a mount that is there only while somebody uses it.
        let content = seen.or_else(|| {
            let is_mounted = || linux::mounts::is_mount_point(Path::new(&mountpoint)).unwrap_or_default();
            let there = !mountpoint.is_empty() && (options.is_empty() || is_mounted());
            if there { content::at(Path::new(&mountpoint), device) } else { None }
        });
        volumes.push(facts::Volume {
            anonymous: container::is_made_up(&name),
            labels: texts("Labels"),
            options,
            used_by: users.get(&name).cloned().unwrap_or_default(),
            protection: match (&asked.protection, driver == asked.driver) {
                (Some(known), true) => known.get(&name).cloned().unwrap_or(Protection::None),
                (None, true) => Protection::Unseen,
                (_, false) => Protection::Unknown,
            },
            mountpoint: Some(mountpoint).filter(|path| !path.is_empty()),
            content,
            driver,
            name,
        });
    }
    Ok(volumes)
}
