//! Writing a bundle, as one stream into `FILE.partial`, which becomes FILE when all is in it and durable.
//!
//! Members are appended in the order of the calls. A header is written when its member's name and size are known, so what an
//! interrupted attempt left behind the last header is nothing.

mod document;
mod out;
mod resume;

use crate::contents::{self, Contents, Member, Role};
use crate::digest::{Digest, Sha};
use crate::error::{Error, Result};
use crate::frame::{self, End, Preamble};
use crate::image::Image;
use crate::sums::Sums;
use crate::tar::BLOCK64;
pub(crate) use out::Out;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tree::Tracker;

/// A bundle that is being written. Dropping it leaves `FILE.partial` for [`Writer::resume`].
///
/// After an error of writing, nothing more can be done with it: every call but [`Writer::abandon`] fails with [`Error::Broken`].
pub struct Writer {
    pub(crate) out: Out,
    mtime: i64,
    /// What is written and whose size and sum are settled.
    members: Vec<Member>,
    blobs: BTreeMap<Digest, u64>,
    images: Vec<Image>,
    /// Those that were begun, and the documents, so that none is there twice.
    pub(crate) volumes: BTreeSet<String>,
    documents: BTreeSet<String>,
    pub(crate) watch: Watch,
    pub(crate) settling: Duration,
    pub(crate) broken: bool,
}

/// How somebody looks on, and stops it.
pub struct Watch {
    /// When it becomes true, the call that is going on ends with [`Error::Stopped`].
    pub stop: Arc<AtomicBool>,
    /// Told now and then how many bytes the call that is going on has read.
    pub progress: Box<dyn FnMut(u64) + Send>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { stop: Arc::default(), progress: Box::new(|_| {}) }
    }
}

impl Watch {
    pub(crate) fn tell(&mut self, bytes: u64) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        (self.progress)(bytes);
        Ok(())
    }
}

/// A member whose data is being written, or patched.
pub(crate) struct Open {
    /// Where its header will be.
    header: u64,
    pub sums: Sums,
}

impl Open {
    /// Where its data begins in the file.
    pub fn data(&self) -> u64 {
        self.header + BLOCK64
    }
}

/// What was written, when all of it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The size of the file in bytes.
    pub size: u64,
    /// All members but the table of contents and the end.
    pub members: Vec<Member>,
    /// Layers that images need and that are not inside.
    pub absent: Vec<Digest>,
}

impl Writer {
    /// Begins a bundle at `path`.
    ///
    /// # Errors
    /// There is such a file, or an earlier attempt left its partial file ([`Error::Interrupted`]: ask whether to
    /// [`resume`](Self::resume)), or another process is at it, or the directory can't be written.
    pub fn create(path: &Path, preamble: &Preamble) -> Result<Self> {
        let out = Out::open(path)?;
        if out.len()? > 0 {
            return Err(Error::Interrupted { partial: out.partial().to_owned() });
        }
        Self::begin(out, preamble)
    }

    /// Takes over what an earlier attempt left, or begins when there is nothing. Kept are blobs whose digest proves them, up to the
    /// first member that is anything else: [`Writer::has_blob`] says which.
    ///
    /// # Errors
    /// As with [`Writer::create`], or the partial file is not one of ours.
    pub fn resume(path: &Path, preamble: &Preamble) -> Result<Self> {
        let mut out = Out::open(path)?;
        let found = resume::scan(&mut out)?;
        let mut writer = Self::begin(out, preamble)?;
        for blob in found {
            writer.keep(blob)?;
        }
        let end = writer.members.last().map_or(0, |last| frame::after(last.offset, last.size));
        writer.out.cut(end)?;
        Ok(writer)
    }

    /// Writes the first two members; over those of an earlier attempt, which are as large.
    fn begin(out: Out, preamble: &Preamble) -> Result<Self> {
        let mtime = preamble.made.as_second().max(0);
        let mut writer = Self {
            out,
            mtime,
            members: Vec::new(),
            blobs: BTreeMap::new(),
            images: Vec::new(),
            volumes: BTreeSet::new(),
            documents: BTreeSet::new(),
            watch: Watch::default(),
            settling: Tracker::SETTLING,
            broken: false,
        };
        let first = preamble
            .render()
            .ok_or_else(|| Error::Document { what: "the preamble".into(), why: "it is too long".into() })?;
        writer.document(frame::PREAMBLE, &first, Role::Preamble)?;
        writer.document(frame::OCI_LAYOUT, frame::OCI_LAYOUT_TEXT.as_bytes(), Role::Image)?;
        writer.out.flush()?;
        Ok(writer)
    }

    /// Counts a blob that is in the file already as a member.
    fn keep(&mut self, blob: resume::Found) -> Result<()> {
        let member = Member {
            path: format!("{}{}", frame::BLOBS, blob.digest.hex()),
            offset: blob.offset,
            size: blob.size,
            blake3: blob.blake3.to_hex().to_string(),
            role: Role::Image,
        };
        self.out.patch(member.offset - BLOCK64, &frame::header(&member.path, member.size, self.mtime))?;
        let filler = vec![0; crate::tar::padding(member.size) as usize];
        self.out.patch(member.offset + member.size, &filler)?;
        self.blobs.insert(blob.digest, member.size);
        self.members.push(member);
        Ok(())
    }

    /// Says who looks on from now.
    pub fn watch(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// How long ago something must have been written, when a look begins, to be taken for settled by the next one: see
    /// [`tree::Tracker::with_settling`]. For tests, and for sources that nobody writes around the page cache.
    pub fn settling(&mut self, settling: Duration) {
        self.settling = settling;
    }

    /// Whether the blob is in the bundle already, whole.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    /// The size of a blob that is in the bundle.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).copied()
    }

