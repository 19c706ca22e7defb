//! Finds changes: the current rows of rockets, and commits by other processes.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::params;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::cache::Cache;
use super::commits::Version;
use super::database_file::{DatabaseFile, ReaderConnection};
use super::{ConnectionPool, SqliteStore, losses};
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::changes::{Notified, ScanProgress};
use crate::store::columns::Columns;
use crate::store::fault_injection::FailurePoint;
use crate::store::rows::{self, ROCKET_COLUMNS};
use crate::store::{ChangeScan, StoreError, Watch};

/// How often a watch polls the file.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How often a file that is not held open is scanned for changes.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

impl SqliteStore {
    /// See [`Store::rockets_of`](crate::store::Store::rockets_of).
    pub fn rockets_of(&self, channels: &[Channel]) -> Result<Vec<Rocket>, StoreError> {
        self.failures.check(FailurePoint::BeforeReadOfChanges)?;
        let cached = |columns: &Columns| {
            channels.iter().filter_map(|channel| columns.get(channel)).collect::<Vec<_>>()
        };
        if let Some(mut rockets) = self.read_current_cache(|columns, _| cached(columns))?
            && self.add_losses_to_cached(&mut rockets)?
        {
            return Ok(rockets);
        }
        self.rockets_from_tables(channels)
    }

    /// Reads rockets without the copy in memory.
    pub(super) fn rockets_from_tables(
        &self,
        channels: &[Channel],
    ) -> Result<Vec<Rocket>, StoreError> {
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
            losses::add_losses(&snapshot, &mut rockets)?;
            Ok(rockets)
        })
    }

    /// See [`Store::change_scan`](crate::store::Store::change_scan).
    pub async fn change_scan(&self) -> Result<ChangeScan, StoreError> {
        let ConnectionPool::File(file) = &self.connections else {
            // A database in memory has no other users.
            return Ok(ChangeScan::Memory);
        };
        let generation = Some(file.generation());
        let baseline = Some(Baseline::begin(self).await?);
        Ok(ChangeScan::Sqlite(SqliteScan {
            store: self.clone(),
            file: Arc::clone(file),
            generation,
            baseline,
            copy: 0,
            next_row: None,
        }))
    }

    /// See [`Store::forgotten`](crate::store::Store::forgotten).
    pub fn forgotten(&self) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        self.with_reader(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT channel, forgotten_at FROM rockets_forgotten")?;
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
            ConnectionPool::Memory(_) => Ok(Watch::Memory),
            ConnectionPool::File(file) => {
                let mut watch = SqliteWatch {
                    file: Arc::clone(file),
                    reader: None,
                    last_scan: None,
                    cache: Arc::clone(&self.cache),
                    foreign_commits: None,
                };
                watch.poll()?;
                Ok(Watch::Sqlite(watch))
            }
        }
    }
}

/// Detects that another process has written to the file.
pub struct SqliteWatch {
    file: Arc<DatabaseFile>,
    reader: Option<ReaderConnection>,
    /// When the watch last requested a scan, because the file is not held open.
    last_scan: Option<Instant>,
    cache: Arc<Cache>,
    /// The number of commits by other processes at the last poll.
    foreign_commits: Option<u64>,
}

impl fmt::Debug for SqliteWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SqliteWatch").field(&self.file).finish()
    }
}

impl SqliteWatch {
    pub(in crate::store) async fn recv(&mut self) -> Result<Notified, StoreError> {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            if self.poll()? {
                return Ok(Notified::Unspecified);
            }
        }
    }

    /// Whether another process has committed since the last poll.
    fn poll(&mut self) -> Result<bool, StoreError> {
        if !self.file.is_held() {
            // Without a connection that stays open, the mark of the last commit can't be compared.
            self.reader = None;
            let is_due = self.last_scan.is_none_or(|at| at.elapsed() >= SCAN_INTERVAL);
            if is_due {
                self.last_scan = Some(Instant::now());
            }
            return Ok(is_due);
        }
        let generation = self.file.generation();
        let reader = match self.reader.take().filter(|reader| reader.generation == generation) {
            Some(reader) => reader,
            None => self.file.reader_connection()?,
        };
        let version = || Version::of(Some(generation), &reader.connection);
        let foreign_commits = Some(self.cache.commits.foreign(version));
        self.reader = Some(reader);
        Ok(std::mem::replace(&mut self.foreign_commits, foreign_commits) != foreign_commits)
    }
}

/// The maximum number of rockets that one step of a scan returns.
const SCAN_CHUNK: usize = 1_024;

/// Finds the rockets that any process has changed, with the copy in memory.
pub struct SqliteScan {
    store: SqliteStore,
    file: Arc<DatabaseFile>,
    /// The generation of the file that the copy is of; none if the file could not be read.
    generation: Option<u64>,
    /// The copy as it was when the scan was created, while it is being read.
    baseline: Option<Baseline>,
    /// The number of the copy.
    copy: u64,
    /// The next row of the copy to search; none if the copy is to be compared with the file first.
    next_row: Option<usize>,
}

