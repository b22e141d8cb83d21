//! Whether a file system has something in memory that is not on its device yet, without making it write.
//!
//! The kernel counts changed files in debugfs, in `bdi/MAJOR:MINOR/stats`. XFS keeps what is only a change of metadata (a directory
//! that was made) to itself until its log is written, up to 30 seconds later; its log tells in sysfs.
//!
//! "Dirty" may be a false alarm: ext4 leaves the device's own pages on the list for up to half a minute after they were written.
//! "Clean" may come too early: of files that were created, renamed or removed ext4 tells nobody until it commits its journal (after 5
//! seconds, or its option `commit=`). Then the device's blocks change, so whoever believes it is late, and misses nothing.

use crate::mounts::{self, MountFlags};
use crate::{KernelError, Result};
use std::fs;
use std::path::{Path, PathBuf};

const DEBUGFS_MAGIC: i64 = 0x6462_6720;

/// A debugfs to ask.
#[derive(Debug, Clone)]
pub struct Stats {
    bdi: PathBuf,
}

impl Stats {
    /// Uses the debugfs at `dir`, and mounts one there where there is none. `None`: the kernel has none to give, or does not let
    /// us.
    ///
    /// # Errors
    /// A directory that can't be made.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(dir).map_err(|source| KernelError::on("mkdir", dir, source))?;
        if !is_debugfs(dir)? {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            match mounts::mount(Path::new("debugfs"), dir, "debugfs", flags, "") {
                // Not built in; lockdown, or no capability.
                Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EPERM | libc::EACCES)) => {
                    return Ok(None);
                }
                other => other?,
            }
        }
        let bdi = dir.join("bdi");
        Ok(bdi.is_dir().then_some(Self { bdi }))
    }

    /// Whether the file system on this device (`st_dev` of its files) has changes in memory, or is writing some. `None`: the
    /// kernel does not tell.
    ///
    /// # Errors
    /// A file that is there and can't be read or understood.
    pub fn is_dirty(&self, dev: u64) -> Result<Option<bool>> {
        let device = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
        let stats = self.bdi.join(&device).join("stats");
        let sys = PathBuf::from("/sys/dev/block").join(&device);
        let (Some(files), Some(inflight)) = (read(&stats)?, read(&sys.join("inflight"))?) else {
            return Ok(None);
        };
        let files = files_in(&files)
            .ok_or_else(|| KernelError::invalid("read", &stats, "the lines are not known"))?;
        // A file that is just being written is on no list any more.
        let writes = inflight.split_whitespace().nth(1).and_then(|writes| writes.parse::<u64>().ok());
        let writes =
            writes.ok_or_else(|| KernelError::invalid("read", &sys.join("inflight"), "no writes in it"))?;
        Ok(Some(files > 0 || writes > 0 || log_is_dirty(&sys)?))
    }
}

/// The content of a file, unless the kernel has none, or lets nobody read it (lockdown).
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EPERM | libc::EACCES)) => {
            Ok(None)
        }
        Err(error) => Err(KernelError::on("read", path, error)),
    }
}

/// Whether an XFS on this device has changes that its log on the disk has not: then it has reserved more of the log than
/// there is written.
fn log_is_dirty(sys: &Path) -> Result<bool> {
    let name = match fs::canonicalize(sys) {
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

fn is_debugfs(path: &Path) -> Result<bool> {
    let answer = rustix::fs::statfs(path).map_err(|errno| KernelError::on("statfs", path, errno))?;
    // The type of the number differs between machines.
    #[allow(clippy::unnecessary_cast)]
    Ok(answer.f_type as i64 == DEBUGFS_MAGIC)
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
