//! Doing what a plan says.

use super::plan::{Holding, Moving, Plan, Source, coming_name, directory, directory_inside};
use super::{Step, Tools, adopt};
use crate::container::Container;
use crate::engine;
use crate::error::{Error, Result};
use crate::files::Layers;
use crate::journal::{Holder, Journal, Phase, Record, Target};
use crate::recover::{self, Outcome};
use crate::settings::{Changes, creation, differences};
use crate::tools::Event;
use model::ErrorKind;
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tree::{Mirror, Options, Pass, Progress, Skip, Tree};

/// Looks before the last one, at most: a tree that changes as fast as it is copied is not waited for.
const LOOKS: usize = 6;
/// Less than this is copied while containers are frozen, if it can be had.
const LITTLE: u64 = 8 << 20;
/// A container that runs for so long, and has no health check, is well.
const WELL: Duration = Duration::from_secs(3);
/// A health check is waited for.
const HEALTHY: Duration = Duration::from_secs(120);

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applied {
    /// The volumes that have the data now.
    pub volumes: Vec<String>,
    /// The containers, which run on them.
    pub containers: Vec<String>,
    /// The old containers, which do not run.
    pub kept: Vec<String>,
    /// Bytes of data that were looked at.
    pub bytes: u64,
    /// Bytes copied while containers were frozen.
    pub bytes_while_paused: u64,
    /// For how long containers were frozen before they were ended, in seconds.
    pub paused: f64,
    /// From the beginning of that until the new containers were started, in seconds.
    pub away: f64,
}

/// One tree that is copied to another.
struct Copy<'a> {
    mirror: Mirror,
    moving: Option<&'a Moving>,
}

impl<'a> Copy<'a> {
    fn new(from: Tree, to: &Path, skip: Skip, moving: Option<&'a Moving>) -> Result<Self> {
        let mirror =
            Tree::open(to).and_then(|to| Mirror::new(from, to, Options { skip, ..Options::default() }));
        Ok(Self { mirror: mirror.map_err(|error| copy_failed(moving, &error))?, moving })
    }

