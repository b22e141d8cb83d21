//! Bundles in vaults: stored from files, fetched into files, listed, removed.
//!
//! The files lie in the spool directory, which is root's alone: who may use the API must not have the daemon read any other file,
//! nor write one.

use super::{FormatError, OpenVault, VaultError};
use crate::engine::{Engine, lock, make_dir};
use crate::{Fault, Result};
use jiff::Timestamp;
use linux::fs::{NOFOLLOW, space, sync_dir};
use model::{BundleName, VaultName};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, MutexGuard, TryLockError};
use vault::bundles::{self, BundleError, CHUNK, Description, Kept, Label};
use vault::claim::Epoch;
use vault::format::BundleId;

/// A bundle that is to be stored.
#[derive(Debug, Clone)]
pub struct BundleToStore {
    /// Its name, unique in the vault.
    pub name: BundleName,
    /// The file, in the spool directory.
    pub path: PathBuf,
    /// The instant that it is of.
    pub instant: Timestamp,
    /// The containers in it.
    pub containers: Vec<String>,
}

/// A bundle in a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Its description.
    pub about: Description,
    /// The instant that it is of.
    pub instant: Timestamp,
    /// When it was stored.
    pub stored: Timestamp,
}

impl From<Kept> for Bundle {
    fn from(Kept { about, .. }: Kept) -> Self {
        let at =
            |ms| Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
        Self { instant: at(about.label.instant), stored: at(about.label.stored), about }
    }
}

/// The bundles in a vault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundles {
    /// By name.
    pub bundles: Vec<Bundle>,
    /// What can't be read, in words.
    pub damaged: Vec<String>,
}

fn ms(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

fn failed(name: &BundleName, source: impl Into<BundleError>) -> VaultError {
    VaultError::Bundle { name: name.clone(), source: source.into() }
}

/// Makes sure that a path is one of a file in the spool directory.
fn check_path(spool: &Path, path: &Path) -> std::result::Result<(), VaultError> {
    let below = path.strip_prefix(spool).ok();
    let fits = below.is_some_and(|below| {
        let parts: Vec<_> = below.components().collect();
        (1..=2).contains(&parts.len()) && parts.iter().all(|part| matches!(part, Component::Normal(_)))
    });
    if fits {
        return Ok(());
    }
    Err(VaultError::Spool { path: path.to_owned(), why: format!("is not a file in {}", spool.display()) })
}

fn open_spooled(path: &Path) -> std::result::Result<(File, u64), VaultError> {
    let failed = |why: String| VaultError::Spool { path: path.to_owned(), why };
    let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(path);
    let file = file.map_err(|error| failed(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(failed("is not a file".to_owned())) }
}

fn find(open: &OpenVault, name: &BundleName) -> std::result::Result<(Kept, bundles::Bundles), VaultError> {
    let kept = open.bundles();
    let listed = kept.list().map_err(FormatError::from)?;
    let damaged = listed.damaged.len();
    match listed.bundles.into_iter().find(|kept| kept.about.label.name == name.as_str()) {
        Some(found) => Ok((found, kept)),
        None => Err(VaultError::NoBundle { vault: open.name.clone(), name: name.clone(), damaged }),
    }
}

impl OpenVault {
    fn bundles(&self) -> bundles::Bundles {
        bundles::Bundles::new(Arc::clone(&self.store), self.keys.clone())
    }

    fn shelving(&self) -> std::result::Result<MutexGuard<'_, ()>, VaultError> {
        match self.shelving.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(_)) => Ok(lock(&self.shelving)),
            Err(TryLockError::WouldBlock) => Err(VaultError::Shelving { vault: self.name.clone() }),
        }
    }
}

