//! Any moment of a running database comes back, and what is wrong with a vault is found.

use crate::postgres::{sql, start};
use crate::{alone, in_kernel, sandbox, with_docker};
use engine::{Fault, HistoryStep};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use testkit::{S3Fault, S3Server, Sandbox, until};

const PROTECTED: [&str; 4] = ["size=1GiB", "uid=999", "gid=999", "protect=1s"];

#[expect(clippy::disallowed_methods, reason = "what a person would write after --at")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The numbers and times of the cuts of a volume, oldest first.
pub fn cuts(sandbox: &Sandbox, name: &str) -> Vec<(u64, Timestamp)> {
    let history = sandbox.json(&["history", name]);
    let cuts = history["cuts"].as_array().expect("a list of cuts");
    let time = |cut: &serde_json::Value| cut["time"].as_str().expect("a time").parse().expect("a time");
    cuts.iter().map(|cut| (cut["point"].as_u64().expect("a number"), time(cut))).collect()
}

/// Waits until a cut that is newer than now is durable.
#[track_caller]
pub fn wait_for_cut(sandbox: &Sandbox, name: &str) {
    let since = now();
    until("a newer cut", Duration::from_secs(30), || {
        cuts(sandbox, name).last().is_some_and(|(_, time)| *time > since)
    });
}

#[test]
fn a_dropped_table_comes_back_in_place_and_the_restore_can_be_undone() {
    let sandbox = with_docker(&["postgres"]);
    sandbox.volume("pgdata", &PROTECTED);
    start(&sandbox, "pg", "pgdata");
    sql(&sandbox, "pg", "create table precious as select generate_series(1, 1000) n");
    wait_for_cut(&sandbox, "pgdata");
    let before = now();
    sql(&sandbox, "pg", "drop table precious; create table after_it (n int)");
    wait_for_cut(&sandbox, "pgdata");
    // Not under a running database.
    let (_, told) = sandbox.fails(&["restore", "pgdata", "--at", &before.to_string(), "--yes"]);
    assert!(told.contains("in use"), "{told}");
    let told =
        sandbox.json(&["restore", "pgdata", "--at", &before.to_string(), "--stop-containers", "--yes"]);
    let ready = || {
        until("PostgreSQL answers again", Duration::from_secs(60), || {
            let asked = ["exec", "pg", "psql", "-h", "/var/run/postgresql", "-qc", "select 1"];
            sandbox.try_docker(&asked).status.success()
        });
    };
    ready();
    assert_eq!(sql(&sandbox, "pg", "select count(*) from precious").trim(), "1000");
    let undo = told["undo"].as_u64().expect("the cut of what was replaced");
    sandbox.ok(&["restore", "pgdata", "--at", &format!("#{undo}"), "--stop-containers", "--yes"]);
    ready();
    assert_eq!(sql(&sandbox, "pg", "select count(*) from after_it").trim(), "0");
    wait_for_cut_after_write(&sandbox);
}

fn wait_for_cut_after_write(sandbox: &Sandbox) {
    sql(sandbox, "pg", "insert into after_it values (1)");
    wait_for_cut(sandbox, "pgdata");
    let verified = sandbox.json(&["verify", "pgdata"]);
    assert!(verified.to_string().contains("\"problems\":[]"), "{verified}");
}

/// A volume that something writes numbers to, one after the other, each durable before the next.
pub struct Counter {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Counter {
    pub fn start(paths: Vec<PathBuf>) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut n = 0_u64;
            while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
                n += 1;
                for path in &paths {
                    let file = std::fs::File::options().write(true).create(true).truncate(false).open(path);
                    let file = file.expect("open the counter");
                    std::os::unix::fs::FileExt::write_all_at(&file, &n.to_le_bytes(), 0).expect("count");
                    file.sync_all().expect("sync");
                }
            }
            n
        });
        Self { stop, thread: Some(thread) }
    }

    pub fn stop(mut self) -> u64 {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        self.thread.take().expect("running").join().expect("the counter")
    }
}

