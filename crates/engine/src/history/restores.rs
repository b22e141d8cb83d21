//! Restores: in place, and as new volumes. What is half done is recorded, and is gone on with from where it had come to.

use super::Restored;
use super::going::Work;
use super::verbs::timestamp;
use crate::engine::{Engine, lock, make_dir};
use crate::{Error, Fault, Result};
use history::restore::{Note, Restore, chain_to};
use jiff::Timestamp;
use model::{At, Intent, Life, Volume, VolumeId, VolumeName};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vault::read::Access;
use vault::stream::State;

/// Threads of a restore: more than there are processors, as some wait for the disk.
pub(crate) const WORKERS: usize = 6;
/// In the home of a volume: how far its restore has come.
pub(crate) const NOTE: &str = "restoring.json";
/// Interrupted restores that are gone on with at once.
const AT_ONCE: usize = 2;
/// So often an object may be gone because it was merged into another since it was listed.
const LISTED_AGAIN: u32 = 5;
const LOOK: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(20);

const UNDONE: &str = "nothing of it remains, and the volume it was made from is untouched";

/// What a restore has moved, and how.
#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    /// Bytes written to the image.
    written: u64,
    /// Bytes read from the vault.
    fetched: u64,
    /// Whether the rest is shared with the volume that the cut is of.
    shared: bool,
}

fn moved(work: &Work) -> Moved {
    Moved {
        written: work.progress.written.load(Ordering::Relaxed),
        fetched: work.progress.fetched.load(Ordering::Relaxed),
        shared: work.shared.load(Ordering::Relaxed),
    }
}

/// Whether the store failed, rather than what is in it: then another time may be better.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::History(history::Error::Vault(vault::read::ReadError::Store(_)) | history::Error::Stopped) => {
            true
        }
        Error::Vault(error) => error.kind() == model::ErrorKind::Unavailable,
        _ => false,
    }
}

impl Engine {
    /// Brings a volume back to a cut, in place: the present is cut first, then what differs is rewritten.
    ///
    /// # Errors
    /// When it is attached (and `stop_containers` is not set), no such cut, or a vault that can't be read.
    pub fn restore_in_place(&self, name: &VolumeName, at: &At, stop_containers: bool) -> Result<Restored> {
        let volume = self.usable(name)?;
        let (_, state) = self.stream(&volume)?;
        // Before anything is stopped.
        let (point, _) = self.find_cut(&volume, &state, at)?;
        self.during("restore", &volume, (volume.id, point), |work| {
            if stop_containers {
                self.stop_holders(&volume)?;
            }
            let done = self.restore_free(name, at, work);
            let half = self.read().get(volume.id).is_some_and(|volume| volume.restoring().is_some());
            // Nobody could use what is half there; once it is whole, they are started.
            let started = if stop_containers && !half { self.start_again(volume.id) } else { Ok(Vec::new()) };
            let mut restored = done?;
            restored.restarted = started?;
            Ok(restored)
        })
    }

    fn restore_free(&self, name: &VolumeName, at: &At, work: &Work) -> Result<Restored> {
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
        // What an earlier one noted says nothing of this one.
        Note::remove(&self.home(&volume)?.join(NOTE))?;
        let intent = Intent::Restore { vault: protection.vault, stream: volume.id, point };
        let half = Volume { pending: Some(intent), ..(*volume).clone() };
        let half = self.describe_and_record(half, Fault::LabelDescribed)?;
        self.fault(Fault::RestorePointRecorded);
        let whole = self.finish_in_place(&half, work).map_err(|source| {
            self.histories.going.failed(half.id, true);
            Error::Unfinished { name: name.clone(), source: Box::new(source) }
        })?;
        let Moved { written, fetched, .. } = moved(work);
        Ok(Restored {
            name: whole.name.clone(),
            id: whole.id,
            point,
            time: timestamp(time),
            undo: Some(undo),
            written,
            fetched,
            how: "in place",
            restarted: Vec::new(),
        })
    }

    /// Finishes a restore in place that is recorded.
    fn finish_in_place(&self, half: &Volume, work: &Work) -> Result<Arc<Volume>> {
        self.rewrite(half, work)?;
        self.fault(Fault::RestorePointWritten);
        self.recorded_whole(half)
    }

