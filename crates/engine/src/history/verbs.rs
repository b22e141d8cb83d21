//! The verbs of histories.

use super::verification::Verdict;
use super::{CutView, Gap, ProtectionStatus, Timeline};
use crate::engine::{Engine, lock};
use crate::{Change, Error, Fault, Result};
use jiff::Timestamp;
use model::{At, DriverKind, Protection, SnapshotName, VaultName, Volume, VolumeName};
use std::sync::Arc;
use vault::read::Access;
use vault::stream::{Snapshot, State};

pub(super) fn timestamp(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// Where cuts were made and are missing, although retention would still have them: they were merged while the vault was away.
/// That there was nothing to cut is no gap.
fn gaps(cuts: &[CutView], protection: &Protection, now: Timestamp) -> Vec<Gap> {
    let Some(youngest) = protection.keep.tiers().first() else { return Vec::new() };
    let usual = youngest.interval().duration().max(protection.interval.duration());
    let gap = |pair: &[CutView]| {
        let [before, after] = pair else { return None };
        let apart = after.time.duration_since(before.time).unsigned_abs();
        let young = now.duration_since(before.time).unsigned_abs() < youngest.span().duration();
        let missing = after.point - before.point > 2;
        (missing && young && apart > 3 * usual).then(|| Gap {
            from: before.time,
            to: after.time,
            why: "cuts were merged while the vault was slow or absent".to_owned(),
        })
    };
    cuts.windows(2).filter_map(gap).collect()
}

impl Engine {
    /// Protects a volume from now on, or changes how; `None` ends it. What is in the vault stays there.
    ///
    /// # Errors
    /// No such volume, a driver that has no history, or no such vault.
    pub fn protect(&self, name: &VolumeName, protection: Option<Protection>) -> Result<Change> {
        if let Some(protection) = &protection {
            self.vaults.open(&protection.vault)?;
        }
        let _claim = self.claim(name, "protect")?;
        let volume = self.usable(name)?;
        if protection.is_some() && volume.spec.kind() != DriverKind::Image {
            return Err(Error::Invalid(format!(
                "volume {name} has driver {}: only volumes of driver image have a history",
                volume.spec.kind()
            )));
        }
        if volume.spec.protection == protection {
            return Ok(Change::AlreadyThere);
        }
        let vault_of =
            |protection: &Option<Protection>| protection.as_ref().map(|protection| protection.vault.clone());
        let moved = vault_of(&volume.spec.protection) != vault_of(&protection);
        let spec = volume.spec.clone().with_protection(protection);
        self.describe_and_record(Volume { spec, ..(*volume).clone() }, Fault::LabelDescribed)?;
        if moved {
            self.histories.forget(volume.id);
        }
        Ok(Change::Done)
    }

    /// How protection is doing; `None` without protection. Answers at once.
    pub fn protection_status(&self, name: &VolumeName) -> Option<ProtectionStatus> {
        let volume = self.volume(name).ok()?;
        let protection = volume.spec.protection.clone()?;
        let mut status = ProtectionStatus {
            protection,
            method: self.histories.tracking.method(),
            newest: None,
            behind_since: None,
            waiting: (0, 0),
            trouble: None,
            last_freeze: None,
            last_took: None,
            verified: None,
        };
        let Some(state) = self.histories.known(volume.id) else { return Some(status) };
        let said = lock(&state.said).clone();
        status.trouble = said.trouble;
        status.behind_since = said.behind_since;
        status.last_freeze = said.last.map(|cut| cut.frozen);
        status.last_took = said.last.map(|cut| cut.took);
        status.verified = self.verdict(volume.id).map(|verdict| (verdict.at, verdict.problems.is_empty()));
        if let Some(outbox) = lock(&state.outbox).as_ref() {
            status.newest = outbox.durable_cut().map(|(point, time)| (point, timestamp(time)));
            let waiting = outbox.waiting();
            status.waiting = (waiting.segments, waiting.bytes);
            status.trouble = status.trouble.or_else(|| outbox.trouble());
            if waiting.segments > 0 && status.behind_since.is_none() {
                status.behind_since = status.newest.map(|(_, time)| time);
            }
        }
        Some(status)
    }

    pub(super) fn protection_of(&self, volume: &Volume) -> Result<Protection> {
        volume.spec.protection.clone().ok_or_else(|| {
            Error::Invalid(format!(
                "volume {0} is not protected: `everhold protect {0}` begins its history",
                volume.name
            ))
        })
    }

    pub(super) fn stream(&self, volume: &Volume) -> Result<(Access, State)> {
        let protection = self.protection_of(volume)?;
        let access = self.access(volume.id, &protection.vault)?;
        let state = access.state()?;
        Ok((access, state))
    }

    /// The history of a volume.
    ///
    /// # Errors
    /// No such volume, no history, or a vault that can't be read.
    pub fn history(&self, name: &VolumeName) -> Result<Timeline> {
        let volume = self.volume(name)?;
        let protection = self.protection_of(&volume)?;
        let (_, state) = self.stream(&volume)?;
        let verdict = self.verdict(volume.id);
        let vault = protection.vault.clone();
        Ok(self.timeline(vault, &state, Some(&protection), verdict.as_ref()))
    }

    /// What a stream has, cut by cut. Without its protection it is not known which cuts are missing.
    pub(super) fn timeline(
        &self,
        vault: VaultName,
        state: &State,
        protection: Option<&Protection>,
        verdict: Option<&Verdict>,
    ) -> Timeline {
        let mut cuts: Vec<CutView> = Vec::new();
        for (point, time) in state.cuts() {
            let stored = state
                .listing
                .segments
                .iter()
                .filter(|segment| segment.to == point)
                .map(vault::Segment::size)
                .min()
                .unwrap_or(0);
            let named = state.snapshots.iter().filter(|snapshot| snapshot.point == point);
            cuts.push(CutView {
                point,
                time: timestamp(time),
                stored,
                snapshots: named.filter_map(|snapshot| snapshot.name.parse().ok()).collect(),
                verified: verdict
                    .filter(|verdict| verdict.point == point)
                    .map(|verdict| (verdict.at, verdict.problems.is_empty())),
            });
        }
        let stored = state.listing.segments.iter().map(vault::Segment::size).sum();
        let now = self.clock.now();
        let gaps = protection.map(|protection| gaps(&cuts, protection, now)).unwrap_or_default();
        Timeline { vault, cuts, stored, gaps }
    }

    /// Cuts a volume now, and waits until the cut is durable. The newest cut, if nothing has changed since.
    pub(super) fn cut_durably(&self, volume: &Arc<Volume>) -> Result<(u64, u64)> {
        let protection = self.protection_of(volume)?;
        let members = match &protection.group {
            Some(group) => self
                .protected()
                .into_iter()
                .filter(|(_, other)| other.group.as_ref() == Some(group))
                .collect(),
            None => vec![(Arc::clone(volume), protection)],
        };
        let mut last = None;
        // The regular cut may be in the way, or a verb that has just ended.
        for _ in 0..3 {
            match self.cut_now(&members) {
                Ok(_) => {
                    last = None;
                    break;
                }
                Err(error) => last = Some(error),
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        if let Some(error) = last {
            return Err(error);
        }
        let state = self.histories.of(volume.id);
        self.upload(&state)?;
        let durable = lock(&state.outbox).as_ref().and_then(|outbox| outbox.durable_cut());
        durable.ok_or_else(|| Error::Invalid(format!("volume {} has no cut yet", volume.name)))
    }

    /// Cuts now, and gives the cut a name.
    ///
    /// # Errors
    /// When no cut could be made, or the name is taken by another.
    pub fn snapshot(&self, name: &VolumeName, snapshot: &SnapshotName) -> Result<(Change, CutView)> {
        let volume = self.usable(name)?;
        let (access, state) = self.stream(&volume)?;
        if let Some(known) = state.snapshots.iter().find(|known| known.name == snapshot.as_str()) {
            let view = self.history(name)?.cuts.into_iter().find(|cut| cut.point == known.point);
            let view =
                view.ok_or_else(|| Error::Invalid(format!("the cut of snapshot {snapshot} is missing")))?;
            return Ok((Change::AlreadyThere, view));
        }
        let (point, time) = self.cut_durably(&volume)?;
        let created = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        access.name_cut(&Snapshot { name: snapshot.to_string(), point, time, created }, history::salt())?;
        let cuts = self.history(name)?.cuts;
        let view = cuts.into_iter().find(|cut| cut.point == point);
        let view = view.ok_or_else(|| Error::Invalid(format!("the cut {point} is missing")))?;
        Ok((Change::Done, view))
    }

    /// Takes the name away; retention decides about the cut then.
    ///
    /// # Errors
    /// No such volume, or a vault that can't be written.
    pub fn remove_snapshot(&self, name: &VolumeName, snapshot: &SnapshotName) -> Result<Change> {
        let volume = self.volume(name)?;
        let (access, state) = self.stream(&volume)?;
        if !state.snapshots.iter().any(|known| known.name == snapshot.as_str()) {
            return Ok(Change::AlreadyThere);
        }
        let epoch = self.vaults.open(&self.protection_of(&volume)?.vault)?.writable()?;
        let known = self.histories.of(volume.id);
        let _keeping = lock(&known.keeping);
        // It leaves the inventory first, so that nobody takes it for lost.
        let at = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        let object = access.snapshot_object(snapshot.as_str());
        access.leave_inventory(epoch.0, at, &[object], history::salt())?;
        access.unname_cut(snapshot.as_str())?;
        Ok(Change::Done)
    }

    /// The cut that is meant: the last one at or before a time, one by its number, or one by its name.
    pub(super) fn find_cut(&self, volume: &Volume, state: &State, at: &At) -> Result<(u64, u64)> {
        let cuts = state.cuts();
        let reach = || match (cuts.first(), cuts.last()) {
            (Some((_, first)), Some((_, last))) => {
                format!("its history goes from {} to {}", timestamp(*first), timestamp(*last))
            }
            _ => "it has no cut yet".to_owned(),
        };
        let found = match at {
            At::Time(time) => cuts.iter().rev().find(|(_, at)| timestamp(*at) <= *time).copied(),
            At::Cut(point) => cuts.iter().find(|(at, _)| at == point).copied(),
            At::Snapshot(name) => {
                let known = state.snapshots.iter().find(|known| known.name == name.as_str());
                known.and_then(|known| cuts.iter().find(|(at, _)| *at == known.point).copied())
            }
        };
        found
            .ok_or_else(|| Error::Invalid(format!("volume {} has no cut for {at}: {}", volume.name, reach())))
    }
}
