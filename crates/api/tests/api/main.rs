//! The API over a real socket, with a real engine on drivers that only pretend.

// The name under which every other room knows it.
extern crate everhold_api as api;

mod abuse;
mod errors;
mod routes;
mod server;
