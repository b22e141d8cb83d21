//! The size of a directory: a project quota of the host's file system.

use crate::{Error, Result, Usage};
use linux::Change;
use linux::quota;
use model::Size;
use std::path::Path;

/// The kernel keeps limits of ext4 in units of 1 KiB; file systems give space in blocks of 4 KiB and more.
pub(super) const BLOCK: u64 = 4096;

/// Refuses a size on a file system that would not keep it.
pub(super) fn admit(pool: &Path) -> Result<()> {
    if quota::supported(pool)? {
        return Ok(());
    }
    let fs = linux::fs::fstype(pool)?.name();
    Err(Error::Unsupported {
        what: format!(
            "driver=dir can't limit the size here: {} is on {fs}, which is not counting project quotas",
            pool.display()
        ),
        instead: "leave `size` out, use driver=image, or have the operator mount the pool's file system with \
                  `prjquota` (ext4: `tune2fs -O quota,project` first; the kernel needs CONFIG_QFMT_V2 or CONFIG_XFS_QUOTA)"
            .into(),
    })
}

fn project(project: Option<u32>) -> Result<u32> {
    // Project 0 is where every file is that has none: a limit on it would bind the whole file system.
    project.filter(|id| *id != 0).ok_or_else(|| Error::Unsupported {
        what: "the volume has a size, and no project that its quota could count".into(),
        instead: "report this as a bug".into(),
    })
}

/// Puts an empty directory, and all that will be made in it, under a limit.
pub(super) fn begin(data: &Path, id: Option<u32>, size: Size) -> Result<()> {
    let id = project(id)?;
    // The limit first: no file is in the project before it.
    quota::set_limit(data, id, size.bytes())?;
    Ok(quota::set_project(data, id)?)
}

/// Raises the limit.
pub(super) fn raise(data: &Path, id: Option<u32>, to: Size) -> Result<Change> {
    admit(data)?;
    let id = project(id)?;
    let limit = quota::usage(data, id)?.limit;
    if limit >= to.bytes() {
        return Ok(Change::AlreadyThere);
    }
    quota::set_limit(data, id, to.bytes())?;
    Ok(Change::Done)
}

/// Takes the limit away, so that the number of the project can be used again.
pub(super) fn end(home: &Path, id: Option<u32>) -> Result<()> {
    match id {
        Some(id) if id != 0 && quota::supported(home)? => Ok(quota::set_limit(home, id, 0)?),
        _ => Ok(()),
    }
}

/// What the quota has counted. `None` everywhere when quotas were switched off since.
pub(super) fn usage(data: &Path, id: Option<u32>) -> Result<Usage> {
    if !quota::supported(data)? {
        return Ok(Usage::default());
    }
    let counted = quota::usage(data, project(id)?)?;
    Ok(Usage {
        // 0 means that someone took the limit away.
        size: Some(counted.limit).filter(|limit| *limit != 0),
        used: Some(counted.used),
        allocated: Some(counted.used),
        inodes: None,
    })
}
