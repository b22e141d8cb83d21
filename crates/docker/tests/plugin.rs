//! The plugin protocol over a real socket, in front of a real engine with simulated drivers (and `dir`, once).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a surprise ends the test")]

mod common;

use common::{Gate, Served, Setup, answer, name, open, until};
use engine::{ContainerUse, Containers};
use everhold_docker::plugin::Settings;
use model::{DriverKind, HolderKind, VolumeName};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

async fn served() -> (TempDir, Served) {
    served_with(Setup::default(), Settings::default()).await
}

async fn served_with(setup: Setup, settings: Settings) -> (TempDir, Served) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), setup);
    let socket = dir.path().join("plugins/everhold.sock");
    (dir, Served::new(engine, socket, settings).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_volume() {
    let (_dir, plugin) = served().await;
    // Docker's first call has no body at all, the next ones have `{}`.
    let activated = plugin.ok("Plugin.Activate", Value::Null).await;
    assert_eq!(activated["Implements"], json!(["VolumeDriver"]));
    let able = plugin.ok("VolumeDriver.Capabilities", json!({})).await;
    assert_eq!(able["Capabilities"], json!({"Scope": "local"}));
    assert_eq!(plugin.ok("VolumeDriver.List", json!({})).await["Volumes"], json!([]));

    plugin.ok("VolumeDriver.Create", json!({"Name": "pgdata", "Opts": {"size": "2MiB"}})).await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "silent", "Opts": null})).await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "pgdata", "Opts": {"size": "2MiB"}})).await;
    let (_, error) =
        plugin.fails("VolumeDriver.Create", json!({"Name": "pgdata", "Opts": {"size": "3MiB"}})).await;
    assert!(error.contains("size: asked 3MiB, has 2MiB"), "{error}");

    let got = plugin.ok("VolumeDriver.Get", json!({"Name": "pgdata"})).await;
    let volume = &got["Volume"];
    assert_eq!((&volume["Name"], &volume["Mountpoint"]), (&json!("pgdata"), &json!("")));
    let status = &volume["Status"];
    assert_eq!(
        (&status["driver"], &status["size"], &status["pool"], &status["state"]),
        (&json!("sim"), &json!("2MiB"), &json!("default"), &json!("detached"))
    );
    let created: jiff::Timestamp = volume["CreatedAt"].as_str().unwrap().parse().expect("RFC 3339");
    assert_eq!(created, plugin.engine.volume(&name("pgdata")).unwrap().created);
    assert_eq!(plugin.ok("VolumeDriver.Path", json!({"Name": "pgdata"})).await["Mountpoint"], "");

    let mounted = plugin.ok("VolumeDriver.Mount", json!({"Name": "pgdata", "ID": "one"})).await;
    let path = mounted["Mountpoint"].clone();
    assert_ne!(path, "");
    for call in ["VolumeDriver.Path", "VolumeDriver.Mount"] {
        assert_eq!(plugin.ok(call, json!({"Name": "pgdata", "ID": "two"})).await["Mountpoint"], path);
    }
    let got = plugin.ok("VolumeDriver.Get", json!({"Name": "pgdata"})).await;
    assert_eq!(
        (&got["Volume"]["Mountpoint"], &got["Volume"]["Status"]["state"]),
        (&path, &json!("attached"))
    );
    let list = plugin.ok("VolumeDriver.List", json!({})).await;
    assert_eq!(
        list["Volumes"],
        json!([{"Name": "pgdata", "Mountpoint": path}, {"Name": "silent", "Mountpoint": ""}])
    );

    let (status, error) = plugin.fails("VolumeDriver.Remove", json!({"Name": "pgdata"})).await;
    assert_eq!(status, 500);
    assert!(error.contains("in use by Docker mount one") && error.contains("Next: "), "{error}");
    for id in ["one", "two", "unknown"] {
        plugin.ok("VolumeDriver.Unmount", json!({"Name": "pgdata", "ID": id})).await;
    }
    assert_eq!(plugin.ok("VolumeDriver.Path", json!({"Name": "pgdata"})).await["Mountpoint"], "");
    plugin.ok("VolumeDriver.Remove", json!({"Name": "pgdata"})).await;
    plugin.ok("VolumeDriver.Remove", json!({"Name": "pgdata"})).await;
    assert_eq!(plugin.engine.trash().len(), 1);
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_can_be_written() {
    let setup = Setup { driver: DriverKind::Dir, real_drivers: true, ..Setup::default() };
    let (_dir, plugin) = served_with(setup, Settings::default()).await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "d", "Opts": {"driver": "dir", "mode": "0750"}})).await;
    let mounted = plugin.ok("VolumeDriver.Mount", json!({"Name": "d", "ID": "one"})).await;
    let file = std::path::Path::new(mounted["Mountpoint"].as_str().unwrap()).join("file");
    std::fs::write(&file, "kept").unwrap();
    plugin.ok("VolumeDriver.Unmount", json!({"Name": "d", "ID": "one"})).await;
    let again = plugin.ok("VolumeDriver.Mount", json!({"Name": "d", "ID": "two"})).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    assert_eq!(mounted["Mountpoint"], again["Mountpoint"]);
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_what_is_no_name() {
    let (_dir, plugin) = served().await;
    let long = "x".repeat(300);
    for odd in ["nope", "", "..", "/", "größe", &long] {
        for call in ["VolumeDriver.Get", "VolumeDriver.Path"] {
            let (_, error) = plugin.fails(call, json!({"Name": odd})).await;
            assert!(error.starts_with("no such volume"), "{error}");
        }
    }
    let (status, error) = plugin.fails("VolumeDriver.Mount", json!({"Name": "nope", "ID": "one"})).await;
    assert_eq!(status, 500);
    assert!(error.contains("there is no volume nope"), "{error}");
    for odd in ["", "..", "a/b", "größe", &long] {
        let (status, error) = plugin.fails("VolumeDriver.Create", json!({"Name": odd})).await;
        assert_eq!(status, 400);
        assert!(error.contains("name"), "{error}");
    }
    let (status, error) =
        plugin.fails("VolumeDriver.Create", json!({"Name": "v", "Opts": {"sise": "1G"}})).await;
    assert_eq!(status, 400);
    assert!(
        error.contains("did you mean `size`") && error.contains("known options: autogrow, driver"),
        "{error}"
    );
    let (_, error) = plugin.fails("VolumeDriver.Mount", json!({"Name": "v", "ID": ""})).await;
    assert!(error.contains("ID"), "{error}");
    let (status, error) = plugin.fails("VolumeDriver.Format", json!({})).await;
    assert_eq!((status, error.contains("VolumeDriver.Format")), (404, true), "{error}");
    assert!(plugin.engine.volumes().is_empty(), "nothing came of it");
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none() {
    let (_dir, plugin) = served().await;
    for (body, expect) in [
        (&b"{"[..], "EOF"),
        (b"\xff\xfe", "not valid"),
        (b"[1]", "not valid"),
        (b"{\"Nam\": \"v\"}", "missing field `Name`"),
        (b"{\"Name\": 7}", "not valid"),
        (b"{\"Name\": \"v\", \"Opts\": {\"size\": 7}}", "not valid"),
        // What Docker sends when a connection broke and it tries again.
        (b"", "the request is empty"),
    ] {
        let (status, answer) = plugin.send("VolumeDriver.Create", "", body).await;
        let error = answer["Err"].as_str().unwrap();
        assert_eq!(status, 400);
        assert!(error.contains(expect) && error.contains("\"Opts\""), "{error}");
    }
    // The content type is of no interest.
    for headers in
        ["", "Content-Type: application/vnd.docker.plugins.v1.1+json\r\n", "Content-Type: text/plain\r\n"]
    {
        let (status, _) = plugin.send("VolumeDriver.Create", headers, br#"{"Name":"v"}"#).await;
        assert_eq!(status, 200);
    }
    let mut stream = UnixStream::connect(&plugin.socket).await.unwrap();
    stream.write_all(b"GET /VolumeDriver.List HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer(stream).await.0, 405);
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_request_is_refused_and_the_answer_can_be_read() {
    let (_dir, plugin) = served().await;
    let body = json!({"Name": "v", "Opts": {"label.x": "y".repeat(3 << 20)}}).to_string();
    let (status, answer) = plugin.send("VolumeDriver.Create", "", body.as_bytes()).await;
    assert_eq!(status, 413);
    assert!(answer["Err"].as_str().unwrap().contains("longer than 1048576 bytes"), "{answer}");
    assert!(plugin.engine.volumes().is_empty());
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_given_up_and_nobody_waits_for_it() {
    let deadline = Duration::from_millis(300);
    let settings = Settings { header_deadline: deadline, body_deadline: deadline, ..Settings::default() };
    let (_dir, plugin) = served_with(Setup::default(), settings).await;
    let begun = Instant::now();
    let mut half_a_body = UnixStream::connect(&plugin.socket).await.unwrap();
    let head = b"POST /VolumeDriver.Create HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"Name\"";
    half_a_body.write_all(head).await.unwrap();
    let mut half_a_head = UnixStream::connect(&plugin.socket).await.unwrap();
    half_a_head.write_all(b"POST /VolumeDriver.Cre").await.unwrap();
    let says_nothing = UnixStream::connect(&plugin.socket).await.unwrap();

    plugin.ok("VolumeDriver.List", json!({})).await;
    let (status, refused) = answer(half_a_body).await;
    assert_eq!(status, 408);
    assert!(refused["Err"].as_str().unwrap().contains("did not arrive"), "{refused}");
    for mut stream in [half_a_head, says_nothing] {
        let mut end = Vec::new();
        // Closed, with or without a word.
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut end).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_on_one_name() {
    let (_dir, plugin) = served().await;
    let plugin = Arc::new(plugin);
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let plugin = Arc::clone(&plugin);
            tokio::spawn(async move { plugin.call("VolumeDriver.Create", json!({"Name": "one"})).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), (200, json!({"Err": ""})));
    }
    // More than one creation would have left a second home.
    let homes = std::fs::read_dir(plugin.engine.settings().pools[0].path.join("volumes")).unwrap().count();
    assert_eq!((plugin.engine.volumes().len(), homes, plugin.engine.trash().len()), (1, 1, 0));
    Arc::into_inner(plugin).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_twice_is_one_attachment_with_two_uses() {
    let (_dir, plugin) = served().await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "v", "Opts": {"exclusive": "true"}})).await;
    let holder = json!({"Name": "v", "ID": "the-container"});
    let attachments = || plugin.engine.volume(&name("v")).unwrap().attachments.len();
    // What Docker sends for: docker run; docker cp; docker rm -f.
    let run = plugin.ok("VolumeDriver.Mount", holder.clone()).await;
    let copy = plugin.ok("VolumeDriver.Mount", holder.clone()).await;
    assert_eq!((&run["Mountpoint"], attachments()), (&copy["Mountpoint"], 1));
    plugin.ok("VolumeDriver.Unmount", holder.clone()).await;
    assert_eq!(attachments(), 1, "the container still runs");
    plugin.ok("VolumeDriver.Unmount", holder.clone()).await;
    assert_eq!(attachments(), 0);

    // A Docker Engine that is killed during a copy never ends it; the next one begins with Activate.
    plugin.ok("VolumeDriver.Mount", holder.clone()).await;
    plugin.ok("VolumeDriver.Mount", holder.clone()).await;
    plugin.ok("Plugin.Activate", Value::Null).await;
    plugin.ok("VolumeDriver.Unmount", holder).await;
    assert_eq!(attachments(), 0);
    plugin.stop().await;
}

/// Mounts `v` again, which can't be done before the first mount is, and waits for the first one to be taken back.
async fn only_the_second_mount_is_left(plugin: &Served) {
    plugin.ok("VolumeDriver.Mount", json!({"Name": "v", "ID": "second"})).await;
    until("the first mount is taken back", Duration::from_secs(5), || {
        let volume = plugin.engine.volume(&name("v")).unwrap();
        volume.attachment("second").is_some() && volume.attachments.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_verb_is_answered_in_time_and_goes_on() {
    let gate = Arc::new(Gate::default());
    let setup = Setup { clock: gate.clone(), ..Setup::default() };
    let settings = Settings { call_deadline: Duration::from_millis(500), ..Settings::default() };
    let (_dir, plugin) = served_with(setup, settings).await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "v"})).await;

    gate.close();
    let begun = Instant::now();
    let (_, create) = plugin.fails("VolumeDriver.Create", json!({"Name": "w"})).await;
    let (_, mount) = plugin.fails("VolumeDriver.Mount", json!({"Name": "v", "ID": "one"})).await;
    assert_eq!(gate.held(), 2, "both were in the midst of their work");
    for error in [&create, &mount] {
        assert!(
            error.contains("goes on in the background") && error.contains("ask again, which is safe"),
            "{error}"
        );
    }
    assert!(
        create.contains("create of volume w has been at work") && mount.contains("taken back"),
        "{create} {mount}"
    );
    // Nobody else waits: not these calls, not verbs on other volumes.
    let quick = Instant::now();
    assert_eq!(plugin.ok("VolumeDriver.List", json!({})).await["Volumes"].as_array().unwrap().len(), 1);
    plugin.ok("VolumeDriver.Get", json!({"Name": "v"})).await;
    plugin.fails("VolumeDriver.Mount", json!({"Name": "nope", "ID": "x"})).await;
    assert!(quick.elapsed() < Duration::from_millis(400), "{:?}", quick.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5));

    gate.open();
    let limit = Duration::from_secs(5);
    until("the creation is done after all", limit, || plugin.engine.volume(&name("w")).is_ok()).await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "w"})).await;
    only_the_second_mount_is_left(&plugin).await;
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_that_hang_do_not_pile_up_without_end() {
    let gate = Arc::new(Gate::default());
    let setup = Setup { clock: gate.clone(), ..Setup::default() };
    let settings =
        Settings { call_deadline: Duration::from_millis(300), verbs_at_once: 1, ..Settings::default() };
    let (_dir, plugin) = served_with(setup, settings).await;
    gate.close();
    plugin.fails("VolumeDriver.Create", json!({"Name": "v"})).await;
    let (_, error) = plugin.fails("VolumeDriver.Create", json!({"Name": "w"})).await;
    assert!(error.contains("not begun, as 1 other calls"), "{error}");
    plugin.ok("VolumeDriver.List", json!({})).await;
    gate.open();
    let engine = Arc::clone(&plugin.engine);
    until("the first is done", Duration::from_secs(5), || engine.volume(&name("v")).is_ok()).await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "w"})).await;
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_during_a_mount_leaves_nothing_mounted() {
    let gate = Arc::new(Gate::default());
    let setup = Setup { clock: gate.clone(), ..Setup::default() };
    let (_dir, plugin) = served_with(setup, Settings::default()).await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "v"})).await;
    gate.close();
    let mut stream = UnixStream::connect(&plugin.socket).await.unwrap();
    let body = json!({"Name": "v", "ID": "killed"}).to_string();
    let head =
        format!("POST /VolumeDriver.Mount HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    until("the mount is under way", Duration::from_secs(5), || gate.held() == 1).await;
    drop(stream);
    // The server learns of it when it next looks at the connection.
    plugin.ok("VolumeDriver.List", json!({})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.open();
    only_the_second_mount_is_left(&plugin).await;
    plugin.stop().await;
}

struct OneContainer;

impl Containers for OneContainer {
    fn using(&self, _: &VolumeName) -> Result<Vec<ContainerUse>, String> {
        Ok(vec![ContainerUse {
            id: "0123".into(),
            name: "db".into(),
            image: "postgres:15".into(),
            state: "running".into(),
            destination: "/data".into(),
            read_only: false,
        }])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_container() {
    let (_dir, plugin) =
        served_with(Setup { containers: Arc::new(OneContainer), ..Setup::default() }, Settings::default())
            .await;
    plugin.ok("VolumeDriver.Create", json!({"Name": "v", "Opts": {"exclusive": "true"}})).await;
    plugin.ok("VolumeDriver.Mount", json!({"Name": "v", "ID": "one"})).await;
    assert_eq!(plugin.engine.volume(&name("v")).unwrap().attachments[0].holder, HolderKind::Docker);
    let (_, error) = plugin.fails("VolumeDriver.Mount", json!({"Name": "v", "ID": "two"})).await;
    assert!(error.contains("container db (postgres:15, running)"), "{error}");
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_within_its_grace_although_a_verb_hangs() {
    let gate = Arc::new(Gate::default());
    let setup = Setup { clock: gate.clone(), ..Setup::default() };
    let settings = Settings { grace: Duration::from_millis(300), ..Settings::default() };
    let (_dir, plugin) = served_with(setup, settings).await;
    gate.close();
    let mut stream = UnixStream::connect(&plugin.socket).await.unwrap();
    let body = json!({"Name": "v"}).to_string();
    let head =
        format!("POST /VolumeDriver.Create HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let _says_nothing = UnixStream::connect(&plugin.socket).await.unwrap();
    until("the creation is under way", Duration::from_secs(5), || gate.held() == 1).await;
    let begun = Instant::now();
    plugin.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    gate.open();
}
