//! A first copy that waits for its vault: it does not wait for ever, and not for one that nobody wants any more.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use common::cut_at_rest;
use everhold_history::{Error, Outbox, PORTION, Parts, Right, Steps, Wake, Writer};
use linux::direct::Pool;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use vault::format::{Keys, StreamId};
use vault::read::Access;
use vault::store::MemoryStore;

/// More than waits in memory at most, and nothing of it can be compressed.
fn image(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut state = 1_u64;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..160 {
        for word in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&piece).unwrap();
    }
}

/// Copies an image for the first time, while `meanwhile` is done with what it waits in.
fn first_copy(store: &MemoryStore, meanwhile: impl FnOnce(&Outbox) + Send) -> Error {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    image(&dir.path().join("image"));
    let (keys, stream) = (Keys::new(&[7; 32]), StreamId([3; 16]));
    let access = Access { store: Arc::new(store.clone()), keys, vault: [9; 16], stream };
    let parts = Parts {
        access,
        right: Right::Epoch(1),
        home: dir.path().join("home"),
        volatile: dir.path().join("volatile"),
        image: dir.path().join("image"),
        pool: Arc::new(Pool::new(2).unwrap()),
        spool: 1 << 30,
        portion: PORTION / 4,
        wake: Wake::default(),
        steps: Steps::default(),
    };
    let (mut writer, _) = Writer::open(parts, None).unwrap();
    let outbox = Arc::clone(writer.outbox());
    let (send, receive) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            send.send(cut_at_rest(&mut writer, None, 1_700_000_000_000)).unwrap();
        });
        while outbox.waiting().bytes < 40 << 20 {
            std::thread::sleep(Duration::from_millis(5));
        }
        meanwhile(&outbox);
        receive.recv_timeout(Duration::from_secs(60)).expect("it has not waited for long").unwrap_err()
    })
}

#[test]
fn what_nobody_wants_any_more_ends() {
    let error = first_copy(&MemoryStore::new(), Outbox::close);
    assert!(matches!(error, Error::Stopped), "{error}");
}

#[test]
fn a_vault_that_fails_is_not_waited_for_as_long_as_one_that_is_slow() {
    let store = MemoryStore::new();
    let error = first_copy(&store, |outbox| {
        store.set_absent(true);
        for _ in 0..60 {
            outbox.upload().unwrap_err();
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    assert!(matches!(error, Error::SpoolFull { .. }), "{error}");
}