    /// It is recorded as finished, and what was noted on the way is forgotten.
    fn recorded_whole(&self, half: &Volume) -> Result<Arc<Volume>> {
        let note = self.home(half)?.join(NOTE);
        let whole =
            self.describe_and_record(Volume { pending: None, ..half.clone() }, Fault::LabelDescribed)?;
        Note::remove(&note)?;
        Ok(whole)
    }

    /// Reads the stream and does `work`; once more from a new listing where an object had been merged into another meanwhile.
    fn listed<T>(
        &self,
        volume: &Volume,
        mut work: impl FnMut(&Access, &State, u64) -> Result<T>,
    ) -> Result<T> {
        let Some((vault, stream, point)) = volume.restoring() else {
            return Err(Error::Invalid(format!("volume {} is not being restored", volume.name)));
        };
        let access = self.access(stream, vault)?;
        let mut again = 0;
        loop {
            let state = access.state()?;
            match work(&access, &state, point) {
                Err(Error::History(history::Error::Vault(gone)))
                    if gone.is_not_found() && again < LISTED_AGAIN =>
                {
                    tracing::debug!(volume = %volume.name, error = %gone, "listed again");
                    again += 1;
                }
                other => return other,
            }
        }
    }

    /// Writes the blocks in which the recorded point differs from the newest.
    fn rewrite(&self, volume: &Volume, work: &Work) -> Result<()> {
        let image = self.image_file(volume)?;
        let failed =
            |source| Error::Kernel(linux::KernelError { op: "open", path: Some(image.clone()), source });
        let file = File::options().read(true).write(true).open(&image).map_err(failed)?;
        let path = self.home(volume)?.join(NOTE);
        self.listed(volume, |access, state, point| {
            let newest = state.newest_cut().map_or(0, |(point, _)| point);
            let now = chain_to(&state.listing.segments, newest)?;
            let then = chain_to(&state.listing.segments, point)?;
            self.mark_difference(volume, access, &now, &then)?;
            let note = Note::new(path.clone(), format!("cut {point} over cut {newest}"));
            self.onto(access, &file, work, Some(&note)).difference(&now, &then)?;
            Ok(())
        })
    }

