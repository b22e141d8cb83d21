//! The kinds of failure, and the one table that maps them to the outside.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What sort of failure it is, for the caller that decides what to do next.
///
/// | kind | code | HTTP | gRPC | exit |
/// |---|---|---|---|---|
/// | see [`ErrorKind::code`] and its neighbours | | | | |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// Anything that should not happen; a bug or a host in an unforeseen state.
    Internal,
    /// The request itself is wrong: a bad name, size or option.
    InvalidInput,
    /// No such volume, pool, attachment or trash entry.
    NotFound,
    /// Something else has that name, or it exists with other options.
    Conflict,
    /// The volume is attached and the verb needs it free.
    InUse,
    /// Another verb is at work on it; the same call may succeed later.
    Busy,
    /// The pool or the host has no room, or may not promise more.
    NoSpace,
    /// This host, driver or file system cannot do that.
    Unsupported,
    /// The data or the catalog is not as recorded; nothing is touched until someone looks.
    Damaged,
    /// The host took longer than allowed; the verb goes on or is undone in the background.
    TimedOut,
    /// The caller may not do that.
    Forbidden,
    /// The daemon, or an engine that it needs, does not answer.
    Unavailable,
}

/// kind, stable code, HTTP status (RFC 9110, 4918), gRPC code (google.rpc.Code), exit code of the command line, title.
type Row = (ErrorKind, &'static str, u16, u8, u8, &'static str);

#[rustfmt::skip]
const TABLE: [Row; 12] = [
    (ErrorKind::Internal,     "internal",      500, 13,  1, "Internal error"),
    (ErrorKind::InvalidInput, "invalid-input", 400,  3,  2, "The request is not valid"),
    (ErrorKind::NotFound,     "not-found",     404,  5,  3, "Not found"),
    (ErrorKind::Conflict,     "conflict",      409,  6,  4, "It conflicts with what exists"),
    (ErrorKind::InUse,        "in-use",        409,  9,  5, "The volume is in use"),
    (ErrorKind::Busy,         "busy",          503, 10,  6, "Another operation is at work"),
    (ErrorKind::NoSpace,      "no-space",      507,  8,  7, "Not enough space"),
    (ErrorKind::Unsupported,  "unsupported",   422, 12,  8, "Not supported here"),
    (ErrorKind::Damaged,      "damaged",       500, 15,  9, "Data is not as recorded"),
    (ErrorKind::TimedOut,     "timed-out",     504,  4, 10, "It took too long"),
    (ErrorKind::Forbidden,    "forbidden",     403,  7, 11, "Not allowed"),
    (ErrorKind::Unavailable,  "unavailable",   503, 14, 12, "Not reachable"),
];

impl ErrorKind {
    fn row(self) -> &'static Row {
        // Every kind stands in the table (tested); the first row is "internal" all the same.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    /// Every kind, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The stable code that clients match on.
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status of the REST API.
    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// The gRPC status (for CSI).
    pub fn grpc_code(self) -> u8 {
        self.row().3
    }

    /// The exit code of the command line.
    pub fn exit_code(self) -> u8 {
        self.row().4
    }

    /// A short title in words.
    pub fn title(self) -> &'static str {
        self.row().5
    }

    /// The kind with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == code).map(|row| row.0)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_exit_codes_are_unique_and_match_serde() {
        let codes: BTreeSet<_> = TABLE.iter().map(|row| row.1).collect();
        let exits: BTreeSet<_> = TABLE.iter().map(|row| row.4).collect();
        assert_eq!((codes.len(), exits.len()), (TABLE.len(), TABLE.len()));
        for kind in ErrorKind::all() {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.code()));
            assert_eq!(ErrorKind::from_code(kind.code()), Some(kind));
        }
    }
}
