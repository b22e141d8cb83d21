//! The file's own shape: every key optional, unknown ones refused with what was probably meant.

use super::LogFormat;
use super::duration::HumanDuration;
use engine::{HoldLine, PoolSettings};
use model::{
    DriverKind, FsKind, Interval, Keep, Labels, Percent, PoolName, Provisioning, Size, VaultName, check_label,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A value that is written as a text with rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<T>(pub T);

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Word<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    pub paths: Paths,
    pub log: Log,
    pub api: Api,
    pub docker: Docker,
    pub defaults: Defaults,
    pub history: History,
    pub trash: Trash,
    pub dir: Dir,
    pub tools: Tools,
    pub pool: BTreeMap<PoolName, Pool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Paths {
    pub state: Option<PathBuf>,
    pub run: Option<PathBuf>,
    #[serde(alias = "boot_id")]
    pub boot_id: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub level: Option<String>,
    pub format: Option<LogFormat>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    pub group: Option<String>,
    pub deadline: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Docker {
    pub enabled: Option<bool>,
    pub socket: Option<PathBuf>,
    #[serde(alias = "plugin_socket")]
    pub plugin_socket: Option<PathBuf>,
    #[serde(alias = "call_deadline")]
    pub call_deadline: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Defaults {
    pub driver: Option<Word<DriverKind>>,
    pub size: Option<Word<Size>>,
    #[serde(alias = "tmpfs_size")]
    pub tmpfs_size: Option<Word<Size>>,
    pub fs: Option<Word<FsKind>>,
    pub provisioning: Option<Word<Provisioning>>,
    pub pool: Option<PoolName>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    pub protect: Option<OnOff>,
    pub interval: Option<Word<Interval>>,
    pub vault: Option<VaultName>,
    pub keep: Option<Keep>,
    pub tracking: Option<PathBuf>,
    pub spool: Option<Word<Size>>,
    pub frozen: Option<HumanDuration>,
    pub compare: Option<HumanDuration>,
    pub verify: Option<OffOr>,
    pub upkeep: Option<HumanDuration>,
    pub grace: Option<HumanDuration>,
    pub minute: Option<HumanDuration>,
}

/// `"on"`, `"off"`, or TOML's own `true` and `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnOff(pub bool);

impl<'de> Deserialize<'de> for OnOff {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "use \"on\" or \"off\"")]
        enum Either {
            Bool(bool),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Bool(on) => Ok(Self(on)),
            Either::Text(text) if text == "on" => Ok(Self(true)),
            Either::Text(text) if text == "off" => Ok(Self(false)),
            Either::Text(text) => Err(serde::de::Error::custom(format!("{text:?}: use \"on\" or \"off\""))),
        }
    }
}

/// `"off"`, or a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct OffOr(pub Option<HumanDuration>);

impl TryFrom<String> for OffOr {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.trim() == "off" {
            Ok(Self(None))
        } else {
            HumanDuration::try_from(text).map(|it| Self(Some(it)))
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trash {
    pub ttl: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Dir {
    #[serde(alias = "allowed_paths")]
    pub allowed_paths: Option<Vec<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tools {
    pub deadline: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    pub path: Option<PathBuf>,
    pub labels: Labels,
    pub reserve: Option<Word<Percent>>,
    pub hold: Option<Word<Hold>>,
    pub overcommit: Option<Word<Percent>>,
}

/// `auto`, `off` or a size.
#[derive(Debug, Clone, Copy)]
pub struct Hold(HoldLine);

impl FromStr for Hold {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(HoldLine::Auto)),
            "off" => Ok(Self(HoldLine::Off)),
            size => match size.parse() {
                Ok(size) => Ok(Self(HoldLine::Below(size))),
                Err(error) => Err(format!("{error}; `auto` and `off` are possible too")),
            },
        }
    }
}

/// Reads the file.
///
/// # Errors
/// In words, with the place in the text, and the nearest known key for one that is not known.
pub fn parse(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| match nearest(error.message()) {
        Some(known) => format!("{error}did you mean `{known}`?"),
        None => error.to_string().trim_end().to_owned(),
    })
}

/// The key that was probably meant, from serde's "unknown field `x`, expected one of `a`, `b`".
fn nearest(message: &str) -> Option<&str> {
    let mut words = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let key = words.next()?;
    let close = words.map(|known| (strsim::damerau_levenshtein(key, known), known)).min()?;
    (close.0 <= key.len().div_ceil(2)).then_some(close.1)
}

/// The pools, complete; without any, there is one named `default`.
///
/// # Errors
/// In words, for a label that is not usable or a name that is none.
pub fn pools(mut given: BTreeMap<PoolName, Pool>, state: &Path) -> Result<Vec<PoolSettings>, String> {
    if given.is_empty() {
        let name = "default".parse().map_err(|error: model::NameError| error.to_string())?;
        given.insert(name, Pool::default());
    }
    given.into_iter().map(|(name, pool)| complete(name, pool, state)).collect()
}

fn complete(name: PoolName, pool: Pool, state: &Path) -> Result<PoolSettings, String> {
    for (key, value) in &pool.labels {
        check_label(key, value).map_err(|error| format!("[pool.{name}] labels: {error}"))?;
    }
    let percent = |given: Option<Word<Percent>>, default| {
        given.map(|word| word.0).or(Percent::new(default)).ok_or_else(|| "not a percentage".to_owned())
    };
    let reserve = percent(pool.reserve, 5)?;
    if reserve.value() > 100 {
        return Err(format!("[pool.{name}] reserve is {reserve}: more than the whole pool"));
    }
    Ok(PoolSettings {
        path: pool.path.unwrap_or_else(|| state.join("pools").join(name.as_str())),
        labels: pool.labels,
        reserve,
        hold: pool.hold.map_or(HoldLine::Auto, |word| word.0.0),
        overcommit: percent(pool.overcommit, 1000)?,
        name,
    })
}
