//! A store in a directory, of a local file system or one on the network.
//!
//! An object is written under a temporary name beside its own, synced, and renamed without replacing. A temporary
//! file is locked (`flock`) while its writer lives; whoever opens the store removes those that nobody has locked at two looks
//! a moment apart. Should that take a living writer's file away all the same, as where locks do not reach (an NFS without
//! them), the writer makes it again: so no clock and no age is needed.

use super::{
    Abilities, Ability, Created, Object, Store, StoreError, StoreResult, check_name, check_prefix,
    check_range, probe_conditional, unique,
};
use bytes::Bytes;
use linux::direct::{Sink, read_range};
use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What temporary names begin with; 24 hexadecimal digits follow.
const TEMPORARY: &str = ".everhold-";

/// Objects up to this size may use half of the reserve, so that what frees space can be written down.
const SMALL: u64 = 64 << 10;

/// The time between the two looks at what may be abandoned.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// How often an object is written again that was taken away under its temporary name.
const ATTEMPTS: u32 = 4;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How much of the file system must stay free for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reserve {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system.
    Percent(u8),
}

/// How to open a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirOptions {
    /// Make the directory when there is none.
    pub create: bool,
    /// What must stay free.
    pub reserve: Reserve,
}

impl Default for DirOptions {
    /// Does not make the directory, and keeps nothing free.
    fn default() -> Self {
        Self { create: false, reserve: Reserve::Bytes(0) }
    }
}

/// A store in a directory.
#[derive(Debug)]
pub struct DirStore {
    url: String,
    root: PathBuf,
    /// The inode of the root at the start. When the file system is not mounted, the path leads to another one.
    inode: u64,
    reserve: Reserve,
    /// Directories whose entry in their parent is known to be durable.
    durable: Mutex<HashSet<String>>,
}

/// What a walk meets.
struct Found<'a> {
    name: &'a str,
    dir: &'a OwnedFd,
    leaf: &'a str,
    kind: FileType,
}