impl Engine {
    /// Stores a file as a bundle. `false`: the very same was there already.
    ///
    /// # Errors
    /// [`VaultError`]; the bundle is not there then.
    pub fn store_bundle(&self, vault: &VaultName, asked: &BundleToStore) -> Result<(Bundle, bool)> {
        check_path(&self.settings.spool(), &asked.path)?;
        let open = self.vaults.open(vault)?;
        let epoch = open.writable()?;
        open.confirm(epoch)?;
        let _one = open.shelving()?;
        let (mut file, size) = open_spooled(&asked.path)?;
        let kept = open.bundles();
        let listed = kept.list().map_err(FormatError::from).map_err(VaultError::from)?;
        // Nobody else writes here, and this is the only one at work.
        for left in listed.unfinished {
            kept.remove(left).map_err(FormatError::from).map_err(VaultError::from)?;
        }
        if let Some(there) =
            listed.bundles.into_iter().find(|kept| kept.about.label.name == asked.name.as_str())
        {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(&mut file).map_err(|error| failed(&asked.name, error))?;
            if there.about.size == size && hasher.finalize().to_hex().as_str() == there.about.hash {
                return Ok((there.into(), false));
            }
            return Err(VaultError::BundleExists { vault: vault.clone(), name: asked.name.clone() }.into());
        }
        let id = BundleId(history::salt());
        match self.shelve(&open, epoch, &kept, id, &mut file, size, asked) {
            Ok(kept) => {
                tracing::info!(%vault, bundle = %asked.name, size, "a bundle was stored");
                Ok((kept.into(), true))
            }
            Err(error) => {
                let cleared =
                    open.confirm(epoch).and_then(|()| Ok(kept.remove(id).map_err(FormatError::from)?));
                if let Err(left) = cleared {
                    tracing::debug!(%vault, error = %left, "chunks of a bundle that was not stored are left");
                }
                Err(error.into())
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "where, as whom, what from, what as")]
    fn shelve(
        &self,
        open: &OpenVault,
        epoch: Epoch,
        kept: &bundles::Bundles,
        id: BundleId,
        file: &mut File,
        size: u64,
        asked: &BundleToStore,
    ) -> std::result::Result<Kept, VaultError> {
        let name = &asked.name;
        let mut storing = kept.begin(id, size, CHUNK);
        while storing.next(file, &history::salt()).map_err(|error| failed(name, error))? {
            open.confirm(epoch)?;
            self.fault(Fault::BundleChunk);
        }
        self.fault(Fault::BundleChunks);
        let label = Label {
            name: name.to_string(),
            instant: ms(asked.instant),
            stored: ms(self.clock.now()),
            containers: asked.containers.clone(),
        };
        let stored = storing.finish(label, &history::salt()).map_err(|error| failed(name, error))?;
        self.fault(Fault::BundleDescribed);
        open.confirm(epoch)?;
        // Another host that took the vault over in between may have cleared chunks away.
        if let Some((object, wrong)) = kept.lacks(&stored).map_err(|error| failed(name, error))? {
            let why = format!("{object} {wrong}: another host has been at work in the vault");
            return Err(VaultError::Claim { name: open.name.clone(), why });
        }
        // From now on it is there; the inventory is also written at other times.
        if let Err(error) = open.renew_inventory(epoch, &[]) {
            tracing::warn!(vault = %open.name, %error, "the vault's inventory could not be renewed yet");
        }
        Ok(stored)
    }

    /// The bundles in a vault. Nothing is written to it.
    ///
    /// # Errors
    /// A vault that can't be opened or listed. What is damaged in it is part of the answer.
    pub fn bundles(&self, vault: &VaultName) -> Result<Bundles> {
        let open = self.vaults.open(vault)?;
        let listed = open.bundles().list().map_err(FormatError::from).map_err(VaultError::from)?;
        let bundles = listed.bundles.into_iter().map(Into::into).collect();
        Ok(Bundles { bundles, damaged: listed.damaged })
    }

    /// Writes a bundle to a new file in the spool directory. The vault is not written to.
    ///
    /// # Errors
    /// [`VaultError`]; the file is not there then, or is not the bundle's.
    pub fn fetch_bundle(&self, vault: &VaultName, name: &BundleName, path: &Path) -> Result<Bundle> {
        let spool = self.settings.spool();
        check_path(&spool, path)?;
        make_dir(&spool, 0o700)?;
        let open = self.vaults.open(vault)?;
        let (found, kept) = find(&open, name)?;
        let (free, needed) = (space(&spool)?.available, found.about.size);
        if free < needed {
            return Err(VaultError::NoRoom { path: spool, free, needed }.into());
        }
        let made =
            OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(NOFOLLOW).open(path);
        let mut file =
            made.map_err(|error| VaultError::Spool { path: path.to_owned(), why: error.to_string() })?;
        let fetched = kept.fetch(&found, &mut file).and_then(|()| Ok(file.sync_all()?));
        if let Err(error) = fetched {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "what was fetched of a bundle is left");
            }
            return Err(failed(name, error).into());
        }
        sync_dir(path.parent().unwrap_or(&spool))?;
        Ok(found.into())
    }

    /// Removes a bundle for good. `None`: there is none of that name.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn remove_bundle(&self, vault: &VaultName, name: &BundleName) -> Result<Option<Bundle>> {
        let open = self.vaults.open(vault)?;
        let epoch = open.writable()?;
        open.confirm(epoch)?;
        let _one = open.shelving()?;
        let (found, kept) = match find(&open, name) {
            Err(VaultError::NoBundle { damaged: 0, .. }) => return Ok(None),
            other => other?,
        };
        open.delete_listed(epoch, &bundles::about_name(found.id))?;
        kept.remove(found.id).map_err(|error| failed(name, error))?;
        tracing::info!(%vault, bundle = %name, "a bundle was removed");
        Ok(Some(found.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_but_the_spools_is_touched() {
        let spool = Path::new("/state/spool");
        for good in ["/state/spool/x", "/state/spool/12-0/bundle.tar"] {
            assert!(check_path(spool, Path::new(good)).is_ok(), "{good}");
        }
        for bad in [
            "/etc/shadow",
            "/state/spool",
            "/state/spool/../catalog.redb",
            "/state/spool/a/../../catalog.redb",
            "/state/spool/a/b/c",
            "/state/spoolx/a",
            "spool/x",
            "",
        ] {
            assert!(matches!(check_path(spool, Path::new(bad)), Err(VaultError::Spool { .. })), "{bad}");
        }
    }

    #[test]
    fn what_a_link_points_to_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("x");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(matches!(open_spooled(&link), Err(VaultError::Spool { .. })));
        assert!(matches!(open_spooled(dir.path()), Err(VaultError::Spool { .. })));
    }
}
