//! `everhold audit`: what would be lost.

use super::relocation::{engine, problem};
use super::{Outcome, Session};
use crate::config::{Config, Overrides};
use crate::output::{Output, Tone, plain};
use api::Client;
use api::v1::Problem;
use audit::facts::Protection;
use audit::{Finding, Report, Rules, Severity};
use containers::{Error, survey};
use docker::Api;
use model::ErrorKind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The user's own rules, read if they are there and no others are named.
const RULES: &str = "/etc/everhold/audit.toml";
/// The daemon is asked what it keeps; an audit does not wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What would be lost if containers were removed now. Exit code 1 when something would be.
#[derive(Debug, clap::Args)]
pub struct Audit {
    /// Only these containers, by name or ID, and their volumes
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Write the report as one HTML file too, for reading and printing
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Rules that add to the built-in ones or replace them [default: /etc/everhold/audit.toml if it is there]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

impl Audit {
    /// Looks and prints.
    pub fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        let config = super::load(&self.overrides, socket)?;
        let rules = rules(self.rules.as_deref()).map_err(problem)?;
        let api = engine(&config.docker_socket).map_err(problem)?;
        let report = look(&api, &config, &rules, &self.containers).map_err(problem)?;
        if let Some(path) = &self.html {
            std::fs::write(path, audit::html(&report)).map_err(|error| {
                Problem::new(
                    ErrorKind::InvalidInput,
                    format!("{}: {error}", path.display()),
                    "name a file that can be written",
                )
            })?;
        }
        session.out.show(&report, |out| say(out, &report))?;
        Ok(if report.would_lose() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn rules(path: Option<&Path>) -> Result<Rules, Error> {
    let wanted = path.is_some();
    let path = path.unwrap_or(Path::new(RULES));
    let wrong = |what: String| Error::new(ErrorKind::InvalidInput, what, "correct the file, then try again");
    match std::fs::read_to_string(path) {
        Ok(text) => Rules::with(&path.display().to_string(), &text).map_err(|error| wrong(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !wanted => {
            Rules::built_in().map_err(|error| wrong(error.to_string()))
        }
        Err(error) => Err(wrong(format!("{}: {error}", path.display()))),
    }
}

fn look(api: &Api, config: &Config, rules: &Rules, containers: &[String]) -> Result<Report, Error> {
    let driver = config.plugin_socket.file_stem().unwrap_or_default().to_string_lossy();
    let asked = survey::Asked {
        containers,
        rules,
        protection: protection(config),
        driver: &driver,
        now: engine::Clock::now(&engine::SystemClock),
    };
    Ok(audit::examine(&survey::survey(api, &asked)?, rules))
}

/// The directories of a container whose data would be lost with it.
pub fn at_stake(api: &Api, config: &Config, container: &str) -> Result<Vec<PathBuf>, Error> {
    let rules = rules(None)?;
    let report = look(api, config, &rules, &[container.to_owned()])?;
    // Data on a volume without a name is left behind, which comes to the same.
    let left = ["data-on-anonymous-volume", "volume-misses-data"];
    let lost = |finding: &&Finding| finding.severity == Severity::Loss || left.contains(&finding.code);
    let found = report.findings.iter().filter(lost).flat_map(|finding| &finding.rescue);
    let mut paths: Vec<PathBuf> = found.map(PathBuf::from).collect();
    paths.sort();
    // What lies in another goes with it.
    paths.dedup_by(|path, outer| path.starts_with(&*outer));
    Ok(paths)
}

/// What the daemon keeps of its volumes; `None` if it does not answer.
fn protection(config: &Config) -> Option<BTreeMap<String, Protection>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = Client::new(config.api_socket.clone()).with_patience(PATIENCE);
    let kept = runtime.block_on(client.protection()).ok()?;
    let known = kept.volumes.into_iter().map(|status| {
        let behind = status
            .trouble
            .or_else(|| status.newest_cut.is_none().then(|| "nothing of it is in the vault yet".to_owned()));
        (status.name, Protection::Protected { behind })
    });
    Some(known.collect())
}

fn say(out: &Output, report: &Report) {
    for line in audit::text(report) {
        let text = plain(&line.text);
        // A finding begins with its severity.
        let text = match (line.severity, text.split_once(':')) {
            (Some(severity), Some((word, rest))) => {
                let tone = match severity {
                    Severity::Loss => Tone::Bad,
                    Severity::Risk => Tone::Warn,
                    Severity::Advice | Severity::Note => Tone::Head,
                };
                format!("{}:{rest}", out.tone(word, tone))
            }
            _ => text,
        };
        out.line(&format!("{}{text}", "  ".repeat(line.indent)));
    }
}
