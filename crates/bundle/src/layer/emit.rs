//! Appending entries to the tar file that a look writes, and telling the model.

use super::LayerMember;
use super::model::{Head, Object, What};
use super::pass::Pass;
use crate::digest::Sha;
use crate::error::{Error, Result};
use crate::tar::{BLOCK64, Kind, Meta, padding, write};
use tree::Entry;
use tree::marks::Recorder;

/// From so many bytes on a thread is worth its beginning.
const PARALLEL: usize = 1 << 20;

impl Pass<'_, '_> {
    /// The tar file of this look, which begins with its first entry.
    pub(super) fn current(&mut self) -> Result<usize> {
        if let Some(current) = self.current {
            return Ok(current);
        }
        let open = self.writer.open_member()?;
        let sha = self.writable.then(Sha::new);
        self.members.push(LayerMember { open, sha });
        self.current = Some(self.members.len() - 1);
        Ok(self.members.len() - 1)
    }

    /// Ends it.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.current {
            Some(_) => self.append(&[0; 2 * BLOCK64 as usize]),
            None => Ok(()),
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let current = self.current()?;
        self.writer.out.append(bytes)?;
        let member = &mut self.members[current];
        member.open.sums.update(bytes);
        if let Some(sha) = &mut member.sha {
            sha.update(bytes);
        }
        self.looked.written += bytes.len() as u64;
        Ok(())
    }

    /// Appends data of a file. Where it is much, it is hashed by one thread while another hands it to the kernel.
    pub(super) fn append_data(&mut self, bytes: &[u8], recorder: &mut Recorder) -> Result<()> {
        if bytes.len() < PARALLEL {
            recorder.data(bytes);
            return self.append(bytes);
        }
        let current = self.current()?;
        let LayerMember { open, sha } = &mut self.members[current];
        let out = &mut self.writer.out;
        let hash = || {
            recorder.data(bytes);
            open.sums.update(bytes);
            if let Some(sha) = sha {
                sha.update(bytes);
            }
        };
        self.looked.written += bytes.len() as u64;
        std::thread::scope(|scope| {
            let hashing = scope.spawn(hash);
            let written = out.append(bytes);
            match hashing.join() {
                Ok(()) => written,
                Err(_) => Err(Error::source(self.root, "the thread that hashes it panicked")),
            }
        })
    }

    pub(super) fn pad(&mut self, size: u64) -> Result<()> {
        self.append(&[0; BLOCK64 as usize][..padding(size) as usize])
    }

    /// Appends the header of what is at a path, and before it those of the directories that it is in, unless this tar file has them.
    ///
    /// An engine that unpacks a layer would otherwise make those directories with an owner and a mode of its own, which hide what
    /// lower layers say; and with them whoever unpacks a volume by hand gets the times of directories right.
    pub(super) fn head(&mut self, path: &[u8], meta: Meta) -> Result<Head> {
        if !path.is_empty() {
            self.directory(b"")?;
        }
        for end in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at) {
            self.directory(&path[..end])?;
        }
        if meta.kind == Kind::Directory {
            self.directories.insert(path.to_vec());
        }
        self.bare(meta)
    }

    /// Appends a directory that was written before once more, unless this tar file has it.
    fn directory(&mut self, path: &[u8]) -> Result<()> {
        let Some(object) = self.model.get(path).and_then(|name| name.what.object()) else { return Ok(()) };
        if self.directories.insert(path.to_vec()) {
            let meta = self.model.object(object).head.meta.clone();
            // What is changed from now on is changed there: it is what counts.
            self.model.object_mut(object).head = self.bare(meta)?;
        }
        Ok(())
    }

    fn bare(&mut self, meta: Meta) -> Result<Head> {
        let member = self.current()?;
        let at = self.writer.out.position();
        let bytes = write::head(&meta);
        self.append(&bytes)?;
        Ok(Head { member, at, len: bytes.len() as u64, meta })
    }

    /// Overwrites a header with another one of the same size. Answers false when it has not.
    pub(super) fn rewrite(&mut self, head: &Head, meta: &Meta) -> Result<bool> {
        let bytes = write::head(meta);
        if bytes.len() as u64 != head.len {
            return Ok(false);
        }
        self.writer.out.patch(head.at, &bytes)?;
        self.touched(head.member, head.at, head.len);
        Ok(true)
    }

    /// Notes that a part of a tar file is not what was counted in its sums.
    pub(super) fn touched(&mut self, member: usize, at: u64, len: u64) {
        let member = &mut self.members[member];
        member.open.sums.patched(at - member.open.data(), len);
        member.sha = None;
    }

    /// Appends an entry that has no data.
    pub(super) fn plain(&mut self, entry: &Entry, path: &[u8], meta: Meta, opaque: bool) -> Result<usize> {
        self.make_way(path, meta.kind == Kind::Directory)?;
        let head = self.head(path, meta)?;
        let object = Object {
            inode: entry.inode(),
            head,
            opaque,
            data: self.writer.out.position(),
            extents: Vec::new(),
            room: 0,
            marks: std::sync::Arc::default(),
        };
        let object = self.model.add(object);
        self.model.insert(path, What::First(object), self.look);
        if opaque {
            self.marker([path, b"/.wh..wh..opq"].concat())?;
            // It hides what our own tar files have there, too.
            self.model.remove(path, false);
        }
        Ok(object)
    }

    /// Appends one more name of an object.
    pub(super) fn link(&mut self, path: &[u8], object: usize, target: &[u8], meta: &Meta) -> Result<()> {
        self.make_way(path, false)?;
        let head = self.head(path, link_meta(path, target, meta))?;
        self.model.insert(path, What::Link(object, head), self.look);
        Ok(())
    }

    /// Appends what says that a name is gone, and takes it out of the model.
    pub(super) fn white_out(&mut self, path: &[u8]) -> Result<()> {
        let split = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        self.marker([&path[..split], b".wh.", &path[split..]].concat())?;
        self.model.remove(path, true);
        Ok(())
    }

    fn marker(&mut self, path: Vec<u8>) -> Result<()> {
        let mut meta = Meta::new(path, Kind::File);
        meta.whiteout = !self.writable;
        let path = meta.path.clone();
        self.head(&path, meta).map(drop)
    }

    /// A directory that becomes something else must go first, since no tar program removes one that is not empty.
    pub(super) fn make_way(&mut self, path: &[u8], directory: bool) -> Result<()> {
        if !directory && self.model.is_directory(path) {
            self.white_out(path)?;
        }
        Ok(())
    }
}

/// What the entry of another name says.
pub(super) fn link_meta(path: &[u8], target: &[u8], meta: &Meta) -> Meta {
    let kind = Kind::Link(target.to_vec());
    Meta { path: path.to_vec(), kind, size: 0, xattrs: Vec::new(), sparse: None, ..meta.clone() }
}
