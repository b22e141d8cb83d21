//! Lengths of time as people write them: `1s`, `100ms`, `1.5h`, `1h30m`, `3 minutes`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time in whole milliseconds, at most 1000 years.
///
/// Every unit has a fixed length: a day is 24 hours, a week 7 days and a year 365 days. Months have none, so
/// there is no unit for them, and `m` is a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeSpan {
    milliseconds: u64,
}

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeSpanError {
    /// No number where one should be.
    #[error("{0:?} is not a length of time: write a number and a unit, such as `30s`, `5m` or `1h30m`")]
    NotANumber(String),
    /// A number without a unit.
    #[error("{0:?} has no unit: write ms, s, m, h, d, w or y after the number, such as `30s`")]
    NoUnit(String),
    /// A unit that is not known.
    #[error("{text:?} has the unknown unit {unit:?}: use ms, s, m (minutes), h, d, w or y")]
    UnknownUnit {
        /// The refused text.
        text: String,
        /// What stands where the unit should be.
        unit: String,
    },
    /// A unit that is not smaller than the one before it.
    #[error("{0:?} has its units out of order: write the largest first, as in `1h30m`")]
    Order(String),
    /// Finer than a millisecond.
    #[error("{0:?} is not a whole number of milliseconds")]
    NotWhole(String),
    /// More than 1000 years.
    #[error("{0:?} is too long: at most 1000y")]
    TooLong(String),
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const YEAR: u64 = 365 * DAY;
const LONGEST: u64 = 1000 * YEAR;

impl TimeSpan {
    /// A length of `milliseconds`, cut to 1000 years.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self { milliseconds: if milliseconds > LONGEST { LONGEST } else { milliseconds } }
    }

    /// A length of `seconds`, cut to 1000 years.
    pub const fn from_secs(seconds: u64) -> Self {
        Self::from_millis(seconds.saturating_mul(SECOND))
    }

    /// The number of milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.milliseconds
    }

    /// The number of whole seconds.
    pub const fn as_secs(self) -> u64 {
        self.milliseconds / SECOND
    }

    /// The same for the standard library.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }

    /// In the largest unit up to days of which it is at least `least` and a whole number.
    pub(crate) fn at_least(self, least: u64) -> String {
        let units = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1)];
        let fits = |unit: u64| self.milliseconds >= least * unit && self.milliseconds.is_multiple_of(unit);
        match units.into_iter().find(|(_, unit)| fits(*unit)) {
            Some((name, unit)) if unit >= SECOND => format!("{}{name}", self.milliseconds / unit),
            _ if self.milliseconds < SECOND => format!("{}ms", self.milliseconds),
            _ => {
                let fraction = format!("{:03}", self.milliseconds % SECOND);
                let fraction = fraction.trim_end_matches('0');
                let point = if fraction.is_empty() { "" } else { "." };
                format!("{}{point}{fraction}s", self.as_secs())
            }
        }
    }
}

fn unit_length(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "ms" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "second" | "seconds" => SECOND,
        "m" | "min" | "minute" | "minutes" => MINUTE,
        "h" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        "w" | "week" | "weeks" => WEEK,
        "y" | "year" | "years" => YEAR,
        _ => return None,
    })
}

/// `number` (digits, perhaps with a point) times `unit`, exactly.
fn times(number: &str, unit: u64, text: &str) -> Result<u64, TimeSpanError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(TimeSpanError::NotANumber(text.to_owned()));
    }
    let too_long = || TimeSpanError::TooLong(text.to_owned());
    let whole: u64 = whole.parse().map_err(|_| too_long())?;
    let mut sum = whole.checked_mul(unit).filter(|sum| *sum <= LONGEST).ok_or_else(too_long)?;
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        let not_whole = || TimeSpanError::NotWhole(text.to_owned());
        // Eleven digits are more than a year has milliseconds.
        let places =
            u32::try_from(fraction.len()).ok().filter(|places| *places <= 11).ok_or_else(not_whole)?;
        let digits: u128 = fraction.parse().map_err(|_| not_whole())?;
        let (scaled, scale) = (digits * u128::from(unit), 10_u128.pow(places));
        if !scaled.is_multiple_of(scale) {
            return Err(not_whole());
        }
        sum = sum.saturating_add(u64::try_from(scaled / scale).map_err(|_| too_long())?);
    }
    Ok(sum)
}

