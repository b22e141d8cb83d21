//! System calls that rustix has no safe wrapper for, with the kernel's numbers and structures. It decides nothing: each
//! function is one call.

#![allow(unsafe_code)]

use rustix::io::Result;
use rustix::ioctl::{self, Getter, IntegerSetter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, opcode};
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LoopInfo64 {
    pub device: u64,
    pub inode: u64,
    pub rdevice: u64,
    pub offset: u64,
    pub size_limit: u64,
    pub number: u32,
    pub encrypt_type: u32,
    pub encrypt_key_size: u32,
    pub flags: u32,
    pub file_name: [u8; 64],
    pub crypt_name: [u8; 64],
    pub encrypt_key: [u8; 32],
    pub init: [u64; 2],
}

impl LoopInfo64 {
    pub const ZERO: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
pub(crate) struct LoopConfig {
    pub fd: u32,
    pub block_size: u32,
    pub info: LoopInfo64,
    pub reserved: [u64; 8],
}

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FsXattr {
    pub xflags: u32,
    pub extsize: u32,
    pub nextents: u32,
    pub projid: u32,
    pub cowextsize: u32,
    pub pad: [u8; 8],
}

/// `struct fs_disk_quota` of `linux/dqblk_xfs.h`; block counts are in units of 512 bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct FsDiskQuota {
    pub version: i8,
    pub flags: i8,
    pub fieldmask: u16,
    pub id: u32,
    pub blk_hardlimit: u64,
    pub blk_softlimit: u64,
    pub ino_hardlimit: u64,
    pub ino_softlimit: u64,
    pub bcount: u64,
    pub icount: u64,
    pub itimer: i32,
    pub btimer: i32,
    pub iwarns: u16,
    pub bwarns: u16,
    pub timers_hi: [i8; 4],
    pub rtb_hardlimit: u64,
    pub rtb_softlimit: u64,
    pub rtbcount: u64,
    pub rtbtimer: i32,
    pub rtbwarns: u16,
    pub padding3: i16,
    pub padding4: [u8; 8],
}

/// `struct fs_qfilestatv` of `linux/dqblk_xfs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct QuotaFile {
    pub ino: u64,
    pub nblks: u64,
    pub nextents: u32,
    pub pad: u32,
}

/// `struct fs_quota_statv` of `linux/dqblk_xfs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct FsQuotaStat {
    pub version: i8,
    pub pad1: u8,
    pub flags: u16,
    pub incoredqs: u32,
    pub files: [QuotaFile; 3],
    pub time_limits: [i32; 3],
    pub warn_limits: [u16; 3],
    pub pad3: u16,
    pub pad4: u32,
    pub pad2: [u64; 7],
}

// The sizes that the kernel copies; a wrong one would be memory corruption.
const _: () = assert!(size_of::<LoopInfo64>() == 232);
const _: () = assert!(size_of::<LoopConfig>() == 304);
const _: () = assert!(size_of::<FsXattr>() == 28);
const _: () = assert!(size_of::<FsDiskQuota>() == 112);
const _: () = assert!(size_of::<FsQuotaStat>() == 160);

/// An ioctl that takes an integer (or nothing) and answers with its return value.
struct Answer<const OPCODE: Opcode>;

// SAFETY: no pointer is handed to the kernel, and none is read from.
unsafe impl<const OPCODE: Opcode> Ioctl for Answer<OPCODE> {
    type Output = i32;
    const IS_MUTATING: bool = false;
    fn opcode(&self) -> Opcode {
        OPCODE
    }
    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }
    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<i32> {
        Ok(out)
    }
}

/// `LOOP_CTL_GET_FREE` (linux/loop.h) on `/dev/loop-control`: the number of a device that is free, made if need be.
pub(crate) fn loop_get_free(control: impl AsFd) -> Result<i32> {
    // SAFETY: the request takes no argument and returns an integer.
    unsafe { ioctl::ioctl(control, Answer::<0x4C82>) }
}

/// `LOOP_CONFIGURE` (linux/loop.h, since Linux 5.8).
pub(crate) fn loop_configure(device: impl AsFd, config: LoopConfig) -> Result<()> {
    // SAFETY: the request reads one `struct loop_config`, which `LoopConfig` is.
    unsafe { ioctl::ioctl(device, Setter::<0x4C0A, LoopConfig>::new(config)) }
}

/// `LOOP_GET_STATUS64` (linux/loop.h). `ENXIO`: nothing is attached.
pub(crate) fn loop_status(device: impl AsFd) -> Result<LoopInfo64> {
    // SAFETY: the request fills one `struct loop_info64`, which `LoopInfo64` is; every bit pattern is valid.
    unsafe { ioctl::ioctl(device, Getter::<0x4C05, LoopInfo64>::new()) }
}

/// `LOOP_SET_CAPACITY` (linux/loop.h): the device takes the size of its file.
pub(crate) fn loop_set_capacity(device: impl AsFd) -> Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { ioctl::ioctl(device, NoArg::<0x4C07>::new()) }
}

/// `BLKGETSIZE64` (linux/fs.h): bytes.
pub(crate) fn block_device_size(device: impl AsFd) -> Result<u64> {
    const OPCODE: Opcode = opcode::read::<usize>(0x12, 114);
    // SAFETY: the request writes a u64, in spite of the `size_t` in its number.
    unsafe { ioctl::ioctl(device, Getter::<OPCODE, u64>::new()) }
}

