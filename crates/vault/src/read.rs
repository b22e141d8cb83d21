//! Reading chains of segments in block order, the newest content of each block first.
//!
//! Memory is bounded by one table for each segment of the chain, and by the batches that the caller asks for.

use crate::format::{
    BLOCK, Content, Entry, FormatError, Keys, PartName, StreamId, Table, Trailer, Unsealer, open_table,
    read_trailer, table_range,
};
use crate::segment::Segment;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Why something in a vault could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed, or the object is not there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is not what it should be.
    #[error("the object {object}: {why}")]
    Bad {
        /// Its name.
        object: String,
        /// What is wrong with it.
        why: FormatError,
    },
}

impl ReadError {
    /// Whether the object is known to be absent: it may have been merged into another since it was listed.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_not_found())
    }
}

/// The result of reading.
pub type ReadResult<T> = Result<T, ReadError>;

/// What is needed to read (and write) one stream.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where it is.
    pub store: Arc<dyn Store>,
    /// The vault's keys.
    pub keys: Keys,
    /// The vault's identity.
    pub vault: [u8; 16],
    /// The stream.
    pub stream: StreamId,
}

/// Trailer and table together are seldom longer.
const TAIL: u64 = 64 << 10;

/// One part whose table has been read.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub name: PartName,
    /// The object's name.
    pub object: String,
    /// Its trailer.
    pub trailer: Trailer,
}

impl Access {
    /// Reads the trailer and the table of a part whose object is `size` bytes long.
    ///
    /// # Errors
    /// When it can't be read or is damaged.
    pub fn table(&self, name: PartName, size: u64) -> ReadResult<(Part, Table)> {
        let object = name.to_string();
        let bad = |why| ReadError::Bad { object: object.clone(), why };
        let tail_at = size.saturating_sub(TAIL);
        let tail = match self.store.read(&object, Some(tail_at..size)) {
            // Told from a store that fails: what was listed is longer than what is there.
            Err(StoreError::Failed { .. }) if self.store.size(&object)?.is_some_and(|is| is < size) => {
                return Err(bad(FormatError::Damaged("it is cut off")));
            }
            other => other?,
        };
        let trailer = read_trailer(&tail, size).map_err(bad)?;
        let range = table_range(&trailer);
        let sealed = if range.start >= tail_at {
            tail.slice((range.start - tail_at) as usize..(range.end - tail_at) as usize)
        } else {
            self.store.read(&object, Some(range))?
        };
        let table = open_table(&self.keys, &self.vault, &name, &trailer, &sealed).map_err(bad)?;
        Ok((Part { name, object, trailer }, table))
    }

    /// An opener of blocks.
    pub fn unsealer(&self) -> Unsealer {
        Unsealer::new(&self.keys, self.stream.0)
    }
}

/// A block, or a run of zeros, and where it is.
#[derive(Debug, Clone)]
pub struct Located {
    /// What it is; a run of zeros may be a piece of the run in the table.
    pub entry: Entry,
    /// Where its sealed bytes begin in the object.
    pub at: u64,
    /// The object.
    pub part: Arc<Part>,
}

/// One segment, entry by entry.
struct Source {
    access: Access,
    segment: Segment,
    next_part: u32,
    part: Option<Arc<Part>>,
    table: Table,
    next_entry: usize,
    at: u64,
}

impl Source {
    fn new(access: &Access, segment: &Segment) -> Self {
        Self {
            access: access.clone(),
            segment: segment.clone(),
            next_part: 0,
            part: None,
            table: Table::default(),
            next_entry: 0,
            at: 0,
        }
    }

    fn next(&mut self) -> ReadResult<Option<Located>> {
        loop {
            if let (Some(part), Some(entry)) = (&self.part, self.table.entries.get(self.next_entry)) {
                let located = Located { entry: *entry, at: self.at, part: Arc::clone(part) };
                self.next_entry += 1;
                self.at += u64::from(entry.sealed_len());
                return Ok(Some(located));
            }
            let Some((part, table)) = self.open(self.next_part)? else { return Ok(None) };
            self.enter(self.next_part, part, table);
        }
    }

