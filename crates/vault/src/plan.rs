//! What to merge and what to delete: a pure function of a stream's segments and of the points that must stay.
//!
//! The best ways from point 0 to the points that must stay are a tree, whose edges are segments. Everything here is said
//! of that tree: a merge replaces two or more edges that follow each other, and what is not an edge goes. Hence
//! - a point that must stay stays by construction: its own way is never condemned;
//! - plans come to an end: a merge makes the way to at least one such point shorter, and condemning makes none longer, so
//!   nothing is ever merged, deleted and merged again.
//!
//! When a plan is empty, for every point that must stay its way is no longer than
//! - 255 segments of its own minute (60 if there is a point a second), and
//! - for every two neighbouring levels (60 minutes of its hour, 24 hours of its day, 32 days) as many as the wider one
//!   has of the narrower, and one for every 256 (65,536; 16,777,216) points in it, and
//! - one for every 32 days before that, and
//! - fewer than [`PIECES`] for the base.
//!
//! [`LONGEST`] is what that comes to with a cut a second, and [`SPACE`] how much room it takes.
//!
//! And with `k` points that must stay, the tree has at most `2k` runs without a branch. Those older than an hour and not
//! on the way to the newest point have fewer than [`LINKS`] segments, or as many as differ in size by a factor of two.

use crate::chain::{Ways, before};
use crate::format::Kind;
use crate::segment::Segment;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The most segments on the way to a point that must stay, when a plan is empty and there is at most a cut a second: those of
/// its minute, minutes of its hour, hours of its day, days, and the base. After 32 days, one more for every 32 days.
pub const LONGEST: usize = 60 + 60 + 24 + 32 + PIECES;

/// So many times the blocks of the points that must stay, each of its contents counted once, is the most that a stream has
/// when a plan is empty, besides what was written in the last [`YOUNG`]. Unlike [`LONGEST`] that does not follow from the rules;
/// it is what tests hold, with a quarter to spare.
pub const SPACE: usize = 4;

/// What is younger, in milliseconds, may be there as it was written: a minute is merged when it is over.
pub const YOUNG: u64 = 2 * 60_000;

/// How streams are kept in shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The widths of the levels in milliseconds, ascending, each a multiple of the one before.
    pub widths: Vec<u64>,
    /// So old, in milliseconds, must be what is merged only because nobody asks for what lies between.
    pub settled: u64,
}

impl Default for Rules {
    /// A minute, an hour, a day, 32 days; an hour.
    fn default() -> Self {
        Self::of_minutes(60_000)
    }
}

impl Rules {
    /// The usual ones, for minutes of so many milliseconds: tests have no time for real ones.
    pub fn of_minutes(minute: u64) -> Self {
        let minute = minute.max(1);
        let (hour, day) = (60 * minute, 24 * 60 * minute);
        Self { widths: vec![minute, hour, day, 32 * day], settled: hour }
    }
}

/// What is to be done, as indices into the segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Chains to merge, each oldest first. No segment is in two of them.
    pub merges: Vec<Vec<usize>>,
    /// Segments that are not needed any more. None of them is merged by this plan.
    pub condemned: Vec<usize>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.merges.is_empty() && self.condemned.is_empty()
    }
}

/// The base is written anew when what comes after has at least one part in so many of its bytes. So a byte that enters
/// the base costs at most one more than so many. A number of segments is no reason: a terabyte would be written for 32
/// small cuts that nobody asks for any more, and the levels bound their number anyway.
const BASE: u64 = 4;
/// A run is merged when it has so many times what can be wanted of it.
const COPIES: u64 = 3;
/// A base of so many pieces is merged once, however little comes after.
const PIECES: usize = 32;
/// So many segments without a branch are merged. Not two: while a tier of the retention ends, the run grows by one again
/// and again, and soon all of it goes.
const LINKS: usize = 6;
/// The most that is merged at once: merging holds a table of each. More take several plans.
const INPUTS: usize = 256;
/// A bucket of the first level holds no more points than two to this power, one of the next no more than that squared, and
/// so on. Otherwise a clock that was ahead for a moment (times never go back in a stream) would leave a minute open for
/// years.
const CROWD: u32 = 8;

/// One point on the way to a point that must stay.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// The segment that ends here.
    segment: usize,
    /// Where that begins.
    parent: u64,
    /// The last cut on the way here, this point included.
    cut: Option<u64>,
    /// How many segments of the tree begin here.
    children: usize,
    /// Whether the point must stay.
    stays: bool,
}

/// What is planned for.
struct Stream<'a> {
    segments: &'a [Segment],
    rules: &'a Rules,
    /// By point; 0 is not among them.
    nodes: BTreeMap<u64, Node>,
    /// What is planned so far, and which segments are in it.
    merges: Vec<Vec<usize>>,
    planned: HashSet<usize>,
}

