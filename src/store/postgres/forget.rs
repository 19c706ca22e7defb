//! Removes rockets.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::rows::PgTime;
use super::session::WorkKind;
use super::{BEGIN_TO_WRITE, PostgresStore};
use crate::domain::query::Filters;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::rows::{self, ROCKET_COLUMNS};
use crate::store::{StoreError, TOMBSTONE_RETENTION};

impl PostgresStore {
    /// See [`Store::forget_matching`](crate::store::Store::forget_matching).
    pub fn forget_matching(
        &self,
        channels: &[Channel],
        filters: &Filters,
        now: Timestamp,
    ) -> Result<Vec<Channel>, StoreError> {
        let mut by_bucket: BTreeMap<i16, BTreeSet<&str>> = BTreeMap::new();
        for channel in channels {
            by_bucket.entry(self.buckets.of(channel)).or_default().insert(channel.as_str());
        }
        let forgotten = self.wait(WorkKind::Bounded, async |connection| {
            let mut forgotten = Vec::new();
            for (bucket, channels) in by_bucket {
                let channels: Vec<&str> = channels.into_iter().collect();
                let mut transaction = connection.begin_with(BEGIN_TO_WRITE).await?;
                let matching = lock(&mut transaction, bucket, &channels, filters, now).await?;
                // Without filters, ranges without a rocket are removed too.
                let removed: Vec<&str> = if *filters == Filters::default() {
                    channels
                } else {
                    matching.iter().map(Channel::as_str).collect()
                };
                if !removed.is_empty() {
                    remove(&mut transaction, bucket, &removed).await?;
                    insert_tombstones(&mut transaction, bucket, &matching).await?;
                }
                transaction.commit().await?;
                forgotten.extend(matching);
            }
            Ok(forgotten)
        });
        // Instances that miss the notification find the tombstones. After an error, some buckets
        // may have been committed.
        if !matches!(&forgotten, Ok(forgotten) if forgotten.is_empty())
            && let Err(error) = self.notify_blocking(None)
        {
            tracing::debug!(%error, "could not notify other instances");
        }
        forgotten
    }
}

/// Locks the rows of rockets in the order of their channels, because every writer of a channel
/// locks its row first. Returns the channels of the rockets that match, as of the last commit.
async fn lock(
    transaction: &mut PgConnection,
    bucket: i16,
    channels: &[&str],
    filters: &Filters,
    now: Timestamp,
) -> Result<Vec<Channel>, StoreError> {
    let sql = format!(
        "SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel = ANY($1) AND bucket = $2
         ORDER BY channel FOR UPDATE"
    );
    let locked = sqlx::query(AssertSqlSafe(sql)).bind(channels).bind(bucket);
    let mut matching = Vec::new();
    for row in locked.fetch_all(transaction).await? {
        // Without filters, a rocket need not be readable.
        if *filters == Filters::default() || filters.matches(&rows::rocket(&row)?, now) {
            matching.push(rows::channel(&row, 0)?);
        }
    }
    Ok(matching)
}

pub(super) async fn remove(
    transaction: &mut PgConnection,
    bucket: i16,
    channels: &[&str],
) -> Result<(), StoreError> {
    for table in ["rockets", "processed_ranges", "losses", "rockets_merged"] {
        let sql = format!("DELETE FROM {table} WHERE channel = ANY($1) AND bucket = $2");
        let delete = sqlx::query(AssertSqlSafe(sql)).bind(channels).bind(bucket);
        delete.execute(&mut *transaction).await?;
    }
    Ok(())
}

/// The time is by the server's clock, which all instances share. A cluster can use only the time at
/// the start of the transaction.
async fn insert_tombstones(
    transaction: &mut PgConnection,
    bucket: i16,
    channels: &[Channel],
) -> Result<(), StoreError> {
    let delete_old = "DELETE FROM rockets_forgotten WHERE bucket = $2 AND forgotten_at < now() - \
                      make_interval(secs => $1)";
    sqlx::query(delete_old)
        .bind(TOMBSTONE_RETENTION.as_secs_f64())
        .bind(bucket)
        .execute(&mut *transaction)
        .await?;
    let channels: Vec<&str> = channels.iter().map(Channel::as_str).collect();
    set_times(transaction, ("rockets_forgotten", "forgotten_at"), bucket, &channels, None).await
}

/// How many rows one statement inserts: a statement has room for more placeholders.
const MAX_ROWS: usize = 1_000;

/// Sets a column of a table, which has no others, for channels that are all in this bucket. Without
/// a time, it is the start of the transaction by the server's clock.
pub(super) async fn set_times(
    transaction: &mut PgConnection,
    (table, column): (&str, &str),
    bucket: i16,
    channels: &[&str],
    time: Option<Timestamp>,
) -> Result<(), StoreError> {
    let (value, first) = if time.is_some() { ("$2", 3) } else { ("now()", 2) };
    // A cluster runs rows of values with the same bucket on one node.
    for channels in channels.chunks(MAX_ROWS) {
        let rows = (first..first + channels.len()).map(|index| format!("(${index}, $1, {value})"));
        let insert = format!(
            "INSERT INTO {table} (channel, bucket, {column}) VALUES {}
             ON CONFLICT (channel, bucket) DO UPDATE SET {column} = excluded.{column}",
            rows.collect::<Vec<_>>().join(", ")
        );
        let mut insert = sqlx::query(AssertSqlSafe(insert)).persistent(false).bind(bucket);
        if let Some(time) = time {
            insert = insert.bind(PgTime(time));
        }
        let insert = channels.iter().fold(insert, |insert, channel| insert.bind(*channel));
        insert.execute(&mut *transaction).await?;
    }
    Ok(())
}
