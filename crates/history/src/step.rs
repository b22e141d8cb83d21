//! Where tests end the process.

use std::fmt;
use std::sync::Arc;

/// Between which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Changed blocks are written down, their marks are not cleared.
    CutTaken,
    /// Marks are cleared, nothing is read.
    CutCleared,
    /// The file system is frozen.
    CutFrozen,
    /// Thawed; nothing of the rest is sealed.
    CutThawed,
    /// The segment is built and waits for the vault.
    CutQueued,
    /// Upload: the segment is in the vault, not yet known to be ours.
    UploadPut,
    /// Upload: known to be durable, still written down as taken.
    UploadDurable,
    /// Merge: the merged segment is there beside its sources.
    MergePut,
    /// Delete: condemned, nothing deleted.
    DeleteCondemned,
    /// Delete: some objects are gone, the list is there.
    DeleteHalf,
    /// Restore: some blocks are written.
    RestoreHalf,
    /// Restore: it is noted how far it has come.
    RestoreNoted,
    /// Restore: all is written, not recorded.
    RestoreWritten,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::CutTaken,
        Self::CutCleared,
        Self::CutFrozen,
        Self::CutThawed,
        Self::CutQueued,
        Self::UploadPut,
        Self::UploadDurable,
        Self::MergePut,
        Self::DeleteCondemned,
        Self::DeleteHalf,
        Self::RestoreHalf,
        Self::RestoreNoted,
        Self::RestoreWritten,
    ];

    /// The step with this name, as [`fmt::Debug`] prints it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| format!("{step:?}") == name)
    }
}

/// Called at each step.
#[derive(Clone)]
pub struct Steps(Arc<dyn Fn(Step) + Send + Sync>);

impl Steps {
    /// Calls `at`.
    pub fn new(at: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Arc::new(at))
    }

    pub(crate) fn at(&self, step: Step) {
        (self.0)(step);
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Steps")
    }
}
