//! Postgres: a server that several instances share, and that analysts query.
//!
//! It contains the server's location (`url`, `password_file`), connections (`session`), opening and
//! migrating (`schema` and this file), how a cluster divides the rockets (`buckets`, `cluster`),
//! the write path (`write`, with its SQL in `statements` and values in `literal`), reads (`read`),
//! changes (`changes`), the audit (`check`) and error classification (`error`). Rules about
//! messages belong to the domain.

mod buckets;
mod changes;
mod check;
mod cluster;
mod error;
mod forget;
mod literal;
mod losses;
mod merge;
mod migration_lock;
mod missing;
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
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio::runtime::Runtime;

use super::fault_injection::Failures;
use super::{OpenError, OpenOptions, StoreError};
use crate::domain::text::Channel;
use buckets::Buckets;
pub use changes::{PostgresScan, PostgresWatch};
pub(super) use error::{describe, is_timeout};
use schema::OpenResult;
use session::{AbandonedBackends, WorkKind};
pub use url::PostgresUrl;
pub use write::PostgresWriter;

/// Starts a transaction for writing, whatever the server's defaults. Each statement sees everything
/// that was committed before it, also by transactions whose locks it waited for.
const BEGIN_TO_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// An open Postgres database. Cheap to clone.
#[derive(Clone)]
pub struct PostgresStore {
    url: PostgresUrl,
    pool: PgPool,
    pub(super) failures: Failures,
    abandoned: AbandonedBackends,
    buckets: Buckets,
    /// Identifies this instance.
    instance: u64,
    /// The notification channel of the instances on the same tables.
    notifications: Arc<str>,
    /// The instances may be connected to different nodes of a cluster.
    is_distributed: bool,
    /// Drives the readers' connections on a thread of its own.
    runtime: Arc<Background>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PostgresStore").field(&self.url).finish()
    }
}

/// A runtime that may be dropped anywhere, even in an asynchronous context.
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        // Dropping a runtime in an asynchronous context panics.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl PostgresStore {
    /// Opens a database, checks that it is ours, and migrates it if the options say so. Must not be
    /// called in an asynchronous context.
    pub fn open(url: &PostgresUrl, options: &OpenOptions) -> Result<Self, OpenError> {
        let database = || url.to_string();
        let engine = |source: StoreError| OpenError::Engine {
            database: database(),
            source: Box::new(source),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| engine(StoreError::Thread(error)))?;
        if let Some(ignored) = &url.ignored_file {
            tracing::warn!("{ignored}");
        }
        let opened = runtime.block_on(async {
            let (mut connection, url) = session::connect_first(url, WorkKind::Long).await?;
            let opened =
                schema::open(&mut connection, options.migrate, url.opening_patience()).await?;
            session::close(connection).await;
            Ok((opened, url))
        });
        let (opened, url) = opened.map_err(|error| explain(error, url)).map_err(engine)?;
        match opened {
            OpenResult::Refused(reason) => Err(OpenError::Refused { database: database(), reason }),
            OpenResult::Opened { buckets, notifications, is_distributed } => {
                let pool = {
                    // A pool must be created inside a runtime.
                    let _entered = runtime.enter();
                    pool(&url, &buckets, url.pool_size)
                };
                Ok(Self {
                    url,
                    pool,
                    failures: options.failures.clone(),
                    abandoned: AbandonedBackends::default(),
                    buckets,
                    instance: foldhash::fast::RandomState::default().hash_one(std::process::id()),
                    notifications: notifications.into(),
                    is_distributed,
                    runtime: Arc::new(Background(Some(runtime))),
                })
            }
        }
    }

    /// Creates a writer, which opens its own connection when it first needs it.
    pub fn writer(&self) -> Result<PostgresWriter, StoreError> {
        let abandoned = Arc::clone(&self.abandoned);
        PostgresWriter::new(
            self.url.clone(),
            self.failures.clone(),
            abandoned,
            self.buckets.clone(),
        )
    }

    /// See [`Store::partitions`](crate::store::Store::partitions).
    pub fn partitions(&self) -> usize {
        self.buckets.count()
    }

    /// See [`Store::partition_of`](crate::store::Store::partition_of).
    pub fn partition_of(&self, channel: &Channel) -> usize {
        self.buckets.index_of(channel.as_str())
    }

    /// The number of the last migration.
    pub fn schema_version(&self) -> Result<i64, StoreError> {
        self.wait(WorkKind::Bounded, async |connection| {
            Ok(schema::version(connection).await?.unwrap_or(0))
        })
    }

    /// See [`Store::distribute`](crate::store::Store::distribute).
    pub fn distribute(&self, buckets: Option<u16>) -> Result<bool, StoreError> {
        self.wait(WorkKind::Long, async |connection| cluster::distribute(connection, buckets).await)
    }

    /// Runs a task over a new connection, and waits for it. Must not be called in an asynchronous
    /// context.
    fn wait<T>(
        &self,
        work: WorkKind,
        task: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        runtime.block_on(async {
            let mut connection = self.connect(work).await?;
            let done = task(&mut connection).await;
            session::close(connection).await;
            done
        })
    }
}

impl PostgresStore {
    /// Opens a connection to the database, and checks that it has the buckets of this store.
    async fn connect(&self, work: WorkKind) -> Result<PgConnection, StoreError> {
        let mut connection = session::connect(&self.url, work).await?;
        session::within(self.url.patience(), self.buckets.lock(&mut connection)).await?;
        Ok(connection)
    }
}

/// Adds to a login error why the password file was ignored, if it was.
fn explain(error: StoreError, url: &PostgresUrl) -> StoreError {
    match (error, &url.ignored_file) {
        (StoreError::Postgres(error), Some(ignored)) if error::is_login_refused(&error) => {
            StoreError::NotLetIn(format!("{}; {ignored}", describe(&error)))
        }
        (error, _) => error,
    }
}

/// A pool of at most `size` connections, each tested before it is reused. An abandoned request
/// keeps its slot until the server has answered, so there are never more connections.
fn pool(url: &PostgresUrl, buckets: &Buckets, size: u32) -> PgPool {
    let (set_up, target): (Arc<str>, _) = (url.set_up(WorkKind::Bounded).into(), url.target);
    let buckets = buckets.clone();
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(url.acquire_timeout)
        .after_connect(move |connection, _| {
            let (set_up, buckets) = (AssertSqlSafe(set_up.to_string()), buckets.clone());
            Box::pin(async move {
                let prepared = async {
                    session::set_up(connection, set_up, target).await?;
                    buckets.lock(connection).await
                };
                prepared.await.map_err(|error| match error {
                    StoreError::Postgres(error) => error,
                    other => sqlx::Error::Configuration(other.into()),
                })
            })
        })
        // The pool's own test has no timeout: a connection dropped by a firewall would use up all
        // the time.
        .test_before_acquire(false)
        .before_acquire(|connection, _| {
            Box::pin(async move { Ok(session::is_alive(connection).await) })
        })
        .connect_lazy_with((*url.connect).clone())
}
