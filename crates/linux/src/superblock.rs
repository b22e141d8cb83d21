//! What file system a file holds, from its superblock. (ext4: fs/ext4/ext4.h; XFS: fs/xfs/libxfs/xfs_format.h)

use crate::{KernelError, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file system found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Superblock {
    /// ext2, ext3 or ext4.
    Ext4(Ext4),
    /// XFS.
    Xfs(Xfs),
    /// btrfs.
    Btrfs([u8; 16]),
    /// None of these.
    None,
}

/// Of an ext4 superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ext4 {
    /// UUID.
    pub uuid: [u8; 16],
    /// The journal has to be replayed.
    pub needs_recovery: bool,
    /// Unmounted cleanly.
    pub clean: bool,
    /// Errors were found while it was mounted.
    pub has_errors: bool,
    /// Block size in bytes.
    pub block_size: u32,
}

/// Of an XFS superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xfs {
    /// UUID.
    pub uuid: [u8; 16],
    /// Block size in bytes.
    pub block_size: u32,
}

/// btrfs's superblock is at 64 KiB, its magic 64 bytes in.
const PREFIX: usize = (64 << 10) + 128;

/// Reads the superblock of what `file` holds.
pub fn probe(file: &File) -> Result<Superblock> {
    let mut bytes = vec![0; PREFIX];
    let mut filled = 0;
    while filled < PREFIX {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(KernelError { op: "read superblock", path: None, source }),
        }
    }
    Ok(parse(&bytes[..filled]))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// What the first bytes of a device say.
pub fn parse(bytes: &[u8]) -> Superblock {
    let ext4 = || {
        let at = |offset: usize| 1024 + offset;
        if u16::from_le_bytes(array(bytes, at(0x38))?) != 0xEF53 {
            return None;
        }
        let state = u16::from_le_bytes(array(bytes, at(0x3A))?);
        let shift = u32::from_le_bytes(array(bytes, at(0x18))?);
        Some(Superblock::Ext4(Ext4 {
            uuid: array(bytes, at(0x68))?,
            needs_recovery: u32::from_le_bytes(array(bytes, at(0x60))?) & 0x4 != 0,
            clean: state & 1 != 0,
            has_errors: state & 2 != 0,
            block_size: 1024_u32.checked_shl(shift).filter(|_| shift <= 6)?,
        }))
    };
    let xfs = || {
        (array::<4>(bytes, 0)? == *b"XFSB").then_some(())?;
        let block_size = u32::from_be_bytes(array(bytes, 4)?);
        Some(Superblock::Xfs(Xfs { uuid: array(bytes, 32)?, block_size }))
    };
    let btrfs = || {
        let at = 64 << 10;
        (array::<8>(bytes, at + 64)? == *b"_BHRfS_M").then_some(())?;
        Some(Superblock::Btrfs(array(bytes, at + 32)?))
    };
    ext4().or_else(xfs).or_else(btrfs).unwrap_or(Superblock::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_or_empty_input_is_nothing() {
        for length in [0, 3, 1024, 1100, 2048, PREFIX] {
            assert_eq!(parse(&vec![0; length]), Superblock::None);
        }
        let mut wild = vec![0xff; PREFIX];
        wild[1024 + 0x38..1024 + 0x3A].copy_from_slice(&0xEF53_u16.to_le_bytes());
        assert_eq!(parse(&wild), Superblock::None, "an impossible block size");
    }
}
