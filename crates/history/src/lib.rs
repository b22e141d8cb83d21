//! Cuts and restores: from blocks that change to a vault, and back.
//!
//! One [`Writer`] for each protected volume takes changed blocks, freezes, takes the rest, and hands segments to its [`Outbox`],
//! which puts them into the vault in order. [`restore`] goes the other way. Who is protected, when it is cut, and where the
//! volumes are is not known here: it is handed in.

mod changes;
mod compare;
mod cut;
mod difference;
mod error;
mod journal;
mod noted;
mod outbox;
pub mod restore;
mod run;
mod step;
mod upkeep;
mod writer;

pub use changes::Changes;
pub use cut::{Bounds, Cut, Freezer, Frozen, Live, cut};
pub use difference::{difference, touched};
pub use error::{Error, Result};
pub use outbox::{Outbox, Waiting, Wake};
pub use step::{Step, Steps};
pub use upkeep::{GRACE, Terms, Upkeep, upkeep};
pub use writer::{Opened, PORTION, Parts, Right, Writer, salt};
