//! The copy of `rockets` in memory that answers pages and totals, and how it is kept equal to the
//! file: each commit of this process is applied to it before the commit is acknowledged, and after
//! a commit by another process it is not used until it has been read anew.
//!
//! It is read in the background when somebody first asks. Until then, and whenever it can't be
//! used, the answers come from the file, and are the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::commits::{Commits, Running, Version};
use super::{SqliteStore, lock, rows, schema};
use crate::domain::ranges::Applied;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::columns::Columns;
use crate::store::listing::ROCKET_COLUMNS;

/// How long who asks waits while it is being read. A fleet of 30,000 is read in this time, and a
/// larger one is not much slower to answer from the file.
const PATIENCE: Duration = Duration::from_millis(50);
/// It is read anew only after this many times the time that reading takes: another process may
/// write all the time.
const PAUSE: u32 = 4;

/// What a commit did to one rocket.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// New messages, and when they were received.
    Messages(Channel, Applied, Timestamp),
    /// It was removed.
    Removed(Channel),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) commits: Commits<Change>,
    /// The copy, and the commits by others that it includes. Locked before the state of `commits`.
    columns: RwLock<Option<(Columns, u64)>>,
    reading: Mutex<Reading>,
    has_read: Condvar,
    is_closed: AtomicBool,
}

/// Whether the copy is being read.
#[derive(Debug, Default)]
struct Reading {
    is_running: bool,
    not_before: Option<Instant>,
}

/// Notes that reading has ended, also by a panic.
struct ReadingEnds<'c> {
    cache: &'c Cache,
    started: Instant,
}

impl<'c> ReadingEnds<'c> {
    fn new(cache: &'c Cache) -> Self {
        Self { cache, started: Instant::now() }
    }
}

impl Drop for ReadingEnds<'_> {
    fn drop(&mut self) {
        let not_before = Some(Instant::now() + PAUSE * self.started.elapsed());
        *lock(&self.cache.reading) = Reading { is_running: false, not_before };
        self.cache.has_read.notify_all();
    }
}

impl Cache {
    /// Applies what was committed, and ends its transaction. To be called before it is
    /// acknowledged. Returns the version that the commit left.
    pub(super) fn apply(
        &self,
        running: Running<'_, Change>,
        has_written: bool,
        changes: &[Change],
        version: impl FnOnce() -> Version,
    ) -> Option<Version> {
        let mut copy = self.columns.write().unwrap_or_else(PoisonError::into_inner);
        let (left, by_others) = running.finish(has_written, changes, version);
        if let Some((columns, _)) = copy.as_mut().filter(|(_, includes)| *includes == by_others) {
            apply(columns, changes);
            if columns.is_wasteful() {
                *copy = None;
            }
        } else {
            *copy = None;
        }
        left
    }

    /// Reads from the copy, if it is as the file is now.
    fn read<T>(&self, version: impl FnOnce() -> Version, read: impl FnOnce(&Columns) -> T) -> Option<T> {
        let copy = self.columns.read().unwrap_or_else(PoisonError::into_inner);
        let (columns, includes) = copy.as_ref()?;
        (self.commits.by_others(version) == *includes).then(|| read(columns))
    }

    /// Stops reading, and waits for the end.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        let reading = lock(&self.reading);
        let ended = self.has_read.wait_while(reading, |reading| reading.is_running);
        drop(ended);
    }
}

fn apply(columns: &mut Columns, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Messages(channel, applied, now) => columns.apply(channel, applied, *now),
            Change::Removed(channel) => columns.remove(channel),
        }
    }
}

impl SqliteStore {
    /// Reads from the copy in memory; none if it can't be used now.
    pub(super) fn read_cache<T>(&self, read: impl Fn(&Columns, &Connection) -> T) -> Result<Option<T>, StoreError> {
        if !self.is_held() {
            // Nothing keeps the file open, so nothing tells of commits by others.
            return Ok(None);
        }
        let cached = || {
            self.with_reader(|connection| {
                Ok(self.cache.read(|| self.version(connection), |columns| read(columns, connection)))
            })
        };
        if let Some(answer) = cached()? {
            return Ok(Some(answer));
        }
        self.request_reading();
        cached()
    }

    /// Has the copy read by another thread, unless that was done a short time ago, and waits a
    /// little.
    fn request_reading(&self) {
        let mut reading = lock(&self.cache.reading);
        let is_due = reading.not_before.is_none_or(|not_before| Instant::now() >= not_before);
        if !reading.is_running && is_due && !self.cache.is_closed.load(Ordering::Relaxed) {
            let store = self.clone();
            let thread = std::thread::Builder::new().name("rocket cache".to_owned());
            let started = thread.spawn(move || store.read_for_cache(&ReadingEnds::new(&store.cache)));
            reading.is_running = started.is_ok();
        }
        let waited = self.cache.has_read.wait_timeout_while(reading, PATIENCE, |reading| reading.is_running);
        drop(waited);
    }

