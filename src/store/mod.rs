//! Storage: the operations of a store, whichever engine it uses.
//!
//! A store loads, commits and reads. It holds no rules: the [domain](crate::domain) decides the
//! outcome of a batch, and [ingest](crate::ingest) decides which batch a message goes into.
//!
//! This file dispatches to the engines, [`sqlite`] and [`postgres`], and nothing outside this
//! module asks which one it is. What both engines share is beside it: pages, rows, reports, the
//! audit, the upsert of a rocket, the cache of ranges, opening a schema.

mod audit;
pub mod changes;
mod columns;
mod database;
mod error;
pub mod fault_injection;
pub mod merge;
mod page;
pub mod postgres;
mod range_cache;
pub mod report;
mod rows;
mod schema;
pub mod sqlite;
mod upsert;

use std::ops::{ControlFlow, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use crate::domain::batch::Outcome;
use crate::domain::losses::{LossError, LossRequest};
use crate::domain::merge::{MergeEntry, MergeOutcome};
use crate::domain::message::Message;
use crate::domain::missing::{Missing, Question};
use crate::domain::query::{
    Filters, GapPage, GapQuery, GapTotals, Page, RocketInBothViews, RocketQuery, RocketWithGaps,
};
use crate::domain::rocket::{Rocket, View};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
pub use audit::{Audit, Finding};
use changes::{ChangeHints, Notified, ScanProgress};
pub use database::{Database, may_hold_password};
pub use error::{OpenError, StoreError};
use fault_injection::Failures;
use merge::{ExportPage, ExportQuery};
use postgres::{PostgresScan, PostgresStore, PostgresWatch, PostgresWriter};
use report::{ReportQuery, ReportRows, Value};
pub use sqlite::{Backup, BackupError, is_sqlite_file};
use sqlite::{CoalescedReads, SqliteScan, SqliteStore, SqliteWatch, SqliteWriter};

const MIB: u64 = 1024 * 1024;
const LOG_BYTES: RangeInclusive<u64> = 32 * MIB..=256 * MIB;

#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Create the database if it doesn't exist, and migrate its schema. Without this, the database
    /// must exist and have the current schema.
    pub migrate: bool,
    /// Where writes fail, for tests.
    pub failures: Failures,
    /// SQLite's log is copied into the database when it is as long as the database, within these
    /// bounds.
    pub log_bytes: RangeInclusive<u64>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { migrate: true, failures: Failures::default(), log_bytes: LOG_BYTES }
    }
}

/// About how many missing ranges are read at a time: [`Store::missing`] answers no further question
/// once it has found them.
const MAX_MISSING_RANGES: usize = 8_192;

/// How long tombstones of removed rockets are retained.
const TOMBSTONE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);

