//! The nine calls: what each one needs, and what it answers.

use super::Plugin;
use super::answer::{Answer, Refusal, Volume};
use hyper::StatusCode;
use model::{Intent, Options, VolumeName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "Name")]
    name: String,
}

#[derive(Deserialize)]
struct Held {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(rename = "Name")]
    name: String,
    #[serde(default, rename = "Opts")]
    options: Option<BTreeMap<String, String>>,
}

/// What a call needs, from its body.
fn read<T: DeserializeOwned>(call: &str, needs: &str, body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() {
        // Also what Docker sends when it tries again after a connection broke: it has used its body up.
        return Err(Refusal::bad_request(format!(
            "{call}: the request is empty; it needs {needs}. Next: ask again"
        )));
    }
    serde_json::from_slice(body).map_err(|error| {
        Refusal::bad_request(format!("{call}: the request is not valid: {error}; it needs {needs}"))
    })
}

fn name(text: &str) -> Result<VolumeName, Refusal> {
    text.parse().map_err(Refusal::bad_request)
}

fn no_such_volume(name: &str) -> Refusal {
    // Docker's own words for it.
    Refusal::failed(format!("no such volume: {}", name.chars().take(200).collect::<String>()))
}

impl Plugin {
    /// Answers the call at `path`.
    pub(super) async fn answer(&self, path: &str, body: &[u8]) -> Result<Answer, Refusal> {
        let call = path.trim_start_matches('/');
        let needs_name = "{\"Name\": \"…\"}";
        let needs_holder = "{\"Name\": \"…\", \"ID\": \"…\"}";
        match call {
            "Plugin.Activate" => {
                // Docker says this once in its life, before anything else.
                self.uses.clear();
                Ok(Answer::activated())
            }
            "VolumeDriver.Capabilities" => Ok(Answer::capabilities()),
            "VolumeDriver.List" => Ok(Answer::volumes(self.list())),
            "VolumeDriver.Get" => {
                let Named { name } = read(call, needs_name, body)?;
                Ok(Answer::volume(self.get(&name)?))
            }
            "VolumeDriver.Path" => {
                let Named { name } = read(call, needs_name, body)?;
                Ok(Answer::mountpoint(self.get(&name)?.mountpoint))
            }
            "VolumeDriver.Create" => {
                let wanted: Wanted = read(call, "{\"Name\": \"…\", \"Opts\": {…}}", body)?;
                let options = wanted.options.unwrap_or_default();
                let options = Options::parse(options).map_err(Refusal::bad_request)?;
                self.create(name(&wanted.name)?, options).await.map(|_| Answer::done())
            }
            "VolumeDriver.Remove" => {
                let wanted: Named = read(call, needs_name, body)?;
                self.remove(name(&wanted.name)?).await.map(|_| Answer::done())
            }
            "VolumeDriver.Mount" => {
                let wanted: Held = read(call, needs_holder, body)?;
                let path = self.mount(name(&wanted.name)?, wanted.id).await?;
                Ok(Answer::mountpoint(path.display().to_string()))
            }
            "VolumeDriver.Unmount" => {
                let wanted: Held = read(call, needs_holder, body)?;
                self.unmount(name(&wanted.name)?, wanted.id).await.map(|_| Answer::done())
            }
            _ => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("there is no call {call:?}: this is a volume plugin (VolumeDriver, version 1)"),
            )),
        }
    }

    /// From memory: Docker holds locks while it waits for this.
    fn list(&self) -> Vec<Volume> {
        let volumes = self.engine.volumes();
        let made = volumes.iter().filter(|volume| volume.pending != Some(Intent::Create));
        made.map(|volume| Volume {
            name: volume.name.to_string(),
            mountpoint: self.mountpoint(volume),
            created_at: None,
            status: BTreeMap::new(),
        })
        .collect()
    }

    /// From memory, and no error for a volume that is there, in whatever state.
    fn get(&self, text: &str) -> Result<Volume, Refusal> {
        let name: VolumeName = text.parse().map_err(|_| no_such_volume(text))?;
        let volume = self.engine.volume(&name).map_err(|_| no_such_volume(text))?;
        let state = match (&volume.fenced, volume.attachments.is_empty()) {
            (Some(_), _) => "fenced",
            (None, _) if volume.restoring().is_some() => "restoring",
            (None, true) => "detached",
            (None, false) => "attached",
        };
        let mut status = BTreeMap::from([
            ("driver", volume.spec.kind().to_string()),
            ("id", volume.id.to_string()),
            ("pool", volume.spec.pool.to_string()),
            ("state", state.to_owned()),
        ]);
        if let Some(size) = volume.spec.size() {
            status.insert("size", size.to_string());
        }
        if let Some(reason) = &volume.fenced {
            status.insert("reason", reason.clone());
        }
        Ok(Volume {
            name: name.to_string(),
            mountpoint: self.mountpoint(&volume),
            created_at: Some(volume.created.to_string()),
            status,
        })
    }

    fn mountpoint(&self, volume: &model::Volume) -> String {
        self.engine.path_of(volume.id).map_or_else(String::new, |path| path.display().to_string())
    }
}
