//! One part of a segment: header, sealed blocks, sealed table, trailer.

use super::seal::{self, Keys, Salt, Sealer};
use super::table::array;
use super::{BLOCK, Content, Entry, FormatError, Kind, PART_ENTRIES, PartName, Table, VERSION};
use bytes::Bytes;
use std::ops::Range;

const MAGIC: &[u8; 8] = b"EVHSEG\r\n";
const END_MAGIC: &[u8; 8] = b"\r\nGESHVE";
/// The fields of the header, and the hash over them.
const HEADER_FIELDS: usize = 96;
/// The header in bytes.
pub(crate) const HEADER: usize = HEADER_FIELDS + 32;
/// The fields of the trailer, which the table is bound to.
const TRAILER_FIELDS: usize = 64;
/// The trailer in bytes.
pub(crate) const TRAILER: usize = TRAILER_FIELDS + 32 + 8 + 8;
const LAST: u32 = 1;
const CUT: u32 = 2;
const LEVEL: i32 = 1;
/// A table is at most so long before compression, and sealing and compression add little.
const LONGEST_TABLE: u32 = (PART_ENTRIES as u32) * 48 + 65_536;

/// The fields of the header. All of them follow from the vault and the name, so the table, which is bound to
/// them, can be checked without reading the header.
fn header_fields(vault: &[u8; 16], name: &PartName) -> [u8; HEADER_FIELDS] {
    let mut fields = [0; HEADER_FIELDS];
    let mut flags = 0;
    if name.last {
        flags |= LAST;
    }
    if name.kind == Kind::Cut {
        flags |= CUT;
    }
    fields[0..8].copy_from_slice(MAGIC);
    fields[8..10].copy_from_slice(&VERSION.to_le_bytes());
    fields[10..12].copy_from_slice(&(HEADER as u16).to_le_bytes());
    fields[12..16].copy_from_slice(&flags.to_le_bytes());
    fields[16..32].copy_from_slice(vault);
    fields[32..48].copy_from_slice(&name.stream.0);
    fields[48..56].copy_from_slice(&name.from.to_le_bytes());
    fields[56..64].copy_from_slice(&name.to.to_le_bytes());
    fields[64..72].copy_from_slice(&name.time.to_le_bytes());
    fields[72..76].copy_from_slice(&name.epoch.to_le_bytes());
    fields[76..80].copy_from_slice(&name.run.to_le_bytes());
    fields[80..84].copy_from_slice(&name.part.to_le_bytes());
    fields[84..88].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    fields
}

/// Where things are in a part, from its last bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the table begins, which is where the blocks end.
    pub table_at: u64,
    /// The length of the table as sealed.
    pub table_len: u32,
    /// How many entries the table has.
    pub entries: u32,
    /// The first block in it.
    pub first: u64,
    /// The block after the last in it.
    pub end: u64,
    /// The size of the volume at the point `to`, in bytes.
    pub volume_size: u64,
    salt: Salt,
}

impl Trailer {
    fn fields(&self) -> [u8; TRAILER_FIELDS] {
        let mut fields = [0; TRAILER_FIELDS];
        fields[0..8].copy_from_slice(&self.table_at.to_le_bytes());
        fields[8..12].copy_from_slice(&self.table_len.to_le_bytes());
        fields[12..16].copy_from_slice(&self.entries.to_le_bytes());
        fields[16..24].copy_from_slice(&self.first.to_le_bytes());
        fields[24..32].copy_from_slice(&self.end.to_le_bytes());
        fields[32..40].copy_from_slice(&self.volume_size.to_le_bytes());
        fields[40..56].copy_from_slice(&self.salt);
        fields
    }
}

/// One block that is sealed already, or zeros.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// Its entry.
    pub entry: Entry,
    /// Its bytes; empty for zeros.
    pub bytes: &'a [u8],
}

/// A part, ready to be stored.
#[derive(Debug, Clone)]
pub struct BuiltPart {
    /// Its name.
    pub name: PartName,
    /// Its bytes.
    pub body: Bytes,
}

/// Puts a part together, block by block in ascending order.
pub struct PartBuilder {
    data: Vec<u8>,
    table: Table,
    end: u64,
}

impl Default for PartBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PartBuilder {
    /// An empty part.
    pub fn new() -> Self {
        // The header comes first, and is written last.
        Self { data: vec![0; HEADER], table: Table::default(), end: 0 }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.table.entries.is_empty()
    }

