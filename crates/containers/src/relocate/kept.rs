//! The old containers that relocations keep: going back to them, and removing them.

use super::plan::kept_name;
use crate::container::Container;
use crate::engine;
use crate::error::{Error, Result};
use crate::journal::{Journal, Record};
use crate::recover::{self, Outcome};
use crate::tools::Tools;
use docker::{Api, encode};
use model::ErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The verb of `--discard-old` in journals.
pub(crate) const REMOVAL: &str = "removal";

/// The points at which tests end the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapStep {
    /// The journal is on disk.
    Journaled,
    /// The container is stopped.
    Stopped,
    /// Its name is free.
    Aside,
    /// The old one has the name.
    Named,
    /// All is done but to put the journal away.
    Done,
}

impl SwapStep {
    /// Every point, in their order.
    pub const ALL: [Self; 5] = [Self::Journaled, Self::Stopped, Self::Aside, Self::Named, Self::Done];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Journaled => "undo-journaled",
            Self::Stopped => "undo-stopped",
            Self::Aside => "undo-aside",
            Self::Named => "undo-named",
            Self::Done => "undo-done",
        }
    }
}

/// What `--discard-old` or `--undo` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The container that has the name now.
    pub container: String,
    /// Containers that were removed for good.
    pub removed: Vec<String>,
    /// Containers that are kept under these names, stopped.
    pub kept: Vec<String>,
}

/// A container gives its name up to the old one that is kept beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    /// The name.
    pub name: String,
    /// The ID of the one that has it before.
    pub new: String,
    /// The ID of the one that has it afterwards.
    pub old: String,
    /// The new one's name afterwards.
    pub aside: String,
    /// The old one's name before.
    pub kept: String,
    /// The restart policy, which the one with the name has.
    pub policy: Value,
    /// Whether the new one ran.
    pub ran: bool,
}

/// The container that has the name, and the old one that is kept beside it.
fn pair(api: &Api, name: &str) -> Result<(Container, Container)> {
    let new = engine::present(api, name)?;
    for verb in ["rescue", "adopt"] {
        if let Some(old) = engine::inspect(api, &kept_name(new.name(), verb))? {
            return Ok((new, old));
        }
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!("no old container is kept for {}", new.name()),
        "there is nothing left to do",
    ))
}

fn record<Step>(verb: &str, tools: &Tools<'_, Step>, new: &Container, old: &Container) -> Record {
    Record {
        containers: vec![new.id().to_owned(), old.id().to_owned()],
        ..Record::new(verb, tools.api.socket(), format!("everhold-{verb}"))
    }
}

fn journal_name(verb: &str, new: &Container) -> String {
    format!("{verb}-{}", new.short_id())
}

/// The pair, with a journal that keeps others from it, and what stands by that.
type Begun = (Container, Container, Journal, Box<dyn Send>);

/// Looks once more under the journal: somebody may have been at work on them until just now.
fn begin(verb: &str, tools: &Tools<'_, SwapStep>, name: &str, swap: Option<&Swap>) -> Result<Begun> {
    let (new, old) = pair(tools.api, name)?;
    let record = Record { swap: swap.cloned(), ..record(verb, tools, &new, &old) };
    let (journal, guard) = tools.begin(&journal_name(verb, &new), record)?;
    match pair(tools.api, name) {
        Ok((now, kept)) if (now.id(), kept.id()) == (new.id(), old.id()) => Ok((now, kept, journal, guard)),
        other => {
            journal.end()?;
            other?;
            Err(Error::new(
                ErrorKind::Conflict,
                format!("{name} is another container just now"),
                "look again",
            ))
        }
    }
}

/// Removes the old container of a rescue or an adoption, and the anonymous volumes that nobody else uses, for good.
///
/// # Errors
/// No such container, somebody is at work on it, or the engine's.
pub fn discard_old(tools: &Tools<'_, SwapStep>, name: &str) -> Result<Changed> {
    // What has been begun with it may yet need it.
    let (new, old, journal, guard) = begin(REMOVAL, tools, name, None)?;
    let removed = if old.is_running() {
        Err(Error::new(
            ErrorKind::InUse,
            format!("{} runs", old.name()),
            format!("see which of {} and {} is the right one, and stop the other", old.name(), new.name()),
        ))
    } else {
        tools.api.delete(&format!("/containers/{}?v=true", encode(old.id()))).map_err(Error::from)
    };
    journal.end()?;
    drop(guard);
    removed?;
    Ok(Changed { container: new.name().to_owned(), removed: vec![old.name().to_owned()], kept: Vec::new() })
}

/// The restart policy that the pair's name has: the one of which it was taken off has none.
fn policy_of(new: &Container, old: &Container) -> Value {
    let policy = |container: &Container| container.document()["HostConfig"]["RestartPolicy"].clone();
    match policy(new)["Name"].as_str() {
        None | Some("" | "no") => policy(old),
        Some(_) => policy(new),
    }
}

