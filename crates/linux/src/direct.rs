//! Reading many ranges of one file around the page cache (`O_DIRECT`), many requests at a time; and large pieces of any file.
//!
//! Where the file system has no direct I/O, or wants it aligned to more than 4 KiB, the page cache is used. This knows nothing of
//! what is read.

mod file;

pub use file::{Sink, read_range};

use crate::{KernelError, Result};
use rustix::fs::{CWD, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// What addresses, offsets and lengths are aligned to, in bytes.
pub const ALIGNMENT: usize = 4096;
/// The most that is read by one request, in bytes.
pub const MAX_READ: u64 = 1 << 20;

/// Memory at an address that direct I/O takes. New memory is full of zeros.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Of so many bytes.
    pub fn new(len: usize) -> Self {
        let memory = vec![0; len + ALIGNMENT];
        // It may be that the address is not known; then there is no direct I/O, and nothing worse.
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, len }
    }

    fn capacity(&self) -> usize {
        self.memory.len() - ALIGNMENT
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish()
    }
}

struct Job {
    source: Arc<Source>,
    offset: u64,
    buffer: Buffer,
    number: usize,
    reply: Sender<Reply>,
}

/// The job's number, and what was read.
type Reply = (usize, Result<Buffer>);

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// Threads that read. It may be shared by readers of different files; each takes its turn request by request.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Pool {
    /// So many threads, which is how many requests are in flight at most.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn new(threads: usize) -> Result<Self> {
        let mut pool = Self { shared: Arc::new(Shared::default()), threads: Vec::new() };
        for _ in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new()
                .name("everhold-read".into())
                .spawn(move || work(&shared))
                .map_err(|source| KernelError { op: "clone", path: None, source })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    fn submit(&self, job: Job) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).jobs.push_back(job);
        self.shared.wake.notify_one();
    }
}

impl Drop for Pool {
    /// Waits for reads that are under way: a thread in the kernel can't be ended.
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a reading thread had panicked");
            }
        }
    }
}

