//! The catalog on disk: one record for each volume, in an embedded transactional store.
//!
//! A record is JSON with a version of its own in front, so that a later Everhold can read what an earlier one wrote.
//! Every change is one transaction, durable when it returns.

use crate::engine::lock;
use crate::table::Table;
use crate::{Error, Result};
use model::{Volume, VolumeId};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

const VOLUMES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("volumes");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const VAULTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("vaults");
const FORMAT: &str = "format";
const PROJECT: &str = "last-project";

/// The version of a record's layout.
const RECORD_VERSION: u32 = 1;
/// The version of the catalog's tables.
const FORMAT_VERSION: u64 = 1;
/// Project IDs of quotas start above what administrators use by hand.
const FIRST_PROJECT: u64 = 1_000_000;

#[derive(Serialize)]
struct RecordOut<'a> {
    version: u32,
    volume: &'a Volume,
}

#[derive(Deserialize)]
struct RecordIn {
    volume: Volume,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The catalog.
pub struct Catalog {
    /// `None` after a failed write: the store refuses to go on with a file that it could not write, and nobody knows
    /// whether that last transaction is in it.
    database: Mutex<Option<Database>>,
    path: PathBuf,
    /// The records in memory, which are what callers were told. A reopened file is made to say the same.
    truth: Arc<RwLock<Table>>,
    /// The same for the vaults; changed only while `database` is locked.
    vaults: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Catalog {
    /// Opens the catalog, making an empty one where there is no file, and checks it whole.
    ///
    /// # Errors
    /// [`Error::CatalogDamaged`] when the file is not as it was written, or of a later Everhold; [`Error::Catalog`] when it
    /// can't be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let database = open_whole(path)?;
        let catalog = Self {
            database: Mutex::new(Some(database)),
            path: path.to_owned(),
            truth: Arc::default(),
            vaults: Mutex::default(),
        };
        catalog.prepare()?;
        Ok(catalog)
    }

    /// The records in memory; the engine fills them once they are loaded.
    pub(crate) fn truth(&self) -> Arc<RwLock<Table>> {
        Arc::clone(&self.truth)
    }

    fn prepare(&self) -> Result<()> {
        let format = self.write(|transaction| {
            transaction.open_table(VOLUMES)?;
            let vaults = transaction.open_table(VAULTS)?;
            let mut known = lock(&self.vaults);
            for entry in vaults.iter()? {
                let (name, bytes) = entry?;
                known.insert(name.value().to_owned(), bytes.value().to_owned());
            }
            let mut counters = transaction.open_table(COUNTERS)?;
            let format = counters.get(FORMAT)?.map(|value| value.value());
            if format.is_none() {
                counters.insert(FORMAT, FORMAT_VERSION)?;
            }
            Ok(format.unwrap_or(FORMAT_VERSION))
        })?;
        if format > FORMAT_VERSION {
            return Err(Error::Catalog {
                path: self.path.clone(),
                why: format!(
                    "was written by a later Everhold (format {format}, this one knows {FORMAT_VERSION})"
                ),
            });
        }
        Ok(())
    }

    fn failed(&self, error: impl std::fmt::Display) -> Error {
        Error::Catalog { path: self.path.clone(), why: error.to_string() }
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> std::result::Result<T, redb::Error>,
    ) -> Result<T> {
        self.write_then(change, || {})
    }

    /// Calls `then` when the change is durable, before anybody else can change anything.
    fn write_then<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> std::result::Result<T, redb::Error>,
        then: impl FnOnce(),
    ) -> Result<T> {
        let mut slot = lock(&self.database);
        let database = match slot.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        // Back into its place only when all went well; dropped, and so closed, otherwise.
        let out = transact(&database, change).map_err(|error| self.failed(error))?;
        then();
        *slot = Some(database);
        Ok(out)
    }

    /// Opens the file again after a failed write, and makes it say what the records in memory say.
    fn reopen(&self) -> Result<Database> {
        let database = open_whole(&self.path)?;
        let records: Vec<_> = {
            let table = self.truth.read().unwrap_or_else(PoisonError::into_inner);
            table.all().map(|volume| self.encode(volume)).collect::<Result<_>>()?
        };
        let put_back = |transaction: &redb::WriteTransaction| {
            let mut vaults = transaction.open_table(VAULTS)?;
            vaults.retain(|_, _| false)?;
            for (name, bytes) in &*lock(&self.vaults) {
                vaults.insert(name.as_str(), bytes.as_slice())?;
            }
            let mut table = transaction.open_table(VOLUMES)?;
            table.retain(|_, _| false)?;
            for (id, bytes) in &records {
                table.insert(id.as_str(), bytes.as_slice())?;
            }
            Ok(())
        };
        transact(&database, put_back).map_err(|error| self.failed(error))?;
        tracing::warn!(path = %self.path.display(), "the catalog was opened again after a failed write");
        Ok(database)
    }

    fn encode(&self, volume: &Volume) -> Result<(String, Vec<u8>)> {
        serde_json::to_vec(&RecordOut { version: RECORD_VERSION, volume })
            .map(|bytes| (volume.id.to_string(), bytes))
            .map_err(|error| self.failed(error))
    }

