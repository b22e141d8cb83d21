//! The blake3 of a member that is patched after it was written.
//!
//! BLAKE3 is a tree: what is known of a piece stays true when another one changes. So one value is kept for each mebibyte,
//! those of patched pieces are made anew from the file, and the root is put together of all. The result is the same as of
//! hashing the whole at once.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// The size of a piece. A power of two, as the tree wants it, and small enough that a patch of 8 KiB costs little.
pub(crate) const PIECE: u64 = 1 << 20;

/// The sums of a member.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pieces: Vec<Piece>,
    size: u64,
    /// The piece at the end, while it is not full. `None` also when it has to be made from the file.
    open: Option<Box<Hasher>>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    /// `None`: has to be made from the file.
    value: Option<ChainingValue>,
}

/// Begins a piece.
fn hasher(index: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index * PIECE);
    hasher
}

impl Sums {
    /// Takes what comes next.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let some = bytes.len().min((PIECE - self.size % PIECE) as usize);
            if self.size.is_multiple_of(PIECE) {
                self.open = Some(Box::new(hasher(self.size / PIECE)));
            }
            if let Some(open) = &mut self.open {
                open.update(&bytes[..some]);
            }
            self.size += some as u64;
            if self.size.is_multiple_of(PIECE) {
                let value = self.open.take().map(|open| open.finalize_non_root());
                self.pieces.push(Piece { value });
            }
            bytes = &bytes[some..];
        }
    }

    /// Bytes that were taken are others now.
    pub fn patched(&mut self, at: u64, count: u64) {
        if count == 0 {
            return;
        }
        for index in at / PIECE..=(at + count - 1) / PIECE {
            match self.pieces.get_mut(index as usize) {
                Some(piece) => piece.value = None,
                None => self.open = None,
            }
        }
    }

    /// How many bytes were taken.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The sum of all. `read` fills the buffer from a place in the member, and is asked for what was patched or is not known.
    pub fn finish<E>(mut self, mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>) -> Result<Hash, E> {
        let size = self.size;
        let mut buffer = Vec::new();
        let mut again = |index: u64| {
            buffer.resize((size - index * PIECE).min(PIECE) as usize, 0);
            read(index * PIECE, &mut buffer)?;
            let mut hasher = hasher(index);
            hasher.update(&buffer);
            Ok(hasher)
        };
        // The root of what is one piece is made in another way.
        if size <= PIECE {
            return Ok(again(0)?.finalize());
        }
        let mut values = Vec::with_capacity(self.pieces.len() + 1);
        for (index, known) in self.pieces.iter().enumerate() {
            let index = index as u64;
            values.push(match known.value {
                Some(value) => value,
                None => again(index)?.finalize_non_root(),
            });
        }
        if !self.size.is_multiple_of(PIECE) {
            values.push(match self.open.take() {
                Some(open) => open.finalize_non_root(),
                None => again(size / PIECE)?.finalize_non_root(),
            });
        }
        let (left, right) = values.split_at(left(values.len()));
        Ok(merge_subtrees_root(&merge(left), &merge(right), Mode::Hash))
    }
}

/// How many of so many pieces are on the left side of their root: the largest power of two that leaves some.
fn left(count: usize) -> usize {
    count.next_power_of_two() / 2
}

fn merge(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [] => [0; 32],
        [one] => *one,
        more => {
            let (left, right) = more.split_at(left(more.len()));
            merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn read(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), Infallible> {
        |at, buffer| {
            buffer.copy_from_slice(&bytes[at as usize..at as usize + buffer.len()]);
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_sum_is_that_of_the_whole(
            mebis in 0..7_u64, more in prop_oneof![Just(0), Just(1), 0..PIECE], first in 0..PIECE * 7,
            early in any::<bool>(),
            patches in prop::collection::vec((any::<prop::sample::Index>(), 1..9000_usize, any::<u8>()), 0..6),
        ) {
            let mut bytes: Vec<u8> = (0..1 + mebis * PIECE + more).map(|at| ((at * 31) >> 3) as u8).collect();
            let mut sums = Sums::default();
            let (one, two) = bytes.split_at(first.min(bytes.len() as u64) as usize);
            sums.update(one);
            if early { sums.patched(0, first) }
            sums.update(two);
            for (at, len, value) in patches {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + len);
                bytes[at..end].fill(value);
                sums.patched(at as u64, (end - at) as u64);
            }
            prop_assert_eq!(sums.size(), bytes.len() as u64);
            prop_assert_eq!(sums.finish(read(&bytes)), Ok(blake3::hash(&bytes)));
        }
    }

    #[test]
    fn only_what_was_patched_is_read_again() {
        let bytes = vec![7; 5 * PIECE as usize + 10];
        let mut sums = Sums::default();
        sums.update(&bytes);
        sums.patched(3 * PIECE - 1, 2);
        let mut asked = Vec::new();
        let sum = sums.finish(|at, buffer| {
            asked.push(at / PIECE);
            read(&bytes)(at, buffer)
        });
        assert_eq!((sum, asked), (Ok(blake3::hash(&bytes)), vec![2, 3]));
    }
}
