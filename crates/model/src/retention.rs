//! Retention: which cuts of a history stay.
//!
//! A pure rule over the times of cuts. It knows nothing of segments (what a kept cut needs is the history's
//! business) and nothing of snapshots (their cuts stay whatever this rule says; the caller adds them).

use crate::TimeSpan;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const EXAMPLE: &str = "write INTERVAL:SPAN, finest first, such as `1s:10m,1m:24h,1h:7d,1d:90d`";
/// More tiers than anybody needs; each costs time for every cut.
const MOST_TIERS: usize = 16;

/// One tier of a [`Keep`]: for `span` back from now, the state at every full `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    interval: TimeSpan,
    span: TimeSpan,
}

impl Tier {
    /// How far apart the kept states are: whole seconds, at least one.
    pub fn interval(&self) -> TimeSpan {
        self.interval
    }

    /// How far back it reaches: whole seconds, at least the interval.
    pub fn span(&self) -> TimeSpan {
        self.span
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `1h:7d` but `1m:24h`: a span reads best in a unit of which there are several.
        write!(f, "{}:{}", self.interval, self.span.at_least(2))
    }
}

/// The retention of a history, written `1s:10m,1m:24h,1h:7d,1d:90d`: every second for ten minutes, every minute for
/// a day, and so on.
///
/// # The rule
///
/// A cut is the state of the volume from its own time until the next cut. A tier looks at the marks of its
/// interval (multiples of it since 1970-01-01T00:00Z, so weeks begin on Thursdays), from the last mark that is at
/// least `span` ago up to now, and keeps the cut that is the state at each of them: the last one at or before the
/// mark. What any tier keeps is kept, and so is the newest cut.
///
/// It is the state that ages, not the cut: where nothing was written for a year, the cut of a year ago *is* yesterday's
/// state, and must not go just because somebody deletes everything today.
///
/// What follows, and is tested:
/// - *monotone*: what is dropped once is never wanted again, however time goes on;
/// - *idempotent*, and independent of how often it is applied in between: dropping daily or all at once ends in
///   the same cuts;
/// - *no gaps*: for any moment in a tier's span, the state at some moment at most one interval earlier is kept,
///   if there was one;
/// - *bounded*: no more than [`Keep::most`] cuts stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keep {
    tiers: Vec<Tier>,
}

/// The first whole second (since 1970) at or after `time`.
fn second_from(time: Timestamp) -> i64 {
    time.as_second() + i64::from(time.subsec_nanosecond() > 0)
}

/// The last whole second (since 1970) at or before `time`.
fn second_until(time: Timestamp) -> i64 {
    time.as_second() - i64::from(time.subsec_nanosecond() < 0)
}

fn seconds(span: TimeSpan) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

impl Keep {
    /// The tiers, finest first; at least one.
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// How far back the longest tier reaches.
    pub fn reach(&self) -> TimeSpan {
        self.tiers.last().map_or(TimeSpan::from_secs(0), Tier::span)
    }

    /// The most cuts that can stay: for each tier the marks in its span and one at each end, and the newest cut.
    pub fn most(&self) -> u64 {
        self.tiers.iter().map(|tier| tier.span.as_secs() / tier.interval.as_secs() + 2).sum::<u64>() + 1
    }

    /// For each of `cuts` (times in ascending order), whether it stays at `now`.
    ///
    /// Cuts that should stay for other reasons (snapshots) are to be among `cuts` nonetheless: they are states too. Of
    /// cuts at the same time the last one stands for all.
    pub fn kept(&self, cuts: &[Timestamp], now: Timestamp) -> Vec<bool> {
        let now = second_until(now);
        // Per tier, its interval and its oldest mark.
        let tiers: Vec<(i64, i64)> = self
            .tiers
            .iter()
            .map(|tier| {
                let interval = seconds(tier.interval);
                (interval, (now - seconds(tier.span)).div_euclid(interval) * interval)
            })
            .collect();
        let mut kept = vec![false; cuts.len()];
        if let Some(newest) = kept.last_mut() {
            *newest = true;
        }
        for (pair, kept) in cuts.windows(2).zip(&mut kept) {
            // The state from `from` to `until`, both inclusive and in whole seconds: marks are whole seconds.
            let (from, until) = (second_from(pair[0]), second_from(pair[1]) - 1);
            *kept = tiers.iter().any(|(interval, oldest)| {
                let mark = until.div_euclid(*interval) * interval;
                mark >= from && mark >= *oldest
            });
        }
        kept
    }
}

