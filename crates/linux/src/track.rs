//! Which blocks of a device were written: a program in the kernel sets bits as requests begin and complete, whether a daemon runs or
//! not.
//!
//! One small program (see `track/program.rs`) is attached to the tracepoints `block_rq_complete` and `block_rq_issue` of the
//! whole kernel. It finds the bitmap of the request's device in a map of maps, so its cost does not grow with the number of volumes. Program and maps
//! are pinned in a bpffs and live until they are unpinned or the host goes down.
//!
//! **No completion may be missed.** The kernel does not run a program that is already running on the same processor,
//! which happens when an interrupt completes a request while another's completion is looked at (and a program on a classic
//! tracepoint is left out even while *any* other BPF program or map update is under way there: 3 to 8 % of completions were
//! missed while other processes updated maps). So the same program is
//! attached three times: a task, a soft interrupt and a hard interrupt can be at it on one processor, and each level keeps at
//! most one of the three from running.
//!
//! **What completes unseen was seen to begin.** A kernel that runs in some microVMs leaves all programs out while a certain
//! task (the one that the VM's owner runs there) is the current one, and a soft interrupt on top of that task completes requests of
//! anybody: up to one write in ten thousand completed unseen. No other kernel is known to do this, but the number of those that
//! are not known is larger. Requests are issued by who writes, or by the kernel's workers; so a mark is made then too. That
//! mark alone does not do for bits that are cleared between the two. Where they are cleared while the file system is
//! frozen, which lets nothing be under way, it does.
//!
//! This knows volumes only as names with bits. It does not know when bits are to be cleared. Writes to an image file that do
//! not go through its device (a restore, an offline check) are not seen: who makes them says so with [`Bitmap::mark`].

mod bitmap;
mod bpf;
mod btf;
mod program;

pub use bitmap::{BLOCK, Bitmap, MAX_BYTES};

use crate::mounts::{self, MountFlags};
use crate::{Change, KernelError};
use bitmap::{BYTES, DEVICE, EVENTS, FLAGS, OVERFLOW, SHAPE, Shape, TOKEN};
use bpf::Words;
use program::When;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the maps are laid out; a daemon that knows another layout can't read the bits.
const LAYOUT: u32 = 1;
/// Programs that are attached, see above. What their numbers mean stays the same in all versions.
const PROGRAMS: [When; 4] = [When::Complete, When::Complete, When::Complete, When::Issue];
/// Marks of earlier versions may lack what completed unseen: what they were made for is compared once.
const TRUSTED: u32 = 2;
/// The first so many see every completion.
const COMPLETE: usize = 3;
/// Devices that can be followed at a time.
const MAX_DEVICES: u32 = 16 << 10;
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// In the word `DEVICE`, a device is known.
const KNOWN: u64 = 1 << 32;

/// Why blocks can't be tracked.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// This kernel has not got what it takes, or does not let us. Comparing works without.
    #[error("the kernel can't track changed blocks: {why}")]
    Unsupported {
        /// What is missing, or what the kernel said.
        why: String,
    },
    /// A daemon of another version tracks, in a way that this one does not know. [`remove`] ends that.
    #[error("changed blocks are tracked at {} by another version of this program (layout {found})", path.display())]
    OtherLayout {
        /// The directory.
        path: PathBuf,
        /// Its number of the layout.
        found: String,
    },
    /// Not a name for a bitmap: 1 to 128 letters, digits, `-` and `_`.
    #[error("{id:?} can't be the name of a bitmap")]
    BadName {
        /// The name.
        id: String,
    },
    /// The kernel refused something that it can do.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The result of tracking.
pub type TrackResult<T> = Result<T, TrackError>;

/// The tracker of this host. There may be several of one directory, also in several processes.
#[derive(Debug)]
pub struct Tracker {
    root: PathBuf,
    /// `root/layoutN`
    dir: PathBuf,
    devices: OwnedFd,
    /// The directory, for `flock(2)`: changes exclude each other on the whole host. A hash of maps uses an element anew once
    /// it is free, so a second change must not begin before the kernel has ended the first one's use.
    lock: Mutex<File>,
}

/// What [`Tracker::follow`] gives.
#[derive(Debug, Clone)]
pub struct Following {
    /// The volume's bits.
    pub bitmap: Bitmap,
    /// The bits do not say what was written before: they are new, or nobody has set a token ([`Bitmap::set_token`]) since they
    /// were.
    pub fresh: bool,
}

