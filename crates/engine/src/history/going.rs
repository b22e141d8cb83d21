//! Work on volumes that takes as long as their data is large: what goes on, and how far it is.

use crate::engine::{Engine, lock};
use crate::{Error, Result};
use jiff::Timestamp;
use model::{Intent, Size, Volume, VolumeId, VolumeName};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The one verb that reads the history of a volume and leaves the volume as it is.
pub(crate) const VERIFY: &str = "verify";
/// So many that have ended are remembered, for who asks a moment too late.
const REMEMBERED: usize = 16;
/// What failed is tried again after this, then after twice as long, and so on.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(60);

/// One piece of long work, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `restore`, `clone` or `verify`.
    pub verb: &'static str,
    /// The volume that is worked on.
    pub name: VolumeName,
    /// Its identity.
    pub id: VolumeId,
    /// The cut that is restored.
    pub point: u64,
    /// Since when; of what waits to be tried again: since when it is known to.
    pub since: Timestamp,
    /// The end of what is done, in bytes of the volume; only grows.
    pub done: u64,
    /// What `done` will be at the end. 0: not known yet.
    pub total: u64,
    /// What `done` was at the beginning: the work of a run that was interrupted.
    pub resumed: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes of blocks read from the vault.
    pub fetched: u64,
    /// How long it has taken so far.
    pub took: Duration,
    /// When it ended, if it did.
    pub ended: Option<Timestamp>,
    /// Why it failed, or can't go on for now.
    pub trouble: Option<String>,
}

/// One piece of work.
#[derive(Debug)]
pub(crate) struct Work {
    verb: &'static str,
    name: VolumeName,
    volume: VolumeId,
    stream: VolumeId,
    point: u64,
    since: Timestamp,
    begun: Instant,
    pub(crate) progress: history::restore::Progress,
    /// Whether blocks are shared with the volume that the cut is of, rather than read from the vault.
    pub(crate) shared: AtomicBool,
    end: OnceLock<End>,
}

#[derive(Debug)]
struct End {
    at: Timestamp,
    took: Duration,
    failed: Option<String>,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Going {
    works: Mutex<VecDeque<Arc<Work>>>,
    ended: Condvar,
    again: Mutex<HashMap<VolumeId, (Instant, Duration)>>,
}

impl Work {
    fn view(&self) -> Progress {
        let number = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
        let end = self.end.get();
        Progress {
            verb: self.verb,
            name: self.name.clone(),
            id: self.volume,
            point: self.point,
            since: self.since,
            done: number(&self.progress.position),
            total: number(&self.progress.total),
            resumed: number(&self.progress.resumed),
            written: number(&self.progress.written),
            fetched: number(&self.progress.fetched),
            took: end.map_or_else(|| self.begun.elapsed(), |end| end.took),
            ended: end.map(|end| end.at),
            trouble: end.and_then(|end| end.failed.clone()),
        }
    }

    /// In words, for who wanted to use the volume.
    fn how_far(&self) -> String {
        let view = self.view();
        let size = Size::from_bytes;
        let far = match view.total {
            0 => "it has just begun".to_owned(),
            total => {
                let percent = u128::from(view.done) * 100 / u128::from(total);
                format!("{percent} % is done, as far as {} of {}", size(view.done), size(total))
            }
        };
        view.trouble.map_or(far.clone(), |why| format!("{far}, and it is tried again: {why}"))
    }
}

impl Going {
    fn begin(&self, work: Work) -> Arc<Work> {
        let work = Arc::new(work);
        let mut works = lock(&self.works);
        // Of one volume the last one says all.
        works.retain(|old| old.end.get().is_none() || old.volume != work.volume);
        let ended = works.iter().filter(|old| old.end.get().is_some()).count();
        if ended > REMEMBERED
            && let Some(at) = works.iter().position(|old| old.end.get().is_some())
        {
            works.remove(at);
        }
        works.push_back(Arc::clone(&work));
        work
    }

    fn end(&self, work: &Work, at: Timestamp, failed: Option<String>) {
        let works = lock(&self.works);
        // The first one to say so is right.
        work.end.get_or_init(|| End { at, took: work.begun.elapsed(), failed });
        drop(works);
        self.ended.notify_all();
    }

    pub(super) fn last(&self, volume: VolumeId) -> Option<Arc<Work>> {
        lock(&self.works).iter().rev().find(|work| work.volume == volume).cloned()
    }

    /// What is at work on this volume now.
    pub(crate) fn at_work(&self, volume: VolumeId) -> Option<Arc<Work>> {
        self.last(volume).filter(|work| work.end.get().is_none())
    }

