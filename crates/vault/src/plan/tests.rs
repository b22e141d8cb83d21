//! What plans do to streams: with examples, and with any stream.

use super::*;
use crate::chain::{chain, reachable};
use jiff::Timestamp;
use model::Keep;
use proptest::prelude::*;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Not at the start of any bucket.
const BEGIN: u64 = 1_700_000_012_345;

type Blocks = BTreeMap<u32, u64>;

/// Numbers from a seed (SplitMix64), so that a seed says all.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `from` to `to`, both inclusive.
    fn of(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.of(1, many) == 1
    }
}

fn segment(from: u64, to: u64, time: u64, kind: Kind, size: u64) -> Segment {
    Segment { from, to, time, epoch: 1, run: 0, kind, parts: vec![size] }
}

fn size(blocks: &Blocks) -> u64 {
    blocks.len() as u64 * 4096 + 300
}

/// What was measured.
#[derive(Debug, Default, Clone, Copy)]
struct Worst {
    chain: usize,
    segments: usize,
    kept: usize,
    ratio: f64,
    passes: usize,
}

/// A stream of a volume whose truth is known.
struct Sim {
    random: Random,
    keep: Keep,
    now: u64,
    segments: Vec<Segment>,
    contents: HashMap<(u64, u64), Blocks>,
    truth: Blocks,
    truths: BTreeMap<u64, Blocks>,
    /// All points ever: their times, and whether they were cuts.
    all: Vec<(u64, u64, bool)>,
    snapshots: BTreeSet<u64>,
    versions: u64,
    blocks: u32,
    /// Whether contents are compared.
    reads: bool,
    written: u64,
    merged: u64,
    merges: u64,
    worst: Worst,
}

impl Sim {
    fn new(seed: u64, keep: &str, blocks: u32, pieces: u64) -> Self {
        let mut sim = Self {
            random: Random(seed),
            keep: keep.parse().unwrap(),
            now: BEGIN,
            segments: Vec::new(),
            contents: HashMap::new(),
            truth: Blocks::new(),
            truths: BTreeMap::new(),
            all: Vec::new(),
            snapshots: BTreeSet::new(),
            versions: 0,
            blocks,
            reads: true,
            written: 0,
            merged: 0,
            merges: 0,
            worst: Worst::default(),
        };
        for piece in 0..pieces {
            let share = blocks / pieces as u32;
            let from = piece as u32 * share;
            sim.point((from..from + share).collect(), piece + 1 == pieces);
            let plan = sim.plan();
            assert!(plan.is_empty() || piece + 1 == pieces, "a stream that begins is left alone");
        }
        sim
    }

    fn newest(&self) -> u64 {
        self.all.last().unwrap().0
    }

    fn point(&mut self, blocks: Vec<u32>, cut: bool) {
        let mut content = Blocks::new();
        for block in blocks {
            self.versions += 1;
            content.insert(block, self.versions);
        }
        if self.reads {
            self.truth.extend(content.clone());
        }
        let to = self.all.len() as u64 + 1;
        let kind = if cut { Kind::Cut } else { Kind::Partial };
        self.written += size(&content);
        self.segments.push(segment(to - 1, to, self.now, kind, size(&content)));
        self.contents.insert((to - 1, to), content);
        self.all.push((to, self.now, cut));
        if cut && self.reads {
            self.truths.insert(to, self.truth.clone());
        }
    }

    /// A cut after some time, now and then by way of a partial point.
    fn cut(&mut self, after: u64) {
        self.now += after;
        if self.random.one_in(40) {
            let blocks = self.some();
            self.point(blocks, false);
            if self.random.one_in(4) {
                self.upkeep();
            }
        }
        let blocks = self.some();
        self.point(blocks, true);
    }

    /// Mostly blocks that are written again and again.
    fn some(&mut self) -> Vec<u32> {
        let hot = u64::from(self.blocks / 16).max(2);
        let all = u64::from(self.blocks) - 1;
        let few = self.random.of(1, 6);
        let most = if self.random.one_in(4) { all } else { hot };
        (0..few).map(|_| self.random.of(0, most) as u32).collect()
    }

    /// What is asked for, as `history` asks.
    fn kept(&self) -> BTreeSet<u64> {
        let mut cuts: Vec<(u64, u64)> =
            self.segments.iter().filter(|s| s.kind == Kind::Cut).map(|s| (s.to, s.time)).collect();
        cuts.dedup();
        let mut kept = self.ask(&cuts);
        kept.extend(&self.snapshots);
        kept
    }

