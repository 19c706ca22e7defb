//! Decides when SQLite's log is copied into the database's file, and by which thread.
//!
//! By default, SQLite copies the log in the commit that makes it long enough, and syncs the file.
//! All senders wait for that, in a large fleet 100 ms and more. So another thread copies the log
//! while the writer continues. But the log restarts only when all of it is in the file, and while
//! the writer continues it always adds more. So the thread copies until little is left, and the
//! writer copies the rest, after a commit.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::InterruptHandle;
use wal_vfs::LogLength;

use super::database_file::{DatabaseFile, WriterConnection};
use crate::store::StoreError;

/// The writer copies at most this many frames without another thread: about 4 MiB.
const MAX_REST_FRAMES: u32 = 2_048;
/// If the log's limit is low, the writer copies at most the limit divided by this.
const REST_DIVISOR: u32 = 8;
/// If the log can't restart, because a reader uses it or another process copies it, the next
/// attempt is made when it has grown by its limit divided by this.
const RETRY_DIVISOR: u32 = 4;

/// The checkpoints of one writer.
#[derive(Debug)]
pub(super) struct Checkpoints {
    limit: Limit,
    /// There is no further attempt before the log has this many frames.
    retry_at: u32,
    /// The other thread has copied all but the rest.
    is_copied: bool,
    copying: Option<Copying>,
}

/// A thread that copies the log.
#[derive(Debug)]
struct Copying {
    thread: JoinHandle<bool>,
    interrupt: Arc<Interrupt>,
}

/// Ends a copy early. The next one begins where the last whole one ended.
#[derive(Default)]
struct Interrupt {
    is_requested: AtomicBool,
    handle: OnceLock<InterruptHandle>,
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Interrupt")
            .field("is_requested", &self.is_requested)
            .finish_non_exhaustive()
    }
}

impl Copying {
    fn start(database: &Arc<DatabaseFile>, limit: Limit) -> std::io::Result<Self> {
        let (database, interrupt) = (Arc::clone(database), Arc::<Interrupt>::default());
        let request = Arc::clone(&interrupt);
        let copy = move || {
            let copied = database
                .writer_connection()
                .and_then(|mut connection| copy_most(&mut connection, limit, &request));
            if request.is_requested.load(Ordering::SeqCst) { false } else { report(copied) }
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(copy)?;
        Ok(Self { thread, interrupt })
    }

    fn interrupt(self) {
        self.interrupt.is_requested.store(true, Ordering::SeqCst);
        if let Some(handle) = self.interrupt.handle.get() {
            handle.interrupt();
        }
        // The thread has logged its failures.
        let _ = self.thread.join();
    }
}

/// The log may become as long as the file, within these bounds. A checkpoint writes each changed
/// page once, however often it is in the log, and syncs: the less often, the better. But after a
/// crash the log must be read.
#[derive(Clone, Copy, Debug)]
struct Limit {
    min_frames: u32,
    max_frames: u32,
}

impl Limit {
    fn new(bytes: &RangeInclusive<u64>, page_bytes: u64) -> Self {
        let frames =
            |bytes: u64| u32::try_from(bytes / page_bytes.max(1)).unwrap_or(u32::MAX).max(1);
        let min_frames = frames(*bytes.start());
        Self { min_frames, max_frames: frames(*bytes.end()).max(min_frames) }
    }

    fn frames(self, log: LogLength) -> u32 {
        log.pages.clamp(self.min_frames, self.max_frames)
    }

    /// Whether the writer can copy the rest.
    fn is_rest_small(self, log: LogLength) -> bool {
        log.left() <= (self.frames(log) / REST_DIVISOR).min(MAX_REST_FRAMES)
    }
}

/// What to do with the log after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Copy most of it, in another thread.
    Copy,
    /// Copy the rest, so that the log restarts.
    Finish,
}

impl Checkpoints {
    /// `log_bytes` are the bounds of the log's length.
    pub(super) fn new(
        writer: &WriterConnection,
        log_bytes: &RangeInclusive<u64>,
    ) -> Result<Self, StoreError> {
        let page_bytes: u32 =
            writer.connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        Ok(Self {
            limit: Limit::new(log_bytes, page_bytes.into()),
            retry_at: 0,
            is_copied: false,
            copying: None,
        })
    }

