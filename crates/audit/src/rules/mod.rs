//! The rules: what in a layer is noise, which services there are and where they keep their data, and thresholds.
//!
//! They are a data file (`rules.toml`, built in), which a user's file of the same shape adds to: a rule of the same name
//! changes what it says, and `disabled = true` switches one off. What each key means stands at the head of that file.

mod file;

use crate::glob::Glob;
pub use file::RulesError;
pub(crate) use file::{Class, PersistentIf};
use file::{File, RawNoise, RawService, Source};
use model::Size;
use std::collections::BTreeSet;
use std::time::Duration;

/// The rules that come with Everhold.
const BUILT_IN: &str = include_str!("../../rules.toml");

/// All rules, ready for use.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(crate) noise: Vec<Noise>,
    pub(crate) services: Vec<Service>,
    pub(crate) settings: Settings,
}

/// Files that nobody misses.
#[derive(Debug, Clone)]
pub(crate) struct Noise {
    pub name: String,
    pub paths: Vec<Glob>,
    /// Whether nothing breaks when they can't be written.
    pub harmless: bool,
}

/// A service that is known.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub name: String,
    pub class: Class,
    /// Patterns on the repository's path.
    pub images: Vec<String>,
    /// `key=pattern`.
    pub labels: Vec<String>,
    pub processes: Vec<String>,
    pub ports: Vec<String>,
    /// Where the data is if nothing else is said.
    pub data: Vec<String>,
    /// Variables that say where the data is.
    pub env: Vec<String>,
    /// Arguments that say where the data is.
    pub arguments: Vec<String>,
    /// Where people mount volumes for it besides, rightly or not.
    pub also: Vec<String>,
    /// Names that prove a data directory.
    pub signatures: Vec<String>,
    pub persistent_if: Option<PersistentIf>,
    /// Whether the data is filed under the host name.
    pub hostname_matters: bool,
    pub advice: String,
}

/// Thresholds.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// A file system is nearly full from here on.
    pub near_full_percent: u8,
    /// From so many bytes on, data that nobody recognised counts as loss.
    pub large: u64,
    /// What was written so recently was written "just now".
    pub just_now: Duration,
    /// What several containers may share: sockets and devices of the host.
    pub shared: Vec<Glob>,
}

impl Rules {
    /// The rules that come with Everhold.
    ///
    /// # Errors
    /// None in a build that passed its tests.
    pub fn built_in() -> Result<Self, RulesError> {
        Self::merged(&[Source { name: "rules.toml (built in)", text: BUILT_IN }])
    }

    /// The rules that come with Everhold, with those of a user's file. `file` is its name for messages.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub fn with(file: &str, text: &str) -> Result<Self, RulesError> {
        let built_in = Source { name: "rules.toml (built in)", text: BUILT_IN };
        Self::merged(&[built_in, Source { name: file, text }])
    }

    /// The names of the known services, in the order of the file.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|service| service.name.as_str())
    }

    fn merged(sources: &[Source<'_>]) -> Result<Self, RulesError> {
        let mut rules = Self { noise: Vec::new(), services: Vec::new(), settings: Settings::default() };
        for source in sources {
            let file = source.read()?;
            unique(source, file.noise.iter().map(|rule| &rule.name))?;
            unique(source, file.service.iter().map(|rule| &rule.name))?;
            rules.take(source, file)?;
        }
        Ok(rules)
    }

    fn take(&mut self, source: &Source<'_>, file: File) -> Result<(), RulesError> {
        self.settings.take(source, file.settings)?;
        for raw in file.noise {
            let name = raw.name.get_ref().clone();
            let at = self.noise.iter().position(|rule| rule.name == name);
            if raw.disabled == Some(true) {
                match at {
                    Some(at) => drop(self.noise.remove(at)),
                    None => return Err(source.error(&raw.name, NOTHING_TO_DISABLE)),
                }
                continue;
            }
            let rule = noise(source, raw, at.map(|at| self.noise[at].clone()))?;
            put(&mut self.noise, at, rule);
        }
        for raw in file.service {
            let name = raw.name.get_ref().clone();
            let at = self.services.iter().position(|rule| rule.name == name);
            if raw.disabled == Some(true) {
                match at {
                    Some(at) => drop(self.services.remove(at)),
                    None => return Err(source.error(&raw.name, NOTHING_TO_DISABLE)),
                }
                continue;
            }
            let rule = service(source, raw, at.map(|at| self.services[at].clone()))?;
            put(&mut self.services, at, rule);
        }
        Ok(())
    }
}

const NOTHING_TO_DISABLE: &str = "disabled = true, but there is no rule of this name";

fn put<T>(rules: &mut Vec<T>, at: Option<usize>, rule: T) {
    match at.and_then(|at| rules.get_mut(at)) {
        Some(old) => *old = rule,
        None => rules.push(rule),
    }
}

