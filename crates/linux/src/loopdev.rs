//! Loop devices: block devices whose content is a file (linux/loop.h). It knows devices and inodes, and not what is in them.
//!
//! Every device is made with `LO_FLAGS_AUTOCLEAR`: the kernel detaches it at its last close or unmount, so that nothing leaks
//! when this process dies. The other side of that is that a device is sure to stay only while somebody has it open, which
//! is what a [`LoopHandle`] does.

use crate::sys::{self, LoopConfig, LoopInfo64};
use crate::{KernelError, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

const CONTROL: &str = "/dev/loop-control";
const BLOCK_DEVICES: &str = "/sys/block";

/// How often a free device may be snatched away before [`attach`] gives up. Every loss is somebody else's success.
const TRIES: u32 = 256;

/// How a device is to behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopOptions {
    /// The device refuses writes.
    pub read_only: bool,
    /// The device goes around the page cache of the file's file system, where that can; see [`LoopHandle::direct_io`].
    pub direct_io: bool,
    /// The device's sector size in bytes: a power of two from 512 to the page size; 0 for the kernel's default.
    pub block_size: u32,
}

/// A loop device that stays attached at least as long as this value.
#[derive(Debug)]
pub struct LoopHandle {
    device: File,
    path: PathBuf,
    number: u32,
    dev: u64,
}

impl LoopHandle {
    /// Opens `/dev/loopN` for reading: a writer would keep a kernel without `CONFIG_BLK_DEV_WRITE_MOUNTED` from mounting it.
    fn open(number: u32) -> Result<Self> {
        let path = device_path(number);
        let device = File::open(&path).map_err(|source| KernelError::on("open", &path, source))?;
        let dev = device.metadata().map_err(|source| KernelError::on("stat", &path, source))?.rdev();
        Ok(Self { device, path, number, dev })
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The N of `/dev/loopN`.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The device's number, as `st_rdev` has it; files of a file system on it have this in `st_dev`.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// The open device (for reading).
    pub fn file(&self) -> &File {
        &self.device
    }

    /// Whether the device goes around the page cache. The kernel drops the wish without a word where the file's file
    /// system can't, or the sector size is too small for it.
    ///
    /// # Errors
    /// `LOOP_GET_STATUS64` that fails.
    pub fn direct_io(&self) -> Result<bool> {
        Ok(self.status()?.flags & DIRECT_IO != 0)
    }

    /// Gives the device the size that its file has now (`LOOP_SET_CAPACITY`).
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub fn refresh_size(&self) -> Result<()> {
        sys::loop_set_capacity(&self.device)
            .map_err(|errno| KernelError::on("LOOP_SET_CAPACITY", &self.path, errno))
    }

    /// The size of the device in bytes (`BLKGETSIZE64`).
    ///
    /// # Errors
    /// A kernel that does not tell.
    pub fn size_bytes(&self) -> Result<u64> {
        sys::block_device_size(&self.device)
            .map_err(|errno| KernelError::on("BLKGETSIZE64", &self.path, errno))
    }

    fn status(&self) -> Result<LoopInfo64> {
        sys::loop_status(&self.device)
            .map_err(|errno| KernelError::on("LOOP_GET_STATUS64", &self.path, errno))
    }
}

fn device_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// Attaches a file to a free loop device (`LOOP_CTL_GET_FREE`, `LOOP_CONFIGURE`; Linux 5.8).
///
/// This makes a new device even where the file has one: see [`find_or_attach`]. `path_for_errors` is also the name that
/// `losetup` shows. Where direct I/O is refused, the device is made without it.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `ENOENT` without the loop driver, `EINVAL` for a file or sector size that can't be used.
pub fn attach(backing: &File, path_for_errors: &Path, options: &LoopOptions) -> Result<LoopHandle> {
    attach_with(&control()?, backing, path_for_errors, options)
}

/// The device of this file: the one there is, or a new one. Calls of this function exclude each other on the whole host
/// (by `flock(2)` of `/dev/loop-control`), so that no two of them make two devices for one file. The options matter only for a
/// new device. The second value is `Done` for a new device.
///
/// # Errors
/// As [`find`] and [`attach`].
pub fn find_or_attach(
    backing: &File,
    path_for_errors: &Path,
    options: &LoopOptions,
) -> Result<(LoopHandle, crate::Change)> {
    // Closing this description gives the lock up.
    let control = control()?;
    rustix::fs::flock(&control, FlockOperation::LockExclusive)
        .map_err(|errno| KernelError::on("flock", Path::new(CONTROL), errno))?;
    match find(backing)? {
        Some(device) => Ok((device, crate::Change::AlreadyThere)),
        None => Ok((attach_with(&control, backing, path_for_errors, options)?, crate::Change::Done)),
    }
}

fn control() -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .open(CONTROL)
        .map_err(|source| KernelError::on("open", Path::new(CONTROL), source))
}

