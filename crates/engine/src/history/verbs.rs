//! The verbs of histories.

use super::protected::Protected;
use super::{CutView, Gap, ProtectionStatus, Restored, Timeline, Verified};
use crate::engine::{Engine, lock, make_dir};
use crate::{Change, Error, Fault, Result};
use history::restore::{Progress, chain_to, difference, write_difference, write_point};
use jiff::Timestamp;
use model::{At, DriverKind, Intent, Life, Protection, SnapshotName, Volume, VolumeId, VolumeName};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vault::read::Access;
use vault::stream::{Snapshot, State};

/// Threads of a restore: two read and write while others decrypt.
const WORKERS: usize = 4;

fn timestamp(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// Where cuts were made and are missing, although retention would still have them: they were merged while the vault was away.
/// That there was nothing to cut is no gap.
fn gaps(cuts: &[CutView], protection: &Protection, now: Timestamp) -> Vec<Gap> {
    let Some(youngest) = protection.keep.tiers().first() else { return Vec::new() };
    let usual = youngest.interval().duration().max(protection.interval.duration());
    let gap = |pair: &[CutView]| {
        let [before, after] = pair else { return None };
        let apart = after.time.duration_since(before.time).unsigned_abs();
        let young = now.duration_since(before.time).unsigned_abs() < youngest.span().duration();
        let missing = after.point - before.point > 2;
        (missing && young && apart > 3 * usual).then(|| Gap {
            from: before.time,
            to: after.time,
            why: "cuts were merged while the vault was slow or absent".to_owned(),
        })
    };
    cuts.windows(2).filter_map(gap).collect()
}

impl Engine {
    /// Protects a volume from now on, or changes how; `None` ends it. What is in the vault stays there.
    ///
    /// # Errors
    /// No such volume, a driver that has no history, or no such vault.
    pub fn protect(&self, name: &VolumeName, protection: Option<Protection>) -> Result<Change> {
        if let Some(protection) = &protection {
            self.vaults.open(&protection.vault)?;
        }
        let _claim = self.claim(name, "protect")?;
        let volume = self.usable(name)?;
        if protection.is_some() && volume.spec.kind() != DriverKind::Image {
            return Err(Error::Invalid(format!(
                "volume {name} has driver {}: only volumes of driver image have a history",
                volume.spec.kind()
            )));
        }
        if volume.spec.protection == protection {
            return Ok(Change::AlreadyThere);
        }
        let vault_of =
            |protection: &Option<Protection>| protection.as_ref().map(|protection| protection.vault.clone());
        let moved = vault_of(&volume.spec.protection) != vault_of(&protection);
        let spec = volume.spec.clone().with_protection(protection);
        self.describe_and_record(Volume { spec, ..(*volume).clone() }, Fault::LabelDescribed)?;
        if moved {
            self.histories.forget(volume.id);
        }
        Ok(Change::Done)
    }

    /// How protection is doing; `None` without protection. Answers at once.
    pub fn protection_status(&self, name: &VolumeName) -> Option<ProtectionStatus> {
        let volume = self.volume(name).ok()?;
        let protection = volume.spec.protection.clone()?;
        let mut status = ProtectionStatus {
            protection,
            method: self.histories.tracking.method(),
            newest: None,
            behind_since: None,
            waiting: (0, 0),
            trouble: None,
            last_freeze: None,
            verified: None,
        };
        let Some(state) = self.histories.known(volume.id) else { return Some(status) };
        let said = lock(&state.said).clone();
        status.trouble = said.trouble;
        status.behind_since = said.behind_since;
        status.last_freeze = said.last.map(|cut| cut.frozen);
        status.verified = said.verified.map(|(_, at, whole)| (at, whole));
        if let Some(outbox) = lock(&state.outbox).as_ref() {
            status.newest = outbox.durable_cut().map(|(point, time)| (point, timestamp(time)));
            let waiting = outbox.waiting();
            status.waiting = (waiting.segments, waiting.bytes);
            status.trouble = status.trouble.or_else(|| outbox.trouble());
            if waiting.segments > 0 && status.behind_since.is_none() {
                status.behind_since = status.newest.map(|(_, time)| time);
            }
        }
        Some(status)
    }

    fn protection_of(&self, volume: &Volume) -> Result<Protection> {
        volume.spec.protection.clone().ok_or_else(|| {
            Error::Invalid(format!(
                "volume {0} is not protected: `everhold protect {0}` begins its history",
                volume.name
            ))
        })
    }

    fn stream(&self, volume: &Volume) -> Result<(Access, State)> {
        let protection = self.protection_of(volume)?;
        let access = self.access(volume.id, &protection.vault)?;
        let state = access.state()?;
        Ok((access, state))
    }

    /// The history of a volume.
    ///
    /// # Errors
    /// No such volume, no history, or a vault that can't be read.
    pub fn history(&self, name: &VolumeName) -> Result<Timeline> {
        let volume = self.volume(name)?;
        let protection = self.protection_of(&volume)?;
        let (_, state) = self.stream(&volume)?;
        let verified = self.histories.known(volume.id).and_then(|known| lock(&known.said).verified);
        let mut cuts: Vec<CutView> = Vec::new();
        for (point, time) in state.cuts() {
            let stored = state
                .listing
                .segments
                .iter()
                .filter(|segment| segment.to == point)
                .map(vault::Segment::size)
                .min()
                .unwrap_or(0);
            let named = state.snapshots.iter().filter(|snapshot| snapshot.point == point);
            cuts.push(CutView {
                point,
                time: timestamp(time),
                stored,
                snapshots: named.filter_map(|snapshot| snapshot.name.parse().ok()).collect(),
                verified: verified.filter(|(at, ..)| *at == point).map(|(_, time, whole)| (time, whole)),
            });
        }
        let stored = state.listing.segments.iter().map(vault::Segment::size).sum();
        let gaps = gaps(&cuts, &protection, self.clock.now());
        Ok(Timeline { vault: protection.vault, cuts, stored, gaps })
    }

    /// Cuts a volume now, and waits until the cut is durable. The newest cut, if nothing has changed since.
    fn cut_durably(&self, volume: &Arc<Volume>) -> Result<(u64, u64)> {
        let protection = self.protection_of(volume)?;
        let members = match &protection.group {
            Some(group) => self
                .protected()
                .into_iter()
                .filter(|(_, other)| other.group.as_ref() == Some(group))
                .collect(),
            None => vec![(Arc::clone(volume), protection)],
        };
        let mut last = None;
        // The regular cut may be in the way, or a verb that has just ended.
        for _ in 0..3 {
            match self.cut_now(&members) {
                Ok(_) => {
                    last = None;
                    break;
                }
                Err(error) => last = Some(error),
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        if let Some(error) = last {
            return Err(error);
        }
        let state = self.histories.of(volume.id);
        self.upload(&state)?;
        let durable = lock(&state.outbox).as_ref().and_then(|outbox| outbox.durable_cut());
        durable.ok_or_else(|| Error::Invalid(format!("volume {} has no cut yet", volume.name)))
    }

    /// Cuts now, and gives the cut a name.
    ///
    /// # Errors
    /// When no cut could be made, or the name is taken by another.
    pub fn snapshot(&self, name: &VolumeName, snapshot: &SnapshotName) -> Result<(Change, CutView)> {
        let volume = self.usable(name)?;
        let (access, state) = self.stream(&volume)?;
        if let Some(known) = state.snapshots.iter().find(|known| known.name == snapshot.as_str()) {
            let view = self.history(name)?.cuts.into_iter().find(|cut| cut.point == known.point);
            let view =
                view.ok_or_else(|| Error::Invalid(format!("the cut of snapshot {snapshot} is missing")))?;
            return Ok((Change::AlreadyThere, view));
        }
        let (point, time) = self.cut_durably(&volume)?;
        let created = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        access.name_cut(&Snapshot { name: snapshot.to_string(), point, time, created }, history::salt())?;
        let cuts = self.history(name)?.cuts;
        let view = cuts.into_iter().find(|cut| cut.point == point);
        let view = view.ok_or_else(|| Error::Invalid(format!("the cut {point} is missing")))?;
        Ok((Change::Done, view))
    }

    /// Takes the name away; retention decides about the cut then.
    ///
    /// # Errors
    /// No such volume, or a vault that can't be written.
    pub fn remove_snapshot(&self, name: &VolumeName, snapshot: &SnapshotName) -> Result<Change> {
        let volume = self.volume(name)?;
        let (access, state) = self.stream(&volume)?;
        if !state.snapshots.iter().any(|known| known.name == snapshot.as_str()) {
            return Ok(Change::AlreadyThere);
        }
        let epoch = self.vaults.open(&self.protection_of(&volume)?.vault)?.writable()?;
        let known = self.histories.of(volume.id);
        let _keeping = lock(&known.keeping);
        // It leaves the inventory first, so that nobody takes it for lost.
        let at = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        let object = access.snapshot_object(snapshot.as_str());
        access.leave_inventory(epoch.0, at, &[object], history::salt())?;
        access.unname_cut(snapshot.as_str())?;
        Ok(Change::Done)
    }

    /// The cut that is meant: the last one at or before a time, one by its number, or one by its name.
    fn find_cut(&self, volume: &Volume, state: &State, at: &At) -> Result<(u64, u64)> {
        let cuts = state.cuts();
        let reach = || match (cuts.first(), cuts.last()) {
            (Some((_, first)), Some((_, last))) => {
                format!("its history goes from {} to {}", timestamp(*first), timestamp(*last))
            }
            _ => "it has no cut yet".to_owned(),
        };
        let found = match at {
            At::Time(time) => cuts.iter().rev().find(|(_, at)| timestamp(*at) <= *time).copied(),
            At::Cut(point) => cuts.iter().find(|(at, _)| at == point).copied(),
            At::Snapshot(name) => {
                let known = state.snapshots.iter().find(|known| known.name == name.as_str());
                known.and_then(|known| cuts.iter().find(|(at, _)| *at == known.point).copied())
            }
        };
        found
            .ok_or_else(|| Error::Invalid(format!("volume {} has no cut for {at}: {}", volume.name, reach())))
    }

    /// Brings a volume back to a cut, in place: the present is cut first, then what differs is rewritten.
    ///
    /// # Errors
    /// When it is attached (and `stop_containers` is not set), no such cut, or a vault that can't be read.
    pub fn restore_in_place(&self, name: &VolumeName, at: &At, stop_containers: bool) -> Result<Restored> {
        let volume = self.usable(name)?;
        let (_, state) = self.stream(&volume)?;
        // Before anything is stopped.
        self.find_cut(&volume, &state, at)?;
        let stopped = if stop_containers { self.stop_holders(&volume)? } else { Vec::new() };
        let done = self.restore_free(name, at);
        let started = self.start_again(&stopped);
        let mut restored = done?;
        started?;
        restored.restarted = stopped.into_iter().map(|(_, name)| name).collect();
        Ok(restored)
    }

    fn stop_holders(&self, volume: &Volume) -> Result<Vec<(String, String)>> {
        let uses = self.containers.using(&volume.name).map_err(Error::Invalid)?;
        let mut stopped: Vec<(String, String)> = Vec::new();
        for container in uses.into_iter().filter(crate::ContainerUse::is_active) {
            if stopped.iter().any(|(id, _)| *id == container.id) {
                continue;
            }
            if let Err(why) = self.containers.stop(&container.id) {
                let again =
                    self.start_again(&stopped).err().map(|error| format!("; {error}")).unwrap_or_default();
                return Err(Error::Invalid(format!(
                    "container {} could not be stopped: {why}{again}",
                    container.name
                )));
            }
            stopped.push((container.id, container.name));
        }
        // The engine says that they are stopped before the last unmount may have come through.
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_secs(10)
            && self.volume(&volume.name).is_ok_and(|volume| !volume.attachments.is_empty())
        {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(stopped)
    }

    fn start_again(&self, stopped: &[(String, String)]) -> Result<()> {
        let mut failed = Vec::new();
        for (id, name) in stopped.iter().rev() {
            if let Err(why) = self.containers.start(id) {
                failed.push(format!("{name}: {why}"));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::Invalid(format!("containers could not be started again: {}", failed.join("; "))))
    }

    fn restore_free(&self, name: &VolumeName, at: &At) -> Result<Restored> {
        let _claim = self.claim(name, "restore")?;
        let volume = self.usable(name)?;
        let volume = self.refuse_if_held_by_someone(&volume, "restore")?;
        let image = self.image_file(&volume)?;
        if !self.is_free(&volume, &image) {
            return Err(self.in_use(&volume, "restore"));
        }
        // The cut that is asked for is looked up before the present becomes one.
        let (_, before) = self.stream(&volume)?;
        let (point, time) = self.find_cut(&volume, &before, at)?;
        let (undo, _) = self.cut_durably(&volume)?;
        let protection = self.protection_of(&volume)?;
        let intent = Intent::Restore { vault: protection.vault, stream: volume.id, point };
        let going = self.record(Volume { pending: Some(intent), ..(*volume).clone() })?;
        self.fault(Fault::RestorePointRecorded);
        let written = self.rewrite(&going)?;
        self.fault(Fault::RestorePointWritten);
        self.record(Volume { pending: None, ..(*going).clone() })?;
        Ok(Restored {
            name: volume.name.clone(),
            id: volume.id,
            point,
            time: timestamp(time),
            undo: Some(undo),
            written,
            how: "in place",
            restarted: Vec::new(),
        })
    }

    /// Finishes a restore in place that is recorded.
    pub(crate) fn finish_restore(&self, volume: &Arc<Volume>) -> Result<()> {
        self.rewrite(volume)?;
        self.record(Volume { pending: None, ..(**volume).clone() })?;
        Ok(())
    }

    /// Writes the blocks in which the recorded point differs from the newest.
    fn rewrite(&self, volume: &Volume) -> Result<u64> {
        let Some(Intent::Restore { vault, stream, point }) = &volume.pending else { return Ok(0) };
        let access = self.access(*stream, vault)?;
        let state = access.state()?;
        let newest = state.newest_cut().map_or(0, |(point, _)| point);
        let now = chain_to(&state.listing.segments, newest)?;
        let then = chain_to(&state.listing.segments, *point)?;
        // First of all: what will be written is marked, so that the next cut has it, wherever this is interrupted.
        let marks = self.histories.tracking.marks(volume.id);
        match &marks {
            Some(marks) => {
                let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
                for located in difference(&access, &now, &then) {
                    let entry = located?.entry;
                    match ranges.last_mut() {
                        Some(last) if last.end >= entry.block => last.end = last.end.max(entry.end()),
                        _ => ranges.push(entry.block..entry.end()),
                    }
                }
                let end = marks.len_blocks();
                ranges.iter_mut().for_each(|range| range.end = range.end.min(end));
                ranges.retain(|range| range.start < range.end);
                marks.mark(&ranges);
            }
            None => {
                if let Some(writer) = lock(&self.histories.of(volume.id).writer).as_mut() {
                    writer.distrust("it was restored");
                }
            }
        }
        let image = self.image_file(volume)?;
        let failed =
            |source| Error::Kernel(linux::KernelError { op: "open", path: Some(image.clone()), source });
        let file = File::options().read(true).write(true).open(&image).map_err(failed)?;
        let progress = Progress::default();
        write_difference(&access, &now, &then, &file, WORKERS, &progress, &self.histories.steps)?;
        Ok(progress.written.load(Ordering::Relaxed))
    }

    /// Makes a new volume with the content of a cut.
    ///
    /// # Errors
    /// No such cut, the name is taken, or a vault that can't be read.
    pub fn restore_as(&self, name: &VolumeName, at: &At, new: &VolumeName) -> Result<Restored> {
        let volume = self.usable(name)?;
        let (access, state) = self.stream(&volume)?;
        let (point, time) = self.find_cut(&volume, &state, at)?;
        let chain = chain_to(&state.listing.segments, point)?;
        let progress = Progress::default();
        let made = self.make_from(&volume, new, &mut |file| {
            write_point(&access, &chain, file, true, WORKERS, &progress, &self.histories.steps)
                .map_err(|error| error.to_string())
        })?;
        Ok(Restored {
            name: made.name.clone(),
            id: made.id,
            point,
            time: timestamp(time),
            undo: None,
            written: progress.written.load(Ordering::Relaxed),
            how: "vault",
            restarted: Vec::new(),
        })
    }

    /// Makes a new volume with the content of this one, now.
    ///
    /// # Errors
    /// The name is taken, or no consistent point could be had.
    pub fn clone_volume(&self, name: &VolumeName, new: &VolumeName) -> Result<Restored> {
        let volume = self.usable(name)?;
        let image = self.image_file(&volume)?;
        let pool = self.pool(&volume.spec.pool)?.settings.path.clone();
        if linux::fs::reflink_supported(&pool).unwrap_or(false) {
            let now = self.clock.now();
            let made = self.make_from(&volume, new, &mut |file| self.reflink(&volume, &image, file))?;
            return Ok(Restored {
                name: made.name.clone(),
                id: made.id,
                point: 0,
                time: now,
                undo: None,
                written: 0,
                how: "reflink",
                restarted: Vec::new(),
            });
        }
        let (point, _) = self.cut_durably(&volume)?;
        self.restore_as(name, &At::Cut(point), new)
    }

    /// Shares the blocks of the image under a freeze.
    fn reflink(&self, volume: &Arc<Volume>, image: &Path, into: &File) -> std::result::Result<(), String> {
        let from = File::open(image).map_err(|error| error.to_string())?;
        let _frozen = match self.in_use_at(volume) {
            Some(used) => {
                linux::freeze::sync(&used.mountpoint).map_err(|error| error.to_string())?;
                Some(self.holds.freeze_for_cut(volume.id, &used.mountpoint)?)
            }
            None if self.is_free(volume, image) => None,
            None => return Err("the volume is in use where it can't be frozen".to_owned()),
        };
        linux::fs::clone_file(&from, into).map_err(|error| error.to_string())
    }

    /// A new volume like `like`, whose image `fill` writes.
    fn make_from(
        &self,
        like: &Volume,
        name: &VolumeName,
        fill: &mut dyn FnMut(&File) -> std::result::Result<(), String>,
    ) -> Result<Arc<Volume>> {
        const STATE: &str = "nothing of it remains, and the volume it was made from is untouched";
        let _claim = self.claim(name, "create")?;
        if self.volume(name).is_ok() {
            return Err(Error::NameTaken(name.clone()));
        }
        let pool = self.pool(&like.spec.pool)?;
        let going = {
            let _placing = self.placing();
            let whole = like.spec.promised();
            pool.check_promise(self.promised(&like.spec.pool), whole, whole, model::Size::default())?;
            self.record(Volume {
                id: VolumeId::from_uuid(uuid::Uuid::new_v4()),
                name: name.clone(),
                created: self.clock.now(),
                life: Life::Live,
                filesystem: Some(like.superblock_uuid()),
                pending: Some(Intent::Create),
                attachments: Vec::new(),
                fenced: None,
                project: None,
                ..like.clone()
            })?
        };
        let made = (|| {
            make_dir(&self.home(&going)?, 0o700)?;
            self.with_driver(&going, "create", STATE, |driver, place| driver.import(place, fill))?;
            let ready = Volume { pending: None, ..(*going).clone() };
            crate::description::write(&ready, &self.home(&ready)?)?;
            self.record(ready)
        })();
        if made.is_err() {
            self.undo_create(&going);
        }
        let made = made?;
        if let Err(why) = self.containers.introduce(&made) {
            tracing::debug!(volume = %made.name, why, "the container engine was not told of it");
        }
        Ok(made)
    }

    /// Restores a cut (the newest, if none is given) to scratch, and checks every block and the file system.
    ///
    /// # Errors
    /// When it could not be tried. What is found wrong is in the answer.
    pub fn verify(&self, name: &VolumeName, at: Option<&At>) -> Result<Verified> {
        let volume = self.usable(name)?;
        let (access, state) = self.stream(&volume)?;
        let (point, time) = match at {
            Some(at) => self.find_cut(&volume, &state, at)?,
            None => {
                state.newest_cut().ok_or_else(|| Error::Invalid(format!("volume {name} has no cut yet")))?
            }
        };
        let scratch = self.home(&volume)?.join(format!("verify-{}", std::process::id()));
        let mut verified = Verified {
            name: name.clone(),
            point,
            time: timestamp(time),
            blocks: 0,
            file_system: String::new(),
            problems: self.missing(&volume, &access)?,
        };
        let checked = self.verify_into(&volume, &access, &state, &scratch, &mut verified);
        if let Err(error) = std::fs::remove_file(&scratch) {
            tracing::warn!(path = %scratch.display(), %error, "scratch could not be removed");
        }
        checked?;
        let state: Arc<Protected> = self.histories.of(volume.id);
        lock(&state.said).verified = Some((point, self.clock.now(), verified.problems.is_empty()));
        Ok(verified)
    }

    /// What is missing or damaged in the history of a volume, as far as it can be told without reading it all.
    fn missing(&self, volume: &Volume, access: &Access) -> Result<Vec<String>> {
        let outbox = lock(&self.histories.of(volume.id).outbox).clone();
        let durable = outbox.map_or(0, |outbox| outbox.durable());
        let found = vault::check::stream(access, false, false, durable).map_err(history::Error::from)?;
        let words = |f: vault::check::Finding| format!("{} {}: {}", f.object, f.wrong, f.means);
        Ok(found.findings.into_iter().map(words).collect())
    }

    fn verify_into(
        &self,
        volume: &Volume,
        access: &Access,
        state: &State,
        scratch: &Path,
        verified: &mut Verified,
    ) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let chain = match chain_to(&state.listing.segments, verified.point) {
            Ok(chain) => chain,
            Err(error) => {
                verified.problems.push(error.to_string());
                return Ok(());
            }
        };
        let failed = |source| {
            Error::Kernel(linux::KernelError { op: "create", path: Some(scratch.to_owned()), source })
        };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(scratch)
            .map_err(failed)?;
        let progress = Progress::default();
        if let Err(error) =
            write_point(access, &chain, &file, true, WORKERS, &progress, &self.histories.steps)
        {
            verified.problems.push(error.to_string());
            return Ok(());
        }
        drop(file);
        verified.blocks = progress.blocks.load(Ordering::Relaxed);
        let problems = self.with_driver(volume, "verify", "the volume is untouched", |driver, place| {
            driver.check_copy(place, scratch)
        })?;
        verified.file_system = if problems.is_empty() { "clean".to_owned() } else { "has errors".to_owned() };
        verified.problems.extend(problems);
        Ok(())
    }
}
