//! Histories as they are in a vault, whatever became of their volumes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Whether this host has a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Here {
    /// It is live.
    Yes,
    /// It is in the trash.
    Trash,
    /// It was destroyed, or is another host's.
    No,
}

impl Here {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Trash => "trash",
            Self::No => "no",
        }
    }
}

/// One history in a vault, whatever became of its volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredHistory {
    /// What stands for the volume in the names of the vault's objects. It can be asked for by this where nothing else is known.
    pub stream: String,
    /// The volume's name; `null` if that can't be told.
    pub volume: Option<String>,
    /// The volume's ID; `null` if that can't be told.
    pub id: Option<String>,
    /// The volume's size in bytes.
    pub size: Option<u64>,
    /// The volume's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether this host has the volume.
    pub here: Here,
    /// How many cuts can be restored.
    pub cuts: u64,
    /// The number of the oldest cut.
    pub first_cut: Option<u64>,
    /// When that cut was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub first_time: Option<Timestamp>,
    /// The number of the newest cut.
    pub newest_cut: Option<u64>,
    /// When that cut was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub newest_time: Option<Timestamp>,
    /// The bytes in the vault in all.
    pub stored: u64,
    /// What of it is missing or can't be read, in words.
    pub problems: Vec<String>,
}

/// The histories in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredHistories {
    /// The vault.
    pub vault: String,
    /// By the name of the volume; last those of which it can't be told what they are of.
    pub histories: Vec<StoredHistory>,
}

impl From<engine::StoredHistory> for StoredHistory {
    fn from(stored: engine::StoredHistory) -> Self {
        let volume = stored.volume();
        Self {
            stream: stored.stream.to_string(),
            volume: volume.map(|volume| volume.name.to_string()),
            id: volume.map(|volume| volume.id.to_string()),
            size: volume.and_then(|volume| volume.spec.size()).map(model::Size::bytes),
            labels: volume.map(|volume| volume.spec.labels.clone()).unwrap_or_default(),
            here: match &stored.here {
                Some(here) if here.is_live() => Here::Yes,
                Some(_) => Here::Trash,
                None => Here::No,
            },
            cuts: stored.cuts,
            first_cut: stored.first.map(|(point, _)| point),
            first_time: stored.first.map(|(_, time)| time),
            newest_cut: stored.newest.map(|(point, _)| point),
            newest_time: stored.newest.map(|(_, time)| time),
            stored: stored.stored,
            problems: stored.about.err().into_iter().chain(stored.damaged).collect(),
        }
    }
}

/// A cut to be made a new volume, of a history in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreStored {
    /// A time (RFC 3339), a cut (`#1234`) or the name of a snapshot.
    pub at: String,
    /// The new volume.
    #[serde(rename = "as")]
    pub as_name: String,
    /// The pool that it is put in; absent: the one that the volume was in, if this host has one of that name, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}
