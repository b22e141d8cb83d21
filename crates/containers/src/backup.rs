//! `container backup`: settings, image, writable layer and volumes of containers at one instant, in one bundle.
//!
//! Everything is written while the containers run; then they are frozen for a last look, and go on. What is in the bundle is what a
//! power failure at that instant would have left.

mod document;
mod sources;

pub(crate) use document::IMAGES;
pub use document::{Project, SavedContainer, SavedNetwork, SavedVolume};

use crate::container::Container;
use crate::engine::{pause, present, unpause};
use crate::error::{Error, Result};
use crate::hooks::{self, Hooks};
use crate::journal::{Journal, Record};
use crate::recover::{self, recover};
use bundle::{Change, Image, LayerForm, LiveLayer, Preamble, Skip, Watch, Writer};
use docker::{Api, encode};
use jiff::Timestamp;
use model::ErrorKind;
use serde::Serialize;
use serde_json::Value;
use sources::Kept;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Looks before the last one, at most.
const LOOKS: usize = 4;
/// A look that finds no more than this, in bytes, leaves little to the last one. Each looks at all that may have changed.
const LITTLE: u64 = 16 << 20;
/// How long a hook may take.
const HOOK: Duration = Duration::from_secs(120);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Names or IDs of containers.
    pub containers: Vec<String>,
    /// All containers of a compose project.
    pub project: Option<String>,
    /// The bundle's file, which must not be there.
    pub to: PathBuf,
    /// Whether the next try finds what this one leaves unfinished.
    pub resumable: bool,
    /// The image's layers are left out: whoever restores must have it.
    pub image_by_reference: bool,
    /// A command or a built-in to be run before the instant.
    pub pre: Option<String>,
    /// And after it, whatever happens.
    pub post: Option<String>,
    /// Containers are not frozen for longer; the backup fails then.
    pub longest_pause: Duration,
    /// Who makes it, for the bundle: `everhold 1.2.3`.
    pub by: String,
}

/// The points at which tests end the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The images are written.
    Images,
    /// Everything was looked at once.
    Layers,
    /// The commands before have been run.
    Pre,
    /// The containers are frozen.
    Paused,
    /// The last look is over.
    Settled,
    /// The containers run again, and the commands after have not been run.
    Unpaused,
    /// All but the end is written.
    Written,
}

impl Step {
    /// Every point, in their order.
    pub const ALL: [Self; 7] =
        [Self::Images, Self::Layers, Self::Pre, Self::Paused, Self::Settled, Self::Unpaused, Self::Written];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "backup-images",
            Self::Layers => "backup-layers",
            Self::Pre => "backup-pre",
            Self::Paused => "backup-paused",
            Self::Settled => "backup-settled",
            Self::Unpaused => "backup-unpaused",
            Self::Written => "backup-written",
        }
    }
}

/// What a backup works with.
pub type Tools<'a> = crate::tools::Tools<'a, Step>;

/// Tells the time.
pub type Clock<'a> = &'a dyn Fn() -> Timestamp;

/// What is in the bundle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackedUp {
    /// The file.
    pub file: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The instant.
    pub instant: Timestamp,
    /// The containers.
    pub containers: Vec<String>,
    /// The volumes.
    pub volumes: Vec<String>,
    /// For how long containers were frozen, in seconds.
    pub paused: f64,
    /// What is not in it, and what else is good to know.
    pub notes: Vec<String>,
    /// Commands afterwards that failed: the backup is whole, and what they were to do is not done.
    pub failed: Vec<String>,
}

/// A tree that is being written.
struct Live {
    layer: LiveLayer,
    of: Of,
}

/// Whose it is.
enum Of {
    Container(usize),
    Volume,
}

