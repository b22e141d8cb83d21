//! `everhold vault …`

use super::history::PATIENCE;
use super::{Outcome, Session, labels};
use crate::output::human::{size, time};
use crate::output::progress::waiting;
use crate::output::{Output, Table, Tone, plain};
use ::vault::url::{Location, LocationError};
use api::v1::{self, Problem, Secret, VaultAdd, VaultState};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use model::ErrorKind;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where histories are kept.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a vault in an empty place, or open the one that is there
    ///
    /// A new vault's recovery kit is printed on standard output, once: keep it elsewhere. Whoever has it and can
    /// read the vault can read the history of every volume in it; without it, and without another key, nobody can.
    Add(Box<Add>),
    /// Vaults, and how they stand
    #[command(visible_alias = "list")]
    Ls,
    /// Try what a vault's store can do, look at who writes and at its keys, and find what is missing in it
    ///
    /// What is there is compared with the vault's own inventories, so that every object that is gone is noticed. That does not
    /// read the histories themselves: use --deep for that, or `everhold verify`.
    Check {
        /// The vault's name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Read everything: every hash is compared and every block opened; takes as long as reading the vault does
        #[arg(long)]
        deep: bool,
    },
    /// The histories in a vault, also those of volumes that were destroyed or are another host's
    ///
    /// `everhold history --vault` shows the cuts of one, and `everhold restore --vault` makes a new volume of it. Nothing is
    /// written to the vault, so that it may be one that another host writes to.
    Histories {
        /// The vault's name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// Print one more recovery kit of a vault
    Kit {
        /// The vault's name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// Forget a vault that no volume's history is in; what is in it stays where it is
    Rm {
        /// The vault's name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
}

/// `everhold vault add`
#[derive(Debug, clap::Args)]
pub struct Add {
    /// Its name on this host
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// file:///path or s3://bucket/prefix
    url: String,
    /// Server of the bucket, such as https://minio.example:9000; AWS without it
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Region of the bucket
    #[arg(long)]
    region: Option<String>,
    /// The bucket's name is in the path and not in the host's name (usual with --endpoint)
    #[arg(long)]
    path_style: bool,
    /// File like ~/.aws/credentials, which the daemon reads whenever it starts; without it, the daemon's environment
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
    /// Profile in that file [default: default]
    #[arg(long, requires = "credentials_file")]
    profile: Option<String>,
    /// Certificates (PEM) to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Allow an endpoint on another machine to be http:, where eavesdroppers see names and sizes
    #[arg(long)]
    allow_http: bool,
    /// Who else can open a new vault: a recipient of `age`; may be given several times
    #[arg(long = "recipient", value_name = "age1…")]
    recipients: Vec<String>,
    /// File with a passphrase: opens an existing vault, or becomes a further key of a new one; - is standard input
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File with the recovery kit of an existing vault; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "identity_file")]
    kit_file: Option<PathBuf>,
    /// Identity file of `age` that opens an existing vault; - is standard input
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
    /// Become the vault's writer in the place of another host, which then can't write any more
    #[arg(long, conflicts_with = "read_only")]
    take_over: bool,
    /// Never write to it
    #[arg(long)]
    read_only: bool,
}

fn wrong(detail: String) -> Problem {
    Problem::new(ErrorKind::InvalidInput, detail, "correct the command and try again")
}

/// The content of a file with a secret.
fn secret(path: &Path) -> Result<Secret, Problem> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text),
        false => std::fs::File::open(path).and_then(|file| file.take(1 << 16).read_to_string(&mut text)),
    };
    read.map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    if text.trim().is_empty() {
        return Err(wrong(format!("{} is empty", path.display())));
    }
    Ok(Secret(text))
}

