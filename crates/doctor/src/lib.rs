//! What a good host looks like: looks at this one, and says for each point what it found, what would be better, why, and
//! the command to get there.
//!
//! It changes nothing on the host, and it knows neither the daemon's inside nor Docker's protocol: what these two
//! say is handed in with the [`Context`].
//!
//! Three steps, each in a module of its own: `facts` looks (the only part that reads files or asks the kernel), `checks`
//! judges (pure functions from facts to a finding), and `checks::TABLE` lists them all: **a new
//! check is a function and one entry there**, with a line in `tests/breaks.rs` that makes it complain.

mod checks;
mod context;
mod facts;
mod report;
#[cfg(test)]
mod tests;
mod version;

pub use context::{Context, DaemonFacts, DockerFacts, PoolPlace};
pub use report::{Check, Report, Verdict};

/// Looks at the host and judges it.
///
/// Takes milliseconds and never fails: what can't be seen is said to be unknown. Without root some facts are out of
/// sight, and the check `privileges` says so.
pub fn examine(context: &Context) -> Report {
    Report { checks: checks::judge(&facts::gather(context)) }
}