    /// Waits until this has ended.
    pub(crate) fn wait(&self, work: &Work) {
        let mut works = lock(&self.works);
        while work.end.get().is_none() {
            works = self.ended.wait(works).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether what failed on this volume may be tried again.
    pub(crate) fn is_due(&self, volume: VolumeId) -> bool {
        lock(&self.again).get(&volume).is_none_or(|(due, _)| *due <= Instant::now())
    }

    /// It failed again; or, with `false`, it will not have to be tried again.
    pub(crate) fn failed(&self, volume: VolumeId, failed: bool) {
        let mut again = lock(&self.again);
        if failed {
            let wait = again.get(&volume).map_or(SOON, |(_, wait)| (*wait * 2).min(LATER));
            again.insert(volume, (Instant::now() + wait, wait));
        } else {
            again.remove(&volume);
        }
    }
}

/// Ends the work also when it panics.
struct Ending<'a> {
    engine: &'a Engine,
    work: Arc<Work>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let why = Some("it ended in a way that is a mistake in Everhold".to_owned());
        self.engine.histories.going.end(&self.work, self.engine.clock.now(), why);
    }
}

impl Engine {
    /// Does `work` on a volume, which brings the point of a stream somewhere, and says how far it is.
    pub(crate) fn during<T>(
        &self,
        verb: &'static str,
        volume: &Volume,
        (stream, point): (VolumeId, u64),
        work: impl FnOnce(&Work) -> Result<T>,
    ) -> Result<T> {
        let going = &self.histories.going;
        let begun = going.begin(Work {
            verb,
            name: volume.name.clone(),
            volume: volume.id,
            stream,
            point,
            since: self.clock.now(),
            begun: Instant::now(),
            progress: history::restore::Progress::default(),
            shared: AtomicBool::default(),
            end: OnceLock::new(),
        });
        let ending = Ending { engine: self, work: Arc::clone(&begun) };
        let done = work(&begun);
        going.end(&begun, self.clock.now(), done.as_ref().err().map(ToString::to_string));
        drop(ending);
        done
    }

    /// The long work that goes on, waits to be tried again, or has ended a while ago; oldest first.
    pub fn progress(&self) -> Vec<Progress> {
        let mut all: Vec<_> = lock(&self.histories.going.works).iter().map(|work| work.view()).collect();
        for volume in self.volumes() {
            let Some((_, _, point)) = volume.restoring() else { continue };
            match all.iter_mut().find(|one| one.id == volume.id && one.verb != VERIFY) {
                // It has not ended for good.
                Some(known) => known.ended = None,
                None => all.push(Progress {
                    verb: "restore",
                    name: volume.name.clone(),
                    id: volume.id,
                    point,
                    since: self.clock.now(),
                    done: 0,
                    total: 0,
                    resumed: 0,
                    written: 0,
                    fetched: 0,
                    took: Duration::ZERO,
                    ended: None,
                    trouble: Some("it was interrupted, and goes on soon".to_owned()),
                }),
            }
        }
        all
    }

    /// Nobody may use what is half there.
    pub(crate) fn refuse_half_restored(&self, volume: &Volume) -> Result<()> {
        let Some((_, _, point)) = volume.restoring() else { return Ok(()) };
        let how_far = self
            .histories
            .going
            .last(volume.id)
            .filter(|work| work.verb != VERIFY)
            .map_or_else(|| "it was interrupted, and goes on soon".to_owned(), |work| work.how_far());
        Err(Error::Restoring { name: volume.name.clone(), point, how_far })
    }

    /// The points of a stream that someone restores, which therefore must stay.
    pub(crate) fn being_restored(&self, stream: VolumeId) -> Vec<u64> {
        let works = lock(&self.histories.going.works);
        let working = works.iter().filter(|work| work.end.get().is_none() && work.stream == stream);
        let mut points: Vec<u64> = working.map(|work| work.point).collect();
        drop(works);
        // What was interrupted too, also in the trash: it can be brought back.
        let table = self.read();
        let pending = table.all().filter_map(|volume| volume.restoring());
        points.extend(pending.filter(|(_, of, _)| *of == stream).map(|(_, _, point)| point));
        points
    }

    /// Ends the filling of a new volume soon, if one goes on.
    pub(crate) fn stop_import(&self, name: &VolumeName) {
        let half =
            self.volume(name).ok().filter(|volume| matches!(volume.pending, Some(Intent::Import { .. })));
        if let Some(work) = half.and_then(|volume| self.histories.going.at_work(volume.id)) {
            work.progress.stop.store(true, Ordering::Relaxed);
        }
    }
}
