//! Where a stream stands: as the vault says, or as this host noted last when the vault is away.

use crate::error::{Result, file};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use vault::format::Kind;
use vault::stream::State;

/// The newest points of a stream in its vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The newest point, and its time; 0 if there is none.
    pub(crate) newest: (u64, u64),
    /// Whether that is a cut.
    pub(crate) is_cut: bool,
    /// The newest cut, and its time.
    pub(crate) cut: Option<(u64, u64)>,
    /// The epoch in which the newest point was made.
    pub(crate) epoch: u32,
}

impl Standing {
    /// As the vault says.
    pub(crate) fn of(state: &State) -> Self {
        let Some(last) = state.listing.segments.last() else { return Self::default() };
        let newest = (last.to, last.time);
        Self { newest, is_cut: last.kind == Kind::Cut, cut: state.newest_cut(), epoch: last.epoch }
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        let kind = if self.is_cut { Kind::Cut } else { Kind::Partial };
        (self.newest.0 > 0).then_some(kind)
    }
}

/// What this host knows to be in the vault.
///
/// For the next life of the daemon only: after a crash of the host everything is compared, which needs the vault. So it need not reach
/// the disk, and is written in one call in place, which a process can't be killed in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) vault: [u8; 16],
    /// The newest epoch in which this host has begun to put.
    pub(crate) epoch: u32,
    pub(crate) standing: Standing,
}

const FILE: &str = "durable";
/// Longer than any, so that an older one is covered.
const LENGTH: usize = 512;

impl Noted {
    /// `None`: nothing is known of this vault.
    pub(crate) fn read(home: &Path, vault: [u8; 16]) -> Option<Self> {
        let text = std::fs::read(home.join(FILE)).ok()?;
        let noted: Self = serde_json::from_slice(text.trim_ascii_end()).ok()?;
        (noted.vault == vault).then_some(noted)
    }

    pub(crate) fn write(&self, home: &Path) -> Result<()> {
        let path = home.join(FILE);
        let failed = || file(format!("write {}", path.display()));
        let mut text = serde_json::to_vec(self).map_err(|error| failed()(error.into()))?;
        text.resize(text.len().max(LENGTH), b' ');
        let opened = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed())?;
        opened.write_all_at(&text, 0).map_err(failed())
    }
}