    /// Must be called after each commit. It returns no error, because the commit is in the log and
    /// has not failed.
    pub(super) fn after_commit(&mut self, writer: &mut WriterConnection) {
        let Some(log) = wal_vfs::log_length(&writer.connection) else { return };
        if let Some(ended) = self.copying.take_if(|copying| copying.thread.is_finished()) {
            self.is_copied = ended.thread.join().unwrap_or(false);
            self.postpone(log);
        }
        match self.next_step(log) {
            Step::Nothing => {}
            Step::Copy => self.copy(writer.database(), log),
            Step::Finish => {
                self.is_copied = false;
                self.postpone(log);
                let started = Instant::now();
                let is_whole = report(writer.checkpoint());
                tracing::debug!(?log, is_whole, took = ?started.elapsed(), "the writer finished a \
                    checkpoint");
            }
        }
    }

    /// Copies the log if it is too long, and returns when that is done. For a writer that is not
    /// used again. It holds up other writers only for the rest.
    pub(super) fn shorten_log(&mut self, writer: &mut WriterConnection) {
        let Some(log) = wal_vfs::log_length(&writer.connection) else { return };
        if log.frames >= self.limit.frames(log)
            && report(copy_most(writer, self.limit, &Interrupt::default()))
        {
            report(writer.checkpoint());
        }
    }

    fn next_step(&mut self, log: LogLength) -> Step {
        if log.frames < self.limit.frames(log) {
            (self.retry_at, self.is_copied) = (0, false);
            Step::Nothing
        } else if self.copying.is_some() {
            Step::Nothing
        } else if self.is_copied {
            Step::Finish
        } else if log.frames < self.retry_at {
            Step::Nothing
        } else if self.limit.is_rest_small(log) {
            Step::Finish
        } else {
            Step::Copy
        }
    }

    fn postpone(&mut self, log: LogLength) {
        self.retry_at = log.frames.saturating_add(self.limit.frames(log) / RETRY_DIVISOR);
    }

    fn copy(&mut self, database: &Arc<DatabaseFile>, log: LogLength) {
        match Copying::start(database, self.limit) {
            Ok(copying) => self.copying = Some(copying),
            Err(error) => {
                tracing::warn!(%error, "there is no thread for a checkpoint; it will be retried");
                self.postpone(log);
            }
        }
    }
}

impl Drop for Checkpoints {
    /// A program that ended before the thread would leave the log beside the file. The connection
    /// that closes the file copies all of it anyway.
    fn drop(&mut self) {
        if let Some(copying) = self.copying.take() {
            copying.interrupt();
        }
    }
}

/// Copies the log again and again until the rest is small. Returns false if readers or another
/// process prevent that.
fn copy_most(
    connection: &mut WriterConnection,
    limit: Limit,
    interrupt: &Interrupt,
) -> Result<bool, StoreError> {
    // It is set only here, once for each thread.
    let _ = interrupt.handle.set(connection.connection.get_interrupt_handle());
    let mut previous_rest = u32::MAX;
    loop {
        if interrupt.is_requested.load(Ordering::SeqCst) || !connection.checkpoint_and_sync()? {
            return Ok(false);
        }
        let Some(log) = wal_vfs::log_length(&connection.connection) else { return Ok(false) };
        // A copy takes at least one sync. Meanwhile, a fast writer may always add more than a small
        // rest, so this ends when a copy no longer halves it.
        if limit.is_rest_small(log) || log.left() > previous_rest / 2 {
            return Ok(true);
        }
        previous_rest = log.left();
    }
}

