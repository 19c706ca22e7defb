//! The copy of `rockets` in memory that answers pages and totals, and how it is kept equal to the
//! file: each commit of this process is applied to it before the commit is acknowledged. After a
//! commit by another process it is not used until it has been compared with the file again, which
//! also finds the rockets that the other process has changed. The copy notes which rockets have
//! changed, for followers.
//!
//! It is read in the background when somebody first asks. Until then, and whenever it can't be
//! used, the answers come from the file, and are the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::commits::{Commits, OpenTransaction, Recorded, Version};
use super::{SqliteStore, lock, schema};
use crate::domain::ranges::Applied;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::columns::{Columns, RocketsAndNext};
use crate::store::rows::{self, ROCKET_COLUMNS};

/// How long a reader waits while the copy is being read. A fleet of 30,000 is read in this time,
/// and a larger one is not much slower to answer from the file.
const PATIENCE: Duration = Duration::from_millis(50);
/// Readers have it read again only after this many times the time that reading takes:
/// another process may write all the time.
const PAUSE: u32 = 4;

/// What a commit did to one rocket.
#[derive(Debug)]
pub(super) enum CommittedChange {
    /// New messages, and when they were received.
    Messages(Channel, Applied, Timestamp),
    /// It was removed.
    Removed(Channel),
}

impl Recorded for CommittedChange {
    fn detached(&self) -> Self {
        match self {
            Self::Messages(channel, applied, now) => {
                Self::Messages(channel.detached(), applied.detached(), *now)
            }
            Self::Removed(channel) => Self::Removed(channel.detached()),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) commits: Commits<CommittedChange>,
    /// None before the first reading, and while it is being read. Locked before the state of
    /// `commits`.
    copy: RwLock<Option<Copy>>,
    reading: Mutex<ReadState>,
    has_read: Condvar,
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct Copy {
    columns: Columns,
    /// The commits by others that it includes; none if that is not known.
    includes: Option<u64>,
    /// A new number for each copy that is built from scratch.
    number: u64,
}

/// Whether the copy is being read.
#[derive(Debug, Default)]
struct ReadState {
    is_running: bool,
    not_before: Option<Instant>,
    /// How many copies were built from scratch.
    copies: u64,
}

/// The right to read: one thread at a time has it.
struct ReadingGuard<'c> {
    cache: &'c Cache,
    started: Instant,
}

impl Drop for ReadingGuard<'_> {
    fn drop(&mut self) {
        let mut reading = lock(&self.cache.reading);
        reading.is_running = false;
        reading.not_before =
            reading.not_before.max(Some(Instant::now() + PAUSE * self.started.elapsed()));
        self.cache.has_read.notify_all();
    }
}

impl Cache {
    /// Applies what was committed, and ends its transaction. To be called before it is
    /// acknowledged. Returns the version that the commit left.
    pub(super) fn apply(
        &self,
        running: OpenTransaction<'_, CommittedChange>,
        has_written: bool,
        changes: &[CommittedChange],
        version: impl FnOnce() -> Version,
    ) -> Option<Version> {
        let mut copy = self.copy_mut();
        let (left, _) = running.finish(has_written, changes, version);
        if let Some(copy) = &mut *copy {
            apply(&mut copy.columns, changes);
        }
        left
    }

    /// Reads from the copy, if it is as the file is now.
    fn read<T>(
        &self,
        version: impl FnOnce() -> Version,
        read: impl FnOnce(&Columns) -> T,
    ) -> Option<T> {
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
        let copy = copy.as_ref()?;
        let is_current =
            copy.includes == Some(self.commits.by_others(version)) && !copy.columns.needs_rebuild();
        is_current.then(|| read(&copy.columns))
    }

