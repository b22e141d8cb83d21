//! Judging: pure functions from what is known to findings, and the one table that lists them.

mod access;
mod habits;
mod layer;
mod mounts;
mod readonly;
mod save;
mod table;
mod unseen;
mod volumes;

use crate::case::{Case, Context};
use crate::facts::Mount;
use crate::report::{Finding, Severity};
pub(crate) use table::TABLE;

/// One entry of the table: what holds for every host. What was found on this one are [`Draft`]s.
pub(crate) struct Check {
    /// Stable: scripts and documentation refer to it.
    pub code: &'static str,
    pub why: &'static str,
    pub look: Look,
}

/// What a check looks at.
pub(crate) enum Look {
    /// Each container by itself.
    Container(fn(&Case<'_>, &Context<'_>) -> Vec<Draft>),
    /// The host as a whole.
    Host(fn(&Context<'_>) -> Vec<Draft>),
}

/// A finding in the making.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    severity: Severity,
    container: Option<String>,
    volume: Option<String>,
    path: Option<String>,
    found: String,
    /// Besides what the check says in general.
    more: Option<String>,
    command: Option<String>,
    /// Directories that a rescue moves.
    rescue: Vec<String>,
    bytes: Option<u64>,
}

impl Draft {
    fn new(severity: Severity, found: impl Into<String>) -> Self {
        Self {
            severity,
            container: None,
            volume: None,
            path: None,
            found: found.into(),
            more: None,
            command: None,
            rescue: Vec::new(),
            bytes: None,
        }
    }

    fn container(self, name: &str) -> Self {
        Self { container: Some(name.to_owned()), ..self }
    }

    fn volume(self, name: &str) -> Self {
        Self { volume: Some(name.to_owned()), ..self }
    }

    fn path(self, path: &str) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// The volume of the mount, if it is one, and where it is mounted.
    fn mount(self, mount: &Mount) -> Self {
        Self { volume: mount.volume.clone(), path: Some(mount.destination.clone()), ..self }
    }

    fn more(self, more: &str) -> Self {
        Self { more: Some(more.trim_end_matches('.').to_owned()).filter(|more| !more.is_empty()), ..self }
    }

    fn command(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }

    fn bytes(self, bytes: impl Into<Option<u64>>) -> Self {
        Self { bytes: bytes.into(), ..self }
    }
}

/// Applies the whole table.
pub(crate) fn judge(context: &Context<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = TABLE
        .iter()
        .flat_map(|check| {
            let drafts: Vec<Draft> = match check.look {
                Look::Host(look) => look(context),
                Look::Container(look) => {
                    // Of one that is kept there is nothing else to say: what it has is elsewhere too.
                    let of = |case: &&Case<'_>| {
                        check.code == habits::KEPT || context.kept_for(case.container).is_none()
                    };
                    context.cases.iter().filter(of).flat_map(|case| look(case, context)).collect()
                }
            };
            drafts.into_iter().map(|draft| finding(check, draft))
        })
        .collect();
    // The sort is stable: what is equal stays in the order of the table.
    findings.sort_by(|a, b| {
        let worse = b.severity.cmp(&a.severity);
        worse.then_with(|| b.bytes.cmp(&a.bytes)).then_with(|| a.container.cmp(&b.container))
    });
    findings
}

fn finding(check: &Check, draft: Draft) -> Finding {
    let why = match draft.more {
        Some(more) if check.why.is_empty() => more,
        Some(more) => format!("{}. {more}", check.why),
        None => check.why.to_owned(),
    };
    Finding {
        code: check.code,
        severity: draft.severity,
        container: draft.container,
        volume: draft.volume,
        path: draft.path,
        found: draft.found,
        why,
        command: draft.command,
        rescue: draft.rescue,
        bytes: draft.bytes,
    }
}
