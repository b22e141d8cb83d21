//! The shape of a rules file, and what is wrong with one.

use model::TimeSpan;
use serde::Deserialize;
use toml::Spanned;

/// Why rules can't be used. Nothing was examined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}; correct the file and run this again", self.place())]
pub struct RulesError {
    /// The file's name as it was given.
    pub file: String,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// The name of the rule, where it is known.
    pub rule: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl RulesError {
    fn place(&self) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let rule = self.rule.as_ref().map(|rule| format!(": rule {rule:?}")).unwrap_or_default();
        format!("{}{line}{rule}", self.file)
    }
}

/// A text with the name of its file, to say where something is.
pub(super) struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    pub(super) fn read(&self) -> Result<File, RulesError> {
        toml::from_str(self.text).map_err(|error| RulesError {
            file: self.name.to_owned(),
            line: error.span().map(|span| self.line(span.start)),
            rule: None,
            what: error.message().to_owned(),
        })
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    pub(super) fn error(&self, rule: &Spanned<String>, what: impl Into<String>) -> RulesError {
        RulesError {
            file: self.name.to_owned(),
            line: Some(self.line(rule.span().start)),
            rule: Some(rule.get_ref().clone()),
            what: what.into(),
        }
    }

    pub(super) fn settings_error(&self, what: impl Into<String>) -> RulesError {
        let rule = Some("settings".to_owned());
        RulesError { file: self.name.to_owned(), line: None, rule, what: what.into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub settings: RawSettings,
    #[serde(default)]
    pub noise: Vec<RawNoise>,
    #[serde(default)]
    pub service: Vec<RawService>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSettings {
    pub near_full_percent: Option<u8>,
    pub large: Option<String>,
    pub just_now: Option<TimeSpan>,
    pub shared: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNoise {
    pub name: Spanned<String>,
    pub paths: Option<Vec<String>>,
    pub harmless: Option<bool>,
    pub disabled: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawService {
    pub name: Spanned<String>,
    pub class: Option<Class>,
    pub images: Option<Vec<String>>,
    pub labels: Option<Vec<String>>,
    pub processes: Option<Vec<String>>,
    pub ports: Option<Vec<String>>,
    pub data: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    pub arguments: Option<Vec<String>>,
    pub also: Option<Vec<String>>,
    pub signatures: Option<Vec<String>>,
    pub persistent_if: Option<PersistentIf>,
    pub hostname_matters: Option<bool>,
    pub advice: Option<String>,
    pub disabled: Option<bool>,
}

/// What a service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    Database,
    Queue,
    Search,
    Metrics,
    Files,
    App,
    Secrets,
    Proxy,
    Cache,
}

impl Class {
    /// Whether two servers on the same files destroy them, and an unwanted new version may not read them.
    pub(crate) fn is_database(self) -> bool {
        matches!(self, Self::Database | Self::Queue | Self::Search | Self::Metrics | Self::Secrets)
    }
}

/// For services that keep data only when told to: how to see it. `on` wins over `off`, and `off` over the default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersistentIf {
    /// When nothing is said.
    pub default: bool,
    /// Arguments that follow each other.
    #[serde(default)]
    pub on: Vec<Vec<String>>,
    #[serde(default)]
    pub off: Vec<Vec<String>>,
    /// `KEY=PATTERN` of the environment.
    #[serde(default)]
    pub on_env: Vec<String>,
    #[serde(default)]
    pub off_env: Vec<String>,
}
