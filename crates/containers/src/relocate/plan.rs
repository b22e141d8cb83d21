//! What a relocation will do, before it does anything.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::files::{Layers, View};
use crate::settings::{Changes, Placed, differences};
use docker::Api;
use model::ErrorKind;
use serde::Serialize;
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// `rescue` or `adopt`.
    pub verb: String,
    /// Data, and the volume that it goes to.
    pub moves: Vec<Moving>,
    /// Containers that are made anew on these volumes.
    pub holders: Vec<Holding>,
    /// A volume of Docker's own that gives its name to ours; its data is kept under another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_kept_as: Option<String>,
    /// What is good to know before.
    pub notes: Vec<String>,
}

/// Data, and the volume that it goes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moving {
    /// Where the data is.
    pub source: Source,
    /// The volume's name.
    pub volume: String,
    /// About how much it is, in bytes.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
    /// Paths below the source that are mounts of their own and stay.
    #[serde(skip)]
    pub skip: Vec<PathBuf>,
}

/// Where data is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Source {
    /// In a container's writable layer.
    Layer {
        /// The container's name.
        container: String,
        /// The path in the container.
        path: PathBuf,
    },
    /// In the memory of a container that runs (tmpfs).
    Memory {
        /// The container's name.
        container: String,
        /// The path in the container.
        path: PathBuf,
    },
    /// In a volume of another driver, or a directory of the host.
    Directory {
        /// The volume's name, unless it is a plain directory.
        volume: Option<String>,
        /// The directory on the host.
        path: PathBuf,
    },
}

/// A container that is made anew.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holding {
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// The name under which the old one is kept.
    pub kept: String,
    /// The volumes, and where they will be.
    pub volumes: Vec<Placed>,
    /// The container as it was when the plan was made.
    #[serde(skip)]
    pub container: Container,
}

impl Plan {
    /// What compose, which knows containers by their labels alone, has to be told.
    pub(super) fn note_compose(&mut self) {
        for holding in &self.holders {
            let Some(project) = holding.container.label("com.docker.compose.project") else { continue };
            let service = holding.container.label("com.docker.compose.service").unwrap_or("SERVICE");
            for placed in &holding.volumes {
                self.notes.push(format!(
                    "write it into the compose file of {project} too, or the next `docker compose up` that changes {service} makes a \
                     container without it: under services.{service}.volumes `- {}:{}`, and at the top level `volumes: {{{}: {{external: \
                     true}}}}`",
                    placed.volume,
                    placed.destination.display(),
                    placed.volume
                ));
            }
            self.notes.push(holding.compose_takes_both());
        }
    }
}

impl Holding {
    /// Whether compose looks after it.
    pub fn is_of_compose(&self) -> bool {
        self.container.label("com.docker.compose.project").is_some()
    }

    /// What is to be done before compose is used again.
    pub fn compose_takes_both(&self) -> String {
        format!(
            "before the next `docker compose up`: `everhold rescue {} --discard-old`. Compose takes the kept container for one too many \
             of its service, and may remove either of the two (the data is on the volume, whatever it does)",
            self.name
        )
    }

    /// Why the container is not what the plan was made for any more. `layer`: data is read from its layers, and what was opened
    /// before a restart does not show what is written after it.
    pub(super) fn changed(&self, now: &Container, layer: bool) -> Option<String> {
        if now.is_running() != self.running {
            return Some(if self.running { "has ended" } else { "was started" }.to_owned());
        }
        if now.name() != self.name {
            return Some(format!("was renamed to {}", now.name()));
        }
        if layer && now.document()["State"]["StartedAt"] != self.container.document()["State"]["StartedAt"] {
            return Some("was started anew".to_owned());
        }
        let different = differences(&self.container, now, &Changes::default());
        different.first().map(|first| format!("has other settings ({first})"))
    }
}

