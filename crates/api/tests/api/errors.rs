//! Every error has the one shape, and says what is wrong.

use crate::server::{Server, create};
use api::Client;
use api::v1::{Attach, Create, Grow, Labels, Pairs, Restore, SizeText};

const JSON: Option<&str> = Some("application/json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_and_what_is_not_json() {
    let server = Server::start();
    server.create("pgdata").await;
    let new = r#"{"name":"x"}"#;
    for (method, path, kind, body, status, code, words) in [
        ("GET", "/", None, "", 404, "not-found", "no GET /"),
        ("GET", "/v2/volumes", None, "", 404, "not-found", "/v2/volumes"),
        ("PUT", "/v1/volumes", JSON, new, 405, "invalid-input", "PUT"),
        ("PATCH", "/v1/status", None, "", 405, "invalid-input", "PATCH"),
        ("GET", "/v1/volumes/nowhere", None, "", 404, "not-found", "nowhere"),
        ("GET", "/v1/volumes/..", None, "", 400, "invalid-input", "starts with an ASCII letter"),
        ("GET", "/v1/volumes/%2e%2e%2fetc", None, "", 400, "invalid-input", "starts with an ASCII letter"),
        ("GET", "/v1/volumes/%ff", None, "", 400, "invalid-input", "UTF-8"),
        ("POST", "/v1/volumes", JSON, "{", 400, "invalid-input", "EOF"),
        ("POST", "/v1/volumes", JSON, "[]", 400, "invalid-input", "JSON"),
        ("POST", "/v1/volumes", JSON, "", 400, "invalid-input", "missing field `name`"),
        (
            "POST",
            "/v1/volumes",
            JSON,
            r#"{"name":"x","size":"1GiB"}"#,
            400,
            "invalid-input",
            "unknown field `size`",
        ),
        ("POST", "/v1/volumes", JSON, r#"{"name":5}"#, 400, "invalid-input", "string"),
        ("POST", "/v1/volumes", Some("text/plain"), new, 415, "invalid-input", "text/plain"),
        (
            "POST",
            "/v1/volumes",
            Some("application/x-www-form-urlencoded"),
            new,
            415,
            "invalid-input",
            "send application/json",
        ),
        ("POST", "/v1/volumes/pgdata/grow", JSON, r#"{"size":-1}"#, 400, "invalid-input", "JSON"),
        ("POST", "/v1/volumes/pgdata/grow", JSON, r#"{"size":"10XB"}"#, 400, "invalid-input", "XB"),
        ("DELETE", "/v1/volumes/pgdata?dryrun=true", None, "", 400, "invalid-input", "dryrun"),
        ("DELETE", "/v1/trash?dry_run=maybe", None, "", 400, "invalid-input", "dry_run"),
        ("POST", "/v1/pools/nowhere/release", None, "", 404, "not-found", "no pool nowhere"),
    ] {
        let answer = server.send(method, path, kind, body).await;
        let problem = answer.problem();
        assert_eq!((answer.status, problem.code.as_str()), (status, code), "{method} {path}: {problem:?}");
        assert!(problem.detail.contains(words), "{method} {path}: {problem:?}");
    }
    assert_eq!(server.engine.volumes().len(), 1, "a misspelt dry_run removes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_needs_no_content_type_and_takes_parameters() {
    let server = Server::start();
    assert_eq!(server.send("POST", "/v1/volumes", None, r#"{"name":"a"}"#).await.status, 201);
    let kind = Some("application/json; charset=utf-8");
    assert_eq!(server.send("POST", "/v1/volumes", kind, r#"{"name":"a"}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_names_sizes_and_options() {
    let server = Server::start();
    let client = &server.client;
    let long = "x".repeat(300);
    for name in ["", "..", "a/b", "/", &long, "Ünïcode", "-a", "a b", "a\n"] {
        let problem = client.create(&create(name, &[])).await.unwrap_err();
        assert_eq!(problem.code, "invalid-input", "{name:?}: {problem:?}");
    }
    for (options, words) in [
        (vec![("size", "0")], "too small"),
        (vec![("size", "-1GiB")], "negative"),
        (vec![("size", "10XB")], "unknown unit"),
        (vec![("size", "16EiB")], "unknown unit"),
        (vec![("size", "16384PiB")], "too large"),
        (vec![("sise", "1GiB")], "did you mean `size`"),
        (vec![("size", "1GiB"), ("size", "2GiB")], "given twice"),
        (vec![("driver", "dir"), ("fs", "xfs")], "does not go with"),
        (vec![("label.a b", "c")], "label"),
        (vec![("driver", "zfs")], "image, dir, tmpfs"),
    ] {
        let problem = client.create(&create("x", &options)).await.unwrap_err();
        assert_eq!(problem.code, "invalid-input", "{options:?}: {problem:?}");
        assert!(problem.detail.contains(words), "{options:?}: {problem:?}");
    }
    assert!(server.engine.volumes().is_empty());
    let twice = Create {
        labels: [("env", "a")].into_iter().collect::<Pairs>(),
        ..create("x", &[("label.env", "b")])
    };
    assert!(client.create(&twice).await.unwrap_err().detail.contains("given twice"));
    // Names that differ in case are different volumes.
    server.create("Data").await;
    server.create("data").await;
    assert_eq!(client.volumes().await.unwrap().volumes.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_errors_keep_their_kind() {
    let server = Server::start();
    let client = &server.client;
    server.create("a").await;
    server.create("b").await;
    let code = |problem: api::v1::Problem| problem.code;
    assert_eq!(code(client.create(&create("a", &[("size", "1GiB")])).await.unwrap_err()), "conflict");
    assert_eq!(code(client.create(&create("c", &[("pool", "fast")])).await.unwrap_err()), "not-found");
    assert_eq!(code(client.rename("a", "b").await.unwrap_err()), "conflict");
    assert_eq!(code(client.rename("a", "../b").await.unwrap_err()), "invalid-input");
    let shrink = Grow { size: SizeText::Bytes(1 << 20) };
    assert_eq!(code(client.grow("a", &shrink).await.unwrap_err()), "unsupported");
    let both = Labels { set: [("k".into(), "v".into())].into(), unset: vec!["k".into()] };
    assert_eq!(code(client.label("a", &both).await.unwrap_err()), "invalid-input");
    let empty = Attach { id: Some(String::new()), ..Attach::default() };
    assert_eq!(code(client.attach("a", &empty).await.unwrap_err()), "invalid-input");
    assert_eq!(code(client.restore("a", &Restore::default()).await.unwrap_err()), "not-found");
    client.remove("a", false).await.unwrap();
    let gone = client.inspect("a").await.unwrap_err();
    assert!(gone.next.contains("trash restore a"), "{gone:?}");
    server.create("a").await;
    assert_eq!(code(client.restore("a", &Restore::default()).await.unwrap_err()), "conflict");
    client.remove("a", false).await.unwrap();
    let several = client.restore("a", &Restore::default()).await.unwrap_err();
    assert!(several.detail.contains("2 removed volumes"), "{several:?}");
    assert_eq!(code(client.destroy("", false).await.unwrap_err()), "not-found", "no name is not all names");
    assert_eq!(client.trash().await.unwrap().volumes.len(), 2);
}

#[tokio::test]
async fn a_daemon_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let problem = Client::new(dir.path().join("none.sock")).volumes().await.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.exit_code()), ("unavailable", 12));
    assert!(
        problem.detail.contains("none.sock") && problem.next.contains("systemctl status everhold"),
        "{problem:?}"
    );
}
