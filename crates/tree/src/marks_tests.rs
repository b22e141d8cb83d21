use super::*;
use proptest::prelude::*;

#[test]
fn blocks_in_holes_have_no_marks() {
    let mut marks = Marks::default();
    for block in [3, 4, 9] {
        marks.push(block, u128::from(block));
    }
    assert_eq!(
        [2, 3, 4, 5, 8, 9, 10].map(|block| marks.get(block)),
        [None, Some(3), Some(4), None, None, Some(9), None]
    );
    assert!(marks.any(0..4) && marks.any(4..5) && marks.any(5..10) && marks.any(0..u64::MAX));
    assert!(!marks.any(0..3) && !marks.any(5..9) && !marks.any(10..u64::MAX) && !marks.any(4..4));
    assert_eq!(marks.len(), 3);
}

#[test]
fn one_bit_the_length_and_the_seed_make_another_mark() {
    let hashing = Hashing::new();
    let mut block = vec![0u8; BLOCK as usize];
    let mark = hashing.mark(&block);
    assert_ne!(mark, hashing.mark(&block[1..]));
    assert_ne!(mark, Hashing { seed: hashing.seed ^ 1 }.mark(&block));
    block[BLOCK as usize - 1] = 1;
    assert_ne!(mark, hashing.mark(&block));
}

#[test]
fn two_trackers_have_different_seeds() {
    assert_ne!(Hashing::new(), Hashing::new());
}

proptest! {
    /// However a file is cut into pieces, its marks are those of its blocks, and blocks in holes have none.
    #[test]
    fn a_recorder_marks_blocks(
        pieces in prop::collection::vec((any::<bool>(), prop_oneof![1..5u64, 1..3 * BLOCK, Just(BLOCK)], any::<u8>()), 0..12)
    ) {
        let hashing = Hashing { seed: 7 };
        let mut recorder = Recorder::new(hashing);
        let (mut content, mut is_data) = (Vec::new(), Vec::new());
        for (data, length, byte) in pieces {
            let bytes = vec![if data { byte } else { 0 }; length as usize];
            if data { recorder.data(&bytes) } else { recorder.hole(length) }
            is_data.extend(std::iter::repeat_n(data, bytes.len()));
            content.extend(bytes);
        }
        let marks = recorder.finish();
        for (block, bytes) in content.chunks(BLOCK as usize).enumerate() {
            let start = block * BLOCK as usize;
            let touched = is_data[start..start + bytes.len()].contains(&true);
            prop_assert_eq!(marks.get(block as u64), touched.then(|| hashing.mark(bytes)));
        }
        prop_assert!(!marks.any(content.len().div_ceil(BLOCK as usize) as u64..u64::MAX));
    }

    /// Parts in any order make the whole.
    #[test]
    fn parts_join(blocks in prop::collection::btree_set(0..60u64, 0..60), cuts in prop::collection::btree_set(0..60u64, 0..5)) {
        let mut whole = Marks::default();
        let mut parts = vec![Marks::default()];
        for block in blocks {
            if cuts.contains(&block) {
                parts.insert(0, Marks::default());
            }
            whole.push(block, u128::from(block));
            parts[0].push(block, u128::from(block));
        }
        prop_assert_eq!(Marks::join(parts), whole);
    }
}
