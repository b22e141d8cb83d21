//! What comes out of an examination, and its JSON shape.
//!
//! The shape is stable: fields are added, never renamed or removed, within one [`Report::version`]. Sizes are bytes, times
//! RFC 3339; what is not known is absent. `found` and `why` are sentences without a full stop at the end.

use crate::facts::{Container, Content, Host, Mount, Protection, Volume};
use crate::tally::Layer;
use jiff::Timestamp;
use serde::Serialize;

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version of this shape: 1.
    pub version: u32,
    /// When the host was looked at.
    pub taken: Timestamp,
    /// The engine's version.
    pub engine: String,
    /// The engine's storage driver.
    pub storage_driver: String,
    /// The outcome in a few words and numbers.
    pub summary: Summary,
    /// Worst first; of the same severity, the most bytes first.
    pub findings: Vec<Finding>,
    /// By name.
    pub containers: Vec<ContainerReport>,
    /// By name.
    pub volumes: Vec<VolumeReport>,
}

impl Report {
    /// Whether data would be lost if the containers were removed now.
    pub fn would_lose(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Loss)
    }

    /// The findings about a container, worst first.
    pub fn of_container<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Finding> {
        self.findings.iter().filter(move |finding| finding.container.as_deref() == Some(name))
    }

    /// The findings about no container in particular, worst first.
    pub fn of_host(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.container.is_none())
    }
}

/// How bad a finding is, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To know.
    Note,
    /// Could be better.
    Advice,
    /// Data may be lost when something else happens too.
    Risk,
    /// Data would be lost now.
    Loss,
}

impl Severity {
    /// All of them, worst first.
    pub const ALL: [Self; 4] = [Self::Loss, Self::Risk, Self::Advice, Self::Note];

    /// The word for it, in lower case.
    pub fn word(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Risk => "risk",
            Self::Advice => "advice",
            Self::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, kebab-case.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The container it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The volume it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The path in the container, or on the host, that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: String,
    /// The shell command that changes it. `…` in it stands for what only the reader knows. `None`: no single command does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The directories in the container that `everhold rescue` would move, of findings that it helps with: those of the command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rescue: Vec<String>,
    /// Bytes at stake. No byte is in two findings of a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// The outcome as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `3 containers would lose 4.2 GiB if removed now.`
    pub headline: String,
    /// What else is to be said: what would survive, what is at risk, what was not seen.
    pub sentences: Vec<String>,
    /// All containers.
    pub containers: u64,
    /// Those that would lose data.
    pub losing_containers: u64,
    /// What they would lose, as far as that is known.
    pub lost_bytes: u64,
    /// What lies on volumes with a name, as far as that is known.
    pub surviving_bytes: u64,
    /// Findings by severity.
    pub losses: u64,
    /// Findings by severity.
    pub risks: u64,
    /// Findings by severity.
    pub advice: u64,
    /// Findings by severity.
    pub notes: u64,
    /// How many things could not be looked at.
    pub unseen: u64,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerReport {
    /// Its name.
    pub name: String,
    /// Its full ID.
    pub id: String,
    /// Its image, as typed.
    pub image: String,
    /// `running`, `exited`.
    pub state: String,
    /// The known services that it runs.
    pub services: Vec<String>,
    /// What it would lose, as far as that is known.
    pub lost_bytes: u64,
    /// By destination.
    pub mounts: Vec<MountReport>,
    /// What its writable layer holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_error: Option<String>,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountReport {
    /// `volume`, `bind`, `tmpfs`.
    pub kind: String,
    /// The volume's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Whether the engine made up that name.
    pub anonymous: bool,
    /// The volume's driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// Whether the container may write.
    pub read_write: bool,
    /// Bytes in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Whether it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<bool>,
    /// The service whose data lies on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
}

impl MountReport {
    pub(crate) fn new(mount: &Mount, holds: Option<String>) -> Self {
        let content = mount.content.as_ref().filter(|content| content.exists);
        Self {
            kind: mount.kind.word().to_owned(),
            volume: mount.volume.clone(),
            anonymous: mount.anonymous,
            driver: mount.driver.clone().filter(|driver| !driver.is_empty()),
            source: mount.source.clone(),
            destination: mount.destination.clone(),
            read_write: mount.read_write,
            used_bytes: content.and_then(|content| content.used),
            empty: content.map(|content| content.empty),
            holds,
        }
    }
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeReport {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether the engine made up its name.
    pub anonymous: bool,
    /// The containers that use it, also stopped ones.
    pub used_by: Vec<String>,
    /// Bytes in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Whether it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<bool>,
    /// Whether its past is kept: `unknown` (not Everhold's, or its daemon does not answer), `none`, `behind` or `protected`.
    pub history: &'static str,
}

impl VolumeReport {
    pub(crate) fn new(volume: &Volume) -> Self {
        let content = volume.content.as_ref().filter(|content| content.exists);
        Self {
            name: volume.name.clone(),
            driver: volume.driver.clone(),
            anonymous: volume.anonymous,
            used_by: volume.used_by.clone(),
            used_bytes: content.and_then(|content| content.used),
            empty: content.map(|content| content.empty),
            history: match &volume.protection {
                Protection::Unknown | Protection::Unseen => "unknown",
                Protection::None => "none",
                Protection::Protected { behind: Some(_) } => "behind",
                Protection::Protected { behind: None } => "protected",
            },
        }
    }
}

/// Whether there is anything in it; `None` where that is not known.
pub(crate) fn holds_data(content: Option<&Content>) -> Option<bool> {
    content.map(|content| content.exists && !crate::case::is_bare(content))
}

/// The name of a container, for sentences.
pub(crate) fn named(container: &Container) -> String {
    match container.state.is_alive() {
        true => container.name.clone(),
        false => format!("{} ({})", container.name, container.state.word()),
    }
}

/// By name, and by ID for the same name.
pub(crate) fn sorted(host: &Host) -> Vec<usize> {
    let mut order: Vec<usize> = (0..host.containers.len()).collect();
    order.sort_by_key(|at| (&host.containers[*at].name, &host.containers[*at].id));
    order
}