    fn ask(&self, cuts: &[(u64, u64)]) -> BTreeSet<u64> {
        let at = |time: u64| Timestamp::from_millisecond(time as i64).unwrap();
        let times: Vec<_> = cuts.iter().map(|(_, time)| at(*time)).collect();
        let kept = self.keep.kept(&times, at(self.now));
        cuts.iter().zip(kept).filter(|(_, kept)| *kept).map(|((point, _), _)| *point).collect()
    }

    fn plan(&self) -> Plan {
        plan(&self.segments, &self.kept(), self.newest(), self.now, &Rules::default())
    }

    /// Carries out a plan, or only the first of its merges.
    fn apply(&mut self, plan: &Plan, merges: usize) {
        let mut used = HashSet::new();
        let mut made = Vec::new();
        for merge in plan.merges.iter().take(merges) {
            assert!((2..=INPUTS).contains(&merge.len()));
            assert!(merge.iter().all(|at| used.insert(*at)), "merged twice");
            assert!(merge.windows(2).all(|w| self.segments[w[0]].to == self.segments[w[1]].from));
            let first = &self.segments[merge[0]];
            let last = &self.segments[merge[merge.len() - 1]];
            let mut content = Blocks::new();
            for at in merge {
                let Segment { from, to, .. } = self.segments[*at];
                content.extend(self.contents[&(from, to)].clone());
            }
            let (from, to) = (first.from, last.to);
            assert!(!self.contents.contains_key(&(from, to)), "({from}, {to}] is made again");
            self.merged += size(&content);
            self.merges += 1;
            made.push(segment(from, to, last.time, last.kind, size(&content)));
            self.contents.insert((from, to), content);
        }
        assert!(plan.condemned.iter().all(|at| !used.contains(at)), "merged and condemned");
        if merges >= plan.merges.len() {
            let gone: HashSet<usize> = plan.condemned.iter().copied().collect();
            for at in &gone {
                let Segment { from, to, .. } = self.segments[*at];
                self.contents.remove(&(from, to)).unwrap();
            }
            let mut at = 0;
            self.segments.retain(|_| {
                at += 1;
                !gone.contains(&(at - 1))
            });
        }
        self.segments.extend(made);
        self.segments.sort_by_key(|s| (s.to, s.from));
    }

    /// Every point that is asked for is there; some of them are read.
    fn check(&mut self, reads: u64) {
        let kept = self.kept();
        let points = reachable(&self.segments);
        assert!(points.contains(&self.newest()), "the newest is lost");
        assert!(kept.is_subset(&points), "lost: {:?}", kept.difference(&points).collect::<Vec<_>>());
        if !self.reads {
            return;
        }
        let kept: Vec<u64> = kept.into_iter().collect();
        let mut read: Vec<u64> =
            (0..reads).map(|_| kept[self.random.of(0, kept.len() as u64 - 1) as usize]).collect();
        read.extend(kept.last());
        for point in read {
            let mut content = Blocks::new();
            for s in chain(&self.segments, 0, point).unwrap() {
                content.extend(self.contents[&(s.from, s.to)].clone());
            }
            assert_eq!(content, self.truths[&point], "point {point} is not what it was");
        }
    }

    /// Once, half, or until nothing is left to do.
    fn upkeep(&mut self) {
        match self.random.of(0, 5) {
            0 => {
                let plan = self.plan();
                self.apply(&plan, usize::MAX);
            }
            1 => {
                let plan = self.plan();
                let some = self.random.of(0, plan.merges.len() as u64);
                self.apply(&plan, some as usize);
            }
            _ => return self.settle(),
        }
        self.check(1);
    }

    fn settle(&mut self) {
        for passes in 0.. {
            assert!(passes < 40, "no end");
            let plan = self.plan();
            self.worst.passes = self.worst.passes.max(passes);
            if plan.is_empty() {
                break;
            }
            self.apply(&plan, usize::MAX);
            self.check(0);
        }
        self.check(2);
        self.bounds();
        // Nothing that would be asked for if all were still there is gone.
        if self.random.one_in(16) {
            let cuts: Vec<_> = self.all.iter().filter(|p| p.2).map(|p| (p.0, p.1)).collect();
            let mut wanted = self.ask(&cuts);
            wanted.extend(&self.snapshots);
            assert_eq!(wanted, self.kept());
        }
        let kept = self.kept();
        self.truths.retain(|point, _| kept.contains(point));
    }

