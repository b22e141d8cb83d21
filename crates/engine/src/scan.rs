//! `everhold recover --scan`: a new catalog from the descriptions beside the data.

use crate::engine::Engine;
use crate::recovery::is_home;
use crate::{Catalog, Error, PoolSettings, Result, Settings, description};
use jiff::Timestamp;
use linux::lock::{LockError, PidLock};
use model::{Attachment, HolderKind, Volume};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// The volumes, as they will be recorded.
    pub volumes: Vec<Volume>,
    /// Directories without a (readable) description, and why; they are left alone.
    pub unknown: Vec<String>,
    /// What had to be decided (a name twice, a mount found).
    pub notes: Vec<String>,
    /// Where the old catalog was moved, if there was one.
    pub old_catalog: Option<PathBuf>,
}

/// Reads every description in the pools and, unless `dry_run`, writes a new catalog in place of the old one, which is kept
/// under another name.
///
/// # Errors
/// [`Error::SecondDaemon`] while a daemon runs; a directory that can't be read or written.
pub fn rebuild(settings: &Settings, dry_run: bool, now: Timestamp) -> Result<Scanned> {
    let mut settings = settings.clone();
    settings.make_directories()?;
    let settings = &settings;
    let _lock = PidLock::acquire(&settings.lock()).map_err(|error| match error {
        LockError::Held { pid } => Error::SecondDaemon { pid, state: settings.state.clone() },
        LockError::Io(error) => Error::Kernel(error),
    })?;
    let mut scanned = Scanned::default();
    for pool in &settings.pools {
        scan_pool(pool, &mut scanned)?;
    }
    rename_doubles(&mut scanned);
    note_mounts(settings, &mut scanned, now)?;
    if !dry_run {
        write(settings, &mut scanned, now)?;
    }
    Ok(scanned)
}

/// Whether any volume is described in this pool.
pub(crate) fn has_volumes(pool: &Path) -> bool {
    let homes = std::fs::read_dir(pool.join("volumes")).into_iter().flatten().flatten();
    homes.into_iter().any(|home| is_home(&home.path()))
}

fn scan_pool(pool: &PoolSettings, scanned: &mut Scanned) -> Result<()> {
    let volumes = &pool.path.join("volumes");
    let failed = |source| {
        Error::Kernel(linux::KernelError { op: "read directory", path: Some(volumes.into()), source })
    };
    let entries = match std::fs::read_dir(volumes) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    for entry in entries {
        let home = entry.map_err(failed)?.path();
        if !is_home(&home) {
            scanned.unknown.push(format!(
                "{}: no description; a creation or destruction that was interrupted",
                home.display()
            ));
            continue;
        }
        match description::read(&home) {
            Ok(volume)
                if home.file_name().is_some_and(|name| name.to_string_lossy() == volume.id.to_string()) =>
            {
                let mut volume = volume;
                if volume.spec.pool != pool.name {
                    let (was, is) = (&volume.spec.pool, &pool.name);
                    scanned.notes.push(format!("{} was in the pool {was} and is in {is} now", volume.name));
                    volume.spec.pool = pool.name.clone();
                }
                scanned.volumes.push(volume);
            }
            Ok(volume) => {
                scanned.unknown.push(format!("{}: its description is that of {}", home.display(), volume.id))
            }
            Err(error) => scanned.unknown.push(error),
        }
    }
    Ok(())
}

/// Two live volumes can claim one name if a crash came between description and record; the older keeps it.
fn rename_doubles(scanned: &mut Scanned) {
    scanned.volumes.sort_by_key(|volume| (volume.created, volume.id));
    let mut taken = BTreeMap::new();
    for volume in scanned.volumes.iter_mut().filter(|volume| volume.is_live()) {
        let mut number = 1;
        while taken.contains_key(&volume.name) {
            number += 1;
            let base: String = volume.name.as_str().chars().take(100).collect();
            let Ok(name) = format!("{base}-recovered-{number}").parse() else { break };
            scanned
                .notes
                .push(format!("the name {} is taken twice; {} is now {name}", volume.name, volume.id));
            volume.name = name;
        }
        taken.insert(volume.name.clone(), volume.id);
    }
}

/// A volume that is mounted now has a holder, whoever it is.
fn note_mounts(settings: &Settings, scanned: &mut Scanned, now: Timestamp) -> Result<()> {
    let boot_id = linux::host::boot_id(&settings.boot_id_file)?;
    let mounts = linux::mounts::table()?;
    for volume in scanned.volumes.iter_mut().filter(|volume| volume.is_live()) {
        let mountpoint = settings.mountpoints().join(volume.id.to_string());
        if mounts.iter().any(|mount| mount.target == mountpoint) {
            scanned
                .notes
                .push(format!("{} is mounted; recorded as attached until its containers end", volume.name));
            volume.attachments.push(Attachment {
                id: "recovered".into(),
                holder: HolderKind::Recovered,
                access: model::Access::ReadWrite,
                since: now,
                boot_id: boot_id.clone(),
            });
        }
    }
    Ok(())
}

fn write(settings: &Settings, scanned: &mut Scanned, now: Timestamp) -> Result<()> {
    let path = settings.catalog();
    let fresh = settings.state.join("catalog.rebuilt");
    let kernel = |op, path: &Path| {
        let path = Some(path.to_owned());
        move |source| Error::Kernel(linux::KernelError { op, path, source })
    };
    if fresh.exists() {
        std::fs::remove_file(&fresh).map_err(kernel("unlink", &fresh))?;
    }
    let catalog = Catalog::open(&fresh)?;
    catalog.put_all(&scanned.volumes)?;
    if let Some(project) = scanned.volumes.iter().filter_map(|volume| volume.project).max() {
        catalog.skip_projects(project)?;
    }
    drop(catalog);
    if path.exists() {
        let kept = settings.state.join(format!("catalog.damaged-{}", now.as_second()));
        std::fs::rename(&path, &kept).map_err(kernel("rename", &path))?;
        scanned.old_catalog = Some(kept);
    }
    std::fs::rename(&fresh, &path).map_err(kernel("rename", &fresh))?;
    linux::fs::sync_dir(&settings.state)?;
    Ok(())
}

impl Engine {
    /// Homes in the pools that no record knows: left by someone else, or by a lost catalog.
    pub fn orphans(&self) -> Vec<PathBuf> {
        let known: std::collections::HashSet<_> =
            self.read().all().filter_map(|volume| self.home(volume).ok()).collect();
        let listed =
            self.pools.iter().filter_map(|pool| std::fs::read_dir(pool.settings.path.join("volumes")).ok());
        listed
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| !known.contains(path))
            .collect()
    }
}
