//! What the first bytes of an image say about the file system in it. A pure parser, and one function that reads. It
//! trusts nothing it reads, and repairs nothing.

use crate::{KernelError, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file system's description of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Superblock {
    /// ext2, ext3 or ext4 (`fs/ext4/ext4.h`, `struct ext4_super_block`).
    Ext4(Ext4),
    /// XFS (`fs/xfs/libxfs/xfs_format.h`, `struct xfs_dsb`).
    Xfs(Xfs),
    /// btrfs (`linux/btrfs_tree.h`, `struct btrfs_super_block`).
    Btrfs(Btrfs),
    /// None of these.
    None,
}

/// What an ext4 superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ext4 {
    /// Its ID.
    pub uuid: [u8; 16],
    /// The journal holds changes that are not in place yet: it is mounted, or was not unmounted.
    pub needs_recovery: bool,
    /// Marked clean. With a journal it stays so while mounted; see `needs_recovery`.
    pub clean: bool,
    /// The kernel has met errors in it.
    pub has_errors: bool,
    /// Bytes in a block.
    pub block_size: u32,
    /// Its size in blocks.
    pub blocks: u64,
    /// When it was last mounted, in seconds since 1970; 0: never.
    pub mounted_at: u64,
}

/// What an XFS superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xfs {
    /// Its ID.
    pub uuid: [u8; 16],
    /// Bytes in a block.
    pub block_size: u32,
    /// The size of the data section in blocks.
    pub blocks: u64,
}

/// What a btrfs superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Btrfs {
    /// Its ID.
    pub uuid: [u8; 16],
    /// Bytes in a sector, its smallest unit.
    pub block_size: u32,
    /// Its size in sectors.
    pub blocks: u64,
}

impl Superblock {
    /// Its ID, if there is a file system.
    pub fn uuid(&self) -> Option<[u8; 16]> {
        match self {
            Self::Ext4(ext4) => Some(ext4.uuid),
            Self::Xfs(xfs) => Some(xfs.uuid),
            Self::Btrfs(btrfs) => Some(btrfs.uuid),
            Self::None => None,
        }
    }
}

/// Where the superblock of ext4 is, in bytes.
const EXT4_AT: usize = 1024;
/// Where the superblock of btrfs is, in bytes.
const BTRFS_AT: usize = 64 << 10;
/// How many bytes of a device matter to [`parse`].
pub const LENGTH: usize = BTRFS_AT + 4096;

/// Reads what file system a file or device holds.
///
/// # Errors
/// A file that can't be read. A short one is no error, and holds nothing.
pub fn probe(file: &File) -> Result<Superblock> {
    let mut bytes = vec![0; LENGTH];
    let mut have = 0;
    while have < bytes.len() {
        match file.read_at(&mut bytes[have..], have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(KernelError::on_fd("read superblock of", file, error)),
        }
    }
    bytes.truncate(have);
    Ok(parse(&bytes))
}

/// Finds the superblock in the first [`LENGTH`] bytes of a device, or in fewer.
pub fn parse(bytes: &[u8]) -> Superblock {
    let at = |offset| bytes.get(offset..).unwrap_or_default();
    xfs(bytes)
        .map(Superblock::Xfs)
        .or_else(|| ext4(at(EXT4_AT)).map(Superblock::Ext4))
        .or_else(|| btrfs(at(BTRFS_AT)).map(Superblock::Btrfs))
        .unwrap_or(Superblock::None)
}

fn take<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn le32(bytes: &[u8], offset: usize) -> Option<u32> {
    take(bytes, offset).map(u32::from_le_bytes)
}

fn le16(bytes: &[u8], offset: usize) -> Option<u16> {
    take(bytes, offset).map(u16::from_le_bytes)
}

