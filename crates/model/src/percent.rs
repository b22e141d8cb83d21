//! Percentages as people write them in a configuration.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A whole percentage from 0 to 1000, written `85%` (the sign may be left out).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(u16);

impl Percent {
    /// `value` percent; `None` above 1000.
    pub const fn new(value: u16) -> Option<Self> {
        if value <= 1000 { Some(Self(value)) } else { None }
    }

    /// The number before the sign.
    pub const fn value(self) -> u16 {
        self.0
    }

    /// This share of `bytes`, rounded up; saturates.
    pub fn of(self, bytes: u64) -> u64 {
        let share = (u128::from(bytes) * u128::from(self.0)).div_ceil(100);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim().trim_end_matches('%').trim();
        digits
            .parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| format!("{text:?} is not a percentage: write a whole number from 0% to 1000%"))
    }
}

impl TryFrom<String> for Percent {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Percent> for String {
    fn from(percent: Percent) -> String {
        percent.to_string()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_takes_shares() {
        assert_eq!("5%".parse::<Percent>().unwrap().of(1000), 50);
        assert_eq!("85".parse::<Percent>().unwrap().value(), 85);
        assert_eq!(Percent(1).of(1), 1, "a share is rounded up");
        assert_eq!(Percent(1000).of(u64::MAX), u64::MAX);
        for bad in ["", "%", "-1%", "1001%", "5.5%", "x"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad:?}");
        }
    }
}
