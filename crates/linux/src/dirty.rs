//! Whether a file system has something in memory that is not on its device yet, without making it write.
//!
//! The kernel counts changed files in debugfs, in `bdi/MAJOR:MINOR/stats`. XFS keeps what is only a change of metadata (a directory
//! that was made) to itself until its log is written, up to 30 seconds later; its log tells in sysfs.
//!
//! "Dirty" may be a false alarm: ext4 leaves the device's own pages on the list for up to half a minute after they were written.
//! "Clean" may come too early: of files that were created, renamed or removed ext4 tells nobody until it commits its journal (after 5
//! seconds, or its option `commit=`). Then the device's blocks change, so whoever believes it is late, and misses nothing.

use crate::{KernelError, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A debugfs to ask. It is mounted nowhere: nobody can see it, nor delete anything through it, and it goes with this.
#[derive(Debug)]
pub struct Stats {
    debugfs: OwnedFd,
}

impl Stats {
    /// Opens the kernel's debugfs. `None`: it has none to give, or does not let us.
    ///
    /// # Errors
    /// What else `fsopen(2)` and `fsmount(2)` say.
    pub fn open() -> Result<Option<Self>> {
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mounted = rustix::mount::fsopen("debugfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
            rustix::mount::fsconfig_create(context.as_fd())?;
            rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        });
        match mounted {
            Ok(debugfs) => Ok(Some(Self { debugfs })),
            // Not built in; lockdown, or no capability; before Linux 5.2.
            Err(Errno::NODEV | Errno::PERM | Errno::ACCESS | Errno::NOSYS) => Ok(None),
            Err(errno) => Err(KernelError { op: "mount debugfs", path: None, source: errno.into() }),
        }
    }

    /// Whether the file system on this device (`st_dev` of its files) has changes in memory, or is writing some. `None`: the
    /// kernel does not tell. Of an XFS the log is looked at too.
    ///
    /// # Errors
    /// A file that is there and can't be read or understood.
    pub fn is_dirty(&self, dev: u64, is_xfs: bool) -> Result<Option<bool>> {
        let device = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
        let stats = Path::new("bdi").join(&device).join("stats");
        let sys = PathBuf::from("/sys/dev/block").join(&device);
        let (Some(files), Some(inflight)) = (read_at(&self.debugfs, &stats)?, read(&sys.join("inflight"))?)
        else {
            return Ok(None);
        };
        let files = files_in(&files)
            .ok_or_else(|| KernelError::invalid("read", &stats, "the lines are not known"))?;
        // A file that is just being written is on no list any more.
        let writes = inflight.split_whitespace().nth(1).and_then(|writes| writes.parse::<u64>().ok());
        let writes =
            writes.ok_or_else(|| KernelError::invalid("read", &sys.join("inflight"), "no writes in it"))?;
        Ok(Some(files > 0 || writes > 0 || (is_xfs && log_is_dirty(&sys)?)))
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    read_at(CWD, path)
}

/// The content of a file, unless the kernel has none, or lets nobody read it (lockdown).
fn read_at(dir: impl AsFd, path: &Path) -> Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, path, flags, Mode::empty()) {
        Ok(file) => Ok(Some(read_all(&file, path)?)),
        Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(KernelError::on("open", path, errno)),
    }
}

/// To ask for its length first would cost as much as to read it: it has none.
fn read_all(file: &OwnedFd, path: &Path) -> Result<String> {
    let mut text = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    loop {
        match rustix::io::read(file, &mut piece) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(&piece[..read]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(KernelError::on("read", path, errno)),
        }
    }
    String::from_utf8(text).map_err(|_| KernelError::invalid("read", path, "it is no text"))
}

/// Whether an XFS on this device has changes that its log on the disk has not: then it has reserved more of the log than
/// there is written.
fn log_is_dirty(sys: &Path) -> Result<bool> {
    let name = match fs::read_link(sys) {
        Ok(path) => path.file_name().map(PathBuf::from).unwrap_or_default(),
        Err(error) => return Err(KernelError::on("readlink", sys, error)),
    };
    let log = Path::new("/sys/fs/xfs").join(name).join("log");
    let Some(head) = read(&log.join("log_head_lsn"))? else {
        return Ok(false);
    };
    let tail = read(&log.join("log_tail_lsn"))?.unwrap_or_default();
    // Until Linux 6.12 a place in the log, since then a number of bytes.
    let place = read(&log.join("reserve_grant_head"))?;
    let bytes = read(&log.join("reserve_grant_head_bytes"))?;
    Ok(log_of(&head, &tail, place.as_deref(), bytes.as_deref()).unwrap_or(true))
}

/// `None` where that can't be told: also while what is in the log goes over its end.
fn log_of(head: &str, tail: &str, place: Option<&str>, bytes: Option<&str>) -> Option<bool> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let pair = |text: &str| {
        let (cycle, at) = text.split_once(':')?;
        Some((number(cycle)?, number(at)?))
    };
    let (head, tail) = (pair(head)?, pair(tail)?);
    if let Some(place) = place {
        let (cycle, at) = pair(place)?;
        return Some((cycle, at) != (head.0, head.1 * 512));
    }
    let written = (head.0 == tail.0).then(|| head.1.checked_sub(tail.1))??;
    Some(number(bytes?)? != written * 512)
}

/// How many files are on the lists of those to be written. The counts of pages in there are of no use: they are sums of what
/// each processor rounds for itself, and drift by dozens of KiB.
fn files_in(stats: &str) -> Option<u64> {
    let mut files = 0;
    for name in ["b_dirty", "b_io", "b_more_io", "b_dirty_time"] {
        let value = stats.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
        files += value.trim().parse::<u64>().ok()?;
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_on_any_list_count() {
        let clean = "BdiWriteback:                0 kB\nBdiReclaimable:             24 kB\nBdiDirtied:  4 kB\n\
                     b_dirty:                     0\nb_io:                        0\nb_more_io:                   0\n\
                     b_dirty_time:                0\nstate:                       5\n";
        assert_eq!(files_in(clean), Some(0));
        assert_eq!(files_in(&clean.replace("b_dirty:                     0", "b_dirty: 103")), Some(103));
        assert_eq!(files_in(&clean.replace("b_dirty_time:                0", "b_dirty_time: 2")), Some(2));
        assert_eq!(files_in(&clean.replace("b_more_io", "b_something")), None);
    }

    #[test]
    fn a_log_with_reservations_is_dirty() {
        assert_eq!(log_of("1:19\n", "1:17\n", None, Some("1024\n")), Some(false));
        assert_eq!(log_of("1:19\n", "1:17\n", None, Some("7360\n")), Some(true));
        assert_eq!(log_of("2:3\n", "1:170\n", None, Some("7360\n")), None);
        assert_eq!(log_of("1:19\n", "1:17\n", Some("1:9728\n"), None), Some(false));
        assert_eq!(log_of("1:19\n", "1:17\n", Some("1:16064\n"), None), Some(true));
        assert_eq!(log_of("1:19\n", "1:17\n", None, None), None);
    }
}