    /// The most segments on a way, from the widths and from how many points there are in them.
    fn longest(&self) -> usize {
        let widths = Rules::default().widths;
        let most = |width: u64| {
            let mut counts: HashMap<u64, usize> = HashMap::new();
            for (_, time, _) in &self.all {
                *counts.entry(time / width).or_default() += 1;
            }
            counts.into_values().max().unwrap_or(0)
        };
        let mut longest = PIECES - 1 + most(widths[0]).min(255);
        for (level, pair) in widths.windows(2).enumerate() {
            longest += (pair[1] / pair[0]) as usize + (most(pair[1]) >> (8 * (level + 1)));
        }
        longest + ((self.now - BEGIN) / widths[3]) as usize + 1
    }

    fn bounds(&mut self) {
        let kept = self.kept();
        let longest = self.longest();
        for point in kept.iter().chain([&self.newest()]) {
            let chain = chain(&self.segments, 0, *point).unwrap().len();
            assert!(chain <= longest, "{chain} segments lead to point {point}, more than {longest}");
            self.worst.chain = self.worst.chain.max(chain);
        }
        let sizes = self.segments.iter().map(Segment::size);
        let factor = sizes.clone().max().unwrap() / sizes.min().unwrap();
        let links = (LINKS - 1).max(factor.ilog2() as usize + 3);
        let old = kept.iter().filter(|p| self.all[**p as usize - 1].1 + HOUR <= self.now).count();
        let young = self.all.iter().filter(|p| p.1 + 2 * HOUR > self.now).count();
        let most = 2 * longest + 2 * old * links + young;
        assert!(self.segments.len() <= most, "{} segments, more than {most}", self.segments.len());
        let ratio = self.segments.len() as f64 / (kept.len() + 120) as f64;
        self.worst.ratio = self.worst.ratio.max(ratio);
        if self.segments.len() > self.worst.segments {
            (self.worst.segments, self.worst.kept) = (self.segments.len(), kept.len());
        }
    }

    fn amplification(&self) -> f64 {
        self.merged as f64 / self.written as f64
    }

    /// Bursts, steady times, pauses.
    fn live(&mut self, phases: u64) {
        for _ in 0..phases {
            let (cuts, gap, every) = match self.random.of(0, 5) {
                0 => (self.random.of(20, 150), (900, 1_100), 40),
                1 => (self.random.of(10, 80), (SECOND, 10 * SECOND), 15),
                2 => (self.random.of(20, 90), (50 * SECOND, 3 * MINUTE), 5),
                3 => (self.random.of(5, 60), (10 * MINUTE, 3 * HOUR), 2),
                4 => (1, (HOUR, 12 * HOUR), 1),
                _ => (1, (DAY, 6 * DAY), 1),
            };
            for _ in 0..cuts {
                let after = self.random.of(gap.0, gap.1);
                self.cut(after);
                if self.random.one_in(60) {
                    self.snapshots.insert(self.newest());
                }
                if self.random.one_in(90) {
                    self.snapshots.pop_first();
                }
                if self.random.one_in(every) {
                    self.upkeep();
                }
            }
            // Time goes on without cuts, too.
            self.now += self.random.of(0, gap.1 * 3);
            self.upkeep();
        }
        self.settle();
    }
}

const KEEPS: [&str; 7] = [
    "1s:10m,1m:24h,1h:7d,1d:90d",
    "45s:10m,6m:3h",
    "1s:10m",
    "1h:30d",
    "1d:10d",
    "7m:2h,7h:4d,7d:60d",
    "1s:1s",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_for_stays_and_no_more_than_that(seed: u64, keep in 0..KEEPS.len()) {
        let pieces = [1, 1, 3, 40][(seed % 4) as usize];
        let blocks = [48, 240, 2_000][(seed / 4 % 3) as usize];
        let mut sim = Sim::new(seed, KEEPS[keep], blocks, pieces);
        sim.live(40);
        let amplification = sim.amplification();
        if std::env::var_os("EVERHOLD_PLAN_FIGURES").is_some() {
            let days = (sim.now - BEGIN) / DAY;
            #[allow(clippy::print_stderr)]
            {
                eprintln!(
                    "{:27} {blocks:5} blocks {:5} points {days:4} days: x{amplification:.1} {} merges {:?}",
                    KEEPS[keep], sim.all.len(), sim.merges, sim.worst
                );
            }
        }
        prop_assert!(amplification <= 9.0, "{} times written", amplification);
    }
}