/// The number by which the kernel's block layer knows a device (`MKDEV` of linux/kdev_t.h), from its `st_rdev`.
pub fn kernel_device(rdev: u64) -> u32 {
    rustix::fs::major(rdev) << 20 | rustix::fs::minor(rdev) & 0xf_ffff
}

fn kernel(op: &'static str, path: &Path) -> impl Fn(Errno) -> TrackError {
    move |errno| KernelError::on(op, path, errno).into()
}

/// An error of a command that a kernel without the features, or one that forbids it, refuses.
fn unsupported(what: &'static str) -> impl Fn(Errno) -> TrackError {
    move |errno| {
        let reason = match errno {
            Errno::PERM | Errno::ACCESS => {
                "not permitted (CAP_BPF and CAP_PERFMON or CAP_SYS_ADMIN, lockdown, seccomp)".into()
            }
            Errno::NOSYS => "built without BPF".into(),
            Errno::INVAL => "not known to this kernel".into(),
            errno => errno.to_string(),
        };
        TrackError::Unsupported { why: format!("{what}: {reason}") }
    }
}

fn is_bpffs(path: &Path) -> TrackResult<bool> {
    let answer = rustix::fs::statfs(path).map_err(kernel("statfs", path))?;
    // The type of the number differs between machines.
    #[allow(clippy::unnecessary_cast)]
    Ok(answer.f_type as i64 & 0xffff_ffff == BPF_FS_MAGIC)
}

fn names(dir: &Path) -> TrackResult<BTreeSet<String>> {
    let read = |source| KernelError::on("readdir", dir, source);
    let mut names = BTreeSet::new();
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                names.insert(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(read(error).into()),
    }
    Ok(names)
}

fn make_dir(path: &Path) -> TrackResult<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(KernelError::on("mkdir", path, error).into())
        }
        _ => Ok(()),
    }
}

/// Removes one name. What it was the last name of goes.
fn unpin(path: &Path) -> TrackResult<Change> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Change::Done),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Change::AlreadyThere),
        Err(error) => Err(KernelError::on("unlink", path, error).into()),
    }
}

/// Ends all tracking that is pinned below `bpffs_dir`, also by other versions of this program. The mount stays.
///
/// # Errors
/// A name that can't be removed.
pub fn remove(bpffs_dir: &Path) -> TrackResult<Change> {
    let mut change = Change::AlreadyThere;
    if !bpffs_dir.is_dir() || !is_bpffs(bpffs_dir)? {
        return Ok(change);
    }
    for layout in names(bpffs_dir)?.iter().filter(|name| name.starts_with("layout")) {
        let layout = bpffs_dir.join(layout);
        // First what marks, then what is marked.
        for dir in [&layout, &layout.join("growing"), &layout.join("volumes")] {
            for name in names(dir)? {
                let path = dir.join(name);
                if !path.is_dir() {
                    unpin(&path)?;
                }
            }
        }
        for dir in [&layout.join("growing"), &layout.join("volumes"), &layout] {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(KernelError::on("rmdir", dir, error).into());
                }
                _ => change = Change::Done,
            }
        }
    }
    Ok(change)
}

impl Tracker {
    /// Finds what is pinned in this directory, or begins to track. Where the directory is not in a bpffs, one is mounted there:
    /// in the mount namespace of the host, or tracking ends with the namespace. No part of the path that is in a bpffs may have
    /// a dot in its name.
    ///
    /// # Errors
    /// [`TrackError::Unsupported`] where tracking can't be had: Linux older than 5.12, no BTF, no permission.
    pub fn open(bpffs_dir: &Path) -> TrackResult<Self> {
        fs::create_dir_all(bpffs_dir).map_err(|source| KernelError::on("mkdir", bpffs_dir, source))?;
        if !is_bpffs(bpffs_dir)? {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mounts::mount(Path::new("bpf"), bpffs_dir, "bpf", flags, "mode=0700").map_err(
                |error| match error.errno() {
                    Some(libc::ENODEV | libc::EPERM) => TrackError::Unsupported { why: error.to_string() },
                    _ => error.into(),
                },
            )?;
        }
        let root = File::open(bpffs_dir).map_err(|source| KernelError::on("open", bpffs_dir, source))?;
        rustix::fs::flock(&root, FlockOperation::LockExclusive).map_err(kernel("flock", bpffs_dir))?;
        let ours = format!("layout{LAYOUT}");
        let theirs = names(bpffs_dir)?.into_iter().find_map(|name| {
            let found = name.strip_prefix("layout").filter(|_| name != ours)?;
            Some(found.to_owned())
        });
        if let Some(found) = theirs {
            return Err(TrackError::OtherLayout { path: bpffs_dir.to_owned(), found });
        }
        let dir = bpffs_dir.join(ours);
        for dir in [&dir, &dir.join("volumes"), &dir.join("growing")] {
            make_dir(dir)?;
        }
        let devices = open_or_make_devices(&dir.join("devices"))?;
        let tracker = Self { root: bpffs_dir.to_owned(), dir, devices, lock: Mutex::new(root) };
        tracker.attach()?;
        for id in names(&tracker.dir.join("growing"))? {
            tracker.finish_growth(&id)?;
        }
        let root = tracker.lock.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::flock(&*root, FlockOperation::Unlock).map_err(kernel("flock", bpffs_dir))?;
        drop(root);
        Ok(tracker)
    }

