//! The directory of a pool: its file system, and the disk below.

use super::mounts::{self, Mount};
use super::tracking::in_brackets;
use super::tree::Tree;
use crate::context::PoolPlace;
use model::Percent;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A pool, and how it stands if it can be reached.
#[derive(Debug, Clone)]
pub(crate) struct PoolFacts {
    pub name: String,
    /// Without symbolic links, as the kernel shows it.
    pub path: PathBuf,
    pub reserve: Percent,
    pub standing: Result<Standing, Unreachable>,
}

/// Why nothing is known of a pool's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// There is no such directory.
    Absent,
    /// It can't be looked at.
    Failed(String),
}

/// The file system of a pool.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub mount: Mount,
    pub total: u64,
    pub available: u64,
    /// Inodes in all (0: no limit) and those that are free.
    pub inodes: (u64, u64),
    /// What could not be asked is `None`.
    pub reflinks: Option<bool>,
    pub direct_io: Option<bool>,
    pub project_quota: Option<bool>,
    pub disk: Option<Disk>,
}

/// The disk that a file system is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// `vda`.
    pub name: String,
    pub rotational: bool,
    /// The I/O scheduler in use.
    pub scheduler: String,
    /// All schedulers that could be used.
    pub offered: Vec<String>,
}

pub(super) fn look(tree: Tree<'_>, mounts: &[Mount], pool: &PoolPlace) -> PoolFacts {
    let path = super::resolve(&pool.path);
    let standing = standing(tree, mounts, &path);
    PoolFacts { name: pool.name.clone(), path, reserve: pool.reserve, standing }
}

fn standing(tree: Tree<'_>, mounts: &[Mount], path: &Path) -> Result<Standing, Unreachable> {
    let failed = |why: String| Unreachable::Failed(why);
    match path.metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(failed("not a directory".to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Unreachable::Absent),
        Err(error) => return Err(failed(error.to_string())),
    }
    let mount = mounts::holding(mounts, path)
        .ok_or_else(|| failed("its file system is not in the mount table".to_owned()))?
        .clone();
    let space = linux::fs::space(path).map_err(|error| failed(error.to_string()))?;
    // Without a name, and gone when it is closed. Where it can't be made (read-only, no rights), nothing can be tried.
    let probe = tempfile::tempfile_in(path).ok();
    Ok(Standing {
        total: space.total,
        available: space.available,
        inodes: (space.files, space.files_free),
        reflinks: probe.as_ref().and_then(|_| linux::fs::reflink_supported(path).ok()),
        direct_io: probe.and_then(|file| direct_io(tree, &mount, &file)),
        project_quota: linux::quota::supported(path).ok(),
        disk: disk(tree, &mount),
        mount,
    })
}

/// The alignment of direct I/O says whether there is any. Since Linux 6.1 ext4 and XFS tell it; from others no answer
/// means nothing.
fn direct_io(tree: Tree<'_>, mount: &Mount, file: &File) -> Option<bool> {
    if linux::fs::direct_io_alignment(file).ok()?.is_some() {
        return Some(true);
    }
    let kernel = crate::version::parse(&tree.text("/proc/sys/kernel/osrelease")?)?;
    (kernel >= (6, 1) && matches!(mount.fstype.as_str(), "ext4" | "xfs")).then_some(false)
}

/// The disk below a mount: through partitions, and down the first leg of device mapper and RAID.
fn disk(tree: Tree<'_>, mount: &Mount) -> Option<Disk> {
    let by_number = tree.path(&format!("/sys/dev/block/{}", mount.device));
    // btrfs and others show a device number of their own; the source is then the device.
    let by_name =
        mount.source.strip_prefix("/dev/").map(|name| tree.path(&format!("/sys/class/block/{name}")));
    let mut dir = by_number.canonicalize().ok().or_else(|| by_name?.canonicalize().ok())?;
    if dir.join("partition").exists() {
        dir = dir.parent()?.to_owned();
    }
    // A stack of block devices is never this deep; a loop in a broken tree would be endless.
    for _ in 0..8 {
        let Some(leg) = std::fs::read_dir(dir.join("slaves")).ok().and_then(|mut legs| legs.next()?.ok())
        else {
            break;
        };
        dir = leg.path().canonicalize().ok()?;
        if dir.join("partition").exists() {
            dir = dir.parent()?.to_owned();
        }
    }
    let attribute = |name: &str| std::fs::read_to_string(dir.join("queue").join(name)).ok();
    let schedulers = attribute("scheduler")?;
    Some(Disk {
        name: dir.file_name()?.to_string_lossy().into_owned(),
        rotational: attribute("rotational")?.trim() == "1",
        // A device without a queue shows `none` and no brackets.
        scheduler: in_brackets(&schedulers).unwrap_or_else(|| schedulers.trim().to_owned()),
        offered: schedulers.split_whitespace().map(|name| name.trim_matches(['[', ']']).to_owned()).collect(),
    })
}
