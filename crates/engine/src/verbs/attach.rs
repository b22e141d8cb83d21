//! Attach: a holder begins to use a volume.

use crate::engine::Engine;
use crate::{Change, Error, Fault, Result};
use model::{Access, Attachment, HolderKind, Volume, VolumeName};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An attachment younger than this belongs to a container that may not be running yet.
const SETTLING: Duration = Duration::from_secs(30);

impl Engine {
    /// Makes a volume usable for the holder `id`, and says where. The same holder twice is one attachment.
    ///
    /// # Errors
    /// [`Error::InUse`] for an exclusive volume that someone else holds; [`Error::PoolFull`] while writers are held;
    /// a volume that is damaged, which is then not mounted.
    pub fn attach(
        &self,
        name: &VolumeName,
        id: &str,
        holder: HolderKind,
        access: Access,
    ) -> Result<(Change, PathBuf)> {
        if id.is_empty() || id.len() > 256 || id.chars().any(char::is_control) {
            return Err(Error::Invalid("an attachment needs an ID of 1 to 256 printable characters".into()));
        }
        // Before the claim, which who restores it may have for hours.
        self.volume(name).and_then(|volume| self.refuse_half_restored(&volume))?;
        let _claim = self.claim(name, "attach")?;
        let mut volume = self.usable(name)?;
        let known = volume.attachment(id).is_some();
        if !known {
            if volume.spec.exclusive && !volume.attachments.is_empty() {
                volume = self.refuse_if_held_by_someone(&volume, "attach")?;
            }
            if volume.spec.is_thin() && volume.attachments.is_empty() {
                self.pool(&volume.spec.pool)?.refuse_if_held()?;
            }
            let mut recorded = (*volume).clone();
            recorded.attachments.push(Attachment {
                id: id.to_owned(),
                holder,
                access,
                since: self.clock.now(),
                boot_id: self.boot_id.clone(),
            });
            volume = self.record(recorded)?;
            self.fault(Fault::AttachRecorded);
        }
        match self.mount(&volume) {
            Ok((_, path)) => Ok((if known { Change::AlreadyThere } else { Change::Done }, path)),
            Err(error) => {
                if !known {
                    self.drop_attachments(&volume, |attachment| attachment.id == id)?;
                }
                Err(error)
            }
        }
    }

    /// Mounts what is recorded as attached.
    pub(crate) fn mount(&self, volume: &Volume) -> Result<(Change, PathBuf)> {
        let state = "the volume is not attached; its data is as it was";
        let attached = self.with_driver(volume, "attach", state, |driver, place| driver.attach(place))?;
        self.fault(Fault::AttachMounted);
        self.set_path(volume.id, Some(attached.path.clone()));
        Ok((attached.change, attached.path))
    }

    pub(crate) fn drop_attachments(
        &self,
        volume: &Volume,
        gone: impl Fn(&Attachment) -> bool,
    ) -> Result<Arc<Volume>> {
        let mut left = volume.clone();
        left.attachments.retain(|attachment| !gone(attachment));
        self.record(left)
    }

    /// The volume, if nobody holds it. Attachments whose container has gone without a word are dropped first.
    pub(crate) fn refuse_if_held_by_someone(
        &self,
        volume: &Arc<Volume>,
        verb: &'static str,
    ) -> Result<Arc<Volume>> {
        if volume.attachments.is_empty() {
            return Ok(Arc::clone(volume));
        }
        let volume = self.drop_stale(volume)?;
        if volume.attachments.is_empty() {
            return Ok(volume);
        }
        Err(self.in_use(&volume, verb))
    }

    pub(crate) fn in_use(&self, volume: &Volume, verb: &'static str) -> Error {
        Error::InUse { name: volume.name.clone(), holders: self.holder_names(volume), verb }
    }

    /// Drops attachments of containers that are known not to run any more, and unmounts if they were the last.
    ///
    /// A Docker Engine that was killed never says that its containers are gone.
    pub(crate) fn drop_stale(&self, volume: &Arc<Volume>) -> Result<Arc<Volume>> {
        let stale = self.stale(volume);
        if stale.is_empty() {
            return Ok(Arc::clone(volume));
        }
        tracing::warn!(volume = %volume.name, ?stale, "dropping attachments: no container that uses the volume is running");
        self.detach_claimed(volume, |attachment| stale.contains(&attachment.id))
    }

    /// The attachments whose container is known not to run any more.
    pub(crate) fn stale(&self, volume: &Volume) -> Vec<String> {
        let now = self.clock.now();
        let settled = |attachment: &&Attachment| {
            now.duration_since(attachment.since).unsigned_abs() > SETTLING
                && attachment.holder != HolderKind::Cli
        };
        let candidates: Vec<_> = volume.attachments.iter().filter(settled).map(|a| a.id.clone()).collect();
        if candidates.is_empty() {
            return candidates;
        }
        match self.containers.using(&volume.name) {
            Ok(uses) if uses.iter().all(|container| !container.is_active()) => candidates,
            _ => Vec::new(),
        }
    }

    /// Drops stale attachments of every volume; for the moment when a container engine comes (back) up.
    pub fn drop_all_stale(&self) {
        for volume in self.volumes() {
            if volume.attachments.is_empty() {
                continue;
            }
            let Some(_claim) = self.claims.try_take(&volume.name, "check holders") else { continue };
            let Ok(volume) = self.usable(&volume.name) else { continue };
            if let Err(error) = self.drop_stale(&volume) {
                tracing::warn!(volume = %volume.name, %error, "could not drop stale attachments");
            }
        }
    }

    /// Who holds a volume, in words for people.
    fn holder_names(&self, volume: &Volume) -> Vec<String> {
        let mut names: Vec<String> = self
            .containers
            .using(&volume.name)
            .unwrap_or_default()
            .iter()
            .filter(|container| container.is_active())
            .map(|container| {
                format!("container {} ({}, {})", container.name, container.image, container.state)
            })
            .collect();
        for attachment in &volume.attachments {
            let short: String = attachment.id.chars().take(24).collect();
            match attachment.holder {
                HolderKind::Docker if !names.is_empty() => {}
                HolderKind::Docker => names.push(format!("Docker mount {short}")),
                HolderKind::Cli => names.push(format!("`everhold volume mount` ({short})")),
                HolderKind::Recovered => names.push("a mount found when the catalog was rebuilt".to_owned()),
            }
        }
        names
    }
}