/// An open database for reading and for creating writers. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Store {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Store {
    pub fn open(database: &Database, options: &OpenOptions) -> Result<Self, OpenError> {
        match database {
            Database::File(path) => SqliteStore::open(path, options).map(Self::Sqlite),
            Database::Memory => SqliteStore::in_memory(options).map(Self::Sqlite),
            Database::Postgres(url) => PostgresStore::open(url, options).map(Self::Postgres),
        }
    }

    /// How many parts of the fleet can be written to at the same time. A batch whose channels are
    /// all in one partition is one transaction.
    pub fn partitions(&self) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(store) => store.partitions(),
        }
    }

    /// The partition of a channel: a number below [`partitions`](Self::partitions).
    pub fn partition_of(&self, channel: &Channel) -> usize {
        match self {
            Self::Sqlite(_) => 0,
            Self::Postgres(store) => store.partition_of(channel),
        }
    }

    /// Creates a writer. Several writers are safe, also in several processes, but only one commits
    /// to a partition at a time.
    pub fn writer(&self) -> Result<Writer, StoreError> {
        match self {
            Self::Sqlite(store) => store.writer().map(Writer::Sqlite),
            Self::Postgres(store) => store.writer().map(Writer::Postgres),
        }
    }

    /// A reader of single rockets, for one thread.
    pub fn reader(&self) -> Reader {
        match self {
            Self::Sqlite(store) => Reader::Sqlite(CoalescedReads::new(store.clone())),
            Self::Postgres(store) => Reader::Postgres(store.clone()),
        }
    }

    /// One rocket in both views, read in one snapshot. As fast as [`Reader::rocket`].
    pub async fn rocket_in_both_views(
        &self,
        channel: &Channel,
    ) -> Result<Option<RocketInBothViews>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rocket_in_both_views(channel).await,
            Self::Postgres(store) => store.rocket_in_both_views(channel).await,
        }
    }

    /// One page of rockets.
    pub async fn rockets(&self, query: RocketQuery) -> Result<Page, StoreError> {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || store.rockets(&query));
                read.await.unwrap_or(Err(StoreError::BrokenOff))
            }
            Self::Postgres(store) => store.rockets(query).await,
        }
    }

    /// The earliest time after this one at which any rocket was last received. It reads the whole
    /// fleet.
    pub async fn first_received_after(
        &self,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || store.first_received_after(after));
                read.await.unwrap_or(Err(StoreError::BrokenOff))
            }
            Self::Postgres(store) => store.first_received_after(after).await,
        }
    }

    /// Like [`rockets`](Self::rockets), for callers that are not asynchronous. SQLite reads the
    /// tables, because one walk through all pages is not worth a copy in memory.
    pub fn rockets_blocking(&self, query: RocketQuery) -> Result<Page, StoreError> {
        match self {
            Self::Sqlite(store) => store.page_from_tables(&query),
            Self::Postgres(store) => store.rockets_blocking(query),
        }
    }

    /// A page of a report. Reports on rockets read the whole fleet for each page. A page of gaps
    /// reads from the end of the previous one.
    pub async fn report(&self, query: ReportQuery) -> Result<ReportRows, StoreError> {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || store.report(&query));
                read.await.unwrap_or(Err(StoreError::BrokenOff))
            }
            Self::Postgres(store) => store.report(query).await,
        }
    }

    /// Calls `each` with the rows of a report, until it breaks. For callers that are not
    /// asynchronous. To go on after a row in another call, use
    /// [`Report::position`](report::Report::position), and a limit: it tells Postgres to read only
    /// these rows.
    ///
    /// It has no timeout. Rows are read one by one, from one snapshot: meanwhile, SQLite's log
    /// can't be truncated.
    pub fn report_rows(
        &self,
        query: &ReportQuery,
        each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.report_rows(query, each),
            Self::Postgres(store) => store.report_rows(query, each),
        }
    }

    /// A page of a rocket's gaps; none if the channel is unknown.
    pub async fn gaps(&self, query: GapQuery) -> Result<Option<GapPage>, StoreError> {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || store.gaps(&query));
                read.await.unwrap_or(Err(StoreError::BrokenOff))
            }
            Self::Postgres(store) => store.gaps(query).await,
        }
    }

    /// The totals of all gaps. It reads all processed ranges.
    pub async fn gap_totals(&self) -> Result<GapTotals, StoreError> {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || store.gap_totals());
                read.await.unwrap_or(Err(StoreError::BrokenOff))
            }
            Self::Postgres(store) => store.gap_totals().await,
        }
    }

    /// Declares numbers lost, and withdraws declarations, durably and in one transaction for each
    /// partition. The results say how many numbers have become lost, or are no longer, or why a
    /// request was refused. A dry run changes nothing.
    pub fn change_losses(
        &self,
        requests: &[LossRequest],
        dry_run: bool,
    ) -> Result<Vec<Result<i64, LossError>>, StoreError> {
        match self {
            Self::Sqlite(store) => store.change_losses(requests, dry_run),
            Self::Postgres(store) => store.change_losses(requests, dry_run),
        }
    }

    /// The current state of these channels' rockets, in any order. Channels without a rocket are
    /// left out.
    pub async fn rockets_of(&self, channels: &[Channel]) -> Result<Vec<Rocket>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rockets_of(channels),
            Self::Postgres(store) => store.rockets_of(channels).await,
        }
    }

    /// Which numbers have not been processed. Answers the first questions, at least one, in their
    /// order and from one snapshot, and leaves out the others once the answers are large.
    pub async fn missing(&self, questions: Vec<Question>) -> Result<Vec<Missing>, StoreError> {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || store.missing(&questions));
                read.await.unwrap_or(Err(StoreError::BrokenOff))
            }
            Self::Postgres(store) => store.missing(questions).await,
        }
    }

    /// Like [`missing`](Self::missing), for callers that are not asynchronous.
    pub fn missing_blocking(&self, questions: Vec<Question>) -> Result<Vec<Missing>, StoreError> {
        match self {
            Self::Sqlite(store) => store.missing(&questions),
            Self::Postgres(store) => store.missing_blocking(questions),
        }
    }

    /// A scan that finds everything that changes from now on. Creating it reads every rocket, and
    /// so does each scan; on SQLite the calling thread does this.
    pub async fn change_scan(&self) -> Result<ChangeScan, StoreError> {
        match self {
            Self::Sqlite(store) => store.change_scan().await,
            Self::Postgres(store) => store.change_scan().await,
        }
    }

    /// The tombstones: the channels whose rockets were removed in about the last 30 days, and when.
    /// They may have rockets again.
    pub async fn forgotten(&self) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        match self {
            Self::Sqlite(store) => store.forgotten(),
            Self::Postgres(store) => store.forgotten().await,
        }
    }

    /// Notifies other instances of this process's changes. None if they find changes by polling.
    pub fn notifier(&self) -> Option<Notifier> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(store) => Some(Notifier(store.clone())),
        }
    }

    /// Subscribes to other processes' changes.
    pub async fn watch(&self) -> Result<Watch, StoreError> {
        match self {
            Self::Sqlite(store) => store.watch(),
            Self::Postgres(store) => store.watch().await,
        }
    }

    /// Audits the whole database in one consistent snapshot, and reports each problem.
    pub fn check(&self, found: &mut dyn FnMut(Finding)) -> Result<Audit, StoreError> {
        match self {
            Self::Sqlite(store) => store.check(found),
            Self::Postgres(store) => store.check(found),
        }
    }

    /// Copies the database to a file, from one snapshot, while others write to it. The copy is
    /// audited and synced before it gets its name.
    pub fn backup(&self, target: &Path, replace: bool) -> Result<Backup, BackupError> {
        match self {
            Self::Sqlite(store) => store.backup(target, replace),
            Self::Postgres(_) => Err(BackupError::Postgres),
        }
    }

    /// Removes a rocket, the record of its processed messages, and its losses. Returns whether it
    /// existed.
    pub fn forget(&self, channel: &Channel) -> Result<bool, StoreError> {
        let channels = std::slice::from_ref(channel);
        let forgotten = self.forget_matching(channels, &Filters::default(), Timestamp::FIRST)?;
        Ok(!forgotten.is_empty())
    }

    /// Removes those rockets of these channels that match the filters at this time, durably and in
    /// one transaction for each partition. Each rocket is matched in the transaction that removes
    /// it. Returns the channels of the rockets that were removed.
    pub fn forget_matching(
        &self,
        channels: &[Channel],
        filters: &Filters,
        now: Timestamp,
    ) -> Result<Vec<Channel>, StoreError> {
        match self {
            Self::Sqlite(store) => store.forget_matching(channels, filters, now),
            Self::Postgres(store) => store.forget_matching(channels, filters, now),
        }
    }

    /// Some rockets for another database, from one snapshot. Blocks.
    pub fn export(&self, query: &ExportQuery) -> Result<ExportPage, StoreError> {
        match self {
            Self::Sqlite(store) => store.export(query),
            Self::Postgres(store) => store.export(query),
        }
    }

    /// The tombstones that were recorded since a time, or all of them. Blocks.
    pub fn tombstones(
        &self,
        since: Option<Timestamp>,
    ) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        match self {
            Self::Sqlite(store) => store.tombstones(since),
            Self::Postgres(store) => store.tombstones(since),
        }
    }

    /// Merges what another database has exported, durably and in one transaction for each
    /// partition. Returns an outcome for each entry. `now` is the present time. A dry run changes
    /// nothing. Blocks.
    pub fn merge(
        &self,
        entries: &[MergeEntry],
        now: Timestamp,
        dry_run: bool,
    ) -> Result<Vec<MergeOutcome>, StoreError> {
        match self {
            Self::Sqlite(store) => store.merge(entries, now, dry_run),
            Self::Postgres(store) => store.merge(entries, now, dry_run),
        }
    }

    /// Distributes the tables over a cluster, in this many parts, or by default two for each
    /// worker. Returns false if they were distributed already.
    pub fn distribute(&self, partitions: Option<u16>) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(_) => Err(StoreError::NotACluster),
            Self::Postgres(store) => store.distribute(partitions),
        }
    }

    /// The failures that a test has planned.
    pub(crate) fn failures(&self) -> &Failures {
        match self {
            Self::Sqlite(store) => &store.failures,
            Self::Postgres(store) => &store.failures,
        }
    }

    /// Closes idle connections at the end. For SQLite, this copies the log into the file, which is
    /// then complete without it.
    pub fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.close(),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// The schema version: the number of the last migration.
    pub fn schema_version(&self) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(store) => store.schema_version(),
            Self::Postgres(store) => store.schema_version(),
        }
    }
}

