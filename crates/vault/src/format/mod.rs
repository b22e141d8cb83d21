//! The bytes of a segment's parts, as `docs/vault-format.md` describes them.
//!
//! Pure: what is random is handed in, nothing is read or written here but slices of bytes.

mod chunk;
mod name;
mod part;
mod seal;
mod table;

pub use chunk::{BundleId, Chunk, open_chunk, seal_chunk};
pub use name::{BadName, EraName, Kind, PartName, StreamId};
pub use part::{
    BuiltPart, PartBuilder, Sealed, Trailer, check_whole, is_zero, open_table, read_trailer, seal_block,
    table_range,
};
pub use seal::{Hash, Keys, Salt, SealError, Sealer, Unsealer, open_object, seal_object};
pub use table::{Content, Entry, Table};

/// The size of a block in bytes: the unit in which changes are tracked, hashed and stored.
pub const BLOCK: usize = 4096;
/// The version of the format that this code writes.
pub const VERSION: u16 = 1;
/// Where the sealed blocks begin in a part.
pub const DATA_AT: u64 = part::HEADER as u64;
/// The most entries in one part.
pub const PART_ENTRIES: usize = 16_384;

/// What is wrong with the bytes of a part or a sealed object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is not what its name says, or not of this vault.
    #[error("not an object of this format: {0}")]
    Foreign(&'static str),
    /// Written by a later Everhold.
    #[error(
        "its format has version {0}, which this Everhold (version {VERSION}) can't read; use a newer one"
    )]
    Later(u16),
    /// Bytes are missing or wrong.
    #[error("damaged: {0}")]
    Damaged(&'static str),
}

impl From<SealError> for FormatError {
    fn from(_: SealError) -> Self {
        Self::Damaged("its seal is broken")
    }
}
