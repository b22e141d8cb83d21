//! The REST API on a Unix socket: its wire types, its server, its client, its OpenAPI document and the metrics.
//!
//! It knows the engine's verbs and nothing of how they work. Every engine call runs on a thread that may block, with a
//! deadline; every error is answered as problem details (RFC 9457).

mod body;
mod client;
mod metrics;
mod openapi;
mod params;
mod problem;
mod routes;
mod serve;
mod socket;
mod stall;
mod state;
pub mod v1;

pub use client::Client;
pub use metrics::Metrics;
pub use openapi::openapi;
pub use serve::{Limits, router, serve, serve_with};
pub use socket::bind;
pub use state::AppState;
