//! Moving data of containers to volumes of ours, and giving the containers back on them: `rescue` and `adopt`.
//!
//! Both are one mechanism. Data is copied pass after pass while the application goes on. Then its containers are frozen for a last
//! look, which is short; what is durable on the volumes is then all that the application knows of. The frozen containers are killed
//! without ever having run again, and new ones with the same settings take their names. The old ones are kept.
//!
//! Until the new containers run, any failure brings the old ones back, unharmed: nothing is ever taken from them. A guard process
//! does that when this process is killed, and [`crate::recover`] when both were, from a journal that is written before each step.

pub(crate) mod adopt;
mod apply;
pub(crate) mod kept;
mod plan;
mod rescue;

pub(crate) use plan::directory_inside;
pub(crate) use rescue::estimate_at;

pub use adopt::plan as plan_adoption;
pub use apply::{Applied, apply};
pub use kept::{Changed, SwapStep, bring_back, discard_old};
pub use plan::{Holding, Moving, Plan, Source};
pub use rescue::{Asked, plan as plan_rescue};

/// What a relocation works with.
pub type Tools<'a> = crate::tools::Tools<'a, Step>;

/// The points at which tests end the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The journal is on disk.
    Journaled,
    /// The volumes are made.
    VolumesMade,
    /// The volumes are usable here.
    Mounted,
    /// Half of the first look is copied.
    Copying,
    /// The first look is copied.
    Copied,
    /// A new container is made, and the journal does not say so.
    ContainerMade,
    /// The new containers are made.
    ContainersMade,
    /// The containers are frozen.
    Paused,
    /// The last look is copied and durable.
    Settled,
    /// The journal says that the names change.
    Switching,
    /// The old containers are ended.
    Ended,
    /// The old containers have given up their names.
    NamesGiven,
    /// The new ones have taken them.
    NamesTaken,
    /// The new containers are started, as the journal has said before.
    Started,
    /// The journal says that they run.
    StartNoted,
    /// All is done but to put the journal away.
    Done,
}

impl Step {
    /// Every point, in the order in which they come.
    pub const ALL: [Self; 16] = [
        Self::Journaled,
        Self::VolumesMade,
        Self::Mounted,
        Self::Copying,
        Self::Copied,
        Self::ContainerMade,
        Self::ContainersMade,
        Self::Paused,
        Self::Settled,
        Self::Switching,
        Self::Ended,
        Self::NamesGiven,
        Self::NamesTaken,
        Self::Started,
        Self::StartNoted,
        Self::Done,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Journaled => "relocate-journaled",
            Self::VolumesMade => "relocate-volumes-made",
            Self::Mounted => "relocate-mounted",
            Self::Copying => "relocate-copying",
            Self::Copied => "relocate-copied",
            Self::ContainerMade => "relocate-container-made",
            Self::ContainersMade => "relocate-containers-made",
            Self::Paused => "relocate-paused",
            Self::Settled => "relocate-settled",
            Self::Switching => "relocate-switching",
            Self::Ended => "relocate-ended",
            Self::NamesGiven => "relocate-names-given",
            Self::NamesTaken => "relocate-names-taken",
            Self::Started => "relocate-started",
            Self::StartNoted => "relocate-start-noted",
            Self::Done => "relocate-done",
        }
    }
}
