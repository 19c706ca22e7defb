//! Reads: one rocket, and pages of rockets by keyset. They have a pool of connections for themselves.

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

use super::PostgresStore;
use super::rows::{self, PgTime};
use super::session::{self, Work};
use crate::domain::rocket::{View, gaps};
use crate::domain::text::Channel;
use crate::store::listing::{self, Parameter, PartStatement, ROCKET_COLUMNS};
use crate::store::query::{Page, RocketQuery};
use crate::store::report::{Report, ReportRows};
use crate::store::{GAPS_TOLD, RocketWithGaps, StoreError};

impl PostgresStore {
    /// See [`Store::rocket`](crate::store::Store::rocket).
    pub async fn rocket(&self, channel: &Channel, view: View) -> Result<Option<RocketWithGaps>, StoreError> {
        let channel = channel.clone();
        self.read(move |pool| async move { rocket(&pool, &channel, view).await }).await
    }

    /// See [`Store::rockets`](crate::store::Store::rockets).
    pub async fn rockets(&self, query: RocketQuery) -> Result<Page, StoreError> {
        self.read(move |pool| async move { rockets(&pool, &query).await }).await
    }

    /// See [`Store::report`](crate::store::Store::report).
    pub async fn report(&self, which: Report, limit: u32) -> Result<ReportRows, StoreError> {
        self.read(move |pool| async move { report(&mut *pool.acquire().await?, which, limit).await }).await
    }

    /// See [`Store::report_now`](crate::store::Store::report_now).
    pub fn report_now(&self, which: Report, limit: u32) -> Result<ReportRows, StoreError> {
        // Nobody waits behind it, so it may take long.
        self.wait(Work::Long, async |connection| report(connection, which, limit).await)
    }

    /// Reads on the thread that drives the connections, and gives up in time.
    pub(super) async fn read<T, R>(&self, read: impl FnOnce(PgPool) -> R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        let read = runtime.spawn(session::within(self.url.patience(), read(self.pool.clone())));
        read.await.unwrap_or(Err(StoreError::BrokenOff))
    }
}

async fn report(connection: &mut PgConnection, report: Report, limit: u32) -> Result<ReportRows, StoreError> {
    let mut rows = Vec::new();
    for row in sqlx::query(AssertSqlSafe(report.sql())).bind(i64::from(limit)).fetch_all(connection).await? {
        let cells = report.columns().iter().enumerate();
        rows.push(cells.map(|(index, (_, kind))| rows::value(&row, index, *kind)).collect::<Result<_, _>>()?);
    }
    Ok(ReportRows { report, rows })
}

async fn rocket(pool: &PgPool, channel: &Channel, view: View) -> Result<Option<RocketWithGaps>, StoreError> {
    // One statement is one snapshot: the gaps are of the same state as the row. Between n ranges there are n - 1 gaps,
    // and one more before the first.
    let first_ranges = |column: &str| {
        format!("ARRAY(SELECT {column} FROM processed_ranges WHERE channel = $1 ORDER BY first_msg LIMIT $2)")
    };
    let sql = format!(
        "SELECT {ROCKET_COLUMNS}, {}, {} FROM {} WHERE channel = $1",
        first_ranges("first_msg"),
        first_ranges("last_msg"),
        listing::table(view)
    );
    let found = sqlx::query(AssertSqlSafe(sql)).bind(channel.as_str()).bind(GAPS_TOLD as i64 + 1);
    let Some(row) = found.fetch_optional(pool).await? else {
        return Ok(None);
    };
    let (firsts, lasts): (Vec<i64>, Vec<i64>) = (row.try_get(14)?, row.try_get(15)?);
    Ok(Some(RocketWithGaps { rocket: rows::rocket(&row)?, gaps: gaps(firsts.into_iter().zip(lasts), GAPS_TOLD) }))
}

async fn rockets(pool: &PgPool, query: &RocketQuery) -> Result<Page, StoreError> {
    let mut snapshot = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut rockets = Vec::with_capacity(query.limit + 1);
    for part in listing::parts(query) {
        let wanted = listing::wanted(query, rockets.len());
        if wanted > 0 {
            let part = PartStatement::new(query, part, wanted);
            let sql = part.sql(ROCKET_COLUMNS, query.view);
            let statement = part.parameters.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), bind);
            for row in statement.fetch_all(&mut *snapshot).await? {
                rockets.push(rows::rocket(&row)?);
            }
        }
    }
    snapshot.commit().await?;
    Ok(listing::page(query, rockets))
}

fn bind(statement: Query<'_, Postgres, PgArguments>, parameter: Parameter) -> Query<'_, Postgres, PgArguments> {
    match parameter {
        Parameter::Integer(integer) => statement.bind(integer),
        Parameter::Text(text) => statement.bind(text),
        Parameter::Time(time) => statement.bind(PgTime(time)),
    }
}
