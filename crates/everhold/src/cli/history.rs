//! `everhold protect`, `history`, `snapshot`, `restore`, `clone` and `verify`.

mod show;

use super::{Outcome, Session};
use crate::output::human::{moment as moment_of, size, span};
use crate::output::progress::{following, waiting};
use crate::output::{Table, Tone, plain};
use api::Client;
use api::v1::{self, CloneVolume, Problem, Protect, RestoreCut, RestoreStored, SnapshotCreate, Verify};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use engine::{Clock, SystemClock};
use jiff::tz::TimeZone;
use model::{At, ErrorKind};
use std::io::{IsTerminal, stdin};
use std::process::ExitCode;
use std::time::Duration;

/// These take as long as the data is large.
pub(super) const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A moment as people write it, as the daemon takes it.
fn moment(text: &str) -> Result<At, Problem> {
    let now = SystemClock.now().to_zoned(TimeZone::system());
    At::parse(text, &now).map_err(|error| {
        Problem::new(
            ErrorKind::InvalidInput,
            error.to_string(),
            "for example `--at '2m ago'`, `--at 14:03:05` or `--at '#17'`",
        )
    })
}

/// Keep a history of a volume: about one consistent cut a second
#[derive(Debug, Args)]
pub struct ProtectArgs {
    /// The volume
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// The time from one cut to the next, 100ms to 1d
    #[arg(long, conflicts_with = "off")]
    interval: Option<String>,
    /// The vault that the history is in
    #[arg(long, conflicts_with = "off")]
    vault: Option<String>,
    /// Which cuts stay, as INTERVAL:SPAN,…
    #[arg(long, conflicts_with = "off")]
    keep: Option<String>,
    /// Volumes of one group are cut at the same instant; '' leaves it
    #[arg(long, conflicts_with = "off")]
    group: Option<String>,
    /// End it; what is in the vault stays there
    #[arg(long)]
    off: bool,
}

