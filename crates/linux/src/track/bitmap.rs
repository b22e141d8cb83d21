//! The bits of one volume: which blocks were written since they were last cleared.
//!
//! The words of the map, all of 64 bits:
//!
//! ```text
//! 0                SHAPE: the number of blocks, and above that the shift from sectors to blocks
//! 1                FLAGS
//! 2                CLEAN_AT: what EVENTS was when all bits were seen to be clear
//! 3                BYTES: the size of the volume
//! 4                DEVICE: the kernel's number of the device it was last of
//! 5                TOKEN
//! 8                EVENTS, away from what every request reads
//! 16               one bit for each block
//! 16 + blocks/64   one bit for each 4,096 blocks, for requests too long for the program
//! ```

use super::bpf::Words;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all ranges are counted in.
pub const BLOCK: u64 = 4096;
/// What the bits of one volume may take in memory; where blocks of 4 KiB need more, they become larger.
pub const MAX_BYTES: u64 = 48 << 20;

pub(super) const SHAPE: usize = 0;
pub(super) const FLAGS: usize = 1;
pub(super) const CLEAN_AT: usize = 2;
pub(super) const BYTES: usize = 3;
pub(super) const DEVICE: usize = 4;
pub(super) const TOKEN: usize = 5;
pub(super) const EVENTS: usize = 8;
pub(super) const HEADER: usize = 16;
/// In `SHAPE`, the shift is above the number of blocks.
pub(super) const SHIFT_AT: u32 = 56;
/// From blocks to coarse bits.
pub(super) const COARSE_SHIFT: u32 = 12;
/// In `FLAGS`: something beyond the end was written.
pub(super) const OVERFLOW: u64 = 1;
/// In `FLAGS`: another bitmap took the place of this one.
const RETIRED: u64 = 2;
/// Sectors in a block of 4 KiB, as a shift.
const FINE: u32 = 3;

/// How many blocks of which size, and how many words that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub blocks: u64,
    /// From sectors of 512 bytes to blocks.
    pub shift: u32,
}

impl Shape {
    /// The finest for a volume of this size.
    pub fn of(bytes: u64) -> Self {
        let sectors = bytes.div_ceil(512).max(1);
        let mut shape = Self { blocks: sectors.div_ceil(1 << FINE), shift: FINE };
        while shape.words() * 8 > MAX_BYTES {
            shape.shift += 1;
            shape.blocks = sectors.div_ceil(1 << shape.shift);
        }
        shape
    }

    pub fn decode(word: u64) -> Self {
        Self { blocks: word & ((1 << SHIFT_AT) - 1), shift: (word >> SHIFT_AT) as u32 & 63 }
    }

    pub fn encode(self) -> u64 {
        self.blocks | u64::from(self.shift) << SHIFT_AT
    }

    fn fine_words(self) -> u64 {
        self.blocks.div_ceil(64)
    }

    fn coarse_words(self) -> u64 {
        self.blocks.div_ceil(1 << COARSE_SHIFT).div_ceil(64)
    }

    pub fn words(self) -> u64 {
        HEADER as u64 + self.fine_words() + self.coarse_words()
    }

    /// Whether these numbers can be those of a bitmap.
    pub fn is_sane(self) -> bool {
        self.blocks > 0 && (FINE..48).contains(&self.shift) && self.words() * 8 <= MAX_BYTES
    }
}

/// The changed blocks of one volume. Clones are the same bits, and so are those of another process.
///
/// The kernel sets the bits of a request when it completes, before who waits for it is told. Who copies blocks clears their
/// bits *before* reading them: then a write that races with the copy has its bit set again.
#[derive(Clone)]
pub struct Bitmap {
    words: Arc<Words>,
    shape: Shape,
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bitmap").field("shape", &self.shape).field("events", &self.events()).finish()
    }
}

impl Bitmap {
    /// `None` where the words are not those of a bitmap.
    pub(super) fn over(words: Words) -> Option<Self> {
        let shape = Shape::decode(words.first()?.load(Ordering::Acquire));
        let fits = shape.is_sane() && words.len() as u64 == shape.words();
        fits.then(|| Self { words: Arc::new(words), shape })
    }

