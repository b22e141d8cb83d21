//! Work that takes as long as the data is large.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One piece of long work, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Work {
    /// `restore`, `clone` or `verify`.
    pub verb: String,
    /// The volume that is worked on; of a restore as a new volume: the new one.
    pub volume: String,
    /// Its identity.
    pub id: String,
    /// The cut.
    pub point: u64,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The end of what is done, in bytes of the volume; only grows.
    pub done: u64,
    /// What `done` will be at the end. 0: not known yet.
    pub total: u64,
    /// What `done` was at the beginning: the work of a run that was interrupted.
    pub resumed: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes of blocks read from the vault.
    pub fetched: u64,
    /// Bytes of the volume in a second, from the beginning of this run.
    pub rate: u64,
    /// When it ended. `null`: it goes on, or waits to be tried again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// Why it failed or, where it has not ended, why it does not go on for now.
    pub trouble: Option<String>,
}

/// The long work of this daemon: what goes on, what waits to be tried again, and what has ended a while ago. Oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// One for each volume.
    pub work: Vec<Work>,
}

impl From<engine::Progress> for Work {
    fn from(progress: engine::Progress) -> Self {
        let ms = progress.took.as_millis().max(1);
        let moved = u128::from(progress.done.saturating_sub(progress.resumed)) * 1000;
        Self {
            verb: progress.verb.to_owned(),
            volume: progress.name.to_string(),
            id: progress.id.to_string(),
            point: progress.point,
            since: progress.since,
            done: progress.done,
            total: progress.total,
            resumed: progress.resumed,
            written: progress.written,
            fetched: progress.fetched,
            rate: u64::try_from(moved / ms).unwrap_or(u64::MAX),
            ended: progress.ended,
            trouble: progress.trouble,
        }
    }
}
