//! `everhold container …`: backups of whole containers.

mod kept;
mod place;

use super::relocation::{DaemonVolumes, engine, problem, show, with_tools};
use super::{Outcome, Session};
use crate::config::Overrides;
use crate::output::human::{size, time};
use crate::output::progress::Bar;
use crate::output::{Output, Tone, plain};
use clap::Subcommand;
use containers::{backup, restore};
use engine::Clock;
use kept::{Source, Target};
use place::Place;
use std::path::Path;
use std::process::ExitCode;

/// Back up and restore whole containers: image, writable layer, settings and volumes, at one instant
#[derive(Debug, Subcommand)]
pub enum Command {
    Backup(Backup),
    Restore(Restore),
    Check(Check),
    #[command(visible_alias = "list")]
    Ls(kept::Ls),
    Rm(kept::Rm),
}

/// Write containers and their volumes to one file, or into a vault
///
/// Everything is written while the containers run; then they are paused for the last difference, for a fraction of a second,
/// so that all of it is of one instant. `docker load` reads the images of the file, and `tar` the volumes.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// Containers, by name or ID
    #[arg(required_unless_present = "project")]
    containers: Vec<String>,
    /// All containers of this compose project
    #[arg(long, value_name = "NAME", conflicts_with = "containers")]
    project: Option<String>,
    /// The file to be written; or `vault`, or `vault:NAME`, for a vault, which encrypts it. A file that an interrupted backup
    /// left unfinished (FILE.partial) is gone on with
    #[arg(long, value_name = "FILE")]
    to: Place,
    /// Leave out the image's layers: who restores must have the very same image
    #[arg(long)]
    image_by_reference: bool,
    /// Command for the container's shell before the instant, or `postgres`, `mysql` or `redis` for a clean checkpoint; the
    /// label `everhold.pre` says the same
    #[arg(long, value_name = "COMMAND")]
    pre: Option<String>,
    /// Command after it, run whatever happens; the label `everhold.post` says the same
    #[arg(long, value_name = "COMMAND")]
    post: Option<String>,
    /// Give up rather than pause the containers for longer, such as 500ms
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::config::duration)]
    max_pause: std::time::Duration,
    #[command(flatten)]
    overrides: Overrides,
}

/// Bring back what is in a backup: images, volumes, networks and containers, which are started if they ran
///
/// Nothing that exists is overwritten, and a damaged file is refused before anything is touched. When something fails, what was
/// made is removed again.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The file; or `vault/BACKUP` or `vault:NAME/BACKUP`, as `everhold container ls` lists them
    file: Place,
    /// Restore beside what is there: another name for the container or the project; names of volumes and networks follow
    #[arg(long, value_name = "NAME")]
    r#as: Option<String>,
    /// Make all volumes with this driver, such as `local` [default: the driver that each had]
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    /// Make the containers and do not start them
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Read all of a backup, say whether it is whole, and what is in it
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The file; or `vault/BACKUP` or `vault:NAME/BACKUP`, as `everhold container ls` lists them
    file: Place,
    #[command(flatten)]
    overrides: Overrides,
}

impl Command {
    /// Runs it.
    pub fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        match self {
            Self::Backup(backup) => backup.run(session, socket),
            Self::Restore(restore) => restore.run(session, socket),
            Self::Check(check) => check.run(session, socket),
            Self::Ls(ls) => ls.run(session, socket),
            Self::Rm(rm) => rm.run(session, socket),
        }
    }
}

impl Backup {
    fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        let config = super::load(&self.overrides, socket)?;
        let api = engine(&config.docker_socket).map_err(problem)?;
        let volumes = DaemonVolumes::new(&config).map_err(problem)?;
        let (to, target) = match self.to {
            Place::File(file) => (file, None),
            Place::Vault(vault, name) => {
                let target = Target::new(&config, vault, name)?;
                (target.file(), Some(target))
            }
        };
        let asked = backup::Asked {
            containers: self.containers,
            project: self.project,
            to,
            // In the spool nothing is left.
            resumable: target.is_none(),
            image_by_reference: self.image_by_reference,
            pre: self.pre,
            post: self.post,
            longest_pause: self.max_pause,
            by: concat!("everhold ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let made = with_tools(&config, &api, &volumes, backup::Step::name, |tools| {
            backup::backup(&asked, tools, &|| ::engine::SystemClock.now())
        });
        let mut made = made.map_err(problem)?;
        if let Some(target) = target {
            made.file = target.store(&made, asked.project.as_deref())?.into();
        }
        session.out.show(&made, |out| say_backed_up(out, &made))?;
        // The backup is there and whole, and yet somebody has to look.
        Ok(if made.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn say_backed_up(out: &Output, made: &backup::BackedUp) {
    out.line(&format!(
        "{} {} as of {} are in {} ({})",
        out.tone("done    ", Tone::Good),
        plain(&made.containers.join(", ")),
        time(made.instant),
        plain(&made.file.display().to_string()),
        size(Some(made.size))
    ));
    out.line(&format!(
        "         paused for {:.0} ms; volumes: {}",
        made.paused * 1000.0,
        listed(&made.volumes)
    ));
    say_notes(out, &made.notes);
    for failed in &made.failed {
        out.line(&format!("{} afterwards: {}", out.tone("failed  ", Tone::Bad), plain(failed)));
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { plain(&names.join(", ")) }
}

fn say_notes(out: &Output, notes: &[String]) {
    for note in notes {
        out.line(&format!("{} {}", out.tone("note    ", Tone::Warn), plain(note)));
    }
}

impl Restore {
    fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        let config = super::load(&self.overrides, socket)?;
        let api = engine(&config.docker_socket).map_err(problem)?;
        let volumes = DaemonVolumes::new(&config).map_err(problem)?;
        let source = Source::new(self.file, &config)?;
        let asked = restore::Asked {
            from: source.file.clone(),
            r#as: self.r#as,
            volume_driver: self.volume_driver,
            no_start: self.no_start,
        };
        let restored =
            with_tools(&config, &api, &volumes, restore::Step::name, |tools| restore::restore(&asked, tools));
        let restored = restored.map_err(problem)?;
        session.out.show(&restored, |out| {
            out.line(&format!(
                "{} containers: {}",
                out.tone("done    ", Tone::Good),
                listed(&restored.containers)
            ));
            out.line(&format!("         started: {}", listed(&restored.started)));
            out.line(&format!(
                "         volumes: {}; networks made: {}",
                listed(&restored.volumes),
                listed(&restored.networks)
            ));
            say_notes(out, &restored.notes);
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Check {
    fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        // A file alone needs no daemon and no configuration.
        let source = match self.file {
            Place::File(file) => Source::of_file(file),
            place @ Place::Vault(..) => Source::new(place, &super::load(&self.overrides, socket)?)?,
        };
        let bar = Bar::new();
        let inside = restore::check(&source.file, &|event| show(&bar, event));
        bar.clear();
        let inside = inside.map_err(problem)?;
        session.out.show(&inside, |out| {
            let project = &inside.project;
            out.line(&format!(
                "{} {} is whole: {}, as of {}",
                out.tone("done    ", Tone::Good),
                plain(&inside.file.display().to_string()),
                size(Some(inside.size)),
                time(project.instant)
            ));
            for container in &project.containers {
                let state = if container.running { "running" } else { "stopped" };
                out.line(&format!(
                    "         container {} of {}, {state}",
                    plain(&container.name),
                    plain(&container.image)
                ));
            }
            for volume in &project.volumes {
                out.line(&format!("         volume {} ({})", plain(&volume.name), plain(&volume.driver)));
            }
            say_notes(out, &project.notes);
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
