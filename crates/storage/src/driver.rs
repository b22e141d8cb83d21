//! What every driver can do.

use crate::{Error, Result};
use linux::Change;
use model::{DriverKind, Size, Spec, VolumeId};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Everything a driver needs to know of one volume.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its identity.
    pub id: VolumeId,
    /// The UUID of the file system inside an image: the identity, or that of the volume it was cloned from.
    pub uuid: VolumeId,
    /// Its settings as recorded.
    pub spec: &'a Spec,
    /// The directory in the pool that belongs to this volume alone. The engine makes and removes it, and
    /// keeps the description file there; everything else inside is the driver's.
    pub home: &'a Path,
    /// Where the volume is mounted, if the driver mounts anything. The driver makes and removes this directory; its
    /// parent exists.
    pub mountpoint: &'a Path,
    /// The project that a quota counts, if the engine set one aside.
    pub project: Option<u32>,
}

/// A volume that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The directory that holders use.
    pub path: PathBuf,
    /// Whether anything had to be done.
    pub change: Change,
}

/// What a volume holds, from counters that are there anyway; never a walk of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes that the application can fill in all. `None`: no limit of its own.
    pub size: Option<u64>,
    /// Bytes in use as the application sees it. `None`: not known without a walk, or not mounted.
    pub used: Option<u64>,
    /// Bytes that the volume takes from its pool. `None`: not known without a walk.
    pub allocated: Option<u64>,
    /// Inodes in all and in use, where there is a limit.
    pub inodes: Option<(u64, u64)>,
}

impl Usage {
    /// Of a volume with a file system of its own, mounted at `mountpoint`.
    pub(crate) fn of_file_system(mountpoint: &Path, allocated: Option<u64>) -> Result<Self> {
        let space = linux::fs::space(mountpoint)?;
        Ok(Self {
            size: Some(space.total),
            used: Some(space.total.saturating_sub(space.free)),
            allocated,
            inodes: (space.files > 0).then(|| (space.files, space.files.saturating_sub(space.files_free))),
        })
    }
}

/// Something wrong with a volume, found by looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, with the path.
    pub what: String,
    /// What to do about it.
    pub next: String,
}

/// What can be seen of a volume, at no cost for its users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// Where it is attached on this host, if it is.
    pub path: Option<PathBuf>,
    /// The block device in use.
    pub device: Option<PathBuf>,
    /// Whether the loop device goes around the page cache. `None`: no loop device.
    pub direct_io: Option<bool>,
    /// What its user should know (lost on reboot, no journal, …).
    pub notes: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// A way to store volumes.
///
/// Every verb is idempotent and may be called again after it was interrupted at any point; each says whether it changed
/// anything. A verb that fails leaves what the same verb, or [`Driver::destroy`], can start from.
pub trait Driver: Send + Sync {
    /// Which driver this is.
    fn kind(&self) -> DriverKind;

    /// Checks that this host can do what `spec` asks, before anything is recorded, and returns the settings in
    /// their final form (sizes rounded to what will be, paths without symlinks).
    ///
    /// `pool` is the directory of the pool that the volume will live in.
    fn admit(&self, spec: Spec, pool: &Path) -> Result<Spec>;

    /// Makes the volume in its home. The new volume is empty and has the asked owner and mode; it is not attached.
    /// Durable when it returns.
    fn create(&self, place: &Place<'_>) -> Result<()>;

    /// Makes the volume usable at the returned path.
    fn attach(&self, place: &Place<'_>) -> Result<Attached>;

    /// Undoes [`Driver::attach`] once the last holder has gone. Where that ends a file system of the volume's own, what was
    /// written is durable when it returns; a plain directory keeps its host's promises, no more and no less.
    fn detach(&self, place: &Place<'_>) -> Result<Change>;

    /// Grows the volume to `to`, attached or not; `place.spec` still has the old size. Writers go on.
    fn grow(&self, place: &Place<'_>, to: Size) -> Result<Change>;

    /// Destroys the volume's data for good, and whatever an interrupted [`Driver::create`] left. The home is empty but
    /// for the description file when it returns. Data that the driver did not make (`path=`) is not touched.
    fn destroy(&self, place: &Place<'_>) -> Result<Change>;

    /// How full the volume is. Constant time.
    fn usage(&self, place: &Place<'_>) -> Result<Usage>;

    /// Looks at the volume and says what it finds. Never blocks on the volume's own file system.
    fn observe(&self, place: &Place<'_>) -> Observation;

    /// The mount point whose file system can be frozen on its own account, without touching any other volume;
    /// `None` where there is none. The volume is attached.
    fn freezable(&self, place: &Place<'_>) -> Option<PathBuf>;

    /// The file that holds all of the volume, block by block, if there is one: what a history is kept of.
    fn image_file(&self, place: &Place<'_>) -> Option<PathBuf> {
        let _no_blocks = place;
        None
    }

    /// Makes the volume in its home like [`Driver::create`], but with the content that `fill` writes into its image file. The file
    /// is new and empty, or is what an interrupted call left: `fill` empties it, or goes on if it can.
    fn import(
        &self,
        place: &Place<'_>,
        fill: &mut dyn FnMut(&File) -> std::result::Result<(), String>,
    ) -> Result<()> {
        let _never = fill;
        Err(Error::Unsupported {
            what: format!("a volume of driver {} is not made of blocks", place.spec.kind()),
            instead: "use driver image".into(),
        })
    }

    /// Checks the file system in `image`, a copy that nobody uses and that may be written to. Says what is wrong with it.
    fn check_copy(&self, place: &Place<'_>, image: &Path) -> Result<Vec<String>> {
        let _nothing = (place, image);
        Ok(Vec::new())
    }
}

/// Who wants to know of block devices before anything can write to them.
pub trait Devices: Send + Sync {
    /// The device (`st_rdev`) is the volume's from now on, and `bytes` long. Called before it is mounted, and before it grows.
    fn ready(&self, id: VolumeId, device: u64, bytes: u64);

    /// The image was changed in a way that its device does not show.
    fn changed_behind(&self, id: VolumeId);
}

/// Nobody does.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDevices;

impl Devices for NoDevices {
    fn ready(&self, _: VolumeId, _: u64, _: u64) {}
    fn changed_behind(&self, _: VolumeId) {}
}
