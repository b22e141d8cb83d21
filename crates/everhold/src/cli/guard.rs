//! `everhold guard`: the process that thaws what the daemon froze, should the daemon die.

use std::io;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Serves the daemon's orders on standard input until it ends.
pub fn run() -> ExitCode {
    // A Ctrl-C or a service manager's SIGTERM to the whole group must not end the guard before it has thawed: with
    // a handler that nobody asks, these signals do nothing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let handlers = runtime.as_ref().map(|runtime| {
        let _entered = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    });
    if handlers.is_err() || handlers.is_ok_and(|handlers| handlers.iter().any(Result::is_err)) {
        return ExitCode::FAILURE;
    }
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    match engine::run_guard(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the guard's pipe");
            ExitCode::FAILURE
        }
    }
}