/// Plans for these segments. `kept` are the points that must stay restorable; the newest is one of them always.
///
/// A plan can be carried out and made anew until there is nothing left to do: levels build on each other.
pub fn plan(segments: &[Segment], kept: &BTreeSet<u64>, newest: u64, now_ms: u64, rules: &Rules) -> Plan {
    let ways = Ways::new(segments, 0, |_, _| true);
    let is_cut = |point: &u64| ways.last(*point).is_some_and(|at| segments[at].kind == Kind::Cut);
    // While the first cut is not there, there is nothing to choose from.
    let Some(last_cut) = ways.points().filter(is_cut).max() else { return Plan::default() };
    let tail = ways.points().max().unwrap_or(last_cut);
    // The next segment begins at the last point, a cut or not.
    let mut stay: BTreeSet<u64> = kept.clone();
    stay.extend([newest, last_cut, tail]);
    let lost: Vec<u64> = stay.iter().copied().filter(|point| !ways.reach(*point)).collect();
    // Where an object is lost, what leads to the gap stays too: somebody may find it.
    let mut spared = BTreeSet::new();
    for point in &lost {
        let leads = before(segments, *point);
        let gap = leads.first().copied().unwrap_or(*point);
        stay.extend(ways.points().filter(|reached| *reached < gap).max());
        spared.extend(leads);
    }
    let mut stream = Stream {
        segments,
        rules,
        nodes: tree(segments, &ways, &stay),
        merges: Vec::new(),
        planned: HashSet::new(),
    };
    for level in 0..rules.widths.len() {
        stream.level(level);
    }
    stream.runs(last_cut, tail, now_ms);

    let edges: HashSet<usize> = stream.nodes.values().map(|node| node.segment).collect();
    let useless = |at: usize, segment: &Segment| {
        let spanned = || edges.iter().any(|edge| segments[*edge].spans(segment));
        !edges.contains(&at) && !spared.contains(&segment.to) && (ways.reach(segment.from) || spanned())
    };
    let mut condemned: Vec<usize> = (0..segments.len()).filter(|at| useless(*at, &segments[*at])).collect();
    // Never trust that alone.
    let gone: HashSet<usize> = condemned.iter().copied().collect();
    let after = Ways::new(segments, 0, |at, _| !gone.contains(&at));
    if lost.contains(&newest) || stay.iter().any(|point| ways.reach(*point) && !after.reach(*point)) {
        condemned.clear();
    }
    Plan { merges: stream.merges, condemned }
}

/// The best ways to the points that must stay.
fn tree(segments: &[Segment], ways: &Ways, stay: &BTreeSet<u64>) -> BTreeMap<u64, Node> {
    let mut nodes = BTreeMap::new();
    for point in stay {
        let mut at = *point;
        while let Some(segment) = ways.last(at) {
            let parent = segments[segment].from;
            let node = Node { segment, parent, cut: None, children: 0, stays: stay.contains(&at) };
            if nodes.insert(at, node).is_some() {
                break;
            }
            at = parent;
        }
    }
    // Parents come before their children.
    let points: Vec<(u64, Node)> = nodes.iter().map(|(point, node)| (*point, *node)).collect();
    for (point, node) in points {
        let mut above = None;
        if let Some(parent) = nodes.get_mut(&node.parent) {
            parent.children += 1;
            above = parent.cut;
        }
        if let Some(here) = nodes.get_mut(&point) {
            here.cut = if segments[node.segment].kind == Kind::Cut { Some(point) } else { above };
        }
    }
    nodes
}

