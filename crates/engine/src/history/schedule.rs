//! When what is cut, uploaded and kept up: one thread that decides, and a few that work.

use crate::engine::{Engine, lock};
use model::{Protection, Volume, VolumeId};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CUTTERS: usize = 3;
/// The decider looks at least so often: volumes come and go.
const LOOK: Duration = Duration::from_millis(500);
/// A cut that failed is tried again after this, if the next one is not due before.
const AGAIN: Duration = Duration::from_secs(5);
/// Cuts are due on beats of this, as far as their interval is a good deal longer: many volumes are looked at in one go then, rather
/// than each at a time of its own.
const BEAT: Duration = Duration::from_millis(250);
/// And at most.
const BREATH: Duration = Duration::from_millis(10);

/// Volumes that are cut together.
type Members = Vec<(Arc<Volume>, Protection)>;

enum Work {
    Cut(Members),
    Upkeep(Arc<Volume>, Protection),
}

/// The threads, until dropped.
pub struct Schedule {
    engine: Arc<Engine>,
    _stop: Sender<()>,
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.engine.spill_histories();
    }
}

impl Schedule {
    /// Starts them.
    ///
    /// # Errors
    /// When the host gives no threads.
    pub fn start(engine: &Arc<Engine>) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let cuts = workers(engine, "cut", CUTTERS)?;
        let upkeep = workers(engine, "upkeep", 1)?;
        let decide = {
            let engine = Arc::clone(engine);
            move || {
                let mut decider =
                    Decider { engine, cuts, upkeep, begun: Instant::now(), due: HashMap::new() };
                while stopped.recv_timeout(decider.look()) == Err(RecvTimeoutError::Timeout) {}
            }
        };
        std::thread::Builder::new().name("history".to_owned()).spawn(decide)?;
        Ok(Self { engine: Arc::clone(engine), _stop: stop })
    }
}

fn workers(engine: &Arc<Engine>, name: &str, count: usize) -> std::io::Result<Sender<Work>> {
    let (send, receive) = channel::<Work>();
    let receive = Arc::new(Mutex::new(receive));
    for _ in 0..count {
        let (engine, receive) = (Arc::clone(engine), Arc::clone(&receive));
        let work = move || {
            while let Some(work) = next(&receive) {
                engine.do_work(work);
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
    }
    Ok(send)
}

fn next(receive: &Mutex<Receiver<Work>>) -> Option<Work> {
    lock(receive).recv().ok()
}

struct Decider {
    engine: Arc<Engine>,
    cuts: Sender<Work>,
    upkeep: Sender<Work>,
    /// Beats are counted from here.
    begun: Instant,
    /// When it is due, and when it was last handed out.
    due: HashMap<VolumeId, (Instant, Instant)>,
}

impl Decider {
    /// Hands out what is due, and says when to look again.
    fn look(&mut self) -> Duration {
        let now = Instant::now();
        let mut groups: HashMap<String, Members> = HashMap::new();
        for (volume, protection) in self.engine.protected() {
            self.engine.histories.tracking.protect(volume.id);
            // What could not be put is tried again, however long the next cut is away.
            self.engine.histories.of(volume.id).upload_soon();
            let key = match &protection.group {
                Some(group) => format!("group {group}"),
                None => volume.id.to_string(),
            };
            groups.entry(key).or_default().push((volume, protection));
        }
        let mut next = now + LOOK;
        for members in groups.into_values() {
            let Some((first, _)) = members.first() else { continue };
            // The clock of a group is that of its first volume; its interval is the shortest.
            let interval = members.iter().map(|(_, p)| p.interval.duration()).min().unwrap_or(LOOK);
            let (mut due, tried) = *self.due.entry(first.id).or_insert((now, now));
            if members.iter().any(|(volume, _)| self.engine.histories.of(volume.id).is_in_trouble()) {
                // What failed because the volume was just being attached, say, should not wait for an hour.
                due = due.min(tried + AGAIN);
            }
            if due <= now {
                self.due.insert(first.id, (self.due_after(due, now, interval), now));
                self.hand_out(&members);
                for (volume, protection) in
                    members.iter().filter(|(volume, _)| self.engine.is_upkeep_due(volume))
                {
                    let work = Work::Upkeep(Arc::clone(volume), protection.clone());
                    self.upkeep.send(work).unwrap_or_default();
                }
            }
            next = next.min(self.due.get(&first.id).map_or(next, |(due, _)| *due));
        }
        next.saturating_duration_since(Instant::now()).max(BREATH)
    }

    fn due_after(&self, due: Instant, now: Instant, interval: Duration) -> Instant {
        let next = (due + interval).max(now + interval / 2);
        if interval < 4 * BEAT {
            return next;
        }
        let beats = next.saturating_duration_since(self.begun).as_millis().div_ceil(BEAT.as_millis());
        self.begun + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)
    }

    fn hand_out(&self, members: &Members) {
        let states: Vec<_> = members.iter().map(|(volume, _)| self.engine.histories.of(volume.id)).collect();
        if states.iter().any(|state| state.cutting.load(Ordering::Acquire)) {
            return;
        }
        let worth = members
            .iter()
            .zip(&states)
            .any(|((volume, _), state)| self.engine.is_worth_cutting(volume, state));
        if worth {
            states.iter().for_each(|state| state.cutting.store(true, Ordering::Release));
            self.cuts.send(Work::Cut(members.clone())).unwrap_or_default();
        }
    }
}

impl Engine {
    fn do_work(&self, work: Work) {
        match work {
            Work::Cut(members) => {
                let done = self.cut_now(&members);
                let states: Vec<_> = members.iter().map(|(volume, _)| self.histories.of(volume.id)).collect();
                let is_news = |why: String| states.iter().any(|state| state.is_news(&why));
                if let Err(error) = &done
                    && is_news(error.to_string())
                {
                    let names: Vec<_> = members.iter().map(|(volume, _)| volume.name.to_string()).collect();
                    tracing::warn!(volumes = names.join(", "), %error, "no cut");
                }
                states.iter().for_each(|state| state.cutting.store(false, Ordering::Release));
            }
            Work::Upkeep(volume, protection) => {
                if let Err(error) = self.upkeep(&volume, &protection) {
                    tracing::warn!(volume = %volume.name, %error, "its history could not be kept up");
                }
            }
        }
    }
}
