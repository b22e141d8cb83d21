//! Days of a cut a second, with retention: how many objects a restore reads, and how much a stream takes, stay within the
//! numbers that the documents give.

use super::{LONGEST, Plan, Rules, SPACE, YOUNG, plan};
use crate::chain::Ways;
use crate::format::Kind;
use crate::segment::Segment;
use jiff::Timestamp;
use model::Keep;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
/// Not at the start of any bucket.
const BEGIN: u64 = 1_700_000_012_345;

/// Which blocks a second writes.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// A few, mostly the same ones.
    Hot,
    /// A few, anywhere.
    Anywhere,
    /// Always new ones, so that no merge makes anything smaller.
    Append,
    /// Nearly nothing, and a quarter of the volume every three hours.
    Bursts,
    /// All of a small volume.
    All,
}

/// A block's content: since which point it is there, and at which it was written over.
#[derive(Debug, Clone, Copy)]
struct Version {
    born: u64,
    dead: u64,
}

/// The blocks of a segment, and the version of each.
type Blocks = BTreeMap<u32, usize>;

struct Stream {
    keep: Keep,
    load: Load,
    random: u64,
    now: u64,
    blocks: u32,
    segments: Vec<Segment>,
    contents: HashMap<(u64, u64), Blocks>,
    newest: u64,
    snapshots: BTreeSet<u64>,
    /// The newest version of each block.
    truth: Blocks,
    versions: Vec<Version>,
    /// Those that a kept cut may have, as indices.
    wanted: Vec<usize>,
    /// Blocks that were written: when, and how many.
    young: Vec<(u64, usize)>,
    merged: usize,
}

/// What a planner is.
type Planner = fn(&[Segment], &BTreeSet<u64>, u64, u64, &Rules) -> Plan;

/// The worst that was seen.
#[derive(Debug, Default)]
struct Worst {
    /// Segments on a way.
    chain: usize,
    /// Blocks that are there, for one that is wanted.
    space: f64,
    /// Blocks that were merged, for one that was written; not the worst, but in all.
    merged: f64,
}

impl Stream {
    fn new(keep: &str, load: Load, blocks: u32) -> Self {
        let mut stream = Self {
            keep: keep.parse().unwrap(),
            load,
            random: 1,
            now: BEGIN,
            blocks,
            segments: Vec::new(),
            contents: HashMap::new(),
            newest: 0,
            snapshots: BTreeSet::new(),
            truth: Blocks::new(),
            versions: Vec::new(),
            wanted: Vec::new(),
            young: Vec::new(),
            merged: 0,
        };
        stream.cut(&(0..blocks).collect::<Vec<_>>());
        stream
    }

    /// From 0 to below `end` (xorshift).
    fn below(&mut self, end: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % u64::from(end)) as u32
    }

    fn second(&mut self) {
        self.now += SECOND;
        let (few, hot) = (1 + self.below(4), self.below(4) > 0);
        let second = self.newest as u32;
        let blocks: Vec<u32> = match self.load {
            Load::Hot if hot => (0..few).map(|_| self.below(self.blocks / 16)).collect(),
            Load::Hot | Load::Anywhere => (0..few).map(|_| self.below(self.blocks)).collect(),
            Load::Append => vec![self.blocks + second],
            Load::Bursts if second.is_multiple_of(10_800) => {
                (0..self.blocks / 4).map(|_| self.below(self.blocks)).collect()
            }
            Load::Bursts => vec![self.below(4)],
            Load::All => (0..self.blocks).collect(),
        };
        self.cut(&blocks);
    }

    fn cut(&mut self, blocks: &[u32]) {
        let (from, to) = (self.newest, self.newest + 1);
        let mut content = Blocks::new();
        for block in blocks.iter().collect::<BTreeSet<_>>() {
            let version = self.versions.len();
            self.versions.push(Version { born: to, dead: u64::MAX });
            self.wanted.push(version);
            content.insert(*block, version);
            if let Some(old) = self.truth.insert(*block, version) {
                self.versions[old].dead = to;
            }
        }
        self.young.push((self.now, content.len()));
        self.add(from, to, self.now, content);
        self.newest = to;
    }

    fn add(&mut self, from: u64, to: u64, time: u64, content: Blocks) {
        let parts = vec![content.len() as u64 * 4096];
        self.segments.push(Segment { from, to, time, epoch: 1, run: 0, kind: Kind::Cut, parts });
        self.contents.insert((from, to), content);
    }

    fn kept(&self) -> BTreeSet<u64> {
        let mut cuts: Vec<(u64, u64)> = self.segments.iter().map(|s| (s.to, s.time)).collect();
        cuts.dedup();
        let at = |time: u64| Timestamp::from_millisecond(time as i64).unwrap();
        let times: Vec<_> = cuts.iter().map(|(_, time)| at(*time)).collect();
        let kept = self.keep.kept(&times, at(self.now));
        let kept = cuts.iter().zip(kept).filter(|(_, kept)| *kept).map(|((point, _), _)| *point);
        kept.chain(self.snapshots.iter().copied()).collect()
    }

    fn apply(&mut self, plan: &Plan) {
        let merged: Vec<_> = plan
            .merges
            .iter()
            .map(|merge| {
                let (first, last) = (&self.segments[merge[0]], &self.segments[merge[merge.len() - 1]]);
                let mut content = Blocks::new();
                for at in merge {
                    let Segment { from, to, .. } = self.segments[*at];
                    content.extend(&self.contents[&(from, to)]);
                }
                (first.from, last.to, last.time, content)
            })
            .collect();
        let gone: HashSet<usize> = plan.condemned.iter().copied().collect();
        for at in &gone {
            let Segment { from, to, .. } = self.segments[*at];
            self.contents.remove(&(from, to));
        }
        let mut at = 0..;
        self.segments.retain(|_| !gone.contains(&at.next().unwrap()));
        for (from, to, time, content) in merged {
            self.merged += content.len();
            self.add(from, to, time, content);
        }
        self.segments.sort_by_key(|s| (s.to, s.from));
    }

    /// Merges and deletes until nothing is left to do, by this planner.
    fn settle(&mut self, planner: Planner) {
        for _ in 0..40 {
            let plan = planner(&self.segments, &self.kept(), self.newest, self.now, &Rules::default());
            if plan.is_empty() {
                return;
            }
            self.apply(&plan);
        }
        panic!("no end");
    }

    /// Holds what is there against the bounds.
    fn measure(&mut self, worst: &mut Worst) {
        let kept = self.kept();
        let ways = Ways::new(&self.segments, 0, |_, _| true);
        let mut lengths: HashMap<u64, usize> = HashMap::from([(0, 0)]);
        for point in &kept {
            let mut way = Vec::new();
            let mut at = *point;
            while !lengths.contains_key(&at) {
                way.push(at);
                at = self.segments[ways.last(at).expect("a kept cut is lost")].from;
            }
            for (length, at) in (lengths[&at] + 1..).zip(way.into_iter().rev()) {
                lengths.insert(at, length);
            }
            worst.chain = worst.chain.max(lengths[point]);
        }
        // Nobody asks again for a version that no kept cut has, unless it is the newest.
        let versions = &self.versions;
        let wanted = |at: &usize| {
            let Version { born, dead } = versions[*at];
            kept.range(born..dead).next().is_some()
        };
        self.wanted.retain(wanted);
        let now = self.now;
        self.young.retain(|(time, _)| time + YOUNG > now);
        let young: usize = self.young.iter().map(|(_, blocks)| blocks).sum();
        let stored: usize = self.contents.values().map(Blocks::len).sum();
        let space = stored.saturating_sub(young) as f64 / self.wanted.len() as f64;
        worst.space = worst.space.max(space);
        worst.merged = self.merged as f64 / self.versions.len() as f64;
    }
}

