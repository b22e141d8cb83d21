//! The routes, one file for each sort of thing.

pub(crate) mod attachments;
pub(crate) mod bundles;
pub(crate) mod daemon;
pub(crate) mod histories;
pub(crate) mod pools;
pub(crate) mod progress;
pub(crate) mod stored;
pub(crate) mod trash;
pub(crate) mod vaults;
pub(crate) mod volumes;
