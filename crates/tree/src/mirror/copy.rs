//! Copies the contents of files, with several threads: many files at once, and large ones in parts.

use super::meta::{self, failed};
use super::place::Opened;
use crate::content::{Failed, Part, Piece, Scan};
use crate::entry::{Entry, Stat};
use crate::error::{Error, Result};
use crate::marks::{Hashing, Marks};
use crate::walk::Tree;
use crate::xattrs::{self, Of};
use rustix::fd::AsFd;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

/// From this size on, all threads compare a file together, if what its copy holds is known: then most of it is only read. A
/// file that must be written as a whole is better left to one thread: the kernel slows writers down when much is to be
/// written out, each to its share of the disk's speed, and while they hold the file's lock.
const TOGETHER: u64 = 32 * 1024 * 1024;

/// What all threads share in a pass.
pub(super) struct Shared<'p> {
    pub source: &'p Tree,
    pub dest: &'p Tree,
    pub hashing: Hashing,
    /// Set when the pass must end.
    pub stop: AtomicBool,
    pub read: AtomicU64,
    pub written: AtomicU64,
}

/// A file to be copied.
pub(super) struct Job {
    entry: Entry,
    source: Mutex<Option<File>>,
    dest: Opened,
    /// What the destination's file holds. `None`: to be found out by reading it.
    old: Option<Arc<Marks>>,
    scan: Mutex<Option<Arc<Scan>>>,
    /// What was found so far.
    parts: Mutex<Vec<Part>>,
    /// Handles that are not done with.
    open: AtomicUsize,
    failed: AtomicBool,
}

/// What became of a job.
pub(super) struct Done {
    pub entry: Entry,
    /// The destination's inode.
    pub inode: u64,
    pub marks: Arc<Marks>,
    /// Nothing changed while it was read.
    pub steady: bool,
}

