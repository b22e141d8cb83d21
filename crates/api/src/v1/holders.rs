//! Who uses a volume.

use super::{Access, Attachment};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who uses a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holders {
    /// The volume's name.
    pub volume: String,
    /// The attachments that keep it mounted.
    pub attachments: Vec<Attachment>,
    /// The containers that have it among their mounts, running or not.
    pub containers: Vec<Container>,
    /// Why the containers are not known, if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers_unknown: Option<String>,
    /// The host's processes with open files on it, in any mount namespace.
    pub processes: Vec<Process>,
}

/// One container's use of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Container {
    /// The container's full ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image that it was made from.
    pub image: String,
    /// `running`, `exited`, `paused`, … as the container engine says it.
    pub state: String,
    /// Where the volume is mounted in it.
    pub destination: String,
    /// How it is mounted there.
    pub access: Access,
}

/// One process with open files on a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Process {
    /// Its process ID on the host.
    pub pid: u32,
    /// The name of its program, at most 15 bytes.
    pub command: String,
    /// `read-write` if any of its files is open for writing.
    pub access: Access,
    /// The files, each once, as paths the way the process sees them; its working directory is among them.
    pub files: Vec<String>,
}

fn access(read_only: bool) -> Access {
    if read_only { Access::ReadOnly } else { Access::ReadWrite }
}

impl From<engine::ContainerUse> for Container {
    fn from(container: engine::ContainerUse) -> Self {
        Self {
            id: container.id,
            name: container.name,
            image: container.image,
            state: container.state,
            destination: container.destination,
            access: access(container.read_only),
        }
    }
}

impl From<engine::Process> for Process {
    fn from(process: engine::Process) -> Self {
        let read_only = process.uses.iter().all(|used| used.access == engine::FileAccess::Read);
        let mut files: Vec<_> = process.uses.iter().map(|used| used.path.display().to_string()).collect();
        files.sort_unstable();
        files.dedup();
        Self { pid: process.pid, command: process.command, access: access(read_only), files }
    }
}
