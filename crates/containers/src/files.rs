//! Where a container's files are on this host: its writable layer, and all of its layers as one tree.
//!
//! Looked at directly, and not through `docker cp`: engines give neither extended attributes nor holes in a tar, and no way to
//! ask for what has changed in a file.

use crate::container::Container;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where short-lived names are put.
const RUN: &str = "/run";

/// The layers of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// What the container has written.
    pub upper: PathBuf,
    /// The image's layers, the uppermost first, below one for files that the engine makes.
    pub lower: Vec<PathBuf>,
    /// Where the engine has all of them mounted while the container runs.
    merged: PathBuf,
}

/// Why a container's files can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Hidden {
    /// Layers of another kind.
    #[error("the engine keeps layers with its storage driver {driver}, and only overlay2 is understood")]
    Driver {
        /// The driver's name.
        driver: String,
    },
    /// The engine's directories are not here, or not for this user.
    #[error("{}: {source} (is the engine on this host, and is this user root?)", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The layers could not be put together.
    #[error("the layers of the container can't be seen as one: {0}")]
    Union(#[from] linux::KernelError),
}

impl Layers {
    /// The layers of this container.
    ///
    /// # Errors
    /// Another storage driver, or directories that this user can't read.
    pub fn of(container: &Container) -> Result<Self, Hidden> {
        let driver = &container.document()["GraphDriver"];
        let text = |key: &str| driver["Data"][key].as_str().filter(|text| !text.is_empty());
        let (Some(upper), Some(lower), Some(merged), Some("overlay2")) =
            (text("UpperDir"), text("LowerDir"), text("MergedDir"), driver["Name"].as_str())
        else {
            let name = driver["Name"].as_str().or(container.document()["Driver"].as_str());
            return Err(Hidden::Driver { driver: name.unwrap_or("of another kind").to_owned() });
        };
        let layers = Self {
            upper: upper.into(),
            lower: lower.split(':').map(PathBuf::from).collect(),
            merged: merged.into(),
        };
        match std::fs::read_dir(&layers.upper) {
            Ok(_) => Ok(layers),
            Err(source) => Err(Hidden::Unreadable { path: layers.upper, source }),
        }
    }

    /// Whether the image, or the engine, has this path of the container.
    pub fn in_image(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix("/").unwrap_or(path);
        self.lower.iter().map(|layer| layer.join(path)).find(|path| path.symlink_metadata().is_ok())
    }
}

/// All layers of a container as one tree, without what is mounted in the container.
#[derive(Debug)]
pub struct View {
    path: PathBuf,
    _union: Option<OwnedFd>,
}

impl View {
    /// What the container sees; live while it runs.
    ///
    /// # Errors
    /// The kernel's, where the layers of a container that does not run can't be put together.
    pub fn of(container: &Container, layers: &Layers) -> Result<Self, Hidden> {
        if container.is_running() && linux::mounts::is_mount_point(&layers.merged).unwrap_or_default() {
            return Ok(Self { path: layers.merged.clone(), _union: None });
        }
        let unreadable = |source| Hidden::Unreadable { path: RUN.into(), source };
        let scratch = tempfile::Builder::new().prefix("eh-").tempdir_in(RUN).map_err(unreadable)?;
        let all: Vec<PathBuf> = [&layers.upper].into_iter().chain(&layers.lower).cloned().collect();
        let union = linux::overlay::union(&all, scratch.path())?;
        Ok(Self { path: format!("/proc/self/fd/{}", union.as_raw_fd()).into(), _union: Some(union) })
    }

    /// Where a path of the container is on this host. Good for as long as the view is.
    pub fn at(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }
}
