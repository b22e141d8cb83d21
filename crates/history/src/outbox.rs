//! What was cut and is not in the vault yet: in memory, and in the spool when the vault is slow or absent.

use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::noted::{Noted, Standing};
use crate::step::{Step, Steps};
use crate::writer::{Right, random_u32, salt};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vault::Listing;
use vault::claim::{self, Epoch};
use vault::format::{BuiltPart, Kind, PartName};
use vault::read::Access;
use vault::store::{DirOptions, DirStore};

/// What waits in memory at most, before it goes to the spool.
const IN_MEMORY: u64 = 32 << 20;
/// How long a first copy waits for a vault that is slow before it says so.
const PATIENCE: Duration = Duration::from_secs(600);
/// And how long for one that fails: others want the thread.
const HOPE: Duration = Duration::from_secs(10);

/// What waits for the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, the bytes in the spool.
    pub spooled: u64,
}

/// Where the daemon keeps what is on its way.
pub(crate) struct Places<'a> {
    /// What outlives the host.
    pub(crate) home: &'a Path,
    /// What outlives the daemon.
    pub(crate) volatile: &'a Path,
}

/// Called when something waits for the vault. It must not wait itself.
#[derive(Clone)]
pub struct Wake(Arc<dyn Fn() + Send + Sync>);

impl Wake {
    /// Calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }
}

impl Default for Wake {
    fn default() -> Self {
        Self::new(|| {})
    }
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<BuiltPart>,
    queued: u64,
    /// The newest point in the queue, the spool or the vault, and its time.
    newest: (u64, u64),
    newest_kind: Option<Kind>,
    /// What is in the vault.
    durable: Standing,
    spooled: u64,
    spooled_segments: u64,
    era_begun: bool,
    fenced: bool,
    /// Nobody wants what is in here any more.
    closed: bool,
    trouble: Option<String>,
    /// Since when nothing could be put.
    troubled: Option<Instant>,
    lost: bool,
}

impl Inner {
    fn is_hopeless(&self) -> bool {
        self.troubled.is_some_and(|since| since.elapsed() > HOPE)
    }
}

/// What was cut and is not in the vault yet.
pub struct Outbox {
    access: Access,
    spool: Access,
    right: Right,
    /// Of what is made now.
    epoch: u32,
    /// The newest point that was in the vault when this was opened.
    floor: u64,
    home: PathBuf,
    volatile: PathBuf,
    limit: u64,
    wake: Wake,
    inner: Mutex<Inner>,
    freed: Condvar,
    /// Held by who uploads, so that segments go in order.
    uploading: Mutex<()>,
    steps: Steps,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    pub(crate) fn open(
        access: Access,
        right: Right,
        places: &Places<'_>,
        limit: u64,
        standing: &Standing,
        wake: Wake,
        steps: Steps,
    ) -> Result<Self> {
        let dir = places.home.join("spool");
        let store = DirStore::open(&dir, DirOptions { create: true, ..DirOptions::default() })?;
        let spool = Access { store: Arc::new(store), ..access.clone() };
        let noted = Noted::read(places.home, access.vault);
        let epoch = match right {
            Right::Epoch(epoch) => epoch,
            // It gets the epoch of whoever puts it.
            Right::Away => noted.map_or(0, |noted| noted.epoch),
        };
        let Standing { newest, .. } = *standing;
        let mut inner =
            Inner { newest, newest_kind: standing.kind(), durable: *standing, ..Inner::default() };
        let outbox = Self {
            access,
            spool,
            right,
            epoch,
            floor: newest.0,
            home: places.home.to_owned(),
            volatile: places.volatile.to_owned(),
            limit,
            wake,
            inner: Mutex::default(),
            freed: Condvar::new(),
            uploading: Mutex::default(),
            steps,
        };
        let objects = outbox.spool.store.list("h/")?;
        let spooled = Listing::read(&objects);
        // What waits must go on from where the vault is, and must not be of a time that another writer has ended.
        let is_ours = |epoch: u32| epoch.max(noted.map_or(0, |noted| noted.epoch)) >= standing.epoch;
        let mut at = newest.0;
        let mut fits = true;
        for segment in &spooled.segments {
            if segment.to <= at {
                continue;
            }
            fits &= segment.from <= at && is_ours(segment.epoch);
            at = segment.to;
            inner.newest = (segment.to, segment.time);
            inner.newest_kind = Some(segment.kind);
            inner.spooled += segment.size();
            inner.spooled_segments += 1;
        }
        if !fits && right == Right::Away {
            let url = outbox.access.store.url().to_owned();
            return Err(Error::NeedsVault { url, why: "what waits for it does not go on from what it has" });
        }
        if !fits {
            (inner.newest, inner.newest_kind) = (newest, standing.kind());
            (inner.spooled, inner.spooled_segments) = (0, 0);
        }
        let useless = |name: &PartName| !fits || name.to <= newest.0;
        // What the vault has is not known for certain while it is away.
        let strays = if right == Right::Away { &[][..] } else { &objects[..] };
        for object in strays {
            let stray = object
                .name
                .parse::<PartName>()
                .map_or(true, |name| useless(&name) || spooled.strays.contains(&name));
            if stray {
                outbox.spool.store.delete(&object.name)?;
            }
        }
        // Marks were cleared for what the vault said it had.
        inner.lost = !fits || noted.is_some_and(|noted| noted.standing.newest.0 > inner.newest.0);
        *lock(&outbox.inner) = inner;
        Ok(outbox)
    }

