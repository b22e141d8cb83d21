//! One process at a time. It knows a file and a process ID, and not what the lock protects.

use crate::KernelError;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A lock on a file, with the process ID of its holder in it. The kernel gives it up when this value is dropped or the
/// process ends, however it ends; the file stays.
#[derive(Debug)]
pub struct PidLock {
    _file: File,
}

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error("process {pid} holds the lock")]
    Held {
        /// The holder; 0 if it has not written its ID yet.
        pid: u32,
    },
    /// The file can't be used.
    #[error(transparent)]
    Io(#[from] KernelError),
}

impl PidLock {
    /// Takes the lock (`flock(2)`) or says at once who has it. The file is made if need be, readable for root only.
    ///
    /// # Errors
    /// [`LockError::Held`], or a file that can't be opened or written.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |op| move |source: std::io::Error| KernelError::on(op, path, source);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(crate::fs::NOFOLLOW);
        let mut file = options.open(path).map_err(failed("open"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(failed("read"))?;
                return Err(LockError::Held { pid: holder.trim().parse().unwrap_or(0) });
            }
            Err(errno) => return Err(KernelError::on("flock", path, errno).into()),
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
