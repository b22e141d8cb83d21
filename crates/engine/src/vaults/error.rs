//! Why something with a vault failed. No text here has a secret in it.

use jiff::Timestamp;
use model::{BundleName, ErrorKind, VaultName};
use std::path::PathBuf;
use vault::bundles::BundleError;
use vault::claim::{ClaimError, Epoch, Writer};
use vault::descriptor::VaultError as FormatError;
use vault::keys::{KeyError, VaultId};
use vault::read::ReadError;
use vault::url::LocationError;
use vault::{StoreError, keys};

/// Why something with a vault failed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// No vault of that name is known.
    #[error("there is no vault {name}; vaults: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NoSuch {
        /// The name asked for.
        name: VaultName,
        /// The vaults that there are.
        known: Vec<String>,
    },
    /// The name is another vault's.
    #[error("the vault {name} is another one: it is at {url}")]
    OtherPlace {
        /// The name asked for.
        name: VaultName,
        /// Where the vault of that name is.
        url: String,
    },
    /// The vault is known under another name.
    #[error("{url}: this vault is known already, as {known}")]
    Known {
        /// The place asked for.
        url: String,
        /// Its name.
        known: VaultName,
    },
    /// There is a vault, and nothing was given to open it.
    #[error("{url}: there is a vault already ({id}, made {created:.0}), and no key was given to open it")]
    Locked {
        /// Where.
        url: String,
        /// Its id.
        id: VaultId,
        /// When it was made.
        created: Timestamp,
    },
    /// Volumes have their history in it.
    #[error("the history of {} is in the vault {name}", volumes.join(", "))]
    InUse {
        /// The vault.
        name: VaultName,
        /// The volumes.
        volumes: Vec<String>,
    },
    /// Nobody but this daemon could open it.
    #[error("nobody has a recovery kit of the vault {name}: forgotten here, it could never be opened again")]
    NoKit {
        /// The vault.
        name: VaultName,
    },
    /// It was added to be read only.
    #[error("the vault {name} was added with --read-only")]
    ReadOnly {
        /// The vault.
        name: VaultName,
    },
    /// Another host writes to it.
    #[error("{url}: {} (node {}) has been writing to the vault {name} since {:.0}{}", .by.host, .by.node, .by.since,
        if *.lost { "; it took the vault over from this host" } else { "" })]
    AnotherWriter {
        /// The vault.
        name: VaultName,
        /// Where it is.
        url: String,
        /// The other's epoch.
        epoch: Epoch,
        /// Who.
        by: Box<Writer>,
        /// Whether this host was the writer before.
        lost: bool,
    },
    /// It can't be claimed for another reason.
    #[error("the vault {name} can't be claimed for writing: {why}")]
    Claim {
        /// The vault.
        name: VaultName,
        /// In words.
        why: String,
    },
    /// It can't be reached.
    #[error("the vault {name} is not reachable since {since:.0}: {why}")]
    Unreachable {
        /// The vault.
        name: VaultName,
        /// Since when.
        since: Timestamp,
        /// In words.
        why: String,
    },
    /// The key that this host keeps can't be read.
    #[error("the key of the vault {name} in {}: {why}", path.display())]
    KeptKey {
        /// The vault.
        name: VaultName,
        /// The file.
        path: PathBuf,
        /// In words.
        why: String,
    },
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The vault has no bundle of that name.
    #[error("there is no bundle {name} in the vault {vault}{}", if *.damaged > 0 {
        format!(" ({damaged} in it can't be told the name of)") } else { String::new() })]
    NoBundle {
        /// The vault.
        vault: VaultName,
        /// The name asked for.
        name: BundleName,
        /// Bundles whose description can't be read.
        damaged: usize,
    },
    /// The vault has another bundle of that name.
    #[error("there is another bundle {name} in the vault {vault} already")]
    BundleExists {
        /// The vault.
        vault: VaultName,
        /// The name asked for.
        name: BundleName,
    },
    /// Another bundle is on its way into the vault or out of it.
    #[error("another bundle is being stored in the vault {vault}, or removed from it")]
    Shelving {
        /// The vault.
        vault: VaultName,
    },
    /// A file is not where files on their way are, or is not one.
    #[error("{}: {why}", path.display())]
    Spool {
        /// The file.
        path: PathBuf,
        /// In words.
        why: String,
    },
    /// There is no room for a bundle that is to be fetched.
    #[error("{}: there is room for {free} bytes, and the bundle has {needed}", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// What is free, without a reserve.
        free: u64,
        /// What is needed.
        needed: u64,
    },
    /// A bundle could not be stored or fetched.
    #[error("the bundle {name}: {source}")]
    Bundle {
        /// The bundle.
        name: BundleName,
        /// Why.
        source: BundleError,
    },
    /// The text is no URL of a vault.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// It can't be made or opened.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Its store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<KeyError> for VaultError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Store(error) => Self::Store(error),
            error => Self::Format(error.into()),
        }
    }
}

