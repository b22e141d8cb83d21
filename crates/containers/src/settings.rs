//! A container's settings: what must be asked for to get one like it, and whether one is like another. Pure rules over the
//! engine's documents; what these rules have not heard of is carried over as it is.

mod differences;
#[cfg(test)]
mod tests;

pub use differences::{Difference, differences};

use crate::container::Container;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What shall be different in the new container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Another image than the one that was asked for when the container was made.
    pub image: Option<String>,
    /// Volumes in place of whatever was at their destinations.
    pub volumes: Vec<Placed>,
    /// Another value for labels that are there.
    pub labels: Vec<(String, String)>,
    /// Volumes with these names have other names now.
    pub renamed_volumes: Vec<(String, String)>,
    /// Networks with these names have other names now.
    pub renamed_networks: Vec<(String, String)>,
}

/// A volume at a place in the container.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Placed {
    /// Where.
    pub destination: PathBuf,
    /// The volume's name.
    pub volume: String,
    /// Whether the container may write.
    pub read_write: bool,
}

/// What to ask an engine for.
#[derive(Debug, Clone, PartialEq)]
pub struct Creation {
    /// The document for `POST /containers/create`.
    pub body: Value,
    /// Networks to connect the container to before it starts, with the endpoint's settings. An engine before API 1.44 takes
    /// only one in the creation.
    pub connect: Vec<(String, Value)>,
}

/// What gives a container like this one.
pub fn creation(container: &Container, changes: &Changes) -> Creation {
    let document = container.document();
    let mut body = document["Config"].as_object().cloned().unwrap_or_default();
    if let Some(image) = &changes.image {
        body.insert("Image".to_owned(), image.as_str().into());
    }
    relabel(&mut body, changes);
    let mut host = document["HostConfig"].as_object().cloned().unwrap_or_default();
    mount(container, &mut host, changes);
    link(&mut host);
    let mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some((_, new)) = changes.renamed_networks.iter().find(|(old, _)| *old == mode) {
        host.insert("NetworkMode".to_owned(), new.as_str().into());
    }
    let shares_network = mode.starts_with("container:");
    if shares_network || host.get("UTSMode").and_then(Value::as_str) == Some("host") {
        // It is the other's name, and the engine refuses to be told.
        body.remove("Hostname");
        body.remove("Domainname");
    }
    let mut endpoints = if shares_network { Vec::new() } else { endpoints(container, changes) };
    let own = endpoints.iter().position(|(network, _)| host.get("NetworkMode") == Some(&json!(network)));
    if let Some(own) = own.or(if endpoints.is_empty() { None } else { Some(0) }) {
        let (network, endpoint) = endpoints.remove(own);
        body.insert("NetworkingConfig".to_owned(), json!({ "EndpointsConfig": { network: endpoint } }));
    }
    body.insert("HostConfig".to_owned(), host.into());
    Creation { body: body.into(), connect: endpoints }
}

fn relabel(body: &mut Map<String, Value>, changes: &Changes) {
    let Some(labels) = body.get_mut("Labels").and_then(Value::as_object_mut) else { return };
    for (key, value) in &changes.labels {
        if let Some(label) = labels.get_mut(key) {
            *label = value.as_str().into();
        }
    }
}

/// The destination of a bind as it was typed: `SOURCE:DESTINATION[:MODE]`.
fn destination(bind: &str) -> Option<&Path> {
    bind.split(':').nth(1).map(Path::new)
}