/// Makes a backup. When it fails, the containers run as before, and the file is not there.
///
/// # Errors
/// In words.
pub fn backup(asked: &Asked, tools: &Tools<'_>, now: Clock<'_>) -> Result<BackedUp> {
    let containers = sources::containers(tools.api, asked)?;
    let hooks = Hooks::of(&containers, asked.pre.as_deref(), asked.post.as_deref())?;
    let name = format!("backup-{}", containers[0].short_id());
    let mut record = Record::new("backup", tools.api.socket(), format!("everhold-{name}"));
    record.containers = containers.iter().map(|container| container.id().to_owned()).collect();
    let (mut journal, guard) = tools.begin(&name, record)?;
    let made = make(asked, tools, now, &containers, &hooks, &mut journal);
    let path = journal.path().to_owned();
    // Also after a failure: it unmounts what was mounted, lets containers go on, and runs what is to be run afterwards.
    let cleared = recover(journal, tools.api, tools.volumes);
    drop(guard);
    match (made, cleared) {
        (Ok(made), Ok(_)) => Ok(made),
        (Err(error), Ok(_)) if !asked.resumable => {
            Err(error.with_state("the containers are as before, and there is no backup"))
        }
        (Err(error), Ok(_)) => Err(error.with_state(format!(
            "the containers are as before, and there is no {0}; {0}.partial, if it is there, is what the next try goes on from",
            asked.to.display()
        ))),
        (Err(error), Err(clear)) => Err(recover::left(error, &clear, &path)),
        // It is there and whole; the process that stands by goes on with the rest.
        (Ok(mut made), Err(clear)) => {
            made.failed.push(format!("clearing up, which is tried again: {clear}"));
            Ok(made)
        }
    }
}

fn make(
    asked: &Asked,
    tools: &Tools<'_>,
    now: Clock<'_>,
    containers: &[Container],
    hooks: &Hooks,
    journal: &mut Journal,
) -> Result<BackedUp> {
    let mut kept = sources::kept(tools, containers, journal)?;
    sources::enough_room(tools.api, asked, containers, &kept)?;
    let preamble = Preamble { made: now(), by: asked.by.clone() };
    let mut writer = Writer::resume(&asked.to, &preamble)?;
    if asked.image_by_reference {
        // What an earlier try kept are the very layers that are not wanted in it.
        writer.abandon()?;
        writer = Writer::create(&asked.to, &preamble)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    writer.watch(watch(&stop, &done));
    // When it fails, what is written of images is a beginning for the next try, which is nearly always the same one.
    let taken = write(asked, tools, now, containers, hooks, journal, &mut kept, &mut writer, &stop, &done)?;
    tools.stage("making it durable");
    let summary = writer.finish()?;
    Ok(BackedUp {
        file: asked.to.clone(),
        size: summary.size,
        instant: taken.instant,
        containers: containers.iter().map(|container| container.name().to_owned()).collect(),
        volumes: kept.volumes.iter().map(|volume| volume.saved.name.clone()).collect(),
        paused: taken.paused.as_secs_f64(),
        notes: kept.notes,
        failed: taken.failed,
    })
}

/// The instant, and what came of it.
struct Taken {
    instant: Timestamp,
    paused: Duration,
    failed: Vec<String>,
}

fn watch(stop: &Arc<AtomicBool>, done: &Arc<AtomicU64>) -> Watch {
    let done = Arc::clone(done);
    let progress = move |bytes| {
        done.fetch_add(bytes, Ordering::Relaxed);
    };
    Watch { stop: Arc::clone(stop), progress: Box::new(progress) }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one backup, used once")]
fn write(
    asked: &Asked,
    tools: &Tools<'_>,
    now: Clock<'_>,
    containers: &[Container],
    hooks: &Hooks,
    journal: &mut Journal,
    kept: &mut Kept,
    writer: &mut Writer,
    stop: &Arc<AtomicBool>,
    done: &AtomicU64,
) -> Result<Taken> {
    tools.stage("writing the images");
    let bytes = sources::image_bytes(tools.api, containers)?;
    let images = tools.watched(done, bytes, || images(asked, tools.api, containers, writer))?;
    tools.reach(Step::Images);

    tools.stage("writing layers and volumes while the containers go on");
    let mut live = tools.watched(done, kept.bytes(), || begin(kept, writer))?;
    tools.reach(Step::Layers);
    for _ in 0..LOOKS {
        let mut looked = 0;
        for live in &mut live {
            looked += writer.settle(&mut live.layer)?.bytes();
        }
        if looked <= LITTLE {
            break;
        }
    }

    tools.stage("pausing for the last difference");
    journal.note(|record| record.post.clone_from(&hooks.post))?;
    for hook in &hooks.pre {
        hooks::run(tools.api, hook, HOOK)?;
    }
    if !hooks.pre.is_empty() {
        // A checkpoint writes much, which should not have to be written while all stand still.
        for live in &mut live {
            writer.settle(&mut live.layer)?;
        }
    }
    tools.reach(Step::Pre);
    // As they are now: one that has been started meanwhile is at the same files.
    let containers = &again(tools.api, containers)?;
    journal.note(|record| record.frozen = frozen(containers))?;
    let (instant, paused) = last_look(asked, tools, now, containers, writer, &mut live, stop)?;
    tools.reach(Step::Unpaused);
    let mut failed = Vec::new();
    for hook in &hooks.post {
        // The instant is taken: that this failed does not make it worse.
        if let Err(error) = hooks::run(tools.api, hook, HOOK) {
            failed.push(error.to_string());
        }
    }
    journal.note(|record| {
        record.frozen.clear();
        record.post.clear();
    })?;

    tools.stage("checking what was written");
    finish(tools, containers, kept, writer, live, &images, instant)?;
    tools.reach(Step::Written);
    Ok(Taken { instant, paused, failed })
}

/// The containers as they are now.
fn again(api: &Api, containers: &[Container]) -> Result<Vec<Container>> {
    containers.iter().map(|container| present(api, container.id())).collect()
}

/// The containers that are frozen for the instant: those that run, and that nobody else has paused.
fn frozen(containers: &[Container]) -> Vec<String> {
    let run = containers.iter().filter(|container| container.is_running() && !container.is_paused());
    run.map(|container| container.id().to_owned()).collect()
}

/// Nobody has started or thawed one while everything was looked at for the last time.
fn stood_still(api: &Api, containers: &[Container]) -> Result<()> {
    for (was, is) in containers.iter().zip(again(api, containers)?) {
        let started = |container: &Container| container.document()["State"]["StartedAt"].clone();
        if (is.is_running() && !is.is_paused()) || started(was) != started(&is) {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("somebody has let {} run while everything was to stand still", is.name()),
                "leave the containers alone until this is over, and try again",
            ));
        }
    }
    Ok(())
}

