//! Mount options that a volume may ask for.
//!
//! A list of what is safe, not of what is dangerous: an option that is not here is refused, so that nobody
//! can turn off the journal, name another device or mount over something through a volume.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What may be asked for; an entry that ends in `=` takes a number.
const SAFE: [&str; 16] = [
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
    "lazytime",
    "sync",
    "dirsync",
    "nosuid",
    "nodev",
    "noexec",
    "discard",
    "nodiscard",
    "iversion",
    "commit=",
    "data=ordered",
    "data=journal",
];

/// A list of mount options, each of them safe, in the order given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountOptions(Vec<String>);

impl MountOptions {
    /// The options, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_safe(option: &str) -> bool {
    SAFE.iter().any(|safe| match safe.strip_suffix('=') {
        Some(key) => option
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix('='))
            .is_some_and(|value| value.parse::<u16>().is_ok_and(|seconds| seconds > 0)),
        None => *safe == option,
    })
}

impl FromStr for MountOptions {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut options: Vec<String> = Vec::new();
        for option in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            if !is_safe(option) {
                return Err(format!(
                    "the mount option {option:?} is not on the safe list: {} (commit takes seconds)",
                    SAFE.join(", ")
                ));
            }
            if !options.iter().any(|known| known == option) {
                options.push(option.to_owned());
            }
        }
        Ok(Self(options))
    }
}

impl TryFrom<String> for MountOptions {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MountOptions> for String {
    fn from(options: MountOptions) -> String {
        options.to_string()
    }
}

impl fmt::Display for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_passes() {
        let options: MountOptions = "noatime,commit=30,noatime".parse().unwrap();
        assert_eq!(options.to_string(), "noatime,commit=30");
        for bad in [
            "loop=/dev/sda",
            "nobarrier",
            "data=writeback",
            "errors=panic",
            "commit=0",
            "commit=x",
            "remount",
            "bind",
        ] {
            let error = bad.parse::<MountOptions>().unwrap_err();
            assert!(error.contains("noatime"), "the error lists what is known: {error}");
        }
        assert!("".parse::<MountOptions>().unwrap().is_empty());
    }
}
