//! Distinguishes this process's commits from foreign commits, those of other processes. So a reader
//! can decide whether a copy in memory equals the file.
//!
//! The index of SQLite's log has a mark of the last commit ([`LastCommit`]). Each transaction of
//! this process finds the mark that the previous one left, unless another process has committed. It
//! leaves the next mark. So a reader can see from the mark whether this process committed last.

use std::sync::{Condvar, Mutex, MutexGuard};

use rusqlite::Connection;
use wal_vfs::LastCommit;

use super::lock;
use crate::store::StoreError;

/// A mark of the last commit to a database, as a connection sees it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Version {
    /// Of a database in memory, to which no other process commits: how many rows its connection has
    /// changed, also in transactions that were rolled back.
    Memory(u64),
    /// The generation of the file, and its last commit; none if the index can't be read.
    File(u64, Option<LastCommit>),
}

impl Version {
    /// `generation` is that of the file; none for a database in memory.
    pub(super) fn of(generation: Option<u64>, connection: &Connection) -> Self {
        match generation {
            None => Self::Memory(connection.total_changes()),
            Some(generation) => Self::File(generation, wal_vfs::last_commit(connection)),
        }
    }

    /// Whether nothing was committed between the versions.
    fn equals(self, other: Self) -> bool {
        match (self, other) {
            (Self::Memory(rows), Self::Memory(other)) => rows == other,
            (Self::File(generation, Some(last)), Self::File(other_generation, Some(other))) => {
                generation == other_generation && last == other
            }
            _ => false,
        }
    }

