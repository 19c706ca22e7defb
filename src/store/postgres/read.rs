//! Reads one rocket, and pages of rockets by keyset. Reads have their own connection pool.

use std::ops::ControlFlow;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

use super::PostgresStore;
use super::rows::PgTime;
use super::session::{self, WorkKind};
use crate::domain::query::{MAX_GAPS, Page, RocketInBothViews, RocketQuery, RocketWithGaps};
use crate::domain::rocket::{View, gaps};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::fault_injection::FailurePoint;
use crate::store::page::{self, Dialect, Parameter, PartStatement};
use crate::store::report::{Report, ReportRows, Value};
use crate::store::rows::{self, Cells, ROCKET_COLUMNS};

/// The view `gaps` in key order, so that nothing is sorted and reading stops at the last row
/// wanted.
const GAPS: &str = "
    SELECT channel, below + 1, first_msg - 1, after_time
    FROM (SELECT channel, bucket, first_msg,
                 coalesce(lag(last_msg) OVER neighbours, 0) AS below,
                 lag(latest_time) OVER neighbours           AS after_time
          FROM processed_ranges
          WINDOW neighbours AS (PARTITION BY channel, bucket ORDER BY first_msg)) AS ranges
    WHERE first_msg > below + 1
    ORDER BY channel, bucket, first_msg LIMIT $1";

/// Starts a transaction whose statements all see the same snapshot.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl PostgresStore {
    /// See [`Reader::rocket`](crate::store::Reader::rocket).
    pub async fn rocket(
        &self,
        channel: &Channel,
        view: View,
    ) -> Result<Option<RocketWithGaps>, StoreError> {
        let (channel, bucket) = (channel.clone(), self.buckets.of(channel));
        self.read(move |pool| async move {
            rocket(&mut *pool.acquire().await?, &channel, bucket, view).await
        })
        .await
    }

    /// See [`Store::rocket_in_both_views`](crate::store::Store::rocket_in_both_views).
    pub async fn rocket_in_both_views(
        &self,
        channel: &Channel,
    ) -> Result<Option<RocketInBothViews>, StoreError> {
        let (channel, bucket) = (channel.clone(), self.buckets.of(channel));
        self.read(move |pool| async move {
            let mut snapshot = pool.begin_with(SNAPSHOT).await?;
            let best_effort = rocket(&mut snapshot, &channel, bucket, View::BestEffort).await?;
            let exact = rocket(&mut snapshot, &channel, bucket, View::Exact).await?;
            snapshot.commit().await?;
            Ok(best_effort.zip(exact).map(|(best_effort, exact)| RocketInBothViews {
                best_effort,
                exact: exact.rocket.state,
            }))
        })
        .await
    }

    /// See [`Store::rockets`](crate::store::Store::rockets).
    pub async fn rockets(&self, query: RocketQuery) -> Result<Page, StoreError> {
        self.read(move |pool| async move { rockets(&pool, &query).await }).await
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

    /// See [`Store::report`](crate::store::Store::report).
    pub async fn report(&self, which: Report, limit: usize) -> Result<ReportRows, StoreError> {
        self.read(
            move |pool| async move { report(&mut *pool.acquire().await?, which, limit).await },
        )
        .await
    }

    /// See [`Store::report_rows`](crate::store::Store::report_rows).
    pub fn report_rows(
        &self,
        which: Report,
        each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.wait(WorkKind::Long, async |connection| {
            let all = sqlx::query(AssertSqlSafe(which.sql(GAPS))).bind(i64::MAX);
            let mut found = all.fetch(connection);
            while let Some(row) = found.try_next().await? {
                if each(cells(&row, which)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Reads on the runtime that drives the pool, with a timeout.
    pub(super) async fn read<T, R>(&self, read: impl FnOnce(PgPool) -> R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.failures.check(FailurePoint::BeforeRead)?;
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        let read = runtime.spawn(session::within(self.url.patience(), read(self.pool.clone())));
        read.await.unwrap_or(Err(StoreError::BrokenOff))
    }
}

async fn report(
    connection: &mut PgConnection,
    report: Report,
    limit: usize,
) -> Result<ReportRows, StoreError> {
    let mut rows = Vec::new();
    for row in sqlx::query(AssertSqlSafe(report.sql(GAPS)))
        .bind(limit as i64 + 1)
        .fetch_all(connection)
        .await?
    {
        rows.push(cells(&row, report)?);
    }
    Ok(ReportRows::new(report, rows, limit))
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
) -> Result<Option<RocketWithGaps>, StoreError> {
    // One statement has one snapshot: the gaps are from the same state as the row. Between n ranges
    // there are n - 1 gaps, and there may be one before the first.
    let first_ranges = |column: &str| {
        format!(
            "ARRAY(SELECT {column} FROM processed_ranges WHERE channel = $1 AND bucket = $3 ORDER \
             BY first_msg LIMIT $2)"
        )
    };
    let sql = format!(
        "SELECT {ROCKET_COLUMNS}, {}, {} FROM {} WHERE channel = $1 AND bucket = $3",
        first_ranges("first_msg"),
        first_ranges("last_msg"),
        page::table(view)
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(channel.as_str())
        .bind(MAX_GAPS as i64 + 1)
        .bind(bucket);
    let Some(row) = found.fetch_optional(connection).await? else {
        return Ok(None);
    };
    let (firsts, lasts): (Vec<i64>, Vec<i64>) = (row.try_get(14)?, row.try_get(15)?);
    Ok(Some(RocketWithGaps {
        rocket: rows::rocket(&row)?,
        gaps: gaps(firsts.into_iter().zip(lasts), MAX_GAPS),
    }))
}

async fn rockets(pool: &PgPool, query: &RocketQuery) -> Result<Page, StoreError> {
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
    snapshot.commit().await?;
    Ok(page::page(query, rockets))
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
