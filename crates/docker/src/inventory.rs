//! What a Docker Engine is and what it knows of our volumes: questions of the doctor.

use crate::client::{ApiError, filters};
use crate::docker_engine::DockerEngine;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a Docker Engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its version, such as `20.10.24`.
    pub version: String,
    /// The newest API version that it speaks, such as `1.41`.
    pub api_version: String,
    /// Its storage driver, such as `overlay2`.
    pub storage_driver: String,
    /// Whether it runs without root; then it sees none of our mounts.
    pub rootless: bool,
    /// Whether containers go on when it is restarted.
    pub live_restore: bool,
    /// `name=seccomp,profile=default`, `name=apparmor`, `name=selinux`, `name=userns`, …
    pub security_options: Vec<String>,
    /// Whether it reached our plugin; `Err` says what it said.
    pub plugin: Result<(), String>,
}

/// What Docker knows of our volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownVolumes {
    /// The volumes that Docker lists for our driver. Docker asks our plugin for them, so while the plugin
    /// answers these are our own volumes: a difference says that Docker could not ask.
    pub listed: BTreeSet<String>,
    /// The volumes of our driver that containers name, running or not, with the containers' names. One that we do
    /// not have is a container that won't start.
    pub mounted: BTreeMap<String, Vec<String>>,
    /// What Docker had to say when it asked its drivers.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    volumes: Option<Vec<Listed>>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    #[serde(default)]
    version: String,
    #[serde(default)]
    api_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    driver: String,
    #[serde(default)]
    live_restore_enabled: bool,
    #[serde(default)]
    security_options: Option<Vec<String>>,
    #[serde(default)]
    plugins: Plugins,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Plugins {
    #[serde(default)]
    volume: Option<Vec<String>>,
}

impl DockerEngine {
    async fn listing(&self) -> Result<Listing, ApiError> {
        self.client.get(&format!("/volumes?{}", filters(&[("driver", &self.driver)]))).await
    }

    /// What Docker knows of our volumes.
    ///
    /// # Errors
    /// No engine, or one that does not answer within 3 seconds (each of two questions).
    pub async fn volumes_of_ours(&self) -> Result<KnownVolumes, ApiError> {
        let listing = self.listing().await?;
        let mut mounted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in self.containers("").await? {
            for mount in container.mounts.iter().flatten() {
                mounted.entry(mount.name.clone()).or_default().push(container.name());
            }
        }
        Ok(KnownVolumes {
            listed: listing.volumes.into_iter().flatten().map(|volume| volume.name).collect(),
            mounted,
            warnings: listing.warnings.unwrap_or_default(),
        })
    }

    /// What engine this is.
    ///
    /// # Errors
    /// No engine, or one that does not answer within 3 seconds (each of three questions).
    pub async fn facts(&self) -> Result<EngineFacts, ApiError> {
        let version: Version = self.client.get("/version").await?;
        // Docker calls a plugin up when it first needs it; listing makes it need ours.
        let warnings = self.listing().await?.warnings.unwrap_or_default();
        let info: Info = self.client.get("/info").await?;
        let security_options = info.security_options.unwrap_or_default();
        let reached = info.plugins.volume.iter().flatten().any(|name| **name == *self.driver);
        let complaint = warnings.into_iter().find(|warning| warning.contains(&*self.driver));
        let plugin = match (complaint, reached) {
            (Some(complaint), _) => Err(complaint),
            (None, true) => Ok(()),
            (None, false) => Err(format!(
                "the Docker Engine does not see the plugin {0}: it looks for /run/docker/plugins/{0}.sock",
                self.driver
            )),
        };
        Ok(EngineFacts {
            version: version.version,
            api_version: version.api_version,
            storage_driver: info.driver,
            rootless: security_options.iter().any(|option| option == "name=rootless"),
            live_restore: info.live_restore_enabled,
            security_options,
            plugin,
        })
    }
}