    fn open(&self, part: u32) -> ReadResult<Option<(Part, Table)>> {
        let Some(size) = self.segment.parts.get(part as usize) else { return Ok(None) };
        self.access.table(self.segment.part_name(self.access.stream, part), *size).map(Some)
    }

    fn enter(&mut self, number: u32, part: Part, table: Table) {
        self.next_part = number + 1;
        (self.part, self.table, self.next_entry) = (Some(Arc::new(part)), table, 0);
        self.at = crate::format::DATA_AT;
    }

    /// Passes over what ends at or before this block, without opening every table on the way: those that are opened are asked
    /// where they end, with steps that double and then halve.
    fn seek(&mut self, block: u64) -> ReadResult<()> {
        let ends_after = |table: &Table| table.entries.last().is_some_and(|last| last.end() > block);
        if !ends_after(&self.table) {
            let (mut low, mut step) = (self.next_part, 1);
            // The first part that ends after it is at or after `low`, and is this one or before it.
            let mut found = None;
            while let Some((part, table)) = self.open(low.saturating_add(step - 1))? {
                if ends_after(&table) {
                    found = Some((low + step - 1, part, table));
                    break;
                }
                low += step;
                step *= 2;
            }
            let mut high = found.as_ref().map_or(self.segment.parts.len() as u32, |(number, ..)| *number);
            while low < high {
                let middle = low + (high - low) / 2;
                let Some((part, table)) = self.open(middle)? else { break };
                if ends_after(&table) {
                    high = middle;
                    found = Some((middle, part, table));
                } else {
                    low = middle + 1;
                }
            }
            match found {
                Some((number, part, table)) => self.enter(number, part, table),
                None => {
                    self.next_part = self.segment.parts.len() as u32;
                    self.next_entry = self.table.entries.len();
                    return Ok(());
                }
            }
        }
        let passed = self.table.entries[self.next_entry..].partition_point(|entry| entry.end() <= block);
        let passed = self.next_entry..self.next_entry + passed;
        self.at += self.table.entries[passed.clone()].iter().map(|e| u64::from(e.sealed_len())).sum::<u64>();
        self.next_entry = passed.end;
        Ok(())
    }
}

struct Head {
    located: Located,
    /// Its place in the chain: the larger, the newer.
    age: usize,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Head {}
impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Head {
    /// The heap's greatest: the lowest block, and of those the newest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.located.entry.block, self.age).cmp(&(self.located.entry.block, other.age))
    }
}

/// The blocks of a chain in ascending order, each once, with its newest content.
pub struct Merged {
    sources: Vec<Source>,
    heads: BinaryHeap<Head>,
    started: bool,
    failed: bool,
}

impl Merged {
    /// Of this chain, oldest first.
    pub fn new(access: &Access, chain: &[&Segment]) -> Self {
        let sources = chain.iter().map(|segment| Source::new(access, segment)).collect();
        Self { sources, heads: BinaryHeap::new(), started: false, failed: false }
    }

    fn advance(&mut self, age: usize) -> ReadResult<()> {
        if let Some(located) = self.sources[age].next()? {
            self.heads.push(Head { located, age });
        }
        Ok(())
    }

    /// Passes over all that is before this block; a run of zeros that goes on there begins there now.
    ///
    /// # Errors
    /// When it can't be read; nothing more comes then.
    pub fn seek(&mut self, block: u64) -> ReadResult<()> {
        let sought = self.seek_to(block);
        self.failed |= sought.is_err();
        sought
    }

    fn seek_to(&mut self, block: u64) -> ReadResult<()> {
        if !self.started {
            self.started = true;
            for age in 0..self.sources.len() {
                self.sources[age].seek(block)?;
                self.advance(age)?;
            }
        }
        while self.heads.peek().is_some_and(|head| head.located.entry.block < block) {
            let Some(Head { located, age }) = self.heads.pop() else { break };
            if located.entry.end() <= block {
                self.sources[age].seek(block)?;
            }
            self.push_rest(located, age, block)?;
        }
        Ok(())
    }

