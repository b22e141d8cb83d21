//! The built binary: a daemon of one's own and its command line, without Docker.

mod cli;
mod daemon;
mod host;