impl Default for Keep {
    /// `1s:10m,1m:24h,1h:7d,1d:90d`.
    fn default() -> Self {
        const HOUR: u64 = 3600;
        let tiers = [(1, 600), (60, 24 * HOUR), (HOUR, 7 * 24 * HOUR), (24 * HOUR, 90 * 24 * HOUR)];
        let tier = |(interval, span)| Tier {
            interval: TimeSpan::from_secs(interval),
            span: TimeSpan::from_secs(span),
        };
        Self { tiers: tiers.into_iter().map(tier).collect() }
    }
}

fn whole_seconds(text: &str) -> Result<TimeSpan, String> {
    let span: TimeSpan = text.parse().map_err(|error| format!("{error}; {EXAMPLE}"))?;
    if span.as_millis() == 0 || !span.as_millis().is_multiple_of(1000) {
        return Err(format!("{text:?} is not a whole number of seconds, one or more: {EXAMPLE}"));
    }
    Ok(span)
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err(format!("there is nothing to keep: {EXAMPLE}"));
        }
        let mut tiers: Vec<Tier> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (interval, span) =
                part.split_once(':').ok_or_else(|| format!("{part:?} has no span: {EXAMPLE}"))?;
            let tier = Tier { interval: whole_seconds(interval)?, span: whole_seconds(span)? };
            if tier.span < tier.interval {
                return Err(format!("{part:?} has a span shorter than its interval: {EXAMPLE}"));
            }
            if let Some(finer) = tiers.last() {
                if tier.interval <= finer.interval {
                    return Err(format!(
                        "{part:?} comes after `{finer}` and is not coarser: give the intervals in ascending order; {EXAMPLE}"
                    ));
                }
                if !tier.interval.as_secs().is_multiple_of(finer.interval.as_secs()) {
                    return Err(format!(
                        "the interval of {part:?} is not a multiple of the one before ({}), so its cuts would be \
                         gone when it wants them: {EXAMPLE}",
                        finer.interval
                    ));
                }
                if tier.span <= finer.span {
                    return Err(format!(
                        "{part:?} reaches no further back than `{finer}` and would keep nothing: give it a \
                         longer span; {EXAMPLE}"
                    ));
                }
            }
            tiers.push(tier);
        }
        if tiers.len() > MOST_TIERS {
            return Err(format!("{} tiers are too many, at most {MOST_TIERS} are allowed", tiers.len()));
        }
        Ok(Self { tiers })
    }
}

impl TryFrom<String> for Keep {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> String {
        keep.to_string()
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.tiers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn left(keep: &Keep, cuts: &[Timestamp], now: Timestamp) -> Vec<Timestamp> {
        let kept = keep.kept(cuts, now);
        cuts.iter().zip(kept).filter(|(_, kept)| *kept).map(|(cut, _)| *cut).collect()
    }

    /// Seconds of the cuts that stay.
    fn left_s(keep: &str, cuts: &[i64], now: i64) -> Vec<i64> {
        let cuts: Vec<_> = cuts.iter().map(|s| at(s * 1000)).collect();
        left(&keep.parse().unwrap(), &cuts, at(now * 1000)).iter().map(|cut| cut.as_second()).collect()
    }