    fn pass(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<Pass> {
        self.mirror.pass(&AtomicBool::new(false), progress).map_err(|error| copy_failed(self.moving, &error))
    }

    fn last_pass(&mut self) -> Result<Pass> {
        let looked = self.mirror.last_pass(&AtomicBool::new(false), &mut |_| ());
        looked.map_err(|error| copy_failed(self.moving, &error))
    }

    fn sync(&self) -> Result<()> {
        self.mirror.sync().map_err(|error| copy_failed(self.moving, &error))
    }
}

/// Does it. When it fails, the containers are as before, unless the error says otherwise.
///
/// # Errors
/// In words; what had been begun is undone.
pub fn apply(plan: &Plan, tools: &Tools<'_>) -> Result<Applied> {
    enough_room(plan, tools)?;
    let name = journal_name(plan);
    let (mut journal, guard) = tools.begin(&name, record(plan, tools, &name))?;
    tools.reach(Step::Journaled);
    let outcome = switch(plan, tools, &mut journal);
    let outcome = match outcome {
        Ok(applied) => {
            journal.end()?;
            Ok(applied)
        }
        Err(error) => Err(undo(error, tools, journal)),
    };
    drop(guard);
    outcome
}

fn undo(error: Error, tools: &Tools<'_>, journal: Journal) -> Error {
    tools.stage("bringing everything back as it was");
    let path = journal.path().to_owned();
    match recover::recover(journal, tools.api, tools.volumes) {
        Ok(Outcome::Undone) => error.with_state(
            "everything is as it was before: the containers, and all of their data; the volumes that were made are in the trash",
        ),
        Ok(Outcome::Finished | Outcome::LeftAlone) => {
            error.with_state("the data is on the new volumes, and the containers are: this failed afterwards")
        }
        Err(undo) => recover::left(error, &undo, &path),
    }
}

fn journal_name(plan: &Plan) -> String {
    let what = match (&plan.holders[..], &plan.moves[..]) {
        ([holding, ..], _) => holding.id.chars().take(12).collect(),
        (_, [moving, ..]) => moving.volume.clone(),
        _ => "nothing".to_owned(),
    };
    format!("{}-{what}", plan.verb)
}

fn record(plan: &Plan, tools: &Tools<'_>, name: &str) -> Record {
    let holder = |holding: &Holding| Holder {
        old: holding.id.clone(),
        name: holding.name.clone(),
        kept: holding.kept.clone(),
        coming: coming_name(&holding.name),
        new: None,
        ran: holding.running,
        restart_policy: holding.container.document()["HostConfig"]["RestartPolicy"].clone(),
        was_unhealthy: holding.container.health() == Some("unhealthy"),
    };
    Record {
        holders: plan.holders.iter().map(holder).collect(),
        containers: plan.holders.iter().map(|holding| holding.id.clone()).collect(),
        ..Record::new(&plan.verb, tools.api.socket(), format!("everhold-{name}"))
    }
}

fn enough_room(plan: &Plan, tools: &Tools<'_>) -> Result<()> {
    let wanted: u64 = plan.moves.iter().map(|moving| moving.bytes).sum();
    let room = tools.volumes.room()?;
    if wanted.saturating_add(wanted / 20) <= room {
        return Ok(());
    }
    let size = model::Size::from_bytes;
    Err(Error::new(
        ErrorKind::NoSpace,
        format!("there are {} to be moved, and the pool has room for {}", size(wanted), size(room)),
        "make room in the pool (`everhold pool ls`), then try again",
    ))
}

/// The size of a volume for so much data: twice that, so that it can grow, in whole GiB.
fn size_for(bytes: u64) -> u64 {
    const GIB: u64 = 1 << 30;
    (bytes.saturating_mul(2).div_ceil(GIB)).saturating_mul(GIB)
}

fn switch(plan: &Plan, tools: &Tools<'_>, journal: &mut Journal) -> Result<Applied> {
    let mut copies = open_volumes(plan, tools, journal)?;
    tools.reach(Step::Mounted);
    first_look(&mut copies, plan, tools)?;
    tools.reach(Step::Copied);
    make_containers(plan, tools, journal)?;
    tools.reach(Step::ContainersMade);
    carry_layers(plan, tools, journal, &mut copies)?;
    tools.stage("copying what changes meanwhile");
    for _ in 0..LOOKS {
        let mut written = 0;
        for copy in &mut copies {
            written += copy.pass(&mut |_| ())?.bytes_written;
            copy.sync()?;
        }
        if written <= LITTLE {
            break;
        }
    }

    tools.stage("pausing for the last difference");
    no_strangers(plan, tools)?;
    journal.note(|record| record.phase = Phase::Paused)?;
    let began = Instant::now();
    for holding in plan.holders.iter().filter(|holding| holding.running) {
        engine::pause(tools.api, &holding.id)?;
    }
    unchanged(plan, tools)?;
    tools.reach(Step::Paused);
    let mut bytes_while_paused = 0;
    for copy in &mut copies {
        bytes_while_paused += copy.last_pass()?.bytes_written;
    }
    carry_opaque(plan, tools, journal)?;
    for copy in &copies {
        copy.sync()?;
    }
    tools.reach(Step::Settled);
    journal.note(|record| record.phase = Phase::Switching)?;
    tools.reach(Step::Switching);
    let paused = end_old(plan, tools, began)?;
    // Open directories of a volume would keep it from being unmounted.
    drop(copies);
    if plan.name_kept_as.is_some() {
        adopt::give_name(tools, journal)?;
    }
    name_new(plan, tools, journal)?;
    // Noted before: what a new container has written must not be given up because nobody could say that it ran.
    if plan.holders.iter().any(|holding| holding.running) {
        journal.note(|record| record.phase = Phase::Started)?;
    }
    well(start_new(plan, tools, journal), journal)?;
    let away = began.elapsed().as_secs_f64();
    tools.reach(Step::Started);
    journal.note(|record| record.phase = Phase::Started)?;
    tools.reach(Step::StartNoted);
    well(watch(plan, tools, journal), journal)?;
    journal.note(|record| record.phase = Phase::Done)?;
    tools.reach(Step::Done);
    recover::put_away(&journal.record, tools.volumes)?;
    Ok(Applied {
        // One that has taken over a name is not called what the plan says any more.
        volumes: journal.record.targets.iter().map(|target| target.name.clone()).collect(),
        containers: plan.holders.iter().map(|holding| holding.name.clone()).collect(),
        kept: plan.holders.iter().map(|holding| holding.kept.clone()).collect(),
        bytes: plan.moves.iter().map(|moving| moving.bytes).sum(),
        bytes_while_paused,
        paused,
        away: if plan.holders.is_empty() { 0.0 } else { away },
    })
}

/// Nobody has come meanwhile who has the data too, and would go on writing where it was.
fn no_strangers(plan: &Plan, tools: &Tools<'_>) -> Result<()> {
    for moving in &plan.moves {
        let Source::Directory { volume, path } = &moving.source else { continue };
        let all = adopt::holders(tools.api, volume.as_deref(), path)?;
        if let Some(other) = all.iter().find(|one| !plan.holders.iter().any(|holding| holding.id == one.id()))
        {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("the container {} has {} since a moment ago", other.name(), path.display()),
                "see what it is for, then try again",
            ));
        }
    }
    Ok(())
}

