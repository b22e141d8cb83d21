//! The outcome: what lies in a writable layer.

use super::Change;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Amount {
    /// Bytes that a copy would have: holes of sparse files do not count.
    pub bytes: u64,
    /// Regular files.
    pub files: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files += other.files;
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), files: self.files.saturating_sub(other.files) }
    }
}

/// What one noise rule explains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoiseAmount {
    /// The rule.
    pub name: String,
    /// How much.
    #[serde(flatten)]
    pub amount: Amount,
}

/// A file of the layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerFile {
    /// As the container sees it.
    pub path: String,
    /// As in [`Amount::bytes`].
    pub bytes: u64,
    /// When it was written last.
    pub modified: Timestamp,
    /// Whether the image has it too.
    pub change: Change,
}

/// A directory with a good part of what matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The directory.
    pub path: String,
    /// Whether only the part of it is meant that is in no other place of the list.
    pub rest: bool,
    /// How much.
    #[serde(flatten)]
    pub amount: Amount,
}

/// What lies at or below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Below {
    /// What matters.
    pub matter: Amount,
    /// What is noise by the rules. It is no noise if the path is where a service keeps its data.
    pub noise: Amount,
    /// Whether that is all. Otherwise it is at least so much: the layer has too many directories.
    pub exact: bool,
}

/// What lies in a container's writable layer; made by [`super::Tally`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Layer {
    /// What matters.
    pub matter: Amount,
    /// The part of it that are files of the image, with other content or only other attributes (as `chown -R` makes them).
    pub matter_changed: Amount,
    /// What does not, by rule; rules that explain nothing are left out.
    pub noise: Vec<NoiseAmount>,
    /// Entries that the image does not have.
    pub added: u64,
    /// Entries that the image has too.
    pub changed: u64,
    /// Entries of the image that were deleted.
    pub deleted: u64,
    /// Where what matters is; the places do not overlap, and add up to all of it.
    pub places: Vec<Place>,
    /// The largest files that matter, largest first.
    pub largest: Vec<LayerFile>,
    /// The newest files that matter, newest first.
    pub newest: Vec<LayerFile>,
    /// Entries that are no noise, but for directories of the image: how many, and the first by name.
    #[serde(skip)]
    pub(crate) stray_count: u64,
    #[serde(skip)]
    pub(crate) strays: Vec<String>,
    /// Directories in which noise was written that is not harmless to refuse, and whether there are more.
    #[serde(skip)]
    pub(crate) written: Vec<String>,
    #[serde(skip)]
    pub(crate) written_more: bool,
    #[serde(skip)]
    pub(super) depth: usize,
    #[serde(skip)]
    pub(super) nodes: BTreeMap<String, Node>,
}

impl Layer {
    /// What lies at or below this path.
    pub fn below(&self, path: &str) -> Below {
        let path = path.trim_end_matches('/');
        let nothing = Below { matter: Amount::default(), noise: Amount::default(), exact: true };
        if let Some(node) = self.nodes.get(path) {
            return Below { matter: node.matter, noise: node.noise, exact: true };
        }
        // A directory above it that has nothing, or that would have been kept: then this one has nothing.
        let parents =
            || path.match_indices('/').map(|(at, _)| (&path[..at], path[..at].matches('/').count()));
        let depth = path.matches('/').count();
        let certain = depth <= self.depth
            || parents().any(|(parent, depth)| depth <= self.depth && !self.nodes.contains_key(parent));
        if certain {
            return nothing;
        }
        let mut known = nothing;
        for file in self.largest.iter().filter(|file| is_below(&file.path, path)) {
            known.matter.add(Amount { bytes: file.bytes, files: 1 });
        }
        Below { exact: false, ..known }
    }

    /// Where what matters is, without what lies below these paths. None of them is below another.
    pub(crate) fn places_without(&self, paths: &[&str]) -> Vec<Place> {
        super::places::places(self, paths)
    }

    /// All noise together.
    pub fn noise_total(&self) -> Amount {
        let mut total = Amount::default();
        self.noise.iter().for_each(|noise| total.add(noise.amount));
        total
    }
}

/// Whether a path is another one or below it.
pub(crate) fn is_below(path: &str, of: &str) -> bool {
    let of = of.trim_end_matches('/');
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A directory that is kept while counting. Amounts are of everything at or below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Node {
    /// Components: 0 for the root.
    pub depth: usize,
    /// Named by a rule.
    pub watched: bool,
    pub matter: Amount,
    pub noise: Amount,
}

impl Node {
    pub(super) fn add(&mut self, noise: bool, amount: Amount) {
        if noise { self.noise.add(amount) } else { self.matter.add(amount) }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.depth = other.depth;
        self.watched |= other.watched;
        self.matter.add(other.matter);
        self.noise.add(other.noise);
    }
}
