//! `everhold adopt`: a volume of Docker's own, or a directory of the host, becomes a volume of Everhold.

use super::relocation::{DaemonVolumes, apply, engine, problem, say_plan};
use super::{Outcome, Session};
use crate::config::Overrides;
use containers::relocate;
use std::path::Path;
use std::process::ExitCode;

/// Take over a volume of Docker's local driver, or a directory of the host
///
/// The data is copied while its containers run. Then they are paused for the last difference, and new ones with the same settings
/// take their place, on the new volume. The old containers and the old data are kept. Whatever fails, all is as it was.
/// Where no container has the volume, the new one takes over its name.
#[derive(Debug, clap::Args)]
pub struct Adopt {
    /// Name of a Docker volume, or absolute path of a directory that containers have as a bind mount
    #[arg(value_name = "DOCKER-VOLUME")]
    volume: String,
    /// Name of the new volume
    #[arg(long, value_name = "NAME")]
    r#as: Option<String>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    overrides: Overrides,
}

impl Adopt {
    /// Plans, and does it unless only the plan is asked for.
    pub fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        let config = super::load(&self.overrides, socket)?;
        let api = engine(&config.docker_socket).map_err(problem)?;
        let volumes = DaemonVolumes::new(&config).map_err(problem)?;
        let plan =
            relocate::plan_adoption(&api, &volumes, &self.volume, self.r#as.as_deref()).map_err(problem)?;
        if self.dry_run {
            session.out.show(&plan, |out| say_plan(out, &plan))?;
        } else {
            apply(session, &config, &api, &volumes, &plan)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
