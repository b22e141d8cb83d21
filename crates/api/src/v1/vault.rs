//! Vaults: where histories are kept.

use super::Outcome;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// A text that is never printed by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A vault to be made, or to be opened where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultAdd {
    /// Its name on this host.
    #[schema(example = "offsite")]
    pub name: String,
    /// Where it is: `file:///path` or `s3://bucket/prefix?endpoint=…&region=…&path-style=true`. Never with keys in it.
    #[schema(example = "s3://backups/host1?region=eu-central-1")]
    pub url: String,
    /// A file on the daemon's host like `~/.aws/credentials`, absolute; without one, the daemon's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<String>,
    /// The profile in it; `default` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// A file on the daemon's host with certificates (PEM) to trust besides the system's, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Whether an endpoint on another machine may be `http:`.
    #[serde(default)]
    pub allow_http: bool,
    /// Recipients of `age` (`age1…`) that can open a new vault besides its recovery kit.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Opens an existing vault, or becomes a further key of a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub passphrase: Option<Secret>,
    /// The text of a recovery kit, or of an identity file of `age`: opens an existing vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub kit: Option<Secret>,
    /// Become its writer in another host's place.
    #[serde(default)]
    pub take_over: bool,
    /// Never write to it.
    #[serde(default)]
    pub read_only: bool,
}

/// How a vault stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VaultState {
    /// It can be read and, as far as is known, written.
    Ok,
    /// It can be read, and was added to be read only.
    ReadOnly,
    /// It has not been reached yet since the daemon started.
    Opening,
    /// It can't be reached; the daemon tries again by itself.
    Unreachable,
    /// Another host writes to it.
    Refused,
    /// It can be reached and not be used.
    Failed,
}

impl VaultState {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ReadOnly => "read-only",
            Self::Opening => "opening",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What a vault's store can do: `yes`, `no` or `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Abilities {
    /// Create an object only where there is none: two hosts can't both claim the vault.
    pub conditional_put: String,
    /// Keep older versions of replaced and deleted objects.
    pub versions: String,
    /// Refuse to delete an object before a date.
    pub object_lock: String,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// A vault that this host knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vault {
    /// Its name on this host.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Its identity, the same on every host.
    pub id: String,
    /// When it was added here.
    pub added: Timestamp,
    /// How it stands, as last seen.
    pub state: VaultState,
    /// Since when, where it is not reachable or another host writes.
    pub since: Option<Timestamp>,
    /// What is wrong, in words.
    pub problem: Option<String>,
    /// What would be lost together with it, in words.
    pub warning: Option<String>,
    /// Whether it was added to be read only.
    pub read_only: bool,
    /// Whether someone but this daemon has a key of it. If not, `everhold vault kit` makes one.
    pub has_kit: bool,
    /// The epoch in which this host writes, if it has claimed the vault.
    pub epoch: Option<u32>,
    /// The file with the keys of its store.
    pub credentials_file: Option<String>,
    /// The profile in it.
    pub profile: Option<String>,
    /// Bytes in it when they were last counted (`check`).
    pub used: Option<u64>,
    /// What its store can do, as last tried (`check`).
    pub abilities: Option<Abilities>,
}

/// The vaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vaults {
    /// By name.
    pub vaults: Vec<Vault>,
}

/// The answer to adding a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultAdded {
    /// `created`, `opened`, `changed`, `taken-over` or `already-there`.
    pub result: Outcome,
    /// The vault.
    pub vault: Vault,
    /// The recovery kit of a vault that was created: a text to keep elsewhere. It is in this answer only, and kept nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub kit: Option<Secret>,
    /// What could not be told of a vault that was opened, such as whether it was exchanged for another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One more recovery kit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultKit {
    /// The vault's name.
    pub vault: String,
    /// The kit: a text to keep elsewhere. It is in this answer only, and kept nowhere.
    #[schema(value_type = String)]
    pub kit: Secret,
}

/// Who writes to a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultClaim {
    /// The number of the claim.
    pub epoch: u32,
    /// Whether it is this host's.
    pub mine: bool,
    /// The writer's identity; `null` if the claim can't be read.
    pub node: Option<String>,
    /// The writer's host name.
    pub host: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The writer's version of Everhold.
    pub version: Option<String>,
}

