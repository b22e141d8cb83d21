//! Adding up a writable layer: one call for each entry, in any order, in bounded memory. The outcome is the same for
//! every order.
//!
//! It does not know which service runs in the container. So it keeps, for every path that any rule names, what lies at
//! or below it, and judging is left to who knows.

mod layer;
mod places;
#[cfg(test)]
mod tests;

pub(crate) use layer::is_below;
pub use layer::{Amount, Below, Layer, LayerFile, NoiseAmount, Place};

use crate::rules::Rules;
use jiff::Timestamp;
use layer::Node;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What happened to an entry of the image, or besides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Not in the image.
    Added,
    /// In the image too, with other content or other attributes.
    Changed,
    /// In the image, and gone for the container.
    Deleted,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a socket, a device, a pipe.
    Other,
}

/// So many directories are kept, besides those of the rules. If there are more, the deepest level is dropped, again and again:
/// which are left does not depend on the order then.
const DIRECTORIES: usize = 4096;
/// Directories deeper than this are never kept.
const DEPTH: usize = 6;
/// So many of the largest and of the newest files are kept.
const FILES: usize = 10;
/// So many paths that are not noise are kept, and so many directories with noise.
const PATHS: usize = 32;

/// A file among the largest or newest. Of equals, the first by name is kept.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    path: Reverse<Box<[u8]>>,
    bytes: u64,
    modified: Timestamp,
    changed: bool,
}

impl Named {
    fn file(&self) -> LayerFile {
        LayerFile {
            path: String::from_utf8_lossy(&self.path.0).into_owned(),
            bytes: self.bytes,
            modified: self.modified,
            change: if self.changed { Change::Changed } else { Change::Added },
        }
    }
}

/// Adds up the entries of one layer.
#[derive(Debug)]
pub struct Tally<'a> {
    rules: &'a Rules,
    /// Noise patterns, as (rule, pattern), by their first component; those without one apart. Ascending.
    by_first: HashMap<&'a [u8], Vec<(usize, usize)>>,
    floating: Vec<(usize, usize)>,
    nodes: HashMap<Box<[u8]>, Node>,
    /// Directories among the nodes that are not watched, and how deep they go.
    kept: usize,
    depth: usize,
    layer: Layer,
    largest: BTreeSet<(u64, Named)>,
    newest: BTreeSet<(Timestamp, Named)>,
    noise: Vec<Amount>,
    strays: BTreeSet<Box<[u8]>>,
    written: BTreeSet<String>,
    written_more: bool,
}

impl<'a> Tally<'a> {
    /// An empty one.
    pub fn new(rules: &'a Rules) -> Self {
        let mut by_first: HashMap<&[u8], Vec<(usize, usize)>> = HashMap::new();
        let mut floating = Vec::new();
        for (rule, noise) in rules.noise.iter().enumerate() {
            for (at, glob) in noise.paths.iter().enumerate() {
                match glob.first() {
                    Some(first) => by_first.entry(first).or_default().push((rule, at)),
                    None => floating.push((rule, at)),
                }
            }
        }
        let paths = rules.services.iter().flat_map(|service| service.data.iter().chain(&service.also));
        Self {
            rules,
            by_first,
            floating,
            nodes: HashMap::new(),
            kept: 0,
            depth: DEPTH,
            layer: Layer::default(),
            largest: BTreeSet::new(),
            newest: BTreeSet::new(),
            noise: vec![Amount::default(); rules.noise.len()],
            strays: BTreeSet::new(),
            written: BTreeSet::new(),
            written_more: false,
        }
        .watching(paths)
    }

    /// Keeps what lies at or below these paths too, however deep they are. To be said before the first entry;
    /// [`Rules::data_paths`] has those that a container's environment and command name.
    #[must_use]
    pub fn watching(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for path in paths {
            let path = path.as_ref().trim_end_matches('/');
            if path.starts_with('/') {
                self.nodes.insert(path.as_bytes().into(), Node { watched: true, ..Node::default() });
            }
        }
        self
    }

    /// Counts one entry. Call it once for each.
    ///
    /// `path` is absolute as the container sees it. `size` and `allocated` are bytes (`st_size`, `st_blocks` × 512) and are of
    /// no matter but for files. Of a file with several names, give the second and later ones as [`Kind::Other`].
    pub fn add(
        &mut self,
        path: &[u8],
        change: Change,
        kind: Kind,
        size: u64,
        allocated: u64,
        mtime: Timestamp,
    ) {
        let rooted;
        let path = match path {
            [b'/', ..] => path,
            _ => {
                rooted = [b"/", path].concat();
                &rooted
            }
        };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if path.is_empty() {
            return;
        }
        match change {
            Change::Added => self.layer.added += 1,
            Change::Changed => self.layer.changed += 1,
            Change::Deleted => self.layer.deleted += 1,
        }
        let noise = self.noise_of(path);
        self.note_use(path, change, kind, noise);
        if kind != Kind::File || change == Change::Deleted {
            return;
        }
        let amount = Amount { bytes: held(size, allocated), files: 1 };
        match noise {
            Some((rule, _)) => self.noise[rule].add(amount),
            None => {
                self.layer.matter.add(amount);
                if change == Change::Changed {
                    self.layer.matter_changed.add(amount);
                }
                self.remember(path, change, amount.bytes, mtime);
            }
        }
        self.climb(path, noise.is_some(), amount);
    }