/// The containers are still what they were when the plan was made and the copying began.
fn unchanged(plan: &Plan, tools: &Tools<'_>) -> Result<()> {
    let layer = plan.moves.iter().any(|moving| matches!(moving.source, Source::Layer { .. }));
    for holding in &plan.holders {
        let now = engine::present(tools.api, &holding.id)?;
        if let Some(how) = holding.changed(&now, layer) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the container {} {how} while its data was copied", holding.name),
                "leave it alone until this is over, and try again",
            ));
        }
    }
    Ok(())
}

fn copy_failed(moving: Option<&Moving>, error: &tree::Error) -> Error {
    let what = match moving {
        Some(moving) => format!("copying to the volume {}", moving.volume),
        None => "copying the rest of the writable layer".to_owned(),
    };
    let kind = match error {
        tree::Error::NoSpace { .. } => ErrorKind::NoSpace,
        tree::Error::StillChanging { .. } => ErrorKind::InUse,
        _ => ErrorKind::Internal,
    };
    let next = match kind {
        ErrorKind::InUse => "see who writes there besides the containers (`fuser -v -m`), and stop it",
        ErrorKind::NoSpace => "make room in the pool (`everhold pool ls`), then try again",
        _ => "see what is wrong there, then try again",
    };
    Error::new(kind, format!("{what}: {error}"), next)
}

fn open_volumes<'a>(plan: &'a Plan, tools: &Tools<'_>, journal: &mut Journal) -> Result<Vec<Copy<'a>>> {
    tools.stage("making the volumes");
    for moving in &plan.moves {
        let made = !tools.volumes.exists(&moving.volume)?;
        journal.note(|record| record.targets.push(Target { name: moving.volume.clone(), made }))?;
        if !made {
            return Err(taken(&moving.volume));
        }
        if let Err(error) = tools.volumes.create(&moving.volume, size_for(moving.bytes)) {
            if error.kind == ErrorKind::Conflict {
                // Somebody else has just made it: it is not ours to be removed.
                journal.note(|record| {
                    record.targets.iter_mut().for_each(|target| target.made &= target.name != moving.volume)
                })?;
            }
            return Err(error);
        }
    }
    tools.reach(Step::VolumesMade);
    let mut copies = Vec::new();
    for moving in &plan.moves {
        let to = tools.volumes.mount(&moving.volume, &journal.record.r#use)?;
        let failed = |error: tree::Error| copy_failed(Some(moving), &error);
        let from = match &moving.source {
            Source::Directory { path, .. } => Tree::open(path).map_err(failed)?,
            Source::Memory { container, path } => {
                let container = engine::present(tools.api, container)?;
                Tree::from_fd(directory_inside(&container, path)?, path).map_err(failed)?
            }
            Source::Layer { container, path } => {
                let holding = plan.holders.iter().find(|holding| holding.name == *container);
                let container = engine::present(tools.api, holding.map_or(container, |holding| &holding.id))?;
                Tree::from_fd(directory(&container, path)?, path).map_err(failed)?
            }
        };
        copies.push(Copy::new(from, &to, moving.skip.iter().cloned().collect(), Some(moving))?);
    }
    Ok(copies)
}

/// There is a volume of that name already.
pub(super) fn taken(volume: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("there is a volume {volume} already, or one of that name is in the trash"),
        "choose another name; `everhold volume ls` and `everhold trash ls` list what there is",
    )
}

