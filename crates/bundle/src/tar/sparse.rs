//! Sparse files in the form that GNU tar calls 1.0: the map of what is data stands before the data.

use super::{BLOCK, padding, pax};
use std::io::{Error, ErrorKind, Read, Result};

/// A run of data in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// Enough for a file with a hole at every other 4 KiB block of 32 GiB; a map of more would need much memory to read.
pub(crate) const EXTENTS_MAX: usize = 4 << 20;

/// The map as it stands before the data, filled up with zeros to whole blocks.
pub(crate) fn render(extents: &[Extent]) -> Vec<u8> {
    let mut map = format!("{}\n", extents.len()).into_bytes();
    for extent in extents {
        map.extend_from_slice(format!("{}\n{}\n", extent.offset, extent.len).as_bytes());
    }
    map.resize(map.len() + padding(map.len() as u64) as usize, 0);
    map
}

/// Makes a map that can be written: at most [`EXTENTS_MAX`] runs (small holes become data), and an empty one at the end when the
/// file ends with a hole, as GNU tar has it.
pub(crate) fn tidy(mut extents: Vec<Extent>, size: u64) -> Vec<Extent> {
    let mut small = 4096;
    while extents.len() >= EXTENTS_MAX {
        let mut merged: Vec<Extent> = Vec::new();
        for extent in extents {
            match merged.last_mut() {
                Some(last) if extent.offset - (last.offset + last.len) <= small => {
                    last.len = extent.offset + extent.len - last.offset;
                }
                _ => merged.push(extent),
            }
        }
        extents = merged;
        small *= 2;
    }
    if extents.last().is_none_or(|last| last.offset + last.len < size) {
        extents.push(Extent { offset: size, len: 0 });
    }
    extents
}

/// Reads a map. Answers it and how many bytes it took, which are whole blocks.
///
/// # Errors
/// What it is read from can't be read, or it is not a map of a file of `size` bytes, or is longer than `available`.
pub(crate) fn read(input: &mut impl Read, size: u64, available: u64) -> Result<(Vec<Extent>, u64)> {
    let bad = |what: &str| Error::new(ErrorKind::InvalidData, format!("its map of holes {what}"));
    let mut taken = 0;
    let mut block = [0; BLOCK];
    let mut number = Vec::new();
    let mut next = |taken: &mut u64| -> Result<u64> {
        loop {
            let at = (*taken % BLOCK as u64) as usize;
            if at == 0 {
                if *taken + BLOCK as u64 > available {
                    return Err(bad("is cut off"));
                }
                input.read_exact(&mut block)?;
            }
            *taken += 1;
            match block[at] {
                b'\n' => break,
                digit if number.len() < 20 => number.push(digit),
                _ => return Err(bad("has a number that is too long")),
            }
        }
        let value = pax::decimal(&number).ok_or_else(|| bad("has something that is no number"));
        number.clear();
        value
    };
    let count = next(&mut taken)?;
    if count > EXTENTS_MAX as u64 + 1 {
        return Err(bad("is too long"));
    }
    let mut extents = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        let (offset, len) = (next(&mut taken)?, next(&mut taken)?);
        if offset < end || len > size || offset > size - len {
            return Err(bad("is not in order, or leads beyond the end"));
        }
        end = offset + len;
        if len > 0 {
            extents.push(Extent { offset, len });
        }
    }
    Ok((extents, taken + padding(taken)))
}
