//! Many at once, too much, too slow.

use crate::server::{Server, create};
use api::Limits;
use api::v1::Outcome;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use storage::Drivers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_creates_of_one_name_make_one_volume() {
    let server = Server::start();
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let client = server.client.clone();
            tokio::spawn(async move { client.create(&create("pgdata", &[])).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap().unwrap().result {
            Outcome::Created => made += 1,
            other => assert_eq!(other, Outcome::AlreadyThere),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(server.engine.volumes().len(), 1);
    assert_eq!(std::fs::read_dir(server.dir.path().join("pool/volumes")).unwrap().count(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_body_is_refused_whether_announced_or_not() {
    let server = Server::start();
    let huge = format!(r#"{{"name":"{}"}}"#, "x".repeat(2 << 20));
    let answer = server.send("POST", "/v1/volumes", Some("application/json"), &huge).await;
    assert_eq!(answer.problem().status, 413);
    let mut chunked = b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..32 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b' '; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    assert_eq!(server.raw(chunked).await.status, 413);
    server.create("still-there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_let_go_and_hinder_nobody() {
    let short = Duration::from_millis(300);
    let limits = Limits { connections: 4, head: short, body: short, answer: short };
    let server = Server::start_with(Drivers::all_sim(), Duration::from_secs(20), limits);
    let socket = server.socket();
    // As many as there are places: half of a head each.
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(b"GET /v1/sta").unwrap();
            stream
        })
        .collect();
    let begin = Instant::now();
    server.create("patient").await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut rest = Vec::new();
        // Closed, with or without a word.
        stream.read_to_end(&mut rest).unwrap();
    }
    // A body that never comes.
    let answer = server.raw("POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").await;
    assert_eq!(answer.problem().status, 408);
    assert_eq!(answer.problem().code, "timed-out");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_loses_its_place() {
    let limits = Limits { connections: 1, answer: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start_with(Drivers::all_sim(), Duration::from_secs(20), limits);
    // More answers than the socket holds.
    let mut deaf = UnixStream::connect(server.socket()).unwrap();
    deaf.write_all("GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100).as_bytes()).unwrap();
    let begin = Instant::now();
    server.create("next").await;
    let waited = begin.elapsed();
    assert!(waited > Duration::from_millis(100), "the answers fitted into the socket: {waited:?}");
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_takes_too_long_is_answered_and_goes_on() {
    let server = Server::start_with(Drivers::all_sim(), Duration::ZERO, Limits::default());
    let problem = server.client.create(&create("pgdata", &[])).await.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.status), ("timed-out", 504));
    // Without the engine: it answers all the same.
    assert!(server.client.volumes().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_finishes_what_is_at_work_and_takes_no_more() {
    let server = Server::start();
    let client = server.client.clone();
    server.create("a").await;
    server.stop().await;
    let problem = client.volumes().await.unwrap_err();
    assert_eq!(problem.code, "unavailable");
}