    #[test]
    fn reads_and_shows() {
        let text = "1s:10m,1m:24h,1h:7d,1d:90d";
        assert_eq!(Keep::default().to_string(), text);
        assert_eq!(text.parse(), Ok(Keep::default()));
        assert_eq!(" 1s:600s, 60s:1d,1h:1w , 24h:90d".parse(), Ok(Keep::default()));
        assert_eq!("1d:1y".parse::<Keep>().unwrap().to_string(), "1d:365d");
        assert_eq!(serde_json::to_string(&Keep::default()).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Keep>(&format!("\"{text}\"")).unwrap(), Keep::default());
        assert_eq!(Keep::default().reach().to_string(), "90d");
    }

    #[test]
    fn refuses_what_makes_no_sense_and_says_why() {
        for (text, why) in [
            ("", "nothing to keep"),
            ("1s", "has no span"),
            ("1s:10m,", "has no span"),
            ("0s:10m", "whole number of seconds"),
            ("100ms:10m", "whole number of seconds"),
            ("1s:0s", "whole number of seconds"),
            ("1h:1m", "shorter than its interval"),
            ("1m:1h,1s:2h", "ascending order"),
            ("1m:1h,1m:2h", "ascending order"),
            ("1m:1h,90s:2h", "not a multiple"),
            ("1w:60w,1y:10y", "not a multiple"),
            ("1s:2h,1m:2h", "no further back"),
            ("1x:2h", "unknown unit"),
            ("1:2h", "no unit"),
            ("1s:10m:1h", "not a length of time"),
        ] {
            let error = text.parse::<Keep>().unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
            assert!(error.contains("1s:10m,1m:24h"), "an error gives an example: {error}");
        }
        let many: Vec<_> = (0..17).map(|n| format!("{}s:{}s", 1 << n, 1 << (n + 1))).collect();
        assert!(many.join(",").parse::<Keep>().unwrap_err().contains("17 tiers"));
    }

    #[test]
    fn keeps_the_state_at_each_mark() {
        // The last cut at or before each full ten seconds, and the newest.
        assert_eq!(left_s("10s:1h", &[1, 5, 10, 11, 19, 31, 33], 35), [10, 19, 33]);
        // Every mark is older than the span, but for the one at its end.
        assert_eq!(left_s("10s:30s", &[5, 15, 25, 35, 45, 55], 60), [25, 35, 45, 55]);
        assert_eq!(left_s("10s:30s", &[], 60), [] as [i64; 0]);
        assert_eq!(left_s("10s:30s", &[1], 1_000_000), [1], "the newest stays");
        assert_eq!(left_s("1s:30s", &[7, 7, 8], 9), [7, 8], "one of two at the same time");
    }

    #[test]
    fn an_old_state_does_not_go_because_a_new_one_comes() {
        // Written once, untouched for a year, emptied a second ago.
        let (rule, day) = ("1s:10m,1d:90d", 86_400);
        let emptied = 365 * day + 100;
        assert_eq!(left_s(rule, &[10, 20, emptied], emptied + 1), [20, emptied]);
        // It goes when the last mark at which it was the state is out of the span.
        let last = 365 * day;
        assert_eq!(left_s(rule, &[20, emptied], last + 91 * day - 1), [20, emptied]);
        assert_eq!(left_s(rule, &[20, emptied], last + 91 * day), [emptied]);
    }

    #[test]
    fn a_hundred_thousand_cuts_are_judged_at_once() {
        let cuts: Vec<_> = (0..100_000).map(|n| at(1_700_000_000_000 + n * 1013)).collect();
        let now = cuts[cuts.len() - 1];
        let kept = left(&Keep::default(), &cuts, now);
        // 10 minutes by seconds, 24 hours by minutes, the rest of 28 hours by hours.
        assert!((2020..2050).contains(&kept.len()), "{}", kept.len());
        let rounds = 20;
        let begun = std::time::Instant::now();
        for _ in 0..rounds {
            assert_eq!(Keep::default().kept(&cuts, now).len(), cuts.len());
        }
        // Far above what it takes (a few ms unoptimised), far below what a quadratic rule would.
        assert!(begun.elapsed() / rounds < std::time::Duration::from_millis(200), "{:?}", begun.elapsed());
    }

