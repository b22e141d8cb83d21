//! Settings of a container that is restored, as pure rules: what names other containers names the right ones, and what is restored
//! beside the original is kept apart from it.

use super::names::Names;
use crate::backup::Project;
use serde_json::Value;
use std::collections::BTreeMap;

/// What comes from another container (`--volumes-from`) is named itself: the other one's ID is of another engine, and beside what
/// was backed up its name means the original, with the original's data.
pub(super) fn borrow_nothing(settings: &mut Value) {
    let lenders = settings["HostConfig"]["VolumesFrom"].as_array().is_some_and(|lenders| !lenders.is_empty());
    if !lenders {
        return;
    }
    settings["HostConfig"]["VolumesFrom"] = Value::Null;
    // Volumes are named by whoever makes the container; directories of the host would be left out.
    let told: Vec<String> = ["Binds", "Mounts"]
        .iter()
        .flat_map(|key| settings["HostConfig"][*key].as_array().into_iter().flatten())
        .filter_map(|told| told["Target"].as_str().or_else(|| told.as_str()?.split(':').nth(1)))
        .map(|path| path.trim_end_matches('/').to_owned())
        .collect();
    let mut binds = settings["HostConfig"]["Binds"].as_array().cloned().unwrap_or_default();
    for mount in settings["Mounts"].as_array().into_iter().flatten().filter(|mount| mount["Type"] == "bind") {
        let (source, at) =
            (mount["Source"].as_str().unwrap_or_default(), mount["Destination"].as_str().unwrap_or_default());
        if !told.iter().any(|path| path == at) {
            let mode = if mount["RW"] == true { "" } else { ":ro" };
            binds.push(format!("{source}:{at}{mode}").into());
        }
    }
    settings["HostConfig"]["Binds"] = binds.into();
}

/// Beside what was backed up: nobody who means the original must reach the copy, and the copy must not reach the original where
/// there is a copy of that too.
pub(super) fn keep_apart(settings: &mut Value, project: &Project, names: &Names) {
    let renamed = |name: &str| {
        let known = project.containers.iter().any(|saved| saved.name == name);
        if known { names.container(name) } else { name.to_owned() }
    };
    for link in settings["HostConfig"]["Links"].as_array_mut().into_iter().flatten() {
        if let Some((source, target)) = link.as_str().and_then(|link| link.split_once(':')) {
            *link = format!("/{}:{target}", renamed(source.trim_start_matches('/'))).into();
        }
    }
    let networks = settings.pointer_mut("/NetworkSettings/Networks").and_then(Value::as_object_mut);
    for (network, endpoint) in networks.into_iter().flatten() {
        for link in endpoint["Links"].as_array_mut().into_iter().flatten() {
            if let Some((source, alias)) = link.as_str().and_then(|link| link.split_once(':')) {
                *link = format!("{}:{alias}", renamed(source)).into();
            }
        }
        if names.network(network) == *network {
            // The original answers to these names there.
            endpoint["Aliases"] = Value::Null;
        }
    }
    let labels = settings.pointer_mut("/Config/Labels").and_then(Value::as_object_mut);
    if let Some(labels) = labels {
        let key = "com.docker.compose.project";
        let same = labels
            .get(key)
            .and_then(Value::as_str)
            .is_some_and(|old| names.labels(&BTreeMap::from([(key.to_owned(), old.to_owned())]))[key] == old);
        if same {
            // Compose would take it for one container too many of the original's service, and remove either.
            labels.retain(|key, _| !key.starts_with("com.docker.compose."));
        }
    }
}

/// Addresses that somebody chose are the other project's.
pub(super) fn forget_addresses(settings: &mut Value) {
    let networks = settings.pointer_mut("/NetworkSettings/Networks").and_then(Value::as_object_mut);
    for endpoint in networks.into_iter().flat_map(|networks| networks.values_mut()) {
        endpoint["IPAMConfig"] = Value::Null;
    }
    if let Some(config) = settings["Config"].as_object_mut() {
        config.remove("MacAddress");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Container;
    use crate::settings::{Changes, creation};
    use serde_json::json;

    fn project(names: &[&str]) -> Project {
        let saved = |name: &&str| {
            json!({
                "id": name, "name": name, "running": true, "image": "i", "saved_image": "s", "saved_image_id": "x",
            })
        };
        let containers: Vec<Value> = names.iter().map(saved).collect();
        serde_json::from_value(json!({
            "instant": "2026-01-01T00:00:00Z", "engine": "20.10", "architecture": "amd64", "project": "shop",
            "containers": containers, "volumes": [], "networks": [], "notes": [],
        }))
        .unwrap()
    }

    fn settings() -> Value {
        json!({
            "Config": { "Labels": { "com.docker.compose.project": "shop", "com.docker.compose.service": "web", "own": "1" } },
            "HostConfig": { "VolumesFrom": ["shop-db"], "Binds": ["/srv:/srv"], "Links": ["/shop-db:/shop-web/db"] },
            "Mounts": [
                { "Type": "bind", "Source": "/srv", "Destination": "/srv", "RW": true },
                { "Type": "bind", "Source": "/etc/x", "Destination": "/x", "RW": false },
                { "Type": "volume", "Name": "shop_data", "Destination": "/data", "RW": true },
            ],
            "NetworkSettings": { "Networks": { "shop_default": { "Aliases": ["web"], "Links": ["shop-db:db"] } } },
        })
    }

    #[test]
    fn volumes_of_another_container_are_named() {
        let mut settings = settings();
        borrow_nothing(&mut settings);
        assert_eq!(settings["HostConfig"]["VolumesFrom"], Value::Null);
        assert_eq!(settings["HostConfig"]["Binds"], json!(["/srv:/srv", "/etc/x:/x:ro"]));
        let changes = Changes {
            renamed_volumes: vec![("shop_data".to_owned(), "trial_data".to_owned())],
            ..Changes::default()
        };
        let body = creation(&Container::from_document(settings), &changes).body;
        assert!(
            body["HostConfig"]["Binds"].as_array().unwrap().contains(&json!("trial_data:/data")),
            "{body}"
        );
    }

    #[test]
    fn a_copy_beside_the_original_is_not_taken_for_it() {
        let (one, mut copy) = (project(&["shop-web"]), settings());
        keep_apart(&mut copy, &one, &Names::new(&one, Some("trial")));
        assert_eq!(copy["NetworkSettings"]["Networks"]["shop_default"]["Aliases"], Value::Null);
        assert_eq!(copy["Config"]["Labels"], json!({ "own": "1" }));
        assert_eq!(copy["HostConfig"]["Links"][0], "/shop-db:/shop-web/db", "of that there is no copy");

        let (both, mut copy) = (project(&["shop-db", "shop-web"]), settings());
        keep_apart(&mut copy, &both, &Names::new(&both, Some("trial")));
        let endpoint = &copy["NetworkSettings"]["Networks"]["shop_default"];
        assert_eq!((&endpoint["Aliases"], &endpoint["Links"]), (&json!(["web"]), &json!(["trial-db:db"])));
        assert_eq!(copy["HostConfig"]["Links"][0], "/trial-db:/shop-web/db");
        assert_eq!(copy["Config"]["Labels"]["com.docker.compose.service"], "web");
    }
}
