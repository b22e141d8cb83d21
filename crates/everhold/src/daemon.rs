//! The daemon: puts the rooms together, in the order in which they may be seen, and takes them apart again.
//!
//! The API socket comes last: who can connect to it finds everything else in place.

use crate::config::{Config, LogFormat};
use api::v1::Problem;
use api::{AppState, Metrics};
use docker::{DockerEngine, NewVolumes, plugin};
use engine::{
    Clock, Containers, Engine, Fault, Faults, Guard, NoContainers, Parts, SystemClock, Tracking, Watch,
};
use model::ErrorKind;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::Drivers;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

/// Requests at work at a graceful stop get this long; with what follows it stays under 5 s.
const GRACE: Duration = Duration::from_secs(4);
/// Held writers are let go within this time; if not, the guard does it.
const RELEASE: Duration = Duration::from_millis(500);

/// How often, and how many times, interrupted relocations are tried again: for an hour.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
const SETTLE_TRIES: usize = 360;

fn failed(what: &str, error: &dyn std::fmt::Display, next: &str) -> Problem {
    Problem::new(ErrorKind::Internal, format!("{what}: {error}"), next)
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: Config) -> Result<ExitCode, Problem> {
    let begin = Instant::now();
    linux::memory::keep_small();
    start_logs(&config)?;
    let runtime = runtime()?;
    let up = start(&config, &runtime);
    let Running { engine, mut watch, tasks, stop, mut signals } = match up {
        Ok(running) => running,
        Err(problem) => {
            // Also in the log, which may be all that anyone sees of a service.
            tracing::error!(
                code = problem.code,
                data = problem.data_state,
                next = problem.next,
                "{}",
                problem.detail
            );
            // A blocking thread that hangs must not keep a daemon that could not start.
            runtime.shutdown_background();
            return Err(problem);
        }
    };
    tracing::info!(took = ?begin.elapsed(), volumes = engine.volumes().len(), socket = %config.api_socket.display(), "ready");
    notify(&[sd_notify::NotifyState::Ready]);
    if config.docker {
        bring_back(config.clone());
    }

    runtime.block_on(async {
        tokio::select! { _ = signals.0.recv() => {}, _ = signals.1.recv() => {} }
    });
    tracing::info!("stopping; volumes stay mounted for their containers");
    notify(&[sd_notify::NotifyState::Stopping]);
    watch.stop();
    stop.send_replace(true);
    runtime.block_on(finish(tasks));
    release(&engine);
    remove_socket(&config);
    tracing::info!("stopped");
    // Not by returning: a blocking thread that hangs (a stuck unmount) would keep the process.
    std::process::exit(0)
}

/// What rescues and adoptions left that the host's end, or somebody, interrupted together with the process that stands by for
/// them: their containers are brought back as soon as there is a Docker Engine. A thread of its own, since that takes time.
fn bring_back(config: Config) {
    std::thread::spawn(move || {
        for wait in std::iter::repeat_n(SETTLE_WAIT, SETTLE_TRIES) {
            match crate::cli::settle_all(&config) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "an interrupted relocation is not finished or undone yet")
                }
            }
            std::thread::sleep(wait);
        }
    });
}

struct Running {
    engine: Arc<Engine>,
    watch: Watch,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    signals: (tokio::signal::unix::Signal, tokio::signal::unix::Signal),
}

fn start(config: &Config, runtime: &Runtime) -> Result<Running, Problem> {
    // First of all, so that a stop during a long start-up is not lost.
    let signals = {
        let _entered = runtime.enter();
        let listen = |kind| signal(kind).map_err(|error| failed("signals", &error, "see the kernel log"));
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?)
    };
    let docker = config.docker.then(|| docker_engine(config, runtime.handle().clone()));
    let containers: Arc<dyn Containers> = match &docker {
        Some(docker) => Arc::new(docker.clone()),
        None => Arc::new(NoContainers),
    };
    let engine = open(config, containers)?;
    let watch =
        Watch::start(&engine).map_err(|error| failed("threads", &error, "raise the limit of tasks"))?;
    let (stop, _) = watch::channel(false);
    let mut tasks = Vec::new();
    let metrics = Arc::new(Metrics::new());
    if let Some(docker) = docker {
        tasks.extend(serve_docker(config, runtime, docker, &engine, &metrics, &stop)?);
    }
    tasks.push(serve_api(config, runtime, &engine, metrics, &stop)?);
    Ok(Running { engine, watch, tasks, stop, signals })
}