    fn is_next_after(self, other: Self) -> bool {
        match (self, other) {
            // Transactions share the connection, so none was in between.
            (Self::Memory(rows), Self::Memory(other)) => rows >= other,
            (Self::File(generation, Some(last)), Self::File(other_generation, Some(other))) => {
                generation == other_generation && last.is_next_after(other)
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

/// The commits to a database that this process knows of.
#[derive(Debug)]
pub(super) struct Commits<C> {
    state: Mutex<CommitsState<C>>,
    /// Notified when a transaction ends, or a waiting recorder has its turn.
    changed: Condvar,
}

#[derive(Debug)]
struct CommitsState<C> {
    /// The last commit that has been counted; none before the first one.
    last: Option<Version>,
    /// How often foreign commits were detected. One detection may be of several commits.
    foreign: u64,
    /// A transaction of this process is open: it may commit at any time.
    is_open: bool,
    /// The number of threads that wait for a moment without a transaction. They go first.
    waiting: usize,
    /// There has been a recording, so transactions must collect their changes.
    is_recorded: bool,
    /// The changes that are committed since recording began.
    recorded: Option<Vec<C>>,
}

impl<C> Default for Commits<C> {
    fn default() -> Self {
        let state = CommitsState {
            last: None,
            foreign: 0,
            is_open: false,
            waiting: 0,
            is_recorded: false,
            recorded: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<C> CommitsState<C> {
    /// Detects foreign commits before the version `now`. Returns how often that has happened.
    fn detect_foreign(&mut self, now: Version) -> u64 {
        let is_known = self
            .last
            .is_some_and(|last| now.equals(last) || self.is_open && now.is_next_after(last));
        if !is_known {
            self.foreign += 1;
            self.last = Some(now);
        }
        self.foreign
    }
}

impl<C: Recorded> Commits<C> {
    /// How often foreign commits were detected until now. While the result doesn't change, only
    /// this process has committed. `version` reads the current version.
    pub(super) fn foreign(&self, version: impl FnOnce() -> Version) -> u64 {
        // Read after the lock is taken, so that no transaction of this process ends in between.
        let mut state = lock(&self.state);
        state.detect_foreign(version())
    }

    /// Registers a transaction that writes. Must be called in it, when no other process can commit.
    pub(super) fn begin(&self, version: impl FnOnce() -> Version) -> OpenTransaction<'_, C> {
        let mut state = self.wait_until(|state| !state.is_open && state.waiting == 0);
        let version = version();
        state.detect_foreign(version);
        state.is_open = true;
        OpenTransaction { commits: self, version, is_recorded: state.is_recorded }
    }

    /// Records changes from now on. Calls `snapshot` at a moment at which no transaction of this
    /// process is open. Returns its result, and how often foreign commits were detected until then.
    pub(super) fn record<T>(
        &self,
        snapshot: impl FnOnce() -> Result<T, StoreError>,
        version: impl FnOnce() -> Version,
    ) -> Result<(T, u64, Recording<'_, C>), StoreError> {
        lock(&self.state).waiting += 1;
        let mut state = self.wait_until(|state| !state.is_open);
        state.waiting -= 1;
        self.changed.notify_all();
        // Before the snapshot: a commit by another process in between is detected later.
        let foreign = state.detect_foreign(version());
        let taken = snapshot()?;
        (state.is_recorded, state.recorded) = (true, Some(Vec::new()));
        Ok((taken, foreign, Recording { commits: self }))
    }

    fn wait_until(
        &self,
        condition: impl Fn(&CommitsState<C>) -> bool,
    ) -> MutexGuard<'_, CommitsState<C>> {
        let state = lock(&self.state);
        self.changed
            .wait_while(state, |state| !condition(state))
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
        recorded.unwrap_or_else(|| unreachable!("only `finish` and `drop` end a recording"))
    }
}

impl<C> Drop for Recording<'_, C> {
    fn drop(&mut self) {
        lock(&self.commits.state).recorded = None;
    }
}

/// An open transaction that writes. If it is dropped without [`finish`](Self::finish), it may or
/// may not have been committed.
#[derive(Debug)]
pub(super) struct OpenTransaction<'c, C> {
    commits: &'c Commits<C>,
    version: Version,
    is_recorded: bool,
}

impl<C: Recorded> OpenTransaction<'_, C> {
    /// Whether there was no commit between the version and this transaction.
    pub(super) fn follows(&self, version: Option<Version>) -> bool {
        version.is_some_and(|version| self.version.equals(version))
    }

    /// Whether the transaction must collect its changes.
    pub(super) fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    /// Registers the commit, and records its changes. Returns the version that it left, unless
    /// another process has committed since, and how often foreign commits were detected until now.
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
        state.is_open = false;
        let foreign = state.detect_foreign(now);
        if let Some(recorded) = &mut state.recorded {
            recorded.extend(changes.iter().map(C::detached));
        }
        drop(state);
        self.commits.changed.notify_all();
        // Another transaction may be open already, and `drop` would mark it as ended.
        std::mem::forget(self);
        (left, foreign)
    }
}

impl<C> Drop for OpenTransaction<'_, C> {
    fn drop(&mut self) {
        lock(&self.commits.state).is_open = false;
        self.commits.changed.notify_all();
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

    /// Commits like a writer of this process. `others` is called between the commit and its
    /// registration.
    fn commit(
        commits: &Commits<u32>,
        mine: &mut Connection,
        change: Option<u32>,
        others: impl FnOnce(),
    ) -> Option<Version> {
        let transaction = mine.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let open = commits.begin(|| version(&transaction));
        if change.is_some() {
            write(&transaction);
        }
        transaction.commit().unwrap();
        others();
        open.finish(change.is_some(), change.as_slice(), || version(mine)).0
    }

    #[test]
    fn each_commit_is_own_or_foreign() {
        let (_directory, [mut mine, other, reader]) = file();
        let commits = Commits::default();
        let mut last = commits.foreign(|| version(&reader));
        let mut others = || {
            let now = commits.foreign(|| version(&reader));
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
        // Neither a checkpoint nor a restart of the log is a commit.
        other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        assert!(!others());
        commit(&commits, &mut mine, Some(5), || {});
        assert!(!others());
    }

    #[test]
    fn a_failed_transaction_may_have_been_committed() {
        let (_directory, [mut mine, _, reader]) = file();
        let commits = Commits::<u32>::default();
        let before = commits.foreign(|| version(&reader));
        let transaction = mine.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let open = commits.begin(|| version(&transaction));
        write(&transaction);
        assert_eq!(commits.foreign(|| version(&reader)), before);
        transaction.commit().unwrap();
        // Committed, but not registered: a reader recognizes this process's commit.
        assert_eq!(commits.foreign(|| version(&reader)), before);
        drop(open);
        assert_ne!(commits.foreign(|| version(&reader)), before);
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
                    let open = commits.begin(|| version(&transaction));
                    transaction.execute("INSERT INTO changes VALUES (?1)", [change]).unwrap();
                    transaction.commit().unwrap();
                    // It is not registered at once.
                    (0..50).for_each(|_| std::thread::yield_now());
                    open.finish(true, &[change], || version(&mine));
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
