//! `rescue`: data from a container's writable layer, or from an anonymous volume, to a volume of ours.

use super::plan::{
    Holding, Moving, Plan, Source, check, directory, directory_inside, kept_name, mounts_below,
};
use crate::container::{Container, Mount};
use crate::engine;
use crate::error::{Error, Result};
use crate::settings::Placed;
use crate::volumes::Volumes;
use docker::Api;
use model::ErrorKind;
use std::path::{Component, Path, PathBuf};

const VERB: &str = "rescue";

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Directories in the container.
    pub paths: Vec<PathBuf>,
    /// The volume's name, for one directory.
    pub volume: Option<String>,
}

/// What a rescue will do.
///
/// # Errors
/// A container or a path that can't be rescued, with the reason.
pub fn plan(api: &Api, volumes: &dyn Volumes, which: &str, asked: &Asked) -> Result<Plan> {
    let container = engine::present(api, which)?;
    check(api, &container, VERB)?;
    let paths = proper(&asked.paths, &container)?;
    if asked.volume.is_some() && paths.len() > 1 {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("one name for {} directories", paths.len()),
            "name one directory with --path, or leave --volume out",
        ));
    }
    let mut plan = Plan {
        verb: VERB.to_owned(),
        moves: Vec::new(),
        holders: Vec::new(),
        name_kept_as: None,
        notes: Vec::new(),
    };
    let mut placed = Vec::new();
    for path in paths {
        let volume = match &asked.volume {
            Some(name) => name.clone(),
            None => free_name(volumes, &plan, container.name(), &path)?,
        };
        let moving = moving(&container, &path, &volume)?;
        only_its_own(api, &container, &moving)?;
        plan.moves.push(moving);
        placed.push(Placed { destination: path, volume, read_write: true });
    }
    note(&mut plan, &container);
    plan.holders.push(Holding {
        name: container.name().to_owned(),
        id: container.id().to_owned(),
        running: container.is_running(),
        kept: kept_name(container.name(), VERB),
        volumes: placed,
        container,
    });
    plan.note_compose();
    Ok(plan)
}

/// Absolute, without `..`, and none within another.
fn proper(paths: &[PathBuf], container: &Container) -> Result<Vec<PathBuf>> {
    let mut proper: Vec<PathBuf> = Vec::new();
    for path in paths {
        let wrong = |why: &str| {
            let what = format!("{} {why}", path.display());
            Err(Error::new(
                ErrorKind::InvalidInput,
                what,
                "name a directory of data in the container, such as /var/lib/data",
            ))
        };
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return wrong("is no absolute path in the container");
        }
        let path: PathBuf = path.components().collect();
        if path == Path::new("/") {
            return wrong("is all of the container, which is not data alone");
        }
        if ["/proc", "/sys", "/dev"].iter().any(|kernel| path.starts_with(kernel)) {
            return wrong("is the kernel's");
        }
        if !proper.contains(&path) {
            proper.push(path);
        }
    }
    proper.sort();
    if let Some(pair) = proper.windows(2).find(|pair| pair[1].starts_with(&pair[0])) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{} lies in {}, which goes with all that is in it", pair[1].display(), pair[0].display()),
            "name only one of them",
        ));
    }
    if proper.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("nothing in {} looks like data that it would lose", container.name()),
            format!(
                "name a directory with --path; `everhold audit {}` shows what the container has written",
                container.name()
            ),
        ));
    }
    Ok(proper)
}

fn moving(container: &Container, path: &Path, volume: &str) -> Result<Moving> {
    let skip = mounts_below(container, path);
    let (source, from) = match container.mount_of(path) {
        None => {
            let from =
                tree::Tree::from_fd(directory(container, path)?, path).map_err(|error| unreadable(&error))?;
            let (bytes, files) = estimate(&from, &skip)?;
            let source = Source::Layer { container: container.name().to_owned(), path: path.to_owned() };
            return Ok(Moving { source, volume: volume.to_owned(), bytes, files, skip });
        }
        Some(mount) if mount.destination == path && mount.kind == "tmpfs" => {
            let from = tree::Tree::from_fd(directory_inside(container, path)?, path)
                .map_err(|error| unreadable(&error))?;
            let (bytes, files) = estimate(&from, &skip)?;
            let source = Source::Memory { container: container.name().to_owned(), path: path.to_owned() };
            return Ok(Moving { source, volume: volume.to_owned(), bytes, files, skip });
        }
        Some(mount) if mount.destination == path && mount.is_anonymous() => {
            (Source::Directory { volume: mount.name, path: mount.source.clone() }, mount.source)
        }
        Some(mount) => return Err(kept_already(container, path, &mount)),
    };
    let (bytes, files) = estimate(&tree::Tree::open(&from).map_err(|error| unreadable(&error))?, &skip)?;
    Ok(Moving { source, volume: volume.to_owned(), bytes, files, skip })
}

