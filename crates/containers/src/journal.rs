//! What a verb has begun, on disk before it is done: whoever finds it later can finish or undo it.

use crate::error::{Error, Result};
use crate::hooks::Hook;
use crate::relocate::kept::Swap;
use crate::restore::Made;
use linux::lock::{LockError, PidLock};
use model::ErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The ending of journals' names.
const SUFFIX: &str = ".json";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing of what runs has been touched.
    Copying,
    /// Containers are frozen, or about to be.
    Paused,
    /// The old containers are ended and the new ones take their names.
    Switching,
    /// The new containers are being started, or have been.
    Started,
    /// All is well: what is left is to put things away.
    Done,
}

/// A container that is made anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// The old container's ID.
    pub old: String,
    /// The name, which the new one takes over.
    pub name: String,
    /// The old one's name afterwards.
    pub kept: String,
    /// The new one's name before.
    pub coming: String,
    /// The new one's ID, once it is made.
    pub new: Option<String>,
    /// Whether the old one ran.
    pub ran: bool,
    /// Its restart policy, which is taken off the old one so that it does not come back by itself.
    pub restart_policy: Value,
    /// Whether its health check had failed before.
    #[serde(default)]
    pub was_unhealthy: bool,
}

/// A volume that data goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Whether it has been, or is about to be, made for this.
    pub made: bool,
}

/// An old volume that gives up its name: its directory changes places with that of a volume of another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameGiven {
    /// The name.
    pub name: String,
    /// The Everhold volume that takes it, under the name that it has until then.
    pub taker: String,
    /// Where the old data is kept.
    pub kept: String,
    /// The inode of the old data's directory, by which it is known wherever it is.
    pub inode: u64,
    /// The old volume's labels.
    pub labels: Value,
}

/// What there is to finish or undo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version: 1.
    pub version: u32,
    /// `rescue`, `adopt`, `backup`, `restore`, `return` (to an old container) or `removal` (of one).
    pub verb: String,
    /// The engine's socket.
    pub engine: PathBuf,
    /// By which the daemon knows our use of the volumes.
    pub r#use: String,
    /// How far it is.
    pub phase: Phase,
    /// The containers.
    pub holders: Vec<Holder>,
    /// The volumes.
    pub targets: Vec<Target>,
    /// A name that changes hands.
    #[serde(default)]
    pub name_given: Option<NameGiven>,
    /// Containers that are frozen for a moment, and stay what they are.
    #[serde(default)]
    pub frozen: Vec<String>,
    /// What is to be run in containers afterwards, whatever happens.
    #[serde(default)]
    pub post: Vec<Hook>,
    /// A container that gives its name back to an old one.
    #[serde(default)]
    pub swap: Option<Swap>,
    /// What is made where nothing was.
    #[serde(default)]
    pub made: Made,
    /// It was decided that it is undone: whoever goes on with it does not finish it any more.
    #[serde(default)]
    pub undoing: bool,
    /// All containers that it is about, which nobody else touches until it is over.
    #[serde(default)]
    pub containers: Vec<String>,
}

/// A record on disk, which only one process writes at a time.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// What it says.
    pub record: Record,
    _lock: PidLock,
}

fn lock(path: &Path) -> Result<PidLock> {
    PidLock::acquire(&path.with_extension("lock")).map_err(|error| match error {
        LockError::Held { pid } => Error::new(
            ErrorKind::Busy,
            format!("process {pid} is at work on this already"),
            "wait until it has ended, then look again",
        ),
        LockError::Io(error) => error.into(),
    })
}

/// One begins at a time, so that of two that are about the same container the second sees the first.
fn beginning(directory: &Path) -> Result<PidLock> {
    let path = directory.join("beginning");
    for _ in 0..50 {
        match lock(&path) {
            Err(error) if error.kind == ErrorKind::Busy => std::thread::sleep(Duration::from_millis(100)),
            other => return other,
        }
    }
    lock(&path)
}

