//! Loop devices: a file as a block device. (linux/loop.h, drivers/block/loop.c)

use crate::{KernelError, Result, ioctl};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

const CONTROL: &str = "/dev/loop-control";
const SYS_BLOCK: &str = "/sys/block";
/// How often another process may take the free device before us.
const RACES: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo64 {
    const fn zeroed() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// How a file is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopOptions {
    /// The device refuses writes.
    pub read_only: bool,
    /// Around the page cache of the backing file system, where that can do it.
    pub direct_io: bool,
    /// Logical block size of the device in bytes: 512 to 4096, a power of two.
    pub block_size: u32,
}

/// An open loop device. While it is open, the device can't detach by itself.
#[derive(Debug)]
pub struct LoopHandle {
    file: File,
    path: PathBuf,
    number: u32,
}

/// A loop device in use, as sysfs tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopInfo {
    /// The N of `/dev/loopN`.
    pub number: u32,
    /// The backing file's path when it was attached.
    pub backing_file: PathBuf,
    /// The backing file has no name any more.
    pub deleted: bool,
    /// Whether it goes around the page cache.
    pub direct_io: bool,
}

impl LoopHandle {
    fn open(number: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|source| KernelError::at("open", &path, source))?;
        Ok(Self { file, path, number })
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The N of `/dev/loopN`.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The device number, as in `st_rdev`.
    pub fn dev(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(|source| KernelError::at("stat", &self.path, source))?.rdev())
    }

    /// Whether I/O goes around the page cache of the backing file system. The kernel falls back without a word.
    pub fn direct_io(&self) -> Result<bool> {
        Ok(self.status().map_err(|e| KernelError::at("LOOP_GET_STATUS64", &self.path, e))?.flags
            & LO_FLAGS_DIRECT_IO
            != 0)
    }

    /// Takes over the backing file's present size.
    pub fn refresh_size(&self) -> Result<()> {
        ioctl::number(self.file.as_fd(), LOOP_SET_CAPACITY, 0)
            .map(drop)
            .map_err(|source| KernelError::at("LOOP_SET_CAPACITY", &self.path, source))
    }

    fn status(&self) -> io::Result<LoopInfo64> {
        let mut info = LoopInfo64::zeroed();
        ioctl::structure(self.file.as_fd(), LOOP_GET_STATUS64, &mut info).map(|_| info)
    }

    fn configure(&self, backing: &File, name: &Path, options: &LoopOptions) -> io::Result<()> {
        let mut config = LoopConfig {
            fd: backing.as_raw_fd().unsigned_abs(),
            block_size: options.block_size,
            info: LoopInfo64::zeroed(),
            reserved: [0; 8],
        };
        // The kernel detaches the device with its last user: nothing leaks when this process dies at any point.
        config.info.flags = LO_FLAGS_AUTOCLEAR;
        if options.read_only {
            config.info.flags |= LO_FLAGS_READ_ONLY;
        }
        if options.direct_io {
            config.info.flags |= LO_FLAGS_DIRECT_IO;
        }
        let bytes = name.as_os_str().as_encoded_bytes();
        let length = bytes.len().min(63);
        config.info.file_name[..length].copy_from_slice(&bytes[..length]);
        ioctl::structure(self.file.as_fd(), LOOP_CONFIGURE, &mut config).map(drop)
    }
}

/// Attaches `backing` to a free loop device. `name` is shown by `losetup`.
///
/// # Errors
/// No loop devices on this host, or a backing file that can't be one.
pub fn attach(backing: &File, name: &Path, options: &LoopOptions) -> Result<LoopHandle> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL);
    let control = control.map_err(|source| KernelError::at("open", Path::new(CONTROL), source))?;
    let mut options = *options;
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..RACES {
        let number = ioctl::number(control.as_fd(), LOOP_CTL_GET_FREE, 0)
            .map_err(|source| KernelError::at("LOOP_CTL_GET_FREE", Path::new(CONTROL), source))?;
        let handle = LoopHandle::open(number.unsigned_abs())?;
        match handle.configure(backing, name, &options) {
            Ok(()) => return Ok(handle),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => last = error,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && options.direct_io => {
                options.direct_io = false;
                last = error;
            }
            Err(source) => return Err(KernelError::at("LOOP_CONFIGURE", name, source)),
        }
    }
    Err(KernelError::at("LOOP_CONFIGURE", name, last))
}

/// Whether the block device with this number (`st_dev` of what is mounted from it) is a loop device on `backing`.
pub fn is_backed_by(dev: u64, backing: &File) -> Result<bool> {
    let link = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(dev), libc::minor(dev)));
    let node = fs::read_link(&link).map_err(|source| KernelError::at("read link", &link, source))?;
    let name = node.file_name().and_then(|name| name.to_str());
    let Some(number) = name.and_then(|name| name.strip_prefix("loop")?.parse().ok()) else {
        return Ok(false);
    };
    let here = backing.metadata().map_err(|source| KernelError { op: "stat", path: None, source })?;
    let handle = LoopHandle::open(number)?;
    let info =
        handle.status().map_err(|source| KernelError::at("LOOP_GET_STATUS64", handle.path(), source))?;
    Ok(info.inode == here.ino() && same_device(info.device, here.dev()))
}

/// The loop device on the same inode as `backing`, if there is one, whatever path it was attached by.
pub fn find(backing: &File) -> Result<Option<LoopHandle>> {
    let here = backing.metadata().map_err(|source| KernelError { op: "stat", path: None, source })?;
    for number in numbers()? {
        let handle = match LoopHandle::open(number) {
            Ok(handle) => handle,
            Err(error) if error.is_not_found() || error.errno() == Some(libc::ENXIO) => continue,
            Err(error) => return Err(error),
        };
        match handle.status() {
            Ok(info) if info.inode == here.ino() && same_device(info.device, here.dev()) => {
                return Ok(Some(handle));
            }
            Ok(_) => {}
            // Detached since it was listed.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
            Err(source) => return Err(KernelError::at("LOOP_GET_STATUS64", handle.path(), source)),
        }
    }
    Ok(None)
}

/// `lo_device` has the kernel's "huge" encoding, which is what `st_dev` has as long as the numbers are small.
fn same_device(lo_device: u64, st_dev: u64) -> bool {
    lo_device == st_dev || {
        let (major, minor) = (u64::from(libc::major(st_dev)), u64::from(libc::minor(st_dev)));
        lo_device == (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
    }
}

/// The devices that have a backing file. sysfs shows that without opening any.
fn numbers() -> Result<Vec<u32>> {
    let failed = |source| KernelError::at("read directory", Path::new(SYS_BLOCK), source);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(SYS_BLOCK).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok()) else {
            continue;
        };
        if Path::new(SYS_BLOCK).join(&name).join("loop").is_dir() {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Every loop device in use.
pub fn list() -> Result<Vec<LoopInfo>> {
    let read = |number: u32, file: &str| fs::read_to_string(format!("{SYS_BLOCK}/loop{number}/loop/{file}"));
    let infos = numbers()?.into_iter().filter_map(|number| {
        let text = read(number, "backing_file").ok()?;
        let name = text.strip_suffix('\n').unwrap_or(&text);
        let deleted = name.ends_with(" (deleted)");
        Some(LoopInfo {
            number,
            backing_file: name.strip_suffix(" (deleted)").unwrap_or(name).into(),
            deleted,
            direct_io: read(number, "dio").is_ok_and(|dio| dio.trim() == "1"),
        })
    });
    Ok(infos.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernel_s_sizes() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