    /// Attaches this version's programs, then takes away the ones of others: so nothing is missed in between.
    fn attach(&self) -> TrackResult<()> {
        // Programs mark in the map that they were loaded with.
        let map = self.map_id(&self.devices)?;
        let link = |version: u32, number: usize| format!("program{version}-{map}-{number}");
        let there = names(&self.dir)?;
        let has = |version, programs| (0..programs).all(|number| there.contains(&link(version, number)));
        let complete = |version| version >= TRUSTED && has(version, COMPLETE);
        let current = has(program::VERSION, PROGRAMS.len());
        let version_of = |name: &String| name.strip_prefix("program")?.split('-').next()?.parse().ok();
        if !there.iter().filter_map(version_of).any(complete) {
            // For some time nobody was looking, and the bits can't be trusted.
            for dir in ["volumes", "growing"] {
                for id in names(&self.dir.join(dir))? {
                    unpin(&self.dir.join(dir).join(id))?;
                }
            }
        }
        if !current {
            let btf = fs::read(BTF)
                .map_err(|error| TrackError::Unsupported { why: format!("read {BTF}: {error}") })?;
            let layout =
                btf::layout(&btf).map_err(|why| TrackError::Unsupported { why: format!("{BTF}: {why}") })?;
            for (number, when) in PROGRAMS.into_iter().enumerate() {
                let name = link(program::VERSION, number);
                if there.contains(&name) {
                    continue;
                }
                let (label, tracepoint) = match when {
                    When::Issue => ("everhold_issue", layout.issue),
                    When::Complete => ("everhold_track", layout.complete),
                };
                let instructions = program::instructions(when, &layout, self.devices.as_fd());
                let program =
                    bpf::load_tracing(label, &instructions, tracepoint).map_err(|(errno, log)| {
                        let said = log.trim_end().rsplit('\n').take(4).collect::<Vec<_>>().join(" < ");
                        let TrackError::Unsupported { why } = unsupported("BPF_PROG_LOAD")(errno) else {
                            return unsupported("BPF_PROG_LOAD")(errno);
                        };
                        TrackError::Unsupported { why: format!("{why} {said}").trim_end().to_owned() }
                    })?;
                let attached = bpf::attach_tracing(program.as_fd())
                    .map_err(unsupported("BPF_RAW_TRACEPOINT_OPEN of block_rq_complete or block_rq_issue"))?;
                let path = self.dir.join(name);
                bpf::pin(&path, attached.as_fd()).map_err(kernel("BPF_OBJ_PIN", &path))?;
            }
        }
        let ours: Vec<_> = (0..PROGRAMS.len()).map(|number| link(program::VERSION, number)).collect();
        for name in there.iter().filter(|name| name.starts_with("program") && !ours.contains(name)) {
            unpin(&self.dir.join(name))?;
        }
        Ok(())
    }

