//! The table of contents: every member, where it is, how it can be proved, and what it is for.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};

/// The name of the format in the document.
pub(crate) const FORMAT: &str = "everhold-bundle-contents";

/// `everhold-contents.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contents {
    pub format: String,
    pub version: u64,
    /// In the order of the file, without the table itself and the end.
    pub members: Vec<Member>,
    /// Layers that images in here need and that are not in here: images by reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Digest>,
}

/// One member of the tar file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name in the tar file.
    pub path: String,
    /// Where its data begins in the file; its header is the 512 bytes before.
    pub offset: u64,
    /// The size of its data in bytes.
    pub size: u64,
    /// The blake3 of its data, 64 hexadecimal digits.
    pub blake3: String,
    /// What it is for.
    pub role: Role,
}

/// What a member is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Role {
    /// What is this file.
    Preamble,
    /// A part of an image: `oci-layout`, `index.json`, `manifest.json`, or a blob.
    Image,
    /// One of the tar files of a volume, to be unpacked in the order of their numbers.
    Volume {
        /// The volume's name.
        name: String,
        /// From 0, without a gap.
        layer: u32,
    },
    /// The settings of a container.
    Container {
        /// Its name.
        name: String,
    },
    /// What is common to the containers.
    Project,
    /// Nothing needs it: it is left from an attempt that was interrupted, or there twice.
    Unused,
}
