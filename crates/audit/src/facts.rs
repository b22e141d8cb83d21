//! What is known of a Docker host: the input of an examination. Whoever gathers it hands it in; nothing here looks.
//!
//! Every fact that may be missing can be said to be missing. What could not be seen becomes a note in the report,
//! never a silent "all is well".

use crate::tally::Layer;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// A Docker host at one instant.
#[derive(Debug, Clone)]
pub struct Host {
    /// The engine.
    pub engine: EngineFacts,
    /// When it was looked at.
    pub now: Timestamp,
    /// All containers that are looked at, also stopped ones.
    pub containers: Vec<Container>,
    /// All others, as far as the engine tells without anybody looking into them: nothing is said of them but what they share.
    pub others: Vec<Container>,
    /// All volumes that the engine lists.
    pub volumes: Vec<Volume>,
    /// What else could not be looked at, each as a sentence without a full stop.
    pub unreadable: Vec<String>,
}

/// What the engine says of itself.
#[derive(Debug, Clone, Default)]
pub struct EngineFacts {
    /// `29.1.2`.
    pub version: String,
    /// `overlay2`, `overlayfs`.
    pub storage_driver: String,
    /// `DockerRootDir`: `/var/lib/docker`.
    pub root: Option<String>,
    /// The size in bytes of the file system that the root is on.
    pub fs_size: Option<u64>,
    /// What is free on it, in bytes, to everybody.
    pub fs_free: Option<u64>,
}

/// How far a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen by `docker pause`.
    Paused,
    /// Between two starts.
    Restarting,
    /// Ended.
    Exited,
    /// Half removed.
    Dead,
    /// What we do not know.
    Other(String),
}

impl State {
    /// Whether it has processes.
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// The word that Docker uses.
    pub fn word(&self) -> &str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
            Self::Other(word) => word,
        }
    }
}

/// One container.
#[derive(Debug, Clone)]
pub struct Container {
    /// The full ID.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// As typed by whoever made it: `postgres:16`, `ghcr.io/org/app@sha256:…`.
    pub image: String,
    /// `sha256:…`.
    pub image_id: String,
    /// How far it is.
    pub state: State,
    /// The host name it was given. Docker's default is the first 12 digits of the ID. `None`: not known.
    pub hostname: Option<String>,
    /// The environment, the image's included.
    pub env: BTreeMap<String, String>,
    /// Path and arguments of the main process.
    pub command: Vec<String>,
    /// The names of the running processes (`comm`). Empty when stopped or not known.
    pub processes: Vec<String>,
    /// `5432/tcp`.
    pub exposed_ports: Vec<String>,
    /// `VOLUME` paths, of the image or of the container.
    pub declared_volumes: Vec<String>,
    /// Labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// As configured: empty, `1000:1000`, `postgres`.
    pub user: String,
    /// The user ID of the main process while it runs, otherwise the one that it would have. `None`: not known.
    pub uid: Option<u32>,
    /// The group IDs that go with it, supplementary ones included.
    pub gids: Vec<u32>,
    /// `no`, `always`, `unless-stopped`, `on-failure`, or empty.
    pub restart_policy: String,
    /// `--rm`: the engine removes it, and its anonymous volumes, when it ends.
    pub auto_remove: bool,
    /// `--read-only`.
    pub read_only_root: bool,
    /// The names of containers that live in its network or in other namespaces of it.
    pub dependents: Vec<String>,
    /// What is mounted into it.
    pub mounts: Vec<Mount>,
    /// What lies in its writable layer. `Err`: why that could not be looked at, a phrase without a full stop.
    pub layer: Result<Layer, String>,
}

/// The kind of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A volume of the engine.
    Volume,
    /// A path of the host.
    Bind,
    /// Memory.
    Tmpfs,
    /// What we do not know: `npipe`, `image`, `cluster`.
    Other(String),
}

impl MountKind {
    /// The word that Docker uses.
    pub fn word(&self) -> &str {
        match self {
            Self::Volume => "volume",
            Self::Bind => "bind",
            Self::Tmpfs => "tmpfs",
            Self::Other(word) => word,
        }
    }
}

/// One mount of a container.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Its kind.
    pub kind: MountKind,
    /// The volume's name, of volumes.
    pub volume: Option<String>,
    /// Whether the engine made up the volume's name.
    pub anonymous: bool,
    /// The path on the host; empty for memory.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// The volume's driver.
    pub driver: Option<String>,
    /// Whether the container may write.
    pub read_write: bool,
    /// What is in it. `None`: it could not be looked at.
    pub content: Option<Content>,
    /// How many entries (of the top directory) the image has at the destination: what lies hidden beneath the mount. 0
    /// also when the destination is a file. `None`: not known.
    pub shadows: Option<u64>,
    /// Whether the mount has every one of these entries too, by name. The engine copies them up into an *empty
    /// volume* at its first use, so nothing is missed then; into a bind mount or a tmpfs it never does. `None`: not known.
    pub copied_up: Option<bool>,
}

/// What is in a mount or a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Whether the directory is there. If not, nothing else here has a meaning.
    pub exists: bool,
    /// Whether nothing is in it.
    pub empty: bool,
    /// The owner of its top directory, as the host's kernel sees it.
    pub uid: u32,
    /// The group of its top directory.
    pub gid: u32,
    /// The mode of its top directory (`st_mode`; the file type may be in it).
    pub mode: u32,
    /// Bytes in it, where that is cheap to know.
    pub used: Option<u64>,
    /// The size in bytes of its file system.
    pub fs_size: Option<u64>,
    /// What is free there, in bytes.
    pub fs_free: Option<u64>,
    /// Whether that file system is this volume's alone, so that "nearly full" is said of the volume.
    pub fs_is_own: bool,
    /// Names in its top directory, at most 200, to recognise what it is (`PG_VERSION`).
    pub signatures: Vec<String>,
}

impl Content {
    /// Whether it is a directory, as far as its mode says; without a file type in it, it is taken for one.
    pub(crate) fn is_directory(&self) -> bool {
        let kind = self.mode & 0o170_000;
        kind == 0 || kind == 0o040_000
    }
}

/// One volume of the engine.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether the engine made up its name.
    pub anonymous: bool,
    /// What it was made with (`o=addr=…`). Those of Docker's driver `local` make it a mount.
    pub options: BTreeMap<String, String>,
    /// Where it is on the host. Empty or `None` for a plugin's that is not mounted.
    pub mountpoint: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The names of the containers that use it, also stopped ones.
    pub used_by: Vec<String>,
    /// What is in it. `None`: it could not be looked at.
    pub content: Option<Content>,
    /// Whether its past is kept.
    pub protection: Protection,
}

/// Whether the past of a volume is kept somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Not Everhold's; no backup is known.
    Unknown,
    /// Everhold's; whether it has history was not told.
    Unseen,
    /// Everhold's, without history.
    None,
    /// Everhold's, with history.
    Protected {
        /// What is wrong with it, a phrase (`the last durable cut is 3 hours old`). `None`: it is up to date.
        behind: Option<String>,
    },
}
