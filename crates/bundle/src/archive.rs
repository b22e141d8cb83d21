//! Taking apart what `docker save` writes, while it comes.
//!
//! Two forms: up to Docker 24 `ID/layer.tar`, `HEX.json` and `manifest.json`; since 25 an OCI layout that has a `manifest.json`
//! too. In both, `manifest.json` comes after what it names, so layers are stored before anybody knows whose they are.

use crate::digest::{Digest, Sha};
use crate::error::{Error, Result};
use crate::image::{Image, Layer, diff_ids};
use crate::tar::Kind;
use crate::tar::read::Archive;
use crate::writer::Writer;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use std::collections::HashMap;
use std::io::Read;

/// The most that a document (a config, a manifest) may have, and all of them together.
const DOCUMENT: u64 = 8 << 20;
const DOCUMENTS: u64 = 128 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// How many bytes tell what a blob is.
const MAGIC: u64 = 4;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy)]
enum Packed {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Packed {
    /// Told by its first bytes, which no layer begins with: they would be the beginning of a path.
    fn of(first: &[u8]) -> Option<Self> {
        match first {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Makes a digest of what is read.
struct Counted<R> {
    input: R,
    sha: Sha,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.sha.update(&buffer[..read]);
        Ok(read)
    }
}

/// What was met, by path in the archive.
#[derive(Default)]
struct Met {
    blobs: HashMap<String, (Digest, u64)>,
    documents: HashMap<String, Vec<u8>>,
    links: HashMap<String, String>,
}

fn refuse(why: impl Into<String>) -> Error {
    Error::Archive { why: why.into() }
}

impl Writer {
    /// Takes the stream of `docker save`, or of `GET /images/NAME/get`, and stores the layers and the configs of all images in it.
    /// They are in the bundle only when they are handed to [`Writer::image`], changed or as they are.
    ///
    /// # Errors
    /// The stream ends early or is not what an engine sends, a layer is not what its config says, or writing failed.
    pub fn image_archive(&mut self, stream: impl Read) -> Result<Vec<Image>> {
        self.step(|writer| {
            let mut archive = Archive::new(stream);
            let met = writer.meet(&mut archive)?;
            let mut met_images = Vec::new();
            let document = met.documents.get("manifest.json");
            let document = document.ok_or_else(|| refuse("it has no manifest.json"))?;
            let manifests: Vec<Manifest> = serde_json::from_slice(document)
                .map_err(|error| refuse(format!("manifest.json: {error}")))?;
            for manifest in manifests {
                met_images.push(writer.take_image(&met, manifest)?);
            }
            Ok(met_images)
        })
    }

    /// An image that an interrupted attempt had stored already, by its ID, so that it need not be saved again. Its tags are
    /// not known.
    ///
    /// # Errors
    /// The bundle can't be read.
    pub fn kept_image(&mut self, id: &Digest) -> Result<Option<Image>> {
        let Some(config) = self.blob_content(id, DOCUMENT)? else { return Ok(None) };
        let Ok(digests) = diff_ids(&config) else { return Ok(None) };
        let layer = |digest: Digest| {
            let size = self.blob_size(&digest)?;
            Some(Layer { digest, size, absent: false })
        };
        let layers: Option<Vec<Layer>> = digests.into_iter().map(layer).collect();
        Ok(layers.map(|layers| Image { config, layers, tags: Vec::new() }))
    }

    fn meet(&mut self, archive: &mut Archive<impl Read>) -> Result<Met> {
        let mut met = Met::default();
        let mut held = 0;
        while let Some(meta) = archive.next().map_err(|error| refuse(error.to_string()))? {
            let path = String::from_utf8_lossy(&meta.path).trim_start_matches("./").to_owned();
            match &meta.kind {
                Kind::Link(to) | Kind::Symlink(to) => {
                    let to = String::from_utf8_lossy(to);
                    let relative = matches!(meta.kind, Kind::Symlink(_));
                    if let Some(to) = resolve(&path, &to, relative) {
                        met.links.insert(path, to);
                    }
                }
                Kind::File if meta.sparse.is_some() => return Err(refuse("it has a sparse file")),
                Kind::File => {
                    let blob = path.strip_prefix("blobs/sha256/").and_then(Digest::from_hex);
                    let layer = path.ends_with("/layer.tar") || path == "layer.tar";
                    let mut first = Vec::new();
                    if blob.is_some() || layer || path.ends_with(".json") {
                        let some = archive.by_ref().take(MAGIC).read_to_end(&mut first);
                        some.map_err(|error| refuse(error.to_string()))?;
                    }
                    if matches!(first.first(), Some(b'{' | b'[')) && meta.size <= DOCUMENT {
                        held += meta.size;
                        if held > DOCUMENTS {
                            return Err(refuse("its documents are too large"));
                        }
                        archive.read_to_end(&mut first).map_err(|error| refuse(error.to_string()))?;
                        if blob.is_some_and(|digest| digest != Digest::of(&first)) {
                            return Err(refuse(format!("{path} is not what its name says")));
                        }
                        met.documents.insert(path, first);
                    } else if blob.is_some() || layer {
                        // What is here already is stepped over; that it is the same was checked when it came.
                        let whole = &mut (&first[..]).chain(&mut *archive);
                        let digest = match blob.filter(|digest| self.has_blob(digest)) {
                            Some(digest) => digest,
                            None => match Packed::of(&first) {
                                Some(packed) => self.unpacked(whole, packed, blob)?,
                                None => self.blob(whole, Some(meta.size), blob)?,
                            },
                        };
                        let size = self.blob_size(&digest).unwrap_or(meta.size);
                        met.blobs.insert(path, (digest, size));
                    }
                }
                _ => {}
            }
        }
        Ok(met)
    }

    /// Stores a layer that is compressed as what it is without. Engines that keep images as they pulled them (with containerd's image
    /// store) save them so; configs, and the ID of the image, are of layers that are not.
    fn unpacked(&mut self, input: &mut impl Read, packed: Packed, name: Option<Digest>) -> Result<Digest> {
        let mut counted = Counted { input, sha: Sha::new() };
        let digest = match packed {
            Packed::Gzip => self.blob(&mut MultiGzDecoder::new(&mut counted), None, None)?,
            Packed::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(&mut counted);
                self.blob(&mut decoder.map_err(|error| refuse(error.to_string()))?, None, None)?
            }
        };
        // Nothing should be left, but it counts.
        let rest = std::io::copy(&mut counted, &mut std::io::sink());
        rest.map_err(|error| refuse(error.to_string()))?;
        if name.is_some_and(|name| name != counted.sha.finish()) {
            return Err(refuse("a compressed blob is not what its name says"));
        }
        Ok(digest)
    }

    fn take_image(&mut self, met: &Met, manifest: Manifest) -> Result<Image> {
        let config = met.documents.get(&manifest.config);
        let config =
            config.ok_or_else(|| refuse(format!("it lacks the config {}", manifest.config)))?.clone();
        let name = manifest.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if Digest::from_hex(name).is_some_and(|digest| digest != Digest::of(&config)) {
            return Err(refuse(format!("the config {} is not what its name says", manifest.config)));
        }
        let wanted = diff_ids(&config)?;
        if wanted.len() != manifest.layers.len() {
            return Err(refuse(format!(
                "the config {} names {} layers, and there are {}",
                manifest.config,
                wanted.len(),
                manifest.layers.len()
            )));
        }
        let mut layers = Vec::new();
        for (path, wanted) in manifest.layers.iter().zip(wanted) {
            // A link may lead to a link.
            let mut at = path;
            for _ in 0..8 {
                at = met.links.get(at).unwrap_or(at);
            }
            let (digest, size) = match (met.blobs.get(at), met.documents.get(at)) {
                (Some(blob), _) => *blob,
                // A small layer whose first file's name looks like the beginning of a document.
                (None, Some(bytes)) => {
                    (self.blob(&mut &bytes[..], Some(bytes.len() as u64), None)?, bytes.len() as u64)
                }
                (None, None) => return Err(refuse(format!("it lacks the layer {path}"))),
            };
            if digest != wanted {
                return Err(refuse(format!(
                    "the layer {path} has the digest {digest}, and the config says {wanted}"
                )));
            }
            layers.push(Layer { digest, size, absent: false });
        }
        self.blob(&mut &config[..], Some(config.len() as u64), None)?;
        Ok(Image { config, layers, tags: manifest.repo_tags.unwrap_or_default() })
    }
}

/// Where a link in the archive leads, as a path in it. A hard link's target is one already.
fn resolve(path: &str, to: &str, relative: bool) -> Option<String> {
    let mut parts: Vec<&str> =
        if relative && !to.starts_with('/') { path.split('/').collect() } else { vec![""] };
    parts.pop();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn links_lead_where_they_say() {
        assert_eq!(resolve("a/layer.tar", "../b/layer.tar", true).as_deref(), Some("b/layer.tar"));
        assert_eq!(resolve("a/layer.tar", "b/layer.tar", false).as_deref(), Some("b/layer.tar"));
        assert_eq!(resolve("a/layer.tar", "../../b", true), None);
    }
}
