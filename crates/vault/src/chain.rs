//! Which segments lead to a point.

use crate::segment::Segment;
use std::collections::{BTreeSet, HashMap};

/// The best ways from one point to all others. They are a tree: the best way to a point goes on from the best way to the
/// point before.
#[derive(Debug, Clone)]
pub(crate) struct Ways {
    /// For each point the number of segments, their bytes, and the last of them.
    best: HashMap<u64, (usize, u64, Option<usize>)>,
}

impl Ways {
    /// The ways from `from`, on such of the segments as `counts` says.
    pub(crate) fn new(segments: &[Segment], from: u64, counts: impl Fn(usize, &Segment) -> bool) -> Self {
        let mut order: Vec<(usize, &Segment)> = segments
            .iter()
            .enumerate()
            .filter(|(at, s)| from <= s.from && s.from < s.to && counts(*at, s))
            .collect();
        // Every way to a segment's beginning ends before its end.
        order.sort_by_key(|(_, segment)| segment.to);
        let mut best = HashMap::with_capacity(order.len() + 1);
        best.insert(from, (0, 0, None));
        for (at, segment) in order {
            let Some((steps, bytes, _)) = best.get(&segment.from).copied() else { continue };
            let (steps, bytes) = (steps + 1, u64::saturating_add(bytes, segment.size()));
            if best.get(&segment.to).is_none_or(|old| (steps, bytes) < (old.0, old.1)) {
                best.insert(segment.to, (steps, bytes, Some(at)));
            }
        }
        Self { best }
    }

    /// The last segment on the way to `point`, as an index. `None` also for the point where all begin.
    pub(crate) fn last(&self, point: u64) -> Option<usize> {
        self.best.get(&point)?.2
    }

    /// Whether there is a way to `point`.
    pub(crate) fn reach(&self, point: u64) -> bool {
        self.best.contains_key(&point)
    }

    /// All points to which there is a way.
    pub(crate) fn points(&self) -> impl Iterator<Item = u64> + '_ {
        self.best.keys().copied()
    }
}

/// The fewest segments, and of those the fewest bytes, that go from point `from` to point `to`; oldest first.
pub fn chain(segments: &[Segment], from: u64, to: u64) -> Option<Vec<&Segment>> {
    let ways = Ways::new(segments, from, |_, segment| segment.to <= to);
    if !ways.reach(to) {
        return None;
    }
    let mut chain = Vec::new();
    let mut at = to;
    while let Some(last) = ways.last(at) {
        let segment = segments.get(last)?;
        chain.push(segment);
        at = segment.from;
    }
    chain.reverse();
    Some(chain)
}

/// The points that can be reached from point 0.
pub fn reachable(segments: &[Segment]) -> BTreeSet<u64> {
    Ways::new(segments, 0, |_, _| true).points().collect()
}

/// The points from which `to` can be reached, itself among them.
pub(crate) fn before(segments: &[Segment], to: u64) -> BTreeSet<u64> {
    let mut order: Vec<&Segment> = segments.iter().filter(|s| s.from < s.to && s.to <= to).collect();
    order.sort_by_key(|segment| std::cmp::Reverse(segment.to));
    let mut points = BTreeSet::from([to]);
    for segment in order {
        if points.contains(&segment.to) {
            points.insert(segment.from);
        }
    }
    points
}

/// What is missing on the way to a point, in words: from the last point that can be reached to the first one that
/// leads on.
pub fn missing(segments: &[Segment], to: u64) -> String {
    let end = before(segments, to).first().copied().unwrap_or(to);
    if end == 0 {
        return "nothing is missing".to_owned();
    }
    let last = reachable(segments).range(..end).next_back().copied().unwrap_or(0);
    format!("no segment leads from point {last} to point {end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Kind;
    use proptest::prelude::*;

    fn segment(from: u64, to: u64, size: u64) -> Segment {
        Segment { from, to, time: to, epoch: 1, run: 0, kind: Kind::Cut, parts: vec![size] }
    }

    /// Every tiling of `(from, to]`.
    fn tilings(segments: &[Segment], from: u64, to: u64) -> Vec<Vec<&Segment>> {
        if from == to {
            return vec![Vec::new()];
        }
        let mut all = Vec::new();
        for first in segments.iter().filter(|s| s.from == from && s.to <= to) {
            for mut rest in tilings(segments, first.to, to) {
                rest.insert(0, first);
                all.push(rest);
            }
        }
        all
    }

    fn cost(chain: &[&Segment]) -> (usize, u64) {
        (chain.len(), chain.iter().map(|s| s.size()).sum())
    }

    proptest! {
        #[test]
        fn is_the_cheapest_of_all(
            spans in prop::collection::vec((0u64..10, 1u64..6, 1u64..50), 0..18),
            from in 0u64..6,
            len in 0u64..10,
        ) {
            let segments: Vec<_> = spans.iter().map(|(from, len, size)| segment(*from, from + len, *size)).collect();
            let all = tilings(&segments, from, from + len);
            let found = chain(&segments, from, from + len);
            prop_assert_eq!(found.as_ref().map(|c| cost(c)), all.iter().map(|c| cost(c)).min());
            if let Some(found) = found {
                prop_assert!(found.windows(2).all(|two| two[0].to == two[1].from));
            }
            for to in 0..16 {
                let way = chain(&segments, 0, to).is_some();
                prop_assert_eq!(reachable(&segments).contains(&to), way);
                prop_assert_eq!(missing(&segments, to) == "nothing is missing", way);
            }
        }
    }

    #[test]
    fn says_what_is_missing() {
        let segments = [segment(0, 3, 1), segment(3, 5, 1), segment(6, 7, 1), segment(7, 9, 1)];
        assert_eq!(missing(&segments, 9), "no segment leads from point 5 to point 6");
        assert_eq!(missing(&segments, 6), "no segment leads from point 5 to point 6");
        assert_eq!(missing(&segments, 4), "no segment leads from point 3 to point 4");
        assert_eq!(missing(&segments, 12), "no segment leads from point 5 to point 12");
        assert_eq!(missing(&[], 2), "no segment leads from point 0 to point 2");
        assert_eq!(missing(&segments, 5), "nothing is missing");
    }

    #[test]
    fn segments_that_make_no_sense_lead_nowhere() {
        let segments = [segment(4, 4, 1), segment(0, 2, 1), segment(4, 1, 1), segment(2, 4, 1)];
        assert_eq!(chain(&segments, 0, 4).map(|c| c.len()), Some(2));
        assert_eq!(reachable(&segments), BTreeSet::from([0, 2, 4]));
    }
}