fn attach_with(control: &File, backing: &File, path: &Path, options: &LoopOptions) -> Result<LoopHandle> {
    let mut flags = AUTOCLEAR;
    if options.read_only {
        flags |= READ_ONLY;
    }
    if options.direct_io {
        flags |= DIRECT_IO;
    }
    let mut busy = None;
    for _ in 0..TRIES {
        let number = sys::loop_get_free(control)
            .map_err(|errno| KernelError::on("LOOP_CTL_GET_FREE", Path::new(CONTROL), errno))?;
        match configure(number.unsigned_abs(), backing, path, options, flags) {
            // Somebody else was faster, or is taking that device away.
            Err(error) if matches!(error.errno(), Some(libc::EBUSY | libc::ENXIO)) => busy = Some(error),
            Err(error) if error.errno() == Some(libc::EINVAL) && flags & DIRECT_IO != 0 => {
                flags &= !DIRECT_IO
            }
            other => return other,
        }
    }
    Err(busy.unwrap_or_else(|| KernelError::on("attach", path, Errno::BUSY)))
}

fn configure(
    number: u32,
    backing: &File,
    path: &Path,
    options: &LoopOptions,
    flags: u32,
) -> Result<LoopHandle> {
    let device_path = device_path(number);
    // A device that is opened read-only can only become a read-only one.
    let device = OpenOptions::new()
        .read(true)
        .write(!options.read_only)
        .open(&device_path)
        .map_err(|source| KernelError::on("open", &device_path, source))?;
    let mut info = LoopInfo64 { flags, ..LoopInfo64::ZERO };
    // The last byte stays a zero: the kernel's name ends there.
    let room = info.file_name.len() - 1;
    for (to, from) in info.file_name.iter_mut().take(room).zip(path.as_os_str().as_bytes()) {
        *to = *from;
    }
    let fd = backing.as_raw_fd().unsigned_abs();
    let config = LoopConfig { fd, block_size: options.block_size, info, reserved: [0; 8] };
    sys::loop_configure(&device, config).map_err(|errno| match errno {
        // These are about the device that was tried.
        Errno::BUSY | Errno::NXIO => KernelError::on("LOOP_CONFIGURE", &device_path, errno),
        _ => KernelError::on("LOOP_CONFIGURE", path, errno),
    })?;
    // Opened again before the writable one is closed, so that it can't be detached in between.
    LoopHandle::open(number)
}

