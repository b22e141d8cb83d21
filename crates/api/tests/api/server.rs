//! A server of one's own, and requests that the client would not send.

use api::v1::{Create, Pairs, Problem};
use api::{AppState, Client, Limits, Metrics};
use engine::{Engine, Faults, HoldLine, NoContainers, Parts, PoolSettings, Settings, SystemClock};
use model::{Defaults, DriverKind, FsKind, Percent, Provisioning, Size};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::Drivers;
use tokio::task::JoinHandle;

pub struct Server {
    pub dir: tempfile::TempDir,
    pub engine: Arc<Engine>,
    pub client: Client,
    serving: JoinHandle<std::io::Result<()>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

fn settings(dir: &std::path::Path) -> Settings {
    Settings {
        state: dir.join("state"),
        boot_id_file: "/proc/sys/kernel/random/boot_id".into(),
        defaults: Defaults {
            driver: DriverKind::Sim,
            pool: "default".parse().unwrap(),
            image_size: Size::from_mib(64),
            tmpfs_size: Size::from_mib(64),
            fs: FsKind::Ext4,
            provisioning: Provisioning::Thin,
            protect: false,
            protection: model::Protection::default(),
        },
        trash_ttl: Duration::from_secs(3600),
        pools: vec![PoolSettings {
            name: "default".parse().unwrap(),
            path: dir.join("pool"),
            labels: [("tier".to_owned(), "test".to_owned())].into(),
            reserve: Percent::new(0).unwrap(),
            hold: HoldLine::Off,
            overcommit: Percent::new(1000).unwrap(),
        }],
        claim_wait: Duration::from_secs(10),
        history: engine::HistorySettings::default(),
    }
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(Drivers::all_sim(), Duration::from_secs(20), Limits::default())
    }

    pub fn start_with(drivers: Drivers, deadline: Duration, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let parts = Parts {
            settings: settings(dir.path()),
            drivers,
            containers: Arc::new(NoContainers),
            clock: Arc::new(SystemClock),
            guard: None,
            tracking: Arc::new(engine::Tracking::none("a test").unwrap()),
            faults: Faults::None,
        };
        let (engine, repairs) = Engine::open(parts).unwrap();
        assert!(repairs.is_empty());
        let engine = Arc::new(engine);
        let socket = dir.path().join("run/everhold.sock");
        let listener = api::bind(&socket, None).unwrap();
        let metrics = Arc::new(Metrics::new());
        let started = engine::Clock::now(&SystemClock);
        let state = AppState::new(Arc::clone(&engine), metrics, deadline, started);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let serving = tokio::spawn(api::serve_with(listener, state, limits, shutdown));
        Self { client: Client::new(socket), dir, engine, serving, stop: Some(stop) }
    }

    /// Tells the server to stop and waits for its end.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.serving).await.unwrap().unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.client.socket().to_owned()
    }

    pub async fn create(&self, name: &str) {
        self.client.create(&create(name, &[])).await.unwrap();
    }

    /// Sends `request` as it is; returns the status, the head and the body of the answer.
    pub async fn raw(&self, request: impl Into<Vec<u8>>) -> Answer {
        let (socket, request) = (self.socket(), request.into());
        tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            // The server may answer and close before it has read all: that is what is tested.
            let sent = stream.write_all(&request);
            let mut text = Vec::new();
            let read = stream.read_to_end(&mut text);
            assert!(sent.is_ok() || read.is_ok() || !text.is_empty(), "no answer: {sent:?}, {read:?}");
            Answer::read(&String::from_utf8(text).unwrap())
        })
        .await
        .unwrap()
    }

    pub async fn send(&self, method: &str, path: &str, content_type: Option<&str>, body: &str) -> Answer {
        let kind = content_type.map_or_else(String::new, |kind| format!("Content-Type: {kind}\r\n"));
        let length = body.len();
        self.raw(format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// The problem that it must be.
    #[track_caller]
    pub fn problem(&self) -> Problem {
        assert!(self.head.contains("content-type: application/problem+json"), "{}\n{}", self.head, self.body);
        let problem: Problem = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.r#type, format!("urn:everhold:error:{}", problem.code));
        assert!(!problem.detail.is_empty() && !problem.next.is_empty() && !problem.data_state.is_empty());
        problem
    }
}

pub fn create(name: &str, options: &[(&str, &str)]) -> Create {
    let options: Pairs = options.iter().copied().collect();
    Create { name: name.to_owned(), options, labels: Pairs::default() }
}
