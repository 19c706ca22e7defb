//! Citus: distributes the tables over the nodes of a cluster.
//!
//! Each bucket is in a shard of its own, so that Citus can place and move it independently. All
//! tables with a bucket are divided alike, so that the rows of a bucket are on one node.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::buckets::{self, SQL_HASH};
use super::migration_lock::{self, HISTORY};
use super::{BEGIN_TO_WRITE, session};
use crate::store::StoreError;

/// The tables that are distributed like `rocket_buckets`.
const TABLES: [&str; 5] =
    ["rockets", "processed_ranges", "losses", "rockets_forgotten", "rockets_merged"];

/// How long the server may take to detect that a connection was closed.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const DISCONNECT_POLL: Duration = Duration::from_millis(50);

/// Whether this is a node of a cluster over which the tables are distributed.
pub(super) async fn is_distributed(connection: &mut PgConnection) -> Result<bool, StoreError> {
    Ok(distribution_column(connection, "rockets").await?.is_some())
}

/// The column by which a table is distributed; none if it isn't.
async fn distribution_column(
    connection: &mut PgConnection,
    table: &str,
) -> Result<Option<String>, StoreError> {
    if !is_installed(connection).await? {
        return Ok(None);
    }
    let sql = "SELECT distribution_column FROM citus_tables WHERE table_name = to_regclass($1)";
    Ok(sqlx::query_scalar(sql).bind(table).fetch_optional(connection).await?)
}

async fn is_installed(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) > 0 FROM pg_extension WHERE extname = 'citus'";
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}

/// Distributes the tables by buckets over the nodes of a Citus cluster. Returns false if that was
/// already done.
pub(super) async fn distribute(
    connection: &mut PgConnection,
    count: Option<u16>,
) -> Result<bool, StoreError> {
    if !is_installed(connection).await? {
        return Err(StoreError::NotACluster);
    }
    migration_lock::take_lock(connection, session::PING_TIMEOUT).await?;
    if distribution_column(connection, "rockets").await?.as_deref() == Some("bucket") {
        return Ok(false);
    }
    if !has_exclusive_use(connection).await? {
        return Err(StoreError::NotDistributable(
            "the database is in use; stop all instances and commands first",
        ));
    }
    let count = match count {
        Some(count) => count,
        None => default_count(connection).await?,
    };
    let mut transaction = connection.begin_with(BEGIN_TO_WRITE).await?;
    // Several tables are changed, each on all nodes.
    sqlx::query("SET LOCAL citus.multi_shard_modify_mode = sequential")
        .execute(&mut *transaction)
        .await?;
    undistribute(&mut transaction).await?;
    let buckets = create_buckets(&mut transaction, count).await?;
    for table in TABLES {
        move_to_buckets(&mut transaction, table, &buckets).await?;
    }
    // Instances may be connected to any node.
    let replicate = "SELECT create_reference_table($1::text::regclass)";
    sqlx::query(replicate).bind(HISTORY).execute(&mut *transaction).await?;
    transaction.commit().await?;
    // The rows that have been copied are still in the local table.
    for table in TABLES {
        let sql = "SELECT truncate_local_data_after_distributing_table($1::text::regclass)";
        sqlx::query(sql).bind(table).execute(&mut *connection).await?;
    }
    Ok(true)
}

/// Whether no other connection uses the database. A server detects a little late that a program,
/// perhaps the one that has just migrated, has closed its connections.
async fn has_exclusive_use(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let started = Instant::now();
    while !buckets::try_lock(connection).await? {
        if started.elapsed() > DISCONNECT_TIMEOUT {
            return Ok(false);
        }
        tokio::time::sleep(DISCONNECT_POLL).await;
    }
    Ok(true)
}

/// Two buckets for each worker, and no more, because with fewer buckets the batches are larger.
async fn default_count(connection: &mut PgConnection) -> Result<u16, StoreError> {
    let sql = "SELECT count(*)::integer FROM citus_get_active_worker_nodes()";
    let workers: i32 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(u16::try_from(workers).unwrap_or(u16::MAX).clamp(1, 128).next_power_of_two() * 2)
}

/// Makes tables local again that an earlier version has distributed by channel.
async fn undistribute(connection: &mut PgConnection) -> Result<(), StoreError> {
    for table in ["processed_ranges", "rockets"] {
        if distribution_column(connection, table).await?.is_some() {
            let sql = "SELECT undistribute_table($1::text::regclass)";
            sqlx::query(sql).bind(table).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// Creates this many buckets, one for each shard. Returns them in ascending order.
async fn create_buckets(connection: &mut PgConnection, count: u16) -> Result<Vec<i16>, StoreError> {
    sqlx::query("DELETE FROM rocket_buckets").execute(&mut *connection).await?;
    let distribute =
        "SELECT create_distributed_table('rocket_buckets', 'bucket', colocate_with => 'none',
                                                      shard_count => $1)";
    sqlx::query(distribute).bind(i32::from(count)).execute(&mut *connection).await?;
    // Citus divides the hashes of the values into equal parts, one for each shard. The first value
    // of each part becomes its bucket.
    let choose = "SELECT min(value) AS bucket FROM generate_series(0, 32767) AS value
                  GROUP BY get_shard_id_for_distribution_column('rocket_buckets', value::smallint)
                  ORDER BY bucket";
    let buckets: Vec<i32> = sqlx::query_scalar(choose).fetch_all(&mut *connection).await?;
    let buckets: Vec<i16> =
        buckets.into_iter().filter_map(|bucket| i16::try_from(bucket).ok()).collect();
    assert_eq!(buckets.len(), usize::from(count), "a shard has one bucket, a small integer");
    for bucket in &buckets {
        sqlx::query("INSERT INTO rocket_buckets VALUES ($1)")
            .bind(bucket)
            .execute(&mut *connection)
            .await?;
    }
    Ok(buckets)
}

/// Moves the rows of a table to their buckets, and distributes it.
async fn move_to_buckets(
    connection: &mut PgConnection,
    table: &str,
    buckets: &[i16],
) -> Result<(), StoreError> {
    // The local table is emptied afterwards, with the dead rows.
    let sql =
        format!("UPDATE {table} SET bucket = ($1::smallint[])[1 + {SQL_HASH} % cardinality($1)]");
    sqlx::query(AssertSqlSafe(sql)).bind(buckets).execute(&mut *connection).await?;
    let sql = "SELECT create_distributed_table($1::text::regclass, 'bucket',
                                               colocate_with => 'rocket_buckets')";
    sqlx::query(sql).bind(table).execute(connection).await?;
    Ok(())
}

/// Notifies the instances on all nodes: `NOTIFY` reaches only those that are connected to the same
/// node.
pub(super) async fn notify(
    pool: &PgPool,
    name: &str,
    payloads: &[String],
) -> Result<(), StoreError> {
    let sql = "SELECT run_command_on_all_nodes(
                   string_agg(format('SELECT pg_notify(%L, %L)', $1, payload), ';'))
               FROM unnest($2) AS notifications (payload)";
    sqlx::query(sql).bind(name).bind(payloads).execute(pool).await?;
    Ok(())
}
