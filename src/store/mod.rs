//! Storage: what a store can do, for both engines.
//!
//! A store loads, commits and reads. It holds no rules: the [domain](crate::domain) decides the
//! outcome of a batch, and [ingest](crate::ingest) decides which batch a message goes into. This
//! file chooses the engine. Outside this module, only `backup` depends on it.

mod audit;
pub mod changes;
mod columns;
mod database;
pub mod fault_injection;
mod page;
pub mod postgres;
mod range_cache;
pub mod report;
pub mod sqlite;
mod upsert;

use std::ops::{ControlFlow, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::domain::query::{Page, RocketQuery};
use crate::domain::rocket::{Rocket, RocketState, View};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use changes::{ChangeHints, ChangeScan, Watch};
pub use database::{Database, may_hold_password};
use fault_injection::Failures;
use postgres::{PostgresStore, PostgresWriter};
use report::{Report, ReportRows, Value};
use sqlite::{SqliteStore, SqliteWriter};

const MIB: u64 = 1024 * 1024;
const LOG_BYTES: RangeInclusive<u64> = 32 * MIB..=256 * MIB;

/// How to open a database.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Create the database if it doesn't exist, and bring its schema up to date. Without this, both
    /// must be done already.
    pub migrate: bool,
    /// Where writes fail, for tests.
    pub failures: Failures,
    /// SQLite's log is copied into the database when it is as long as that, within these bounds.
    pub log_bytes: RangeInclusive<u64>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { migrate: true, failures: Failures::default(), log_bytes: LOG_BYTES }
    }
}

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not our database, and was left untouched. The text says what it is, and what to do.
    #[error("{database}: {reason}")]
    Refused {
        /// The database.
        database: Database,
        /// What it is, and what to do.
        reason: String,
    },
    /// The engine failed.
    #[error("{database}: {source}")]
    Engine {
        /// The database.
        database: Database,
        /// The engine's error.
        source: Box<StoreError>,
    },
}

/// Why a store could not do something. Nothing was half done, and it is safe to retry later.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed or is locked by another process.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Postgres failed, or can't be reached.
    #[error("Postgres: {}", postgres::describe(.0))]
    Postgres(#[from] sqlx::Error),
    /// Postgres refuses the login. The text also says why the password may be missing.
    #[error("Postgres: {0}")]
    NotLetIn(String),
    /// The connection can be neither encrypted, for this reason, nor plain.
    #[error("Postgres: {0}, and a connection without encryption fails, too")]
    NotEncrypted(String),
    /// It is not the kind of server that was asked for.
    #[error("this server can't be used: {0}")]
    WrongServer(&'static str),
    /// The tables are not distributed as they were when they were opened.
    #[error("{0}")]
    Divided(&'static str),
    /// The tables can't be distributed, for this reason.
    #[error("the tables can't be distributed: {0}")]
    NotDistributable(&'static str),
    /// The tables can't be distributed.
    #[error(
        "distributing the tables needs the Postgres extension citus; install it on every node, and \
         run CREATE EXTENSION citus in this database"
    )]
    NotACluster,
    /// The database did not answer in time.
    #[error("the database did not answer in time")]
    TimedOut,
    /// A thread can't be started.
    #[error("can't start a thread: {0}")]
    Thread(std::io::Error),
    /// The database's files are no longer those that are open.
    #[error(transparent)]
    FileChanged(#[from] sqlite::FileChange),
    /// The database's files can't be examined.
    #[error("the database's files can't be checked: {0}")]
    Files(#[from] std::io::Error),
    /// The file in the place of a database that was open is not a usable database.
    #[error("the file that is now at the database's path can't be used: {0}")]
    Unusable(String),
    /// SQLite's write-ahead log can't be synced.
    #[error("the write-ahead log can't be synced: {0}")]
    Log(std::io::Error),
    /// A row holds something that no version of the program writes.
    #[error("the database is damaged (`check` shows where): {0}")]
    Damaged(String),
    /// A migration failed.
    #[error("the migration failed: {0}")]
    Migration(String),
    /// Injected by a test.
    #[error("a failure was injected {0}")]
    Injected(&'static str),
    /// The work was aborted, for example by a panic.
    #[error("the work on the database was interrupted")]
    BrokenOff,
}

impl StoreError {
    /// Whether the store found out only after a wait, which another attempt would repeat.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Sqlite(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
            }
            Self::Postgres(error) => postgres::is_timeout(error),
            _ => false,
        }
    }
}

/// A problem in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The channel; none if the file itself is damaged.
    pub channel: Option<String>,
    /// The problem.
    pub detail: String,
}

/// The totals of an audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// The number of channels.
    pub channels: u64,
    /// The number of processed ranges.
    pub ranges: u64,
}

/// A copy of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The number of channels.
    pub channels: u64,
    /// The number of processed ranges.
    pub ranges: u64,
    /// The length of the file.
    pub bytes: u64,
}

