//! Making the file system inside a new image: fast to make, and nothing left to do at the first mount.

use super::files::{self, Files, failed};
use super::{ImageDriver, SMALL, lengthen};
use crate::{Place, Result};
use linux::command::{CommandError, Tool};
use model::{FsKind, Image, Owner};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

const MKFS_EXT4: Tool = Tool::new("mkfs.ext4");
const MKFS_XFS: Tool = Tool::new("mkfs.xfs");

/// A directory with this owner and exactly this mode, whatever the umask.
fn make_owned(path: &Path, owner: Owner) -> Result<()> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(failed("create directory", path, source).into());
        }
        _ => {}
    }
    chown(path, Some(owner.uid), Some(owner.gid)).map_err(|source| failed("chown", path, source))?;
    // After chown, which clears the set-ID bits.
    let mode = fs::Permissions::from_mode(owner.mode.bits());
    Ok(fs::set_permissions(path, mode).map_err(|source| failed("chmod", path, source))?)
}

impl ImageDriver {
    pub(super) fn make(&self, place: &Place<'_>, image: &Image) -> Result<()> {
        let whole = Files::of(place);
        if whole.image.exists() {
            let file = whole.open()?;
            return whole.check_identity(&file, place.uuid, image.fs).map(drop);
        }
        let files = Files::unfinished(place);
        // An interrupted creation may have left it mounted, for its `data`.
        self.unmount(place.mountpoint)?;
        files.remove()?;
        let file = files.make()?;
        lengthen(&file, &files.image, image.size, image.provisioning)?;
        match image.fs {
            FsKind::Ext4 => self.make_ext4(place, image, &files)?,
            FsKind::Xfs => self.make_xfs(place, image, &files)?,
        }
        file.sync_all().map_err(|source| failed("fsync", &files.image, source))?;
        files.finish(&whole)?;
        Ok(linux::fs::sync_dir(place.home)?)
    }

    fn make_ext4(&self, place: &Place<'_>, image: &Image, files: &Files) -> Result<()> {
        // mke2fs copies the top directory in with its owner and mode, so that nothing has to be mounted.
        make_owned(&files.seed, Owner { uid: 0, gid: 0, mode: model::Mode::DEFAULT })?;
        make_owned(&files.seed.join("data"), place.spec.owner)?;
        let id = place.id.to_string();
        let block_size = if image.size < SMALL { "1024" } else { "4096" };
        // The file is new and reads as zeros, so inode tables and journal need not be zeroed now, nor by the kernel
        // after the first mount. e2fsprogs knows how to say so since 1.47; before, "lazy" is the next best.
        let make = |extended: &str| {
            let arguments = [
                "-q",
                "-F",
                "-m",
                "0",
                "-b",
                block_size,
                "-U",
                &id,
                "-e",
                "remount-ro",
                "-E",
                extended,
                "-d",
            ];
            let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
            all.extend([files.seed.as_os_str(), files.image.as_os_str()]);
            self.run(MKFS_EXT4, &all)
        };
        let made = match make("nodiscard,assume_storage_prezeroed=1") {
            Err(crate::Error::Tool(CommandError::Failed { stderr, .. })) if stderr.contains("prezeroed") => {
                make("nodiscard,lazy_itable_init=1,lazy_journal_init=1")
            }
            other => other,
        };
        made.map(drop)?;
        Ok(linux::fs::remove_tree(&files.seed)?)
    }

    fn make_xfs(&self, place: &Place<'_>, image: &Image, files: &Files) -> Result<()> {
        let uuid = format!("uuid={}", place.id);
        let arguments = ["-q", "-f", "-K", "-s", "size=4096", "-m", &uuid];
        let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        all.push(files.image.as_os_str());
        self.run(MKFS_XFS, &all)?;
        // mkfs.xfs can make the directory too, but not with every mode (no sticky bit).
        self.with_mounted(place, image, files, |_, mountpoint| {
            make_owned(&files::data(mountpoint), place.spec.owner)
        })
    }
}
