//! Tells this process's commits from those of others, so that a reader can tell whether what is
//! kept in memory is as the file is.
//!
//! The index of SQLite's log has a mark of the last commit ([`LastCommit`]). Each of this process's
//! transactions finds the mark of the one before it, or else another process has committed; and
//! leaves one that is the next after it. So a reader sees from the mark at once whether it is
//! this process's.

use std::sync::{Condvar, Mutex, MutexGuard};

use rusqlite::Connection;
use wal_vfs::LastCommit;

use super::lock;
use crate::store::StoreError;

/// A mark of the last commit to a database, as a connection sees it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Version {
    /// Of a database in memory, to which no other process commits.
    Memory,
    /// Of a file, and of the how many-eth file that the path has named; none if the index can't be
    /// read.
    File(u64, Option<LastCommit>),
}

impl Version {
    /// `generation` is that of the file; none for a database in memory.
    pub(super) fn of(generation: Option<u64>, connection: &Connection) -> Self {
        generation.map_or(Self::Memory, |generation| {
            Self::File(generation, wal_vfs::last_commit(connection))
        })
    }

    /// Whether nothing was committed in between.
    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Memory, Self::Memory) => true,
            (Self::File(mine, Some(last)), Self::File(others, Some(other))) => {
                mine == others && last == other
            }
            _ => false,
        }
    }

    fn is_next_after(self, other: Self) -> bool {
        match (self, other) {
            (Self::Memory, Self::Memory) => true,
            (Self::File(mine, Some(last)), Self::File(others, Some(other))) => {
                mine == others && last.is_next_after(other)
            }
            _ => false,
        }
    }
}

/// A change that can be recorded.
pub(super) trait Recorded {
    /// A copy that doesn't keep the message's input buffer in memory.
    fn detached(&self) -> Self;
}

/// The commits to a database, as far as this process knows.
#[derive(Debug)]
pub(super) struct Commits<C> {
    state: Mutex<CommitsState<C>>,
    /// No transaction is running, or nobody wants to begin to record.
    is_free: Condvar,
}

#[derive(Debug)]
struct CommitsState<C> {
    /// The last commit that is accounted for; none before the first look.
    last: Option<Version>,
    /// How often commits by others were found.
    by_others: u64,
    /// A transaction of this process is running: it may commit at any time.
    is_running: bool,
    /// How many threads wait for a moment without a transaction. They go first.
    waiting: usize,
    /// Somebody has begun to record: from then on, the changes of all transactions count.
    is_recorded: bool,
    /// The changes that are committed since recording began.
    recorded: Option<Vec<C>>,
}

impl<C> Default for Commits<C> {
    fn default() -> Self {
        let state = CommitsState {
            last: None,
            by_others: 0,
            is_running: false,
            waiting: 0,
            is_recorded: false,
            recorded: None,
        };
        Self { state: Mutex::new(state), is_free: Condvar::new() }
    }
}

impl<C> CommitsState<C> {
    /// Notes what others have committed.
    fn look(&mut self, now: Version) -> u64 {
        let is_known = self
            .last
            .is_some_and(|last| now.is(last) || self.is_running && now.is_next_after(last));
        if !is_known {
            self.by_others += 1;
            self.last = Some(now);
        }
        self.by_others
    }
}

impl<C: Recorded> Commits<C> {
    /// How often commits by others were found until now. As long as the result is the same, only
    /// this process has committed. `version` reads the current version.
    pub(super) fn by_others(&self, version: impl FnOnce() -> Version) -> u64 {
        // Read after the lock is taken, so that no transaction of this process ends in between.
        let mut state = lock(&self.state);
        state.look(version())
    }