/// Without Docker.
pub fn create(sandbox: &Sandbox, name: &str, options: &[&str]) {
    let mut words = vec!["volume", "create", name];
    words.extend(options.iter().flat_map(|option| ["-o", option]));
    sandbox.ok(&words);
}

pub fn mounted(sandbox: &Sandbox, name: &str) -> PathBuf {
    PathBuf::from(sandbox.ok(&["volume", "mount", name, "--id", "test"]).trim())
}

pub fn counted(path: &std::path::Path) -> u64 {
    let bytes = std::fs::read(path).expect("the counter");
    u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"))
}

#[test]
fn volumes_of_a_group_are_cut_at_one_instant() {
    let sandbox = alone();
    for name in ["left", "right"] {
        create(&sandbox, name, &["size=64MiB", "protect=200ms", "group=shop"]);
    }
    let (left, right) = (mounted(&sandbox, "left"), mounted(&sandbox, "right"));
    let counter = Counter::start(vec![left.join("n"), right.join("n")]);
    until("cuts of both", Duration::from_secs(30), || {
        ["left", "right"].iter().all(|name| cuts(&sandbox, name).len() > 8)
    });
    counter.stop();
    let times: BTreeSet<_> = cuts(&sandbox, "left").into_iter().map(|(_, time)| time).collect();
    let both: Vec<_> = cuts(&sandbox, "right")
        .into_iter()
        .map(|(_, time)| time)
        .filter(|time| times.contains(time))
        .collect();
    assert!(both.len() > 4, "{both:?}");
    for (at, time) in both.iter().enumerate().skip(2).step_by(3) {
        let mut values = Vec::new();
        for name in ["left", "right"] {
            let copy = format!("{name}{at}");
            sandbox.ok(&["restore", name, "--at", &time.to_string(), "--as", &copy]);
            values.push(counted(&mounted(&sandbox, &copy).join("n")));
            sandbox.ok(&["volume", "unmount", &copy, "--id", "test"]);
        }
        assert!(values[0] == values[1] || values[0] == values[1] + 1, "at {time}: {values:?}");
    }
    for name in ["left", "right"] {
        sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
    }
}

#[test]
fn killed_at_every_step_of_a_history_under_load() {
    // How far a restore has come is noted only of a large one: `restores.rs`.
    for step in HistoryStep::ALL.into_iter().filter(|step| *step != HistoryStep::RestoreNoted) {
        let mut sandbox = sandbox();
        sandbox.configure("[history]\nprotect = \"off\"\nupkeep = \"1s\"\ngrace = \"1s\"\nminute = \"2s\"\n");
        sandbox.start();
        create(&sandbox, "data", &["size=64MiB", "protect=100ms", "keep=1s:10s,10s:1m"]);
        let path = mounted(&sandbox, "data");
        let counter = Counter::start(vec![path.join("n")]);
        wait_for_cut(&sandbox, "data");
        sandbox.kill();
        sandbox.env("EVERHOLD_FAULT", &format!("{step:?}")).begin();
        if matches!(step, HistoryStep::RestoreHalf | HistoryStep::RestoreWritten) {
            until("the restore begins", Duration::from_secs(20), || {
                let _dies = sandbox.run(&["restore", "data", "--at", "now", "--as", "copy"]);
                !sandbox.is_running()
            });
        }
        until("the daemon gets there", Duration::from_secs(60), || !sandbox.is_running());
        sandbox.wait_for_crash().no_env("EVERHOLD_FAULT");
        // On a thread of its own: it would wait for ever.
        let (tell, told) = std::sync::mpsc::channel();
        let alive = path.join("alive");
        std::thread::spawn(move || tell.send(std::fs::write(alive, "yes").is_ok()));
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(true), "{step:?}: the guard has thawed");
        until("the guard lets the kernel rest", Duration::from_secs(20), || {
            // Another daemon of another test may be freezing just now.
            linux::grace::is_calm()
        });
        sandbox.start();
        wait_for_cut(&sandbox, "data");
        let last = counter.stop();
        wait_for_cut_of(&sandbox, "data", &path);
        let verified = sandbox.json(&["verify", "data"]);
        assert!(verified.to_string().contains("\"problems\":[]"), "{step:?}: {verified}");
        sandbox.ok(&["restore", "data", "--at", "now", "--as", "after"]);
        assert_eq!(counted(&mounted(&sandbox, "after").join("n")), last, "{step:?}");
        sandbox.ok(&["volume", "unmount", "after", "--id", "test"]);
        sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
        until("unmounted", Duration::from_secs(10), || in_kernel(&sandbox) == (0, 0));
    }
}

