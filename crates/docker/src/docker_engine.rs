//! Who uses a volume, as the Docker Engine knows it.

use crate::client::{ApiError, CALL_DEADLINE, Client, encode, filters};
use engine::{ContainerUse, Containers};
use model::{Labels, Volume, VolumeName};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tokio::runtime::Handle;

/// A question of the doctor's is three calls in a row.
/// How long a container may take to stop or to start.
const LONGEST_ACT: Duration = Duration::from_secs(120);
const LONGEST_QUESTION: Duration = Duration::from_secs(4 * CALL_DEADLINE.as_secs());

/// One Docker Engine, reached through its API. Cheap to clone.
///
/// There need not be one: every question is answered with an error in words then, within 3 seconds.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    pub(crate) client: Arc<Client>,
    /// The name under which that engine knows our plugin.
    pub(crate) driver: Arc<str>,
    runtime: Handle,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Container {
    pub(crate) id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    pub(crate) mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Mount {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) driver: String,
    #[serde(default)]
    destination: String,
    #[serde(default, rename = "RW")]
    rw: bool,
}

impl Container {
    pub(crate) fn name(&self) -> String {
        // A linked container (`--link`) has more names, such as `/web/db`.
        let names = self.names.iter().flatten().map(|name| name.trim_start_matches('/'));
        let own = names.clone().find(|name| !name.contains('/'));
        own.or(names.clone().next()).map_or_else(|| self.id.chars().take(12).collect(), str::to_owned)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    driver: String,
    #[serde(default)]
    labels: Option<Labels>,
}

impl DockerEngine {
    /// The engine that answers on `socket` and knows our plugin as `driver` (the stem of the plugin socket's file name).
    ///
    /// `runtime`: where the I/O is done. It must go on while its threads, or others, wait in
    /// [`Containers::using`]: a multi-thread runtime.
    pub fn new(socket: PathBuf, driver: &str, runtime: Handle) -> Self {
        Self { client: Arc::new(Client::new(socket)), driver: driver.into(), runtime }
    }

    /// The socket of its API.
    pub fn socket(&self) -> &Path {
        &self.client.socket
    }

    /// The name under which it knows our plugin.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Waits for `question` on a thread of any kind: one that may block, or none of the runtime's at all.
    ///
    /// # Errors
    /// In words: the question's own error, or a runtime that is being shut down.
    pub fn wait<T, E>(
        &self,
        question: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, String>
    where
        T: Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        self.wait_for(LONGEST_QUESTION, question)
    }

    fn act(&self, path: String) -> Result<(), String> {
        let docker = self.clone();
        self.wait_for(LONGEST_ACT, async move { docker.client.act(&path, LONGEST_ACT).await })
    }

    fn wait_for<T, E>(
        &self,
        longest: Duration,
        question: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, String>
    where
        T: Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        // Not Handle::block_on: that panics on a thread that drives the runtime.
        let (answer, answered) = sync_channel(1);
        self.runtime.spawn(async move {
            if answer.send(question.await).is_err() {
                tracing::debug!("nobody waits for the Docker Engine's answer any more");
            }
        });
        match answered.recv_timeout(longest) {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("the Docker Engine could not be asked in time".to_owned()),
        }
    }

    /// Every container, with those mounts that are volumes of ours.
    pub(crate) async fn containers(&self, query: &str) -> Result<Vec<Container>, ApiError> {
        // No lock on containers or volumes is taken for this list (daemon/list.go works on a snapshot), so the engine
        // answers it while it waits for our plugin. `GET /volumes/NAME` would wait for us.
        let mut containers: Vec<Container> =
            self.client.get(&format!("/containers/json?all=true&{query}")).await?;
        for container in &mut containers {
            if let Some(mounts) = &mut container.mounts {
                mounts.retain(|mount| *mount.driver == *self.driver);
            }
        }
        Ok(containers)
    }

    async fn uses(self, volume: VolumeName) -> Result<Vec<ContainerUse>, ApiError> {
        let containers = self.containers(&filters(&[("volume", volume.as_str())])).await?;
        let mut uses = Vec::new();
        for container in &containers {
            // The filter matches destinations too.
            let mounts = container.mounts.iter().flatten().filter(|mount| mount.name == volume.as_str());
            uses.extend(mounts.map(|mount| ContainerUse {
                id: container.id.clone(),
                name: container.name(),
                image: container.image.clone(),
                state: container.state.clone(),
                destination: mount.destination.clone(),
                read_only: !mount.rw,
            }));
        }
        Ok(uses)
    }

    /// The labels that Docker keeps for a volume of ours. `None`: Docker has no such volume of ours.
    ///
    /// Never to be called on behalf of the plugin: the engine locks the name, maybe while it waits for the plugin.
    pub(crate) async fn labels_of(&self, volume: &VolumeName) -> Result<Option<Labels>, ApiError> {
        match self.client.get::<Inspected>(&format!("/volumes/{}", encode(volume.as_str()))).await {
            Ok(found) if *found.driver == *self.driver => Ok(Some(found.labels.unwrap_or_default())),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Containers for DockerEngine {
    fn using(&self, volume: &VolumeName) -> Result<Vec<ContainerUse>, String> {
        self.wait(self.clone().uses(volume.clone()))
    }

    fn stop(&self, container: &str) -> Result<(), String> {
        self.act(format!("/containers/{}/stop", encode(container)))
    }

    fn start(&self, container: &str) -> Result<(), String> {
        match self.act(format!("/containers/{}/start", encode(container))) {
            // Removed meanwhile: there is nothing to be started. (404 alone says also that the plugin is not there yet.)
            Err(why) if why.contains("No such container") => Ok(()),
            other => other,
        }
    }

    /// Creating a volume that the driver has already makes Docker note its options and labels, and nothing else.
    fn introduce(&self, volume: &Volume) -> Result<(), String> {
        let body = serde_json::json!({
            "Name": volume.name, "Driver": *self.driver, "DriverOpts": volume.typed, "Labels": volume.spec.labels,
        });
        let docker = self.clone();
        self.wait(async move { docker.client.post("/volumes/create", &body).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_its_own_name() {
        let named = |names: &str| -> String {
            let json = format!(r#"{{"Id":"0123456789abcdef","Names":{names},"State":"a-new-state"}}"#);
            serde_json::from_str::<Container>(&json).unwrap().name()
        };
        assert_eq!(named(r#"["/web/db","/db"]"#), "db");
        assert_eq!(named("null"), "0123456789ab");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn may_be_asked_from_any_thread() {
        let docker = DockerEngine::new("/nowhere/docker.sock".into(), "everhold", Handle::current());
        let name: VolumeName = "pgdata".parse().unwrap();
        let expect = |answer: Result<Vec<ContainerUse>, String>| {
            assert!(answer.unwrap_err().contains("no Docker Engine answers"));
        };
        let (here, plain, blocking) = (docker.clone(), docker.clone(), docker);
        let (one, two) = (name.clone(), name.clone());
        expect(here.using(&name));
        expect(std::thread::spawn(move || plain.using(&one)).join().unwrap());
        expect(tokio::task::spawn_blocking(move || blocking.using(&two)).await.unwrap());
    }
}
