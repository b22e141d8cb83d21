//! The driver `image`: a sparse file with a file system inside, attached by the kernel's loop driver.
//!
//! Every read and write of a container goes through kernel code only: ext4 or XFS on a loop device in direct-I/O mode on
//! the host's file system. The loop device detaches by itself with its last user (autoclear), so that no crash of ours can
//! leak one; and before a device is made, the kernel is asked whether one exists for the same inode, so that an image is
//! never mounted through two of them.
//!
//! In the home: `image`, the file; `seed`, only while the file system is made. In the file system: `data`, what
//! holders see, so that a new volume is empty and `lost+found` is out of the way.

mod attach;
mod copy;
mod files;
mod make;

use crate::{Attached, Devices, Driver, Error, Observation, Place, Problem, Result, Usage};
use files::Files;
use linux::command::Tool;
use linux::{Change, loopdev, mounts};
use model::{DriverKind, DriverSpec, FsKind, Image, Provisioning, Size, Spec};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Images and file systems grow in steps of this.
const STEP: u64 = 1 << 20;
/// Below this, ext4 is made with small blocks, as 4 KiB ones would leave no room.
const SMALL: Size = Size::from_mib(16);
/// Below this, ext4 makes no journal.
const JOURNAL_FROM: Size = Size::from_mib(8);

const ON_ANOTHER_FILE: &str = "the running volume is on another file, which this name no longer leads to";

/// Volumes in image files.
pub struct ImageDriver {
    tool_deadline: Duration,
    devices: Arc<dyn Devices>,
}

impl ImageDriver {
    /// `tool_deadline`: how long mkfs, e2fsck and their like may take. `devices`: who is told of loop devices.
    pub fn new(tool_deadline: Duration, devices: Arc<dyn Devices>) -> Self {
        Self { tool_deadline, devices }
    }

    fn run(&self, tool: Tool, arguments: &[&std::ffi::OsStr]) -> Result<linux::command::Output> {
        Ok(tool.run(arguments, self.tool_deadline)?)
    }
}

/// The image's own settings.
fn image<'a>(place: &Place<'a>) -> Result<&'a Image> {
    match &place.spec.driver {
        DriverSpec::Image(image) => Ok(image),
        other => Err(Error::Unsupported {
            what: format!("the driver image was given a volume of driver {}", other.kind()),
            instead: "report this as a bug".into(),
        }),
    }
}

impl Driver for ImageDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Image
    }

    fn admit(&self, spec: Spec, _pool: &Path) -> Result<Spec> {
        let size = spec.size().unwrap_or_default().round_up(STEP);
        Ok(spec.with_size(size))
    }

    fn create(&self, place: &Place<'_>) -> Result<()> {
        self.make(place, image(place)?)
    }

    fn attach(&self, place: &Place<'_>) -> Result<Attached> {
        self.attach_image(place, image(place)?)
    }

    fn detach(&self, place: &Place<'_>) -> Result<Change> {
        self.unmount(place.mountpoint)
    }

    fn grow(&self, place: &Place<'_>, to: Size) -> Result<Change> {
        let image = image(place)?;
        attach::refuse_without_capability(image.fs)?;
        let mounted_read_only = mounts::at(place.mountpoint)?.is_some_and(|mount| mount.read_only());
        if mounted_read_only {
            return Err(Error::Unsupported {
                what: "a file system that is mounted read-only can't grow".into(),
                instead: "stop its containers, grow it, and start them again".into(),
            });
        }
        let files = Files::of(place);
        let file = files.open()?;
        let is = files.size(&file)?;
        if is < to
            && let Err(error) = lengthen(&file, &files.image, to, image.provisioning)
        {
            // The file system inside does not know of the new room yet; give it back to the pool.
            files.cut_back(&file, is);
            return Err(error);
        }
        let grown = self.grow_file_system(place, image, &files)?;
        Ok(if is < to || grown { Change::Done } else { Change::AlreadyThere })
    }

    fn destroy(&self, place: &Place<'_>) -> Result<Change> {
        self.unmount(place.mountpoint)?;
        self.refuse_while_on_loop(&Files::of(place))?;
        let half = Files::unfinished(place).remove()?;
        let whole = Files::of(place).remove()?;
        Ok(if half == Change::Done { half } else { whole })
    }

    fn usage(&self, place: &Place<'_>) -> Result<Usage> {
        let files = Files::of(place);
        let allocated = Some(linux::fs::allocated(&files.image)?);
        if !mounts::is_mount_point(place.mountpoint)? {
            return Ok(Usage { size: place.spec.size().map(Size::bytes), allocated, ..Usage::default() });
        }
        Usage::of_file_system(place.mountpoint, allocated)
    }

    fn observe(&self, place: &Place<'_>) -> Observation {
        let mut seen = Observation::default();
        if let Err(error) = self.look(place, &mut seen) {
            seen.problems.push(Problem { what: error.to_string(), next: error.next_step() });
        }
        seen
    }

    fn freezable(&self, place: &Place<'_>) -> Option<PathBuf> {
        let mounted = mounts::is_mount_point(place.mountpoint).unwrap_or(false);
        mounted.then(|| place.mountpoint.to_owned())
    }

    fn image_file(&self, place: &Place<'_>) -> Option<PathBuf> {
        Some(Files::of(place).image)
    }

    fn import(
        &self,
        place: &Place<'_>,
        fill: &mut dyn FnMut(&std::fs::File) -> std::result::Result<(), String>,
    ) -> Result<()> {
        self.import_image(place, image(place)?, fill)
    }

    fn check_copy(&self, place: &Place<'_>, copy: &Path) -> Result<Vec<String>> {
        self.check_image(image(place)?, copy, place.mountpoint)
    }
}

