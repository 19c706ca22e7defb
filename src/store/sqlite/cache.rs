//! The copy of `rockets` in memory that answers pages and totals, and how it is kept equal to the
//! file. Each commit of this process is applied to it before the commit is acknowledged. After a
//! commit by another process it is not used until it has been compared with the file again, which
//! also finds the rockets that the other process has changed. The copy marks changed rockets, for
//! followers.
//!
//! The first read of it starts a thread that builds it. Until then, and whenever it is outdated,
//! reads use the file, and give the answers that the copy would give.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::commits::{Commits, OpenTransaction, Recorded, Version};
use super::{SqliteStore, lock, losses, schema};
use crate::domain::ranges::Applied;
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::columns::{Columns, RocketsAndNext};
use crate::store::rows::{self, ROCKET_COLUMNS};

/// How long a reader waits while the copy is refreshed. A fleet of 30,000 is refreshed in this
/// time, and for a larger one the file is not much slower.
const REFRESH_WAIT: Duration = Duration::from_millis(50);
/// The pause between two refreshes is at least this many times as long as a refresh, because
/// another process may write all the time.
const PAUSE_FACTOR: u32 = 4;

/// The change of one rocket by a commit.
#[derive(Debug)]
pub(super) enum CommittedChange {
    /// New messages, and when they were received.
    Messages(Channel, Applied, Timestamp),
    /// It is this one now, by a merge.
    Merged(Box<Rocket>),
    /// It was removed.
    Removed(Channel),
}

impl Recorded for CommittedChange {
    fn detached(&self) -> Self {
        match self {
            Self::Messages(channel, applied, now) => {
                Self::Messages(channel.detached(), applied.detached(), *now)
            }
            Self::Merged(rocket) => Self::Merged(rocket.clone()),
            Self::Removed(channel) => Self::Removed(channel.detached()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) commits: Commits<CommittedChange>,
    /// None before the first refresh, and during each one. Locked before the state of `commits`.
    copy: RwLock<Option<Copy>>,
    refresh: Mutex<RefreshState>,
    refresh_ended: Condvar,
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct Copy {
    columns: Columns,
    /// The foreign commits that it includes ([`Commits::foreign`]); none if they are unknown.
    foreign_commits: Option<u64>,
    /// Each copy that is built from scratch has a new number.
    number: u64,
}

#[derive(Debug, Default)]
struct RefreshState {
    is_running: bool,
    not_before: Option<Instant>,
    /// The number of copies that were built from scratch.
    copies: u64,
}

/// Held by the thread that refreshes the copy. There is one at a time.
struct RefreshGuard<'c> {
    cache: &'c Cache,
    started: Instant,
}

impl Drop for RefreshGuard<'_> {
    fn drop(&mut self) {
        let mut refresh = lock(&self.cache.refresh);
        refresh.is_running = false;
        refresh.not_before =
            refresh.not_before.max(Some(Instant::now() + PAUSE_FACTOR * self.started.elapsed()));
        self.cache.refresh_ended.notify_all();
    }
}

impl Cache {
    /// Applies the changes of a commit, and registers it. Must be called before the commit is
    /// acknowledged. Returns the version that the commit left.
    pub(super) fn apply(
        &self,
        transaction: OpenTransaction<'_, CommittedChange>,
        has_written: bool,
        changes: &[CommittedChange],
        version: impl FnOnce() -> Version,
    ) -> Option<Version> {
        let mut copy = self.copy_mut();
        let (left, _) = transaction.finish(has_written, changes, version);
        if let Some(copy) = &mut *copy
            && apply(&mut copy.columns, changes).is_err()
        {
            // The file has impossible numbers. The next refresh finds them.
            copy.foreign_commits = None;
        }
        left
    }

    /// Reads from the copy, if it equals the file.
    fn read<T>(
        &self,
        version: impl FnOnce() -> Version,
        read: impl FnOnce(&Columns) -> T,
    ) -> Option<T> {
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
        let copy = copy.as_ref()?;
        let is_current = copy.foreign_commits == Some(self.commits.foreign(version))
            && !copy.columns.needs_rebuild();
        is_current.then(|| read(&copy.columns))
    }

    fn copy_mut(&self) -> RwLockWriteGuard<'_, Option<Copy>> {
        self.copy.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other thread refreshes the copy.
    fn lock_refresh(&self) -> RefreshGuard<'_> {
        let refresh = lock(&self.refresh);
        let refresh = self.refresh_ended.wait_while(refresh, |refresh| refresh.is_running);
        refresh.unwrap_or_else(PoisonError::into_inner).is_running = true;
        RefreshGuard { cache: self, started: Instant::now() }
    }

