//! What every handler shares, and how it calls the engine: on a thread that may block, with a deadline.

use crate::Metrics;
use crate::v1::Problem;
use engine::Engine;
use jiff::Timestamp;
use model::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Engine calls at work at once. The runtime has more blocking threads than that: calls that hang here must leave
/// some for Docker's.
const CALLS_AT_ONCE: usize = 64;

/// What every handler shares.
#[derive(Clone)]
pub struct AppState {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) deadline: Duration,
    pub(crate) version: &'static str,
    pub(crate) started: Timestamp,
    calls: Arc<Semaphore>,
}

/// A restore of terabytes ends within this.
const LONG: Duration = Duration::from_secs(24 * 3600);

impl AppState {
    /// A state whose engine calls are answered within `deadline`; `started` is when the daemon started.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>, deadline: Duration, started: Timestamp) -> Self {
        Self {
            engine,
            metrics,
            deadline,
            started,
            version: env!("CARGO_PKG_VERSION"),
            calls: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
        }
    }

    /// Calls the engine to change something, and counts the verb.
    pub(crate) async fn verb<T: Send + 'static>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&Engine) -> engine::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let start = Instant::now();
        let result = self.call(verb, work).await;
        let word = result.as_ref().map_or_else(|problem| problem.kind().code(), |_| "ok");
        self.metrics.observe(verb, word, start.elapsed());
        result
    }

    /// As [`AppState::verb`], for what takes as long as the data is large.
    pub(crate) async fn long_verb<T: Send + 'static>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&Engine) -> engine::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        Self { deadline: LONG, ..self.clone() }.verb(verb, work).await
    }

    /// As [`AppState::call`], for what takes as long as there is much to look at.
    pub(crate) async fn long_call<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Engine) -> engine::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        Self { deadline: LONG, ..self.clone() }.call(what, work).await
    }

    /// Calls the engine to look at something that may block.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Engine) -> engine::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let begin = Instant::now();
        let permit = match tokio::time::timeout(self.deadline, Arc::clone(&self.calls).acquire_owned()).await
        {
            Ok(Ok(permit)) => permit,
            // Closing the semaphore is nobody's business, so this is the deadline.
            _ => return Err(too_many(what)),
        };
        let engine = Arc::clone(&self.engine);
        let work = tokio::task::spawn_blocking(move || {
            let result = work(&engine);
            // Given back when the work ends, not when the waiting does: a call that hangs keeps its place.
            drop(permit);
            result
        });
        match tokio::time::timeout(self.deadline.saturating_sub(begin.elapsed()), work).await {
            Err(_) => Err(self.too_late(what)),
            Ok(Ok(result)) => result.map_err(Problem::from),
            Ok(Err(panicked)) => {
                tracing::error!(what, error = %panicked, "an engine call ended with a panic");
                Err(Problem::new(
                    ErrorKind::Internal,
                    format!("{what} ended in a way that is a mistake in Everhold"),
                    "see the daemon's log and report it; then try again",
                )
                .with_data_state("what was begun is finished or undone when the daemon starts again"))
            }
        }
    }

    fn too_late(&self, what: &str) -> Problem {
        tracing::warn!(what, deadline = ?self.deadline, "an engine call takes longer than its deadline");
        Problem::new(
            ErrorKind::TimedOut,
            format!("{what} was not finished within {} s", self.deadline.as_secs_f64()),
            "look again in a while (`everhold volume ls`), or ask for the same again: it changes nothing twice",
        )
        .with_data_state("it goes on in the background")
    }
}

fn too_many(what: &str) -> Problem {
    tracing::warn!(what, "too many engine calls are at work; one was turned away");
    Problem::new(
        ErrorKind::Busy,
        format!("{what} was not begun: {CALLS_AT_ONCE} other calls are at work"),
        "try again in a while; if they hang, `everhold doctor` and the daemon's log say on what",
    )
}