fn start_logs(config: &Config) -> Result<(), Problem> {
    let filter = EnvFilter::try_new(&config.log_level).map_err(|error| {
        let detail = format!("log.level {:?}: {error}", config.log_level);
        Problem::new(ErrorKind::InvalidInput, detail, "give a level such as `info`, then start again")
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match config.log_format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| failed("logs", &*error, "report it"))
}

fn runtime() -> Result<Runtime, Problem> {
    // Two threads carry thousands of requests; the threads for blocking work are made when they are needed and
    // end soon after, so that an idle daemon stays small.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .map_err(|error| failed("no runtime", &error, "free memory or descriptors, then start again"))
}

/// The Docker Engine of this configuration; it need not be there.
pub fn docker_engine(config: &Config, runtime: Handle) -> DockerEngine {
    let driver = config.plugin_socket.file_stem().unwrap_or_default().to_string_lossy();
    DockerEngine::new(config.docker_socket.clone(), &driver, runtime)
}

fn guard() -> Result<Guard, Problem> {
    // The file itself, not the link: the guard may be started after an upgrade has replaced the binary, and must work then.
    let binary: PathBuf =
        std::env::current_exe().map_err(|error| failed("/proc/self/exe", &error, "mount /proc"))?;
    Ok(Guard::new(vec![binary.into(), "guard".into()]))
}

/// Where tests end the process; in a release build, nowhere.
fn faults() -> Result<Faults, Problem> {
    let wanted =
        std::env::var("EVERHOLD_FAULT").ok().filter(|name| cfg!(debug_assertions) && !name.is_empty());
    let Some(name) = wanted else { return Ok(Faults::None) };
    Fault::named(&name).map(Faults::Abort).ok_or_else(|| {
        Problem::new(
            ErrorKind::InvalidInput,
            format!("EVERHOLD_FAULT={name} is no fault point"),
            "correct it",
        )
    })
}

fn open(config: &Config, containers: Arc<dyn Containers>) -> Result<Arc<Engine>, Problem> {
    let settings = config.settings();
    let tracking = tracking(&settings)?;
    let devices: Arc<dyn storage::Devices> = Arc::clone(&tracking) as _;
    let drivers =
        Drivers::for_host(config.allowed_paths.clone(), config.off_limits(), config.tool_deadline, devices);
    let parts = Parts {
        settings,
        drivers,
        containers,
        clock: Arc::new(SystemClock),
        guard: Some(guard()?),
        tracking,
        faults: faults()?,
    };
    let (engine, repairs) = Engine::open(parts).map_err(Problem::from)?;
    for repair in repairs {
        match repair.done {
            true => tracing::warn!(volume = repair.volume, "{}", repair.what),
            false => tracing::error!(volume = repair.volume, "{}", repair.what),
        }
    }
    // Without it volumes work all the same; it is tried again at the next start.
    if let Err(error) = engine.vaults().make_local() {
        tracing::error!(%error, next = error.next_step(), "the vault `local` was not made");
    }
    Ok(Arc::new(engine))
}

fn tracking(settings: &engine::Settings) -> Result<Arc<Tracking>, Problem> {
    Tracking::at(&settings.history.tracking)
        .map(Arc::new)
        .map_err(|error| failed("threads", &error, "raise the limit of tasks"))
}

/// Done when the daemon stops.
fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopping = stop.subscribe();
    async move {
        while !*stopping.borrow_and_update() {
            if stopping.changed().await.is_err() {
                // The sender has gone, which is a stop too.
                return;
            }
        }
    }
}

fn serve_docker(
    config: &Config,
    runtime: &Runtime,
    docker: DockerEngine,
    engine: &Arc<Engine>,
    metrics: &Arc<Metrics>,
    stop: &watch::Sender<bool>,
) -> Result<[JoinHandle<()>; 2], Problem> {
    let socket = runtime.block_on(plugin::bind(&config.plugin_socket)).map_err(|error| {
        Problem::new(
            ErrorKind::Conflict,
            error.to_string(),
            "stop the other one, or name another socket with --plugin-socket",
        )
    })?;
    let newly = Arc::new(NewVolumes::default());
    let settings = plugin::Settings { call_deadline: config.call_deadline, ..plugin::Settings::default() };
    let metrics = Arc::clone(metrics);
    let plugin = plugin::Plugin::new(Arc::clone(engine), Arc::clone(&newly), settings)
        .observed_by(Arc::new(move |verb, result, took| metrics.observe(verb, result, took)));
    Ok([
        runtime.spawn(plugin::serve(socket, plugin, stopped(stop))),
        runtime.spawn(docker::follow_labels(docker, Arc::clone(engine), newly, stopped(stop))),
    ])
}

fn serve_api(
    config: &Config,
    runtime: &Runtime,
    engine: &Arc<Engine>,
    metrics: Arc<Metrics>,
    stop: &watch::Sender<bool>,
) -> Result<JoinHandle<()>, Problem> {
    let gid = config.api_group.as_deref().map(group).transpose()?;
    let listener = api::bind(&config.api_socket, gid).map_err(|error| {
        Problem::new(ErrorKind::Conflict, error.to_string(), "name another socket with --socket")
    })?;
    let state = AppState::new(Arc::clone(engine), metrics, config.api_deadline, SystemClock.now());
    let shutdown = stopped(stop);
    Ok(runtime.spawn(async move {
        if let Err(error) = api::serve(listener, state, shutdown).await {
            tracing::error!(%error, "the API ended");
        }
    }))
}

fn group(group: &str) -> Result<u32, Problem> {
    let wrong = |why: String| {
        Problem::new(
            ErrorKind::InvalidInput,
            format!("api.group {group:?}: {why}"),
            "correct the configuration",
        )
    };
    match group.parse() {
        Ok(gid) => Ok(gid),
        Err(_) => linux::host::group_id(group)
            .map_err(|error| wrong(error.to_string()))?
            .ok_or_else(|| wrong("this host has no such group".to_owned())),
    }
}

/// Lets what is at work finish, for a while.
async fn finish(tasks: Vec<JoinHandle<()>>) {
    let all = async {
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a server ended with a panic");
            }
        }
    };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!(
            "some requests are still at work; what they began is finished or undone at the next start"
        );
    }
}

/// Lets held writers go on. Thawing can hang like anything that asks a file system; the guard thaws then.
fn release(engine: &Arc<Engine>) {
    let (done, wait) = std::sync::mpsc::channel();
    let engine = Arc::clone(engine);
    std::thread::spawn(move || {
        engine.release_all();
        // Nobody waits any more if this took too long.
        done.send(()).unwrap_or_default();
    });
    if wait.recv_timeout(RELEASE).is_err() {
        tracing::warn!("held writers were not let go in time; the guard sees to it");
    }
}

fn remove_socket(config: &Config) {
    if let Err(error) = std::fs::remove_file(&config.api_socket) {
        tracing::warn!(socket = %config.api_socket.display(), %error, "could not be removed");
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