/// The images, each once, by their IDs.
fn images(
    asked: &Asked,
    api: &Api,
    containers: &[Container],
    writer: &mut Writer,
) -> Result<BTreeMap<String, Image>> {
    let mut images = BTreeMap::new();
    for container in containers {
        let id = container.image_id();
        if images.contains_key(id) {
            continue;
        }
        let described: Value = api.get(&format!("/images/{}/json", encode(id)))?;
        let image = if asked.image_by_reference {
            Image::by_reference(document::config_of(&described), Vec::new())?
        } else {
            full_image(api, id, writer)?
        };
        images.insert(id.to_owned(), image);
    }
    Ok(images)
}

fn full_image(api: &Api, id: &str, writer: &mut Writer) -> Result<Image> {
    if let Some(digest) = bundle::Digest::parse(id)
        && let Some(image) = writer.kept_image(&digest)?
    {
        return Ok(image);
    }
    let stream = api.download(&format!("/images/{}/get", encode(id)))?;
    let mut found = writer.image_archive(stream)?;
    match (found.pop(), found.len()) {
        (Some(image), 0) => Ok(image),
        (_, others) => Err(Error::new(
            ErrorKind::Internal,
            format!("the engine was asked for the image {id} and gave {} images", others),
            "report it",
        )),
    }
}