    /// Stops a refresh, and waits for its end.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        drop(self.refresh_ended.wait_while(lock(&self.refresh), |refresh| refresh.is_running));
    }
}

fn apply(columns: &mut Columns, changes: &[CommittedChange]) -> Result<(), StoreError> {
    for change in changes {
        match change {
            CommittedChange::Messages(channel, applied, now) => {
                columns.apply(channel, applied, *now);
            }
            CommittedChange::Merged(rocket) => {
                columns.update(rocket)?;
            }
            CommittedChange::Removed(channel) => columns.remove(channel),
        }
    }
    Ok(())
}

impl SqliteStore {
    /// Reads from the copy in memory; none if it can't be used now.
    pub(super) fn read_cache<T>(
        &self,
        read: impl Fn(&Columns, &Connection) -> T,
    ) -> Result<Option<T>, StoreError> {
        if !self.is_held() {
            // Without a connection that stays open, foreign commits can't be detected.
            return Ok(None);
        }
        if let Some(answer) = self.read_current_cache(&read)? {
            return Ok(Some(answer));
        }
        self.request_refresh();
        self.read_current_cache(read)
    }

    /// Reads from the copy; none if it is outdated. Doesn't refresh it.
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

    /// Starts a thread that refreshes the copy, unless the last refresh was a short time ago. Waits
    /// for it, at most [`REFRESH_WAIT`].
    fn request_refresh(&self) {
        let mut refresh = lock(&self.cache.refresh);
        let is_due = refresh.not_before.is_none_or(|not_before| Instant::now() >= not_before);
        if !refresh.is_running && is_due && !self.cache.is_closed.load(Ordering::Relaxed) {
            let store = self.clone();
            let run = move || {
                let _guard = RefreshGuard { cache: &store.cache, started: Instant::now() };
                if let Err(error) = store.refresh(|| {}, false) {
                    // Reads use the file, or fail with the reason.
                    tracing::debug!(%error, "the rockets can't be kept in memory now");
                }
            };
            refresh.is_running =
                std::thread::Builder::new().name("rocket cache".to_owned()).spawn(run).is_ok();
        }
        let ended = &self.cache.refresh_ended;
        drop(ended.wait_timeout_while(refresh, REFRESH_WAIT, |refresh| refresh.is_running));
    }

