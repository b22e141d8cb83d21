//! Attaching an image: checked, on one loop device, mounted where the record says.

use super::ImageDriver;
use super::files::{self, Files, failed};
use crate::{Attached, Error, Place, Result};
use linux::Change;
use linux::command::{CommandError, Output, Tool};
use linux::loopdev::{self, LoopHandle, LoopOptions};
use linux::mounts::{self, MountFlags};
use linux::superblock::Superblock;
use model::{FsKind, Image, Provisioning};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const E2FSCK: Tool = Tool::new("e2fsck");
const RESIZE2FS: Tool = Tool::new("resize2fs");
const XFS_GROWFS: Tool = Tool::new("xfs_growfs");

/// Checking and resizing take as long as the volume is large, and end badly when they are cut off.
pub(super) const REPAIR: Duration = Duration::from_secs(3600);
/// How long to wait for a growth that is under way already.
const ANOTHER_GROWTH: Duration = Duration::from_secs(60);
/// The block size of the loop device unless the file system's own is smaller.
const BLOCK: u32 = 4096;

impl ImageDriver {
    pub(super) fn attach_image(&self, place: &Place<'_>, image: &Image) -> Result<Attached> {
        let path = files::data(place.mountpoint);
        // In constant time: at start-up this is asked for every volume that is attached.
        if mounts::is_mount_point(place.mountpoint)? {
            let files = Files::of(place);
            let mounted =
                fs::metadata(place.mountpoint).map_err(|source| failed("stat", place.mountpoint, source))?;
            if !loopdev::is_backed_by(mounted.dev(), &files.open()?)? {
                return Err(Error::Replaced { path: files.image, found: super::ON_ANOTHER_FILE.into() });
            }
            let left_writable = place.spec.readonly && !mounts::is_read_only(place.mountpoint)?;
            if !left_writable {
                return Ok(Attached { path, change: Change::AlreadyThere });
            }
            // By a growth that was interrupted.
            self.unmount(place.mountpoint)?;
        }
        let device = self.device(place, image, &Files::of(place))?;
        self.mount(place, image, device.path(), place.spec.readonly)?;
        if !path.is_dir() {
            self.unmount(place.mountpoint)?;
            return Err(Error::Missing { path });
        }
        Ok(Attached { path, change: Change::Done })
    }

    /// The loop device of the image: the one that there is, or a new one on a checked file system.
    fn device(&self, place: &Place<'_>, image: &Image, files: &Files) -> Result<LoopHandle> {
        let file = files.open()?;
        if let Some(device) = loopdev::find(&file)? {
            return Ok(device);
        }
        files.check_size(&file, image.size)?;
        let superblock = files.check_identity(&file, place.uuid, image.fs)?;
        let block_size = self.check_file_system(place, files, &superblock)?;
        let options = LoopOptions { read_only: false, direct_io: true, block_size };
        let device = loopdev::find_or_attach(&file, &files.image, &options)?.0;
        self.announce(place, &device, files)?;
        Ok(device)
    }

    /// Says which device is the volume's, before anything is written to it.
    fn announce(&self, place: &Place<'_>, device: &LoopHandle, files: &Files) -> Result<()> {
        let node = fs::metadata(device.path()).map_err(|source| failed("stat", device.path(), source))?;
        let size = files.size(&files.open()?)?;
        self.devices.ready(place.id, node.rdev(), size.bytes());
        Ok(())
    }

    /// Repairs what can be repaired without a decision, and says which block size the loop device may have.
    ///
    /// XFS replays its log when it is mounted, and has nothing like `e2fsck -p`.
    fn check_file_system(&self, place: &Place<'_>, files: &Files, superblock: &Superblock) -> Result<u32> {
        let Superblock::Ext4(ext4) = superblock else { return Ok(BLOCK) };
        if ext4.needs_recovery || !ext4.clean || ext4.has_errors {
            self.devices.changed_behind(place.id);
            self.check_ext4(files, &["-p"])?;
        }
        Ok(ext4.block_size.min(BLOCK))
    }

    fn check_ext4(&self, files: &Files, how: &[&str]) -> Result<()> {
        let mut arguments: Vec<&OsStr> = how.iter().map(OsStr::new).collect();
        arguments.push(files.image.as_os_str());
        // e2fsck(8): 1 and 2 mean that errors were corrected; 4 and more that they were not.
        match E2FSCK.run(&arguments, REPAIR).map_err(Error::from) {
            Ok(_) => Ok(()),
            Err(Error::Tool(CommandError::Failed { code: Some(1 | 2), stdout, .. })) => {
                tracing::warn!(path = %files.image.display(), report = stdout.trim(), "repaired after an unclean end");
                Ok(())
            }
            // 4: errors left; the bit 8 is trouble of the checker's own (a full or failing disk), which repair won't mend.
            Err(Error::Tool(CommandError::Failed { code: Some(4..8), stdout, stderr, .. })) => {
                Err(Error::NeedsRepair {
                    path: files.image.clone(),
                    report: format!("{} {}", stdout.trim(), stderr.trim()),
                })
            }
            Err(other) => Err(other),
        }
    }

