//! The header: 512 bytes with fields of text.

use super::BLOCK;

/// One header.
pub(crate) type Block = [u8; BLOCK];

/// What a header says, as numbers and names. See "ustar Interchange Format" in POSIX.1-2017, pax.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// At most 100 bytes.
    pub name: Vec<u8>,
    /// At most 155 bytes; stands before the name, with a slash between.
    pub prefix: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// `0`, `1`, `2`, …, `x`, `g`.
    pub kind: u8,
    /// At most 100 bytes.
    pub link: Vec<u8>,
    pub major: u64,
    pub minor: u64,
}

const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;

/// The longest name without a prefix.
pub(crate) const NAME_MAX: usize = 100;
/// The largest number that the eight bytes of an owner or a device hold as text.
pub(crate) const OCTAL_8: u64 = 0o7_777_777;
/// The largest number that the twelve bytes of a size or a time hold as text: 8 GiB less one byte.
pub(crate) const OCTAL_12: u64 = 0o77_777_777_777;

impl Header {
    /// The bytes. What does not fit as octal digits is written in base 256, as GNU tar and everything since does.
    pub fn render(&self) -> Block {
        let mut block = [0; BLOCK];
        text(&mut block[NAME], &self.name);
        number(&mut block[MODE], u64::from(self.mode));
        number(&mut block[UID], self.uid);
        number(&mut block[GID], self.gid);
        number(&mut block[SIZE], self.size);
        signed(&mut block[MTIME], self.mtime);
        block[KIND] = self.kind;
        text(&mut block[LINK], &self.link);
        block[MAGIC].copy_from_slice(b"ustar\x0000");
        number(&mut block[MAJOR], self.major);
        number(&mut block[MINOR], self.minor);
        text(&mut block[PREFIX], &self.prefix);
        let sum = checksum(&block);
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// Reads one. `None`: it is not a header (its checksum is wrong, or a number is none).
    pub fn parse(block: &Block) -> Option<Self> {
        if read_number(&block[CHECKSUM])? != u64::from(checksum(block)) {
            return None;
        }
        // Only POSIX headers have a prefix: old GNU ones have times there.
        let posix = &block[MAGIC] == b"ustar\x0000";
        let prefix = if posix { until_zero(&block[PREFIX]) } else { Vec::new() };
        Some(Self {
            name: until_zero(&block[NAME]),
            prefix,
            mode: u32::try_from(read_number(&block[MODE])?).ok()?,
            uid: read_number(&block[UID])?,
            gid: read_number(&block[GID])?,
            size: read_number(&block[SIZE])?,
            mtime: read_signed(&block[MTIME])?,
            kind: block[KIND],
            link: until_zero(&block[LINK]),
            major: read_number(&block[MAJOR])?,
            minor: read_number(&block[MINOR])?,
        })
    }

    /// Prefix and name together.
    pub fn path(&self) -> Vec<u8> {
        if self.prefix.is_empty() {
            return self.name.clone();
        }
        [&self.prefix[..], b"/", &self.name[..]].concat()
    }
}

/// The sum of all bytes, those of the checksum itself taken as blanks.
fn checksum(block: &Block) -> u32 {
    let whole: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = block[CHECKSUM].iter().map(|byte| u32::from(*byte)).sum();
    whole - own + 8 * u32::from(b' ')
}

fn text(field: &mut [u8], value: &[u8]) {
    for (to, from) in field.iter_mut().zip(value) {
        *to = *from;
    }
}

fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if value >> (3 * digits).min(63) == 0 {
        let octal = format!("{value:0digits$o}");
        text(field, octal.as_bytes());
        return;
    }
    let bytes = value.to_be_bytes();
    let start = field.len() - bytes.len();
    field[..start].fill(0);
    // In a field of eight bytes the mark takes the place of the highest one; nothing there is as large.
    field[start..].copy_from_slice(&bytes);
    field[0] = 0x80;
}

fn signed(field: &mut [u8], value: i64) {
    match u64::try_from(value) {
        Ok(value) => number(field, value),
        Err(_) => {
            field.fill(0xff);
            let start = field.len() - 8;
            field[start..].copy_from_slice(&value.to_be_bytes());
        }
    }
}

fn until_zero(field: &[u8]) -> Vec<u8> {
    field.iter().copied().take_while(|byte| *byte != 0).collect()
}

fn read_number(field: &[u8]) -> Option<u64> {
    u64::try_from(read_signed(field)?).ok()
}

fn read_signed(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if *first & 0x80 != 0 {
        // Two's complement, without the mark.
        let mut value = i64::from(*first & 0x7f);
        if *first & 0x40 != 0 {
            value -= 0x80;
        }
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(i64::from(*byte))?;
        }
        return Some(value);
    }
    let digits = field.trim_ascii_end_zeros();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(*digit - b'0'))?;
    }
    Some(value)
}

/// Fields of numbers end with blanks or zeros, and may begin with blanks.
trait Trim {
    fn trim_ascii_end_zeros(&self) -> &[u8];
}

impl Trim for [u8] {
    fn trim_ascii_end_zeros(&self) -> &[u8] {
        let blank = |byte: &u8| *byte == b' ';
        let start = self.iter().position(|byte| !blank(byte)).unwrap_or(self.len());
        let rest = &self[start..];
        let end = rest.iter().position(|byte| *byte == 0 || blank(byte)).unwrap_or(rest.len());
        &rest[..end]
    }
}
