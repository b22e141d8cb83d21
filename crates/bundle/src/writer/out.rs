//! The file that is being written: appended to, and patched in places that are written already.

use crate::error::{Error, Result};
use crate::tar::padding;
use rustix::fs::{Advice, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// So much is collected before it is written; what is larger is written as it comes.
const BUFFER: usize = 256 << 10;

/// What is handed to the kernel at once, in bytes. Most of the time goes into the kernel's copy into the page cache; on a virtual
/// machine 4 GiB took 2.1 and 4.8 s so, and 6.7 to 10 s in pieces of 2 MiB (few runs; probably for the larger folios).
const PIECE: usize = 64 << 10;

/// The kernel is asked to begin to write out what was appended each time that it is so much: left to itself it waits for a tenth
/// of the memory, and whoever then wants all of it on the disk waits for most of it.
const AHEAD: u64 = 16 << 20;

/// `FILE.partial`, locked.
pub(crate) struct Out {
    file: File,
    path: PathBuf,
    partial: PathBuf,
    /// Where the buffer's first byte belongs.
    flushed: u64,
    /// Up to where the kernel was asked to write out.
    begun: u64,
    buffer: Vec<u8>,
}

impl Out {
    /// Opens the partial file of a bundle, new or as an earlier attempt left it, and locks it.
    pub fn open(path: &Path) -> Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = rustix::fs::open(&partial, flags, Mode::RUSR | Mode::WUSR)
                .map_err(Error::io("could not open", &partial))?;
            let file = File::from(file);
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(Error::Busy { partial }),
                Err(error) => return Err(Error::io("could not lock", &partial)(error)),
            }
            // Another writer may have finished or abandoned it between our opening and locking it: then it has another name, or none.
            let ours = file.metadata().map_err(Error::io("could not look at", &partial))?;
            if !ours.is_file() {
                return Err(Error::Foreign { partial });
            }
            if partial.symlink_metadata().is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino()))
            {
                return Ok(Self {
                    file,
                    path: path.to_owned(),
                    partial,
                    flushed: 0,
                    begun: 0,
                    buffer: Vec::new(),
                });
            }
        }
    }

    /// Where it is written.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// The file, for those who overwrite it at several places at once. What is appended must be flushed first.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How large the file is.
    pub fn len(&self) -> Result<u64> {
        self.done(self.file.metadata()).map(|metadata| metadata.len())
    }

    /// Where the next byte is appended.
    pub fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    fn done<T>(&self, result: io::Result<T>) -> Result<T> {
        result.map_err(|source| Error::write(&self.partial, source))
    }

    /// Appends.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            for piece in bytes.chunks(PIECE) {
                self.done(self.file.write_all_at(piece, self.flushed))?;
                self.flushed += piece.len() as u64;
                self.write_out();
            }
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Appends zeros, as a hole where they are many.
    pub fn zeros(&mut self, count: u64) -> Result<()> {
        if count < BUFFER as u64 {
            return self.append(&vec![0; count as usize]);
        }
        self.flush()?;
        self.flushed += count;
        // Nothing is beyond the position: [`Out::cut`] saw to that.
        self.done(self.file.set_len(self.flushed))
    }

    /// Appends zeros up to the next block after `size` bytes of data.
    pub fn pad(&mut self, size: u64) -> Result<()> {
        self.zeros(padding(size))
    }

    /// Hands everything to the kernel.
    pub fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.done(self.file.write_all_at(&self.buffer, self.flushed))?;
            self.flushed += self.buffer.len() as u64;
            self.buffer.clear();
            self.write_out();
        }
        Ok(())
    }

    /// Of what is in the page cache, that which is not written yet begins to be, and stays there.
    fn write_out(&mut self) {
        if let Some(length) = NonZeroU64::new(self.flushed.saturating_sub(self.begun))
            && length.get() >= AHEAD
        {
            // A file system that does not care for it only loses time at the end.
            if let Err(error) = rustix::fs::fadvise(&self.file, self.begun, Some(length), Advice::DontNeed) {
                debug_assert!(matches!(error, Errno::INVAL | Errno::NOSYS), "{error}");
            }
            self.begun = self.flushed;
        }
    }

    /// Overwrites what was appended before.
    pub fn patch(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if at + bytes.len() as u64 > self.flushed {
            self.flush()?;
        }
        self.done(self.file.write_all_at(bytes, at))
    }

    /// Reads what was appended before.
    pub fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<()> {
        if at + buffer.len() as u64 > self.flushed {
            self.flush()?;
        }
        self.done(self.file.read_exact_at(buffer, at))
    }

    /// Forgets everything from `at` on, and goes on there.
    pub fn cut(&mut self, at: u64) -> Result<()> {
        self.flush()?;
        self.done(self.file.set_len(at))?;
        self.flushed = at;
        self.begun = self.begun.min(at);
        Ok(())
    }

    /// Makes it durable under its final name.
    pub fn publish(mut self) -> Result<()> {
        self.flush()?;
        self.done(self.file.set_len(self.flushed))?;
        self.done(self.file.sync_all())?;
        self.rename()?;
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let sync = File::open(directory).and_then(|directory| directory.sync_all());
        sync.map_err(Error::io("the bundle is complete, but could not make its name durable in", directory))
    }

    fn rename(&self) -> Result<()> {
        let exists = || Error::Exists { path: self.path.clone() };
        match rustix::fs::renameat_with(CWD, &self.partial, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(exists()),
            // File systems that can't (some on the network): two steps, and the lock is what keeps other writers out.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if self.path.symlink_metadata().is_ok() {
                    return Err(exists());
                }
                self.done(std::fs::rename(&self.partial, &self.path))
            }
            Err(error) => self.done(Err(error.into())),
        }
    }

    /// Deletes it.
    pub fn delete(self) -> Result<()> {
        std::fs::remove_file(&self.partial).map_err(Error::io("could not delete", &self.partial))
    }
}

impl Drop for Out {
    /// Closing is not enough: a program that is being started may have a copy of the descriptor for a moment, and the next attempt would
    /// find the file locked.
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.file, FlockOperation::Unlock) {
            debug_assert!(false, "could not unlock {}: {error}", self.partial.display());
        }
    }
}
