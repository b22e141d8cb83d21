//! Histories as people read them.

use crate::output::human::{apart, moment, size, span};
use crate::output::{Output, Table, plain};
use api::v1::{self, Cut, History};
use jiff::Timestamp;
use model::At;

/// The rows that a timeline has unless more are asked for.
const ROWS: usize = 40;

/// The cuts, newest first, with the gaps between them; and how many are left out.
fn rows(history: &History, all: bool, now: Timestamp) -> (Table, usize) {
    let mut table = Table::new(["CUT", "TIME", "AGE", "STORED", "SNAPSHOTS", "NOTE"]);
    let mut hidden = 0;
    for (at, cut) in history.cuts.iter().rev().enumerate() {
        for gap in history.gaps.iter().filter(|gap| gap.from == cut.time) {
            let note = format!("no cuts for {}: {}", apart(gap.from, gap.to), gap.why);
            let none = String::new;
            table.row(["gap".to_owned(), none(), none(), none(), none(), note]);
        }
        // What has a name or a verdict is looked for.
        if at >= ROWS && !all && cut.snapshots.is_empty() && cut.verified.is_none() {
            hidden += 1;
            continue;
        }
        let verified =
            cut.verified.map(|at| format!("{} {} ago", verdict(cut.verified_whole), span(at, now)));
        table.row([
            format!("#{}", cut.point),
            moment(cut.time),
            span(cut.time, now),
            size(Some(cut.stored)),
            cut.snapshots.join(","),
            verified.unwrap_or_default(),
        ]);
    }
    (table, hidden)
}

/// What the last verification found.
pub fn verdict(whole: Option<bool>) -> &'static str {
    if whole == Some(true) { "verified whole" } else { "found DAMAGED" }
}

/// The timeline, and what it comes to.
pub fn timeline(out: &Output, history: &History, all: bool, now: Timestamp) {
    let (table, hidden) = rows(history, all, now);
    out.table(&table, "There is no cut.");
    if hidden > 0 {
        out.note(&format!("{hidden} older cuts without a name are not shown; --all shows them"));
    }
    let since = history.cuts.first().map_or_else(String::new, |cut| format!(" since {}", moment(cut.time)));
    out.note(&format!(
        "{} cuts{since}; the whole history takes {} in vault {}",
        history.cuts.len(),
        size(Some(history.stored)),
        history.vault
    ));
}

/// The named cuts.
pub fn snapshots(snapshots: &[v1::NamedCut], now: Timestamp) -> Table {
    let mut table = Table::new(["SNAPSHOT", "CUT", "TIME", "AGE"]);
    for v1::NamedCut { name, cut } in snapshots {
        table.row([name.clone(), format!("#{}", cut.point), moment(cut.time), span(cut.time, now)]);
    }
    table
}

/// The cut that the daemon will find for `at`, unless another comes in between.
pub fn find<'a>(history: &'a History, at: &At) -> Option<&'a Cut> {
    let mut cuts = history.cuts.iter().rev();
    match at {
        At::Time(time) => cuts.find(|cut| cut.time <= *time),
        At::Cut(point) => cuts.find(|cut| cut.point == *point),
        At::Snapshot(name) => cuts.find(|cut| cut.snapshots.iter().any(|known| known == name.as_str())),
    }
}

/// `cut #17 of 2026-11-21T13:03:04.250Z, 750ms before the moment asked for`
pub fn which(point: u64, time: Timestamp, at: &At) -> String {
    let distance = match at {
        At::Time(asked) if *asked > time => format!(", {} before the moment asked for", apart(time, *asked)),
        At::Time(_) => ", exactly the moment asked for".to_owned(),
        At::Cut(_) => String::new(),
        At::Snapshot(name) => format!(", snapshot {name}"),
    };
    format!("cut #{point} of {}{distance}", moment(time))
}

