//! The volumes that data is moved to: what a relocation needs of them, whoever provides it.

use crate::error::Result;
use std::path::PathBuf;

/// Everhold's volumes, through its daemon.
pub trait Volumes {
    /// The driver's name, as Docker knows it.
    fn driver(&self) -> &str;

    /// Whether there is a volume of this name, also in the trash.
    ///
    /// # Errors
    /// The daemon's.
    fn exists(&self, name: &str) -> Result<bool>;

    /// How many bytes a new volume can take.
    ///
    /// # Errors
    /// The daemon's.
    fn room(&self) -> Result<u64>;

    /// Where new volumes are.
    ///
    /// # Errors
    /// The daemon's.
    fn place(&self) -> Result<Option<PathBuf>>;

    /// Makes a volume that can take so many bytes. That there is one is an error.
    ///
    /// # Errors
    /// The daemon's.
    fn create(&self, name: &str, bytes: u64) -> Result<()>;

    /// Makes it usable on this host. The same use twice is one.
    ///
    /// # Errors
    /// The daemon's.
    fn mount(&self, name: &str, r#use: &str) -> Result<PathBuf>;

    /// Ends that use. That there is no such use, or no such volume, is fine.
    ///
    /// # Errors
    /// The daemon's.
    fn unmount(&self, name: &str, r#use: &str) -> Result<()>;

    /// Moves it to the trash. That there is no such volume is fine.
    ///
    /// # Errors
    /// The daemon's.
    fn remove(&self, name: &str) -> Result<()>;

    /// Gives it another name.
    ///
    /// # Errors
    /// The daemon's.
    fn rename(&self, name: &str, to: &str) -> Result<()>;
}
