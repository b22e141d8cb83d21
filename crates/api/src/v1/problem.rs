//! The one shape of every error: problem details (RFC 9457).

use model::ErrorKind;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Why a request failed, what state the data is in, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The kind as a URN: `urn:everhold:error:CODE`.
    #[schema(example = "urn:everhold:error:not-found")]
    pub r#type: String,
    /// The kind in words.
    #[schema(example = "Not found")]
    pub title: String,
    /// The HTTP status of this answer.
    #[schema(example = 404)]
    pub status: u16,
    /// What failed.
    #[schema(example = "there is no volume pgdata (one of that name is in the trash)")]
    pub detail: String,
    /// The kind as a stable code: `internal`, `invalid-input`, `not-found`, `conflict`, `in-use`, `busy`, `no-space`,
    /// `unsupported`, `damaged`, `timed-out`, `forbidden` or `unavailable`.
    #[schema(example = "not-found")]
    pub code: String,
    /// What state the data is in now.
    #[schema(example = "nothing was changed")]
    pub data_state: String,
    /// What to do next.
    #[schema(example = "`everhold trash restore pgdata` brings it back")]
    pub next: String,
}

impl Problem {
    /// A problem of this kind, after which nothing has changed.
    pub fn new(kind: ErrorKind, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            r#type: format!("urn:everhold:error:{}", kind.code()),
            title: kind.title().to_owned(),
            status: kind.http_status(),
            detail: detail.into(),
            code: kind.code().to_owned(),
            data_state: "nothing was changed".to_owned(),
            next: next.into(),
        }
    }

    /// The same with another state of the data.
    #[must_use]
    pub fn with_data_state(self, data_state: impl Into<String>) -> Self {
        Self { data_state: data_state.into(), ..self }
    }

    /// The same with an HTTP status that says more than the kind does.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The kind; a code of a later version is an internal error.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::from_code(&self.code).unwrap_or(ErrorKind::Internal)
    }

    /// The exit code of a command that ends with this problem.
    pub fn exit_code(&self) -> u8 {
        self.kind().exit_code()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl From<&engine::Error> for Problem {
    fn from(error: &engine::Error) -> Self {
        Self::new(error.kind(), error.to_string(), error.next_step()).with_data_state(error.data_state())
    }
}

impl From<engine::Error> for Problem {
    fn from(error: engine::Error) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_code() {
        for kind in ErrorKind::all() {
            let problem = Problem::new(kind, "it broke", "mend it");
            assert_eq!(
                (problem.kind(), problem.exit_code(), problem.status),
                (kind, kind.exit_code(), kind.http_status())
            );
        }
        let later = Problem { code: "of-a-later-version".into(), ..Problem::new(ErrorKind::Busy, "", "") };
        assert_eq!(later.kind(), ErrorKind::Internal);
    }
}