#[derive(Debug)]
pub enum Writer {
    Sqlite(SqliteWriter),
    Postgres(PostgresWriter),
}

impl Writer {
    /// Commits a batch durably, and returns the outcome of each message, in order. `now` becomes
    /// the `last_received` of the rockets with new messages. There is one transaction for each
    /// partition. After an error the transaction of a partition is not committed, or, if the engine
    /// can't tell, possibly: it is safe to send the batch again.
    pub fn commit(
        &mut self,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<Vec<Outcome>, StoreError> {
        match self {
            Self::Sqlite(writer) => writer.commit(messages, now),
            Self::Postgres(writer) => writer.commit(messages, now),
        }
    }

    /// The best number of messages in a transaction if only total throughput matters. In larger
    /// transactions more messages share the rows of a channel, but others wait longer for the write
    /// lock, or for an answer.
    pub fn max_batch(&self) -> usize {
        match self {
            Self::Sqlite(_) => 98_304,
            Self::Postgres(_) => 32_768,
        }
    }

    /// Checks whether a batch for a partition could be committed now: takes the write lock, and
    /// writes without changing anything.
    pub fn probe(&mut self, partition: usize) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(writer) => writer.probe(),
            Self::Postgres(writer) => writer.probe(partition),
        }
    }
}

/// Reads single rockets for the requests of one worker thread.
#[derive(Clone, Debug)]
pub enum Reader {
    /// Concurrent reads share a snapshot.
    Sqlite(CoalescedReads),
    /// Each read has its own connection.
    Postgres(PostgresStore),
}

