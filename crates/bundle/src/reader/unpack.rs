//! Unpacking the tar files of a volume into a directory, one over the other.

use super::place::{self, Place};
use crate::error::{Error, Result};
use crate::tar::read::Archive;
use crate::tar::{Kind, Meta, Time, write};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::fs::{Gid, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the names of entries that take something away begin with.
const WHITEOUT: &[u8] = b".wh.";

/// A directory into which archives are unpacked.
pub(super) struct Unpacker {
    root: OwnedFd,
    dest: PathBuf,
    /// Owner, mode, attributes and times of directories are set when all is in them: a default list of rights would be inherited by
    /// what is made in them, and times would change.
    directories: BTreeMap<Place, Meta>,
    /// The directory that was used last: entries come in its order.
    parent: Option<(Place, OwnedFd)>,
}

/// What an entry is unpacked with.
struct Entry<'a> {
    member: &'a str,
    meta: &'a Meta,
    dest: &'a Path,
}

impl Entry<'_> {
    fn name(&self) -> String {
        String::from_utf8_lossy(&self.meta.path).into_owned()
    }

    fn hostile(&self, why: impl Into<String>) -> Error {
        let (member, entry, why) = (self.member.to_owned(), self.name(), why.into());
        Error::Hostile { member, entry, why, dest: self.dest.to_owned() }
    }

    fn failed<E: Into<std::io::Error>>(&self, doing: &'static str) -> impl FnOnce(E) -> Error {
        let (entry, dest) = (self.name(), self.dest.to_owned());
        move |source| Error::Unpack { doing, entry, dest, source: source.into() }
    }

    /// The way to a place can't be gone.
    fn astray(&self) -> impl FnOnce(Errno) -> Error {
        let hostile = self.hostile("its path leads through something that is not a directory of the archive");
        let failed = self.failed::<Errno>("could not get to");
        move |error| match error {
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT | Errno::XDEV => hostile,
            other => failed(other),
        }
    }
}

