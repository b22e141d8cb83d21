//! A daemon and a Docker Engine of one's own, for tests and benchmarks with real parts.
//!
//! Everything lives below one directory and is taken down when the [`Sandbox`] is dropped, also by a failing test; what a
//! killed test run left behind is taken down by the next one.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test code: a surprise ends the test"
)]

mod daemon;
mod docker;
mod sandbox;
mod wait;

pub use docker::{BUSYBOX, POSTGRES};
pub use sandbox::Sandbox;
pub use wait::{until, until_some};
