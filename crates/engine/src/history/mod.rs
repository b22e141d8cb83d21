//! Histories: what is protected, when it is cut, and what is brought back.

mod protected;
mod schedule;
mod settings;
mod still;
mod tracking;
mod verbs;
mod views;

pub(crate) use protected::{Histories, steps};
pub use schedule::Schedule;
pub use settings::HistorySettings;
pub use tracking::Tracking;
pub use views::{CutView, Gap, ProtectionStatus, Restored, Timeline, Verified};
