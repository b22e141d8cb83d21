//! Large pieces of files, written and read around the page cache: what is read or written once leaves no room there for others, and
//! is not copied twice. Small pieces, and file systems without direct I/O, go through it.

use super::{ALIGNMENT, Buffer, MAX_READ};
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// What is shorter goes through the page cache, in bytes.
const LARGE: usize = 64 << 10;

/// The same file, opened anew for direct I/O. `None` where that can't be had.
fn direct(file: &File, mode: OFlags) -> Option<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = mode | OFlags::DIRECT | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).ok().map(File::from)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Writes to one file.
#[derive(Debug)]
pub struct Sink<'a> {
    file: &'a File,
    direct: Option<File>,
    buffer: Buffer,
}

impl<'a> Sink<'a> {
    /// To a file that is open for writing.
    pub fn new(file: &'a File) -> Self {
        Self { file, direct: direct(file, OFlags::WRONLY), buffer: Buffer::new(0) }
    }

    /// Writes all of it. It is not durable before the file is synced.
    ///
    /// # Errors
    /// What `pwrite(2)` says; some of it may be written then.
    pub fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let large = bytes.len() >= LARGE && at.is_multiple_of(ALIGNMENT as u64);
        let done = if large { self.write_direct(bytes, at)? } else { 0 };
        self.file.write_all_at(&bytes[done..], at + done as u64)
    }

    /// Writes what can be written so, and says how much that was.
    fn write_direct(&mut self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let Some(direct) = &self.direct else { return Ok(0) };
        if self.buffer.is_empty() {
            self.buffer = Buffer::new(MAX_READ as usize);
        }
        let whole = bytes.len() - bytes.len() % ALIGNMENT;
        // Blocks that are there already can be written by several at a time, while a file that gets new ones is locked as a whole for as
        // long as the disk takes. Where this is not to be had, it is only slower.
        let _as_far_as_it_goes = rustix::fs::fallocate(direct, FallocateFlags::KEEP_SIZE, at, whole as u64);
        let mut done = 0;
        while done < whole {
            let piece = &bytes[done..whole.min(done + self.buffer.len())];
            self.buffer[..piece.len()].copy_from_slice(piece);
            match direct.write_at(&self.buffer[..piece.len()], at + done as u64) {
                Ok(written) if written > 0 && written.is_multiple_of(ALIGNMENT) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !is(&error, Errno::INVAL) => return Err(error),
                // Another alignment than ours is wanted, or what is left has no room: the page cache has the last word.
                Ok(_) | Err(_) => {
                    self.direct = None;
                    break;
                }
            }
        }
        Ok(done)
    }
}

/// Reads a range of a file, and says where in the buffer it is.
///
/// # Errors
/// What `pread(2)` says; `UnexpectedEof` when the file ends before.
pub fn read_range(file: &File, range: Range<u64>) -> io::Result<(Buffer, Range<usize>)> {
    let len = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    if len >= LARGE
        && let Some(direct) = direct(file, OFlags::RDONLY)
    {
        let before = (range.start % ALIGNMENT as u64) as usize;
        let wanted = before + len;
        let mut buffer = Buffer::new(wanted.next_multiple_of(ALIGNMENT));
        let from = range.start - before as u64;
        let mut done = 0;
        while done < wanted {
            match direct.read_at(&mut buffer[done..], from + done as u64) {
                // The end of the file, where else would it stop in the middle of a block.
                Ok(read) if read > 0 && (read.is_multiple_of(ALIGNMENT) || done + read >= wanted) => {
                    done += read
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !is(&error, Errno::INVAL) => return Err(error),
                Ok(_) | Err(_) => break,
            }
        }
        if done < wanted {
            file.read_exact_at(&mut buffer[done..wanted], from + done as u64)?;
        }
        return Ok((buffer, before..wanted));
    }
    let mut buffer = Buffer::new(len);
    file.read_exact_at(&mut buffer[..], range.start)?;
    Ok((buffer, 0..len))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use proptest::prelude::*;

    fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed | 1;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .take(len)
        .collect()
    }

    /// On this disk, and where there is no direct I/O or was none for long.
    fn files() -> Vec<File> {
        ["/var/tmp", "/dev/shm"].iter().map(|dir| tempfile::tempfile_in(dir).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn what_is_written_is_read(
            writes in prop::collection::vec((0..3_000_000u64, 0..2_500_000usize, any::<bool>()), 1..6),
            reads in prop::collection::vec((0..1000u64, 0..1000u64), 1..6),
        ) {
            for file in files() {
                let mut sink = Sink::new(&file);
                let mut is = Vec::new();
                for (number, (at, len, aligned)) in writes.iter().enumerate() {
                    let at = if *aligned { at / 4096 * 4096 } else { *at };
                    let piece = bytes(number as u64, *len);
                    sink.write_all_at(&piece, at).unwrap();
                    if !piece.is_empty() {
                        is.resize(is.len().max(at as usize + len), 0);
                        is[at as usize..at as usize + len].copy_from_slice(&piece);
                    }
                }
                prop_assert_eq!(file.metadata().unwrap().len(), is.len() as u64);
                for (one, other) in &reads {
                    let place = |at: u64| at * is.len() as u64 / 1000;
                    let range = place(*one.min(other))..place(*one.max(other));
                    let (buffer, within) = read_range(&file, range.clone()).unwrap();
                    prop_assert!(buffer[within] == is[range.start as usize..range.end as usize]);
                }
                let beyond = is.len() as u64 / 2..is.len() as u64 + 1;
                prop_assert_eq!(read_range(&file, beyond).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }

    #[test]
    fn an_error_is_one_and_does_no_harm() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        let mut sink = Sink::new(&file);
        // Further out than any file may go.
        let beyond = i64::MAX as u64 & !0xfff;
        assert!(sink.write_all_at(&bytes(1, 1 << 20), beyond).is_err());
        sink.write_all_at(&bytes(2, 1 << 20), 0).unwrap();
        let (buffer, within) = read_range(&file, 0..1 << 20).unwrap();
        assert!(buffer[within] == bytes(2, 1 << 20));
    }
}
