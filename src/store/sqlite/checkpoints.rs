//! When SQLite's log is copied into the database's file, and by which thread.
//!
//! By itself, SQLite copies the log in the commit that makes it long enough, and syncs the file:
//! all senders wait for that, 100 ms and more in a large fleet. So another thread copies, while the
//! writer continues. But the log restarts only when all of it is in the file, and while the writer
//! continues there is always something that isn't. So the thread copies until little is left, and
//! the writer copies that, after a commit.

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

/// The writer copies up to this many frames without another thread's help: about 4 MiB.
const MOST_LEFT: u32 = 2_048;
/// In a short log, it copies up to this share.
const LEFT_SHARE: u32 = 8;
/// If the log can't restart, because somebody reads from it or another process copies it, the next
/// attempt is made when it has grown by this share of its limit.
const RETRY_SHARE: u32 = 4;

/// See the module. For one writer.
#[derive(Debug)]
pub(super) struct Checkpoints {
    limit: Limit,
    /// Nothing is done before the log has this many frames.
    due: u32,
    /// The other thread has copied most of the log.
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
    is_wanted: AtomicBool,
    handle: OnceLock<InterruptHandle>,
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Interrupt")
            .field("is_wanted", &self.is_wanted)
            .finish_non_exhaustive()
    }
}

impl Copying {
    fn start(database: &Arc<DatabaseFile>, limit: Limit) -> std::io::Result<Self> {
        let (database, interrupt) = (Arc::clone(database), Arc::<Interrupt>::default());
        let wanted = Arc::clone(&interrupt);
        let copy = move || {
            let copied = database
                .writer_connection()
                .and_then(|mut own| copy_most(&mut own, limit, &wanted));
            if wanted.is_wanted.load(Ordering::SeqCst) { false } else { report(copied) }
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(copy)?;
        Ok(Self { thread, interrupt })
    }

    fn interrupt(self) {
        self.interrupt.is_wanted.store(true, Ordering::SeqCst);
        if let Some(handle) = self.interrupt.handle.get() {
            handle.interrupt();
        }
        // It has reported its failures.
        let _ = self.thread.join();
    }
}

/// The log may become as long as the file, within these bounds. A checkpoint writes each changed
/// page once, however often it is in the log, and syncs: the less often, the better. But after a
/// crash the log must be read.
#[derive(Clone, Copy, Debug)]
struct Limit {
    fewest_frames: u32,
    most_frames: u32,
}

impl Limit {
    fn new(bytes: &RangeInclusive<u64>, page_bytes: u64) -> Self {
        let frames =
            |bytes: u64| u32::try_from(bytes / page_bytes.max(1)).unwrap_or(u32::MAX).max(1);
        let fewest_frames = frames(*bytes.start());
        Self { fewest_frames, most_frames: frames(*bytes.end()).max(fewest_frames) }
    }

    fn frames(self, log: LogLength) -> u32 {
        log.pages.clamp(self.fewest_frames, self.most_frames)
    }

