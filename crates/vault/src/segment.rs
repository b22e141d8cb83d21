//! Segments as a listing shows them.

use crate::format::{EraName, Kind, PartName, StreamId};
use crate::store::Object;
use std::collections::BTreeMap;

/// A segment that is whole: the blocks in which point `to` differs from point `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The point before.
    pub from: u64,
    /// The point at its end.
    pub to: u64,
    /// When the point `to` was: milliseconds since 1970, UTC.
    pub time: u64,
    /// The writer's epoch when the point `to` was made.
    pub epoch: u32,
    /// Tells attempts apart.
    pub run: u32,
    /// What the point `to` is.
    pub kind: Kind,
    /// The sizes of its parts' objects, in order.
    pub parts: Vec<u64>,
}

impl Segment {
    /// The name of one of its parts.
    pub fn part_name(&self, stream: StreamId, part: u32) -> PartName {
        let Self { from, to, time, epoch, run, kind, .. } = *self;
        let last = part as usize + 1 == self.parts.len();
        PartName { stream, from, to, time, epoch, run, kind, part, last }
    }

    /// The names of all its parts.
    pub fn part_names(&self, stream: StreamId) -> impl Iterator<Item = PartName> + '_ {
        (0..self.parts.len() as u32).map(move |part| self.part_name(stream, part))
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.parts.iter().sum()
    }

    /// Whether it spans `other`, and more than that.
    pub fn spans(&self, other: &Self) -> bool {
        self.from <= other.from && other.to <= self.to && (self.from, self.to) != (other.from, other.to)
    }
}

/// What a listing of a stream says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The segments that count, by `to`, the longest first.
    pub segments: Vec<Segment>,
    /// Parts of segments that do not count: unfinished, twice there, or of a writer that had been replaced.
    pub strays: Vec<PartName>,
    /// Where epochs began.
    pub eras: Vec<EraName>,
    /// Names of another kind.
    pub others: Vec<String>,
}

impl Listing {
    /// Reads the names of all objects below `h/STREAM/`.
    pub fn read(objects: &[Object]) -> Self {
        let mut listing = Self::default();
        let mut attempts: BTreeMap<_, Vec<(PartName, u64)>> = BTreeMap::new();
        for object in objects {
            if let Ok(name) = object.name.parse::<PartName>() {
                let key = (name.to, name.from, name.epoch, name.run, name.time, name.kind);
                attempts.entry(key).or_default().push((name, object.size));
            } else if let Ok(era) = object.name.parse::<EraName>() {
                listing.eras.push(era);
            } else {
                listing.others.push(object.name.clone());
            }
        }
        for mut parts in attempts.into_values() {
            parts.sort_by_key(|(name, _)| name.part);
            let whole = parts
                .iter()
                .enumerate()
                .all(|(at, (name, _))| name.part as usize == at && name.last == (at + 1 == parts.len()));
            let first = parts[0].0;
            let void = listing.eras.iter().any(|era| era.epoch > first.epoch && first.to > era.after);
            let twice =
                listing.segments.last().is_some_and(|last| (last.from, last.to) == (first.from, first.to));
            if !whole || void || twice {
                listing.strays.extend(parts.iter().map(|(name, _)| *name));
                continue;
            }
            let PartName { from, to, time, epoch, run, kind, .. } = first;
            let parts = parts.iter().map(|(_, size)| *size).collect();
            listing.segments.push(Segment { from, to, time, epoch, run, kind, parts });
        }
        listing
    }

    /// The newest point, 0 if there is none.
    pub fn newest(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.to)
    }

    /// The points that can be restored to, ascending, with their times.
    pub fn cuts(&self) -> Vec<(u64, u64)> {
        let mut cuts: Vec<_> =
            self.segments.iter().filter(|s| s.kind == Kind::Cut).map(|s| (s.to, s.time)).collect();
        cuts.dedup();
        cuts
    }
}