    /// Every record.
    ///
    /// # Errors
    /// [`Error::CatalogDamaged`] naming the record that can't be read.
    pub fn load(&self) -> Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        self.read(|id, bytes| {
            volumes.push(self.decode(id, bytes)?);
            Ok(())
        })?;
        Ok(volumes)
    }

    fn read(&self, mut each: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
        let fail = |error: redb::Error| self.failed(error);
        let slot = lock(&self.database);
        let Some(database) = &*slot else { return Err(self.failed("is closed after a failed write")) };
        let transaction = database.begin_read().map_err(|error| fail(error.into()))?;
        let table = transaction.open_table(VOLUMES).map_err(|error| fail(error.into()))?;
        for entry in table.iter().map_err(|error| fail(error.into()))? {
            let (id, bytes) = entry.map_err(|error| fail(error.into()))?;
            each(id.value(), bytes.value())?;
        }
        Ok(())
    }

    fn decode(&self, id: &str, bytes: &[u8]) -> Result<Volume> {
        let damaged = |why: String| Error::CatalogDamaged { path: self.path.clone(), why };
        let Version { version } =
            serde_json::from_slice(bytes).map_err(|error| damaged(format!("record {id}: {error}")))?;
        if version > RECORD_VERSION {
            return Err(
                self.failed(format!("record {id} has version {version}, written by a later Everhold"))
            );
        }
        let record: RecordIn =
            serde_json::from_slice(bytes).map_err(|error| damaged(format!("record {id}: {error}")))?;
        Ok(record.volume)
    }

    /// Writes one record; durable when it returns.
    pub fn put(&self, volume: &Volume) -> Result<()> {
        self.put_all(std::slice::from_ref(volume))
    }

    /// Writes several records in one transaction.
    pub fn put_all(&self, volumes: &[Volume]) -> Result<()> {
        let records = volumes.iter().map(|volume| self.encode(volume)).collect::<Result<Vec<_>>>()?;
        self.write(|transaction| {
            let mut table = transaction.open_table(VOLUMES)?;
            for (id, bytes) in &records {
                table.insert(id.as_str(), bytes.as_slice())?;
            }
            Ok(())
        })
    }

    /// Forgets one record.
    pub fn remove(&self, id: VolumeId) -> Result<()> {
        self.write(|transaction| {
            transaction.open_table(VOLUMES)?.remove(id.to_string().as_str())?;
            Ok(())
        })
    }

    /// The records of the vaults, by name.
    pub(crate) fn vaults(&self) -> Vec<(String, Vec<u8>)> {
        lock(&self.vaults).iter().map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    }

    /// Writes the record of a vault; durable when it returns.
    pub(crate) fn put_vault(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let put = |transaction: &redb::WriteTransaction| {
            transaction.open_table(VAULTS)?.insert(name, bytes)?;
            Ok(())
        };
        self.write_then(put, || {
            lock(&self.vaults).insert(name.to_owned(), bytes.to_owned());
        })
    }

    /// Forgets the record of a vault.
    pub(crate) fn remove_vault(&self, name: &str) -> Result<()> {
        let remove = |transaction: &redb::WriteTransaction| {
            transaction.open_table(VAULTS)?.remove(name)?;
            Ok(())
        };
        self.write_then(remove, || {
            lock(&self.vaults).remove(name);
        })
    }

    /// Sets a mark that stays; returns whether it was set before.
    pub(crate) fn mark(&self, name: &str) -> Result<bool> {
        self.write(|transaction| {
            let mut counters = transaction.open_table(COUNTERS)?;
            let before = counters.insert(name, 1)?.is_some();
            Ok(before)
        })
    }

    /// Whether a mark is set.
    pub(crate) fn is_marked(&self, name: &str) -> Result<bool> {
        let slot = lock(&self.database);
        let Some(database) = &*slot else { return Err(self.failed("is closed after a failed write")) };
        let look = || -> std::result::Result<bool, redb::Error> {
            Ok(database.begin_read()?.open_table(COUNTERS)?.get(name)?.is_some())
        };
        look().map_err(|error| self.failed(error))
    }

    /// A project ID for a quota that no volume has had before.
    pub fn next_project(&self) -> Result<u32> {
        let next = self.write(|transaction| {
            let mut counters = transaction.open_table(COUNTERS)?;
            let next = counters.get(PROJECT)?.map_or(FIRST_PROJECT, |last| last.value() + 1);
            counters.insert(PROJECT, next)?;
            Ok(next)
        })?;
        u32::try_from(next).map_err(|_| self.failed("no project IDs are left"))
    }

    /// Makes sure that [`Catalog::next_project`] gives nothing up to `used`.
    pub fn skip_projects(&self, used: u32) -> Result<()> {
        self.write(|transaction| {
            let mut counters = transaction.open_table(COUNTERS)?;
            let last = counters.get(PROJECT)?.map_or(0, |last| last.value());
            if last < u64::from(used) {
                counters.insert(PROJECT, u64::from(used))?;
            }
            Ok(())
        })
    }
}

fn transact<T>(
    database: &Database,
    change: impl FnOnce(&redb::WriteTransaction) -> std::result::Result<T, redb::Error>,
) -> std::result::Result<T, redb::Error> {
    let transaction = database.begin_write()?;
    let out = change(&transaction)?;
    transaction.commit()?;
    Ok(out)
}

/// Opens the file, or makes one, and checks it whole.
fn open_whole(path: &Path) -> Result<Database> {
    let damaged = |why: String| Error::CatalogDamaged { path: path.to_owned(), why };
    // The store asserts some of its invariants: on a damaged file that is a panic, which is as good as an error here.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut database = Database::create(path)?;
        let whole = database.check_integrity()?;
        Ok::<_, redb::DatabaseError>((database, whole))
    }));
    match opened {
        Err(_) => Err(damaged("its structure is not consistent".into())),
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(source))))
            if source.kind() != io::ErrorKind::InvalidData
                && source.kind() != io::ErrorKind::UnexpectedEof =>
        {
            Err(Error::Catalog { path: path.to_owned(), why: format!("can't be opened: {source}") })
        }
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Ok(Ok((_, false))) => Err(damaged("its checksums do not match".into())),
        Ok(Ok((database, true))) => Ok(database),
    }
}
