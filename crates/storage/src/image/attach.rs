//! Attaching an image: checked, on one loop device, mounted where the record says.

use super::ImageDriver;
use super::files::{self, Files, failed};
use crate::{Attached, Error, Place, Result};
use linux::Change;
use linux::command::{CommandError, Tool};
use linux::loopdev::{self, LoopHandle, LoopOptions};
use linux::mounts::{self, MountFlags};
use linux::superblock::Superblock;
use model::{FsKind, Image, Provisioning};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

const E2FSCK: Tool = Tool::new("e2fsck");
const RESIZE2FS: Tool = Tool::new("resize2fs");
const E2UNDO: Tool = Tool::new("e2undo");
const XFS_GROWFS: Tool = Tool::new("xfs_growfs");

/// Checking and resizing take as long as the volume is large, and end badly when they are cut off.
const REPAIR: Duration = Duration::from_secs(3600);
/// The block size of the loop device unless the file system's own is smaller.
const BLOCK: u32 = 4096;

impl ImageDriver {
    pub(super) fn attach_image(&self, place: &Place<'_>, image: &Image) -> Result<Attached> {
        let path = files::data(place.mountpoint);
        if let Some(mount) = mounts::at(place.mountpoint)? {
            let files = Files::of(place);
            if !loopdev::is_backed_by(mount.dev, &files.open()?)? {
                return Err(Error::Replaced { path: files.image, found: super::ON_ANOTHER_FILE.into() });
            }
            let left_writable = place.spec.readonly && !mount.read_only();
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
        self.undo_half_growth(files)?;
        let superblock = files.check_identity(&file, place.id, image.fs)?;
        let block_size = self.check_file_system(files, &superblock)?;
        let options = LoopOptions { read_only: false, direct_io: true, block_size };
        Ok(loopdev::find_or_attach(&file, &files.image, &options)?.0)
    }

    /// Repairs what can be repaired without a decision, and says which block size the loop device may have.
    ///
    /// XFS replays its log when it is mounted, and has nothing like `e2fsck -p`.
    fn check_file_system(&self, files: &Files, superblock: &Superblock) -> Result<u32> {
        let Superblock::Ext4(ext4) = superblock else { return Ok(BLOCK) };
        if ext4.needs_recovery || !ext4.clean || ext4.has_errors {
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

    /// Grows the file system to its device or file. Says whether there was anything to grow.
    pub(super) fn grow_file_system(&self, place: &Place<'_>, image: &Image, files: &Files) -> Result<bool> {
        let in_use = mounts::at(place.mountpoint)?.is_some() || loopdev::find(&files.open()?)?.is_some();
        // The kernel's own growth is journaled, and as good as any other write when it is interrupted.
        let by_kernel = in_use || linux::host::has_cap_sys_resource()?;
        if image.fs == FsKind::Ext4 && !by_kernel {
            return self.grow_ext4_file(files);
        }
        self.with_mounted(place, image, files, |device, mountpoint| {
            device.refresh_size()?;
            let before = linux::fs::space(mountpoint)?.total;
            match image.fs {
                FsKind::Ext4 => {
                    self.run(RESIZE2FS, &[device.path().as_os_str()]).map_err(explain_permission)?
                }
                FsKind::Xfs => self.run(XFS_GROWFS, &[OsStr::new("-d"), mountpoint.as_os_str()])?,
            };
            Ok(linux::fs::space(mountpoint)?.total > before)
        })
    }

    /// An ext4 that nobody uses grows in its file, with no mount and no privilege. What resize2fs overwrites is kept
    /// until it has finished: killed half-way, it leaves a file system that can't be mounted.
    fn grow_ext4_file(&self, files: &Files) -> Result<bool> {
        self.undo_half_growth(files)?;
        // resize2fs wants a file system that was checked since it was last mounted.
        self.check_ext4(files, &["-f", "-p"])?;
        let arguments = [OsStr::new("-z"), files.undo.as_os_str(), files.image.as_os_str()];
        let said = RESIZE2FS.run(&arguments, REPAIR)?;
        files.open()?.sync_all().map_err(|source| failed("fsync", &files.image, source))?;
        files::remove_file(&files.undo)?;
        Ok(!said.stderr.contains("Nothing to do"))
    }

    /// Takes back a growth that was interrupted, if one was. Nobody uses the volume.
    fn undo_half_growth(&self, files: &Files) -> Result<()> {
        if !files.undo.exists() {
            return Ok(());
        }
        // -f: the interrupted program did not finish the undo file either. What e2undo could not do, e2fsck shows.
        let arguments = [OsStr::new("-f"), files.undo.as_os_str(), files.image.as_os_str()];
        if let Err(error) = E2UNDO.run(&arguments, REPAIR) {
            tracing::warn!(path = %files.image.display(), %error, "while a growth was taken back");
        }
        self.check_ext4(files, &["-f", "-p"])?;
        files::remove_file(&files.undo)?;
        tracing::warn!(path = %files.image.display(), "took back a growth that had been interrupted");
        Ok(())
    }
}

/// ext4 grows under its users only for a process with a capability that a container or a service may lack.
fn explain_permission(error: Error) -> Error {
    match &error {
        Error::Tool(CommandError::Failed { stderr, .. }) if stderr.contains("Permission denied") => Error::Unsupported {
            what: "the kernel refuses to grow ext4 while it is in use: the daemon lacks CAP_SYS_RESOURCE".into(),
            instead: "start the daemon with that capability (the packaged systemd unit has it); or stop the volume's \
                      containers and grow it then; or use fs=xfs"
                .into(),
        },
        _ => error,
    }
}

/// Flags and data for `mount(2)`.
fn mount_options(image: &Image, read_only: bool) -> (MountFlags, String) {
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
