//! One suite for every store, and what is special to each.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a surprise ends the test")]

use everhold_vault::store::{
    Ability, Created, Credentials, DirOptions, DirStore, Environment, Fault, MemoryStore, Object, Op,
    Reserve, S3Options, S3Store, Store, StoreError,
};
use everhold_vault::url::{self, Location, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use testkit::{S3_BUCKET, S3_SECRET, S3Fault, S3Server};

fn dir_store(path: &Path) -> DirStore {
    DirStore::open(path, DirOptions { create: true, reserve: Reserve::Bytes(0) }).unwrap()
}

fn s3_options(server: &S3Server) -> S3Options {
    S3Options {
        environment: server.environment().into_iter().collect(),
        timeout: Duration::from_secs(5),
        backoff: Duration::from_millis(5),
        ..S3Options::default()
    }
}

fn place(server: &S3Server, prefix: &str) -> url::S3Location {
    let Location::S3(place) = server.url(prefix).parse().unwrap() else { panic!("not S3") };
    place
}

fn s3_store(server: &S3Server, prefix: &str) -> S3Store {
    S3Store::open(&place(server, prefix), s3_options(server)).unwrap()
}

/// What every store must do.
fn conforms(store: &dyn Store) {
    a_name_is_made_once(store);
    of_many_creators_one_makes_it(store);
    ranges_are_read(store);
    prefixes_are_whole_parts(store);
    names_are_checked(store);
    large_objects_are_whole(store);
    let abilities = store.abilities().unwrap();
    assert_eq!(abilities.conditional_put, Ability::Yes);
    for object in store.list("").unwrap() {
        assert!(!object.name.starts_with("probe/"), "{object:?}");
        store.delete(&object.name).unwrap();
    }
    assert!(store.is_empty(&[]).unwrap());
}

fn a_name_is_made_once(store: &dyn Store) {
    assert!(store.is_empty(&[]).unwrap());
    assert!(store.read("a", None).unwrap_err().is_not_found());
    assert!(store.read("a/b", None).unwrap_err().is_not_found());
    assert!(store.read("a", Some(0..0)).unwrap_err().is_not_found());
    assert_eq!(store.size("a").unwrap(), None);
    assert_eq!(store.create("a", "first".into()).unwrap(), Created::New);
    assert_eq!(store.create("a", "other".into()).unwrap(), Created::Exists);
    assert_eq!(store.create("a", "first".into()).unwrap(), Created::Exists);
    assert_eq!(store.read("a", None).unwrap(), "first");
    assert_eq!(store.size("a").unwrap(), Some(5));
    assert!(!store.is_empty(&[]).unwrap());
    assert!(store.is_empty(&["a"]).unwrap());
    store.replace("a", "second".into()).unwrap();
    assert_eq!(store.read("a", None).unwrap(), "second");
    store.replace("b/c", "new".into()).unwrap();
    assert_eq!(store.read("b/c", None).unwrap(), "new");
    for name in ["a", "a", "b/c", "never/was"] {
        store.delete(name).unwrap();
    }
    assert_eq!(store.size("a").unwrap(), None);
    assert_eq!(store.create("a", "third".into()).unwrap(), Created::New);
    store.delete("a").unwrap();
    assert_eq!(store.create("empty", bytes::Bytes::new()).unwrap(), Created::New);
    assert_eq!(store.read("empty", None).unwrap(), "");
    assert_eq!(store.size("empty").unwrap(), Some(0));
    store.delete("empty").unwrap();
}

fn of_many_creators_one_makes_it(store: &dyn Store) {
    for round in 0..10 {
        let barrier = Barrier::new(6);
        let name = format!("race/{round}/x");
        let made: Vec<(usize, Created)> = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..6)
                .map(|i| {
                    let (name, barrier) = (&name, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        (i, store.create(name, vec![i as u8; 5000].into()).unwrap())
                    })
                })
                .collect();
            creators.into_iter().map(|c| c.join().unwrap()).collect()
        });
        let new: Vec<_> = made.iter().filter(|(_, created)| *created == Created::New).collect();
        assert_eq!(new.len(), 1, "{made:?}");
        assert_eq!(store.read(&name, None).unwrap(), vec![new[0].0 as u8; 5000]);
        store.delete(&name).unwrap();
    }
}

