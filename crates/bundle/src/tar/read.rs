//! Reading an archive from a stream, entry by entry.
//!
//! Takes what GNU tar, Go and BSD write: ustar, pax, the long names of old GNU tar. Anything else is refused, never guessed.

use super::header::{Block, Header};
use super::sparse::{self, Extent};
use super::{BLOCK, Kind, Meta, Time, padding, pax};
use std::io::{Error, ErrorKind, Read, Result};

/// The largest extended header: all attributes of one file.
const RECORDS_MAX: u64 = 16 << 20;

/// An archive that is being read.
pub(crate) struct Archive<R> {
    input: R,
    /// How many bytes were taken from it.
    position: u64,
    /// What is left of the data of the entry before the next header, without and with what fills its last block.
    data: u64,
    filler: u64,
    /// Whether the end was seen.
    over: bool,
}

/// What the records before an entry say.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    whiteout: bool,
    sparse_major: Option<u64>,
    sparse_minor: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what.into())
}

impl<R: Read> Archive<R> {
    pub fn new(input: R) -> Self {
        Self { input, position: 0, data: 0, filler: 0, over: false }
    }

    /// How many bytes were read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry, or `None` at the end. What was not read of the data of the one before is skipped.
    ///
    /// # Errors
    /// It can't be read, ends before its end, or is not an archive that is understood.
    pub fn next(&mut self) -> Result<Option<Meta>> {
        if self.over {
            return Ok(None);
        }
        let mut records = Records::default();
        let mut started = false;
        loop {
            self.skip()?;
            let mut block: Block = [0; BLOCK];
            self.exact(&mut block)?;
            if block == [0; BLOCK] {
                if started {
                    return Err(bad("it ends within an entry"));
                }
                self.exact(&mut block)?;
                if block != [0; BLOCK] {
                    return Err(bad("something follows the mark of its end"));
                }
                self.over = true;
                return Ok(None);
            }
            let at = self.position - BLOCK as u64;
            let header = Header::parse(&block).ok_or_else(|| bad(format!("no header at byte {at}")))?;
            match header.kind {
                b'x' => records.take(&self.small(header.size)?)?,
                // Would hold for all that follow; it is only used for comments.
                b'g' => {
                    self.small(header.size)?;
                    continue;
                }
                b'L' => records.path = Some(long(self.small(header.size)?)),
                b'K' => records.link = Some(long(self.small(header.size)?)),
                _ => return self.entry(header, records).map(Some),
            }
            started = true;
        }
    }

    fn entry(&mut self, header: Header, records: Records) -> Result<Meta> {
        let stored = records.size.unwrap_or(header.size);
        let path = records.path.unwrap_or_else(|| header.path());
        let link = records.link.unwrap_or_else(|| header.link.clone());
        let device = || -> Result<(u32, u32)> {
            let small = |number: u64| u32::try_from(number).map_err(|_| bad("a device number is too large"));
            Ok((small(header.major)?, small(header.minor)?))
        };
        let kind = match header.kind {
            // Before ustar, a slash at the end made a directory.
            b'0' | 0 | b'7' if path.ends_with(b"/") && stored == 0 => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Link(link),
            b'2' => Kind::Symlink(link),
            b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let other = char::from(other).escape_default().to_string();
                return Err(bad(format!("an entry of a kind that is not known ('{other}')")));
            }
        };
        let id = |of: Option<u64>, header: u64| {
            u32::try_from(of.unwrap_or(header)).map_err(|_| bad("an owner's number is too large"))
        };
        let mut meta = Meta::new(path, kind);
        meta.mode = header.mode & 0o7777;
        meta.uid = id(records.uid, header.uid)?;
        meta.gid = id(records.gid, header.gid)?;
        meta.mtime = records.mtime.unwrap_or(Time { secs: header.mtime, nanos: 0 });
        meta.xattrs = records.xattrs;
        meta.whiteout = records.whiteout;
        // The data of anything but a file means nothing, but may be there.
        self.data = stored;
        self.filler = padding(stored);
        if meta.kind == Kind::File {
            meta.size = stored;
        }
        match (records.sparse_major, records.sparse_minor) {
            (None, None) => {}
            (Some(1), Some(0)) if meta.kind == Kind::File => {
                meta.size = records.sparse_size.ok_or_else(|| bad("a sparse file without its size"))?;
                meta.path = records.sparse_name.unwrap_or(meta.path);
                meta.sparse = Some(self.map(meta.size)?);
            }
            _ => return Err(bad("a sparse file in a form that is not known")),
        }
        Ok(meta)
    }

    fn map(&mut self, size: u64) -> Result<Vec<Extent>> {
        let available = self.data;
        let (extents, taken) = sparse::read(self, size, available)?;
        // What was read went through `read`, which counted it.
        debug_assert_eq!(self.data + taken, available);
        if extents.iter().map(|extent| extent.len).sum::<u64>() != self.data {
            return Err(bad("a sparse file whose map does not agree with its size"));
        }
        Ok(extents)
    }

    /// What comes before an entry.
    fn small(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > RECORDS_MAX {
            return Err(bad("an extended header is too large"));
        }
        let mut bytes = vec![0; size as usize];
        self.exact(&mut bytes)?;
        let mut rest = [0; BLOCK];
        self.exact(&mut rest[..padding(size) as usize])?;
        Ok(bytes)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::new(ErrorKind::UnexpectedEof, "it is cut off"),
            _ => error,
        })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn skip(&mut self) -> Result<()> {
        // Mostly there is only what fills a block.
        let mut buffer = vec![0; (self.data + self.filler).min(256 << 10) as usize];
        while self.data + self.filler > 0 {
            let some = (self.data + self.filler).min(buffer.len() as u64) as usize;
            self.exact(&mut buffer[..some])?;
            let data = self.data.min(some as u64);
            self.data -= data;
            self.filler -= some as u64 - data;
        }
        Ok(())
    }
}

/// The data of the entry that [`Archive::next`] answered last: of a sparse file only what its map names.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let some = self.data.min(buffer.len() as u64) as usize;
        if some == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..some])?;
        if read == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "it is cut off"));
        }
        self.position += read as u64;
        self.data -= read as u64;
        Ok(read)
    }
}

fn long(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

impl Records {
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let parsed = pax::parse(bytes).ok_or_else(|| bad("an extended header is not well-formed"))?;
        for (key, value) in parsed {
            let number = || {
                let key = String::from_utf8_lossy(key);
                pax::decimal(value).map(Some).ok_or_else(|| bad(format!("{key} is not a number")))
            };
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = number()?,
                b"uid" => self.uid = number()?,
                b"gid" => self.gid = number()?,
                b"mtime" => {
                    self.mtime = Some(pax::time(value).ok_or_else(|| bad("a time is not a number"))?);
                }
                b"GNU.sparse.major" => self.sparse_major = number()?,
                b"GNU.sparse.minor" => self.sparse_minor = number()?,
                b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.realsize" => self.sparse_size = number()?,
                key if key == pax::WHITEOUT => self.whiteout = value == b"1",
                key => {
                    if let Some(name) = key.strip_prefix(pax::XATTR) {
                        self.xattrs.push((pax::decode_name(name), value.to_vec()));
                    } else if key.starts_with(b"GNU.sparse.") {
                        return Err(bad("a sparse file in a form that is not known"));
                    }
                }
            }
        }
        let names = [&self.path, &self.link, &self.sparse_name];
        if names.into_iter().flatten().any(|name| name.contains(&0)) {
            return Err(bad("a name has a zero byte"));
        }
        Ok(())
    }
}
