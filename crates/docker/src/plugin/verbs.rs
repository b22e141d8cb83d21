//! The engine's verbs, with an answer in bounded time.
//!
//! A verb runs on a thread that may block. When it takes longer than the deadline, Docker is told so and the verb goes on:
//! stopping it half-way is not possible and would be worse. What it comes to is logged. One thing has to be taken back: a
//! mount that succeeds after Docker was told that it did not, as Docker will never unmount it.

use super::Plugin;
use super::answer::Refusal;
use engine::{Change, Engine};
use model::{Access, ErrorKind, HolderKind, Options, VolumeName};
use std::path::PathBuf;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// One call of a verb, for messages.
struct Call {
    verb: &'static str,
    volume: VolumeName,
    /// What happens when it is done after all.
    afterwards: &'static str,
}

impl Plugin {
    pub(super) async fn create(&self, volume: VolumeName, options: Options) -> Result<Change, Refusal> {
        let afterwards = "the volume is there then";
        let newly = std::sync::Arc::clone(&self.newly);
        let name = volume.clone();
        let work = move |engine: &Engine| {
            let (change, _) = engine.create(&name, &options)?;
            if change == Change::Done {
                newly.note(name);
            }
            Ok(change)
        };
        self.run(Call { verb: "create", volume, afterwards }, work, |_, _| Ok(())).await
    }

    pub(super) async fn remove(&self, volume: VolumeName) -> Result<Change, Refusal> {
        let afterwards = "the volume is in the trash then";
        let name = volume.clone();
        let work = move |engine: &Engine| engine.remove(&name).map(|(change, _)| change);
        self.run(Call { verb: "remove", volume, afterwards }, work, |_, _| Ok(())).await
    }

    pub(super) async fn mount(&self, volume: VolumeName, id: String) -> Result<PathBuf, Refusal> {
        let afterwards = "this mount is taken back then, as Docker no longer waits for it";
        let (name, holder) = (volume.clone(), id.clone());
        let (name_back, holder_back) = (volume.clone(), id.clone());
        let work =
            move |engine: &Engine| engine.attach(&name, &holder, HolderKind::Docker, Access::ReadWrite);
        let take_back = move |engine: &Engine, (change, _): (Change, PathBuf)| match change {
            Change::Done => engine.detach(&name_back, &holder_back).map(drop),
            Change::AlreadyThere => Ok(()),
        };
        let (change, path) =
            self.run(Call { verb: "mount", volume: volume.clone(), afterwards }, work, take_back).await?;
        self.uses.mounted(&volume, &id, change == Change::Done);
        Ok(path)
    }

    pub(super) async fn unmount(&self, volume: VolumeName, id: String) -> Result<Change, Refusal> {
        if !self.uses.unmounted(&volume, &id) {
            return Ok(Change::Done);
        }
        let afterwards = "the volume is released then";
        let name = volume.clone();
        let work = move |engine: &Engine| engine.detach(&name, &id);
        self.run(Call { verb: "unmount", volume, afterwards }, work, |_, _| Ok(())).await
    }

    /// Runs `work` and waits for it until the deadline. `take_back` gets what it came to if nobody waits any more.
    async fn run<T: Send + 'static>(
        &self,
        call: Call,
        work: impl FnOnce(&Engine) -> engine::Result<T> + Send + 'static,
        take_back: impl FnOnce(&Engine, T) -> engine::Result<()> + Send + 'static,
    ) -> Result<T, Refusal> {
        let begun = Instant::now();
        let deadline = begun + self.settings.call_deadline;
        let Ok(Ok(permit)) = timeout_at(deadline, std::sync::Arc::clone(&self.at_work).acquire_owned()).await
        else {
            return Err(Refusal::failed(format!(
                "{} of volume {}: not begun, as {} other calls are still at work after {} s; nothing was changed. Next: \
                 see the daemon's log for what they wait for, and try again",
                call.verb,
                call.volume,
                self.settings.verbs_at_once,
                self.settings.call_deadline.as_secs()
            )));
        };
        let (verb, volume) = (call.verb, call.volume.clone());
        let engine = std::sync::Arc::clone(&self.engine);
        let (answer, mut answered) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let result = work(&engine);
            if let Err(late) = answer.send(result) {
                be_late(&engine, verb, &volume, begun, late, take_back);
            }
        });
        let result = match timeout_at(deadline, &mut answered).await {
            Ok(result) => result,
            Err(_) => {
                answered.close();
                // It may have come just now; then it counts as come in time.
                match answered.try_recv() {
                    Ok(result) => Ok(result),
                    Err(_) => {
                        self.observe(verb, ErrorKind::TimedOut.code(), begun.elapsed());
                        return Err(self.too_late(&call));
                    }
                }
            }
        };
        let Ok(result) = result else {
            return Err(Refusal::failed(format!(
                "{verb} of volume {}: it broke off for a reason that should not happen. Next: see the daemon's log, and \
                 try again",
                call.volume
            )));
        };
        let outcome = result.as_ref().map_or_else(|error| error.kind().code(), |_| "ok");
        self.observe(verb, outcome, begun.elapsed());
        match &result {
            Ok(_) => {
                tracing::debug!(verb, volume = %call.volume, took = ?begun.elapsed(), "Docker's call is done")
            }
            Err(error) => {
                tracing::warn!(verb, volume = %call.volume, error = error.advice(), "Docker's call failed")
            }
        }
        Ok(result?)
    }

    fn too_late(&self, call: &Call) -> Refusal {
        let Call { verb, volume, afterwards } = call;
        let seconds = self.settings.call_deadline.as_secs();
        tracing::warn!(verb, volume = %volume, seconds, "not done in time; Docker is answered, and it goes on in the background");
        Refusal::failed(format!(
            "{verb} of volume {volume} has been at work for {seconds} s and goes on in the background; {afterwards}. Next: \
             ask again, which is safe; the daemon's log says what became of it"
        ))
    }
}

/// Docker has its answer, or has hung up: says what became of the verb, and takes back what nobody would end.
fn be_late<T>(
    engine: &Engine,
    verb: &'static str,
    volume: &VolumeName,
    begun: Instant,
    result: engine::Result<T>,
    take_back: impl FnOnce(&Engine, T) -> engine::Result<()>,
) {
    let took = begun.elapsed();
    match result.and_then(|done| take_back(engine, done)) {
        Ok(()) => tracing::warn!(verb, %volume, ?took, "done at last, after Docker stopped waiting"),
        Err(error) => {
            tracing::error!(verb, %volume, ?took, error = error.advice(), "failed at last, after Docker stopped waiting");
        }
    }
}
