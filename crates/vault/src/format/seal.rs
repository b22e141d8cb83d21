//! Keys, hashes and seals.
//!
//! Everything is sealed with AES-256-GCM. A random nonce of 96 bits would be too short for the number of blocks that a vault
//! sees in its life, so each *sealing* (all blocks of one cut, one table, one small object) draws a salt of 128 bits, from
//! which its own key is derived with BLAKE3, and counts its nonces. A sealed block says its salt and its count, so it
//! can be copied to another segment as it is.

use super::BLOCK;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zstd::zstd_safe::{CCtx, CParameter, DCtx};

/// The seal is broken: other key, other place, or other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seal is broken")]
pub struct SealError;

/// The first 128 bits of a keyed BLAKE3 hash of a block's content.
pub type Hash = [u8; 16];
/// Names the key of one sealing.
pub type Salt = [u8; 16];

/// What sealing adds.
const TAG: usize = 16;
/// For blocks of 4 KiB twice as fast as level 1, and what databases write takes a fifth more: an eighth instead of a ninth of it.
const LEVEL: i32 = -1;
/// Compression that saves less is not worth its undoing.
const WORTH: usize = BLOCK - BLOCK / 16;

/// The keys of a vault, all made from its data key.
#[derive(Clone)]
pub struct Keys {
    block: [u8; 32],
    table: [u8; 32],
    object: [u8; 32],
    hash: [u8; 32],
    whole: [u8; 32],
    name: [u8; 32],
    plain: [u8; 32],
    chunk: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// From the vault's data key.
    pub fn new(data_key: &[u8; 32]) -> Self {
        Self {
            block: blake3::derive_key("everhold vault 1: blocks", data_key),
            table: blake3::derive_key("everhold vault 1: tables", data_key),
            object: blake3::derive_key("everhold vault 1: objects", data_key),
            hash: blake3::derive_key("everhold vault 1: block hashes", data_key),
            whole: blake3::derive_key("everhold vault 1: whole parts", data_key),
            name: blake3::derive_key("everhold vault 1: stream names", data_key),
            plain: blake3::derive_key("everhold vault 1: plain objects", data_key),
            chunk: blake3::derive_key("everhold vault 1: bundle chunks", data_key),
        }
    }

    /// The hash of a block's content.
    pub fn hash(&self, content: &[u8]) -> Hash {
        truncate(blake3::keyed_hash(&self.hash, content).as_bytes())
    }

    /// A hash over a whole part.
    pub fn whole(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.whole)
    }

    /// Sixteen bytes that stand for `identity` in names, which tell nothing of it without the key.
    pub fn name(&self, identity: &[u8]) -> [u8; 16] {
        truncate(blake3::keyed_hash(&self.name, identity).as_bytes())
    }

    /// The hash of an object that has no seal, bound to its name: 64 hexadecimal digits.
    pub fn plain(&self, name: &str, body: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.plain);
        hasher.update(name.as_bytes()).update(b"\n").update(body);
        hasher.finalize().to_hex().to_string()
    }
}

fn truncate(long: &[u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&long[..16]);
    short
}

fn key(from: &[u8; 32], salt: &Salt) -> LessSafeKey {
    let derived = blake3::keyed_hash(from, salt);
    let unbound = UnboundKey::new(&AES_256_GCM, derived.as_bytes());
    #[expect(clippy::expect_used, reason = "32 bytes are what this cipher takes")]
    LessSafeKey::new(unbound.expect("a key of 32 bytes"))
}

fn nonce(count: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&count.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// What a sealed block is bound to: it can't stand for another block, or for one of another stream.
fn bound_to(stream: &[u8; 16], block: u64, compressed: bool) -> [u8; 25] {
    let mut aad = [0; 25];
    aad[..16].copy_from_slice(stream);
    aad[16..24].copy_from_slice(&block.to_le_bytes());
    aad[24] = compressed.into();
    aad
}

/// Seals the blocks of one cut.
pub struct Sealer {
    keys: Keys,
    stream: [u8; 16],
    salt: Salt,
    key: LessSafeKey,
    count: u32,
    compressor: CCtx<'static>,
}

/// One block, sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedAs {
    pub(crate) compressed: bool,
    pub(crate) count: u32,
    pub(crate) len: u32,
}

impl Sealer {
    /// A sealer for one stream. `salt` must be random, and never be used again.
    pub fn new(keys: &Keys, stream: [u8; 16], salt: Salt) -> Self {
        let mut compressor = CCtx::create();
        // The frame needs no size or checksum of its own: the size is known, and the hash is better.
        for parameter in [
            CParameter::CompressionLevel(LEVEL),
            CParameter::ContentSizeFlag(false),
            CParameter::ChecksumFlag(false),
        ] {
            #[expect(clippy::expect_used, reason = "every version of the library knows them")]
            compressor.set_parameter(parameter).expect("a known parameter");
        }
        Self { key: key(&keys.block, &salt), keys: keys.clone(), stream, salt, count: 0, compressor }
    }

    /// The salt of everything that this sealer seals.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// How many blocks may still be sealed under this salt.
    pub fn left(&self) -> u32 {
        u32::MAX - self.count
    }

    /// The hash of a block's content.
    pub fn hash(&self, content: &[u8]) -> Hash {
        self.keys.hash(content)
    }

