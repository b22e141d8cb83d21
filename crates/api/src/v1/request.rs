//! What a client asks for.

use super::{Access, Pairs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// A volume to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Its name: an ASCII letter or digit, then letters, digits, `_`, `.` or `-`; at most 128 bytes.
    #[schema(example = "pgdata")]
    pub name: String,
    /// Options with the keys and values of `docker volume create -o`: `autogrow`, `driver`, `exclusive`, `fs`, `gid`,
    /// `label.KEY`, `mode`, `mount-options`, `path`, `pool`, `provisioning`, `readonly`, `selinux`, `size`, `uid`.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>, example = json!({"driver": "image", "size": "10GiB"}))]
    pub options: Pairs,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>, example = json!({"env": "prod"}))]
    pub labels: Pairs,
}

/// Another name for a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The new name.
    pub to: String,
}

/// A size to grow to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grow {
    /// The new size: a number of bytes, or a text with a unit such as `20GiB` or `500MB`.
    pub size: SizeText,
}

/// A size as a number of bytes or as a text with a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SizeText {
    /// A number of bytes.
    Bytes(u64),
    /// A number and a unit.
    Text(String),
}

impl SizeText {
    /// The size.
    ///
    /// # Errors
    /// In words, when the text is no size.
    pub fn size(&self) -> Result<model::Size, model::SizeError> {
        match self {
            Self::Bytes(bytes) => bytes.to_string().parse(),
            Self::Text(text) => text.parse(),
        }
    }
}

/// Labels to set and to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Labels to set, whether they are there or not.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Keys of labels to remove; one that is not there is no error.
    #[serde(default)]
    pub unset: Vec<String>,
}

/// An attachment to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// The holder's own identifier, 1 to 256 printable characters; made up and returned if absent. The same identifier
    /// twice is one attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the holder will do. It is recorded for `holders`; the mount itself is read-only only for a volume
    /// created with `readonly=true`.
    #[serde(default)]
    pub access: Access,
}

/// Where a volume comes back to from the trash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Another name; its own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#as: Option<String>,
}

/// How a vault is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CheckVault {
    /// Read everything, and not only what tells whether something is missing. It takes as long as reading the vault does.
    #[serde(default)]
    #[param(required = false)]
    pub deep: bool,
}

/// Whether to only say what would be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DryRun {
    /// Check everything and change nothing.
    #[serde(default)]
    #[param(required = false)]
    pub dry_run: bool,
}
