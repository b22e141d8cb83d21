//! Why a verb failed: what, what state the data is in, and what to do next.

use linux::KernelError;
use model::{Difference, ErrorKind, OptionError, PoolName, Size, SpecError, VaultName, VolumeName};
use std::path::PathBuf;
use std::time::Duration;
use vault::format::StreamId;

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No live volume of that name.
    #[error("there is no volume {name}{}", if *in_trash { " (one of that name is in the trash)" } else { "" })]
    NoVolume {
        /// The name asked for.
        name: String,
        /// Whether the trash has one.
        in_trash: bool,
    },
    /// Nothing of that name or ID in the trash.
    #[error("there is nothing named {0} in the trash")]
    NotInTrash(String),
    /// Several trashed volumes have that name.
    #[error("{} removed volumes are named {name}: {}", ids.len(), ids.join(", "))]
    SeveralInTrash {
        /// The name asked for.
        name: String,
        /// Their IDs, newest first.
        ids: Vec<String>,
    },
    /// No such pool.
    #[error("there is no pool {name}; pools: {}", known.join(", "))]
    NoPool {
        /// The name asked for.
        name: PoolName,
        /// The pools that there are.
        known: Vec<String>,
    },
    /// The name is taken by a volume with other options.
    #[error("the volume {name} exists with other options: {}", list(differences))]
    OtherOptions {
        /// The name.
        name: VolumeName,
        /// Where they differ.
        differences: Vec<Difference>,
    },
    /// The name is taken.
    #[error("the name {0} is taken by another volume")]
    NameTaken(VolumeName),
    /// The directory of `path=` is another volume's.
    #[error("{} belongs to the volume {other} (or overlaps with it)", path.display())]
    PathTaken {
        /// The directory asked for.
        path: PathBuf,
        /// The volume that has it.
        other: VolumeName,
    },
    /// Holders are in the way.
    #[error("the volume {name} is in use by {}", holders.join(", "))]
    InUse {
        /// The volume.
        name: VolumeName,
        /// Who holds it.
        holders: Vec<String>,
        /// What was asked for that needs it free.
        verb: &'static str,
    },
    /// The volume is being brought back to a cut.
    #[error("the volume {name} is being restored to cut {point}: {how_far}")]
    Restoring {
        /// The volume.
        name: VolumeName,
        /// The cut.
        point: u64,
        /// How far it is, or why it does not go on.
        how_far: String,
    },
    /// The vault has no such history.
    #[error("the vault {vault} has no history of {which}{}", undescribed(*.unreadable))]
    NoHistory {
        /// The vault.
        vault: VaultName,
        /// The name or ID asked for.
        which: String,
        /// Histories of which it can't be told what they are of.
        unreadable: usize,
    },
    /// Several volumes had that name.
    #[error("the vault {vault} has {} histories of volumes named {name}: {}", ids.len(), ids.join(", "))]
    SeveralHistories {
        /// The vault.
        vault: VaultName,
        /// The name asked for.
        name: String,
        /// The IDs of the volumes.
        ids: Vec<String>,
    },
    /// Nobody knows how the volume was made whose history this is.
    #[error("what the history {stream} in the vault {vault} is of can't be told: {why}")]
    Undescribed {
        /// The vault.
        vault: VaultName,
        /// What stands for it in the vault.
        stream: StreamId,
        /// In words.
        why: String,
    },
    /// A new volume could not be filled to the end, and what is there is kept.
    #[error("the volume {name} is not restored to the end yet: {source}")]
    Unfinished {
        /// The volume.
        name: VolumeName,
        /// Why.
        source: Box<Error>,
    },
    /// Another verb is at work on the volume.
    #[error("the volume {name} is busy: {verb} has been at work for {} s", since.as_secs())]
    Busy {
        /// The volume.
        name: String,
        /// What is at work.
        verb: &'static str,
        /// For how long.
        since: Duration,
    },
    /// The pool may not promise more.
    #[error(
        "the pool {pool} may not promise {asked} more: {promised} of {limit} are promised ({total} × overcommit)"
    )]
    OverPromised {
        /// The pool.
        pool: PoolName,
        /// How much more was asked for.
        asked: Size,
        /// What is promised already.
        promised: Size,
        /// What may be promised.
        limit: Size,
        /// The size of its file system.
        total: Size,
    },
    /// One volume would be larger than its pool.
    #[error("{asked} is more than the whole pool {pool} has ({total})")]
    LargerThanPool {
        /// The pool.
        pool: PoolName,
        /// The size asked for.
        asked: Size,
        /// The size of the pool's file system.
        total: Size,
    },
    /// The pool is nearly full.
    #[error("the pool {pool} has {free} free and keeps {reserve} in reserve{}", if *held { "; its writers are held" } else { "" })]
    PoolFull {
        /// The pool.
        pool: PoolName,
        /// Free bytes.
        free: Size,
        /// What it keeps back.
        reserve: Size,
        /// Whether writers are being held.
        held: bool,
    },
    /// A volume can't become smaller.
    #[error("the volume {name} has {is}; shrinking it to {asked} is refused")]
    Shrink {
        /// The volume.
        name: VolumeName,
        /// Its size.
        is: Size,
        /// The size asked for.
        asked: Size,
    },
    /// The volume is in the state in which an undo failed.
    #[error("the volume {name} is fenced: {reason}")]
    Fenced {
        /// The volume.
        name: VolumeName,
        /// What failed.
        reason: String,
    },
    /// The request's options are wrong.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// The request is wrong in another way.
    #[error("{0}")]
    Invalid(String),
    /// A driver failed.
    #[error("{verb} of volume {name}: {source}")]
    Storage {
        /// The volume.
        name: VolumeName,
        /// What was being done.
        verb: &'static str,
        /// The driver's error.
        source: storage::Error,
        /// What state the data is in.
        state: &'static str,
    },
    /// The catalog can't be read or written.
    #[error("the catalog {}: {why}", path.display())]
    Catalog {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The catalog is damaged.
    #[error("the catalog {} is damaged: {why}", path.display())]
    CatalogDamaged {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another daemon has the state directory.
    #[error("another everhold daemon (pid {pid}) works on {}", state.display())]
    SecondDaemon {
        /// Its process ID.
        pid: u32,
        /// The state directory.
        state: PathBuf,
    },
    /// A cut or a restore failed.
    #[error(transparent)]
    History(#[from] history::Error),
    /// The kernel refused something outside of a driver.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Something with a vault.
    #[error(transparent)]
    Vault(Box<crate::VaultError>),
}

impl From<crate::VaultError> for Error {
    fn from(error: crate::VaultError) -> Self {
        Self::Vault(Box::new(error))
    }
}

fn undescribed(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " (of one history it can't be told what it is of)".to_owned(),
        count => format!(" (of {count} histories it can't be told what they are of)"),
    }
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<vault::read::ReadError> for Error {
    fn from(error: vault::read::ReadError) -> Self {
        Self::History(error.into())
    }
}

impl From<SpecError> for Error {
    fn from(error: SpecError) -> Self {
        Self::Options(error.into())
    }
}

/// Whether a file could not be written because there is no room for it.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

const UNTOUCHED: &str = "nothing was changed";

impl Error {
    /// The kind, for the table that maps errors to the outside.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoVolume { .. } | Self::NotInTrash(_) | Self::NoPool { .. } | Self::NoHistory { .. } => {
                ErrorKind::NotFound
            }
            Self::OtherOptions { .. }
            | Self::NameTaken(_)
            | Self::SeveralInTrash { .. }
            | Self::SeveralHistories { .. }
            | Self::PathTaken { .. } => ErrorKind::Conflict,
            Self::InUse { .. } => ErrorKind::InUse,
            Self::Busy { .. } | Self::Restoring { .. } => ErrorKind::Busy,
            Self::Unfinished { .. } => ErrorKind::Unavailable,
            Self::OverPromised { .. } | Self::LargerThanPool { .. } | Self::PoolFull { .. } => {
                ErrorKind::NoSpace
            }
            Self::Shrink { .. } => ErrorKind::Unsupported,
            Self::Fenced { .. } | Self::CatalogDamaged { .. } | Self::Undescribed { .. } => {
                ErrorKind::Damaged
            }
            Self::Options(_) | Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::Storage { source, .. } => source.kind(),
            Self::SecondDaemon { .. } => ErrorKind::Conflict,
            Self::Kernel(error) if error.is_no_space() => ErrorKind::NoSpace,
            Self::History(error) => match error {
                history::Error::Vault(vault::read::ReadError::Bad { .. }) | history::Error::NoWay { .. } => {
                    ErrorKind::Damaged
                }
                history::Error::Fenced { .. } => ErrorKind::Conflict,
                history::Error::SpoolFull { .. } => ErrorKind::NoSpace,
                history::Error::NeedsVault { .. } => ErrorKind::Unavailable,
                history::Error::File { source, .. } if is_full(source) => ErrorKind::NoSpace,
                history::Error::InUse
                | history::Error::Stopped
                | history::Error::Freeze(_)
                | history::Error::TooMuch { .. } => ErrorKind::Busy,
                _ => ErrorKind::Internal,
            },
            Self::Vault(error) => error.kind(),
            Self::Catalog { .. } | Self::Kernel(_) => ErrorKind::Internal,
        }
    }

    /// What state the data is in after the failure.
    pub fn data_state(&self) -> &'static str {
        match self {
            Self::Storage { state, .. } => state,
            Self::Vault(error) => error.data_state(),
            Self::Catalog { .. } => "the volumes' data is untouched; the last change may not be recorded",
            Self::CatalogDamaged { .. } => {
                "the volumes' data is untouched; each volume has its description beside it"
            }
            Self::Fenced { .. } => "the volume is kept as it is, and nothing more is done to it",
            Self::Undescribed { .. } => "its cuts are in the vault as they were",
            Self::Unfinished { .. } => {
                "what was restored so far is kept, and it goes on by itself; the volume can't be used before that"
            }
            _ => UNTOUCHED,
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> String {
        match self {
            Self::NoVolume { name, in_trash: true } => format!("`everhold trash restore {name}` brings it back"),
            Self::NoVolume { .. } => "`everhold volume ls` lists the volumes".into(),
            Self::NotInTrash(_) => "`everhold trash ls` lists what can be restored".into(),
            Self::SeveralInTrash { .. } => "give the ID of the one you mean (`everhold trash ls`)".into(),
            Self::NoHistory { vault, .. } => format!("`everhold vault histories {vault}` lists them"),
            Self::SeveralHistories { vault, .. } => {
                format!("give the ID of the one you mean; `everhold vault histories {vault}` says when each had its newest cut")
            }
            Self::Undescribed { stream, .. } => format!(
                "bring the object h/{stream}/about back from a version or a copy of the store; a host that still has the \
                 volume writes it anew when its daemon starts"
            ),
            Self::NoPool { .. } => "name one of the pools, or add [pool.NAME] to the configuration".into(),
            Self::OtherOptions { .. } => {
                "use it as it is (leave the options out), choose another name, or change it with `everhold volume grow|label`".into()
            }
            Self::NameTaken(name) => format!("choose another name, for example `--as {name}-2`"),
            Self::PathTaken { .. } => "use that volume, or give another directory".into(),
            Self::InUse { name, .. } => {
                format!("stop the holders and try again; `everhold volume holders {name}` shows them all")
            }
            Self::Restoring { name, .. } => {
                format!("wait for it (`everhold status` shows how far {name} is); if the vault can't be reached, `everhold vault check` says why")
            }
            Self::Unfinished { name, .. } => {
                format!("`everhold status` shows how far it is, `everhold vault check` what is wrong with the vault; `everhold volume rm {name}` gives it up")
            }
            Self::Busy { .. } => "wait for it and try again; the daemon's log says what it is doing".into(),
            Self::OverPromised { .. } => {
                "ask for less, remove volumes, add space, or raise `overcommit` of the pool in the configuration".into()
            }
            Self::LargerThanPool { .. } => "ask for less, or use another pool (`everhold pool ls`)".into(),
            Self::PoolFull { pool, held: true, .. } => {
                format!("free space on its file system; writers go on by themselves then, or at once with `everhold pool release {pool}`")
            }
            Self::PoolFull { .. } => "free space on its file system, or `everhold trash empty`".into(),
            Self::Shrink { .. } => {
                "make a smaller volume and copy the data: a file system can't be made smaller while it is in use, and a \
                 mistake there loses data".into()
            }
            Self::Fenced { name, .. } => format!("see `everhold volume inspect {name}` and the daemon's log"),
            Self::Options(_) | Self::Invalid(_) => "correct the request and try again".into(),
            Self::Storage { source, .. } => source.next_step(),
            Self::Vault(error) => error.next_step(),
            Self::Catalog { .. } => "check that the state directory is writable and has space, then try again".into(),
            Self::CatalogDamaged { path, .. } => format!(
                "stop the daemon, keep a copy of {}, and rebuild it with `everhold recover --scan`",
                path.display()
            ),
            Self::SecondDaemon { pid, .. } => format!("stop process {pid} first, or give another state directory"),
            Self::History(error) => match error {
                history::Error::Vault(vault::read::ReadError::Bad { .. }) | history::Error::NoWay { .. } => {
                    "other cuts are not affected: `everhold history` lists them, `everhold verify` checks them".into()
                }
                history::Error::Fenced { .. } => {
                    "`everhold vault check` says who; `everhold vault add … --take-over` takes it back".into()
                }
                history::Error::SpoolFull { .. }
                | history::Error::NeedsVault { .. }
                | history::Error::Vault(_) => {
                    "`everhold vault check` says what is wrong with the vault; cuts go on by themselves once it is back".into()
                }
                history::Error::File { source, .. } if is_full(source) => {
                    "free space there (`everhold pool ls`, `everhold trash empty`), then try again".into()
                }
                _ => "it is tried again by itself; `everhold status` shows whether it keeps failing".into(),
            },
            Self::Kernel(error) if error.is_no_space() => {
                "free space there (`everhold pool ls`, `everhold trash empty`), then try again".into()
            }
            Self::Kernel(_) => "see `everhold doctor` and the kernel log (`dmesg`)".into(),
        }
    }

    /// All of it in one line: what failed, the state of the data, the next step.
    pub fn advice(&self) -> String {
        format!("{self}; {}. Next: {}", self.data_state(), self.next_step())
    }
}