    pub(super) fn header(&self, word: usize) -> &AtomicU64 {
        &self.words[word]
    }

    pub(super) fn retire(&self) {
        self.header(FLAGS).fetch_or(RETIRED, Ordering::SeqCst);
    }

    fn fine(&self) -> &[AtomicU64] {
        &self.words[HEADER..HEADER + self.shape.fine_words() as usize]
    }

    fn coarse(&self) -> &[AtomicU64] {
        &self.words[HEADER + self.shape.fine_words() as usize..]
    }

    /// What one bit stands for, in bytes: 4,096, or more in a very large volume.
    pub fn block_size(&self) -> u64 {
        512 << self.shape.shift
    }

    /// Up to which block (of 4 KiB) writes are recorded.
    pub fn len_blocks(&self) -> u64 {
        self.shape.blocks << (self.shape.shift - FINE)
    }

    /// The size that the volume had when it was last followed, in bytes.
    pub fn volume_bytes(&self) -> u64 {
        self.header(BYTES).load(Ordering::Acquire)
    }

    /// What the bits take in the kernel's memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    /// How many times bits were set. While this stays the same, so do the bits, but for what was cleared.
    pub fn events(&self) -> u64 {
        self.header(EVENTS).load(Ordering::Acquire)
    }

    /// Whether nothing was marked since [`Bitmap::dirty`] last found nothing. This reads two words; `false` says only that
    /// it takes a look to know.
    pub fn is_clean(&self) -> bool {
        self.header(CLEAN_AT).load(Ordering::Acquire) == self.events() && !self.overflowed()
    }

    /// Whether the bits are not the whole truth: something beyond [`Bitmap::len_blocks`] was written, or these are not the
    /// volume's bits any more since [`super::Tracker::follow`] or [`super::Tracker::forget`] put others in their place.
    /// Then the volume is to be compared, or followed anew.
    pub fn overflowed(&self) -> bool {
        self.header(FLAGS).load(Ordering::Acquire) != 0
    }

    /// The number that [`Bitmap::set_token`] left; 0 in new bits.
    pub fn token(&self) -> u64 {
        self.header(TOKEN).load(Ordering::Acquire)
    }

    /// Leaves a number of the caller's with the bits, for as long as they are there. Until one other than 0 is there the bits
    /// count as fresh: who makes a first copy sets it once that is safe.
    pub fn set_token(&self, token: u64) {
        self.header(TOKEN).store(token, Ordering::Release);
    }

    /// The changed blocks (of 4 KiB) in order, without clearing them. Neighbours are one range.
    pub fn dirty(&self) -> Vec<Range<u64>> {
        let events = self.events();
        let mut ranges = Vec::new();
        // In this order: `clear` may be turning a coarse bit into others.
        let coarse = runs(self.coarse(), self.shape.blocks.div_ceil(1 << COARSE_SHIFT));
        let fine = runs(self.fine(), self.shape.blocks);
        let end = self.shape.blocks;
        let coarse =
            coarse.into_iter().map(|run| run.start << COARSE_SHIFT..(run.end << COARSE_SHIFT).min(end));
        let up = self.shape.shift - FINE;
        for run in merge(fine.into_iter(), coarse) {
            push(&mut ranges, run.start << up..run.end << up);
        }
        if ranges.is_empty() {
            // Whatever was marked after `events` was read has made it larger.
            self.header(CLEAN_AT).store(events, Ordering::Release);
        }
        ranges
    }

    /// Clears the bits of these blocks (of 4 KiB), and of no others: in order, and not overlapping, as [`Bitmap::dirty`] gives them.
    /// The caller reads the blocks after this. Where one bit stands for more than is in a range, it stays.
    pub fn clear(&self, ranges: &[Range<u64>]) {
        let blocks = self.inside(ranges);
        for range in &blocks {
            for (word, mask) in masks(range.clone()) {
                self.fine()[word].fetch_and(!mask, Ordering::SeqCst);
            }
        }
        // A coarse bit goes when what it stands for and is not in the ranges has bits of its own.
        let mut touched = None;
        for range in &blocks {
            let first = (range.start >> COARSE_SHIFT).max(touched.map_or(0, |last| last + 1));
            let last = (range.end - 1) >> COARSE_SHIFT;
            for bit in first..=last {
                self.refine(bit, &blocks);
            }
            touched = Some(last.max(touched.unwrap_or(0)));
        }
    }

