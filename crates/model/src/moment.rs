//! Moments as people write them, where a point of a history is asked for.
//!
//! What is written is read by its first character, so that nothing has two meanings:
//!
//! | begins with | means | examples |
//! |---|---|---|
//! | `#` | the number of a cut | `#1234` |
//! | a digit, digits only | the number of a cut | `1234` |
//! | a digit | a date with a time of day, a time of day, or how long ago | `2026-11-21T13:03:00Z`, `2026-11-21 14:03`, `14:03:05`, `90s`, `1h30m ago` |
//! | `now`, `today`, `yesterday` | the present, or a time of that day | `yesterday 14:00` |
//! | another letter | the name of a snapshot | `before-upgrade` |
//!
//! A time without an offset is local. A time of day without a date is the last such time: today's, or yesterday's
//! if today's is yet to come. `1d` is 24 hours, also when the clocks change; `yesterday` is a day of the calendar.

use crate::{NameError, SnapshotName, TimeSpan, TimeSpanError};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::AmbiguousOffset;
use jiff::{Timestamp, Zoned};
use std::fmt;

/// A point of a history, as somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The state at this time.
    Time(Timestamp),
    /// The cut with this number.
    Cut(u64),
    /// The snapshot with this name.
    Snapshot(SnapshotName),
}

/// Why a text is not a moment of the past.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// Nothing that is understood.
    #[error(
        "{0:?} is not understood: write a time (`2026-11-21 14:03`, `14:03:05`, `yesterday 14:00`, \
         `2026-11-21T13:03:00Z`), how long ago (`90s`, `2m ago`), a cut (`#1234`) or the name of a snapshot"
    )]
    NotUnderstood(String),
    /// A day without a time of day.
    #[error("{0:?} is a whole day: say when, as in `{0} 14:00`")]
    NoTime(String),
    /// Later than now.
    #[error("{text:?} is {time}, which is yet to come (it is {now} now): a history has only the past")]
    Future {
        /// The refused text.
        text: String,
        /// What it means.
        time: Timestamp,
        /// The present.
        now: Timestamp,
    },
    /// A local time that there was twice, because the clocks were set back.
    #[error(
        "{text:?} was there twice, because the clocks were set back: write `{first}` for the first time or \
         `{second}` for the second"
    )]
    Twice {
        /// The refused text.
        text: String,
        /// The earlier time, with its offset.
        first: String,
        /// The later time, with its offset.
        second: String,
    },
    /// A local time that there never was, because the clocks were set forward.
    #[error(
        "{text:?} never was, because the clocks were set forward then: write an earlier or a later time, or one in \
         UTC such as `2026-03-29T01:30:00Z`"
    )]
    Never {
        /// The refused text.
        text: String,
    },
    /// A length of time that can't be read, or leads out of the calendar.
    #[error(transparent)]
    Span(#[from] TimeSpanError),
    /// Not the number of a cut.
    #[error("{0:?} is not the number of a cut: write such as `#1234`")]
    NotACut(String),
    /// Neither a known word nor the name of a snapshot.
    #[error("{text:?} is neither a time nor the name of a snapshot: {source}")]
    NotAName {
        /// The refused text.
        text: String,
        /// What is wrong with it as a name.
        source: NameError,
    },
}

impl At {
    /// Reads `text` at the moment `now`; times without an offset are in the time zone of `now`.
    ///
    /// # Errors
    /// In words for who wrote it: not understood, in the future, or a local time that there was twice or never.
    pub fn parse(text: &str, now: &Zoned) -> Result<Self, MomentError> {
        let text = text.trim();
        let reader = Reader { text, now };
        if let Some(number) = text.strip_prefix('#') {
            return reader.cut(number);
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            if text.bytes().all(|byte| byte.is_ascii_digit()) {
                return reader.cut(text);
            }
            return reader.time().and_then(|time| reader.past(time)).map(Self::Time);
        }
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let day = match word.to_ascii_lowercase().as_str() {
            "now" if rest.is_empty() => return Ok(Self::Time(now.timestamp())),
            "today" => now.date(),
            "yesterday" => reader.yesterday()?,
            _ if text.contains(char::is_whitespace) || text.is_empty() => return Err(reader.not_understood()),
            _ => {
                let name = text.parse();
                return name
                    .map(Self::Snapshot)
                    .map_err(|source| MomentError::NotAName { text: text.to_owned(), source });
            }
        };
        if rest.is_empty() {
            return Err(MomentError::NoTime(text.to_owned()));
        }
        let time = time_of_day(rest.trim()).ok_or_else(|| reader.not_understood())?;
        reader.past(reader.local(day.to_datetime(time))?).map(Self::Time)
    }
}

