//! Volumes in memory, for what may be lost: the kernel's tmpfs, with a size, an owner and a mode.
//!
//! The content is the mount. It is mounted for the first holder and stays when the last one goes; it ends when the
//! volume is destroyed or the host reboots. Nothing is kept in the volume's home.

use crate::driver::{Attached, Driver, Observation, Place, Problem, Usage};
use crate::{Error, Result};
use linux::mounts::{self, MountFlags, MountInfo};
use linux::{Change, KernelError};
use model::{DriverKind, DriverSpec, Owner, Size, Spec, Tmpfs, VolumeId};
use std::fs;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

/// The kernel counts a tmpfs in pages. No architecture has larger ones by default, so that a multiple of this is a size
/// that it keeps as it is.
const LARGEST_PAGE: u64 = 64 << 10;

/// Present where the kernel enforces SELinux contexts.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// Volumes in memory.
#[derive(Debug, Default)]
pub struct TmpfsDriver(());

impl TmpfsDriver {
    /// The driver. It keeps nothing: the kernel's table of mounts says what is there.
    pub fn new() -> Self {
        Self(())
    }
}

fn settings(spec: &Spec) -> Result<&Tmpfs> {
    match &spec.driver {
        DriverSpec::Tmpfs(tmpfs) => Ok(tmpfs),
        other => Err(Error::Unsupported {
            what: format!("the driver tmpfs was given a volume of driver {}", other.kind()),
            instead: "report this as a bug".into(),
        }),
    }
}

fn failed(op: &'static str, path: &Path, source: std::io::Error) -> Error {
    KernelError { op, path: Some(path.to_owned()), source }.into()
}

/// The source in the table of mounts: a tmpfs has no device, so it tells whose it is.
fn source(id: VolumeId) -> String {
    format!("everhold-{id}")
}

/// The mount of this volume, if it is there.
fn mounted(place: &Place<'_>) -> Result<Option<MountInfo>> {
    match mounts::at(place.mountpoint)? {
        Some(mount)
            if mount.fstype == "tmpfs" && Path::new(&mount.source) == Path::new(&source(place.id)) =>
        {
            Ok(Some(mount))
        }
        Some(mount) => Err(Error::Replaced {
            path: place.mountpoint.to_owned(),
            found: format!("{:?} ({}) is mounted there", mount.source, mount.fstype),
        }),
        None => Ok(None),
    }
}

/// The flags of `mount(2)` for the options asked for.
///
/// # Errors
/// An option that only a file system on a disk has.
fn flags(tmpfs: &Tmpfs, readonly: bool) -> Result<MountFlags> {
    let mut flags = if readonly { MountFlags::RDONLY } else { MountFlags::empty() };
    for option in tmpfs.mount_options.iter() {
        flags |= MountFlags::from_option(option).ok_or_else(|| Error::Unsupported {
            what: format!("a tmpfs has no mount option `{option}`: it has no journal and no disk"),
            instead: "leave it out, or use driver=image".into(),
        })?;
    }
    Ok(flags)
}

/// The data of `mount(2)`. Everything in it is a number, or a context that can't end its quotes.
fn data(tmpfs: &Tmpfs, owner: Owner) -> Result<String> {
    let Owner { uid, gid, mode } = owner;
    let mut data = format!("size={},uid={uid},gid={gid},mode={:o}", tmpfs.size.bytes(), mode.bits());
    if let Some(context) = &tmpfs.selinux {
        // The settings may come from a description on disk, which the rules for options have never seen.
        let plain = |c: char| c.is_ascii_alphanumeric() || ":_-.,".contains(c);
        if !context.chars().all(plain) {
            return Err(Error::Refused {
                what: format!("{context:?} is not an SELinux context"),
                instead: "a context looks like system_u:object_r:container_file_t:s0".into(),
            });
        }
        data.push_str(&format!(",context=\"{context}\""));
    }
    Ok(data)
}

fn remove_mountpoint(mountpoint: &Path) -> Result<Change> {
    match fs::remove_dir(mountpoint) {
        Ok(()) => Ok(Change::Done),
        Err(error) if error.kind() == Io::NotFound => Ok(Change::AlreadyThere),
        Err(error) => Err(failed("rmdir", mountpoint, error)),
    }
}