    fn refine(&self, bit: u64, cleared: &[Range<u64>]) {
        let (word, mask) = ((bit / 64) as usize, 1 << (bit % 64));
        if self.coarse()[word].load(Ordering::SeqCst) & mask == 0 {
            return;
        }
        let end = ((bit + 1) << COARSE_SHIFT).min(self.shape.blocks);
        let mut at = bit << COARSE_SHIFT;
        let next = cleared.partition_point(|range| range.end <= at);
        for range in cleared[next..].iter().take_while(|range| range.start < end) {
            self.set(at..range.start);
            at = range.end;
        }
        self.set(at..end);
        self.coarse()[word].fetch_and(!mask, Ordering::SeqCst);
    }

    /// Sets the bits of these blocks (of 4 KiB), for what was cleared and could not be copied.
    pub fn mark(&self, ranges: &[Range<u64>]) {
        let up = self.shape.shift - FINE;
        for range in ranges {
            let end = range.end.div_ceil(1 << up);
            if end > self.shape.blocks {
                self.header(FLAGS).fetch_or(OVERFLOW, Ordering::SeqCst);
            }
            self.set(range.start >> up..end.min(self.shape.blocks));
        }
        self.header(EVENTS).fetch_add(1, Ordering::SeqCst);
    }

    /// Marks all there is.
    pub fn mark_all(&self) {
        let all = 0..self.len_blocks();
        self.mark(&[all]);
    }

    fn set(&self, range: Range<u64>) {
        for (word, mask) in masks(range) {
            self.fine()[word].fetch_or(mask, Ordering::SeqCst);
        }
    }

    /// The blocks of this bitmap that are wholly in the ranges.
    fn inside(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let up = self.shape.shift - FINE;
        let blocks = ranges.iter().map(|range| {
            // Nobody has anything to say of what is behind the end.
            range.start.div_ceil(1 << up)..(range.end >> up).min(self.shape.blocks)
        });
        blocks.filter(|range| range.start < range.end).collect()
    }
}

/// The words of these bits, with the bits in each.
fn masks(range: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let Range { start, end } = range;
    let words = if start < end { start / 64..end.div_ceil(64) } else { 0..0 };
    words.map(move |word| {
        let low = start.saturating_sub(word * 64);
        let high = (end - word * 64).min(64);
        (word as usize, u64::MAX << low & u64::MAX >> (64 - high))
    })
}

/// The runs of bits that are set among the first `bits`.
fn runs(words: &[AtomicU64], bits: u64) -> Vec<Range<u64>> {
    let mut runs = Vec::new();
    // Nearly all of a large volume is clean: whole lines of the cache are passed over at once.
    let lines = words
        .chunks(8)
        .enumerate()
        .filter(|(_, line)| line.iter().fold(0, |any, word| any | word.load(Ordering::Relaxed)) != 0);
    let words = lines.flat_map(|(at, line)| (at * 8..).zip(line));
    for (at, word) in words {
        let mut rest = word.load(Ordering::Relaxed);
        while rest != 0 {
            let low = rest.trailing_zeros();
            let length = (rest >> low).trailing_ones();
            let start = at as u64 * 64 + u64::from(low);
            push(&mut runs, start..(start + u64::from(length)).min(bits));
            rest &= u64::MAX.checked_shl(low + length).unwrap_or(0);
        }
    }
    runs
}

/// Appends a range that does not begin before the last one.
fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
        _ if range.start < range.end => ranges.push(range),
        _ => {}
    }
}

fn merge(
    one: impl Iterator<Item = Range<u64>>,
    other: impl Iterator<Item = Range<u64>>,
) -> impl Iterator<Item = Range<u64>> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(a), Some(b)) if a.start > b.start => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // It would have a list of numbers.
mod tests {
    use super::super::bpf;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::os::fd::AsFd;

    fn bitmap(shape: Shape) -> Bitmap {
        let map = bpf::create_words("test", shape.words() as u32).unwrap();
        let words = Words::map(map.as_fd()).unwrap();
        words[SHAPE].store(shape.encode(), Ordering::Release);
        Bitmap::over(words).unwrap()
    }

