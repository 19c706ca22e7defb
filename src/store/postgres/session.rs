//! Connections: how one is made, and what the server bounds for it.
//!
//! Whatever a program gives up goes on in the server, unless the server ends it, too: it holds its locks and a connection
//! of which the server has only so many. So the server is told to end by itself what takes too long, and to notice when
//! nobody waits any more. It does so a little before this side gives up ([`PostgresUrl::patience`]): then its answer says
//! why, and the connection is as good as before.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::url::{PostgresUrl, TargetSession};
use crate::store::StoreError;

/// How much longer this side waits than the server is allowed to take.
const GRACE: Duration = Duration::from_secs(1);
/// How long whoever may take long, as a migration may, waits for others' locks.
const LONG_LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to show that it is still there.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Batches, pages and the like, for which somebody waits.
    Bounded,
    /// What may take long: migrations, the audit. It only doesn't wait long for locks.
    Long,
}

impl PostgresUrl {
    /// How long to wait for what the server bounds.
    pub(super) fn patience(&self) -> Duration {
        self.statement_timeout + GRACE
    }

    /// How long opening a database may take, but for migrations.
    pub(super) fn opening_patience(&self) -> Duration {
        LONG_LOCK_TIMEOUT.max(self.acquire_timeout) + GRACE
    }

    /// What a new connection is to be sent before anything else.
    pub(super) fn set_up(&self, work: Work) -> String {
        let (statement, lock) = match work {
            // A wait for a lock ends first, so that the error says what was waited for.
            Work::Bounded => (self.statement_timeout, self.statement_timeout * 4 / 5),
            Work::Long => (Duration::ZERO, LONG_LOCK_TIMEOUT),
        };
        // By keep-alives connections outlive firewalls; sqlx can't send them, but the server can. Servers before
        // version 14, and on some systems, can't look whether the other side is still there.
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

/// A new connection, made in time, to a server that will do.
pub(super) async fn connect(url: &PostgresUrl, work: Work) -> Result<PgConnection, StoreError> {
    let connected = within(url.acquire_timeout, async { Ok(PgConnection::connect_with(&url.connect).await?) });
    let mut connection = connected.await?;
    within(url.acquire_timeout, async {
        connection.execute(AssertSqlSafe(url.set_up(work))).await?;
        is_wanted(url.target, &mut connection).await
    })
    .await?;
    Ok(connection)
}

async fn is_wanted(target: TargetSession, connection: &mut PgConnection) -> Result<(), StoreError> {
    if target == TargetSession::Any {
        return Ok(());
    }
    let sql = "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean";
    let row = sqlx::query(sql).fetch_one(connection).await?;
    match (row.try_get(0)?, row.try_get(1)?) {
        (true, _) => Err(StoreError::WrongServer("it is a standby, but target_session_attrs asks for a primary")),
        (false, true) if target == TargetSession::ReadWrite => {
            Err(StoreError::WrongServer("its transactions are read-only, but target_session_attrs asks for read-write"))
        }
        _ => Ok(()),
    }
}

/// Whether the server is still at the other end of a connection: it may have closed it, or a firewall dropped it.
pub(super) async fn is_alive(connection: &mut PgConnection) -> bool {
    tokio::time::timeout(PING_TIMEOUT, connection.ping()).await.is_ok_and(|answer| answer.is_ok())
}

/// Closes a connection, politely if possible, so that the server knows at once.
pub(super) async fn close(connection: PgConnection) {
    // Whether the server heard it makes no difference here.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
}

/// Does something, or gives it up in time.
pub(super) async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(StoreError::TimedOut))
}
