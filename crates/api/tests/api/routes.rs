//! Every route, through the client.

use crate::server::{Server, create};
use api::v1::{Access, Attach, Grow, HoldState, Labels, Outcome, Restore, SizeText, VolumeState};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_lives_and_comes_back() {
    let server = Server::start();
    let client = &server.client;

    let mut request = create("pgdata", &[("size", "32MiB")]);
    request.labels = [("env", "prod")].into_iter().collect();
    let created = client.create(&request).await.unwrap();
    assert_eq!((created.result, created.volume.size), (Outcome::Created, Some(32 << 20)));
    assert_eq!(created.volume.labels["env"], "prod");
    assert_eq!(created.volume.options["size"], "33554432");
    assert_eq!(client.create(&request).await.unwrap().result, Outcome::AlreadyThere);

    let grow = |size| Grow { size };
    let grown = client.grow("pgdata", &grow(SizeText::Text("64MiB".into()))).await.unwrap();
    assert_eq!((grown.result, grown.volume.size), (Outcome::Grown, Some(64 << 20)));
    let same = client.grow("pgdata", &grow(SizeText::Bytes(64 << 20))).await.unwrap();
    assert_eq!(same.result, Outcome::AlreadyThere);

    let labels = Labels { set: [("team".to_owned(), "db".to_owned())].into(), unset: vec!["env".into()] };
    let labelled = client.label("pgdata", &labels).await.unwrap();
    assert_eq!(labelled.result, Outcome::Labelled);
    assert_eq!(labelled.volume.labels.keys().collect::<Vec<_>>(), ["team"]);

    let renamed = client.rename("pgdata", "orders").await.unwrap();
    assert_eq!((renamed.result, renamed.volume.name.as_str()), (Outcome::Renamed, "orders"));

    let usage = client.usage("orders").await.unwrap();
    assert_eq!((usage.name.as_str(), usage.size.is_some()), ("orders", true));
    assert_eq!(client.usages().await.unwrap().usages, [usage]);

    assert_eq!(client.remove("orders", true).await.unwrap().result, Outcome::WouldRemove);
    assert_eq!(client.volumes().await.unwrap().volumes.len(), 1, "a dry run changes nothing");
    let removed = client.remove("orders", false).await.unwrap();
    assert_eq!(removed.result, Outcome::Removed);
    let trashed = removed.volume.unwrap();
    assert_eq!(trashed.state, VolumeState::Trashed);
    assert!(trashed.trashed.unwrap().expires > trashed.trashed.unwrap().at);
    assert_eq!(client.remove("orders", false).await.unwrap().result, Outcome::AlreadyThere);

    let back = client.restore("orders", &Restore { r#as: Some("again".into()) }).await.unwrap();
    assert_eq!((back.result, back.volume.id), (Outcome::Restored, trashed.id.clone()));
    client.remove("again", false).await.unwrap();
    assert_eq!(client.destroy("again", true).await.unwrap().result, Outcome::WouldDestroy);
    assert_eq!(client.trash().await.unwrap().volumes.len(), 1);
    let destroyed = client.destroy(&trashed.id, false).await.unwrap();
    assert_eq!((destroyed.result, destroyed.volumes.len()), (Outcome::Destroyed, 1));
    assert!(client.trash().await.unwrap().volumes.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attachments_and_holders() {
    let server = Server::start();
    let client = &server.client;
    server.create("data").await;
    let first =
        client.attach("data", &Attach { id: Some("one".into()), access: Access::ReadOnly }).await.unwrap();
    assert_eq!((first.result, first.id.as_str()), (Outcome::Attached, "one"));
    let again =
        client.attach("data", &Attach { id: Some("one".into()), access: Access::ReadOnly }).await.unwrap();
    assert_eq!((again.result, &again.path), (Outcome::AlreadyThere, &first.path));
    let second = client.attach("data", &Attach::default()).await.unwrap();
    assert!(second.id.starts_with("cli-"), "{}", second.id);

    let detail = client.inspect("data").await.unwrap();
    assert_eq!(detail.volume.state, VolumeState::Attached);
    assert_eq!(detail.volume.path.as_ref(), Some(&first.path));
    let holders = client.holders("data").await.unwrap();
    assert_eq!(holders.attachments.len(), 2);
    assert_eq!(
        (holders.attachments[0].holder.as_str(), holders.attachments[0].access),
        ("cli", Access::ReadOnly)
    );
    assert!(holders.containers_unknown.is_some(), "no container engine is there to ask");

    assert_eq!(client.remove("data", false).await.unwrap_err().code, "in-use");
    assert_eq!(client.remove("data", true).await.unwrap_err().code, "in-use");
    assert_eq!(client.detach("data", "one").await.unwrap().result, Outcome::Detached);
    assert_eq!(client.detach("data", "one").await.unwrap().result, Outcome::AlreadyThere);
    client.detach("data", &second.id).await.unwrap();
    assert_eq!(client.inspect("data").await.unwrap().volume.state, VolumeState::Ready);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_status_and_an_empty_trash() {
    let server = Server::start();
    let client = &server.client;
    for name in ["a", "b"] {
        server.create(name).await;
        client.remove(name, false).await.unwrap();
    }
    let pools = client.pools().await.unwrap();
    assert!(pools.problems.is_empty());
    let pool = &pools.pools[0];
    assert_eq!((pool.name.as_str(), pool.trashed, pool.hold), ("default", 2, HoldState::Open));
    assert!(pool.total >= pool.free && pool.total > 0);
    assert_eq!(client.release_pool("default").await.unwrap().result, Outcome::AlreadyThere);
    let status = client.status().await.unwrap();
    assert_eq!((status.pid, status.volumes, status.trashed), (std::process::id(), 0, 2));

    assert_eq!(client.empty_trash(true).await.unwrap().volumes.len(), 2);
    assert_eq!(client.empty_trash(false).await.unwrap().result, Outcome::Destroyed);
    let nothing = client.empty_trash(false).await.unwrap();
    assert_eq!((nothing.result, nothing.volumes.len()), (Outcome::AlreadyThere, 0));
    assert_eq!(std::fs::read_dir(server.dir.path().join("pool/volumes")).unwrap().count(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_the_document() {
    let server = Server::start();
    let client = &server.client;
    server.create("pgdata").await;
    client.attach("pgdata", &Attach::default()).await.unwrap();
    client.grow("nowhere", &Grow { size: SizeText::Bytes(1 << 30) }).await.unwrap_err();
    let text = client.metrics().await.unwrap();
    for line in [
        "everhold_volumes{state=\"attached\"} 1",
        "everhold_volumes{state=\"fenced\"} 0",
        "everhold_volume_size_bytes{volume=\"pgdata\",driver=\"sim\",pool=\"default\"} 67108864",
        "everhold_volume_attachments{volume=\"pgdata\",driver=\"sim\",pool=\"default\"} 1",
        "everhold_verbs_total{verb=\"create\",result=\"ok\"} 1",
        "everhold_verbs_total{verb=\"grow\",result=\"not-found\"} 1",
        "everhold_verb_duration_seconds_count{verb=\"attach\",result=\"ok\"} 1",
        "everhold_pool_held{pool=\"default\"} 0",
        "everhold_pool_free_bytes{pool=\"default\"}",
        "everhold_build_info{version=",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    let document = client.openapi().await.unwrap();
    assert_eq!(document, serde_json::to_value(api::openapi()).unwrap());
    server.stop().await;
}