impl Stream<'_> {
    /// The bucket of a point at a level.
    fn bucket(&self, level: usize, point: u64) -> (u64, u64) {
        let time = self.nodes.get(&point).map_or(0, |node| self.segments[node.segment].time);
        let width = self.rules.widths.get(level).copied().unwrap_or(u64::MAX).max(1);
        let bits = CROWD.saturating_mul(level as u32 + 1);
        (time / width, point.checked_shr(bits).unwrap_or(0))
    }

    /// The segments of the tree from one of its points to another, oldest first.
    fn way(&self, from: u64, to: u64) -> Vec<usize> {
        let mut way = Vec::new();
        let mut at = to;
        while at > from
            && let Some(node) = self.nodes.get(&at)
        {
            way.push(node.segment);
            at = node.parent;
        }
        way.reverse();
        way
    }

    /// Merges these, unless some of them are to be merged already.
    fn merge(&mut self, way: &[usize]) {
        if way.iter().any(|at| self.planned.contains(at)) {
            return;
        }
        for inputs in way.chunks(INPUTS).filter(|inputs| inputs.len() >= 2) {
            self.planned.extend(inputs);
            self.merges.push(inputs.to_vec());
        }
    }

    /// On every way: what is in a bucket that is over becomes one segment, from the last cut before the bucket to its
    /// last one. The base is in no bucket.
    fn level(&mut self, level: usize) {
        // For each cut of the tree the last one before its bucket, or the base's end.
        let mut starts: HashMap<u64, u64> = HashMap::new();
        let mut over: BTreeSet<(u64, u64)> = BTreeSet::new();
        for (point, node) in &self.nodes {
            if node.cut != Some(*point) {
                continue;
            }
            let start = match self.nodes.get(&node.parent).and_then(|parent| parent.cut) {
                None => *point,
                Some(last) => {
                    let start = starts.get(&last).copied().unwrap_or(last);
                    if self.bucket(level, last) == self.bucket(level, *point) {
                        start
                    } else {
                        over.insert((start, last));
                        last
                    }
                }
            };
            starts.insert(*point, start);
        }
        for (from, to) in over {
            let way = self.way(from, to);
            self.merge(&way);
        }
    }

    /// Ways without a branch and without a point that must stay: into the base, or into each other.
    fn runs(&mut self, last_cut: u64, tail: u64, now_ms: u64) {
        let joint = |node: &Node| node.stays || node.children > 1;
        let levels_done = self.merges.is_empty();
        let trunk: HashSet<usize> = self.way(0, tail).into_iter().collect();
        let ends: Vec<u64> =
            self.nodes.iter().filter(|(_, node)| joint(node)).map(|(point, _)| *point).collect();
        for end in ends {
            let mut begin = end;
            while let Some(node) = self.nodes.get(&begin) {
                begin = node.parent;
                if self.nodes.get(&begin).is_some_and(joint) {
                    break;
                }
            }
            let way = self.way(begin, end);
            let first = if begin == 0 { self.base(&way, last_cut) } else { Some(0) };
            if begin != 0 && self.spare(&way, begin, last_cut) {
                continue;
            }
            // Half of a bucket that is to be merged should not be merged before.
            let Some(first) = first.filter(|_| levels_done) else { continue };
            let last = match way.last() {
                Some(last) if trunk.contains(last) => {
                    let top = self.rules.widths.len().saturating_sub(1);
                    let now = self.bucket(top, last_cut);
                    way.iter().take_while(|at| self.bucket(top, self.segments[**at].to) != now).count()
                }
                Some(last) if now_ms.saturating_sub(self.segments[*last].time) >= self.rules.settled => {
                    way.len()
                }
                _ => 0,
            };
            let links = way.get(first..last).unwrap_or(&[]);
            if links.len() >= LINKS {
                // So much of the end as is not smaller than what it is merged with: sizes fall by half then, and
                // no byte is written more often than they can.
                let sizes: Vec<u64> = links.iter().map(|at| self.segments[*at].size()).collect();
                let mut rest: u64 = sizes.iter().sum();
                for (at, size) in sizes.iter().enumerate() {
                    rest -= size;
                    if rest >= *size && at + 1 < links.len() {
                        let links = links[at..].to_vec();
                        self.merge(&links);
                        break;
                    }
                }
            }
        }
    }

    /// Merges a run that has the volume several times over, whatever bucket is not over yet: else every hour and every day in
    /// which all is written anew would be one more copy of it. No more of it can be wanted than the way to its beginning
    /// has, or the largest of its segments; if the volume has grown since, the next time comes when it has grown as much again.
    fn spare(&mut self, run: &[usize], begin: u64, last_cut: u64) -> bool {
        // What is of a minute that is not over changes at every cut.
        let now = self.bucket(0, last_cut);
        let over = run.iter().take_while(|at| self.bucket(0, self.segments[**at].to) != now).count();
        let run = run.get(..over).unwrap_or(&[]);
        let sizes = || run.iter().map(|at| self.segments[*at].size());
        let (sum, most) = (sizes().sum::<u64>(), sizes().max().unwrap_or(0));
        let size = |way: Vec<usize>| way.iter().map(|at| self.segments[*at].size()).sum::<u64>();
        if sum < most.saturating_mul(COPIES) || sum < size(self.way(0, begin)).saturating_mul(COPIES) {
            return false;
        }
        self.merge(run);
        true
    }

    /// Merges a way that begins at point 0 if that is worth it. Answers how many segments are the base if not.
    fn base(&mut self, way: &[usize], last_cut: u64) -> Option<usize> {
        let is_cut = |at: &usize| self.segments[*at].kind == Kind::Cut;
        let size = |way: &[usize]| way.iter().map(|at| self.segments[*at].size()).sum::<u64>();
        let pieces = way.iter().position(is_cut)? + 1;
        // What is of a minute that is not over changes at every cut.
        let now = self.bucket(0, last_cut);
        let over = |at: &usize| is_cut(at) && self.bucket(0, self.segments[*at].to) != now;
        let end = way.iter().rposition(over).map_or(pieces, |at| pieces.max(at + 1));
        let enough = end > pieces && size(&way[pieces..end]).saturating_mul(BASE) >= size(&way[..pieces]);
        if enough || pieces >= PIECES {
            self.merge(&way[..end]);
            return None;
        }
        Some(pieces)
    }
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests;
