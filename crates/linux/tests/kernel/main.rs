//! The room `linux` against the real kernel. Needs root, e2fsprogs, xfsprogs and util-linux.

// clippy.toml allows these in functions marked as tests, not in what the tests share.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod commands;
mod deletion;
mod direct;
mod files;
mod loops;
mod mounting;
mod processes;
mod sandbox;
mod tracking;
mod unseen;
