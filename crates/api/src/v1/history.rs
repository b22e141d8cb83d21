//! Histories: cuts, snapshots, restores.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a volume is to be protected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    /// The time from one cut to the next; what it was, or 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1s")]
    pub interval: Option<String>,
    /// The vault; what it was, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<String>,
    /// Which cuts stay; what it was, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1s:10m,1m:24h,1h:7d,1d:90d")]
    pub keep: Option<String>,
    /// Volumes of one group are cut at the same instant; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// What holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Protected {
    /// The volume.
    pub name: String,
    /// Whether anything changed.
    pub changed: bool,
    /// How it is protected, if it is.
    pub protection: Option<Protect>,
}

/// How the protection of one volume is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProtectionStatus {
    /// The volume.
    pub name: String,
    /// What was asked for.
    pub protection: Protect,
    /// How changes are found: `tracking`, or `comparing` and why.
    pub method: String,
    /// The number of the newest cut that is durable in the vault.
    pub newest_cut: Option<u64>,
    /// When that cut was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub newest_time: Option<Timestamp>,
    /// Since when something has changed that no durable cut has.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub behind_since: Option<Timestamp>,
    /// Segments that wait for the vault.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// What keeps cuts from being made or put.
    pub trouble: Option<String>,
    /// How long writers waited in the last cut, in milliseconds.
    pub last_freeze_ms: Option<u64>,
    /// How long the last cut took, from its beginning until it waited for the vault, in milliseconds.
    pub last_cut_ms: Option<u64>,
    /// When it was last verified.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub verified: Option<Timestamp>,
    /// Whether it was whole then.
    pub verified_whole: Option<bool>,
}

/// How protection is doing on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Protections {
    /// Of the volumes that have it.
    pub volumes: Vec<ProtectionStatus>,
    /// The live image volumes that have none.
    pub unprotected: Vec<String>,
}

/// One cut that can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cut {
    /// Its number.
    pub point: u64,
    /// When it was.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The bytes in the vault from the cut before to this one.
    pub stored: u64,
    /// Its names.
    pub snapshots: Vec<String>,
    /// When it was last verified.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub verified: Option<Timestamp>,
    /// Whether it was whole then.
    pub verified_whole: Option<bool>,
}

/// A time without cuts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// The cut before.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// The cut after.
    #[schema(value_type = String, format = DateTime)]
    pub to: Timestamp,
    /// Why.
    pub why: String,
}

/// The history of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The vault.
    pub vault: String,
    /// The cuts, oldest first.
    pub cuts: Vec<Cut>,
    /// The bytes in the vault in all.
    pub stored: u64,
    /// Where cuts are missing.
    pub gaps: Vec<Gap>,
}

/// A name for a cut of now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// The name.
    pub name: String,
}

/// A named cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Whether anything changed.
    pub changed: bool,
    /// The cut; absent when its name was taken away.
    pub cut: Option<Cut>,
}

/// A cut and one of its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedCut {
    /// The name.
    pub name: String,
    /// The cut.
    pub cut: Cut,
}

/// The named cuts of a volume, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshots {
    /// The snapshots; a cut with two names is there twice.
    pub snapshots: Vec<NamedCut>,
}

impl From<engine::Timeline> for Snapshots {
    fn from(timeline: engine::Timeline) -> Self {
        let named = |cut: engine::CutView| {
            let cut = Cut::from(cut);
            let names = cut.snapshots.clone();
            names.into_iter().map(move |name| NamedCut { name, cut: cut.clone() })
        };
        Self { snapshots: timeline.cuts.into_iter().flat_map(named).collect() }
    }
}

/// A cut to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreCut {
    /// A time (RFC 3339), a cut (`#1234`) or the name of a snapshot.
    pub at: String,
    /// The new volume; absent: in place.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub as_name: Option<String>,
    /// In place: stop the containers that use it, and start them again.
    #[serde(default)]
    pub stop_containers: bool,
}

