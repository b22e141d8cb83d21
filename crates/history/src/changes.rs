//! Which blocks have changed.

use linux::track::Bitmap;
use std::ops::Range;

/// Marks of changed blocks of 4 KiB, set by others.
pub trait Changes: Send + Sync {
    /// Goes up whenever something is marked.
    fn events(&self) -> u64;
    /// Nothing is marked, for certain.
    fn is_clean(&self) -> bool;
    /// The marks are not the whole truth.
    fn is_broken(&self) -> bool;
    /// What is marked, in order.
    fn dirty(&self) -> Vec<Range<u64>>;
    /// Takes these marks away.
    fn clear(&self, ranges: &[Range<u64>]);
    /// Sets marks.
    fn mark(&self, ranges: &[Range<u64>]);
    /// A number left with the marks; 0 in new ones.
    fn token(&self) -> u64;
    /// Leaves a number with the marks.
    fn set_token(&self, token: u64);
}

impl Changes for Bitmap {
    fn events(&self) -> u64 {
        self.events()
    }
    fn is_clean(&self) -> bool {
        self.is_clean()
    }
    fn is_broken(&self) -> bool {
        self.overflowed()
    }
    fn dirty(&self) -> Vec<Range<u64>> {
        self.dirty()
    }
    fn clear(&self, ranges: &[Range<u64>]) {
        self.clear(ranges);
    }
    fn mark(&self, ranges: &[Range<u64>]) {
        self.mark(ranges);
    }
    fn token(&self) -> u64 {
        self.token()
    }
    fn set_token(&self, token: u64) {
        self.set_token(token);
    }
}

pub(crate) fn count(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}
