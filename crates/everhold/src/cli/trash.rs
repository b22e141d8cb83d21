//! `everhold trash …`

use super::{Outcome, Session};
use crate::output::Table;
use crate::output::human::{size, span};
use crate::output::progress::waiting;
use api::v1::{self, Problem, Restore};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use engine::{Clock, SystemClock};
use model::ErrorKind;
use std::io::{IsTerminal, stdin};
use std::process::ExitCode;

/// Restore what was removed, or destroy it for good.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What can be restored, newest first
    #[command(visible_alias = "list")]
    Ls,
    /// Bring a volume back as it was
    Restore {
        /// Its name, or its ID where several removed volumes had that name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Another name, when its own has been taken meanwhile
        #[arg(long = "as", value_name = "NEW")]
        as_name: Option<String>,
    },
    /// Destroy one removed volume for good
    Rm {
        /// Its name or ID
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Only say what would be destroyed
        #[arg(long)]
        dry_run: bool,
    },
    /// Destroy everything in the trash for good
    Empty {
        /// Only say what would be destroyed
        #[arg(long)]
        dry_run: bool,
        /// Don't ask; needed where there is no terminal to ask on
        #[arg(long, short)]
        yes: bool,
    },
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Ls => {
                let trash = session.client.trash().await?;
                session.out.show(&trash, |out| out.table(&table(&trash.volumes), "The trash is empty."))?;
            }
            Self::Restore { name, as_name } => {
                let request = Restore { r#as: as_name };
                let restored = waiting("restoring", session.client.restore(&name, &request)).await?;
                session.out.show(&restored, |out| out.line(&format!("{} is back.", restored.volume.name)))?;
            }
            Self::Rm { name, dry_run } => {
                let destroyed = waiting("destroying", session.client.destroy(&name, dry_run)).await?;
                say(session, &destroyed)?;
            }
            Self::Empty { dry_run, yes } => {
                if !dry_run && !yes && !agreed(session).await? {
                    session.out.note("Nothing was destroyed.");
                    return Ok(ExitCode::SUCCESS);
                }
                let destroyed = waiting("emptying the trash", session.client.empty_trash(dry_run)).await?;
                say(session, &destroyed)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks before everything goes.
async fn agreed(session: &Session) -> Result<bool, Problem> {
    if !stdin().is_terminal() {
        return Err(Problem::new(
            ErrorKind::InvalidInput,
            "emptying the trash destroys volumes for good, and there is no terminal to ask on",
            "see what would go with `--dry-run`, then add `--yes`",
        ));
    }
    let trash = session.client.trash().await?;
    if trash.volumes.is_empty() {
        return Ok(true);
    }
    let names: Vec<_> = trash.volumes.iter().map(|volume| volume.name.as_str()).collect();
    session.out.note(&format!("This destroys for good: {}. Type `yes` to go on:", names.join(", ")));
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(|error| {
        Problem::new(ErrorKind::InvalidInput, format!("standard input: {error}"), "add `--yes`")
    })?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

fn say(session: &Session, destroyed: &v1::Destroyed) -> Result<(), Problem> {
    session.out.show(destroyed, |out| {
        let verb = match destroyed.result {
            v1::Outcome::WouldDestroy => "would be destroyed",
            v1::Outcome::Destroyed => "destroyed",
            _ => {
                out.line("There was nothing in the trash.");
                return;
            }
        };
        for volume in &destroyed.volumes {
            out.line(&format!("{} ({}): {verb}", volume.name, volume.id));
        }
    })
}

fn table(volumes: &[v1::Volume]) -> Table {
    let now = SystemClock.now();
    let mut table = Table::new(["NAME", "DRIVER", "SIZE", "REMOVED", "DESTROYED IN", "ID"]);
    for volume in volumes {
        let (removed, left) = match volume.trashed {
            Some(trashed) => (format!("{} ago", span(trashed.at, now)), span(now, trashed.expires)),
            None => (String::new(), String::new()),
        };
        table.row([
            volume.name.clone(),
            volume.driver.clone(),
            size(volume.size),
            removed,
            left,
            volume.id.clone(),
        ]);
    }
    table
}