fn ranges_are_read(store: &dyn Store) {
    store.create("r", "0123456789".into()).unwrap();
    for (range, body) in
        [(0..10, "0123456789"), (0..1, "0"), (3..7, "3456"), (9..10, "9"), (4..4, ""), (10..10, "")]
    {
        assert_eq!(store.read("r", Some(range.clone())).unwrap(), body, "{range:?}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    for range in [0..11, 9..11, 10..11, 11..11, 20..30, 5..4] {
        let error = store.read("r", Some(range.clone())).unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{range:?}: {error}");
    }
    store.delete("r").unwrap();
}

fn prefixes_are_whole_parts(store: &dyn Store) {
    let names = ["ab", "h/1/s/x", "h/1/s/y", "h/1/t", "h/10/s/z", "h-1/s", "w/00000001"];
    for name in names.iter().rev() {
        store.create(name, name.to_string().into()).unwrap();
    }
    let list = |prefix: &str| -> Vec<String> {
        let objects = store.list(prefix).unwrap();
        assert!(objects.iter().all(|Object { name, size }| *size == name.len() as u64));
        objects.into_iter().map(|o| o.name).collect()
    };
    let mut all = names.to_vec();
    all.sort_unstable();
    assert_eq!(list(""), all);
    assert_eq!(list("h/1/"), ["h/1/s/x", "h/1/s/y", "h/1/t"]);
    assert_eq!(list("h/1/s/"), ["h/1/s/x", "h/1/s/y"]);
    assert_eq!(list("h/"), ["h/1/s/x", "h/1/s/y", "h/1/t", "h/10/s/z"]);
    assert!(list("h/2/").is_empty());
    assert!(list("a/").is_empty());
    for wrong in ["h", "h/1", "/", "h//", "../"] {
        assert!(matches!(store.list(wrong), Err(StoreError::Refused { .. })), "{wrong}");
    }
    for name in names {
        store.delete(name).unwrap();
    }
}

fn names_are_checked(store: &dyn Store) {
    // The test server adds to the names of its files.
    let long = "a".repeat(if store.url().starts_with("s3:") { 120 } else { 255 });
    for name in ["everhold-vault", "a.b-c/0.1", &long] {
        assert_eq!(store.create(name, "x".into()).unwrap(), Created::New, "{name}");
        assert_eq!(store.size(name).unwrap(), Some(1));
        store.delete(name).unwrap();
    }
    let longer = "a".repeat(256);
    for name in [
        "", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", ".hidden", "a/.b", "A", "a b", "ü", "a\0",
        &longer,
    ] {
        assert!(matches!(store.create(name, "x".into()), Err(StoreError::Refused { .. })), "{name:?}");
        assert!(matches!(store.read(name, None), Err(StoreError::Refused { .. })), "{name:?}");
        assert!(matches!(store.size(name), Err(StoreError::Refused { .. })), "{name:?}");
        assert!(matches!(store.delete(name), Err(StoreError::Refused { .. })), "{name:?}");
    }
}

fn large_objects_are_whole(store: &dyn Store) {
    let body: Vec<u8> = (0..64u32 << 20).map(|i| (i ^ (i >> 11)) as u8).collect();
    assert_eq!(store.create("large", body.clone().into()).unwrap(), Created::New);
    assert_eq!(store.size("large").unwrap(), Some(64 << 20));
    assert!(store.read("large", None).unwrap() == body);
    let range = (40 << 20) + 13..(41 << 20);
    assert!(
        store.read("large", Some(range.clone())).unwrap() == body[range.start as usize..range.end as usize]
    );
    store.delete("large").unwrap();
}

#[test]
fn memory_conforms() {
    conforms(&MemoryStore::new());
}

#[test]
fn a_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(&dir.path().join("made/here"));
    conforms(&store);
    let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("made"), mode("made/here"), mode("made/here/h/1")), (0o700, 0o700, 0o700));
    store.create("h/1/x", "x".into()).unwrap();
    assert_eq!(mode("made/here/h/1/x"), 0o600);
}

#[test]
fn a_bucket_conforms() {
    let server = S3Server::start();
    for prefix in ["deep/prefix", ""] {
        conforms(
            &S3Store::open(&place(&server, prefix), S3Options { attempts: 1, ..s3_options(&server) })
                .unwrap(),
        );
    }
}