    fn keeps() -> impl Strategy<Value = Keep> {
        let tiers = proptest::collection::vec((2_u64..8, 1_u64..10), 1..4);
        (1_u64..4, tiers).prop_map(|(first, tiers)| {
            let (mut interval, mut span) = (first, 0);
            let mut words = Vec::new();
            for (factor, more) in tiers {
                span = (span + more).max(interval);
                words.push(format!("{interval}s:{span}s"));
                interval *= factor;
            }
            words.join(",").parse().unwrap()
        })
    }

    /// Cuts in bursts and with long silences, in ascending order; also before 1970, where rounding is easy to get wrong.
    fn times() -> impl Strategy<Value = Vec<Timestamp>> {
        let step = prop_oneof![6 => 0_i64..3000, 2 => Just(1000), 1 => 0_i64..200_000];
        (-100_000_i64..100_000, proptest::collection::vec(step, 0..80)).prop_map(|(start, steps)| {
            steps
                .into_iter()
                .scan(start, |time, step| {
                    *time += step;
                    Some(at(*time))
                })
                .collect()
        })
    }

    fn until(cuts: &[Timestamp], now: Timestamp) -> Vec<Timestamp> {
        cuts.iter().copied().filter(|cut| *cut <= now).collect()
    }

    fn mark(tier: &Tier, time: Timestamp) -> Timestamp {
        let interval = i64::try_from(tier.interval.as_millis()).unwrap();
        at(time.as_millisecond().div_euclid(interval) * interval)
    }

    proptest! {
        #[test]
        fn is_read_back_as_shown(keep in keeps()) {
            prop_assert_eq!(keep.to_string().parse::<Keep>().unwrap(), keep);
        }

        #[test]
        fn the_newest_is_kept(keep in keeps(), cuts in times(), now in -200_000_i64..2_000_000) {
            prop_assert_eq!(left(&keep, &cuts, at(now)).last().copied(), cuts.last().copied());
        }

        #[test]
        fn applied_again_it_keeps_all(keep in keeps(), cuts in times(), now in -200_000_i64..2_000_000) {
            let kept = left(&keep, &cuts, at(now));
            prop_assert_eq!(&left(&keep, &kept, at(now)), &kept);
        }

        #[test]
        fn what_is_dropped_is_never_wanted_again(
            keep in keeps(), cuts in times(), first in -100_000_i64..1_000_000, later in 0_i64..300_000,
        ) {
            let (first, later) = (at(first), at(first + later));
            let before = left(&keep, &until(&cuts, first), first);
            let after = left(&keep, &until(&cuts, later), later);
            for cut in after.iter().filter(|cut| **cut <= first) {
                prop_assert!(before.contains(cut), "{cut} came back");
            }
            // So it is the same whether the rule is applied in between or not.
            let thinned: Vec<_> =
                before.into_iter().chain(cuts.iter().copied().filter(|cut| *cut > first && *cut <= later)).collect();
            prop_assert_eq!(left(&keep, &thinned, later), after);
        }

        #[test]
        fn no_gaps(keep in keeps(), cuts in times(), now in -100_000_i64..1_000_000, back in 0_i64..1000) {
            let now = at(now);
            let cuts = until(&cuts, now);
            let kept = left(&keep, &cuts, now);
            for tier in keep.tiers() {
                let span = i64::try_from(tier.span.as_millis()).unwrap();
                let moment = at(now.as_millisecond() - span * back / 1000);
                let mark = mark(tier, moment);
                prop_assert!(moment.as_millisecond() - mark.as_millisecond() <= i64::try_from(tier.interval.as_millis()).unwrap());
                // The state at that mark, among all cuts and among the kept.
                prop_assert_eq!(until(&kept, mark).last().copied(), until(&cuts, mark).last().copied(), "{} at {}", tier, mark);
            }
        }

        #[test]
        fn bounded(keep in keeps(), cuts in times(), now in -100_000_i64..1_000_000) {
            let now = at(now);
            prop_assert!(left(&keep, &until(&cuts, now), now).len() as u64 <= keep.most());
        }
    }
}
