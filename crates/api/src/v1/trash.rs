//! What can be restored.

use super::{Outcome, Volume};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The trash, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trash {
    /// The removed volumes; `trashed` says since when and until when.
    pub volumes: Vec<Volume>,
}

/// The answer to destroying what is in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Destroyed {
    /// `destroyed`, `would-destroy` (dry run), or `already-there` when there was nothing to destroy.
    pub result: Outcome,
    /// What was, or would be, destroyed.
    pub volumes: Vec<Volume>,
}