impl ProtectArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        let Self { volume, interval, vault, keep, group, off } = self;
        let done = if off {
            session.client.unprotect(&volume).await?
        } else {
            session.client.protect(&volume, &Protect { interval, vault, keep, group }).await?
        };
        session.out.show(&done, |out| match &done.protection {
            Some(protection) => {
                let word = |text: &Option<String>| text.clone().unwrap_or_default();
                out.line(&format!(
                    "{}: a cut every {} in vault {}, kept {}",
                    done.name,
                    word(&protection.interval),
                    word(&protection.vault),
                    word(&protection.keep)
                ));
            }
            None => out.line(&format!("{}: no more cuts; what is in the vault stays there", done.name)),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// How the histories of all volumes are doing.
pub async fn protection(session: &Session) -> Outcome {
    let protection = session.client.protection().await?;
    session.out.show(&protection, |out| {
        let mut table =
            Table::new(["VOLUME", "VAULT", "EVERY", "NEWEST", "AGE", "WAITING", "FREEZE", "STATE"]);
        let now = SystemClock.now();
        for volume in &protection.volumes {
            let word = |text: &Option<String>| text.clone().unwrap_or_default();
            table.row([
                volume.name.clone(),
                word(&volume.protection.vault),
                word(&volume.protection.interval),
                volume.newest_cut.map_or_else(String::new, |cut| format!("#{cut}")),
                volume.newest_time.map_or_else(String::new, |at| span(at, now)),
                volume.waiting.to_string(),
                volume.last_freeze_ms.map_or_else(String::new, |ms| format!("{ms}ms")),
                volume.trouble.clone().unwrap_or_else(|| volume.method.clone()),
            ]);
        }
        out.table(&table, "No volume is protected.");
        if !protection.unprotected.is_empty() {
            out.line(&format!(
                "Without a history: {} (`everhold protect VOLUME`)",
                protection.unprotected.join(", ")
            ));
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The cuts that a volume can be brought back to
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The volume; with --vault, its name or its ID (`everhold vault histories`)
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// Look into this vault, whatever became of the volume
    #[arg(long, value_name = "VAULT", value_parser = NonEmptyStringValueParser::new())]
    vault: Option<String>,
    /// Only cuts from this moment on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// All of them, not only the newest 40 and the named ones
    #[arg(long)]
    all: bool,
}

/// The history of a volume; with a vault, as it is there.
async fn history_in(client: &Client, vault: Option<&str>, volume: &str) -> Result<v1::History, Problem> {
    let client = client.clone().with_patience(PATIENCE);
    match vault {
        Some(vault) => waiting("reading the history", client.stored_history(vault, volume)).await,
        None => waiting("reading the history", client.history(volume)).await,
    }
}

impl HistoryArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        let since = match self.since.as_deref().map(moment).transpose()? {
            Some(At::Time(time)) => Some(time),
            Some(_) => {
                return Err(Problem::new(
                    ErrorKind::InvalidInput,
                    "--since takes a time",
                    "for example `--since '1h ago'`",
                ));
            }
            None => None,
        };
        let mut history = history_in(&session.client, self.vault.as_deref(), &self.volume).await?;
        let kept = |time| since.is_none_or(|since| time >= since);
        history.cuts.retain(|cut| kept(cut.time));
        history.gaps.retain(|gap| kept(gap.to));
        session.out.show(&history, |out| show::timeline(out, &history, self.all, SystemClock.now()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Named cuts, which stay until they are removed
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Cut now, and name the cut
    Create {
        /// The volume
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        volume: String,
        /// The name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// The named cuts of a volume
    #[command(visible_alias = "list")]
    Ls {
        /// The volume
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        volume: String,
    },
    /// Take the name away; the cut then stays as long as retention keeps it
    Rm {
        /// The volume
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        volume: String,
        /// The name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
}

impl SnapshotCommand {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        let client = session.client.clone().with_patience(PATIENCE);
        match self {
            Self::Create { volume, name } => {
                let made = waiting("cutting", client.snapshot(&volume, &SnapshotCreate { name })).await?;
                session.out.show(&made, |out| {
                    let point = made.cut.as_ref().map_or(0, |cut| cut.point);
                    out.line(&format!("{}: cut #{point} of {volume}", made.name));
                })?;
            }
            Self::Ls { volume } => {
                let snapshots = waiting("reading the history", client.snapshots(&volume)).await?;
                session.out.show(&snapshots, |out| {
                    let table = show::snapshots(&snapshots.snapshots, SystemClock.now());
                    out.table(&table, &format!("{} has no snapshots.", plain(&volume)));
                })?;
            }
            Self::Rm { volume, name } => {
                let gone = client.remove_snapshot(&volume, &name).await?;
                session.out.show(&gone, |out| {
                    out.line(&format!(
                        "{}: {}",
                        gone.name,
                        if gone.changed { "removed" } else { "was not there" }
                    ));
                })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Bring a volume back to a moment, in place or as a new volume
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The volume; with --vault, its name or its ID (`everhold vault histories`)
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// From this vault, whatever became of the volume: it was destroyed, or is another host's
    #[arg(long, value_name = "VAULT", requires = "as_name", value_parser = NonEmptyStringValueParser::new())]
    vault: Option<String>,
    /// A time (`2m ago`, `14:03:05`, RFC 3339), a cut (`#17`) or a snapshot
    #[arg(long, value_name = "TIME|CUT|SNAPSHOT", value_parser = NonEmptyStringValueParser::new())]
    at: String,
    /// Make a new volume, and leave this one as it is
    #[arg(long = "as", value_name = "NEW", value_parser = NonEmptyStringValueParser::new())]
    as_name: Option<String>,
    /// Put the new volume in this pool [default: the one that it was in, where there is one of that name]
    #[arg(long, requires = "vault", value_parser = NonEmptyStringValueParser::new())]
    pool: Option<String>,
    /// Stop the containers that use it, and start them again afterwards
    #[arg(long, conflicts_with = "as_name")]
    stop_containers: bool,
    /// Don't ask; needed in place where there is no terminal to ask on
    #[arg(long, short)]
    yes: bool,
}

impl RestoreArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        let at = moment(&self.at)?;
        let client = session.client.clone().with_patience(PATIENCE);
        let history = history_in(&client, self.vault.as_deref(), &self.volume).await?;
        let cut = show::find(&history, &at);
        if let Some(cut) = cut {
            let (new, stop) = (self.as_name.as_deref(), self.stop_containers);
            let from = self.vault.as_ref().map(|vault| format!("The vault {vault}"));
            session.out.aside(&show::plan(from.as_ref().unwrap_or(&self.volume), new, stop, cut, &at));
        }
        if let (Some(vault), Some(new)) = (&self.vault, &self.as_name) {
            return self.out_of_vault(session, vault, new, &at).await;
        }
        if self.as_name.is_none() && !self.yes {
            agreed(session, &self.volume, &at, cut)?;
        }
        let request = RestoreCut {
            at: at.to_string(),
            as_name: self.as_name.clone(),
            stop_containers: self.stop_containers,
        };
        let target = self.as_name.as_deref().unwrap_or(&self.volume);
        let restore = client.restore_cut(&self.volume, &request);
        let restored = following("restoring", &session.client, target, restore).await?;
        session.out.show(&restored, |out| {
            let which = show::which(restored.point, restored.time, &at);
            let written = size(Some(restored.written));
            out.line(&format!("{}: has {which} ({written} written)", restored.name));
            if !restored.restarted.is_empty() {
                out.line(&format!("Started again: {}", restored.restarted.join(", ")));
            }
            if let Some(undo) = restored.undo {
                let stop = if self.stop_containers { " --stop-containers" } else { "" };
                out.line(&format!("To undo it: everhold restore {} --at '#{undo}'{stop}", restored.name));
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl RestoreArgs {
    async fn out_of_vault(&self, session: &Session, vault: &str, new: &str, at: &At) -> Outcome {
        let client = session.client.clone().with_patience(PATIENCE);
        let request = RestoreStored { at: at.to_string(), as_name: new.to_owned(), pool: self.pool.clone() };
        let restore = client.restore_stored(vault, &self.volume, &request);
        let restored = following("restoring", &session.client, new, restore).await?;
        // It is there, whether or not it can be looked at.
        let made = session.client.inspect(new).await.ok();
        session.out.show(&restored, |out| {
            let which = show::which(restored.point, restored.time, at);
            let written = size(Some(restored.written));
            out.line(&format!("{}: has {which} ({written} written)", restored.name));
            let Some(made) = made else { return };
            out.line(&match made.protection {
                Some(status) => format!(
                    "In pool {}; it has a history of its own in vault {}.",
                    made.volume.pool,
                    status.protection.vault.unwrap_or_default()
                ),
                None => format!(
                    "In pool {}; it has no history, as a vault that is read-only here can't get one: `everhold protect {}` begins one.",
                    made.volume.pool, restored.name
                ),
            });
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks before a volume is rewritten.
fn agreed(session: &Session, volume: &str, at: &At, cut: Option<&v1::Cut>) -> Result<(), Problem> {
    let refused = |why: &str| {
        Problem::new(ErrorKind::InvalidInput, why, "add `--yes`, or `--as NEW` for a new volume")
            .with_data_state("unchanged")
    };
    if !stdin().is_terminal() {
        return Err(refused("a restore in place rewrites the volume, and there is no terminal to ask on"));
    }
    if cut.is_none() {
        // Nobody can agree to a cut that is not known yet.
        return Err(Problem::new(
            ErrorKind::InvalidInput,
            format!("volume {volume} has no cut for {at}"),
            format!("`everhold history {volume}` shows which there are"),
        ));
    }
    session.out.note("Type `yes` to go on:");
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(|error| refused(&error.to_string()))?;
    if answer.trim().eq_ignore_ascii_case("yes") { Ok(()) } else { Err(refused("nothing was restored")) }
}

/// Make a new volume with the content of another
#[derive(Debug, Args)]
pub struct CloneArgs {
    /// The volume
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// The new volume
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    new: String,
    /// As it was at a time, a cut or a snapshot
    #[arg(long, value_name = "TIME|CUT|SNAPSHOT")]
    at: Option<String>,
}

impl CloneArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        let at = self.at.as_deref().map(moment).transpose()?.map(|at| at.to_string());
        let client = session.client.clone().with_patience(PATIENCE);
        let request = CloneVolume { to: self.new, at };
        let clone = client.clone_volume(&self.volume, &request);
        let cloned = following("cloning", &session.client, &request.to, clone).await?;
        session.out.show(&cloned, |out| {
            out.line(&format!(
                "{}: as {} was at {} ({})",
                cloned.name,
                self.volume,
                moment_of(cloned.time),
                cloned.how
            ));
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Restore a cut to scratch, and check every block and the file system
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The volume
    #[arg(required_unless_present = "all", value_parser = NonEmptyStringValueParser::new())]
    volume: Option<String>,
    /// Every protected volume
    #[arg(long, conflicts_with_all = ["volume", "at"])]
    all: bool,
    /// A time, a cut or a snapshot; the newest cut if absent
    #[arg(long, value_name = "TIME|CUT|SNAPSHOT")]
    at: Option<String>,
}

impl VerifyArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        let at = self.at.as_deref().map(moment).transpose()?.map(|at| at.to_string());
        let client = session.client.clone().with_patience(PATIENCE);
        let volumes = match self.volume {
            Some(volume) => vec![volume],
            None => client.protection().await?.volumes.into_iter().map(|volume| volume.name).collect(),
        };
        let one = volumes.len() == 1;
        if volumes.is_empty() {
            session.out.aside("No volume is protected.");
        }
        let mut whole = true;
        for volume in volumes {
            let verifying = format!("verifying {}", plain(&volume));
            let request = Verify { at: at.clone() };
            let verify = client.verify(&volume, &request);
            let verified = match following(&verifying, &session.client, &volume, verify).await {
                Ok(verified) => verified,
                Err(problem) if one => return Err(problem),
                Err(problem) => {
                    // The others are to be looked at all the same.
                    session.out.problem(&problem);
                    whole = false;
                    continue;
                }
            };
            whole &= verified.problems.is_empty();
            session.out.show(&verified, |out| {
                let cut =
                    format!("{}: cut #{} of {}", verified.name, verified.point, moment_of(verified.time));
                if verified.problems.is_empty() {
                    out.line(&format!(
                        "{cut}: whole, {} blocks, file system {}",
                        verified.blocks,
                        plain(&verified.file_system)
                    ));
                }
                for problem in &verified.problems {
                    out.line(&format!("{cut}: {}", out.tone(&plain(problem), Tone::Bad)));
                }
            })?;
        }
        Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn read(line: &str) -> Result<Command, String> {
        let words = std::iter::once("everhold").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_meant_is_understood() {
        for line in [
            "protect data",
            "protect data --interval 500ms --vault far --keep 1s:10m,1h:7d --group shop",
            "protect data --off",
            "history data --since 14:03 --all --json",
            "history data --vault far",
            "snapshot create data release",
            "snapshot ls data",
            "snapshot list data",
            "snapshot rm data release",
            "restore data --at 2m",
            "restore data --at #17 --stop-containers -y",
            "restore data --at release --as copy",
            "restore data --vault far --at release --as copy --pool fast",
            "clone data copy",
            "clone data copy --at yesterday",
            "verify data --at #17",
            "verify --all",
        ] {
            assert!(read(line).is_ok(), "{line}: {:?}", read(line));
        }
        let Ok(Command::Restore(restore)) = read("restore data --at release --as copy") else { panic!() };
        assert_eq!((restore.at.as_str(), restore.as_name.as_deref()), ("release", Some("copy")));
        // What was removed comes back from the trash, and what was changed from the history.
        assert!(matches!(read("trash restore data"), Ok(Command::Trash(_))));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "protect",
            "protect data --off --interval 1s",
            "protect data --off --group shop",
            "history",
            "snapshot data release",
            "snapshot create data",
            "restore data",
            "restore --at 2m",
            "restore data --vault far --at 2m",
            "restore data --at 2m --as copy --pool fast",
            "restore data --at 2m --as copy --stop-containers",
            "clone data",
            "verify",
            "verify data --all",
            "verify --all --at 2m",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
