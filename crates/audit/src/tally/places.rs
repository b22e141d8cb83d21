//! A short list of the directories that hold what matters.

use super::layer::{Amount, Layer, Place, is_below};
use std::ops::Bound;

/// At most so many places.
const MOST: usize = 8;
/// A directory is looked into only if it has at least this part of all.
const WORTH: u64 = 50;

/// Starts with the root, and puts the largest place's subdirectories in its stead while the list stays short. What lies below
/// the excluded paths, none of which is below another, is left out.
pub(super) fn places(layer: &Layer, excluded: &[&str]) -> Vec<Place> {
    let view = View { layer, excluded };
    let all = view.without("", layer.matter);
    if all.files == 0 {
        return Vec::new();
    }
    let mut open = vec![Place { path: String::new(), rest: false, amount: all }];
    let mut closed: Vec<Place> = Vec::new();
    while let Some(at) = largest(&open) {
        let place = open.swap_remove(at);
        let chosen = view.inside(&place.path, all);
        // One more for what is left of the directory itself.
        if chosen.is_empty() || open.len() + closed.len() + chosen.len() + 1 > MOST {
            closed.push(place);
            continue;
        }
        let rest = chosen.iter().fold(place.amount, |rest, inner| rest.minus(inner.amount));
        open.extend(chosen);
        if rest != Amount::default() {
            closed.push(Place { rest: true, amount: rest, ..place });
        }
    }
    closed.sort_by(|a, b| b.amount.bytes.cmp(&a.amount.bytes).then_with(|| a.path.cmp(&b.path)));
    for place in &mut closed {
        if place.path.is_empty() {
            place.path.push('/');
        }
    }
    closed
}

fn largest(places: &[Place]) -> Option<usize> {
    let key = |at: &usize| (places[*at].amount.bytes, std::cmp::Reverse(&places[*at].path));
    (0..places.len()).max_by(|a, b| key(a).cmp(&key(b)))
}

/// A layer without some of its directories.
struct View<'a> {
    layer: &'a Layer,
    excluded: &'a [&'a str],
}

impl View<'_> {
    fn without(&self, path: &str, amount: Amount) -> Amount {
        let inside = self.excluded.iter().filter(|excluded| is_below(excluded, path));
        inside.fold(amount, |rest, excluded| rest.minus(self.layer.below(excluded).matter))
    }

    /// The directories one level below that are worth a place of their own. Those that a rule names are not looked into. One
    /// further down counts with the directory it is in, which is kept unless the layer has very many.
    fn inside(&self, path: &str, all: Amount) -> Vec<Place> {
        let holds_excluded = self.excluded.iter().any(|excluded| is_below(excluded, path));
        if self.layer.nodes.get(path).is_some_and(|node| node.watched) && !holds_excluded {
            return Vec::new();
        }
        let prefix = format!("{path}/");
        let from = (Bound::Included(prefix.clone()), Bound::Unbounded);
        let below = self.layer.nodes.range::<String, _>(from);
        below
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter(|(name, _)| name.len() > prefix.len() && !name[prefix.len()..].contains('/'))
            .map(|(name, node)| (name, self.without(name, node.matter)))
            .filter(|(_, amount)| amount.files > 0 && amount.bytes.saturating_mul(WORTH) >= all.bytes)
            .map(|(name, amount)| Place { path: name.clone(), rest: false, amount })
            .collect()
    }
}
