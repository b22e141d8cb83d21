//! `everhold pool …`

use super::{Outcome, Session, labels};
use crate::output::Table;
use crate::output::human::{share, size};
use crate::output::progress::waiting;
use api::v1;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use std::process::ExitCode;

/// Where volumes are put.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pools with their space, their reserve and what they have promised
    #[command(visible_alias = "list")]
    Ls,
    /// Let the held writers of a full pool go on; they get I/O errors when the last block is gone
    Release {
        /// The pool's name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Ls => {
                let pools = waiting("looking at the pools", session.client.pools()).await?;
                session.out.show(&pools, |out| {
                    out.table(&table(&pools.pools), "There are no pools.");
                    pools.problems.iter().for_each(|problem| out.problem(problem));
                })?;
                let worst = pools.problems.first().map_or(0, v1::Problem::exit_code);
                Ok(ExitCode::from(worst))
            }
            Self::Release { name } => {
                let released = session.client.release_pool(&name).await?;
                session.out.show(&released, |out| {
                    out.line(match released.result {
                        v1::Outcome::AlreadyThere => "No writers were held.",
                        _ => "The writers go on. Free space soon: the pool is still full.",
                    });
                })?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn table(pools: &[v1::Pool]) -> Table {
    let mut table = Table::new([
        "NAME", "PATH", "FS", "TOTAL", "FREE", "RESERVE", "PROMISED", "VOLUMES", "TRASH", "WRITERS", "LABELS",
    ]);
    for pool in pools {
        let writers = match pool.hold {
            v1::HoldState::Open => "open",
            v1::HoldState::Held => "HELD",
            v1::HoldState::Overridden => "overridden",
        };
        table.row([
            pool.name.clone(),
            pool.path.clone(),
            pool.file_system.clone(),
            size(Some(pool.total)),
            size(Some(pool.free)),
            size(Some(pool.reserve)),
            format!(
                "{} ({})",
                size(Some(pool.promised)),
                share(Some(pool.promised), Some(pool.promise_limit))
            ),
            pool.volumes.to_string(),
            pool.trashed.to_string(),
            writers.to_owned(),
            labels(&pool.labels),
        ]);
    }
    table
}