impl fmt::Debug for SqliteScan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SqliteScan").field(&self.file).finish()
    }
}

impl SqliteScan {
    pub(in crate::store) async fn next(&mut self) -> Result<ScanProgress, StoreError> {
        let generation = self.file.generation();
        if self.generation != Some(generation) {
            self.baseline = Some(Baseline::begin(&self.store).await?);
            (self.generation, self.next_row) = (Some(generation), None);
            return Ok(ScanProgress::AnotherDatabase);
        }
        if let Some(baseline) = self.baseline.take() {
            self.copy = baseline.finish().await.inspect_err(|_| self.generation = None)?;
        }
        let (store, number, from) = (self.store.clone(), self.copy, self.next_row.take());
        let changed =
            tokio::task::spawn_blocking(move || store.changed(number, from, SCAN_CHUNK)).await;
        let Some((rockets, next)) =
            changed.unwrap_or_else(|error| Err(StoreError::Thread(error.into())))?
        else {
            // The copy was rebuilt, so it has no marks of the changes.
            self.generation = None;
            return Box::pin(self.next()).await;
        };
        self.next_row = next;
        Ok(if rockets.is_empty() && next.is_none() {
            ScanProgress::Done
        } else {
            ScanProgress::Rockets(rockets)
        })
    }
}

/// The state of the copy when the scan was created. A thread of its own reads it, because the scan
/// needs it only when another process writes.
struct Baseline(JoinHandle<Result<u64, StoreError>>);

impl Baseline {
    /// Returns once the scan will find every later commit.
    async fn begin(store: &SqliteStore) -> Result<Self, StoreError> {
        let store = store.clone();
        let (begun, has_begun) = oneshot::channel();
        // The receiver is gone if the scan was dropped meanwhile.
        let begun = move || {
            let _ = begun.send(());
        };
        let baseline = Self(tokio::task::spawn_blocking(move || store.start_watching(begun)));
        match has_begun.await {
            Ok(()) => Ok(baseline),
            Err(_) => match baseline.finish().await {
                Err(error) => Err(error),
                Ok(_) => unreachable!("the copy is read after `begun` is called"),
            },
        }
    }

    /// The number of the copy.
    async fn finish(self) -> Result<u64, StoreError> {
        self.0.await.unwrap_or_else(|error| Err(StoreError::Thread(error.into())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use rusqlite::Connection;

    use super::*;
    use crate::domain::message::Message;
    use crate::domain::message::example::faster;
    use crate::store::OpenOptions;

    fn watched(store: &SqliteStore) -> SqliteWatch {
        match store.watch().unwrap() {
            Watch::Sqlite(watch) => watch,
            other => panic!("{other:?}"),
        }
    }

    fn message(channel: &str) -> Message {
        faster(7).on(channel)
    }

    #[test]
    fn a_scan_finds_changes_by_all_processes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rockets.db");
        let options = OpenOptions { migrate: true, ..OpenOptions::default() };
        let [mine, other] = [(); 2].map(|()| SqliteStore::open(&path, &options).unwrap());
        let commit = |store: &SqliteStore, channel: &str| {
            store.writer().unwrap().commit(&[message(channel)], Timestamp::FIRST).unwrap();
        };
        commit(&mine, "before");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let ChangeScan::Sqlite(mut scan) = mine.change_scan().await.unwrap() else {
                panic!("another scan")
            };
            for (commits, expected) in [
                (vec![], vec![]),
                (vec![(&mine, "a")], vec!["a"]),
                (vec![(&other, "b")], vec!["b"]),
                (vec![(&mine, "c"), (&other, "d"), (&mine, "e")], vec!["c", "d", "e"]),
                (vec![(&mine, "a")], vec![]),
            ] {
                commits.into_iter().for_each(|(store, channel)| commit(store, channel));
                let mut found = Vec::new();
                loop {
                    match scan.next().await.unwrap() {
                        ScanProgress::Rockets(rockets) => found.extend(rockets),
                        ScanProgress::Done => break,
                        ScanProgress::AnotherDatabase => panic!("it is the same"),
                    }
                }
                let mut found: Vec<_> =
                    found.iter().map(|rocket| rocket.channel.as_str()).collect();
                found.sort_unstable();
                assert_eq!(found, expected);
            }
        });
    }

    #[test]
    fn a_poll_reports_each_foreign_commit_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rockets.db");
        let store =
            SqliteStore::open(&path, &OpenOptions { migrate: true, ..OpenOptions::default() })
                .unwrap();
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
                assert!(!watch.poll().unwrap(), "only this process has committed");
            }
            write();
            work(&mut writer);
            assert!(watch.poll().unwrap());
            work(&mut writer);
            assert!(!watch.poll().unwrap());
            write();
            assert!(watch.poll().unwrap(), "this process has not committed");
        }
    }
}