/// `FIFREEZE` (linux/fs.h).
pub(crate) fn fifreeze(dir: impl AsFd) -> Result<()> {
    const OPCODE: Opcode = opcode::read_write::<i32>(b'X', 119);
    // SAFETY: the kernel ignores the argument.
    unsafe { ioctl::ioctl(dir, IntegerSetter::<OPCODE>::new_usize(0)) }
}

/// `FITHAW` (linux/fs.h).
pub(crate) fn fithaw(dir: impl AsFd) -> Result<()> {
    const OPCODE: Opcode = opcode::read_write::<i32>(b'X', 120);
    // SAFETY: the kernel ignores the argument.
    unsafe { ioctl::ioctl(dir, IntegerSetter::<OPCODE>::new_usize(0)) }
}

/// `FS_IOC_FSGETXATTR` (linux/fs.h).
pub(crate) fn fs_get_xattr(file: impl AsFd) -> Result<FsXattr> {
    const OPCODE: Opcode = opcode::read::<FsXattr>(b'X', 31);
    // SAFETY: the request fills one `struct fsxattr`, which `FsXattr` is; every bit pattern is valid.
    unsafe { ioctl::ioctl(file, Getter::<OPCODE, FsXattr>::new()) }
}

/// `FS_IOC_FSSETXATTR` (linux/fs.h).
pub(crate) fn fs_set_xattr(file: impl AsFd, attributes: FsXattr) -> Result<()> {
    const OPCODE: Opcode = opcode::write::<FsXattr>(b'X', 32);
    // SAFETY: the request reads one `struct fsxattr`, which `FsXattr` is.
    unsafe { ioctl::ioctl(file, Setter::<OPCODE, FsXattr>::new(attributes)) }
}

/// What `quotactl_fd` is asked. Each command knows the structure that the kernel reads or writes.
pub(crate) enum Quota<'a> {
    /// `Q_XSETQLIM` (linux/dqblk_xfs.h).
    SetLimit(&'a mut FsDiskQuota),
    /// `Q_XGETQUOTA` (linux/dqblk_xfs.h).
    Get(&'a mut FsDiskQuota),
    /// `Q_XGETQSTATV` (linux/dqblk_xfs.h); the version must be set.
    State(&'a mut FsQuotaStat),
}

/// `quotactl_fd(2)` (since Linux 5.14) for project quotas of the file system that `file` is on.
pub(crate) fn quotactl_project(file: BorrowedFd<'_>, project: u32, quota: Quota<'_>) -> Result<()> {
    const PRJQUOTA: u32 = 2;
    let (command, address): (u32, *mut c_void) = match quota {
        Quota::SetLimit(limit) => (4, (&raw mut *limit).cast()),
        Quota::Get(usage) => (3, (&raw mut *usage).cast()),
        Quota::State(state) => (8, (&raw mut *state).cast()),
    };
    // XQM_CMD and QCMD of linux/dqblk_xfs.h and linux/quota.h.
    let command = ((u32::from(b'X') << 8) + command) << 8 | PRJQUOTA;
    // SAFETY: the descriptor is open, and the address is that of the structure that the command reads or writes.
    let answer = unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command, project, address) };
    if answer == 0 { Ok(()) } else { Err(last_error()) }
}

/// `close_range(2)` with `CLOSE_RANGE_CLOEXEC` (linux/close_range.h, since Linux 5.11): a program that this process becomes
/// gets standard input, output and error, and nothing else. It may be called between fork and exec.
pub(crate) fn close_all_on_exec() -> Result<()> {
    const CLOEXEC: u32 = 4;
    // SAFETY: no descriptor is closed while this program runs.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(last_error()) }
}

/// `LOOP_CTL_ADD` and `LOOP_CTL_REMOVE` (linux/loop.h): the device of this number comes or goes.
#[cfg(test)]
pub(crate) fn loop_add_or_remove(control: impl AsFd, add: bool, number: usize) -> Result<()> {
    // SAFETY: both requests take an integer.
    unsafe {
        match add {
            true => ioctl::ioctl(control, IntegerSetter::<0x4C80>::new_usize(number)),
            false => ioctl::ioctl(control, IntegerSetter::<0x4C81>::new_usize(number)),
        }
    }
}

pub(crate) fn last_error() -> rustix::io::Errno {
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    rustix::io::Errno::from_raw_os_error(code)
}

/// `malloc_trim(3)` of everything.
#[cfg(target_env = "gnu")]
pub(crate) fn malloc_trim() {
    // SAFETY: it takes no pointer, and may be called at any time by any thread.
    unsafe { libc::malloc_trim(0) };
}

/// `mallopt(3)`: how many arenas there are at most, from which size on a piece is a mapping of its own, and how much may be set aside.
#[cfg(target_env = "gnu")]
pub(crate) fn mallopt(arenas: i32, mapped_from: i32, aside: i32) {
    // SAFETY: they are plain numbers; what malloc makes of them counts from its next call on.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
        libc::mallopt(libc::M_MMAP_THRESHOLD, mapped_from);
        libc::mallopt(libc::M_TRIM_THRESHOLD, aside);
    }
}