/// Nothing is ever written twice, so that no merge makes anything smaller, and the tiers of the retention end one
/// after the other.
#[test]
fn merging_costs_a_few_times_what_is_written() {
    for (keep, gap, cuts) in [
        ("1m:2h,1h:1d,1d:10d", 60 * SECOND, 3_500),
        ("1m:10m", 60 * SECOND, 3_000),
        ("1s:10m", SECOND, 3_000),
        ("1h:30d", HOUR, 1_500),
        ("1d:7d", 3 * HOUR, 1_000),
    ] {
        let mut sim = Sim::new(7, keep, 1_000, 1);
        sim.reads = false;
        for cut in 0..cuts {
            sim.now += gap;
            let first = 1_000 + cut * 4;
            sim.point((first..first + 4).collect(), true);
            if cut == 100 {
                sim.snapshots.insert(sim.newest());
            }
            if cut % 20 == 0 {
                sim.settle();
            }
        }
        let amplification = sim.amplification();
        if std::env::var_os("EVERHOLD_PLAN_FIGURES").is_some() {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("{keep}: x{amplification:.1}, {} merges, {:?}", sim.merges, sim.worst);
            }
        }
        assert!(amplification <= 9.0, "{keep}: {amplification} times written");
    }
}

/// Segments `(n, n + 1]`, all cuts, at these times.
fn cuts(times: impl IntoIterator<Item = u64>) -> Vec<Segment> {
    let times = times.into_iter().enumerate();
    times.map(|(at, time)| segment(at as u64, at as u64 + 1, time, Kind::Cut, 5_000)).collect()
}

/// Plans until there is nothing left to do, with merges as large as they can be.
fn settled(mut segments: Vec<Segment>, kept: &[u64], now: u64) -> Vec<Segment> {
    let kept = BTreeSet::from_iter(kept.iter().copied());
    for _ in 0..40 {
        let newest = segments.iter().map(|s| s.to).max().unwrap();
        let plan = plan(&segments, &kept, newest, now, &Rules::default());
        if plan.is_empty() {
            return segments;
        }
        let mut made = Vec::new();
        for merge in &plan.merges {
            let last = &segments[merge[merge.len() - 1]];
            let size = merge.iter().map(|at| segments[*at].size()).sum();
            made.push(segment(segments[merge[0]].from, last.to, last.time, last.kind, size));
        }
        let mut rest: Vec<Segment> = Vec::new();
        rest.extend((0..).zip(segments).filter(|(at, _)| !plan.condemned.contains(at)).map(|(_, s)| s));
        rest.extend(made);
        rest.sort_by_key(|s| (s.to, s.from));
        segments = rest;
    }
    panic!("no end");
}

fn spans(segments: &[Segment]) -> Vec<(u64, u64)> {
    segments.iter().map(|s| (s.from, s.to)).collect()
}

/// A day that does not begin at point 0's time.
const MIDNIGHT: u64 = 20_000 * DAY;

#[test]
fn a_clock_that_was_ahead_leaves_no_endless_chain() {
    // Times never go back in a stream: all cuts have the same one from then on.
    let segments = cuts((0..30_000).map(|_| MIDNIGHT + 400 * DAY));
    let kept = [5_000, 20_000];
    let segments = settled(segments, &kept, MIDNIGHT);
    for point in [5_000, 20_000, 30_000] {
        let chain = chain(&segments, 0, point).unwrap().len();
        assert!(chain <= 2 * 255 + 1, "{chain}");
    }
    assert!(segments.len() <= 1_000, "{}", segments.len());
}

#[test]
fn a_snapshot_in_an_old_minute_is_cheap() {
    // A cut a second for two hours, weeks ago, and then one cut a day.
    let times = (0..7_200).map(|at| MIDNIGHT + at * SECOND).chain((1..60).map(|d| MIDNIGHT + d * DAY));
    let now = MIDNIGHT + 60 * DAY;
    let segments = settled(cuts(times), &[4_321], now);
    let newest = chain(&segments, 0, 7_259).unwrap().len();
    assert!(chain(&segments, 0, 4_321).unwrap().len() <= LINKS + 1, "{:?}", spans(&segments));
    assert!(segments.len() < newest + LINKS, "{:?}", spans(&segments));
}

