//! Several directories seen as one (overlayfs). It does not know whose layers they are.

use crate::{KernelError, Result, mounts};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Makes the layers, the uppermost first, readable as one tree, which is nowhere in the tree of mounts: it goes with the last
/// descriptor of it, also when this process is killed. What is in the layers must not change meanwhile.
///
/// `scratch`: a directory with a short path, for names of the layers; empty again afterwards. A kernel takes all options of a
/// mount in one page, and Docker's paths are 90 bytes a layer.
///
/// # Errors
/// What `mount(2)` says: `ENOENT` where a layer is gone, `ENODEV` without overlayfs.
pub fn union(layers: &[PathBuf], scratch: &Path) -> Result<OwnedFd> {
    let target = scratch.join("m");
    let names: Vec<PathBuf> = (0..layers.len()).map(|layer| scratch.join(layer.to_string())).collect();
    let made = || -> Result<OwnedFd> {
        std::fs::create_dir(&target).map_err(|source| KernelError::on("mkdir", &target, source))?;
        for (layer, name) in layers.iter().zip(&names) {
            symlink(layer, name).map_err(|source| KernelError::on("symlink", name, source))?;
        }
        // One layer alone is no union for the kernel; the mount point is as good as any empty directory.
        let lower: Vec<_> = names.iter().chain([&target]).map(|name| name.display().to_string()).collect();
        let data = format!("lowerdir={}", lower.join(":"));
        mounts::mount(Path::new("overlay"), &target, "overlay", mounts::MountFlags::RDONLY, &data)?;
        rustix::mount::open_tree(
            CWD,
            &target,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )
        .map_err(|errno| KernelError::on("open_tree", &target, errno))
    }();
    mounts::unmount_lazy(&target)?;
    for name in &names {
        if let Err(error) = std::fs::remove_file(name) {
            tracing::debug!(%error, name = %name.display(), "a layer's name stays");
        }
    }
    if let Err(error) = std::fs::remove_dir(&target) {
        tracing::debug!(%error, target = %target.display(), "a mount point stays");
    }
    made
}

/// A directory of an upper layer that has this hides the one of the same name in the layers below (the kernel's
/// `Documentation/filesystems/overlayfs.rst`).
const OPAQUE: &str = "trusted.overlay.opaque";

/// Makes those directories of `to` opaque that are in `from`. Both are upper layers; the latter is not mounted.
///
/// # Errors
/// What `getxattr(2)` and `setxattr(2)` say.
pub fn copy_opaque(from: &Path, to: &Path) -> Result<()> {
    let mut next = vec![PathBuf::new()];
    while let Some(inside) = next.pop() {
        let directory = from.join(&inside);
        let mut value = [0; 8];
        let read = rustix::fs::lgetxattr(&directory, OPAQUE, &mut value);
        if matches!(read, Ok(length) if length > 0) {
            let length = read.unwrap_or_default();
            rustix::fs::lsetxattr(
                to.join(&inside),
                OPAQUE,
                &value[..length],
                rustix::fs::XattrFlags::empty(),
            )
            .map_err(|errno| KernelError::on("setxattr", &to.join(&inside), errno))?;
        }
        let entries =
            std::fs::read_dir(&directory).map_err(|source| KernelError::on("opendir", &directory, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| KernelError::on("readdir", &directory, source))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && to.join(&inside).join(entry.file_name()).is_dir()
            {
                next.push(inside.join(entry.file_name()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn layers_are_one_tree_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str, file: &str| {
            let layer = dir.path().join(name);
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join(file), name).unwrap();
            std::fs::write(layer.join("both"), name).unwrap();
            layer
        };
        let scratch = dir.path().join("s");
        std::fs::create_dir(&scratch).unwrap();
        let layers = [layer("upper", "a"), layer("lower", "b")];
        let view = union(&layers, &scratch).unwrap();
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/fd/{}/{name}", view.as_raw_fd()));
        assert_eq!(
            (read("a").unwrap(), read("b").unwrap(), read("both").unwrap()),
            ("upper".into(), "lower".into(), "upper".into())
        );
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
        assert!(mounts::below(dir.path()).unwrap().is_empty(), "nothing is in the tree of mounts");

        let alone = union(&layers[..1], &scratch).unwrap();
        assert!(Path::new(&format!("/proc/self/fd/{}/a", alone.as_raw_fd())).exists());
        let error = union(&[dir.path().join("absent")], &scratch).unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
    }
}