    /// Whether no more entries go in.
    pub fn is_full(&self) -> bool {
        self.table.entries.len() >= PART_ENTRIES
    }

    /// Its length in bytes, about.
    pub fn len(&self) -> usize {
        self.data.len() + self.table.entries.len() * 24
    }

    /// Adds a block with this content, or zeros if that is what it is.
    pub fn add(&mut self, sealer: &mut Sealer, block: u64, content: &[u8; BLOCK]) {
        let entry = seal_block(sealer, block, content, &mut self.data);
        match entry.content {
            Content::Zeros { count } => self.add_zeros(block, count),
            Content::Data { .. } => {
                self.table.entries.push(entry);
                self.end = block + 1;
            }
        }
    }

    /// Adds blocks that are zeros.
    pub fn add_zeros(&mut self, block: u64, count: u32) {
        let joined = match self.table.entries.last_mut() {
            Some(Entry { block: at, content: Content::Zeros { count: so_far } })
                if *at + u64::from(*so_far) == block =>
            {
                so_far.checked_add(count).map(|sum| *so_far = sum).is_some()
            }
            _ => false,
        };
        if !joined {
            self.table.entries.push(Entry { block, content: Content::Zeros { count } });
        }
        self.end = block + u64::from(count);
    }

    /// Adds what is sealed already, as it is.
    pub fn copy(&mut self, sealed: Sealed<'_>) {
        match sealed.entry.content {
            Content::Zeros { count } => self.add_zeros(sealed.entry.block, count),
            Content::Data { .. } => {
                self.data.extend_from_slice(sealed.bytes);
                self.table.entries.push(sealed.entry);
                self.end = sealed.entry.end();
            }
        }
    }

    /// The finished part. `salt` must be random, and never be used again.
    pub fn build(
        self,
        keys: &Keys,
        vault: &[u8; 16],
        name: PartName,
        volume_size: u64,
        salt: Salt,
    ) -> BuiltPart {
        let Self { mut data, table, end } = self;
        let header = header_fields(vault, &name);
        data[..HEADER_FIELDS].copy_from_slice(&header);
        let header_hash = keys.whole().update(&header).finalize();
        data[HEADER_FIELDS..HEADER].copy_from_slice(header_hash.as_bytes());

        let rows = table.encode();
        #[expect(clippy::expect_used, reason = "the buffer is as large as the library asks for")]
        let text = zstd::bulk::compress(&rows, LEVEL).expect("compression into a buffer of the bound");
        let trailer = Trailer {
            table_at: data.len() as u64,
            table_len: (text.len() + 16) as u32,
            entries: table.entries.len() as u32,
            first: table.entries.first().map_or(0, |entry| entry.block),
            end,
            volume_size,
            salt,
        };
        let fields = trailer.fields();
        let sealed = seal::seal_table(keys, &salt, &[&header[..], &fields[..]].concat(), text);
        data.extend_from_slice(&sealed);
        data.extend_from_slice(&fields);
        let mut whole = keys.whole();
        whole.update(&data);
        data.extend_from_slice(whole.finalize().as_bytes());
        let total = (data.len() + 16) as u64;
        data.extend_from_slice(&total.to_le_bytes());
        data.extend_from_slice(END_MAGIC);
        BuiltPart { name, body: data.into() }
    }
}

/// Seals a block and appends it to `out`; of zeros nothing is appended.
pub fn seal_block(sealer: &mut Sealer, block: u64, content: &[u8; BLOCK], out: &mut Vec<u8>) -> Entry {
    if is_zero(content) {
        return Entry { block, content: Content::Zeros { count: 1 } };
    }
    let hash = sealer.hash(content);
    let sealed = sealer.seal(block, content, out);
    let content = Content::Data {
        compressed: sealed.compressed,
        len: sealed.len,
        hash,
        salt: *sealer.salt(),
        count: sealed.count,
    };
    Entry { block, content }
}

