//! Keeping a stream in shape: merging what has aged, condemning what is not needed, deleting what was condemned.

use crate::error::{Error, Result};
use crate::step::{Step, Steps};
use crate::writer::{random_u32, salt};
use jiff::Timestamp;
use model::Keep;
use std::collections::BTreeSet;
use std::time::Duration;
use vault::claim::{self, Epoch};
use vault::format::Kind;
use vault::plan::{Rules, plan};
use vault::read::Access;

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
    for (list, condemned) in &state.condemned {
        if condemned.at.saturating_add(grace_ms) > now_ms {
            continue;
        }
        for name in &condemned.names {
            access.store.delete(name)?;
            done.deleted += 1;
            steps.at(Step::DeleteHalf);
        }
        access.store.delete(list)?;
    }
    if state.listing.segments.is_empty() {
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
    for merge in &plan.merges {
        let chain: Vec<_> = merge.iter().map(|at| &segments[*at]).collect();
        let merged = access.merge(&chain, random_u32(), &mut salt)?;
        steps.at(Step::MergePut);
        done.merged += 1;
        done.merged_bytes += merged.size();
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
            .map(ToString::to_string),
    );
    if names.is_empty() {
        return Ok(done);
    }
    // Who has been replaced must not delete what the new writer builds on.
    if !claim::still_mine(&*access.store, Epoch(epoch))? {
        return Err(Error::Fenced { epoch });
    }
    done.condemned = names.len() as u64;
    access.condemn(names, now_ms, salt())?;
    steps.at(Step::DeleteCondemned);
    Ok(done)
}
