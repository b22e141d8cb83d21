//! One pass: walks the source, decides for every entry what is to be done at the destination, and does it; contents are
//! copied by threads meanwhile.
//!
//! Names at the destination share an inode exactly if they do in the source, as it was seen. While a pass is under way,
//! nothing is noted of an entry whose copy has begun, so that a pass that is stopped leaves no wrong note.

use super::copy::{Done, Job, Shared, work};
use super::meta;
use super::place::{self, Opened};
use super::{Mirror, Pass, Progress};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::marks::Marks;
use crate::tracker::{Known, Tracker, Verdict};
use crate::walk::{Tree, Walk};
use crate::xattrs::Xattrs;
use rustix::fd::AsFd;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// So many jobs wait at most: each holds two descriptors.
const WAITING: usize = 64;
/// So often progress is told.
const OFTEN: Duration = Duration::from_millis(100);

/// The inode of an entry in the source.
type Inode = (u64, u64);

/// Everything of a pass that is under way.
struct Under<'p> {
    mirror: Parts<'p>,
    shared: &'p Shared<'p>,
    jobs: Option<SyncSender<Arc<Job>>>,
    results: Receiver<Result<Done>>,
    cancel: &'p AtomicBool,
    progress: &'p mut dyn FnMut(Progress),
    told: Instant,
    pass: Pass,
    /// Jobs that are not done yet.
    pending: u64,
    /// The path that stands for an inode: others of the same inode are linked to it.
    leaders: HashMap<Inode, PathBuf>,
    /// Entries that are further names of an inode.
    followers: HashMap<Inode, Vec<Entry>>,
    /// Where files were in the last pass, when it was first asked for.
    moved: Option<HashMap<Inode, Arc<OsStr>>>,
    /// Directories that are new or may have changed.
    dirs: BTreeMap<PathBuf, (Entry, Xattrs)>,
    error: Option<Error>,
}

/// The mirror, without what threads look at.
struct Parts<'p> {
    source: &'p Tree,
    place: &'p mut super::Place,
    options: &'p super::Options,
    tracker: &'p mut Tracker,
    shared: &'p mut HashMap<u64, Option<Arc<Marks>>>,
    touched: &'p mut std::collections::BTreeSet<PathBuf>,
}

/// Runs a pass.
pub(super) fn run(
    mirror: &mut Mirror,
    at_rest: bool,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Pass> {
    let begun = Instant::now();
    let was_complete = std::mem::replace(&mut mirror.complete, false);
    if at_rest {
        mirror.tracker.begin_last()
    } else {
        mirror.tracker.begin(&mirror.source)?
    }
    let (source, dest) = (again(&mirror.source)?, again(mirror.dest.tree())?);
    let shared = Shared {
        source: &source,
        dest: &dest,
        hashing: mirror.tracker.hashing(),
        stop: AtomicBool::new(false),
        read: AtomicU64::new(0),
        written: AtomicU64::new(0),
    };
    let (jobs, waiting) = sync_channel(WAITING);
    let waiting = Mutex::new(waiting);
    let (sender, results) = channel();
    let threads = mirror.options.threads.get();
    let mut pass = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, shared, waiting) = (sender.clone(), &shared, &waiting);
            scope.spawn(move || work(shared, waiting, &sender));
        }
        drop::<Sender<_>>(sender);
        let mut under = Under::new(mirror, &shared, jobs, results, cancel, progress, begun);
        let done = under.all(was_complete);
        if done.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        // Threads end when no job can come any more.
        under.jobs = None;
        done.map(|()| under.pass)
    })?;
    mirror.complete = true;
    mirror.touched.clear();
    pass.bytes_read = shared.read.load(Ordering::Relaxed);
    pass.bytes_written = shared.written.load(Ordering::Relaxed);
    pass.took = begun.elapsed();
    Ok(pass)
}

/// Whether the inode of a name at the destination, which is to be another one's copy from now on, has further names. Those are
/// still the copies of what this name was. A name that stays a copy of the same inode shares it with that one's names only.
fn is_of_others(names: u32, same_inode: bool) -> bool {
    names > 1 && !same_inode
}

/// The same tree, for other threads.
fn again(tree: &Tree) -> Result<Tree> {
    let fd = tree.as_fd().try_clone_to_owned().map_err(|error| Error::on("dup", tree.shown(), error))?;
    Tree::from_fd(fd, tree.shown())
}

