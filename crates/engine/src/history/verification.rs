//! Restoring cuts to scratch and checking them: when asked, and by a schedule. What was found is kept, so that it is known after
//! a restart too.

use super::Verified;
use super::going::VERIFY;
use super::restores::WORKERS;
use super::verbs::timestamp;
use crate::engine::{Engine, lock, make_dir};
use crate::pools::Pool;
use crate::{Error, Result};
use history::restore::{Progress, chain_to, write_point};
use jiff::Timestamp;
use model::{At, Volume, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use vault::read::{Access, ReadError};
use vault::stream::State;

/// Where a cut is restored to, in the home of its volume. One name: what a daemon that was killed left is written over.
const SCRATCH: &str = "verify";
/// How often it is seen what is due, at most.
const LOOK: Duration = Duration::from_secs(60);

/// What the last verification of a volume found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The cut.
    pub(crate) point: u64,
    /// When it was verified.
    pub(crate) at: Timestamp,
    /// What was wrong; empty when it was whole.
    pub(crate) problems: Vec<String>,
}

/// How often it is seen whether the pool still has its reserve.
const LOOK_AT_ROOM: Duration = Duration::from_millis(500);

/// Whether this is wrong in the vault, and not only now and here.
fn is_wrong(error: &history::Error) -> bool {
    match error {
        history::Error::Vault(ReadError::Bad { .. }) | history::Error::NoWay { .. } => true,
        history::Error::Vault(error) => error.is_not_found(),
        _ => false,
    }
}

/// Writes a scratch, and stops as soon as the pool has less than its reserve: others fill it too, and the room is theirs.
///
/// # Errors
/// The pool is full, if that is why it ended.
fn while_there_is_room(
    pool: &Pool,
    progress: &Progress,
    write: impl FnOnce() -> history::Result<()>,
) -> Result<history::Result<()>> {
    std::thread::scope(|scope| {
        let (writing, written) = mpsc::channel::<()>();
        let watch = move || {
            while written.recv_timeout(LOOK_AT_ROOM) == Err(RecvTimeoutError::Timeout) {
                if let Err(full) = pool.check_room(0) {
                    progress.stop.store(true, Ordering::Relaxed);
                    return Some(full);
                }
            }
            None
        };
        let watch = std::thread::Builder::new().name("verify-room".to_owned()).spawn_scoped(scope, watch);
        if let Err(error) = &watch {
            tracing::warn!(%error, "no thread to look at the pool's room");
        }
        let done = write();
        drop(writing);
        let full = watch.ok().and_then(|watch| watch.join().ok().flatten());
        match (done, full) {
            (Err(history::Error::Stopped), Some(full)) => Err(full),
            (done, _) => Ok(done),
        }
    })
}

impl Engine {
    fn verdict_file(&self, id: VolumeId) -> PathBuf {
        self.settings.history(id).join("verified.json")
    }