#[test]
fn a_location_is_opened() {
    let (dir, server) = (tempfile::tempdir().unwrap(), S3Server::start());
    let options = OpenOptions { create: true, s3: s3_options(&server), ..OpenOptions::default() };
    for text in [format!("file://{}/my%20vault", dir.path().display()), server.url("v")] {
        let location: Location = text.parse().unwrap();
        let store = url::open(&location, &options).unwrap();
        assert_eq!(store.url(), text);
        store.create("x", "x".into()).unwrap();
        let again = url::open(&location, &OpenOptions { create: false, ..options.clone() }).unwrap();
        assert_eq!(again.read("x", None).unwrap(), "x");
    }
    let none: Location = format!("file://{}/none", dir.path().display()).parse().unwrap();
    let error = url::open(&none, &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().ends_with("/none: there is no such directory"), "{error}");
}

/// The temporary names below a directory.
fn temporary(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.starts_with(".everhold-")).collect()
}

#[test]
fn what_a_dead_writer_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    dir_store(dir.path()).create("h/s/x", "x".into()).unwrap();
    let below = dir.path().join("h/s");
    let dead = format!(".everhold-{}", "0".repeat(24));
    let living = format!(".everhold-{}", "1".repeat(24));
    for name in [&dead, &living, ".everhold-mine", ".other"] {
        std::fs::write(below.join(name), "part").unwrap();
    }
    let held = std::fs::File::open(below.join(&living)).unwrap();
    held.lock().unwrap();
    let store = dir_store(dir.path());
    assert_eq!(store.list("").unwrap(), [Object { name: "h/s/x".to_owned(), size: 1 }]);
    let mut left = temporary(&below);
    left.sort();
    assert_eq!(left, [living.clone(), ".everhold-mine".to_owned()]);
    assert!(below.join(".other").exists());
    drop(held);
    dir_store(dir.path());
    assert_eq!(temporary(&below), [".everhold-mine"]);
}

#[test]
fn opening_does_not_hinder_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..200 {
                assert_eq!(store.create(&format!("x/{i}"), vec![1; 100].into()).unwrap(), Created::New);
                store.replace("x/same", vec![2; 100].into()).unwrap();
            }
        });
        while !writer.is_finished() {
            dir_store(dir.path());
        }
    });
    assert_eq!(store.list("x/").unwrap().len(), 201);
    assert!(temporary(&dir.path().join("x")).is_empty());
}

#[test]
fn a_file_that_is_taken_away_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir_store(dir.path());
    let body = vec![5; 32 << 20];
    let during = |act: &(dyn Fn() + Sync), thefts: usize| {
        std::thread::scope(|scope| {
            let writer = scope.spawn(act);
            let mut taken = 0;
            while taken < thefts && !writer.is_finished() {
                for name in temporary(dir.path()) {
                    taken += usize::from(std::fs::remove_file(dir.path().join(name)).is_ok());
                }
            }
        });
    };
    during(&|| assert_eq!(store.create("x", body.clone().into()).unwrap(), Created::New), 3);
    during(&|| store.replace("y", body.clone().into()).unwrap(), 3);
    for name in ["x", "y"] {
        assert!(store.read(name, None).unwrap() == body);
    }
    let failing = || {
        let error = store.create("z", body.clone().into()).unwrap_err();
        assert!(error.to_string().ends_with("create z: its file was taken away"), "{error}");
    };
    during(&failing, 4);
    assert!(temporary(dir.path()).is_empty());
}

#[test]
fn a_directory_keeps_its_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let open = |reserve| DirStore::open(dir.path(), DirOptions { create: false, reserve }).unwrap();
    for reserve in [Reserve::Bytes(u64::MAX / 2), Reserve::Percent(100)] {
        let error = open(reserve).create("x", vec![0; 100 << 10].into()).unwrap_err();
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    }
    let store = open(Reserve::Percent(1));
    store.create("x", vec![0; 100 << 10].into()).unwrap();
    // What is in the reserve is for what frees space: more is free than half of this, and less than all.
    let free = rustix::fs::statvfs(dir.path()).unwrap();
    let store = open(Reserve::Bytes(free.f_bavail * free.f_frsize / 2 * 3));
    assert!(matches!(store.create("y", vec![0; 100 << 10].into()), Err(StoreError::NoSpace { .. })));
    store.create("z", vec![0; 60 << 10].into()).unwrap();
    assert!(temporary(dir.path()).is_empty());
}