    fn copy_mut(&self) -> RwLockWriteGuard<'_, Option<Copy>> {
        self.copy.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other thread reads.
    fn lock_reading(&self) -> ReadingGuard<'_> {
        let reading = self.has_read.wait_while(lock(&self.reading), |reading| reading.is_running);
        reading.unwrap_or_else(PoisonError::into_inner).is_running = true;
        ReadingGuard { cache: self, started: Instant::now() }
    }

    /// Stops reading, and waits for the end.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        drop(self.has_read.wait_while(lock(&self.reading), |reading| reading.is_running));
    }
}

fn apply(columns: &mut Columns, changes: &[CommittedChange]) {
    for change in changes {
        match change {
            CommittedChange::Messages(channel, applied, now) => {
                columns.apply(channel, applied, *now)
            }
            CommittedChange::Removed(channel) => columns.remove(channel),
        }
    }
}

impl SqliteStore {
    /// Reads from the copy in memory; none if it can't be used now.
    pub(super) fn read_cache<T>(
        &self,
        read: impl Fn(&Columns, &Connection) -> T,
    ) -> Result<Option<T>, StoreError> {
        if !self.is_held() {
            // Nothing keeps the file open, so nothing tells of commits by others.
            return Ok(None);
        }
        if let Some(answer) = self.read_current_cache(&read)? {
            return Ok(Some(answer));
        }
        self.request_reading();
        self.read_current_cache(read)
    }

    /// Reads from the copy, without having it read if it is outdated.
    pub(super) fn read_current_cache<T>(
        &self,
        read: impl Fn(&Columns, &Connection) -> T,
    ) -> Result<Option<T>, StoreError> {
        if !self.is_held() {
            return Ok(None);
        }
        self.with_reader(|connection| {
            Ok(self.cache.read(|| self.version(connection), |columns| read(columns, connection)))
        })
    }

    /// Has the copy read by another thread, unless that was done a short time ago, and waits a
    /// little.
    fn request_reading(&self) {
        let mut reading = lock(&self.cache.reading);
        let is_due = reading.not_before.is_none_or(|not_before| Instant::now() >= not_before);
        if !reading.is_running && is_due && !self.cache.is_closed.load(Ordering::Relaxed) {
            let store = self.clone();
            let read = move || {
                let _right = ReadingGuard { cache: &store.cache, started: Instant::now() };
                if let Err(error) = store.refresh(|| {}, false) {
                    // Readers get it from the file, or an error that says why not.
                    tracing::debug!(%error, "the rockets can't be kept in memory now");
                }
            };
            reading.is_running =
                std::thread::Builder::new().name("rocket cache".to_owned()).spawn(read).is_ok();
        }
        drop(
            self.cache.has_read.wait_timeout_while(reading, PATIENCE, |reading| reading.is_running),
        );
    }

    /// Marks all rockets as unchanged, so that [`changed`](Self::changed) finds what is committed
    /// after `begun` is called. Returns the number of the copy.
    pub(super) fn start_watching(&self, begun: impl FnOnce()) -> Result<u64, StoreError> {
        let _right = self.cache.lock_reading();
        if self.is_cache_current()? {
            if let Some(copy) = &mut *self.cache.copy_mut() {
                copy.columns.clear_changed();
            }
            begun();
        } else {
            self.refresh(begun, true)?;
        }
        let copy = self.cache.copy.read().unwrap_or_else(PoisonError::into_inner);
        copy.as_ref().map(|copy| copy.number).ok_or(StoreError::BrokenOff)
    }

    /// Rockets that have changed, by whichever process, from a row of the copy with this number on.
    /// Without a row, the copy is compared with the file first. None if there is another copy.
    pub(super) fn changed(
        &self,
        number: u64,
        from: Option<usize>,
        limit: usize,
    ) -> Result<Option<RocketsAndNext>, StoreError> {
        let _right = self.cache.lock_reading();
        if from.is_none() && !self.is_cache_current()? {
            self.refresh(|| {}, false)?;
        }
        let mut copy = self.cache.copy_mut();
        let copy = copy.as_mut().filter(|copy| copy.number == number);
        Ok(copy.map(|copy| copy.columns.take_changed(from.unwrap_or(0), limit)))
    }

