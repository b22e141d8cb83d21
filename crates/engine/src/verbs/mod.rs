//! The verbs, one file each. Every one of them claims the volume, records what it begins, works, and records the result;
//! every one can be asked for again.

mod attach;
mod create;
mod destroy;
mod detach;
mod grow;
mod label;
mod remove;
mod rename;
mod restore;