#[test]
fn symbolic_links_are_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("x"), "secret").unwrap();
    let store = dir_store(dir.path());
    symlink(outside.path(), dir.path().join("d")).unwrap();
    symlink(outside.path().join("x"), dir.path().join("f")).unwrap();
    for name in ["d/x", "f"] {
        assert!(matches!(store.read(name, None), Err(StoreError::Refused { .. })), "{name}");
    }
    assert!(matches!(store.create("d/y", "y".into()), Err(StoreError::Refused { .. })));
    assert_eq!(store.create("f", "y".into()).unwrap(), Created::Exists);
    assert!(store.list("").unwrap().is_empty());
    assert_eq!(std::fs::read(outside.path().join("x")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_that_went_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (root, away) = (dir.path().join("vault"), dir.path().join("away"));
    let store = dir_store(&root);
    store.create("x", "x".into()).unwrap();
    std::fs::rename(&root, &away).unwrap();
    let failed = |what: &str| {
        let error = store.create("y", "y".into()).unwrap_err();
        assert!(matches!(&error, StoreError::Failed { .. }) && error.to_string().contains(what), "{error}");
        assert!(matches!(store.size("x"), Err(StoreError::Failed { .. })));
    };
    failed("the directory is gone; is its file system mounted?");
    std::fs::create_dir(&root).unwrap();
    failed("the directory is another one than it was");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "nothing is written into the mount point");
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    assert_eq!(store.create("y", "y".into()).unwrap(), Created::New);
    assert_eq!(store.read("x", None).unwrap(), "x");
}

#[test]
fn memory_fails_as_told() {
    let store = MemoryStore::new();
    store.inject(Some(Op::Create), "x", 1, Fault::FailAfter);
    store.create("x/0", "0".into()).unwrap();
    store.create("y", "y".into()).unwrap();
    assert!(matches!(store.create("x/1", "1".into()), Err(StoreError::Failed { .. })));
    assert_eq!(store.create("x/1", "1".into()).unwrap(), Created::Exists);
    store.inject(Some(Op::Read), "x/1", 0, Fault::FlipByte(0));
    assert_eq!(store.read("x/1", None).unwrap(), "0");
    store.inject(None, "x/1", 0, Fault::Missing);
    assert!(store.read("x/1", None).unwrap_err().is_not_found());
    assert_eq!(store.read("x/1", None).unwrap(), "1");
    store.set_capacity(Some(3));
    assert!(matches!(store.create("z", "z".into()), Err(StoreError::NoSpace { .. })));
    store.set_absent(true);
    assert!(store.list("").is_err());
    store.set_absent(false);
    let failures = |seed| {
        let store = MemoryStore::new();
        store.fail_at_random(seed, 3);
        (0..100).map(|i| store.create(&i.to_string(), "x".into()).is_err()).collect::<Vec<_>>()
    };
    assert_eq!(failures(1), failures(1));
    assert_ne!(failures(1), failures(2));
    store.without_conditions();
    store.set_capacity(None);
    assert_eq!(store.abilities().unwrap().conditional_put, Ability::No);
}

/// A store that has made its first creation, so that requests can be counted.
fn warm(server: &S3Server) -> S3Store {
    let store = s3_store(server, "v");
    store.abilities().unwrap();
    server.forget_requests();
    store
}

#[test]
fn a_request_that_failed_is_made_again() {
    let server = S3Server::start();
    let store = warm(&server);
    let faults = [S3Fault::Status(500), S3Fault::Status(503), S3Fault::DropBefore, S3Fault::DropAfter];
    for (i, fault) in faults.into_iter().enumerate() {
        for times in 1..=3 {
            let name = format!("x/{i}-{times}");
            server.inject_times(Some("PUT"), &name, 0, times, fault);
            assert_eq!(store.create(&name, name.clone().into()).unwrap(), Created::New, "{fault:?}");
            server.inject_times(Some("PUT"), &name, 0, times, fault);
            store.replace(&name, name.clone().into()).unwrap();
            server.inject_times(Some("GET"), &name, 0, times, fault);
            assert_eq!(store.read(&name, None).unwrap(), name);
            server.inject_times(Some("HEAD"), &name, 0, times, fault);
            assert_eq!(store.size(&name).unwrap(), Some(name.len() as u64));
            server.inject_times(Some("GET"), "prefix", 0, times, fault);
            assert_eq!(store.list("x/").unwrap().len(), 1);
            server.inject_times(Some("DELETE"), "", 0, times, fault);
            store.delete(&name).unwrap();
            assert_eq!(store.size(&name).unwrap(), None);
        }
    }
    server.forget_requests();
    server.inject_times(Some("PUT"), "y", 0, 4, S3Fault::Status(500));
    let error = store.create("y", "y".into()).unwrap_err();
    assert!(error.to_string().ends_with("create y: the server says 500 InternalError: injected"), "{error}");
    assert_eq!(server.requests().len(), 4, "the attempts are bounded");
}