pub fn wait_for_cut_of(sandbox: &Sandbox, name: &str, path: &std::path::Path) {
    std::fs::write(path.join("last"), "last").expect("write");
    std::fs::File::open(path.join("last")).and_then(|file| file.sync_all()).expect("sync");
    wait_for_cut(sandbox, name);
}

#[test]
fn a_history_goes_on_through_a_bucket_that_fails_stalls_and_goes_away() {
    let server = S3Server::start();
    let mut sandbox = sandbox();
    for (key, value) in server.environment() {
        sandbox.env(&key, &value);
    }
    sandbox.start();
    let endpoint = server.endpoint();
    sandbox.ok(&["vault", "add", "far", "s3://vaults/history", "--endpoint", &endpoint]);
    create(&sandbox, "data", &["size=64MiB", "protect=200ms", "vault=far"]);
    let path = mounted(&sandbox, "data");
    let counter = Counter::start(vec![path.join("n")]);
    wait_for_cut(&sandbox, "data");
    // Acknowledgements that are lost, errors, and a store that takes its time.
    for fault in [
        S3Fault::DropAfter,
        S3Fault::Status(503),
        S3Fault::DropBefore,
        S3Fault::Stall(Duration::from_secs(1)),
    ] {
        server.inject(Some("PUT"), "history/h/", 0, fault);
        wait_for_cut(&sandbox, "data");
    }
    // Away: cuts collect on this host, writers notice nothing, and `status` says so.
    server.set_off(true);
    until("what waits is said", Duration::from_secs(60), || {
        let status = sandbox.json(&["protection"]);
        status["volumes"][0]["waiting"].as_u64().is_some_and(|waiting| waiting > 5)
    });
    server.set_off(false);
    wait_for_cut(&sandbox, "data");
    let last = counter.stop();
    wait_for_cut_of(&sandbox, "data", &path);
    let verified = sandbox.json(&["verify", "data"]);
    assert!(verified.to_string().contains("\"problems\":[]"), "{verified}");
    let all = cuts(&sandbox, "data");
    assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].1), "in order");
    let (middle, _) = all[all.len() / 2];
    sandbox.ok(&["restore", "data", "--at", &format!("#{middle}"), "--as", "then"]);
    sandbox.ok(&["restore", "data", "--at", "now", "--as", "after"]);
    assert!((1..=last).contains(&counted(&mounted(&sandbox, "then").join("n"))));
    assert_eq!(counted(&mounted(&sandbox, "after").join("n")), last);
    for name in ["data", "then", "after"] {
        sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
    }
}

#[test]
fn snapshots_stay_and_clones_are_alike() {
    let sandbox = alone();
    create(&sandbox, "data", &["size=64MiB", "protect=100ms", "keep=1s:2s"]);
    let path = mounted(&sandbox, "data");
    std::fs::write(path.join("file"), "before").expect("write");
    sandbox.ok(&["snapshot", "create", "data", "release"]);
    sandbox.ok(&["snapshot", "create", "data", "release"]);
    std::fs::write(path.join("file"), "after").expect("write");
    sandbox.ok(&["clone", "data", "copy"]);
    sandbox.ok(&["restore", "data", "--at", "release", "--as", "old"]);
    let read = |name: &str| std::fs::read_to_string(mounted(&sandbox, name).join("file")).expect("the file");
    assert_eq!((read("copy").as_str(), read("old").as_str()), ("after", "before"));
    // What is cloned is a volume of its own, with a history of its own.
    wait_for_cut_of(
        &sandbox,
        "copy",
        &sandbox.state().join("mnt").join(crate::id(&sandbox, "copy")).join("data"),
    );
    let (_, told) = sandbox.fails(&["clone", "data", "copy"]);
    assert!(told.contains("taken"), "{told}");
    let (_, told) = sandbox.fails(&["restore", "data", "--at", "#99999", "--as", "never"]);
    assert!(told.contains("no cut for #99999"), "{told}");
    sandbox.ok(&["snapshot", "rm", "data", "release"]);
    let (_, told) = sandbox.fails(&["restore", "data", "--at", "release", "--as", "never"]);
    assert!(told.contains("no cut for release"), "{told}");
    for name in ["data", "copy", "old"] {
        sandbox.ok(&["volume", "unmount", name, "--id", "test"]);
    }
}

