//! One chunk of a bundle, as an object.

use super::seal::{open_chunk_text, seal_chunk_text};
use super::{BadName, FormatError, Keys, Salt, VERSION};
use std::fmt;
use std::str::FromStr;

/// Stands for a bundle in the names of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleId(pub [u8; 16]);

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BundleId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        text.parse::<super::StreamId>().map(|id| Self(id.0))
    }
}

/// Where a chunk belongs: another place is a broken seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The bundle.
    pub bundle: BundleId,
    /// Which chunk of it, from 0.
    pub number: u32,
    /// Whether no chunk follows.
    pub last: bool,
}

const MAGIC: &[u8; 8] = b"EVHBUN\r\n";
/// What the seal covers besides the text.
const BOUND: usize = 16;
const HEAD: usize = BOUND + 16;
const LAST: u8 = 1;
const COMPRESSED: u8 = 2;

impl Chunk {
    fn aad(&self, head: &[u8]) -> Vec<u8> {
        [&self.bundle.0[..], &self.number.to_le_bytes(), &head[..BOUND]].concat()
    }
}

/// The object of a chunk. `salt` must be random, and never be used again.
pub fn seal_chunk(keys: &Keys, chunk: &Chunk, salt: &Salt, content: &[u8]) -> Vec<u8> {
    // As with blocks: compression that saves less is not worth its undoing.
    let packed = zstd::bulk::compress(content, 1).ok();
    let packed = packed.filter(|packed| packed.len() < content.len() - content.len() / 16);
    let compressed = if packed.is_some() { COMPRESSED } else { 0 };
    let mut text = packed.unwrap_or_else(|| content.to_vec());
    let mut object = Vec::with_capacity(HEAD + text.len() + 16);
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&VERSION.to_le_bytes());
    object.push(if chunk.last { LAST } else { 0 } | compressed);
    object.resize(BOUND, 0);
    let aad = chunk.aad(&object);
    object.extend_from_slice(salt);
    seal_chunk_text(keys, salt, &aad, &mut text);
    object.extend_from_slice(&text);
    object
}

/// Opens the object of a chunk whose content has `length` bytes.
///
/// # Errors
/// What is wrong with it; also that it is another chunk, of this bundle or another one.
pub fn open_chunk(keys: &Keys, chunk: &Chunk, length: usize, object: &[u8]) -> Result<Vec<u8>, FormatError> {
    let Some((head, sealed)) = object.split_at_checked(HEAD) else {
        return Err(FormatError::Damaged("it is cut off"));
    };
    if head[..8] != *MAGIC {
        return Err(FormatError::Foreign("it has another magic number"));
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    if version > VERSION {
        return Err(FormatError::Later(version));
    }
    if version == 0 {
        return Err(FormatError::Damaged("its version"));
    }
    if (head[10] & LAST != 0) != chunk.last {
        return Err(FormatError::Damaged("it is the last chunk, or is not, and should not, or should"));
    }
    let mut salt = Salt::default();
    salt.copy_from_slice(&head[BOUND..]);
    let text = open_chunk_text(keys, &salt, &chunk.aad(head), sealed)?;
    let content = match head[10] & COMPRESSED {
        0 => text,
        _ => zstd::bulk::decompress(&text, length).map_err(|_| FormatError::Damaged("it does not unpack"))?,
    };
    if content.len() == length { Ok(content) } else { Err(FormatError::Damaged("its length")) }
}
