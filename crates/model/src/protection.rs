//! Protection: how a volume's history is made and kept, and how a request for it is read.

use crate::spec::{Defaults, DriverKind, SpecError};
use crate::{GroupName, Keep, TimeSpan, VaultName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The time from one cut to the next: 0.1 s to 1 day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "TimeSpan", into = "TimeSpan")]
pub struct Interval(TimeSpan);

impl Interval {
    /// The shortest.
    pub const SHORTEST: Self = Self(TimeSpan::from_millis(100));
    /// The longest.
    pub const LONGEST: Self = Self(TimeSpan::from_secs(24 * 3600));

    /// As a length of time.
    pub const fn span(self) -> TimeSpan {
        self.0
    }

    /// The same for the standard library.
    pub const fn duration(self) -> Duration {
        self.0.duration()
    }
}

impl Default for Interval {
    /// One second.
    fn default() -> Self {
        Self(TimeSpan::from_secs(1))
    }
}

impl TryFrom<TimeSpan> for Interval {
    type Error = String;
    fn try_from(span: TimeSpan) -> Result<Self, String> {
        if (Self::SHORTEST.0..=Self::LONGEST.0).contains(&span) {
            return Ok(Self(span));
        }
        let (shortest, longest) = (Self::SHORTEST, Self::LONGEST);
        Err(format!("{span} is no time between two cuts: give {shortest} to {longest}, such as `1s`"))
    }
}

impl From<Interval> for TimeSpan {
    fn from(interval: Interval) -> Self {
        interval.0
    }
}

impl FromStr for Interval {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<TimeSpan>().map_err(|error| error.to_string())?.try_into()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a volume's history is made and kept. What a record or a configuration leaves out has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Protection {
    /// The time from one cut to the next (1 s).
    pub interval: Interval,
    /// Where the history is (`local`).
    pub vault: VaultName,
    /// Which cuts stay.
    pub keep: Keep,
    /// The group whose volumes are cut at the same instant (none: it is cut alone).
    pub group: Option<GroupName>,
}

/// The value of the option `protect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protect {
    Off,
    /// At the default interval.
    On,
    Every(Interval),
}

impl FromStr for Protect {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" => Ok(Self::On),
            "off" | "false" | "no" => Ok(Self::Off),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse().map(Self::Every),
            _ => Err("use on, off, or the time between two cuts such as `1s`".to_owned()),
        }
    }
}

/// What a request says about protection; `None` where it is silent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProtectionRequest {
    pub(crate) protect: Option<Protect>,
    pub(crate) vault: Option<VaultName>,
    pub(crate) keep: Option<Keep>,
    pub(crate) group: Option<GroupName>,
}

