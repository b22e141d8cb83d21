//! What lies in the writable layer.

use super::Draft;
use crate::case::{Case, Context};
use crate::report::Severity;
use crate::tally::{Amount, Layer, is_below};
use crate::words::{ago, amount, bytes, list};

/// A directory is named in the command if it has at least this part of what is at stake.
const WORTH: u64 = 20;
/// Directories deeper than this are not named: further down it is rarely the application that chose them, but a year or a
/// user's name, and tomorrow's files lie beside.
const DEPTH: usize = 3;
/// At most so many directories are named.
const PLACES: usize = 3;

/// The data of a known service that is on no mount.
pub(super) fn data_in_layer(case: &Case<'_>, context: &Context<'_>) -> Vec<Draft> {
    let name = &case.container.name;
    let draft = |(place, below): (&crate::case::DataPlace<'_>, crate::tally::Below)| {
        let mut all = below.matter;
        all.add(below.noise);
        let least = if below.exact { "" } else { "at least " };
        let told = place.told.as_ref().map(|told| format!(", where {told} puts it,")).unwrap_or_default();
        let written = last_written(case, context, &place.path);
        let found = format!(
            "the data of {} at {}{told} is in the writable layer: {least}{}{written}",
            place.service.name,
            place.path,
            amount(all)
        );
        Draft::new(Severity::Loss, found)
            .container(name)
            .path(&place.path)
            .more(&place.service.advice)
            .rescue(context, case.container, std::slice::from_ref(&place.path))
            .bytes(all.bytes)
    };
    let data = case.layer_data().into_iter().filter(|(place, _)| !case.is_missed(&place.path));
    data.map(draft).collect()
}

/// Everything else that matters.
pub(super) fn files_in_layer(case: &Case<'_>, context: &Context<'_>) -> Vec<Draft> {
    let Ok(layer) = &case.container.layer else { return Vec::new() };
    let rest = case.layer_rest();
    if rest.bytes == 0 {
        return Vec::new();
    }
    let name = &case.container.name;
    let places = places(case, layer, rest);
    let were = if rest.files == 1 { "was" } else { "were" };
    let severity = if rest.bytes >= context.rules.settings.large { Severity::Loss } else { Severity::Risk };
    let at =
        if places.is_empty() { String::new() } else { format!(", most of it in {}", list(&places, PLACES)) };
    let written = places.first().map(|place| last_written(case, context, place)).unwrap_or_default();
    let changed = match layer.matter_changed {
        changed if changed.bytes == 0 || !case.layer_data().is_empty() => String::new(),
        changed if changed == rest => ", all of them files of the image that were changed".to_owned(),
        changed => format!(", {} of them files of the image that were changed", bytes(changed.bytes)),
    };
    let other = if case.layer_data().is_empty() { "" } else { "besides, " };
    let found = format!("{other}{} {were} written to the layer{changed}{at}{written}", amount(rest));
    let draft = Draft::new(severity, found).container(name).bytes(rest.bytes);
    let draft = match places.first() {
        Some(first) => draft.path(first),
        None => draft,
    };
    vec![draft.rescue(context, case.container, &places)]
}

/// The directories with a good part of it, largest first, that are no service's data.
fn places(case: &Case<'_>, layer: &Layer, rest: Amount) -> Vec<String> {
    let data = case.layer_data();
    let data: Vec<&str> = data.iter().map(|(place, _)| place.path.as_str()).collect();
    let places = layer.places_without(&data);
    let worth = places.iter().filter(|place| place.amount.bytes.saturating_mul(WORTH) >= rest.bytes);
    let mut chosen: Vec<String> = Vec::new();
    for place in worth.filter(|place| place.path != "/") {
        let path = shallow(&place.path);
        let holds_data = data.iter().any(|data| is_below(data, path));
        let path = if holds_data { place.path.as_str() } else { path };
        if !chosen.iter().any(|other| is_below(path, other)) {
            chosen.retain(|other| !is_below(other, path));
            chosen.push(path.to_owned());
        }
    }
    chosen.truncate(PLACES);
    chosen
}

/// The first components of a path.
fn shallow(path: &str) -> &str {
    path.match_indices('/').nth(DEPTH).map_or(path, |(at, _)| &path[..at])
}

/// `, last written just now`.
fn last_written(case: &Case<'_>, context: &Context<'_>, below: &str) -> String {
    let newest = case.container.layer.as_ref().map_or(&[][..], |layer| &layer.newest);
    let file = newest.iter().find(|file| is_below(&file.path, below));
    let age = file.and_then(|file| ago(file.modified, context.host.now, context.rules.settings.just_now));
    age.map(|age| format!(", last written {age}")).unwrap_or_default()
}

/// How much a missed mount is about, when the data is in the layer.
pub(super) fn in_layer(case: &Case<'_>, path: &str) -> Option<Amount> {
    let data = case.layer_data();
    let (_, below) = data.iter().find(|(place, _)| place.path == path)?;
    let mut all = below.matter;
    all.add(below.noise);
    Some(all)
}

/// `12 MiB`, or nothing where it is not known.
pub(super) fn size(used: Option<u64>) -> String {
    used.map(|used| format!(" ({})", bytes(used))).unwrap_or_default()
}
