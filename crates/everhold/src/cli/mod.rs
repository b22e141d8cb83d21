//! The command line: one file for each group of commands. All but a few ask the daemon over its API.

mod adopt;
mod audit;
mod container;
mod daemon;
mod doctor;
pub mod guard;
#[cfg(test)]
mod help;
mod history;
mod pool;
mod recover;
mod relocation;
mod rescue;
mod shell;
mod status;
mod trash;
mod vault;
mod volume;

pub use relocation::settle_all;

use crate::config::Config;
use crate::output::{Output, plain};
use api::Client;
use api::v1::Problem;
use clap::{Parser, Subcommand};
use model::ErrorKind;
use std::fmt::Write;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the daemon listens unless said otherwise.
const DEFAULT_SOCKET: &str = "/run/everhold/everhold.sock";

/// Volumes that outlive their containers.
///
/// Everhold keeps what containers forget: `docker volume create -d everhold pgdata`, and the data outlives the container, the
/// daemon and the operator's mistakes. What is removed goes to the trash first.
#[derive(Debug, Parser)]
#[command(name = "everhold", version, after_long_help = exit_codes(), max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Socket of the daemon's API [default: /run/everhold/everhold.sock]
    #[arg(long, global = true, value_name = "PATH", env = "EVERHOLD_SOCKET", hide_env_values = true)]
    socket: Option<PathBuf>,
    /// Print JSON, in the shapes of the REST API; errors as problem details on standard error
    #[arg(long, global = true)]
    json: bool,
    /// No colours; they appear only on a terminal, and not when NO_COLOR is set
    #[arg(long, global = true)]
    no_color: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What would be lost if containers were removed now; nothing is changed, and no daemon is needed
    Audit(audit::Audit),
    Rescue(rescue::Rescue),
    Adopt(adopt::Adopt),
    #[command(subcommand)]
    Container(container::Command),
    /// Create, look at, change and remove volumes
    #[command(subcommand, visible_alias = "vol")]
    Volume(volume::Command),
    /// Restore what was removed, or destroy it for good
    #[command(subcommand)]
    Trash(trash::Command),
    Protect(history::ProtectArgs),
    /// How the histories of all volumes are doing
    Protection,
    History(history::HistoryArgs),
    #[command(subcommand)]
    Snapshot(history::SnapshotCommand),
    Restore(history::RestoreArgs),
    Clone(history::CloneArgs),
    Verify(history::VerifyArgs),
    /// Where volumes are put
    #[command(subcommand)]
    Pool(pool::Command),
    /// Where histories are kept
    #[command(subcommand)]
    Vault(vault::Command),
    /// Check this host: what was found, what is recommended, why, and the command to get there
    Doctor(doctor::Doctor),
    /// The daemon at a glance
    Status,
    /// Run the daemon in the foreground
    Daemon(daemon::Daemon),
    /// Rebuild a damaged catalog while the daemon is stopped
    Recover(recover::Recover),
    /// Print a completion script for a shell
    Completions(shell::Completions),
    /// Write man pages
    #[command(hide = true)]
    Man(shell::Man),
    /// Bring containers back when a rescue or an adoption is killed; started by them
    #[command(hide = true)]
    StandBy(relocation::StandByArgs),
    /// Thaw file systems when the daemon dies; started by the daemon
    #[command(hide = true)]
    Guard,
}

/// What a command is run with.
pub struct Session {
    client: Client,
    out: Output,
}

type Outcome = Result<ExitCode, Problem>;

fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n   0  done, or nothing had to be done\n");
    for kind in ErrorKind::all() {
        let (code, word) = (kind.exit_code(), kind.code());
        let also = match kind {
            ErrorKind::Internal => "; `audit`, `doctor` or `verify` found something wrong",
            ErrorKind::InvalidInput => "; the command line is wrong",
            _ => "",
        };
        // Writing to a string does not fail.
        writeln!(text, "  {code:>2}  {word}: {}{also}", kind.title()).unwrap_or_default();
    }
    text
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let out = Output::new(global.json, global.no_color);
    let socket = global.socket.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    let session = Session { client: Client::new(socket), out };
    let outcome = match command {
        Command::Audit(audit) => audit.run(&session, global.socket.as_deref()),
        Command::Rescue(rescue) => rescue.run(&session, global.socket.as_deref()),
        Command::Adopt(adopt) => adopt.run(&session, global.socket.as_deref()),
        Command::Container(command) => command.run(&session, global.socket.as_deref()),
        Command::StandBy(waiting) => waiting.run(global.socket.as_deref()),
        Command::Volume(command) => online(command.run(&session)),
        Command::Trash(command) => online(command.run(&session)),
        Command::Protect(command) => online(command.run(&session)),
        Command::Protection => online(history::protection(&session)),
        Command::History(command) => online(command.run(&session)),
        Command::Snapshot(command) => online(command.run(&session)),
        Command::Restore(command) => online(command.run(&session)),
        Command::Clone(command) => online(command.run(&session)),
        Command::Verify(command) => online(command.run(&session)),
        Command::Pool(command) => online(command.run(&session)),
        Command::Vault(command) => online(command.run(&session)),
        Command::Status => online(status::run(&session)),
        Command::Doctor(doctor) => online(doctor.run(&session, global.socket.as_deref())),
        Command::Daemon(daemon) => daemon.run(global.socket.as_deref()),
        Command::Recover(recover) => recover.run(&session.out),
        Command::Completions(completions) => completions.run(&session.out),
        Command::Man(man) => man.run(),
        Command::Guard => return guard::run(),
    };
    match outcome {
        Ok(_) if session.out.has_failed() => ExitCode::FAILURE,
        Ok(code) => code,
        Err(problem) => {
            session.out.problem(&problem);
            ExitCode::from(problem.exit_code())
        }
    }
}

/// Runs a command that talks to the daemon.
fn online(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Problem::new(
            ErrorKind::Internal,
            format!("no runtime: {error}"),
            "free memory or descriptors, then try again",
        )
    })?;
    runtime.block_on(work)
}

/// `KEY=VALUE` of an option or label.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// `a=1,b=2`, for one cell of a table.
fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{}={}", plain(key), plain(value))).collect::<Vec<_>>().join(",")
}

fn load(overrides: &crate::config::Overrides, socket: Option<&std::path::Path>) -> Result<Config, Problem> {
    Config::load(overrides, socket)
}