/// A device goes with its last user, and may have one for a moment: someone who looks through all of them.
const LOOP_GOES: Duration = Duration::from_secs(2);

impl ImageDriver {
    /// A last look before the image is deleted: whoever still has it would lose it.
    fn refuse_while_on_loop(&self, files: &Files) -> Result<()> {
        let Ok(file) = files.open() else { return Ok(()) };
        let begun = std::time::Instant::now();
        while let Some(device) = loopdev::find(&file)? {
            if begun.elapsed() > LOOP_GOES {
                return Err(Error::Refused {
                    what: format!("{} is still in use by {}", files.image.display(), device.path().display()),
                    instead:
                        "nothing was deleted; `everhold volume holders` and `losetup -j` show who has it"
                            .into(),
                });
            }
            // Our own handle is one of those users.
            drop(device);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn look(&self, place: &Place<'_>, seen: &mut Observation) -> Result<()> {
        let image = image(place)?;
        if image.fs == FsKind::Ext4 && image.size < JOURNAL_FROM {
            seen.notes.push(format!(
                "below {JOURNAL_FROM} ext4 has no journal: a crash costs a check at the next attach"
            ));
        }
        let mounted = mounts::at(place.mountpoint)?;
        if let Some(mount) = &mounted {
            seen.path = Some(files::data(place.mountpoint));
            seen.device = Some(PathBuf::from(&mount.source));
            if mount.read_only() && !place.spec.readonly {
                seen.problems.push(Problem {
                    what: "the kernel has made its file system read-only after an error".into(),
                    next: "stop its containers and start them again: the file system is checked when it is attached".into(),
                });
            }
        }
        let files = Files::of(place);
        let file = files.open()?;
        let found = loopdev::find(&file)?;
        if mounted.is_some() && found.is_none() {
            return Err(Error::Replaced { path: files.image, found: ON_ANOTHER_FILE.into() });
        }
        if let Some(device) = found {
            let direct = device.direct_io()?;
            seen.device = Some(device.path().to_owned());
            seen.direct_io = Some(direct);
            if !direct {
                seen.notes.push(
                    "the pool's file system does not allow direct I/O: data is cached twice, in the volume and in the pool".into(),
                );
            }
        }
        files.check_size(&file, image.size)?;
        files.check_identity(&file, place.uuid, image.fs).map(drop)
    }
}

/// Makes the file `to` bytes long.
fn lengthen(file: &std::fs::File, path: &Path, to: Size, provisioning: Provisioning) -> Result<()> {
    match provisioning {
        Provisioning::Thin => {
            Ok(file.set_len(to.bytes()).map_err(|source| files::failed("set length of", path, source))?)
        }
        Provisioning::Thick => Ok(linux::fs::allocate(file, to.bytes())?),
    }
}