    /// Runs a step that writes. Once one has failed, what is in the file may be half of something.
    pub(crate) fn step<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.broken {
            return Err(Error::Broken { partial: self.out.partial().to_owned() });
        }
        let result = step(self);
        // What is wrong with a stream from outside was cut off again.
        self.broken = result.as_ref().is_err_and(|error| !matches!(error, Error::Archive { .. }));
        result
    }

    /// Reserves a header at the end of the file.
    pub(crate) fn open_member(&mut self) -> Result<Open> {
        let header = self.out.position();
        self.out.zeros(BLOCK64)?;
        Ok(Open { header, sums: Sums::default() })
    }

    /// Writes the header of a member that will not be touched again.
    pub(crate) fn close_member(&mut self, open: Open, path: String, role: Role) -> Result<()> {
        let (offset, size) = (open.data(), open.sums.size());
        let out = &mut self.out;
        let blake3 = open.sums.finish(|at, buffer| out.read(offset + at, buffer))?;
        out.patch(open.header, &frame::header(&path, size, self.mtime))?;
        self.members.push(Member { path, offset, size, blake3: blake3.to_hex().to_string(), role });
        Ok(())
    }

    /// Closes a member that is a blob, under the name that its digest gives it.
    pub(crate) fn close_blob(&mut self, open: Open, digest: Digest) -> Result<()> {
        let size = open.sums.size();
        if self.blobs.insert(digest, size).is_some() {
            // Two layers came out the same. One of them must have another name, or the tar file has two of one name.
            let path = format!("unused/{}", open.header);
            return self.close_member(open, path, Role::Unused);
        }
        self.close_member(open, format!("{}{}", frame::BLOBS, digest.hex()), Role::Image)
    }

    /// Appends a whole member.
    fn document(&mut self, path: &str, bytes: &[u8], role: Role) -> Result<()> {
        let mut open = self.open_member()?;
        open.sums.update(bytes);
        self.out.append(bytes)?;
        self.out.pad(bytes.len() as u64)?;
        self.close_member(open, path.to_owned(), role)
    }

    /// Appends what is read as a blob, unless it is there already: so many bytes, or all. `wanted` is the digest that it should
    /// have.
    pub(crate) fn blob(
        &mut self,
        input: &mut impl Read,
        size: Option<u64>,
        wanted: Option<Digest>,
    ) -> Result<Digest> {
        let mut open = self.open_member()?;
        let digest = match self.fill(&mut open, input, size) {
            Ok(digest) if wanted.is_some_and(|wanted| wanted != digest) => {
                Err(Error::Archive { why: format!("a blob is not what its name says ({digest})") })
            }
            result => result,
        };
        match digest {
            Ok(digest) if !self.has_blob(&digest) => {
                self.out.pad(open.sums.size())?;
                self.close_blob(open, digest)?;
            }
            Ok(_) | Err(Error::Archive { .. }) => self.out.cut(open.header)?,
            Err(_) => {}
        }
        digest
    }

    fn fill(&mut self, open: &mut Open, input: &mut impl Read, size: Option<u64>) -> Result<Digest> {
        let mut sha = Sha::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let left = size.map_or(u64::MAX, |size| size - open.sums.size());
            let some = left.min(buffer.len() as u64) as usize;
            let read = match input.read(&mut buffer[..some]) {
                Ok(0) if left == 0 || size.is_none() => return Ok(sha.finish()),
                Ok(0) => return Err(Error::Archive { why: "it is cut off".into() }),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Archive { why: error.to_string() }),
            };
            sha.update(&buffer[..read]);
            open.sums.update(&buffer[..read]);
            self.out.append(&buffer[..read])?;
            self.watch.tell(read as u64)?;
        }
    }

    /// A blob that is in the bundle, if it is at most so large.
    pub(crate) fn blob_content(&mut self, digest: &Digest, most: u64) -> Result<Option<Vec<u8>>> {
        let path = format!("{}{}", frame::BLOBS, digest.hex());
        let member = self.members.iter().find(|member| member.path == path && member.size <= most);
        let Some((offset, size)) = member.map(|member| (member.offset, member.size)) else { return Ok(None) };
        let mut bytes = vec![0; size as usize];
        self.out.read(offset, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes what is left, makes all of it durable, and gives the file its name.
    ///
    /// # Errors
    /// Writing failed (the partial file stays for [`Writer::resume`]), or an image's layer is missing.
    pub fn finish(mut self) -> Result<Summary> {
        let absent = self.step(Self::close)?;
        let size = self.out.position();
        let members = self.members;
        self.out.publish()?;
        Ok(Summary { size, members, absent })
    }

    fn close(&mut self) -> Result<Vec<Digest>> {
        let absent = self.image_documents()?;
        self.members.sort_by_key(|member| member.offset);
        let contents = Contents {
            format: contents::FORMAT.into(),
            version: crate::VERSION,
            members: self.members.clone(),
            absent: absent.clone(),
        };
        let bytes = serde_json::to_vec(&contents).map_err(|error| Error::Document {
            what: "the table of contents".into(),
            why: error.to_string(),
        })?;
        let size = bytes.len() as u64;
        self.out.append(&frame::header(frame::CONTENTS, size, self.mtime))?;
        let end = End { offset: self.out.position(), size, blake3: blake3::hash(&bytes), mtime: self.mtime };
        self.out.append(&bytes)?;
        self.out.pad(size)?;
        self.out.append(&end.render())?;
        Ok(absent)
    }

    /// Deletes what was written so far.
    ///
    /// # Errors
    /// It could not be deleted.
    pub fn abandon(self) -> Result<()> {
        self.out.delete()
    }
}