#[test]
fn a_large_base_is_not_written_anew_for_little() {
    let mut segments = cuts((0..2_000).map(|at| MIDNIGHT + at * HOUR));
    segments[0].parts = vec![1 << 40];
    let settled = settled(segments, &[], MIDNIGHT + 2_000 * HOUR);
    assert_eq!(spans(&settled)[0], (0, 1));
    assert!(settled.len() < 60, "{:?}", spans(&settled));
}

#[test]
fn a_first_cut_of_many_pieces_is_merged_once_it_is_there() {
    let mut segments = cuts((0..5_000).map(|_| MIDNIGHT));
    segments.iter_mut().for_each(|s| s.kind = Kind::Partial);
    assert_eq!(settled(segments.clone(), &[], MIDNIGHT), segments);
    segments[4_999].kind = Kind::Cut;
    assert_eq!(spans(&settled(segments.clone(), &[], MIDNIGHT)).len(), 20);
    segments.truncate(31);
    segments[30].kind = Kind::Cut;
    assert_eq!(settled(segments.clone(), &[], MIDNIGHT), segments);
}

#[test]
fn what_is_being_written_is_left_alone() {
    let mut segments = cuts([0, 1, 2, 3, 4, 5].map(|at| MIDNIGHT + at * SECOND));
    segments[5].kind = Kind::Partial;
    segments[4].kind = Kind::Partial;
    assert!(plan(&segments, &BTreeSet::new(), 4, MIDNIGHT, &Rules::default()).is_empty());
    assert!(plan(&segments, &BTreeSet::new(), 6, MIDNIGHT, &Rules::default()).is_empty());
}

#[test]
fn what_leads_to_a_gap_stays() {
    let mut segments = cuts((0..20).map(|at| MIDNIGHT + at * SECOND));
    segments.extend([segment(0, 15, MIDNIGHT + 14 * SECOND, Kind::Cut, 9_000)]);
    segments.remove(6);
    segments.sort_by_key(|s| (s.to, s.from));
    let condemned = |kept: &[u64]| {
        let kept = BTreeSet::from_iter(kept.iter().copied());
        let plan = plan(&segments, &kept, 20, MIDNIGHT + 20 * SECOND, &Rules::default());
        plan.condemned.iter().map(|at| segments[*at].to).collect::<Vec<_>>()
    };
    // (6, 7] is lost. Nobody asks for what is behind it.
    assert_eq!(condemned(&[]), (1..=15).filter(|to| *to != 7).collect::<Vec<_>>());
    // What leads to the gap, and from it to point 9, may be of use again.
    assert_eq!(condemned(&[9]), [10, 11, 12, 13, 14, 15]);
    // The newest is out of reach: nothing is deleted at all.
    segments.retain(|s| s.from != 17);
    let plan = plan(&segments, &BTreeSet::new(), 20, MIDNIGHT + 20 * SECOND, &Rules::default());
    assert_eq!(plan.condemned, [0; 0]);
}

#[test]
fn segments_that_cross_are_no_trouble() {
    let mut segments = cuts((0..8).map(|at| MIDNIGHT + at * MINUTE));
    let extra = [(0, 5), (3, 6), (2, 7), (4, 8), (1, 4)];
    segments.extend(extra.map(|(from, to)| segment(from, to, MIDNIGHT + to * MINUTE, Kind::Cut, 9_000)));
    segments.sort_by_key(|s| (s.to, s.from));
    for kept in 0..256u64 {
        let kept: Vec<u64> = (1..=8).filter(|point| kept >> (point - 1) & 1 == 1).collect();
        let points = reachable(&settled(segments.clone(), &kept, MIDNIGHT + DAY));
        assert!(kept.iter().chain([&8]).all(|point| points.contains(point)), "{kept:?}");
    }
}

#[test]
fn nothing_makes_nothing() {
    assert!(plan(&[], &BTreeSet::new(), 0, 0, &Rules::default()).is_empty());
    let rules = Rules { widths: Vec::new(), settled: 0 };
    assert!(plan(&cuts(0..3), &BTreeSet::from([0, 1, 2, 9]), 3, 0, &rules).condemned.is_empty());
    let rules = Rules { widths: vec![0], settled: 0 };
    assert!(!plan(&cuts(0..3), &BTreeSet::new(), 3, 0, &rules).is_empty());
}
