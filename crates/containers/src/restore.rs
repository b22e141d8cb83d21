//! `container restore`: a bundle's containers on this engine: images, volumes, networks, settings, and started.
//!
//! Nothing that exists is overwritten, and nothing is touched before the whole bundle has been read and is what its sums say. When
//! something fails later, or this process is killed, what was made is removed again, up to the moment from which the containers
//! are only to be started.

mod apart;
mod made;
mod names;
mod preflight;

pub(crate) use made::Made;
pub use names::Names;

use crate::backup::{Project, SavedContainer, SavedNetwork, SavedVolume};
use crate::container::Container;
use crate::engine::{create, present, start};
use crate::error::{Error, Result};
use crate::journal::{Journal, Phase, Record, Target};
use crate::recover::{self, recover};
use crate::settings::{Changes, creation};
use crate::tools::Event;
use apart::{borrow_nothing, forget_addresses, keep_apart};
use bundle::Reader;
use docker::encode;
use made::{MadeContainer, MadeVolume};
use model::ErrorKind;
use preflight::{driver_of, free, preflight, taken, volume_bytes};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The bundle's file.
    pub from: PathBuf,
    /// Another name: of the container, or of the project.
    pub r#as: Option<String>,
    /// The driver of all volumes, in place of the one that each had.
    pub volume_driver: Option<String>,
    /// Containers are made and not started.
    pub no_start: bool,
}

/// The points at which tests end the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The journal is on disk.
    Journaled,
    /// The images are loaded.
    Images,
    /// A volume is made, and there is nothing in it.
    VolumeMade,
    /// Everything is in the volumes.
    Volumes,
    /// The networks are made.
    Networks,
    /// A container is made, and the journal does not say so.
    ContainerMade,
    /// All containers are made.
    Containers,
    /// The journal says that they are only to be started.
    Starting,
    /// All is done but to put the journal away.
    Done,
}

impl Step {
    /// Every point, in their order.
    pub const ALL: [Self; 9] = [
        Self::Journaled,
        Self::Images,
        Self::VolumeMade,
        Self::Volumes,
        Self::Networks,
        Self::ContainerMade,
        Self::Containers,
        Self::Starting,
        Self::Done,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Journaled => "restore-journaled",
            Self::Images => "restore-images",
            Self::VolumeMade => "restore-volume-made",
            Self::Volumes => "restore-volumes",
            Self::Networks => "restore-networks",
            Self::ContainerMade => "restore-container-made",
            Self::Containers => "restore-containers",
            Self::Starting => "restore-starting",
            Self::Done => "restore-done",
        }
    }
}

/// What a restore works with.
pub type Tools<'a> = crate::tools::Tools<'a, Step>;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Restored {
    /// The containers.
    pub containers: Vec<String>,
    /// Of these, the ones that were started.
    pub started: Vec<String>,
    /// The volumes.
    pub volumes: Vec<String>,
    /// The networks that were made; others were there.
    pub networks: Vec<String>,
    /// What is good to know.
    pub notes: Vec<String>,
}

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inside {
    /// The file.
    pub file: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// What it is of.
    pub project: Project,
}

/// Reads all of a bundle, and says what is in it.
///
/// # Errors
/// It is no bundle, or damaged.
pub fn check(from: &Path, say: &dyn Fn(Event)) -> Result<Inside> {
    let (_, project) = open(from, say)?;
    let size = from.metadata().map_err(|error| Error::on(from, &error))?.len();
    Ok(Inside { file: from.to_owned(), size, project })
}

fn open(from: &Path, say: &dyn Fn(Event)) -> Result<(Reader, Project)> {
    let mut reader = Reader::open(from)?;
    say(Event::Stage("reading the whole bundle".to_owned()));
    let total = from.metadata().map_err(|error| Error::on(from, &error))?.len();
    let mut done = 0;
    reader.verify(&mut |bytes| {
        done += bytes;
        say(Event::Copied { done, total });
        true
    })?;
    let documents = reader.documents()?;
    let project = documents.project.as_deref().unwrap_or_default();
    let project: Project = serde_json::from_slice(project).map_err(|error| {
        Error::new(
            ErrorKind::Unsupported,
            format!("{}: its project.json is not understood: {error}", from.display()),
            "it may be of a later version of Everhold: use that one",
        )
    })?;
    Ok((reader, project))
}

