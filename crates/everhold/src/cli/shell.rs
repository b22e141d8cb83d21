//! `everhold completions` and `everhold man`: what is made from the command line's own definition.

use super::{Cli, Outcome};
use crate::output::Output;
use api::v1::Problem;
use clap::CommandFactory;
use clap_complete::Shell;
use model::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

/// A completion script.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self, out: &Output) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "everhold", &mut script);
        out.raw(&String::from_utf8_lossy(&script));
        Ok(ExitCode::SUCCESS)
    }
}

/// Man pages.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Directory for the pages, one for each command
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl Man {
    /// Writes the pages.
    pub fn run(self) -> Outcome {
        clap_mangen::generate_to(Cli::command(), &self.dir).map_err(|error| {
            let detail = format!("man pages in {}: {error}", self.dir.display());
            Problem::new(ErrorKind::Internal, detail, "give a directory that is there and writable")
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