    fn step(&mut self) -> ReadResult<Option<Located>> {
        if !self.started {
            self.started = true;
            for age in 0..self.sources.len() {
                self.advance(age)?;
            }
        }
        let Some(Head { mut located, age }) = self.heads.pop() else { return Ok(None) };
        let block = located.entry.block;
        // What older segments say of the same block does not count any more.
        while self.heads.peek().is_some_and(|head| head.located.entry.block == block) {
            if let Some(Head { located: older, age }) = self.heads.pop() {
                self.push_rest(older, age, block + 1)?;
            }
        }
        let next = self.heads.peek().map_or(u64::MAX, |head| head.located.entry.block);
        let end = located.entry.end();
        if end > next {
            // Only a run of zeros is longer than one block. What follows is decided when its turn comes.
            self.push_rest(located.clone(), age, next)?;
            located.entry.content = Content::Zeros { count: (next - block) as u32 };
        } else {
            self.advance(age)?;
        }
        Ok(Some(located))
    }

    /// Puts back what of `located` begins at `from`; the source goes on if that is nothing.
    fn push_rest(&mut self, mut located: Located, age: usize, from: u64) -> ReadResult<()> {
        let end = located.entry.end();
        if end <= from {
            return self.advance(age);
        }
        located.entry = Entry { block: from, content: Content::Zeros { count: (end - from) as u32 } };
        self.heads.push(Head { located, age });
        Ok(())
    }
}

impl Iterator for Merged {
    type Item = ReadResult<Located>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

/// Bytes between two blocks that are read along rather than asked for apart.
const GAP: u64 = 64 << 10;
/// The most that is read in one piece.
const PIECE: u64 = 8 << 20;
/// The most that is read along in one call: with the sealed bytes of the batch, all that it holds in memory.
pub const READ_ALONG: u64 = 8 << 20;

/// Reads the sealed bytes of each, and hands them over in the order of `batch`.
///
/// # Errors
/// When they can't be read, or `each` fails.
pub fn fetch<E: From<ReadError>>(
    access: &Access,
    batch: &[Located],
    mut each: impl FnMut(&Located, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    // In the order of the store: by object and place.
    let mut order: Vec<usize> = (0..batch.len()).filter(|i| batch[*i].entry.sealed_len() > 0).collect();
    order.sort_by_key(|i| (Arc::as_ptr(&batch[*i].part) as usize, batch[*i].at));
    let mut bytes: Vec<Bytes> = vec![Bytes::new(); batch.len()];
    let end = |i: usize| batch[i].at + u64::from(batch[i].entry.sealed_len());
    let mut spare = READ_ALONG;
    let mut rest = &order[..];
    while let Some((&first, _)) = rest.split_first() {
        let together = rest
            .windows(2)
            .take_while(|pair| {
                let gap = batch[pair[1]].at.saturating_sub(end(pair[0]));
                let together = Arc::ptr_eq(&batch[pair[0]].part, &batch[pair[1]].part)
                    && gap <= GAP.min(spare)
                    && end(pair[1]) - batch[first].at <= PIECE;
                spare -= if together { gap } else { 0 };
                together
            })
            .count()
            + 1;
        let from = batch[first].at;
        let to = end(rest[together - 1]);
        let piece = access.store.read(&batch[first].part.object, Some(from..to)).map_err(ReadError::from)?;
        for i in &rest[..together] {
            let range = (batch[*i].at - from) as usize..(end(*i) - from) as usize;
            bytes[*i] = piece.slice(range);
        }
        rest = &rest[together..];
    }
    batch.iter().zip(&bytes).try_for_each(|(located, bytes)| each(located, bytes))
}

/// Opens a block that was fetched.
///
/// # Errors
/// [`ReadError::Bad`] with the object's name.
pub fn unseal(
    unsealer: &mut Unsealer,
    located: &Located,
    sealed: &[u8],
    content: &mut [u8; BLOCK],
) -> ReadResult<()> {
    unsealer.open(located.entry.block, &located.entry, sealed, content).map_err(|_| ReadError::Bad {
        object: located.part.object.clone(),
        why: FormatError::Damaged("a block in it is not what its table says"),
    })
}
