//! `everhold recover`: works on the files themselves, while no daemon runs.

use super::Outcome;
use crate::config::Overrides;
use crate::output::{Output, Table};
use api::v1::Problem;
use engine::{Clock, Scanned, SystemClock};
use model::Volume;
use serde::Serialize;
use std::process::ExitCode;

/// Rebuild the catalog from the descriptions that lie beside each volume's data. The old catalog is kept under another
/// name. The daemon must be stopped.
#[derive(Debug, clap::Args)]
pub struct Recover {
    /// Read the description of every volume in the pools
    #[arg(long, required = true)]
    scan: bool,
    /// Only say what would be recorded
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// The shape of `--json`.
#[derive(Debug, Serialize)]
struct Recovered<'a> {
    result: &'static str,
    volumes: Vec<Found<'a>>,
    notes: &'a [String],
    left_alone: &'a [String],
    old_catalog: Option<String>,
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    id: String,
    name: &'a str,
    driver: &'static str,
    pool: &'a str,
    size: Option<u64>,
    state: &'static str,
}

fn found(volume: &Volume) -> Found<'_> {
    Found {
        id: volume.id.to_string(),
        name: volume.name.as_str(),
        driver: volume.spec.kind().as_str(),
        pool: volume.spec.pool.as_str(),
        size: volume.spec.size().map(model::Size::bytes),
        state: match volume.is_live() {
            false => "trashed",
            true if volume.attachments.is_empty() => "ready",
            true => "attached",
        },
    }
}

impl Recover {
    /// Rebuilds the catalog.
    pub fn run(self, out: &Output) -> Outcome {
        let config = super::load(&self.overrides, None)?;
        let scanned =
            engine::rebuild(&config.settings(), self.dry_run, SystemClock.now()).map_err(Problem::from)?;
        let recovered = Recovered {
            result: if self.dry_run { "would-rebuild" } else { "rebuilt" },
            volumes: scanned.volumes.iter().map(found).collect(),
            notes: &scanned.notes,
            left_alone: &scanned.unknown,
            old_catalog: scanned.old_catalog.as_ref().map(|path| path.display().to_string()),
        };
        out.show(&recovered, |out| say(out, &recovered, &scanned))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn say(out: &Output, recovered: &Recovered<'_>, scanned: &Scanned) {
    let mut table = Table::new(["NAME", "DRIVER", "POOL", "STATE", "ID"]);
    for volume in &recovered.volumes {
        table.row([
            volume.name.to_owned(),
            volume.driver.to_owned(),
            volume.pool.to_owned(),
            volume.state.to_owned(),
            volume.id.clone(),
        ]);
    }
    out.table(&table, "No volume was found in the pools.");
    scanned.notes.iter().for_each(|note| out.note(&format!("Note: {note}")));
    scanned.unknown.iter().for_each(|path| out.note(&format!("Left alone: {path}")));
    if let Some(old) = &recovered.old_catalog {
        out.note(&format!("The old catalog is kept as {old}."));
    }
    out.note(match recovered.result {
        "rebuilt" => "The catalog is rebuilt. Next: start the daemon.",
        _ => "Nothing was changed. Next: the same without --dry-run.",
    });
}