/// A volume to be cloned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneVolume {
    /// The new volume.
    pub to: String,
    /// A time (RFC 3339), a cut (`#1234`) or the name of a snapshot; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// What a restore or a clone did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoredCut {
    /// The volume that has the content now.
    pub name: String,
    /// The cut; 0 if it was none.
    pub point: u64,
    /// When the cut was.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The cut of the state that was replaced; restoring it undoes the restore.
    pub undo: Option<u64>,
    /// Bytes written.
    pub written: u64,
    /// Bytes of blocks read from the vault.
    pub fetched: u64,
    /// `vault`, `reflink` or `in place`.
    pub how: String,
    /// The containers that were stopped and started again.
    pub restarted: Vec<String>,
}

/// A cut to be verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// A time (RFC 3339), a cut (`#1234`) or the name of a snapshot; absent: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// The volume.
    pub name: String,
    /// The cut.
    pub point: u64,
    /// When the cut was.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Blocks whose hashes were checked.
    pub blocks: u64,
    /// What the file system's checker said.
    pub file_system: String,
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
}

impl From<&model::Protection> for Protect {
    fn from(protection: &model::Protection) -> Self {
        Self {
            interval: Some(protection.interval.to_string()),
            vault: Some(protection.vault.to_string()),
            keep: Some(protection.keep.to_string()),
            group: protection.group.as_ref().map(ToString::to_string),
        }
    }
}

impl From<engine::CutView> for Cut {
    fn from(cut: engine::CutView) -> Self {
        Self {
            point: cut.point,
            time: cut.time,
            stored: cut.stored,
            snapshots: cut.snapshots.iter().map(ToString::to_string).collect(),
            verified: cut.verified.map(|(at, _)| at),
            verified_whole: cut.verified.map(|(_, whole)| whole),
        }
    }
}

impl From<engine::Timeline> for History {
    fn from(timeline: engine::Timeline) -> Self {
        let gap = |gap: engine::Gap| Gap { from: gap.from, to: gap.to, why: gap.why };
        Self {
            vault: timeline.vault.to_string(),
            cuts: timeline.cuts.into_iter().map(Into::into).collect(),
            stored: timeline.stored,
            gaps: timeline.gaps.into_iter().map(gap).collect(),
        }
    }
}

impl From<engine::Restored> for RestoredCut {
    fn from(restored: engine::Restored) -> Self {
        Self {
            name: restored.name.to_string(),
            point: restored.point,
            time: restored.time,
            undo: restored.undo,
            written: restored.written,
            fetched: restored.fetched,
            how: restored.how.to_owned(),
            restarted: restored.restarted,
        }
    }
}

impl From<engine::Verified> for Verified {
    fn from(verified: engine::Verified) -> Self {
        Self {
            name: verified.name.to_string(),
            point: verified.point,
            time: verified.time,
            blocks: verified.blocks,
            file_system: verified.file_system,
            problems: verified.problems,
        }
    }
}

fn milliseconds(duration: std::time::Duration) -> Option<u64> {
    u64::try_from(duration.as_millis()).ok()
}

impl ProtectionStatus {
    /// Of this volume.
    pub fn of(name: &model::VolumeName, status: engine::ProtectionStatus) -> Self {
        Self {
            name: name.to_string(),
            protection: Protect::from(&status.protection),
            method: status.method,
            newest_cut: status.newest.map(|(point, _)| point),
            newest_time: status.newest.map(|(_, time)| time),
            behind_since: status.behind_since,
            waiting: status.waiting.0,
            waiting_bytes: status.waiting.1,
            trouble: status.trouble,
            last_freeze_ms: status.last_freeze.and_then(milliseconds),
            last_cut_ms: status.last_took.and_then(milliseconds),
            verified: status.verified.map(|(at, _)| at),
            verified_whole: status.verified.map(|(_, whole)| whole),
        }
    }
}
