use super::*;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;

/// What is to be in a file: pieces of data, each with its offset and byte.
type Layout = Vec<(u64, usize, u8)>;

fn layout() -> impl Strategy<Value = Layout> {
    let piece = (0..80u64, prop_oneof![Just(1usize), 1..9000usize, 60_000..200_000usize], 1..255u8);
    prop::collection::vec(piece.prop_map(|(at, length, byte)| (at * 24 * 1024, length, byte)), 0..6)
}

fn lay(file: &File, size: u64, layout: &Layout) {
    file.set_len(0).unwrap();
    file.set_len(size).unwrap();
    for (offset, length, byte) in layout.iter().filter(|(offset, ..)| *offset < size) {
        let length = (*length as u64).min(size - offset) as usize;
        file.write_all_at(&vec![*byte; length], *offset).unwrap();
    }
}

fn whole(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn scan(file: &File, size: u64, old: &Marks, take: &mut dyn FnMut(Piece<'_>)) -> Part {
    let scan = Scan::new(file.try_clone().unwrap(), size, Arc::new(old.clone()), Hashing::new());
    scan_all(&scan, take)
}

fn scan_all(scan: &Scan, take: &mut dyn FnMut(Piece<'_>)) -> Part {
    let all: Result<Part, Failed<()>> = scan.all(&mut |piece| {
        take(piece);
        Ok(())
    });
    all.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file was and is: the differences turn a copy of what it was into what it is, an unchanged file has none, and
    /// blocks in holes have no marks.
    #[test]
    fn differences_bring_a_copy_up_to_date(
        (old, old_size) in (layout(), 0..2_000_000u64),
        (new, new_size) in (layout(), 0..2_000_000u64),
        grown in any::<bool>(),
    ) {
        let hashing = Hashing::new();
        let file = tempfile::tempfile().unwrap();
        lay(&file, old_size, &old);
        let mut copy = vec![0u8; old_size as usize];
        let first = Scan::new(file.try_clone().unwrap(), old_size, Arc::default(), hashing);
        let before = scan_all(&first, &mut |piece| match piece {
            Piece::Data { offset, bytes } => copy[offset as usize..][..bytes.len()].copy_from_slice(bytes),
            Piece::Hole { .. } => {},
        });
        prop_assert!(copy == whole(&file));
        let allocated = old.iter().filter(|(offset, ..)| *offset < old_size).count() > 0;
        prop_assert_eq!(before.marks.is_empty(), !allocated);

        if grown {
            for (offset, length, byte) in &new {
                file.write_all_at(&vec![*byte; *length], *offset).unwrap();
            }
        } else {
            lay(&file, new_size, &new);
        }
        let size = file.metadata().unwrap().len();
        copy.resize(size as usize, 0);
        let marks = Arc::new(before.marks);
        let second = Scan::new(file.try_clone().unwrap(), size, marks, hashing);
        let after = scan_all(&second, &mut |piece| match piece {
            Piece::Data { offset, bytes } => copy[offset as usize..][..bytes.len()].copy_from_slice(bytes),
            Piece::Hole { offset, length } => copy[offset as usize..][..length as usize].fill(0),
        });
        prop_assert!(copy == whole(&file));
        prop_assert!(!after.short);

        let mut differences = 0;
        let third = Scan::new(file.try_clone().unwrap(), size, Arc::new(after.marks.clone()), hashing);
        let again = scan_all(&third, &mut |_| differences += 1);
        prop_assert_eq!(differences, 0);
        prop_assert_eq!(again.marks, after.marks);
    }
}

#[test]
fn one_changed_byte_is_one_block() {
    let hashing = Hashing::new();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![7; 40 << 20], 0).unwrap();
    let scan_with = |marks| Scan::new(file.try_clone().unwrap(), 40 << 20, marks, hashing);
    let marks = scan_all(&scan_with(Arc::default()), &mut |_| {}).marks;
    assert_eq!(marks.len() * BLOCK, 40 << 20);
    file.write_all_at(&[8], 33 * BLOCK + 5).unwrap();
    let mut found = Vec::new();
    scan_all(&scan_with(Arc::new(marks)), &mut |piece| match piece {
        Piece::Data { offset, bytes } => found.push((offset, bytes.len() as u64)),
        Piece::Hole { .. } => found.push((0, 0)),
    });
    assert_eq!(found, [(33 * BLOCK, BLOCK)]);
}

#[test]
fn holes_are_neither_read_nor_handed_on() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 43).unwrap();
    file.write_all_at(b"in the middle", 1 << 42).unwrap();
    let mut data = 0;
    let part = scan(&file, 1 << 43, &Marks::default(), &mut |piece| match piece {
        Piece::Data { bytes, .. } => data += bytes.len(),
        Piece::Hole { length, .. } => assert!(length < BLOCK),
    });
    assert_eq!((part.read, part.marks.len(), data), (BLOCK, 1, 4096));
}

#[test]
fn what_a_file_lost_while_it_is_read_counts_as_zeros() {
    let hashing = Hashing::new();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![7; 100_000], 0).unwrap();
    let mut copy = vec![1u8; 300_000];
    let scan = Scan::new(file.try_clone().unwrap(), 300_000, Arc::default(), hashing);
    let part = scan_all(&scan, &mut |piece| match piece {
        Piece::Data { offset, bytes } => copy[offset as usize..][..bytes.len()].copy_from_slice(bytes),
        Piece::Hole { offset, length } => copy[offset as usize..][..length as usize].fill(0),
    });
    assert!(part.short);
    assert_eq!(part.marks.get(1), Some(hashing.mark(&copy[BLOCK as usize..2 * BLOCK as usize])));
    assert!(
        copy[..100_000].iter().all(|&byte| byte == 7) && copy[100_000..131_072].iter().all(|&byte| byte == 0)
    );
}

#[test]
fn threads_share_a_file() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![3; 100 << 20], 0).unwrap();
    let scan = Scan::new(file, 100 << 20, Arc::default(), Hashing::new());
    let mut parts = [Vec::new(), Vec::new()];
    std::thread::scope(|scope| {
        for mine in &mut parts {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                let mut take = |_: Piece<'_>| Ok::<(), ()>(());
                while let Some(part) = scan.part(&mut buffer, &mut take).unwrap() {
                    mine.push(part.marks);
                }
            });
        }
    });
    let marks = Marks::join(parts.into_iter().flatten().collect());
    assert_eq!(marks.len(), (100 << 20) / BLOCK);
    assert!((0..marks.len()).all(|block| marks.get(block) == marks.get(0)));
}

/// Between asking where there is data and reading it, somebody writes into a hole.
#[test]
fn what_is_written_into_a_hole_meanwhile_is_handed_on() {
    let mut bytes = vec![0; BLOCK as usize];
    bytes[..4096].fill(1);
    bytes[20_000..20_010].fill(2);
    let known = 0..4096;
    let (mut data, mut holes) = (vec![0; BLOCK as usize], 0);
    let taken: Result<(), ()> = hand_on(&bytes, 0, 0..BLOCK, std::slice::from_ref(&known), &mut |piece| {
        match piece {
            Piece::Data { offset, bytes } => data[offset as usize..][..bytes.len()].copy_from_slice(bytes),
            Piece::Hole { .. } => holes += 1,
        }
        Ok(())
    });
    assert!(taken.is_ok() && data == bytes);
    assert_eq!(holes, 0);
}
