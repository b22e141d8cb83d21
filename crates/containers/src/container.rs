//! One container as its engine tells of it: the whole document, and a few questions to it.

use docker::{Api, ApiError, encode};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The answer to `GET /containers/ID/json`, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Container(Value);

/// A mount as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `volume`, `bind`, `tmpfs`, …
    pub kind: String,
    /// The volume's name.
    pub name: Option<String>,
    /// Where it comes from on the host. Of a volume: where its driver has it now.
    pub source: PathBuf,
    /// Where it is in the container.
    pub destination: PathBuf,
    /// The volume's driver.
    pub driver: Option<String>,
    /// Words such as `z`, `Z`, `nocopy`.
    pub mode: String,
    /// Whether the container may write.
    pub read_write: bool,
    /// Such as `rprivate`, of bind mounts.
    pub propagation: String,
}

impl Mount {
    /// A volume that has no name of its own: docker made one up (64 hexadecimal digits), and `docker rm -v` takes it along.
    pub fn is_anonymous(&self) -> bool {
        self.name.as_deref().is_some_and(is_made_up)
    }
}

/// Whether Docker made this name up for a volume without one.
pub fn is_made_up(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl Container {
    /// Asks for one by name or ID; `None` where there is none.
    ///
    /// # Errors
    /// The engine's.
    pub fn find(api: &Api, which: &str) -> Result<Option<Self>, ApiError> {
        Ok(api.find(&format!("/containers/{}/json", encode(which)))?.map(Self))
    }

    /// From the engine's document.
    pub fn from_document(document: Value) -> Self {
        Self(document)
    }

    /// The document.
    pub fn document(&self) -> &Value {
        &self.0
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether what stands there is `true`.
    pub(crate) fn is(&self, pointer: &str) -> bool {
        self.0.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, pointer: &str) -> impl Iterator<Item = &str> {
        self.0.pointer(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// The keys of an object.
    pub(crate) fn keys(&self, pointer: &str) -> impl Iterator<Item = &str> {
        self.0.pointer(pointer).and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.as_str())
    }

    /// Its ID, 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        self.text("/Id")
    }

    /// The ID as it is usually shown, and as engines use it for the host name and an alias.
    pub fn short_id(&self) -> &str {
        let id = self.id();
        id.get(..12).unwrap_or(id)
    }

    /// Its name, without the slash.
    pub fn name(&self) -> &str {
        self.text("/Name").trim_start_matches('/')
    }

    /// The image as it was asked for.
    pub fn image(&self) -> &str {
        self.text("/Config/Image")
    }

    /// The image's ID.
    pub fn image_id(&self) -> &str {
        self.text("/Image")
    }

    /// `running`, `paused`, `exited`, …
    pub fn state(&self) -> &str {
        self.text("/State/Status")
    }

    /// Its processes run, or are frozen.
    pub fn is_running(&self) -> bool {
        self.is("/State/Running")
    }

    /// Its processes are frozen.
    pub fn is_paused(&self) -> bool {
        self.is("/State/Paused")
    }

    /// It was started at least once.
    pub fn has_run(&self) -> bool {
        // The engine's word for "never".
        let started = self.0["State"]["StartedAt"].as_str().unwrap_or_default();
        !started.is_empty() && !started.starts_with("0001-01-01T")
    }

    /// It has ended by itself, and will be started again.
    pub fn is_restarting(&self) -> bool {
        self.is("/State/Restarting")
    }

    /// It has ended by itself and was, or will be, started again by its restart policy: engines call that running.
    pub fn has_restarted(&self) -> bool {
        self.is_restarting() || self.0["RestartCount"].as_u64().is_some_and(|count| count > 0)
    }

    /// It goes away when it ends (`--rm`).
    pub fn removes_itself(&self) -> bool {
        self.is("/HostConfig/AutoRemove")
    }

    /// The main process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        let pid = self.0.pointer("/State/Pid").and_then(Value::as_u64)?;
        u32::try_from(pid).ok().filter(|pid| *pid > 0)
    }

    /// How it ended last.
    pub fn exit_code(&self) -> i64 {
        self.0.pointer("/State/ExitCode").and_then(Value::as_i64).unwrap_or_default()
    }

    /// `healthy`, `unhealthy`, `starting`; `None` without a health check.
    pub fn health(&self) -> Option<&str> {
        self.0.pointer("/State/Health/Status").and_then(Value::as_str).filter(|status| *status != "none")
    }

    /// Its mounts, in the order of their destinations.
    pub fn mounts(&self) -> Vec<Mount> {
        let text = |mount: &Value, key: &str| mount[key].as_str().unwrap_or_default().to_owned();
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let listed = self.0.pointer("/Mounts").and_then(Value::as_array).into_iter().flatten();
        let mut mounts: Vec<Mount> = listed
            .map(|mount| Mount {
                kind: text(mount, "Type"),
                name: some(text(mount, "Name")),
                source: text(mount, "Source").into(),
                destination: text(mount, "Destination").into(),
                driver: some(text(mount, "Driver")),
                mode: text(mount, "Mode"),
                read_write: mount["RW"].as_bool().unwrap_or_default(),
                propagation: text(mount, "Propagation"),
            })
            .collect();
        // `--tmpfs` is a setting of the host, and no mount in the engine's eyes.
        for destination in self.keys("/HostConfig/Tmpfs") {
            mounts.push(Mount {
                kind: "tmpfs".to_owned(),
                name: None,
                source: PathBuf::new(),
                destination: destination.into(),
                driver: None,
                mode: String::new(),
                read_write: true,
                propagation: String::new(),
            });
        }
        mounts.sort_by(|one, other| one.destination.cmp(&other.destination));
        mounts.dedup_by(|one, other| one.destination == other.destination);
        mounts
    }

    /// The mount that `path` of the container lies on: the innermost one.
    pub fn mount_of(&self, path: &Path) -> Option<Mount> {
        let holds = |mount: &Mount| path.starts_with(&mount.destination);
        self.mounts().into_iter().filter(holds).max_by_key(|mount| mount.destination.components().count())
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.0.pointer("/Config/Labels")?.get(key)?.as_str()
    }

    /// The value of a variable of its environment.
    pub fn env(&self, key: &str) -> Option<&str> {
        self.texts("/Config/Env").find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_empty() {
        let container = Container(json!({}));
        assert_eq!((container.id(), container.name(), container.state()), ("", "", ""));
        assert!(!container.is_running() && container.pid().is_none() && container.mounts().is_empty());
        assert_eq!(container.health(), None);
    }

    #[test]
    fn what_ends_over_and_over_does_not_run_well() {
        let running = |restarting, count| {
            Container(
                json!({ "State": { "Running": true, "Restarting": restarting }, "RestartCount": count }),
            )
        };
        assert!(running(true, 0).is_running() && running(true, 0).has_restarted());
        assert!(running(false, 2).has_restarted() && !running(false, 0).has_restarted());
    }

    #[test]
    fn the_innermost_mount_counts() {
        let container = Container(json!({
            "Mounts": [
                { "Type": "volume", "Name": "a", "Destination": "/data" },
                { "Type": "volume", "Name": "b".repeat(64), "Destination": "/data/inner", "RW": true },
            ],
            "HostConfig": { "Tmpfs": { "/tmp": "size=1m" } },
        }));
        assert_eq!(
            container.mount_of("/data/inner/x".as_ref()).unwrap().destination,
            Path::new("/data/inner")
        );
        assert_eq!(container.mount_of("/data/innermost".as_ref()).unwrap().name.as_deref(), Some("a"));
        assert_eq!(container.mount_of("/tmp/x".as_ref()).unwrap().kind, "tmpfs");
        assert_eq!(container.mount_of("/dat".as_ref()), None);
        assert!(container.mounts()[1].is_anonymous() && !container.mounts()[0].is_anonymous());
    }
}
