//! What is being done for each protected volume, and how it goes.

use super::going::Going;
use super::still::Still;
use super::verification::Verdict;
use super::{HistorySettings, Tracking};
use crate::claims::Claim;
use crate::engine::{Engine, lock};
use crate::hold::CutFreeze;
use crate::{Error, Result};
use history::{Bounds, Changes, Cut, Frozen, Live, Opened, Outbox, Parts, Right, Step, Steps, Wake, Writer};
use jiff::Timestamp;
use linux::track::Bitmap;
use model::{DriverSpec, FsKind, Life, Protection, Volume, VolumeId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vault::format::StreamId;
use vault::read::Access;

/// All protected volumes of this daemon.
pub(crate) struct Histories {
    pub(crate) settings: HistorySettings,
    pub(crate) tracking: Arc<Tracking>,
    pub(crate) steps: Steps,
    /// Restores and the like.
    pub(crate) going: Going,
    volumes: Mutex<HashMap<VolumeId, Arc<Protected>>>,
    /// Held by who verifies.
    pub(crate) verifying: Mutex<()>,
}

/// One protected volume.
#[derive(Default)]
pub(crate) struct Protected {
    /// Held by who cuts or restores.
    pub(crate) writer: Mutex<Option<Writer>>,
    pub(crate) outbox: Mutex<Option<Arc<Outbox>>>,
    pub(crate) said: Mutex<Said>,
    /// Whether an upload is under way.
    pub(crate) uploading: AtomicBool,
    pub(crate) cutting: AtomicBool,
    /// Whether nothing is to be done for it any more: it was destroyed, or is not protected now.
    gone: AtomicBool,
    /// The number of events of marks that were looked at and came from thawing alone.
    echo: AtomicU64,
    /// Its marks, as last looked at: to open them costs more than to look.
    marks: Mutex<Option<Bitmap>>,
    /// Without marks: whether the volume has been compared since it was last in use.
    compared_at_rest: AtomicBool,
    upkeep_at: Mutex<Option<Instant>>,
    upkeep_point: AtomicU64,
    described: Mutex<Described>,
    /// Held while its inventory is written.
    pub(crate) keeping: Mutex<()>,
}

/// What the vault has been told of a volume.
#[derive(Default)]
struct Described {
    about: Option<Volume>,
    tried: Option<Instant>,
}

/// What stays true of a volume, whoever uses it and whatever is just being done to it.
fn about(volume: &Volume) -> Volume {
    Volume {
        life: Life::Live,
        pending: None,
        restart: Vec::new(),
        attachments: Vec::new(),
        fenced: None,
        ..volume.clone()
    }
}

/// What can be said of it without waiting.
#[derive(Default, Clone)]
pub(crate) struct Said {
    pub(crate) trouble: Option<String>,
    /// What was last told in the log, and when.
    warned: Option<(String, Instant)>,
    pub(crate) behind_since: Option<Timestamp>,
    pub(crate) last: Option<Cut>,
    /// What the last verification found; outside: whether that was looked up.
    pub(crate) verdict: Option<Option<Verdict>>,
    pub(crate) verify_tried: Option<Instant>,
    pub(crate) looked: Option<Instant>,
}

impl Histories {
    pub(crate) fn new(settings: HistorySettings, tracking: Arc<Tracking>, steps: Steps) -> Self {
        Self {
            settings,
            tracking,
            steps,
            going: Going::default(),
            volumes: Mutex::default(),
            verifying: Mutex::default(),
        }
    }

    pub(crate) fn of(&self, id: VolumeId) -> Arc<Protected> {
        Arc::clone(lock(&self.volumes).entry(id).or_default())
    }

    fn all(&self) -> Vec<Arc<Protected>> {
        lock(&self.volumes).values().cloned().collect()
    }

    pub(crate) fn known(&self, id: VolumeId) -> Option<Arc<Protected>> {
        lock(&self.volumes).get(&id).cloned()
    }

    pub(crate) fn forget(&self, id: VolumeId) {
        if let Some(state) = lock(&self.volumes).remove(&id) {
            state.gone.store(true, Ordering::Release);
            state.close_if_gone();
        }
        self.tracking.unprotect(id);
        self.going.failed(id, false);
    }
}

/// Where a volume is in use on this host.
#[derive(Debug, Clone)]
pub(crate) struct InUse {
    pub(crate) mountpoint: PathBuf,
    pub(crate) device: u64,
}

impl Engine {
    /// Protected volumes that are live and whole.
    pub(crate) fn protected(&self) -> Vec<(Arc<Volume>, Protection)> {
        let wanted = |volume: Arc<Volume>| {
            let usable = volume.fenced.is_none() && volume.restoring().is_none();
            let protection = volume.spec.protection.clone()?;
            usable.then_some((volume, protection))
        };
        self.volumes().into_iter().filter_map(wanted).collect()
    }

    /// The mount of a volume, if there is one.
    pub(crate) fn in_use_at(&self, volume: &Volume) -> Option<InUse> {
        use std::os::unix::fs::MetadataExt;
        self.path_of(volume.id)?;
        let mountpoint = self.settings.mountpoints().join(volume.id.to_string());
        let here = std::fs::metadata(&mountpoint).ok()?.dev();
        let above = std::fs::metadata(self.settings.mountpoints()).ok()?.dev();
        (here != above).then_some(InUse { mountpoint, device: here })
    }

    pub(crate) fn image_file(&self, volume: &Volume) -> Result<PathBuf> {
        let found = self.with_driver(volume, "look at", "", |driver, place| Ok(driver.image_file(place)))?;
        found.ok_or_else(|| {
            Error::Invalid(format!(
                "volume {} has driver {}, which has no history",
                volume.name,
                volume.spec.kind()
            ))
        })
    }

    /// Whether anything can write to the image now: a mount, or a device that a container still has.
    pub(crate) fn is_free(&self, volume: &Volume, image: &Path) -> bool {
        if self.in_use_at(volume).is_some() {
            return false;
        }
        let Ok(file) = std::fs::File::open(image) else { return false };
        matches!(linux::loopdev::find(&file), Ok(None))
    }

    /// A loop device's number goes to someone else when it is gone.
    pub(crate) fn unfollow_if_gone(&self, volume: &Volume, used: Option<InUse>) {
        let Some(used) = used.filter(|_| volume.spec.protection.is_some()) else { return };
        if self.image_file(volume).is_ok_and(|image| self.is_free(volume, &image)) {
            self.histories.tracking.unfollow(used.device);
        }
    }

    /// What is needed to read and write the history of a volume.
    pub(crate) fn access(&self, id: VolumeId, vault: &model::VaultName) -> Result<Access> {
        let vault = self.vaults.open(vault)?;
        Ok(vault.access(vault.stream_of(id)))
    }

    /// The same as far as this host knows it by itself, for when the vault is away.
    fn access_away(&self, id: VolumeId, vault: &model::VaultName) -> Result<Access> {
        let (store, keys, vault) = self.vaults.away(vault)?;
        let stream = StreamId(keys.name(id.as_bytes()));
        Ok(Access { store, keys, vault: vault.0, stream })
    }

    /// Opens the stream of a volume for writing. While the vault is away, cuts go on without it where they can.
    fn open_writer(
        &self,
        state: &Arc<Protected>,
        volume: &Volume,
        protection: &Protection,
        marks: Option<&dyn Changes>,
    ) -> Result<Writer> {
        match self.open_claimed(state, volume, protection, marks) {
            Err(error) if is_away(&error) => {
                let access = self.access_away(volume.id, &protection.vault)?;
                let writer = self.open_writer_by(state, volume, access, Right::Away, marks)?;
                tracing::info!(volume = %volume.name, %error, "its cuts wait in the spool for the vault");
                Ok(writer)
            }
            opened => opened,
        }
    }

    fn open_claimed(
        &self,
        state: &Arc<Protected>,
        volume: &Volume,
        protection: &Protection,
        marks: Option<&dyn Changes>,
    ) -> Result<Writer> {
        let vault = self.vaults.open(&protection.vault)?;
        let epoch = vault.writable()?;
        // Who was replaced would put one more segment each time before it finds out.
        vault.confirm(epoch)?;
        let access = vault.access(vault.stream_of(volume.id));
        let writer = self.open_writer_by(state, volume, access, Right::Epoch(epoch.0), marks)?;
        self.describe_in_vault(state, writer.access(), volume)?;
        Ok(writer)
    }

    fn open_writer_by(
        &self,
        state: &Arc<Protected>,
        volume: &Volume,
        access: Access,
        right: Right,
        marks: Option<&dyn Changes>,
    ) -> Result<Writer> {
        let parts = Parts {
            access,
            right,
            home: self.settings.history(volume.id),
            volatile: self.histories.settings.volatile.join(volume.id.to_string()),
            image: self.image_file(volume)?,
            pool: Arc::clone(&self.histories.tracking.pool),
            spool: self.histories.settings.spool.bytes(),
            portion: history::PORTION,
            wake: wake(state),
            steps: self.histories.steps.clone(),
        };
        let (writer, opened) = Writer::open(parts, marks)?;
        if let Opened::Compare(why) = opened {
            tracing::info!(volume = %volume.name, why, "its next cut finds changes by comparing");
        }
        Ok(writer)
    }

    /// Says what the history is of, so that a host that has only the vault can make the volume again. The vault must be this
    /// host's to write.
    fn describe_in_vault(&self, state: &Protected, access: &Access, volume: &Volume) -> Result<()> {
        let about = about(volume);
        lock(&state.described).tried = Some(Instant::now());
        access.describe(&about, history::salt())?;
        lock(&state.described).about = Some(about);
        Ok(())
    }

    /// Whether it is not true any more: the volume was renamed, grown, labelled, or is kept in another way.
    fn is_description_old(&self, volume: &Volume, state: &Protected) -> bool {
        let every = self.histories.settings.upkeep_every;
        let described = lock(&state.described);
        // What was never described is when its writer is opened.
        described.tried.is_none_or(|at| at.elapsed() >= every)
            && described.about.as_ref().is_some_and(|old| *old != about(volume))
    }

    fn renew_description(&self, state: &Protected, volume: &Volume, protection: &Protection) -> Result<()> {
        let vault = self.vaults.open(&protection.vault)?;
        vault.confirm(vault.writable()?)?;
        self.describe_in_vault(state, &vault.access(vault.stream_of(volume.id)), volume)
    }

    /// What waits for vaults goes where it outlives the daemon.
    pub(crate) fn spill_histories(&self) {
        for state in self.histories.all() {
            let Some(outbox) = lock(&state.outbox).clone() else { continue };
            if let Err(error) = outbox.spill() {
                tracing::warn!(%error, "what waits for a vault is cut anew by the next daemon");
            }
        }
    }

    /// Whether a cut would have anything in it; cheap, and errs towards yes.
    pub(crate) fn is_worth_cutting(&self, volume: &Volume, state: &Protected) -> bool {
        let in_use = self.in_use_at(volume);
        if in_use.is_some() {
            state.compared_at_rest.store(false, Ordering::Relaxed);
        }
        if self.could_return(volume, state) {
            return true;
        }
        let mut kept = lock(&state.marks);
        if kept.as_ref().is_none_or(Bitmap::overflowed) {
            *kept = self.histories.tracking.marks(volume.id);
        }
        let Some(marks) = &*kept else {
            // Nobody can change what is at rest without its being attached.
            return match in_use {
                Some(_) => self.histories.tracking.tracks() || self.compare_is_due(state),
                None => !state.compared_at_rest.load(Ordering::Relaxed),
            };
        };
        if lock(&state.outbox).is_none() || marks.overflowed() {
            return true;
        }
        let events = marks.events();
        if !marks.is_clean() && events != state.echo.load(Ordering::Relaxed) {
            let dirty = marks.dirty();
            tracing::trace!(volume = %volume.name, ?dirty, "changed");
            if !is_echo(volume, &dirty) {
                return true;
            }
            // Looked at once; the same marks need no second look.
            state.echo.store(events, Ordering::Relaxed);
        }
        // Nothing has reached the device. Something may be in memory only; it is written out for the cut.
        let Some(used) = in_use else { return false };
        self.histories.tracking.may_be_dirty(used.device, !is_ext4(volume))
    }

    /// Whether its cuts wait for a vault that is back.
    fn could_return(&self, volume: &Volume, state: &Protected) -> bool {
        let is_away = lock(&state.outbox).as_ref().is_some_and(|outbox| outbox.is_away());
        is_away && volume.spec.protection.as_ref().is_some_and(|p| self.vaults.is_there(&p.vault))
    }

    /// Comparing reads everything, so it is done seldom.
    fn compare_is_due(&self, state: &Protected) -> bool {
        let mut said = lock(&state.said);
        let due = said.looked.is_none_or(|looked| looked.elapsed() >= self.histories.settings.compare_every);
        if due {
            said.looked = Some(Instant::now());
        }
        due
    }

    /// Cuts these volumes at one instant; `None` for those in which nothing has changed.
    pub(crate) fn cut_now(&self, members: &[(Arc<Volume>, Protection)]) -> Result<Vec<Option<Cut>>> {
        let states: Vec<_> = members.iter().map(|(volume, _)| self.histories.of(volume.id)).collect();
        let done = self.cut_members(members, &states);
        for (at, state) in states.iter().enumerate() {
            let mut said = lock(&state.said);
            match &done {
                Ok(cuts) => {
                    said.trouble = None;
                    said.behind_since = None;
                    if let Some(Some(cut)) = cuts.get(at) {
                        said.last = Some(*cut);
                    }
                }
                Err(error) => {
                    said.trouble = Some(error.to_string());
                    said.behind_since.get_or_insert_with(|| self.clock.now());
                }
            }
        }
        done
    }

    fn cut_members(
        &self,
        members: &[(Arc<Volume>, Protection)],
        states: &[Arc<Protected>],
    ) -> Result<Vec<Option<Cut>>> {
        // In the order of their IDs, so that two groups that share volumes can't wait for each other.
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by_key(|at| members[*at].0.id);
        let mut writers: Vec<_> = order.iter().map(|at| (*at, lock(&states[*at].writer))).collect();
        writers.sort_by_key(|(at, _)| *at);
        let mut marks = Vec::new();
        let mut used = Vec::new();
        let mut images = Vec::new();
        for (volume, _) in members {
            let image = self.image_file(volume)?;
            let here = self.in_use_at(volume);
            self.histories.tracking.forget_broken(volume.id);
            if let Some(here) = &here {
                let bytes = std::fs::metadata(&image).map_or(0, |metadata| metadata.len());
                self.histories.tracking.protect(volume.id);
                self.histories.tracking.follow(volume.id, here.device, bytes);
            } else if !self.is_free(volume, &image) {
                return Err(Error::Invalid(format!(
                    "volume {} is in use where it can't be frozen: a process still has its device",
                    volume.name
                )));
            }
            let found = self.histories.tracking.marks(volume.id);
            marks.push(found);
            used.push(here);
            images.push(image);
        }
        for ((at, writer), (volume, protection)) in writers.iter_mut().zip(members) {
            // Also when they went on to another vault, or another epoch.
            let stale = writer.as_ref().is_some_and(|writer| writer.outbox().is_fenced());
            let changes = marks[*at].as_ref().map(|marks| marks as &dyn Changes);
            let opened = match writer.as_ref() {
                Some(away) if !stale && self.could_return(volume, &states[*at]) => {
                    // Where who opens it finds it.
                    away.outbox().spill()?;
                    match self.open_claimed(&states[*at], volume, protection, changes) {
                        // It has gone again.
                        Err(error) if is_away(&error) => None,
                        opened => Some(opened?),
                    }
                }
                Some(_) if !stale => None,
                _ => Some(self.open_writer(&states[*at], volume, protection, changes)?),
            };
            if let Some(opened) = opened {
                *lock(&states[*at].outbox) = Some(Arc::clone(opened.outbox()));
                **writer = Some(opened);
                states[*at].upload_soon();
            }
            states[*at].close_if_gone();
        }
        let frees: Vec<_> = members
            .iter()
            .zip(&images)
            .map(|((volume, _), image)| move || self.is_free(volume, image))
            .collect();
        let stills: Vec<_> = images.iter().map(|image| Still::of(image, &self.histories.tracking)).collect();
        let takes: Vec<_> =
            stills.iter().map(|still| move |deadline: Instant| still.take(deadline)).collect();
        let mut lives = Vec::new();
        for (((at, writer), here), free) in writers.iter_mut().zip(&used).zip(&frees) {
            let Some(writer) = writer.as_mut() else { continue };
            if !writer.outbox().has_room() {
                let bytes = writer.outbox().waiting().bytes;
                return Err(history::Error::SpoolFull { bytes }.into());
            }
            lives.push(Live {
                writer,
                changes: marks[*at].as_ref().map(|marks| marks as &dyn Changes),
                still: &takes[*at],
                mountpoint: here.as_ref().map(|here| here.mountpoint.as_path()),
                is_free: free,
                // At rest nothing is thawed: a cut has all, so that the image is as the cut says.
                echo: here.as_ref().map_or(0..0, |_| echo(&members[*at].0)),
            });
        }
        let freezer = Freezes { engine: self, members };
        let bounds = Bounds { frozen: self.histories.settings.frozen, ..Bounds::default() };
        let cuts = history::cut(&mut lives, &freezer, &|| self.clock.now(), &bounds)?;
        for (state, here) in states.iter().zip(&used) {
            state.compared_at_rest.store(here.is_none(), Ordering::Relaxed);
        }
        Ok(cuts)
    }

    /// Puts what waits into the vault.
    pub(crate) fn upload(&self, state: &Protected) -> Result<()> {
        let outbox = lock(&state.outbox).clone();
        match outbox {
            Some(outbox) => Ok(outbox.upload()?),
            None => Ok(()),
        }
    }

    /// Whether it is time for the upkeep of a history; cheap.
    pub(crate) fn is_upkeep_due(&self, volume: &Volume) -> bool {
        let state = self.histories.of(volume.id);
        let is_away = || lock(&state.outbox).as_ref().is_none_or(|outbox| outbox.is_away());
        self.durable_if_due(&state).is_some() || (self.is_description_old(volume, &state) && !is_away())
    }

    /// The newest durable point, if it is time for upkeep: now and then, and seldom where nothing new has come.
    fn durable_if_due(&self, state: &Protected) -> Option<u64> {
        let every = self.histories.settings.upkeep_every;
        let waited = lock(&state.upkeep_at).map(|at| at.elapsed());
        if waited.is_some_and(|waited| waited < every) {
            return None;
        }
        let outbox = lock(&state.outbox).clone().filter(|outbox| !outbox.is_away())?;
        let durable = outbox.durable();
        let is_idle = state.upkeep_point.load(Ordering::Relaxed) == durable
            && waited.is_some_and(|waited| waited < 20 * every);
        (!is_idle).then_some(durable)
    }

    /// Merges, condemns and deletes in the history of a volume, if it is time for that.
    pub(crate) fn upkeep(&self, volume: &Volume, protection: &Protection) -> Result<()> {
        let state = self.histories.of(volume.id);
        if self.is_description_old(volume, &state) {
            self.renew_description(&state, volume, protection)?;
        }
        let Some(durable) = self.durable_if_due(&state) else { return Ok(()) };
        *lock(&state.upkeep_at) = Some(Instant::now());
        let vault = self.vaults.open(&protection.vault)?;
        let access = vault.access(vault.stream_of(volume.id));
        let epoch = vault.writable()?;
        let done = history::upkeep(
            &access,
            epoch.0,
            &history::Terms {
                keep: &protection.keep,
                needed: &self.being_restored(volume.id),
                rules: &vault::plan::Rules::of_minutes(self.histories.settings.minute.as_millis() as u64),
                grace: self.histories.settings.grace,
                keeping: &state.keeping,
            },
            self.clock.now(),
            &self.histories.steps,
        )?;
        vault.keep_inventory(epoch, Some(access.stream))?;
        state.upkeep_point.store(durable, Ordering::Relaxed);
        tracing::debug!(volume = %volume.name, ?done, "upkeep");
        Ok(())
    }
}

/// Begins an upload if none is under way. Not by the volume's identity: that may be forgotten, and known anew as another.
fn wake(state: &Arc<Protected>) -> Wake {
    let state = Arc::downgrade(state);
    Wake::new(move || {
        if let Some(state) = state.upgrade() {
            state.upload_soon();
        }
    })
}

/// Whether this is all that is wrong: the vault can't be reached.
fn is_away(error: &Error) -> bool {
    use vault::StoreError;
    use vault::read::ReadError;
    match error {
        Error::Vault(error) => error.is_away(),
        Error::History(history::Error::Vault(ReadError::Store(error))) => {
            matches!(error, StoreError::Failed { .. } | StoreError::Refused { .. })
        }
        _ => false,
    }
}

/// Whether these marks are what thawing itself leaves: ext4 writes its superblock then, to say that it is in use again. Whatever
/// else changes in an ext4 changes other blocks too, if only those of the journal.
fn is_echo(volume: &Volume, dirty: &[std::ops::Range<u64>]) -> bool {
    let echo = echo(volume);
    dirty.iter().all(|range| echo.start <= range.start && range.end <= echo.end)
}

fn echo(volume: &Volume) -> std::ops::Range<u64> {
    if is_ext4(volume) { 0..1 } else { 0..0 }
}

fn is_ext4(volume: &Volume) -> bool {
    matches!(&volume.spec.driver, DriverSpec::Image(image) if image.fs == FsKind::Ext4)
}

/// Freezes for a cut: with the guard, and with no verb at work on the volume.
struct Freezes<'a> {
    engine: &'a Engine,
    members: &'a [(Arc<Volume>, Protection)],
}

