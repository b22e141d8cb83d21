//! Volumes in plain directories of the host, at the speed of the host's own file system.
//!
//! A volume of its own is `data` in its home, with a project quota where the host's file system counts projects.
//! A volume with `path=` is a directory that was there before Everhold and will be there after it: it is looked at, and
//! never made, changed or deleted.
//!
//! Nothing is mounted but a read-only volume, so most volumes are attached by being there.

mod host_path;
mod quota;

use crate::driver::{Attached, Driver, Observation, Place, Problem, Usage};
use crate::{Error, Result};
use host_path::HostPaths;
use linux::{Change, KernelError, mounts};
use model::{Dir, DriverKind, DriverSpec, Size, Spec};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind as Io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The volume's content, in its home.
const DATA: &str = "data";
/// The same while it is made: what has the name `data` is whole.
const DATA_NEW: &str = "data.new";

/// Volumes in plain directories.
#[derive(Debug)]
pub struct DirDriver {
    host_paths: HostPaths,
}

impl DirDriver {
    /// `path_roots`: where existing directories may be used with `path=`. `off_limits`: directories of Everhold's own,
    /// which `path=` must neither be in nor contain.
    pub fn new(path_roots: Vec<PathBuf>, off_limits: Vec<PathBuf>) -> Self {
        Self { host_paths: HostPaths::new(path_roots, off_limits) }
    }

    /// The volume's directory, looked at now.
    fn source(&self, place: &Place<'_>) -> Result<PathBuf> {
        match &settings(place.spec)?.path {
            Some(path) => {
                self.host_paths.still_the_same(path)?;
                Ok(path.clone())
            }
            None => {
                let data = place.home.join(DATA);
                if is_directory(&data)? { Ok(data) } else { Err(Error::Missing { path: data }) }
            }
        }
    }

    fn attach_read_only(&self, source: PathBuf, mountpoint: &Path) -> Result<Attached> {
        let path = mountpoint.to_owned();
        if let Some(mount) = mounts::at(mountpoint)? {
            if !is_same_directory(&source, mountpoint)? {
                return Err(Error::Replaced {
                    path,
                    found: "something else is mounted there, or its directory was made anew".into(),
                });
            }
            if mount.read_only() {
                return Ok(Attached { path, change: Change::AlreadyThere });
            }
            // A bind mount becomes read-only in a second step, which was interrupted.
            mounts::unmount(mountpoint)?;
        }
        make_directory(mountpoint)?;
        mounts::bind(&source, mountpoint, true)?;
        Ok(Attached { path, change: Change::Done })
    }

    fn look(&self, place: &Place<'_>, seen: &mut Observation) -> Result<()> {
        let dir = settings(place.spec)?;
        if dir.path.is_some() {
            seen.notes.push("a directory of the host, used in place: never deleted by Everhold".to_owned());
        } else if dir.size.is_some() {
            // ignore_hardlimit() in fs/quota/dquot.c
            seen.notes.push(
                "its size is a project quota, which guards against accidents and not against malice: on ext4 it does not bind processes \
                 with CAP_SYS_RESOURCE, and the owner of a file can take it out of the project"
                    .to_owned(),
            );
        }
        let source = self.source(place)?;
        if !place.spec.readonly {
            seen.path = Some(source);
            return Ok(());
        }
        let Some(mount) = mounts::at(place.mountpoint)? else { return Ok(()) };
        seen.path = Some(place.mountpoint.to_owned());
        if !is_same_directory(&source, place.mountpoint)? {
            let path = place.mountpoint.to_owned();
            return Err(Error::Replaced {
                path,
                found: "it shows another directory than the volume's".into(),
            });
        }
        if !mount.read_only() {
            seen.problems.push(Problem {
                what: format!("{} is writable, and the volume is read-only", place.mountpoint.display()),
                next: "attach it once more: it is mounted read-only then".into(),
            });
        }
        Ok(())
    }

    /// Removes what is in the home under this name, and nothing that a mount or a link in it leads to.
    fn remove(&self, path: &Path) -> Result<Change> {
        let kind = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == Io::NotFound => return Ok(Change::AlreadyThere),
            Err(error) => return Err(failed("stat", path, error)),
        };
        if !kind.is_dir() {
            fs::remove_file(path).map_err(|error| failed("unlink", path, error))?;
            return Ok(Change::Done);
        }
        refuse_mounts_below(path)?;
        linux::fs::remove_tree(path)?;
        Ok(Change::Done)
    }
}

/// Before the first file is deleted: half a volume is worth less than one that is refused whole.
fn refuse_mounts_below(path: &Path) -> Result<()> {
    // The kernel's table has real paths, and the pool's may lead through a link.
    let real = fs::canonicalize(path).map_err(|error| failed("resolve", path, error))?;
    let Some(mount) = mounts::below(&real)?.into_iter().next() else { return Ok(()) };
    Err(Error::Refused {
        what: format!(
            "{} is mounted inside the volume's directory; deleting the volume would delete what it shows",
            mount.target.display()
        ),
        instead: format!("nothing was deleted; `umount {}`, then try again", mount.target.display()),
    })
}

fn settings(spec: &Spec) -> Result<&Dir> {
    match &spec.driver {
        DriverSpec::Dir(dir) => Ok(dir),
        other => Err(Error::Unsupported {
            what: format!("the driver dir was given a volume of driver {}", other.kind()),
            instead: "report this as a bug".into(),
        }),
    }
}

