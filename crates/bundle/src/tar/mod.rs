//! The tar format (POSIX.1-2001 "pax"), as far as bundles need it: headers, pax records, sparse maps, reading and writing.
//!
//! It knows bytes only: no file system and no bundle. It is written by hand and not on top of a crate because the places of
//! a file's data in the archive must be known (they are patched later), because GNU sparse files of format 1.0 must be read,
//! and because what is read may be hostile.

mod acl;
pub(crate) mod header;
pub(crate) mod pax;
pub(crate) mod read;
pub(crate) mod sparse;
pub(crate) mod write;

#[cfg(test)]
mod tests;

/// The unit of a tar file, in bytes.
pub(crate) const BLOCK: usize = 512;
/// The same, for arithmetic with positions.
pub(crate) const BLOCK64: u64 = 512;

/// How many zeros follow so many bytes of data.
pub(crate) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK64
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// One more name of the file at this path of the archive.
    Link(Vec<u8>),
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    Directory,
    Fifo,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

/// A time as files have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    /// Seconds since 1970, rounded down.
    pub secs: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanos: u32,
}

/// One entry of an archive, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// As the archive has it; a directory's may end with a slash when it was read.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// The twelve lowest bits of `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// The size of the file as one reads it, holes included; 0 for what is not a file.
    pub size: u64,
    /// Names and values of extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data of a sparse file lies in the file. `None`: all of it is data.
    pub sparse: Option<Vec<sparse::Extent>>,
    /// Whether it is no file but says that a name is gone; see [`pax::WHITEOUT`].
    pub whiteout: bool,
}

impl Meta {
    /// An entry with nothing special.
    pub fn new(path: Vec<u8>, kind: Kind) -> Self {
        Self {
            path,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            xattrs: Vec::new(),
            sparse: None,
            whiteout: false,
        }
    }
}