/// Why a database can't be backed up.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A database in memory can't be backed up.
    #[error("a database in memory exists only inside its process; there is nothing to copy")]
    Memory,
    /// The target already exists.
    #[error("{} already exists; give another name, or use --replace to overwrite it", .0.display())]
    Exists(PathBuf),
    /// The target is the database itself, or one of its files.
    #[error("{} is the database to copy, or one of its files; give another name", .0.display())]
    Source(PathBuf),
    /// The target is a database that a process has open.
    #[error(
        "{} is a database that is in use: stop the program that has it open, or give another name",
        .0.display()
    )]
    InUse(PathBuf),
    /// The target can't be a file.
    #[error("{}: {reason}", path.display())]
    Target {
        /// The target.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// The copy is damaged, so the original is too.
    #[error("the database is damaged (`check` lists all problems): {}: {}",
            .0.channel.as_deref().unwrap_or("the file"), .0.detail)]
    Damaged(Finding),
    /// The copy can't be written.
    #[error("the copy can't be written: {0}")]
    Io(#[from] std::io::Error),
    /// The copy can't be opened.
    #[error("the copy can't be opened: {0}")]
    Open(#[from] OpenError),
    /// SQLite failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A rocket with its first gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketWithGaps {
    /// The rocket.
    pub rocket: Rocket,
    /// The first [`GAPS_TOLD`] missing ranges below the highest processed number, both ends
    /// inclusive.
    pub gaps: Vec<(i64, i64)>,
}

/// A rocket in both views, from one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketInBothViews {
    /// The best-effort view, with the first gaps.
    pub best_effort: RocketWithGaps,
    /// The state in the exact view.
    pub exact: RocketState,
}

/// How long tombstones of removed rockets are kept.
const FORGOTTEN_KEPT: Duration = Duration::from_secs(3_600);

/// The most gaps of a rocket that are returned.
pub const GAPS_TOLD: usize = 100;

/// An open database for reading and for creating writers. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Store {
    /// Embedded SQLite.
    Sqlite(SqliteStore),
    /// A Postgres server.
    Postgres(PostgresStore),
}

impl Store {
    /// Opens a database.
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

    /// One rocket. Fast enough for a thread that serves others too: the work is bounded, and (on a
    /// file) never waits for a writer.
    pub async fn rocket(
        &self,
        channel: &Channel,
        view: View,
    ) -> Result<Option<RocketWithGaps>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rocket(channel, view),
            Self::Postgres(store) => store.rocket(channel, view).await,
        }
    }

    /// One rocket in both views, read in one snapshot. As fast as [`rocket`](Self::rocket).
    pub async fn rocket_in_both_views(
        &self,
        channel: &Channel,
    ) -> Result<Option<RocketInBothViews>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rocket_in_both_views(channel),
            Self::Postgres(store) => store.rocket_in_both_views(channel).await,
        }
    }

    /// Whether reading several rockets at once is cheaper than one by one.
    pub fn coalesces_reads(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// The results of [`rocket`](Self::rocket) for each of these, each as fast.
    pub async fn rockets_by_channels<'a>(
        &self,
        asked: impl Iterator<Item = (&'a Channel, View)>,
    ) -> Result<Vec<Option<RocketWithGaps>>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rockets_by_channels(asked),
            Self::Postgres(store) => {
                let mut found = Vec::new();
                for (channel, view) in asked {
                    found.push(store.rocket(channel, view).await?);
                }
                Ok(found)
            }
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

    /// A report with at most `limit` rows. It reads the whole fleet.
    pub async fn report(&self, report: Report, limit: u32) -> Result<ReportRows, StoreError> {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || store.report_at_once(report, limit));
                read.await.unwrap_or(Err(StoreError::BrokenOff))
            }
            Self::Postgres(store) => store.report(report, limit).await,
        }
    }

    /// Like [`report`](Self::report), but blocking.
    pub fn report_blocking(&self, report: Report, limit: u32) -> Result<ReportRows, StoreError> {
        match self {
            Self::Sqlite(store) => store.report(report, limit),
            Self::Postgres(store) => store.report_blocking(report, limit),
        }
    }

    /// Hands every row of a report to `each`, until that breaks off. For callers that are not
    /// asynchronous.
    ///
    /// It may take as long as its caller does. Rows are read as they are wanted, from one snapshot:
    /// meanwhile, SQLite's log can't be truncated.
    pub fn report_rows(
        &self,
        report: Report,
        each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.report_rows(report, each),
            Self::Postgres(store) => store.report_rows(report, each),
        }
    }

    /// The current state of these channels' rockets, in any order, without those that don't exist.
    pub async fn rockets_of(&self, channels: &[Channel]) -> Result<Vec<Rocket>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rockets_of(channels),
            Self::Postgres(store) => store.rockets_of(channels).await,
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

    /// The channels whose rockets were removed in about the last hour, and when. They may have
    /// rockets again.
    pub async fn forgotten(&self) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        match self {
            Self::Sqlite(store) => store.forgotten(),
            Self::Postgres(store) => store.forgotten().await,
        }
    }

    /// Whether other instances must be notified of this process's commits.
    pub fn notifies_others(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Notifies other instances of this process's changes; none means unspecified changes.
    pub async fn notify(&self, hints: Option<&ChangeHints>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(store) => store.notify(hints).await,
        }
    }

    /// Like [`notify`](Self::notify), but blocking.
    pub fn notify_blocking(&self, hints: Option<&ChangeHints>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(store) => store.notify_blocking(hints),
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

    /// Removes a rocket and the record of its processed messages. Returns whether it existed.
    pub fn forget(&self, channel: &Channel) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(store) => store.forget(channel),
            Self::Postgres(store) => store.forget(channel),
        }
    }

    /// Distributes the tables over a cluster, in this many parts, or a number that suits its size.
    /// Returns false if they already were.
    pub fn distribute(&self, partitions: Option<u16>) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(_) => Err(StoreError::NotACluster),
            Self::Postgres(store) => store.distribute(partitions),
        }
    }

    /// Closes idle connections at the end. For SQLite, this moves the log into the file, which is
    /// then complete by itself.
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

/// Commits batches.
#[derive(Debug)]
pub enum Writer {
    /// Into SQLite.
    Sqlite(SqliteWriter),
    /// Into Postgres.
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

    /// The best size of a transaction if only total throughput matters. In larger transactions more
    /// messages share the rows of a channel, but others wait longer for the write lock, or for an
    /// answer.
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