/// A change that the destination refused.
type Refused = (&'static str, io::Error);

impl Job {
    /// A job, and how many threads should get it.
    pub(super) fn new(
        entry: Entry,
        source: File,
        dest: Opened,
        old: Option<Arc<Marks>>,
        threads: usize,
    ) -> (Arc<Self>, usize) {
        let is_compared = old.as_ref().is_some_and(|old| !old.is_empty());
        let handles = if is_compared && entry.size >= TOGETHER { threads } else { 1 };
        let job = Self {
            entry,
            source: Mutex::new(Some(source)),
            dest,
            old,
            scan: Mutex::new(None),
            parts: Mutex::new(Vec::new()),
            open: AtomicUsize::new(handles),
            failed: AtomicBool::new(false),
        };
        (Arc::new(job), handles)
    }

    /// The comparison, which the first thread begins.
    fn scan(&self, shared: &Shared<'_>) -> Result<Arc<Scan>> {
        let mut scan = lock(&self.scan);
        if let Some(scan) = scan.as_ref() {
            return Ok(scan.clone());
        }
        let refused = |(call, error)| self.refused(shared, (call, error));
        let size = self.entry.size;
        let old = match &self.old {
            Some(old) => old.clone(),
            None => Arc::new(self.held(shared)?),
        };
        // Before anything is written: what is behind the new end is gone then, and the marks of it mean nothing.
        if self.dest.size != size {
            self.dest.file.set_len(size).map_err(|error| refused(("ftruncate", error)))?;
        }
        let source = lock(&self.source).take();
        let source = source.ok_or_else(|| shared.source.fails("open", &self.entry.path, Errno::BADF))?;
        // It only makes reading ahead go further, so it does not matter if it fails.
        rustix::fs::fadvise(source.as_fd(), 0, None, rustix::fs::Advice::Sequential).unwrap_or_default();
        let begun = Arc::new(Scan::new(source, size, old, shared.hashing));
        *scan = Some(begun.clone());
        Ok(begun)
    }

    /// What is in the destination's file, by reading it.
    fn held(&self, shared: &Shared<'_>) -> Result<Marks> {
        let fails = |call, error: io::Error| Error::on(call, &shared.dest.show(&self.entry.path), error);
        let file = self.dest.file.try_clone().map_err(|error| fails("dup", error))?;
        let size = self.dest.size.min(self.entry.size);
        let scan = Scan::new(file, size, Arc::default(), shared.hashing);
        let mut go_on = |_: Piece<'_>| if shared.stop.load(Ordering::Relaxed) { Err(()) } else { Ok(()) };
        match scan.all(&mut go_on) {
            Ok(part) => Ok(part.marks),
            Err(Failed::Read { call, source }) => Err(fails(call, source)),
            Err(Failed::Taken(())) => Err(Error::Cancelled),
        }
    }

    /// Copies parts until none is left.
    fn parts(&self, shared: &Shared<'_>, buffer: &mut Vec<u8>) -> Result<()> {
        let scan = self.scan(shared)?;
        let mut take = |piece: Piece<'_>| self.take(shared, piece);
        loop {
            if shared.stop.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            match scan.part(buffer, &mut take) {
                Ok(None) => return Ok(()),
                Ok(Some(part)) => {
                    shared.read.fetch_add(part.read, Ordering::Relaxed);
                    lock(&self.parts).push(part);
                }
                Err(Failed::Taken(refused)) => return Err(self.refused(shared, refused)),
                Err(Failed::Read { call, source }) => {
                    return Err(Error::on(call, &shared.source.show(&self.entry.path), source));
                }
            }
        }
    }

    fn take(&self, shared: &Shared<'_>, piece: Piece<'_>) -> Result<(), Refused> {
        match piece {
            Piece::Data { offset, bytes } => {
                self.dest.file.write_all_at(bytes, offset).map_err(|error| ("pwrite", error))?;
                shared.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(())
            }
            Piece::Hole { .. } if self.dest.fresh => Ok(()),
            Piece::Hole { offset, length } => self.punch(offset, length),
        }
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), Refused> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.dest.file, flags, offset, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; 64 * 1024];
                let end = offset + length;
                for at in (offset..end).step_by(zeros.len()) {
                    let length = (end - at).min(zeros.len() as u64) as usize;
                    self.dest.file.write_all_at(&zeros[..length], at).map_err(|error| ("pwrite", error))?;
                }
                Ok(())
            }
            Err(errno) => Err(("fallocate", errno.into())),
        }
    }

    /// After the last part: everything but the content.
    fn finish(&self, shared: &Shared<'_>) -> Result<Done> {
        let scan = self.scan(shared)?;
        let source = scan.file().as_fd();
        let xattrs = xattrs::read(Of::Open(source))
            .map_err(|failure| failure.on(&shared.source.show(&self.entry.path)))?;
        meta::give(shared.dest, self.dest.file.as_fd(), &self.entry, &xattrs)?;
        let now = Stat::of(source).map_err(|errno| shared.source.fails("statx", &self.entry.path, errno))?;
        let mut steady = now.is_still(&self.entry);
        let parts = std::mem::take(&mut *lock(&self.parts));
        steady &= parts.iter().all(|part| !part.short);
        let marks = Marks::join(parts.into_iter().map(|part| part.marks).collect());
        Ok(Done { entry: self.entry.clone(), inode: self.dest.inode, marks: Arc::new(marks), steady })
    }

    fn refused(&self, shared: &Shared<'_>, (call, error): Refused) -> Error {
        match error.raw_os_error() {
            Some(code) => failed(shared.dest, call, &self.entry, Errno::from_raw_os_error(code)),
            None => Error::on(call, &shared.dest.show(&self.entry.path), error),
        }
    }
}

/// What a thread does until no job comes any more.
pub(super) fn work(shared: &Shared<'_>, jobs: &Mutex<Receiver<Arc<Job>>>, results: &Sender<Result<Done>>) {
    let mut buffer = Vec::new();
    loop {
        let Ok(job) = lock(jobs).recv() else { return };
        let copied = job.parts(shared, &mut buffer);
        job.failed.fetch_or(copied.is_err(), Ordering::AcqRel);
        let last = job.open.fetch_sub(1, Ordering::AcqRel) == 1;
        let result = match copied {
            Err(error) => {
                // One error ends the pass: what others are at would only be thrown away.
                shared.stop.store(true, Ordering::Relaxed);
                Err(error)
            }
            Ok(()) if last && !job.failed.load(Ordering::Acquire) => job.finish(shared),
            Ok(()) => continue,
        };
        if result.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        if results.send(result).is_err() {
            return;
        }
    }
}

/// A thread that panicked ends the pass when it is joined, whatever it held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
