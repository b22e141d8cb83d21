//! Histories as they are in a vault, whatever became of their volumes: listed, looked at, restored as new volumes.
//!
//! All of this reads. No vault is claimed for it, so that it works with one that another host writes to.

use super::verbs::timestamp;
use super::{Restored, StoredHistory, Timeline};
use crate::engine::Engine;
use crate::{Error, OpenVault, Result, VaultError};
use history::restore::{chain_to, volume_size};
use linux::superblock::{self, Superblock};
use model::{
    At, DriverKind, FsKind, Intent, Life, Options, PoolName, Protection, Size, VaultName, Volume, VolumeId,
    VolumeName,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use vault::Segment;
use vault::format::{BLOCK, StreamId};
use vault::read::{Access, Merged, ReadError, fetch, unseal};
use vault::stream::{State, streams};

/// What a history is of; or why that can't be told, in words.
type About = std::result::Result<Box<Volume>, String>;

/// One history that was looked up.
struct Found {
    access: Access,
    about: About,
    here: Option<Arc<Volume>>,
}

/// A store that fails is the vault's trouble, and no cut's.
fn failed(error: ReadError) -> Error {
    match error {
        ReadError::Store(error) => VaultError::from(error).into(),
        bad @ ReadError::Bad { .. } => bad.into(),
    }
}

fn about(open: &OpenVault, access: &Access) -> About {
    let about: Volume = match access.about() {
        Ok(about) => about,
        Err(error) if error.is_not_found() => return Err("its description is missing".to_owned()),
        Err(error) => return Err(format!("its description can't be read: {error}")),
    };
    if open.stream_of(about.id) != access.stream {
        return Err(format!("its description is that of another volume, {} ({})", about.name, about.id));
    }
    if about.spec.kind() != DriverKind::Image {
        return Err(format!("its description is of a volume of driver {}", about.spec.kind()));
    }
    Ok(Box::new(about))
}

impl Found {
    /// The volume, as the vault knows it, or else this host.
    fn volume(&self) -> std::result::Result<&Volume, &str> {
        match (&self.about, &self.here) {
            (Ok(about), _) => Ok(about),
            (Err(_), Some(here)) => Ok(here),
            (Err(why), None) => Err(why),
        }
    }

    fn is_named(&self, name: &str) -> bool {
        let about = self.about.as_deref().ok();
        about.into_iter().chain(self.here.as_deref()).any(|volume| volume.name.as_str() == name)
    }
}

impl Engine {
    /// The volumes of this host, by what stands for them in the vault.
    fn here(&self, open: &OpenVault) -> HashMap<StreamId, Arc<Volume>> {
        self.read().all().map(|volume| (open.stream_of(volume.id), Arc::clone(volume))).collect()
    }

    /// Every history in a vault, by name; last those of which it can't be told what they are of.
    ///
    /// # Errors
    /// A vault that can't be opened or listed. What is damaged in it is part of the answer.
    pub fn stored_histories(&self, vault: &VaultName) -> Result<Vec<StoredHistory>> {
        let open = self.vaults.open(vault)?;
        let here = self.here(&open);
        let mut all = Vec::new();
        for (stream, objects) in streams(&*open.store).map_err(failed)? {
            let access = open.access(stream);
            let state = access.state_of(&objects).map_err(failed)?;
            let cuts = state.cuts();
            let at = |cut: &(u64, u64)| (cut.0, timestamp(cut.1));
            all.push(StoredHistory {
                stream,
                about: about(&open, &access),
                here: here.get(&stream).cloned(),
                first: cuts.first().map(at),
                newest: cuts.last().map(at),
                cuts: cuts.len() as u64,
                stored: state.listing.segments.iter().map(Segment::size).sum(),
                damaged: state.damaged,
            });
        }
        let name = |one: &StoredHistory| one.volume().map(|volume| volume.name.clone());
        all.sort_by_key(|one| (name(one).is_none(), name(one), one.first.map(|(_, time)| time), one.stream));
        Ok(all)
    }

    /// The one that is meant: by the ID of its volume, by what stands for that in the vault, or by the volume's name.
    fn stored(&self, open: &OpenVault, which: &str) -> Result<Found> {
        let here = self.here(open);
        let found = |stream: StreamId| {
            let access = open.access(stream);
            Found { about: about(open, &access), here: here.get(&stream).cloned(), access }
        };
        let there = streams(&*open.store).map_err(failed)?;
        let by_stream = which.parse::<StreamId>().ok();
        let by_id = || which.parse::<VolumeId>().ok().map(|id| open.stream_of(id));
        let is_there = |stream: &StreamId| there.contains_key(stream);
        if let Some(stream) = by_stream.filter(is_there).or_else(|| by_id().filter(is_there)) {
            return Ok(found(stream));
        }
        let all: Vec<Found> = there.into_keys().map(found).collect();
        let unreadable = all.iter().filter(|one| one.volume().is_err()).count();
        let mut named: Vec<Found> = all.into_iter().filter(|one| one.is_named(which)).collect();
        let vault = open.name.clone();
        match (named.pop(), named.is_empty()) {
            (Some(one), true) => Ok(one),
            (Some(last), false) => {
                named.push(last);
                let ids =
                    named.iter().filter_map(|one| one.volume().ok()).map(|volume| volume.id.to_string());
                Err(Error::SeveralHistories { vault, name: which.to_owned(), ids: ids.collect() })
            }
            (None, _) => Err(Error::NoHistory { vault, which: which.to_owned(), unreadable }),
        }
    }

    /// The cuts of one history in a vault.
    ///
    /// # Errors
    /// No such history, several of that name, or a vault that can't be read.
    pub fn stored_history(&self, vault: &VaultName, which: &str) -> Result<Timeline> {
        let open = self.vaults.open(vault)?;
        let found = self.stored(&open, which)?;
        let state = found.access.state().map_err(failed)?;
        let protection = found.volume().ok().and_then(|volume| volume.spec.protection.as_ref());
        // What was verified is numbered as in the vault where the volume's history is now.
        let is_now_in =
            |here: &&Arc<Volume>| here.spec.protection.as_ref().is_some_and(|now| now.vault == *vault);
        let verdict = found.here.as_ref().filter(is_now_in).and_then(|here| self.verdict(here.id));
        Ok(self.timeline(vault.clone(), &state, protection, verdict.as_ref()))
    }

    /// Makes a new volume with the content of a cut of a history in a vault, in this pool or the one that it was in, and with a
    /// history of its own. As with [`Engine::restore_as`], the same again waits for it or goes on with it.
    ///
    /// # Errors
    /// No such history or cut, several histories of that name, one of which it can't be told what it is of; the name is taken,
    /// there is no such pool, or the vault can't be read.
    pub fn restore_stored(
        &self,
        vault: &VaultName,
        which: &str,
        at: &At,
        new: &VolumeName,
        pool: Option<&PoolName>,
    ) -> Result<Restored> {
        let open = self.vaults.open(vault)?;
        let found = self.stored(&open, which)?;
        let state = found.access.state().map_err(failed)?;
        let volume = match found.volume() {
            Ok(volume) => volume.clone(),
            Err(why) => self.recognised(&open, &found.access, &state)?.ok_or_else(|| Error::Undescribed {
                vault: vault.clone(),
                stream: found.access.stream,
                why: why.to_owned(),
            })?,
        };
        let (point, time) = self.find_cut(&volume, &state, at)?;
        let like = self.as_here(&volume, &open, pool, size_at(&found.access, &state, point)?)?;
        let intent = Intent::Import { vault: vault.clone(), stream: volume.id, point };
        self.restored_as("restore", &like, intent, timestamp(time), new)
    }

    /// The volume as far as its newest cut tells: a file system has the ID of the volume that it was made for. `None`: it was made
    /// for another, as that of a clone is, so that this history's own ID is known to nobody.
    fn recognised(&self, open: &OpenVault, access: &Access, state: &State) -> Result<Option<Volume>> {
        let Some((newest, _)) = state.newest_cut() else { return Ok(None) };
        let chain = chain_to(&state.listing.segments, newest)?;
        let (fs, uuid) = match superblock_of(access, &chain)? {
            Superblock::Ext4(ext4) => (FsKind::Ext4, ext4.uuid),
            Superblock::Xfs(xfs) => (FsKind::Xfs, xfs.uuid),
            Superblock::Btrfs(_) | Superblock::None => return Ok(None),
        };
        let id = VolumeId::from_uuid(uuid::Uuid::from_bytes(uuid));
        let Ok(name) = access.stream.to_string().parse() else { return Ok(None) };
        if open.stream_of(id) != access.stream {
            return Ok(None);
        }
        let size = volume_size(access, &chain)?;
        let options =
            Options::parse_words(["driver=image".to_owned(), format!("fs={fs}"), format!("size={size}")])?;
        let spec = options.resolve(&self.settings.defaults, |_| None, |_| None)?;
        tracing::warn!(%id, stream = %access.stream, "a history that is not described is restored with the default options");
        Ok(Some(Volume {
            id,
            name,
            spec,
            asked: BTreeMap::new(),
            typed: BTreeMap::new(),
            created: self.clock.now(),
            life: Life::Live,
            project: None,
            filesystem: None,
            pending: None,
            restart: Vec::new(),
            attachments: Vec::new(),
            fenced: None,
        }))
    }

    /// The volume as this host would have made it: its pool, and a vault that this host may write to.
    fn as_here(
        &self,
        volume: &Volume,
        open: &OpenVault,
        pool: Option<&PoolName>,
        size: Size,
    ) -> Result<Volume> {
        let mut spec = volume.spec.clone();
        // The description may be older than a growth.
        if spec.size().is_none_or(|described| described < size) {
            spec = spec.with_size(size);
        }
        spec.pool = match pool {
            Some(pool) => pool.clone(),
            None if self.pool(&spec.pool).is_ok() => spec.pool,
            // Another host's pool.
            None => self.settings.defaults.pool.clone(),
        };
        self.pool(&spec.pool)?;
        // The vault has another name on every host. Where it may not be written, there would never be a cut.
        let vault = open.name.clone();
        let kept = spec.protection.take().filter(|_| !open.read_only);
        spec.protection = kept.map(|protection| Protection { vault, ..protection });
        Ok(Volume { spec, ..volume.clone() })
    }
}

/// What the first block of a point says of the file system in it.
fn superblock_of(access: &Access, chain: &[&Segment]) -> Result<Superblock> {
    let mut content = [0; BLOCK];
    let first = Merged::new(access, chain).next().transpose().map_err(failed)?;
    if let Some(first) = first.filter(|first| first.entry.block == 0 && first.entry.sealed_len() > 0) {
        fetch(access, &[first], |located, sealed| {
            unseal(&mut access.unsealer(), located, sealed, &mut content)
        })
        .map_err(failed)?;
    }
    Ok(superblock::parse(&content))
}

/// The size that the volume had at a point.
fn size_at(access: &Access, state: &State, point: u64) -> Result<Size> {
    let chain = chain_to(&state.listing.segments, point)?;
    Ok(Size::from_bytes(volume_size(access, &chain)?))
}