/// Says of every mount what it is, also of those that the engine was never told of: without that, an anonymous volume would be a
/// new, empty one.
fn mount(container: &Container, host: &mut Map<String, Value>, changes: &Changes) {
    let moved = |path: &Path| changes.volumes.iter().any(|placed| same(&placed.destination, path));
    let name_now = |name: &str| -> String {
        let renamed = changes.renamed_volumes.iter().find(|(old, _)| old == name);
        renamed.map_or(name, |(_, new)| new).to_owned()
    };
    let told: Vec<String> = container.texts("/HostConfig/Binds").map(str::to_owned).collect();
    let mut binds: Vec<String> = Vec::new();
    for bind in &told {
        if destination(bind).is_some_and(moved) {
            continue;
        }
        let source = bind.split(':').next().unwrap_or_default();
        binds.push(format!("{}{}", name_now(source), &bind[source.len()..]));
    }
    let mounts = container.mounts();
    let at = |path: &Path| mounts.iter().find(|mount| same(&mount.destination, path));
    let mut long_form: Vec<Value> = Vec::new();
    for mut mount in host.get("Mounts").and_then(Value::as_array).cloned().unwrap_or_default() {
        let target = PathBuf::from(mount["Target"].as_str().unwrap_or_default());
        if moved(&target) {
            continue;
        }
        if mount["Type"] == "volume"
            && let Some(name) = at(&target).and_then(|mount| mount.name.as_deref())
        {
            mount["Source"] = name_now(name).into();
        }
        long_form.push(mount);
    }
    let declared: Vec<PathBuf> = container.keys("/Config/Volumes").map(PathBuf::from).collect();
    let borrows = container.texts("/HostConfig/VolumesFrom").next().is_some();
    for mount in &mounts {
        let known = |path: &Path| same(path, &mount.destination);
        let is_told = told.iter().filter_map(|bind| destination(bind)).any(known)
            || long_form.iter().filter_map(|mount| mount["Target"].as_str()).any(|path| known(path.as_ref()));
        // What comes from another container comes from it again.
        let borrowed = borrows && !declared.iter().any(|path| known(path));
        if let (false, false, false, Some(name)) = (is_told, borrowed, moved(&mount.destination), &mount.name)
        {
            binds.push(bind(&name_now(name), &mount.destination, mount.read_write));
        }
    }
    let placed = changes.volumes.iter();
    binds.extend(placed.map(|placed| bind(&placed.volume, &placed.destination, placed.read_write)));
    host.insert("Binds".to_owned(), binds.into());
    if host.contains_key("Mounts") {
        host.insert("Mounts".to_owned(), long_form.into());
    }
    // Kept where a volume takes its place, it would lie on top.
    if let Some(tmpfs) = host.get_mut("Tmpfs").and_then(Value::as_object_mut) {
        tmpfs.retain(|path, _| !moved(path.as_ref()));
    }
}

fn bind(name: &str, destination: &Path, read_write: bool) -> String {
    format!("{name}:{}{}", destination.display(), if read_write { "" } else { ":ro" })
}

/// Whether two paths of a container are one (`/data` and `/data/`).
fn same(one: &Path, other: &Path) -> bool {
    one.components().eq(other.components())
}

/// Engines tell links as `/db:/web/alias`, and are told `db:alias`.
fn link(host: &mut Map<String, Value>) {
    let Some(links) = host.get_mut("Links").and_then(Value::as_array_mut) else { return };
    for link in links {
        let Some((source, target)) = link.as_str().and_then(|link| link.split_once(':')) else { continue };
        let alias = target.rsplit('/').next().unwrap_or(target);
        *link = format!("{}:{alias}", source.trim_start_matches('/')).into();
    }
}

/// What the container shall be on each of its networks. Addresses that the engine chose are not settings.
fn endpoints(container: &Container, changes: &Changes) -> Vec<(String, Value)> {
    let networks = container.document().pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let mut endpoints = Vec::new();
    for (network, endpoint) in networks.into_iter().flatten() {
        let mut wanted = Map::new();
        for key in ["IPAMConfig", "Links", "DriverOpts", "GwPriority"] {
            if let Some(value) = endpoint.get(key).filter(|value| !is_nothing(value)) {
                wanted.insert(key.to_owned(), value.clone());
            }
        }
        let aliases = aliases(container, endpoint);
        if !aliases.is_empty() {
            wanted.insert("Aliases".to_owned(), aliases.into());
        }
        // Since API 1.44 it is said for each network; whether somebody chose it is not told, and before it was in `Config`.
        if let Some(address) = endpoint.get("MacAddress").filter(|address| {
            container.document().pointer("/Config/MacAddress") == Some(*address) && !is_nothing(address)
        }) {
            wanted.insert("MacAddress".to_owned(), address.clone());
        }
        let renamed = changes.renamed_networks.iter().find(|(old, _)| old == network);
        endpoints.push((renamed.map_or(network, |(_, new)| new).clone(), Value::Object(wanted)));
    }
    endpoints
}

/// The aliases that somebody chose: engines add the short ID and the host name.
fn aliases<'a>(container: &Container, endpoint: &'a Value) -> Vec<&'a str> {
    let all = endpoint["Aliases"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let hostname = container.document()["Config"]["Hostname"].as_str();
    all.filter(|alias| *alias != container.short_id() && Some(*alias) != hostname).collect()
}

/// Engines say "none of it" in many ways.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