fn failed(op: &'static str, path: &Path, source: std::io::Error) -> Error {
    KernelError { op, path: Some(path.to_owned()), source }.into()
}

/// Whether a directory is there.
///
/// # Errors
/// Something else is there, such as a link that leads out of the pool.
fn is_directory(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(metadata) => {
            let found = if metadata.is_symlink() { "a symbolic link" } else { "not a directory" };
            Err(Error::Replaced { path: path.to_owned(), found: found.into() })
        }
        Err(error) if error.kind() == Io::NotFound => Ok(false),
        Err(error) => Err(failed("stat", path, error)),
    }
}

fn is_same_directory(one: &Path, other: &Path) -> Result<bool> {
    let identity = |path: &Path| match fs::symlink_metadata(path) {
        Ok(metadata) => Ok((metadata.dev(), metadata.ino())),
        Err(error) => Err(failed("stat", path, error)),
    };
    Ok(identity(one)? == identity(other)?)
}

/// Makes a directory that only root can enter, unless it is there.
fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != Io::AlreadyExists => Err(failed("mkdir", path, error)),
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(|error| failed("fsync", directory, error))
}

impl Driver for DirDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Dir
    }

    fn admit(&self, mut spec: Spec, pool: &Path) -> Result<Spec> {
        settings(&spec)?;
        if let DriverSpec::Dir(dir) = &mut spec.driver {
            if let Some(path) = &mut dir.path {
                *path = self.host_paths.admit(path)?;
            }
            if let Some(size) = &mut dir.size {
                quota::admit(pool)?;
                *size = size.round_up(quota::BLOCK);
            }
        }
        Ok(spec)
    }

    fn create(&self, place: &Place<'_>) -> Result<()> {
        let dir = settings(place.spec)?;
        if dir.path.is_some() {
            return self.source(place).map(drop);
        }
        let (data, new) = (place.home.join(DATA), place.home.join(DATA_NEW));
        if is_directory(&data)? {
            return Ok(());
        }
        self.remove(&new)?;
        make_directory(&new)?;
        let owner = place.spec.owner;
        // chown clears the set-ID bits, so the mode comes second; and chmod knows no umask.
        chown(&new, Some(owner.uid), Some(owner.gid)).map_err(|error| failed("chown", &new, error))?;
        fs::set_permissions(&new, Permissions::from_mode(owner.mode.bits()))
            .map_err(|error| failed("chmod", &new, error))?;
        if let Some(size) = dir.size {
            quota::begin(&new, place.project, size)?;
        }
        sync(&new)?;
        fs::rename(&new, &data).map_err(|error| failed("rename", &new, error))?;
        sync(place.home)
    }

    fn attach(&self, place: &Place<'_>) -> Result<Attached> {
        let source = self.source(place)?;
        if place.spec.readonly {
            self.attach_read_only(source, place.mountpoint)
        } else {
            Ok(Attached { path: source, change: Change::AlreadyThere })
        }
    }

    fn detach(&self, place: &Place<'_>) -> Result<Change> {
        let change = mounts::unmount(place.mountpoint)?;
        match fs::remove_dir(place.mountpoint) {
            Err(error) if error.kind() != Io::NotFound => Err(failed("rmdir", place.mountpoint, error)),
            _ => Ok(change),
        }
    }

    fn grow(&self, place: &Place<'_>, to: Size) -> Result<Change> {
        if settings(place.spec)?.size.is_none() {
            return Err(Error::Unsupported {
                what: "a directory without a size limit can't grow".into(),
                instead: "it may take what its file system has; grow that".into(),
            });
        }
        quota::raise(&self.source(place)?, place.project, to)
    }

    fn destroy(&self, place: &Place<'_>) -> Result<Change> {
        let dir = settings(place.spec)?;
        // Not `detach`: what is about to be deleted need not be written out first.
        let unmounted = mounts::unmount(place.mountpoint)?;
        match fs::remove_dir(place.mountpoint) {
            Err(error) if error.kind() != Io::NotFound => {
                return Err(failed("rmdir", place.mountpoint, error));
            }
            _ => {}
        }
        if dir.path.is_some() {
            return Ok(unmounted);
        }
        let removed = [self.remove(&place.home.join(DATA_NEW))?, self.remove(&place.home.join(DATA))?];
        if dir.size.is_some() {
            quota::end(place.home, place.project)?;
        }
        if removed.contains(&Change::Done) {
            sync(place.home)?;
            return Ok(Change::Done);
        }
        Ok(unmounted)
    }

    fn usage(&self, place: &Place<'_>) -> Result<Usage> {
        let source = self.source(place)?;
        match settings(place.spec)?.size {
            Some(_) => quota::usage(&source, place.project),
            None => Ok(Usage::default()),
        }
    }

    fn observe(&self, place: &Place<'_>) -> Observation {
        let mut seen = Observation::default();
        if let Err(error) = self.look(place, &mut seen) {
            seen.problems.push(Problem { what: error.to_string(), next: error.next_step() });
        }
        seen
    }

    /// None: its file system has other volumes, and most likely the host itself.
    fn freezable(&self, _place: &Place<'_>) -> Option<PathBuf> {
        None
    }
}
