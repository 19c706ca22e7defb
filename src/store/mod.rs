//! Where the state is kept: what a store can do, whichever engine it is.
//!
//! A store loads, commits and reads. It holds no rules: what a batch comes to is the [domain](crate::domain)'s to say,
//! and which batch a message goes into is [ingest](crate::ingest)'s. This file is the only place where the engine is
//! chosen; nobody else knows which one it is.

mod audit;
pub mod changes;
mod database;
pub mod failure;
mod known;
mod listing;
mod merge;
pub mod postgres;
pub mod query;
pub mod report;
pub mod sqlite;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::batch::Outcome;
use crate::domain::message::Message;
use crate::domain::rocket::{Rocket, State, View};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use changes::{ChangeScan, Touches, Watch};
pub use database::{Database, may_hold_password};
use failure::Failures;
use postgres::{PostgresStore, PostgresWriter};
use query::{Page, RocketQuery};
use report::{Report, ReportRows, Value};
use sqlite::{SqliteStore, SqliteWriter};

/// How to open a database.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Make the database if there is none, and bring its schema up to date; otherwise both must be so already.
    pub migrate: bool,
    /// Where writes shall fail, for tests.
    pub failures: Failures,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { migrate: true, failures: Failures::default() }
    }
}

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not ours to write to; it was left untouched. The text says what it is instead, and what to do.
    #[error("{database}: {reason}")]
    Refused {
        /// Which database.
        database: Database,
        /// What it is, and what to do.
        reason: String,
    },
    /// The engine failed.
    #[error("{database}: {source}")]
    Engine {
        /// Which database.
        database: Database,
        /// What the engine said.
        source: Box<StoreError>,
    },
}

/// Why a store could not do what it was asked for. Nothing was half done, and asking again later is right.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed or is locked by another process.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Postgres failed, or can't be reached.
    #[error("Postgres: {}", postgres::describe(.0))]
    Postgres(#[from] sqlx::Error),
    /// Postgres doesn't let the user in, and why the password may be missing.
    #[error("Postgres: {0}")]
    NotLetIn(String),
    /// It is not a server of the kind that was asked for.
    #[error("this server can't be used: {0}")]
    WrongServer(&'static str),
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
    /// The database's files are not those that are open.
    #[error(transparent)]
    FileChanged(#[from] sqlite::FileChange),
    /// The database's files can't be looked at.
    #[error("the database's files can't be checked: {0}")]
    Files(#[from] std::io::Error),
    /// What is in the place of a database that was open is none.
    #[error("the file that is now at the database's path can't be used: {0}")]
    Unusable(String),
    /// SQLite's write-ahead log can't be synced.
    #[error("the write-ahead log can't be synced: {0}")]
    Log(std::io::Error),
    /// A row holds what no version of the program writes.
    #[error("the database is damaged (`check` shows where): {0}")]
    Damaged(String),
    /// A migration failed.
    #[error("the migration failed: {0}")]
    Migration(String),
    /// A test wanted it so.
    #[error("a failure was injected {0}")]
    Injected(&'static str),
    /// The code that should have done it stopped before it was done.
    #[error("the work on the database was interrupted")]
    BrokenOff,
}

impl StoreError {
    /// Whether it took a wait for the store to find out, which the next one would have to wait again.
    pub fn was_waited_for(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy),
            Self::Postgres(error) => postgres::was_waited_for(error),
            _ => false,
        }
    }
}

/// Something that is wrong in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The channel; none if the damage is the file's.
    pub channel: Option<String>,
    /// What is wrong.
    pub detail: String,
}

/// What an audit saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// How many channels there are.
    pub channels: u64,
    /// How many processed ranges there are.
    pub ranges: u64,
}

/// A copy of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// How many channels it has.
    pub channels: u64,
    /// How many processed ranges.
    pub ranges: u64,
    /// Its length.
    pub bytes: u64,
}

