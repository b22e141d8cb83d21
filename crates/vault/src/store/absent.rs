//! A store that is not there.

use super::{Abilities, Created, Object, Store, StoreError, StoreResult};
use bytes::Bytes;
use std::ops::Range;

/// Stands for a store that can't be reached: every call says so.
#[derive(Debug)]
pub struct AbsentStore {
    url: String,
    why: String,
}

impl AbsentStore {
    /// In place of the store at this URL; why it is not there, in words.
    pub fn new(url: impl Into<String>, why: impl Into<String>) -> Self {
        Self { url: url.into(), why: why.into() }
    }

    fn refused<T>(&self) -> StoreResult<T> {
        Err(StoreError::Refused { store: self.url.clone(), why: self.why.clone() })
    }
}

impl Store for AbsentStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn create(&self, _: &str, _: Bytes) -> StoreResult<Created> {
        self.refused()
    }

    fn replace(&self, _: &str, _: Bytes) -> StoreResult<()> {
        self.refused()
    }

    fn read(&self, _: &str, _: Option<Range<u64>>) -> StoreResult<Bytes> {
        self.refused()
    }

    fn size(&self, _: &str) -> StoreResult<Option<u64>> {
        self.refused()
    }

    fn list(&self, _: &str) -> StoreResult<Vec<Object>> {
        self.refused()
    }

    fn delete(&self, _: &str) -> StoreResult<()> {
        self.refused()
    }

    fn abilities(&self) -> StoreResult<Abilities> {
        self.refused()
    }
}