/// What a restore is going to do.
pub fn plan(volume: &str, new: Option<&str>, stop_containers: bool, cut: &Cut, at: &At) -> String {
    let which = which(cut.point, cut.time, at);
    let Some(new) = new else {
        let containers = match stop_containers {
            true => " The containers that use it are stopped, and started again afterwards.",
            false => "",
        };
        return format!(
            "Going to bring {} back to {which}. Its present state is cut first, and the command that goes back to \
             that is printed afterwards.{containers}",
            plain(volume)
        );
    };
    format!("Going to make the new volume {} with {which}. {} stays as it is.", plain(new), plain(volume))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cut(point: u64) -> Cut {
        let time = at(i64::try_from(point).unwrap());
        Cut { point, time, stored: 4096, snapshots: Vec::new(), verified: None, verified_whole: None }
    }

    /// Cuts 1 to 100 at these seconds, without those from 91 to 94; 50 has a name, 40 was damaged.
    fn history() -> History {
        let mut cuts: Vec<_> = (1..=100).filter(|point| !(91..95).contains(point)).map(cut).collect();
        cuts[49].snapshots = vec!["release".to_owned()];
        (cuts[39].verified, cuts[39].verified_whole) = (Some(at(90)), Some(false));
        let gap = v1::Gap { from: at(90), to: at(95), why: "the vault was away".to_owned() };
        History { vault: "local".to_owned(), cuts, stored: 1 << 20, gaps: vec![gap] }
    }

    #[test]
    fn a_timeline_is_short_and_leaves_out_nothing_that_matters() {
        let (table, hidden) = rows(&history(), false, at(100));
        let text = table.render();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), hidden), (1 + ROWS + 3, 96 - ROWS - 2));
        assert!(lines[1].starts_with("#100  1970-01-01T00:01:40.000Z  0s   4KiB"), "{text}");
        assert!(
            lines[7].starts_with("gap") && lines[7].ends_with("no cuts for 5s: the vault was away"),
            "{text}"
        );
        assert!(lines[6].starts_with("#95") && lines[8].starts_with("#90"), "{text}");
        assert!(lines[42].starts_with("#50") && lines[42].contains("release"), "{text}");
        assert!(lines[43].starts_with("#40") && lines[43].ends_with("found DAMAGED 10s ago"), "{text}");
        let (table, hidden) = rows(&history(), true, at(100));
        assert_eq!((table.render().lines().count(), hidden), (1 + 96 + 1, 0));
    }

    #[test]
    fn the_cut_that_the_daemon_will_take_is_found() {
        let history = history();
        let point = |at: &str| find(&history, &parse(at)).map(|cut| cut.point);
        assert_eq!(point("1970-01-01T00:01:34.9Z"), Some(90), "the last before the gap");
        assert_eq!(point("1970-01-01T00:01:35Z"), Some(95));
        assert_eq!((point("#17"), point("#92")), (Some(17), None));
        assert_eq!((point("release"), point("never")), (Some(50), None));
        assert_eq!(point("1970-01-01T00:00:00Z"), None, "older than all");
    }

    fn parse(text: &str) -> At {
        At::parse(text, &at(1000).to_zoned(jiff::tz::TimeZone::UTC)).unwrap()
    }

    #[test]
    fn a_plan_says_which_cut_and_how_far_off() {
        let history = history();
        let plan = |new, text| {
            let at = parse(text);
            plan("pgdata", new, false, find(&history, &at).unwrap(), &at)
        };
        let place = plan(None, "1970-01-01T00:01:34.9Z");
        assert!(place.contains("cut #90 of 1970-01-01T00:01:30.000Z, 4.9s before"), "{place}");
        assert!(place.contains("cut first"), "{place}");
        assert!(plan(None, "1970-01-01T00:01:35Z").contains("exactly the moment"));
        let new = plan(Some("copy"), "release");
        assert_eq!(
            new,
            "Going to make the new volume copy with cut #50 of 1970-01-01T00:00:50.000Z, snapshot release. \
             pgdata stays as it is."
        );
    }

    #[test]
    fn a_time_that_is_shown_finds_its_cut() {
        let history = history();
        for cut in &history.cuts {
            assert_eq!(find(&history, &parse(&moment(cut.time))), Some(cut));
        }
    }
}
