//! `everhold`: reads the command line, and goes where it says.

mod cli;
mod config;
mod daemon;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The guard must be ready before anything is frozen: it skips everything else.
    if std::env::args_os().nth(1).is_some_and(|word| word == "guard") {
        return cli::guard::run();
    }
    cli::run()
}
