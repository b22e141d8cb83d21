//! Histories in a vault over the wire, whatever became of their volumes. They are put there by hand: the drivers here have no image
//! to cut.

use crate::histories::server;
use crate::server::Server;
use api::v1::{Here, RestoreStored, StoredHistory};
use engine::OpenVault;
use model::{ErrorKind, Volume, VolumeId};
use std::sync::Arc;
use vault::format::{Kind, PartBuilder, PartName, StreamId};

const SALT: [u8; 16] = [7; 16];

fn far(server: &Server) -> Arc<OpenVault> {
    server.engine.vaults().open(&"far".parse().unwrap()).unwrap()
}

/// The history of a volume that this host does not have: these cuts, a second apart, of a volume full of zeros.
fn left(server: &Server, name: &str, number: u128, cuts: u64) -> (Volume, StreamId) {
    let id = VolumeId::from_uuid(uuid::Uuid::from_u128(number));
    let here = server.engine.volume(&"pgdata".parse().unwrap()).unwrap();
    let volume = Volume { id, name: name.parse().unwrap(), ..(*here).clone() };
    let vault = far(server);
    let stream = vault.stream_of(id);
    let access = vault.access(stream);
    access.describe(&volume, SALT).unwrap();
    for to in 1..=cuts {
        let (time, kind) = (to * 1000, Kind::Cut);
        let part = PartName { stream, from: to - 1, to, time, epoch: 1, run: 1, kind, part: 0, last: true };
        let built = PartBuilder::new().build(&access.keys, &access.vault, part, 64 << 20, SALT);
        access.put(&[built]).unwrap();
    }
    (volume, stream)
}

fn restore(at: &str, pool: Option<&str>) -> RestoreStored {
    RestoreStored { at: at.to_owned(), as_name: "back".to_owned(), pool: pool.map(str::to_owned) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_a_vault_is_listed_and_found() {
    let server = server().await;
    let client = &server.client;
    let none = client.stored_histories("far").await.unwrap();
    assert_eq!((none.vault.as_str(), none.histories.len()), ("far", 0));

    let (orders, stream) = left(&server, "orders", 1, 3);
    let (twin, _) = left(&server, "orders", 2, 0);
    let (_, damaged) = left(&server, "lost", 3, 1);
    far(&server).store.replace(&format!("h/{damaged}/about"), "nonsense".into()).unwrap();
    let all = client.stored_histories("far").await.unwrap().histories;
    let [empty, first, last] = &all[..] else { panic!("{all:?}") };
    assert_eq!((empty.id.as_ref(), empty.cuts, empty.newest_time), (Some(&twin.id.to_string()), 0, None));
    assert_eq!(
        *first,
        StoredHistory {
            stream: stream.to_string(),
            volume: Some("orders".to_owned()),
            id: Some(orders.id.to_string()),
            size: Some(64 << 20),
            labels: std::collections::BTreeMap::new(),
            here: Here::No,
            cuts: 3,
            first_cut: Some(1),
            first_time: Some("1970-01-01T00:00:01Z".parse().unwrap()),
            newest_cut: Some(3),
            newest_time: Some("1970-01-01T00:00:03Z".parse().unwrap()),
            stored: first.stored,
            problems: Vec::new(),
        }
    );
    assert_eq!((last.stream.clone(), &last.volume, last.cuts), (damaged.to_string(), &None, 1));
    assert!(last.problems[0].contains("its description can't be read"), "{last:?}");

    for which in [orders.id.to_string(), stream.to_string()] {
        let history = client.stored_history("far", &which).await.unwrap();
        assert_eq!((history.vault.as_str(), history.cuts.len(), history.stored), ("far", 3, first.stored));
    }
    assert_eq!(client.stored_history("far", &damaged.to_string()).await.unwrap().cuts.len(), 1);
    let several = client.stored_history("far", "orders").await.unwrap_err();
    assert_eq!(several.kind(), ErrorKind::Conflict);
    for id in [orders.id, twin.id] {
        assert!(several.detail.contains(&id.to_string()), "{several:?}");
    }
    let none = client.stored_history("far", "lost").await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    assert!(none.detail.contains("of one history it can't be told"), "{none:?}");
    assert!(none.next.contains("everhold vault histories far"), "{none:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_history_from_being_restored_is_said() {
    let server = server().await;
    let client = &server.client;
    let (orders, _) = left(&server, "orders", 1, 2);
    let (_, damaged) = left(&server, "lost", 2, 1);
    far(&server).store.replace(&format!("h/{damaged}/about"), "nonsense".into()).unwrap();
    let (id, damaged) = (orders.id.to_string(), damaged.to_string());
    for (which, request, kind, words) in [
        ("orders", restore("#9", None), ErrorKind::InvalidInput, "no cut for"),
        ("orders", restore("#1", Some("fast")), ErrorKind::NotFound, "pools: default"),
        ("nowhere", restore("#1", None), ErrorKind::NotFound, "no history of nowhere"),
        (&damaged, restore("#1", None), ErrorKind::Damaged, "can't be told"),
        // As far as this driver goes: everything else was found.
        (&id, restore("#1", None), ErrorKind::Unsupported, "not made of blocks"),
        ("orders", restore("now", Some("default")), ErrorKind::Unsupported, "not made of blocks"),
    ] {
        let problem = client.restore_stored("far", which, &request).await.unwrap_err();
        assert_eq!(problem.kind(), kind, "{which} {request:?}: {problem:?}");
        assert!(problem.detail.contains(words), "{which} {request:?}: {problem:?}");
    }
    assert_eq!(client.volumes().await.unwrap().volumes.len(), 1, "nothing is left of what failed");

    let path = "/v1/vaults/far/histories";
    for (method, path, body, status, words) in [
        ("GET", "/v1/vaults/nowhere/histories".to_owned(), "", 404, "no vault nowhere"),
        ("GET", "/v1/vaults/nowhere/histories/x".to_owned(), "", 404, "no vault nowhere"),
        ("GET", format!("{path}/x"), "", 404, "no history of x"),
        ("POST", format!("{path}/orders/restore"), r#"{"at":"now"}"#, 400, "missing field `as`"),
        ("POST", format!("{path}/orders/restore"), r#"{"at":"now","as":"../x"}"#, 400, "starts with"),
        (
            "POST",
            format!("{path}/orders/restore"),
            r#"{"at":"last tuesday","as":"x"}"#,
            400,
            "not understood",
        ),
        (
            "POST",
            format!("{path}/orders/restore"),
            r#"{"at":"now","as":"x","poll":"y"}"#,
            400,
            "unknown field",
        ),
    ] {
        let answer = server.send(method, &path, Some("application/json"), body).await;
        let problem = answer.problem();
        assert_eq!(answer.status, status, "{method} {path} {body}: {problem:?}");
        assert!(problem.detail.contains(words), "{method} {path} {body}: {problem:?}");
    }
    server.stop().await;
}
