//! One look at a tree: decides for every entry what of it has to be written.

use super::emit::link_meta;
use super::model::{Model, What};
use super::patch::{self, Failure, Outcome};
use super::upper::{self, Upper};
use super::{LayerForm, LayerMember, LiveLayer, Looked, filler};
use crate::error::{Error, Result};
use crate::tar::{Kind, Meta, Time};
use crate::writer::Writer;
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use tree::tracker::{Tracker, Verdict};
use tree::walk::Walk;
use tree::{Entry, Kind as TreeKind};

/// A look that goes on.
pub(super) struct Pass<'w, 'l> {
    pub writer: &'w mut Writer,
    pub root: &'l Path,
    pub writable: bool,
    pub tracker: &'l mut Tracker,
    pub model: &'l mut Model,
    pub members: &'l mut Vec<LayerMember>,
    /// The tar file of this look, if it has one already.
    pub current: Option<usize>,
    pub look: u32,
    pub last: bool,
    /// By inode: its names in this look, the first of which is in the model as it should be.
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
    /// Those that the tar file of this look has.
    pub directories: HashSet<Vec<u8>>,
    pub looked: Looked,
    pub buffer: Vec<u8>,
}

/// Looks at the tree and brings the bundle to what it is.
pub(super) fn run(writer: &mut Writer, live: &mut LiveLayer, last: bool) -> Result<Looked> {
    let LiveLayer { root, tree, skip, form, tracker, model, members, .. } = live;
    if last {
        tracker.begin_last();
    } else {
        tracker.begin(tree).map_err(|error| Error::source(root, error))?;
    }
    model.looks += 1;
    let mut pass = Pass {
        writer,
        root,
        writable: *form == LayerForm::Writable,
        tracker,
        look: model.looks,
        model,
        members,
        current: None,
        last,
        links: HashMap::new(),
        directories: HashSet::new(),
        looked: Looked::default(),
        buffer: Vec::new(),
    };
    let mut walk = Walk::new(tree, skip).map_err(|error| Error::source(root, error))?;
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| Error::source(root, error))?;
        pass.entry(&walk, &entry)?;
        pass.looked.entries += 1;
        if pass.looked.entries.is_multiple_of(1024) {
            pass.writer.watch.tell(0)?;
        }
    }
    if last && walk.vanished() > 0 {
        return Err(Error::Moving { path: root.clone() });
    }
    pass.gone()?;
    pass.end()?;
    let looked = pass.looked;
    // So that the last look has nothing of it to wait for.
    writer.out.flush()?;
    Ok(looked)
}