    /// The layer.
    pub fn finish(mut self) -> Layer {
        let mut layer = std::mem::take(&mut self.layer);
        layer.largest = self.largest.iter().rev().map(|(_, named)| named.file()).collect();
        layer.newest = self.newest.iter().rev().map(|(_, named)| named.file()).collect();
        let noise = self.rules.noise.iter().zip(&self.noise).filter(|(_, amount)| amount.files > 0);
        layer.noise =
            noise.map(|(rule, amount)| NoiseAmount { name: rule.name.clone(), amount: *amount }).collect();
        layer.strays = self.strays.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        layer.written = self.written.into_iter().collect();
        layer.written_more = self.written_more;
        layer.depth = self.depth;
        let text = |(path, node): (Box<[u8]>, Node)| (String::from_utf8_lossy(&path).into_owned(), node);
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        for (path, node) in self.nodes.into_iter().map(text) {
            // Names that are not UTF-8 may become the same.
            nodes.entry(path).or_default().merge(node);
        }
        nodes.retain(|_, node| node.matter.files > 0 || node.noise.files > 0);
        layer.nodes = nodes;
        layer.places = places::places(&layer, &[]);
        layer
    }

    /// The first rule, and its pattern, that calls this noise.
    fn noise_of(&self, path: &[u8]) -> Option<(usize, usize)> {
        let rest = &path[1..];
        let first = rest.split(|byte| *byte == b'/').next().unwrap_or(rest);
        let named = self.by_first.get(first).map_or(&[][..], Vec::as_slice);
        let hit = |patterns: &[(usize, usize)]| {
            patterns.iter().copied().find(|(rule, at)| self.rules.noise[*rule].paths[*at].matches(path))
        };
        match (hit(named), hit(&self.floating)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Remembers what a read-only root would get in the way of.
    fn note_use(&mut self, path: &[u8], change: Change, kind: Kind, noise: Option<(usize, usize)>) {
        // Directories are copied up for what is written below them.
        if kind == Kind::Directory && change == Change::Changed {
            return;
        }
        match noise {
            None => {
                self.layer.stray_count += 1;
                keep(&mut self.strays, PATHS, path.into(), Keep::Smallest);
            }
            Some((rule, at)) if !self.rules.noise[rule].harmless => {
                let root = self.rules.noise[rule].paths[at].root();
                let place = scratch(&root, path, kind);
                if !self.written.contains(&place) {
                    self.written_more |= self.written.len() >= PATHS;
                    keep(&mut self.written, PATHS, place, Keep::Smallest);
                }
            }
            Some(_) => {}
        }
    }

    fn remember(&mut self, path: &[u8], change: Change, bytes: u64, modified: Timestamp) {
        let named =
            || Named { path: Reverse(path.into()), bytes, modified, changed: change == Change::Changed };
        // Nearly all are turned away here, without an allocation.
        if self.largest.len() < FILES || self.largest.first().is_some_and(|least| least.0 <= bytes) {
            keep(&mut self.largest, FILES, (bytes, named()), Keep::Largest);
        }
        if self.newest.len() < FILES || self.newest.first().is_some_and(|oldest| oldest.0 <= modified) {
            keep(&mut self.newest, FILES, (modified, named()), Keep::Largest);
        }
    }

    /// Adds to everything that the path is at or below.
    fn climb(&mut self, path: &[u8], noise: bool, amount: Amount) {
        let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        for (depth, end) in ends.enumerate() {
            let (prefix, own) = (&path[..end], end == path.len());
            match self.nodes.get_mut(prefix) {
                // A path of the rules may be that of a file.
                Some(node) if !own || node.watched => node.add(noise, amount),
                Some(_) => {}
                None if !own && depth <= self.depth => {
                    let mut node = Node { depth, ..Node::default() };
                    node.add(noise, amount);
                    self.nodes.insert(prefix.into(), node);
                    self.kept += 1;
                }
                None => {}
            }
        }
        while self.kept > DIRECTORIES && self.depth > 0 {
            self.depth -= 1;
            let deepest = self.depth;
            self.nodes.retain(|_, node| node.watched || node.depth <= deepest);
            self.kept = self.nodes.values().filter(|node| !node.watched).count();
        }
    }
}

/// The bytes that a copy would have: what is allocated of a sparse file, and the size of a small one. File systems keep
/// small files in the inode, with nothing allocated.
fn held(size: u64, allocated: u64) -> u64 {
    if allocated == 0 && size <= 4096 { size } else { size.min(allocated) }
}

/// The directory that would have to be writable for this path: the whole of `/tmp` and `/run`, elsewhere the directory
/// below the one that the rule names, since what the image has beside it must stay in sight.
fn scratch(root: &str, path: &[u8], kind: Kind) -> String {
    if root.ends_with("/tmp") || root.ends_with("/run") {
        return root.to_owned();
    }
    let text = String::from_utf8_lossy(path);
    let below = text.strip_prefix(root).unwrap_or(&text).trim_start_matches('/');
    match below.split_once('/') {
        Some((first, _)) => format!("{}/{first}", root.trim_end_matches('/')),
        None if kind == Kind::Directory => text.into_owned(),
        None => root.to_owned(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Smallest,
    Largest,
}

/// Adds to a set of at most `most`.
fn keep<T: Ord>(set: &mut BTreeSet<T>, most: usize, item: T, which: Keep) {
    set.insert(item);
    if set.len() > most {
        match which {
            Keep::Smallest => set.pop_last(),
            Keep::Largest => set.pop_first(),
        };
    }
}
