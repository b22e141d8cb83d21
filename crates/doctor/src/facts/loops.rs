//! Loop devices in use, from sysfs.

use super::pool::PoolFacts;
use super::tree::Tree;
use std::path::{Path, PathBuf};

/// A loop device with a file behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoopDevice {
    /// `loop3`.
    pub name: String,
    /// The backing file has no name any more.
    pub deleted: bool,
    /// Whether it reads and writes around the page cache of the host.
    pub direct_io: Option<bool>,
    /// Whose image it is, or was.
    pub volume: Option<Owner>,
}

/// The volume that a file belongs to, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub pool: String,
    pub id: String,
}

pub(super) fn look(tree: Tree<'_>, pools: &[PoolFacts]) -> Vec<LoopDevice> {
    let entries = std::fs::read_dir(tree.path("/sys/block")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<_> =
        names.filter(|name| name.starts_with("loop")).filter_map(|name| device(tree, pools, name)).collect();
    found.sort_by_key(|device| (device.name.len(), device.name.clone()));
    found
}

fn device(tree: Tree<'_>, pools: &[PoolFacts], name: String) -> Option<LoopDevice> {
    let attribute = |attribute: &str| tree.text(&format!("/sys/block/{name}/loop/{attribute}"));
    // A device that is not in use has no such file.
    let shown = attribute("backing_file")?;
    // The kernel's mark for a file without a name (d_path).
    let (backing, deleted) = match shown.strip_suffix(" (deleted)") {
        Some(path) => (PathBuf::from(path), true),
        None => (PathBuf::from(&shown), false),
    };
    let direct_io = attribute("dio").map(|dio| dio == "1");
    let volume = pools
        .iter()
        .find_map(|pool| Some(Owner { pool: pool.name.clone(), id: id_in(&pool.path, &backing)? }));
    Some(LoopDevice { name, deleted, direct_io, volume })
}

/// `POOL/volumes/ID/…`.
fn id_in(pool: &Path, file: &Path) -> Option<String> {
    let id = file.strip_prefix(pool.join("volumes")).ok()?.components().next()?;
    Some(id.as_os_str().to_string_lossy().into_owned())
}