impl Reader {
    /// One rocket. Fast enough for a thread that serves others too: the work is bounded, and (on a
    /// file) never waits for a writer. It must be called within a `LocalSet`, as actix's workers
    /// are.
    pub async fn rocket(
        &self,
        channel: &Channel,
        view: View,
    ) -> Result<Option<RocketWithGaps>, StoreError> {
        match self {
            Self::Sqlite(reads) => reads.rocket(channel, view).await,
            Self::Postgres(store) => store.rocket(channel, view).await,
        }
    }
}

/// Notifies other instances of this process's changes. Their scans find changes without a
/// notification, but later.
#[derive(Clone, Debug)]
pub struct Notifier(PostgresStore);

impl Notifier {
    /// Notifies them of these changes; none means unspecified changes.
    pub async fn notify(&self, hints: Option<&ChangeHints>) -> Result<(), StoreError> {
        self.0.notify(hints).await
    }

    /// Like [`notify`](Self::notify), for threads without a runtime.
    pub fn notify_blocking(&self, hints: Option<&ChangeHints>) -> Result<(), StoreError> {
        self.0.notify_blocking(hints)
    }
}

/// Finds the rockets that any process has changed since the last scan. It compares stored rows and
/// uses no clocks, because the clocks of other machines and processes can't be trusted.
#[derive(Debug)]
pub enum ChangeScan {
    /// A database in memory, which no other process changes.
    Memory,
    /// Any process may change the file.
    Sqlite(SqliteScan),
    /// Any client may change the server's tables.
    Postgres(PostgresScan),
}

impl ChangeScan {
    /// Must be called when the store is back after a failure: the server may have crashed.
    pub fn rewind(&mut self) {
        match self {
            Self::Memory | Self::Sqlite(_) => {}
            Self::Postgres(scan) => scan.rewind(),
        }
    }

    /// The next changed rockets. After [`ScanProgress::Done`], the next call starts another scan.
    /// After an error, the scan is repeated.
    pub async fn next(&mut self) -> Result<ScanProgress, StoreError> {
        match self {
            Self::Memory => Ok(ScanProgress::Done),
            Self::Sqlite(scan) => scan.next().await,
            Self::Postgres(scan) => scan.next().await,
        }
    }
}

/// Receives notifications of other processes' changes.
#[derive(Debug)]
pub enum Watch {
    /// A database in memory, which no other process changes.
    Memory,
    /// Other processes on the same file.
    Sqlite(SqliteWatch),
    /// Other instances on the same server.
    Postgres(Box<PostgresWatch>),
}

impl Watch {
    /// Waits for the next notification. After an error, create another watch.
    pub async fn recv(&mut self) -> Result<Notified, StoreError> {
        match self {
            Self::Memory => std::future::pending().await,
            Self::Sqlite(watch) => watch.recv().await,
            Self::Postgres(watch) => watch.recv().await,
        }
    }

    /// How often to scan without a notification, because a process may die after its commit and
    /// before its notification.
    pub fn scan_interval(&self) -> Option<Duration> {
        match self {
            Self::Memory | Self::Sqlite(_) => None,
            Self::Postgres(_) => Some(Duration::from_secs(5)),
        }
    }
}
