//! What verbs on whole containers have in common: the daemon's volumes, the process that stands by, and how plans and results read.

use super::{Outcome, Session};
use crate::config::Config;
use crate::output::human::size;
use crate::output::progress::Bar;
use crate::output::{Output, Tone, plain};
use api::Client;
use api::v1::{Attach, Create, Pool, Problem};
use containers::relocate::{self, Applied, Plan, Source};
use containers::{Error, Event, Journal, Tools, Volumes};
use docker::Api;
use model::ErrorKind;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// For how long the process that stands by goes on trying.
const TRIES: Duration = Duration::from_secs(600);
/// And how often.
const EACH: Duration = Duration::from_secs(1);

/// As the command line says it.
pub fn problem(error: Error) -> Problem {
    Problem::new(error.kind, plain_lines(&error.what), error.next).with_data_state(error.state)
}

fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// The engine of this configuration.
pub fn engine(socket: &Path) -> Result<Api, Error> {
    Api::new(socket.to_owned()).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            format!("no threads: {error}"),
            "free memory or descriptors, then try again",
        )
    })
}

/// Where journals are.
pub fn journals(config: &Config) -> PathBuf {
    config.state.join("relocations")
}

/// The volumes of the daemon that listens on a socket.
pub struct DaemonVolumes {
    client: Client,
    runtime: Runtime,
    driver: String,
    /// The pool of volumes that nobody has chosen one for.
    pool: String,
}

