//! `everhold protect`, `history`, `snapshot`, `restore`, `clone` and `verify`.

use super::{Outcome, Session};
use crate::output::Table;
use crate::output::human::{size, span, time};
use crate::output::progress::waiting;
use api::v1::{self, CloneVolume, Problem, Protect, RestoreCut, SnapshotCreate, Verify};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use engine::{Clock, SystemClock};
use jiff::tz::TimeZone;
use model::{At, ErrorKind};
use std::io::{IsTerminal, stdin};
use std::process::ExitCode;
use std::time::Duration;

/// These take as long as the data is large.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

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
    /// The volume
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// Only cuts from this moment on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// All of them, not only the newest 40 and the named ones
    #[arg(long)]
    all: bool,
}

const ROWS: usize = 40;

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
        let mut history = session.client.history(&self.volume).await?;
        history.cuts.retain(|cut| since.is_none_or(|since| cut.time >= since));
        session.out.show(&history, |out| {
            let mut table = Table::new(["CUT", "TIME", "AGE", "STORED", "SNAPSHOTS", "VERIFIED"]);
            let now = SystemClock.now();
            let mut hidden = 0;
            for (at, cut) in history.cuts.iter().rev().enumerate() {
                if at >= ROWS && !self.all && cut.snapshots.is_empty() {
                    hidden += 1;
                    continue;
                }
                let verified = match cut.verified_whole {
                    Some(true) => "whole",
                    Some(false) => "DAMAGED",
                    None => "",
                };
                table.row([
                    format!("#{}", cut.point),
                    time(cut.time),
                    span(cut.time, now),
                    size(Some(cut.stored)),
                    cut.snapshots.join(","),
                    verified.to_owned(),
                ]);
            }
            out.table(&table, "No cut yet.");
            if hidden > 0 {
                out.line(&format!("… and {hidden} older ones (--all)"));
            }
            for gap in &history.gaps {
                out.line(&format!("No cuts from {} to {}: {}", time(gap.from), time(gap.to), gap.why));
            }
            out.line(&format!(
                "{} cuts, {} in vault {}",
                history.cuts.len(),
                size(Some(history.stored)),
                history.vault
            ));
        })?;
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
                let mut history = client.history(&volume).await?;
                history.cuts.retain(|cut| !cut.snapshots.is_empty());
                session.out.show(&history, |out| {
                    let mut table = Table::new(["SNAPSHOT", "CUT", "TIME"]);
                    for cut in &history.cuts {
                        table.row([cut.snapshots.join(","), format!("#{}", cut.point), time(cut.time)]);
                    }
                    out.table(&table, "No snapshots.");
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
    /// The volume
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// A time (`2m ago`, `14:03:05`, RFC 3339), a cut (`#17`) or a snapshot
    #[arg(long, value_name = "TIME|CUT|SNAPSHOT", value_parser = NonEmptyStringValueParser::new())]
    at: String,
    /// Make a new volume, and leave this one as it is
    #[arg(long = "as", value_name = "NEW", value_parser = NonEmptyStringValueParser::new())]
    as_name: Option<String>,
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
        if self.as_name.is_none() && !self.yes {
            self.ask(session, &at)?;
        }
        let request = RestoreCut {
            at: at.to_string(),
            as_name: self.as_name.clone(),
            stop_containers: self.stop_containers,
        };
        let restored = waiting("restoring", client.restore_cut(&self.volume, &request)).await?;
        session.out.show(&restored, |out| {
            out.line(&format!(
                "{}: as it was at {} (cut #{})",
                restored.name,
                time(restored.time),
                restored.point
            ));
            if !restored.restarted.is_empty() {
                out.line(&format!("Started again: {}", restored.restarted.join(", ")));
            }
        })?;
        if let Some(undo) = restored.undo {
            session.out.note(&format!("To undo it: everhold restore {} --at '#{undo}'", self.volume));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn ask(&self, session: &Session, at: &At) -> Result<(), Problem> {
        let refused = |why: &str| {
            Problem::new(ErrorKind::InvalidInput, why, "add `--yes`, or `--as NEW` for a new volume")
        };
        if !stdin().is_terminal() {
            return Err(refused(
                "a restore in place rewrites the volume, and there is no terminal to ask on",
            ));
        }
        session.out.note(&format!(
            "This brings {} back to {at}. Its present state is cut first, so that this can be undone. Type `yes` to go on:",
            self.volume
        ));
        let mut answer = String::new();
        stdin().read_line(&mut answer).map_err(|error| refused(&error.to_string()))?;
        if answer.trim().eq_ignore_ascii_case("yes") { Ok(()) } else { Err(refused("nothing was restored")) }
    }
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
        let cloned = waiting("cloning", client.clone_volume(&self.volume, &request)).await?;
        session.out.show(&cloned, |out| {
            out.line(&format!(
                "{}: as {} was at {} ({})",
                cloned.name,
                self.volume,
                time(cloned.time),
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
        let mut whole = true;
        for volume in volumes {
            let verified: v1::Verified =
                waiting("verifying", client.verify(&volume, &Verify { at: at.clone() })).await?;
            whole &= verified.problems.is_empty();
            session.out.show(&verified, |out| {
                let cut = format!("{}: cut #{} of {}", verified.name, verified.point, time(verified.time));
                if verified.problems.is_empty() {
                    out.line(&format!(
                        "{cut}: whole, {} blocks, file system {}",
                        verified.blocks, verified.file_system
                    ));
                }
                for problem in &verified.problems {
                    out.line(&format!("{cut}: {problem}"));
                }
            })?;
        }
        Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
