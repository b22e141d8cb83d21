//! The kernel, as Everhold uses it: loop devices, mounts, freezing, quotas, file systems, tracking and helper programs.
//!
//! This is the only room with `unsafe`, and all of it is in few small modules. It knows nothing of volumes: every function
//! takes paths and open files, does one thing, and says which system call failed on what.

pub mod command;
pub mod direct;
pub mod dirty;
mod error;
pub mod freeze;
pub mod fs;
pub mod grace;
pub mod host;
pub mod lock;
pub mod loopdev;
pub mod memory;
pub mod mounts;
pub mod overlay;
pub mod procs;
pub mod quota;
pub mod superblock;
mod sys;
pub mod track;

pub use error::{Change, KernelError, Result};