/// The daemon's working directory is not this one.
fn absolute(path: Option<PathBuf>) -> Result<Option<String>, Problem> {
    let Some(path) = path else { return Ok(None) };
    let whole = std::path::absolute(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let text = whole.into_os_string().into_string();
    text.map(Some).map_err(|_| wrong(format!("{} is not UTF-8", path.display())))
}

impl Add {
    fn request(self) -> Result<VaultAdd, Problem> {
        let mut url: Location = self.url.parse().map_err(|error: LocationError| wrong(error.to_string()))?;
        match &mut url {
            Location::Dir(_) if self.endpoint.is_some() || self.region.is_some() || self.path_style => {
                return Err(wrong("--endpoint, --region and --path-style are for s3: only".to_owned()));
            }
            Location::Dir(_) => {}
            Location::S3(place) => {
                place.endpoint = self.endpoint.or(place.endpoint.take());
                place.region = self.region.or(place.region.take());
                place.path_style = self.path_style.then_some(true).or(place.path_style);
            }
        }
        let passphrase = self.passphrase_file.as_deref().map(secret).transpose()?.map(|Secret(text)| {
            // The line's end is not part of it.
            Secret(text.trim_end_matches(['\n', '\r']).to_owned())
        });
        Ok(VaultAdd {
            name: self.name,
            url: url.to_string(),
            credentials_file: absolute(self.credentials_file)?,
            profile: self.profile,
            ca_file: absolute(self.ca_file)?,
            allow_http: self.allow_http,
            recipients: self.recipients,
            passphrase,
            kit: self.kit_file.or(self.identity_file).as_deref().map(secret).transpose()?,
            take_over: self.take_over,
            read_only: self.read_only,
        })
    }
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Add(add) => {
                let request = add.request()?;
                let added = waiting("adding the vault", session.client.add_vault(&request)).await?;
                session.out.show(&added, |out| say_added(out, &added))?;
            }
            Self::Ls => {
                let vaults = session.client.vaults().await?;
                session.out.show(&vaults, |out| {
                    out.table(&table(&vaults.vaults), "There are no vaults.");
                    vaults.vaults.iter().for_each(|vault| notes(out, vault));
                })?;
            }
            Self::Check { name, deep } => {
                let checked = waiting("checking the vault", session.client.check_vault(&name, deep)).await?;
                session.out.show(&checked, |out| say_checked(out, &checked))?;
                let bad = matches!(checked.vault.state, VaultState::Refused | VaultState::Failed);
                if !bad && !checked.findings.is_empty() {
                    return Ok(ExitCode::FAILURE);
                }
                return Ok(ExitCode::from(if bad { ErrorKind::Conflict.exit_code() } else { 0 }));
            }
            Self::Histories { name } => {
                let client = session.client.clone().with_patience(PATIENCE);
                let stored = waiting("listing the vault", client.stored_histories(&name)).await?;
                session.out.show(&stored, |out| say_stored(out, &stored))?;
            }
            Self::Kit { name } => {
                let kit = waiting("making a recovery kit", session.client.vault_kit(&name)).await?;
                session.out.show(&kit, |out| {
                    out.raw(&kit.kit.0);
                    out.note(KEEP);
                })?;
            }
            Self::Rm { name } => {
                let gone = session.client.forget_vault(&name).await?;
                session.out.show(&gone, |out| say_forgotten(out, &name, &gone))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

const KEEP: &str = "This recovery kit is not shown again: keep it elsewhere than on this host.";

fn say_added(out: &Output, added: &v1::VaultAdded) {
    let (name, url) = (&added.vault.name, plain(&added.vault.url));
    if let Some(kit) = &added.kit {
        out.raw(&kit.0);
        out.note(&format!("The vault {name} was made at {url}."));
        out.note(KEEP);
        notes(out, &added.vault);
        return;
    }
    out.line(&match added.result {
        v1::Outcome::Opened if added.vault.read_only => {
            format!("The vault at {url} is known as {name}, to be read only.")
        }
        v1::Outcome::Opened => format!("The vault at {url} is known as {name}; this host writes to it."),
        v1::Outcome::Changed => format!("The vault {name} is reached in the new way."),
        v1::Outcome::TakenOver => format!("This host writes to the vault {name} now; no other can any more."),
        _ => format!("The vault {name} was there already."),
    });
    added.notes.iter().for_each(|note| out.note(&format!("{name}: {}", plain(note))));
    notes(out, &added.vault);
}

fn say_forgotten(out: &Output, name: &str, gone: &v1::VaultForgotten) {
    let (Some(vault), Some(again)) = (&gone.vault, &gone.again) else {
        out.line(&format!("There was no vault {}.", plain(name)));
        return;
    };
    out.line(&format!(
        "The vault {} is forgotten. What is in it stays at {}.",
        vault.name,
        plain(&vault.url)
    ));
    out.line(&format!("To open it again: {}", plain(again)));
}

/// What is wrong, and what would be lost.
fn notes(out: &Output, vault: &v1::Vault) {
    if let Some(problem) = &vault.problem {
        out.note(&format!("{}: {}", vault.name, plain(problem)));
    }
    if let Some(warning) = &vault.warning {
        out.note(&format!("{}: {}", vault.name, plain(warning)));
    }
    if !vault.has_kit {
        out.note(&format!(
            "{}: nobody has a recovery kit of it; `everhold vault kit {}` prints one",
            vault.name, vault.name
        ));
    }
}

/// `ok`, or `unreachable since …`
pub fn standing(vault: &v1::Vault) -> String {
    match vault.since {
        Some(since) => format!("{} since {}", vault.state.as_str(), time(since)),
        None => vault.state.as_str().to_owned(),
    }
}

fn table(vaults: &[v1::Vault]) -> Table {
    let mut table = Table::new(["NAME", "STATE", "WRITING", "USED", "KIT", "URL"]);
    for vault in vaults {
        table.row([
            vault.name.clone(),
            standing(vault),
            vault.epoch.map(|epoch| format!("epoch {epoch}")).unwrap_or_default(),
            size(vault.used),
            if vault.has_kit { "yes" } else { "NONE" }.to_owned(),
            vault.url.clone(),
        ]);
    }
    table
}

fn say_stored(out: &Output, stored: &v1::StoredHistories) {
    let mut table =
        Table::new(["VOLUME", "ID", "SIZE", "HERE", "CUTS", "FIRST", "NEWEST", "STORED", "LABELS"]);
    let at = |cut: Option<Timestamp>| cut.map_or_else(|| "-".to_owned(), time);
    for history in &stored.histories {
        table.row([
            history.volume.clone().unwrap_or_else(|| "?".to_owned()),
            history.id.clone().unwrap_or_else(|| history.stream.clone()),
            size(history.size),
            history.here.as_str().to_owned(),
            history.cuts.to_string(),
            at(history.first_time),
            at(history.newest_time),
            size(Some(history.stored)),
            labels(&history.labels),
        ]);
    }
    out.table(&table, "There is no history in this vault.");
    for history in &stored.histories {
        let which = history.volume.as_ref().unwrap_or(&history.stream);
        history.problems.iter().for_each(|problem| out.note(&format!("{which}: {}", plain(problem))));
    }
}

fn say_checked(out: &Output, checked: &v1::VaultChecked) {
    let vault = &checked.vault;
    let line = |key: &str, value: &str| {
        out.line(&format!("{} {}", out.tone(&format!("{key:<16}"), Tone::Head), plain(value)));
    };
    line("name", &vault.name);
    line("url", &vault.url);
    line("id", &vault.id);
    line("state", &standing(vault));
    line("used", &format!("{} in {} objects", size(vault.used), checked.objects));
    match &checked.claim {
        None => line("writer", "nobody yet"),
        Some(claim) => {
            let who = match (&claim.host, &claim.node) {
                (Some(host), Some(node)) => format!("{host} (node {node})"),
                _ => "can't be read".to_owned(),
            };
            let since = claim.since.map(|since| format!(", since {}", time(since))).unwrap_or_default();
            let mine = if claim.mine { "this host, " } else { "ANOTHER HOST, " };
            line("writer", &format!("{mine}{who}, epoch {}{since}", claim.epoch));
        }
    }
    match &vault.abilities {
        None => line("abilities", "not tried: it is read-only here"),
        Some(abilities) => {
            line("conditional put", &abilities.conditional_put);
            line("versions", &abilities.versions);
            line("object lock", &abilities.object_lock);
            abilities.notes.iter().for_each(|note| line("note", note));
        }
    }
    line("fingerprint", &checked.fingerprint);
    for slot in &checked.slots {
        line("key", &format!("{} {} ({}), made {}", slot.kind, slot.id, slot.label, time(slot.made)));
    }
    checked.costs.iter().for_each(|cost| line("lack", cost));
    let done = match checked.deep {
        true => format!("deep: everything was read, {}", size(Some(checked.read))),
        false => {
            "quick: compared with the inventories; the histories were not read (--deep reads them)".to_owned()
        }
    };
    line("checked", &done);
    for history in &checked.histories {
        let volume = history.volume.as_deref().unwrap_or("an unknown volume");
        let lost = match history.lost {
            0 => String::new(),
            lost => format!(", {lost} CAN'T"),
        };
        line(
            "history",
            &format!("{volume} ({}): {} cuts can be restored{lost}", history.stream, history.cuts),
        );
    }
    for finding in &checked.findings {
        let volume = finding.volume.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
        line("FOUND", &format!("{}{volume} {}: {}", finding.object, finding.wrong, finding.means));
    }
    checked.notes.iter().for_each(|note| line("note", note));
    if checked.findings.is_empty() {
        line("found", if checked.deep { "nothing missing, nothing damaged" } else { "nothing missing" });
    }
    notes(out, vault);
}