/// In this order: thawed first, then free for other verbs.
struct Claimed<'a> {
    freeze: CutFreeze<'a>,
    _claim: Claim<'a>,
}

impl Frozen for Claimed<'_> {
    fn since(&self) -> Instant {
        self.freeze.since()
    }

    fn thaw(&mut self) {
        self.freeze.thaw();
    }
}

impl history::Freezer for Freezes<'_> {
    fn freeze<'a>(&'a self, mountpoint: &Path) -> std::result::Result<Box<dyn Frozen + 'a>, String> {
        let member = self.members.iter().map(|(volume, _)| volume).find(|volume| {
            mountpoint.file_name().and_then(|name| name.to_str()) == Some(&volume.id.to_string())
        });
        let volume = member.ok_or("it is not of this cut")?;
        let claim = self
            .engine
            .claims
            .try_take(&volume.name, "cut")
            .ok_or_else(|| format!("another verb is at work on volume {}", volume.name))?;
        let freeze = self.engine.holds.freeze_for_cut(volume.id, mountpoint)?;
        Ok(Box::new(Claimed { freeze, _claim: claim }))
    }
}

/// The steps of a history, as fault points.
pub(crate) fn steps(faults: crate::Faults) -> Steps {
    Steps::new(move |step: Step| faults.at(crate::Fault::History(step)))
}

