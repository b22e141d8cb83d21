//! Durations as people write them: `500ms`, `20s`, `15m`, `6h`, `7d`, `2w`.

use serde::Deserialize;
use std::time::Duration;

/// A duration read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HumanDuration(Duration);

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wanted = || format!("{text:?} is not a duration: write a whole number and ms, s, m, h, d or w");
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(wanted)?;
        let (number, unit) = trimmed.split_at(split);
        let number: u64 = number.parse().map_err(|_| wanted())?;
        let milliseconds = match unit.trim() {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(wanted()),
        };
        let whole = number.checked_mul(milliseconds).ok_or_else(|| format!("{text:?} is too long"))?;
        Ok(Self(Duration::from_millis(whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let read = |text: &str| HumanDuration::try_from(text.to_owned()).map(Duration::from);
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("20 s"), Ok(Duration::from_secs(20)));
        assert_eq!(read("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "7", "d", "-1s", "1.5h", "1y", "99999999999999999w"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