/// Lives through so many hours, with upkeep every few minutes.
fn worst(keep: &str, load: Load, hours: u64, planner: Planner) -> Worst {
    let blocks = if matches!(load, Load::All) { 16 } else { 2_000 };
    let mut stream = Stream::new(keep, load, blocks);
    let mut worst = Worst::default();
    let mut next = 0;
    for second in 0..hours * HOUR / SECOND {
        stream.second();
        // The later ones live long behind it.
        if second == 20_000 || second == 50_000 {
            stream.snapshots.insert(stream.newest);
        }
        if second >= next {
            next = second + 300 + u64::from(stream.below(900));
            stream.settle(planner);
            stream.measure(&mut worst);
        }
    }
    worst
}

fn holds(keep: &str, load: Load, hours: u64) {
    let worst = worst(keep, load, hours, plan);
    if std::env::var_os("EVERHOLD_PLAN_FIGURES").is_some() {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("{keep:27} {load:?}, {hours} hours: {worst:?}");
        }
    }
    assert!(worst.chain <= LONGEST, "{keep} {load:?}: {worst:?}");
    assert!(worst.space <= SPACE as f64, "{keep} {load:?}: {worst:?}");
}

const USUAL: &str = "1s:10m,1m:24h,1h:7d,1d:90d";

#[test]
fn a_day_with_the_usual_retention() {
    holds(USUAL, Load::Append, 28);
}

#[test]
fn days_behind_a_snapshot_are_no_copies_of_the_volume() {
    holds("1s:10m", Load::Anywhere, 96);
    holds("1d:90d", Load::Hot, 96);
    holds("1d:90d", Load::Append, 48);
}

#[test]
fn other_retentions_and_loads() {
    holds(USUAL, Load::Hot, 6);
    holds(USUAL, Load::Bursts, 12);
    holds("1m:24h", Load::Anywhere, 26);
    holds("7m:2h,7h:4d,7d:60d", Load::All, 48);
    holds("7m:2h,7h:4d,7d:60d", Load::Bursts, 48);
    holds("45s:10m,6m:3h", Load::Anywhere, 24);
}

/// The bounds are none that any planner would keep.
#[test]
fn worse_planners_are_noticed() {
    let nothing: Planner = |_, _, _, _, _| Plan::default();
    let without_levels: Planner = |segments, kept, newest, now, rules| {
        plan(segments, kept, newest, now, &Rules { widths: Vec::new(), ..rules.clone() })
    };
    let without_end: Planner = |segments, kept, newest, now, rules| {
        let plan = plan(segments, kept, newest, now, rules);
        Plan { condemned: Vec::new(), ..plan }
    };
    for (what, planner, chain, space) in [
        ("nothing", nothing, true, true),
        ("no levels", without_levels, true, false),
        ("nothing is condemned", without_end, false, true),
    ] {
        let worst = worst("1s:10m", Load::Anywhere, 2, planner);
        assert_eq!((worst.chain > LONGEST, worst.space > SPACE as f64), (chain, space), "{what}: {worst:?}");
    }
}