    /// Excludes other changes, in this process and in others.
    fn lock(&self) -> TrackResult<Locked<'_>> {
        let file = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::flock(&*file, FlockOperation::LockExclusive).map_err(kernel("flock", &self.root))?;
        Ok(Locked(file))
    }

    fn path_of(&self, id: &str) -> TrackResult<PathBuf> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        match id.len() {
            1..=128 if id.bytes().all(good) => Ok(self.dir.join("volumes").join(id)),
            _ => Err(TrackError::BadName { id: id.to_owned() }),
        }
    }

    fn map_id(&self, map: &OwnedFd) -> TrackResult<u32> {
        Ok(bpf::map_info(map.as_fd()).map_err(kernel("BPF_OBJ_GET_INFO_BY_FD", &self.dir))?.id)
    }

    fn open_bitmap(&self, path: &Path) -> TrackResult<Option<(OwnedFd, Bitmap)>> {
        let Some(map) = bpf::open_pinned(path).map_err(kernel("BPF_OBJ_GET", path))? else {
            return Ok(None);
        };
        let words = Words::map(map.as_fd()).map_err(kernel("mmap", path))?;
        let bitmap =
            Bitmap::over(words).ok_or_else(|| KernelError::invalid("read", path, "this is not a bitmap"))?;
        Ok(Some((map, bitmap)))
    }

    /// A bitmap with all bits clear, pinned at `path`.
    fn make_bitmap(&self, path: &Path, bytes: u64, device: u64) -> TrackResult<(OwnedFd, Bitmap)> {
        let shape = Shape::of(bytes);
        let words = u32::try_from(shape.words()).unwrap_or(u32::MAX);
        let map = bpf::create_words("everhold_bits", words).map_err(kernel("BPF_MAP_CREATE", path))?;
        let words = Words::map(map.as_fd()).map_err(kernel("mmap", path))?;
        if let Some(word) = words.get(SHAPE) {
            word.store(shape.encode(), Ordering::Release);
        }
        let bitmap = Bitmap::over(words)
            .ok_or_else(|| KernelError::invalid("mmap", path, "the kernel's map is not as it was made"))?;
        bitmap.header(BYTES).store(bytes, Ordering::Release);
        bitmap.header(DEVICE).store(device, Ordering::Release);
        bpf::pin(path, map.as_fd()).map_err(kernel("BPF_OBJ_PIN", path))?;
        Ok((map, bitmap))
    }

    /// Records what is written to the device `rdev` (its `st_rdev`) in the bits called `id`, which are kept from an earlier
    /// time where they are there. Whoever had that device before has it no more, and `id` has no other. A volume that has
    /// become larger gets larger bits, with what was set in the old ones. To miss nothing, call this before anything can write to
    /// a new device, and before a device grows.
    ///
    /// `rdev` is that of a whole disk, as a loop device is, not of a partition.
    ///
    /// # Errors
    /// `ENOMEM`, `EPERM` where memory is limited (`RLIMIT_MEMLOCK` before Linux 5.11, then that of the cgroup); `E2BIG` with
    /// too many devices.
    pub fn follow(&self, id: &str, rdev: u64, bytes: u64) -> TrackResult<Following> {
        let path = self.path_of(id)?;
        let _locked = self.lock()?;
        let device = kernel_device(rdev);
        // One that failed half-way.
        self.finish_growth(id)?;
        let (map, bitmap) = match self.open_bitmap(&path)? {
            Some((map, bitmap)) => {
                self.leave_other(&map, &bitmap, device)?;
                if bitmap.len_blocks() * BLOCK >= bytes {
                    bitmap.header(BYTES).fetch_max(bytes, Ordering::SeqCst);
                    (map, bitmap)
                } else {
                    self.point(&map, &bitmap, device)?;
                    let growing = self.dir.join("growing").join(id);
                    self.make_bitmap(&growing, bytes, u64::from(device) | KNOWN)?;
                    self.finish_growth(id)?;
                    self.open_bitmap(&path)?.ok_or_else(|| KernelError::on("open", &path, Errno::NOENT))?
                }
            }
            None => self.make_bitmap(&path, bytes, u64::from(device) | KNOWN)?,
        };
        self.point(&map, &bitmap, device)?;
        let fresh = bitmap.token() == 0;
        Ok(Following { bitmap, fresh })
    }

    /// Points the device at these bits.
    fn point(&self, map: &OwnedFd, bitmap: &Bitmap, device: u32) -> TrackResult<()> {
        bitmap.header(DEVICE).store(u64::from(device) | KNOWN, Ordering::SeqCst);
        if self.has(device)? != Some(self.map_id(map)?) {
            bpf::set_inner_map(self.devices.as_fd(), device, map.as_fd())
                .map_err(kernel("BPF_MAP_UPDATE_ELEM", &self.dir))?;
        }
        Ok(())
    }

    fn has(&self, device: u32) -> TrackResult<Option<u32>> {
        bpf::inner_map(self.devices.as_fd(), device).map_err(kernel("BPF_MAP_LOOKUP_ELEM", &self.dir))
    }

    fn drop_device(&self, device: u32) -> TrackResult<Change> {
        let done = bpf::delete_inner_map(self.devices.as_fd(), device)
            .map_err(kernel("BPF_MAP_DELETE_ELEM", &self.dir))?;
        Ok(if done { Change::Done } else { Change::AlreadyThere })
    }

    /// Ends the bitmap's use by another device than this one.
    fn leave_other(&self, map: &OwnedFd, bitmap: &Bitmap, device: u32) -> TrackResult<()> {
        let last = bitmap.header(DEVICE).load(Ordering::SeqCst);
        let number = last as u32;
        if last & KNOWN != 0 && number != device && self.has(number)? == Some(self.map_id(map)?) {
            self.drop_device(number)?;
        }
        Ok(())
    }

    /// Moves from the old bits to the larger ones at `growing/ID`, from wherever that was interrupted.
    fn finish_growth(&self, id: &str) -> TrackResult<()> {
        let (path, growing) = (self.path_of(id)?, self.dir.join("growing").join(id));
        let Some((new_map, new)) = self.open_bitmap(&growing)? else {
            return Ok(());
        };
        if let Some((old_map, old)) = self.open_bitmap(&path)? {
            let device = new.header(DEVICE).load(Ordering::SeqCst);
            if device & KNOWN != 0 && self.has(device as u32)? == Some(self.map_id(&old_map)?) {
                self.point(&new_map, &new, device as u32)?;
            }
            // From now on the old ones do not change.
            new.mark(&old.dirty());
            if old.header(FLAGS).load(Ordering::SeqCst) & OVERFLOW != 0 {
                // What it missed was behind its end.
                let behind = old.len_blocks()..new.len_blocks();
                new.mark(&[behind]);
            }
            new.header(EVENTS).fetch_add(old.events(), Ordering::SeqCst);
            new.header(TOKEN).store(old.token(), Ordering::SeqCst);
            old.retire();
        }
        fs::rename(&growing, &path).map_err(|source| KernelError::on("rename", &growing, source).into())
    }

    /// The bits of this name, whether a device is followed or not.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bitmap(&self, id: &str) -> TrackResult<Option<Bitmap>> {
        let path = self.path_of(id)?;
        let _locked = self.lock()?;
        Ok(self.open_bitmap(&path)?.map(|(_, bitmap)| bitmap))
    }

    /// The names of all bits.
    ///
    /// # Errors
    /// A directory that can't be read.
    pub fn ids(&self) -> TrackResult<BTreeSet<String>> {
        names(&self.dir.join("volumes"))
    }

    /// Records nothing of this device (its `st_rdev`) any more. The bits stay.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unfollow(&self, rdev: u64) -> TrackResult<Change> {
        let _locked = self.lock()?;
        self.drop_device(kernel_device(rdev))
    }

    /// Removes the bits of this name, and ends what is recorded in them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget(&self, id: &str) -> TrackResult<Change> {
        let path = self.path_of(id)?;
        let _locked = self.lock()?;
        unpin(&self.dir.join("growing").join(id))?;
        if let Some((map, bitmap)) = self.open_bitmap(&path)? {
            // No device has this number.
            self.leave_other(&map, &bitmap, 0)?;
            bitmap.retire();
        }
        unpin(&path)
    }

    /// Ends all tracking and removes all bits. The mount stays.
    ///
    /// # Errors
    /// A name that can't be removed.
    pub fn close_all(self) -> TrackResult<()> {
        for id in self.ids()? {
            self.forget(&id)?;
        }
        let root = self.root.clone();
        drop(self);
        remove(&root).map(drop)
    }
}

fn open_or_make_devices(path: &Path) -> TrackResult<OwnedFd> {
    if let Some(devices) = bpf::open_pinned(path).map_err(unsupported("BPF_OBJ_GET"))? {
        return Ok(devices);
    }
    let template =
        bpf::create_words("everhold_bits", 1).map_err(unsupported("BPF_MAP_CREATE of an array"))?;
    let devices = bpf::create_hash_of_maps("everhold_devs", template.as_fd(), MAX_DEVICES)
        .map_err(unsupported("BPF_MAP_CREATE of a map of maps"))?;
    bpf::pin(path, devices.as_fd()).map_err(kernel("BPF_OBJ_PIN", path))?;
    Ok(devices)
}

/// Gives the lock up when it goes.
struct Locked<'a>(MutexGuard<'a, File>);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // The next one that wants it says what is wrong; closing the file gives it up in any case.
        if let Err(errno) = rustix::fs::flock(&*self.0, FlockOperation::Unlock) {
            tracing::warn!(%errno, "the tracker's lock could not be given up");
        }
    }
}