/// A slot of a vault's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultSlot {
    /// The object's name without `k/`.
    pub id: String,
    /// How it is opened: `recipient` or `passphrase`.
    pub kind: String,
    /// Whose it is.
    pub label: String,
    /// The recipient it is for.
    pub recipient: Option<String>,
    /// When it was made.
    pub made: Timestamp,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultChecked {
    /// The vault.
    pub vault: Vault,
    /// What the lack of each ability costs, in words.
    pub costs: Vec<String>,
    /// Who writes; `null` if nobody ever did.
    pub claim: Option<VaultClaim>,
    /// What its data key is known by, and its recovery kits name: note it for identities of `age` (`# fingerprint: …` in their
    /// file), which without it open whatever somebody else has put in the vault's place. It is no secret.
    pub fingerprint: String,
    /// The slots of its key.
    pub slots: Vec<VaultSlot>,
    /// How many objects it has.
    pub objects: u64,
    /// Whether everything was read (`deep`), and not only compared with the inventories.
    pub deep: bool,
    /// Bytes that were read and found to be as they were written.
    pub read: u64,
    /// What is missing or damaged.
    pub findings: Vec<VaultFinding>,
    /// The histories in it.
    pub histories: Vec<VaultHistory>,
    /// What is no loss, and worth knowing.
    pub notes: Vec<String>,
}

/// Something that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultFinding {
    /// The object.
    pub object: String,
    /// The volume whose history it is of, if it is of one and that is known.
    pub volume: Option<String>,
    /// What is wrong with it.
    pub wrong: String,
    /// What that means: what can't be restored any more, and what can.
    pub means: String,
    /// The first cut that can't be restored without it.
    pub from: Option<Timestamp>,
    /// The last one.
    pub to: Option<Timestamp>,
}

/// One history in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultHistory {
    /// What stands for the volume in names.
    pub stream: String,
    /// The volume's name, if it can be read.
    pub volume: Option<String>,
    /// Cuts that can be restored, as far as was looked.
    pub cuts: u64,
    /// Cuts that should be there and can't be restored.
    pub lost: u64,
}

/// The answer to forgetting a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultForgotten {
    /// `forgotten`, or `already-there` when there is no such vault.
    pub result: Outcome,
    /// The vault as it was. What is in it stays where it is.
    pub vault: Option<Vault>,
    /// How to open it again.
    pub again: Option<String>,
}