fn first_look(copies: &mut [Copy<'_>], plan: &Plan, tools: &Tools<'_>) -> Result<()> {
    tools.stage("copying while the containers go on");
    let total: u64 = plan.moves.iter().map(|moving| moving.bytes).sum();
    let mut before = 0;
    let half = std::cell::Cell::new(false);
    for copy in &mut *copies {
        let looked = copy.pass(&mut |progress| {
            let done = before + progress.bytes_read;
            if !half.get() && done * 2 >= total {
                half.set(true);
                tools.reach(Step::Copying);
            }
            (tools.say)(Event::Copied { done, total: total.max(done) });
        });
        before += looked?.bytes_read;
        copy.sync()?;
    }
    Ok(())
}

fn changes(api: &docker::Api, holding: &Holding) -> Result<Changes> {
    let container = &holding.container;
    // The name of the image may mean another one by now.
    let named: Option<serde_json::Value> =
        api.find(&format!("/images/{}/json", docker::encode(container.image())))?;
    let same = named.is_some_and(|image| image["Id"] == container.image_id());
    let image = if same { None } else { Some(container.image_id().to_owned()) };
    Ok(Changes { image, volumes: holding.volumes.clone(), ..Changes::default() })
}

fn make_containers(plan: &Plan, tools: &Tools<'_>, journal: &mut Journal) -> Result<()> {
    tools.stage("making the new containers");
    if plan.name_kept_as.is_none() {
        for moving in &plan.moves {
            engine::introduce(tools.api, &moving.volume, tools.volumes.driver())?;
        }
    }
    for (index, holding) in plan.holders.iter().enumerate() {
        let changes = changes(tools.api, holding)?;
        let coming = coming_name(&holding.name);
        let new = engine::create(tools.api, &coming, &creation(&holding.container, &changes))
            .map_err(|error| error.while_doing(format!("making the new container {}", holding.name)))?;
        tools.reach(Step::ContainerMade);
        journal.note(|record| record.holders[index].new = Some(new.clone()))?;
        let made = engine::present(tools.api, &new)?;
        let different = differences(&holding.container, &made, &changes);
        if !different.is_empty() {
            let different: Vec<String> = different.iter().map(ToString::to_string).collect();
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the engine would not give {} back as it is: {}", holding.name, different.join("; ")),
                "report it with the output of `docker inspect`",
            ));
        }
    }
    Ok(())
}

/// What a container has written elsewhere is in the new one too, as after a restart: its writable layer, as the kernel keeps it,
/// but for what lies under the volumes.
fn carry_layers(plan: &Plan, tools: &Tools<'_>, journal: &Journal, copies: &mut Vec<Copy<'_>>) -> Result<()> {
    for (holding, holder) in plan.holders.iter().zip(&journal.record.holders) {
        let new = engine::present(tools.api, holder.new.as_deref().unwrap_or_default())?;
        let (from, to) = (Layers::of(&holding.container)?, Layers::of(&new)?);
        let inside = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
        let skip = holding.volumes.iter().map(|placed| inside(&placed.destination)).collect();
        let from = Tree::open(&from.upper).map_err(|error| copy_failed(None, &error))?;
        copies.push(Copy::new(from, &to.upper, skip, None)?);
    }
    Ok(())
}