impl FromStr for TimeSpan {
    type Err = TimeSpanError;

    fn from_str(text: &str) -> Result<Self, TimeSpanError> {
        let mut rest = text.trim();
        let (mut sum, mut last) = (0_u64, u64::MAX);
        loop {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            if number.is_empty() {
                return Err(TimeSpanError::NotANumber(text.to_owned()));
            }
            let after = after.trim_start();
            let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            if unit.is_empty() {
                return Err(TimeSpanError::NoUnit(text.to_owned()));
            }
            let length = unit_length(unit)
                .ok_or_else(|| TimeSpanError::UnknownUnit { text: text.to_owned(), unit: unit.to_owned() })?;
            if length >= last {
                return Err(TimeSpanError::Order(text.to_owned()));
            }
            last = length;
            sum = sum.saturating_add(times(number, length, text)?);
            if sum > LONGEST {
                return Err(TimeSpanError::TooLong(text.to_owned()));
            }
            rest = after.trim_start();
            if rest.is_empty() {
                return Ok(Self { milliseconds: sum });
            }
        }
    }
}

impl TryFrom<String> for TimeSpan {
    type Error = TimeSpanError;
    fn try_from(text: String) -> Result<Self, TimeSpanError> {
        text.parse()
    }
}

impl From<TimeSpan> for String {
    fn from(span: TimeSpan) -> String {
        span.to_string()
    }
}

impl fmt::Display for TimeSpan {
    /// Exact, in one unit: `100ms`, `1.5s`, `90s`, `2h`, `7d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.at_least(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, milliseconds, shown) in [
            ("0s", 0, "0ms"),
            ("100ms", 100, "100ms"),
            ("0.1s", 100, "100ms"),
            ("1s", 1000, "1s"),
            ("1.5s", 1500, "1.5s"),
            ("90s", 90_000, "90s"),
            ("1h30m", 5_400_000, "90m"),
            ("1h 30m", 5_400_000, "90m"),
            ("3 Minutes", 180_000, "3m"),
            ("1.5h", 5_400_000, "90m"),
            ("24h", DAY, "1d"),
            ("1w", WEEK, "7d"),
            ("1y", YEAR, "365d"),
            ("1d1ms", DAY + 1, "86400.001s"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!((span.as_millis(), span.to_string().as_str()), (milliseconds, shown), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        use TimeSpanError as E;
        let refused = |text: &str| text.parse::<TimeSpan>().unwrap_err();
        for text in ["", "s", "-1s", ".5s", "5.s", "1.2.3s", "5s-", "1m x"] {
            assert_eq!(refused(text), E::NotANumber(text.to_owned()), "{text:?}");
        }
        assert!(matches!(refused("5"), E::NoUnit(_)));
        assert!(matches!(refused("5mo"), E::UnknownUnit { unit, .. } if unit == "mo"));
        assert!(matches!(refused("5µs"), E::UnknownUnit { unit, .. } if unit == "µs"));
        assert!(matches!(refused("30m1h"), E::Order(_)));
        assert!(matches!(refused("1s1s"), E::Order(_)));
        assert!(matches!(refused("0.0001s"), E::NotWhole(_)));
        assert!(matches!(refused("1001y"), E::TooLong(_)));
        assert!(matches!(refused("1000y1s"), E::TooLong(_)));
        assert!(matches!(refused("99999999999999999999999s"), E::TooLong(_)));
    }

    proptest! {
        #[test]
        fn is_read_back_as_shown(milliseconds in prop_oneof![0_u64..100_000, 0..=LONGEST], least in 1_u64..3) {
            let span = TimeSpan::from_millis(milliseconds);
            prop_assert_eq!(span.to_string().parse::<TimeSpan>().unwrap(), span);
            prop_assert_eq!(span.at_least(least).parse::<TimeSpan>().unwrap(), span);
        }

        #[test]
        fn never_panics(text in "[0-9.]{0,25} ?\\PC{0,10}") {
            let _answered = text.parse::<TimeSpan>();
        }
    }
}