    fn onto<'a>(
        &'a self,
        access: &'a Access,
        into: &'a File,
        work: &'a Work,
        note: Option<&'a Note>,
    ) -> Restore<'a> {
        Restore {
            access,
            into,
            workers: WORKERS,
            progress: &work.progress,
            steps: &self.histories.steps,
            note,
        }
    }

    /// First of all: what will be written is marked, so that the next cut has it, wherever this is interrupted.
    fn mark_difference(
        &self,
        volume: &Volume,
        access: &Access,
        now: &[&vault::Segment],
        then: &[&vault::Segment],
    ) -> Result<()> {
        let Some(marks) = self.histories.tracking.marks(volume.id) else {
            if let Some(writer) = lock(&self.histories.of(volume.id).writer).as_mut() {
                writer.distrust("it was restored");
            }
            return Ok(());
        };
        let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
        // More than differs, and much cheaper to find.
        for range in history::touched(access, now, then) {
            let range = range?;
            match ranges.last_mut() {
                Some(last) if last.start <= range.start && range.start <= last.end => {
                    last.end = last.end.max(range.end);
                }
                _ => ranges.push(range),
            }
        }
        let end = marks.len_blocks();
        ranges.iter_mut().for_each(|range| range.end = range.end.min(end));
        ranges.retain(|range| range.start < range.end);
        marks.mark(&ranges);
        Ok(())
    }

    /// Makes a new volume with the content of a cut. The same again while that goes on, or was interrupted, waits for it or goes on
    /// with it.
    ///
    /// # Errors
    /// No such cut, the name is taken, or a vault that can't be read.
    pub fn restore_as(&self, name: &VolumeName, at: &At, new: &VolumeName) -> Result<Restored> {
        self.new_from_cut("restore", name, at, new)
    }

    /// Makes a new volume with the content of this one, now or at a cut.
    ///
    /// # Errors
    /// The name is taken, or no consistent point could be had.
    pub fn clone_volume(&self, name: &VolumeName, at: Option<&At>, new: &VolumeName) -> Result<Restored> {
        if let Some(at) = at {
            return self.new_from_cut("clone", name, at, new);
        }
        let volume = self.usable(name)?;
        // "Now" was when it was asked for first.
        if let Ok(half) = self.volume(new)
            && let Some(Intent::Import { stream, point, .. }) = &half.pending
            && *stream == volume.id
        {
            return self.new_from_cut("clone", name, &At::Cut(*point), new);
        }
        let image = self.image_file(&volume)?;
        let pool = self.pool(&volume.spec.pool)?.settings.path.clone();
        if linux::fs::reflink_supported(&pool).unwrap_or(false) {
            let now = self.clock.now();
            let made = self.new_from_image(&volume, &image, new)?;
            return Ok(Restored {
                name: made.name.clone(),
                id: made.id,
                point: 0,
                time: now,
                undo: None,
                written: 0,
                fetched: 0,
                how: "reflink",
                restarted: Vec::new(),
            });
        }
        if self.volume(new).is_ok() {
            return Err(Error::NameTaken(new.clone()));
        }
        let (point, _) = self.cut_durably(&volume)?;
        self.new_from_cut("clone", name, &At::Cut(point), new)
    }

    fn new_from_cut(
        &self,
        verb: &'static str,
        name: &VolumeName,
        at: &At,
        new: &VolumeName,
    ) -> Result<Restored> {
        // A volume that is half restored itself still has its history.
        let volume = self.refuse_fenced(self.volume(name)?)?;
        let protection = self.protection_of(&volume)?;
        let (_, state) = self.stream(&volume)?;
        let (point, time) = self.find_cut(&volume, &state, at)?;
        chain_to(&state.listing.segments, point)?;
        let intent = Intent::Import { vault: protection.vault, stream: volume.id, point };
        self.restored_as(verb, &volume, intent, timestamp(time), new)
    }

    /// Makes a new volume like `like` with the point of the intent, which was at `time`.
    pub(super) fn restored_as(
        &self,
        verb: &'static str,
        like: &Volume,
        intent: Intent,
        time: Timestamp,
        new: &VolumeName,
    ) -> Result<Restored> {
        let point = intent.restores().map_or(0, |(_, _, point)| point);
        let (made, Moved { written, fetched, shared }) = self.import(verb, like, intent, new)?;
        Ok(Restored {
            name: made.name.clone(),
            id: made.id,
            point,
            time,
            undo: None,
            written,
            fetched,
            how: if shared { "reflink" } else { "vault" },
            restarted: Vec::new(),
        })
    }

    /// Makes a new volume like `like` as the intent says, or goes on with one that was begun so.
    fn import(
        &self,
        verb: &'static str,
        like: &Volume,
        intent: Intent,
        new: &VolumeName,
    ) -> Result<(Arc<Volume>, Moved)> {
        let mut begun = None;
        let claim = loop {
            if let Some(done) = self.join(new, &intent, &mut begun)? {
                return Ok(done);
            }
            match begun {
                None => break self.claim(new, verb)?,
                // Between the claim of who goes on with it and its being known to be at work there is a moment.
                Some(_) => match self.claims.try_take(new, verb) {
                    Some(claim) => break claim,
                    None => std::thread::sleep(MOMENT),
                },
            }
        };
        // Now that nobody else can be at it.
        if let Some(done) = self.join(new, &intent, &mut begun)? {
            return Ok(done);
        }
        let half = match begun.and_then(|id| self.read().get(id)) {
            Some(known) => known,
            None => self.begin_from(like, new, intent)?,
        };
        self.fault(Fault::RestoreAsRecorded);
        let done = self.fill(verb, &half);
        if let Err(error) = &done {
            if may_pass(error) {
                self.histories.going.failed(half.id, true);
                return done
                    .map_err(|source| Error::Unfinished { name: new.clone(), source: Box::new(source) });
            }
            self.undo_create(&half);
        }
        drop(claim);
        let done = done?;
        self.introduce(&done.0);
        Ok(done)
    }

    /// What someone else has begun, and perhaps finished while this waited for it. `None`: nobody is at it; `begun` is what is half
    /// there.
    fn join(
        &self,
        new: &VolumeName,
        intent: &Intent,
        begun: &mut Option<VolumeId>,
    ) -> Result<Option<(Arc<Volume>, Moved)>> {
        let Ok(known) = self.volume(new) else {
            *begun = None;
            return Ok(None);
        };
        if *begun == Some(known.id) && known.pending.is_none() {
            let moved = self.histories.going.last(known.id).map(|work| moved(&work)).unwrap_or_default();
            return Ok(Some((known, moved)));
        }
        if known.pending.as_ref() != Some(intent) {
            self.refuse_half_restored(&known)?;
            return Err(Error::NameTaken(new.clone()));
        }
        *begun = Some(known.id);
        let Some(work) = self.histories.going.at_work(known.id) else { return Ok(None) };
        self.histories.going.wait(&work);
        match self.read().get(known.id) {
            Some(made) if made.restoring().is_none() && made.is_live() => Ok(Some((made, moved(&work)))),
            Some(half) if half.is_live() => {
                self.refuse_half_restored(&half)?;
                Ok(None)
            }
            _ => Err(Error::NoVolume { name: new.to_string(), in_trash: true }),
        }
    }

    fn introduce(&self, made: &Volume) {
        if let Err(why) = self.containers.introduce(made) {
            tracing::debug!(volume = %made.name, why, "the container engine was not told of it");
        }
    }

    /// Fills a new volume that is recorded as being made from a point, and records it as made.
    fn fill(&self, verb: &'static str, half: &Volume) -> Result<(Arc<Volume>, Moved)> {
        let Some((vault, stream, point)) = half.restoring() else {
            return Err(Error::Invalid(format!("volume {} is not being restored", half.name)));
        };
        let home = self.home(half)?;
        let note = Note::new(home.join(NOTE), format!("cut {point} of {stream} in vault {vault}"));
        self.during(verb, half, (stream, point), |work| {
            make_dir(&home, 0o700)?;
            // Also of what is half there, as it takes space and a name.
            crate::description::make_true(half, &home)?;
            let mut failed = None;
            let goes_on = home.join(NOTE).exists();
            let mut fill = |file: &File| {
                let filled = match !goes_on && self.share(half, file, work) {
                    true => Ok(()),
                    false => self.listed(half, |access, state, point| {
                        let chain = chain_to(&state.listing.segments, point)?;
                        Ok(self.onto(access, file, work, Some(&note)).point(&chain)?)
                    }),
                };
                filled.map_err(|error| {
                    let why = error.to_string();
                    failed = Some(error);
                    why
                })
            };
            let made = self.with_driver(half, verb, UNDONE, |driver, place| driver.import(place, &mut fill));
            if let Some(error) = failed {
                return Err(error);
            }
            made?;
            self.fault(Fault::RestoreAsMade);
            Ok((self.recorded_whole(half)?, moved(work)))
        })
    }

    /// Where the pool has reflinks, and the volume that the cut is of is at rest there: shares its blocks, and writes only those in which
    /// the cut differs from the present. Says whether that has been done; the vault has everything otherwise.
    fn share(&self, half: &Volume, file: &File, work: &Work) -> bool {
        let shared = self.try_share(half, file, work);
        match &shared {
            Ok(true) => work.shared.store(true, Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(volume = %half.name, %error, "its blocks are read from the vault, all of them");
            }
        }
        matches!(shared, Ok(true))
    }

    fn try_share(&self, half: &Volume, file: &File, work: &Work) -> Result<bool> {
        let Some((vault, stream, _)) = half.restoring() else { return Ok(false) };
        let is_like = |volume: &Arc<Volume>| {
            let there = volume.spec.protection.as_ref().is_some_and(|protection| protection.vault == *vault);
            let whole = volume.is_live() && volume.fenced.is_none() && volume.pending.is_none();
            there && whole && volume.spec.pool == half.spec.pool
        };
        let Some(source) = self.read().get(stream).filter(is_like) else { return Ok(false) };
        if !linux::fs::reflink_supported(&self.pool(&half.spec.pool)?.settings.path)? {
            return Ok(false);
        }
        let image = self.image_file(&source)?;
        // Nobody takes it into use before its blocks are shared.
        let claim = self.claims.try_take(&source.name, "restore");
        if claim.is_none() || !self.is_free(&source, &image) {
            return Ok(false);
        }
        let (present, _) = self.cut_durably(&source)?;
        let failed =
            |source| Error::Kernel(linux::KernelError { op: "open", path: Some(image.clone()), source });
        let from = File::open(&image).map_err(failed)?;
        let size = from.metadata().map_err(failed)?.len();
        self.listed(half, |access, state, point| {
            let now = chain_to(&state.listing.segments, present)?;
            let then = chain_to(&state.listing.segments, point)?;
            // One that has grown since then would have to shrink.
            if history::restore::volume_size(access, &then)? != size {
                return Ok(false);
            }
            file.set_len(0).map_err(failed)?;
            linux::fs::clone_file(&from, file)?;
            // Interrupted, it begins anew, from the vault.
            self.onto(access, file, work, None).difference(&now, &then)?;
            Ok(true)
        })
    }

    /// Shares the blocks of an image with a new volume.
    fn new_from_image(&self, like: &Arc<Volume>, image: &Path, new: &VolumeName) -> Result<Arc<Volume>> {
        let claim = self.claim(new, "clone")?;
        if let Ok(known) = self.volume(new) {
            self.refuse_half_restored(&known)?;
            return Err(Error::NameTaken(new.clone()));
        }
        let going = self.begin_from(like, new, Intent::Create)?;
        let made = (|| {
            make_dir(&self.home(&going)?, 0o700)?;
            let mut fill = |file: &File| self.reflink(like, image, file);
            self.with_driver(&going, "clone", UNDONE, |driver, place| driver.import(place, &mut fill))?;
            self.describe_and_record(Volume { pending: None, ..(*going).clone() }, Fault::CreateDescribed)
        })();
        if made.is_err() {
            self.undo_create(&going);
        }
        drop(claim);
        let made = made?;
        self.introduce(&made);
        Ok(made)
    }

    /// Shares the blocks of the image under a freeze.
    fn reflink(&self, volume: &Arc<Volume>, image: &Path, into: &File) -> std::result::Result<(), String> {
        let from = File::open(image).map_err(|error| error.to_string())?;
        into.set_len(0).map_err(|error| error.to_string())?;
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

    /// Records a new volume like `like`, with what is intended.
    fn begin_from(&self, like: &Volume, name: &VolumeName, intent: Intent) -> Result<Arc<Volume>> {
        let _placing = self.placing();
        let pool = self.pool(&like.spec.pool)?;
        let whole = like.spec.promised();
        pool.check_promise(self.promised(&like.spec.pool), whole, whole, model::Size::default())?;
        self.record(Volume {
            id: VolumeId::from_uuid(uuid::Uuid::new_v4()),
            name: name.clone(),
            created: self.clock.now(),
            life: Life::Live,
            filesystem: Some(like.superblock_uuid()),
            pending: Some(intent),
            restart: Vec::new(),
            attachments: Vec::new(),
            fenced: None,
            project: None,
            ..like.clone()
        })
    }

    /// Goes on with restores that were interrupted, as far as their vaults can be read: each on a thread of its own, since a vault may
    /// hang. Says when to look again.
    pub fn finish_restores(self: &Arc<Self>) -> Duration {
        let half: Vec<_> = self.volumes().into_iter().filter(|volume| volume.restoring().is_some()).collect();
        let going = &self.histories.going;
        let mut at_work = half.iter().filter(|volume| going.at_work(volume.id).is_some()).count();
        for volume in half {
            if at_work >= AT_ONCE {
                break;
            }
            if going.at_work(volume.id).is_some() || volume.fenced.is_some() || !going.is_due(volume.id) {
                continue;
            }
            at_work += 1;
            let engine = Arc::clone(self);
            let finish = move || engine.finish_one(volume.id);
            if let Err(error) = std::thread::Builder::new().name("restore".to_owned()).spawn(finish) {
                tracing::warn!(%error, "no thread to finish a restore");
            }
        }
        LOOK
    }

    fn finish_one(&self, id: VolumeId) {
        let Some(volume) = self.read().get(id) else { return };
        let Some(claim) = self.claims.try_take(&volume.name, "restore") else { return };
        // It may have been finished, or removed, before this had the claim.
        let Some(volume) = self.read().get(id).filter(|volume| volume.is_live() && volume.fenced.is_none())
        else {
            return;
        };
        let done = match &volume.pending {
            Some(Intent::Import { .. }) => self.fill("restore", &volume).map(|(made, _)| made),
            Some(Intent::Restore { stream, point, .. }) => {
                self.during("restore", &volume, (*stream, *point), |work| self.finish_in_place(&volume, work))
            }
            _ => return,
        };
        drop(claim);
        self.histories.going.failed(id, done.is_err());
        match done {
            Ok(whole) => {
                tracing::warn!(volume = %whole.name, "its restore had been interrupted; finished");
                if matches!(volume.pending, Some(Intent::Import { .. })) {
                    self.introduce(&whole);
                }
            }
            Err(error) => {
                tracing::error!(volume = %volume.name, %error, "its restore can't be finished yet; it is tried again");
            }
        }
    }
}