/// The loop device that is attached to this very file, whatever the file is called by now, whoever mounted it in whichever
/// namespace, and also when the file is deleted.
///
/// Mounting one file system through two devices destroys it, so this looks at every attached device instead of comparing
/// names: device and inode of `LOOP_GET_STATUS64` are those of `stat(2)`.
///
/// # Errors
/// `/sys` or a device that can't be read: then the answer is not known.
pub fn find(backing: &File) -> Result<Option<LoopHandle>> {
    let wanted = backing.metadata().map_err(|source| KernelError::on_fd("stat", backing, source))?;
    for number in attached()? {
        let device = match LoopHandle::open(number) {
            // Removed or detached since the directory was read.
            Err(error) if error.is_not_found() || error.errno() == Some(libc::ENXIO) => continue,
            other => other?,
        };
        match device.status() {
            // `lo_device` is `huge_encode_dev` of the kernel's, the encoding of `st_dev`: 12 bits of major, 20 of minor.
            Ok(info) if info.device == wanted.dev() && info.inode == wanted.ino() => return Ok(Some(device)),
            Ok(_) => {}
            Err(error) if error.errno() == Some(libc::ENXIO) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether the block device of this number (`st_dev` of what is mounted from it) is a loop device on this very file.
///
/// # Errors
/// `/sys` or the device that can't be read.
pub fn is_backed_by(dev: u64, backing: &File) -> Result<bool> {
    let link = PathBuf::from(format!("/sys/dev/block/{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev)));
    let node = fs::read_link(&link).map_err(|source| KernelError::on("read link", &link, source))?;
    let Some(number) = node.file_name().and_then(loop_number) else { return Ok(false) };
    let wanted = backing.metadata().map_err(|source| KernelError::on_fd("stat", backing, source))?;
    let info = LoopHandle::open(number)?.status()?;
    Ok(info.device == wanted.dev() && info.inode == wanted.ino())
}

fn loop_number(name: &OsStr) -> Option<u32> {
    name.to_str()?.strip_prefix("loop")?.parse().ok()
}

/// The numbers of the loop devices that have a file. A device has the directory `loop` in sysfs exactly while it is attached.
fn attached() -> Result<Vec<u32>> {
    let failed = |source| KernelError::on("read directory", Path::new(BLOCK_DEVICES), source);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(BLOCK_DEVICES).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Some(number) = loop_number(&entry.file_name())
            && entry.path().join("loop").is_dir()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What sysfs tells about an attached loop device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopInfo {
    /// The N of `/dev/loopN`.
    pub number: u32,
    /// The device's number, as `st_rdev` has it.
    pub dev: u64,
    /// Where the file is now, or was when it was deleted.
    pub backing_file: PathBuf,
    /// The file has been deleted.
    pub deleted: bool,
    /// The device goes around the page cache.
    pub direct_io: bool,
    /// The kernel detaches it with its last user.
    pub autoclear: bool,
    /// The device refuses writes.
    pub read_only: bool,
}

/// All attached loop devices, by number.
///
/// # Errors
/// `/sys/block` that can't be read.
pub fn list() -> Result<Vec<LoopInfo>> {
    let mut found = Vec::new();
    for number in attached()? {
        let home = Path::new(BLOCK_DEVICES).join(format!("loop{number}"));
        match describe(number, &home) {
            Ok(info) => found.push(info),
            // Detached while it was looked at.
            Err(error) if error.is_not_found() || error.errno() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn describe(number: u32, home: &Path) -> Result<LoopInfo> {
    let read = |name: &str| {
        let path = home.join(name);
        let mut bytes = fs::read(&path).map_err(|source| KernelError::on("read", &path, source))?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Ok(bytes)
    };
    let flag = |name: &str| Ok(read(name)? == b"1");
    let dev = read("dev")?;
    let dev = crate::mounts::parse_dev(&dev)
        .ok_or_else(|| KernelError::invalid("read", &home.join("dev"), "not a device number"))?;
    let (backing_file, deleted) = undeleted(read("loop/backing_file")?);
    Ok(LoopInfo {
        number,
        dev,
        backing_file,
        deleted,
        direct_io: flag("loop/dio")?,
        autoclear: flag("loop/autoclear")?,
        read_only: flag("ro")?,
    })
}

/// The kernel adds a mark to the name of a deleted file, which may also be the end of a living file's name.
fn undeleted(name: Vec<u8>) -> (PathBuf, bool) {
    let marked = name.strip_suffix(b" (deleted)").map(|plain| PathBuf::from(OsStr::from_bytes(plain)));
    let whole = PathBuf::from(std::ffi::OsString::from_vec(name));
    match marked {
        Some(plain) if fs::symlink_metadata(&whole).is_err() => (plain, true),
        _ => (whole, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{self, MountFlags};
    use std::time::Duration;

    /// A loop device of a number that nobody else would pick, and a file system on it.
    struct Far {
        number: u32,
        target: PathBuf,
    }

    impl Drop for Far {
        fn drop(&mut self) {
            mounts::unmount_lazy(&self.target).unwrap();
            // It can be removed once the kernel has let go of it; it says so by no event.
            let removed = (0..2000).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                sys::loop_add_or_remove(control().unwrap(), false, self.number as usize).is_ok()
            });
            assert!(removed, "loop{} stays", self.number);
        }
    }

    /// `lo_device` and `st_dev` are encoded alike also where the number does not fit into the 8 bits it once had.
    #[test]
    fn a_file_on_a_device_with_a_large_number_is_found() {
        const NUMBER: u32 = 70_123;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outer");
        let outer = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        outer.set_len(16 << 20).unwrap();
        crate::command::Tool::new("mkfs.ext4")
            .run(&[OsStr::new("-q"), path.as_os_str()], Duration::from_secs(60))
            .unwrap();
        sys::loop_add_or_remove(control().unwrap(), true, NUMBER as usize).unwrap();
        let far = Far { number: NUMBER, target: dir.path().join("mnt") };
        fs::create_dir(&far.target).unwrap();
        let options = LoopOptions { read_only: false, direct_io: false, block_size: 0 };
        let device = configure(NUMBER, &outer, &path, &options, AUTOCLEAR).unwrap();
        mounts::mount(device.path(), &far.target, "ext4", MountFlags::empty(), "").unwrap();
        drop(device);

        let inner = far.target.join("inner");
        let file = File::options().read(true).write(true).create_new(true).open(&inner).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(rustix::fs::minor(file.metadata().unwrap().dev()), NUMBER);
        let device = attach(&file, &inner, &options).unwrap();
        assert_eq!(find(&file).unwrap().unwrap().number(), device.number());
        assert_eq!(find(&outer).unwrap().unwrap().number(), NUMBER);
        let info = list().unwrap().into_iter().find(|info| info.number == NUMBER).unwrap();
        assert_eq!(info.dev, far.target.metadata().unwrap().dev());
    }

    #[test]
    fn long_names_are_cut_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n".repeat(200));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let options = LoopOptions { read_only: false, direct_io: true, block_size: 4096 };
        let device = attach(&file, &path, &options).unwrap();
        let name = device.status().unwrap().file_name;
        assert_eq!(name[..63], path.as_os_str().as_bytes()[..63]);
        assert_eq!(name[63], 0);
    }
}