fn path(path: Option<&std::path::PathBuf>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

fn word(ability: ::vault::Ability) -> String {
    match ability {
        ::vault::Ability::Yes => "yes",
        ::vault::Ability::No => "no",
        ::vault::Ability::Unknown => "unknown",
    }
    .to_owned()
}

impl From<::vault::Abilities> for Abilities {
    fn from(abilities: ::vault::Abilities) -> Self {
        Self {
            conditional_put: word(abilities.conditional_put),
            versions: word(abilities.versions),
            object_lock: word(abilities.object_lock),
            notes: abilities.notes,
        }
    }
}

impl Abilities {
    fn costs(&self) -> Vec<String> {
        let lacks = |word: &str| word != "yes";
        let mut costs = Vec::new();
        if lacks(&self.conditional_put) {
            costs.push(
                "no conditional put: two hosts that claim the vault at the same instant are not told apart; let one host only write"
                    .to_owned(),
            );
        }
        if lacks(&self.versions) {
            costs.push(
                "no versions: what is deleted or overwritten with this host's credentials is gone for good"
                    .to_owned(),
            );
        }
        if lacks(&self.object_lock) {
            costs.push(
                "no object lock: nothing keeps who has this host's credentials from deleting the history"
                    .to_owned(),
            );
        }
        costs
    }
}

impl From<engine::VaultView> for Vault {
    fn from(view: engine::VaultView) -> Self {
        let record = view.record;
        Self {
            name: record.name.to_string(),
            url: record.url.to_string(),
            id: record.id.to_string(),
            added: record.added,
            state: match view.state {
                engine::VaultState::Ok => VaultState::Ok,
                engine::VaultState::ReadOnly => VaultState::ReadOnly,
                engine::VaultState::Opening => VaultState::Opening,
                engine::VaultState::Unreachable => VaultState::Unreachable,
                engine::VaultState::Refused => VaultState::Refused,
                engine::VaultState::Failed => VaultState::Failed,
            },
            since: view.since,
            problem: view.problem,
            warning: view.warning,
            read_only: record.read_only,
            has_kit: record.has_kit,
            epoch: view.epoch.map(|epoch| epoch.0),
            credentials_file: path(record.access.credentials_file.as_ref()),
            profile: record.access.profile,
            used: view.used,
            abilities: view.abilities.map(Abilities::from),
        }
    }
}

impl From<engine::VaultAdded> for VaultAdded {
    fn from(added: engine::VaultAdded) -> Self {
        let result = match added.change {
            engine::VaultChange::Created => Outcome::Created,
            engine::VaultChange::Opened => Outcome::Opened,
            engine::VaultChange::Changed => Outcome::Changed,
            engine::VaultChange::TakenOver => Outcome::TakenOver,
            engine::VaultChange::AlreadyThere => Outcome::AlreadyThere,
        };
        let kit = added.kit.map(|kit| Secret(kit.to_string()));
        Self { result, vault: added.vault.into(), kit, notes: added.notes }
    }
}

fn volume_of(about: Option<&serde_json::Value>) -> Option<String> {
    Some(about?.get("name")?.as_str()?.to_owned())
}

fn findings(report: &::vault::check::Report) -> Vec<VaultFinding> {
    let time = |ms: u64| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok();
    let finding = |volume: Option<String>, found: &::vault::check::Finding| VaultFinding {
        object: found.object.clone(),
        volume,
        wrong: found.wrong.clone(),
        means: found.means.clone(),
        from: found.cuts.and_then(|((_, from), _)| time(from)),
        to: found.cuts.and_then(|(_, (_, to))| time(to)),
    };
    let mut all: Vec<_> = report.findings.iter().map(|found| finding(None, found)).collect();
    for (_, about, stream) in &report.streams {
        all.extend(stream.findings.iter().map(|found| finding(volume_of(about.as_ref()), found)));
    }
    all
}

impl From<engine::VaultChecked> for VaultChecked {
    fn from(checked: engine::VaultChecked) -> Self {
        let vault = Vault::from(checked.vault);
        let claim = checked.claim.map(|(epoch, by, mine)| {
            let by = by.ok();
            VaultClaim {
                epoch: epoch.0,
                mine,
                node: by.as_ref().map(|by| by.node.clone()),
                host: by.as_ref().map(|by| by.host.clone()),
                since: by.as_ref().map(|by| by.since),
                version: by.map(|by| by.version),
            }
        });
        let slot = |slot: ::vault::keys::Slot| VaultSlot {
            id: slot.id,
            kind: match slot.kind {
                ::vault::keys::SlotKind::Recipient => "recipient".to_owned(),
                ::vault::keys::SlotKind::Passphrase => "passphrase".to_owned(),
            },
            label: slot.label,
            recipient: slot.recipient,
            made: slot.made,
        };
        Self {
            costs: vault.abilities.as_ref().map(Abilities::costs).unwrap_or_default(),
            vault,
            claim,
            fingerprint: checked.fingerprint.to_string(),
            slots: checked.slots.into_iter().map(slot).collect(),
            objects: checked.report.objects,
            deep: checked.report.deep,
            read: checked.report.read,
            findings: findings(&checked.report),
            histories: checked
                .report
                .streams
                .iter()
                .map(|(stream, about, report)| VaultHistory {
                    stream: stream.to_string(),
                    volume: volume_of(about.as_ref()),
                    cuts: report.left.len() as u64,
                    lost: report.lost.len() as u64,
                })
                .collect(),
            notes: checked
                .report
                .streams
                .iter()
                .flat_map(|(_, _, stream)| &stream.notes)
                .chain(&checked.report.notes)
                .cloned()
                .collect(),
        }
    }
}
