//! What is in a mount or a volume: names and numbers, no content.

use crate::container::{Container, Mount};
use crate::files::Layers;
use audit::facts::Content;
use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// So many names of a directory are looked at.
pub(super) const NAMES: usize = 200;
/// A directory with more entries is not counted: an audit takes seconds.
const COUNTED: usize = 20_000;

/// What is in a mount, as the container sees it where it runs, and as the host does otherwise. `None`: it can't be looked at.
pub(super) fn of_mount(container: &Container, mount: &Mount, engine: Option<u64>) -> Option<Content> {
    let inside = container.pid().and_then(|pid| {
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let inside = root.join(mount.destination.strip_prefix("/").unwrap_or(&mount.destination));
        inside.symlink_metadata().is_ok().then_some(inside)
    });
    match inside {
        Some(inside) => at(&inside, engine).map(|content| Content {
            // The container's mount hides that its source is gone.
            exists: content.exists && still_there(mount),
            // A directory of the host is on whatever file system the host has it.
            fs_is_own: content.fs_is_own && mount.kind != "bind",
            ..content
        }),
        None if mount.source.as_os_str().is_empty() => None,
        // A plugin's volume that is not mounted, or a volume with options: there is nothing at that place now.
        None if mount.kind == "volume" && mount.driver.as_deref() != Some("local") => None,
        None => at(&mount.source, engine),
    }
}

fn still_there(mount: &Mount) -> bool {
    mount.kind == "tmpfs" || mount.source.as_os_str().is_empty() || !missing(&mount.source)
}

fn missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// What is in a directory. `None`: it can't be looked at. A file system that is not the engine's own, whose device is given,
/// is the volume's alone.
pub(super) fn at(path: &Path, engine: Option<u64>) -> Option<Content> {
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(Content::default()),
        Err(_) => return None,
    };
    let space = linux::fs::space(path).ok();
    let mut content = Content {
        exists: true,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode(),
        fs_size: space.map(|space| space.total),
        fs_free: space.map(|space| space.available),
        fs_is_own: metadata.is_dir() && engine.is_some_and(|engine| engine != metadata.dev()),
        ..Content::default()
    };
    if !metadata.is_dir() {
        content.used = Some(metadata.blocks() * 512);
        return Some(content);
    }
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(path).ok()?.flatten().take(NAMES) {
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    content.empty = names.is_empty();
    content.signatures = names;
    content.used = used(path);
    Some(content)
}

/// Bytes allocated in a directory, unless there are very many files in it.
fn used(path: &Path) -> Option<u64> {
    let tree = tree::Tree::open(path).ok()?;
    let skip = tree::Skip::new();
    let (mut bytes, mut entries) = (0, 0);
    let mut seen = BTreeSet::new();
    for entry in tree::Walk::new(&tree, &skip).ok()?.flatten() {
        entries += 1;
        if entries > COUNTED {
            return None;
        }
        if entry.nlink < 2 || entry.is_dir() || seen.insert(entry.inode()) {
            bytes += if entry.is_dir() { 0 } else { entry.blocks * 512 };
        }
    }
    Some(bytes)
}

/// The names that the image has at a path: of all its layers, without what upper layers delete.
pub(super) fn image_names(layers: &Layers, destination: &Path) -> BTreeSet<String> {
    let inside = destination.strip_prefix("/").unwrap_or(destination);
    let (mut names, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for layer in &layers.lower {
        let Ok(entries) = std::fs::read_dir(layer.join(inside)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let whiteout = entry.file_type().is_ok_and(|kind| kind.is_char_device())
                && entry.metadata().is_ok_and(|metadata| metadata.rdev() == 0);
            if whiteout {
                deleted.insert(name);
            } else if !deleted.contains(&name) {
                names.insert(name);
            }
        }
    }
    names
}
