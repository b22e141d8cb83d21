//! The words of Everhold as types: names, sizes, labels, options, volumes and error kinds, with the rules
//! that hold between them.
//!
//! Pure: no clock, no randomness, no file system, no runtime. Whoever calls hands those in.

mod autogrow;
mod error;
mod label;
mod moment;
mod mount_options;
mod name;
mod options;
mod percent;
mod protection;
mod retention;
mod size;
mod spec;
mod time_span;
mod volume;

pub use autogrow::AutoGrow;
pub use error::ErrorKind;
pub use label::{LabelError, Labels, check_label};
pub use moment::{At, MomentError};
pub use mount_options::MountOptions;
pub use name::{BundleName, GroupName, NameError, PoolName, SnapshotName, VaultName, VolumeName};
pub use options::{Difference, KNOWN_OPTIONS, OptionError, Options, UserRef};
pub use percent::Percent;
pub use protection::{Interval, Protection};
pub use retention::{Keep, Tier};
pub use size::{Size, SizeError};
pub use spec::{
    Defaults, Dir, DriverKind, DriverSpec, FsKind, Image, Mode, Owner, Provisioning, Sim, Spec, SpecError,
    Tmpfs,
};
pub use time_span::{TimeSpan, TimeSpanError};
pub use volume::{Access, Attachment, HolderKind, Intent, Life, Stopped, Trashed, Volume, VolumeId};
