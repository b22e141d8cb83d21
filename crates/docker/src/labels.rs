//! Labels of `docker volume create --label`, which the plugin protocol does not carry.
//!
//! They are brought over once, when Docker creates a volume (also when it adopts one that was there): on the engine's
//! `create` event. A volume whose event was missed, since the stream was down, is in [`NewVolumes`] and is
//! looked up when the stream is back. Labels that the volume has already win, and a label that the operator
//! takes off later does not come back by itself.

use crate::client::{ApiError, Lines, filters};
use crate::docker_engine::DockerEngine;
use crate::newly::NewVolumes;
use engine::{Clock, Engine, SystemClock};
use jiff::SignedDuration;
use model::{Labels, VolumeName, check_label};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A stream that lasted this long was a real one, and the next wait is short again.
const LASTED: Duration = Duration::from_secs(10);
/// How often volumes are looked up again whose labels could not be brought over.
const AGAIN: Duration = Duration::from_secs(5);
/// Attachments younger than 30 s are not judged by the engine; a second look comes after that.
const SECOND_LOOK: Duration = Duration::from_secs(35);
/// The last daemon may have been killed between creating a volume and learning its labels.
const JUST_CREATED: SignedDuration = SignedDuration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    #[serde(default)]
    action: String,
    actor: Actor,
}

#[derive(Debug, Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, rename = "Attributes")]
    attributes: Attributes,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    driver: String,
}

struct Follower {
    docker: DockerEngine,
    engine: Arc<Engine>,
    newly: Arc<NewVolumes>,
}

/// Follows the Docker Engine until `shutdown`: brings labels over, and has stale attachments dropped whenever the engine
/// comes (back) up. Waits patiently where there is none.
pub async fn follow(
    docker: DockerEngine,
    engine: Arc<Engine>,
    newly: Arc<NewVolumes>,
    shutdown: impl Future<Output = ()>,
) {
    let follower = Follower { docker, engine, newly };
    tokio::select! {
        () = shutdown => {}
        () = follower.run() => {}
    }
}

impl Follower {
    async fn run(&self) {
        self.note_just_created();
        let path = format!("/events?{}", filters(&[("type", "volume"), ("event", "create")]));
        let mut wait = FIRST_WAIT;
        let mut said_down = false;
        loop {
            match self.docker.client.stream(&path).await {
                Ok(events) => {
                    tracing::info!(socket = %self.docker.socket().display(), "the Docker Engine answers");
                    let since = Instant::now();
                    self.stay(events).await;
                    tracing::warn!("the Docker Engine closed its event stream; labels wait until it is back");
                    said_down = true;
                    if since.elapsed() > LASTED {
                        wait = FIRST_WAIT;
                    }
                }
                Err(error) => {
                    if !said_down {
                        tracing::warn!(%error, "labels and holders of containers are not known until it answers");
                        said_down = true;
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn note_just_created(&self) {
        let now = SystemClock.now();
        for volume in self.engine.volumes() {
            if now.duration_since(volume.created) < JUST_CREATED {
                self.newly.note(volume.name.clone());
            }
        }
    }

    /// While the stream lasts.
    async fn stay(&self, mut events: Lines) {
        self.drop_stale();
        let second_look = sleep_until(Instant::now() + SECOND_LOOK);
        tokio::pin!(second_look);
        let mut looked_again = false;
        // Its first tick is at once: what was missed while the stream was down.
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                line = events.next() => match line {
                    None => return,
                    Some(line) => self.see(&line).await,
                },
                _ = again.tick() => {
                    for name in self.newly.all() {
                        self.bring_over(&name).await;
                    }
                }
                () = &mut second_look, if !looked_again => {
                    looked_again = true;
                    self.drop_stale();
                }
            }
        }
    }

    /// In the background: it may ask the engine about each attached volume.
    fn drop_stale(&self) {
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || engine.drop_all_stale());
    }

    async fn see(&self, line: &[u8]) {
        match serde_json::from_slice::<Event>(line) {
            Ok(event)
                if event.action == "create" && *event.actor.attributes.driver == *self.docker.driver =>
            {
                if let Ok(name) = event.actor.id.parse() {
                    self.bring_over(&name).await;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "an event of the Docker Engine is not understood"),
        }
    }

    async fn bring_over(&self, name: &VolumeName) {
        match self.docker.labels_of(name).await {
            Ok(labels) => {
                if self.set(name, labels.unwrap_or_default()).await {
                    self.newly.forget(name);
                }
            }
            // Stays noted if it is new; the next look is soon.
            Err(error @ (ApiError::Unreachable { .. } | ApiError::Silent { .. })) => {
                tracing::debug!(volume = %name, %error, "labels not known yet");
                self.newly.note(name.clone());
            }
            Err(error) => {
                tracing::warn!(volume = %name, %error, "its labels in Docker can't be read");
                self.newly.forget(name);
            }
        }
    }

    /// Whether it is settled.
    async fn set(&self, name: &VolumeName, labels: Labels) -> bool {
        let Ok(volume) = self.engine.volume(name) else { return true };
        let missing = missing(name, labels, &volume.spec.labels);
        if missing.is_empty() {
            return true;
        }
        let (engine, volume) = (Arc::clone(&self.engine), name.clone());
        let set = tokio::task::spawn_blocking(move || engine.label(&volume, &missing, &[])).await;
        match set {
            Ok(Ok(_)) => {
                tracing::info!(volume = %name, "took over its labels from Docker");
                true
            }
            Ok(Err(error)) if error.kind() == model::ErrorKind::Busy => false,
            Ok(Err(error)) => {
                tracing::warn!(volume = %name, error = error.advice(), "could not take over its labels from Docker");
                true
            }
            Err(error) => {
                tracing::error!(volume = %name, %error, "taking over its labels from Docker broke off");
                true
            }
        }
    }
}

/// What Docker has and the volume has not. Docker allows keys that we do not.
fn missing(name: &VolumeName, labels: Labels, has: &Labels) -> Labels {
    let usable = |key: &str, value: &str| match check_label(key, value) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(volume = %name, %error, "a label of Docker's is left out");
            false
        }
    };
    labels.into_iter().filter(|(key, value)| !has.contains_key(key) && usable(key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_wins_and_what_is_unusable_is_left_out() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let docker = labels(&[("env", "prod"), ("tier", "db"), ("bad key", "x"), ("", "y")]);
        let has = labels(&[("env", "test")]);
        assert_eq!(missing(&"v".parse().unwrap(), docker, &has), labels(&[("tier", "db")]));
    }

    #[test]
    fn reads_the_events_of_docker() {
        // As Docker Engine 20.10 writes it.
        let line =
            br#"{"Type":"volume","Action":"create","Actor":{"ID":"v1","Attributes":{"driver":"everhold"}},
            "scope":"local","time":1795228767,"timeNano":1795228767329610149}"#;
        let event: Event = serde_json::from_slice(line).unwrap();
        assert_eq!(
            (&*event.action, &*event.actor.id, &*event.actor.attributes.driver),
            ("create", "v1", "everhold")
        );
    }
}