impl<'p> Under<'p> {
    fn new(
        mirror: &'p mut Mirror,
        shared: &'p Shared<'p>,
        jobs: SyncSender<Arc<Job>>,
        results: Receiver<Result<Done>>,
        cancel: &'p AtomicBool,
        progress: &'p mut dyn FnMut(Progress),
        told: Instant,
    ) -> Self {
        let mirror = Parts {
            source: &mirror.source,
            place: &mut mirror.dest,
            options: &mirror.options,
            tracker: &mut mirror.tracker,
            shared: &mut mirror.shared,
            touched: &mut mirror.touched,
        };
        Self {
            mirror,
            shared,
            jobs: Some(jobs),
            results,
            cancel,
            progress,
            told,
            pass: Pass::default(),
            pending: 0,
            leaders: HashMap::new(),
            followers: HashMap::new(),
            moved: None,
            dirs: BTreeMap::new(),
            error: None,
        }
    }

    fn all(&mut self, was_complete: bool) -> Result<()> {
        let walked = if was_complete { Ok(()) } else { self.make_room() };
        let walked = walked.and_then(|()| self.walk());
        self.jobs = None;
        // Also after an error: what was copied is noted.
        self.wait();
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        walked?;
        self.note_followers();
        self.remove_gone(was_complete)?;
        self.finish_dirs()?;
        self.tell(true);
        Ok(())
    }

    /// Removes what the source does not have before anything is copied. Otherwise names go last, so that a file that got
    /// another name is not copied again; but then there may not be room for what is new.
    fn make_room(&mut self) -> Result<()> {
        let missing = place::missing(self.mirror.source, self.shared.dest, &self.mirror.options.skip)?;
        for path in missing.iter().rev() {
            // It may come back while the pass is under way, and is not at the destination then.
            self.mirror.tracker.forget(path);
            self.mirror.tracker.forget_below(path);
            self.pass.removed += self.mirror.place.remove(path)?;
            self.touch(path);
        }
        Ok(())
    }

