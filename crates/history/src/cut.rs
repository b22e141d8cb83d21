//! One cut of one volume, or of several at the same instant.

use crate::changes::{Changes, count};
use crate::error::{Error, Result};
use crate::step::Step;
use crate::writer::Writer;
use jiff::Timestamp;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vault::format::Kind;

/// Who freezes file systems, and sees to it that they are thawed whatever happens.
pub trait Freezer {
    /// Freezes what is mounted there, until the answer is dropped.
    ///
    /// # Errors
    /// In words.
    fn freeze<'a>(&'a self, mountpoint: &Path) -> std::result::Result<Box<dyn Frozen + 'a>, String>;
}

/// Something that is frozen until it is thawed; dropping it thaws it too.
pub trait Frozen {
    /// When writers began to wait.
    fn since(&self) -> Instant;
    /// Lets writers go on. What else is to be cleaned up is for the drop.
    fn thaw(&mut self);
}

/// What a cut may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long writers may be made to wait for the copy.
    pub frozen: Duration,
    /// How often it is tried.
    pub attempts: u32,
    /// A sync that takes no longer is short.
    pub short_sync: Duration,
    /// So many blocks may be left for the freeze at first.
    pub rest: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            frozen: Duration::from_millis(250),
            attempts: 3,
            short_sync: Duration::from_millis(15),
            rest: 128,
        }
    }
}

/// One volume of a cut.
pub struct Live<'a> {
    /// Its stream.
    pub writer: &'a mut Writer,
    /// Its marks. `None`: everything is compared.
    pub changes: Option<&'a dyn Changes>,
    /// Makes a copy of the image while it is frozen, in this time at most, and says where: without marks, what is in use is
    /// compared there.
    pub still: &'a dyn Fn(Instant) -> Result<PathBuf>,
    /// Where it is mounted. `None`: it is not in use, and `is_free` says whether that is still so.
    pub mountpoint: Option<&'a Path>,
    /// Whether nobody has begun to use the volume.
    pub is_free: &'a dyn Fn() -> bool,
    /// Blocks that thawing writes: alone they are not worth a cut.
    pub echo: std::ops::Range<u64>,
}

/// What a cut was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Its number in its stream.
    pub point: u64,
    /// When it was, in milliseconds since 1970.
    pub time: u64,
    /// Blocks copied before the freeze, and in it.
    pub blocks: (u64, u64),
    /// The bytes of its segment.
    pub bytes: u64,
    /// How long writers waited, the freezing itself included.
    pub frozen: Duration,
    /// How long all of it took, until its segment was in the outbox.
    pub took: Duration,
}

/// The most that is copied in a freeze, so that memory is bounded too.
const MOST_REST: u64 = 16_384;
/// How often marks are taken before a freeze.
const ROUNDS: u32 = 5;

