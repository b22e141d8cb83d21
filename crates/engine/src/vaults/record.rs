//! What is recorded of a vault: where it is and how it is reached. Never a secret.

use jiff::Timestamp;
use model::VaultName;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vault::keys::VaultId;
use vault::store::{Credentials, Environment, S3Options};
use vault::url::Location;

const VERSION: u32 = 1;

/// How a bucket is reached: where its keys are, not what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaultAccess {
    /// A file like `~/.aws/credentials`; without one, the daemon's environment and what else is usual.
    pub credentials_file: Option<PathBuf>,
    /// The profile in it.
    pub profile: Option<String>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether an endpoint on another machine may be `http:`.
    pub allow_http: bool,
}

impl VaultAccess {
    pub(super) fn options(&self, environment: &Environment) -> S3Options {
        let credentials = match &self.credentials_file {
            Some(path) => Credentials::File { path: path.clone(), profile: self.profile.clone() },
            None => Credentials::Chain,
        };
        S3Options {
            credentials,
            environment: environment.clone(),
            allow_http: self.allow_http,
            ca_file: self.ca_file.clone(),
            ..S3Options::default()
        }
    }

    /// What is wrong with it for this place, in words.
    pub(super) fn problem(&self, url: &Location) -> Option<String> {
        if matches!(url, Location::Dir(_)) && *self != Self::default() {
            return Some(
                "credentials, certificates and http are for s3: only; a directory needs none".into(),
            );
        }
        if self.profile.is_some() && self.credentials_file.is_none() {
            return Some("a profile is one of a credentials file: name that too".into());
        }
        let relative =
            [&self.credentials_file, &self.ca_file].into_iter().flatten().find(|p| !p.is_absolute());
        relative.map(|path| format!("{} is not an absolute path", path.display()))
    }
}

/// A vault that this host knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRecord {
    /// Its name on this host.
    pub name: VaultName,
    /// Where it is.
    pub url: Location,
    /// Its identity.
    pub id: VaultId,
    /// When it was added here.
    pub added: Timestamp,
    /// How it is reached.
    #[serde(default)]
    pub access: VaultAccess,
    /// Whether nothing may ever be written to it from here.
    #[serde(default)]
    pub read_only: bool,
    /// Whether someone but this daemon can open it.
    #[serde(default)]
    pub has_kit: bool,
}

#[derive(Serialize)]
struct Out<'a> {
    version: u32,
    vault: &'a VaultRecord,
}

#[derive(Deserialize)]
struct In {
    vault: VaultRecord,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl VaultRecord {
    pub(super) fn encode(&self) -> std::result::Result<Vec<u8>, String> {
        serde_json::to_vec(&Out { version: VERSION, vault: self }).map_err(|error| error.to_string())
    }

    pub(super) fn decode(text: &[u8]) -> std::result::Result<Self, String> {
        let Version { version } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if version > VERSION {
            return Err(format!("it has version {version}, written by a later Everhold"));
        }
        serde_json::from_slice::<In>(text).map(|read| read.vault).map_err(|error| error.to_string())
    }
}
