//! A PostgreSQL in a container, and a client that knows which of its rows were acknowledged.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use testkit::{POSTGRES, Sandbox, until};

const DATA: &str = "/var/lib/postgresql/data";
const READY: Duration = Duration::from_secs(60);

/// Starts a PostgreSQL named `name` on `volume` and waits until it answers.
#[track_caller]
pub fn start(sandbox: &Sandbox, name: &str, volume: &str) {
    let mount = format!("{volume}:{DATA}");
    sandbox.docker(&["run", "-d", "--name", name, "--network", "none", "-v", &mount, POSTGRES]);
    until("PostgreSQL answers", READY, || {
        sandbox
            .try_docker(&["exec", name, "psql", "-h", "/var/run/postgresql", "-qc", "select 1"])
            .status
            .success()
    });
}

/// Runs one statement; returns what it printed, without headers.
#[track_caller]
pub fn sql(sandbox: &Sandbox, name: &str, statement: &str) -> String {
    sandbox.docker(&[
        "exec",
        name,
        "psql",
        "-h",
        "/var/run/postgresql",
        "-v",
        "ON_ERROR_STOP=1",
        "-qAtc",
        statement,
    ])
}

/// Inserts rows one commit at a time until stopped, and remembers which ones were acknowledged.
pub struct Writer {
    client: Child,
    feeder: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    last: Arc<AtomicU64>,
    input: Arc<Mutex<Option<ChildStdin>>>,
}

impl Writer {
    pub fn start(sandbox: &Sandbox, name: &str) -> Self {
        sql(sandbox, name, "create table if not exists ledger (n bigint primary key, filler text)");
        let mut command: Command = sandbox.docker_command();
        let mut client = command
            .args(["exec", "-i", name, "psql", "-h", "/var/run/postgresql", "-v", "ON_ERROR_STOP=1", "-qAt"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start psql");
        let input = Arc::new(Mutex::new(client.stdin.take()));
        let output = BufReader::new(client.stdout.take().expect("psql's output"));
        let (acknowledged, last) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicU64::new(0)));
        let (ask, answered) = std::sync::mpsc::sync_channel::<()>(1);
        let feeder = {
            let input = Arc::clone(&input);
            std::thread::spawn(move || {
                let mut n = 0_u64;
                loop {
                    n += 1;
                    // `returning` prints the row only once the transaction is committed: each statement is one.
                    let line = format!("insert into ledger values ({n}, repeat('x', 500)) returning n;\n");
                    let sent = match input.lock().expect("not poisoned").as_mut() {
                        Some(pipe) => pipe.write_all(line.as_bytes()).and_then(|()| pipe.flush()),
                        None => return,
                    };
                    if sent.is_err() || answered.recv().is_err() {
                        return;
                    }
                }
            })
        };
        let reader = {
            let (acknowledged, last) = (Arc::clone(&acknowledged), Arc::clone(&last));
            std::thread::spawn(move || {
                for line in output.lines().map_while(Result::ok) {
                    if let Ok(n) = line.trim().parse() {
                        acknowledged.lock().expect("not poisoned").insert(n);
                        last.store(n, Ordering::SeqCst);
                        if ask.send(()).is_err() {
                            return;
                        }
                    }
                }
            })
        };
        Self { client, feeder: Some(feeder), reader: Some(reader), acknowledged, last, input }
    }

    /// The number of the last acknowledged row.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    /// Waits until `more` further rows are acknowledged.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let goal = self.last() + more;
        until("the writer goes on", Duration::from_secs(60), || self.last() >= goal);
    }

    /// Ends the client and returns what was acknowledged.
    pub fn stop(mut self) -> BTreeSet<u64> {
        drop(self.input.lock().expect("not poisoned").take());
        let _killed = self.client.kill();
        let _ended = self.client.wait();
        for thread in [self.reader.take(), self.feeder.take()].into_iter().flatten() {
            thread.join().expect("the writer's threads");
        }
        let rows = self.acknowledged.lock().expect("not poisoned").clone();
        assert!(!rows.is_empty(), "nothing was acknowledged: this proves nothing");
        rows
    }
}

/// Every acknowledged row is there.
#[track_caller]
pub fn assert_all_there(sandbox: &Sandbox, name: &str, acknowledged: &BTreeSet<u64>) {
    let there: BTreeSet<u64> = sql(sandbox, name, "select n from ledger")
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    let missing: Vec<_> = acknowledged.difference(&there).collect();
    assert!(
        missing.is_empty(),
        "{} of {} acknowledged rows are missing: {missing:?}",
        missing.len(),
        acknowledged.len()
    );
}

/// The database saw nothing go wrong.
#[track_caller]
pub fn assert_no_errors(sandbox: &Sandbox, name: &str) {
    let output = sandbox.try_docker(&["logs", name]);
    let log = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let bad: Vec<_> = log
        .lines()
        .filter(|line| ["ERROR:", "FATAL:", "PANIC:"].iter().any(|word| line.contains(word)))
        .collect();
    assert!(log.contains("ready to accept connections"), "that is not PostgreSQL's log: {log}");
    let expected = |line: &&&str| {
        !line.contains("starting up") && !line.contains("terminating connection due to administrator")
    };
    assert_eq!(bad.iter().filter(expected).count(), 0, "{bad:#?}");
}
