//! Moving data of containers to volumes of ours, and giving the containers back on them: `rescue` and `adopt`.
//!
//! Both are one mechanism. Data is copied pass after pass while the application goes on. Then its containers are frozen for a last
//! look, which is short; what is durable on the volumes is then all that the application knows of. The frozen containers are killed
//! without ever having run again, and new ones with the same settings take their names. The old ones are kept.
//!
//! Until the new containers run, any failure brings the old ones back, unharmed: nothing is ever taken from them. A guard process
//! does that when this process is killed, and `recover` when both were, from a journal that is written before each step.

mod adopt;
mod apply;
mod engine;
mod journal;
mod plan;
mod recover;
mod rescue;

pub(crate) use engine::{create, inspect, pause, present, remove, start, unpause};
pub(crate) use journal::{Record, Target};
pub(crate) use plan::directory_inside;
pub(crate) use rescue::estimate_at;

pub use adopt::plan as plan_adoption;
pub use apply::{Applied, apply};
pub use journal::Journal;
pub use plan::{Holding, Moving, Plan, Source};
pub use recover::{Outcome, recover, recover_all};
pub use rescue::{Asked, bring_back, discard_old, plan as plan_rescue};

use crate::error::Result;
use crate::volumes::Volumes;
use docker::Api;
use std::path::Path;

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

/// What a relocation says while it is at work.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What begins now.
    Stage(String),
    /// How far the copy is, in bytes.
    Copied {
        /// So much is read.
        done: u64,
        /// Of about so much.
        total: u64,
    },
}

/// What a relocation works with.
pub struct Tools<'a> {
    /// The engine.
    pub api: &'a Api,
    /// The volumes.
    pub volumes: &'a dyn Volumes,
    /// The directory of the journals.
    pub journals: &'a Path,
    /// Called at each point.
    pub at: &'a dyn Fn(Step),
    /// Starts the process that brings the containers back should this one be killed; it ends when the value is dropped and the
    /// journal is gone.
    pub guard: &'a dyn Fn(&Path) -> Result<Box<dyn Send>>,
    /// Hears how it goes.
    pub say: &'a dyn Fn(Event),
}
