//! Who may write to a vault: claims, which are objects `w/EPOCH` of which each can be made once.
//!
//! A writer that finds no claim of a later epoch after a put knows that it was the writer when the put was done.
//!
//! Old claims are removed, but never one whose absence could deceive a writer that still lives: a node looks for
//! the epoch after its own, so the claim after the newest one of every node stays. A node runs one daemon; that its
//! earlier processes are dead is its own business (a lock on its state).

use crate::store::{Created, Store, StoreError, StoreResult};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;

const CLAIMS: &str = "w/";

/// How many of the newest claims are kept for people to read.
const KEPT: usize = 8;

/// How many races are run before giving up.
const RACES: u32 = 16;

/// The number of a claim. Later ones are higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl Epoch {
    fn object(self) -> String {
        format!("{CLAIMS}{self}")
    }

    fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix(CLAIMS)?;
        let epoch = Self(u32::from_str_radix(digits, 16).ok()?);
        (epoch.object() == name).then_some(epoch)
    }
}

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Writer {
    /// The node's id: stays the same over restarts, and differs between hosts.
    pub node: String,
    /// The host's name, for people.
    pub host: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Since when.
    pub since: Timestamp,
    /// The daemon's version.
    pub version: String,
}

/// Why a vault can't be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The store failed. The claim may have been made; claiming again does no harm.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another node writes.
    #[error(
        "{url}: {} (node {}) has been writing to this vault since {:.0}; if it is gone for good, or must not write any \
         more, take the vault over with --take-over",
        .by.host, .by.node, .by.since
    )]
    Taken {
        /// Where.
        url: String,
        /// Its epoch.
        epoch: Epoch,
        /// Who.
        by: Box<Writer>,
    },
    /// The newest claim can't be read.
    #[error(
        "{url}: the claim {CLAIMS}{epoch} can't be read ({why}); if no other host writes, use --take-over"
    )]
    Unreadable {
        /// Where.
        url: String,
        /// Its epoch.
        epoch: Epoch,
        /// In words.
        why: String,
    },
    /// The numbers are used up, or others were faster every time.
    #[error("{url}: the vault can't be claimed: {why}")]
    Hopeless {
        /// Where.
        url: String,
        /// In words.
        why: &'static str,
    },
}

/// The newest claim, if there is one: its epoch and who made it, as far as that can be read.
pub fn newest(store: &dyn Store) -> StoreResult<Option<(Epoch, Result<Writer, String>)>> {
    loop {
        let Some(epoch) = epochs(store)?.pop() else { return Ok(None) };
        match read(store, epoch)? {
            Some(by) => return Ok(Some((epoch, by))),
            // It was removed just now, so there is a newer one.
            None => continue,
        }
    }
}

/// Claims a vault for this writer: after a restart, or where nobody writes, or with `take_over` in another's place.
pub fn claim(store: &dyn Store, me: &Writer, take_over: bool) -> Result<Epoch, ClaimError> {
    let url = || store.url().to_owned();
    let body = serde_json::to_vec(me)
        .map_err(|_| ClaimError::Hopeless { url: url(), why: "a claim can't be written" })?;
    let mut take_over = take_over;
    for _ in 0..RACES {
        let newest = newest(store)?;
        if !take_over && let Some((epoch, by)) = &newest {
            match by {
                Ok(by) if by.node == me.node => {}
                Ok(by) => {
                    return Err(ClaimError::Taken { url: url(), epoch: *epoch, by: Box::new(by.clone()) });
                }
                Err(why) => {
                    return Err(ClaimError::Unreadable { url: url(), epoch: *epoch, why: why.clone() });
                }
            }
        }
        let last = newest.map_or(0, |(epoch, _)| epoch.0);
        let next = last.checked_add(1).filter(|next| *next < u32::MAX).map(Epoch);
        let next =
            next.ok_or_else(|| ClaimError::Hopeless { url: url(), why: "there are no epochs left" })?;
        match store.create(&next.object(), body.clone().into())? {
            Created::New => {
                if let Err(error) = prune(store) {
                    tracing::debug!(%error, "old claims stay");
                }
                return Ok(next);
            }
            // Another one was faster. To take over was meant for who wrote before, not for him.
            Created::Exists => take_over = false,
        }
    }
    Err(ClaimError::Hopeless { url: url(), why: "others were faster every time" })
}

/// Whether nobody has claimed the vault after this epoch. One cheap call, for after every put.
pub fn still_mine(store: &dyn Store, epoch: Epoch) -> StoreResult<bool> {
    Ok(store.size(&Epoch(epoch.0.saturating_add(1)).object())?.is_none())
}

/// The epochs there are claims of, ascending.
fn epochs(store: &dyn Store) -> StoreResult<Vec<Epoch>> {
    Ok(store.list(CLAIMS)?.iter().filter_map(|o| Epoch::parse(&o.name)).collect())
}

/// Reads a claim; `None` if it is not there.
fn read(store: &dyn Store, epoch: Epoch) -> StoreResult<Option<Result<Writer, String>>> {
    match store.read(&epoch.object(), None) {
        Ok(body) => Ok(Some(serde_json::from_slice(&body).map_err(|e| e.to_string()))),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Removes old claims: of the lowest first, so that one that is missing has only missing ones below.
fn prune(store: &dyn Store) -> StoreResult<()> {
    let epochs = epochs(store)?;
    let Some(old) = epochs.len().checked_sub(KEPT).filter(|old| *old > 0) else { return Ok(()) };
    let mut claims = Vec::new();
    for epoch in &epochs {
        match read(store, *epoch)? {
            Some(Ok(by)) => claims.push((*epoch, by.node)),
            // Whose it is can't be known: everything stays.
            Some(Err(_)) => return Ok(()),
            None => {}
        }
    }
    for epoch in disposable(&claims, epochs[old]) {
        store.delete(&epoch.object())?;
    }
    Ok(())
}

/// The claims below `from` whose absence deceives nobody.
fn disposable(claims: &[(Epoch, String)], from: Epoch) -> Vec<Epoch> {
    let newest: BTreeMap<&str, Epoch> = claims.iter().map(|(epoch, node)| (node.as_str(), *epoch)).collect();
    let needed = |epoch: Epoch| newest.values().any(|n| *n == epoch || n.0.checked_add(1) == Some(epoch.0));
    claims.iter().map(|(epoch, _)| *epoch).filter(|epoch| *epoch < from && !needed(*epoch)).collect()
}

#[cfg(test)]
mod tests;
