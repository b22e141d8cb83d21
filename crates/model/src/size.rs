//! Sizes in bytes, written with IEC (`KiB`, `MiB`, …) or SI (`kB`, `MB`, …) units.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A number of bytes.
///
/// Parses `10GiB`, `1.5 TiB`, `500MB`, `64k`, `4096`. A bare letter means the IEC unit (`10G` is 10 GiB), as
/// in `mkfs`, `truncate` and `docker run --memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(u64);

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The text does not begin with a number.
    #[error("{0:?} is not a size: write a number and a unit, such as `10GiB` or `500MB`")]
    NotANumber(String),
    /// The number is negative.
    #[error("{0:?} is negative: a size is a positive number and a unit, such as `10GiB`")]
    Negative(String),
    /// The unit is not known.
    #[error("{text:?} has the unknown unit {unit:?}: use B, KiB, MiB, GiB, TiB, PiB or kB, MB, GB, TB, PB")]
    UnknownUnit {
        /// The refused text.
        text: String,
        /// What stands where the unit should be.
        unit: String,
    },
    /// The size does not fit in what Linux can address (2^63 - 1 bytes).
    #[error("{0:?} is too large: the largest file that Linux addresses is just under 8 EiB")]
    TooLarge(String),
    /// A fraction that is not a whole number of bytes.
    #[error("{0:?} is not a whole number of bytes")]
    NotWhole(String),
}

const UNITS: [(&str, u64); 5] = [("K", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5)];

impl Size {
    /// A size of `bytes` bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of `mib` mebibytes (2^20 bytes).
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// A size of `gib` gibibytes (2^30 bytes).
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The sum, or the largest size if it does not fit.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero if `other` is larger.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Rounded up to a multiple of `unit` bytes.
    pub const fn round_up(self, unit: u64) -> Self {
        Self(self.0.div_ceil(unit).saturating_mul(unit))
    }
}

fn multiplier(unit: &str) -> Option<u64> {
    let upper = unit.to_ascii_uppercase();
    if upper.is_empty() || upper == "B" {
        return Some(1);
    }
    let &(prefix, power) = UNITS.iter().find(|(prefix, _)| upper.starts_with(prefix))?;
    match &upper[prefix.len()..] {
        "" | "IB" => Some(1024_u64.pow(u32::try_from(power).ok()?)),
        "B" => Some(1000_u64.pow(u32::try_from(power).ok()?)),
        _ => None,
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let trimmed = text.trim();
        if trimmed.starts_with('-') {
            return Err(SizeError::Negative(text.to_owned()));
        }
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let unit = unit.trim();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
            return Err(SizeError::NotANumber(text.to_owned()));
        }
        let factor = multiplier(unit)
            .ok_or_else(|| SizeError::UnknownUnit { text: text.to_owned(), unit: unit.to_owned() })?;
        let too_large = || SizeError::TooLarge(text.to_owned());
        let whole: u128 = whole.parse().map_err(|_| too_large())?;
        let mut bytes = whole.checked_mul(u128::from(factor)).ok_or_else(too_large)?;
        if !fraction.is_empty() {
            if fraction.len() > 18 {
                return Err(SizeError::NotWhole(text.to_owned()));
            }
            let digits: u128 = fraction.parse().map_err(|_| SizeError::NotANumber(text.to_owned()))?;
            let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| too_large())?);
            // `0.1GiB` is no whole number of bytes; what the writer means is clear, so it is cut to one.
            if factor == 1 && digits != 0 {
                return Err(SizeError::NotWhole(text.to_owned()));
            }
            bytes = bytes.checked_add(digits * u128::from(factor) / scale).ok_or_else(too_large)?;
        }
        if bytes > i64::MAX as u128 {
            return Err(too_large());
        }
        u64::try_from(bytes).map(Self).map_err(|_| too_large())
    }
}

impl fmt::Display for Size {
    /// The shortest exact-enough form: `10GiB`, `1.5GiB`, `512B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let text = match units.iter().find(|(_, shift)| self.0 >> shift > 0) {
            None => format!("{}B", self.0),
            Some((unit, shift)) if self.0.trailing_zeros() >= *shift => format!("{}{unit}", self.0 >> shift),
            Some((unit, shift)) => {
                #[expect(clippy::cast_precision_loss, reason = "one decimal for people")]
                let value = self.0 as f64 / (1_u64 << shift) as f64;
                format!("{value:.1}{unit}")
            }
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_units_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1KiB", 1024),
            ("1kB", 1000),
            ("64k", 65536),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("10GB", 10_000_000_000),
            ("1.5GiB", 3 << 29),
            ("2TiB", 2 << 40),
            ("1PB", 1_000_000_000_000_000),
            ("512B", 512),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        assert!(matches!("10XB".parse::<Size>(), Err(SizeError::UnknownUnit { unit, .. }) if unit == "XB"));
        assert!(matches!("-1GiB".parse::<Size>(), Err(SizeError::Negative(_))));
        assert!(matches!("16EiB".parse::<Size>(), Err(SizeError::UnknownUnit { .. })));
        assert!(matches!("16384PiB".parse::<Size>(), Err(SizeError::TooLarge(_))));
        assert!(matches!("99999999999999999999999999".parse::<Size>(), Err(SizeError::TooLarge(_))));
        assert!(matches!("".parse::<Size>(), Err(SizeError::NotANumber(_))));
        assert!(matches!("GiB".parse::<Size>(), Err(SizeError::NotANumber(_))));
        assert!(matches!("1.".parse::<Size>(), Err(SizeError::NotANumber(_))));
        assert!(matches!("1.2.3G".parse::<Size>(), Err(SizeError::NotANumber(_))));
        assert!(matches!("1.5".parse::<Size>(), Err(SizeError::NotWhole(_))));
    }

    proptest! {
        #[test]
        fn exact_sizes_are_read_back_as_shown(mib in 1_u64..1 << 20) {
            let size = Size::from_mib(mib);
            let back: Size = size.to_string().parse().unwrap();
            // One decimal is shown; it is never off by more than a twentieth of the unit shown.
            prop_assert!(back.bytes().abs_diff(size.bytes()) * 10 <= size.bytes());
        }

        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            let _answered = text.parse::<Size>();
        }
    }
}
