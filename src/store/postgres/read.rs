//! Reads one rocket, and pages of rockets by keyset. Reads have their own connection pool.

use std::ops::ControlFlow;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};

use super::buckets::Buckets;
use super::rows::PgTime;
use super::session::{self, WorkKind};
use super::{PostgresStore, losses};
use crate::domain::query::{
    GapTotals, MAX_GAPS, Page, RocketInBothViews, RocketQuery, RocketWithGaps,
};
use crate::domain::rocket::{RocketState, View, gaps};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::fault_injection::FailurePoint;
use crate::store::page::{self, Dialect, Parameter, PartStatement};
use crate::store::report::{Report, ReportQuery, ReportRows, Value};
use crate::store::rows::{self, Cells, ROCKET_COLUMNS};

/// The view `gaps` in key order, so that nothing is sorted, and reading starts after the previous
/// page, whose last gap was in this bucket, and stops at the last row wanted. See
/// [`ReportQuery::statement`].
fn gaps_sql(bucket: Option<i16>, limit: &str) -> String {
    // All columns of the primary key, because only then does the index search for its place.
    let beyond = bucket.map_or_else(String::new, |bucket| {
        format!("AND (above.channel, above.bucket, above.first_msg) > ($1, {bucket}::smallint, $2)")
    });
    let order = format!("ORDER BY above.channel, above.bucket, above.first_msg LIMIT {limit}");
    some_gaps_sql(&beyond, &order)
}

/// The gaps that meet a condition.
fn some_gaps_sql(condition: &str, order: &str) -> String {
    format!(
        "
    SELECT above.channel, 1 + coalesce(below.last_msg, 0) AS first_missing,
           above.first_msg - 1 AS last_missing, below.latest_time AS after_time,
           above.first_received AS since, lost.numbers AS lost
    FROM processed_ranges AS above
    LEFT JOIN LATERAL (
        SELECT last_msg, latest_time FROM processed_ranges AS others
        WHERE others.channel = above.channel AND others.bucket = above.bucket
          AND others.first_msg < above.first_msg
        ORDER BY others.first_msg DESC LIMIT 1) AS below ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(least(last_msg, above.first_msg - 1)
                            - greatest(first_msg, 1 + coalesce(below.last_msg, 0)) + 1), 0)::bigint
               AS numbers
        FROM losses
        WHERE losses.channel = above.channel AND losses.bucket = above.bucket
          AND first_msg < above.first_msg AND last_msg > coalesce(below.last_msg, 0)
          AND first_msg >= coalesce((
              SELECT max(lower.first_msg) FROM losses AS lower
              WHERE lower.channel = above.channel AND lower.bucket = above.bucket
                AND lower.first_msg <= 1 + coalesce(below.last_msg, 0)), 0)) AS lost
    WHERE above.first_msg > 1 + coalesce(below.last_msg, 0) {condition} {order}"
    )
}

