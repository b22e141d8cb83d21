//! Vaults over the wire.

use crate::server::Server;
use api::v1::{Outcome, Secret, VaultAdd, VaultState};

fn add(name: &str, url: &str) -> VaultAdd {
    VaultAdd {
        name: name.to_owned(),
        url: url.to_owned(),
        credentials_file: None,
        profile: None,
        ca_file: None,
        allow_http: false,
        recipients: Vec::new(),
        passphrase: None,
        kit: None,
        take_over: false,
        read_only: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_is_made_checked_forgotten_and_opened_again() {
    let server = Server::start();
    let client = &server.client;
    assert_eq!(client.vaults().await.unwrap().vaults, []);
    let url = format!("file://{}/vault", server.dir.path().display());
    let made = client.add_vault(&add("far", &url)).await.unwrap();
    assert_eq!((made.result, made.vault.state), (Outcome::Created, VaultState::Ok));
    let kit = made.kit.clone().unwrap();
    assert!(kit.0.contains("AGE-SECRET-KEY-1") && !format!("{made:?}").contains("AGE-SECRET"));
    let again = client.add_vault(&add("far", &url)).await.unwrap();
    assert_eq!((again.result, again.kit), (Outcome::AlreadyThere, None));
    assert_eq!(client.vaults().await.unwrap().vaults, std::slice::from_ref(&again.vault));
    assert_eq!(client.status().await.unwrap().vaults, [again.vault]);

    let checked = client.check_vault("far", false).await.unwrap();
    let claim = checked.claim.unwrap();
    assert_eq!((claim.mine, claim.epoch, checked.vault.epoch), (true, 1, Some(1)));
    assert_eq!(checked.vault.abilities.unwrap().conditional_put, "yes");
    assert_eq!((checked.slots.len(), checked.slots[0].label.as_str()), (1, "recovery kit"));
    assert!(client.vault_kit("far").await.unwrap().kit.0.contains("AGE-SECRET-KEY-1"));
    assert_eq!(client.check_vault("far", false).await.unwrap().slots.len(), 2);

    let gone = client.forget_vault("far").await.unwrap();
    assert_eq!(gone.result, Outcome::Forgotten);
    assert_eq!(gone.again.unwrap(), format!("everhold vault add far '{url}' --kit-file FILE"));
    assert_eq!(client.forget_vault("far").await.unwrap().result, Outcome::AlreadyThere);
    let opened = client.add_vault(&VaultAdd { kit: Some(kit), ..add("near", &url) }).await.unwrap();
    assert_eq!((opened.result, opened.vault.id), (Outcome::Opened, made.vault.id));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_named_and_hold_no_secret() {
    let server = Server::start();
    let url = format!("file://{}/vault", server.dir.path().display());
    server.client.add_vault(&add("far", &url)).await.unwrap();
    for (method, path, body, status, words) in [
        ("POST", "/v1/vaults", r#"{"name":"x"}"#.to_owned(), 400, "missing field `url`"),
        ("POST", "/v1/vaults", r#"{"name":"../x","url":"file:///x"}"#.to_owned(), 400, "starts with"),
        ("POST", "/v1/vaults", r#"{"name":"x","url":"ftp://x/y"}"#.to_owned(), 400, "ftp: is not known"),
        (
            "POST",
            "/v1/vaults",
            r#"{"name":"x","url":"s3://a:TOPSECRET@b/c"}"#.to_owned(),
            400,
            "do not belong",
        ),
        (
            "POST",
            "/v1/vaults",
            r#"{"name":"x","url":"file:///x","key":"TOPSECRET"}"#.to_owned(),
            400,
            "unknown field `key`",
        ),
        (
            "POST",
            "/v1/vaults",
            r#"{"name":"x","url":"file:///x","profile":"p"}"#.to_owned(),
            400,
            "for s3: only",
        ),
        (
            "POST",
            "/v1/vaults",
            r#"{"name":"x","url":"s3://abc/x","credentials_file":"x"}"#.to_owned(),
            400,
            "absolute",
        ),
        ("POST", "/v1/vaults", format!(r#"{{"name":"x","url":"{url}"}}"#), 409, "known already, as far"),
        (
            "POST",
            "/v1/vaults",
            r#"{"name":"far","url":"file:///nowhere-at-all"}"#.to_owned(),
            503,
            "no such directory",
        ),
        ("POST", "/v1/vaults/nowhere/check", String::new(), 404, "vaults: far"),
        ("POST", "/v1/vaults/nowhere/kit", String::new(), 404, "no vault nowhere"),
        ("DELETE", "/v1/vaults/..", String::new(), 400, "starts with"),
    ] {
        let answer = server.send(method, path, Some("application/json"), &body).await;
        let problem = answer.problem();
        assert_eq!(answer.status, status, "{method} {path} {body}: {problem:?}");
        assert!(problem.detail.contains(words), "{method} {path} {body}: {problem:?}");
        assert!(!answer.body.contains("TOPSECRET"), "{}", answer.body);
    }
    let short = VaultAdd { passphrase: Some(Secret("short".into())), ..add("x", &format!("{url}2")) };
    let problem = server.client.add_vault(&short).await.unwrap_err();
    assert!(problem.detail.contains("at least 12 characters"), "{problem:?}");
    assert_eq!(server.client.vaults().await.unwrap().vaults.len(), 1);
    server.stop().await;
}
