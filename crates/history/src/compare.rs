//! Finding what has changed by comparing every block with the newest point.

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::writer::{SIZE, Writer};
use std::iter::Peekable;
use std::ops::Range;
use vault::format::{BLOCK, Content, Kind, PART_ENTRIES, is_zero};
use vault::read::{Located, Merged, ReadResult};

/// Blocks that are read in one go.
const PORTION: u64 = 4096;

/// What the newest point has, in order of the blocks.
struct Expected {
    blocks: Peekable<Merged>,
}

impl Expected {
    /// What the point has at this block; what it has before is given to `skipped`.
    fn at(&mut self, block: u64, mut skipped: impl FnMut(&Located)) -> ReadResult<Option<Located>> {
        loop {
            let ahead = |next: &ReadResult<Located>| next.as_ref().is_ok_and(|next| next.entry.block > block);
            match self.blocks.next_if(|next| !ahead(next)).transpose()? {
                None => return Ok(None),
                Some(located) if located.entry.block == block => return Ok(Some(located)),
                Some(located) => skipped(&located),
            }
        }
    }
}

impl Writer {
    /// Holds every block that is not as the newest point has it, for the next point. Blocks that change meanwhile are
    /// marked, and copied again later.
    pub(crate) fn compare(&mut self, changes: Option<&dyn Changes>) -> Result<u64> {
        // What waits to be put is not read from the vault: it has to be there first.
        self.outbox().upload()?;
        let state = self.access.state()?;
        let size = self.reader.file().metadata().map_err(crate::error::file("stat of the image"))?.len();
        let chain: Vec<_> = vault::chain::chain(&state.listing.segments, 0, self.point)
            .ok_or_else(|| Error::NoWay { point: self.point, why: "segments of it are missing".into() })?
            .into_iter()
            .cloned()
            .collect();
        let mut expected =
            Expected { blocks: Merged::new(&self.access, &chain.iter().collect::<Vec<_>>()).peekable() };
        let mut differing = 0;
        for range in data_blocks(self)? {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + PORTION);
                differing += self.compare_portion(at..end, &mut expected, size)?;
                at = end;
            }
        }
        // What the point has beyond the last data is a hole now.
        let mut gone = Vec::new();
        expected.at(u64::MAX, |located| gone.push(located.clone()))?;
        differing += self.hold_gone(&gone, size)?;
        if let Some(changes) = changes {
            self.begin_trust(changes)?;
        }
        Ok(differing)
    }

    fn compare_portion(&mut self, range: Range<u64>, expected: &mut Expected, size: u64) -> Result<u64> {
        let mut contents: Vec<(u64, Box<[u8; BLOCK]>)> = Vec::new();
        let portion = std::slice::from_ref(&range);
        let left = self.read(portion, None, |block, bytes| {
            if let Ok(content) = <&[u8; BLOCK]>::try_from(bytes) {
                contents.push((block, Box::new(*content)));
            }
        })?;
        debug_assert!(left.is_empty(), "there was no deadline");
        let mut gone = Vec::new();
        let mut differing = Vec::new();
        for (block, content) in &contents {
            let was = expected.at(*block, |located| gone.push(located.clone()))?;
            let same = match was.as_ref().map(|located| located.entry.content) {
                Some(Content::Data { hash, .. }) => hash == self.access.keys.hash(&content[..]),
                Some(Content::Zeros { .. }) | None => is_zero(content),
            };
            if !same {
                differing.push((*block, content));
            }
        }
        let ranges: Vec<_> = differing.iter().map(|(block, _)| *block..*block + 1).collect();
        self.note(&ranges)?;
        for (block, content) in &differing {
            self.hold(*block, content);
        }
        let found = differing.len() as u64 + self.hold_gone(&gone, size)?;
        self.flush_if_full(size)?;
        Ok(found)
    }

    /// Holds zeros where the newest point has data and the image has none any more.
    fn hold_gone(&mut self, gone: &[Located], size: u64) -> Result<u64> {
        let blocks: Vec<u64> = gone
            .iter()
            .filter(|located| located.entry.sealed_len() > 0 && located.entry.block * SIZE < size)
            .map(|located| located.entry.block)
            .collect();
        let ranges: Vec<_> = blocks.iter().map(|block| *block..*block + 1).collect();
        self.note(&ranges)?;
        for block in &blocks {
            self.hold_zeros(*block, 1);
            self.flush_if_full(size)?;
        }
        Ok(blocks.len() as u64)
    }

    fn flush_if_full(&mut self, size: u64) -> Result<()> {
        if self.held() >= PART_ENTRIES {
            self.flush(Kind::Partial, self.time, size)?;
        }
        Ok(())
    }
}

/// Where the image has data, in blocks.
fn data_blocks(writer: &Writer) -> Result<Vec<Range<u64>>> {
    let mut blocks: Vec<Range<u64>> = Vec::new();
    for range in linux::direct::data_ranges(writer.reader.file())? {
        let range = range.start / SIZE..range.end.div_ceil(SIZE);
        match blocks.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => blocks.push(range),
        }
    }
    Ok(blocks)
}
