//! The commands that bring data to where it stays, or at least save it: none that would be refused.

use super::Draft;
use crate::case::Context;
use crate::facts::{Container, Mount, Protection, State, Volume};
use crate::words::quote;

/// What Everhold can do with a container as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It can be made anew, on volumes.
    Move,
    /// The same after `docker` has done this with it.
    After(&'static str),
    /// It has to stay as it is, and can be backed up.
    BackUp,
    /// Only Docker reaches its files.
    Copy,
}

/// How `verb`, rescue or adopt, would take this container.
pub(super) fn way(context: &Context<'_>, container: &Container, verb: &str) -> Way {
    let driver = context.host.engine.storage_driver.as_str();
    let given_up = match &container.state {
        State::Dead => true,
        State::Other(word) => word == "removing",
        _ => false,
    };
    if given_up || !["", "overlay2"].contains(&driver) {
        return Way::Copy;
    }
    // Whoever manages it makes another one in its place.
    let managed = ["com.docker.swarm.service.name", "io.kubernetes.pod.name"];
    let managed = managed.iter().any(|label| container.labels.contains_key(*label));
    let taken = [format!("{}-before-{verb}", container.name), format!("{}-everhold-new", container.name)];
    let is_taken = context.all().any(|case| taken.contains(&case.container.name));
    if container.auto_remove || managed || is_taken || !container.dependents.is_empty() {
        return Way::BackUp;
    }
    match container.state {
        State::Paused => Way::After("unpause"),
        State::Restarting => Way::After("stop"),
        _ => Way::Move,
    }
}

/// Saves a container as it is, with its volumes.
pub(super) fn back_up(container: &str) -> String {
    format!("everhold container backup {} --to {}", quote(container), quote(&format!("{container}.tar")))
}

/// Saves what is in a volume, whatever its driver.
fn pack(volume: &str) -> String {
    let mounted = quote(&format!("{volume}:/from:ro"));
    format!("docker run --rm -v {mounted} busybox tar -cf - -C /from . >{}", quote(&format!("{volume}.tar")))
}

/// Makes a volume one of Everhold's; where that is refused, saves what is in it.
pub(super) fn adopt(context: &Context<'_>, volume: &Volume) -> String {
    let holders = context.holders(&volume.name);
    let local = volume.driver == "local" && volume.options.is_empty();
    if local && holders.iter().all(|holder| way(context, holder, "adopt") == Way::Move) {
        // The name that the engine made up is no good for the new one, which gets it only where nobody has the old one.
        let other = if volume.anonymous && !holders.is_empty() { " --as …" } else { "" };
        return format!("everhold adopt {}{other}", quote(&volume.name));
    }
    // What another driver has is there only while a container uses it.
    let saved = |holder: &&&Container| {
        (local || volume.protection != Protection::Unknown || holder.state.is_alive())
            && way(context, holder, "adopt") != Way::Copy
    };
    match holders.iter().find(saved) {
        Some(holder) => back_up(&holder.name),
        None => pack(&volume.name),
    }
}

impl Draft {
    /// Brings these directories to volumes. None of them: what is at stake is in no directory that a volume could be.
    pub(super) fn rescue(self, context: &Context<'_>, container: &Container, paths: &[String]) -> Self {
        let name = quote(&container.name);
        let step = match way(context, container, "rescue") {
            Way::Move if !paths.is_empty() => String::new(),
            Way::After(step) if !paths.is_empty() => format!("docker {step} {name} && "),
            Way::Copy => return self.command(copy(&container.name, paths)),
            _ => return self.command(back_up(&container.name)),
        };
        let words: String = paths.iter().map(|path| format!(" --path {}", quote(path))).collect();
        let draft = self.command(format!("{step}everhold rescue {name}{words}"));
        Self { rescue: paths.to_vec(), ..draft }
    }

    /// Brings an anonymous volume to one of Everhold's: all of it, whatever of it is data.
    pub(super) fn rescue_volume(self, context: &Context<'_>, container: &Container, mount: &Mount) -> Self {
        let name = mount.volume.as_deref().unwrap_or_default();
        let listed = context.host.volumes.iter().find(|volume| volume.name == name);
        match listed {
            // A rescue moves it for one container only.
            Some(volume) if context.holders(name).len() > 1 => self.command(adopt(context, volume)),
            _ => self.rescue(context, container, std::slice::from_ref(&mount.destination)),
        }
    }

    /// Brings what is in memory to a volume, which only a container that runs can be asked for.
    pub(super) fn rescue_memory(self, context: &Context<'_>, container: &Container, path: &String) -> Self {
        match way(context, container, "rescue") {
            Way::Move | Way::After("unpause") if container.state.is_alive() => {
                self.rescue(context, container, std::slice::from_ref(path))
            }
            // No backup has it, and docker cp does not see it.
            Way::BackUp | Way::Copy if container.state == State::Running => {
                let (name, file) = (quote(&container.name), quote(&format!("{}.tar", container.name)));
                self.command(format!("docker exec {name} tar -cf - -C {} . >{file}", quote(path)))
            }
            _ => self,
        }
    }
}

/// What Docker itself can do.
fn copy(container: &str, paths: &[String]) -> String {
    match paths {
        [path] => format!("docker cp -a {} .", quote(&format!("{container}:{path}"))),
        _ => format!("docker export {} >{}", quote(container), quote(&format!("{container}.tar"))),
    }
}