/// Two verbs on one container at once would let it go on while the other one has it stand still.
fn alone(directory: &Path, own: &Path, record: &Record) -> Result<()> {
    for path in Journal::all(directory)?.into_iter().filter(|path| path != own) {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::on(&path, &error)),
        };
        // One that is not understood is for whoever recovers, who says so.
        let Ok(other) = serde_json::from_slice::<Record>(&text) else { continue };
        if other.shares(record) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("a {} of the same container has been begun and is not over", other.verb),
                "wait until it has ended; if nobody is at work on it, `everhold rescue --recover` clears it up",
            ));
        }
    }
    Ok(())
}

impl Record {
    /// That nothing has been begun yet.
    pub fn new(verb: &str, engine: &Path, r#use: String) -> Self {
        Self {
            version: 1,
            verb: verb.to_owned(),
            engine: engine.to_owned(),
            r#use,
            phase: Phase::Copying,
            holders: Vec::new(),
            targets: Vec::new(),
            name_given: None,
            frozen: Vec::new(),
            post: Vec::new(),
            swap: None,
            made: Made::default(),
            undoing: false,
            containers: Vec::new(),
        }
    }

    /// A container that both are about.
    fn shares(&self, other: &Self) -> bool {
        self.containers.iter().any(|container| other.containers.contains(container))
    }
}

impl Journal {
    /// Begins one with this name.
    ///
    /// # Errors
    /// Somebody is at it; an earlier one is not finished; the directory can't be written.
    pub fn begin(directory: &Path, name: &str, record: Record) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| Error::on(directory, &error))?;
        let path = directory.join(format!("{name}{SUFFIX}"));
        let _beginning = beginning(directory)?;
        alone(directory, &path, &record)?;
        let lock = lock(&path)?;
        if path.exists() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("an earlier {} of this was interrupted and is not cleared up yet", record.verb),
                "`everhold rescue --recover` brings back what it left, then try again",
            ));
        }
        let journal = Self { path, record, _lock: lock };
        journal.write()?;
        Ok(journal)
    }

    /// Takes over one whose process has ended; `None` where it has been ended meanwhile.
    ///
    /// # Errors
    /// Somebody is at it; it can't be read.
    pub fn take_over(path: &Path) -> Result<Option<Self>> {
        let lock = lock(path)?;
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::on(path, &error)),
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| {
            Error::new(
                ErrorKind::Damaged,
                format!("{}: {error}", path.display()),
                "read it, bring the containers back by hand, then delete it",
            )
        })?;
        Ok(Some(Self { path: path.to_owned(), record, _lock: lock }))
    }

    /// The journals in a directory.
    ///
    /// # Errors
    /// It can't be read.
    pub fn all(directory: &Path) -> Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::on(directory, &error)),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(SUFFIX));
        paths.sort();
        Ok(paths)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what it says; durable when this returns.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note(&mut self, change: impl FnOnce(&mut Record)) -> Result<()> {
        change(&mut self.record);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.record)
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string(), "report it"))?;
        Ok(linux::fs::write_atomically(&self.path, &text, 0o600)?)
    }

    /// There is nothing to finish or undo any more.
    ///
    /// # Errors
    /// It can't be deleted.
    pub fn end(self) -> Result<()> {
        for path in [self.path.clone(), self.path.with_extension("lock")] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::on(&path, &error)
                        .with_state("all that it is about is over, and only this file is left"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_verbs_on_one_container_the_second_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let record = |verb: &str, containers: &[&str]| {
            let mut record = Record::new(verb, Path::new("/run/docker.sock"), "use".to_owned());
            record.containers = containers.iter().map(|id| (*id).to_owned()).collect();
            record
        };
        let rescue = Journal::begin(directory.path(), "rescue-a", record("rescue", &["a", "b"])).unwrap();
        let refused = Journal::begin(directory.path(), "backup-b", record("backup", &["b"])).unwrap_err();
        assert!(refused.kind == ErrorKind::Conflict && refused.what.contains("rescue"), "{refused}");
        let other = Journal::begin(directory.path(), "backup-c", record("backup", &["c"])).unwrap();
        other.end().unwrap();
        // Its process has ended, and nobody has cleared up yet.
        let path = rescue.path().to_owned();
        drop(rescue);
        Journal::begin(directory.path(), "backup-b", record("backup", &["b"])).unwrap_err();
        Journal::take_over(&path).unwrap().unwrap().end().unwrap();
        Journal::begin(directory.path(), "backup-b", record("backup", &["b"])).unwrap();
    }
}