impl serde::Serialize for Container {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

/// The name under which a container is kept that `verb` has replaced.
pub(super) fn kept_name(container: &str, verb: &str) -> String {
    format!("{container}-before-{verb}")
}

/// The name of a container that takes another's place.
pub(super) fn coming_name(container: &str) -> String {
    format!("{container}-everhold-new")
}

/// Refuses containers that can't be given back as they are.
pub(super) fn check(api: &Api, container: &Container, verb: &str) -> Result<()> {
    let name = container.name();
    let refuse = |kind, what: String, next: String| Err(Error::new(kind, what, next));
    match container.state() {
        "paused" => {
            return refuse(
                ErrorKind::InUse,
                format!("the container {name} is paused, and only who paused it knows for how long"),
                format!("`docker unpause {name}`, then try again"),
            );
        }
        "dead" | "removing" => {
            return refuse(
                ErrorKind::Unsupported,
                format!(
                    "the container {name} is {}: the engine can't remove it and can't start it any more",
                    container.state()
                ),
                format!("save what you need with `docker cp {name}:PATH .`, then remove it"),
            );
        }
        "restarting" => {
            return refuse(
                ErrorKind::Busy,
                format!("the container {name} ends and is started again, over and over"),
                format!("`docker logs {name}` says why; `docker stop {name}`, then try again"),
            );
        }
        _ => {}
    }
    if container.removes_itself() {
        return refuse(
            ErrorKind::Unsupported,
            format!(
                "the container {name} was started with --rm: it can't be ended and kept, so there would be no way back"
            ),
            format!("`everhold container backup {name} --to {name}.tar` saves all of it without ending it"),
        );
    }
    for (label, who) in
        [("com.docker.swarm.service.name", "a Swarm service"), ("io.kubernetes.pod.name", "a Kubernetes pod")]
    {
        if let Some(owner) = container.label(label) {
            return refuse(
                ErrorKind::Unsupported,
                format!(
                    "the container {name} belongs to {who} ({owner}), which would make another one in its place"
                ),
                format!("change {who} so that it uses a volume of Everhold"),
            );
        }
    }
    for taken in [kept_name(name, verb), coming_name(name)] {
        if Container::find(api, &taken)?.is_some() {
            return refuse(
                ErrorKind::Conflict,
                format!("there is a container {taken} already, maybe from an earlier {verb}"),
                format!(
                    "if {name} is as it should be, `everhold rescue {name} --discard-old` removes what was kept"
                ),
            );
        }
    }
    check_dependents(api, container)
}

/// Containers that live in another's namespaces would be left without it.
fn check_dependents(api: &Api, container: &Container) -> Result<()> {
    let listed: Vec<Value> = api.get("/containers/json?all=true")?;
    for other in listed.iter().filter_map(|other| other["Id"].as_str()) {
        let Some(other) = Container::find(api, other)? else { continue };
        let joined = ["NetworkMode", "IpcMode", "PidMode"].iter().any(|mode| {
            let mode = other.document()["HostConfig"][*mode].as_str().unwrap_or_default();
            mode.strip_prefix("container:").is_some_and(|id| id == container.id() || id == container.name())
        });
        if joined && other.id() != container.id() {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "the container {} lives in the network or in other namespaces of {}, which would go with it",
                    other.name(),
                    container.name()
                ),
                format!("remove {} first, and make it again afterwards", other.name()),
            ));
        }
    }
    Ok(())
}

/// The container's paths that have mounts of their own below `path`, relative to it.
pub(super) fn mounts_below(container: &Container, path: &Path) -> Vec<PathBuf> {
    let below = |mount: &crate::container::Mount| {
        mount
            .destination
            .strip_prefix(path)
            .ok()
            .filter(|rest| !rest.as_os_str().is_empty())
            .map(Path::to_owned)
    };
    container.mounts().iter().filter_map(below).collect()
}

/// A directory of the container, without what is mounted there. Paths that lead through symbolic links are refused: they may
/// lead into a mount, and the engine would mount a volume where they lead, not where they are.
pub(super) fn directory(container: &Container, path: &Path) -> Result<OwnedFd> {
    let layers = Layers::of(container)?;
    let view = View::of(container, &layers)?;
    open_in(&view.at(Path::new("/")), container, path)
}

/// The same as the running container sees it, with what is mounted there.
pub(crate) fn directory_inside(container: &Container, path: &Path) -> Result<OwnedFd> {
    let Some(pid) = container.pid() else {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("{} of {} is there only while it runs", path.display(), container.name()),
            "start it, then try again",
        ));
    };
    open_in(&PathBuf::from(format!("/proc/{pid}/root")), container, path)
}

fn open_in(root: &Path, container: &Container, path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open =
        rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| Error::on(root, &errno.into()))?;
    let inside = path.strip_prefix("/").unwrap_or(path);
    let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(&open, inside, flags, Mode::empty(), resolve).map_err(|errno| {
        let shown = PathBuf::from(format!("{}:{}", container.name(), path.display()));
        match errno {
            rustix::io::Errno::NOTDIR => Error::new(
                ErrorKind::InvalidInput,
                format!("{} is no directory", shown.display()),
                "volumes are directories: name the one that it is in",
            ),
            rustix::io::Errno::LOOP => Error::new(
                ErrorKind::InvalidInput,
                format!("{} is, or leads through, a symbolic link in the container", shown.display()),
                format!(
                    "name the directory itself: `docker exec {} readlink -f {}` says where it is",
                    container.name(),
                    path.display()
                ),
            ),
            errno => Error::on(&shown, &errno.into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_that_is_not_the_planned_one_any_more_is_noticed() {
        let document = json!({
            "Id": "a", "Name": "/db", "HostConfig": { "Memory": 1 },
            "State": { "Running": true, "Status": "running", "StartedAt": "2026-01-01T00:00:00Z" },
        });
        let container = Container::from_document(document.clone());
        let holding = Holding {
            name: "db".to_owned(),
            id: "a".to_owned(),
            running: true,
            kept: String::new(),
            volumes: Vec::new(),
            container: container.clone(),
        };
        assert_eq!(holding.changed(&container, true), None);
        for (pointer, value, word) in [
            ("/State/Running", json!(false), "ended"),
            ("/State/StartedAt", json!("2026-01-01T00:00:01Z"), "started anew"),
            ("/HostConfig/Memory", json!(2), "Memory"),
            ("/Name", json!("/other"), "renamed"),
        ] {
            let mut now = document.clone();
            *now.pointer_mut(pointer).unwrap() = value;
            let told = holding.changed(&Container::from_document(now), true).unwrap();
            assert!(told.contains(word), "{told}");
        }
        let mut anew = document;
        anew["State"]["StartedAt"] = json!("2026-01-02T00:00:00Z");
        assert_eq!(
            holding.changed(&Container::from_document(anew), false),
            None,
            "its volumes are where they were"
        );
    }
}
