//! Images that are not made empty: from a history, or from another image.

use super::ImageDriver;
use super::attach::{E2FSCK, REPAIR, mount_options};
use super::files::{Files, failed};
use crate::{Error, Place, Result};
use linux::command::{CommandError, Tool};
use linux::loopdev::{self, LoopOptions};
use linux::mounts;
use model::{FsKind, Image, Provisioning};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

const XFS_REPAIR: Tool = Tool::new("xfs_repair");

impl ImageDriver {
    pub(super) fn import_image(
        &self,
        place: &Place<'_>,
        image: &Image,
        fill: &mut dyn FnMut(&File) -> std::result::Result<(), String>,
    ) -> Result<()> {
        let whole = Files::of(place);
        if whole.image.exists() {
            let file = whole.open()?;
            return whole.check_identity(&file, place.uuid, image.fs).map(drop);
        }
        let files = Files::unfinished(place);
        // What an interrupted one left is for `fill` to know.
        let file = files.make_or_open()?;
        fill(&file).map_err(|why| Error::Kernel(failed("fill", &files.image, io::Error::other(why))))?;
        // The record may ask for more room than the content had; the file system grows into it when it is asked to.
        let is = files.size(&file)?;
        if is < image.size {
            super::lengthen(&file, &files.image, image.size, image.provisioning)?;
        } else if image.provisioning == Provisioning::Thick {
            linux::fs::allocate(&file, is.bytes())?;
        }
        file.sync_all().map_err(|source| failed("fsync", &files.image, source))?;
        files.check_identity(&file, place.uuid, image.fs)?;
        files.finish(&whole)?;
        Ok(linux::fs::sync_dir(place.home)?)
    }

    /// Mounts the copy once, as the first attach would: that replays what a frozen file system leaves to its next mount
    /// (files that were open and had no name any more). Then the checker reads all of it, and changes nothing.
    pub(super) fn check_image(&self, image: &Image, copy: &Path, mountpoint: &Path) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        let at = copy.with_extension("mnt");
        match fs::create_dir(&at) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create directory", &at, source).into());
            }
            _ => {}
        }
        debug_assert_ne!(at, mountpoint, "never the volume's own");
        if let Err(error) = mount_once(image, copy, &at) {
            problems.push(format!("it can't be mounted: {error}"));
        }
        fs::remove_dir(&at).map_err(|source| failed("rmdir", &at, source))?;
        let checked = match image.fs {
            FsKind::Ext4 => E2FSCK.run(&[OsStr::new("-fn"), copy.as_os_str()], REPAIR),
            FsKind::Xfs => XFS_REPAIR.run(&[OsStr::new("-n"), OsStr::new("-f"), copy.as_os_str()], REPAIR),
        };
        match checked {
            Ok(_) => {}
            Err(CommandError::Failed { stdout, stderr, .. }) => {
                problems.push(format!("the file system has errors: {} {}", stdout.trim(), stderr.trim()));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(problems)
    }
}

fn mount_once(image: &Image, copy: &Path, at: &Path) -> Result<()> {
    let file =
        File::options().read(true).write(true).open(copy).map_err(|source| failed("open", copy, source))?;
    let options = LoopOptions { read_only: false, direct_io: true, block_size: 512 };
    let (device, _) = loopdev::find_or_attach(&file, copy, &options)?;
    let (flags, data) = mount_options(image, false);
    mounts::mount(device.path(), at, image.fs.as_str(), flags, &data)?;
    mounts::unmount(at)?;
    Ok(())
}
