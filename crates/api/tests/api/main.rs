//! The API over a real socket, with a real engine on drivers that only pretend.
#![expect(clippy::unwrap_used, reason = "test code: a surprise ends the test")]

// The name under which every other room knows it.
extern crate everhold_api as api;

mod abuse;
mod errors;
mod histories;
mod routes;
mod server;
mod stored;
mod vaults;
