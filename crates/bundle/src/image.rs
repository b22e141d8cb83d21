//! Images as documents: a config, layers, names. What is in the layers is none of its business.

use crate::digest::Digest;
use crate::error::{Error, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image, whose layers are blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The config document, byte for byte: its digest is the image's ID.
    pub config: Vec<u8>,
    /// The layers, lowest first, as many as the config's `rootfs.diff_ids`.
    pub layers: Vec<Layer>,
    /// `busybox:1.36`: its names, as `docker save` has them.
    pub tags: Vec<String>,
}

/// A layer of an image: a tar file that is not compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its digest, which is also the config's `diff_id`.
    pub digest: Digest,
    /// Its size in bytes; 0 when it is not inside and not known.
    pub size: u64,
    /// Whether the image is by reference: whoever restores must have the layer from elsewhere.
    pub absent: bool,
}

/// What [`Image::with_layers`] makes of an image.
#[derive(Debug, Clone)]
pub struct Change {
    /// When.
    pub created: Timestamp,
    /// By which command, for the history.
    pub created_by: String,
    /// The names of the new image.
    pub tags: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

fn not_a_config(why: impl ToString) -> Error {
    Error::Document { what: "the config of an image".into(), why: why.to_string() }
}

/// The layers that a config names, lowest first.
///
/// # Errors
/// It is not a config.
pub(crate) fn diff_ids(config: &[u8]) -> Result<Vec<Digest>> {
    Ok(serde_json::from_slice::<Config>(config).map_err(not_a_config)?.rootfs.diff_ids)
}

impl Image {
    /// An image none of whose layers is in the bundle.
    ///
    /// # Errors
    /// The config is none.
    pub fn by_reference(config: Vec<u8>, tags: Vec<String>) -> Result<Self> {
        let layer = |digest| Layer { digest, size: 0, absent: true };
        let layers = diff_ids(&config)?.into_iter().map(layer).collect();
        Ok(Self { config, layers, tags })
    }

    /// The image's ID as Docker has it.
    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// A name for errors.
    pub(crate) fn title(&self) -> String {
        self.tags.first().cloned().unwrap_or_else(|| self.id().to_string())
    }

    /// The image with layers on top, as `docker commit` would make it.
    ///
    /// # Errors
    /// The config is none.
    pub fn with_layers(&self, layers: &[Layer], change: &Change) -> Result<Self> {
        let mut config: Value = serde_json::from_slice(&self.config).map_err(not_a_config)?;
        let object = config.as_object_mut().ok_or_else(|| not_a_config("it is not an object"))?;
        let created = change.created.to_string();
        object.insert("created".into(), json!(created));
        let diff_ids = object
            .get_mut("rootfs")
            .and_then(|rootfs| rootfs.as_object_mut())
            .map(|rootfs| rootfs.entry("diff_ids").or_insert_with(|| json!([])));
        let diff_ids =
            diff_ids.and_then(Value::as_array_mut).ok_or_else(|| not_a_config("it has no rootfs"))?;
        diff_ids.extend(layers.iter().map(|layer| json!(layer.digest)));
        let history = object.entry("history").or_insert_with(|| json!([]));
        if !history.is_array() {
            *history = json!([]);
        }
        if let Some(history) = history.as_array_mut() {
            let entry = || json!({ "created": created, "created_by": change.created_by });
            history.extend(layers.iter().map(|_| entry()));
        }
        let config = serde_json::to_vec(&config).map_err(not_a_config)?;
        Ok(Self {
            config,
            layers: self.layers.iter().chain(layers).cloned().collect(),
            tags: change.tags.clone(),
        })
    }

    /// The OCI manifest.
    pub(crate) fn manifest(&self) -> Result<Vec<u8>> {
        let layer = |layer: &Layer| json!({ "mediaType": LAYER, "digest": layer.digest, "size": layer.size });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": self.id(), "size": self.config.len() },
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        });
        serde_json::to_vec(&manifest).map_err(not_a_config)
    }

    /// Its entries in the OCI index: one for each name, with the annotations by which containerd and skopeo find it.
    pub(crate) fn index_entries(&self, manifest: Digest, size: u64) -> Vec<Value> {
        let config: Value = serde_json::from_slice(&self.config).unwrap_or_default();
        let field = |name: &str, default: &str| config[name].as_str().unwrap_or(default).to_owned();
        let mut platform = json!({
            "architecture": field("architecture", "amd64"),
            "os": field("os", "linux"),
        });
        if let Some(variant) = config["variant"].as_str() {
            platform["variant"] = json!(variant);
        }
        let entry = json!({ "mediaType": MANIFEST, "digest": manifest, "size": size, "platform": platform });
        if self.tags.is_empty() {
            return vec![entry];
        }
        let named = |tag: &String| {
            let full = full_name(tag);
            let short = full.rsplit(':').next().unwrap_or_default().to_owned();
            let mut entry = entry.clone();
            entry["annotations"] = json!({
                "io.containerd.image.name": full,
                "org.opencontainers.image.ref.name": short,
            });
            entry
        };
        self.tags.iter().map(named).collect()
    }
}

/// A name with everything that Docker lets people leave out: `busybox:1` is `docker.io/library/busybox:1`.
fn full_name(tag: &str) -> String {
    let tagged = if tag.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        tag.to_owned()
    } else {
        format!("{tag}:latest")
    };
    match tagged.split_once('/') {
        None => format!("docker.io/library/{tagged}"),
        Some((registry, _)) if registry.contains(['.', ':']) || registry == "localhost" => tagged,
        Some(_) => format!("docker.io/{tagged}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        for (tag, full) in [
            ("busybox:1", "docker.io/library/busybox:1"),
            ("busybox", "docker.io/library/busybox:latest"),
            ("everhold-test/busybox:1", "docker.io/everhold-test/busybox:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("ghcr.io/a/b:c", "ghcr.io/a/b:c"),
            ("localhost/a:1", "localhost/a:1"),
        ] {
            assert_eq!(full_name(tag), full);
        }
    }

    #[test]
    fn layers_go_on_top() {
        let base = Digest::of(b"base");
        let config = json!({ "architecture": "arm64", "config": { "Env": ["A=b"] }, "rootfs": { "type": "layers", "diff_ids": [base] } });
        let image = Image::by_reference(config.to_string().into_bytes(), vec!["a:1".into()]).unwrap();
        let layer = Layer { digest: Digest::of(b"top"), size: 3, absent: false };
        let change =
            Change { created: Timestamp::UNIX_EPOCH, created_by: "x".into(), tags: vec!["b:1".into()] };
        let new = image.with_layers(std::slice::from_ref(&layer), &change).unwrap();
        assert_eq!(diff_ids(&new.config).unwrap(), [base, layer.digest]);
        assert_eq!(new.layers.len(), 2);
        let config: Value = serde_json::from_slice(&new.config).unwrap();
        assert_eq!(config["config"]["Env"][0], "A=b");
        assert_eq!(config["history"][0]["created"], "1970-01-01T00:00:00Z");
        assert_ne!(new.id(), image.id());
    }
}
