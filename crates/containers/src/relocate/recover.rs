//! Finishing or undoing what an interrupted relocation began. All of it is safe to do again.

use super::engine;
use super::journal::{Holder, Journal, Phase, Record};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::relocate::adopt;
use crate::volumes::Volumes;
use docker::Api;
use model::ErrorKind;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// How long a command may take that is run for somebody who is gone.
const LONGEST_HOOK: Duration = Duration::from_secs(120);
/// A container that runs for so long is well.
const WELL: Duration = Duration::from_secs(3);

/// What became of an interrupted relocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The containers run on their new volumes.
    Finished,
    /// The old containers are back.
    Undone,
}

/// Finishes it where the new containers run, and undoes it where they don't. The journal is gone afterwards.
///
/// # Errors
/// The engine or the daemon does not answer: the journal stays, and this can be tried again.
pub fn recover(journal: Journal, api: &Api, volumes: &dyn Volumes) -> Result<Outcome> {
    let record = &journal.record;
    // First of all: somebody waits for them.
    for container in &record.frozen {
        if engine::inspect(api, container)?.is_some_and(|container| container.is_paused()) {
            engine::unpause(api, container)?;
        }
    }
    let outcome = match record.phase {
        Phase::Done => Outcome::Finished,
        Phase::Started if all_run(record, api)? || all_run_again(record, api)? => Outcome::Finished,
        _ => {
            undo(record, api, volumes)?;
            Outcome::Undone
        }
    };
    put_away(record, api, volumes)?;
    for hook in &record.post {
        // Once, as promised; that it fails again and again must not keep everything else from being over.
        if let Err(error) = crate::hooks::run(api, hook, LONGEST_HOOK) {
            tracing::warn!(%error, "a command that was to be run afterwards");
        }
    }
    journal.end()?;
    Ok(outcome)
}

/// Recovers from every journal in the directory that nobody is at work on; what was done, or why not, for each.
///
/// # Errors
/// The directory can't be read.
pub fn recover_all(
    directory: &Path,
    api: &dyn Fn(&Path) -> Result<Api>,
    volumes: &dyn Volumes,
) -> Result<Vec<(String, Result<Outcome>)>> {
    let mut all = Vec::new();
    for path in Journal::all(directory)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let outcome = match Journal::take_over(&path) {
            Ok(None) => continue,
            Err(error) if error.kind == ErrorKind::Busy => continue,
            Ok(Some(journal)) => api(&journal.record.engine).and_then(|api| recover(journal, &api, volumes)),
            Err(error) => Err(error),
        };
        all.push((name, outcome));
    }
    Ok(all)
}

fn runs_well(holder: &Holder, new: &Container) -> bool {
    new.is_running() && !new.is_restarting() && (new.health() != Some("unhealthy") || holder.was_unhealthy)
}

/// The new containers are started once more. They may have run for long, and have been stopped by somebody or by a reboot: what they
/// have written is on the new volumes alone.
fn all_run_again(record: &Record, api: &Api) -> Result<bool> {
    for holder in record.holders.iter().filter(|holder| holder.ran) {
        let Some(new) = &holder.new else { return Ok(false) };
        match engine::start(api, new) {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
            Err(_) => return Ok(false),
        }
    }
    std::thread::sleep(WELL);
    all_run(record, api)
}

fn all_run(record: &Record, api: &Api) -> Result<bool> {
    for holder in record.holders.iter().filter(|holder| holder.ran) {
        let Some(new) = &holder.new else { return Ok(false) };
        if !engine::inspect(api, new)?.is_some_and(|new| runs_well(holder, &new)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The old containers are back under their names, and run if they ran.
fn undo(record: &Record, api: &Api, volumes: &dyn Volumes) -> Result<()> {
    let mut first = Ok(());
    for holder in &record.holders {
        let undone = bring_back(holder, record.phase, api)
            .map_err(|error| error.while_doing(format!("bringing {} back", holder.name)));
        first = first.and(undone);
    }
    first?;
    if let Some(given) = &record.name_given {
        adopt::take_name_back(given, api, volumes)?;
    }
    for target in &record.targets {
        volumes.unmount(&target.name, &record.r#use)?;
        if target.made {
            // Docker knows it, and would go on listing it.
            engine::forget(api, &target.name, volumes.driver())?;
            volumes.remove(&target.name)?;
        }
    }
    Ok(())
}

fn bring_back(holder: &Holder, phase: Phase, api: &Api) -> Result<()> {
    let Some(old) = engine::inspect(api, &holder.old)? else {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the old container {} is gone", holder.kept),
            "somebody has removed it; see whether the new one is as it should be",
        ));
    };
    // One that was made just before the journal could say so has this name, and has never run.
    let unnoted = engine::inspect(api, &holder.coming)?.filter(|found| found.state() == "created");
    for new in holder.new.clone().into_iter().chain(unnoted.map(|found| found.id().to_owned())) {
        engine::remove(api, &new)?;
    }
    if old.name() == holder.kept {
        engine::rename(api, &holder.old, &holder.name)?;
    }
    engine::set_restart_policy(api, &holder.old, &holder.restart_policy)?;
    if old.is_paused() {
        engine::unpause(api, &holder.old)?;
        // One that was killed while it was frozen ends only now, and the engine leaves it at that.
        for _ in 0..if phase == Phase::Switching { 20 } else { 0 } {
            std::thread::sleep(Duration::from_millis(100));
            if !engine::present(api, &holder.old)?.is_running() {
                return engine::start(api, &holder.old);
            }
        }
    } else if holder.ran && !old.is_running() {
        engine::start(api, &holder.old)?;
    }
    Ok(())
}

/// Our own uses of the volumes end.
pub(super) fn put_away(record: &Record, _api: &Api, volumes: &dyn Volumes) -> Result<()> {
    for target in &record.targets {
        volumes.unmount(&target.name, &record.r#use)?;
    }
    Ok(())
}