/// Of several containers that were adopted with one volume, one that runs on would write where the others don't look any more.
fn none_is_left_behind(api: &Api, new: &Container, old: &Container) -> Result<()> {
    let volumes = |container: &Container| {
        container.mounts().into_iter().filter_map(|mount| mount.name).collect::<Vec<_>>()
    };
    let had = volumes(old);
    let shared: Vec<String> = volumes(new).into_iter().filter(|name| !had.contains(name)).collect();
    let listed: Vec<Value> = api.get("/containers/json")?;
    for id in listed.iter().filter_map(|container| container["Id"].as_str()).filter(|id| *id != new.id()) {
        let Some(other) = Container::find(api, id)? else { continue };
        if let Some(volume) = volumes(&other).into_iter().find(|name| shared.contains(name)) {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("the container {} runs on {volume} too, and would go on writing there", other.name()),
                format!(
                    "`docker stop {0}`, then go back with each of them, then `docker start {0}`",
                    other.name()
                ),
            ));
        }
    }
    Ok(())
}

/// Gives the old container of a rescue or an adoption its name back, and starts it if the new one runs. The new one is kept
/// under another name, stopped, with its volumes.
///
/// # Errors
/// No such container; another one runs on the new volumes; or the engine's.
pub fn bring_back(tools: &Tools<'_, SwapStep>, name: &str) -> Result<Changed> {
    let (new, old) = pair(tools.api, name)?;
    let name = new.name().to_owned();
    none_is_left_behind(tools.api, &new, &old)?;
    let swap = Swap {
        aside: format!("{name}-rescued"),
        name: name.clone(),
        new: new.id().to_owned(),
        old: old.id().to_owned(),
        kept: old.name().to_owned(),
        policy: policy_of(&new, &old),
        ran: new.is_running(),
    };
    let (_, _, journal, guard) = begin("return", tools, &name, Some(&swap))?;
    tools.reach(SwapStep::Journaled);
    let kept = vec![swap.aside.clone()];
    let swapped = match forward(&swap, tools.api, &|step| tools.reach(step)) {
        Ok(()) => {
            journal.end()?;
            Ok(Changed { container: name, removed: Vec::new(), kept })
        }
        // It may yet do what it was asked for: whoever goes on with it sees what it has done.
        Err(error) if error.kind == ErrorKind::Unavailable => {
            Err(recover::left(error.clone(), &error, journal.path()))
        }
        Err(error) => Err(match backward(&swap, tools.api) {
            Ok(()) => {
                journal.end()?;
                error.with_state(format!("{name} is the one on the volumes, as before"))
            }
            Err(undo) => recover::left(error, &undo, journal.path()),
        }),
    };
    drop(guard);
    swapped
}

/// Takes the container its restart policy, and stops it. The policy goes first and comes last: a host that dies in between must
/// not start both.
fn put_down(api: &Api, id: &str) -> Result<()> {
    engine::set_restart_policy(api, id, &json!({ "Name": "no" }))?;
    engine::stop(api, id)
}

fn put_up(api: &Api, id: &str, swap: &Swap) -> Result<()> {
    engine::set_restart_policy(api, id, &swap.policy)?;
    if swap.ran { engine::start(api, id) } else { Ok(()) }
}

fn is_there(api: &Api, id: &str) -> Result<bool> {
    Ok(engine::inspect(api, id)?.is_some())
}

/// Goes through with it, from wherever it is. Somebody may have removed the new one meanwhile.
fn forward(swap: &Swap, api: &Api, at: &dyn Fn(SwapStep)) -> Result<()> {
    let new = is_there(api, &swap.new)?;
    if new {
        put_down(api, &swap.new)?;
    }
    at(SwapStep::Stopped);
    if new {
        engine::rename(api, &swap.new, &swap.aside)?;
    }
    at(SwapStep::Aside);
    engine::rename(api, &swap.old, &swap.name)?;
    at(SwapStep::Named);
    put_up(api, &swap.old, swap)?;
    at(SwapStep::Done);
    Ok(())
}

/// The one that ran, runs on. Somebody may have removed the old one meanwhile.
fn backward(swap: &Swap, api: &Api) -> Result<()> {
    if is_there(api, &swap.old)? {
        put_down(api, &swap.old)?;
        engine::rename(api, &swap.old, &swap.kept)?;
    }
    engine::rename(api, &swap.new, &swap.name)?;
    put_up(api, &swap.new, swap)
}

/// Goes through with one that was interrupted, or back where it can't be.
pub(crate) fn settle(swap: &Swap, api: &Api) -> Result<Outcome> {
    match (is_there(api, &swap.new)?, is_there(api, &swap.old)?) {
        (false, false) => return Ok(Outcome::Finished),
        (true, false) => return backward(swap, api).map(|()| Outcome::Undone),
        _ => {}
    }
    match forward(swap, api, &|_| ()) {
        Ok(()) => Ok(Outcome::Finished),
        Err(error) if error.kind == ErrorKind::Unavailable => Err(error),
        Err(error) if !is_there(api, &swap.new)? => {
            tracing::warn!(%error, "an old container, with nothing to go back to");
            Ok(Outcome::Finished)
        }
        Err(_) => backward(swap, api).map(|()| Outcome::Undone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_restart_policy_is_found_wherever_it_is() {
        let with = |name: &str| {
            Container::from_document(json!({ "HostConfig": { "RestartPolicy": { "Name": name } } }))
        };
        for (new, old) in [("always", "no"), ("always", "always"), ("no", "always"), ("", "always")] {
            assert_eq!(policy_of(&with(new), &with(old))["Name"], "always", "{new} {old}");
        }
        assert_eq!(policy_of(&with("no"), &with("no"))["Name"], "no");
    }
}