fn is_temporary(leaf: &str) -> bool {
    let id = leaf.strip_prefix(TEMPORARY);
    id.is_some_and(|id| id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Locks a file, if nobody else has, and tells its inode.
fn lock_abandoned(found: &Found<'_>) -> Result<(OwnedFd, u64), Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(found.dir, found.leaf, flags, Mode::empty())?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let inode = rustix::fs::fstat(&file)?.st_ino;
    Ok((file, inode))
}

impl DirStore {
    /// Opens a directory and removes what writers that are gone left unfinished.
    pub fn open(path: &Path, options: DirOptions) -> StoreResult<Self> {
        let mut store = Self {
            url: crate::url::file_url(path),
            root: path.to_owned(),
            inode: 0,
            reserve: options.reserve,
            durable: Mutex::default(),
        };
        if !path.is_absolute() {
            return Err(store.refused("the path is not absolute".to_owned()));
        }
        if options.create {
            store.make_root()?;
        }
        let root = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).map_err(|e| match e {
            Errno::NOENT => store.refused("there is no such directory".to_owned()),
            e => store.error("open", "", e),
        })?;
        store.inode = rustix::fs::fstat(&root).map_err(|e| store.error("open", "", e))?.st_ino;
        store.sweep(&root);
        Ok(store)
    }

    fn make_root(&self) -> StoreResult<()> {
        let failed = |e: std::io::Error| match e.raw_os_error() {
            Some(code) => self.error("create", "the directory", Errno::from_raw_os_error(code)),
            None => self.refused(e.to_string()),
        };
        let made: Vec<_> = self.root.ancestors().take_while(|p| !p.exists()).collect();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
        for parent in made.iter().filter_map(|p| p.parent()) {
            File::open(parent).and_then(|d| d.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes temporary files whose writers are gone: those that nobody has locked.
    fn sweep(&self, root: &OwnedFd) {
        let mut unlocked = HashSet::new();
        let mut look = |remove: bool| {
            let walked = self.walk(root, "", &mut |found| {
                if found.kind == FileType::RegularFile
                    && is_temporary(found.leaf)
                    && let Ok((file, inode)) = lock_abandoned(found)
                {
                    if !remove {
                        unlocked.insert(inode);
                    } else if unlocked.contains(&inode) {
                        tracing::debug!(store = self.url, file = found.name, "removing an unfinished object");
                        self.remove_temporary(found.dir, found.leaf);
                    }
                    drop(file);
                }
                ControlFlow::Continue(())
            });
            walked.map(|_| !unlocked.is_empty())
        };
        let swept = look(false).and_then(|any| {
            if any {
                // A writer that has just made its file has not locked it yet.
                std::thread::sleep(BETWEEN_LOOKS);
                look(true)?;
            }
            Ok(())
        });
        if let Err(error) = swept {
            tracing::warn!(store = self.url, %error, "can't look for unfinished objects");
        }
    }

    fn refused(&self, why: String) -> StoreError {
        StoreError::Refused { store: self.url.clone(), why }
    }

    fn failed(&self, op: &'static str, name: &str, why: String) -> StoreError {
        StoreError::Failed { store: self.url.clone(), op, name: name.to_owned(), why }
    }

    fn error(&self, op: &'static str, name: &str, error: Errno) -> StoreError {
        match error {
            Errno::NOENT => StoreError::NotFound { store: self.url.clone(), name: name.to_owned() },
            Errno::NOSPC | Errno::DQUOT => {
                StoreError::NoSpace { store: self.url.clone(), name: name.to_owned(), why: error.to_string() }
            }
            Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR => {
                self.refused(format!("{op} {name}: {error}"))
            }
            e => self.failed(op, name, e.to_string()),
        }
    }

    /// The root, if it is still the same directory.
    fn root(&self, op: &'static str) -> StoreResult<OwnedFd> {
        let absent = |why: &str| self.failed(op, "", format!("{why}; is its file system mounted?"));
        let root = rustix::fs::openat(CWD, &self.root, DIRECTORY, Mode::empty()).map_err(|e| match e {
            Errno::NOENT => absent("the directory is gone"),
            e => self.error(op, "", e),
        })?;
        match rustix::fs::fstat(&root) {
            Ok(stat) if stat.st_ino == self.inode => Ok(root),
            Ok(_) => Err(absent("the directory is another one than it was")),
            Err(e) => Err(self.error(op, "", e)),
        }
    }

    /// Opens the directory an object is in; `None` if there is none.
    fn parent<'a>(&self, op: &'static str, name: &'a str) -> StoreResult<Option<(OwnedFd, &'a str)>> {
        check_name(&self.url, name)?;
        let (path, leaf) = name.rsplit_once('/').unwrap_or(("", name));
        Ok(self.descend(op, path)?.map(|dir| (dir, leaf)))
    }

    fn descend(&self, op: &'static str, path: &str) -> StoreResult<Option<OwnedFd>> {
        let mut dir = self.root(op)?;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            dir = match rustix::fs::openat(&dir, part, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(e) => return Err(self.error(op, path, e)),
            };
        }
        Ok(Some(dir))
    }

    /// Like [`Self::parent`], making what is missing, durably.
    fn parent_made<'a>(&self, op: &'static str, name: &'a str) -> StoreResult<(OwnedFd, &'a str)> {
        check_name(&self.url, name)?;
        let failed = |e| match self.error(op, name, e) {
            // A directory was taken away at this moment.
            StoreError::NotFound { .. } => self.failed(op, name, e.to_string()),
            other => other,
        };
        let mut dir = self.root(op)?;
        let mut from = 0;
        while let Some(length) = name[from..].find('/') {
            let (path, part) = (&name[..from + length], &name[from..from + length]);
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let mut next = rustix::fs::openat(&dir, part, flags, Mode::empty());
            let missing = next.as_ref().is_err_and(|e| *e == Errno::NOENT);
            if missing {
                match rustix::fs::mkdirat(&dir, part, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(failed(e)),
                }
                next = rustix::fs::openat(&dir, part, flags, Mode::empty());
            }
            let next = next.map_err(failed)?;
            // Another writer may have made it a moment ago and not have come to its sync, so this one syncs it too.
            if missing || !self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(path) {
                rustix::fs::fsync(&dir).map_err(failed)?;
                self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
            }
            dir = next;
            from += length + 1;
        }
        Ok((dir, &name[from..]))
    }

    fn check_space(&self, dir: &OwnedFd, name: &str, length: u64) -> StoreResult<()> {
        let stat = rustix::fs::fstatvfs(dir).map_err(|e| self.error("look at", "the free space", e))?;
        let reserve = match self.reserve {
            Reserve::Bytes(bytes) => bytes,
            Reserve::Percent(percent) => {
                stat.f_blocks.saturating_mul(stat.f_frsize) / 100 * u64::from(percent)
            }
        };
        let reserve = if length <= SMALL { reserve / 2 } else { reserve };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if reserve == 0 || free >= reserve.saturating_add(length) {
            return Ok(());
        }
        Err(StoreError::NoSpace {
            store: self.url.clone(),
            name: name.to_owned(),
            why: format!("{free} bytes are free, and {reserve} must stay free"),
        })
    }

    /// Writes a body under a temporary name of its own, synced and locked.
    fn write_temporary(&self, dir: &OwnedFd, name: &str, body: &[u8]) -> StoreResult<(File, String)> {
        self.check_space(dir, name, body.len() as u64)?;
        let temporary = format!("{TEMPORARY}{}", unique()?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR).map_err(|e| match e {
                // The directory was taken away at this moment.
                Errno::NOENT => self.failed("create", name, e.to_string()),
                e => self.error("create", name, e),
            })?;
        // Nobody else holds it for longer than a look. Without locks, see the top of this file.
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            tracing::debug!(store = self.url, %error, "can't lock a temporary file");
        }
        let file = File::from(file);
        let written = Sink::new(&file).write_all_at(body, 0).and_then(|()| file.sync_all());
        if let Err(e) = written {
            self.remove_temporary(dir, &temporary);
            return Err(match e.raw_os_error() {
                Some(code) => self.error("write", name, Errno::from_raw_os_error(code)),
                None => self.failed("write", name, e.to_string()),
            });
        }
        Ok((file, temporary))
    }

    fn remove_temporary(&self, dir: &OwnedFd, temporary: &str) {
        match rustix::fs::unlinkat(dir, temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(store = self.url, %error, "can't remove {temporary}"),
        }
    }

    /// Gives a temporary file its name, if nothing has it.
    fn rename_new(dir: &OwnedFd, file: &File, temporary: &str, leaf: &str) -> Result<Created, Errno> {
        let renamed = match rustix::fs::renameat_with(dir, temporary, dir, leaf, RenameFlags::NOREPLACE) {
            // NFS and some others can't.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(dir, temporary, dir, leaf, AtFlags::empty())
            }
            other => other,
        };
        match renamed {
            Ok(()) => Ok(Created::New),
            // Over a network, an answer may be lost and the operation be made again, and meet itself.
            Err(Errno::EXIST) => {
                let own = rustix::fs::fstat(file)?;
                let there = rustix::fs::statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
                let same = (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino);
                Ok(if same { Created::New } else { Created::Exists })
            }
            Err(e) => Err(e),
        }
    }

    /// Opens an object and tells its size.
    fn open_object(&self, op: &'static str, name: &str) -> StoreResult<(File, u64)> {
        let missing = || StoreError::NotFound { store: self.url.clone(), name: name.to_owned() };
        let (dir, leaf) = self.parent(op, name)?.ok_or_else(missing)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |e| self.error(op, name, e);
        let file = rustix::fs::openat(&dir, leaf, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.refused(format!("{op} {name}: it is not a file")));
        }
        Ok((File::from(file), stat.st_size as u64))
    }

    /// Visits all that is below a directory.
    fn walk(
        &self,
        dir: &OwnedFd,
        prefix: &str,
        visit: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    ) -> StoreResult<ControlFlow<()>> {
        let failed = |e| self.error("list", prefix, e);
        for entry in Dir::read_from(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let leaf = entry.file_name().to_string_lossy();
            if leaf == "." || leaf == ".." || (prefix.is_empty() && leaf == "lost+found") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(Errno::NOENT) => continue,
                        Err(e) => return Err(failed(e)),
                    }
                }
                kind => kind,
            };
            let name = format!("{prefix}{leaf}");
            if kind == FileType::Directory && !leaf.starts_with('.') {
                let below = match rustix::fs::openat(
                    dir,
                    entry.file_name(),
                    DIRECTORY | OFlags::NOFOLLOW,
                    Mode::empty(),
                ) {
                    Ok(below) => below,
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(failed(e)),
                };
                if self.walk(&below, &format!("{name}/"), visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            } else if visit(&Found { name: &name, dir, leaf: &leaf, kind }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Store for DirStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn create(&self, name: &str, body: Bytes) -> StoreResult<Created> {
        let mut attempt = 1;
        loop {
            let (dir, leaf) = self.parent_made("create", name)?;
            let created = match rustix::fs::statat(&dir, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Created::Exists,
                Err(Errno::NOENT) => {
                    let (file, temporary) = self.write_temporary(&dir, name, &body)?;
                    let created = Self::rename_new(&dir, &file, &temporary, leaf);
                    // After a rename it is gone; after a link or a failure it is not.
                    self.remove_temporary(&dir, &temporary);
                    match created {
                        Ok(created) => created,
                        // It was taken away, see the top of this file.
                        Err(Errno::NOENT) if attempt < ATTEMPTS => {
                            attempt += 1;
                            continue;
                        }
                        Err(Errno::NOENT) => {
                            return Err(self.failed("create", name, "its file was taken away".to_owned()));
                        }
                        Err(e) => return Err(self.error("create", name, e)),
                    }
                }
                Err(e) => return Err(self.error("create", name, e)),
            };
            // Also when it was there: who made it may not have come to this.
            rustix::fs::fsync(&dir).map_err(|e| self.error("sync", name, e))?;
            return Ok(created);
        }
    }

    fn replace(&self, name: &str, body: Bytes) -> StoreResult<()> {
        let mut attempt = 1;
        loop {
            let (dir, leaf) = self.parent_made("replace", name)?;
            let (_file, temporary) = self.write_temporary(&dir, name, &body)?;
            match rustix::fs::renameat(&dir, &temporary, &dir, leaf) {
                Ok(()) => return rustix::fs::fsync(&dir).map_err(|e| self.error("sync", name, e)),
                Err(Errno::NOENT) if attempt < ATTEMPTS => attempt += 1,
                Err(e) => {
                    self.remove_temporary(&dir, &temporary);
                    return Err(self.error("replace", name, e));
                }
            }
        }
    }

    fn read(&self, name: &str, range: Option<Range<u64>>) -> StoreResult<Bytes> {
        let (file, size) = self.open_object("read", name)?;
        let range = range.unwrap_or(0..size);
        check_range(&self.url, name, &range, size)?;
        let (buffer, within) =
            read_range(&file, range).map_err(|e| self.failed("read", name, e.to_string()))?;
        Ok(Bytes::from_owner(buffer).slice(within))
    }

    fn size(&self, name: &str) -> StoreResult<Option<u64>> {
        let Some((dir, leaf)) = self.parent("look for", name)? else { return Ok(None) };
        match rustix::fs::statat(&dir, leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(stat.st_size as u64))
            }
            Ok(_) => Err(self.refused(format!("look for {name}: it is not a file"))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.error("look for", name, e)),
        }
    }

    fn list(&self, prefix: &str) -> StoreResult<Vec<Object>> {
        check_prefix(&self.url, prefix)?;
        let Some(dir) = self.descend("list", prefix)? else { return Ok(Vec::new()) };
        let mut objects = Vec::new();
        let mut failure = None;
        let walked = self.walk(&dir, prefix, &mut |found| {
            if found.kind != FileType::RegularFile || check_name(&self.url, found.name).is_err() {
                return ControlFlow::Continue(());
            }
            match rustix::fs::statat(found.dir, found.leaf, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    objects.push(Object { name: found.name.to_owned(), size: stat.st_size as u64 });
                    ControlFlow::Continue(())
                }
                Err(Errno::NOENT) => ControlFlow::Continue(()),
                Err(e) => {
                    failure = Some(self.error("list", found.name, e));
                    ControlFlow::Break(())
                }
            }
        });
        match (walked, failure) {
            (Err(e), _) | (_, Some(e)) => Err(e),
            (Ok(_), None) => {
                objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                Ok(objects)
            }
        }
    }

    fn is_empty(&self, ignoring: &[&str]) -> StoreResult<bool> {
        let root = self.root("list")?;
        let walked = self.walk(&root, "", &mut |found| {
            let ours =
                found.leaf.starts_with(TEMPORARY) || ignoring.iter().any(|p| found.name.starts_with(p));
            if ours { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(walked.is_continue())
    }

    fn delete(&self, name: &str) -> StoreResult<()> {
        let Some((dir, leaf)) = self.parent("delete", name)? else { return Ok(()) };
        match rustix::fs::unlinkat(&dir, leaf, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.error("delete", name, e)),
        }
    }

    fn abilities(&self) -> StoreResult<Abilities> {
        let conditional_put = probe_conditional(self)?;
        let root = self.root("probe")?;
        if let Err(error) = rustix::fs::unlinkat(&root, "probe", AtFlags::REMOVEDIR) {
            tracing::debug!(store = self.url, %error, "can't remove the directory probe");
        }
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).remove("probe");
        Ok(Abilities {
            conditional_put,
            versions: Ability::No,
            object_lock: Ability::No,
            notes: vec!["who may write to the directory may delete the history".to_owned()],
        })
    }
}
