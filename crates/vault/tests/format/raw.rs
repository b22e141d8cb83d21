//! Seals and headers as `docs/vault-format.md` has them, without any code of the vault's: for the second reader, and to
//! hand parsers what no writer would ever seal. The fuzz targets use this file too.
#![allow(dead_code, reason = "each user needs a part of it")]

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// The fields of a part's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub stream: [u8; 16],
    pub to: u64,
    pub from: u64,
    pub time: u64,
    pub epoch: u32,
    pub run: u32,
    pub cut: bool,
    pub part: u32,
    pub last: bool,
}

/// A key for one purpose.
pub fn purpose(data_key: &[u8; 32], context: &str) -> [u8; 32] {
    blake3::derive_key(context, data_key)
}

fn sealing(purpose: &[u8; 32], salt: &[u8]) -> LessSafeKey {
    let key = blake3::keyed_hash(purpose, salt);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).unwrap())
}

fn nonce(count: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&count.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

pub fn seal(purpose: &[u8; 32], salt: &[u8], count: u32, aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut sealed = text.to_vec();
    sealing(purpose, salt).seal_in_place_append_tag(nonce(count), Aad::from(aad), &mut sealed).unwrap();
    sealed
}

pub fn open(purpose: &[u8; 32], salt: &[u8], count: u32, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut text = sealed.to_vec();
    let len = sealing(purpose, salt).open_in_place(nonce(count), Aad::from(aad), &mut text).ok()?.len();
    text.truncate(len);
    Some(text)
}

/// The first 96 bytes of a part.
pub fn header(vault: &[u8; 16], name: &Name) -> Vec<u8> {
    let mut header = b"EVHSEG\r\n\x01\x00\x80\x00".to_vec();
    header.extend(u32::to_le_bytes(u32::from(name.last) + 2 * u32::from(name.cut)));
    header.extend(vault);
    header.extend(name.stream);
    header.extend(name.from.to_le_bytes());
    header.extend(name.to.to_le_bytes());
    header.extend(name.time.to_le_bytes());
    header.extend(name.epoch.to_le_bytes());
    header.extend(name.run.to_le_bytes());
    header.extend(name.part.to_le_bytes());
    header.extend(4096_u32.to_le_bytes());
    header.extend([0; 8]);
    header
}

/// What a block is bound to.
pub fn block_aad(stream: &[u8; 16], block: u64, compressed: bool) -> Vec<u8> {
    [&stream[..], &block.to_le_bytes(), &[compressed.into()]].concat()
}
