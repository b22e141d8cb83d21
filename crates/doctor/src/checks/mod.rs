//! Judging: pure functions from facts to a finding, and the one table that lists them.

mod docker;
mod host;
mod loops;
mod pool;
mod security;
mod table;
mod tracking;

use crate::facts::{Facts, PoolFacts, Standing};
use crate::report::{Check, Verdict};
use std::path::Path;

pub(crate) use table::TABLE;

/// One entry of the table: what holds for every host. What was found on this one is a [`Finding`].
pub(crate) struct Rule {
    /// Stable: scripts and documentation refer to it.
    pub id: &'static str,
    pub title: &'static str,
    pub recommended: &'static str,
    pub why: &'static str,
    pub look: Look,
}

/// What a rule looks at.
pub(crate) enum Look {
    /// The host as a whole: one check.
    Host(fn(&Facts) -> Finding),
    /// Each pool, also one that can't be reached.
    Pool(fn(&PoolFacts, &Facts) -> Finding),
    /// Each pool that can be reached.
    Standing(fn(&Standing, &PoolFacts, &Facts) -> Finding),
}

/// What a rule says about this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    verdict: Verdict,
    found: String,
    /// In place of what the rule recommends in general.
    recommended: Option<String>,
    command: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, found: impl Into<String>) -> Self {
        Self { verdict, found: found.into(), recommended: None, command: None }
    }

    fn ok(found: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, found)
    }

    fn advice(found: impl Into<String>) -> Self {
        Self::new(Verdict::Advice, found)
    }

    fn warning(found: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, found)
    }

    fn problem(found: impl Into<String>) -> Self {
        Self::new(Verdict::Problem, found)
    }

    fn recommend(self, recommended: impl Into<String>) -> Self {
        Self { recommended: Some(recommended.into()), ..self }
    }

    fn command(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }
}

pub(crate) fn judge(facts: &Facts) -> Vec<Check> {
    TABLE.iter().flat_map(|rule| apply(rule, facts)).collect()
}

fn apply(rule: &Rule, facts: &Facts) -> Vec<Check> {
    let check = |subject: Option<&PoolFacts>, finding: Finding| Check {
        id: rule.id.to_owned(),
        subject: subject.map(|pool| pool.name.clone()),
        title: rule.title.to_owned(),
        verdict: finding.verdict,
        found: finding.found,
        recommended: finding.recommended.unwrap_or_else(|| rule.recommended.to_owned()),
        why: rule.why.to_owned(),
        command: finding.command,
    };
    let pools = facts.pools.iter();
    match rule.look {
        Look::Host(look) => vec![check(None, look(facts))],
        Look::Pool(look) => pools.map(|pool| check(Some(pool), look(pool, facts))).collect(),
        Look::Standing(look) => pools
            .filter_map(|pool| Some((pool, pool.standing.as_ref().ok()?)))
            .map(|(pool, standing)| check(Some(pool), look(standing, pool, facts)))
            .collect(),
    }
}

/// A path or name as one word of a shell command.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The command that installs packages here.
fn install(distribution: &str, packages: &[&str]) -> String {
    let is = |names: &[&str]| distribution.split_whitespace().any(|word| names.contains(&word));
    let verb = match () {
        () if is(&["fedora", "rhel", "centos"]) => "dnf install",
        () if is(&["suse", "opensuse", "sles"]) => "zypper install",
        () if is(&["arch"]) => "pacman -S",
        () => "apt-get install",
    };
    format!("{verb} {}", packages.join(" "))
}

/// `a`, `a and b`, `a, b and 7 more`: enough to recognise what is meant, never a screenful.
fn some_of(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_safe_to_paste() {
        assert_eq!(quote(Path::new("/srv/pool-1")), "/srv/pool-1");
        assert_eq!(quote(Path::new("/srv/a b; rm")), "'/srv/a b; rm'");
        assert_eq!(quote(Path::new("it's")), r"'it'\''s'");
        assert_eq!(install("debian", &["e2fsprogs", "xfsprogs"]), "apt-get install e2fsprogs xfsprogs");
        assert_eq!(install("rocky rhel centos fedora", &["xfsprogs"]), "dnf install xfsprogs");
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(some_of(&names[..2]), "a and b");
        assert_eq!(some_of(&names), "a, b and 2 more");
    }
}
