//! Volumes, and the answers of the verbs that change them.

use super::ProtectionStatus;
use jiff::Timestamp;
use model::{HolderKind, Intent};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use utoipa::ToSchema;

/// What a verb did. Every verb can be asked for again; `already-there` says that nothing had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The wish held before.
    AlreadyThere,
    /// The volume was created.
    Created,
    /// The volume was moved to the trash.
    Removed,
    /// A dry run: the volume would be moved to the trash.
    WouldRemove,
    /// The volume was brought back from the trash.
    Restored,
    /// The volume has the new name.
    Renamed,
    /// The volume has the new size.
    Grown,
    /// The labels were changed.
    Labelled,
    /// The attachment was made.
    Attached,
    /// The attachment was ended.
    Detached,
    /// The volumes were destroyed for good.
    Destroyed,
    /// A dry run: the volumes would be destroyed for good.
    WouldDestroy,
    /// Held writers go on.
    Released,
    /// What was there was opened.
    Opened,
    /// It is reached in another way now.
    Changed,
    /// This host is the vault's writer now.
    TakenOver,
    /// The vault is not known any more; what is in it stays.
    Forgotten,
}

impl Outcome {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyThere => "already-there",
            Self::Created => "created",
            Self::Removed => "removed",
            Self::WouldRemove => "would-remove",
            Self::Restored => "restored",
            Self::Renamed => "renamed",
            Self::Grown => "grown",
            Self::Labelled => "labelled",
            Self::Attached => "attached",
            Self::Detached => "detached",
            Self::Destroyed => "destroyed",
            Self::WouldDestroy => "would-destroy",
            Self::Released => "released",
            Self::Opened => "opened",
            Self::Changed => "changed",
            Self::TakenOver => "taken-over",
            Self::Forgotten => "forgotten",
        }
    }

    /// `done`, unless nothing had to be done.
    pub(crate) fn of(change: engine::Change, done: Self) -> Self {
        match change {
            engine::Change::Done => done,
            engine::Change::AlreadyThere => Self::AlreadyThere,
        }
    }
}

/// Where a volume stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Nobody holds it.
    Ready,
    /// Someone holds it.
    Attached,
    /// It is being grown.
    Growing,
    /// Its creation failed half-way and could not be undone yet.
    Creating,
    /// It is being restored to a cut, in place or as a new volume.
    Restoring,
    /// It is in the trash.
    Trashed,
    /// Its destruction has begun.
    Destroying,
    /// An undo failed: nothing more is done to it until someone has looked.
    Fenced,
}

impl VolumeState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Attached,
        Self::Growing,
        Self::Creating,
        Self::Restoring,
        Self::Trashed,
        Self::Destroying,
        Self::Fenced,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Attached => "attached",
            Self::Growing => "growing",
            Self::Creating => "creating",
            Self::Restoring => "restoring",
            Self::Trashed => "trashed",
            Self::Destroying => "destroying",
            Self::Fenced => "fenced",
        }
    }

    pub(crate) fn of(volume: &model::Volume) -> Self {
        match volume.pending {
            _ if volume.fenced.is_some() => Self::Fenced,
            Some(Intent::Create) => Self::Creating,
            Some(Intent::Restore { .. } | Intent::Import { .. }) if volume.is_live() => Self::Restoring,
            Some(Intent::Destroy) => Self::Destroying,
            Some(Intent::Grow { .. }) => Self::Growing,
            _ if !volume.is_live() => Self::Trashed,
            _ if volume.attachments.is_empty() => Self::Ready,
            _ => Self::Attached,
        }
    }
}

/// What a holder does with a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and write.
    #[default]
    ReadWrite,
    /// Read only.
    ReadOnly,
}

impl From<model::Access> for Access {
    fn from(access: model::Access) -> Self {
        match access {
            model::Access::ReadWrite => Self::ReadWrite,
            model::Access::ReadOnly => Self::ReadOnly,
        }
    }
}

impl From<Access> for model::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::ReadWrite => Self::ReadWrite,
            Access::ReadOnly => Self::ReadOnly,
        }
    }
}

/// One holder's use of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// The holder's own identifier.
    pub id: String,
    /// Who asked for it: `docker`, `cli` or `recovered` (found mounted when the catalog was rebuilt).
    pub holder: String,
    /// What the holder does.
    pub access: Access,
    /// Since when.
    pub since: Timestamp,
}

impl From<&model::Attachment> for Attachment {
    fn from(attachment: &model::Attachment) -> Self {
        let holder = match attachment.holder {
            HolderKind::Docker => "docker",
            HolderKind::Cli => "cli",
            HolderKind::Recovered => "recovered",
        };
        Self {
            id: attachment.id.clone(),
            holder: holder.to_owned(),
            access: attachment.access.into(),
            since: attachment.since,
        }
    }
}