/// Why there is no copy of a database.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It would be the only copy.
    #[error("a database in memory exists only inside its process; there is nothing to copy")]
    Memory,
    /// The target is there already.
    #[error("{} already exists; give another name, or use --replace to overwrite it", .0.display())]
    Exists(PathBuf),
    /// The target is the database itself, or belongs to it.
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
    /// The copy is not sound, and so the original isn't.
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

/// A rocket with the first of its gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketWithGaps {
    /// The rocket.
    pub rocket: Rocket,
    /// The first [`GAPS_TOLD`] missing ranges below the highest processed number, inclusive on both sides.
    pub gaps: Vec<(i64, i64)>,
}

/// A rocket in both views, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketInBothViews {
    /// The best-effort view, with the first of the gaps.
    pub best_effort: RocketWithGaps,
    /// The state in the exact view.
    pub exact: State,
}

/// How long it is noted that a rocket was forgotten.
const FORGOTTEN_KEPT: Duration = Duration::from_secs(3_600);

/// How many gaps of a rocket are told.
pub const GAPS_TOLD: usize = 100;

/// An open database, to read from and to make writers of. Clones are the same store.
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

    /// How many writers it takes to keep the engine busy.
    pub fn writers(&self) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(_) => postgres::WRITERS,
        }
    }

    /// A new writer. Several are safe, also in several processes, but one at a time commits.
    pub fn writer(&self) -> Result<Writer, StoreError> {
        match self {
            Self::Sqlite(store) => store.writer().map(Writer::Sqlite),
            Self::Postgres(store) => store.writer().map(Writer::Postgres),
        }
    }

    /// One rocket. Quick enough for a thread that serves others too: its work is bounded and waits for no writer (on a
    /// file).
    pub async fn rocket(&self, channel: &Channel, view: View) -> Result<Option<RocketWithGaps>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rocket(channel, view),
            Self::Postgres(store) => store.rocket(channel, view).await,
        }
    }

    /// One rocket in both views, read in one snapshot. As quick as [`rocket`](Self::rocket).
    pub async fn rocket_in_both_views(&self, channel: &Channel) -> Result<Option<RocketInBothViews>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rocket_in_both_views(channel),
            Self::Postgres(store) => store.rocket_in_both_views(channel).await,
        }
    }

    /// Whether it is cheaper to ask for several rockets at once than for each.
    pub fn reads_together(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// What [`rocket`](Self::rocket) says of each of these; as quick for each as that is.
    pub async fn rockets_at_once<'a>(
        &self,
        asked: impl Iterator<Item = (&'a Channel, View)>,
    ) -> Result<Vec<Option<RocketWithGaps>>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rockets_at_once(asked),
            Self::Postgres(store) => {
                let mut found = Vec::new();
                for (channel, view) in asked {
                    found.push(store.rocket(channel, view).await?);
                }
                Ok(found)
            }
        }
    }

    /// Whether any page takes long at present, for all rockets have to be sorted for it: as the last one was read.
    pub fn sorts_all(&self) -> bool {
        match self {
            Self::Sqlite(store) => store.sorts_all(),
            Self::Postgres(_) => false,
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

    /// A report, as far as so many rows. It reads the whole fleet.
    pub async fn report(&self, report: Report, limit: u32) -> Result<ReportRows, StoreError> {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                let read = tokio::task::spawn_blocking(move || store.report(report, limit));
                read.await.unwrap_or(Err(StoreError::BrokenOff))
            }
            Self::Postgres(store) => store.report(report, limit).await,
        }
    }

    /// The same for those who are not asynchronous.
    pub fn report_now(&self, report: Report, limit: u32) -> Result<ReportRows, StoreError> {
        match self {
            Self::Sqlite(store) => store.report(report, limit),
            Self::Postgres(store) => store.report_now(report, limit),
        }
    }

    /// Hands every row of a report to `each`, until that breaks off. For callers that are not
    /// asynchronous.
    ///
    /// It may take as long as its caller does. On Postgres, rows are read as they are wanted; on
    /// SQLite, all of them are in memory first.
    pub fn report_rows(
        &self,
        report: Report,
        each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => {
                for row in store.report(report, u32::MAX)?.rows {
                    if each(row).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Self::Postgres(store) => store.report_rows(report, each),
        }
    }

    /// The rockets of these channels, in any order, as they are now; those that there are.
    pub async fn rockets_of(&self, channels: &[Channel]) -> Result<Vec<Rocket>, StoreError> {
        match self {
            Self::Sqlite(store) => store.rockets_of(channels),
            Self::Postgres(store) => store.rockets_of(channels).await,
        }
    }

    /// A scan that finds what changes from now on. Beginning it, and each look, takes a look at every rocket; on SQLite the
    /// calling thread does it.
    pub async fn change_scan(&self) -> Result<ChangeScan, StoreError> {
        match self {
            Self::Sqlite(store) => store.change_scan().await,
            Self::Postgres(store) => store.change_scan().await,
        }
    }

    /// The channels that have been forgotten lately, and when, for about an hour. There may be rockets of them again.
    pub async fn forgotten(&self) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        match self {
            Self::Sqlite(store) => store.forgotten(),
            Self::Postgres(store) => store.forgotten().await,
        }
    }

    /// Whether others have to be told what this process commits.
    pub fn is_to_tell(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Tells the other instances what this one has committed; none: something.
    pub async fn tell(&self, touches: Option<&Touches>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(store) => store.tell(touches).await,
        }
    }

    /// The same for those who are not asynchronous.
    pub fn tell_now(&self, touches: Option<&Touches>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(store) => store.tell_now(touches),
        }
    }

    /// Begins to hear what others change.
    pub async fn watch(&self) -> Result<Watch, StoreError> {
        match self {
            Self::Sqlite(store) => store.watch(),
            Self::Postgres(store) => store.watch().await,
        }
    }

    /// Audits the whole database in one consistent snapshot, and tells of each thing that is wrong.
    pub fn check(&self, found: &mut dyn FnMut(Finding)) -> Result<Audit, StoreError> {
        match self {
            Self::Sqlite(store) => store.check(found),
            Self::Postgres(store) => store.check(found),
        }
    }

    /// Removes a rocket with all that was processed of it; whether there was one.
    pub fn forget(&self, channel: &Channel) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(store) => store.forget(channel),
            Self::Postgres(store) => store.forget(channel),
        }
    }

    /// Distributes the tables over a cluster; whether that was still to be done.
    pub fn distribute(&self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(_) => Err(StoreError::NotACluster),
            Self::Postgres(store) => store.distribute(),
        }
    }

    /// Closes what is open but not in use, in the end. SQLite's log is applied to the file, which is complete by itself then.
    pub fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.close(),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// The schema's version: the number of its last migration.
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
    /// Commits a batch durably, and tells each message's outcome in the order of the messages. `now` becomes the
    /// `last_received` of the rockets that had new ones. On an error nothing is committed, or, if the engine could not
    /// tell, all is: sending the batch again is safe.
    pub fn commit(&mut self, messages: &[Message], now: Timestamp) -> Result<Vec<Outcome>, StoreError> {
        match self {
            Self::Sqlite(writer) => writer.commit(messages, now),
            Self::Postgres(writer) => writer.commit(messages, now),
        }
    }

    /// How many messages a transaction takes best when all that matters is how soon all are stored. The more there are, the
    /// more of a channel's messages share its rows; and the longer others wait for the write lock, or for an answer.
    pub fn large_batch(&self) -> usize {
        match self {
            Self::Sqlite(_) => 98_304,
            Self::Postgres(_) => 32_768,
        }
    }

    /// Does some of what commits have put off, for when nothing is waiting to be committed, and looks whether others have
    /// written. Whether there is more to do.
    pub fn tidy(&mut self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(writer) => writer.tidy(),
            Self::Postgres(_) => Ok(false),
        }
    }

    /// Whether a batch could be committed now: takes the write lock, and writes without changing anything.
    pub fn probe(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(writer) => writer.probe(),
            Self::Postgres(writer) => writer.probe(),
        }
    }
}