/// Directories that hide the image's of the same name say so in an attribute that is the kernel's own, and that no copy has.
fn carry_opaque(plan: &Plan, tools: &Tools<'_>, journal: &Journal) -> Result<()> {
    for (holding, holder) in plan.holders.iter().zip(&journal.record.holders) {
        let new = engine::present(tools.api, holder.new.as_deref().unwrap_or_default())?;
        let (from, to) = (Layers::of(&holding.container)?, Layers::of(&new)?);
        linux::overlay::copy_opaque(&from.upper, &to.upper)?;
    }
    Ok(())
}

/// Ends the frozen containers; how long they have been frozen.
fn end_old(plan: &Plan, tools: &Tools<'_>, began: Instant) -> Result<f64> {
    for holding in &plan.holders {
        // It must not come back by itself when the engine is restarted.
        engine::set_restart_policy(tools.api, &holding.id, &serde_json::json!({ "Name": "no" }))?;
        if holding.running {
            engine::kill(tools.api, &holding.id)?;
        }
    }
    let paused = began.elapsed().as_secs_f64();
    tools.reach(Step::Ended);
    for holding in &plan.holders {
        engine::rename(tools.api, &holding.id, &holding.kept)?;
    }
    tools.reach(Step::NamesGiven);
    Ok(paused)
}

/// New containers that do not run well are not to be gone on with.
fn well(outcome: Result<()>, journal: &mut Journal) -> Result<()> {
    if outcome.is_err() {
        journal.note(|record| record.undoing = true)?;
    }
    outcome
}

fn name_new(plan: &Plan, tools: &Tools<'_>, journal: &Journal) -> Result<()> {
    for (holding, holder) in plan.holders.iter().zip(&journal.record.holders) {
        engine::rename(tools.api, holder.new.as_deref().unwrap_or_default(), &holding.name)?;
    }
    tools.reach(Step::NamesTaken);
    Ok(())
}

fn start_new(plan: &Plan, tools: &Tools<'_>, journal: &Journal) -> Result<()> {
    for (holding, holder) in
        plan.holders.iter().zip(&journal.record.holders).filter(|(holding, _)| holding.running)
    {
        engine::start(tools.api, holder.new.as_deref().unwrap_or_default())
            .map_err(|error| error.while_doing(format!("starting {} on its volumes", holding.name)))?;
    }
    Ok(())
}

/// Waits until the new containers are well.
fn watch(plan: &Plan, tools: &Tools<'_>, journal: &Journal) -> Result<()> {
    let news = plan.holders.iter().zip(&journal.record.holders).filter(|(holding, _)| holding.running);
    let began = Instant::now();
    tools.stage("seeing whether the containers are well");
    for (holding, holder) in news {
        let new = holder.new.as_deref().unwrap_or_default();
        loop {
            let container = engine::present(tools.api, new)?;
            let was_unhealthy = holding.container.health() == Some("unhealthy");
            if !container.is_running()
                || container.has_restarted()
                || (container.health() == Some("unhealthy") && !was_unhealthy)
            {
                return Err(unwell(tools, holding, &container));
            }
            match container.health() {
                Some("healthy" | "unhealthy") => break,
                None if began.elapsed() >= WELL => break,
                // It was like that before, or takes its time: it runs.
                Some(_) if began.elapsed() >= HEALTHY => break,
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
    Ok(())
}

fn unwell(tools: &Tools<'_>, holding: &Holding, container: &Container) -> Error {
    let words = engine::last_words(tools.api, container.id());
    let how = match container.health() {
        Some("unhealthy") => "is unhealthy".to_owned(),
        _ => format!("ended with exit code {}", container.exit_code()),
    };
    Error::new(
        ErrorKind::Internal,
        format!("{} {how} on its volumes: {words}", holding.name),
        "see what it says, and whether it did so before",
    )
}