#[test]
fn what_is_at_rest_is_cut_once_and_an_idle_volume_not_again() {
    let sandbox = alone();
    create(&sandbox, "data", &["size=64MiB", "protect=100ms"]);
    let path = mounted(&sandbox, "data");
    std::fs::write(path.join("file"), "last words").expect("write");
    sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
    // The unmount wrote what was in memory only; that is in the history without anyone's mounting it again.
    until("the last words are in the history", Duration::from_secs(20), || {
        let status = sandbox.json(&["protection"]);
        status["volumes"][0]["waiting"] == 0 && !cuts(&sandbox, "data").is_empty()
    });
    std::thread::sleep(Duration::from_secs(2));
    let rested = cuts(&sandbox, "data");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cuts(&sandbox, "data"), rested, "no cut when nothing changed");
    sandbox.ok(&["restore", "data", "--at", "now", "--as", "copy"]);
    assert_eq!(std::fs::read_to_string(mounted(&sandbox, "copy").join("file")).expect("read"), "last words");
    let idle = || {
        let status = sandbox.json(&["protection"]);
        let volumes = status["volumes"].as_array().expect("volumes").clone();
        volumes
            .iter()
            .find(|volume| volume["name"] == "copy")
            .and_then(|volume| volume["newest_cut"].as_u64())
    };
    until("the copy has a history", Duration::from_secs(20), || idle().is_some());
    // Mounted, and nobody writes: freezing for a cut must not be what the next cut is made for.
    std::thread::sleep(Duration::from_secs(7));
    let before = idle();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(idle(), before);
    sandbox.ok(&["volume", "unmount", "copy", "--id", "test"]);
}

#[test]
fn a_restore_in_place_is_killed_at_every_step_and_finished() {
    let faults = Fault::OF_RESTORE.map(|fault| format!("{fault:?}"));
    for fault in faults.into_iter().chain(["RestoreHalf".to_owned()]) {
        let mut sandbox = alone();
        create(&sandbox, "data", &["size=64MiB", "protect=100ms"]);
        let path = mounted(&sandbox, "data");
        for n in 0..40 {
            std::fs::write(path.join(format!("file{n}")), vec![b'a'; 100_000]).expect("write");
        }
        sandbox.ok(&["snapshot", "create", "data", "before"]);
        for n in 0..40 {
            std::fs::write(path.join(format!("file{n}")), vec![b'z'; 100_000]).expect("write");
        }
        wait_for_cut_of(&sandbox, "data", &path);
        sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
        sandbox.stop().env("EVERHOLD_FAULT", &fault).start();
        let _dies = sandbox.run(&["restore", "data", "--at", "before", "--yes"]);
        sandbox.wait_for_crash().no_env("EVERHOLD_FAULT").start();
        // Either not begun, or finished by the daemon; never half.
        until("the volume can be used", Duration::from_secs(20), || {
            sandbox.run(&["volume", "mount", "data", "--id", "test"]).status.success()
        });
        let read = |n: u32| std::fs::read(path.join(format!("file{n}"))).expect("a file");
        assert!((0..40).all(|n| read(n) == vec![b'a'; 100_000]), "{fault}");
        wait_for_cut_of(&sandbox, "data", &path);
        let verified = sandbox.json(&["verify", "data"]);
        assert!(verified.to_string().contains("\"problems\":[]"), "{fault}: {verified}");
        sandbox.ok(&["volume", "unmount", "data", "--id", "test"]);
    }
}