impl Driver for TmpfsDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Tmpfs
    }

    fn admit(&self, spec: Spec, _pool: &Path) -> Result<Spec> {
        let tmpfs = settings(&spec)?;
        flags(tmpfs, spec.readonly)?;
        data(tmpfs, spec.owner)?;
        if tmpfs.selinux.is_some() && !Path::new(SELINUX).exists() {
            return Err(Error::Unsupported {
                what: "this host's kernel does not run SELinux, so a mount can't have a context".into(),
                instead: "leave `selinux` out".into(),
            });
        }
        Ok(spec.with_size(tmpfs.size.round_up(LARGEST_PAGE)))
    }

    fn create(&self, place: &Place<'_>) -> Result<()> {
        settings(place.spec).map(drop)
    }

    fn attach(&self, place: &Place<'_>) -> Result<Attached> {
        let tmpfs = settings(place.spec)?;
        let path = place.mountpoint.to_owned();
        if mounted(place)?.is_some() {
            return Ok(Attached { path, change: Change::AlreadyThere });
        }
        if let Err(error) = fs::create_dir(&path)
            && error.kind() != Io::AlreadyExists
        {
            return Err(failed("mkdir", &path, error));
        }
        let (flags, data) = (flags(tmpfs, place.spec.readonly)?, data(tmpfs, place.spec.owner)?);
        mounts::mount(Path::new(&source(place.id)), &path, "tmpfs", flags, &data)?;
        Ok(Attached { path, change: Change::Done })
    }

    /// Leaves it mounted: unmounting would be losing it.
    fn detach(&self, _place: &Place<'_>) -> Result<Change> {
        Ok(Change::AlreadyThere)
    }

    fn grow(&self, place: &Place<'_>, to: Size) -> Result<Change> {
        let tmpfs = settings(place.spec)?;
        if mounted(place)?.is_none() {
            // It is mounted with the size on record when somebody needs it.
            return Ok(Change::AlreadyThere);
        }
        if linux::fs::space(place.mountpoint)?.total >= to.bytes() {
            return Ok(Change::AlreadyThere);
        }
        // The flags are given again, as a remount sets all of them. The owner is not: it is the application's by now.
        let flags = flags(tmpfs, place.spec.readonly)?;
        let data = format!("size={}", to.bytes());
        mounts::remount(place.mountpoint, flags, &data)?;
        Ok(Change::Done)
    }

    fn destroy(&self, place: &Place<'_>) -> Result<Change> {
        let unmounted = match mounted(place)? {
            Some(_) => mounts::unmount(place.mountpoint)?,
            None => Change::AlreadyThere,
        };
        let removed = remove_mountpoint(place.mountpoint)?;
        Ok(if unmounted == Change::Done { unmounted } else { removed })
    }

    fn usage(&self, place: &Place<'_>) -> Result<Usage> {
        // Memory is not space of the pool.
        let allocated = Some(0);
        if mounted(place)?.is_none() {
            let size = Some(settings(place.spec)?.size.bytes());
            return Ok(Usage { size, used: None, allocated, inodes: None });
        }
        Usage::of_file_system(place.mountpoint, allocated)
    }

    fn observe(&self, place: &Place<'_>) -> Observation {
        let mut seen =
            Observation { notes: vec!["in memory: lost on reboot".to_owned()], ..Observation::default() };
        match mounted(place) {
            Ok(mount) => seen.path = mount.map(|_| place.mountpoint.to_owned()),
            Err(error) => seen.problems.push(Problem { what: error.to_string(), next: error.next_step() }),
        }
        seen
    }

    /// None: a tmpfs can't be frozen.
    fn freezable(&self, _place: &Place<'_>) -> Option<PathBuf> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Mode;

    fn tmpfs(options: &str, selinux: Option<&str>) -> Tmpfs {
        Tmpfs {
            size: Size::from_mib(1),
            mount_options: options.parse().unwrap(),
            selinux: selinux.map(str::to_owned),
        }
    }

    #[test]
    fn mount_data_holds_only_what_was_meant() {
        let owner = Owner { uid: u32::MAX - 1, gid: 0, mode: "7777".parse::<Mode>().unwrap() };
        assert_eq!(data(&tmpfs("", None), owner).unwrap(), "size=1048576,uid=4294967294,gid=0,mode=7777");
        let context = "system_u:object_r:container_file_t:s0:c1,c2";
        assert!(
            data(&tmpfs("", Some(context)), owner)
                .unwrap()
                .ends_with(",context=\"system_u:object_r:container_file_t:s0:c1,c2\"")
        );
        for odd in ["a:b:c\",size=1", "a:b:c\\", "a:b:c\n", "a:b:c\0", "a:b:ç", "a b:c:d"] {
            assert!(data(&tmpfs("", Some(odd)), owner).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn options_of_a_disk_are_refused() {
        assert!(flags(&tmpfs("noatime,nosuid,nodev,noexec", None), false).is_ok());
        for option in ["discard", "nodiscard", "commit=5", "data=journal"] {
            let error = flags(&tmpfs(option, None), false).unwrap_err();
            assert!(error.to_string().contains(option), "{error}");
        }
    }
}
