//! Any moment of a running database comes back: PostgreSQL and MariaDB, from a directory and through an S3 server that fails.
//!
//! Who writes knows when each row was sent and when it was acknowledged, and a cut knows its instant. So it is exact: what was
//! acknowledged by then is there, and what was sent after it is not.

use crate::history::{cuts, now, wait_for_cut};
use crate::sandbox;
use jiff::{Span, Timestamp};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use testkit::{MARIADB, POSTGRES, S3Fault, S3Server, Sandbox, until};

/// How one kind of database is run and talked to.
struct Database {
    image: &'static str,
    /// As `images.sh` calls it.
    short: &'static str,
    data: &'static str,
    /// Reads statements from its standard input, one line after the other, and prints rows at once.
    client: &'static [&'static str],
    /// Prints the row's number once it is committed.
    insert: fn(u64) -> String,
}

const POSTGRESQL: Database = Database {
    image: POSTGRES,
    short: "postgres",
    data: "/var/lib/postgresql/data",
    client: &["psql", "-h", "/var/run/postgresql", "-v", "ON_ERROR_STOP=1", "-qAt"],
    // A row is printed when its statement is over, which is a transaction of its own.
    insert: |n| format!("insert into ledger values ({n}, repeat('x', 500)) returning n;\n"),
};

const MARIA: Database = Database {
    image: MARIADB,
    short: "mariadb",
    data: "/var/lib/mysql",
    client: &["mariadb", "--batch", "--skip-column-names", "--unbuffered", "bank"],
    insert: |n| format!("insert into ledger values ({n}, repeat('x', 500)); select {n};\n"),
};

/// SplitMix64: a seed says all.
struct Random(u64);

impl Random {
    /// From the environment, or from the clock; printed, so that a failure can be had again.
    fn seeded() -> Self {
        let clock = || now().as_nanosecond() as u64;
        let seed =
            std::env::var("EVERHOLD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
        #[expect(clippy::print_stderr, reason = "a failure can be had again with it")]
        {
            eprintln!("EVERHOLD_SEED={seed}");
        }
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

impl Database {
    fn start(&self, sandbox: &Sandbox, name: &str, volume: &str) {
        let mount = format!("{volume}:{}", self.data);
        sandbox.docker(&["run", "-d", "--name", name, "--network", "none", "-v", &mount, self.image]);
        until("the database answers", Duration::from_secs(90), || {
            let mut asked = vec!["exec", name];
            // The one of the client's arguments that is the database need not be there yet.
            asked.extend(self.client.iter().filter(|word| **word != "bank"));
            asked.extend(if self.short == "mariadb" { ["-e", "select 1"] } else { ["-c", "select 1"] });
            sandbox.try_docker(&asked).status.success()
        });
    }

    fn sql(&self, sandbox: &Sandbox, name: &str, statement: &str) -> String {
        let mut words = vec!["exec", name];
        words.extend(self.client);
        words.extend([if self.short == "mariadb" { "-e" } else { "-c" }, statement]);
        sandbox.docker(&words).trim().to_owned()
    }

    fn open(&self, sandbox: &Sandbox, name: &str) -> Child {
        let mut command = sandbox.docker_command();
        command.args(["exec", "-i", name]).args(self.client);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("start the client")
    }
}

const ACCOUNTS: u64 = 500;
const SUM: &str = "500000";

/// When each row was sent, and when it was acknowledged.
type Rows = BTreeMap<u64, (Timestamp, Option<Timestamp>)>;

/// Clients at work, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<Child>,
    threads: Vec<JoinHandle<()>>,
    rows: Arc<Mutex<Rows>>,
}

impl Load {
    fn start(database: &'static Database, sandbox: &Sandbox, name: &str, random: &mut Random) -> Self {
        let mut load =
            Self { stop: Arc::default(), clients: Vec::new(), threads: Vec::new(), rows: Arc::default() };
        for _ in 0..2 {
            load.transfer(database.open(sandbox, name), Random(random.below(u64::MAX)));
        }
        load.insert(database, database.open(sandbox, name));
        load
    }

    /// Moves money between accounts: their sum stays the same.
    fn transfer(&mut self, mut client: Child, mut random: Random) {
        let mut input = client.stdin.take().expect("its input");
        let stop = Arc::clone(&self.stop);
        self.clients.push(client);
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let (from, to) = (1 + random.below(ACCOUNTS), 1 + random.below(ACCOUNTS));
                // In one order, so that two of them can't wait for each other.
                let (one, other, sum) = if from <= to { (from, to, -7) } else { (to, from, 7) };
                let line = format!(
                    "begin; update accounts set amount = amount + {sum} where n = {one}; \
                     update accounts set amount = amount - ({sum}) where n = {other}; commit;\n"
                );
                if input.write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        }));
    }

    /// Inserts rows, one at a time, and remembers when.
    fn insert(&mut self, database: &'static Database, mut client: Child) {
        let mut input = client.stdin.take().expect("its input");
        let output = BufReader::new(client.stdout.take().expect("its output"));
        let (stop, rows) = (Arc::clone(&self.stop), Arc::clone(&self.rows));
        self.clients.push(client);
        self.threads.push(std::thread::spawn(move || {
            let mut lines = output.lines();
            for n in 1.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                rows.lock().expect("not poisoned").insert(n, (now(), None));
                if input.write_all((database.insert)(n).as_bytes()).and_then(|()| input.flush()).is_err() {
                    return;
                }
                let Some(Ok(answer)) = lines.next() else { return };
                assert_eq!(answer.trim(), n.to_string(), "what the database says");
                if let Some(row) = rows.lock().expect("not poisoned").get_mut(&n) {
                    row.1 = Some(now());
                }
            }
        }));
    }

    fn stop(mut self) -> Rows {
        self.stop.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
        self.end();
        let rows = self.rows.lock().expect("not poisoned").clone();
        assert!(rows.len() > 50, "{} rows are not enough to prove anything", rows.len());
        rows
    }

    fn end(&mut self) {
        for client in &mut self.clients {
            let _killed = client.kill();
            let _ended = client.wait();
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("a client's thread");
        }
    }
}