/// What keeps a volume from being cut is told again after this.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How long an upload that failed waits before it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Protected {
    /// Whoever uploads finds nothing more to do then, and whoever cuts it just now should not wait for him.
    fn close_if_gone(&self) {
        if self.gone.load(Ordering::Acquire)
            && let Some(outbox) = lock(&self.outbox).take()
        {
            outbox.close();
        }
    }

    /// Whether the log should have it that there was no cut: once, and then from time to time.
    pub(crate) fn is_news(&self, why: &str) -> bool {
        let mut said = lock(&self.said);
        let known = said.warned.as_ref().is_some_and(|(last, at)| last == why && at.elapsed() < SAY_AGAIN);
        if !known {
            said.warned = Some((why.to_owned(), Instant::now()));
        }
        !known
    }

    /// Whether its last cut failed.
    pub(crate) fn is_in_trouble(&self) -> bool {
        lock(&self.said).trouble.is_some()
    }

    fn waits(&self) -> bool {
        lock(&self.outbox).as_ref().is_some_and(|outbox| !outbox.is_idle())
    }

    /// Begins an upload if anything waits and none is under way: on a thread of its own, so that a vault that hangs holds up
    /// neither cuts nor what goes to other vaults.
    pub(crate) fn upload_soon(self: &Arc<Self>) {
        if !self.waits() || self.uploading.swap(true, Ordering::AcqRel) {
            return;
        }
        let state = Arc::clone(self);
        let started = std::thread::Builder::new().name("upload".to_owned()).spawn(move || state.upload_all());
        if let Err(error) = started {
            tracing::error!(%error, "no thread to upload with");
            self.uploading.store(false, Ordering::Release);
        }
    }

    fn upload_all(&self) {
        linux::host::be_nice();
        let mut said = None;
        loop {
            let outbox = lock(&self.outbox).clone();
            if let Some(Err(error)) = outbox.map(|outbox| outbox.upload()) {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!(%error, "what was cut waits for the vault");
                    said = Some(text);
                }
                std::thread::sleep(TRY_AGAIN);
            }
            self.uploading.store(false, Ordering::Release);
            // What came in between has asked in vain.
            if !self.waits() || self.uploading.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}
