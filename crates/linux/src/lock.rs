//! A lock that one process has, with its pid for the others to see.

use crate::KernelError;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("held by process {pid}")]
    Held {
        /// Its process ID, as it wrote it; 0 if it has not yet.
        pid: u32,
    },
    /// The file can't be used.
    #[error(transparent)]
    Io(#[from] KernelError),
}

/// The lock, until dropped or until the process ends.
#[derive(Debug)]
pub struct PidLock {
    _file: File,
}

impl PidLock {
    /// Takes the lock on the file at `path`, making it if absent, and writes our pid into it.
    ///
    /// # Errors
    /// [`LockError::Held`] with the pid of the process that has it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |op| move |source: io::Error| LockError::Io(KernelError::at(op, path, source));
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).to_owned();
        let mut file = options.open(path).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(failed("read"))?;
                return Err(LockError::Held { pid: text.trim().parse().unwrap_or(0) });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed("write"))?;
        Ok(Self { _file: file })
    }
}