/// Starts a transaction whose statements all see the same snapshot.
pub(super) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl PostgresStore {
    /// See [`Reader::rocket`](crate::store::Reader::rocket).
    pub async fn rocket(
        &self,
        channel: &Channel,
        view: View,
    ) -> Result<Option<RocketWithGaps>, StoreError> {
        Ok(self.rocket_up_to(channel, view).await?.map(|found| found.into_view(view)))
    }

    /// See [`Store::rocket_in_both_views`](crate::store::Store::rocket_in_both_views).
    pub async fn rocket_in_both_views(
        &self,
        channel: &Channel,
    ) -> Result<Option<RocketInBothViews>, StoreError> {
        self.rocket_up_to(channel, View::Exact).await
    }

    /// Reads a rocket's best-effort view, and its exact view only if `view` asks for it.
    async fn rocket_up_to(
        &self,
        channel: &Channel,
        view: View,
    ) -> Result<Option<RocketInBothViews>, StoreError> {
        let (channel, bucket) = (channel.clone(), self.buckets.of(channel));
        self.read(move |pool| async move {
            rocket(&mut *pool.acquire().await?, &channel, bucket, view).await
        })
        .await
    }

    /// See [`Store::rockets`](crate::store::Store::rockets).
    pub async fn rockets(&self, query: RocketQuery) -> Result<Page, StoreError> {
        let buckets = self.buckets.clone();
        self.read(move |pool| async move { rockets(&pool, &buckets, &query).await }).await
    }

    /// See [`Store::first_received_after`](crate::store::Store::first_received_after).
    pub async fn first_received_after(
        &self,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.read(move |pool| async move {
            let first = sqlx::query(page::FIRST_RECEIVED_AFTER).bind(PgTime(after));
            first.fetch_one(&pool).await?.time(0)
        })
        .await
    }

    /// Like [`rockets`](Self::rockets), for threads without a runtime.
    pub fn rockets_blocking(&self, query: RocketQuery) -> Result<Page, StoreError> {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        runtime.block_on(self.rockets(query))
    }

    /// See [`Store::report`](crate::store::Store::report).
    pub async fn report(&self, query: ReportQuery) -> Result<ReportRows, StoreError> {
        let (sql, parameters) = self.report_statement(&query.with_next_row());
        self.read(move |pool| async move {
            let all = parameters.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), bind);
            let found = all.fetch_all(&mut *pool.acquire().await?).await?;
            let rows = found.iter().map(|row| cells(row, query.report));
            ReportRows::new(&query, rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// See [`Store::report_rows`](crate::store::Store::report_rows).
    pub fn report_rows(
        &self,
        query: &ReportQuery,
        each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (sql, parameters) = self.report_statement(query);
        self.wait(WorkKind::Long, async |connection| {
            let all = parameters.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), bind);
            let mut found = all.fetch(connection);
            while let Some(row) = found.try_next().await? {
                if each(cells(&row, query.report)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// See [`Store::gap_totals`](crate::store::Store::gap_totals).
    pub async fn gap_totals(&self) -> Result<GapTotals, StoreError> {
        let same_bucket = "losses.bucket = ranges.bucket";
        let oldest =
            rows::oldest_gap_sql(&format!("losses.channel = ranges.channel AND {same_bucket}"));
        let with_losses = "AND EXISTS (SELECT FROM losses WHERE losses.channel = above.channel AND \
                           losses.bucket = above.bucket)";
        let with_losses = rows::lost_gaps_sql(&some_gaps_sql(with_losses, ""));
        self.read(move |pool| async move {
            let mut snapshot = pool.begin_with(SNAPSHOT).await?;
            let oldest = sqlx::query(AssertSqlSafe(oldest)).fetch_one(&mut *snapshot).await?;
            let with_losses =
                sqlx::query(AssertSqlSafe(with_losses)).fetch_one(&mut *snapshot).await?;
            snapshot.commit().await?;
            rows::gap_totals(&oldest, &with_losses)
        })
        .await
    }

    fn report_statement(&self, query: &ReportQuery) -> (String, Vec<Parameter>) {
        query.statement(|after, limit| {
            gaps_sql(after.map(|channel| self.buckets.of(channel)), limit)
        })
    }

    /// Reads for a request.
    pub(super) async fn read<T, R>(&self, read: impl FnOnce(PgPool) -> R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.failures.check(FailurePoint::BeforeRead)?;
        self.run(read).await
    }

    /// Runs statements on the runtime that drives the pool, with a timeout.
    pub(super) async fn run<T, R>(&self, read: impl FnOnce(PgPool) -> R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        let read = runtime.spawn(session::within(self.url.patience(), read(self.pool.clone())));
        read.await.unwrap_or(Err(StoreError::BrokenOff))
    }
}

fn cells(row: &PgRow, report: Report) -> Result<Vec<Value>, StoreError> {
    let columns = report.columns().iter().enumerate();
    columns.map(|(index, (_, kind))| rows::value(row, index, *kind)).collect()
}

async fn rocket(
    connection: &mut PgConnection,
    channel: &Channel,
    bucket: i16,
    view: View,
) -> Result<Option<RocketInBothViews>, StoreError> {
    let Some(row) = rocket_row(connection, channel, bucket, view).await? else {
        return Ok(None);
    };
    if row.try_get(HAS_LOSSES)? {
        return rocket_with_losses(connection, channel, bucket).await;
    }
    let best_effort = rocket_with_gaps(&row)?;
    let mut exact = None;
    if view == View::Exact {
        let sequence = row.integer(FIRST_SEQUENCE)?.map(|_| rows::range(&row, FIRST_SEQUENCE));
        exact = Some(RocketState::of(sequence.transpose()?.map(|range| range.summary)));
    }
    Ok(Some(RocketInBothViews { best_effort, exact }))
}

/// Reads a rocket with losses, which takes several statements.
async fn rocket_with_losses(
    connection: &mut PgConnection,
    channel: &Channel,
    bucket: i16,
) -> Result<Option<RocketInBothViews>, StoreError> {
    let mut snapshot = connection.begin_with(SNAPSHOT).await?;
    let row = rocket_row(&mut snapshot, channel, bucket, View::BestEffort).await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let mut best_effort = rocket_with_gaps(&row)?;
    let prefix = losses::exact_prefix(&mut snapshot, channel.as_str(), bucket).await?;
    snapshot.commit().await?;
    best_effort.rocket.progress.add_losses(&prefix);
    Ok(Some(RocketInBothViews { best_effort, exact: Some(prefix.state(View::Exact)) }))
}

/// The index of the first column of a [`rocket_row`] after those of `rockets`: the first numbers
/// of the first ranges, then their last numbers, then whether the rocket has losses, then, for the
/// exact view, the range that starts at 1.
const FIRSTS: usize = 14;
const LASTS: usize = FIRSTS + 1;
const HAS_LOSSES: usize = LASTS + 1;
const FIRST_SEQUENCE: usize = HAS_LOSSES + 1;

/// A row with everything about a rocket without losses. One statement has one snapshot.
async fn rocket_row(
    connection: &mut PgConnection,
    channel: &Channel,
    bucket: i16,
    view: View,
) -> Result<Option<PgRow>, StoreError> {
    // Between n ranges there are n - 1 gaps, and there may be one before the first.
    let first_ranges = |column: &str| {
        format!(
            "ARRAY(SELECT {column} FROM processed_ranges WHERE channel = $1 AND bucket = $3 ORDER \
             BY first_msg LIMIT $2)"
        )
    };
    let (sequence, join) = match view {
        View::BestEffort => (String::new(), ""),
        View::Exact => (
            format!(", {}", rows::range_columns("sequence")),
            "LEFT JOIN processed_ranges AS sequence
                ON sequence.channel = $1 AND sequence.bucket = $3 AND sequence.first_msg = 1",
        ),
    };
    let sql = format!(
        "SELECT {}, {}, {}, EXISTS (SELECT FROM losses WHERE channel = $1 AND bucket = $3){sequence}
         FROM rockets {join}
         WHERE rockets.channel = $1 AND rockets.bucket = $3",
        rows::rocket_columns("rockets"),
        first_ranges("first_msg"),
        first_ranges("last_msg"),
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(channel.as_str())
        .bind(MAX_GAPS as i64 + 1)
        .bind(bucket);
    Ok(found.fetch_optional(connection).await?)
}

/// The best-effort view of a [`rocket_row`], as of a rocket without losses.
fn rocket_with_gaps(row: &PgRow) -> Result<RocketWithGaps, StoreError> {
    let (firsts, lasts): (Vec<i64>, Vec<i64>) = (row.try_get(FIRSTS)?, row.try_get(LASTS)?);
    let gaps = gaps(firsts.into_iter().zip(lasts), MAX_GAPS);
    Ok(RocketWithGaps { rocket: rows::rocket(row)?, gaps })
}

async fn rockets(
    pool: &PgPool,
    buckets: &Buckets,
    query: &RocketQuery,
) -> Result<Page, StoreError> {
    let mut snapshot = pool.begin_with(SNAPSHOT).await?;
    let mut rockets = Vec::with_capacity(query.limit + 1);
    for part in page::parts(query) {
        let remaining = page::remaining(query, rockets.len());
        if remaining > 0 {
            let part = PartStatement::new(query, part, remaining, Dialect::Postgres);
            let sql = part.sql(ROCKET_COLUMNS, query.view);
            let statement = part.parameters.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), bind);
            for row in statement.fetch_all(&mut *snapshot).await? {
                rockets.push(rows::rocket(&row)?);
            }
        }
    }
    let total = count(&mut snapshot, query).await?;
    let mut page = page::page(query, rockets, total);
    losses::add_losses(&mut snapshot, buckets, &mut page.rockets).await?;
    snapshot.commit().await?;
    Ok(page)
}

/// How many rockets match, if the query asks for it.
async fn count(
    snapshot: &mut PgConnection,
    query: &RocketQuery,
) -> Result<Option<i64>, StoreError> {
    let Some((sql, parameters)) = PartStatement::count(query, Dialect::Postgres) else {
        return Ok(None);
    };
    let statement = parameters.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), bind);
    Ok(Some(statement.fetch_one(snapshot).await?.try_get(0)?))
}

fn bind(
    statement: Query<'_, Postgres, PgArguments>,
    parameter: Parameter,
) -> Query<'_, Postgres, PgArguments> {
    match parameter {
        Parameter::Integer(integer) => statement.bind(integer),
        Parameter::Text(text) => statement.bind(text),
        Parameter::Texts(texts) => statement.bind(texts),
        Parameter::Time(time) => statement.bind(PgTime(time)),
    }
}