/// Cuts all of them at one instant. `None` for those in which nothing has changed.
///
/// # Errors
/// The first that failed. What was taken is kept for the next cut, and nothing stays frozen.
pub fn cut(
    lives: &mut [Live<'_>],
    freezer: &dyn Freezer,
    now: &dyn Fn() -> Timestamp,
    bounds: &Bounds,
) -> Result<Vec<Option<Cut>>> {
    let begun = Instant::now();
    for live in lives.iter_mut() {
        if live.changes.is_some_and(|changes| changes.token() == 0) {
            live.writer.distrust("its marks are new, or it was changed in a way that they do not show");
        }
        // What changes while it is compared is of no one moment, unless that is marked.
        if live.writer.compares().is_some() && (live.changes.is_some() || live.mountpoint.is_none()) {
            live.writer.compare(live.changes, None)?;
        }
    }
    let mut last = None;
    for attempt in 0..bounds.attempts.max(1) {
        // Each attempt leaves less to the freeze.
        let rest = bounds.rest >> attempt;
        match attempt_cut(lives, freezer, now, bounds, rest) {
            Err(Error::TooMuch { left, waited, .. }) => {
                last = Some(Error::TooMuch { left, waited, attempts: attempt + 1 });
            }
            Ok(mut cuts) => {
                cuts.iter_mut().flatten().for_each(|cut| cut.took = begun.elapsed());
                return Ok(cuts);
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or(Error::InUse))
}

fn attempt_cut(
    lives: &mut [Live<'_>],
    freezer: &dyn Freezer,
    now: &dyn Fn() -> Timestamp,
    bounds: &Bounds,
    rest: u64,
) -> Result<Vec<Option<Cut>>> {
    let mut before = Vec::new();
    let begun = Instant::now();
    for live in lives.iter_mut() {
        before.push(live.prepare(bounds, rest)?);
    }
    let prepared = begun.elapsed();
    if lives.iter().all(Live::is_unchanged) {
        return Ok(lives.iter().map(|_| None).collect());
    }
    let mut frozen = Vec::new();
    let mut taken: Vec<Rest> = Vec::new();
    for live in lives.iter() {
        if let Some(mountpoint) = live.mountpoint {
            frozen.push(freezer.freeze(mountpoint).map_err(Error::Freeze)?);
            live.writer.steps.at(Step::CutFrozen);
        }
    }
    let freezing = frozen.first().map_or(Duration::ZERO, |first| first.since().elapsed());
    let deadline = Instant::now() + bounds.frozen;
    let instant = now();
    let mut failed = None;
    for live in lives.iter_mut() {
        match live.take_rest(deadline) {
            Ok(rest) => taken.push(rest),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    frozen.iter_mut().for_each(|frozen| frozen.thaw());
    let waited = frozen.first().map_or(Duration::ZERO, |first| first.since().elapsed());
    drop(frozen);
    let left: u64 = taken.iter().map(|rest| rest.left).sum();
    tracing::debug!(
        before = before.iter().sum::<u64>(),
        frozen = taken.iter().map(|rest| rest.blocks).sum::<u64>(),
        left,
        ?prepared,
        ?freezing,
        ?waited,
        "cut"
    );
    let mut cuts = Vec::new();
    for (at, live) in lives.iter_mut().enumerate() {
        live.writer.steps.at(Step::CutThawed);
        let Some(rest) = taken.get(at) else { break };
        // Also when the cut failed: what was read need not be read again.
        for (first, content) in &rest.runs {
            live.writer.hold(*first, content);
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if left > 0 {
        return Err(Error::TooMuch { left, waited, attempts: 1 });
    }
    if lives.iter().zip(&taken).any(|(live, rest)| live.mountpoint.is_none() && !live.stayed_free(rest)) {
        return Err(Error::InUse);
    }
    for (live, rest) in lives.iter_mut().zip(&taken) {
        if let Some(still) = &rest.still {
            live.writer.compare(None, Some(still))?;
        }
    }
    let time = u64::try_from(instant.as_millisecond()).unwrap_or(0);
    let time = lives.iter().map(|live| live.writer.time + 1).fold(time, u64::max);
    for ((live, rest), before) in lives.iter_mut().zip(&taken).zip(before) {
        if live.has_only_echo() {
            cuts.push(None);
            continue;
        }
        let bytes = live.writer.flush(Kind::Cut, time, rest.size)?;
        cuts.push(Some(Cut {
            point: live.writer.point,
            time,
            blocks: (before, rest.blocks),
            bytes,
            frozen: if live.mountpoint.is_some() { waited } else { Duration::ZERO },
            took: Duration::ZERO,
        }));
    }
    Ok(cuts)
}

fn within(range: &Range<u64>, other: &Range<u64>) -> bool {
    other.start <= range.start && range.end <= other.end
}

/// What was copied in a freeze.
struct Rest {
    /// The number of the first block of each, and their content.
    runs: Vec<(u64, Vec<u8>)>,
    /// How many blocks that are.
    blocks: u64,
    /// Blocks that there was no time for.
    left: u64,
    size: u64,
    /// Of the marks, when nothing was left.
    events: u64,
    /// A copy that is to be compared.
    still: Option<PathBuf>,
}

impl Live<'_> {
    fn size(&self) -> Result<u64> {
        let metadata = self.writer.reader.file().metadata();
        Ok(metadata.map_err(crate::error::file("stat of the image"))?.len())
    }

    /// Writes out and copies while writers go on, until little is left.
    fn prepare(&mut self, bounds: &Bounds, rest: u64) -> Result<u64> {
        self.sync(bounds)?;
        let Some(changes) = self.changes else { return Ok(0) };
        let mut copied = 0;
        let mut last = u64::MAX;
        for round in 0..ROUNDS {
            let events = changes.events();
            let dirty = changes.dirty();
            let blocks = count(&dirty);
            let only_echo = dirty.iter().all(|range| within(range, &self.echo));
            if only_echo || (round > 0 && (blocks <= rest || blocks > last / 4 * 3)) {
                break;
            }
            last = blocks;
            let size = self.size()?;
            copied += self.writer.copy(changes, &dirty, size)?;
            // What came meanwhile is written now rather than in the freeze.
            self.sync(bounds)?;
            if changes.events() == events {
                break;
            }
        }
        Ok(copied)
    }

    /// Syncs until a sync is short, as freezing does the same and can't be interrupted.
    fn sync(&self, bounds: &Bounds) -> Result<()> {
        let Some(mountpoint) = self.mountpoint else { return Ok(()) };
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            linux::freeze::sync(mountpoint)?;
            if begun.elapsed() <= bounds.short_sync {
                break;
            }
        }
        Ok(())
    }

    /// Takes and reads what is left, as far as the time goes.
    fn take_rest(&mut self, deadline: Instant) -> Result<Rest> {
        let size = self.size()?;
        let rest = Rest { runs: Vec::new(), blocks: 0, left: 0, size, events: 0, still: None };
        let Some(changes) = self.changes else {
            let still = self.mountpoint.map(|_| (self.still)(deadline)).transpose()?;
            return Ok(Rest { still, ..rest });
        };
        let dirty = changes.dirty();
        let all = count(&dirty);
        if all > MOST_REST || changes.is_broken() {
            if changes.is_broken() {
                self.writer.distrust("something was written beyond the marks");
            }
            return Ok(Rest { left: all.max(1), ..rest });
        }
        self.writer.take(changes, &dirty)?;
        let mut runs = Vec::with_capacity(dirty.len());
        let left = self.writer.read(&dirty, Some(deadline), |first, content| {
            runs.push((first, content.to_vec()));
            Ok(())
        });
        let left = match left {
            Ok(left) => left,
            Err(error) => {
                changes.mark(&dirty);
                return Err(error);
            }
        };
        changes.mark_if_any(&left);
        let left = count(&left);
        Ok(Rest { runs, blocks: all - left, left, events: changes.events(), ..rest })
    }

    /// Whether the newest point is a cut, and nothing is held for the next one but what thawing wrote.
    fn has_only_echo(&self) -> bool {
        self.writer.is_at_cut() && self.writer.holds_only(&self.echo)
    }

    /// Whether a cut would have nothing in it, now that all has been written out.
    fn is_unchanged(&self) -> bool {
        if self.changes.is_none() && self.mountpoint.is_some() {
            return false;
        }
        let marked = |changes: &dyn Changes| {
            changes.is_broken() || changes.dirty().iter().any(|range| !within(range, &self.echo))
        };
        self.has_only_echo() && self.changes.is_none_or(|changes| !marked(changes))
    }

    /// Whether nobody wrote to a volume that was not in use.
    fn stayed_free(&self, rest: &Rest) -> bool {
        (self.is_free)() && self.changes.is_none_or(|changes| changes.events() == rest.events)
    }
}

impl dyn Changes + '_ {
    fn mark_if_any(&self, ranges: &[Range<u64>]) {
        if !ranges.is_empty() {
            self.mark(ranges);
        }
    }
}