/// Another container would go on writing to the old volume.
fn only_its_own(api: &Api, container: &Container, moving: &Moving) -> Result<()> {
    let Source::Directory { volume: Some(volume), path } = &moving.source else { return Ok(()) };
    match super::adopt::holders(api, Some(volume), path)?.iter().find(|other| other.id() != container.id()) {
        None => Ok(()),
        Some(other) => Err(Error::new(
            ErrorKind::InUse,
            format!("the container {} has the anonymous volume {volume} too", other.name()),
            format!("`everhold adopt {volume} --as {}` moves it for both", moving.volume),
        )),
    }
}

/// Bytes and files of a tree.
pub(crate) fn estimate(from: &tree::Tree, skip: &[PathBuf]) -> Result<(u64, u64)> {
    let skip = skip.iter().cloned().collect();
    let estimate = tree::estimate(from, &skip).map_err(|error| unreadable(&error))?;
    Ok((estimate.bytes, estimate.files))
}

/// As [`estimate`], of a directory of this host.
pub(crate) fn estimate_at(path: &Path) -> Result<(u64, u64)> {
    estimate(&tree::Tree::open(path).map_err(|error| unreadable(&error))?, &[])
}

fn unreadable(error: &tree::Error) -> Error {
    Error::new(ErrorKind::Internal, error.to_string(), "run it as root on the engine's own host")
}

fn kept_already(container: &Container, path: &Path, mount: &Mount) -> Error {
    let (name, at) = (container.name(), mount.destination.display());
    let (what, next) = match (mount.kind.as_str(), &mount.name) {
        ("volume", Some(volume)) if mount.is_anonymous() => (
            format!("{} lies in an anonymous volume at {at} ({volume})", path.display()),
            format!("`everhold rescue {name} --path {at}` moves all of that volume"),
        ),
        ("volume", Some(volume)) => (
            format!("{} lies in the volume {volume}, which does not go with the container", path.display()),
            format!("`everhold adopt {volume}` makes it a volume of Everhold"),
        ),
        ("bind", _) => (
            format!(
                "{} lies in {} of the host, which does not go with the container",
                path.display(),
                mount.source.display()
            ),
            format!("`everhold adopt {}` makes it a volume of Everhold", mount.source.display()),
        ),
        ("tmpfs", _) => (
            format!(
                "{} lies in memory (tmpfs at {at}), which nobody can look into from outside",
                path.display()
            ),
            format!(
                "`docker exec {name} cp -a {at}/. DIRECTORY` to a directory outside of it, then rescue that"
            ),
        ),
        (kind, _) => {
            (format!("{} lies in a mount of kind {kind}", path.display()), "choose another path".to_owned())
        }
    };
    Error::new(ErrorKind::InvalidInput, what, next)
}

/// A name made of the container's and the directory's that nobody has.
fn free_name(volumes: &dyn Volumes, plan: &Plan, container: &str, path: &Path) -> Result<String> {
    let last = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |character: char| {
        if character.is_ascii_alphanumeric() || "_.-".contains(character) { character } else { '-' }
    };
    let base: String = format!("{container}-{last}").chars().map(plain).take(100).collect();
    for number in 1..1000 {
        let name = if number == 1 { base.clone() } else { format!("{base}-{number}") };
        if !plan.moves.iter().any(|moving| moving.volume == name) && !volumes.exists(&name)? {
            return Ok(name);
        }
    }
    Err(super::apply::taken(&base))
}

fn note(plan: &mut Plan, container: &Container) {
    if !container.is_running() {
        plan.notes.push(format!("{} does not run, and will not: only its data is moved", container.name()));
    }
}
