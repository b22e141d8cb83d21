//! Where a backup is: a file, or a vault; and the directory where one is on its way between the two.

use crate::config::Config;
use api::v1::Problem;
use linux::fs::remove_tree;
use model::{BundleName, ErrorKind, VaultName};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A file, or a bundle in a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This file.
    File(PathBuf),
    /// This vault, and this bundle in it if one is named.
    Vault(VaultName, Option<BundleName>),
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (vault, bundle) = text.split_once('/').map_or((text, None), |(vault, rest)| (vault, Some(rest)));
        let vault = match vault.strip_prefix("vault:") {
            Some(name) => name.parse().map_err(|error: model::NameError| error.to_string())?,
            None if vault == "vault" => VaultName::default(),
            None => return Ok(Self::File(text.into())),
        };
        let bundle =
            bundle.map(str::parse).transpose().map_err(|error: model::NameError| error.to_string())?;
        Ok(Self::Vault(vault, bundle))
    }
}

/// A directory for one file on its way. It is held as long as this process lives, and goes with it; what a killed one has left goes
/// with the next.
pub struct Spool {
    dir: PathBuf,
    _held: File,
}

fn failed(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        ErrorKind::Internal,
        format!("{}: {error}", path.display()),
        "see that the state directory is this host's and can be written, and run this as root",
    )
    .with_data_state("nothing was changed")
}

/// The directory, held for this process alone; `None` if another one has it, or has removed it meanwhile.
fn hold(dir: &Path) -> io::Result<Option<File>> {
    let held = File::open(dir)?;
    match held.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
        other => other.map_err(io::Error::from)?,
    }
    let same =
        std::fs::metadata(dir).is_ok_and(|now| held.metadata().is_ok_and(|was| was.ino() == now.ino()));
    Ok(same.then_some(held))
}

impl Spool {
    /// A new one in the state directory.
    pub fn new(config: &Config) -> Result<Self, Problem> {
        let all = config.state.join("spool");
        let make = |path: &Path, recursive| DirBuilder::new().recursive(recursive).mode(0o700).create(path);
        make(&all, true).map_err(|error| failed(&all, &error))?;
        // The daemon knows it by its real path.
        let all = all.canonicalize().map_err(|error| failed(&all, &error))?;
        for left in std::fs::read_dir(&all).map_err(|error| failed(&all, &error))?.flatten() {
            if let Ok(Some(_held)) = hold(&left.path()) {
                remove_tree(&left.path()).map_err(|error| {
                    Problem::new(ErrorKind::Internal, error.to_string(), "remove it, then try again")
                })?;
            }
        }
        for number in 0_u32.. {
            let dir = all.join(format!("{}-{number}", std::process::id()));
            match make(&dir, false) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(|error| failed(&dir, &error))?,
            }
            match hold(&dir) {
                Ok(Some(held)) => return Ok(Self { dir, _held: held }),
                // Taken for a left one by another process that sweeps.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&dir, &error)),
            }
        }
        Err(failed(&all, &io::ErrorKind::AlreadyExists.into()))
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.dir.join("bundle.tar")
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "what was on its way is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_file_is_what_does_not_begin_as_a_vault() {
        let vault = |vault: &str, bundle: Option<&str>| {
            Place::Vault(vault.parse().unwrap(), bundle.map(|bundle| bundle.parse().unwrap()))
        };
        for (text, place) in [
            ("vault", vault("local", None)),
            ("vault:far", vault("far", None)),
            ("vault/web-1", vault("local", Some("web-1"))),
            ("vault:far/web-1", vault("far", Some("web-1"))),
            ("./vault/x.tar", Place::File("./vault/x.tar".into())),
            ("/backup/vault:x", Place::File("/backup/vault:x".into())),
            ("vaults/x", Place::File("vaults/x".into())),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        for bad in ["vault:", "vault/", "vault:far/", "vault:far/a/b", "vault/../x"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
