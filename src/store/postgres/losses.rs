//! Losses: reading rockets and gaps with them, and declaring and withdrawing them.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::buckets::Buckets;
use super::read::SNAPSHOT;
use super::rows::PgTime;
use super::session::WorkKind;
use super::{BEGIN_TO_WRITE, PostgresStore};
use crate::domain::losses::{Loss, LossChanges, LossError, LossRequest};
use crate::domain::query::{GapPage, GapQuery};
use crate::domain::rocket::{RangeFold, Rocket};
use crate::store::StoreError;
use crate::store::changes::ChangeHint;
use crate::store::rows::{self, LOSS_COLUMNS};

/// Selects the rows of a channel.
const OF_CHANNEL: &str = "channel = $1 AND bucket = $2";

/// The exact view of a channel as of its losses, and the progress that depends on them.
pub(super) async fn exact_prefix(
    connection: &mut PgConnection,
    channel: &str,
    bucket: i16,
) -> Result<RangeFold, StoreError> {
    let sql = rows::exact_prefix_sql(OF_CHANNEL);
    let mut found =
        sqlx::query(AssertSqlSafe(sql)).bind(channel).bind(bucket).fetch(&mut *connection);
    let mut fold = RangeFold::default();
    while let Some(row) = found.try_next().await? {
        rows::add_to_exact_prefix(&row, &mut fold)?;
    }
    Ok(fold)
}

/// Completes the progress of these rockets, which were read in the same snapshot without their
/// losses.
pub(super) async fn add_losses(
    snapshot: &mut PgConnection,
    buckets: &Buckets,
    rockets: &mut [Rocket],
) -> Result<(), StoreError> {
    // Only a rocket with gaps can have losses that matter.
    let with_gaps = rockets.iter().filter(|rocket| rocket.progress.missing() > 0);
    let channels: Vec<&str> = with_gaps.map(|rocket| rocket.channel.as_str()).collect();
    if channels.is_empty() {
        return Ok(());
    }
    let in_buckets: BTreeSet<i16> =
        channels.iter().map(|channel| buckets.at(buckets.index_of(channel))).collect();
    let sql = "SELECT DISTINCT channel FROM losses WHERE channel = ANY($1) AND bucket = ANY($2)";
    let with_losses: Vec<String> = sqlx::query_scalar(sql)
        .bind(channels)
        .bind(in_buckets.into_iter().collect::<Vec<_>>())
        .fetch_all(&mut *snapshot)
        .await?;
    let with_losses: BTreeSet<String> = with_losses.into_iter().collect();
    for rocket in rockets.iter_mut().filter(|rocket| with_losses.contains(rocket.channel.as_str()))
    {
        let bucket = buckets.of(&rocket.channel);
        let prefix = exact_prefix(snapshot, rocket.channel.as_str(), bucket).await?;
        rocket.progress.add_losses(&prefix);
    }
    Ok(())
}

impl PostgresStore {
    /// See [`Store::gaps`](crate::store::Store::gaps).
    pub async fn gaps(&self, query: GapQuery) -> Result<Option<GapPage>, StoreError> {
        let bucket = self.buckets.of(&query.channel);
        self.read(move |pool| async move {
            let mut snapshot = pool.begin_with(SNAPSHOT).await?;
            let mut page = None;
            if highest(&mut snapshot, query.channel.as_str(), bucket, "").await?.is_some() {
                page = Some(gaps(&mut snapshot, &query, bucket).await?);
            }
            snapshot.commit().await?;
            Ok(page)
        })
        .await
    }

    /// See [`Store::change_losses`](crate::store::Store::change_losses).
    pub fn change_losses(
        &self,
        requests: &[LossRequest],
        dry_run: bool,
    ) -> Result<Vec<Result<i64, LossError>>, StoreError> {
        // Rockets are locked in the order of their channels.
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|index| {
            let channel = &requests[*index].channel;
            (self.buckets.of(channel), channel)
        });
        let mut outcomes = vec![Ok(0); requests.len()];
        let bucket_of = |index: &usize| self.buckets.of(&requests[*index].channel);
        self.wait(WorkKind::Bounded, async |connection| {
            for of_bucket in order.chunk_by(|one, next| bucket_of(one) == bucket_of(next)) {
                let begin = if dry_run { SNAPSHOT } else { BEGIN_TO_WRITE };
                let mut transaction = connection.begin_with(begin).await?;
                for index in of_bucket {
                    let (request, bucket) = (&requests[*index], bucket_of(index));
                    outcomes[*index] = change(&mut transaction, request, bucket, dry_run).await?;
                }
                transaction.commit().await?;
            }
            Ok(())
        })?;
        if !dry_run {
            let hints =
                requests.iter().map(|request| (request.channel.clone(), ChangeHint::LOSSES));
            // Instances that miss the notification find the changed rows.
            if let Err(error) = self.notify_blocking(Some(&hints.collect())) {
                tracing::debug!(%error, "could not notify other instances");
            }
        }
        Ok(outcomes)
    }
}

