//! The documents of a bundle: settings that are handed in, and those that make the file an OCI layout and `docker load` work.

use super::Writer;
use crate::contents::Role;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::frame;
use crate::image::Image;
use serde::de::IgnoredAny;
use serde_json::json;
use std::collections::BTreeSet;

impl Writer {
    /// Puts in the settings of a container, a JSON document.
    ///
    /// # Errors
    /// It is no JSON, the container was there already, or writing failed.
    pub fn container(&mut self, name: &str, document: &[u8]) -> Result<()> {
        let path = format!("containers/{}.json", frame::safe(name));
        self.settings(path, document, Role::Container { name: name.to_owned() })
    }

    /// Puts in what is common to the containers, a JSON document.
    ///
    /// # Errors
    /// It is no JSON, there was one already, or writing failed.
    pub fn project(&mut self, document: &[u8]) -> Result<()> {
        self.settings(frame::PROJECT.to_owned(), document, Role::Project)
    }

    fn settings(&mut self, path: String, document: &[u8], role: Role) -> Result<()> {
        let refuse = |why: String| Err(Error::Document { what: path.clone(), why });
        if let Err(error) = serde_json::from_slice::<IgnoredAny>(document) {
            return refuse(error.to_string());
        }
        if !self.documents.insert(path.clone()) {
            return refuse("it was written already".into());
        }
        self.step(|writer| writer.document(&path, document, role))
    }

    /// Puts in an image whose layers are in the bundle, or which is by reference.
    ///
    /// # Errors
    /// A layer is missing, or writing failed.
    pub fn image(&mut self, image: &Image) -> Result<()> {
        if let Some(layer) = image.layers.iter().find(|layer| !layer.absent && !self.has_blob(&layer.digest))
        {
            return Err(Error::NoBlob { image: image.title(), digest: layer.digest.to_string() });
        }
        self.step(|writer| {
            let config = &image.config[..];
            writer.blob(&mut &config[..], Some(config.len() as u64), None)?;
            let manifest = image.manifest()?;
            writer.blob(&mut &manifest[..], Some(manifest.len() as u64), None)?;
            if !writer.images.contains(image) {
                writer.images.push(image.clone());
            }
            Ok(())
        })
    }

    /// Writes `index.json` and `manifest.json`, and says of each blob whether it is needed. Answers the layers that are not inside.
    pub(super) fn image_documents(&mut self) -> Result<Vec<Digest>> {
        let mut absent = BTreeSet::new();
        let mut needed = BTreeSet::new();
        let (mut index, mut docker) = (Vec::new(), Vec::new());
        for image in &self.images {
            let manifest = image.manifest()?;
            let (config, digest) = (Digest::of(&image.config), Digest::of(&manifest));
            needed.extend([config, digest]);
            let layers = image.layers.iter().map(|layer| layer.digest);
            needed.extend(layers.clone());
            absent.extend(layers.clone().filter(|layer| !self.blobs.contains_key(layer)));
            index.extend(image.index_entries(digest, manifest.len() as u64));
            let path = |digest: Digest| format!("{}{}", frame::BLOBS, digest.hex());
            docker.push(json!({
                "Config": path(config),
                "RepoTags": image.tags,
                "Layers": layers.map(path).collect::<Vec<_>>(),
            }));
        }
        for member in &mut self.members {
            let blob = member.path.strip_prefix(frame::BLOBS).and_then(Digest::from_hex);
            if blob.is_some_and(|digest| !needed.contains(&digest)) {
                member.role = Role::Unused;
            }
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": index,
        });
        self.document(frame::INDEX, index.to_string().as_bytes(), Role::Image)?;
        let docker = serde_json::Value::Array(docker);
        self.document(frame::MANIFEST, docker.to_string().as_bytes(), Role::Image)?;
        Ok(absent.into_iter().collect())
    }
}
