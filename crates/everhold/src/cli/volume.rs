//! `everhold volume …`

mod show;

use super::{Outcome, Session, key_value};
use crate::output::progress::waiting;
use api::v1::{self, Access, Attach, Create, Grow, Labels, Pairs, Problem, SizeText};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use model::ErrorKind;
use std::process::ExitCode;

/// Create, look at, change and remove volumes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a volume; one that is there with the same options is left as it is
    Create(CreateArgs),
    /// All volumes
    #[command(visible_alias = "list")]
    Ls,
    /// All about one volume: settings, holders, devices, and what is wrong with it
    Inspect(Name),
    /// Move a volume to the trash, from where `trash restore` brings it back
    Rm {
        #[command(flatten)]
        name: Name,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Give a volume that nobody holds another name
    Rename {
        #[command(flatten)]
        name: Name,
        /// The new name
        to: String,
    },
    /// Grow a volume while its containers go on
    Grow {
        #[command(flatten)]
        name: Name,
        /// The new size, such as 20GiB
        size: String,
    },
    /// Set and remove labels
    Label {
        #[command(flatten)]
        name: Name,
        /// Labels to set
        #[arg(value_name = "KEY=VALUE", value_parser = key_value, required_unless_present = "unset")]
        set: Vec<(String, String)>,
        /// A label to remove
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
    /// Make a volume usable on this host, and print where
    Mount {
        #[command(flatten)]
        name: Name,
        /// Identifier of this use, for `unmount`; made up if absent
        #[arg(long)]
        id: Option<String>,
        /// Note for `holders` that it is only read; the mount itself allows writing unless the volume is readonly=true
        #[arg(long)]
        read_only: bool,
    },
    /// End a use that `mount` began
    Unmount {
        #[command(flatten)]
        name: Name,
        /// Which one, where several are there
        #[arg(long)]
        id: Option<String>,
    },
    /// Who uses a volume: attachments, containers, and processes with open files
    Holders(Name),
    /// How full volumes are
    Usage {
        /// The volume's name; all volumes if absent
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: Option<String>,
    },
}

/// A volume.
#[derive(Debug, Args)]
pub struct Name {
    /// The volume's name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

/// A volume to be created.
#[derive(Debug, Args)]
#[command(after_help = options_help())]
pub struct CreateArgs {
    /// The volume's name
    name: String,
    /// An option, as for `docker volume create -o`; may be repeated
    #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE", value_parser = key_value)]
    options: Vec<(String, String)>,
    /// A label; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// Short for -o driver=…
    #[arg(long)]
    driver: Option<String>,
    /// Short for -o size=…
    #[arg(long)]
    size: Option<String>,
    /// Short for -o fs=…
    #[arg(long)]
    fs: Option<String>,
    /// Short for -o pool=…
    #[arg(long)]
    pool: Option<String>,
}

fn options_help() -> String {
    let lines = model::KNOWN_OPTIONS.iter().map(|(key, value)| format!("  {key:<14} {value}"));
    format!("Options (-o):\n{}", lines.collect::<Vec<_>>().join("\n"))
}

impl CreateArgs {
    fn request(self) -> Create {
        let Self { name, options, labels, driver, size, fs, pool } = self;
        let short = [("driver", driver), ("size", size), ("fs", fs), ("pool", pool)];
        let short = short.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Create { name, options: Pairs(short.chain(options).collect()), labels: Pairs(labels) }
    }
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Outcome {
        let (client, out) = (&session.client, &session.out);
        match self {
            Self::Create(create) => {
                let answer = waiting("creating the volume", client.create(&create.request())).await?;
                changed(session, &answer)?;
            }
            Self::Ls => {
                let volumes = client.volumes().await?;
                let protection = client.protection().await?;
                out.show(&volumes, |out| {
                    out.table(&show::volumes(&volumes.volumes, &protection), "There are no volumes.")
                })?;
            }
            Self::Inspect(Name { name }) => {
                let detail = waiting("looking at the volume", client.inspect(&name)).await?;
                out.show(&detail, |out| show::detail(out, &detail))?;
            }
            Self::Rm { name: Name { name }, dry_run } => {
                let removed = waiting("removing the volume", client.remove(&name, dry_run)).await?;
                out.show(&removed, |out| show::removed(out, &name, &removed))?;
            }
            Self::Rename { name: Name { name }, to } => changed(session, &client.rename(&name, &to).await?)?,
            Self::Grow { name: Name { name }, size } => {
                let request = Grow { size: SizeText::Text(size) };
                changed(session, &waiting("growing the volume", client.grow(&name, &request)).await?)?;
            }
            Self::Label { name: Name { name }, set, unset } => {
                let request = Labels { set: set.into_iter().collect(), unset };
                changed(session, &client.label(&name, &request).await?)?;
            }
            Self::Mount { name: Name { name }, id, read_only } => {
                let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
                let request = Attach { id, access };
                let attached = waiting("mounting the volume", client.attach(&name, &request)).await?;
                out.show(&attached, |out| {
                    out.line(&attached.path);
                    out.note(&format!("Next: everhold volume unmount {name} --id {}", attached.id));
                })?;
            }
            Self::Unmount { name: Name { name }, id } => unmount(session, &name, id).await?,
            Self::Holders(Name { name }) => {
                let holders = waiting("looking for holders", client.holders(&name)).await?;
                out.show(&holders, |out| show::holders(out, &holders))?;
            }
            Self::Usage { name: Some(name) } => {
                let usage = client.usage(&name).await?;
                out.show(&usage, |out| out.table(&show::usages(std::slice::from_ref(&usage)), ""))?;
            }
            Self::Usage { name: None } => {
                let usages = waiting("looking at the volumes", client.usages()).await?;
                out.show(&usages, |out| out.table(&show::usages(&usages.usages), "There are no volumes."))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn changed(session: &Session, answer: &v1::VolumeChanged) -> Result<(), Problem> {
    session.out.show(answer, |out| {
        let volume = &answer.volume;
        let size = crate::output::human::size(volume.size);
        let text = match answer.result {
            v1::Outcome::AlreadyThere => "as asked for already".to_owned(),
            v1::Outcome::Created if volume.size.is_none() => format!("created ({})", volume.driver),
            v1::Outcome::Created => format!("created ({}, {size})", volume.driver),
            v1::Outcome::Grown => format!("grown to {size}"),
            done => done.as_str().to_owned(),
        };
        out.line(&format!("{}: {text}", volume.name));
    })
}

async fn unmount(session: &Session, name: &str, id: Option<String>) -> Result<(), Problem> {
    let id = match id {
        Some(id) => id,
        None => only_cli_attachment(session, name).await?,
    };
    let detached = waiting("unmounting the volume", session.client.detach(name, &id)).await?;
    session.out.show(&detached, |out| {
        out.line(&match detached.result {
            v1::Outcome::AlreadyThere => format!("{name}: there is no use with the id {id}"),
            _ => format!("{name}: the use {id} has ended"),
        });
    })
}

/// The one use of the command line; a container's is not ours to end.
async fn only_cli_attachment(session: &Session, name: &str) -> Result<String, Problem> {
    let detail = session.client.inspect(name).await?;
    let mut ids =
        detail.volume.attachments.into_iter().filter(|held| held.holder != "docker").map(|held| held.id);
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Problem::new(
            ErrorKind::NotFound,
            format!("`everhold volume mount` does not hold {name}"),
            format!("`everhold volume holders {name}` shows who does"),
        )),
        (Some(one), Some(other)) => Err(Problem::new(
            ErrorKind::Conflict,
            format!("`everhold volume mount` holds {name} several times: {one}, {other}…"),
            "name one of them with `--id`",
        )),
    }
}