    fn walk(&mut self) -> Result<()> {
        let (source, skip) = (self.mirror.source, &self.mirror.options.skip);
        let mut walk = Walk::new(source, skip)?;
        while let Some(entry) = walk.next() {
            self.entry(&walk, entry?)?;
            self.pass.entries += 1;
            while let Ok(result) = self.results.try_recv() {
                self.done(result);
            }
            self.tell(false);
            if self.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    /// Whether the pass must end: nobody wants it, or something failed.
    fn is_stopped(&mut self) -> bool {
        if self.cancel.load(Ordering::Relaxed) {
            self.shared.stop.store(true, Ordering::Relaxed);
            self.error.get_or_insert(Error::Cancelled);
        }
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn entry(&mut self, walk: &Walk<'_>, entry: Entry) -> Result<()> {
        let verdict = self.mirror.tracker.judge(&entry);
        if entry.is_dir() {
            return self.directory(walk, entry, &verdict);
        }
        if let Some(leader) = self.leaders.get(&entry.inode()) {
            let leader = leader.clone();
            return self.follow(&leader, entry);
        }
        if verdict == Verdict::Unchanged {
            if entry.nlink > 1 {
                self.leaders.insert(entry.inode(), entry.path);
            }
            return Ok(());
        }
        let known = match verdict {
            Verdict::Suspect(known) => Some(known),
            _ => None,
        };
        if entry.is_file() { self.file(walk, entry, known) } else { self.node(walk, entry, known) }
    }

    fn directory(&mut self, walk: &Walk<'_>, entry: Entry, verdict: &Verdict) -> Result<()> {
        if *verdict == Verdict::Unchanged {
            return Ok(());
        }
        if self.mirror.place.make_dir(&entry.path, &self.mirror.options.skip)? {
            self.touch(&entry.path);
        }
        // Gone in the meantime: then it goes at the destination in the next pass.
        let xattrs = walk.xattrs(&entry)?.unwrap_or_default();
        self.dirs.insert(entry.path.clone(), (entry, xattrs));
        Ok(())
    }

    /// One more name of an inode that was there already in this pass.
    fn follow(&mut self, leader: &Path, entry: Entry) -> Result<()> {
        let place = &mut *self.mirror.place;
        let there = place.stat(&entry.path)?.map(|stat| stat.inode());
        let wanted = place.stat(leader)?.map(|stat| stat.inode());
        if there.is_none() || there != wanted {
            self.mirror.tracker.forget(&entry.path);
            self.clear(&entry.path)?;
            self.mirror.place.link(leader, &entry.path)?;
            self.touch(&entry.path);
            let inode = wanted.map_or(0, |inode| inode.1);
            let marks = self.mirror.tracker.marks(leader);
            self.mirror.shared.entry(inode).or_insert(marks);
        }
        self.followers.entry(entry.inode()).or_default().push(entry);
        Ok(())
    }

    /// A regular file that is new or may have changed.
    fn file(&mut self, walk: &Walk<'_>, entry: Entry, known: Option<Known>) -> Result<()> {
        let Some(source) = walk.open(&entry)? else { return Ok(()) };
        self.mirror.tracker.forget(&entry.path);
        let (dest, old) = self.counterpart(&entry, known)?;
        if self.mirror.shared.contains_key(&dest.inode) {
            self.mirror.shared.insert(dest.inode, None);
        }
        self.leaders.insert(entry.inode(), entry.path.clone());
        self.pass.files_looked_at += 1;
        self.send(entry, source, dest, old)
    }

    /// The file at the destination that a file is copied to, and what it holds, if that is known.
    fn counterpart(&mut self, entry: &Entry, known: Option<Known>) -> Result<(Opened, Option<Arc<Marks>>)> {
        let path = &entry.path;
        let same_inode = known.as_ref().is_some_and(|known| known.same_inode);
        let mut marks = known.and_then(|known| known.marks);
        if !same_inode && let Some(from) = self.moved_from(entry) {
            let moved = self.mirror.tracker.marks(&from);
            self.mirror.tracker.forget(&from);
            self.clear(path)?;
            if self.mirror.place.rename(&from, path)? {
                self.touch(path);
                self.touch(&from);
                marks = moved;
            }
        } else if marks.is_none()
            && let Some(fresh) = self.mirror.place.create(path)?
        {
            return Ok(self.fresh(path, fresh));
        }
        if let Some(found) = self.mirror.place.open(path)?
            && !is_of_others(found.names, same_inode)
        {
            let old = match self.mirror.shared.get(&found.inode) {
                Some(shared) => shared.clone(),
                None if found.names == 1 => marks,
                None => None,
            };
            return Ok((found, old));
        }
        self.clear(path)?;
        let created = self.mirror.place.create(path)?;
        let exists = || meta::failed(self.shared.dest, "openat", entry, rustix::io::Errno::EXIST);
        let fresh = created.ok_or_else(exists)?;
        Ok(self.fresh(path, fresh))
    }

    fn fresh(&mut self, path: &Path, fresh: Opened) -> (Opened, Option<Arc<Marks>>) {
        // Its inode may have been another file's.
        self.mirror.shared.remove(&fresh.inode);
        self.touch(path);
        (fresh, Some(Arc::default()))
    }

    /// Removes what is at the destination, to make room for something else. What was below it is not known any more: it may
    /// be there again in the source, unchanged, when this pass is stopped and another one begins.
    fn clear(&mut self, path: &Path) -> Result<()> {
        let removed = self.mirror.place.remove(path)?;
        if removed > 1 {
            self.mirror.tracker.forget_below(path);
        }
        self.pass.removed += removed;
        Ok(())
    }

    /// Where a file was in the last pass, if it was somewhere else and is not known to be there still.
    fn moved_from(&mut self, entry: &Entry) -> Option<PathBuf> {
        let tracker = &*self.mirror.tracker;
        let moved = self.moved.get_or_insert_with(|| tracker.inodes());
        let from = moved.get(&entry.inode())?;
        (**from != *entry.path.as_os_str() && tracker.may_be_moved(from, entry.inode()))
            .then(|| PathBuf::from(&**from))
    }

    /// A symlink, a pipe, a socket or a device that is new or may have changed.
    fn node(&mut self, walk: &Walk<'_>, entry: Entry, known: Option<Known>) -> Result<()> {
        let Some(xattrs) = walk.xattrs(&entry)? else { return Ok(()) };
        let path = &entry.path;
        self.mirror.tracker.forget(path);
        let there = self.mirror.place.node(path)?;
        let same_inode = known.is_some_and(|known| known.same_inode);
        let kept = there.filter(|there| there.kind == entry.kind && !is_of_others(there.nlink, same_inode));
        if kept.is_none() {
            self.clear(path)?;
            self.mirror.place.make_node(&entry)?;
            // Its inode may have been a file's.
            if let Some(made) = self.mirror.place.stat(path)? {
                self.mirror.shared.remove(&made.inode().1);
            }
            self.touch(path);
        }
        let (dir, name) = self.mirror.place.parent(path)?;
        meta::give_name(self.shared.dest, dir, name, &entry, &xattrs)?;
        self.leaders.insert(entry.inode(), path.clone());
        self.mirror.tracker.note(&entry, None, true);
        Ok(())
    }

    /// Hands a job to the threads.
    fn send(&mut self, entry: Entry, source: File, dest: Opened, old: Option<Arc<Marks>>) -> Result<()> {
        let threads = self.mirror.options.threads.get();
        let (job, handles) = Job::new(entry, source, dest, old, threads);
        self.pending += 1;
        for _ in 0..handles {
            let Some(jobs) = &self.jobs else { break };
            if jobs.send(job.clone()).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Waits until all jobs are done, or as many as get done after the pass was stopped.
    fn wait(&mut self) {
        while self.pending > 0 {
            match self.results.recv_timeout(OFTEN) {
                Ok(result) => self.done(result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.is_stopped();
            self.tell(false);
        }
    }

    fn done(&mut self, result: Result<Done>) {
        match result {
            Ok(done) => {
                self.pending -= 1;
                self.pass.unsettled += u64::from(!done.steady);
                let followed = self.followers.contains_key(&done.entry.inode());
                if followed || done.entry.nlink > 1 || self.mirror.shared.contains_key(&done.inode) {
                    self.mirror.shared.insert(done.inode, Some(done.marks.clone()));
                }
                self.mirror.tracker.note(&done.entry, Some(done.marks), done.steady);
            }
            // Others stop because of the first one.
            Err(error) if matches!(self.error, None | Some(Error::Cancelled)) => self.error = Some(error),
            Err(_) => {}
        }
    }

    /// Further names are known by what is known of the first. One that changed in between has other times, which are after the
    /// beginning of this pass, so it is not taken for settled.
    fn note_followers(&mut self) {
        for (inode, entries) in std::mem::take(&mut self.followers) {
            let marks = self.leaders.get(&inode).and_then(|leader| self.mirror.tracker.marks(leader));
            for entry in entries {
                self.mirror.tracker.note(&entry, marks.clone(), true);
            }
        }
    }

    /// Removes what is not in the source any more, and if the destination is not known, what never was.
    fn remove_gone(&mut self, was_complete: bool) -> Result<()> {
        let mut gone = self.mirror.tracker.finish();
        if !was_complete {
            let (tracker, dirs) = (&*self.mirror.tracker, &self.dirs);
            let known = |path: &Path| tracker.knows(path) || dirs.contains_key(path);
            gone = place::unknown(self.shared.dest, &self.mirror.options.skip, known)?;
        }
        // What is in a directory goes before it.
        for path in gone.iter().rev() {
            let removed = self.mirror.place.remove(path)?;
            self.pass.removed += removed;
            if removed > 0 {
                self.touch(path);
            }
        }
        Ok(())
    }

    /// Gives directories what is theirs, when nothing is done in them any more.
    fn finish_dirs(&mut self) -> Result<()> {
        for path in self.mirror.touched.iter().filter(|path| !self.dirs.contains_key(*path)) {
            // A directory that went itself is not known.
            let Some(mtime) = self.mirror.tracker.dir_mtime(path) else { continue };
            let dir = self.mirror.place.dir(path)?;
            let given = meta::give_time(dir, mtime);
            given.map_err(|errno| meta::refused(self.shared.dest, "futimens", path, errno))?;
        }
        for (path, (entry, xattrs)) in &self.dirs {
            let dir = self.mirror.place.dir(path)?;
            meta::give(self.shared.dest, dir, entry, xattrs)?;
            self.mirror.tracker.note(entry, None, true);
        }
        Ok(())
    }

    /// Something was done with a name: its directory has another time now.
    fn touch(&mut self, path: &Path) {
        let dir = path.parent().unwrap_or(Path::new(""));
        if !self.mirror.touched.contains(dir) {
            self.mirror.touched.insert(dir.to_owned());
        }
    }

    fn tell(&mut self, now: bool) {
        if !now && self.told.elapsed() < OFTEN {
            return;
        }
        self.told = Instant::now();
        (self.progress)(Progress {
            entries: self.pass.entries,
            files_looked_at: self.pass.files_looked_at,
            bytes_read: self.shared.read.load(Ordering::Relaxed),
            bytes_written: self.shared.written.load(Ordering::Relaxed),
        });
    }
}
