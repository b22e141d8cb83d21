//! `adopt`: a volume of Docker's own driver, or a directory of the host, becomes a volume of ours.

use super::plan::{Holding, Moving, Plan, Source, check, kept_name};
use super::rescue::estimate_at;
use super::{Tools, apply};
use crate::container::{Container, Mount};
use crate::engine;
use crate::error::{Error, Result};
use crate::journal::{Journal, NameGiven};
use crate::settings::Placed;
use crate::volumes::Volumes;
use docker::{Api, encode};
use model::ErrorKind;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const VERB: &str = "adopt";

/// What an adoption will do. `which`: the name of a volume, or an absolute path on the host.
///
/// # Errors
/// A volume or a holder that can't be adopted, with the reason.
pub fn plan(api: &Api, volumes: &dyn Volumes, which: &str, r#as: Option<&str>) -> Result<Plan> {
    let (volume, path) = if Path::new(which).is_absolute() {
        (None, real(Path::new(which)))
    } else {
        let (name, path) = local_volume(api, which, volumes.driver())?;
        (Some(name), path)
    };
    let holders = holders(api, volume.as_deref(), &path)?;
    for holder in &holders {
        check(api, holder, VERB)?;
    }
    let mut plan = Plan {
        verb: VERB.to_owned(),
        moves: Vec::new(),
        holders: Vec::new(),
        name_kept_as: None,
        notes: Vec::new(),
    };
    let name = name_for(volume.as_deref(), &path, r#as, &holders, &mut plan);
    if let Some(kept) = &plan.name_kept_as {
        // Whatever has one of these names is not ours to be changed, nor to be removed when this is undone.
        if volumes.exists(&name)? {
            return Err(apply::taken(&name));
        }
        if engine::volume(api, "local", kept)?.is_some() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("there is a volume {kept} already, maybe from an earlier adoption"),
                format!(
                    "see what is in it; `docker volume rm {kept}` removes it, or choose another name with --as"
                ),
            ));
        }
    }
    // Until the old volume has given up its name, ours has another.
    let now = if plan.name_kept_as.is_some() { format!("{name}-adopting") } else { name };
    if volumes.exists(&now)? {
        return Err(apply::taken(&now));
    }
    let (bytes, files) = estimate_at(&path)?;
    let source = Source::Directory { volume: volume.clone(), path: path.clone() };
    plan.moves.push(Moving { source, volume: now.clone(), bytes, files, skip: Vec::new() });
    for container in holders {
        let uses = container.mounts().into_iter().filter(|mount| is_ours(mount, volume.as_deref(), &path));
        let placed = uses.map(|mount| Placed {
            destination: mount.destination,
            volume: now.clone(),
            read_write: mount.read_write,
        });
        plan.holders.push(Holding {
            name: container.name().to_owned(),
            id: container.id().to_owned(),
            running: container.is_running(),
            kept: kept_name(container.name(), VERB),
            volumes: placed.collect(),
            container,
        });
    }
    plan.note_compose();
    Ok(plan)
}

/// A volume's name, and where it is.
fn local_volume(api: &Api, which: &str, ours: &str) -> Result<(String, PathBuf)> {
    let found: Option<Value> = api.find(&format!("/volumes/{}", encode(which)))?;
    let Some(found) = found else {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("Docker has no volume {which}"),
            "`docker volume ls` lists all of them; a directory of the host is named with its whole path",
        ));
    };
    let driver = found["Driver"].as_str().unwrap_or_default();
    if driver == ours {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("{which} is a volume of Everhold already"),
            format!("`everhold volume inspect {which}` shows it"),
        ));
    }
    let special = found["Options"].as_object().is_some_and(|options| !options.is_empty());
    if driver != "local" || special {
        let how = if special {
            "with options of its own (a mount that Docker makes when it is used)"
        } else {
            driver
        };
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{which} is a volume of the driver {how}, whose data only that driver can reach"),
            "copy it in a container that has both volumes mounted",
        ));
    }
    Ok((which.to_owned(), PathBuf::from(found["Mountpoint"].as_str().unwrap_or_default())))
}

fn is_ours(mount: &Mount, volume: Option<&str>, path: &Path) -> bool {
    match volume {
        Some(volume) => mount.name.as_deref() == Some(volume),
        None => mount.kind == "bind" && real(&mount.source) == path,
    }
}

/// Where a path leads: a directory of the host may be known by several.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.components().collect())
}

/// Whether one of two directories lies in the other. All of the host is no such case: agents have that.
fn overlaps(source: &Path, path: &Path) -> bool {
    let named = !source.as_os_str().is_empty() && source != Path::new("/");
    named && (source.starts_with(path) || path.starts_with(source))
}

/// The containers that have it, running or not.
pub(super) fn holders(api: &Api, volume: Option<&str>, path: &Path) -> Result<Vec<Container>> {
    let listed: Vec<Value> = api.get("/containers/json?all=true")?;
    let mut holders = Vec::new();
    for id in listed.iter().filter_map(|container| container["Id"].as_str()) {
        let Some(container) = Container::find(api, id)? else { continue };
        let others = |mount: &&Mount| {
            !is_ours(mount, volume, path) && mount.read_write && overlaps(&real(&mount.source), path)
        };
        if let Some(mount) = container.mounts().iter().find(others) {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "the container {} has {}, and would go on writing there",
                    container.name(),
                    mount.source.display()
                ),
                "stop and remove it first, or adopt the directory that it has",
            ));
        }
        if container.mounts().iter().any(|mount| is_ours(mount, volume, path)) {
            holders.push(container);
        }
    }
    Ok(holders)
}

