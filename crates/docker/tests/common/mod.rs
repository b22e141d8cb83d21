//! An engine of one's own, and the plugin in front of it.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use engine::{Clock, Containers, Engine, Faults, HoldLine, NoContainers, Parts, PoolSettings, SystemClock};
use everhold_docker::NewVolumes;
use everhold_docker::plugin::{self, Plugin, Settings};
use jiff::Timestamp;
use model::{Defaults, DriverKind, FsKind, Labels, Percent, Provisioning, Size, VolumeName};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use storage::Drivers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A clock at which a test can hold up whoever asks for the time. A verb asks in the midst of its work, with the
/// volume claimed: to the plugin it looks like a driver that hangs.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<bool>,
    moved: Condvar,
    /// How many came to a closed gate.
    held: Mutex<usize>,
}

impl Gate {
    pub fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.moved.notify_all();
    }

    pub fn held(&self) -> usize {
        *self.held.lock().unwrap()
    }
}

impl Clock for Gate {
    fn now(&self) -> Timestamp {
        let closed = self.closed.lock().unwrap();
        if *closed {
            *self.held.lock().unwrap() += 1;
        }
        drop(self.moved.wait_while(closed, |closed| *closed).unwrap());
        SystemClock.now()
    }
}

pub struct Setup {
    pub driver: DriverKind,
    pub real_drivers: bool,
    pub containers: Arc<dyn Containers>,
    pub clock: Arc<dyn Clock>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            driver: DriverKind::Sim,
            real_drivers: false,
            containers: Arc::new(NoContainers),
            clock: Arc::new(SystemClock),
        }
    }
}

pub fn open(dir: &Path, setup: Setup) -> Arc<Engine> {
    let drivers = if setup.real_drivers {
        Drivers::for_host(
            Vec::new(),
            vec![dir.to_owned()],
            Duration::from_secs(30),
            Arc::new(storage::NoDevices),
        )
    } else {
        Drivers::all_sim()
    };
    let settings = engine::Settings {
        state: dir.join("state"),
        boot_id_file: "/proc/sys/kernel/random/boot_id".into(),
        defaults: Defaults {
            driver: setup.driver,
            pool: "default".parse().unwrap(),
            image_size: Size::from_mib(64),
            tmpfs_size: Size::from_mib(1),
            fs: FsKind::Ext4,
            provisioning: Provisioning::Thin,
            protect: false,
            protection: model::Protection::default(),
        },
        trash_ttl: Duration::from_secs(1000),
        pools: vec![PoolSettings {
            name: "default".parse().unwrap(),
            path: dir.join("pool"),
            labels: Labels::new(),
            reserve: Percent::new(0).unwrap(),
            hold: HoldLine::Off,
            overcommit: Percent::new(1000).unwrap(),
        }],
        claim_wait: Duration::from_secs(15),
        history: engine::HistorySettings::default(),
    };
    let Setup { containers, clock, .. } = setup;
    let tracking = Arc::new(engine::Tracking::none("a test").unwrap());
    let parts = Parts { settings, drivers, containers, clock, guard: None, tracking, faults: Faults::None };
    let (engine, repairs) = Engine::open(parts).unwrap();
    assert_eq!(repairs, [], "a fresh engine has nothing to repair");
    Arc::new(engine)
}

/// A plugin that is being served.
pub struct Served {
    pub engine: Arc<Engine>,
    pub newly: Arc<NewVolumes>,
    pub socket: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Served {
    pub async fn new(engine: Arc<Engine>, socket: PathBuf, settings: Settings) -> Self {
        let newly = Arc::new(NewVolumes::default());
        let plugin = Plugin::new(Arc::clone(&engine), Arc::clone(&newly), settings);
        let bound = plugin::bind(&socket).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(plugin::serve(bound, plugin, async { drop(stopped.await) }));
        Self { engine, newly, socket, stop, server }
    }

    /// Stops it in order, and checks that it leaves nothing.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
        assert!(!self.socket.exists(), "the socket is removed");
    }

    /// As Docker calls: no content type.
    pub async fn call(&self, call: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(call, "", body.as_bytes()).await
    }

    /// A call that must succeed.
    #[track_caller]
    pub fn ok(&self, call: &'static str, body: Value) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            let (status, answer) = self.call(call, body).await;
            assert_eq!((status, &answer["Err"]), (200, &Value::from("")), "{call} at {caller}: {answer}");
            answer
        }
    }

    /// A call that must fail; returns the status and what `Err` says.
    pub async fn fails(&self, call: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(call, body).await;
        assert_ne!(status, 200, "{call} succeeded: {answer}");
        (status, answer["Err"].as_str().expect("Err is a text").to_owned())
    }

    pub async fn send(&self, call: &str, headers: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let head =
            format!("POST /{call} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        answer(stream).await
    }
}

/// Reads one answer to the end of the connection.
pub async fn answer(mut stream: UnixStream) -> (u16, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer, but {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(head.contains("application/vnd.docker.plugins.v1.1+json"), "{head}");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

pub fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

/// Waits until `happens`, at most `limit`.
#[track_caller]
pub fn until(
    what: &'static str,
    limit: Duration,
    mut happens: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let end = tokio::time::Instant::now() + limit;
        while !happens() {
            assert!(tokio::time::Instant::now() < end, "waited in vain for: {what} (at {caller})");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