fn report(copied: Result<bool, StoreError>) -> bool {
    copied.unwrap_or_else(|error| {
        tracing::warn!(%error, "the write-ahead log was not copied into the database; it will be \
                                retried");
        false
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use rusqlite::Connection;

    use super::*;
    use crate::domain::message::Message;
    use crate::domain::message::example::faster;
    use crate::domain::timestamp::Timestamp;
    use crate::store::OpenOptions;
    use crate::store::sqlite::{SqliteStore, SqliteWriter};

    const PAGE_BYTES: u64 = 2_048;
    const DEADLINE: Duration = Duration::from_secs(60);

    fn log(frames: u32, done: u32, pages: u32) -> LogLength {
        LogLength { frames, done, pages }
    }

    #[test]
    fn another_thread_copies_a_long_log_and_the_writer_finishes() {
        let bytes = 16_384 * PAGE_BYTES..=131_072 * PAGE_BYTES;
        let limit = Limit::new(&bytes, PAGE_BYTES);
        let mut checkpoints = Checkpoints { limit, retry_at: 0, is_copied: false, copying: None };
        for (log, step) in [
            // The file is small, and the log shorter than the lowest limit.
            (log(16_383, 0, 100), Step::Nothing),
            (log(16_384, 0, 100), Step::Copy),
            // The file is as long as the log or longer, up to the highest limit.
            (log(50_000, 0, 50_001), Step::Nothing),
            (log(50_001, 0, 50_001), Step::Copy),
            (log(131_071, 0, 1_000_000), Step::Nothing),
            (log(131_072, 0, 1_000_000), Step::Copy),
            // The rest is small.
            (log(50_001, 50_001 - 2_048, 100), Step::Finish),
            (log(50_001, 50_001 - 2_049, 100), Step::Copy),
        ] {
            assert_eq!(checkpoints.next_step(log), step, "{log:?}");
        }
        // Another thread has copied the log, however much has been added.
        checkpoints.is_copied = true;
        checkpoints.postpone(log(20_000, 16_384, 100));
        assert_eq!(checkpoints.next_step(log(20_001, 16_384, 100)), Step::Finish);
        // It didn't restart: the next attempt is made later.
        checkpoints.is_copied = false;
        checkpoints.postpone(log(20_000, 20_000, 100));
        assert_eq!(checkpoints.next_step(log(20_100, 20_000, 100)), Step::Nothing);
        assert_eq!(checkpoints.next_step(log(24_096, 20_000, 100)), Step::Copy);
        // It did.
        assert_eq!(checkpoints.next_step(log(5, 0, 100)), Step::Nothing);
        assert_eq!(checkpoints.next_step(log(16_384, 0, 100)), Step::Copy);
    }

    /// A database whose log may have 64 pages.
    fn store_with_short_log() -> (tempfile::TempDir, SqliteStore) {
        let directory = tempfile::tempdir().unwrap();
        let log_bytes = 64 * PAGE_BYTES..=64 * PAGE_BYTES;
        let options = OpenOptions { log_bytes, ..OpenOptions::default() };
        let store = SqliteStore::open(&directory.path().join("rockets.db"), &options).unwrap();
        (directory, store)
    }

    /// A message of a rocket of its own for each number.
    fn message(number: u32) -> Message {
        let channel = format!("r{}", number.wrapping_mul(2_654_435_761));
        faster(1).on(&channel).numbered(number.into())
    }

    fn commit(writer: &mut SqliteWriter, number: u32) {
        writer
            .commit(&[message(number)], Timestamp::from_system_time(std::time::SystemTime::now()))
            .unwrap();
    }

    /// Commits until the log meets the condition.
    fn commit_until(
        writer: &mut SqliteWriter,
        numbers: &mut impl Iterator<Item = u32>,
        condition: impl Fn(LogLength) -> bool,
    ) {
        let deadline = Instant::now() + DEADLINE;
        while !wal_vfs::log_length(&writer.connection.guard()).is_some_and(&condition) {
            assert!(
                Instant::now() < deadline,
                "{:?}",
                wal_vfs::log_length(&writer.connection.guard())
            );
            commit(writer, numbers.next().unwrap());
        }
    }

    #[test]
    fn the_log_restarts_while_the_writer_continues() {
        let (_directory, store) = store_with_short_log();
        let mut writer = store.writer().unwrap();
        let mut numbers = 1..;
        for _ in 0..5 {
            commit_until(&mut writer, &mut numbers, |log| log.frames > 64);
            commit_until(&mut writer, &mut numbers, |log| log.frames < 64);
        }
    }

    #[test]
    fn the_log_grows_while_a_reader_uses_it() {
        let (directory, store) = store_with_short_log();
        let mut writer = store.writer().unwrap();
        let mut numbers = 1..;
        commit_until(&mut writer, &mut numbers, |log| log.frames > 8);
        let reader = Connection::open(directory.path().join("rockets.db")).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM rockets").unwrap();
        commit_until(&mut writer, &mut numbers, |log| log.frames > 1_000);
        let copied = wal_vfs::log_length(&reader).unwrap();
        assert!(copied.done < 64, "{copied:?}");
        drop(reader);
        commit_until(&mut writer, &mut numbers, |log| log.frames < 64);
        // Soon after, not only when the log is twice as long.
        assert!(numbers.next().unwrap() < 1_000, "{numbers:?}");
    }

    #[test]
    fn a_checkpoint_ends_before_its_writer() {
        let (directory, store) = store_with_short_log();
        let mut writer = store.writer().unwrap();
        for number in 1.. {
            commit(&mut writer, number);
            if writer.checkpoints.as_ref().unwrap().copying.is_some() {
                break;
            }
        }
        drop((writer, store));
        assert!(!directory.path().join("rockets.db-wal").exists());
    }
}