#[test]
fn a_creation_whose_acknowledgement_was_lost_is_new() {
    let server = S3Server::start();
    let store = warm(&server);
    server.inject(Some("PUT"), "/v/x", 0, S3Fault::DropAfter);
    assert_eq!(store.create("x", "mine".into()).unwrap(), Created::New);
    assert_eq!(store.create("x", "mine".into()).unwrap(), Created::Exists);
    // Another one was there, and the answer that said so was lost.
    server.inject(Some("PUT"), "/v/x", 0, S3Fault::DropAfter);
    assert_eq!(store.create("x", "not mine".into()).unwrap(), Created::Exists);
    assert_eq!(store.read("x", None).unwrap(), "mine");
    // Lost at every attempt: what it did is not known.
    server.inject_times(Some("PUT"), "/v/y", 0, 4, S3Fault::DropAfter);
    assert!(matches!(store.create("y", "y".into()), Err(StoreError::Failed { .. })));
}

#[test]
fn a_creation_under_way_is_not_one_that_is_done() {
    let server = S3Server::start();
    let store = warm(&server);
    // AWS answers so to a creation that meets another one, which may fail.
    server.inject_times(Some("PUT"), "/v/x", 0, 2, S3Fault::Status(409));
    assert_eq!(store.create("x", "mine".into()).unwrap(), Created::New);
    server.inject(Some("PUT"), "/v/x", 0, S3Fault::Status(409));
    assert_eq!(store.create("x", "other".into()).unwrap(), Created::Exists);
    server.inject_times(Some("PUT"), "/v/y", 0, 4, S3Fault::Status(409));
    assert!(matches!(store.create("y", "y".into()), Err(StoreError::Failed { .. })));
}

#[test]
fn one_creation_is_one_request() {
    let server = S3Server::start();
    let store = warm(&server);
    store.create("x/y", "1".into()).unwrap();
    store.size("w/00000001").unwrap();
    assert_eq!(
        server.requests(),
        [("PUT", "x/y"), ("HEAD", "w/00000001")].map(|(m, n)| (m.to_owned(), format!("/{S3_BUCKET}/v/{n}")))
    );
}

#[test]
fn a_server_that_hangs_is_not_waited_for_long() {
    let server = S3Server::start();
    let options = S3Options { timeout: Duration::from_millis(200), attempts: 2, ..s3_options(&server) };
    let place = place(&server, "v");
    let store = S3Store::open(&place, options).unwrap();
    store.abilities().unwrap();
    server.inject(Some("HEAD"), "", 0, S3Fault::Stall(Duration::from_secs(30)));
    assert_eq!(store.size("x").unwrap(), None, "the second attempt gets through");
    server.inject_times(None, "", 0, 2, S3Fault::Stall(Duration::from_secs(30)));
    let start = Instant::now();
    let error = store.read("x", None).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(
        matches!(&error, StoreError::Failed { .. }) && error.to_string().contains("no answer"),
        "{error}"
    );
}

#[test]
fn an_absent_server_comes_back() {
    let server = S3Server::start();
    let store = warm(&server);
    store.create("x", "x".into()).unwrap();
    server.set_off(true);
    for error in [
        store.create("y", "y".into()).unwrap_err(),
        store.size("x").unwrap_err(),
        store.list("").unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    }
    server.set_off(false);
    assert_eq!(store.create("y", "y".into()).unwrap(), Created::New);
    assert_eq!(store.read("x", None).unwrap(), "x");
}