    /// Marks all rockets as unchanged, so that [`changed`](Self::changed) finds what is committed
    /// after `begun` is called. Returns the number of the copy.
    pub(super) fn start_watching(&self, begun: impl FnOnce()) -> Result<u64, StoreError> {
        let _guard = self.cache.lock_refresh();
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

    /// Rockets that any process has changed, from this row on of the copy with this number. Without
    /// a row, the copy is compared with the file first. None if there is another copy.
    pub(super) fn changed(
        &self,
        number: u64,
        from: Option<usize>,
        limit: usize,
    ) -> Result<Option<RocketsAndNext>, StoreError> {
        let _guard = self.cache.lock_refresh();
        if from.is_none() && !self.is_cache_current()? {
            self.refresh(|| {}, false)?;
        }
        let changed = {
            let mut copy = self.cache.copy_mut();
            let copy = copy.as_mut().filter(|copy| copy.number == number);
            copy.map(|copy| copy.columns.take_changed(from.unwrap_or(0), limit))
        };
        let Some((mut rockets, next)) = changed else { return Ok(None) };
        if !self.add_losses_to_cached(&mut rockets)? {
            let channels: Vec<_> = rockets.into_iter().map(|rocket| rocket.channel).collect();
            rockets = self.rockets_from_tables(&channels)?;
        }
        Ok(Some((rockets, next)))
    }

    fn is_cache_current(&self) -> Result<bool, StoreError> {
        Ok(self.read_current_cache(|_, _| ())?.is_some())
    }

    /// Makes the copy equal to the file at the moment when `begun` is called. `is_new` marks all
    /// rockets as unchanged. The caller holds the [`RefreshGuard`].
    fn refresh(&self, begun: impl FnOnce(), is_new: bool) -> Result<(), StoreError> {
        self.with_reader(|connection| {
            let old = self.cache.copy_mut().take().filter(|copy| !copy.columns.needs_rebuild());
            let mut copy = match old {
                Some(copy) => copy,
                None => self.new_copy(),
            };
            let begin = || {
                let snapshot = connection.unchecked_transaction()?;
                // SQLite takes the snapshot at the first read.
                schema::version(&snapshot)?;
                Ok(snapshot)
            };
            let recording = self.cache.commits.record(begin, || self.version(connection));
            let compared = recording.and_then(|(snapshot, foreign_commits, recording)| {
                begun();
                self.compare(&snapshot, &mut copy.columns)?;
                Ok((foreign_commits, recording))
            });
            if is_new {
                copy.columns.clear_changed();
            }
            let mut current = self.cache.copy_mut();
            // After a failure, the next refresh finds the commits made meanwhile.
            let compared = compared.and_then(|(foreign_commits, recording)| {
                apply(&mut copy.columns, &recording.finish())?;
                copy.foreign_commits = Some(foreign_commits);
                Ok(())
            });
            if compared.is_err() {
                copy.foreign_commits = None;
            }
            *current = Some(copy);
            compared
        })
    }

    fn new_copy(&self) -> Copy {
        let mut refresh = lock(&self.cache.refresh);
        refresh.copies += 1;
        Copy { columns: Columns::default(), foreign_commits: None, number: refresh.copies }
    }

    /// Makes the copy equal to a snapshot. Stops early if the store is being closed.
    fn compare(&self, snapshot: &Connection, columns: &mut Columns) -> Result<(), StoreError> {
        let mut exists = Vec::new();
        let mut statement = snapshot.prepare(&format!("SELECT {ROCKET_COLUMNS} FROM rockets"))?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let row = columns.update(&rows::rocket(row)?)?;
            if exists.len() <= row {
                exists.resize(row + 1, false);
            }
            exists[row] = true;
            if self.cache.is_closed.load(Ordering::Relaxed) {
                return Err(StoreError::BrokenOff);
            }
        }
        columns.retain(|row| exists.get(row) == Some(&true));
        columns.update_losses(&losses::hashes(snapshot)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::Message;
    use crate::domain::message::example::{exploded, faster, launched};
    use crate::domain::query::Filters;
    use crate::store::OpenOptions;
    use crate::store::report::{Report, ReportQuery, ReportRows};

    fn message(rocket: u32, number: u32) -> Message {
        faster(7).on(&format!("r{rocket}")).numbered(number.into())
    }

    fn fleet(store: &SqliteStore) -> ReportRows {
        store.report_from_tables(&ReportQuery::all(Report::Fleet)).unwrap()
    }

    /// Forgets the copy, so that the next read makes another.
    fn drop_copy(store: &SqliteStore) {
        *store.cache.copy_mut() = None;
        lock(&store.cache.refresh).not_before = None;
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
    fn a_copy_built_during_commits_has_each_message_once() {
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
            let cached = store
                .read_cache(|columns, _| columns.report(&ReportQuery::all(Report::Fleet), &Ok))
                .unwrap();
            assert_eq!(cached.unwrap().unwrap(), fleet(&store).rows);
        }
    }

    #[test]
    fn the_copy_continues_reports_as_the_tables_do() {
        for (_directory, store) in stores() {
            let mut writer = store.writer().unwrap();
            let mut messages = vec![message(1, 1)];
            for text in ["a", "B", "é", "a b", "\u{ffff}", "🚀"] {
                messages.push(launched(text, 7, text).on(text));
                messages.push(exploded(text).on(text).numbered(2));
            }
            writer.commit(&messages, Timestamp::FIRST).unwrap();
            for report in [Report::Missions, Report::Types, Report::Explosions, Report::Fleet] {
                let mut query = ReportQuery { report, after: None, limit: 2 };
                loop {
                    let page = store.report_from_tables(&query).unwrap();
                    let wanted = query.with_next_row();
                    let cached = store.read_cache(|columns, _| columns.report(&wanted, &Ok));
                    let rows = cached.unwrap().unwrap().unwrap();
                    assert_eq!(ReportRows::new(&query, rows).unwrap(), page, "{query:?}");
                    query.after = page.next;
                    if query.after.is_none() {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn a_removed_rocket_is_removed_from_the_copy() {
        for (_directory, store) in stores() {
            let mut writer = store.writer().unwrap();
            writer.commit(&[message(1, 1), message(2, 1)], Timestamp::FIRST).unwrap();
            assert!(has_copy(&store));
            let removed = [Channel::new("r1").unwrap()];
            let none = Filters::default();
            assert_eq!(store.forget_matching(&removed, &none, Timestamp::FIRST).unwrap(), removed);
            writer.commit(&[message(1, 2)], Timestamp::FIRST).unwrap();
            lock(&store.cache.refresh).not_before = Some(Instant::now() + Duration::from_secs(60));
            let cached = store
                .read_cache(|columns, _| columns.report(&ReportQuery::all(Report::Fleet), &Ok))
                .unwrap();
            assert_eq!(cached.unwrap().unwrap(), fleet(&store).rows, "the copy was not rebuilt");
        }
    }

    #[test]
    fn a_closed_store_builds_no_copy() {
        for (_directory, store) in stores() {
            store.close().unwrap();
            assert!(!has_copy(&store));
            assert_eq!(store.report(&ReportQuery::all(Report::Fleet)).unwrap(), fleet(&store));
        }
    }
}
