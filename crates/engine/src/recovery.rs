//! Start-up: finishes or undoes what was interrupted, and brings the records in line with the kernel.

use crate::engine::Engine;
use crate::{Result, description};
use model::{DriverKind, Intent, Volume};
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// One thing that start-up did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The volume, by name.
    pub volume: String,
    /// What was found and done.
    pub what: String,
    /// Whether it worked.
    pub done: bool,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.volume, self.what)
    }
}

fn repair(volume: &Volume, what: &str, result: Result<()>) -> Repair {
    match result {
        Ok(()) => Repair { volume: volume.name.to_string(), what: what.to_owned(), done: true },
        Err(error) => {
            Repair { volume: volume.name.to_string(), what: format!("{what} failed: {error}"), done: false }
        }
    }
}

pub(crate) fn run(engine: &Engine) -> Vec<Repair> {
    let volumes: Vec<Arc<Volume>> = engine.read().all().cloned().collect();
    let mounted: HashSet<PathBuf> = linux::mounts::below(&engine.settings.mountpoints())
        .unwrap_or_default()
        .into_iter()
        .map(|mount| mount.target)
        .collect();
    let mut repairs = Vec::new();
    let mut rebooted = Vec::new();
    for volume in &volumes {
        let is_mounted = mounted.contains(&engine.settings.mountpoints().join(volume.id.to_string()));
        if is_mounted {
            repairs.extend(thaw(engine, volume));
        }
        repairs.extend(volume.pending.clone().and_then(|intent| finish(engine, volume, intent)));
        let Some(volume) = engine.read().get(volume.id) else { continue };
        if volume.spec.protection.is_some() {
            // Before anything can be mounted.
            engine.histories.tracking.protect(volume.id);
        }
        repairs.extend(describe(engine, &volume));
        if volume.attachments.is_empty() {
            if is_mounted && volume.spec.kind() != DriverKind::Tmpfs {
                let detached = engine.detach_claimed(&volume, |_| true).map(drop);
                repairs.push(repair(&volume, "it was mounted and nobody holds it; unmounted", detached));
            }
            continue;
        }
        let (old, same): (Vec<_>, Vec<_>) =
            volume.attachments.iter().cloned().partition(|attachment| attachment.boot_id != engine.boot_id);
        if !old.is_empty() {
            let what = format!("dropped {} attachment(s) from before the reboot", old.len());
            repairs.push(repair(&volume, &what, Ok(())));
            rebooted.push(Volume { attachments: same.clone(), ..(*volume).clone() });
        }
        if !same.is_empty() {
            repairs.extend(reattach(engine, &volume, is_mounted));
        }
    }
    // One transaction for all: after a reboot there may be a thousand.
    if !rebooted.is_empty()
        && let Err(error) = engine.record_all(rebooted)
    {
        repairs.push(Repair {
            volume: "all".into(),
            what: format!("could not record it: {error}"),
            done: false,
        });
    }
    repairs
}

/// A crash may have come between the description and the record; the record holds.
fn describe(engine: &Engine, volume: &Volume) -> Option<Repair> {
    let made_true = engine.home(volume).and_then(|home| description::make_true(volume, &home));
    match made_true {
        Ok(false) => None,
        Ok(true) => Some(repair(volume, "its description was not what is recorded; written anew", Ok(()))),
        Err(error) => Some(repair(volume, "writing its description", Err(error))),
    }
}

fn finish(engine: &Engine, volume: &Volume, intent: Intent) -> Option<Repair> {
    Some(match intent {
        Intent::Create => repair(volume, "its creation was interrupted; undone", engine.destroy_now(volume)),
        // It may take long, and nobody waits for it: `expire_trash` goes on with it.
        Intent::Destroy => return None,
        // The vault is needed for it, and who opens the vaults finishes it.
        Intent::Restore { .. } | Intent::Import { .. } => return None,
        Intent::Grow { to } => {
            let grown = engine.finish_grow(volume, to).map(drop);
            let failed = grown.is_err();
            let mut said = repair(volume, &format!("growing to {to} was interrupted; finished"), grown);
            if failed {
                // Not worth a fence: the data is whole at the old size.
                let back = Volume { pending: None, ..volume.clone() };
                if let Err(error) = engine.record(back) {
                    said.what.push_str(&format!("; and could not be recorded: {error}"));
                }
            }
            said
        }
    })
}

/// The mount of a volume that was attached in this boot: still there, or to be put back where someone holds it.
fn reattach(engine: &Engine, volume: &Arc<Volume>, is_mounted: bool) -> Option<Repair> {
    if is_mounted {
        // The usual case: this finds it as it is, and is much cheaper than looking at everything.
        return match engine.mount(volume) {
            Ok(_) => None,
            Err(error) => Some(repair(volume, "finding its mount", Err(error))),
        };
    }
    let seen = engine.with_driver(volume, "look at", "", |driver, place| Ok(driver.observe(place))).ok()?;
    if let Some(path) = seen.path {
        engine.set_path(volume.id, Some(path));
        return None;
    }
    if seen.device.is_some() {
        // A container's mount namespace still has the device: the volume is in use although our mount is gone.
        let mounted = engine.mount(volume).map(drop);
        return Some(repair(
            volume,
            "its mount was gone while a container still uses it; mounted again",
            mounted,
        ));
    }
    if let Some(problem) = seen.problems.first() {
        // What can't be seen is not known to be gone.
        let what = format!("its attachments are kept, as it can't be looked at: {}", problem.what);
        return Some(Repair { volume: volume.name.to_string(), what, done: false });
    }
    let dropped = engine.drop_attachments(volume, |_| true).map(drop);
    Some(repair(volume, "its attachments were recorded but nothing is mounted; dropped", dropped))
}

fn thaw(engine: &Engine, volume: &Volume) -> Option<Repair> {
    let mountpoint =
        engine.with_driver(volume, "look at", "", |driver, place| Ok(driver.freezable(place))).ok()??;
    match linux::freeze::thaw(&mountpoint) {
        Ok(linux::Change::Done) => Some(repair(volume, "was left frozen; thawed", Ok(()))),
        Ok(linux::Change::AlreadyThere) => None,
        Err(error) => Some(repair(volume, "thaw", Err(error.into()))),
    }
}

/// Whether `home` holds a volume: it has a description.
pub(crate) fn is_home(home: &std::path::Path) -> bool {
    home.join(description::FILE).is_file()
}