impl fmt::Display for At {
    /// In a form that means the same at any time and in any time zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(f),
            Self::Cut(number) => write!(f, "#{number}"),
            Self::Snapshot(name) => name.fmt(f),
        }
    }
}

/// `14:03`, `9:03`, `14:03:05`, `14:03:05.123`.
fn time_of_day(text: &str) -> Option<Time> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':' || byte == b'.');
    let colon = text.find(':')?;
    // The clocks of this world have no second 60; jiff would read it as 59.
    if !plain || text.split(':').nth(2).is_some_and(|seconds| seconds.starts_with("60")) {
        return None;
    }
    let padded = if colon == 1 { format!("0{text}") } else { text.to_owned() };
    padded.parse().ok()
}

struct Reader<'a> {
    text: &'a str,
    now: &'a Zoned,
}

impl Reader<'_> {
    fn not_understood(&self) -> MomentError {
        MomentError::NotUnderstood(self.text.to_owned())
    }

    fn yesterday(&self) -> Result<Date, MomentError> {
        self.now.date().yesterday().map_err(|_| self.not_understood())
    }

    fn cut(&self, number: &str) -> Result<At, MomentError> {
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| digits);
        number.map(At::Cut).ok_or_else(|| MomentError::NotACut(self.text.to_owned()))
    }

    fn past(&self, time: Timestamp) -> Result<Timestamp, MomentError> {
        let now = self.now.timestamp();
        if time > now {
            return Err(MomentError::Future { text: self.text.to_owned(), time, now });
        }
        Ok(time)
    }

    /// What begins with a digit and is not a number.
    fn time(&self) -> Result<Timestamp, MomentError> {
        let text = self.text;
        // A date has its dashes where no other form has any.
        if text.as_bytes().get(4) == Some(&b'-') {
            return self.date_and_time();
        }
        if text.contains(':') {
            let time = time_of_day(text).ok_or_else(|| self.not_understood())?;
            return self.last(time);
        }
        let span = match text.len().checked_sub(3).and_then(|at| text.split_at_checked(at)) {
            Some((span, ago)) if ago.eq_ignore_ascii_case("ago") => span.trim_end(),
            _ => text,
        };
        let span: TimeSpan = span.parse()?;
        let too_long = |_| TimeSpanError::TooLong(text.to_owned());
        Ok(self.now.timestamp().checked_sub(span.duration()).map_err(too_long)?)
    }

    fn date_and_time(&self) -> Result<Timestamp, MomentError> {
        let text = self.text;
        if text.len() == 10 && text.parse::<Date>().is_ok() {
            return Err(MomentError::NoTime(text.to_owned()));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(time);
        }
        // Without an offset. One that can't be read must not be overlooked.
        let (date, time) = text.split_once(['T', 't', ' ']).ok_or_else(|| self.not_understood())?;
        let date: Date = date.parse().map_err(|_| self.not_understood())?;
        let time = time_of_day(time.trim_start()).ok_or_else(|| self.not_understood())?;
        self.local(date.to_datetime(time))
    }

    /// The last time before now at which local clocks showed `time`.
    fn last(&self, time: Time) -> Result<Timestamp, MomentError> {
        let today = self.local(self.now.date().to_datetime(time))?;
        if today <= self.now.timestamp() {
            return Ok(today);
        }
        self.local(self.yesterday()?.to_datetime(time))
    }

    /// When local clocks showed this.
    fn local(&self, when: DateTime) -> Result<Timestamp, MomentError> {
        let text = || self.text.to_owned();
        let zone = self.now.time_zone();
        let stamp = |offset: jiff::tz::Offset| offset.to_timestamp(when).map_err(|_| self.not_understood());
        match zone.to_ambiguous_timestamp(when).offset() {
            AmbiguousOffset::Unambiguous { offset } => stamp(offset),
            AmbiguousOffset::Gap { .. } => Err(MomentError::Never { text: text() }),
            AmbiguousOffset::Fold { before, after } => {
                let (first, second) = (stamp(before)?, stamp(after)?);
                // The second time is yet to come, so it can only be the first.
                if second > self.now.timestamp() {
                    return Ok(first);
                }
                let show = |time: Timestamp, offset| time.display_with_offset(offset).to_string();
                Err(MomentError::Twice {
                    text: text(),
                    first: show(first, before),
                    second: show(second, after),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    /// Central European Time with its rules, without the host's time zone files.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn now(text: &str) -> Zoned {
        text.parse::<Timestamp>().unwrap().to_zoned(zone())
    }

    /// 2026-11-21, a Saturday, 15:00 in winter.
    fn noon() -> Zoned {
        now("2026-11-21T14:00:00Z")
    }

    fn read(text: &str, now: &Zoned) -> String {
        At::parse(text, now).unwrap_or_else(|error| panic!("{text:?}: {error}")).to_string()
    }

    #[test]
    fn reads_times() {
        for (text, means) in [
            ("now", "2026-11-21T14:00:00Z"),
            (" NOW ", "2026-11-21T14:00:00Z"),
            ("2026-11-21T13:03:05Z", "2026-11-21T13:03:05Z"),
            ("2026-11-21t13:03:05.25z", "2026-11-21T13:03:05.25Z"),
            ("2026-11-21T13:03:05+02:00", "2026-11-21T11:03:05Z"),
            ("2026-11-21 13:03Z", "2026-11-21T13:03:00Z"),
            ("2026-11-21 14:03", "2026-11-21T13:03:00Z"),
            ("2026-11-21T14:03:05", "2026-11-21T13:03:05Z"),
            ("2026-07-01 14:03", "2026-07-01T12:03:00Z"),
            ("14:03", "2026-11-21T13:03:00Z"),
            ("9:03", "2026-11-21T08:03:00Z"),
            ("14:03:05.5", "2026-11-21T13:03:05.5Z"),
            ("15:00", "2026-11-21T14:00:00Z"),
            ("15:00:01", "2026-11-20T14:00:01Z"),
            ("today 14:00", "2026-11-21T13:00:00Z"),
            ("yesterday 14:00", "2026-11-20T13:00:00Z"),
            ("Yesterday  23:59:59", "2026-11-20T22:59:59Z"),
            ("90s", "2026-11-21T13:58:30Z"),
            ("2m ago", "2026-11-21T13:58:00Z"),
            ("1h30m ago", "2026-11-21T12:30:00Z"),
            ("3 minutes ago", "2026-11-21T13:57:00Z"),
            ("1dago", "2026-11-20T14:00:00Z"),
            ("0s", "2026-11-21T14:00:00Z"),
        ] {
            assert_eq!(read(text, &noon()), means, "{text}");
        }
    }

    #[test]
    fn reads_cuts_and_snapshots() {
        assert_eq!(At::parse("#1234", &noon()), Ok(At::Cut(1234)));
        assert_eq!(At::parse("1234", &noon()), Ok(At::Cut(1234)));
        assert_eq!(At::parse("2026", &noon()), Ok(At::Cut(2026)));
        let name = At::Snapshot("before-upgrade".parse().unwrap());
        assert_eq!(At::parse("before-upgrade", &noon()), Ok(name));
        assert_eq!(read("nowadays", &noon()), "nowadays");
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        for (text, why) in [
            ("", "not understood"),
            ("#", "not the number of a cut"),
            ("#-1", "not the number of a cut"),
            ("#+1", "not the number of a cut"),
            ("99999999999999999999", "not the number of a cut"),
            ("-5m", "neither a time nor the name"),
            ("+5m", "neither a time nor the name"),
            ("größe", "neither a time nor the name"),
            ("last tuesday", "not understood"),
            ("now 14:00", "not understood"),
            ("today", "say when, as in `today 14:00`"),
            ("yesterday", "say when"),
            ("2026-11-20", "say when, as in `2026-11-20 14:00`"),
            ("yesterday 25:00", "not understood"),
            ("yesterday 14:00Z", "not understood"),
            ("2026-11-31 14:00", "not understood"),
            ("2026-11-20T14", "not understood"),
            ("2026-11-20 14:00 CET", "not understood"),
            ("2026-11-20 14:00+25:99", "not understood"),
            ("14:60", "not understood"),
            ("14:03:60", "not understood"),
            ("14:", "not understood"),
            ("5 parsecs ago", "unknown unit \"parsecs\""),
            ("5x", "unknown unit"),
            ("20261121T130305Z", "unknown unit"),
            ("2001y", "too long"),
            ("2026-11-21 15:00:01", "yet to come"),
            ("2026-11-21T14:00:00.000000001Z", "yet to come"),
            ("today 16:00", "yet to come"),
        ] {
            match At::parse(text, &noon()) {
                Ok(at) => panic!("{text:?} is {at}"),
                Err(error) => assert!(error.to_string().contains(why), "{text:?}: {error}"),
            }
        }
    }

    #[test]
    fn a_time_that_was_there_twice_is_not_guessed() {
        // 2026-10-25: 03:00 summer time became 02:00 at 01:00Z.
        let later = now("2026-10-26T12:00:00Z");
        let error = At::parse("2026-10-25 02:30", &later).unwrap_err().to_string();
        assert!(error.contains("`2026-10-25T02:30:00+02:00` for the first"), "{error}");
        assert!(error.contains("`2026-10-25T02:30:00+01:00` for the second"), "{error}");
        assert_eq!(read("2026-10-25T02:30:00+02:00", &later), "2026-10-25T00:30:00Z");
        assert_eq!(read("2026-10-25T02:30:00+01:00", &later), "2026-10-25T01:30:00Z");
        assert!(matches!(At::parse("yesterday 02:30", &later), Err(MomentError::Twice { .. })));
        assert_eq!(read("2026-10-25 03:00", &later), "2026-10-25T02:00:00Z");
        // Between the two there was only the first.
        assert_eq!(read("02:30", &now("2026-10-25T00:45:00Z")), "2026-10-25T00:30:00Z");
        // Before both, it is yesterday's.
        assert_eq!(read("02:30", &now("2026-10-25T00:15:00Z")), "2026-10-24T00:30:00Z");
    }

    #[test]
    fn a_time_that_never_was_is_refused() {
        // 2026-03-29: 02:00 became 03:00 at 01:00Z.
        let later = now("2026-03-29T12:00:00Z");
        for text in ["02:30", "2026-03-29 02:30", "today 02:00"] {
            assert!(matches!(At::parse(text, &later), Err(MomentError::Never { .. })), "{text}");
        }
        assert_eq!(read("03:00", &later), "2026-03-29T01:00:00Z");
        assert_eq!(read("1d ago", &later), "2026-03-28T12:00:00Z");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(ago in 0_i64..1_000_000_000, cut in any::<u64>(), name in "[a-z][a-zA-Z0-9_.-]{0,20}") {
            let now = noon();
            let time = now.timestamp().as_millisecond() - ago;
            let mut all = vec![At::Time(Timestamp::from_millisecond(time).unwrap()), At::Cut(cut)];
            all.extend(name.parse().ok().map(At::Snapshot));
            for at in all {
                prop_assert_eq!(At::parse(&at.to_string(), &now), Ok(at));
            }
        }

        #[test]
        fn nothing_lies_in_the_future(text in "([0-9]{1,4}[-:.smhd ]?){1,6}( ago)?") {
            let now = noon();
            if let Ok(At::Time(time)) = At::parse(&text, &now) {
                prop_assert!(time <= now.timestamp());
            }
        }

        #[test]
        fn never_panics(text in "([0-9#]|yesterday |now)?\\PC{0,20}") {
            let _answered = At::parse(&text, &noon());
        }
    }
}
