//! This room on the real kernel. Needs root: for owners, devices, trusted attributes and mounts.

// clippy.toml allows these in functions marked as tests, not in what the tests share.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod change;
mod compare;
mod ground;
mod mirror;
mod walk;
mod xattrs;