impl ProtectionRequest {
    /// The keys that the request names.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&'static str, bool)> {
        [
            ("protect", self.protect.is_some()),
            ("vault", self.vault.is_some()),
            ("keep", self.keep.is_some()),
            ("group", self.group.is_some()),
        ]
        .into_iter()
    }

    /// Completes the request with `defaults`, for a volume of `driver`.
    pub(crate) fn resolve(
        &self,
        driver: DriverKind,
        defaults: &Defaults,
    ) -> Result<Option<Protection>, SpecError> {
        let mut named = self.given().filter(|(_, given)| *given).map(|(option, _)| option);
        let possible = driver == DriverKind::Image;
        let on = match (self.protect, named.next()) {
            (None, None) => possible && defaults.protect,
            (Some(Protect::Off), _) => match named.next() {
                None => false,
                Some(other) => {
                    let why = "what is not protected has no history; leave one of the two out";
                    return Err(SpecError::Contradiction { one: "protect=off", other, why });
                }
            },
            (_, Some(option)) if !possible => {
                let why = "only an image has a history of cuts; use driver=image";
                return Err(SpecError::NotWithDriver { option, driver, why });
            }
            (_, _) => true,
        };
        let ground = &defaults.protection;
        Ok(on.then(|| Protection {
            interval: match self.protect {
                Some(Protect::Every(interval)) => interval,
                _ => ground.interval,
            },
            vault: self.vault.as_ref().unwrap_or(&ground.vault).clone(),
            keep: self.keep.as_ref().unwrap_or(&ground.keep).clone(),
            group: self.group.as_ref().or(ground.group.as_ref()).cloned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FsKind, OptionError, Options, Provisioning, Size, Spec};

    fn defaults(protect: bool) -> Defaults {
        Defaults {
            driver: DriverKind::Image,
            pool: "default".parse().unwrap(),
            image_size: Size::from_gib(10),
            tmpfs_size: Size::from_mib(64),
            fs: FsKind::Ext4,
            provisioning: Provisioning::Thin,
            protect,
            protection: Protection {
                interval: "2s".parse().unwrap(),
                vault: "house".parse().unwrap(),
                ..Protection::default()
            },
        }
    }

    fn resolve(words: &[&str], defaults: &Defaults) -> Result<(Options, Spec), OptionError> {
        let options = Options::parse_words(words)?;
        let spec = options.resolve(defaults, |_| None, |_| None)?;
        Ok((options, spec))
    }

    fn protection(words: &[&str], on: bool) -> Option<Protection> {
        resolve(words, &defaults(on)).unwrap().1.protection
    }

    fn refused(words: &[&str]) -> String {
        resolve(words, &defaults(true)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let given: Protection = serde_json::from_str(r#"{"interval":"500ms"}"#).unwrap();
        let expected = Protection { interval: "0.5s".parse().unwrap(), ..Protection::default() };
        assert_eq!(given, expected);
        assert_eq!(
            serde_json::to_string(&Protection::default()).unwrap(),
            r#"{"interval":"1s","vault":"local","keep":"1s:10m,1m:24h,1h:7d,1d:90d","group":null}"#
        );
        for bad in [r#"{"interval":"99ms"}"#, r#"{"interval":"25h"}"#, r#"{"keep":"1m:1s"}"#] {
            assert!(serde_json::from_str::<Protection>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn silence_means_the_default_where_it_can_hold() {
        assert_eq!(protection(&[], false), None);
        assert_eq!(protection(&[], true), Some(defaults(true).protection));
        assert_eq!(protection(&["driver=tmpfs"], true), None);
        assert_eq!(protection(&["path=/srv/x"], true), None);
    }

    #[test]
    fn asking_is_enough() {
        let ground = defaults(false).protection;
        assert_eq!(protection(&["protect=on"], false), Some(ground.clone()));
        assert_eq!(protection(&["protect=off"], true), None);
        let every = |text: &str| Some(Protection { interval: text.parse().unwrap(), ..ground.clone() });
        assert_eq!(protection(&["protect=5s"], false), every("5s"));
        assert_eq!(protection(&["protect=1m"], false), every("1m"));
        let keep = Some(Protection { keep: "1m:1h".parse().unwrap(), ..ground.clone() });
        assert_eq!(protection(&["keep=1m:1h"], false), keep, "a detail means protect=on");
        let vault = Some(Protection { vault: "far".parse().unwrap(), ..ground.clone() });
        assert_eq!(protection(&["vault=far"], false), vault);
        let group = Some(Protection { group: Some("shop".parse().unwrap()), ..ground });
        assert_eq!(protection(&["group=shop"], false), group);
        assert_eq!(protection(&["driver=dir", "protect=off"], true), None, "it asks for nothing");
    }

    #[test]
    fn what_can_not_be_is_refused() {
        for driver in ["dir", "tmpfs", "sim"] {
            for (word, option) in
                [("protect=on", "protect"), ("protect=1s", "protect"), ("keep=1s:1m", "keep")]
            {
                let error = refused(&[&format!("driver={driver}"), word]);
                assert!(error.contains(&format!("`{option}` does not go with driver={driver}")), "{error}");
                assert!(error.contains("use driver=image"), "{error}");
            }
        }
        assert!(refused(&["protect=off", "keep=1s:1m"]).contains("`protect=off` and `keep` contradict"));
        for (word, why) in [
            ("protect=maybe", "use on, off"),
            ("protect=5", "no unit"),
            ("protect=50ms", "give 100ms to 1d"),
            ("protect=2d", "give 100ms to 1d"),
            ("vault=../x", "a name starts with"),
            ("group=", "the name is empty"),
            ("keep=1s", "has no span"),
        ] {
            assert!(refused(&[word]).contains(why), "{}", refused(&[word]));
        }
    }

    fn differences(words: &[&str], defaults: &Defaults, has: &Spec, then: &Options) -> Vec<String> {
        let (options, spec) = resolve(words, defaults).unwrap();
        let found = options.differences(&spec, has, &then.asked(has));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn other_protection_is_a_difference_like_any() {
        let off = defaults(false);
        let (then, bare) = resolve(&[], &off).unwrap();
        let told = |words: &[&str]| differences(words, &off, &bare, &then);
        assert_eq!(told(&["protect=on"]), ["protect: asked on, has off"]);
        assert_eq!(told(&["keep=1s:1m"]), ["keep: asked 1s:60s, has none"]);
        assert_eq!(told(&["protect=off"]), [] as [&str; 0]);

        let (then, has) = resolve(&["protect=1s", "keep=1m:24h"], &off).unwrap();
        let told = |words: &[&str]| differences(words, &off, &has, &then);
        assert_eq!(told(&["protect=off"]), ["protect: asked off, has 1s"]);
        assert_eq!(
            told(&["protect=5s", "vault=far"]),
            ["protect: asked 5s, has 1s", "vault: asked far, has house"]
        );
        assert_eq!(told(&["protect=1000ms", "keep=60s:1d"]), [] as [&str; 0], "the same in other words");
        assert_eq!(told(&["protect=on"]), [] as [&str; 0], "at whatever interval");
        assert_eq!(told(&[]), [] as [&str; 0]);
    }

    #[test]
    fn asking_again_is_no_difference_after_the_default_or_the_volume_has_changed() {
        let (then, has) = resolve(&["protect=on"], &defaults(false)).unwrap();
        let mut other = defaults(true);
        other.protection.interval = "1m".parse().unwrap();
        assert_eq!(differences(&["protect=on"], &other, &has, &then), [] as [&str; 0]);
        let asked = then.asked(&has);
        assert_eq!(asked["protect"], "on");
        let (again, spec) = resolve(&["protect=on"], &other).unwrap();
        assert_eq!(again.differences(&spec, &has.with_protection(None), &asked), []);
    }

    #[test]
    fn what_a_volume_has_can_be_asked_for_in_its_words() {
        let words = ["protect=1s", "vault=far", "keep=1s:1m", "group=shop"];
        for words in [&words[..], &[], &["protect=off"], &["driver=tmpfs"]] {
            let (_, spec) = resolve(words, &defaults(true)).unwrap();
            let mut described = spec.describe();
            // Shown, but not an option of every driver.
            described.retain(|key, value| key != "mount-options" || !value.is_empty());
            let again =
                Options::parse(described).unwrap().resolve(&defaults(false), |_| None, |_| None).unwrap();
            assert_eq!(again, spec);
        }
    }
}
