//! Bundles with the real file system: written of trees in use, damaged, interrupted, unpacked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "test code")]

mod damage;
mod gnu;
mod ground;
mod hostile;
mod images;
mod interrupted;
mod volumes;
mod writable;
