//! An S3 server in this process, on a loopback port, with a layer of faults in front.
//!
//! The server is `s3s-fs`. It looks for an object and then writes it, which is a race for conditional creations; so the layer
//! lets writes of one key through one after the other. It makes missing buckets, too, which the layer prevents.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The access key the server knows.
pub const S3_KEY: &str = "everholdtestkey";
/// The secret of [`S3_KEY`].
pub const S3_SECRET: &str = "everholdtestsecret";
/// The bucket that is there.
pub const S3_BUCKET: &str = "vaults";

/// What the layer does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// Answers with this status; nothing is done.
    Status(u16),
    /// Waits, then carries it out.
    Stall(Duration),
    /// Carries it out, and drops the connection instead of answering.
    DropAfter,
    /// Drops the connection before anything is done.
    DropBefore,
}

#[derive(Debug)]
struct Script {
    method: Option<Method>,
    part: String,
    after: u32,
    times: u32,
    fault: S3Fault,
}

#[derive(Debug, Default)]
struct State {
    root: PathBuf,
    off: bool,
    unconditional: bool,
    scripts: Vec<Script>,
    requests: Vec<(Method, String)>,
    keys: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

/// A running server. It and its objects are gone when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    directory: TempDir,
}

impl S3Server {
    /// Starts a server with the empty bucket [`S3_BUCKET`].
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for objects");
        std::fs::create_dir(directory.path().join(S3_BUCKET)).expect("a bucket");
        let service = {
            let files = s3s_fs::FileSystem::new(directory.path()).expect("a server on the directory");
            let mut builder = S3ServiceBuilder::new(files);
            builder.set_auth(SimpleAuth::from_single(S3_KEY, S3_SECRET));
            builder.build()
        };
        let state = Arc::new(Mutex::new(State { root: directory.path().to_owned(), ..State::default() }));
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
                tell.send(listener.local_addr().expect("an address")).expect("someone listens");
                tokio::select! {
                    () = serve(listener, service, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = told.recv().expect("the server starts");
        Self { address, state, stop: Some(stop), thread: Some(thread), directory }
    }

    /// The endpoint, `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of a vault in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{S3_BUCKET}/{prefix}?endpoint={}", self.endpoint())
    }

    /// The environment that holds the keys.
    pub fn environment(&self) -> Vec<(String, String)> {
        [("AWS_ACCESS_KEY_ID", S3_KEY), ("AWS_SECRET_ACCESS_KEY", S3_SECRET)]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .to_vec()
    }

    /// Where the server keeps the bucket's objects.
    pub fn bucket_dir(&self) -> PathBuf {
        self.directory.path().join(S3_BUCKET)
    }

    /// The `after`-th (0: the next) request of this method (`None`: any) whose path and query contain `part` has a fault.
    pub fn inject(&self, method: Option<&str>, part: &str, after: u32, fault: S3Fault) {
        self.inject_times(method, part, after, 1, fault);
    }

    /// Like [`S3Server::inject`], for so many requests in a row.
    pub fn inject_times(&self, method: Option<&str>, part: &str, after: u32, times: u32, fault: S3Fault) {
        let method = method.map(|m| m.parse().expect("a method"));
        self.state().scripts.push(Script { method, part: part.to_owned(), after, times, fault });
    }

    /// While it is off, every connection is dropped: the vault is absent.
    pub fn set_off(&self, off: bool) {
        self.state().off = off;
    }

    /// A server that ignores `If-None-Match`, as some do.
    pub fn ignore_conditions(&self, ignore: bool) {
        self.state().unconditional = ignore;
    }

    /// The requests so far: method, path and query. Those that came while it was off are not among them.
    pub fn requests(&self) -> Vec<(String, String)> {
        self.state().requests.iter().map(|(m, p)| (m.to_string(), p.clone())).collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has ended already.
            stop.send(()).unwrap_or(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the S3 server ended with a panic");
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder panics")
}

impl State {
    /// What happens to a request.
    fn fault(&mut self, method: &Method, path: &str) -> Option<S3Fault> {
        if self.off {
            return Some(S3Fault::DropBefore);
        }
        self.requests.push((method.clone(), path.to_owned()));
        let mut found = None;
        for script in &mut self.scripts {
            if script.method.as_ref().is_some_and(|m| m != method) || !path.contains(&script.part) {
                continue;
            }
            if script.after > 0 {
                script.after -= 1;
            } else if found.is_none() {
                script.times -= 1;
                found = Some(script.fault);
            }
        }
        self.scripts.retain(|s| s.times > 0);
        found
    }
}

/// The connection is dropped.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

async fn serve(listener: TcpListener, service: S3Service, state: Arc<Mutex<State>>) {
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        if lock(&state).off {
            continue;
        }
        connection.set_nodelay(true).expect("a socket takes options");
        let (service, state) = (service.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let handler = service_fn(move |request| handle(request, service.clone(), Arc::clone(&state)));
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // Dropped connections are the point.
            server.serve_connection(TokioIo::new(connection), handler).await.unwrap_or(());
        });
    }
}

/// Answers with an error, after the body was taken, so that the client does not meet a reset.
async fn refuse(request: Request<Incoming>, status: u16, code: &str) -> Result<Response<s3s::Body>, Dropped> {
    request.into_body().collect().await.map_err(|_| Dropped)?;
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>");
    Response::builder().status(status).body(s3s::Body::from(body)).map_err(|_| Dropped)
}

async fn handle(
    request: Request<Incoming>,
    service: S3Service,
    state: Arc<Mutex<State>>,
) -> Result<Response<s3s::Body>, Dropped> {
    let method = request.method().clone();
    let path = request.uri().path_and_query().map_or(String::new(), ToString::to_string);
    let (fault, key, ignored) = {
        let mut state = lock(&state);
        let fault = state.fault(&method, &path);
        let conditional = method == Method::PUT && request.headers().contains_key("if-none-match");
        // The header is signed, so it can't be taken away; what it asks about can.
        let ignored = (conditional && state.unconditional)
            .then(|| state.root.join(request.uri().path().trim_start_matches('/')));
        (fault, Arc::clone(state.keys.entry(request.uri().path().to_owned()).or_default()), ignored)
    };
    if request.uri().path().split('/').nth(1) != Some(S3_BUCKET) {
        return refuse(request, 404, "NoSuchBucket").await;
    }
    match fault {
        Some(S3Fault::DropBefore) => return Err(Dropped),
        Some(S3Fault::Stall(time)) => tokio::time::sleep(time).await,
        Some(S3Fault::Status(status)) => {
            return refuse(request, status, if status == 503 { "SlowDown" } else { "InternalError" }).await;
        }
        Some(S3Fault::DropAfter) | None => {}
    }
    let answer = {
        let turn =
            if method == Method::GET || method == Method::HEAD { None } else { Some(key.lock().await) };
        if let Some(path) = ignored
            && path.exists()
        {
            std::fs::remove_file(&path).expect("an object can be removed");
        }
        let answer = service.call(request.map(s3s::Body::from)).await;
        drop(turn);
        answer
    };
    if fault == Some(S3Fault::DropAfter) {
        return Err(Dropped);
    }
    // What the server can't answer at all is a lost connection too.
    answer.map_err(|_| Dropped)
}
