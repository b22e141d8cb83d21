//! Finding what has changed by comparing every block with the newest point.

use crate::changes::Changes;
use crate::error::Result;
use crate::restore::chain_to;
use crate::run::{Comparing, SealedBlock};
use crate::writer::{PORTION, SIZE, Writer, read_blocks};
use linux::direct::Reader;
use std::iter::Peekable;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use vault::format::{BLOCK, Sealer};
use vault::read::{Located, Merged, ReadResult};

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
    /// marked, and copied again later; or it is `still` that is compared, a copy that does not change.
    pub(crate) fn compare(&mut self, changes: Option<&dyn Changes>, still: Option<&Path>) -> Result<u64> {
        // What waits to be put is not read from the vault: it has to be there first.
        self.outbox().upload()?;
        let state = self.access.state()?;
        let reader = match still {
            Some(still) => Reader::open(still)?,
            None => self.reader.clone(),
        };
        let size = reader.file().metadata().map_err(crate::error::file("stat of the image"))?.len();
        let chain = chain_to(&state.listing.segments, self.point)?;
        let mut expected = Expected { blocks: Merged::new(&self.access, &chain).peekable() };
        let (keys, stream) = (self.access.keys.clone(), self.access.stream.0);
        let sealer = || Sealer::new(&keys, stream, crate::writer::salt());
        let pool = Arc::clone(&self.pool);
        let data = data_blocks(&reader)?;
        let differing = Comparing::with(&keys, &sealer, |comparing| {
            let mut differing = 0;
            read_blocks(&reader, &pool, &data, None, &mut |first, content| {
                let mut gone = Vec::new();
                let blocks = first..first + (content.len() / BLOCK) as u64;
                let was = blocks.map(|block| expected.at(block, |located| gone.push(located.clone())));
                let was = was.collect::<ReadResult<Vec<_>>>()?;
                let found = comparing.compare(first, content, Some(was));
                differing += self.hold_differing(found, size)? + self.hold_gone(&gone, size)?;
                Ok(())
            })?;
            differing += self.hold_differing(comparing.rest(), size)?;
            Ok(differing)
        })?;
        // What the point has beyond the last data is a hole now.
        let mut gone = Vec::new();
        expected.at(u64::MAX, |located| gone.push(located.clone()))?;
        let differing = differing + self.hold_gone(&gone, size)?;
        if let Some(changes) = changes {
            self.begin_trust(changes)?;
        }
        Ok(differing)
    }

    fn hold_differing(&mut self, found: Vec<SealedBlock>, size: u64) -> Result<u64> {
        let ranges: Vec<_> = found.iter().map(|(entry, _)| entry.block..entry.end()).collect();
        self.note(&ranges)?;
        self.hold_sealed(found);
        self.flush_if_full(size)?;
        Ok(ranges.len() as u64)
    }

    /// Holds zeros where the newest point has data and the image has none any more.
    fn hold_gone(&mut self, gone: &[Located], size: u64) -> Result<u64> {
        let blocks: Vec<u64> = gone
            .iter()
            .filter(|located| located.entry.sealed_len() > 0 && located.entry.block * SIZE < size)
            .map(|located| located.entry.block)
            .collect();
        for blocks in blocks.chunks(PORTION) {
            let ranges: Vec<_> = blocks.iter().map(|block| *block..*block + 1).collect();
            self.note(&ranges)?;
            blocks.iter().for_each(|block| self.hold_zeros(*block, 1));
            self.flush_if_full(size)?;
        }
        Ok(blocks.len() as u64)
    }
}

/// Where the image has data, in blocks.
fn data_blocks(reader: &Reader) -> Result<Vec<Range<u64>>> {
    let mut blocks: Vec<Range<u64>> = Vec::new();
    for range in linux::direct::data_ranges(reader.file())? {
        let range = range.start / SIZE..range.end.div_ceil(SIZE);
        match blocks.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => blocks.push(range),
        }
    }
    Ok(blocks)
}