/// Whether a block is all zeros.
pub fn is_zero(content: &[u8; BLOCK]) -> bool {
    // In words, which the compiler turns into vectors.
    content.chunks_exact(64).all(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// Reads the trailer from the last bytes of a part that is `total` bytes long.
///
/// # Errors
/// When that is not the end of a part. What the trailer says is only to be believed once the table has been opened with it.
pub fn read_trailer(tail: &[u8], total: u64) -> Result<Trailer, FormatError> {
    let Some(at) = tail.len().checked_sub(TRAILER) else {
        return Err(FormatError::Damaged("it is cut off"));
    };
    let trailer = &tail[at..];
    if trailer[TRAILER - 8..] != *END_MAGIC
        || u64::from_le_bytes(array(&trailer[TRAILER - 16..TRAILER - 8])) != total
    {
        return Err(FormatError::Damaged("its end is not where it should be"));
    }
    let read = Trailer {
        table_at: u64::from_le_bytes(array(&trailer[0..8])),
        table_len: u32::from_le_bytes(array(&trailer[8..12])),
        entries: u32::from_le_bytes(array(&trailer[12..16])),
        first: u64::from_le_bytes(array(&trailer[16..24])),
        end: u64::from_le_bytes(array(&trailer[24..32])),
        volume_size: u64::from_le_bytes(array(&trailer[32..40])),
        salt: array(&trailer[40..56]),
    };
    let fits = read.table_len <= LONGEST_TABLE
        && read.table_at >= HEADER as u64
        && total
            .checked_sub(TRAILER as u64)
            .is_some_and(|table_end| read.table_at.checked_add(read.table_len.into()) == Some(table_end));
    if fits { Ok(read) } else { Err(FormatError::Damaged("its trailer makes no sense")) }
}

/// Where the table is.
pub fn table_range(trailer: &Trailer) -> Range<u64> {
    trailer.table_at..trailer.table_at + u64::from(trailer.table_len)
}

/// Opens the table. This proves that the part is of this vault, has this name, and that the trailer is whole.
///
/// # Errors
/// What is wrong with it.
pub fn open_table(
    keys: &Keys,
    vault: &[u8; 16],
    name: &PartName,
    trailer: &Trailer,
    sealed: &[u8],
) -> Result<Table, FormatError> {
    let aad = [&header_fields(vault, name)[..], &trailer.fields()[..]].concat();
    let text = seal::unseal_table(keys, &trailer.salt, &aad, sealed)?;
    let rows = zstd::bulk::decompress(&text, PART_ENTRIES * 48)
        .map_err(|_| FormatError::Damaged("its table can't be decompressed"))?;
    let table = Table::decode(&rows, trailer.entries, trailer.table_at - HEADER as u64)?;
    let first = table.entries.first().map_or(0, |entry| entry.block);
    let end = table.entries.last().map_or(0, Entry::end);
    if (first, end) != (trailer.first, trailer.end) {
        return Err(FormatError::Damaged("its table and its trailer differ"));
    }
    Ok(table)
}

/// Checks every byte of a part but not what its blocks hold, and returns its trailer and table.
///
/// # Errors
/// What is wrong with it.
pub fn check_whole(
    keys: &Keys,
    vault: &[u8; 16],
    name: &PartName,
    body: &[u8],
) -> Result<(Trailer, Table), FormatError> {
    let header = body.get(..HEADER).ok_or(FormatError::Damaged("it is cut off"))?;
    if header[..8] != *MAGIC {
        return Err(FormatError::Foreign("it has another magic number"));
    }
    let version = u16::from_le_bytes(array(&header[8..10]));
    if version > VERSION {
        return Err(FormatError::Later(version));
    }
    if header[16..32] != *vault {
        return Err(FormatError::Foreign("it is of another vault"));
    }
    if header[..HEADER_FIELDS] != header_fields(vault, name) {
        return Err(FormatError::Damaged("its header is not what its name says"));
    }
    if header[HEADER_FIELDS..] != *keys.whole().update(&header[..HEADER_FIELDS]).finalize().as_bytes() {
        return Err(FormatError::Damaged("the hash of its header"));
    }
    let trailer = read_trailer(body, body.len() as u64)?;
    let hash_at = body.len() - 48;
    if body[hash_at..hash_at + 32] != *keys.whole().update(&body[..hash_at]).finalize().as_bytes() {
        return Err(FormatError::Damaged("the hash of the whole"));
    }
    let range = table_range(&trailer);
    let sealed =
        body.get(range.start as usize..range.end as usize).ok_or(FormatError::Damaged("it is cut off"))?;
    let table = open_table(keys, vault, name, &trailer, sealed)?;
    Ok((trailer, table))
}
