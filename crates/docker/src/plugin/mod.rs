//! The volume plugin protocol, version 1: Docker calls, we answer.
//!
//! Protocol: <https://docs.docker.com/engine/extend/plugins_volume/>; the client is `pkg/plugins` in Moby. What
//! that client does and the page doesn't say:
//!
//! * A status other than 200 makes it read `{"Err": "…"}` from the body and show that text.
//! * After a connection that breaks it tries again, with an *empty* body, since it has read its own already. So a
//!   connection serves one call and is never closed for being idle, and an empty body is refused where fields are needed.
//! * `Get` that fails in any way but a broken connection makes Docker forget the volume's labels and options: it must
//!   never fail for a volume that exists.
//! * Docker calls `Get` before `Create`. If the volume is there, it takes it as it is and never sends the options.
//! * `docker cp` mounts a running container's volumes a second time under the *same* ID, and unmounts them when done. See the module `uses`.
//! * After a `Mount` that failed, it never sends `Unmount` for that ID. See the module `verbs`.
//!
//! `Activate`, `Capabilities`, `Get`, `List` and `Path` are answered from memory. The others run the engine's verbs on
//! threads that may block, and are answered within [`Settings::call_deadline`] whatever a driver does.

mod answer;
mod calls;
mod server;
mod socket;
mod uses;
mod verbs;

pub use server::serve;
pub use socket::{BindError, PluginSocket, bind};

use crate::newly::NewVolumes;
use engine::Engine;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use uses::Uses;

/// How patient the plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a call may take until it is answered, come what may. Docker's patience ends at 30 s where it connects, and
    /// at one or two minutes where it waits for an answer, with locks held.
    pub call_deadline: Duration,
    /// How long a client may take to send the head of its request.
    pub header_deadline: Duration,
    /// How long a client may take to send the rest of it.
    pub body_deadline: Duration,
    /// The longest body, in bytes.
    pub body_limit: usize,
    /// How many verbs may be at work at once, stuck ones included.
    pub verbs_at_once: usize,
    /// How long calls may go on after the shutdown has begun.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            call_deadline: Duration::from_secs(20),
            header_deadline: Duration::from_secs(5),
            body_deadline: Duration::from_secs(5),
            body_limit: 1 << 20,
            // Half of the threads that tokio has for blocking work: the other half is for the REST API.
            verbs_at_once: 256,
            grace: Duration::from_secs(3),
        }
    }
}

/// Is told of every verb that Docker asked for: its name, `ok` or the code of an error kind, and how long Docker waited.
pub type Observer = Arc<dyn Fn(&'static str, &'static str, Duration) + Send + Sync>;

/// The plugin. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    engine: Arc<Engine>,
    newly: Arc<NewVolumes>,
    settings: Settings,
    uses: Arc<Uses>,
    at_work: Arc<Semaphore>,
    observer: Option<Observer>,
}

impl Plugin {
    /// A plugin for the volumes of `engine`. The volumes that it creates are noted in `newly`.
    pub fn new(engine: Arc<Engine>, newly: Arc<NewVolumes>, settings: Settings) -> Self {
        let at_work = Arc::new(Semaphore::new(settings.verbs_at_once));
        Self { engine, newly, settings, uses: Arc::default(), at_work, observer: None }
    }

    /// The same plugin, with an observer.
    #[must_use]
    pub fn observed_by(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    fn observe(&self, verb: &'static str, result: &'static str, took: Duration) {
        // One name for one verb, whoever asked for it.
        let verb = match verb {
            "mount" => "attach",
            "unmount" => "detach",
            same => same,
        };
        if let Some(observer) = &self.observer {
            observer(verb, result, took);
        }
    }
}