    /// Appends the sealed block to `out`.
    pub(crate) fn seal(&mut self, block: u64, content: &[u8; BLOCK], out: &mut Vec<u8>) -> SealedAs {
        let begin = out.len();
        out.resize(begin + BLOCK, 0);
        let compressed = self.compressor.compress2(&mut out[begin..begin + WORTH], &content[..]).ok();
        match compressed {
            Some(len) => out.truncate(begin + len),
            None => out[begin..].copy_from_slice(content),
        }
        let aad = bound_to(&self.stream, block, compressed.is_some());
        let count = self.count;
        self.count += 1;
        let sealed = self.key.seal_in_place_separate_tag(nonce(count), Aad::from(aad), &mut out[begin..]);
        #[expect(clippy::expect_used, reason = "it fails only for texts of gigabytes")]
        out.extend_from_slice(sealed.expect("a text of 4 KiB").as_ref());
        SealedAs { compressed: compressed.is_some(), count, len: (out.len() - begin) as u32 }
    }
}

/// Opens sealed blocks of any cut of one stream.
pub struct Unsealer {
    keys: Keys,
    stream: [u8; 16],
    /// The last salt's key: blocks of one cut stand together.
    last: Option<(Salt, LessSafeKey)>,
    decompressor: DCtx<'static>,
    buffer: Vec<u8>,
}

impl Unsealer {
    /// An opener for one stream.
    pub fn new(keys: &Keys, stream: [u8; 16]) -> Self {
        Self { keys: keys.clone(), stream, last: None, decompressor: DCtx::create(), buffer: Vec::new() }
    }

    /// Opens a block, and checks that it is the one with this hash.
    ///
    /// # Errors
    /// When anything about it is not as it was sealed.
    pub fn open(
        &mut self,
        block: u64,
        entry: &super::Entry,
        sealed: &[u8],
        content: &mut [u8; BLOCK],
    ) -> Result<(), SealError> {
        let super::Content::Data { compressed, salt, count, hash, .. } = &entry.content else {
            return Err(SealError);
        };
        if self.last.as_ref().is_none_or(|(last, _)| last != salt) {
            self.last = Some((*salt, key(&self.keys.block, salt)));
        }
        let Some((_, key)) = &self.last else { return Err(SealError) };
        self.buffer.clear();
        self.buffer.extend_from_slice(sealed);
        let aad = bound_to(&self.stream, block, *compressed);
        let opened =
            key.open_in_place(nonce(*count), Aad::from(aad), &mut self.buffer).map_err(|_| SealError)?;
        if *compressed {
            let len = self.decompressor.decompress(&mut content[..], opened).map_err(|_| SealError)?;
            if len != BLOCK {
                return Err(SealError);
            }
        } else if opened.len() == BLOCK {
            content.copy_from_slice(opened);
        } else {
            return Err(SealError);
        }
        if self.keys.hash(content) == *hash { Ok(()) } else { Err(SealError) }
    }
}

/// Seals a table; `aad` is what it is bound to.
pub(crate) fn seal_table(keys: &Keys, salt: &Salt, aad: &[u8], mut text: Vec<u8>) -> Vec<u8> {
    seal_with(&key(&keys.table, salt), aad, &mut text);
    text
}

fn seal_with(key: &LessSafeKey, aad: &[u8], text: &mut Vec<u8>) {
    #[expect(clippy::expect_used, reason = "it fails only for texts of gigabytes")]
    key.seal_in_place_append_tag(nonce(0), Aad::from(aad), text).expect("a text of bounded size");
}

/// Opens a table.
pub(crate) fn unseal_table(
    keys: &Keys,
    salt: &Salt,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, SealError> {
    open_with(&key(&keys.table, salt), aad, sealed)
}

fn open_with(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut text = sealed.to_vec();
    key.open_in_place(nonce(0), Aad::from(aad), &mut text).map_err(|_| SealError)?;
    text.truncate(text.len().saturating_sub(TAG));
    Ok(text)
}

/// Seals a chunk of a bundle; `aad` is what it is bound to.
pub(super) fn seal_chunk_text(keys: &Keys, salt: &Salt, aad: &[u8], text: &mut Vec<u8>) {
    seal_with(&key(&keys.chunk, salt), aad, text);
}

/// Opens a chunk of a bundle.
pub(super) fn open_chunk_text(
    keys: &Keys,
    salt: &Salt,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, SealError> {
    open_with(&key(&keys.chunk, salt), aad, sealed)
}

const OBJECT_MAGIC: &[u8; 8] = b"EVHOBJ\r\n";
const OBJECT_HEAD: usize = 8 + 2 + 16;

/// Seals a small object (a description, a snapshot, a list), bound to its name in the vault.
pub fn seal_object(keys: &Keys, salt: &Salt, name: &str, text: &[u8]) -> Vec<u8> {
    let mut sealed = text.to_vec();
    seal_with(&key(&keys.object, salt), name.as_bytes(), &mut sealed);
    let mut object = Vec::with_capacity(OBJECT_HEAD + sealed.len());
    object.extend_from_slice(OBJECT_MAGIC);
    object.extend_from_slice(&super::VERSION.to_le_bytes());
    object.extend_from_slice(salt);
    object.extend_from_slice(&sealed);
    object
}

/// Opens a small object.
///
/// # Errors
/// What is wrong with it.
pub fn open_object(keys: &Keys, name: &str, object: &[u8]) -> Result<Vec<u8>, super::FormatError> {
    use super::FormatError;
    let Some((head, sealed)) = object.split_at_checked(OBJECT_HEAD) else {
        return Err(FormatError::Damaged("it is cut off"));
    };
    if head[..8] != *OBJECT_MAGIC {
        return Err(FormatError::Foreign("it has another magic number"));
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    if version > super::VERSION {
        return Err(FormatError::Later(version));
    }
    if version == 0 {
        return Err(FormatError::Damaged("its version"));
    }
    let mut salt = Salt::default();
    salt.copy_from_slice(&head[10..]);
    Ok(open_with(&key(&keys.object, &salt), name.as_bytes(), sealed)?)
}
