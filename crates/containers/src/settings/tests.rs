use super::*;

fn container(document: Value) -> Container {
    Container::from_document(document)
}

fn web() -> Value {
    json!({
        "Id": "0123456789abcdef", "Name": "/web", "Image": "sha256:aa", "Path": "serve", "Args": ["-v"],
        "Config": { "Hostname": "0123456789ab", "Image": "web:1", "Env": ["A=1"], "Labels": { "a": "b" },
            "Volumes": { "/cache": {} }, "SettingOfTheFuture": { "x": 1 } },
        "HostConfig": { "Binds": ["conf:/etc/web:ro", "/srv:/srv:rw,z"], "NetworkMode": "front",
            "Mounts": [{ "Type": "volume", "Target": "/long" }],
            "Links": ["/db:/web/database"], "Memory": 1000, "Tmpfs": { "/tmp": "" }, "NewLimit": 5 },
        "Mounts": [
            { "Type": "volume", "Name": "conf", "Destination": "/etc/web", "RW": false, "Driver": "local" },
            { "Type": "bind", "Source": "/srv", "Destination": "/srv", "RW": true },
            { "Type": "volume", "Name": "f".repeat(64), "Destination": "/cache", "RW": true },
            { "Type": "volume", "Name": "e".repeat(64), "Destination": "/long", "RW": true },
        ],
        "NetworkSettings": { "Networks": {
            "back": { "IPAMConfig": null, "Aliases": ["0123456789ab"], "IPAddress": "10.0.0.9" },
            "front": { "IPAMConfig": { "IPv4Address": "10.1.0.5" }, "Aliases": ["www", "0123456789ab"] },
        } },
    })
}

#[test]
fn everything_is_asked_for_again() {
    let Creation { body, connect } = creation(&container(web()), &Changes::default());
    assert_eq!(body["SettingOfTheFuture"], json!({ "x": 1 }));
    assert_eq!((&body["HostConfig"]["NewLimit"], &body["Hostname"]), (&json!(5), &json!("0123456789ab")));
    let cache = format!("{}:/cache", "f".repeat(64));
    assert_eq!(body["HostConfig"]["Binds"], json!(["conf:/etc/web:ro", "/srv:/srv:rw,z", cache]));
    assert_eq!(body["HostConfig"]["Mounts"][0]["Source"], "e".repeat(64), "not a new, empty volume");
    assert_eq!(body["HostConfig"]["Links"], json!(["db:database"]));
    let front = json!({ "front": { "IPAMConfig": { "IPv4Address": "10.1.0.5" }, "Aliases": ["www"] } });
    assert_eq!(body["NetworkingConfig"]["EndpointsConfig"], front);
    assert_eq!(connect, [("back".to_owned(), json!({}))], "an address that the engine chose is no setting");
}

#[test]
fn volumes_take_the_place_of_what_was_there() {
    let placed = |destination: &str, volume: &str, read_write| Placed {
        destination: destination.into(),
        volume: volume.into(),
        read_write,
    };
    let changes = Changes {
        volumes: vec![
            placed("/cache", "kept", true),
            placed("/tmp", "tmp", true),
            placed("/new", "new", false),
        ],
        ..Changes::default()
    };
    let body = creation(&container(web()), &changes).body;
    let binds = json!(["conf:/etc/web:ro", "/srv:/srv:rw,z", "kept:/cache", "tmp:/tmp", "new:/new:ro"]);
    assert_eq!((&body["HostConfig"]["Binds"], &body["HostConfig"]["Tmpfs"]), (&binds, &json!({})));
}

#[test]
fn names_change_where_they_shall() {
    let changes = Changes {
        image: Some("sha256:bb".into()),
        labels: vec![("a".into(), "c".into()), ("absent".into(), "x".into())],
        renamed_volumes: vec![("conf".into(), "conf-2".into())],
        renamed_networks: vec![("front".into(), "front-2".into())],
        ..Changes::default()
    };
    let body = creation(&container(web()), &changes).body;
    assert_eq!((&body["Image"], &body["Labels"]), (&json!("sha256:bb"), &json!({ "a": "c" })));
    assert_eq!(body["HostConfig"]["Binds"][0], "conf-2:/etc/web:ro");
    assert_eq!(body["HostConfig"]["NetworkMode"], "front-2");
    assert!(body["NetworkingConfig"]["EndpointsConfig"]["front-2"].is_object());
}

#[test]
fn volumes_of_another_container_come_from_it_again() {
    let mut document = web();
    document["HostConfig"]["VolumesFrom"] = json!(["keeper"]);
    document["Mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "Type": "volume", "Name": "kept", "Destination": "/kept", "RW": true }));
    let body = creation(&container(document), &Changes::default()).body;
    let binds = body["HostConfig"]["Binds"].to_string();
    assert!(!binds.contains("/kept") && binds.contains("/cache"), "{binds}");
}

#[test]
fn who_shares_a_network_has_no_name_of_its_own() {
    let mut document = web();
    document["HostConfig"]["NetworkMode"] = json!("container:abc");
    document["NetworkSettings"] = json!({ "Networks": {} });
    let Creation { body, connect } = creation(&container(document), &Changes::default());
    assert_eq!((body.get("Hostname"), body.get("NetworkingConfig"), connect.len()), (None, None, 0));
}

/// What an engine would report of a container made with this.
fn made_from(old: &Value, creation: &Creation) -> Container {
    let mut document = old.clone();
    document["Id"] = json!("ffffffffffffffff");
    document["HostConfig"] = creation.body["HostConfig"].clone();
    document["HostConfig"]["Links"] = json!(["/db:/web-new/database"]);
    for network in ["front", "back"] {
        let aliases = document["NetworkSettings"]["Networks"][network]["Aliases"].as_array_mut().unwrap();
        aliases.retain(|alias| alias != "0123456789ab");
        aliases.push(json!("ffffffffffff"));
    }
    container(document)
}

#[test]
fn what_was_made_alike_is_alike() {
    let old = web();
    let new = made_from(&old, &creation(&container(old.clone()), &Changes::default()));
    assert_eq!(differences(&container(old), &new, &Changes::default()), []);
}

#[test]
fn every_setting_that_differs_is_found() {
    let old = web();
    let same = made_from(&old, &creation(&container(old.clone()), &Changes::default())).document().clone();
    for (pointer, value) in [
        ("/Config/Env", json!(["A=2"])),
        ("/Config/SettingOfTheFuture/x", json!(2)),
        ("/HostConfig/Memory", json!(1)),
        ("/HostConfig/NewLimit", json!(null)),
        ("/HostConfig/Links/0", json!("/db:/web/other")),
        ("/Image", json!("sha256:bb")),
        ("/Mounts/0/RW", json!(true)),
        ("/Mounts/2/Name", json!("0".repeat(64))),
        ("/NetworkSettings/Networks/front/IPAMConfig", json!(null)),
        ("/NetworkSettings/Networks/front/Aliases/0", json!("ftp")),
        ("/Args", json!([])),
    ] {
        let mut new = same.clone();
        *new.pointer_mut(pointer).unwrap() = value;
        let found = differences(&container(old.clone()), &container(new), &Changes::default());
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
    }
}
