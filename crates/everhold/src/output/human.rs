//! Sizes and times as people like to read them.

use jiff::Timestamp;
use model::Size;

/// `10GiB`; a dash for what is not known or has no limit.
pub fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| Size::from_bytes(bytes).to_string())
}

/// `37%`, rounded to the nearest; a dash where there is nothing to share.
pub fn share(part: Option<u64>, whole: Option<u64>) -> String {
    match (part, whole) {
        (Some(part), Some(whole)) if whole > 0 => {
            let percent = (u128::from(part) * 100 + u128::from(whole) / 2) / u128::from(whole);
            format!("{percent}%")
        }
        _ => "-".to_owned(),
    }
}

/// The length of time between two moments in its largest unit: `42s`, `5m`, `3h`, `6d`.
pub fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// As [`span`], and where that is seconds with their fraction: `750ms`, `1.25s`.
pub fn apart(from: Timestamp, to: Timestamp) -> String {
    match to.duration_since(from).as_millis() {
        ms @ 0..1000 => format!("{ms}ms"),
        ms @ 1000..60_000 => {
            let text = format!("{}.{:03}", ms / 1000, ms % 1000);
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => span(from, to),
    }
}

/// To the millisecond, and so that `--at` takes it.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// To the second.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        assert_eq!(size(Some(10 << 30)), "10GiB");
        assert_eq!(size(None), "-");
        assert_eq!(share(Some(37), Some(100)), "37%");
        assert_eq!(share(Some(u64::MAX), Some(u64::MAX)), "100%");
        assert_eq!(share(Some(1), Some(0)), "-");
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (6 * 86_400 + 1, "6d"), (-5, "0s")]
        {
            assert_eq!(span(at(0), at(seconds)), text);
        }
        let late = |ms| apart(at(0), Timestamp::from_millisecond(ms).unwrap());
        for (ms, text) in [
            (-1, "0s"),
            (0, "0ms"),
            (750, "750ms"),
            (1000, "1s"),
            (1250, "1.25s"),
            (30_000, "30s"),
            (60_000, "1m"),
        ] {
            assert_eq!(late(ms), text);
        }
        assert_eq!(moment(at(1)), "1970-01-01T00:00:01.000Z");
        assert_eq!(time(at(0)), "1970-01-01 00:00:00 UTC");
    }
}
