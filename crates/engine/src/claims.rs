//! One verb at a time on one volume, and a bounded wait for it.

use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is being worked on, by name or ID.
pub(crate) struct Claims {
    table: Mutex<HashMap<String, (&'static str, Instant)>>,
    freed: Condvar,
    wait: Duration,
}

/// The right to work on something, until dropped.
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    keys: Vec<String>,
}

impl Claims {
    pub(crate) fn new(wait: Duration) -> Self {
        Self { table: Mutex::default(), freed: Condvar::new(), wait }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, (&'static str, Instant)>> {
        // A panicking verb drops its claim while unwinding; the table is whole at every step.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims all of `keys` at once, waiting a bounded time for whoever has one of them.
    pub(crate) fn take<K: ToString>(
        &self,
        keys: impl IntoIterator<Item = K>,
        verb: &'static str,
    ) -> Result<Claim<'_>> {
        let keys: Vec<String> = keys.into_iter().map(|key| key.to_string()).collect();
        let deadline = Instant::now() + self.wait;
        let mut table = self.table();
        let taken = |table: &HashMap<String, (&'static str, Instant)>| {
            keys.iter().find_map(|key| Some((key.clone(), *table.get(key)?)))
        };
        while let Some((name, (at_work, since))) = taken(&table) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy { name, verb: at_work, since: since.elapsed() });
            }
            table = self.freed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let now = Instant::now();
        table.extend(keys.iter().map(|key| (key.clone(), (verb, now))));
        Ok(Claim { claims: self, keys })
    }

    /// Claims `key` only if nobody has it.
    pub(crate) fn try_take<K: ToString>(&self, key: K, verb: &'static str) -> Option<Claim<'_>> {
        let key = key.to_string();
        let mut table = self.table();
        if table.contains_key(&key) {
            return None;
        }
        table.insert(key.clone(), (verb, Instant::now()));
        Some(Claim { claims: self, keys: vec![key] })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut table = self.claims.table();
        for key in &self.keys {
            table.remove(key);
        }
        drop(table);
        self.claims.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_at_a_time_and_bounded() {
        let claims = Claims::new(Duration::from_secs(5));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let _claim = claims.take(["a", "b"], "create").unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
        assert!(claims.table().is_empty(), "every claim was given back");
    }

    #[test]
    fn says_what_is_at_work() {
        let claims = Claims::new(Duration::from_millis(1));
        let _held = claims.take(["pgdata"], "grow").unwrap();
        let error = claims.take(["pgdata"], "remove").err().unwrap();
        assert!(error.to_string().contains("pgdata is busy: grow"), "{error}");
        assert!(claims.try_take("pgdata", "autogrow").is_none());
        assert!(claims.try_take("other", "autogrow").is_some());
    }
}
