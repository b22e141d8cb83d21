//! Project quotas: a limit on all files of a directory tree (`quotactl_fd(2)`, Linux 5.14). It hands out no project numbers.
//!
//! The commands are those of XFS (`linux/dqblk_xfs.h`) on every file system: since Linux 4.0 the kernel's quota layer
//! translates them for ext4 too (`fs/quota/quota.c`), so one path serves both.

use crate::sys::{self, FsDiskQuota, FsQuotaStat, Quota};
use crate::{KernelError, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// `FS_XFLAG_PROJINHERIT` of `linux/fs.h`: what is made in the directory belongs to its project.
const PROJINHERIT: u32 = 0x200;
/// `FS_QUOTA_PDQ_ACCT` and `FS_QUOTA_PDQ_ENFD` of `linux/dqblk_xfs.h`.
const COUNTED_AND_ENFORCED: u16 = 1 << 4 | 1 << 5;
/// `FS_DQUOT_VERSION` and `FS_PROJ_QUOTA`.
const VERSION: i8 = 1;
const PROJECT: i8 = 2;
/// `FS_DQ_BSOFT` and `FS_DQ_BHARD`.
const BLOCK_LIMITS: u16 = 1 << 2 | 1 << 3;
/// The quota interface of XFS counts in "basic blocks".
const BASIC_BLOCK: u64 = 512;

/// What a quota has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes that the project's files take.
    pub used: u64,
    /// Bytes that they may take; 0: no limit.
    pub limit: u64,
}

fn open(path: &Path, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| KernelError::on("open", path, errno))
}

/// Puts a directory, and all that is made in it from now on, into a project (`FS_IOC_FSSETXATTR`). What is in it already
/// stays where it was.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOTTY` where the file system has no projects; `ENOTDIR`.
pub fn set_project(dir: &Path, project: u32) -> Result<()> {
    let file = open(dir, OFlags::DIRECTORY)?;
    let mut attributes =
        sys::fs_get_xattr(&file).map_err(|errno| KernelError::on("FS_IOC_FSGETXATTR", dir, errno))?;
    attributes.projid = project;
    attributes.xflags |= PROJINHERIT;
    sys::fs_set_xattr(&file, attributes).map_err(|errno| KernelError::on("FS_IOC_FSSETXATTR", dir, errno))
}

/// The project of a file or directory; 0: none (`FS_IOC_FSGETXATTR`).
///
/// # Errors
/// `EOPNOTSUPP` or `ENOTTY` where the file system has no projects.
pub fn project_of(path: &Path) -> Result<u32> {
    let file = open(path, OFlags::empty())?;
    sys::fs_get_xattr(&file)
        .map(|attributes| attributes.projid)
        .map_err(|errno| KernelError::on("FS_IOC_FSGETXATTR", path, errno))
}

/// Whether the file system counts what projects use, and enforces their limits, now.
///
/// # Errors
/// A path that can't be opened; an answer that is neither yes nor no.
pub fn supported(path: &Path) -> Result<bool> {
    let file = open(path, OFlags::empty())?;
    let mut state = FsQuotaStat { version: VERSION, ..FsQuotaStat::default() };
    match sys::quotactl_project(file.as_fd(), 0, Quota::State(&mut state)) {
        Ok(()) => Ok(state.flags & COUNTED_AND_ENFORCED == COUNTED_AND_ENFORCED),
        // No quotactl_fd, a file system without quotas, without project quotas, with quotas off; a seccomp filter.
        Err(Errno::NOSYS | Errno::INVAL | Errno::SRCH | Errno::OPNOTSUPP | Errno::NODEV | Errno::PERM) => {
            Ok(false)
        }
        Err(errno) => Err(KernelError::on("Q_XGETQSTATV", path, errno)),
    }
}

/// Limits what a project may use on the file system of `path`, in bytes, rounded up to 1 KiB (ext4) or a block (XFS); 0: no
/// limit.
///
/// # Errors
/// `ESRCH` or `ENOSYS` where quotas are off, `EPERM` without `CAP_SYS_ADMIN`, `ERANGE`.
pub fn set_limit(path: &Path, project: u32, bytes: u64) -> Result<()> {
    let file = open(path, OFlags::empty())?;
    let mut limit = FsDiskQuota {
        version: VERSION,
        flags: PROJECT,
        fieldmask: BLOCK_LIMITS,
        id: project,
        blk_hardlimit: bytes.div_ceil(BASIC_BLOCK),
        // None: a soft limit would begin to refuse after some days.
        blk_softlimit: 0,
        ..FsDiskQuota::default()
    };
    sys::quotactl_project(file.as_fd(), project, Quota::SetLimit(&mut limit))
        .map_err(|errno| KernelError::on("Q_XSETQLIM", path, errno))
}

/// What a project uses on the file system of `path`, and may use. A project that nobody has heard of uses nothing.
///
/// # Errors
/// `ESRCH` or `ENOSYS` where quotas are off.
pub fn usage(path: &Path, project: u32) -> Result<Usage> {
    let file = open(path, OFlags::empty())?;
    let mut quota = FsDiskQuota { version: VERSION, ..FsDiskQuota::default() };
    match sys::quotactl_project(file.as_fd(), project, Quota::Get(&mut quota)) {
        Ok(()) => Ok(Usage {
            used: quota.bcount.saturating_mul(BASIC_BLOCK),
            limit: quota.blk_hardlimit.saturating_mul(BASIC_BLOCK),
        }),
        Err(Errno::NOENT) => Ok(Usage::default()),
        Err(errno) => Err(KernelError::on("Q_XGETQUOTA", path, errno)),
    }
}
