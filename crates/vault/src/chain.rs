//! Which segments lead to a point.

use crate::segment::Segment;
use std::collections::{BTreeSet, HashMap};

/// The fewest segments, and of those the fewest bytes, that go from point `from` to point `to`; oldest first.
pub fn chain(segments: &[Segment], from: u64, to: u64) -> Option<Vec<&Segment>> {
    if from == to {
        return Some(Vec::new());
    }
    let mut order: Vec<&Segment> = segments.iter().filter(|s| s.from >= from && s.to <= to).collect();
    // Every way to a segment's beginning ends before its end.
    order.sort_by_key(|segment| segment.to);
    let mut best: HashMap<u64, (usize, u64, Option<&Segment>)> = HashMap::from([(from, (0, 0, None))]);
    for segment in order {
        let Some((steps, bytes, _)) = best.get(&segment.from).copied() else { continue };
        let way = (steps + 1, bytes + segment.size());
        if best.get(&segment.to).is_none_or(|(steps, bytes, _)| way < (*steps, *bytes)) {
            best.insert(segment.to, (way.0, way.1, Some(segment)));
        }
    }
    let mut chain = Vec::new();
    let mut at = to;
    while at != from {
        let segment = best.get(&at)?.2?;
        chain.push(segment);
        at = segment.from;
    }
    chain.reverse();
    Some(chain)
}

/// The points that can be reached from point 0.
pub fn reachable(segments: &[Segment]) -> BTreeSet<u64> {
    let mut order: Vec<&Segment> = segments.iter().collect();
    order.sort_by_key(|segment| segment.to);
    let mut points = BTreeSet::from([0]);
    for segment in order {
        if points.contains(&segment.from) {
            points.insert(segment.to);
        }
    }
    points
}

/// What is missing on the way to a point, in words.
pub fn missing(segments: &[Segment], to: u64) -> String {
    let below: Vec<Segment> = segments.iter().filter(|segment| segment.to <= to).cloned().collect();
    let last = reachable(&below).last().copied().unwrap_or(0);
    if last == to {
        return "nothing is missing".to_owned();
    }
    let next = below.iter().filter(|s| s.from > last).map(|s| s.from).min();
    let end = next.unwrap_or(to);
    format!("no segment leads from point {last} to point {end}")
}