    /// Whether it was opened without the vault: nothing can be put until it is opened anew.
    pub fn is_away(&self) -> bool {
        self.right == Right::Away
    }

    /// The epoch of what is made now.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number that the next point has at least. While the vault is away, it may have one point more than was noted: one that was put
    /// when the daemon died. Its number is left out, so that no two points have the same.
    pub(crate) fn next(&self) -> u64 {
        let inner = lock(&self.inner);
        let is_unsure = self.is_away() && inner.newest.0 == self.floor;
        inner.newest.0 + if is_unsure { 2 } else { 1 }
    }

    pub(crate) fn has_lost(&self) -> bool {
        lock(&self.inner).lost
    }

    /// The newest point, wherever it is, and its time in milliseconds.
    pub fn newest(&self) -> (u64, u64) {
        lock(&self.inner).newest
    }

    /// What the newest point was when this was opened.
    pub(crate) fn newest_kind(&self) -> Option<Kind> {
        lock(&self.inner).newest_kind
    }

    /// The newest cut that is durable in the vault, and its time in milliseconds.
    pub fn durable_cut(&self) -> Option<(u64, u64)> {
        lock(&self.inner).durable.cut
    }

    /// The newest point that is durable in the vault.
    pub fn durable(&self) -> u64 {
        lock(&self.inner).durable.newest.0
    }

    /// What waits.
    pub fn waiting(&self) -> Waiting {
        let inner = lock(&self.inner);
        let queued = inner.queue.iter().filter(|part| part.name.last).count() as u64;
        Waiting {
            segments: queued + inner.spooled_segments,
            bytes: inner.queued + inner.spooled,
            spooled: inner.spooled,
        }
    }

