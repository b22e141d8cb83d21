//! Which blocks of a file differ from the marks that were noted of it. Reads the file in large pieces, its holes not at all;
//! several threads may read one file, each its own part. Knows nothing of where the differences go.

use crate::marks::{BLOCK, Hashing, Marks};
use rustix::fd::AsFd;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// What is read at once, in bytes.
pub const READ: usize = 1024 * 1024;

/// What a thread takes of a file at once, in bytes: a multiple of [`BLOCK`], and long enough to be read in order.
const PART: u64 = 16 * 1024 * 1024;

/// A difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes are at this offset now.
    Data {
        /// In bytes.
        offset: u64,
        /// What is there.
        bytes: &'a [u8],
    },
    /// A hole is there now, where there may have been data.
    Hole {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
}

/// Why a part could not be read and handed on.
#[derive(Debug)]
pub enum Failed<E> {
    /// The source refused.
    Read {
        /// The system call.
        call: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The one that takes the differences refused.
    Taken(E),
}

/// What was found in a part of a file.
#[derive(Debug, Default)]
pub struct Part {
    /// The marks of its blocks as they are now.
    pub marks: Marks,
    /// Bytes that were read.
    pub read: u64,
    /// The file ended earlier than it should: the rest counts as zeros.
    pub short: bool,
}

/// A hole, perhaps empty, and the part of a file that follows it.
type Claim = (Range<u64>, Range<u64>);

/// A file that is being compared with its marks.
#[derive(Debug)]
pub struct Scan {
    file: File,
    size: u64,
    old: Arc<Marks>,
    hashing: Hashing,
    /// Where the next part begins: at a block.
    next: Mutex<u64>,
}

impl Scan {
    /// Compares so many bytes of a file with these marks: with none, all that is not a hole differs.
    pub fn new(file: File, size: u64, old: Arc<Marks>, hashing: Hashing) -> Self {
        Self { file, size, old, hashing, next: Mutex::new(0) }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Looks at the next part, with a buffer that grows to [`READ`], and hands on what differs, in the order of offsets.
    /// `None` when nothing is left to begin.
    pub fn part<E>(
        &self,
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<Option<Part>, Failed<E>> {
        let Some((hole, part)) = self.claim()? else { return Ok(None) };
        self.hand_on_hole(hole, take)?;
        let mut found = Part::default();
        let extents = self.extents(part.clone())?;
        let mut position = part.start;
        let mut rest = extents.as_slice();
        while let Some((span, count)) = span(rest, part.end) {
            self.hand_on_hole(position..span.start, take)?;
            position = span.end;
            self.compare(span, &rest[..count], buffer, &mut found, take)?;
            rest = &rest[count..];
        }
        self.hand_on_hole(position..part.end, take)?;
        Ok(Some(found))
    }

    /// The rest of the file with one thread.
    pub fn all<E>(&self, take: &mut dyn FnMut(Piece<'_>) -> Result<(), E>) -> Result<Part, Failed<E>> {
        let (mut all, mut marks, mut buffer) = (Part::default(), Vec::new(), Vec::new());
        while let Some(part) = self.part(&mut buffer, take)? {
            all.read += part.read;
            all.short |= part.short;
            marks.push(part.marks);
        }
        all.marks = Marks::join(marks);
        Ok(all)
    }

    /// Takes the next part for this thread.
    fn claim<E>(&self) -> Result<Option<Claim>, Failed<E>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = *next;
        if begin >= self.size {
            return Ok(None);
        }
        let data = self.seek(SeekFrom::Data(begin))?.map_or(self.size, |data| data / BLOCK * BLOCK);
        let start = data.clamp(begin, self.size);
        let end = start.saturating_add(PART).min(self.size);
        *next = end;
        Ok(Some((begin..start, start..end)))
    }

    /// Where there is data in a part.
    fn extents<E>(&self, part: Range<u64>) -> Result<Vec<Range<u64>>, Failed<E>> {
        let mut extents = Vec::new();
        let mut position = part.start;
        while position < part.end {
            let Some(data) = self.seek(SeekFrom::Data(position))?.filter(|&data| data < part.end) else {
                break;
            };
            let data = data.max(position);
            // No hole from here on: the file was cut since.
            let hole = self.seek(SeekFrom::Hole(data))?.unwrap_or(part.end).clamp(data + 1, part.end);
            extents.push(data..hole);
            position = hole;
        }
        Ok(extents)
    }

    /// `None` behind the end of the file.
    fn seek<E>(&self, to: SeekFrom) -> Result<Option<u64>, Failed<E>> {
        match rustix::fs::seek(self.file.as_fd(), to) {
            Ok(offset) => Ok(Some(offset)),
            Err(Errno::NXIO) => Ok(None),
            // The file system knows nothing of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => match to {
                SeekFrom::Data(at) => Ok((at < self.size).then_some(at)),
                _ => Ok(Some(self.size)),
            },
            Err(errno) => Err(Failed::Read { call: "lseek", source: errno.into() }),
        }
    }

    fn hand_on_hole<E>(
        &self,
        hole: Range<u64>,
        take: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), Failed<E>> {
        if hole.is_empty() || !self.old.any(hole.start / BLOCK..hole.end.div_ceil(BLOCK)) {
            return Ok(());
        }
        take(Piece::Hole { offset: hole.start, length: hole.end - hole.start }).map_err(Failed::Taken)
    }

    /// Reads whole blocks and hands on those that differ: their data as data, what are holes in them as holes.
    fn compare<E>(
        &self,
        span: Range<u64>,
        extents: &[Range<u64>],
        buffer: &mut Vec<u8>,
        found: &mut Part,
        take: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), Failed<E>> {
        buffer.resize(READ, 0);
        let mut start = span.start;
        while start < span.end {
            let length = (span.end - start).min(READ as u64) as usize;
            let bytes = &mut buffer[..length];
            found.short |= self.read(bytes, start)?;
            found.read += length as u64;
            let mut differs: Option<u64> = None;
            for (number, block) in (start / BLOCK..).zip(bytes.chunks(BLOCK as usize)) {
                let mark = self.hashing.mark(block);
                found.marks.push(number, mark);
                match (self.old.get(number) == Some(mark), differs) {
                    (false, None) => differs = Some(number * BLOCK),
                    (true, Some(from)) => {
                        hand_on(bytes, start, from..number * BLOCK, extents, take).map_err(Failed::Taken)?;
                        differs = None;
                    }
                    _ => {}
                }
            }
            let end = start + length as u64;
            if let Some(from) = differs {
                hand_on(bytes, start, from..end, extents, take).map_err(Failed::Taken)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Fills a buffer, with zeros behind the end of the file. Says whether it ended.
    fn read<E>(&self, bytes: &mut [u8], offset: u64) -> Result<bool, Failed<E>> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => {
                    bytes[filled..].fill(0);
                    return Ok(true);
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Failed::Read { call: "pread", source }),
            }
        }
        Ok(false)
    }
}

/// The blocks that the first of these extents are in, as far as they follow each other, and how many extents that are.
fn span(extents: &[Range<u64>], limit: u64) -> Option<(Range<u64>, usize)> {
    let whole = |extent: &Range<u64>| {
        (extent.start / BLOCK * BLOCK)..extent.end.checked_next_multiple_of(BLOCK).unwrap_or(limit).min(limit)
    };
    let mut span = whole(extents.first()?);
    let mut count = 1;
    while let Some(next) = extents.get(count).map(whole).filter(|next| next.start <= span.end) {
        span.end = span.end.max(next.end);
        count += 1;
    }
    Some((span, count))
}

/// Hands on a range of what was read at an offset. Where there is data was asked before it was read: what was written into a hole in
/// between is in the marks, so it must be handed on too, or it would be taken for known ever after.
fn hand_on<E>(
    bytes: &[u8],
    offset: u64,
    range: Range<u64>,
    extents: &[Range<u64>],
    take: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let gap = |from: u64, to: u64, take: &mut dyn FnMut(Piece<'_>) -> Result<(), E>| {
        let part = &bytes[(from - offset) as usize..(to - offset) as usize];
        let is_hole = part.iter().all(|byte| *byte == 0);
        take(if is_hole {
            Piece::Hole { offset: from, length: to - from }
        } else {
            Piece::Data { offset: from, bytes: part }
        })
    };
    let mut position = range.start;
    let first = extents.partition_point(|extent| extent.end <= range.start);
    for extent in extents[first..].iter().take_while(|extent| extent.start < range.end) {
        let (from, to) = (extent.start.max(range.start), extent.end.min(range.end));
        if from > position {
            gap(position, from, take)?;
        }
        let part = &bytes[(from - offset) as usize..(to - offset) as usize];
        take(Piece::Data { offset: from, bytes: part })?;
        position = to;
    }
    if position < range.end {
        gap(position, range.end, take)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
