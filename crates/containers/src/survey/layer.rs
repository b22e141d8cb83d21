//! What a container has written into its own layer.

use crate::container::Container;
use crate::files::{Hidden, Layers};
use audit::{Change, Kind, Layer, Rules, Tally};
use docker::{Api, encode};
use jiff::Timestamp;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Through the engine each path is a question of its own.
const ASKED: usize = 500;

pub(super) fn of(
    api: &Api,
    container: &Container,
    layers: &Result<Layers, Hidden>,
    rules: &Rules,
    watched: Vec<String>,
) -> Result<Layer, String> {
    let tally = Tally::new(rules).watching(watched);
    match layers {
        Ok(layers) => walk(layers, tally),
        Err(hidden) => {
            ask(api, container, tally).map_err(|why| format!("{hidden}; through the engine: {why}"))
        }
    }
}

/// Looks at the layer itself.
fn walk(layers: &Layers, mut tally: Tally<'_>) -> Result<Layer, String> {
    let tree = tree::Tree::open(&layers.upper).map_err(|error| error.to_string())?;
    let skip = tree::Skip::default();
    let walk = tree::Walk::new(&tree, &skip).map_err(|error| error.to_string())?;
    // Below a directory that the image does not have, nothing needs to be looked for in it.
    let mut new: HashSet<PathBuf> = HashSet::new();
    // A file with several names is one file.
    let mut seen = HashSet::new();
    let mut failed = None;
    for entry in walk {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                failed.get_or_insert(error.to_string());
                continue;
            }
        };
        if entry.path.as_os_str().is_empty() {
            continue;
        }
        let in_new = entry.path.parent().is_some_and(|parent| new.contains(parent));
        let change = match &entry.kind {
            tree::Kind::CharDevice { rdev: 0 } => Change::Deleted,
            _ if in_new || layers.in_image(&entry.path).is_none() => Change::Added,
            _ => Change::Changed,
        };
        if change == Change::Added && entry.is_dir() {
            new.insert(entry.path.clone());
        }
        let kind = match &entry.kind {
            tree::Kind::File if entry.nlink > 1 && !seen.insert(entry.inode()) => Kind::Other,
            tree::Kind::File => Kind::File,
            tree::Kind::Directory => Kind::Directory,
            _ => Kind::Other,
        };
        let nanoseconds = i32::try_from(entry.mtime.nanoseconds).unwrap_or_default();
        let mtime = Timestamp::new(entry.mtime.seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let path = [b"/", entry.path.as_os_str().as_bytes()].concat();
        tally.add(&path, change, kind, entry.size, entry.blocks * 512, mtime);
    }
    match failed {
        // What was seen of it would be taken for all of it.
        Some(why) => Err(why),
        None => Ok(tally.finish()),
    }
}

/// Asks the engine, which knows what has changed, and of each path how large it is.
fn ask(api: &Api, container: &Container, mut tally: Tally<'_>) -> Result<Layer, String> {
    let id = encode(container.id());
    let changes: Option<Vec<serde_json::Value>> =
        api.get(&format!("/containers/{id}/changes")).map_err(|error| error.to_string())?;
    let mut asked = 0;
    for change in changes.into_iter().flatten() {
        let path = change["Path"].as_str().unwrap_or_default();
        let kind = match change["Kind"].as_u64() {
            Some(1) => Change::Added,
            Some(2) => Change::Deleted,
            _ => Change::Changed,
        };
        let mut stat = None;
        if kind != Change::Deleted {
            asked += 1;
            if asked > ASKED {
                return Err(format!(
                    "more than {ASKED} paths have changed, too many to be asked for one by one"
                ));
            }
            stat = api.stat(container.id(), Path::new(path)).map_err(|error| error.to_string())?;
        }
        let (what, size, mtime) = match &stat {
            Some(stat) if stat.is_dir => (Kind::Directory, 0, stat.mtime),
            Some(stat) => (Kind::File, stat.size, stat.mtime),
            None => (Kind::Other, 0, None),
        };
        tally.add(path.as_bytes(), kind, what, size, size, mtime.unwrap_or(Timestamp::UNIX_EPOCH));
    }
    Ok(tally.finish())
}