fn ext4(sb: &[u8]) -> Option<Ext4> {
    const MAGIC: u16 = 0xEF53;
    const STATE_VALID: u16 = 1;
    const STATE_ERROR: u16 = 2;
    const INCOMPAT_RECOVER: u32 = 0x4;
    const INCOMPAT_64BIT: u32 = 0x80;
    if le16(sb, 0x38)? != MAGIC {
        return None;
    }
    let state = le16(sb, 0x3A)?;
    let incompat = le32(sb, 0x60)?;
    let log_block_size = le32(sb, 0x18)?;
    let high = if incompat & INCOMPAT_64BIT != 0 { le32(sb, 0x150)? } else { 0 };
    let mounted_at_high = *sb.get(0x275)?;
    Some(Ext4 {
        uuid: take(sb, 0x68)?,
        needs_recovery: incompat & INCOMPAT_RECOVER != 0,
        clean: state & STATE_VALID != 0,
        has_errors: state & STATE_ERROR != 0,
        // 1 KiB to 64 KiB; anything else is not a superblock.
        block_size: (log_block_size <= 6).then(|| 1024 << log_block_size)?,
        blocks: u64::from(high) << 32 | u64::from(le32(sb, 0x04)?),
        mounted_at: u64::from(mounted_at_high) << 32 | u64::from(le32(sb, 0x2C)?),
    })
}

fn xfs(sb: &[u8]) -> Option<Xfs> {
    if take(sb, 0)? != *b"XFSB" {
        return None;
    }
    Some(Xfs {
        block_size: u32::from_be_bytes(take(sb, 4)?),
        blocks: u64::from_be_bytes(take(sb, 8)?),
        uuid: take(sb, 32)?,
    })
}

fn btrfs(sb: &[u8]) -> Option<Btrfs> {
    if take(sb, 0x40)? != *b"_BHRfS_M" {
        return None;
    }
    let sector = le32(sb, 0x90)?;
    Some(Btrfs {
        uuid: take(sb, 0x20)?,
        block_size: sector,
        blocks: u64::from_le_bytes(take(sb, 0x70)?).checked_div(u64::from(sector))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // What mkfs writes, and what the kernel makes of it, is read in tests/kernel.

    #[test]
    fn btrfs_is_known_by_its_place() {
        let mut bytes = vec![0; LENGTH];
        let sb = &mut bytes[BTRFS_AT..];
        sb[0x40..0x48].copy_from_slice(b"_BHRfS_M");
        sb[0x20..0x30].copy_from_slice(&[9; 16]);
        sb[0x70..0x78].copy_from_slice(&(1_u64 << 30).to_le_bytes());
        sb[0x90..0x94].copy_from_slice(&4096_u32.to_le_bytes());
        let found = parse(&bytes);
        assert_eq!(found, Superblock::Btrfs(Btrfs { uuid: [9; 16], block_size: 4096, blocks: 1 << 18 }));
        assert_eq!(found.uuid(), Some([9; 16]));
        assert_eq!(parse(&bytes[..BTRFS_AT]), Superblock::None);
    }

    #[test]
    fn large_file_systems_and_late_years() {
        let mut bytes = vec![0; LENGTH];
        let sb = &mut bytes[EXT4_AT..];
        sb[0x38..0x3A].copy_from_slice(&[0x53, 0xEF]);
        sb[0x18] = 2;
        sb[0x3A] = 3;
        sb[0x60] = 0x84;
        sb[0x04..0x08].copy_from_slice(&5_u32.to_le_bytes());
        sb[0x150..0x154].copy_from_slice(&1_u32.to_le_bytes());
        sb[0x2C..0x30].copy_from_slice(&7_u32.to_le_bytes());
        sb[0x275] = 1;
        let Superblock::Ext4(ext4) = parse(&bytes) else { panic!("not known") };
        assert_eq!((ext4.block_size, ext4.blocks, ext4.mounted_at), (4096, (1 << 32) + 5, (1 << 32) + 7));
        assert!(ext4.clean && ext4.has_errors && ext4.needs_recovery);
        // The high half is something else in a file system without the feature.
        bytes[EXT4_AT + 0x60] = 0;
        let Superblock::Ext4(ext4) = parse(&bytes) else { panic!("not known") };
        assert_eq!((ext4.blocks, ext4.needs_recovery), (5, false));
        bytes[EXT4_AT + 0x18] = 7;
        assert_eq!(parse(&bytes), Superblock::None);
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            magic in prop::sample::select(vec![(0, b"XFSB".to_vec()), (EXT4_AT + 0x38, vec![0x53, 0xEF]), (BTRFS_AT + 0x40, b"_BHRfS_M".to_vec())]),
            noise in prop::collection::vec(any::<u8>(), 512),
            length in 0..LENGTH,
        ) {
            let mut bytes: Vec<u8> = noise.iter().copied().cycle().take(LENGTH).collect();
            bytes[magic.0..magic.0 + magic.1.len()].copy_from_slice(&magic.1);
            parse(&bytes);
            parse(&bytes[..length]);
        }
    }
}