    fn mount(&self, place: &Place<'_>, image: &Image, device: &Path, read_only: bool) -> Result<()> {
        match fs::create_dir(place.mountpoint) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create directory", place.mountpoint, source).into());
            }
            _ => {}
        }
        let (flags, data) = mount_options(image, read_only);
        mounts::mount(device, place.mountpoint, image.fs.as_str(), flags, &data)?;
        Ok(())
    }

    /// Unmounts and removes the mount point. The loop device goes with its last user.
    pub(super) fn unmount(&self, mountpoint: &Path) -> Result<Change> {
        let change = match mounts::unmount(mountpoint) {
            // Some process on the host stands in it. Nobody new can get in, the kernel ends it when the process goes,
            // and until then the next attach finds the same device: nothing is lost by not waiting.
            Err(error) if error.source.kind() == io::ErrorKind::ResourceBusy => {
                tracing::warn!(path = %mountpoint.display(), "a host process still uses it; unmounted when that ends");
                // One that can't be written any more must be let go of all the same.
                if let Err(error) = linux::freeze::sync(mountpoint) {
                    tracing::error!(path = %mountpoint.display(), %error, "could not write out all of it");
                }
                mounts::unmount_lazy(mountpoint)?;
                Change::Done
            }
            other => other?,
        };
        match fs::remove_dir(mountpoint) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("rmdir", mountpoint, source).into())
            }
            _ => Ok(change),
        }
    }

    /// Calls `work` with the volume mounted, mounting it (writable) for that time if it is not.
    pub(super) fn with_mounted<T>(
        &self,
        place: &Place<'_>,
        image: &Image,
        files: &Files,
        work: impl FnOnce(&LoopHandle, &Path) -> Result<T>,
    ) -> Result<T> {
        let was_mounted = mounts::at(place.mountpoint)?.is_some();
        let device = self.device(place, image, files)?;
        if !was_mounted {
            self.mount(place, image, device.path(), false)?;
        }
        let done = work(&device, place.mountpoint);
        if !was_mounted {
            self.unmount(place.mountpoint)?;
        }
        done
    }

    /// Grows the file system to its device, by the kernel alone, whether the volume is in use or not: its own growth is
    /// journaled, so that it can be interrupted like any other write. (resize2fs on an image that nobody uses needs no
    /// privilege, but killed half-way it leaves a file system that can't be mounted; its undo files, as of e2fsprogs 1.47.0,
    /// damage file systems with 1 KiB blocks.) Says whether there was anything to grow.
    pub(super) fn grow_file_system(&self, place: &Place<'_>, image: &Image, files: &Files) -> Result<bool> {
        self.with_mounted(place, image, files, |device, mountpoint| {
            self.announce(place, device, files)?;
            device.refresh_size()?;
            let before = linux::fs::space(mountpoint)?.total;
            match image.fs {
                FsKind::Ext4 => RESIZE2FS.run(&[device.path().as_os_str()], REPAIR)?,
                FsKind::Xfs => grow_xfs(mountpoint)?,
            };
            Ok(linux::fs::space(mountpoint)?.total > before)
        })
    }
}

/// A growth whose program was killed goes on in the kernel for a moment, and XFS allows one at a time.
fn grow_xfs(mountpoint: &Path) -> std::result::Result<Output, CommandError> {
    let begun = Instant::now();
    loop {
        match XFS_GROWFS.run(&[OsStr::new("-d"), mountpoint.as_os_str()], REPAIR) {
            Err(CommandError::Failed { stderr, .. })
                if stderr.contains("in progress already") && begun.elapsed() < ANOTHER_GROWTH =>
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            other => return other,
        }
    }
}

/// ext4 grows only for a process with a capability that a container or a sandbox may lack.
pub(super) fn refuse_without_capability(fs: FsKind) -> Result<()> {
    if fs != FsKind::Ext4 || linux::host::has_cap_sys_resource()? {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "the kernel grows ext4 only for a process with CAP_SYS_RESOURCE, which this daemon lacks".into(),
        instead: "start the daemon with that capability (the packaged systemd unit has it), or use fs=xfs, which does not \
                  need it"
            .into(),
    })
}

/// Flags and data for `mount(2)`.
pub(super) fn mount_options(image: &Image, read_only: bool) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    // Deleted files give their space back to the pool; a thick image keeps what it has.
    let mut discard = image.provisioning == Provisioning::Thin;
    for option in image.mount_options.iter() {
        match MountFlags::from_option(option) {
            Some(flag) => flags |= flag,
            None if option == "discard" || option == "nodiscard" => discard = option == "discard",
            None => data.push(option.to_owned()),
        }
    }
    if discard {
        data.push("discard".to_owned());
    }
    if image.fs == FsKind::Xfs {
        // Which file it is has been checked already; a copy that someone mounted elsewhere must not keep the volume off.
        data.push("nouuid".to_owned());
    }
    if let Some(context) = &image.selinux {
        data.push(format!("context=\"{context}\""));
    }
    (flags, data.join(","))
}