impl Unpacker {
    /// Opens an empty directory.
    pub fn new(dest: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dest, flags, Mode::empty()).map_err(Error::io("could not open", dest))?;
        for entry in Dir::read_from(&root).map_err(Error::io("could not read", dest))? {
            let entry = entry.map_err(Error::io("could not read", dest))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Err(Error::NotEmpty { path: dest.to_owned() });
            }
        }
        // What it has would be inherited by everything that is made in it.
        match rustix::fs::fremovexattr(&root, "system.posix_acl_default") {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(Error::io("could not remove the default ACL of", dest)(error)),
        }
        Ok(Self { root, dest: dest.to_owned(), directories: BTreeMap::new(), parent: None })
    }

    /// Unpacks one archive over what is there.
    pub fn layer(
        &mut self,
        member: &str,
        archive: &mut Archive<impl Read>,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<()> {
        let mut told = 0;
        loop {
            let next = archive.next();
            let meta = next.map_err(|error| Error::Hostile {
                member: member.to_owned(),
                entry: format!("at byte {}", archive.position()),
                why: error.to_string(),
                dest: self.dest.clone(),
            })?;
            let Some(meta) = meta else { return Ok(()) };
            if archive.position() - told >= 1 << 20 {
                if !progress(archive.position() - told) {
                    return Err(Error::Stopped);
                }
                told = archive.position();
            }
            let dest = self.dest.clone();
            let entry = Entry { member, meta: &meta, dest: &dest };
            let place = Place::parse(&meta.path);
            let place = place.ok_or_else(|| entry.hostile("its path leads out of the directory"))?;
            match place.split() {
                None if meta.kind == Kind::Directory => drop(self.directories.insert(place, meta)),
                None => return Err(entry.hostile("the directory itself must be a directory")),
                Some((parent, name)) if meta.whiteout => self.white_out(&entry, &parent, name)?,
                Some((parent, name)) => {
                    self.enter(&entry, &parent)?;
                    let mut tell = |bytes| progress(bytes);
                    self.make(&entry, &place, name, archive, &mut tell, &mut told)?;
                }
            }
        }
    }

    /// Sets what was left for the end, and makes all of it durable.
    pub fn finish(mut self) -> Result<()> {
        self.parent = None;
        for (place, meta) in &self.directories {
            let entry = Entry { member: "", meta, dest: &self.dest };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = place::open(self.root.as_fd(), place, flags).map_err(entry.astray())?;
            settle(&entry, directory.as_fd())?;
        }
        rustix::fs::syncfs(&self.root).map_err(Error::io("could not make durable what is in", &self.dest))
    }

    fn white_out(&mut self, entry: &Entry<'_>, parent: &Place, name: &[u8]) -> Result<()> {
        let name = name.strip_prefix(WHITEOUT).filter(|name| !matches!(*name, b"" | b"." | b".."));
        let name = name.ok_or_else(|| entry.hostile("it takes something away and does not say what"))?;
        self.forget(entry, &parent.join(name))
    }

    /// Removes what is at a place.
    fn forget(&mut self, entry: &Entry<'_>, place: &Place) -> Result<()> {
        self.parent = None;
        place::remove(self.root.as_fd(), place).map_err(entry.astray())?;
        self.directories.remove(place);
        let below = place.join(b"");
        let inside = |other: &Place| other.bytes().starts_with(below.bytes());
        let gone: Vec<Place> = self
            .directories
            .range(&below..)
            .map(|(place, _)| place)
            .take_while(|place| inside(place))
            .cloned()
            .collect();
        for place in gone {
            self.directories.remove(&place);
        }
        Ok(())
    }

    /// Opens the directory of an entry, unless it is open.
    fn enter(&mut self, entry: &Entry<'_>, parent: &Place) -> Result<()> {
        if self.parent.as_ref().is_none_or(|(open, _)| open != parent) {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = place::open(self.root.as_fd(), parent, flags).map_err(entry.astray())?;
            self.parent = Some((parent.clone(), fd));
        }
        Ok(())
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// Makes an entry whose directory is open.
    fn make(
        &mut self,
        entry: &Entry<'_>,
        place: &Place,
        name: &[u8],
        archive: &mut Archive<impl Read>,
        progress: &mut dyn FnMut(u64) -> bool,
        told: &mut u64,
    ) -> Result<()> {
        match rustix::fs::statat(self.parent(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if directory && entry.meta.kind == Kind::Directory {
                    self.directories.insert(place.clone(), entry.meta.clone());
                    return Ok(());
                }
                let parent = place.split().map(|(parent, _)| parent);
                self.forget(entry, place)?;
                if let Some(parent) = parent {
                    self.enter(entry, &parent)?;
                }
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(entry.failed("could not look at")(error)),
        }
        let parent = self.parent();
        let made = "could not create";
        match &entry.meta.kind {
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(entry.failed(made))?;
                let file = File::from(file);
                fill(entry, &file, archive, progress, told)?;
                return settle(entry, file.as_fd());
            }
            Kind::Directory => {
                rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(entry.failed(made))?;
                self.directories.insert(place.clone(), entry.meta.clone());
                return Ok(());
            }
            Kind::Link(target) => return self.link(entry, name, target),
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(&target[..], parent, name).map_err(entry.failed(made))?;
            }
            Kind::Fifo => node(parent, name, FileType::Fifo, 0).map_err(entry.failed(made))?,
            Kind::CharDevice { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                node(parent, name, FileType::CharacterDevice, device).map_err(entry.failed(made))?;
            }
            Kind::BlockDevice { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                node(parent, name, FileType::BlockDevice, device).map_err(entry.failed(made))?;
            }
        }
        // What can't be opened without doing something.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(entry.failed("could not open"))?;
        settle(entry, fd.as_fd())
    }

    fn link(&self, entry: &Entry<'_>, name: &[u8], target: &[u8]) -> Result<()> {
        let target = Place::parse(target).ok_or_else(|| entry.hostile("it links to something outside"))?;
        let Some((directory, old)) = target.split() else {
            return Err(entry.hostile("it links to a directory"));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = place::open(self.root.as_fd(), &directory, flags).map_err(entry.astray())?;
        match rustix::fs::linkat(&directory, old, self.parent(), name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(entry.hostile("it links to something that is not there")),
            Err(Errno::PERM) => Err(entry.hostile("it links to a directory")),
            result => result.map_err(entry.failed("could not link")),
        }
    }
}

fn node(parent: BorrowedFd<'_>, name: &[u8], kind: FileType, device: u64) -> std::result::Result<(), Errno> {
    rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
}

/// Writes the data of a file; holes stay holes.
fn fill(
    entry: &Entry<'_>,
    file: &File,
    archive: &mut Archive<impl Read>,
    progress: &mut dyn FnMut(u64) -> bool,
    told: &mut u64,
) -> Result<()> {
    let meta = entry.meta;
    let whole = [crate::tar::sparse::Extent { offset: 0, len: write::stored(meta) }];
    let extents = meta.sparse.as_deref().unwrap_or(&whole);
    let mut buffer = vec![0; (1 << 20).min(write::stored(meta) as usize)];
    for extent in extents {
        let mut done = 0;
        while done < extent.len {
            let some = (extent.len - done).min(buffer.len() as u64) as usize;
            archive.read_exact(&mut buffer[..some]).map_err(|error| entry.hostile(error.to_string()))?;
            file.write_all_at(&buffer[..some], extent.offset + done)
                .map_err(entry.failed("could not write"))?;
            done += some as u64;
            if !progress(archive.position() - *told) {
                return Err(Error::Stopped);
            }
            *told = archive.position();
        }
    }
    if extents.last().is_none_or(|last| last.offset + last.len < meta.size) {
        file.set_len(meta.size).map_err(entry.failed("could not set the size of"))?;
    }
    Ok(())
}

/// Gives owner, mode, attributes and time to what a descriptor leads to, in the order in which none undoes another: a new owner
/// takes set-user-ID and capabilities away, and a mode changes a list of rights.
fn settle(entry: &Entry<'_>, fd: BorrowedFd<'_>) -> Result<()> {
    let meta = entry.meta;
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .map_err(entry.failed("could not set the owner of"))?;
    // Through the descriptor's own name in /proc all of this works for links, devices and pipes too, without opening them.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if !matches!(meta.kind, Kind::Symlink(_)) {
        rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(meta.mode & 0o7777))
            .map_err(entry.failed("could not set the mode of"))?;
    }
    for (name, value) in &meta.xattrs {
        match rustix::fs::setxattr(path.as_str(), &name[..], value, XattrFlags::empty()) {
            // A label of another host's policy means nothing here.
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) if name == b"security.selinux" => {}
            result => result.map_err(entry.failed("could not set an extended attribute of"))?,
        }
    }
    let Time { secs, nanos } = meta.mtime;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: secs, tv_nsec: nanos.into() },
    };
    rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH)
        .map_err(entry.failed("could not set the time of"))
}