/// Restores all of a bundle.
///
/// # Errors
/// In words; what had been made is removed again.
pub fn restore(asked: &Asked, tools: &Tools<'_>) -> Result<Restored> {
    let (mut reader, project) = open(&asked.from, tools.say)?;
    let names = Names::new(&project, asked.r#as.as_deref());
    preflight(asked, tools, &project, &names, &reader)?;
    let name = journal_name(&project, &names);
    let (mut journal, guard) =
        tools.begin(&name, Record::new("restore", tools.api.socket(), format!("everhold-{name}")))?;
    tools.reach(Step::Journaled);
    let restored = match build(asked, tools, &mut reader, &project, &names, &mut journal) {
        Ok(restored) => {
            // Should the journal be there again after a power failure, there is nothing left to do. Without that, there is nothing
            // but to start what runs.
            if let Err(error) = journal.note(|record| record.phase = Phase::Done) {
                tracing::warn!(%error, "that a restore is over could not be noted");
            }
            journal.end()?;
            Ok(restored)
        }
        Err(error) => Err(unmake(error, tools, journal)),
    };
    drop(guard);
    restored
}

/// The same for two restores that would make the same container.
fn journal_name(project: &Project, names: &Names) -> String {
    let name = project.containers.first().map(|saved| names.container(&saved.name)).unwrap_or_default();
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    format!("restore-{}", name.chars().take(100).map(plain).collect::<String>())
}

fn unmake(error: Error, tools: &Tools<'_>, mut journal: Journal) -> Error {
    if journal.record.phase == Phase::Started && error.kind == ErrorKind::Unavailable {
        return Error {
            state: "all of it is there, and is started as soon as the engine answers again".to_owned(),
            next: "`everhold rescue --recover` starts it now".to_owned(),
            ..error
        };
    }
    tools.stage("removing what was made");
    let path = journal.path().to_owned();
    let in_trash = !journal.record.targets.is_empty();
    // What does not start is not to be started once more. On a full disk nothing can be noted, and need not be.
    let noted = match journal.record.phase {
        Phase::Started => journal.note(|record| record.undoing = true),
        _ => Ok(()),
    };
    let undone = noted.and_then(|()| recover(journal, tools.api, tools.volumes));
    match undone {
        Ok(_) if in_trash => error.with_state(
            "nothing is left of what was begun but Everhold's volumes, which are in the trash, and the bundle is as it was",
        ),
        Ok(_) => error.with_state("nothing is left of what was begun, and the bundle is as it was"),
        Err(undo) => recover::left(error, &undo, &path),
    }
}

fn build(
    asked: &Asked,
    tools: &Tools<'_>,
    reader: &mut Reader,
    project: &Project,
    names: &Names,
    journal: &mut Journal,
) -> Result<Restored> {
    load(tools, reader, project, journal)?;
    tools.reach(Step::Images);
    for volume in &project.volumes {
        tools.stage(format!("restoring the volume {}", volume.name));
        fill(asked, tools, reader, volume, names, journal)?;
    }
    tools.reach(Step::Volumes);
    let networks = make_networks(tools, project, names, journal)?;
    tools.reach(Step::Networks);
    tools.stage("making the containers");
    let documents = reader.documents()?;
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for saved in &project.containers {
        let document = documents.containers.get(&saved.name).map(Vec::as_slice).unwrap_or_default();
        let settings: Value = serde_json::from_slice(document).map_err(|error| {
            Error::new(
                ErrorKind::Damaged,
                format!("the settings of {}: {error}", saved.name),
                "use another bundle",
            )
        })?;
        let id = make_container(tools, project, saved, settings, names, &ids, journal)?;
        ids.insert(saved.id.clone(), id);
    }
    tools.reach(Step::Containers);
    let mut notes = project.notes.clone();
    let (mut start_ids, mut started) = (Vec::new(), Vec::new());
    for saved in project.containers.iter().filter(|saved| saved.running && !asked.no_start) {
        let name = names.container(&saved.name);
        let restored = present(tools.api, &ids[&saved.id])?;
        let shared = restored.mounts().into_iter().find(|mount| mount.kind == "bind" && mount.read_write);
        if let Some(shared) = shared.filter(|_| names.are_others()) {
            // Two of one kind on the same files destroy them.
            notes.push(format!(
                "{name} is not started: it has {} of the host, as the one beside which it is restored; `docker start {name}` if that is right",
                shared.source.display()
            ));
            continue;
        }
        start_ids.push(ids[&saved.id].clone());
        started.push(name);
    }
    // Noted before: what they write once they run is not to be given up.
    journal.note(|record| {
        record.phase = Phase::Started;
        record.made.start.clone_from(&start_ids);
    })?;
    tools.reach(Step::Starting);
    for (id, name) in start_ids.iter().zip(&started) {
        start(tools.api, id).map_err(|error| error.while_doing(format!("starting {name}")))?;
    }
    tools.reach(Step::Done);
    Ok(Restored {
        containers: project.containers.iter().map(|saved| names.container(&saved.name)).collect(),
        started,
        volumes: project.volumes.iter().map(|volume| names.volume(volume)).collect(),
        networks,
        notes,
    })
}

fn image(tools: &Tools<'_>, name: &str) -> Result<Option<Value>> {
    Ok(tools.api.find(&format!("/images/{}/json", encode(name)))?)
}

fn load(tools: &Tools<'_>, reader: &mut Reader, project: &Project, journal: &mut Journal) -> Result<()> {
    tools.stage("loading the images");
    let mut missing = Vec::new();
    for saved in &project.containers {
        // One that is there, from an earlier restore, stays whatever happens.
        if image(tools, &saved.saved_image)?.is_none() {
            missing.push(saved.saved_image.clone());
        }
    }
    // Noted before: an upload that breaks off may have loaded some of them.
    journal.note(|record| record.made.images = missing)?;
    let stream = reader.image_stream()?;
    let said = tools.api.upload(docker::Method::POST, "/images/load?quiet=true", stream)?;
    for line in said.split(|byte| *byte == b'\n') {
        let said: Value = serde_json::from_slice(line).unwrap_or_default();
        if let Some(error) = said["error"].as_str() {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("the engine would not load the images: {error}"),
                "see the engine's log",
            ));
        }
    }
    for saved in &project.containers {
        let image: Option<Value> = tools.api.find(&format!("/images/{}/json", encode(&saved.saved_image)))?;
        if image.is_none() {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("the engine has loaded the images, and has no {}", saved.saved_image),
                "see the engine's log",
            ));
        }
    }
    Ok(())
}

