//! Finishing or undoing what an interrupted verb began. All of it is safe to do again.

use crate::container::Container;
use crate::engine;
use crate::error::{Error, Result};
use crate::journal::{Holder, Journal, Phase, Record};
use crate::relocate::{adopt, kept};
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

/// What became of what was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is as it was to be: after a relocation, the containers run on their new volumes.
    Finished,
    /// It is as it was before: after a relocation, the old containers are back.
    Undone,
    /// Somebody has gone on by hand, so nothing was touched.
    LeftAlone,
}

/// That a verb failed with `error`, and could not be undone either, for now.
pub(crate) fn left(error: Error, undo: &Error, journal: &Path) -> Error {
    Error {
        state: format!(
            "all data is there, and clearing up could not be finished yet (containers may be paused until then): {undo}. {} says what \
             was begun",
            journal.display()
        ),
        next: "`everhold rescue --recover` goes on with it".to_owned(),
        ..error
    }
}

/// What others use by now is theirs.
pub(crate) fn unless_used(done: Result<()>) -> Result<()> {
    match done {
        Err(error)
            if matches!(
                error.kind,
                ErrorKind::Conflict | ErrorKind::InUse | ErrorKind::Busy | ErrorKind::NotFound
            ) =>
        {
            tracing::warn!(%error, "what an interrupted verb has made is left");
            Ok(())
        }
        other => other,
    }
}

/// Finishes it where the new containers run, and undoes it where they don't. The journal is gone afterwards.
///
/// # Errors
/// The engine or the daemon does not answer: the journal stays, and this can be tried again.
pub fn recover(mut journal: Journal, api: &Api, volumes: &dyn Volumes) -> Result<Outcome> {
    // First of all: somebody waits for them.
    let mut thawed = Ok(());
    for container in &journal.record.frozen {
        thawed = thawed.and(thaw(api, container));
    }
    thawed?;
    let outcome = outcome_of(&journal.record, api)?;
    if outcome == Outcome::Undone {
        if journal.record.phase >= Phase::Switching {
            // What is undone by half is not to be finished by the next one who looks.
            journal.note(|record| record.undoing = true)?;
        }
        undo(&journal.record, api, volumes)?;
    }
    put_away(&journal.record, volumes)?;
    for hook in &journal.record.post {
        // Once, as promised; that it fails again and again must not keep everything else from being over.
        if let Err(error) = crate::hooks::run(api, hook, LONGEST_HOOK) {
            tracing::warn!(%error, "a command that was to be run afterwards");
        }
    }
    journal.end()?;
    Ok(outcome)
}

fn thaw(api: &Api, container: &str) -> Result<()> {
    match engine::inspect(api, container)? {
        Some(found) if found.is_paused() => engine::unpause(api, container),
        _ => Ok(()),
    }
}

/// How it ends. To be undone is only said here; all else is done when this returns.
fn outcome_of(record: &Record, api: &Api) -> Result<Outcome> {
    if let Some(swap) = &record.swap {
        return kept::settle(swap, api);
    }
    if record.undoing {
        return Ok(Outcome::Undone);
    }
    if record.verb == kept::REMOVAL {
        // The new one, and the one that is removed.
        let old = record.containers.last().map(|old| engine::inspect(api, old)).transpose()?.flatten();
        return Ok(if old.is_none() { Outcome::Finished } else { Outcome::Undone });
    }
    if record.phase == Phase::Done {
        return Ok(Outcome::Finished);
    }
    if record.phase == Phase::Started || record.made.has_run(api)? {
        if !record.made.containers.is_empty() {
            record.made.start_all(api)?;
            return Ok(Outcome::Finished);
        }
        if any_old_runs(record, api)? {
            return Ok(Outcome::LeftAlone);
        }
        if all_run(record, api)? || all_run_again(record, api)? {
            return Ok(Outcome::Finished);
        }
    }
    if record.phase >= Phase::Switching {
        let news = record.holders.iter().any(|holder| holder.ran);
        if news && !any_old_runs(record, api)? && all_run(record, api)? {
            return Ok(Outcome::Finished);
        }
        if only_the_new_are_left(record, api)? {
            go_on_without_the_old(record, api)?;
            return Ok(Outcome::Finished);
        }
    }
    Ok(Outcome::Undone)
}

/// Somebody has brought an old container back.
fn any_old_runs(record: &Record, api: &Api) -> Result<bool> {
    for holder in &record.holders {
        if engine::inspect(api, &holder.old)?.is_some_and(|old| old.is_running() && !old.is_paused()) {
            return Ok(true);
        }
    }
    Ok(false)
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

/// Somebody has removed an old container: what it had is on the new volumes, and going back is not possible any more.
fn only_the_new_are_left(record: &Record, api: &Api) -> Result<bool> {
    let mut gone = false;
    for holder in &record.holders {
        match engine::inspect(api, &holder.old)? {
            // Brought back already, and it writes where it was.
            Some(old) if old.is_running() && !old.is_paused() => return Ok(false),
            Some(_) => {}
            None => gone = true,
        }
        let new = holder.new.as_deref().map(|new| engine::inspect(api, new)).transpose()?;
        if new.flatten().is_none() {
            return Ok(false);
        }
    }
    Ok(gone)
}

fn go_on_without_the_old(record: &Record, api: &Api) -> Result<()> {
    for holder in &record.holders {
        if let Some(old) = engine::inspect(api, &holder.old)? {
            engine::set_restart_policy(api, &holder.old, &serde_json::json!({ "Name": "no" }))?;
            if old.is_running() {
                engine::kill(api, &holder.old)?;
            }
            engine::rename(api, &holder.old, &holder.kept)?;
        }
    }
    for holder in &record.holders {
        let new = holder.new.as_deref().unwrap_or_default();
        engine::rename(api, new, &holder.name)?;
        if holder.ran {
            engine::start(api, new)?;
        }
    }
    Ok(())
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
    record.made.remove_containers(api)?;
    if let Some(given) = &record.name_given {
        adopt::take_name_back(given, api, volumes)?;
    }
    for target in &record.targets {
        volumes.unmount(&target.name, &record.r#use)?;
        if target.made {
            // Docker knows it, and would go on listing it.
            unless_used(engine::forget(api, &target.name, volumes.driver()))?;
            unless_used(volumes.remove(&target.name))?;
        }
    }
    record.made.remove_rest(api)
}

fn bring_back(holder: &Holder, phase: Phase, api: &Api) -> Result<()> {
    // One that was made just before the journal could say so has this name, and has never run.
    let unnoted = engine::inspect(api, &holder.coming)?.filter(|found| found.state() == "created");
    for new in holder.new.clone().into_iter().chain(unnoted.map(|found| found.id().to_owned())) {
        engine::remove(api, &new)?;
    }
    // Somebody has removed it, and that may be: there is nothing to bring back.
    let Some(old) = engine::inspect(api, &holder.old)? else { return Ok(()) };
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
pub(crate) fn put_away(record: &Record, volumes: &dyn Volumes) -> Result<()> {
    for target in &record.targets {
        volumes.unmount(&target.name, &record.r#use)?;
    }
    Ok(())
}