    fn is_cache_current(&self) -> Result<bool, StoreError> {
        Ok(self.read_current_cache(|_, _| ())?.is_some())
    }

    /// Makes the copy as the file is when `begun` is called. `is_new` marks all rockets as
    /// unchanged. The caller has the right to read.
    fn refresh(&self, begun: impl FnOnce(), is_new: bool) -> Result<(), StoreError> {
        self.with_reader(|connection| {
            let before = self.cache.copy_mut().take().filter(|copy| !copy.columns.needs_rebuild());
            let mut copy = match before {
                Some(copy) => copy,
                None => self.new_copy(),
            };
            let take = || {
                let snapshot = connection.unchecked_transaction()?;
                // SQLite takes the snapshot at the first read.
                schema::version(&snapshot)?;
                Ok(snapshot)
            };
            let recording = self.cache.commits.record(take, || self.version(connection));
            let compared = recording.and_then(|(snapshot, includes, recording)| {
                begun();
                self.compare(&snapshot, &mut copy.columns)?;
                Ok((includes, recording))
            });
            if is_new {
                copy.columns.clear_changed();
            }
            let mut place = self.cache.copy_mut();
            // After a failure, the next comparison finds what was committed meanwhile.
            let compared = compared.map(|(includes, recording)| {
                apply(&mut copy.columns, &recording.finish());
                copy.includes = Some(includes);
            });
            if compared.is_err() {
                copy.includes = None;
            }
            *place = Some(copy);
            compared
        })
    }

    fn new_copy(&self) -> Copy {
        let mut reading = lock(&self.cache.reading);
        reading.copies += 1;
        Copy { columns: Columns::default(), includes: None, number: reading.copies }
    }

    /// Makes the copy as a snapshot is. Stops early if the store is being closed.
    fn compare(&self, snapshot: &Connection, columns: &mut Columns) -> Result<(), StoreError> {
        let mut is_there = Vec::new();
        let mut statement = snapshot.prepare(&format!("SELECT {ROCKET_COLUMNS} FROM rockets"))?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let row = columns.update(&rows::rocket(row)?)?;
            if is_there.len() <= row {
                is_there.resize(row + 1, false);
            }
            is_there[row] = true;
            if self.cache.is_closed.load(Ordering::Relaxed) {
                return Err(StoreError::BrokenOff);
            }
        }
        columns.retain(|row| is_there.get(row) == Some(&true));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::Message;
    use crate::store::OpenOptions;
    use crate::store::report::{Report, ReportRows};
    use crate::wire::message::parse;

    fn message(rocket: u32, number: u32) -> Message {
        let json = format!(
            r#"{{"metadata": {{"channel": "r{rocket}", "messageNumber": {number},
                "messageTime": "2022-02-02T19:39:05Z", "messageType": "RocketSpeedIncreased"}},
                "message": {{"by": 7}}}}"#
        );
        parse(json.into()).unwrap()
    }

    fn fleet(store: &SqliteStore) -> ReportRows {
        store.report_from_tables(Report::Fleet, 1).unwrap()
    }

    /// Forgets the copy, so that the next read makes another.
    fn drop_copy(store: &SqliteStore) {
        *store.cache.copy_mut() = None;
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
                        let messages: Vec<_> =
                            (0..20).map(|rocket| message(rocket + number, number)).collect();
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
            let cached =
                store.read_cache(|columns, _| columns.report(Report::Fleet, 1, &Ok)).unwrap();
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
            let cached =
                store.read_cache(|columns, _| columns.report(Report::Fleet, 1, &Ok)).unwrap();
            assert_eq!(cached.unwrap().unwrap(), fleet(&store).rows, "the same copy is right");
        }
    }

    #[test]
    fn a_store_that_is_closed_makes_no_copy() {
        for (_directory, store) in stores() {
            store.close().unwrap();
            assert!(!has_copy(&store));
            assert_eq!(store.report(Report::Fleet, 1).unwrap(), fleet(&store));
        }
    }
}