impl VaultError {
    pub(super) fn of_claim(name: &VaultName, error: ClaimError, lost: bool) -> Self {
        let name = name.clone();
        match error {
            ClaimError::Store(error) => Self::Store(error),
            ClaimError::Taken { url, epoch, by } => Self::AnotherWriter { name, url, epoch, by, lost },
            error @ (ClaimError::Unreadable { .. } | ClaimError::Hopeless { .. }) => {
                Self::Claim { name, why: error.to_string() }
            }
        }
    }

    /// Whether the vault can't be reached now, as far as that is known, and nothing else keeps this host from writing to it.
    pub(crate) fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Format(FormatError::NoVault { .. }))
            || self.store().is_some()
    }

    /// The store's own error, if that is what it is.
    pub(super) fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error)
            | Self::Bundle { source: BundleError::Vault(ReadError::Store(error)), .. }
            | Self::Format(FormatError::Store(error) | FormatError::Key(KeyError::Store(error))) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// The kind, for the table that maps errors to the outside.
    pub fn kind(&self) -> ErrorKind {
        if let Some(error) = self.store() {
            return match error {
                StoreError::NoSpace { .. } => ErrorKind::NoSpace,
                StoreError::NotFound { .. } => ErrorKind::Damaged,
                StoreError::Refused { .. } | StoreError::Failed { .. } => ErrorKind::Unavailable,
            };
        }
        match self {
            Self::NoSuch { .. } | Self::NoBundle { .. } => ErrorKind::NotFound,
            Self::BundleExists { .. } => ErrorKind::Conflict,
            Self::Shelving { .. } => ErrorKind::Busy,
            Self::Spool { .. } => ErrorKind::InvalidInput,
            Self::NoRoom { .. } => ErrorKind::NoSpace,
            Self::Bundle { source: BundleError::Vault(_), .. } => ErrorKind::Damaged,
            Self::Bundle { source: BundleError::File(error), .. } => match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
                _ => ErrorKind::Internal,
            },
            Self::OtherPlace { .. }
            | Self::Known { .. }
            | Self::AnotherWriter { .. }
            | Self::Claim { .. } => ErrorKind::Conflict,
            Self::InUse { .. } => ErrorKind::InUse,
            Self::NoKit { .. } => ErrorKind::Conflict,
            Self::Locked { .. } | Self::Invalid(_) | Self::Location(_) => ErrorKind::InvalidInput,
            Self::ReadOnly { .. } => ErrorKind::Forbidden,
            Self::Unreachable { .. } | Self::Store(_) => ErrorKind::Unavailable,
            Self::KeptKey { .. } => ErrorKind::Damaged,
            Self::Format(error) => match error {
                FormatError::Exists { .. } | FormatError::NotEmpty { .. } => ErrorKind::Conflict,
                FormatError::NoVault { .. } => ErrorKind::NotFound,
                FormatError::Later { .. } => ErrorKind::Unsupported,
                FormatError::Damaged { .. } => ErrorKind::Damaged,
                FormatError::Key(KeyError::Random | KeyError::Seal(_)) => ErrorKind::Internal,
                FormatError::Key(KeyError::Exchanged { .. }) => ErrorKind::Damaged,
                FormatError::Key(_) | FormatError::WrongKey { .. } => ErrorKind::InvalidInput,
                FormatError::Store(_) => ErrorKind::Unavailable,
            },
        }
    }

    /// What state the data is in after the failure.
    pub fn data_state(&self) -> &'static str {
        match self {
            Self::AnotherWriter { lost: true, .. } => {
                "what this host sent before the other came stays in the vault; nothing more is sent"
            }
            Self::Unreachable { .. } => "the volumes are untouched; what is in the vault is as it was",
            Self::KeptKey { .. } => "what is in the vault is as it was",
            Self::Bundle { .. } => {
                "no other bundle was touched; one that was not stored or fetched to the end is not there"
            }
            Self::Format(FormatError::Key(KeyError::Exchanged { .. })) => {
                "nothing was written, neither here nor there, and the vault is not known here"
            }
            _ => "nothing was changed",
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> String {
        if let Some(error) = self.store() {
            return match error {
                StoreError::NoSpace { .. } => "free space there, then try again".into(),
                StoreError::NotFound { .. } => "`everhold vault check NAME` says what is there".into(),
                StoreError::Refused { why, .. } if why.contains("NoSuchBucket") => {
                    "make the bucket first, or correct its name or endpoint, then try again".into()
                }
                StoreError::Refused { .. } => {
                    "see that the directory or bucket is there and that the credentials may read and write it \
                     (--credentials-file, --profile, or AWS_… in the daemon's environment), then try again"
                        .into()
                }
                StoreError::Failed { .. } => "see that it can be reached from this host, then try again".into(),
            };
        }
        match self {
            Self::NoSuch { .. } => "`everhold vault ls` lists the vaults; `everhold vault add` adds one".into(),
            Self::OtherPlace { name, .. } => {
                format!("choose another name, or forget that vault first with `everhold vault rm {name}`")
            }
            Self::Known { known, .. } => format!("use {known}"),
            Self::NoBundle { vault, .. } => format!("`everhold container ls vault:{vault}` lists the bundles"),
            Self::BundleExists { .. } => "choose another name, or remove that one first".into(),
            Self::Shelving { .. } => "try again when that is done".into(),
            Self::Spool { .. } => "`everhold container backup` and `restore` put files where they must be".into(),
            Self::NoRoom { .. } => "free space there, then try again".into(),
            Self::Bundle { source: BundleError::Vault(_), .. } => {
                "bring that object back from a version or copy of the store; `everhold vault check --deep` looks at all bundles".into()
            }
            Self::Bundle { source: BundleError::File(_), .. } => {
                "see that the state directory has space and its disk is well, then try again".into()
            }
            Self::Locked { .. } => {
                "give its recovery kit with --kit-file, or its passphrase with --passphrase-file; or choose an empty place".into()
            }
            Self::InUse { .. } => {
                "protect them to another vault, or not at all, first; what is in the trash counts until it is destroyed".into()
            }
            Self::NoKit { name } => format!("`everhold vault kit {name}` prints one; keep it, then try again"),
            Self::ReadOnly { name } => format!(
                "to write to it, add it again without --read-only: `everhold vault add {name} URL`"
            ),
            Self::AnotherWriter { name, url, .. } => format!(
                "a vault has one writer. If that host is gone for good, or must not write any more: `everhold vault add \
                 {name} '{url}' --take-over`. To only read: --read-only. If both shall write, give each a vault of its own"
            ),
            Self::Claim { name, .. } => {
                format!("`everhold vault check {name}`; if no other host writes to it, `everhold vault add {name} URL --take-over`")
            }
            Self::Unreachable { name, .. } => format!(
                "the daemon tries again by itself; `everhold vault check {name}` tries at once. Is its file system mounted, its server up?"
            ),
            Self::KeptKey { name, .. } => format!(
                "open it again with its recovery kit: `everhold vault rm {name}`, then `everhold vault add {name} URL --kit-file FILE`"
            ),
            Self::Invalid(_) | Self::Location(_) => "correct the request and try again".into(),
            Self::Format(error) => match error {
                FormatError::Exists { .. } => "give its recovery kit with --kit-file to open it, or choose an empty place".into(),
                FormatError::NotEmpty { .. } => "choose an empty directory, or another prefix".into(),
                FormatError::NoVault { .. } => {
                    "check the URL, and that its file system is mounted; to make a vault there, leave --kit-file, --identity-file and --read-only out".into()
                }
                FormatError::Later { .. } => "install a later Everhold".into(),
                FormatError::Damaged { .. } => {
                    "bring that object back from a version or copy of the store; the rest of the vault is not touched".into()
                }
                FormatError::WrongKey { .. } | FormatError::Key(KeyError::NoneOpens { .. } | KeyError::BadIdentity) => {
                    "give the recovery kit or passphrase of this vault; its first lines say which vault a kit is for".into()
                }
                FormatError::Key(KeyError::BadFingerprint { .. }) => {
                    "compare that line with the kit as it was printed; without the whole of it, another vault in the place of \
                     this one could not be told".into()
                }
                FormatError::Key(KeyError::Exchanged { .. }) => {
                    "if the kit was typed, compare its fingerprint with the printed one, and see that the kit is this vault's. If \
                     it is right, trust nothing that is there: find out who can write to that place, and bring the objects \
                     `everhold-vault` and `k/…` back from an earlier version or a copy of the store. `everhold vault check` says \
                     the fingerprint on a host that knows the vault".into()
                }
                FormatError::Key(keys::KeyError::ShortPassphrase(_) | KeyError::BadRecipient(..)) => {
                    "correct it and try again".into()
                }
                _ => "see the daemon's log, and report it".into(),
            },
            Self::Store(_) => String::new(),
        }
    }
}
