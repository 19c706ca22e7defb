//! Connections: how they are opened, and which timeouts the server enforces for them.
//!
//! Work that a client abandons continues in the server unless the server ends it, too. It holds its
//! locks, and one of the server's limited connections. So the settings of a connection make the
//! server cancel slow work, and detect a lost client. The server's timeout is a little shorter than
//! the client's ([`PostgresUrl::patience`]): so its error says why, and the connection can be
//! reused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::error::{describe, is_encryption_failure};
use super::url::{PostgresUrl, TargetSession};
use crate::store::StoreError;

/// How much longer the client's timeout is than the server's.
const GRACE: Duration = Duration::from_secs(1);
/// How long work without a time limit, such as a migration, waits for locks.
const LONG_LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to respond to a test.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long closing a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);
/// How long to wait until a server process has ended, and how often to check.
const END_TIMEOUT: Duration = Duration::from_millis(500);
const END_POLL: Duration = Duration::from_millis(20);

/// The kind of work that a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkKind {
    /// Batches, pages and the like, which a request waits for.
    Bounded,
    /// Work without a time limit: migrations, the audit. Only waits for locks are limited.
    Long,
}

impl PostgresUrl {
    /// How long to wait for bounded work.
    pub(super) fn patience(&self) -> Duration {
        self.statement_timeout + GRACE
    }

    /// How long opening a database may take, without migrations.
    pub(super) fn opening_patience(&self) -> Duration {
        LONG_LOCK_TIMEOUT.max(self.acquire_timeout) + GRACE
    }

    /// The first statements on a new connection.
    pub(super) fn set_up(&self, work: WorkKind) -> String {
        let (statement, lock) = match work {
            // The lock timeout comes first, so that the error names the lock as the cause.
            WorkKind::Bounded => (self.statement_timeout, self.statement_timeout * 4 / 5),
            WorkKind::Long => (Duration::ZERO, LONG_LOCK_TIMEOUT),
        };
        // Keep-alives keep connections open through firewalls; sqlx can't send them, but the server
        // can. Servers before version 14, and on some systems, can't check whether the client is
        // connected.
        format!(
            "SET statement_timeout = {};
             SET lock_timeout = {};
             SELECT set_config('tcp_keepalives_idle', '60', false)
             WHERE current_setting('tcp_keepalives_idle')::bigint NOT BETWEEN 1 AND 60;
             DO $$ BEGIN
                 PERFORM set_config('client_connection_check_interval', '1000', false);
             EXCEPTION WHEN OTHERS THEN NULL;
             END $$;",
            statement.as_millis(),
            lock.as_millis()
        )
    }
}

/// Opens a connection to a suitable server, with a timeout.
pub(super) async fn connect(url: &PostgresUrl, work: WorkKind) -> Result<PgConnection, StoreError> {
    let connected =
        within(url.acquire_timeout, async { Ok(PgConnection::connect_with(&url.connect).await?) });
    let mut connection = connected.await?;
    within(
        url.acquire_timeout,
        set_up(&mut connection, AssertSqlSafe(url.set_up(work)), url.target),
    )
    .await?;
    Ok(connection)
}

/// Opens the first connection, and returns how it was reached. Where encryption is only preferred
/// and fails, for example because of a certificate in an unsupported format, all connections are
/// plain, as with libpq.
pub(super) async fn connect_first(
    url: &PostgresUrl,
    work: WorkKind,
) -> Result<(PgConnection, PostgresUrl), StoreError> {
    match connect(url, work).await {
        Ok(connection) => Ok((connection, url.clone())),
        Err(StoreError::Postgres(error))
            if url.prefers_encryption() && is_encryption_failure(&error) =>
        {
            let plain = url.without_encryption();
            // Only the first of both errors says why encryption failed.
            let connection = connect(&plain, work)
                .await
                .map_err(|_| describe(&error))
                .map_err(StoreError::NotEncrypted)?;
            tracing::warn!(
                error = describe(&error),
                "the connections to the server are not encrypted, because sslmode=prefer allows \
                 that"
            );
            Ok((connection, plain))
        }
        Err(error) => Err(error),
    }
}

/// Prepares a new connection with its first statements. Fails if the server is not suitable.
pub(super) async fn set_up(
    connection: &mut PgConnection,
    statements: AssertSqlSafe<String>,
    target: TargetSession,
) -> Result<(), StoreError> {
    connection.execute(statements).await?;
    check_target(target, connection).await
}

async fn check_target(
    target: TargetSession,
    connection: &mut PgConnection,
) -> Result<(), StoreError> {
    if target == TargetSession::Any {
        return Ok(());
    }
    let sql =
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean";
    let row = sqlx::query(sql).fetch_one(connection).await?;
    match (row.try_get(0)?, row.try_get(1)?) {
        (true, _) => Err(StoreError::WrongServer(
            "it is a standby, which target_session_attrs does not allow",
        )),
        (false, true) if target == TargetSession::ReadWrite => Err(StoreError::WrongServer(
            "its transactions are read-only, but target_session_attrs asks for read-write",
        )),
        _ => Ok(()),
    }
}

/// A server process. It is abandoned if the client no longer waits for its result.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pid: i32,
    /// When it started. A later process may get the same number.
    started: String,
}

/// Server processes that were abandoned, and may still run.
pub(super) type AbandonedBackends = Arc<Mutex<Vec<Backend>>>;

impl Backend {
    /// The process at the other end of a connection.
    pub(super) async fn of(connection: &mut PgConnection) -> Result<Self, StoreError> {
        let sql = "SELECT pid, extract(epoch FROM backend_start)::text FROM pg_stat_activity
                   WHERE pid = pg_backend_pid()";
        let row = sqlx::query(sql).fetch_one(connection).await?;
        Ok(Self { pid: row.try_get(0)?, started: row.try_get(1)? })
    }
}

/// Ends the abandoned processes. Fails if one of them continues: a commit that waits for a standby
/// or for the disk has no timeout, and doesn't detect that its client is gone. Without this, each
/// attempt would leave one more process, until the server accepts no more connections.
pub(super) async fn terminate(
    abandoned: &AbandonedBackends,
    connection: &mut PgConnection,
) -> Result<(), StoreError> {
    let backends = abandoned.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if backends.is_empty() {
        return Ok(());
    }
    let (pids, starts): (Vec<_>, Vec<_>) =
        backends.into_iter().map(|backend| (backend.pid, backend.started)).unzip();
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               JOIN unnest($1::int4[], $2::text[]) AS abandoned (pid, started) USING (pid)
               WHERE extract(epoch FROM backend_start)::text = started";
    let started = Instant::now();
    while !sqlx::query(sql).bind(&pids).bind(&starts).fetch_all(&mut *connection).await?.is_empty()
    {
        if started.elapsed() > END_TIMEOUT {
            return Err(StoreError::TimedOut);
        }
        tokio::time::sleep(END_POLL).await;
    }
    abandoned
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|backend| !pids.contains(&backend.pid));
    Ok(())
}

/// Whether the connection still works. The server may have closed it, or a firewall dropped it.
pub(super) async fn is_alive(connection: &mut PgConnection) -> bool {
    tokio::time::timeout(PING_TIMEOUT, connection.ping()).await.is_ok_and(|answer| answer.is_ok())
}

/// Closes a connection, with notice to the server if possible.
pub(super) async fn close(connection: PgConnection) {
    // It makes no difference here whether the server received it.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
}

/// Runs work with a timeout.
pub(super) async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(StoreError::TimedOut))
}