fn work(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let job = loop {
            match queue.jobs.pop_front() {
                Some(job) => break job,
                None if queue.closed => return,
                None => queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(queue);
        let Job { source, offset, mut buffer, number, reply } = job;
        let result = source.read(offset, &mut buffer).map(|()| buffer);
        // Nobody waits for it any more where the deadline has passed.
        drop(reply.send((number, result)));
    }
}

#[derive(Debug)]
struct Source {
    file: File,
    path: PathBuf,
    direct: bool,
}

impl Source {
    /// Fills the buffer; behind the end of the file are zeros.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let failed = |errno| KernelError::on("pread", &self.path, errno);
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            match rustix::io::pread(&self.file, &mut buffer[done..], at) {
                Ok(0) => {
                    buffer[done..].fill(0);
                    return Ok(());
                }
                Ok(count) => {
                    let end = done + count;
                    if self.direct && end < buffer.len() && end % ALIGNMENT != 0 {
                        // The end of the file, which is no place to go on from.
                        let size = self
                            .file
                            .metadata()
                            .map_err(|source| KernelError::on("stat", &self.path, source))?;
                        if offset + end as u64 >= size.size() {
                            buffer[end..].fill(0);
                            return Ok(());
                        }
                        let whole = end - end % ALIGNMENT;
                        if whole == done {
                            return Err(failed(Errno::IO));
                        }
                        done = whole;
                    } else {
                        done = end;
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }
}

/// One file that is read from.
#[derive(Debug, Clone)]
pub struct Reader {
    source: Arc<Source>,
}

impl Reader {
    /// Opens a file or block device, with direct I/O where that is possible.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let open = |flags| rustix::fs::openat(CWD, path, flags, Mode::empty()).map(File::from);
        let mut probe = Buffer::new(ALIGNMENT);
        let source = match open(flags | OFlags::DIRECT) {
            Ok(file) if rustix::io::pread(&file, &mut probe[..], 0) != Err(Errno::INVAL) => {
                Source { file, path: path.to_owned(), direct: true }
            }
            Ok(_) | Err(Errno::INVAL) => {
                let file = open(flags).map_err(|errno| KernelError::on("open", path, errno))?;
                Source { file, path: path.to_owned(), direct: false }
            }
            Err(errno) => return Err(KernelError::on("open", path, errno)),
        };
        Ok(Self { source: Arc::new(source) })
    }

    /// Whether the page cache is left aside.
    pub fn is_direct(&self) -> bool {
        self.source.direct
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.source.file
    }

    /// Reads these ranges of bytes, all aligned to [`ALIGNMENT`], and hands them to `sink` in the order they are given, ranges that
    /// meet as one, up to [`MAX_READ`] at a time. Behind the end of the file are zeros.
    ///
    /// What could not be handed over until the deadline is given back, as ranges; a device that hangs does not hold the caller.
    ///
    /// # Errors
    /// `EINVAL` for a range that is not aligned; what `pread(2)` says, when what comes before it has been handed over; what `sink`
    /// says, at once.
    pub fn read_many<E: From<KernelError>>(
        &self,
        pool: &Pool,
        ranges: &[Range<u64>],
        deadline: Option<Instant>,
        mut sink: impl FnMut(Range<u64>, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Vec<Range<u64>>, E> {
        let unaligned = |at: u64| !at.is_multiple_of(ALIGNMENT as u64);
        if ranges
            .iter()
            .any(|range| unaligned(range.start) || unaligned(range.end) || range.start > range.end)
        {
            return Err(KernelError::on("read", &self.source.path, Errno::INVAL).into());
        }
        let reads: Vec<_> = pieces(ranges).collect();
        let window = pool.threads.len() * 2;
        let (reply, replies) = mpsc::channel();
        let mut waiting: VecDeque<Option<Result<Buffer>>> = VecDeque::new();
        let mut spare: Vec<Buffer> = Vec::new();
        let mut next = 0;
        for (number, range) in reads.iter().enumerate() {
            while next < reads.len() && next < number + window {
                let piece = &reads[next];
                let len = (piece.end - piece.start) as usize;
                // Scattered blocks need little memory each.
                let fits = spare.last().is_some_and(|buffer| buffer.capacity() >= len);
                let buffer = if fits { spare.pop() } else { None };
                let mut buffer = buffer.unwrap_or_else(|| Buffer::new(len));
                buffer.len = len;
                let (source, reply) = (Arc::clone(&self.source), reply.clone());
                pool.submit(Job { source, offset: piece.start, buffer, number: next, reply });
                waiting.push_back(None);
                next += 1;
            }
            let buffer = match wait_for_first(&replies, &mut waiting, number, deadline) {
                Some(result) => result?,
                None => return Ok(join(&reads[number..])),
            };
            sink(range.clone(), &buffer)?;
            spare.push(buffer);
        }
        Ok(Vec::new())
    }
}

/// The first of those that are waited for, whose number this is; `None` when the deadline has passed.
fn wait_for_first(
    replies: &Receiver<Reply>,
    waiting: &mut VecDeque<Option<Result<Buffer>>>,
    first: usize,
    deadline: Option<Instant>,
) -> Option<Result<Buffer>> {
    loop {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        if let Some(Some(_)) = waiting.front() {
            return waiting.pop_front().flatten();
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let reply = match left {
            Some(left) => replies.recv_timeout(left),
            None => replies.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match reply {
            Ok((number, result)) => {
                if let Some(slot) = waiting.get_mut(number - first) {
                    *slot = Some(result);
                }
            }
            Err(RecvTimeoutError::Timeout) => return None,
            // We hold a sender ourselves.
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Ranges that meet, as one.
fn join(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges.iter().filter(|range| range.start < range.end) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range.clone()),
        }
    }
    joined
}

/// What to read at a time.
fn pieces(ranges: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    join(ranges).into_iter().flat_map(|range| {
        let end = range.end;
        range.step_by(MAX_READ as usize).map(move |start| start..(start + MAX_READ).min(end))
    })
}

/// Where a file has data (`SEEK_DATA`, lseek(2)); all of it where the file system does not know. The rest reads as zeros. The
/// position of the open file changes.
///
/// # Errors
/// What `lseek(2)` says.
pub fn data_ranges(file: &File) -> Result<Vec<Range<u64>>> {
    let seek = |to| rustix::fs::seek(file, to);
    let failed = |errno| KernelError::on_fd("lseek", file, errno);
    let size = seek(SeekFrom::End(0)).map_err(failed)?;
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(SeekFrom::Data(at)) {
            Ok(start) => start,
            // No more data.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(std::iter::once(0..size).collect()),
            Err(errno) => return Err(failed(errno)),
        };
        at = match seek(SeekFrom::Hole(start)) {
            Ok(end) => end,
            // Cut off meanwhile.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(failed(errno)),
        };
        ranges.push(start..at);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_are_read_together() {
        let got: Vec<_> =
            pieces(&[0..4096, 4096..8192, 8192..8192, 16384..16384 + 2 * MAX_READ + 4096]).collect();
        let third = 16384 + 2 * MAX_READ;
        assert_eq!(got, [0..8192, 16384..16384 + MAX_READ, 16384 + MAX_READ..third, third..third + 4096]);
        assert_eq!(join(&got), [0..8192, 16384..third + 4096]);
    }

    #[test]
    fn buffers_are_aligned() {
        for len in [0, 1, 4096, 1 << 20] {
            let mut buffer = Buffer::new(len);
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % ALIGNMENT), (len, 0));
            buffer.fill(1);
        }
    }
}
