//! Finds changes: current rows, and whether another process has written to the file.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Row, params};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::cache::Cache;
use super::commits::Version;
use super::database_file::{DatabaseFile, Reader};
use super::{Connections, SqliteStore, rows, schema};
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::changes::{ChangeScan, Fingerprints, Heard, Scanned, Watch};
use crate::store::listing::ROCKET_COLUMNS;

/// How often a watch polls the file.
const POLL: Duration = Duration::from_millis(200);
/// How often a file that can't be held open is scanned for changes.
const UNHELD_POLL: Duration = Duration::from_secs(1);

impl SqliteStore {
    /// See [`Store::rockets_of`](crate::store::Store::rockets_of).
    pub fn rockets_of(&self, channels: &[Channel]) -> Result<Vec<Rocket>, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let sql = format!("SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel = ?1");
            let mut statement = snapshot.prepare_cached(&sql)?;
            let mut rockets = Vec::with_capacity(channels.len());
            for channel in channels {
                if let Some(row) = statement.query(params![channel.as_str()])?.next()? {
                    rockets.push(rows::rocket(row)?);
                }
            }
            Ok(rockets)
        })
    }

    /// See [`Store::change_scan`](crate::store::Store::change_scan).
    pub async fn change_scan(&self) -> Result<ChangeScan, StoreError> {
        let Connections::File(file) = &self.connections else {
            // A database in memory has no other users.
            return Ok(ChangeScan::Nobody);
        };
        let generation = file.generation();
        Ok(ChangeScan::Sqlite(SqliteScan {
            store: self.clone(),
            file: Arc::clone(file),
            generation: Some(generation),
            baseline: Some(Baseline::begin(self).await?),
            fingerprints: Fingerprints::default(),
            after: String::new(),
        }))
    }

    /// See [`Store::forgotten`](crate::store::Store::forgotten).
    pub fn forgotten(&self) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached("SELECT channel, forgotten_at FROM rockets_forgotten")?;
            let mut found = statement.query([])?;
            let mut forgotten = Vec::new();
            while let Some(row) = found.next()? {
                forgotten.push((rows::channel(row, 0)?, rows::time(row, 1)?));
            }
            Ok(forgotten)
        })
    }

    /// See [`Store::watch`](crate::store::Store::watch).
    pub fn watch(&self) -> Result<Watch, StoreError> {
        match &self.connections {
            // A database in memory has no other users.
            Connections::Memory(_) => Ok(Watch::Nobody),
            Connections::File(file) => {
                let mut watch = SqliteWatch {
                    file: Arc::clone(file),
                    reader: None,
                    unheld_look: None,
                    cache: Arc::clone(&self.cache),
                    by_others: None,
                };
                watch.look()?;
                Ok(Watch::Sqlite(watch))
            }
        }
    }
}

/// Detects that another process has written to the file.
pub struct SqliteWatch {
    file: Arc<DatabaseFile>,
    reader: Option<Reader>,
    /// When a file that is not held open was last reported as changed.
    unheld_look: Option<Instant>,
    cache: Arc<Cache>,
    /// The commits by others at the last check.
    by_others: Option<u64>,
}

impl fmt::Debug for SqliteWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SqliteWatch").field(&self.file).finish()
    }
}

impl SqliteWatch {
    pub(in crate::store) async fn hear(&mut self) -> Result<Heard, StoreError> {
        loop {
            tokio::time::sleep(POLL).await;
            if self.look()? {
                return Ok(Heard::Something);
            }
        }
    }

    /// Whether another process has written since the last check.
    fn look(&mut self) -> Result<bool, StoreError> {
        if !self.file.is_held() {
            // Nothing keeps the file open, so nothing can tell.
            self.reader = None;
            let is_due = self.unheld_look.is_none_or(|at| at.elapsed() >= UNHELD_POLL);
            if is_due {
                self.unheld_look = Some(Instant::now());
            }
            return Ok(is_due);
        }
        let generation = self.file.generation();
        let reader = match self.reader.take().filter(|reader| reader.generation == generation) {
            Some(reader) => reader,
            None => self.file.reader_connection()?,
        };
        let version = || Version::of(Some(generation), &reader.connection);
        let by_others = Some(self.cache.commits.by_others(version));
        self.reader = Some(reader);
        Ok(std::mem::replace(&mut self.by_others, by_others) != by_others)
    }
}

/// How many rockets are read at a time.
const SCANNED_AT_A_TIME: i64 = 1_024;

/// Finds changed rockets by comparing rows with their fingerprints at the last scan.
pub struct SqliteScan {
    store: SqliteStore,
    file: Arc<DatabaseFile>,
    /// Of the file that the fingerprints are of; none if they could not be read.
    generation: Option<u64>,
    /// Where the fingerprints come from before the first look.
    baseline: Option<Baseline>,
    fingerprints: Fingerprints,
    /// The last channel that this scan has read.
    after: String,
}

impl fmt::Debug for SqliteScan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SqliteScan").field(&self.file).finish()
    }
}