fn unique<'a>(
    source: &Source<'_>,
    names: impl Iterator<Item = &'a toml::Spanned<String>>,
) -> Result<(), RulesError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.get_ref().trim().is_empty() {
            return Err(source.error(name, "the name is empty"));
        }
        if !seen.insert(name.get_ref()) {
            return Err(source.error(name, "the name stands twice in this file"));
        }
    }
    Ok(())
}

fn noise(source: &Source<'_>, raw: RawNoise, old: Option<Noise>) -> Result<Noise, RulesError> {
    let paths = match (raw.paths, &old) {
        (Some(paths), _) => {
            let globs: Result<Vec<_>, _> = paths.iter().map(|path| Glob::new(path)).collect();
            globs.map_err(|what| source.error(&raw.name, what))?
        }
        (None, Some(old)) => old.paths.clone(),
        (None, None) => return Err(source.error(&raw.name, "paths are missing")),
    };
    let harmless = raw.harmless.unwrap_or_else(|| old.is_some_and(|old| old.harmless));
    Ok(Noise { name: raw.name.into_inner(), paths, harmless })
}

fn service(source: &Source<'_>, raw: RawService, old: Option<Service>) -> Result<Service, RulesError> {
    let new = old.is_none();
    let missing = |what: &str| source.error(&raw.name, format!("{what} is missing"));
    let mut service = old.unwrap_or_else(|| Service {
        name: raw.name.get_ref().clone(),
        class: Class::App,
        images: Vec::new(),
        labels: Vec::new(),
        processes: Vec::new(),
        ports: Vec::new(),
        data: Vec::new(),
        env: Vec::new(),
        arguments: Vec::new(),
        also: Vec::new(),
        signatures: Vec::new(),
        persistent_if: None,
        hostname_matters: false,
        advice: String::new(),
    });
    if new {
        raw.class.ok_or_else(|| missing("class"))?;
        raw.advice.as_ref().ok_or_else(|| missing("advice"))?;
    }
    for path in raw.data.iter().chain(&raw.also).flatten() {
        if !path.starts_with('/') || (path.len() > 1 && path.ends_with('/')) || path.contains("//") {
            let what = format!("{path:?} is no absolute path without a slash at the end");
            return Err(source.error(&raw.name, what));
        }
    }
    for pair in raw.labels.iter().flatten() {
        pair.split_once('=').ok_or_else(|| source.error(&raw.name, format!("label {pair:?} has no =")))?;
    }
    for pair in raw.persistent_if.iter().flat_map(|when| when.on_env.iter().chain(&when.off_env)) {
        pair.split_once('=').ok_or_else(|| source.error(&raw.name, format!("{pair:?} has no =")))?;
    }
    let set = |field: &mut Vec<String>, value: Option<Vec<String>>| {
        if let Some(value) = value {
            *field = value;
        }
    };
    set(&mut service.images, raw.images);
    set(&mut service.labels, raw.labels);
    set(&mut service.processes, raw.processes);
    set(&mut service.ports, raw.ports);
    set(&mut service.data, raw.data);
    set(&mut service.env, raw.env);
    set(&mut service.arguments, raw.arguments);
    set(&mut service.also, raw.also);
    set(&mut service.signatures, raw.signatures);
    service.class = raw.class.unwrap_or(service.class);
    service.persistent_if = raw.persistent_if.or(service.persistent_if);
    service.hostname_matters = raw.hostname_matters.unwrap_or(service.hostname_matters);
    service.advice = raw.advice.unwrap_or(service.advice);
    if service.images.is_empty() && service.labels.is_empty() && service.processes.is_empty() {
        let what = "nothing to recognise it by: give images, labels or processes";
        return Err(source.error(&raw.name, what));
    }
    Ok(service)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            near_full_percent: 90,
            large: 10 << 20,
            just_now: Duration::from_secs(300),
            shared: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether any number of containers may share this path of the host.
    pub(crate) fn may_be_shared(&self, source: &str) -> bool {
        source == "/" || self.shared.iter().any(|glob| glob.matches(source.as_bytes()))
    }

    fn take(&mut self, source: &Source<'_>, raw: file::RawSettings) -> Result<(), RulesError> {
        if let Some(percent) = raw.near_full_percent {
            if !(1..=100).contains(&percent) {
                return Err(source.settings_error("near_full_percent must be from 1 to 100"));
            }
            self.near_full_percent = percent;
        }
        if let Some(large) = raw.large {
            let size: Size =
                large.parse().map_err(|error| source.settings_error(format!("large: {error}")))?;
            self.large = size.bytes();
        }
        if let Some(just_now) = raw.just_now {
            self.just_now = just_now.duration();
        }
        if let Some(shared) = raw.shared {
            let globs: Result<Vec<_>, _> = shared.iter().map(|path| Glob::new(path)).collect();
            self.shared = globs.map_err(|what| source.settings_error(format!("shared: {what}")))?;
        }
        Ok(())
    }
}
