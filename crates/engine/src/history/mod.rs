//! Histories: what is protected, when it is cut, and what is brought back.

mod going;
mod protected;
mod restores;
mod schedule;
mod settings;
mod still;
mod stopping;
mod stored;
mod tracking;
mod verbs;
mod verification;
mod views;

pub use going::Progress;
pub(crate) use protected::{Histories, steps};
pub(crate) use restores::NOTE;
pub use schedule::Schedule;
pub use settings::HistorySettings;
pub use tracking::Tracking;
pub use views::{CutView, Gap, ProtectionStatus, Restored, StoredHistory, Timeline, Verified};
