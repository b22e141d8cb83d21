//! Fault points: places between two steps of a verb where tests end the process.
//!
//! A release build has them too, at the cost of one comparison, but nothing that sets them off.

/// Between which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Create: recorded, nothing made.
    CreateRecorded,
    /// Create: the home is there, the driver has not begun.
    CreateHome,
    /// Create: the driver is done, the description is not written.
    CreateMade,
    /// Create: described, not yet recorded as ready.
    CreateDescribed,
    /// Attach: the attachment is recorded, the kernel is untouched.
    AttachRecorded,
    /// Attach: mounted, not answered.
    AttachMounted,
    /// Detach: unmounted, the attachment is still recorded.
    DetachUnmounted,
    /// Grow: recorded, nothing grown.
    GrowRecorded,
    /// Grow: grown, not recorded.
    GrowDone,
    /// Remove: described as removed, not recorded.
    RemoveDescribed,
    /// Restore: described as live, not recorded.
    RestoreDescribed,
    /// Rename: described with the new name, not recorded.
    RenameDescribed,
    /// Label: described with the new labels, not recorded.
    LabelDescribed,
    /// Destroy: recorded, nothing destroyed.
    DestroyRecorded,
    /// Destroy: the data is gone, the description is there.
    DestroyData,
    /// Destroy: the home is gone, the record is there.
    DestroyHome,
    /// Restore in place: recorded, nothing rewritten.
    RestorePointRecorded,
    /// Restore in place: rewritten, still recorded.
    RestorePointWritten,
    /// Restore in place: the containers to be stopped are recorded, none is stopped.
    RestoreStopRecorded,
    /// Restore in place: the containers are stopped, nothing else is done.
    RestoreStopped,
    /// Restore as a new volume: recorded, nothing made.
    RestoreAsRecorded,
    /// Restore as a new volume: made, still recorded as being made.
    RestoreAsMade,
    /// Bundle: a chunk of it is stored.
    BundleChunk,
    /// Bundle: all chunks are stored, it is not described.
    BundleChunks,
    /// Bundle: described, not in the inventory.
    BundleDescribed,
    /// A step of a history.
    History(history::Step),
}

impl Fault {
    /// Every fault point of the lifecycle; those of a history are [`history::Step::ALL`].
    pub const ALL: [Self; 16] = [
        Self::CreateRecorded,
        Self::CreateHome,
        Self::CreateMade,
        Self::CreateDescribed,
        Self::AttachRecorded,
        Self::AttachMounted,
        Self::DetachUnmounted,
        Self::GrowRecorded,
        Self::GrowDone,
        Self::RemoveDescribed,
        Self::RestoreDescribed,
        Self::RenameDescribed,
        Self::LabelDescribed,
        Self::DestroyRecorded,
        Self::DestroyData,
        Self::DestroyHome,
    ];

    /// Those of a restore in place.
    pub const OF_RESTORE: [Self; 2] = [Self::RestorePointRecorded, Self::RestorePointWritten];

    /// Those of a restore in place that stops containers.
    pub const OF_STOPPING: [Self; 2] = [Self::RestoreStopRecorded, Self::RestoreStopped];

    /// Those of a restore as a new volume.
    pub const OF_RESTORE_AS: [Self; 2] = [Self::RestoreAsRecorded, Self::RestoreAsMade];

    /// Those of a bundle that is stored.
    pub const OF_BUNDLE: [Self; 3] = [Self::BundleChunk, Self::BundleChunks, Self::BundleDescribed];

    fn every() -> impl Iterator<Item = Self> {
        let restores = Self::OF_RESTORE.into_iter().chain(Self::OF_STOPPING).chain(Self::OF_RESTORE_AS);
        Self::ALL.into_iter().chain(restores).chain(Self::OF_BUNDLE)
    }

    /// The fault point with this name, as [`std::fmt::Debug`] prints it.
    pub fn named(name: &str) -> Option<Self> {
        let step = || history::Step::named(name).map(Self::History);
        Self::every().find(|fault| format!("{fault:?}") == name).or_else(step)
    }
}

/// Which fault point ends the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Faults {
    /// None.
    #[default]
    None,
    /// This one, at once and without any clean-up, as `kill -9` would.
    Abort(Fault),
    /// This one, with a panic: for tests within one process.
    Panic(Fault),
}

impl Faults {
    #[expect(clippy::panic, reason = "a test asked for it")]
    pub(crate) fn at(self, fault: Fault) {
        match self {
            Self::Abort(set) if set == fault => std::process::abort(),
            Self::Panic(set) if set == fault => panic!("fault point {fault:?}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_its_name() {
        for fault in Fault::every() {
            assert_eq!(Fault::named(&format!("{fault:?}")), Some(fault));
        }
        assert_eq!(Fault::named("Nowhere"), None);
    }
}
