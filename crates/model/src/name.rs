//! Names of volumes, pools, vaults, groups, snapshots and bundles.
//!
//! The alphabet is Docker's own for volume names (`daemon/names` in Moby: `[a-zA-Z0-9][a-zA-Z0-9_.-]`), so that
//! every name is also a safe single path component and needs no quoting in a shell. Names that differ in
//! case are different volumes: no path is ever made from a name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest name in bytes. Docker sets no limit; file systems and labels do.
const LONGEST: usize = 128;
/// The words that begin a moment.
const MOMENT_WORDS: [&str; 3] = ["now", "today", "yesterday"];

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("the name is empty: give a name such as `pgdata`")]
    Empty,
    /// The text is longer than the limit.
    #[error("the name is {length} bytes long, at most {LONGEST} are allowed")]
    TooLong {
        /// Length of the refused text in bytes.
        length: usize,
    },
    /// A character outside the alphabet, or a first character that is not a letter or digit.
    #[error(
        "the name {name:?} has {character:?} at position {position}: a name starts with an ASCII letter or digit and \
         goes on with letters, digits, `_`, `.` or `-`"
    )]
    BadCharacter {
        /// The refused text.
        name: String,
        /// The first character that does not fit.
        character: char,
        /// Its position, counted in characters from 1.
        position: usize,
    },
    /// The name of a snapshot that would read as a time or as the number of a cut.
    #[error(
        "{0:?} is no name for a snapshot, because it reads as a time or a number: begin with a letter, as in \
         `before-upgrade` (and `now`, `today` and `yesterday` are taken)"
    )]
    ReadsAsMoment(String),
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > LONGEST {
        return Err(NameError::TooLong { length: text.len() });
    }
    let fits =
        |(index, c): (usize, char)| c.is_ascii_alphanumeric() || (index > 0 && matches!(c, '_' | '.' | '-'));
    match text.chars().enumerate().find(|&at| !fits(at)) {
        None => Ok(()),
        Some((index, character)) => {
            Err(NameError::BadCharacter { name: text.to_owned(), character, position: index + 1 })
        }
    }
}

/// Where a moment is asked for, a snapshot may be named; so what begins with a digit, and the words for days, are not names.
fn check_snapshot(text: &str) -> Result<(), NameError> {
    check(text)?;
    let is_word = MOMENT_WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_word || !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(NameError::ReadsAsMoment(text.to_owned()));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text).map(|()| Self(text))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a volume: unique among the volumes that are not in the trash.
    VolumeName,
    check
);
name!(
    /// The name of a pool, as in `[pool.NAME]` of the configuration.
    PoolName,
    check
);
name!(
    /// The name of a vault, as `everhold vault add` gave it; `local` unless said otherwise.
    VaultName,
    check
);
name!(
    /// The name of a group: its volumes are cut at the same instant.
    GroupName,
    check
);
name!(
    /// The name of a snapshot: unique in its volume's history. It begins with a letter, so that it can't be taken for a time or the
    /// number of a cut (see [`At`](crate::At)).
    SnapshotName,
    check_snapshot
);
name!(
    /// The name of a bundle: a backup of containers, unique in its vault.
    BundleName,
    check
);

impl Default for VaultName {
    fn default() -> Self {
        Self("local".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_a_name() {
        assert_eq!("".parse::<VolumeName>(), Err(NameError::Empty));
        assert_eq!("x".repeat(300).parse::<VolumeName>(), Err(NameError::TooLong { length: 300 }));
        for bad in ["..", ".", "/", "a/b", "-x", "_x", "a b", "a\0", "größe", "a\n", "名"] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?} passed as a name");
        }
    }

    #[test]
    fn names_the_character_and_its_place() {
        let error = "bad name".parse::<VolumeName>().unwrap_err();
        assert!(error.to_string().contains("' ' at position 4"), "{error}");
    }

    #[test]
    fn names_that_differ_in_case_are_different() {
        assert_ne!("Data".parse::<VolumeName>().unwrap(), "data".parse::<VolumeName>().unwrap());
    }

    #[test]
    fn a_snapshot_is_never_taken_for_a_moment() {
        for good in ["before-upgrade", "v1.2.3", "nowadays", "b2026-11-21"] {
            assert_eq!(good.parse::<SnapshotName>().unwrap().as_str(), good);
        }
        for bad in ["1234", "2026-11-21", "90s", "now", "Now", "today", "YESTERDAY"] {
            assert_eq!(bad.parse::<SnapshotName>(), Err(NameError::ReadsAsMoment(bad.to_owned())));
            assert!(serde_json::from_str::<SnapshotName>(&format!("{bad:?}")).is_err());
        }
        assert!(matches!("#12".parse::<SnapshotName>(), Err(NameError::BadCharacter { .. })));
    }

    proptest! {
        #[test]
        fn every_name_is_one_safe_path_component(text in "\\PC{0,40}") {
            if let Ok(name) = text.parse::<VolumeName>() {
                let parts: Vec<_> = std::path::Path::new(name.as_str()).components().collect();
                prop_assert_eq!(parts.len(), 1);
                prop_assert!(matches!(parts[0], std::path::Component::Normal(_)));
            }
        }

        #[test]
        fn names_survive_serde(text in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,60}") {
            let name: VolumeName = text.parse().unwrap();
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(serde_json::from_str::<VolumeName>(&json).unwrap(), name);
        }
    }
}
