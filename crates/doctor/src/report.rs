//! What comes out of an examination.

use serde::{Deserialize, Serialize};

/// All checks, in the order of the table; what belongs to a pool is repeated for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One entry for each check and subject.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether there is no [`Verdict::Problem`]. Otherwise `everhold doctor` exits with 1.
    pub fn healthy(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Problem)
    }

    /// How many checks came to this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }
}

/// One line of the report. The texts are sentences or phrases for people, without a full stop at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable, kebab-case; unique together with the subject.
    pub id: String,
    /// The pool that was looked at; `None` where it is the host as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was looked at, in two or three words.
    pub title: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What is recommended.
    pub recommended: String,
    /// Why that is recommended.
    pub why: String,
    /// The shell command, for root, that gets there. `None`: nothing to do, or no single command does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// How a check stands, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As recommended.
    Ok,
    /// Works; could be better, or could not be seen.
    Advice,
    /// Works now; will hurt.
    Warning,
    /// Does not work, or data is at risk.
    Problem,
}
