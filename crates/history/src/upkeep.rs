//! Keeping a stream in shape: merging what has aged, condemning what is not needed, deleting what was condemned.

use crate::error::{Error, Result};
use crate::step::{Step, Steps};
use crate::writer::{random_u32, salt};
use jiff::Timestamp;
use model::Keep;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use vault::Segment;
use vault::claim::{self, Epoch};
use vault::format::{Kind, PartName};
use vault::plan::{Rules, plan};
use vault::read::Access;
use vault::stream::{Condemned, State};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// Segments made by merging.
    pub merged: u64,
    /// Their bytes.
    pub merged_bytes: u64,
    /// Objects that were condemned.
    pub condemned: u64,
    /// Objects that were deleted.
    pub deleted: u64,
}

/// How long a condemned object stays, for readers that have begun.
pub const GRACE: Duration = Duration::from_secs(600);

/// What a stream is to be kept up to.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Which cuts stay.
    pub keep: &'a Keep,
    /// These stay too, as someone restores them.
    pub needed: &'a [u64],
    /// When what is merged.
    pub rules: &'a Rules,
    /// How long a condemned object stays.
    pub grace: Duration,
    /// Held while the inventory is written; who removes a snapshot holds it too.
    pub keeping: &'a Mutex<()>,
}

/// Merges, condemns and deletes what is due in one stream. May be interrupted at any step, and done again.
///
/// # Errors
/// What failed; what was done before holds.
pub fn upkeep(
    access: &Access,
    epoch: u32,
    terms: &Terms<'_>,
    now: Timestamp,
    steps: &Steps,
) -> Result<Upkeep> {
    let mut done = Upkeep::default();
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let grace_ms = u64::try_from(terms.grace.as_millis()).unwrap_or(u64::MAX);
    let state = access.state()?;
    let due: Vec<&(String, Condemned)> = state
        .condemned
        .iter()
        .filter(|(_, condemned)| condemned.at.saturating_add(grace_ms) <= now_ms)
        .collect();
    if state.listing.segments.is_empty() && state.listing.strays.is_empty() && due.is_empty() {
        return Ok(done);
    }
    let cuts = state.cuts();
    let times: Vec<Timestamp> = cuts
        .iter()
        .map(|(_, time)| Timestamp::from_millisecond(*time as i64).unwrap_or(Timestamp::MAX))
        .collect();
    let kept = terms.keep.kept(&times, now);
    let mut points: BTreeSet<u64> =
        cuts.iter().zip(kept).filter(|(_, kept)| *kept).map(|((point, _), _)| *point).collect();
    points.extend(state.snapshots.iter().map(|snapshot| snapshot.point));
    points.extend(terms.needed.iter().filter(|point| cuts.iter().any(|(cut, _)| cut == *point)));
    let newest = state.newest();
    let segments = &state.listing.segments;
    let plan = plan(segments, &points, newest, now_ms, terms.rules);
    let mut merges = Vec::new();
    for merge in &plan.merges {
        let chain: Vec<_> = merge.iter().map(|at| &segments[*at]).collect();
        let merged = access.merge(&chain, random_u32(), &mut salt)?;
        steps.at(Step::MergePut);
        done.merged += 1;
        done.merged_bytes += merged.size();
        merges.push(merged);
    }
    let mut names: Vec<String> = plan
        .condemned
        .iter()
        .flat_map(|at| segments[*at].part_names(access.stream))
        .map(|name| name.to_string())
        .collect();
    // What a writer that was replaced left, or one that died half-way. What is at work now is newer than the newest point.
    names.extend(
        state
            .listing
            .strays
            .iter()
            .filter(|name| name.to <= newest && name.kind == Kind::Cut)
            .map(ToString::to_string)
            .filter(|name| !state.condemned.iter().any(|(_, list)| list.names.contains(name))),
    );
    // Who has been replaced must not delete what the new writer builds on.
    let deletes = !names.is_empty() || !due.is_empty();
    if deletes && !claim::still_mine(&*access.store, Epoch(epoch))? {
        return Err(Error::Fenced { epoch });
    }
    let mut condemned: BTreeSet<String> =
        state.condemned.iter().flat_map(|(_, list)| list.names.iter().cloned()).collect();
    let is_due = |list: &str| due.iter().any(|(due, _)| due == list);
    let mut lists: BTreeSet<&str> =
        state.condemned.iter().map(|(list, _)| list.as_str()).filter(|list| !is_due(list)).collect();
    let mut new_list = None;
    if !names.is_empty() {
        done.condemned = names.len() as u64;
        condemned.extend(names.iter().cloned());
        new_list = Some(access.condemn(names, now_ms, salt())?);
        steps.at(Step::DeleteCondemned);
    }
    lists.extend(new_list.as_deref());
    let there = Present { state: &state, merges: &merges, condemned: &condemned, lists: &lists };
    let expired = |point: u64, time: u64| {
        let time = Timestamp::from_millisecond(time as i64).unwrap_or(Timestamp::MAX);
        let mut times = times.clone();
        let at = times.partition_point(|other| *other < time);
        times.insert(at, time);
        !points.contains(&point) && terms.keep.kept(&times, now).get(at) == Some(&false)
    };
    {
        let _keeping = terms.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        keep_inventory(access, epoch, now_ms, &there, &expired)?;
    }
    // Only what no inventory lists any more.
    for (list, condemned) in due {
        for name in &condemned.names {
            access.store.delete(name)?;
            done.deleted += 1;
            steps.at(Step::DeleteHalf);
        }
        access.store.delete(list)?;
    }
    Ok(done)
}

/// What is in a stream and stays.
struct Present<'a> {
    state: &'a State,
    merges: &'a [Segment],
    condemned: &'a BTreeSet<String>,
    lists: &'a BTreeSet<&'a str>,
}

/// Writes down what must be there from now on.
fn keep_inventory(
    access: &Access,
    epoch: u32,
    now: u64,
    there: &Present<'_>,
    expired: &dyn Fn(u64, u64) -> bool,
) -> Result<()> {
    let stream = access.stream;
    let stays = |name: &String| !there.condemned.contains(name);
    let counted = there.state.listing.segments.iter().chain(there.merges);
    let mut objects: BTreeMap<String, Option<u64>> = counted
        .clone()
        .flat_map(|segment| segment.part_names(stream).zip(&segment.parts))
        .map(|(name, size)| (name.to_string(), Some(*size)))
        .filter(|(name, _)| stays(name))
        .collect();
    objects.extend(there.state.listing.eras.iter().map(|era| (era.to_string(), None)));
    objects.extend(there.lists.iter().map(|list| ((*list).to_owned(), None)));
    let about = format!("h/{stream}/about");
    if there.state.listing.others.contains(&about) {
        objects.insert(about, None);
    }
    let lists = format!("h/{stream}/d/");
    let gone = |name: &str| {
        if name.starts_with(&lists) {
            return !there.lists.contains(name);
        }
        let Ok(part) = name.parse::<PartName>() else { return false };
        // What is lost stays listed as long as retention would have kept it.
        let spanned = || counted.clone().any(|s| s.from <= part.from && part.to <= s.to);
        there.condemned.contains(name)
            || (!objects.contains_key(name) && expired(part.to, part.time) && spanned())
    };
    access.keep_inventory(epoch, now, &objects, &gone, salt())?;
    Ok(())
}
