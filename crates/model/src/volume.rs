//! The record of a volume: what it is, who holds it, and what is being done to it.

use crate::{Size, Spec, VaultName, VolumeName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The identity of a volume: never reused, independent of its name, and the UUID of the file system inside an image
/// that was not made from another's history (see [`Volume::superblock_uuid`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(Uuid);

impl VolumeId {
    /// The identity with these 16 bytes.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The 16 bytes, as they stand in a superblock.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VolumeId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// What a holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
}

/// Who asked for an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HolderKind {
    /// A Docker Engine, through the volume plugin.
    Docker,
    /// `everhold volume mount`.
    Cli,
    /// Found mounted when the catalog was rebuilt; who asked for it is not known.
    Recovered,
}

/// One holder's use of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The holder's own identifier: Docker's mount ID, or what the command line chose.
    pub id: String,
    /// Who asked for it.
    pub holder: HolderKind,
    /// What the holder may do.
    pub access: Access,
    /// Since when.
    pub since: Timestamp,
    /// The boot in which it was made (`/proc/sys/kernel/random/boot_id`): no attachment outlives a reboot.
    pub boot_id: String,
}

/// When and until when a volume is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trashed {
    /// When it was removed.
    pub at: Timestamp,
    /// When it will be destroyed, unless restored before.
    pub expires: Timestamp,
}

/// Where a volume is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Life {
    /// In use or ready for it.
    Live,
    /// Removed, and restorable until it expires.
    Trashed(Trashed),
}

/// What was begun and is not known to be finished. Start-up finishes or undoes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Intent {
    /// Being made: undone at start-up.
    Create,
    /// Being grown: finished at start-up.
    Grow {
        /// The size to reach.
        to: Size,
    },
    /// Being destroyed: finished at start-up.
    Destroy,
    /// Being rewritten in place with a point of a history: finished at start-up, for what was there is half gone.
    Restore {
        /// The vault that has the history.
        vault: VaultName,
        /// The stream in the vault: the volume whose history it is.
        stream: VolumeId,
        /// The number of the point.
        point: u64,
    },
    /// Being made from a point of a history: finished at start-up, from where it had come to.
    Import {
        /// The vault that has the history.
        vault: VaultName,
        /// The stream in the vault: the volume whose history it is.
        stream: VolumeId,
        /// The number of the point.
        point: u64,
    },
}

impl Intent {
    /// The point that is being restored, in place or as a new volume: its vault, its stream and its number.
    pub fn restores(&self) -> Option<(&VaultName, VolumeId, u64)> {
        match self {
            Self::Restore { vault, stream, point } | Self::Import { vault, stream, point } => {
                Some((vault, *stream, *point))
            }
            Self::Create | Self::Grow { .. } | Self::Destroy => None,
        }
    }
}

/// A container that was stopped for a volume's sake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Its full ID.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// All that is recorded of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its identity.
    pub id: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// What it is asked to be, today.
    pub spec: Spec,
    /// What its creator asked for, in the words of the options.
    #[serde(default)]
    pub asked: BTreeMap<String, String>,
    /// The same as it was typed, for who compares words (docker-compose does).
    #[serde(default)]
    pub typed: BTreeMap<String, String>,
    /// When it was created.
    pub created: Timestamp,
    /// Live or in the trash.
    pub life: Life,
    /// The project that its quota counts (driver `dir` with a size).
    #[serde(default)]
    pub project: Option<u32>,
    /// The UUID in the superblock of its file system, where that is not the volume's own identity: a clone keeps its
    /// origin's, and so does a volume that was restored from another's history.
    #[serde(default)]
    pub filesystem: Option<VolumeId>,
    /// What was begun.
    #[serde(default)]
    pub pending: Option<Intent>,
    /// Containers that are to be started again when the restore in place is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<Stopped>,
    /// Who holds it.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// Set when an undo failed: nothing more is done to it until someone has looked.
    #[serde(default)]
    pub fenced: Option<String>,
}

impl Volume {
    /// Not in the trash.
    pub fn is_live(&self) -> bool {
        self.life == Life::Live
    }

    /// When it came to the trash, if it is there.
    pub fn trashed(&self) -> Option<Trashed> {
        match self.life {
            Life::Live => None,
            Life::Trashed(trashed) => Some(trashed),
        }
    }

    /// The UUID to be found in the superblock of its file system.
    pub fn superblock_uuid(&self) -> VolumeId {
        self.filesystem.unwrap_or(self.id)
    }

    /// Restored, in place or as a new volume, and not finished: the vault, the stream and the number of the point.
    pub fn restoring(&self) -> Option<(&VaultName, VolumeId, u64)> {
        self.pending.as_ref().and_then(Intent::restores)
    }

    /// The attachment with this identifier.
    pub fn attachment(&self, id: &str) -> Option<&Attachment> {
        self.attachments.iter().find(|attachment| attachment.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6f1de4b2-58f0-4d0e-9c52-0e5f0c1a2b3c";
    const ORIGIN: &str = "11111111-2222-4333-8444-555555555555";

    /// A record as it was written before there were histories.
    fn old_record() -> String {
        format!(
            r#"{{"id":"{ID}","name":"pgdata","spec":{{"driver":{{"kind":"sim","size":1048576}},"pool":"default",
            "owner":{{"uid":0,"gid":0,"mode":"0755"}},"exclusive":false,"readonly":false,"labels":{{}}}},
            "created":"2026-11-21T14:03:00Z","life":{{"state":"live"}}}}"#
        )
    }

    #[test]
    fn an_old_record_is_read() {
        let volume: Volume = serde_json::from_str(&old_record()).unwrap();
        assert_eq!((volume.filesystem, &volume.spec.protection), (None, &None));
        assert_eq!(volume.superblock_uuid(), volume.id);
        let origin: VolumeId = ORIGIN.parse().unwrap();
        assert_eq!(Volume { filesystem: Some(origin), ..volume }.superblock_uuid(), origin);
    }

    #[test]
    fn intents_keep_their_form_on_disk() {
        let stream = ORIGIN.parse().unwrap();
        let restore = Intent::Restore { vault: VaultName::default(), stream, point: 7 };
        let import = Intent::Import { vault: VaultName::default(), stream, point: 7 };
        for (intent, json) in [
            (Intent::Create, r#"{"verb":"create"}"#.to_owned()),
            (Intent::Grow { to: Size::from_bytes(7) }, r#"{"verb":"grow","to":7}"#.to_owned()),
            (Intent::Destroy, r#"{"verb":"destroy"}"#.to_owned()),
            (restore, format!(r#"{{"verb":"restore","vault":"local","stream":"{ORIGIN}","point":7}}"#)),
            (import, format!(r#"{{"verb":"import","vault":"local","stream":"{ORIGIN}","point":7}}"#)),
        ] {
            assert_eq!(serde_json::to_string(&intent).unwrap(), json);
            assert_eq!(serde_json::from_str::<Intent>(&json).unwrap(), intent);
        }
    }
}