impl DaemonVolumes {
    /// They are asked for when they are needed.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            Error::new(ErrorKind::Internal, format!("no runtime: {error}"), "free memory, then try again")
        })?;
        let driver = config.plugin_socket.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let pool = config.defaults.pool.to_string();
        Ok(Self { client: Client::new(config.api_socket.clone()), runtime, driver, pool })
    }

    fn ask<T>(&self, question: impl Future<Output = Result<T, Problem>>) -> Result<T, Error> {
        self.runtime.block_on(question).map_err(|problem| Error {
            kind: problem.kind(),
            what: problem.detail,
            state: problem.data_state,
            next: problem.next,
        })
    }

    fn pool(&self) -> Result<Option<Pool>, Error> {
        Ok(self.ask(self.client.pools())?.pools.into_iter().find(|pool| pool.name == self.pool))
    }

    fn unless_absent<T>(
        &self,
        question: impl Future<Output = Result<T, Problem>>,
    ) -> Result<Option<T>, Error> {
        match self.ask(question) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Volumes for DaemonVolumes {
    fn driver(&self) -> &str {
        &self.driver
    }

    fn exists(&self, name: &str) -> Result<bool, Error> {
        Ok(self.unless_absent(self.client.inspect(name))?.is_some())
    }

    fn room(&self) -> Result<u64, Error> {
        Ok(self.pool()?.map_or(0, |pool| pool.free.saturating_sub(pool.reserve)))
    }

    fn place(&self) -> Result<Option<PathBuf>, Error> {
        Ok(self.pool()?.map(|pool| pool.path.into()))
    }

    fn create(&self, name: &str, bytes: u64) -> Result<(), Error> {
        let usual = model::Size::from_gib(10).bytes();
        // The daemon's own size unless that is too small.
        let options = if bytes > usual { vec![("size".to_owned(), bytes.to_string())] } else { Vec::new() };
        let request =
            Create { name: name.to_owned(), options: api::v1::Pairs(options), labels: Default::default() };
        self.ask(self.client.create(&request)).map(drop)
    }

    fn mount(&self, name: &str, r#use: &str) -> Result<PathBuf, Error> {
        let request = Attach { id: Some(r#use.to_owned()), ..Attach::default() };
        Ok(self.ask(self.client.attach(name, &request))?.path.into())
    }

    fn unmount(&self, name: &str, r#use: &str) -> Result<(), Error> {
        self.unless_absent(self.client.detach(name, r#use)).map(drop)
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.unless_absent(self.client.remove(name, false)).map(drop)
    }

    fn rename(&self, name: &str, to: &str) -> Result<(), Error> {
        self.ask(self.client.rename(name, to)).map(drop)
    }
}

/// The process that brings containers back should this one be killed.
struct StandBy {
    process: Child,
    journal: PathBuf,
}

impl Drop for StandBy {
    fn drop(&mut self) {
        // The end of its input tells it to look. With no journal there, it ends; with one, there is something left to bring back,
        // and it goes on trying after this process has ended.
        drop(self.process.stdin.take());
        if !self.journal.exists()
            && let Err(error) = self.process.wait()
        {
            tracing::debug!(%error, "the process that stands by");
        }
    }
}

fn stand_by(journal: &Path, config: &Config) -> Result<Box<dyn Send>, Error> {
    let failed = |error: std::io::Error| {
        Error::new(
            ErrorKind::Internal,
            format!("no process to stand by: {error}"),
            "free memory or processes, then try again",
        )
    };
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("stand-by").arg(journal).arg("--api-socket").arg(&config.api_socket);
    command.arg("--plugin-socket").arg(&config.plugin_socket);
    // A group of its own: a Ctrl-C on the terminal is for the one that it stands by for.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Box::new(StandBy { process: command.spawn().map_err(failed)?, journal: journal.to_owned() }))
}

/// Waits until who started it has ended, and then brings back what that one had begun.
#[derive(Debug, clap::Args)]
pub struct StandByArgs {
    journal: PathBuf,
    #[arg(long)]
    api_socket: PathBuf,
    #[arg(long)]
    plugin_socket: PathBuf,
}

impl StandByArgs {
    /// Runs until there is nothing left to do.
    pub fn run(self, socket: Option<&Path>) -> Outcome {
        if faults().any(|fault| fault == "stand-by") {
            return Ok(ExitCode::FAILURE);
        }
        let mut sink = Vec::new();
        // However its input ends, the other one is gone.
        std::io::stdin().lock().read_to_end(&mut sink).unwrap_or_default();
        let overrides = crate::config::Overrides {
            plugin_socket: Some(self.plugin_socket),
            ..crate::config::Overrides::default()
        };
        let config = super::load(&overrides, Some(socket.unwrap_or(&self.api_socket)))?;
        let began = Instant::now();
        loop {
            match self::settle(&self.journal, &config) {
                Ok(()) => return Ok(ExitCode::SUCCESS),
                Err(error) if began.elapsed() > TRIES => return Err(problem(error)),
                Err(_) => std::thread::sleep(EACH),
            }
        }
    }
}

fn settle(journal: &Path, config: &Config) -> Result<(), Error> {
    let Some(journal) = Journal::take_over(journal)? else { return Ok(()) };
    let api = engine(&journal.record.engine)?;
    containers::recover(journal, &api, &DaemonVolumes::new(config)?).map(drop)
}

/// Where tests end a process; in a release build, nowhere.
fn faults() -> impl Iterator<Item = String> {
    let wanted = if cfg!(debug_assertions) { std::env::var("EVERHOLD_FAULT").ok() } else { None };
    wanted.unwrap_or_default().split(',').map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// At a point of this name. `wait-NAME` stops the process there until it is told to go on (SIGCONT).
fn fault(name: &str) {
    for fault in faults() {
        if fault == name {
            std::process::abort();
        }
        if fault.strip_prefix("wait-") == Some(name) {
            // The shell's own signal: nothing else here sends any.
            let stopped = Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status();
            assert!(stopped.is_ok_and(|status| status.success()), "kill -STOP");
        }
    }
}

/// Finishes or undoes what is interrupted, wherever nobody is at it.
///
/// # Errors
/// The first that could not be cleared up yet.
pub fn settle_all(config: &Config) -> Result<(), Error> {
    let volumes = DaemonVolumes::new(config)?;
    for (name, outcome) in containers::recover_all(&journals(config), &|socket| engine(socket), &volumes)? {
        let outcome = outcome.map_err(|error| error.while_doing(&name))?;
        tracing::info!(relocation = name, ?outcome, "an interrupted relocation is cleared up");
    }
    Ok(())
}

/// A verb with all that it works with: it says how it goes, and is looked after by a process that stands by. `name` is that of
/// its points.
pub fn with_tools<Step, T>(
    config: &Config,
    api: &Api,
    volumes: &DaemonVolumes,
    name: fn(Step) -> &'static str,
    verb: impl FnOnce(&Tools<'_, Step>) -> T,
) -> T {
    let bar = Bar::new();
    let done = verb(&Tools {
        api,
        volumes,
        journals: &journals(config),
        at: &|step| fault(name(step)),
        guard: &|journal| stand_by(journal, config),
        say: &|event| show(&bar, event),
    });
    bar.clear();
    done
}

/// On the terminal.
pub fn show(bar: &Bar, event: Event) {
    match event {
        Event::Stage(stage) => bar.stage(&stage),
        Event::Copied { done, total } => bar.far(done, total),
    }
}

/// Does what a plan says, and says how it goes.
pub fn apply(
    session: &Session,
    config: &Config,
    api: &Api,
    volumes: &DaemonVolumes,
    plan: &Plan,
) -> Result<Applied, Problem> {
    let applied =
        with_tools(config, api, volumes, relocate::Step::name, |tools| relocate::apply(plan, tools))
            .map_err(problem)?;
    session.out.show(&applied, |out| say_applied(out, plan, &applied))?;
    Ok(applied)
}

/// Prints a plan for people.
pub fn say_plan(out: &Output, plan: &Plan) {
    for moving in &plan.moves {
        let from = match &moving.source {
            Source::Layer { container, path } => {
                format!("{} in the writable layer of {container}", path.display())
            }
            Source::Memory { container, path } => format!("{} in the memory of {container}", path.display()),
            Source::Directory { volume: Some(volume), path } => {
                format!("the volume {volume} ({})", path.display())
            }
            Source::Directory { volume: None, path } => path.display().to_string(),
        };
        out.line(&format!(
            "{} {} ({} in {} files) to the new volume {}",
            out.tone("copy    ", Tone::Head),
            plain(&from),
            size(Some(moving.bytes)),
            moving.files,
            plain(&moving.volume)
        ));
    }
    for holding in &plan.holders {
        let at: Vec<String> = holding
            .volumes
            .iter()
            .map(|placed| format!("{} at {}", placed.volume, placed.destination.display()))
            .collect();
        let how = if holding.running { "pause it for the last difference, then " } else { "" };
        out.line(&format!(
            "{} {}: {how}make it anew with the same settings and {}; keep the old one as {}",
            out.tone("replace ", Tone::Head),
            plain(&holding.name),
            plain(&at.join(", ")),
            plain(&holding.kept)
        ));
    }
    for note in &plan.notes {
        out.line(&format!("{} {}", out.tone("note    ", Tone::Warn), plain(note)));
    }
}

fn say_applied(out: &Output, plan: &Plan, applied: &Applied) {
    let volumes = applied.volumes.join(", ");
    out.line(&format!(
        "{} {} are on {}",
        out.tone("done    ", Tone::Good),
        size(Some(applied.bytes)),
        plain(&volumes)
    ));
    if plan.holders.iter().any(|holding| holding.running) {
        out.line(&format!(
            "         paused for {:.0} ms ({} copied meanwhile), running again after {:.0} ms",
            applied.paused * 1000.0,
            size(Some(applied.bytes_while_paused)),
            applied.away * 1000.0
        ));
    }
    for (name, kept) in applied.containers.iter().zip(&applied.kept) {
        out.line(&format!(
            "         the old container is kept as {kept}: `everhold rescue {name} --undo` goes back to it, \
             `everhold rescue {name} --discard-old` removes it"
        ));
    }
    for holding in plan.holders.iter().filter(|holding| holding.is_of_compose()) {
        out.line(&format!("{} {}", out.tone("note    ", Tone::Warn), plain(&holding.compose_takes_both())));
    }
    if let Some(kept) = &plan.name_kept_as {
        out.line(&format!(
            "         the old data is kept in the volume {kept}: `docker volume rm {kept}` removes it"
        ));
    }
}
