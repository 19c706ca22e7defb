//! The audit: reads both tables in one snapshot, by cursors, while instances write.

use std::collections::VecDeque;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::runtime::Handle;

use super::session::{self, Work};
use super::{PostgresStore, rows};
use crate::domain::ranges::ProcessedRange;
use crate::domain::rocket::Rocket;
use crate::store::audit::{self, Found};
use crate::store::listing::ROCKET_COLUMNS;
use crate::store::{Audit, StoreError};

/// How many rows are fetched at a time.
const FETCHED_ROWS: usize = 2_000;

impl PostgresStore {
    /// See [`Store::check`](crate::store::Store::check).
    pub fn check(&self, found: Found<'_>) -> Result<Audit, StoreError> {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        let mut connection = runtime.block_on(self.open_cursors())?;
        let mut tables = Tables {
            handle: runtime.handle().clone(),
            connection: &mut connection,
            rockets: VecDeque::new(),
            ranges: VecDeque::new(),
        };
        audit::run(&mut tables, found)
    }

    async fn open_cursors(&self) -> Result<PgConnection, StoreError> {
        let mut connection = session::connect(&self.url, Work::Long).await?;
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             DECLARE all_rockets BINARY NO SCROLL CURSOR FOR SELECT {ROCKET_COLUMNS} FROM rockets ORDER BY channel;
             DECLARE all_ranges BINARY NO SCROLL CURSOR FOR
                 SELECT {} FROM processed_ranges AS ranges ORDER BY channel, first_msg",
            rows::RANGE_COLUMNS
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        Ok(connection)
    }
}

struct Tables<'c> {
    handle: Handle,
    connection: &'c mut PgConnection,
    rockets: VecDeque<PgRow>,
    ranges: VecDeque<PgRow>,
}

impl Tables<'_> {
    fn fetch(&mut self, cursor: &str) -> Result<VecDeque<PgRow>, StoreError> {
        let sql = format!("FETCH {FETCHED_ROWS} FROM {cursor}");
        // Prepared, and therefore in binary format.
        let fetched = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *self.connection);
        Ok(self.handle.block_on(fetched)?.into())
    }
}

impl audit::Rows for Tables<'_> {
    fn next_rocket(&mut self) -> Result<Option<audit::Row<Rocket>>, StoreError> {
        if self.rockets.is_empty() {
            self.rockets = self.fetch("all_rockets")?;
        }
        self.rockets.pop_front().map(|row| read(&row, rows::rocket)).transpose()
    }

    fn next_range(&mut self) -> Result<Option<audit::Row<ProcessedRange>>, StoreError> {
        if self.ranges.is_empty() {
            self.ranges = self.fetch("all_ranges")?;
        }
        self.ranges.pop_front().map(|row| read(&row, rows::range)).transpose()
    }
}

fn read<T>(row: &PgRow, read: fn(&PgRow) -> Result<T, StoreError>) -> Result<audit::Row<T>, StoreError> {
    Ok((row.try_get(0)?, read(row).map_err(|error| error.to_string())))
}