/// What goes wrong between the daemon and the vault, again and again until dropped.
struct Faults {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Faults {
    fn start(server: Arc<S3Server>, mut random: Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let fault = match random.below(4) {
                    0 => S3Fault::Status(503),
                    1 => S3Fault::DropBefore,
                    2 => S3Fault::DropAfter,
                    _ => S3Fault::Stall(Duration::from_millis(random.below(800))),
                };
                server.inject(Some("PUT"), "/h/", random.below(3) as u32, fault);
                std::thread::sleep(Duration::from_millis(200 + random.below(600)));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread of faults");
        }
    }
}

/// Any of some random moments comes back as it was.
fn comes_back(database: &'static Database, server: Option<Arc<S3Server>>) {
    let mut random = Random::seeded();
    let mut sandbox = sandbox();
    if let Some(server) = &server {
        for (key, value) in server.environment() {
            sandbox.env(&key, &value);
        }
    }
    sandbox.start_docker(&[database.short]).start();
    let mut options = vec!["size=1GiB", "uid=999", "gid=999", "protect=1s"];
    if let Some(server) = &server {
        sandbox.ok(&["vault", "add", "far", "s3://vaults/history", "--endpoint", &server.endpoint()]);
        options.push("vault=far");
    }
    sandbox.volume("data", &options);
    database.start(&sandbox, "db", "data");
    if database.short == "mariadb" {
        sandbox.docker(&["exec", "db", "mariadb", "-e", "create database bank"]);
    }
    database.sql(&sandbox, "db", "create table ledger (n bigint primary key, filler text)");
    database.sql(&sandbox, "db", "create table accounts (n int primary key, amount int)");
    let accounts: Vec<_> = (1..=ACCOUNTS).map(|n| format!("({n}, 1000)")).collect();
    database.sql(&sandbox, "db", &format!("insert into accounts values {}", accounts.join(",")));
    wait_for_cut(&sandbox, "data");

    let begun = now();
    let faults = server.clone().map(|server| Faults::start(server, Random(random.below(u64::MAX))));
    let load = Load::start(database, &sandbox, "db", &mut random);
    std::thread::sleep(Duration::from_secs(12));
    drop(faults);
    let rows = load.stop();
    let ended = now();
    wait_for_cut(&sandbox, "data");

    let all = cuts(&sandbox, "data");
    assert!(all.len() >= 5, "cuts were made while it ran: {all:?}");
    let span = ended.duration_since(begun).as_millis() as u64;
    for at in 0..4 {
        let moment = begun + Span::new().milliseconds(random.below(span) as i64);
        let (point, instant) = *all.iter().rev().find(|(_, time)| *time <= moment).expect("a cut before it");
        let (volume, container) = (format!("then{at}"), format!("db{at}"));
        let told = sandbox.json(&["restore", "data", "--at", &moment.to_string(), "--as", &volume]);
        assert_eq!(told["point"].as_u64(), Some(point), "the newest cut at or before {moment}");
        sandbox.ok(&["protect", &volume, "--off"]);
        database.start(&sandbox, &container, &volume);
        assert_eq!(database.sql(&sandbox, &container, "select sum(amount) from accounts"), SUM);
        let there: std::collections::BTreeSet<u64> = database
            .sql(&sandbox, &container, "select n from ledger")
            .lines()
            .map(|line| line.trim().parse().expect("a number"))
            .collect();
        let acknowledged_by = |time: Timestamp| {
            let known = rows.iter().filter(move |(_, (_, known))| known.is_some_and(|known| known <= time));
            known.map(|(n, _)| *n)
        };
        let missing: Vec<_> = acknowledged_by(instant).filter(|n| !there.contains(n)).collect();
        assert!(missing.is_empty(), "acknowledged before {instant}, and not in its cut: {missing:?}");
        // And so is what had been acknowledged an interval before the moment; with some seconds for a machine that is busy.
        let before = moment - Span::new().seconds(6);
        assert!(acknowledged_by(before).all(|n| there.contains(&n)), "cuts are too far apart: {all:?}");
        let early: Vec<_> = rows
            .iter()
            .filter(|(n, (sent, _))| *sent > instant + Span::new().milliseconds(1) && there.contains(n))
            .collect();
        assert!(early.is_empty(), "sent after {instant}, and in its cut: {early:?}");
        sandbox.docker(&["rm", "-f", &container]);
    }
    let verified = sandbox.json(&["verify", "data"]);
    assert!(verified.to_string().contains("\"problems\":[]"), "{verified}");
}

#[test]
fn any_moment_of_a_running_postgresql_comes_back() {
    comes_back(&POSTGRESQL, None);
}

#[test]
fn any_moment_of_a_running_mariadb_comes_back() {
    comes_back(&MARIA, None);
}

#[test]
fn any_moment_comes_back_through_a_server_that_fails() {
    comes_back(&POSTGRESQL, Some(Arc::new(S3Server::start())));
}

#[test]
fn any_moment_of_mariadb_comes_back_through_a_server_that_fails() {
    comes_back(&MARIA, Some(Arc::new(S3Server::start())));
}
