//! The functions that the vault's tests call on stable Rust.
#![allow(dead_code, reason = "each target calls one")]

#[path = "../../crates/vault/tests/format/parsers.rs"]
pub mod parsers;
#[path = "../../crates/vault/tests/format/raw.rs"]
mod raw;
