//! In which blocks two points of a stream differ.
//!
//! Their chains mostly begin with the same segments, the base above all. So only what comes after those is read as a whole; of
//! the segments they share only what the one point has from them where the other has something newer.

use crate::error::Result;
use std::collections::VecDeque;
use std::ops::Range;
use vault::Segment;
use vault::format::Content;
use vault::read::{Access, Located, Merged, ReadError};

/// How many segments both begin with.
fn shared(now: &[&Segment], then: &[&Segment]) -> usize {
    now.iter().zip(then).take_while(|(now, then)| now == then).count()
}

/// The blocks in which these points may differ: all of those in which they do, and some others. Cheap.
pub fn touched(
    access: &Access,
    now: &[&Segment],
    then: &[&Segment],
) -> impl Iterator<Item = Result<Range<u64>>> {
    let shared = shared(now, then);
    let range = |located: std::result::Result<Located, ReadError>| {
        let entry = located?.entry;
        Ok(entry.block..entry.end())
    };
    Merged::new(access, &now[shared..]).chain(Merged::new(access, &then[shared..])).map(range)
}

/// The blocks of the point of `then` that are not the same in the point of `now`, in order.
pub fn difference(
    access: &Access,
    now: &[&Segment],
    then: &[&Segment],
) -> impl Iterator<Item = Result<Located>> {
    let shared = shared(now, then);
    let mut difference = Difference {
        now: Side::new(access, &now[shared..]),
        then: Side::new(access, &then[shared..]),
        both: Side::new(access, &now[..shared]),
        ready: VecDeque::new(),
    };
    std::iter::from_fn(move || difference.next().transpose())
}

/// Entries in order, whose runs of zeros can be taken piece by piece.
struct Side {
    entries: Merged,
    /// The next one, or what is left of it.
    rest: Option<Located>,
}

impl Side {
    fn new(access: &Access, chain: &[&Segment]) -> Self {
        Self { entries: Merged::new(access, chain), rest: None }
    }

    /// Passes over what is before this block.
    fn seek(&mut self, block: u64) -> Result<()> {
        match &mut self.rest {
            Some(rest) if rest.entry.end() > block => {
                if rest.entry.block < block {
                    rest.entry.content = Content::Zeros { count: (rest.entry.end() - block) as u32 };
                    rest.entry.block = block;
                }
            }
            _ => {
                self.rest = None;
                self.entries.seek(block)?;
            }
        }
        Ok(())
    }

    /// What comes next.
    fn head(&mut self) -> Result<Option<&Located>> {
        if self.rest.is_none() {
            self.rest = self.entries.next().transpose()?;
        }
        Ok(self.rest.as_ref())
    }

    /// Takes what comes next, up to this block.
    fn take(&mut self, end: u64) -> Option<Located> {
        let mut taken = self.rest.take()?;
        let (begin, all) = (taken.entry.block, taken.entry.end());
        if all > end {
            let mut rest = taken.clone();
            rest.entry.block = end;
            rest.entry.content = Content::Zeros { count: (all - end) as u32 };
            taken.entry.content = Content::Zeros { count: (end - begin) as u32 };
            self.rest = Some(rest);
        }
        Some(taken)
    }
}

fn is_zeros(located: &Located) -> bool {
    matches!(located.entry.content, Content::Zeros { .. })
}

fn same(one: &Located, other: &Located) -> bool {
    match (&one.entry.content, &other.entry.content) {
        (Content::Data { hash: one, .. }, Content::Data { hash: other, .. }) => one == other,
        (Content::Zeros { .. }, Content::Zeros { .. }) => true,
        _ => false,
    }
}

struct Difference {
    now: Side,
    then: Side,
    /// What both had before.
    both: Side,
    ready: VecDeque<Located>,
}

impl Difference {
    fn next(&mut self) -> Result<Option<Located>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            let span = |located: Option<&Located>| {
                located.map_or(u64::MAX..u64::MAX, |located| located.entry.block..located.entry.end())
            };
            let (now, then) = (span(self.now.head()?), span(self.then.head()?));
            if now.start == u64::MAX && then.start == u64::MAX {
                return Ok(None);
            }
            if then.start < now.start {
                // It was written on the way to `then` alone.
                return Ok(self.then.take(now.start));
            }
            if now.start < then.start {
                if let Some(is) = self.now.take(then.start) {
                    self.was_before(&is)?;
                }
                continue;
            }
            let end = now.end.min(then.end);
            if let (Some(is), Some(was)) = (self.now.take(end), self.then.take(end))
                && !same(&is, &was)
            {
                return Ok(Some(was));
            }
        }
    }

    /// Something that was written on the way to `now` alone: in `then` is what both had before.
    fn was_before(&mut self, is: &Located) -> Result<()> {
        let blocks = is.entry.block..is.entry.end();
        self.both.seek(blocks.start)?;
        let mut at = blocks.start;
        while let Some(head) = self.both.head()?
            && head.entry.block < blocks.end
        {
            let Some(was) = self.both.take(blocks.end) else { break };
            at = was.entry.end();
            if !same(is, &was) {
                self.ready.push_back(was);
            }
        }
        // Where there was nothing, there were zeros. Data is one block.
        if at == blocks.start && !is_zeros(is) {
            let mut zeros = is.clone();
            zeros.entry.content = Content::Zeros { count: 1 };
            self.ready.push_back(zeros);
        }
        Ok(())
    }
}
