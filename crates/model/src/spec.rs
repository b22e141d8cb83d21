//! What a volume is asked to be: the settings that hold for its whole life, with contradictions refused once, here.

use crate::{AutoGrow, Labels, MountOptions, PoolName, Protection, Size};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The smallest size of any volume.
const SMALLEST: Size = Size::from_mib(1);
/// `mkfs.xfs` refuses less (xfsprogs 5.19 and later).
const SMALLEST_XFS: Size = Size::from_mib(300);

/// How a volume is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// A sparse file with a file system inside, attached by the kernel's loop driver.
    Image,
    /// A plain directory.
    Dir,
    /// Memory: lost on reboot.
    Tmpfs,
    /// Nothing real, for tests.
    Sim,
}

/// The file system inside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsKind {
    /// ext4, the default.
    Ext4,
    /// XFS, from 300 MiB.
    Xfs,
}

/// When an image takes its space from the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// As blocks are written.
    Thin,
    /// All of it at creation: a full host disk can't stop its writers.
    Thick,
}

macro_rules! words {
    ($type:ident, $what:literal, $($word:literal => $variant:ident),+) => {
        impl $type {
            /// The word for it in options and output.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    other => Err(format!(concat!("{:?} is not a ", $what, ": use {}"), other, [$($word),+].join(", "))),
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
words!(DriverKind, "driver", "image" => Image, "dir" => Dir, "tmpfs" => Tmpfs, "sim" => Sim);
words!(FsKind, "file system", "ext4" => Ext4, "xfs" => Xfs);
words!(Provisioning, "way of provisioning", "thin" => Thin, "thick" => Thick);

/// Permission bits, `0` to `07777`, written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(u32);

impl Mode {
    /// The mode of a new volume unless asked otherwise.
    pub const DEFAULT: Self = Self(0o755);

    /// The bits as for `chmod(2)`.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        u32::from_str_radix(text.trim_start_matches("0o"), 8)
            .ok()
            .filter(|bits| *bits <= 0o7777)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a mode: write octal permission bits such as 0750"))
    }
}

impl TryFrom<String> for Mode {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> String {
        mode.to_string()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// Owner and mode of the top directory of a new volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Numeric user ID.
    pub uid: u32,
    /// Numeric group ID.
    pub gid: u32,
    /// Permission bits.
    pub mode: Mode,
}

/// Settings of an `image` volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Size of the image file, and so the limit of the volume.
    pub size: Size,
    /// The file system inside.
    pub fs: FsKind,
    /// Thin or thick.
    pub provisioning: Provisioning,
    /// Growth by itself, if asked for.
    pub autogrow: Option<AutoGrow>,
    /// Further mount options.
    pub mount_options: MountOptions,
    /// SELinux context of the mount.
    pub selinux: Option<String>,
}

/// Settings of a `dir` volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dir {
    /// The limit, kept by a project quota. `None`: as much as the pool has.
    pub size: Option<Size>,
    /// An existing host directory, used in place and never deleted.
    pub path: Option<PathBuf>,
}

/// Settings of a `tmpfs` volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// The limit.
    pub size: Size,
    /// Further mount options.
    pub mount_options: MountOptions,
    /// SELinux context of the mount.
    pub selinux: Option<String>,
}

/// Settings of a `sim` volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sim {
    /// The limit.
    pub size: Size,
}

/// The settings that only one driver knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DriverSpec {
    /// See [`Image`].
    Image(Image),
    /// See [`Dir`].
    Dir(Dir),
    /// See [`Tmpfs`].
    Tmpfs(Tmpfs),
    /// See [`Sim`].
    Sim(Sim),
}

/// What a volume is asked to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The driver and its own settings.
    pub driver: DriverSpec,
    /// Where the driver puts it.
    pub pool: PoolName,
    /// Owner and mode of its top directory at creation.
    pub owner: Owner,
    /// One holder at a time.
    pub exclusive: bool,
    /// Mounted read-only for every holder.
    pub readonly: bool,
    /// How its history is kept, if it has one. Only images can have one.
    #[serde(default)]
    pub protection: Option<Protection>,
    /// What people and policies say about it.
    pub labels: Labels,
}

/// What holds where a request is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The driver.
    pub driver: DriverKind,
    /// The pool.
    pub pool: PoolName,
    /// The size of an image.
    pub image_size: Size,
    /// The size of a tmpfs.
    pub tmpfs_size: Size,
    /// The file system of an image.
    pub fs: FsKind,
    /// Thin or thick.
    pub provisioning: Provisioning,
    /// Whether an image is protected. Other drivers never are by default.
    pub protect: bool,
    /// How a volume is protected, as far as the request does not say.
    pub protection: Protection,
}

/// Why settings do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// An option that the driver does not have.
    #[error("the option `{option}` does not go with driver={driver}: {why}")]
    NotWithDriver {
        /// The option's name.
        option: &'static str,
        /// The driver asked for (or the default).
        driver: DriverKind,
        /// What to do instead.
        why: &'static str,
    },
    /// Two options that exclude each other.
    #[error("`{one}` and `{other}` contradict each other: {why}")]
    Contradiction {
        /// One option.
        one: &'static str,
        /// The other option.
        other: &'static str,
        /// Why they exclude each other.
        why: &'static str,
    },
    /// Too small for what should be inside.
    #[error("size={asked} is too small: {what} needs at least {least}")]
    TooSmall {
        /// The size asked for.
        asked: Size,
        /// The smallest that works.
        least: Size,
        /// What needs it.
        what: &'static str,
    },
    /// A user or group that this host does not have.
    #[error("this host has no {what} named {name:?}: give a number, or a name that `getent` knows")]
    UnknownUser {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
    },
}

