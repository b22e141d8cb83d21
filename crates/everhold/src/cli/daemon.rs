//! `everhold daemon`

use super::Outcome;
use crate::config::Overrides;
use std::path::Path;

/// Run the daemon in the foreground. `--socket` (or EVERHOLD_SOCKET) is where its API listens, everhold.sock in the run
/// directory otherwise.
#[derive(Debug, clap::Args)]
pub struct Daemon {
    #[command(flatten)]
    overrides: Overrides,
}

impl Daemon {
    /// Runs until it is told to stop.
    pub fn run(self, socket: Option<&Path>) -> Outcome {
        crate::daemon::run(super::load(&self.overrides, socket)?)
    }
}
