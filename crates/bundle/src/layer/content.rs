//! Reading a file into the tar file that a look writes.

use super::filler;
use super::model::{Object, What};
use super::pass::Pass;
use crate::error::{Error, Result};
use crate::tar::sparse::{self, Extent};
use crate::tar::{Kind, Meta};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tree::Entry;
use tree::content::READ;
use tree::marks::Recorder;
use tree::walk::Walk;

/// What is read at once of large files, in bytes.
const LARGE: u64 = 2 << 20;

/// Where a file has data, in whole.
fn extents(file: &File, size: u64) -> rustix::io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.max(at),
            Err(Errno::NXIO) => break,
            // The file system knows nothing of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error),
        };
        if data >= size {
            break;
        }
        let hole = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.clamp(data + 1, size),
            Err(_) => size,
        };
        extents.push(Extent { offset: data, len: hole - data });
        at = hole;
    }
    Ok(extents)
}

impl Pass<'_, '_> {
    /// Appends a file as a whole. `None`: it is gone meanwhile.
    pub(super) fn file(
        &mut self,
        walk: &Walk<'_>,
        entry: &Entry,
        path: &[u8],
        mut meta: Meta,
    ) -> Result<Option<usize>> {
        let opened = walk.open(entry).map_err(|error| self.unreadable(entry, error))?;
        let Some(file) = opened else { return Ok(None) };
        let size = entry.size;
        let data = extents(&file, size).map_err(|error| self.unreadable(entry, error))?;
        let whole = Extent { offset: 0, len: size };
        let mut stored = if size == 0 { Vec::new() } else { vec![whole] };
        meta.kind = Kind::File;
        meta.size = size;
        // Images are without sparse files: engines take layers apart and put them together again with programs that do not
        // know them all.
        if !self.writable && !data.iter().eq(&stored) {
            stored = sparse::tidy(data.clone(), size);
            meta.sparse = Some(stored.clone());
        }
        self.make_way(path, false)?;
        let head = self.head(path, meta)?;
        let begin = self.writer.out.position();
        let mut recorder = Recorder::new(self.tracker.hashing());
        let steady = self.data(entry, &file, &data, &stored, &mut recorder)?;
        self.pad(self.writer.out.position() - begin)?;
        // Whole blocks of data, and what may become data.
        let filler =
            if self.writable || self.last || head.meta.sparse.is_some() { 0 } else { filler::usual(size) };
        self.fill(filler)?;
        let room = if filler == 0 { 0 } else { self.writer.out.position() - begin };
        self.unmoved(entry, &file)?;
        let marks = Arc::new(recorder.finish());
        let object = Object {
            inode: entry.inode(),
            head,
            opaque: false,
            data: begin,
            extents: stored,
            room,
            marks: Arc::clone(&marks),
        };
        let object = self.model.add(object);
        self.model.insert(path, What::First(object), self.look);
        self.tracker.note(entry, None, steady);
        Ok(Some(object))
    }

    /// Appends what lies in `stored` of a file, of which only `data` is not zeros. Answers whether the file had all of it.
    fn data(
        &mut self,
        entry: &Entry,
        file: &File,
        data: &[Extent],
        stored: &[Extent],
        recorder: &mut Recorder,
    ) -> Result<bool> {
        let mut steady = true;
        let mut buffer = std::mem::take(&mut self.buffer);
        let piece = (READ as u64).max(entry.size.min(LARGE));
        buffer.resize(piece as usize, 0);
        let mut at = 0;
        let mut rest = data;
        for extent in stored {
            recorder.hole(extent.offset - at);
            at = extent.offset;
            let end = extent.offset + extent.len;
            while at < end {
                while rest.first().is_some_and(|run| run.offset + run.len <= at) {
                    rest = &rest[1..];
                }
                // Data up to its end or zeros up to the next data, in pieces.
                let run = rest.first().filter(|run| run.offset < end);
                let (zeros, until) = match run {
                    Some(run) if run.offset <= at => (false, end.min(run.offset + run.len)),
                    Some(run) => (true, run.offset),
                    None => (true, end),
                };
                let some = (until - at).min(piece);
                let bytes = &mut buffer[..some as usize];
                if zeros {
                    bytes.fill(0);
                    recorder.hole(some);
                    self.append(bytes)?;
                } else {
                    steady &= self.read(entry, file, bytes, at)?;
                    self.append_data(bytes, recorder)?;
                }
                self.writer.watch.tell(some)?;
                at += some;
            }
        }
        recorder.hole(entry.size - at);
        self.buffer = buffer;
        Ok(steady)
    }

    /// Fills a buffer, with zeros behind the end of the file. Answers whether it was all there.
    fn read(&self, entry: &Entry, file: &File, bytes: &mut [u8], at: u64) -> Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(0) => {
                    bytes[filled..].fill(0);
                    return Ok(false);
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(entry, error)),
            }
        }
        Ok(true)
    }

    /// In the last look: whether the file is still as it was when its entry was looked at.
    pub(super) fn unmoved(&self, entry: &Entry, file: &File) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        if !self.last {
            return Ok(());
        }
        let now = file.metadata().map_err(|error| self.unreadable(entry, error))?;
        let time = |seconds: i64, nanoseconds: i64| tree::Time { seconds, nanoseconds: nanoseconds as u32 };
        let same = now.len() == entry.size
            && time(now.mtime(), now.mtime_nsec()) == entry.mtime
            && time(now.ctime(), now.ctime_nsec()) == entry.ctime;
        if same { Ok(()) } else { Err(Error::Moving { path: self.root.join(&entry.path) }) }
    }

    /// An entry could not be read.
    pub(super) fn unreadable(&self, entry: &Entry, error: impl std::fmt::Display) -> Error {
        Error::source(&self.root.join(&entry.path), error)
    }
}