impl DriverSpec {
    /// Which driver it is for.
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Image(_) => DriverKind::Image,
            Self::Dir(_) => DriverKind::Dir,
            Self::Tmpfs(_) => DriverKind::Tmpfs,
            Self::Sim(_) => DriverKind::Sim,
        }
    }
}

impl Spec {
    /// Which driver stores it.
    pub fn kind(&self) -> DriverKind {
        self.driver.kind()
    }

    /// Its size limit; `None` where it may take all that the pool has.
    pub fn size(&self) -> Option<Size> {
        match &self.driver {
            DriverSpec::Image(image) => Some(image.size),
            DriverSpec::Dir(dir) => dir.size,
            DriverSpec::Tmpfs(tmpfs) => Some(tmpfs.size),
            DriverSpec::Sim(sim) => Some(sim.size),
        }
    }

    /// The same settings with another size.
    #[must_use]
    pub fn with_size(&self, size: Size) -> Self {
        let mut spec = self.clone();
        match &mut spec.driver {
            DriverSpec::Image(image) => image.size = size,
            DriverSpec::Dir(dir) => dir.size = Some(size),
            DriverSpec::Tmpfs(tmpfs) => tmpfs.size = size,
            DriverSpec::Sim(sim) => sim.size = size,
        }
        spec
    }

    /// The same settings with another protection, or none.
    #[must_use]
    pub fn with_protection(&self, protection: Option<Protection>) -> Self {
        Self { protection, ..self.clone() }
    }

    /// How its growth is ruled, if it grows by itself.
    pub fn autogrow(&self) -> Option<AutoGrow> {
        match &self.driver {
            DriverSpec::Image(image) => image.autogrow,
            _ => None,
        }
    }

    /// What it may take from its pool's space.
    pub fn promised(&self) -> Size {
        match &self.driver {
            DriverSpec::Image(image) => image.size,
            DriverSpec::Dir(dir) => dir.size.unwrap_or_default(),
            DriverSpec::Tmpfs(_) | DriverSpec::Sim(_) => Size::default(),
        }
    }

    /// Its space is taken as it is written, so a full pool would fail its writers.
    pub fn is_thin(&self) -> bool {
        matches!(&self.driver, DriverSpec::Image(image) if image.provisioning == Provisioning::Thin)
    }

    /// Every setting in the words of the options (`size`, `fs`, `label.env`, …).
    pub fn describe(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let mut put = |key: &str, value: String| out.insert(key.to_owned(), value);
        put("driver", self.kind().to_string());
        put("pool", self.pool.to_string());
        put("exclusive", self.exclusive.to_string());
        put("readonly", self.readonly.to_string());
        if let Some(size) = self.size() {
            put("size", size.bytes().to_string());
        }
        let in_place = matches!(&self.driver, DriverSpec::Dir(Dir { path: Some(_), .. }));
        if !in_place {
            put("uid", self.owner.uid.to_string());
            put("gid", self.owner.gid.to_string());
            put("mode", self.owner.mode.to_string());
        }
        match &self.driver {
            DriverSpec::Image(image) => {
                put("fs", image.fs.to_string());
                put("provisioning", image.provisioning.to_string());
                put("mount-options", image.mount_options.to_string());
                image.autogrow.map(|rule| put("autogrow", rule.to_string()));
                image.selinux.as_ref().map(|context| put("selinux", context.clone()));
                let off = || "off".to_owned();
                put("protect", self.protection.as_ref().map_or_else(off, |p| p.interval.to_string()));
                if let Some(protection) = &self.protection {
                    put("vault", protection.vault.to_string());
                    put("keep", protection.keep.to_string());
                    protection.group.as_ref().map(|group| put("group", group.to_string()));
                }
            }
            DriverSpec::Dir(dir) => {
                dir.path.as_ref().map(|path| put("path", path.display().to_string()));
            }
            DriverSpec::Tmpfs(tmpfs) => {
                put("mount-options", tmpfs.mount_options.to_string());
                tmpfs.selinux.as_ref().map(|context| put("selinux", context.clone()));
            }
            DriverSpec::Sim(_) => {}
        }
        for (key, value) in &self.labels {
            put(&format!("label.{key}"), value.clone());
        }
        out
    }

    /// Refuses sizes that no file system fits in.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        let too_small = |asked, least, what| Err(SpecError::TooSmall { asked, least, what });
        match &self.driver {
            DriverSpec::Image(image) if image.fs == FsKind::Xfs && image.size < SMALLEST_XFS => {
                too_small(image.size, SMALLEST_XFS, "xfs")
            }
            DriverSpec::Image(Image { size, autogrow: Some(rule), .. }) if rule.max < *size => {
                Err(SpecError::Contradiction {
                    one: "size",
                    other: "autogrow",
                    why: "its max is below the size that the volume starts with",
                })
            }
            _ => match self.size() {
                Some(size) if size < SMALLEST => too_small(size, SMALLEST, "a volume"),
                _ => Ok(()),
            },
        }
    }
}