fn fill(
    asked: &Asked,
    tools: &Tools<'_>,
    reader: &mut Reader,
    volume: &SavedVolume,
    names: &Names,
    journal: &mut Journal,
) -> Result<()> {
    let name = names.volume(volume);
    let driver = driver_of(volume, asked, tools);
    let same_driver = asked.volume_driver.is_none();
    let options = if same_driver { volume.options.clone() } else { BTreeMap::new() };
    let local = driver == "local";
    // Once more: unpacking takes its time, and an engine that is asked to make what is there gives what is there.
    free(tools, &name, !local)?;
    journal.note(|record| match local {
        true => record.made.volumes.push(MadeVolume { name: name.clone(), inode: None }),
        false => record.targets.push(Target { name: name.clone(), made: true }),
    })?;
    let body = json!({ "Name": name, "Driver": driver, "DriverOpts": options, "Labels": names.labels(&volume.labels) });
    let described = tools.api.post("/volumes/create", &body)?;
    tools.reach(Step::VolumeMade);
    let r#use = journal.record.r#use.clone();
    let path = if local {
        let path = PathBuf::from(described["Mountpoint"].as_str().unwrap_or_default());
        if std::fs::read_dir(&path).map_err(|error| Error::on(&path, &error))?.next().is_some() {
            journal.note(|record| drop(record.made.volumes.pop()))?;
            return Err(taken(&name));
        }
        let inode = path.symlink_metadata().map_err(|error| Error::on(&path, &error))?.ino();
        journal.note(|record| {
            record.made.volumes.last_mut().into_iter().for_each(|made| made.inode = Some(inode));
        })?;
        path
    } else {
        tools.volumes.mount(&name, &r#use)?
    };
    let total = volume_bytes(reader, &volume.name);
    let mut done = 0;
    reader
        .unpack_volume(&volume.name, &path, &mut |bytes| {
            done += bytes;
            (tools.say)(Event::Copied { done, total });
            true
        })
        .map_err(|error| Error::from(error).while_doing(format!("the volume {name}")))?;
    if local { Ok(()) } else { tools.volumes.unmount(&name, &r#use) }
}

/// Networks that are here already are used as they are.
fn make_networks(
    tools: &Tools<'_>,
    project: &Project,
    names: &Names,
    journal: &mut Journal,
) -> Result<Vec<String>> {
    let mut networks = Vec::new();
    for SavedNetwork { name, creation } in &project.networks {
        let name = names.network(name);
        if tools.api.find::<Value>(&format!("/networks/{}", encode(&name)))?.is_some() {
            continue;
        }
        let mut body = creation.clone();
        body["Name"] = name.clone().into();
        body["CheckDuplicate"] = true.into();
        if names.are_others() {
            // The other project's network has these addresses.
            body["IPAM"] = json!({ "Driver": "default" });
        }
        if let Some(labels) = creation["Labels"].as_object() {
            let labels =
                labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            body["Labels"] = json!(names.labels(&labels.collect()));
        }
        let made = tools.api.post("/networks/create", &body)?;
        let id = made["Id"].as_str().unwrap_or(&name).to_owned();
        journal.note(|record| record.made.networks.push(id))?;
        networks.push(name);
    }
    Ok(networks)
}

fn make_container(
    tools: &Tools<'_>,
    project: &Project,
    saved: &SavedContainer,
    mut settings: Value,
    names: &Names,
    ids: &BTreeMap<String, String>,
    journal: &mut Journal,
) -> Result<String> {
    // Who shares another's namespaces is told the other's new ID.
    for mode in ["NetworkMode", "IpcMode", "PidMode"] {
        let old = settings["HostConfig"][mode].as_str().and_then(|mode| mode.strip_prefix("container:"));
        if let Some(new) = old.and_then(|old| ids.get(old)) {
            settings["HostConfig"][mode] = format!("container:{new}").into();
        }
    }
    borrow_nothing(&mut settings);
    if names.are_others() {
        forget_addresses(&mut settings);
        keep_apart(&mut settings, project, names);
    }
    let container = Container::from_document(settings);
    let name = names.container(&saved.name);
    let volumes = project.volumes.iter().map(|volume| (volume.name.clone(), names.volume(volume)));
    let networks =
        project.networks.iter().map(|network| (network.name.clone(), names.network(&network.name)));
    let labels =
        container.document().pointer("/Config/Labels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    let changes = Changes {
        image: Some(saved.saved_image.clone()),
        labels: names.labels(&labels).into_iter().collect(),
        renamed_volumes: volumes.filter(|(old, new)| old != new).collect(),
        renamed_networks: networks.filter(|(old, new)| old != new).collect(),
        ..Changes::default()
    };
    journal.note(|record| {
        let image = saved.saved_image.clone();
        record.made.containers.push(MadeContainer { name: name.clone(), image, id: None });
    })?;
    let id = create(tools.api, &name, &creation(&container, &changes))
        .map_err(|error| error.while_doing(format!("making the container {name}")))?;
    tools.reach(Step::ContainerMade);
    journal.note(|record| {
        record.made.containers.last_mut().into_iter().for_each(|made| made.id = Some(id.clone()));
        // Nobody else is to work on it before this is over.
        record.containers.push(id.clone());
    })?;
    Ok(id)
}
