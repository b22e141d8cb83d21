//! Growth without an operator: when a volume fills up, it grows by a step, up to a limit.

use crate::{Percent, Size};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Written `max:50GiB,at:85%,by:20%`; `at` and `by` may be left out (85 % and 20 %).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoGrow {
    /// The size beyond which the volume is not grown.
    pub max: Size,
    /// The share of the volume in use at which it grows.
    pub at: Percent,
    /// The share of its present size that one step adds.
    pub by: Percent,
}

impl AutoGrow {
    /// The size to grow to, if `used` of `size` asks for it. `None`: leave it as it is.
    ///
    /// `used` and `size` are what the application can fill (the file system's view); `now` is the size of the volume.
    pub fn next(&self, now: Size, used: u64, usable: u64) -> Option<Size> {
        if now >= self.max || used < self.at.of(usable) {
            return None;
        }
        let step = self.by.of(now.bytes()).max(1 << 20);
        Some(now.saturating_add(Size::from_bytes(step)).round_up(1 << 20).min(self.max))
    }
}

impl FromStr for AutoGrow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = "write `max:50GiB,at:85%,by:20%` (at and by may be left out)";
        let (mut max, mut at, mut by) = (None, None, None);
        for part in text.split(',') {
            let (key, value) =
                part.split_once(':').ok_or_else(|| format!("{part:?} has no value: {shape}"))?;
            let slot_taken = match key.trim() {
                "max" => max.replace(value.parse::<Size>().map_err(|e| e.to_string())?).is_some(),
                "at" => at.replace(value.parse::<Percent>()?).is_some(),
                "by" => by.replace(value.parse::<Percent>()?).is_some(),
                other => return Err(format!("{other:?} is not part of autogrow: {shape}")),
            };
            if slot_taken {
                return Err(format!("{key:?} stands twice: {shape}"));
            }
        }
        let max = max.ok_or_else(|| format!("autogrow has no max: {shape}"))?;
        let percent = |value| Percent::new(value).ok_or_else(|| shape.to_owned());
        let (at, by) = (at.map_or_else(|| percent(85), Ok)?, by.map_or_else(|| percent(20), Ok)?);
        if at.value() == 0 || at.value() > 99 {
            return Err(format!("autogrow at {at} would grow always or never: give 1% to 99%"));
        }
        if by.value() == 0 {
            return Err("autogrow by 0% would never grow: give 1% or more".to_owned());
        }
        Ok(Self { max, at, by })
    }
}

impl fmt::Display for AutoGrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max:{},at:{},by:{}", self.max, self.at, self.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_all_forms() {
        let full: AutoGrow = "max:50GiB,at:85%,by:20%".parse().unwrap();
        assert_eq!(full, "max:50GiB".parse().unwrap());
        assert_eq!(full.to_string(), "max:50GiB,at:85%,by:20%");
        for bad in [
            "",
            "50GiB",
            "at:85%",
            "max:1GiB,max:2GiB",
            "max:1GiB,at:100%",
            "max:1GiB,by:0%",
            "max:1GiB,to:3",
        ] {
            assert!(bad.parse::<AutoGrow>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn growth_is_real_and_bounded(now in 1_u64..1 << 44, used in 0_u64..1 << 44, by in 1_u16..200) {
            let rule = AutoGrow { max: Size::from_gib(50), at: Percent::new(85).unwrap(), by: Percent::new(by).unwrap() };
            if let Some(next) = rule.next(Size::from_bytes(now), used, now) {
                prop_assert!(next > Size::from_bytes(now));
                prop_assert!(next <= rule.max);
                prop_assert!(used >= rule.at.of(now));
            }
        }
    }
}