    /// Registers a transaction that writes. To be called in it, when no other process can commit.
    pub(super) fn begin(&self, version: impl FnOnce() -> Version) -> OpenTransaction<'_, C> {
        let mut state = self.when(|state| !state.is_running && state.waiting == 0);
        let version = version();
        state.look(version);
        state.is_running = true;
        OpenTransaction { commits: self, version, is_recorded: state.is_recorded }
    }

    /// Records changes from now on. Calls `snapshot` at a moment at which no transaction of this
    /// process is running, and returns its result and the commits by others at that moment.
    pub(super) fn record<T>(
        &self,
        snapshot: impl FnOnce() -> Result<T, StoreError>,
        version: impl FnOnce() -> Version,
    ) -> Result<(T, u64, Recording<'_, C>), StoreError> {
        lock(&self.state).waiting += 1;
        let mut state = self.when(|state| !state.is_running);
        state.waiting -= 1;
        self.is_free.notify_all();
        // Before the snapshot: if another process commits in between, the next look finds that.
        let by_others = state.look(version());
        let taken = snapshot()?;
        (state.is_recorded, state.recorded) = (true, Some(Vec::new()));
        Ok((taken, by_others, Recording { commits: self }))
    }

    fn when(&self, is_so: impl Fn(&CommitsState<C>) -> bool) -> MutexGuard<'_, CommitsState<C>> {
        let state = lock(&self.state);
        self.is_free
            .wait_while(state, |state| !is_so(state))
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Changes are recorded until this is dropped. There is one at a time.
#[derive(Debug)]
pub(super) struct Recording<'c, C> {
    commits: &'c Commits<C>,
}

impl<C> Recording<'_, C> {
    /// Ends recording. Returns the changes.
    pub(super) fn finish(self) -> Vec<C> {
        let recorded = lock(&self.commits.state).recorded.take();
        recorded.unwrap_or_else(|| unreachable!("nothing else ends a recording"))
    }
}

impl<C> Drop for Recording<'_, C> {
    fn drop(&mut self) {
        lock(&self.commits.state).recorded = None;
    }
}

/// A transaction that writes. If it isn't finished, it may or may not have been committed.
#[derive(Debug)]
pub(super) struct OpenTransaction<'c, C> {
    commits: &'c Commits<C>,
    version: Version,
    is_recorded: bool,
}

impl<C: Recorded> OpenTransaction<'_, C> {
    /// Whether nobody has committed since that version.
    pub(super) fn follows(&self, version: Option<Version>) -> bool {
        version.is_some_and(|version| self.version.is(version))
    }

    /// Whether anybody wants to know the changes.
    pub(super) fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    /// Notes that it was committed, with these changes. Returns the version that it left, unless
    /// others have committed since, and the commits by others.
    pub(super) fn finish(
        self,
        has_written: bool,
        changes: &[C],
        version: impl FnOnce() -> Version,
    ) -> (Option<Version>, u64) {
        let mut state = lock(&self.commits.state);
        let now = version();
        let left = if has_written {
            Some(now).filter(|now| now.is_next_after(self.version))
        } else {
            Some(self.version)
        };
        state.last = left.or(state.last);
        state.is_running = false;
        let by_others = state.look(now);
        if let Some(recorded) = &mut state.recorded {
            recorded.extend(changes.iter().map(C::detached));
        }
        drop(state);
        self.commits.is_free.notify_all();
        // Others may be running already.
        std::mem::forget(self);
        (left, by_others)
    }
}