impl Pass<'_, '_> {
    fn entry(&mut self, walk: &Walk<'_>, entry: &Entry) -> Result<()> {
        let path = entry.path.as_os_str().as_bytes();
        // A socket is made anew by who listens on it; a file of another mount belongs to something else.
        if entry.kind == TreeKind::Socket || (entry.foreign && !entry.is_dir()) {
            return Ok(());
        }
        let mut opaque = false;
        if self.writable {
            // The root of an image is the business of its first layer; engines leave it out, too.
            if path.is_empty() {
                return Ok(());
            }
            match upper::meaning(walk, entry, self.root)? {
                Upper::Plain => {}
                Upper::Opaque => opaque = true,
                Upper::Whiteout => return self.whiteout(path),
            }
        }
        let unchanged = self.tracker.judge(entry) == Verdict::Unchanged;
        if unchanged && self.model.get(path).is_some() && (entry.nlink == 1 || entry.is_dir()) {
            self.model.see(path, self.look);
            return Ok(());
        }
        let Some(xattrs) = walk.xattrs(entry).map_err(|error| self.unreadable(entry, error))? else {
            return self.vanished(entry);
        };
        let xattrs = xattrs.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value)).collect();
        let meta = Meta {
            path: if path.is_empty() { b"./".to_vec() } else { path.to_vec() },
            kind: kind(&entry.kind),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: Time { secs: entry.mtime.seconds, nanos: entry.mtime.nanoseconds },
            size: if entry.is_file() { entry.size } else { 0 },
            xattrs,
            sparse: None,
            whiteout: false,
        };
        if entry.nlink > 1 && !entry.is_dir() {
            if let Some(names) = self.links.get(&entry.inode()) {
                let first = names[0].clone();
                return self.another_name(walk, entry, path, meta, &first);
            }
            if self.node(walk, entry, path, meta, opaque, unchanged)? {
                self.links.insert(entry.inode(), vec![path.to_vec()]);
            }
            return Ok(());
        }
        self.node(walk, entry, path, meta, opaque, unchanged).map(drop)
    }

    /// An entry that is the first of its inode in this look. Answers whether it is in the bundle now.
    fn node(
        &mut self,
        walk: &Walk<'_>,
        entry: &Entry,
        path: &[u8],
        meta: Meta,
        opaque: bool,
        unchanged: bool,
    ) -> Result<bool> {
        let known = self.model.get(path).and_then(|name| name.what.object());
        if let Some(object) = known.filter(|object| self.fits(*object, entry, &meta, opaque)) {
            if unchanged {
                self.model.see(path, self.look);
                return Ok(true);
            }
            let content = if entry.is_file() { self.content(walk, entry, object)? } else { Some(true) };
            match content {
                None => return self.vanished(entry).map(|()| false),
                Some(true) if self.metadata(path, object, &meta)? => {
                    if !entry.is_file() {
                        self.tracker.note(entry, None, true);
                    }
                    self.model.see(path, self.look);
                    return Ok(true);
                }
                Some(_) => {}
            }
        }
        if entry.is_file() {
            if self.file(walk, entry, path, meta)?.is_none() {
                return self.vanished(entry).map(|()| false);
            }
        } else {
            self.plain(entry, path, meta, opaque)?;
            self.tracker.note(entry, None, true);
        }
        Ok(true)
    }

    /// Whether an object may become the entry by overwriting.
    fn fits(&self, object: usize, entry: &Entry, meta: &Meta, opaque: bool) -> bool {
        let object = self.model.object(object);
        let same = object.inode == entry.inode()
            && object.head.meta.kind == meta.kind
            && (object.head.meta.size == meta.size || filler::holds(object, meta.size));
        // A directory is where its name is; an inode of another one at the same name is as good.
        let directory = entry.is_dir() && object.head.meta.kind == Kind::Directory;
        (same || directory) && object.opaque == opaque
    }

    /// Brings the data of an object to what the file is. Answers whether that was possible; `None`: the file is gone.
    fn content(&mut self, walk: &Walk<'_>, entry: &Entry, object: usize) -> Result<Option<bool>> {
        let opened = walk.open(entry).map_err(|error| self.unreadable(entry, error))?;
        let Some(file) = opened else { return Ok(None) };
        let check = file.try_clone().map_err(|error| self.unreadable(entry, error))?;
        if self.model.object(object).head.meta.size != entry.size && !self.resize(object, entry.size)? {
            return Ok(Some(false));
        }
        self.writer.out.flush()?;
        let known = self.model.object(object);
        let outcome = patch::patch(self.writer.out.file(), known, file, self.tracker.hashing());
        let outcome = outcome.map_err(|failure| match failure {
            Failure::Read(error) => self.unreadable(entry, error),
            Failure::Write(error) => Error::write(self.writer.out.partial(), error),
        })?;
        self.unmoved(entry, &check)?;
        self.writer.watch.tell(entry.size)?;
        let Outcome::Done { marks, patched, short } = outcome else { return Ok(Some(false)) };
        let member = self.model.object(object).head.member;
        for (at, len) in patched {
            self.touched(member, at, len);
            self.looked.patched += len;
        }
        self.model.object_mut(object).marks = Arc::new(marks);
        self.tracker.note(entry, None, !short);
        Ok(Some(true))
    }

    /// Brings the headers of an object, and of this name of it, to what the entry says. Answers whether that was possible.
    fn metadata(&mut self, path: &[u8], object: usize, meta: &Meta) -> Result<bool> {
        let head = self.model.object(object).head.clone();
        let wanted = Meta { path: head.meta.path.clone(), sparse: head.meta.sparse.clone(), ..meta.clone() };
        if wanted != head.meta {
            if !self.rewrite(&head, &wanted)? {
                return Ok(false);
            }
            let object = self.model.object_mut(object);
            object.head.meta = wanted;
        }
        self.link_metadata(path, meta)
    }

    /// The same for the name's own entry, if it has one.
    fn link_metadata(&mut self, path: &[u8], meta: &Meta) -> Result<bool> {
        let Some(head) = self.model.link_mut(path).cloned() else { return Ok(true) };
        let Kind::Link(target) = &head.meta.kind else { return Ok(true) };
        let wanted = link_meta(path, target, meta);
        if wanted != head.meta {
            if !self.rewrite(&head, &wanted)? {
                return Ok(false);
            }
            if let Some(head) = self.model.link_mut(path) {
                head.meta = wanted;
            }
        }
        Ok(true)
    }

    /// An entry whose inode has a name in this look already.
    fn another_name(
        &mut self,
        walk: &Walk<'_>,
        entry: &Entry,
        path: &[u8],
        meta: Meta,
        first: &[u8],
    ) -> Result<()> {
        let Some(object) = self.model.get(first).and_then(|name| name.what.object()) else {
            return Err(Error::source(&self.root.join(&entry.path), "its other names were lost sight of"));
        };
        let same = self.model.get(path).and_then(|name| name.what.object()) == Some(object);
        let member = self.model.object(object).head.member;
        if same && self.link_metadata(path, &meta)? {
            self.model.see(path, self.look);
        } else if self.writable && Some(member) != self.current {
            // A layer of an image can't link to something in another one: all names are written anew.
            if !self.anew(walk, entry, path, meta)? {
                return self.vanished(entry);
            }
        } else {
            self.link(path, object, first, &meta)?;
        }
        self.tracker.note(entry, None, true);
        if let Some(names) = self.links.get_mut(&entry.inode()) {
            names.push(path.to_vec());
        }
        Ok(())
    }

    fn anew(&mut self, walk: &Walk<'_>, entry: &Entry, path: &[u8], meta: Meta) -> Result<bool> {
        let object = if entry.is_file() {
            self.file(walk, entry, path, meta.clone())?
        } else {
            Some(self.plain(entry, path, meta.clone(), false)?)
        };
        let Some(object) = object else { return Ok(false) };
        for other in self.links.get(&entry.inode()).cloned().unwrap_or_default() {
            self.link(&other, object, path, &meta)?;
        }
        Ok(true)
    }

    /// A name that overlayfs says is gone below.
    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        if matches!(self.model.get(path), Some(name) if matches!(name.what, What::Whiteout)) {
            self.model.see(path, self.look);
            return Ok(());
        }
        self.white_out(path)?;
        self.model.insert(path, What::Whiteout, self.look);
        Ok(())
    }

    /// Names that were not there in this look.
    fn gone(&mut self) -> Result<()> {
        for path in self.model.gone(self.look) {
            self.white_out(&path)?;
            self.tracker.forget(Path::new(std::ffi::OsStr::from_bytes(&path)));
            self.looked.removed += 1;
            if self.writable {
                self.model.insert(&path, What::Whiteout, self.look);
            }
        }
        Ok(())
    }

    /// An entry that is not there any more, a moment after it was listed.
    fn vanished(&self, entry: &Entry) -> Result<()> {
        if self.last { Err(Error::Moving { path: self.root.join(&entry.path) }) } else { Ok(()) }
    }
}

fn kind(kind: &TreeKind) -> Kind {
    let device = |rdev: u64| (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    match kind {
        TreeKind::Symlink(target) => Kind::Symlink(target.as_bytes().to_vec()),
        TreeKind::Directory => Kind::Directory,
        // Sockets do not come here.
        TreeKind::File | TreeKind::Socket => Kind::File,
        TreeKind::Fifo => Kind::Fifo,
        TreeKind::CharDevice { rdev } => {
            let (major, minor) = device(*rdev);
            Kind::CharDevice { major, minor }
        }
        TreeKind::BlockDevice { rdev } => {
            let (major, minor) = device(*rdev);
            Kind::BlockDevice { major, minor }
        }
    }
}
