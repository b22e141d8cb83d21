//! How volumes are stored: the driver trait and one module for each driver.
//!
//! A driver turns one volume's settings into something that can be mounted. It knows nothing of names, of
//! the catalog, of who holds what, or of other volumes: the engine sees to that, and calls a driver for one volume
//! from one thread at a time.
//!
//! Adding a driver: a module here, an arm in [`model::DriverSpec`], a line in [`Drivers`], and the
//! conformance suite passes.

pub mod conformance;
mod dir;
mod driver;
mod drivers;
mod error;
mod image;
mod sim;
mod tmpfs;

pub use dir::DirDriver;
pub use driver::{Attached, Devices, Driver, NoDevices, Observation, Place, Problem, Usage};
pub use drivers::Drivers;
pub use error::{Error, Result};
pub use image::ImageDriver;
pub use sim::{SimDriver, Trouble, Verb};
pub use tmpfs::TmpfsDriver;
