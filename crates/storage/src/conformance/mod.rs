//! What every driver must prove, as a list of named checks that run on any [`Driver`].
//!
//! The checks know the trait and what its documentation promises, and nothing of how a driver keeps it. What they find
//! mounted or attached they read from the kernel themselves, not through the code under test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is test code: a check that does not hold panics"
)]

mod checks;
mod volume;

use crate::{Driver, Place};
use model::{Size, Spec, VolumeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

pub use checks::CHECKS;
pub use volume::{loops_below, mounts_below};

/// What the checks need to know of a driver and of the place where they may try it.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// An empty directory of the test's own, where every user may pass (mode 0711 or wider, its parents too).
    pub root: PathBuf,
    /// The settings of the volumes that are made. The owner should not be root: a quota does not bind root.
    pub spec: Spec,
    /// Makes an identity that was never used before; two file systems with one identity can't be mounted together.
    pub new_id: fn() -> VolumeId,
    /// The project that a quota may count.
    pub project: Option<u32>,
    /// What the driver promises beyond the trait.
    pub abilities: Abilities,
    /// What a killed [`Driver::create`] may leave.
    pub interruptions: Vec<Interruption>,
}

/// What differs between drivers, because the trait leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Files can be written at the attached path.
    pub files: bool,
    /// The size is a limit that the kernel enforces.
    pub limit: bool,
    /// The size that the volume can grow to. `None`: it has no size.
    pub grows_to: Option<Size>,
    /// This host lets it grow. If not, growing is refused and changes nothing.
    pub grows_here: bool,
    /// Attaching changes something, and so does detaching a volume that is attached.
    pub attaches: bool,
    /// [`Driver::detach`] undoes the attachment. If not, the volume stays attached until it is destroyed.
    pub detaches: bool,
    /// The volume is kept in its home, so that its loss can be noticed and a lost mount costs no data.
    pub kept_in_home: bool,
}

/// Something that a killed [`Driver::create`] may leave.
#[derive(Debug, Clone, Copy)]
pub struct Interruption {
    /// What was interrupted.
    pub name: &'static str,
    /// Leaves it in the home, at the mount point, or wherever the driver would.
    pub leave: fn(&Place<'_>),
}

/// One check: its name, and what panics if it does not hold.
pub type Check = (&'static str, fn(&dyn Driver, &Fixture));

/// Runs every check, each on volumes of its own, and looks after each for what it left behind.
///
/// # Panics
/// After the last check, with the name and the reason of all that failed.
pub fn run(driver: &dyn Driver, fixture: &Fixture) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            check(driver, fixture);
            volume::assert_nothing_left(&fixture.root);
        }));
        if let Err(panic) = outcome {
            let why = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("(no message)");
            failed.push(format!("{name}: {why}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} checks failed on {}:\n{}",
        failed.len(),
        CHECKS.len(),
        driver.kind(),
        failed.join("\n")
    );
}
