//! The built binary: a daemon of one's own and its command line, without Docker.
#![expect(clippy::unwrap_used, reason = "test code: a surprise ends the test")]

mod cli;
mod daemon;
mod host;
