//! Postgres: a server that several instances share, and that analysts query.
//!
//! What lives here: where the server is (`url`, `password_file`), connections (`session`), opening and migrating (`schema`
//! and this file), the write path (`write`, its SQL in `statements`, values in it in `literal`), reads (`read`), what has
//! changed (`changes`), the audit's reading (`check`), what errors mean (`error`). What must not: rules about messages,
//! which are the domain's.

mod changes;
mod check;
mod error;
mod literal;
mod password_file;
mod read;
mod rows;
mod schema;
mod session;
mod statements;
mod url;
mod write;

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use tokio::runtime::Runtime;

use super::failure::Failures;
use super::{Database, FORGOTTEN_KEPT, OpenError, OpenOptions, StoreError};
use crate::domain::text::Channel;
pub use changes::{PostgresScan, PostgresWatch};
pub(super) use error::{describe, was_waited_for};
use schema::Opened;
use session::Work;
pub use url::PostgresUrl;
pub use write::PostgresWriter;

/// How many batches may be under way at a time: while one waits for its commit, another one works. With more of them,
/// each would hold fewer messages.
pub(super) const WRITERS: usize = 2;

/// Begins a transaction that writes, whatever the server's defaults are. Each statement sees what has been committed before
/// it, also by those whose locks were waited for.
const BEGIN_TO_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// An open Postgres database. Clones are the same database.
#[derive(Clone)]
pub struct PostgresStore {
    url: PostgresUrl,
    pool: PgPool,
    failures: Failures,
    /// Tells this instance from others.
    instance: u64,
    /// What instances on the same tables listen to.
    notifications: Arc<str>,
    /// Drives the connections of readers, on a thread of its own.
    runtime: Arc<Background>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PostgresStore").field(&self.url).finish()
    }
}

/// A runtime that may be dropped anywhere.
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        // Dropped in an asynchronous context, a runtime would panic.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl PostgresStore {
    /// Opens a database, checks that it is ours, and migrates it if the options say so. Not to be called in an
    /// asynchronous context.
    pub fn open(url: &PostgresUrl, options: &OpenOptions) -> Result<Self, OpenError> {
        let database = || Database::Postgres(url.clone());
        let engine = |source: StoreError| OpenError::Engine { database: database(), source: Box::new(source) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| engine(StoreError::Thread(error)))?;
        if let Some(ignored) = &url.ignored_file {
            tracing::warn!("{ignored}");
        }
        let opened = runtime.block_on(async {
            let mut connection = session::connect(url, Work::Long).await?;
            let opened = schema::open(&mut connection, options.migrate, url.opening_patience()).await?;
            session::close(connection).await;
            Ok(opened)
        });
        match opened.map_err(|error| explain(error, url)).map_err(engine)? {
            Opened::Refused(reason) => Err(OpenError::Refused { database: database(), reason }),
            Opened::Ours { schema } => {
                let pool = {
                    // A pool wants to be in a runtime when it is made.
                    let _entered = runtime.enter();
                    pool(url, url.pool_size)
                };
                Ok(Self {
                    url: url.clone(),
                    pool,
                    failures: options.failures.clone(),
                    instance: foldhash::fast::RandomState::default().hash_one(std::process::id()),
                    notifications: changes::channel(schema).into(),
                    runtime: Arc::new(Background(Some(runtime))),
                })
            }
        }
    }

    /// A writer with a connection of its own, which it makes when it first needs it.
    pub fn writer(&self) -> Result<PostgresWriter, StoreError> {
        PostgresWriter::new(self.url.clone(), self.failures.clone())
    }

    /// The number of the last migration.
    pub fn schema_version(&self) -> Result<i64, StoreError> {
        self.wait(Work::Bounded, async |connection| Ok(schema::version(connection).await?.unwrap_or(0)))
    }

    /// See [`Store::distribute`](crate::store::Store::distribute).
    pub fn distribute(&self) -> Result<bool, StoreError> {
        self.wait(Work::Long, schema::distribute)
    }

    /// Removes a rocket with all that was processed of it; whether there was one.
    pub fn forget(&self, channel: &Channel) -> Result<bool, StoreError> {
        let removed = self.wait(Work::Bounded, async |connection| {
            let mut transaction = connection.begin_with(BEGIN_TO_WRITE).await?;
            // Its row first, which every writer of the channel locks first.
            let [rocket, ranges] =
                ["DELETE FROM rockets WHERE channel = $1", "DELETE FROM processed_ranges WHERE channel = $1"];
            let removed = sqlx::query(rocket).bind(channel.as_str()).execute(&mut *transaction).await?;
            sqlx::query(ranges).bind(channel.as_str()).execute(&mut *transaction).await?;
            note_forgotten(&mut transaction, channel).await?;
            transaction.commit().await?;
            Ok(removed.rows_affected() > 0)
        })?;
        // Whoever doesn't hear it now finds the note.
        if let Err(error) = self.tell_now(None) {
            tracing::debug!(%error, "could not notify other instances");
        }
        Ok(removed)
    }

    /// Does something over a connection of its own, and waits for it. Not to be called in an asynchronous context.
    fn wait<T>(
        &self,
        work: Work,
        task: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        runtime.block_on(async {
            let mut connection = session::connect(&self.url, work).await?;
            let done = task(&mut connection).await;
            session::close(connection).await;
            done
        })
    }
}

/// Adds to an error why the password file was of no use, if it could have been.
fn explain(error: StoreError, url: &PostgresUrl) -> StoreError {
    match (error, &url.ignored_file) {
        (StoreError::Postgres(error), Some(ignored)) if error::is_not_let_in(&error) => {
            StoreError::NotLetIn(format!("{}; {ignored}", describe(&error)))
        }
        (error, _) => error,
    }
}

/// So many connections, each checked before it is used again. Whoever is given up keeps his place until the server has
/// answered, so that there are never more of them.
fn pool(url: &PostgresUrl, size: u32) -> PgPool {
    let set_up: Arc<str> = url.set_up(Work::Bounded).into();
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(url.acquire_timeout)
        .after_connect(move |connection, _| {
            let set_up = AssertSqlSafe(set_up.to_string());
            Box::pin(async move { connection.execute(set_up).await.map(|_| ()) })
        })
        // The pool's own test has no bound: a connection that a firewall dropped would take all of the time.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(async move { Ok(session::is_alive(connection).await) }))
        .connect_lazy_with((*url.connect).clone())
}

async fn note_forgotten(connection: &mut PgConnection, channel: &Channel) -> Result<(), StoreError> {
    // By the server's clock, which is one for all instances.
    let old = "DELETE FROM rockets_forgotten WHERE forgotten_at < clock_timestamp() - make_interval(secs => $1)";
    sqlx::query(old).bind(FORGOTTEN_KEPT.as_secs_f64()).execute(&mut *connection).await?;
    let note = "INSERT INTO rockets_forgotten (channel, forgotten_at) VALUES ($1, clock_timestamp())
                ON CONFLICT (channel) DO UPDATE SET forgotten_at = excluded.forgotten_at";
    sqlx::query(note).bind(channel.as_str()).execute(connection).await?;
    Ok(())
}
