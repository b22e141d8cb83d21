//! What to merge and what to delete: a pure function of a stream's segments and of the points that must stay.

use crate::chain::{chain, reachable};
use crate::format::Kind;
use crate::segment::Segment;
use std::collections::{BTreeSet, HashSet};

/// How streams are kept in shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The widths of the levels in milliseconds, ascending.
    pub widths: Vec<u64>,
}

impl Default for Rules {
    /// A minute, an hour, a day, 32 days.
    fn default() -> Self {
        Self { widths: vec![60_000, 3_600_000, 86_400_000, 32 * 86_400_000] }
    }
}

/// What is to be done, as indices into the segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Chains to merge, each oldest first.
    pub merges: Vec<Vec<usize>>,
    /// Segments that are not needed any more.
    pub condemned: Vec<usize>,
}

/// So many segments of a base are merged even if they are small.
const MANY: usize = 32;

/// Plans for these segments. `kept` are the points that must stay restorable; the newest is one of them always.
pub fn plan(segments: &[Segment], kept: &BTreeSet<u64>, newest: u64, _now_ms: u64, rules: &Rules) -> Plan {
    let mut plan = Plan::default();
    let mut kept = kept.clone();
    kept.insert(newest);
    let spans: HashSet<(u64, u64)> = segments.iter().map(|s| (s.from, s.to)).collect();
    let index = |segment: &Segment| segments.iter().position(|other| std::ptr::eq(other, segment));
    let reached = reachable(segments);
    let mut cuts: Vec<(u64, u64)> = segments
        .iter()
        .filter(|s| s.kind == Kind::Cut && reached.contains(&s.to))
        .map(|s| (s.to, s.time))
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let Some(&(base_end, _)) = cuts.first() else { return plan };
    let last_time = cuts.last().map_or(0, |cut| cut.1);
    let mut planned: HashSet<usize> = HashSet::new();
    for width in &rules.widths {
        let mut before = base_end;
        for (at, (point, time)) in cuts.iter().enumerate() {
            let bucket = time / width;
            let ends_bucket = cuts.get(at + 1).is_some_and(|(_, next)| next / width > bucket);
            if *point <= base_end || !ends_bucket || bucket >= last_time / width {
                continue;
            }
            let from = std::mem::replace(&mut before, *point);
            if spans.contains(&(from, *point)) {
                continue;
            }
            let Some(chain) = chain(segments, from, *point).filter(|chain| chain.len() >= 2) else {
                continue;
            };
            let merge: Vec<usize> = chain.into_iter().filter_map(index).collect();
            if merge.iter().any(|at| planned.contains(at)) {
                continue;
            }
            planned.extend(&merge);
            plan.merges.push(merge);
        }
    }
    // The base takes in what nobody asks for any more, when that is worth writing it anew.
    let first_kept = kept.iter().copied().find(|point| *point >= base_end).unwrap_or(newest);
    if let Some(run) = chain(segments, 0, first_kept).filter(|run| run.len() >= 2) {
        let rest: u64 = run[1..].iter().map(|s| s.size()).sum();
        let merge: Vec<usize> = run.iter().filter_map(|s| index(s)).collect();
        let worth = rest.saturating_mul(4) >= run[0].size() || run.len() >= MANY;
        if worth && !merge.iter().any(|at| planned.contains(at)) {
            plan.merges.push(merge);
        }
    }
    let mut left: Vec<bool> = vec![true; segments.len()];
    for (at, segment) in segments.iter().enumerate() {
        let covered = segments
            .iter()
            .any(|other| other.spans(segment) && kept.range(segment.to..other.to).next().is_none());
        if covered {
            left[at] = false;
        }
    }
    // Never trust that alone.
    let rest: Vec<Segment> =
        segments.iter().zip(&left).filter(|(_, left)| **left).map(|(s, _)| s.clone()).collect();
    let after = reachable(&rest);
    if kept.iter().all(|point| !reached.contains(point) || after.contains(point)) {
        plan.condemned = (0..segments.len()).filter(|at| !left[*at]).collect();
    }
    plan
}
