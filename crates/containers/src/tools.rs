//! What a verb on whole containers works with, and how it begins so that nothing is left of it should it be killed.

use crate::error::Result;
use crate::journal::{Journal, Record};
use crate::volumes::Volumes;
use docker::Api;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How often it is said how far something is.
const OFTEN: Duration = Duration::from_millis(200);

/// What a verb says while it is at work.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What begins now.
    Stage(String),
    /// How far the copy is, in bytes.
    Copied {
        /// So much is read.
        done: u64,
        /// Of about so much.
        total: u64,
    },
}

/// What a verb works with; its points are of the type `Step`.
pub struct Tools<'a, Step> {
    /// The engine.
    pub api: &'a Api,
    /// The volumes.
    pub volumes: &'a dyn Volumes,
    /// The directory of the journals.
    pub journals: &'a Path,
    /// Called at each point.
    pub at: &'a dyn Fn(Step),
    /// Starts the process that clears up should this one be killed; it ends when the value is dropped and the journal is gone.
    pub guard: &'a dyn Fn(&Path) -> Result<Box<dyn Send>>,
    /// Hears how it goes, also from other threads.
    pub say: &'a (dyn Fn(Event) + Sync),
}

impl<Step> Tools<'_, Step> {
    /// The journal of this name, with a process that stands by it.
    pub(crate) fn begin(&self, name: &str, record: Record) -> Result<(Journal, Box<dyn Send>)> {
        let journal = Journal::begin(self.journals, name, record)?;
        match (self.guard)(journal.path()) {
            Ok(guard) => Ok((journal, guard)),
            Err(error) => {
                journal.end()?;
                Err(error)
            }
        }
    }

    pub(crate) fn stage(&self, stage: impl Into<String>) {
        (self.say)(Event::Stage(stage.into()));
    }

    /// Says, while `work` goes on, how far that is: `done` of about `total` bytes.
    pub(crate) fn watched<T>(&self, done: &AtomicU64, total: u64, work: impl FnOnce() -> T) -> T {
        let (say, (working, over)) = (self.say, mpsc::channel::<()>());
        done.store(0, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while over.recv_timeout(OFTEN) == Err(RecvTimeoutError::Timeout) {
                    let done = done.load(Ordering::Relaxed);
                    say(Event::Copied { done, total: total.max(done) });
                }
            });
            let result = work();
            drop(working);
            result
        })
    }

    pub(crate) fn reach(&self, step: Step) {
        (self.at)(step);
    }
}