    fn blocks(ranges: &[Range<u64>]) -> BTreeSet<u64> {
        ranges.iter().cloned().flatten().collect()
    }

    #[test]
    fn the_bits_of_any_size_fit() {
        for (bytes, blocks, shift) in [
            (0, 1, 3),
            (1, 1, 3),
            (4096, 1, 3),
            (4097, 2, 3),
            (1 << 40, 1 << 28, 3),
            (2 << 40, 1 << 28, 4),
            (16 << 40, 1 << 28, 7),
            (u64::MAX, 1 << 28, 27),
        ] {
            let shape = Shape::of(bytes);
            assert_eq!(shape, Shape { blocks, shift }, "{bytes}");
            assert_eq!(Shape::decode(shape.encode()), shape);
            assert!(shape.is_sane() && shape.words() * 8 <= MAX_BYTES);
        }
        // 32 MiB for 1 TiB.
        assert!(Shape::of(1 << 40).words() * 8 < (32 << 20) + (16 << 10));
        for junk in [0, u64::MAX, 1, 63 << SHIFT_AT | 1, 3 << SHIFT_AT, 3 << SHIFT_AT | 1 << 40] {
            assert!(!Shape::decode(junk).is_sane(), "{junk:x}");
        }
    }

    #[test]
    fn one_bit_may_stand_for_many_blocks() {
        let bitmap = bitmap(Shape { blocks: 100, shift: 5 });
        assert_eq!((bitmap.block_size(), bitmap.len_blocks()), (16384, 400));
        bitmap.mark(&[5..6, 399..400]);
        assert_eq!(bitmap.dirty(), [4..8, 396..400]);
        bitmap.clear(&[5..8, 390..400]);
        assert_eq!(bitmap.dirty(), [4..8], "not all that the bit stands for was read");
        bitmap.clear(&[0..9]);
        assert_eq!(bitmap.dirty(), []);
        assert!(bitmap.is_clean());
        bitmap.mark(&[399..401]);
        assert!(bitmap.overflowed());
    }

    /// In order and not overlapping.
    fn ranges(end: u64) -> impl Strategy<Value = Vec<Range<u64>>> {
        let cuts = proptest::collection::btree_set(0..=end, 0..12);
        cuts.prop_map(|cuts| {
            let cuts: Vec<_> = cuts.into_iter().collect();
            cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect()
        })
    }

    const BLOCKS: u64 = 3 * 4096 + 77;

    #[derive(Debug, Clone)]
    enum Step {
        Mark(Vec<Range<u64>>),
        Coarse(u64),
        Clear(Vec<Range<u64>>),
        ClearDirty,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            ranges(BLOCKS).prop_map(Step::Mark),
            (0..4_u64).prop_map(Step::Coarse),
            ranges(BLOCKS + 100).prop_map(Step::Clear),
            Just(Step::ClearDirty),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bits_are_those_of_a_model(steps in proptest::collection::vec(step(), 1..12)) {
            let bitmap = bitmap(Shape { blocks: BLOCKS, shift: 3 });
            let mut model = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Mark(ranges) => {
                        bitmap.mark(&ranges);
                        model.extend(blocks(&ranges));
                    }
                    Step::Coarse(bit) => {
                        // As the program does it.
                        bitmap.coarse()[0].fetch_or(1 << bit, Ordering::SeqCst);
                        bitmap.header(EVENTS).fetch_add(1, Ordering::SeqCst);
                        model.extend(bit << COARSE_SHIFT..((bit + 1) << COARSE_SHIFT).min(BLOCKS));
                    }
                    Step::Clear(ranges) => {
                        bitmap.clear(&ranges);
                        for block in blocks(&ranges) {
                            model.remove(&block);
                        }
                    }
                    Step::ClearDirty => {
                        bitmap.clear(&bitmap.dirty());
                        model.clear();
                    }
                }
                let dirty = bitmap.dirty();
                prop_assert_eq!(blocks(&dirty), model.clone());
                prop_assert!(dirty.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert_eq!(bitmap.is_clean(), model.is_empty());
                prop_assert!(!bitmap.overflowed());
            }
        }
    }
}
