//! What this host keeps of its vaults in the state directory, for root only: who it is, and for each vault the key and
//! the record, from which a lost catalog gets it back.
//!
//! ```text
//! STATE/node-id            32 hexadecimal digits: who claims vaults
//! STATE/vaults/NAME.key    what the vault's key is, so that the daemon works unattended
//! STATE/vaults/NAME.json   what the catalog says of it
//! ```

use super::{VaultError, VaultRecord};
use crate::Result;
use crate::engine::make_dir;
use linux::fs::write_atomically;
use model::VaultName;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use vault::keys::{DataKey, VaultId};
use zeroize::Zeroizing;

const PLAIN: &str = "everhold data key 1";

/// The files of the vaults below one state directory.
#[derive(Debug)]
pub(super) struct Files {
    state: PathBuf,
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    // Writing to a string does not fail.
    bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap_or_default());
    text
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl Files {
    pub(super) fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    fn dir(&self) -> PathBuf {
        self.state.join("vaults")
    }

    pub(super) fn key_file(&self, name: &VaultName) -> PathBuf {
        self.dir().join(format!("{name}.key"))
    }

    fn record_file(&self, name: &VaultName) -> PathBuf {
        self.dir().join(format!("{name}.json"))
    }

    /// This host's identity; drawn once.
    pub(super) fn node_id(&self) -> Result<String> {
        let path = self.state.join("node-id");
        if let Ok(text) = std::fs::read_to_string(&path) {
            let id = text.trim();
            if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Ok(id.to_owned());
            }
            tracing::warn!(path = %path.display(), "is not the identity of a host; a new one is drawn");
        }
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| vault::keys::KeyError::Random)
            .map_err(VaultError::from)?;
        let id = hex(&bytes).to_string();
        write_atomically(&path, format!("{id}\n").as_bytes(), 0o600)?;
        Ok(id)
    }

    pub(super) fn write_key(&self, name: &VaultName, id: VaultId, key: &DataKey) -> Result<()> {
        make_dir(&self.dir(), 0o700)?;
        let text = Zeroizing::new(format!("{PLAIN}\n{id}\n{}\n", hex(key.expose()).as_str()));
        Ok(write_atomically(&self.key_file(name), text.as_bytes(), 0o600)?)
    }

    pub(super) fn read_key(&self, name: &VaultName, id: VaultId) -> std::result::Result<DataKey, VaultError> {
        let path = self.key_file(name);
        let failed = |why: String| VaultError::KeptKey { name: name.clone(), path: path.clone(), why };
        let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?);
        let mut lines = text.lines();
        if lines.next() != Some(PLAIN) {
            return Err(failed("it is not the file of a key".into()));
        }
        if lines.next() != Some(&id.to_string()) {
            return Err(failed("it is the key of another vault".into()));
        }
        let key = lines.next().and_then(unhex).ok_or_else(|| failed("the key in it is not whole".into()))?;
        Ok(DataKey::from_bytes(key))
    }

    pub(super) fn write_record(&self, record: &VaultRecord, text: &[u8]) -> Result<()> {
        make_dir(&self.dir(), 0o700)?;
        Ok(write_atomically(&self.record_file(&record.name), text, 0o600)?)
    }

    /// The records that lie here with their keys.
    pub(super) fn records(&self) -> Vec<VaultRecord> {
        let entries = std::fs::read_dir(self.dir()).into_iter().flatten().flatten();
        let read = |path: PathBuf| {
            (path.extension()? == "json").then_some(())?;
            let text = std::fs::read(&path).ok()?;
            match VaultRecord::decode(&text) {
                Ok(record) => Some(record),
                Err(error) => {
                    tracing::error!(path = %path.display(), error, "the record of a vault can't be read");
                    None
                }
            }
        };
        let found = entries.filter_map(|entry| read(entry.path()));
        found.filter(|record| self.key_file(&record.name).exists()).collect()
    }

    pub(super) fn forget_record(&self, name: &VaultName) -> Result<()> {
        remove(&self.record_file(name))
    }

    pub(super) fn forget_key(&self, name: &VaultName) -> Result<()> {
        remove(&self.key_file(name))
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(linux::KernelError { op: "remove", path: Some(path.to_owned()), source }.into())
        }
        _ => Ok(()),
    }
}