fn name_for(
    volume: Option<&str>,
    path: &Path,
    r#as: Option<&str>,
    holders: &[Container],
    plan: &mut Plan,
) -> String {
    match (volume, r#as) {
        (_, Some(name)) if Some(name) != volume => name.to_owned(),
        (None, _) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        (Some(volume), _) if holders.is_empty() => {
            plan.name_kept_as = Some(format!("{volume}-before-adopt"));
            plan.notes.push(format!(
                "no container has {volume}, so the name goes to the new volume; the old data is kept as {volume}-before-adopt"
            ));
            volume.to_owned()
        }
        (Some(volume), _) => {
            plan.notes.push(format!(
                "Docker ties the name {volume} to the old volume for as long as a container has it, also one that is only kept: the new \
                 one is called {volume}-everhold (another name: --as)"
            ));
            format!("{volume}-everhold")
        }
    }
}

fn mountpoint(api: &Api, name: &str) -> Result<Option<PathBuf>> {
    Ok(engine::volume(api, "local", name)?.and_then(|found| Some(found["Mountpoint"].as_str()?.into())))
}

/// Removes a volume of Docker's own that has nothing in it; one that has something stays.
pub(crate) fn remove_empty(api: &Api, name: &str) -> Result<()> {
    let Some(path) = mountpoint(api, name)? else { return Ok(()) };
    let mut entries = std::fs::read_dir(&path).map_err(|error| Error::on(&path, &error))?;
    if entries.next().is_some() {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("the volume {name} was to be empty, and is not"),
            format!("see what is in {}", path.display()),
        ));
    }
    Ok(api.delete(&format!("/volumes/{}", encode(name)))?)
}

fn inode(path: &Path) -> Result<u64> {
    Ok(path.symlink_metadata().map_err(|error| Error::on(path, &error))?.ino())
}

fn exchange(one: &Path, other: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(|errno| Error::on(one, &errno.into()))
}

/// The old volume's name goes to ours; its directory changes places with that of a new volume of Docker's, so the data is in
/// a volume all the time.
pub(super) fn give_name(tools: &Tools<'_>, journal: &mut Journal) -> Result<()> {
    let Some(taker) = journal.record.targets.first().map(|target| target.name.clone()) else { return Ok(()) };
    let Some(name) = taker.strip_suffix("-adopting").map(str::to_owned) else { return Ok(()) };
    let kept = format!("{name}-before-adopt");
    let old: Value = tools.api.get(&format!("/volumes/{}", encode(&name)))?;
    let from = PathBuf::from(old["Mountpoint"].as_str().unwrap_or_default());
    let labels = old["Labels"].clone();
    let given = NameGiven {
        name: name.clone(),
        taker: taker.clone(),
        kept: kept.clone(),
        inode: inode(&from)?,
        labels: labels.clone(),
    };
    journal.note(|record| record.name_given = Some(given))?;
    let made =
        tools.api.post("/volumes/create", &json!({ "Name": kept, "Driver": "local", "Labels": labels }))?;
    exchange(&from, Path::new(made["Mountpoint"].as_str().unwrap_or_default()))?;
    remove_empty(tools.api, &name)?;
    let r#use = journal.record.r#use.clone();
    tools.volumes.unmount(&taker, &r#use)?;
    tools.volumes.rename(&taker, &name)?;
    journal.note(|record| record.targets[0].name.clone_from(&name))?;
    tools.api.post(
        "/volumes/create",
        &json!({ "Name": name, "Driver": tools.volumes.driver(), "Labels": labels }),
    )?;
    Ok(())
}

/// Undoes [`give_name`], however far it came.
pub(crate) fn take_name_back(given: &NameGiven, api: &Api, volumes: &dyn Volumes) -> Result<()> {
    let Some(kept) = mountpoint(api, &given.kept)? else { return Ok(()) };
    if inode(&kept)? != given.inode {
        // The directories have not changed places.
        return remove_empty(api, &given.kept);
    }
    if mountpoint(api, &given.name)?.is_none() {
        // Ours has the name if it does not have its first one any more. Another volume of that name is left alone.
        if !volumes.exists(&given.taker)? {
            engine::forget(api, &given.name, volumes.driver())?;
            if volumes.exists(&given.name)? {
                volumes.remove(&given.name)?;
            }
        }
        api.post(
            "/volumes/create",
            &json!({ "Name": given.name, "Driver": "local", "Labels": given.labels }),
        )?;
    }
    let Some(own) = mountpoint(api, &given.name)? else {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("Docker would not make the volume {} again", given.name),
            format!("the data is in the volume {}", given.kept),
        ));
    };
    exchange(&kept, &own)?;
    remove_empty(api, &given.kept)
}
