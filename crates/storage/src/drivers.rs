//! The drivers of this daemon.

use crate::{Devices, DirDriver, Driver, ImageDriver, SimDriver, TmpfsDriver};
use model::DriverKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One of each driver.
pub struct Drivers {
    image: Box<dyn Driver>,
    dir: Box<dyn Driver>,
    tmpfs: Box<dyn Driver>,
    sim: Box<dyn Driver>,
}

impl Drivers {
    /// The drivers for this host.
    ///
    /// `path_roots`: where existing directories may be used with `path=`. `tool_deadline`: how long a helper program
    /// such as mkfs may take. `devices`: who is told of block devices. `off_limits`: directories of Everhold's own, which `path=` must not reach.
    pub fn for_host(
        path_roots: Vec<PathBuf>,
        off_limits: Vec<PathBuf>,
        tool_deadline: Duration,
        devices: Arc<dyn Devices>,
    ) -> Self {
        Self {
            image: Box::new(ImageDriver::new(tool_deadline, devices)),
            dir: Box::new(DirDriver::new(path_roots, off_limits)),
            tmpfs: Box::new(TmpfsDriver::new()),
            sim: Box::new(SimDriver::new()),
        }
    }

    /// `driver` in every place: for tests that need no kernel.
    pub fn simulated(driver: &SimDriver) -> Self {
        let sim = || Box::new(driver.clone());
        Self { image: sim(), dir: sim(), tmpfs: sim(), sim: sim() }
    }

    /// A simulated driver in every place.
    pub fn all_sim() -> Self {
        Self::simulated(&SimDriver::new())
    }

    /// The driver of this kind.
    pub fn get(&self, kind: DriverKind) -> &dyn Driver {
        match kind {
            DriverKind::Image => &*self.image,
            DriverKind::Dir => &*self.dir,
            DriverKind::Tmpfs => &*self.tmpfs,
            DriverKind::Sim => &*self.sim,
        }
    }
}
