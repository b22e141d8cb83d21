//! Any moment of a running database comes back, and what is wrong with a vault is found.

use crate::postgres::{Writer, assert_all_there, sql, start};
use crate::{alone, in_kernel, sandbox, with_docker};
use engine::HistoryStep;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use testkit::{Sandbox, until};

const PROTECTED: [&str; 4] = ["size=1GiB", "uid=999", "gid=999", "protect=1s"];

fn now() -> Timestamp {
    Timestamp::now()
}

/// The numbers and times of the cuts of a volume, oldest first.
fn cuts(sandbox: &Sandbox, name: &str) -> Vec<(u64, Timestamp)> {
    let history = sandbox.json(&["history", name]);
    let cuts = history["cuts"].as_array().expect("a list of cuts");
    let time = |cut: &serde_json::Value| cut["time"].as_str().expect("a time").parse().expect("a time");
    cuts.iter().map(|cut| (cut["point"].as_u64().expect("a number"), time(cut))).collect()
}

/// Waits until a cut that is newer than now is durable.
#[track_caller]
fn wait_for_cut(sandbox: &Sandbox, name: &str) {
    let since = now();
    until("a newer cut", Duration::from_secs(30), || {
        cuts(sandbox, name).last().is_some_and(|(_, time)| *time > since)
    });
}

/// Moves money between accounts, so that the sum stays the same, until dropped.
struct Transfers(std::process::Child);

impl Transfers {
    fn start(sandbox: &Sandbox, name: &str) -> Self {
        sql(
            sandbox,
            name,
            "create table accounts as select n, 1000 as amount from generate_series(1, 500) n",
        );
        let script = "do $$ declare a int; b int; begin loop a := 1 + random() * 499; b := 1 + random() * 499; \
                      update accounts set amount = amount - 7 where n = a; update accounts set amount = amount + 7 where n = b; \
                      commit; end loop; end $$";
        let child = sandbox
            .docker_command()
            .args(["exec", name, "psql", "-h", "/var/run/postgresql", "-qc", script])
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start psql");
        Self(child)
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[test]
fn any_moment_of_a_running_database_comes_back() {
    let sandbox = with_docker(&["postgres"]);
    sandbox.volume("pgdata", &PROTECTED);
    start(&sandbox, "pg", "pgdata");
    let transfers = Transfers::start(&sandbox, "pg");
    let writer = Writer::start(&sandbox, "pg");
    // What had been acknowledged at these moments, one interval before and some more for a busy machine.
    let mut moments: Vec<(Timestamp, u64)> = Vec::new();
    for _ in 0..10 {
        let known = writer.last();
        wait_for_cut(&sandbox, "pgdata");
        moments.push((now(), known));
    }
    let acknowledged = writer.stop();
    drop(transfers);
    assert!(cuts(&sandbox, "pgdata").len() >= 8, "cuts were made while it ran");
    for (at, (moment, known)) in moments.iter().enumerate().filter(|(at, _)| at % 3 == 0) {
        let (volume, container) = (format!("then{at}"), format!("pg{at}"));
        sandbox.ok(&["restore", "pgdata", "--at", &moment.to_string(), "--as", &volume]);
        start(&sandbox, &container, &volume);
        assert_eq!(sql(&sandbox, &container, "select sum(amount) from accounts").trim(), "500000");
        let before: BTreeSet<u64> = acknowledged.range(..=*known).copied().collect();
        assert_all_there(&sandbox, &container, &before);
        sandbox.docker(&["rm", "-f", &container]);
    }
    // The volume goes on, and its newest cut is whole.
    let verified = sandbox.json(&["verify", "pgdata"]);
    assert!(verified.to_string().contains("\"problems\":[]"), "{verified}");
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
struct Counter {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Counter {
    fn start(paths: Vec<PathBuf>) -> Self {
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

    fn stop(mut self) -> u64 {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        self.thread.take().expect("running").join().expect("the counter")
    }
}

/// Without Docker.
fn create(sandbox: &Sandbox, name: &str, options: &[&str]) {
    let mut words = vec!["volume", "create", name];
    words.extend(options.iter().flat_map(|option| ["-o", option]));
    sandbox.ok(&words);
}

fn mounted(sandbox: &Sandbox, name: &str) -> PathBuf {
    PathBuf::from(sandbox.ok(&["volume", "mount", name, "--id", "test"]).trim())
}

fn counted(path: &std::path::Path) -> u64 {
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
    for step in HistoryStep::ALL.into_iter().filter(|step| *step != HistoryStep::RestoreWritten) {
        let mut sandbox = sandbox();
        sandbox.configure("[history]\nprotect = \"off\"\nupkeep = \"1s\"\ngrace = \"1s\"\n");
        sandbox.start();
        create(&sandbox, "data", &["size=64MiB", "protect=100ms", "keep=1s:10s,10s:1m"]);
        let path = mounted(&sandbox, "data");
        let counter = Counter::start(vec![path.join("n")]);
        wait_for_cut(&sandbox, "data");
        sandbox.kill();
        sandbox.env("EVERHOLD_FAULT", &format!("{step:?}")).begin();
        if matches!(step, HistoryStep::RestoreHalf) {
            until("the restore begins", Duration::from_secs(20), || {
                let _dies = sandbox.run(&["restore", "data", "--at", "now", "--as", "copy"]);
                !sandbox.is_running()
            });
        }
        sandbox.wait_for_crash().no_env("EVERHOLD_FAULT");
        let begun = Instant::now();
        let writable = std::fs::write(path.join("alive"), "yes");
        assert!(writable.is_ok() && begun.elapsed() < Duration::from_secs(20), "{step:?}: thawed");
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

fn wait_for_cut_of(sandbox: &Sandbox, name: &str, path: &std::path::Path) {
    std::fs::write(path.join("last"), "last").expect("write");
    std::fs::File::open(path.join("last")).and_then(|file| file.sync_all()).expect("sync");
    wait_for_cut(sandbox, name);
}
