//! Project quotas: a limit on a directory tree. (quotactl_fd(2), linux/quota.h, linux/dqblk_xfs.h)

use crate::fs::{FsType, fstype, get_xattr, set_xattr};
use crate::{KernelError, Result, ioctl};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

const PRJQUOTA: u32 = 2;
const Q_GETINFO: u32 = 0x80_0005;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_XGETQUOTA: u32 = (b'X' as u32) << 8 | 3;
const Q_XSETQLIM: u32 = (b'X' as u32) << 8 | 4;
const Q_XGETQSTATV: u32 = (b'X' as u32) << 8 | 8;
const QIF_BLIMITS: u32 = 1;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;

/// `struct if_dqblk`; limits in KiB, usage in bytes.
#[repr(C)]
#[derive(Default)]
struct Dqblk {
    bhardlimit: u64,
    bsoftlimit: u64,
    curspace: u64,
    ihardlimit: u64,
    isoftlimit: u64,
    curinodes: u64,
    btime: u64,
    itime: u64,
    valid: u32,
}

/// `struct if_dqinfo`.
#[repr(C)]
#[derive(Default)]
struct Dqinfo {
    bgrace: u64,
    igrace: u64,
    flags: u32,
    valid: u32,
}

/// `struct fs_disk_quota`; blocks of 512 bytes.
#[repr(C)]
#[derive(Default)]
struct XfsQuota {
    version: i8,
    flags: i8,
    fieldmask: u16,
    id: u32,
    blk_hardlimit: u64,
    blk_softlimit: u64,
    ino_hardlimit: u64,
    ino_softlimit: u64,
    bcount: u64,
    icount: u64,
    itimer: i32,
    btimer: i32,
    iwarns: u16,
    bwarns: u16,
    timer_hi: [i8; 3],
    pad2: i8,
    rtb_hardlimit: u64,
    rtb_softlimit: u64,
    rtbcount: u64,
    rtbtimer: i32,
    rtbwarns: u16,
    pad3: i16,
    pad4: [i8; 8],
}

/// `struct fs_quota_statv`.
#[repr(C)]
#[derive(Default)]
struct XfsState {
    version: i8,
    pad1: u8,
    flags: u16,
    incoredqs: u32,
    quota_files: [[u64; 3]; 3],
    timelimits: [i32; 3],
    warnlimits: [u16; 6],
    pad2: [u64; 7],
}

/// What a project uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// The limit in bytes; 0: none.
    pub limit: u64,
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| KernelError::at("open", path, source))
}

fn call<T>(path: &Path, command: u32, project: u32, value: &mut T) -> Result<()> {
    let whole = command << 8 | PRJQUOTA;
    ioctl::quotactl(open(path)?.as_fd(), whole, project, value)
        .map_err(|source| KernelError::at("quotactl", path, source))
}

fn is_xfs(path: &Path) -> Result<bool> {
    Ok(fstype(path)? == FsType::Xfs)
}

/// Whether project quotas are kept and enforced on the file system of `path`.
pub fn supported(path: &Path) -> Result<bool> {
    Ok(match fstype(path)? {
        FsType::Xfs => {
            let mut state = XfsState { version: 1, ..XfsState::default() };
            call(path, Q_XGETQSTATV, 0, &mut state).is_ok() && state.flags & FS_QUOTA_PDQ_ENFD != 0
        }
        // Answered only while quota of this type is switched on.
        FsType::Ext4 => call(path, Q_GETINFO, 0, &mut Dqinfo::default()).is_ok(),
        _ => false,
    })
}

/// Counts `directory`, and all that is made in it from now on, to `project`.
pub fn set_project(directory: &Path, project: u32) -> Result<()> {
    let file = open(directory)?;
    let mut flags = get_xattr(&file, directory)?;
    flags.projid = project;
    flags.xflags |= FS_XFLAG_PROJINHERIT;
    set_xattr(&file, directory, flags)
}

/// The project that `path` is counted to; 0: none.
pub fn project_of(path: &Path) -> Result<u32> {
    Ok(get_xattr(&open(path)?, path)?.projid)
}

/// Limits `project` on the file system of `path` to `bytes`; 0 takes the limit away.
pub fn set_limit(path: &Path, project: u32, bytes: u64) -> Result<()> {
    if is_xfs(path)? {
        const FS_DQ_BHARD: u16 = 1 << 3;
        let blocks = bytes.div_ceil(512);
        let mut quota = XfsQuota {
            version: 1,
            flags: 2,
            fieldmask: FS_DQ_BHARD,
            id: project,
            blk_hardlimit: blocks,
            ..XfsQuota::default()
        };
        return call(path, Q_XSETQLIM, project, &mut quota);
    }
    let mut quota = Dqblk { bhardlimit: bytes.div_ceil(1024), valid: QIF_BLIMITS, ..Dqblk::default() };
    call(path, Q_SETQUOTA, project, &mut quota)
}

/// What `project` uses on the file system of `path`.
pub fn usage(path: &Path, project: u32) -> Result<Usage> {
    if is_xfs(path)? {
        let mut quota = XfsQuota::default();
        call(path, Q_XGETQUOTA, project, &mut quota)?;
        return Ok(Usage { used: quota.bcount * 512, limit: quota.blk_hardlimit * 512 });
    }
    let mut quota = Dqblk::default();
    call(path, Q_GETQUOTA, project, &mut quota)?;
    Ok(Usage { used: quota.curspace, limit: quota.bhardlimit * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernel_s_sizes() {
        assert_eq!(size_of::<Dqblk>(), 72);
        assert_eq!(size_of::<Dqinfo>(), 24);
        assert_eq!(size_of::<XfsQuota>(), 112);
        assert_eq!(size_of::<XfsState>(), 160);
    }
}
