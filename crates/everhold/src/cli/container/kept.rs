//! Backups in vaults: what the daemon is asked for.

use super::place::{Place, Spool};
use crate::cli::history::PATIENCE;
use crate::cli::{Outcome, Session};
use crate::config::{Config, Overrides};
use crate::output::human::{size, time};
use crate::output::progress::waiting;
use crate::output::{Table, plain};
use api::Client;
use api::v1::{self, FetchBundle, Problem, StoreBundle};
use containers::backup::BackedUp;
use jiff::Timestamp;
use model::{BundleName, ErrorKind, VaultName};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Backups in a vault
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// `vault`, or `vault:NAME`
    #[arg(default_value = "vault", value_name = "VAULT")]
    from: Place,
    #[command(flatten)]
    overrides: Overrides,
}

/// Remove a backup from a vault for good
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// `vault/BACKUP`, or `vault:NAME/BACKUP`
    #[arg(value_name = "BACKUP")]
    which: Place,
    /// Needed: it can't be brought back
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    overrides: Overrides,
}

fn wrong(detail: &str) -> Problem {
    Problem::new(ErrorKind::InvalidInput, detail, "correct the command and try again")
}

/// Asks the daemon, and waits as long as it takes.
fn ask<T>(what: &str, question: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Problem::new(ErrorKind::Internal, format!("no runtime: {error}"), "free memory, then try again")
    })?;
    runtime.block_on(waiting(what, question))
}

fn client(config: &Config) -> Client {
    Client::new(config.api_socket.clone()).with_patience(PATIENCE)
}

/// A vault that a backup is to be put into.
pub struct Target {
    vault: VaultName,
    name: Option<BundleName>,
    client: Client,
    spool: Spool,
}

impl Target {
    /// Also sees that it can be reached, before any container is paused for it.
    pub fn new(config: &Config, vault: VaultName, name: Option<BundleName>) -> Result<Self, Problem> {
        let client = client(config);
        let there = ask("looking at the vault", client.bundles(vault.as_str()))?;
        if let Some(name) = name.as_ref().filter(|name| there.bundles.iter().any(|b| b.name == name.as_str()))
        {
            let detail = format!("there is a bundle {name} in the vault {vault} already");
            return Err(Problem::new(ErrorKind::Conflict, detail, "choose another name")
                .with_data_state("nothing was changed"));
        }
        Ok(Self { vault, name, client, spool: Spool::new(config)? })
    }

    /// Where the backup is to be made.
    pub fn file(&self) -> PathBuf {
        self.spool.file()
    }

    /// Puts it into the vault, and says its name there.
    pub fn store(self, made: &BackedUp, project: Option<&str>) -> Result<String, Problem> {
        let of = project.or(made.containers.first().map(String::as_str)).unwrap_or("backup");
        let name = self.name.map_or_else(|| bundle_name(of, made.instant), |name| name.to_string());
        let request = StoreBundle {
            name,
            path: self.spool.file().display().to_string(),
            instant: made.instant,
            containers: made.containers.clone(),
        };
        let stored = ask("storing", self.client.store_bundle(self.vault.as_str(), &request))?;
        Ok(format!("vault:{}/{}", self.vault, stored.bundle.name))
    }
}

/// Of whom, and of when; two of one millisecond are of one name, and the second is refused.
fn bundle_name(of: &str, instant: Timestamp) -> String {
    let short: String = of.chars().take(80).collect();
    format!("{short}-{}", instant.strftime("%Y%m%dT%H%M%S.%3fZ"))
}

/// A bundle in the file system: a file that lies there, or one that was fetched and goes again.
pub struct Source {
    /// The file.
    pub file: PathBuf,
    _spool: Option<Spool>,
}

impl Source {
    /// That file itself.
    pub fn of_file(file: PathBuf) -> Self {
        Self { file, _spool: None }
    }

    /// Of this place.
    pub fn new(place: Place, config: &Config) -> Result<Self, Problem> {
        let (vault, name) = match place {
            Place::File(file) => return Ok(Self::of_file(file)),
            Place::Vault(vault, Some(name)) => (vault, name),
            Place::Vault(vault, None) => {
                return Err(wrong(&format!(
                    "which backup? `everhold container ls vault:{vault}` lists them"
                )));
            }
        };
        let spool = Spool::new(config)?;
        let request = FetchBundle { path: spool.file().display().to_string() };
        let client = client(config);
        ask("fetching", client.fetch_bundle(vault.as_str(), name.as_str(), &request))?;
        Ok(Self { file: spool.file(), _spool: Some(spool) })
    }
}

impl Ls {
    /// Runs it.
    pub fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        let config = crate::cli::load(&self.overrides, socket)?;
        let Place::Vault(vault, None) = self.from else {
            return Err(wrong("backups are listed of a vault: `vault`, or `vault:NAME`"));
        };
        let client = client(&config);
        let listed = ask("listing the vault", client.bundles(vault.as_str()))?;
        session.out.show(&listed, |out| {
            out.table(&table(&listed), "There are no backups in this vault.");
            listed.problems.iter().for_each(|problem| out.note(&plain(problem)));
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(listed: &v1::Bundles) -> Table {
    let mut table = Table::new(["BACKUP", "INSTANT", "CONTAINERS", "SIZE", "STORED"]);
    for bundle in &listed.bundles {
        table.row([
            format!("vault:{}/{}", listed.vault, bundle.name),
            time(bundle.instant),
            plain(&bundle.containers.join(", ")),
            size(Some(bundle.size)),
            size(Some(bundle.stored)),
        ]);
    }
    table
}

impl Rm {
    /// Runs it.
    pub fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        let config = crate::cli::load(&self.overrides, socket)?;
        let Place::Vault(vault, Some(name)) = self.which else {
            return Err(wrong("which backup? `vault:NAME/BACKUP`; a file is removed with `rm`"));
        };
        if !self.yes {
            let detail = format!("the backup {name} would be removed from the vault {vault} for good");
            return Err(Problem::new(ErrorKind::InvalidInput, detail, "add `--yes`")
                .with_data_state("nothing was changed"));
        }
        let client = client(&config);
        let removed = ask("removing", client.remove_bundle(vault.as_str(), name.as_str()))?;
        session.out.show(&removed, |out| {
            out.line(&match &removed.bundle {
                Some(bundle) => format!("{} is removed from the vault {vault}.", plain(&bundle.name)),
                None => format!("There was no backup {name} in the vault {vault}."),
            });
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
