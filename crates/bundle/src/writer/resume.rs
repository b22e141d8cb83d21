//! What an interrupted attempt left, and how much of it can be kept.
//!
//! No journal is kept: a blob's name is its digest, so what is there proves itself, whatever moment a process was killed or a
//! host lost its power at.

use super::Out;
use crate::digest::{Digest, Sha};
use crate::error::{Error, Result};
use crate::frame;
use crate::sums::Sums;
use crate::tar::header::{Block, Header};
use crate::tar::{BLOCK, BLOCK64};

/// A blob that is as its name says.
pub(super) struct Found {
    pub digest: Digest,
    /// Where its data begins.
    pub offset: u64,
    pub size: u64,
    pub blake3: blake3::Hash,
}

/// Where the third member's header is: after the preamble and `oci-layout`.
fn third() -> u64 {
    let second = BLOCK64 + frame::PREAMBLE_SIZE;
    frame::after(second + BLOCK64, frame::OCI_LAYOUT_TEXT.len() as u64)
}

/// All whole blobs that follow the first two members without a gap.
pub(super) fn scan(out: &mut Out) -> Result<Vec<Found>> {
    let len = out.len()?;
    let mut found = Vec::new();
    if len == 0 {
        return Ok(found);
    }
    // The first block is zeros when the power was lost before anything was on the disk.
    let mut first: Block = [0; BLOCK];
    let first_len = len.min(BLOCK64) as usize;
    out.read(0, &mut first[..first_len])?;
    let ours = Header::parse(&first).is_some_and(|header| header.path() == frame::PREAMBLE.as_bytes());
    // The process may have been killed within the first block, too.
    let torn =
        len < BLOCK64 && frame::PREAMBLE.bytes().zip(&first[..first_len]).all(|(name, byte)| name == *byte);
    if first.iter().any(|byte| *byte != 0) && !ours && !torn {
        return Err(Error::Foreign { partial: out.partial().to_owned() });
    }
    let mut at = third();
    while ours && at + BLOCK64 <= len {
        let mut block: Block = [0; BLOCK];
        out.read(at, &mut block)?;
        let Some((digest, size)) = blob(&block) else { break };
        let offset = at + BLOCK64;
        // The last member's filler may be missing; the data may not.
        if offset.checked_add(size).is_none_or(|end| end > len) {
            break;
        }
        let Some(blake3) = prove(out, digest, offset, size)? else { break };
        found.push(Found { digest, offset, size, blake3 });
        at = frame::after(offset, size);
    }
    Ok(found)
}

/// What a header says, if it is one of ours for a blob.
fn blob(block: &Block) -> Option<(Digest, u64)> {
    let header = Header::parse(block)?;
    let path = String::from_utf8(header.path()).ok()?;
    let digest = Digest::from_hex(path.strip_prefix(frame::BLOBS)?)?;
    (frame::header(&path, header.size, header.mtime) == *block).then_some((digest, header.size))
}

fn prove(out: &mut Out, digest: Digest, offset: u64, size: u64) -> Result<Option<blake3::Hash>> {
    let (mut sha, mut sums) = (Sha::new(), Sums::default());
    let mut buffer = vec![0; 1 << 20];
    while sums.size() < size {
        let some = (size - sums.size()).min(buffer.len() as u64) as usize;
        out.read(offset + sums.size(), &mut buffer[..some])?;
        sha.update(&buffer[..some]);
        sums.update(&buffer[..some]);
    }
    if sha.finish() != digest {
        return Ok(None);
    }
    sums.finish(|at, buffer| out.read(offset + at, buffer)).map(Some)
}
