//! Room behind the data of files, so that a file that grows or shrinks a little need not be written anew as a whole: databases
//! extend their files by a few pages all the time, also just before the last look.
//!
//! Between the data and the next entry stand global extended headers that hold a comment, which every program passes over. When a file
//! grows into them, they are written again behind its new end, and are so much smaller.

use super::model::Object;
use super::pass::Pass;
use crate::error::Result;
use crate::tar::header::Header;
use crate::tar::sparse::Extent;
use crate::tar::{BLOCK64, padding, write};

/// Files below this size are written anew.
const SMALLEST: u64 = 64 << 10;
/// So much of a file's size is left as room, but no more than [`MOST`].
const SHARE: u64 = 64;
const MOST: u64 = 16 << 20;
/// A file that leaves more than this behind its end is written anew.
const LEFT: u64 = 64 << 20;
/// The size of a filler at most, with its header: some programs take no extended header of more than a mebibyte.
const CHUNK: u64 = 512 << 10;

/// How much room is left behind a new file.
pub(super) fn usual(size: u64) -> u64 {
    if size < SMALLEST { 0 } else { (size / SHARE).clamp(4096, MOST) / BLOCK64 * BLOCK64 }
}

/// Whether an object can have this size where it is.
pub(super) fn holds(object: &Object, size: u64) -> bool {
    let blocks = size.checked_add(padding(size));
    object.room > 0 && blocks.is_some_and(|blocks| blocks <= object.room && object.room - blocks <= LEFT)
}

/// The parts of a filler of so many bytes that are not zeros: where they begin in it, and what they are.
fn render(size: u64) -> Vec<(u64, Vec<u8>)> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        let chunk = (size - at).min(CHUNK);
        // The record takes all of it, so that no zeros are needed after it. A header alone has none.
        let records = chunk - BLOCK64;
        let header =
            Header { name: b"filler".to_vec(), mode: 0o644, size: records, kind: b'g', ..Header::default() };
        let mut bytes = header.render().to_vec();
        if records > 0 {
            bytes.extend_from_slice(format!("{records} comment=").as_bytes());
            parts.push((at + chunk - 1, vec![b'\n']));
        }
        parts.push((at, bytes));
        at += chunk;
    }
    parts
}

impl Pass<'_, '_> {
    /// Appends a filler.
    pub(super) fn fill(&mut self, size: u64) -> Result<()> {
        let mut parts = render(size);
        parts.sort_by_key(|(at, _)| *at);
        let mut bytes = Vec::with_capacity(size as usize);
        for (at, part) in parts {
            bytes.resize(at as usize, 0);
            bytes.extend(part);
        }
        self.append(&bytes)
    }

    /// Gives an object another size where it is: what it gains is zeros, what it loses becomes filler. Answers false when nothing was
    /// done, as its header can't say so.
    pub(super) fn resize(&mut self, object: usize, size: u64) -> Result<bool> {
        let Object { head, data, room, .. } = self.model.object(object);
        let (head, data, room) = (head.clone(), *data, *room);
        let mut meta = head.meta.clone();
        let old = std::mem::replace(&mut meta.size, size);
        if write::stored(&meta) != size || !self.rewrite(&head, &meta)? {
            return Ok(false);
        }
        // From here on the tar file is not sound until the filler is written.
        let end = size + padding(size);
        let begin = old.min(size);
        let zeros = vec![0; (end - begin).min(1 << 20) as usize];
        let mut at = begin;
        while at < end {
            let some = (end - at).min(zeros.len() as u64);
            self.writer.out.patch(data + at, &zeros[..some as usize])?;
            at += some;
        }
        for (at, part) in render(room - end) {
            self.writer.out.patch(data + end + at, &part)?;
        }
        self.touched(head.member, data + begin, room - begin);
        let object = self.model.object_mut(object);
        object.head.meta = meta;
        object.extents = if size == 0 { Vec::new() } else { vec![Extent { offset: 0, len: size }] };
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::read::Archive;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn fillers_are_passed_over(blocks in prop_oneof![0..5_u64, 0..4000_u64], rubbish in any::<u8>()) {
            // What was there before stays in the comments.
            let mut bytes = vec![rubbish; (blocks * BLOCK64) as usize];
            for (at, part) in render(blocks * BLOCK64) {
                bytes[at as usize..at as usize + part.len()].copy_from_slice(&part);
            }
            bytes.resize(bytes.len() + 1024, 0);
            let mut archive = Archive::new(&bytes[..]);
            prop_assert_eq!(archive.next().unwrap(), None);
            prop_assert_eq!(archive.position(), bytes.len() as u64);
        }
    }
}
