//! Pools: where volumes are put, what may be promised there, and what is kept in reserve.

use crate::engine::{Engine, lock};
use crate::hold::Hold;
use crate::settings::{HoldLine, PoolSettings};
use crate::{Error, Result};
use linux::fs::Space;
use model::{Labels, PoolName, Size, VolumeId};
use std::path::PathBuf;
use std::sync::Mutex;

/// A pool and the state of its watch.
pub(crate) struct Pool {
    pub(crate) settings: PoolSettings,
    pub(crate) hold: Mutex<Hold>,
}

/// How a pool stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name.
    pub name: PoolName,
    /// Its directory.
    pub path: PathBuf,
    /// What people say about it.
    pub labels: Labels,
    /// The file system it is on.
    pub fstype: String,
    /// Bytes of its file system.
    pub total: Size,
    /// Bytes that can still be used.
    pub free: Size,
    /// Under this, new volumes are refused.
    pub reserve: Size,
    /// Under this, writers of thin images are held. `None`: never.
    pub hold_below: Option<Size>,
    /// What its volumes may grow to, all together.
    pub promised: Size,
    /// What they may promise.
    pub promise_limit: Size,
    /// Live volumes.
    pub volumes: usize,
    /// Volumes in the trash.
    pub trashed: usize,
    /// Whether writers are held.
    pub hold: Hold,
}

const HOLD_AT_LEAST: u64 = 256 << 20;

impl Pool {
    pub(crate) fn new(settings: &PoolSettings) -> Self {
        Self { settings: settings.clone(), hold: Mutex::default() }
    }

    pub(crate) fn home(&self, id: VolumeId) -> PathBuf {
        self.settings.path.join("volumes").join(id.to_string())
    }

    pub(crate) fn space(&self) -> Result<Space> {
        Ok(linux::fs::space(&self.settings.path)?)
    }

    pub(crate) fn reserve(&self, space: &Space) -> u64 {
        self.settings.reserve.of(space.total)
    }

    /// The free bytes under which writers are held.
    pub(crate) fn hold_line(&self, space: &Space) -> Option<u64> {
        match self.settings.hold {
            HoldLine::Off => None,
            HoldLine::Below(size) => Some(size.bytes()),
            HoldLine::Auto => {
                let most = if self.reserve(space) > 0 { self.reserve(space) / 2 } else { space.total / 20 };
                Some((space.total / 100).max(HOLD_AT_LEAST).min(most))
            }
        }
    }

    fn full(&self, space: &Space) -> Error {
        Error::PoolFull {
            pool: self.settings.name.clone(),
            free: Size::from_bytes(space.available),
            reserve: Size::from_bytes(self.reserve(space)),
            held: matches!(*lock(&self.hold), Hold::Held { .. }),
        }
    }

    /// Refuses anything that will write to a pool whose writers are held.
    pub(crate) fn refuse_if_held(&self) -> Result<()> {
        if matches!(*lock(&self.hold), Hold::Held { .. }) { Err(self.full(&self.space()?)) } else { Ok(()) }
    }

    /// Refuses what would leave less than the reserve.
    pub(crate) fn check_room(&self, now: u64) -> Result<()> {
        let space = self.space()?;
        if space.available.saturating_sub(now) < self.reserve(&space) {
            Err(self.full(&space))
        } else {
            Ok(())
        }
    }

    /// Whether `more` may be promised. `now` is taken at once: new blocks, and dirty data that is still to come.
    pub(crate) fn check_promise(&self, promised: Size, whole: Size, more: Size, now: Size) -> Result<()> {
        let space = self.space()?;
        let total = Size::from_bytes(space.total);
        let pool = || self.settings.name.clone();
        if whole > total {
            return Err(Error::LargerThanPool { pool: pool(), asked: whole, total });
        }
        let limit = Size::from_bytes(self.settings.overcommit.of(space.total));
        if promised.saturating_add(more) > limit {
            return Err(Error::OverPromised { pool: pool(), asked: more, promised, limit, total });
        }
        if space.available.saturating_sub(now.bytes()) < self.reserve(&space) {
            return Err(self.full(&space));
        }
        Ok(())
    }
}

impl Engine {
    /// What the volumes of a pool may grow to, all together; the trash counts, as it takes space too.
    pub(crate) fn promised(&self, pool: &PoolName) -> Size {
        let table = self.read();
        let promises =
            table.all().filter(|volume| volume.spec.pool == *pool).map(|volume| volume.spec.promised());
        promises.fold(Size::default(), Size::saturating_add)
    }

    /// How each pool stands. A pool whose directory can't be read is an error of its own.
    pub fn pools(&self) -> Vec<Result<PoolStatus>> {
        self.pools.iter().map(|pool| self.pool_status(pool)).collect()
    }

    fn pool_status(&self, pool: &Pool) -> Result<PoolStatus> {
        let space = pool.space()?;
        let settings = &pool.settings;
        let (volumes, trashed) = {
            let table = self.read();
            let mine =
                |live| table.all().filter(|v| v.spec.pool == settings.name && v.is_live() == live).count();
            (mine(true), mine(false))
        };
        Ok(PoolStatus {
            name: settings.name.clone(),
            path: settings.path.clone(),
            labels: settings.labels.clone(),
            fstype: linux::fs::fstype(&settings.path)?.name().to_string(),
            total: Size::from_bytes(space.total),
            free: Size::from_bytes(space.available),
            reserve: Size::from_bytes(pool.reserve(&space)),
            hold_below: pool.hold_line(&space).map(Size::from_bytes),
            promised: self.promised(&settings.name),
            promise_limit: Size::from_bytes(settings.overcommit.of(space.total)),
            volumes,
            trashed,
            hold: lock(&pool.hold).clone(),
        })
    }
}