impl SqliteScan {
    pub(in crate::store) async fn next(&mut self) -> Result<Scanned, StoreError> {
        let generation = self.file.generation();
        if self.generation != Some(generation) {
            self.baseline = Some(Baseline::begin(&self.store).await?);
            self.after.clear();
            self.generation = Some(generation);
            return Ok(Scanned::AnotherDatabase);
        }
        if let Some(baseline) = self.baseline.take() {
            self.fingerprints = baseline.finish().await.inspect_err(|_| self.generation = None)?;
        }
        loop {
            let (rockets, is_end) = self.read_part()?;
            if !rockets.is_empty() {
                return Ok(Scanned::Rockets(rockets));
            }
            if is_end {
                return Ok(Scanned::Done);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reads the next rockets; gives those that have changed, and whether these were the last.
    fn read_part(&mut self) -> Result<(Vec<Rocket>, bool), StoreError> {
        let Self { store, fingerprints, after, .. } = self;
        let (mut changed, mut seen) = (Vec::new(), 0);
        let last = store.with_reader(|connection| {
            let sql = format!("SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel > ?1 ORDER BY channel LIMIT ?2");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut found = statement.query(params![*after, SCANNED_AT_A_TIME])?;
            let mut last = String::new();
            while let Some(row) = found.next()? {
                if has_changed(row, fingerprints)? {
                    changed.push(rows::rocket(row)?);
                }
                last = rows::text(row, 0)?.to_owned();
                seen += 1;
            }
            Ok(last)
        })?;
        let is_end = seen < SCANNED_AT_A_TIME;
        *after = if is_end { String::new() } else { last };
        Ok((changed, is_end))
    }
}

fn has_changed(row: &Row<'_>, fingerprints: &mut Fingerprints) -> Result<bool, StoreError> {
    let columns = row.as_ref().column_count();
    let has_changed = fingerprints.has_changed(rows::text(row, 0)?, |hasher| {
        (0..columns).try_for_each(|column| row.get_ref(column).map(|cell| rows::hash(cell, hasher)))
    })?;
    Ok(has_changed)
}

/// The fingerprints of all rows as they were when it began. A thread of its own reads them from one snapshot, because
/// nobody needs them before another process writes.
struct Baseline {
    reading: JoinHandle<Result<Fingerprints, StoreError>>,
    is_cancelled: Arc<AtomicBool>,
}

impl Baseline {
    /// Returns when the snapshot is taken.
    async fn begin(store: &SqliteStore) -> Result<Self, StoreError> {
        let (store, is_cancelled) = (store.clone(), Arc::<AtomicBool>::default());
        let (snapshot_taken, taken) = oneshot::channel();
        let cancelled = Arc::clone(&is_cancelled);
        let reading = tokio::task::spawn_blocking(move || {
            store.with_reader(|connection| {
                let snapshot = connection.unchecked_transaction()?;
                // SQLite takes the snapshot at the first read.
                schema::version(&snapshot)?;
                // Nobody waits for it if the scan was given up meanwhile.
                let _ = snapshot_taken.send(());
                read_fingerprints(&snapshot, &cancelled)
            })
        });
        let baseline = Self { reading, is_cancelled };
        match taken.await {
            Ok(()) => Ok(baseline),
            Err(_) => match baseline.finish().await {
                Err(error) => Err(error),
                Ok(_) => unreachable!("nothing is read before it is said that the snapshot is taken"),
            },
        }
    }

    async fn finish(mut self) -> Result<Fingerprints, StoreError> {
        (&mut self.reading).await.unwrap_or_else(|error| Err(StoreError::Thread(error.into())))
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}

/// Stops early if it is cancelled.
fn read_fingerprints(snapshot: &Connection, is_cancelled: &AtomicBool) -> Result<Fingerprints, StoreError> {
    let mut fingerprints = Fingerprints::default();
    let mut statement = snapshot.prepare_cached(&format!("SELECT {ROCKET_COLUMNS} FROM rockets"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()?
        && !is_cancelled.load(Ordering::Relaxed)
    {
        has_changed(row, &mut fingerprints)?;
    }
    Ok(fingerprints)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::store::OpenOptions;

    fn watched(store: &SqliteStore) -> SqliteWatch {
        match store.watch().unwrap() {
            Watch::Sqlite(watch) => watch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_others_write_is_noticed_once_however_busy_this_process_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rockets.db");
        let store = SqliteStore::open(&path, &OpenOptions { migrate: true, ..OpenOptions::default() }).unwrap();
        let other = Connection::open(&path).unwrap();
        let write = || other.execute_batch("PRAGMA user_version = 1").unwrap();
        type Work = fn(&mut super::super::SqliteWriter);
        let works: [Work; 2] = [
            |writer| writer.probe().unwrap(),
            |writer| drop(writer.commit(&[], Timestamp::from_unix_micros(0).unwrap()).unwrap()),
        ];
        for work in works {
            let mut writer = store.writer().unwrap();
            let mut watch = watched(&store);
            for _ in 0..3 {
                work(&mut writer);
                assert!(!watch.look().unwrap(), "only this process has written");
            }
            write();
            work(&mut writer);
            assert!(watch.look().unwrap());
            work(&mut writer);
            assert!(!watch.look().unwrap());
            write();
            assert!(watch.look().unwrap(), "this process has done nothing");
        }
    }
}
