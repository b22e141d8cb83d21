//! A part's table: which blocks it holds, and where.

use super::seal::{Hash, Salt};
use super::{BLOCK, FormatError, PART_ENTRIES};

/// One entry in bytes.
const ENTRY: usize = 48;
const ZEROS: u8 = 0;
const RAW: u8 = 1;
const COMPRESSED: u8 = 2;
/// Blocks are numbered with 56 bits.
const LAST_BLOCK: u64 = (1 << 56) - 1;
/// A sealed block is at most so long.
const LONGEST: u32 = BLOCK as u32 + 16;

/// What an entry says about its block or blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// So many blocks from here are zeros.
    Zeros {
        /// How many.
        count: u32,
    },
    /// One block with this content.
    Data {
        /// Whether it was compressed before it was sealed.
        compressed: bool,
        /// Its length as sealed.
        len: u32,
        /// The hash of its content.
        hash: Hash,
        /// Names the key of its seal.
        salt: Salt,
        /// The nonce of its seal.
        count: u32,
    },
}

/// One entry of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The number of the (first) block.
    pub block: u64,
    /// What it holds.
    pub content: Content,
}

impl Entry {
    /// How many blocks it speaks of.
    pub fn blocks(&self) -> u64 {
        match self.content {
            Content::Zeros { count } => count.into(),
            Content::Data { .. } => 1,
        }
    }

    /// The block after its last.
    pub fn end(&self) -> u64 {
        self.block + self.blocks()
    }

    /// How many bytes it has in the part's data.
    pub fn sealed_len(&self) -> u32 {
        match self.content {
            Content::Zeros { .. } => 0,
            Content::Data { len, .. } => len,
        }
    }
}

/// Which blocks a part holds, in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The entries, ascending and apart from each other.
    pub entries: Vec<Entry>,
}

impl Table {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY);
        for entry in &self.entries {
            let (kind, len, hash, salt, count) = match entry.content {
                Content::Zeros { count } => (ZEROS, count, [0; 16], [0; 16], 0),
                Content::Data { compressed, len, hash, salt, count } => {
                    (if compressed { COMPRESSED } else { RAW }, len, hash, salt, count)
                }
            };
            bytes.extend_from_slice(&(entry.block | u64::from(kind) << 56).to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&salt);
            bytes.extend_from_slice(&hash);
        }
        bytes
    }

    /// Reads `count` entries, whose data is `data_len` bytes long in all.
    pub(crate) fn decode(bytes: &[u8], count: u32, data_len: u64) -> Result<Self, FormatError> {
        let damaged = Err(FormatError::Damaged("its table makes no sense"));
        if count as usize > PART_ENTRIES || bytes.len() != count as usize * ENTRY {
            return damaged;
        }
        let mut entries = Vec::with_capacity(count as usize);
        let (mut next, mut data) = (0, 0);
        for row in bytes.chunks_exact(ENTRY) {
            let first = u64::from_le_bytes(array(&row[0..8]));
            let (kind, block) = ((first >> 56) as u8, first & LAST_BLOCK);
            let len = u32::from_le_bytes(array(&row[8..12]));
            let nonce = u32::from_le_bytes(array(&row[12..16]));
            let content = match kind {
                ZEROS if len > 0 => Content::Zeros { count: len },
                RAW | COMPRESSED if len <= LONGEST => Content::Data {
                    compressed: kind == COMPRESSED,
                    len,
                    count: nonce,
                    salt: array(&row[16..32]),
                    hash: array(&row[32..48]),
                },
                _ => return damaged,
            };
            let entry = Entry { block, content };
            if block < next || entry.end() > LAST_BLOCK {
                return damaged;
            }
            next = entry.end();
            data += u64::from(entry.sealed_len());
            entries.push(entry);
        }
        if data != data_len { damaged } else { Ok(Self { entries }) }
    }
}

/// The first bytes of a slice that is known to be long enough.
pub(super) fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(slice);
    out
}