/// The first look at everything.
fn begin(kept: &Kept, writer: &mut Writer) -> Result<Vec<Live>> {
    let mut live = Vec::new();
    for (index, layer) in kept.layers.iter().enumerate() {
        let begun = writer.layer(&layer.path, LayerForm::Writable, Skip::new())?;
        live.push(Live { layer: begun, of: Of::Container(index) });
    }
    for volume in &kept.volumes {
        let form = LayerForm::Volume { name: volume.saved.name.clone() };
        let begun = writer.layer(&volume.origin.path(), form, Skip::new())?;
        live.push(Live { layer: begun, of: Of::Volume });
    }
    Ok(live)
}

/// The instant: everything stands still while what has changed is written.
fn last_look(
    asked: &Asked,
    tools: &Tools<'_>,
    now: Clock<'_>,
    containers: &[Container],
    writer: &mut Writer,
    live: &mut [Live],
    stop: &Arc<AtomicBool>,
) -> Result<(Timestamp, Duration)> {
    let frozen = frozen(containers);
    let began = Instant::now();
    let looked = || -> Result<Timestamp> {
        for container in &frozen {
            pause(tools.api, container)?;
        }
        let instant = now();
        tools.reach(Step::Paused);
        let left = asked.longest_pause.saturating_sub(began.elapsed());
        let _limit = Limit::new(left, stop);
        if left.is_zero() {
            stop.store(true, Ordering::Relaxed);
            return Err(bundle::Error::Stopped.into());
        }
        for live in live.iter_mut() {
            writer.last_look(&mut live.layer)?;
        }
        stood_still(tools.api, containers)?;
        tools.reach(Step::Settled);
        Ok(instant)
    }();
    let mut unpaused = Ok(());
    for container in &frozen {
        unpaused = unpaused.and(unpause(tools.api, container));
    }
    let paused = began.elapsed();
    let looked = looked.map_err(|error| {
        if stop.load(Ordering::Relaxed) {
            Error::new(
                ErrorKind::TimedOut,
                format!(
                    "the containers were to be paused for at most {} s, and that was not enough",
                    asked.longest_pause.as_secs_f64()
                ),
                "try again when less is written, or allow more with --max-pause",
            )
        } else {
            error
        }
    });
    let instant = looked?;
    unpaused?;
    Ok((instant, paused))
}

/// Sets the flag when time is over, unless it is dropped before.
struct Limit {
    _done: std::sync::mpsc::Sender<()>,
}

impl Limit {
    fn new(limit: Duration, flag: &Arc<AtomicBool>) -> Self {
        let (done, over) = std::sync::mpsc::channel();
        let flag = Arc::clone(flag);
        std::thread::spawn(move || {
            if over.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::Relaxed);
            }
        });
        Self { _done: done }
    }
}

/// Everything that can wait until the containers run again.
fn finish(
    tools: &Tools<'_>,
    containers: &[Container],
    kept: &mut Kept,
    writer: &mut Writer,
    live: Vec<Live>,
    images: &BTreeMap<String, Image>,
    instant: Timestamp,
) -> Result<()> {
    let mut layers: BTreeMap<usize, Vec<bundle::Layer>> = BTreeMap::new();
    for live in live {
        let finished = writer.seal(live.layer)?;
        if let Of::Container(index) = live.of {
            layers.insert(index, finished);
        }
    }
    let mut saved: Vec<SavedContainer> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let name = container.name();
        let tag = document::free_tag(name, instant, &saved);
        let change = Change {
            created: instant,
            created_by: format!("everhold container backup {name}"),
            tags: vec![tag.clone()],
        };
        let added = layers.remove(&index).unwrap_or_default();
        let image = &images[container.image_id()];
        let whole = image.with_layers(&added, &change)?;
        writer.image(&whole)?;
        saved.push(document::saved_container(container, &tag, whole.id().to_string()));
        let settings = serde_json::to_vec_pretty(container.document()).unwrap_or_default();
        writer.container(name, &settings)?;
    }
    let project = document::project(tools.api, containers, saved, kept, instant)?;
    let project = serde_json::to_vec_pretty(&project)
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string(), "report it"))?;
    Ok(writer.project(&project)?)
}