/// When and until when a volume is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trashed {
    /// When it was removed.
    pub at: Timestamp,
    /// When it will be destroyed, unless restored before.
    pub expires: Timestamp,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Its identity, a UUID; independent of its name, and never reused.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How it is stored: `image`, `dir` or `tmpfs`.
    pub driver: String,
    /// Its pool's name.
    pub pool: String,
    /// Its size in bytes. `null`: as much as the pool has.
    pub size: Option<u64>,
    /// Where it stands.
    pub state: VolumeState,
    /// When it was created.
    pub created: Timestamp,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its settings in the words of the options; `size` is a number of bytes.
    pub options: BTreeMap<String, String>,
    /// Where its data is on the host while it is attached.
    pub path: Option<String>,
    /// Who holds it.
    pub attachments: Vec<Attachment>,
    /// Why it is fenced, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<String>,
    /// Since when and until when it is in the trash, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trashed: Option<Trashed>,
}

impl Volume {
    pub(crate) fn of(volume: &model::Volume, path: Option<&Path>) -> Self {
        let mut options = volume.spec.describe();
        options.retain(|key, value| !key.starts_with("label.") && !value.is_empty());
        Self {
            id: volume.id.to_string(),
            name: volume.name.to_string(),
            driver: volume.spec.kind().to_string(),
            pool: volume.spec.pool.to_string(),
            size: volume.spec.size().map(model::Size::bytes),
            state: VolumeState::of(volume),
            created: volume.created,
            labels: volume.spec.labels.clone(),
            options,
            path: path.map(|path| path.display().to_string()),
            attachments: volume.attachments.iter().map(Attachment::from).collect(),
            fenced: volume.fenced.clone(),
            trashed: volume.trashed().map(|trashed| Trashed { at: trashed.at, expires: trashed.expires }),
        }
    }
}

/// The live volumes, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volumes {
    /// The volumes.
    pub volumes: Vec<Volume>,
}

/// Something wrong with a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub next: String,
}

/// All about one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeDetail {
    /// Its record.
    #[serde(flatten)]
    pub volume: Volume,
    /// Its directory in the pool.
    pub home: String,
    /// The block device in use, if any.
    pub device: Option<String>,
    /// Whether the loop device goes around the page cache. `null`: no loop device.
    pub direct_io: Option<bool>,
    /// Whether its writers are held because the pool is full.
    pub held: bool,
    /// How its history is doing. `null`: it has none.
    #[serde(default)]
    pub protection: Option<ProtectionStatus>,
    /// What its user should know.
    pub notes: Vec<String>,
    /// What is wrong with it.
    pub problems: Vec<Finding>,
}

impl VolumeDetail {
    pub(crate) fn of(inspection: engine::Inspection, protection: Option<engine::ProtectionStatus>) -> Self {
        let seen = inspection.seen;
        Self {
            volume: Volume::of(&inspection.volume, seen.path.as_deref()),
            home: inspection.home.display().to_string(),
            device: seen.device.map(|device| device.display().to_string()),
            direct_io: seen.direct_io,
            held: inspection.held,
            protection: protection.map(|status| ProtectionStatus::of(&inspection.volume.name, status)),
            notes: seen.notes,
            problems: seen.problems.into_iter().map(|p| Finding { what: p.what, next: p.next }).collect(),
        }
    }
}

/// The answer of a verb that leaves a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeChanged {
    /// What was done.
    pub result: Outcome,
    /// The volume as it is now.
    pub volume: Volume,
}

/// The answer to removing a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeRemoved {
    /// `removed`, `would-remove` (dry run), or `already-there` when there is no such volume.
    pub result: Outcome,
    /// The volume, now in the trash; as it is in a dry run. `null` when there is no such volume.
    pub volume: Option<Volume>,
}

/// The answer to an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attached {
    /// `attached` or `already-there`.
    pub result: Outcome,
    /// The attachment's identifier.
    pub id: String,
    /// Where the volume's data is on the host.
    pub path: String,
}

/// The answer to the end of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Detached {
    /// `detached`, or `already-there` when there is no such attachment.
    pub result: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_on_the_wire() {
        for state in VolumeState::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("{:?}", state.as_str()));
        }
        for outcome in [Outcome::AlreadyThere, Outcome::WouldDestroy, Outcome::Grown] {
            assert_eq!(serde_json::to_string(&outcome).unwrap(), format!("{:?}", outcome.as_str()));
        }
    }
}
