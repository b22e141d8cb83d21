//! `everhold rescue`: data that would go with its container, moved to a volume.

use super::relocation::{DaemonVolumes, apply, engine, journals, problem, say_plan, with_tools};
use super::{Outcome, Session};
use crate::config::{Config, Overrides};
use crate::output::plain;
use api::v1::Problem;
use containers::relocate::{self, Asked, SwapStep};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Move data that would go with its container to a volume of Everhold, and give the container back on it
///
/// Shows what would be done; `--apply` does it. The data is copied while the container runs. Then it is paused for the last
/// difference, and a new container with the same settings takes its place. The old one is kept, stopped. Whatever fails, and
/// also when this command is killed, the old one is brought back as it was.
#[derive(Debug, clap::Args)]
pub struct Rescue {
    /// The container's name or ID
    #[arg(required_unless_present = "recover")]
    container: Option<String>,
    /// Directory in the container, or the place of an anonymous volume [default: what the audit says would be lost]
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Name of the new volume [default: made of the container's name and the directory's]
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Do it
    #[arg(long, group = "what")]
    apply: bool,
    /// Go back to the old container; the new one is kept, stopped, with its volumes
    #[arg(long, group = "what", conflicts_with_all = ["paths", "volume"])]
    undo: bool,
    /// Remove the old container, for good
    #[arg(long, group = "what", conflicts_with_all = ["paths", "volume"])]
    discard_old: bool,
    /// Finish or undo what interrupted rescues, adoptions, backups and restores left
    #[arg(long, group = "what", conflicts_with_all = ["paths", "volume", "container"])]
    recover: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// The shape of `--recover --json`.
#[derive(Debug, Serialize)]
struct Recovered {
    relocation: String,
    outcome: Option<containers::Outcome>,
    problem: Option<Problem>,
}

impl Rescue {
    /// Plans, and does it if that is asked for.
    pub fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        let config = super::load(&self.overrides, socket)?;
        if self.recover {
            return recover(session, &config);
        }
        let container = self.container.clone().unwrap_or_default();
        let api = engine(&config.docker_socket).map_err(problem)?;
        let volumes = DaemonVolumes::new(&config).map_err(problem)?;
        if self.undo || self.discard_old {
            let changed = with_tools(&config, &api, &volumes, SwapStep::name, |tools| match self.undo {
                true => relocate::bring_back(tools, &container),
                false => relocate::discard_old(tools, &container),
            });
            let changed = changed.map_err(problem)?;
            session.out.show(&changed, |out| {
                for removed in &changed.removed {
                    out.line(&format!("{} is removed for good", plain(removed)));
                }
                for kept in &changed.kept {
                    out.line(&format!(
                        "{} is the old container again; the other one is kept as {kept}",
                        changed.container
                    ));
                }
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut paths = self.paths.clone();
        if paths.is_empty() {
            paths = super::audit::at_stake(&api, &config, &container).map_err(problem)?;
        }
        let asked = Asked { paths, volume: self.volume.clone() };
        let plan = relocate::plan_rescue(&api, &volumes, &container, &asked).map_err(problem)?;
        if self.apply {
            apply(session, &config, &api, &volumes, &plan)?;
            return Ok(ExitCode::SUCCESS);
        }
        session.out.show(&plan, |out| {
            say_plan(out, &plan);
            out.aside("Nothing was done yet: `--apply` does it.");
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn recover(session: &Session, config: &Config) -> Outcome {
    let volumes = DaemonVolumes::new(config).map_err(problem)?;
    let all =
        containers::recover_all(&journals(config), &|socket| engine(socket), &volumes).map_err(problem)?;
    let all: Vec<Recovered> = all
        .into_iter()
        .map(|(relocation, outcome)| match outcome {
            Ok(outcome) => Recovered { relocation, outcome: Some(outcome), problem: None },
            Err(error) => Recovered { relocation, outcome: None, problem: Some(problem(error)) },
        })
        .collect();
    session.out.show(&all, |out| {
        for one in &all {
            let what = match one.outcome {
                Some(containers::Outcome::Finished) => "was finished".to_owned(),
                Some(containers::Outcome::LeftAlone) => {
                    "was left as it is: an old container runs, so somebody has gone on by hand".to_owned()
                }
                Some(containers::Outcome::Undone) => "was undone: all is as it was before".to_owned(),
                None => one.problem.as_ref().map_or_else(String::new, |problem| plain(&problem.detail)),
            };
            out.line(&format!("{}: {what}", plain(&one.relocation)));
        }
        if all.is_empty() {
            out.aside("Nothing was left interrupted.");
        }
    })?;
    match all.into_iter().find_map(|one| one.problem) {
        Some(problem) => Err(Problem::new(
            problem.kind(),
            "not everything could be brought back yet",
            "see above, then ask again",
        )
        .with_data_state(
            "nothing is lost: what was there before is there; containers of a backup may be paused",
        )),
        None => Ok(ExitCode::SUCCESS),
    }
}
