//! The description of a volume, kept beside its data: what `everhold recover --scan` rebuilds the catalog from, and
//! what tells a person without Everhold which directory is which volume.

use crate::{Error, Result};
use jiff::Timestamp;
use linux::fs::write_atomically;
use model::{Intent, Life, Spec, Volume, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// The name of the description file in a volume's home.
pub(crate) const FILE: &str = "volume.json";

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    /// Version of this file's layout.
    everhold: u32,
    id: VolumeId,
    name: VolumeName,
    created: Timestamp,
    life: Life,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filesystem: Option<VolumeId>,
    /// What is half there, and from where the rest comes: without that it would be taken for whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restoring: Option<Intent>,
    #[serde(default)]
    asked: BTreeMap<String, String>,
    #[serde(default)]
    typed: BTreeMap<String, String>,
    spec: Spec,
}

fn restoring(volume: &Volume) -> Option<Intent> {
    volume.pending.clone().filter(|intent| intent.restores().is_some())
}

/// Writes the description into `home`; durable when it returns.
pub(crate) fn write(volume: &Volume, home: &Path) -> Result<()> {
    let description = Description {
        everhold: VERSION,
        id: volume.id,
        name: volume.name.clone(),
        created: volume.created,
        life: volume.life,
        project: volume.project,
        filesystem: volume.filesystem,
        restoring: restoring(volume),
        asked: volume.asked.clone(),
        typed: volume.typed.clone(),
        spec: volume.spec.clone(),
    };
    let mut text =
        serde_json::to_vec_pretty(&description).map_err(|error| Error::Invalid(error.to_string()))?;
    text.push(b'\n');
    Ok(write_atomically(&home.join(FILE), &text, 0o600)?)
}

/// Makes the description say what the record says. `Ok(false)`: it did already, or there is no home to describe.
pub(crate) fn make_true(volume: &Volume, home: &Path) -> Result<bool> {
    let bare = Volume {
        pending: restoring(volume),
        restart: Vec::new(),
        attachments: Vec::new(),
        fenced: None,
        ..volume.clone()
    };
    if !home.is_dir() || read(home).is_ok_and(|described| described == bare) {
        return Ok(false);
    }
    write(volume, home).map(|()| true)
}

/// Reads the description in `home`.
///
/// # Errors
/// In words, with the path.
pub(crate) fn read(home: &Path) -> std::result::Result<Volume, String> {
    let path: PathBuf = home.join(FILE);
    let say = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read(&path).map_err(|error| say(&error))?;
    let description: Description = serde_json::from_slice(&text).map_err(|error| say(&error))?;
    if description.everhold > VERSION {
        return Err(say(&"was written by a later Everhold"));
    }
    Ok(Volume {
        id: description.id,
        name: description.name,
        spec: description.spec,
        asked: description.asked,
        typed: description.typed,
        created: description.created,
        life: description.life,
        project: description.project,
        filesystem: description.filesystem,
        pending: description.restoring,
        restart: Vec::new(),
        attachments: Vec::new(),
        fenced: None,
    })
}