    fn read_for_cache(&self, _reading: &ReadingEnds<'_>) {
        if let Err(error) = self.try_read_for_cache() {
            // Whoever asks gets it from the file, or an error that says why not.
            tracing::debug!(%error, "the rockets can't be kept in memory now");
        }
    }

    fn try_read_for_cache(&self) -> Result<(), StoreError> {
        // Not both the old copy and the new one at a time.
        *self.cache.columns.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.with_reader(|connection| {
            let take = || {
                let snapshot = connection.unchecked_transaction()?;
                // SQLite takes the snapshot at the first read.
                schema::version(&snapshot)?;
                Ok(snapshot)
            };
            let (snapshot, includes) = self.cache.commits.record(take, || self.version(connection))?;
            let read = self.read_columns(&snapshot);
            let mut copy = self.cache.columns.write().unwrap_or_else(PoisonError::into_inner);
            let (recorded, by_others) = self.cache.commits.recorded();
            let mut columns = read?;
            if by_others == includes {
                apply(&mut columns, &recorded);
                *copy = Some((columns, includes));
            }
            Ok(())
        })
    }

    /// Stops early if the store is being closed.
    fn read_columns(&self, snapshot: &Connection) -> Result<Columns, StoreError> {
        let mut columns = Columns::default();
        let mut statement = snapshot.prepare(&format!("SELECT {ROCKET_COLUMNS} FROM rockets"))?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            columns.insert(&rows::rocket(row)?)?;
            if self.cache.is_closed.load(Ordering::Relaxed) {
                return Err(StoreError::BrokenOff);
            }
        }
        Ok(columns)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::Message;
    use crate::domain::parse::parse;
    use crate::store::OpenOptions;
    use crate::store::report::{Report, ReportRows};

    fn message(rocket: u32, number: u32) -> Message {
        let json = format!(
            r#"{{"metadata": {{"channel": "r{rocket}", "messageNumber": {number},
                "messageTime": "2022-02-02T19:39:05Z", "messageType": "RocketSpeedIncreased"}}, "message": {{"by": 7}}}}"#
        );
        parse(json.into()).unwrap()
    }

    fn fleet(store: &SqliteStore) -> ReportRows {
        store.report(Report::Fleet, 1).unwrap()
    }

    /// Forgets the copy, so that the next read makes another.
    fn drop_copy(store: &SqliteStore) {
        *store.cache.columns.write().unwrap() = None;
        lock(&store.cache.reading).not_before = None;
    }

    fn has_copy(store: &SqliteStore) -> bool {
        store.read_cache(|_, _| ()).unwrap().is_some()
    }

    fn stores() -> [(Option<tempfile::TempDir>, SqliteStore); 2] {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions { migrate: true, ..OpenOptions::default() };
        let file = SqliteStore::open(&directory.path().join("rockets.db"), &options).unwrap();
        [(Some(directory), file), (None, SqliteStore::in_memory(&options).unwrap())]
    }

    #[test]
    fn a_copy_that_is_made_while_messages_are_committed_has_each_of_them_once() {
        for (_directory, store) in stores() {
            let mut writer = store.writer().unwrap();
            let many: Vec<_> = (100_000..103_000).map(|rocket| message(rocket, 1)).collect();
            writer.commit(&many, Timestamp::FIRST).unwrap();
            let (mut copies, done) = (0, AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 1.. {
                        let messages: Vec<_> = (0..20).map(|rocket| message(rocket + number, number)).collect();
                        writer.commit(&messages, Timestamp::FIRST).unwrap();
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
                while copies < 10 {
                    drop_copy(&store);
                    copies += usize::from(has_copy(&store));
                }
                done.store(true, Ordering::Relaxed);
            });
            let cached = store.read_cache(|columns, _| columns.report(Report::Fleet, 1, &Ok)).unwrap();
            assert_eq!(cached.unwrap().unwrap(), fleet(&store).rows);
        }
    }

    #[test]
    fn what_was_forgotten_here_is_gone_from_the_copy() {
        for (_directory, store) in stores() {
            let mut writer = store.writer().unwrap();
            writer.commit(&[message(1, 1), message(2, 1)], Timestamp::FIRST).unwrap();
            assert!(has_copy(&store));
            assert!(store.forget(&Channel::new("r1").unwrap()).unwrap());
            writer.commit(&[message(1, 2)], Timestamp::FIRST).unwrap();
            lock(&store.cache.reading).not_before = Some(Instant::now() + Duration::from_secs(60));
            let cached = store.read_cache(|columns, _| columns.report(Report::Fleet, 1, &Ok)).unwrap();
            assert_eq!(cached.unwrap().unwrap(), fleet(&store).rows, "the same copy is right");
        }
    }

    #[test]
    fn a_store_that_is_closed_makes_no_copy() {
        for (_directory, store) in stores() {
            store.close().unwrap();
            assert!(!has_copy(&store));
            assert_eq!(store.report_at_once(Report::Fleet, 1).unwrap(), fleet(&store));
        }
    }
}