    /// Whether the writer can copy what is left.
    fn leaves_little(self, log: LogLength) -> bool {
        log.left() <= (self.frames(log) / LEFT_SHARE).min(MOST_LEFT)
    }
}

/// What to do about the log after a commit.
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
            due: 0,
            is_copied: false,
            copying: None,
        })
    }

    /// To be called after a commit. Failures are not the commit's: its messages are in the log.
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

    fn next_step(&mut self, log: LogLength) -> Step {
        if log.frames < self.limit.frames(log) {
            (self.due, self.is_copied) = (0, false);
            Step::Nothing
        } else if self.copying.is_some() {
            Step::Nothing
        } else if self.is_copied {
            Step::Finish
        } else if log.frames < self.due {
            Step::Nothing
        } else if self.limit.leaves_little(log) {
            Step::Finish
        } else {
            Step::Copy
        }
    }

    fn postpone(&mut self, log: LogLength) {
        self.due = log.frames.saturating_add(self.limit.frames(log) / RETRY_SHARE);
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

/// Copies what is in the log until little is added meanwhile. Returns whether that is so; not if
/// readers or another process prevent it.
fn copy_most(
    own: &mut WriterConnection,
    limit: Limit,
    interrupt: &Interrupt,
) -> Result<bool, StoreError> {
    // Nobody else has set it.
    let _ = interrupt.handle.set(own.connection.get_interrupt_handle());
    let mut left_before = u32::MAX;
    loop {
        if interrupt.is_wanted.load(Ordering::SeqCst) || !own.checkpoint_and_sync()? {
            return Ok(false);
        }
        let Some(log) = wal_vfs::log_length(&own.connection) else { return Ok(false) };
        // A round takes at least one sync. While the disk does that, a fast writer adds more than
        // little, however many rounds there are.
        if limit.leaves_little(log) || log.left() > left_before / 2 {
            return Ok(true);
        }
        left_before = log.left();
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
    use crate::domain::timestamp::Timestamp;
    use crate::store::OpenOptions;
    use crate::store::sqlite::{SqliteStore, SqliteWriter};
    use crate::wire::message::parse;

    const PAGE_BYTES: u64 = 2_048;
    const DEADLINE: Duration = Duration::from_secs(60);

    fn log(frames: u32, done: u32, pages: u32) -> LogLength {
        LogLength { frames, done, pages }
    }

    #[test]
    fn a_long_log_is_copied_by_another_thread_and_finished_by_the_writer() {
        let bytes = 16_384 * PAGE_BYTES..=131_072 * PAGE_BYTES;
        let limit = Limit::new(&bytes, PAGE_BYTES);
        let mut checkpoints = Checkpoints { limit, due: 0, is_copied: false, copying: None };
        for (log, step) in [
            // The file is small, and the log shorter than the lowest limit.
            (log(16_383, 0, 100), Step::Nothing),
            (log(16_384, 0, 100), Step::Copy),
            // The file is as long as the log or longer, up to the highest limit.
            (log(50_000, 0, 50_001), Step::Nothing),
            (log(50_001, 0, 50_001), Step::Copy),
            (log(131_071, 0, 1_000_000), Step::Nothing),
            (log(131_072, 0, 1_000_000), Step::Copy),
            // Little is left.
            (log(50_001, 50_001 - 2_048, 100), Step::Finish),
            (log(50_001, 50_001 - 2_049, 100), Step::Copy),
        ] {
            assert_eq!(checkpoints.next_step(log), step, "{log:?}");
        }
        // Most of it was copied, however much has been added.
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
    fn with_a_short_log() -> (tempfile::TempDir, SqliteStore) {
        let directory = tempfile::tempdir().unwrap();
        let log_bytes = 64 * PAGE_BYTES..=64 * PAGE_BYTES;
        let options = OpenOptions { log_bytes, ..OpenOptions::default() };
        let store = SqliteStore::open(&directory.path().join("rockets.db"), &options).unwrap();
        (directory, store)
    }

    /// A message of a rocket that is new if the number is.
    fn message(number: u32) -> Message {
        let json = format!(
            r#"{{"metadata": {{"channel": "r{}", "messageNumber": {number},
                "messageTime": "2022-02-02T19:39:05Z",
                "messageType": "RocketSpeedIncreased"}}, "message": {{"by": 1}}}}"#,
            number.wrapping_mul(2_654_435_761)
        );
        parse(json.into_bytes().into()).unwrap()
    }

    fn commit(writer: &mut SqliteWriter, number: u32) {
        writer
            .commit(&[message(number)], Timestamp::from_system_time(std::time::SystemTime::now()))
            .unwrap();
    }

    /// Commits until the log is in this state.
    fn commit_until(
        writer: &mut SqliteWriter,
        numbers: &mut impl Iterator<Item = u32>,
        is_so: impl Fn(LogLength) -> bool,
    ) {
        let deadline = Instant::now() + DEADLINE;
        while !wal_vfs::log_length(&writer.connection.guard()).is_some_and(&is_so) {
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
        let (_directory, store) = with_a_short_log();
        let mut writer = store.writer().unwrap();
        let mut numbers = 1..;
        for _ in 0..5 {
            commit_until(&mut writer, &mut numbers, |log| log.frames > 64);
            commit_until(&mut writer, &mut numbers, |log| log.frames < 64);
        }
    }

    #[test]
    fn a_reader_makes_the_log_longer_and_nothing_slower() {
        let (directory, store) = with_a_short_log();
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
    fn a_checkpoint_ends_before_its_writer_does() {
        let (directory, store) = with_a_short_log();
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
