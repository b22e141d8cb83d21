//! What the engine says about histories.

use jiff::Timestamp;
use model::{Protection, SnapshotName, VaultName, Volume, VolumeId, VolumeName};
use std::sync::Arc;
use std::time::Duration;
use vault::format::StreamId;

/// One cut that can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutView {
    /// Its number.
    pub point: u64,
    /// When it was.
    pub time: Timestamp,
    /// The bytes in the vault from the cut before to this one.
    pub stored: u64,
    /// The names that it has.
    pub snapshots: Vec<SnapshotName>,
    /// When it was last restored to scratch and checked, and whether it was whole.
    pub verified: Option<(Timestamp, bool)>,
}

/// Two cuts further apart than they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The cut before.
    pub from: Timestamp,
    /// The cut after.
    pub to: Timestamp,
    /// Why, where it is known.
    pub why: String,
}

/// The history of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The vault.
    pub vault: VaultName,
    /// The cuts, oldest first.
    pub cuts: Vec<CutView>,
    /// The bytes in the vault in all.
    pub stored: u64,
    /// Where cuts are missing.
    pub gaps: Vec<Gap>,
}

/// One history in a vault, whatever became of its volume.
#[derive(Debug, Clone)]
pub struct StoredHistory {
    /// What stands for it in the names of its objects.
    pub stream: StreamId,
    /// The volume as the vault describes it; or why that can't be told, in words.
    pub about: std::result::Result<Box<Volume>, String>,
    /// The volume, if this host has it: live, or in the trash.
    pub here: Option<Arc<Volume>>,
    /// Its oldest cut.
    pub first: Option<(u64, Timestamp)>,
    /// Its newest cut.
    pub newest: Option<(u64, Timestamp)>,
    /// How many cuts can be restored.
    pub cuts: u64,
    /// The bytes in the vault in all.
    pub stored: u64,
    /// What else is in it and can't be read.
    pub damaged: Vec<String>,
}

impl StoredHistory {
    /// What it is of, as far as anyone knows: where the vault can't tell, this host may.
    pub fn volume(&self) -> Option<&Volume> {
        self.about.as_deref().ok().or(self.here.as_deref())
    }
}

/// How a volume's protection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectionStatus {
    /// What was asked for.
    pub protection: Protection,
    /// How changes are found: `tracking`, or `comparing` and why.
    pub method: String,
    /// The newest cut that is durable in the vault.
    pub newest: Option<(u64, Timestamp)>,
    /// Since when something has changed that no durable cut has.
    pub behind_since: Option<Timestamp>,
    /// Cuts and bytes that wait for the vault.
    pub waiting: (u64, u64),
    /// What keeps cuts from being made.
    pub trouble: Option<String>,
    /// How long writers waited in the last cut.
    pub last_freeze: Option<Duration>,
    /// How long the last cut took, from its beginning until it waited for the vault.
    pub last_took: Option<Duration>,
    /// When it was last verified, and whether it was whole.
    pub verified: Option<(Timestamp, bool)>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The volume that has the content now.
    pub name: VolumeName,
    /// Its identity.
    pub id: VolumeId,
    /// The cut.
    pub point: u64,
    /// When the cut was.
    pub time: Timestamp,
    /// The cut of the state that was replaced; restoring it undoes the restore.
    pub undo: Option<u64>,
    /// Bytes written.
    pub written: u64,
    /// Bytes of blocks read from the vault; what an interrupted run had done is not counted.
    pub fetched: u64,
    /// How: `vault`, `reflink`, `in place`, `copy`.
    pub how: &'static str,
    /// The containers that were stopped and started again.
    pub restarted: Vec<String>,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The volume.
    pub name: VolumeName,
    /// The cut.
    pub point: u64,
    /// When the cut was.
    pub time: Timestamp,
    /// Blocks whose hashes were checked.
    pub blocks: u64,
    /// What the file system's checker said.
    pub file_system: String,
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
}