async fn gaps(
    snapshot: &mut PgConnection,
    query: &GapQuery,
    bucket: i16,
) -> Result<GapPage, StoreError> {
    let channel = query.channel.as_str();
    let mut page = GapPage::default();
    {
        // Without a limit, the server would send all ranges, and the connection could not be used
        // before they were all read. There is a gap below each of these ranges except the first,
        // and one more gap than the page holds shows that another page follows.
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX).saturating_add(2);
        let sql = rows::ranges_above_sql("channel = $1 AND bucket = $3") + " LIMIT $4";
        let found = sqlx::query(AssertSqlSafe(sql)).bind(channel).bind(query.after).bind(bucket);
        let mut found = found.bind(limit).fetch(&mut *snapshot);
        let (mut below, mut ranges) = (0, 0);
        while let Some(row) = found.try_next().await?
            && page.add(query, &mut below, rows::range_above(&row)?)
        {
            ranges += 1;
        }
        if ranges == limit {
            return Err(StoreError::Damaged("processed_ranges: ranges touch".to_owned()));
        }
    }
    let (Some(lowest), Some(highest)) = (page.gaps.first(), page.gaps.last()) else {
        return Ok(page);
    };
    let losses = losses(snapshot, channel, bucket, (lowest.first, highest.last)).await?;
    for gap in &mut page.gaps {
        gap.lost = losses
            .iter()
            .filter(|loss| loss.first <= gap.last && loss.last >= gap.first)
            .cloned()
            .collect();
    }
    Ok(page)
}

/// Answers a request about losses. Returns how many numbers it concerns.
async fn change(
    transaction: &mut PgConnection,
    request: &LossRequest,
    bucket: i16,
    dry_run: bool,
) -> Result<Result<i64, LossError>, StoreError> {
    let LossRequest { channel, first, last, .. } = request;
    let channel = channel.as_str();
    // Every writer of the channel locks the row of `rockets` first.
    let lock = if dry_run { "" } else { "FOR UPDATE" };
    if let Err(error) = request.check(highest(transaction, channel, bucket, lock).await?) {
        return Ok(Err(error));
    }
    let changes = request.changes(losses(transaction, channel, bucket, (*first, *last)).await?);
    let mut count = changes.numbers();
    {
        let sql = "SELECT first_msg, last_msg FROM processed_ranges
                   WHERE channel = $1 AND bucket = $2 AND first_msg <= $4 AND last_msg >= $3";
        let processed = sqlx::query(sql).bind(channel).bind(bucket).bind(first).bind(last);
        let mut processed = processed.fetch(&mut *transaction);
        while let Some(row) = processed.try_next().await? {
            count -= changes.numbers_in(row.try_get(0)?, row.try_get(1)?);
        }
    }
    if !dry_run && changes != LossChanges::default() {
        store(transaction, channel, bucket, &changes).await?;
    }
    Ok(Ok(count))
}

/// The highest processed number of a channel; none if it is unknown.
async fn highest(
    connection: &mut PgConnection,
    channel: &str,
    bucket: i16,
    lock: &str,
) -> Result<Option<i64>, StoreError> {
    let sql = format!("SELECT highest FROM rockets WHERE {OF_CHANNEL} {lock}");
    let found = sqlx::query_scalar(AssertSqlSafe(sql)).bind(channel).bind(bucket);
    Ok(found.fetch_optional(connection).await?)
}

/// The losses that overlap these numbers, in ascending order.
async fn losses(
    connection: &mut PgConnection,
    channel: &str,
    bucket: i16,
    (first, last): (i64, i64),
) -> Result<Vec<Loss>, StoreError> {
    // Losses don't overlap: of those that start at or below `first`, only the last can reach it.
    let sql = format!(
        "SELECT {LOSS_COLUMNS} FROM losses
         WHERE {OF_CHANNEL} AND first_msg <= $4 AND last_msg >= $3
           AND first_msg >= coalesce((
               SELECT max(first_msg) FROM losses WHERE {OF_CHANNEL} AND first_msg <= $3), 0)
         ORDER BY first_msg"
    );
    let found = sqlx::query(AssertSqlSafe(sql)).bind(channel).bind(bucket).bind(first).bind(last);
    found.fetch_all(connection).await?.iter().map(rows::loss).collect()
}

async fn store(
    transaction: &mut PgConnection,
    channel: &str,
    bucket: i16,
    changes: &LossChanges,
) -> Result<(), StoreError> {
    for Loss { first, .. } in &changes.removed {
        let sql = "DELETE FROM losses WHERE channel = $1 AND bucket = $2 AND first_msg = $3";
        let delete = sqlx::query(sql).bind(channel).bind(bucket).bind(first);
        delete.execute(&mut *transaction).await?;
    }
    insert(transaction, channel, bucket, &changes.added).await?;
    // A scan for changes finds the row by the transaction that wrote it last.
    let new_version = "UPDATE rockets SET highest = highest WHERE channel = $1 AND bucket = $2";
    sqlx::query(new_version).bind(channel).bind(bucket).execute(transaction).await?;
    Ok(())
}

/// Inserts losses of numbers that are not declared lost yet.
pub(super) async fn insert(
    transaction: &mut PgConnection,
    channel: &str,
    bucket: i16,
    losses: &[Loss],
) -> Result<(), StoreError> {
    for Loss { first, last, reason, declared_at } in losses {
        let sql = "INSERT INTO losses (channel, bucket, first_msg, last_msg, reason, declared_at)
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let insert = sqlx::query(sql).bind(channel).bind(bucket).bind(first).bind(last);
        let insert = insert.bind(reason.as_str()).bind(PgTime(*declared_at));
        insert.execute(&mut *transaction).await?;
    }
    Ok(())
}