    /// What keeps it from being put, if anything does.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.inner).trouble.clone()
    }

    /// Whether another cut can be taken in.
    pub fn has_room(&self) -> bool {
        let inner = lock(&self.inner);
        !inner.fenced && inner.queued + inner.spooled < self.limit
    }

    /// Takes a segment in. One that can wait (a step of a first copy) waits for the vault rather than filling the spool.
    pub(crate) fn push(&self, parts: Vec<BuiltPart>, can_wait: bool) -> Result<()> {
        let pushed = self.take_in(parts, can_wait);
        (self.wake.0)();
        pushed
    }

    fn take_in(&self, parts: Vec<BuiltPart>, can_wait: bool) -> Result<()> {
        let bytes: u64 = parts.iter().map(|part| part.body.len() as u64).sum();
        let Some(name) = parts.last().map(|part| part.name) else { return Ok(()) };
        let mut inner = lock(&self.inner);
        let begun = Instant::now();
        // One that is larger than that alone would wait for ever.
        while can_wait && inner.queued > 0 && inner.queued + bytes > 2 * IN_MEMORY {
            if inner.fenced || inner.closed {
                break;
            }
            if inner.is_hopeless() || begun.elapsed() > PATIENCE {
                return Err(Error::SpoolFull { bytes: inner.queued });
            }
            inner = self.freed.wait_timeout(inner, HOPE).unwrap_or_else(PoisonError::into_inner).0;
        }
        if inner.closed {
            return Err(Error::Stopped);
        }
        if inner.fenced {
            return Err(Error::Fenced { epoch: self.epoch });
        }
        let in_memory = inner.trouble.is_none() && inner.spooled_segments == 0;
        // One alone may be larger: it is in memory as it is.
        let most = if inner.queued == 0 { 2 * IN_MEMORY } else { IN_MEMORY };
        if can_wait || (in_memory && inner.queued + bytes <= most.min(self.limit)) {
            inner.queued += bytes;
            inner.queue.extend(parts);
            inner.newest = (name.to, name.time);
            return Ok(());
        }
        if inner.queued + inner.spooled + bytes > self.limit {
            drop(inner);
            // Only there can what is in memory be merged.
            self.spill()?;
            self.merge_spool()?;
            inner = lock(&self.inner);
            if inner.queued + inner.spooled + bytes > self.limit {
                return Err(Error::SpoolFull { bytes: inner.queued + inner.spooled });
            }
        }
        drop(inner);
        // What is older goes first, so that what is found there by the next daemon has no gap.
        self.spill()?;
        self.put_aside(&parts)?;
        lock(&self.inner).newest = (name.to, name.time);
        Ok(())
    }

    /// Nothing is taken in any more, and who waits for room waits no longer.
    pub fn close(&self) {
        lock(&self.inner).closed = true;
        self.freed.notify_all();
    }

    /// Moves what is in memory to the spool, where it outlives the daemon.
    ///
    /// # Errors
    /// When it can't be written. It is still in memory then.
    pub fn spill(&self) -> Result<()> {
        // Not a segment of which some parts are in the vault already.
        let begun = |part: &&BuiltPart| part.name.part != 0;
        let parts: Vec<_> = lock(&self.inner).queue.iter().skip_while(begun).cloned().collect();
        for segment in parts.chunk_by(|_, next| next.name.part != 0) {
            self.put_aside(segment)?;
            let mut inner = lock(&self.inner);
            // An upload may be ahead of us.
            inner.queue.retain(|part| segment.iter().all(|moved| moved.name != part.name));
            inner.queued = inner.queue.iter().map(|part| part.body.len() as u64).sum();
        }
        Ok(())
    }

    /// Puts a segment into the spool.
    fn put_aside(&self, parts: &[BuiltPart]) -> Result<()> {
        let Some(name) = parts.last().map(|part| part.name) else { return Ok(()) };
        self.spool.put(parts)?;
        let mut inner = lock(&self.inner);
        inner.spooled += parts.iter().map(|part| part.body.len() as u64).sum::<u64>();
        inner.spooled_segments += 1;
        drop(inner);
        self.forget_taken(&name);
        Ok(())
    }

    /// Makes one segment of all that is in the spool: the history gets coarser, and nothing is lost.
    fn merge_spool(&self) -> Result<()> {
        let Ok(_alone) = self.uploading.try_lock() else { return Ok(()) };
        let listing = Listing::read(&self.spool.store.list("h/")?);
        let chain: Vec<_> = listing.segments.iter().collect();
        if chain.len() < 2 {
            return Ok(());
        }
        let merged = self.spool.merge(&chain, random_u32(), &mut salt)?;
        for segment in chain {
            for name in segment.part_names(self.spool.stream) {
                self.spool.store.delete(&name.to_string())?;
            }
        }
        let mut inner = lock(&self.inner);
        (inner.spooled, inner.spooled_segments) = (merged.size(), 1);
        tracing::warn!(stream = %self.access.stream, cuts = listing.segments.len(), "the spool is full; its cuts were merged into one");
        Ok(())
    }

    /// Whether another writer has taken the vault over.
    pub fn is_fenced(&self) -> bool {
        lock(&self.inner).fenced
    }

    /// Whether anything waits.
    pub fn is_idle(&self) -> bool {
        let inner = lock(&self.inner);
        inner.fenced || (inner.queue.is_empty() && inner.spooled_segments == 0)
    }

    /// Puts what waits into the vault, in order; returns when nothing waits or something fails.
    ///
    /// # Errors
    /// What failed. It still waits then.
    pub fn upload(&self) -> Result<()> {
        let _alone = lock(&self.uploading);
        let done = self.upload_all();
        let mut inner = lock(&self.inner);
        inner.trouble = done.as_ref().err().map(ToString::to_string);
        let began = inner.troubled.filter(|_| done.is_err());
        inner.troubled = done.is_err().then(|| began.unwrap_or_else(Instant::now));
        if matches!(done, Err(Error::Fenced { .. })) {
            inner.fenced = true;
        }
        drop(inner);
        self.freed.notify_all();
        done
    }

    fn upload_all(&self) -> Result<()> {
        loop {
            let next = {
                let inner = lock(&self.inner);
                if inner.fenced {
                    return Err(Error::Fenced { epoch: self.epoch });
                }
                inner.queue.front().cloned()
            };
            if let Some(part) = next {
                self.put(&part)?;
                let mut inner = lock(&self.inner);
                // Unless it has gone to the spool meanwhile, and is put again from there, which does nothing.
                if inner.queue.front().is_some_and(|front| front.name == part.name) {
                    inner.queue.pop_front();
                    inner.queued -= part.body.len() as u64;
                }
                drop(inner);
                self.freed.notify_all();
                if part.name.last {
                    self.now_durable(&part.name);
                }
            } else if !self.upload_spooled()? {
                return Ok(());
            }
        }
    }

    fn upload_spooled(&self) -> Result<bool> {
        if lock(&self.inner).spooled_segments == 0 {
            return Ok(false);
        }
        let listing = Listing::read(&self.spool.store.list("h/")?);
        let Some(segment) = listing.segments.first() else {
            let mut inner = lock(&self.inner);
            (inner.spooled, inner.spooled_segments) = (0, 0);
            return Ok(false);
        };
        // All that is put is of one epoch: what others may still put of an older one has no place after the era.
        if segment.epoch == self.epoch {
            for name in segment.part_names(self.access.stream) {
                let body = self.spool.store.read(&name.to_string(), None)?;
                self.put(&BuiltPart { name, body })?;
            }
        } else {
            self.spool.reissue(segment, self.epoch, &mut salt, &mut |part| self.put(&part))?;
        }
        // Noted first: what is neither there nor known to be in the vault would be missed.
        if let Some(name) = segment.part_names(self.access.stream).last() {
            self.now_durable(&name);
        }
        for name in segment.part_names(self.access.stream) {
            self.spool.store.delete(&name.to_string())?;
        }
        let mut inner = lock(&self.inner);
        inner.spooled = inner.spooled.saturating_sub(segment.size());
        inner.spooled_segments = inner.spooled_segments.saturating_sub(1);
        Ok(true)
    }

    fn put(&self, part: &BuiltPart) -> Result<()> {
        if !lock(&self.inner).era_begun {
            // So that the next daemon knows what it finds of this epoch to be ours.
            let standing = lock(&self.inner).durable;
            Noted { vault: self.access.vault, epoch: self.epoch, standing }.write(&self.home)?;
            self.access.begin_era(self.epoch, part.name.from.max(self.floor))?;
            lock(&self.inner).era_begun = true;
        }
        self.access.put(std::slice::from_ref(part))?;
        if part.name.last {
            self.steps.at(Step::UploadPut);
            // Only now: a claim that came before would have seen nothing of it.
            if !claim::still_mine(&*self.access.store, Epoch(self.epoch))? {
                return Err(Error::Fenced { epoch: self.epoch });
            }
        }
        Ok(())
    }

    fn now_durable(&self, name: &PartName) {
        self.steps.at(Step::UploadDurable);
        let mut standing = lock(&self.inner).durable;
        if name.to > standing.newest.0 {
            let newest = (name.to, name.time);
            let is_cut = name.kind == Kind::Cut;
            let cut = if is_cut { Some(newest) } else { standing.cut };
            standing = Standing { newest, is_cut, cut, epoch: self.epoch };
            let noted = Noted { vault: self.access.vault, epoch: self.epoch, standing };
            if let Err(error) = noted.write(&self.home) {
                tracing::warn!(%error, "could not note what is durable");
            }
        }
        self.forget_taken(name);
        lock(&self.inner).durable = standing;
    }

    fn forget_taken(&self, name: &PartName) {
        for point in name.from + 1..=name.to {
            Journal::forget(&self.volatile, point);
        }
    }
}
