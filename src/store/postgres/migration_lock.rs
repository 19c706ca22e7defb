//! The lock that lets one instance at a time inspect and migrate the schema.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::session::within;
use crate::store::StoreError;

/// The history of our migrations. Another program may have its own history in the same database.
pub(super) const HISTORY: &str = "rocket_monitor_schema_history";

/// The key of the advisory lock that is held while the tables are inspected and migrated:
/// "rockets!" in ASCII, plus the object identifier of their schema.
const LOCK: i64 = 0x726f_636b_6574_7321;

/// How long another instance may take to migrate.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(30);
/// How often to check whether it has finished.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Tries to take the lock for the schema that has the tables, or will have them.
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1 + coalesce(
    (SELECT relnamespace FROM pg_class WHERE oid = to_regclass($2)),
    (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))::bigint)";

/// Waits until no other instance migrates the schema, which may take long.
///
/// It is a session lock, because the migration's own transaction would release a transaction lock
/// too early. It would end with the connection, but a connection pooler may keep that open.
pub(super) async fn take_lock(
    connection: &mut PgConnection,
    patience: Duration,
) -> Result<(), StoreError> {
    let started = Instant::now();
    let mut is_logged = false;
    loop {
        let tried = async {
            Ok(sqlx::query_scalar(TRY_LOCK)
                .bind(LOCK)
                .bind(HISTORY)
                .fetch_one(&mut *connection)
                .await?)
        };
        if within(patience, tried).await? {
            return Ok(());
        }
        if started.elapsed() > MIGRATION_TIMEOUT {
            return Err(StoreError::TimedOut);
        }
        if !std::mem::replace(&mut is_logged, true) {
            tracing::info!("another instance is opening or migrating the database; waiting for it");
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}