#[test]
fn a_server_without_conditions_is_found_out() {
    let server = S3Server::start();
    server.ignore_conditions(true);
    let store = s3_store(&server, "v");
    assert_eq!(store.create("x", "first".into()).unwrap(), Created::New);
    assert_eq!(store.create("x", "second".into()).unwrap(), Created::Exists);
    assert_eq!(store.read("x", None).unwrap(), "first");
    assert_eq!(store.abilities().unwrap().conditional_put, Ability::No);
    server.inject(Some("PUT"), "/v/y", 0, S3Fault::DropAfter);
    assert_eq!(store.create("y", "y".into()).unwrap(), Created::New);
    // One that refuses what it does not know.
    let server = S3Server::start();
    let store = s3_store(&server, "v");
    server.inject(Some("PUT"), "probe", 0, S3Fault::Status(501));
    assert_eq!(store.create("x", "first".into()).unwrap(), Created::New);
    assert_eq!(store.create("x", "second".into()).unwrap(), Created::Exists);
}

#[test]
fn secrets_are_in_no_message() {
    let server = S3Server::start();
    let store = warm(&server);
    let wrong = "wrongsecretwrongsecret";
    let environment: Environment = [("AWS_ACCESS_KEY_ID", testkit::S3_KEY), ("AWS_SECRET_ACCESS_KEY", wrong)]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let place = place(&server, "v");
    let refusing = S3Store::open(&place, S3Options { environment, ..s3_options(&server) }).unwrap();
    let error = refusing.create("x", "x".into()).unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("403 SignatureDoesNotMatch"), "{error}");
    assert!(error.to_string().contains("credentials from the environment"), "{error}");
    let printed =
        format!("{store:?} {refusing:?} {error} {error:?} {:?} {:?}", s3_options(&server), store.url());
    for secret in [S3_SECRET, wrong, testkit::S3_KEY] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn wrong_settings_are_said_in_words() {
    let server = S3Server::start();
    let open = |url: &str, options: S3Options| {
        let Location::S3(place) = url.parse().unwrap() else { panic!("not S3") };
        S3Store::open(&place, options)
    };
    let says = |error: StoreError, words: &str| {
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let http = "s3://bucket/x?endpoint=http://minio.example:9000";
    says(
        open(http, s3_options(&server)).unwrap_err(),
        "http://minio.example:9000 is not encrypted; use https",
    );
    open(http, S3Options { allow_http: true, ..s3_options(&server) }).unwrap();
    open("s3://bucket/x?endpoint=https://minio.example:9000", s3_options(&server)).unwrap();
    let nowhere = Credentials::File { path: "/none/credentials".into(), profile: None };
    let error =
        open(&server.url("v"), S3Options { credentials: nowhere, ..s3_options(&server) }).unwrap_err();
    says(error, "/none/credentials: there is no profile [default]");
    let url = server.url("v").replace(S3_BUCKET, "nosuchbucket");
    let store = open(&url, s3_options(&server)).unwrap();
    says(store.create("x", "x".into()).unwrap_err(), "bucket");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    std::fs::write(
        &path,
        format!("[v]\naws_access_key_id={}\naws_secret_access_key={S3_SECRET}\n", testkit::S3_KEY),
    )
    .unwrap();
    let credentials = Credentials::File { path, profile: Some("v".to_owned()) };
    let options = S3Options { credentials, environment: Environment::default(), ..s3_options(&server) };
    assert_eq!(open(&server.url("v"), options).unwrap().create("x", "x".into()).unwrap(), Created::New);
}

#[test]
fn random_faults_lose_nothing() {
    let server = S3Server::start();
    let store = warm(&server);
    let mut state = 42u64;
    let mut roll = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for i in 0..150 {
        let name = format!("n/{i:04}");
        let faults = [S3Fault::Status(500), S3Fault::Status(503), S3Fault::DropBefore, S3Fault::DropAfter];
        if roll() % 2 == 0 {
            server.inject(None, &name, (roll() % 2) as u32, faults[(roll() % 4) as usize]);
        }
        assert_eq!(store.create(&name, name.clone().into()).unwrap(), Created::New, "{name}");
    }
    let names: Vec<_> = store.list("n/").unwrap().into_iter().map(|o| o.name).collect();
    assert_eq!(names, (0..150).map(|i| format!("n/{i:04}")).collect::<Vec<_>>());
    for name in names {
        assert_eq!(store.read(&name, None).unwrap(), name);
    }
}

#[test]
fn a_store_is_dropped_on_any_thread() {
    let server = S3Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = s3_store(&server, "v");
    runtime.block_on(async move {
        let answer = tokio::task::spawn_blocking(move || (store.size("x"), store)).await.unwrap();
        assert_eq!(answer.0.unwrap(), None);
        drop(answer.1);
    });
}