    /// What the last verification found, if there was one.
    pub(crate) fn verdict(&self, id: VolumeId) -> Option<Verdict> {
        let state = self.histories.of(id);
        let mut said = lock(&state.said);
        let read = || {
            let bytes = std::fs::read(self.verdict_file(id)).ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        said.verdict.get_or_insert_with(read).clone()
    }

    fn keep_verdict(&self, id: VolumeId, verdict: Verdict) {
        let (dir, path) = (self.settings.history(id), self.verdict_file(id));
        let keep = || -> Result<()> {
            make_dir(&dir, 0o700)?;
            let text = serde_json::to_vec(&verdict).map_err(|error| Error::Invalid(error.to_string()))?;
            Ok(linux::fs::write_atomically(&path, &text, 0o600)?)
        };
        if let Err(error) = keep() {
            tracing::warn!(path = %path.display(), %error, "what a verification found is known until the daemon ends only");
        }
        lock(&self.histories.of(id).said).verdict = Some(Some(verdict));
    }

    /// Refuses to fill the pool: a scratch takes no more than the volume does.
    fn room_for_scratch(&self, volume: &Volume) -> Result<()> {
        let usage = self.with_driver(volume, "look at", "", |driver, place| driver.usage(place))?;
        let most = usage.allocated.unwrap_or(volume.spec.promised().bytes());
        self.pool(&volume.spec.pool)?.check_room(most)
    }

    /// Verifies the volume that has waited longest, if one is due; says when to look again.
    pub(crate) fn verify_by_schedule(&self) -> Duration {
        let Some(every) = self.histories.settings.verify_every else { return LOOK };
        let look = LOOK.min(every / 4).max(Duration::from_millis(200));
        // A restore has somebody who waits for it.
        if self.progress().iter().any(|work| work.ended.is_none()) {
            return look;
        }
        let now = self.clock.now();
        let due = |at: Timestamp| now.duration_since(at).unsigned_abs() >= every;
        let mut waiting: Vec<(Option<Timestamp>, VolumeName, VolumeId)> = self
            .protected()
            .into_iter()
            .filter(|(volume, _)| {
                let outbox = lock(&self.histories.of(volume.id).outbox).clone();
                outbox.is_some_and(|outbox| outbox.durable_cut().is_some())
            })
            .map(|(volume, _)| {
                (self.verdict(volume.id).map(|verdict| verdict.at), volume.name.clone(), volume.id)
            })
            .filter(|(at, ..)| at.is_none_or(due))
            .collect();
        waiting.sort();
        // Not again and again one that could not be tried.
        let tried = |id: &VolumeId| {
            let state = self.histories.of(*id);
            let mut said = lock(&state.said);
            let wait = every.min(Duration::from_secs(3600));
            let soon = said.verify_tried.is_some_and(|at| at.elapsed() < wait);
            if !soon {
                said.verify_tried = Some(std::time::Instant::now());
            }
            soon
        };
        let Some((_, name, _)) = waiting.into_iter().find(|(_, _, id)| !tried(id)) else { return look };
        // The threads and programs of the verification are as this one. Nobody waits for them.
        linux::host::be_nice();
        match self.verify(&name, None) {
            Ok(verified) if verified.problems.is_empty() => {
                tracing::info!(volume = %name, cut = verified.point, blocks = verified.blocks, "verified: whole");
            }
            Ok(verified) => tracing::error!(
                volume = %name,
                cut = verified.point,
                problems = verified.problems.join("; "),
                "the verification of its history found something wrong; `everhold vault check --deep` says what else is"
            ),
            Err(error) => tracing::warn!(volume = %name, %error, "its history could not be verified"),
        }
        look
    }

    /// Restores a cut (the newest, if none is given) to scratch, and checks every block and the file system.
    ///
    /// # Errors
    /// When it could not be tried. What is found wrong is in the answer.
    pub fn verify(&self, name: &VolumeName, at: Option<&At>) -> Result<Verified> {
        let volume = self.refuse_fenced(self.volume(name)?)?;
        let (access, state) = self.stream(&volume)?;
        let (point, time) = match at {
            Some(at) => self.find_cut(&volume, &state, at)?,
            None => {
                state.newest_cut().ok_or_else(|| Error::Invalid(format!("volume {name} has no cut yet")))?
            }
        };
        let scratch = self.home(&volume)?.join(SCRATCH);
        let mut verified = Verified {
            name: name.clone(),
            point,
            time: timestamp(time),
            blocks: 0,
            file_system: String::new(),
            problems: self.missing(&volume, &access)?,
        };
        // One at a time: there is one scratch, and a disk is not read by two for no gain.
        let _alone = lock(&self.histories.verifying);
        self.room_for_scratch(&volume)?;
        let checked = self.during(VERIFY, &volume, (volume.id, point), |work| {
            self.verify_into(&volume, &access, &state, &scratch, &mut verified, &work.progress)
        });
        if let Err(error) = std::fs::remove_file(&scratch) {
            tracing::warn!(path = %scratch.display(), %error, "scratch could not be removed");
        }
        checked?;
        let (at, problems) = (self.clock.now(), verified.problems.clone());
        self.keep_verdict(volume.id, Verdict { point, at, problems });
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
        progress: &Progress,
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
        let pool = self.pool(&volume.spec.pool)?;
        let write = || write_point(access, &chain, &file, true, WORKERS, progress, &self.histories.steps);
        match while_there_is_room(pool, progress, write)? {
            Ok(()) => {}
            // Only what is wrong in the vault is found; what fails here, or can't be reached, says nothing of the history.
            Err(error) if is_wrong(&error) => {
                verified.problems.push(error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{HoldLine, PoolSettings};
    use vault::StoreError;

    fn pool(dir: &Path, reserve: &str) -> Pool {
        Pool::new(&PoolSettings {
            name: "p".parse().unwrap(),
            path: dir.to_owned(),
            labels: model::Labels::default(),
            reserve: reserve.parse().unwrap(),
            hold: HoldLine::Off,
            overcommit: "200%".parse().unwrap(),
        })
    }

    #[test]
    fn a_pool_without_its_reserve_stops_a_scratch() {
        let dir = tempfile::tempdir().unwrap();
        let progress = Progress::default();
        let stopped = || {
            let begun = std::time::Instant::now();
            while !progress.stop.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            Err(history::Error::Stopped)
        };
        let full = while_there_is_room(&pool(dir.path(), "100%"), &progress, stopped);
        assert!(matches!(full, Err(Error::PoolFull { .. })), "{full:?}");
        // What was done before it was noticed is done, and with room nothing ends it.
        let done = while_there_is_room(&pool(dir.path(), "100%"), &Progress::default(), || Ok(()));
        assert!(matches!(done, Ok(Ok(()))), "{done:?}");
        let progress = Progress::default();
        let long = || {
            std::thread::sleep(LOOK_AT_ROOM * 2);
            Err(history::Error::Stopped)
        };
        let done = while_there_is_room(&pool(dir.path(), "0%"), &progress, long);
        assert!(matches!(done, Ok(Err(history::Error::Stopped))), "{done:?}");
        assert!(!progress.stop.load(Ordering::Relaxed));
    }

    #[test]
    fn what_fails_here_is_no_damage_there() {
        let full = || history::Error::File {
            what: "write the image".to_owned(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let away = StoreError::Failed {
            store: "s3://b".to_owned(),
            op: "read",
            name: String::new(),
            why: String::new(),
        };
        let gone = StoreError::NotFound { store: "s3://b".to_owned(), name: "h/x".to_owned() };
        let no_way = history::Error::NoWay { point: 1, why: String::new() };
        assert!(!is_wrong(&full()) && !is_wrong(&away.into()) && !is_wrong(&history::Error::Stopped));
        assert!(is_wrong(&gone.into()) && is_wrong(&no_way));
        assert_eq!(Error::from(full()).kind(), model::ErrorKind::NoSpace);
    }
}
