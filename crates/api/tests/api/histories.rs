//! Histories over the wire. The drivers here have no image to cut; that cuts come back is tested with a real daemon.

use crate::server::{Server, create};
use api::v1::{CloneVolume, Protect, RestoreCut, SnapshotCreate, VaultAdd, Verify};
use model::ErrorKind;

/// A server with the vault `far` and the image `pgdata`.
pub async fn server() -> Server {
    let server = Server::start();
    let add: VaultAdd = serde_json::from_value(serde_json::json!({
        "name": "far", "url": format!("file://{}/vault", server.dir.path().display()),
    }))
    .unwrap();
    server.client.add_vault(&add).await.unwrap();
    server.client.create(&create("pgdata", &[("driver", "image"), ("size", "64MiB")])).await.unwrap();
    server
}

fn far() -> Protect {
    Protect { vault: Some("far".to_owned()), ..Protect::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protection_begins_changes_and_ends() {
    let server = server().await;
    let client = &server.client;
    assert_eq!(client.protection().await.unwrap().unprotected, ["pgdata"]);
    assert_eq!(client.inspect("pgdata").await.unwrap().protection, None);
    assert!(!client.metrics().await.unwrap().contains("everhold_history_waiting_bytes{"));

    let asked = Protect { interval: Some("2s".to_owned()), group: Some("shop".to_owned()), ..far() };
    let begun = client.protect("pgdata", &asked).await.unwrap();
    let protection = begun.protection.unwrap();
    assert!(begun.changed);
    assert_eq!(protection.keep.as_deref(), Some("1s:10m,1m:24h,1h:7d,1d:90d"));
    assert!(!client.protect("pgdata", &asked).await.unwrap().changed, "it is so already");
    // What is not said stays as it is; an empty group is none.
    let left = Protect { group: Some(String::new()), ..Protect::default() };
    let changed = client.protect("pgdata", &left).await.unwrap();
    assert!(changed.changed);
    assert_eq!(changed.protection, Some(Protect { group: None, ..protection }));

    let all = client.protection().await.unwrap();
    let [status] = &all.volumes[..] else { panic!("{all:?}") };
    assert_eq!((status.name.as_str(), status.newest_cut, status.waiting), ("pgdata", None, 0));
    assert_eq!(status.method, "comparing (a test)");
    assert_eq!(all.unprotected, [] as [String; 0]);
    assert_eq!(client.inspect("pgdata").await.unwrap().protection.as_ref(), Some(status));
    let text = client.metrics().await.unwrap();
    assert!(text.contains("everhold_history_waiting_bytes{volume=\"pgdata\"} 0"), "{text}");
    for unknown in
        ["history_behind_seconds", "history_newest_cut_timestamp_seconds", "history_last_freeze_seconds"]
    {
        assert!(!text.contains(unknown), "there is no cut to tell of, and 0 would be a lie:\n{text}");
    }

    let history = client.history("pgdata").await.unwrap();
    assert_eq!((history.vault.as_str(), history.cuts.len(), history.gaps.len()), ("far", 0, 0));
    assert_eq!(client.snapshots("pgdata").await.unwrap().snapshots, []);
    let gone = client.remove_snapshot("pgdata", "never").await.unwrap();
    assert!(!gone.changed && gone.cut.is_none());

    let ended = client.unprotect("pgdata").await.unwrap();
    assert!(ended.changed && ended.protection.is_none());
    assert!(!client.unprotect("pgdata").await.unwrap().changed);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_history_says_how_to_begin_one() {
    let server = server().await;
    let client = &server.client;
    let at = || "now".to_owned();
    let restore = |as_name| RestoreCut { at: at(), as_name, stop_containers: false };
    let clone = CloneVolume { to: "copy".to_owned(), at: Some(at()) };
    let named = SnapshotCreate { name: "release".to_owned() };
    for problem in [
        client.history("pgdata").await.unwrap_err(),
        client.snapshots("pgdata").await.unwrap_err(),
        client.snapshot("pgdata", &named).await.unwrap_err(),
        client.remove_snapshot("pgdata", "release").await.unwrap_err(),
        client.restore_cut("pgdata", &restore(None)).await.unwrap_err(),
        client.restore_cut("pgdata", &restore(Some("copy".to_owned()))).await.unwrap_err(),
        client.clone_volume("pgdata", &clone).await.unwrap_err(),
        client.verify("pgdata", &Verify::default()).await.unwrap_err(),
    ] {
        assert_eq!(problem.kind(), ErrorKind::InvalidInput, "{problem:?}");
        assert!(problem.detail.contains("everhold protect pgdata"), "{problem:?}");
    }
    client.protect("pgdata", &far()).await.unwrap();
    for problem in [
        client.restore_cut("pgdata", &restore(None)).await.unwrap_err(),
        client.restore_cut("pgdata", &restore(Some("copy".to_owned()))).await.unwrap_err(),
        client.verify("pgdata", &Verify::default()).await.unwrap_err(),
    ] {
        assert!(problem.detail.contains("no cut"), "{problem:?}");
    }
    assert_eq!(client.volumes().await.unwrap().volumes.len(), 1, "no half-made copy");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_named() {
    let server = server().await;
    server.create("dir").await;
    let volume = "/v1/volumes/pgdata";
    for (method, path, body, status, words) in [
        ("PUT", format!("{volume}/protection"), r#"{"interval":"1ms"}"#, 400, "no time between two cuts"),
        ("PUT", format!("{volume}/protection"), r#"{"keep":"1m:1s"}"#, 400, "shorter than its interval"),
        ("PUT", format!("{volume}/protection"), r#"{"vault":"nowhere"}"#, 404, "no vault nowhere"),
        ("PUT", format!("{volume}/protection"), r#"{"every":"1s"}"#, 400, "unknown field `every`"),
        ("PUT", "/v1/volumes/dir/protection".to_owned(), r#"{"vault":"far"}"#, 400, "driver image"),
        ("PUT", "/v1/volumes/nowhere/protection".to_owned(), "{}", 404, "no volume nowhere"),
        ("DELETE", "/v1/volumes/nowhere/protection".to_owned(), "", 404, "no volume nowhere"),
        ("GET", "/v1/volumes/nowhere/history".to_owned(), "", 404, "no volume nowhere"),
        ("GET", "/v1/volumes/nowhere/snapshots".to_owned(), "", 404, "no volume nowhere"),
        ("POST", format!("{volume}/snapshots"), r#"{"name":"../x"}"#, 400, "name"),
        ("POST", format!("{volume}/restore"), "{}", 400, "missing field `at`"),
        ("POST", format!("{volume}/restore"), r#"{"at":"last tuesday"}"#, 400, "not understood"),
        ("POST", format!("{volume}/restore"), r#"{"at":"2999-01-01T00:00:00Z"}"#, 400, "yet to come"),
        ("POST", format!("{volume}/restore"), r#"{"at":"now","as":"../x"}"#, 400, "starts with"),
        ("POST", format!("{volume}/clone"), r#"{"to":"../x"}"#, 400, "starts with"),
        ("POST", format!("{volume}/verify"), r##"{"at":"#x"}"##, 400, "not the number of a cut"),
    ] {
        let answer = server.send(method, &path, Some("application/json"), body).await;
        let problem = answer.problem();
        assert_eq!(answer.status, status, "{method} {path} {body}: {problem:?}");
        assert!(problem.detail.contains(words), "{method} {path} {body}: {problem:?}");
    }
    server.stop().await;
}
