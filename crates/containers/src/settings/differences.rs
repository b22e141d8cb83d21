//! Whether one container is set up as another: field by field, whatever fields there are.

use super::{Changes, aliases, is_nothing, same};
use crate::container::Container;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;

/// A setting of which two containers say different things.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where in the engine's document, such as `HostConfig.Memory`.
    pub field: String,
    /// What the one says.
    pub was: Value,
    /// What the other says.
    pub is: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was {}, and is {}", self.field, self.was, self.is)
    }
}

/// In what settings `new` differs from `old`, beside what `changes` says.
pub fn differences(old: &Container, new: &Container, changes: &Changes) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |field: &str, was: &Value, is: &Value| {
        if was != is && !(is_nothing(was) && is_nothing(is)) {
            found.push(Difference { field: field.to_owned(), was: was.clone(), is: is.clone() });
        }
    };
    let (was, is) = (old.document(), new.document());
    for field in ["Path", "Args", "Platform", "Driver", "AppArmorProfile"] {
        compare(field, &was[field], &is[field]);
    }
    if changes.image.is_none() {
        compare("Image", &was["Image"], &is["Image"]);
    }
    for section in ["Config", "HostConfig"] {
        let keys: BTreeSet<&str> =
            old.keys(&format!("/{section}")).chain(new.keys(&format!("/{section}"))).collect();
        for key in keys {
            match (section, key) {
                // What is mounted is compared as the engine reports it, below.
                ("HostConfig", "Binds" | "Mounts" | "Tmpfs") => {}
                ("Config", "Image") if changes.image.is_some() => {}
                ("Config", "Labels") if !changes.labels.is_empty() => {}
                ("HostConfig", "NetworkMode") if !changes.renamed_networks.is_empty() => {}
                // `/db:/web/alias`: with the name of the container itself, which the new one does not have yet.
                ("HostConfig", "Links") => compare("HostConfig.Links", &links(old), &links(new)),
                // Where the client that made the container was to note its ID, and the size of that client's terminal.
                ("HostConfig", "ContainerIDFile" | "ConsoleSize") => {}
                _ => compare(&format!("{section}.{key}"), &was[section][key], &is[section][key]),
            }
        }
    }
    compare("Mounts", &mounts(old, changes), &mounts(new, &Changes::default()));
    if changes.renamed_networks.is_empty() {
        compare("NetworkSettings.Networks", &networks(old), &networks(new));
    }
    found
}

fn links(container: &Container) -> Value {
    let links = container.texts("/HostConfig/Links").map(|link| {
        let (source, target) = link.split_once(':').unwrap_or((link, ""));
        json!([source, target.rsplit('/').next()])
    });
    links.collect()
}

/// What is mounted where, with what shall be changed changed.
fn mounts(container: &Container, changes: &Changes) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for mount in container.mounts() {
        if changes.volumes.iter().any(|placed| same(&placed.destination, &mount.destination)) {
            continue;
        }
        let name = mount.name.as_ref().map(|name| {
            let renamed = changes.renamed_volumes.iter().find(|(old, _)| old == name);
            renamed.map_or(name, |(_, new)| new)
        });
        // Where a volume's driver has it is not a setting.
        let source = if name.is_some() { None } else { Some(&mount.source) };
        all.push(json!([mount.destination, mount.kind, name, source, mount.read_write]));
    }
    for placed in &changes.volumes {
        all.push(json!([placed.destination, "volume", placed.volume, null, placed.read_write]));
    }
    all.sort_by_key(|mount| mount[0].to_string());
    all.into()
}

/// What the container is on its networks, without what engines make up.
fn networks(container: &Container) -> Value {
    let networks = container.document().pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let mut all = serde_json::Map::new();
    for (network, endpoint) in networks.into_iter().flatten() {
        let mut chosen = serde_json::Map::new();
        for key in ["IPAMConfig", "Links", "DriverOpts", "GwPriority"] {
            if !is_nothing(&endpoint[key]) {
                chosen.insert(key.to_owned(), endpoint[key].clone());
            }
        }
        let aliases: BTreeSet<&str> = aliases(container, endpoint).into_iter().collect();
        chosen.insert("Aliases".to_owned(), json!(aliases));
        all.insert(network.clone(), chosen.into());
    }
    all.into()
}
