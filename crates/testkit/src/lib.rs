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
mod run;
mod s3;
mod sandbox;
mod wait;

pub use docker::{BUSYBOX, MARIADB, POSTGRES, REDIS};
pub use run::output_of;
pub use s3::{S3_BUCKET, S3_KEY, S3_SECRET, S3Fault, S3Server};
pub use sandbox::Sandbox;
pub use wait::{until, until_some};