impl<C> Drop for OpenTransaction<'_, C> {
    fn drop(&mut self) {
        lock(&self.commits.state).is_running = false;
        self.commits.is_free.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use rusqlite::TransactionBehavior;

    use super::super::SqliteStore;
    use super::*;
    use crate::store::OpenOptions;

    fn file() -> (tempfile::TempDir, [Connection; 3]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rockets.db");
        SqliteStore::open(&path, &OpenOptions { migrate: true, ..OpenOptions::default() }).unwrap();
        let connections = [(); 3].map(|()| Connection::open(&path).unwrap());
        for connection in &connections {
            connection.query_row("PRAGMA user_version", [], |_| Ok(())).unwrap();
        }
        (directory, connections)
    }

    impl Recorded for u32 {
        fn detached(&self) -> Self {
            *self
        }
    }

    fn version(connection: &Connection) -> Version {
        Version::of(Some(0), connection)
    }

    fn write(connection: &Connection) {
        connection.execute_batch("PRAGMA user_version = 1").unwrap();
    }

    /// Commits as a writer of this process does. `others` is called after the commit, before it is
    /// noted.
    fn commit(
        commits: &Commits<u32>,
        mine: &mut Connection,
        change: Option<u32>,
        others: impl FnOnce(),
    ) -> Option<Version> {
        let transaction = mine.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let running = commits.begin(|| version(&transaction));
        if change.is_some() {
            write(&transaction);
        }
        transaction.commit().unwrap();
        others();
        running.finish(change.is_some(), change.as_slice(), || version(mine)).0
    }

    #[test]
    fn each_commit_is_mine_or_one_of_others() {
        let (_directory, [mut mine, other, reader]) = file();
        let commits = Commits::default();
        let mut last = commits.by_others(|| version(&reader));
        let mut others = || {
            let now = commits.by_others(|| version(&reader));
            std::mem::replace(&mut last, now) != now
        };
        for change in [Some(1), None, Some(2)] {
            assert!(commit(&commits, &mut mine, change, || {}).is_some());
            assert!(!others());
        }
        write(&other);
        assert!(others() && !others());
        // Between two of mine, and right after one, which then doesn't leave the last version.
        write(&other);
        commit(&commits, &mut mine, Some(3), || {});
        assert!(others() && !others());
        for change in [Some(4), None] {
            let left = commit(&commits, &mut mine, change, || write(&other));
            let next = commits.begin(|| version(&mine));
            assert!(!next.follows(left), "{change:?}");
            drop(next);
            assert!(others() && !others());
        }
        // A checkpoint changes nothing, nor does the log's new beginning.
        other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        assert!(!others());
        commit(&commits, &mut mine, Some(5), || {});
        assert!(!others());
    }

    #[test]
    fn what_failed_may_have_been_committed() {
        let (_directory, [mut mine, _, reader]) = file();
        let commits = Commits::<u32>::default();
        let before = commits.by_others(|| version(&reader));
        let transaction = mine.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let running = commits.begin(|| version(&transaction));
        write(&transaction);
        assert_eq!(commits.by_others(|| version(&reader)), before);
        transaction.commit().unwrap();
        // Committed, but not noted: a reader now finds that it is mine.
        assert_eq!(commits.by_others(|| version(&reader)), before);
        drop(running);
        assert_ne!(commits.by_others(|| version(&reader)), before);
    }

    #[test]
    fn changes_are_recorded_from_a_moment_without_a_transaction() {
        let (_directory, [mut mine, _, reader]) = file();
        let commits = Commits::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for change in 1.. {
                    mine.execute_batch("CREATE TABLE IF NOT EXISTS changes (n)").unwrap();
                    let transaction =
                        mine.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
                    let running = commits.begin(|| version(&transaction));
                    transaction.execute("INSERT INTO changes VALUES (?1)", [change]).unwrap();
                    transaction.commit().unwrap();
                    // It is not noted at once.
                    (0..50).for_each(|_| std::thread::yield_now());
                    running.finish(true, &[change], || version(&mine));
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let stored = || {
                Ok(reader.query_row("SELECT max(n) FROM changes", [], |row| {
                    row.get::<_, Option<u32>>(0)
                })?)
            };
            let mut records = Vec::new();
            while records.len() < 50 {
                let Ok((seen, _, recording)) = commits.record(stored, || version(&reader)) else {
                    continue;
                };
                let next = seen.unwrap_or(0) + 1;
                while stored().unwrap() < Some(next + 2) {
                    std::thread::yield_now();
                }
                records.push((next, recording.finish()));
            }
            done.store(true, Ordering::Relaxed);
            for (next, recorded) in records {
                assert!(recorded.len() >= 2, "{recorded:?}");
                assert!(
                    recorded.iter().copied().eq((next..).take(recorded.len())),
                    "{next} {recorded:?}"
                );
            }
        });
    }
}
