//! The audit: reads the tables in one snapshot, by cursors, while instances write.

use std::collections::VecDeque;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::runtime::Handle;

use super::PostgresStore;
use super::buckets::Buckets;
use super::session::{self, WorkKind};
use crate::domain::losses::Loss;
use crate::domain::rocket::Rocket;
use crate::store::audit::{self, OnFinding};
use crate::store::rows::{self, LOSS_COLUMNS, ROCKET_COLUMNS};
use crate::store::{Audit, Finding, StoreError};

/// How many rows are fetched at a time.
const FETCHED_ROWS: usize = 2_000;

impl PostgresStore {
    /// See [`Store::check`](crate::store::Store::check).
    pub fn check(&self, found: OnFinding<'_>) -> Result<Audit, StoreError> {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        let mut connection = runtime.block_on(self.connect(WorkKind::Long))?;
        let mut totals = Audit::default();
        for &bucket in self.buckets.all() {
            runtime.block_on(open_cursors(&mut connection, bucket))?;
            let mut tables = PostgresRows {
                handle: runtime.handle().clone(),
                connection: &mut connection,
                buckets: &self.buckets,
                bucket,
                rockets: VecDeque::new(),
                ranges: VecDeque::new(),
                losses: VecDeque::new(),
            };
            let Audit { channels, ranges } = audit::run(&mut tables, found)?;
            totals = Audit { channels: totals.channels + channels, ranges: totals.ranges + ranges };
        }
        runtime.block_on(check_buckets(&mut connection, &self.buckets, found))?;
        runtime.block_on(session::close(connection));
        Ok(totals)
    }
}

/// Starts to read the tables in one snapshot. On a cluster, too: all rows of a bucket are on one
/// node.
async fn open_cursors(connection: &mut PgConnection, bucket: i16) -> Result<(), StoreError> {
    let sql = format!(
        "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
         DECLARE all_rockets BINARY NO SCROLL CURSOR FOR
             SELECT {ROCKET_COLUMNS} FROM rockets WHERE bucket = {bucket} ORDER BY channel;
         DECLARE all_ranges BINARY NO SCROLL CURSOR FOR
             SELECT channel, {} FROM processed_ranges WHERE bucket = {bucket} ORDER BY channel,
             first_msg;
         DECLARE all_losses BINARY NO SCROLL CURSOR FOR
             SELECT {LOSS_COLUMNS}, channel FROM losses WHERE bucket = {bucket}
             ORDER BY channel, first_msg",
        rows::range_columns("processed_ranges")
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Reports rows whose bucket doesn't exist.
async fn check_buckets(
    connection: &mut PgConnection,
    buckets: &Buckets,
    found: OnFinding<'_>,
) -> Result<(), StoreError> {
    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
    for table in ["rockets", "processed_ranges", "losses"] {
        let sql =
            format!("SELECT channel, bucket FROM {table} WHERE bucket <> ALL($1) ORDER BY channel");
        for row in
            sqlx::query(AssertSqlSafe(sql)).bind(buckets.all()).fetch_all(&mut *connection).await?
        {
            let bucket: i16 = row.try_get(1)?;
            let detail = format!("a row in {table} has the bucket {bucket}, which doesn't exist");
            found(Finding { channel: Some(row.try_get(0)?), detail });
        }
    }
    Ok(())
}

struct PostgresRows<'c> {
    handle: Handle,
    connection: &'c mut PgConnection,
    buckets: &'c Buckets,
    /// The bucket that is read.
    bucket: i16,
    rockets: VecDeque<PgRow>,
    ranges: VecDeque<PgRow>,
    losses: VecDeque<PgRow>,
}

impl PostgresRows<'_> {
    fn fetch(&mut self, cursor: &str) -> Result<VecDeque<PgRow>, StoreError> {
        let sql = format!("FETCH {FETCHED_ROWS} FROM {cursor}");
        // Prepared, and therefore in binary format.
        let fetched = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *self.connection);
        Ok(self.handle.block_on(fetched)?.into())
    }

    fn read<T>(
        &self,
        row: &PgRow,
        read: impl FnOnce(&PgRow) -> Result<T, StoreError>,
    ) -> Result<audit::Row<T>, StoreError> {
        let channel: String = row.try_get("channel")?;
        if self.buckets.at(self.buckets.index_of(&channel)) != self.bucket {
            let detail =
                format!("it is in the bucket {}, where no statement finds it", self.bucket);
            return Ok((channel, Err(detail)));
        }
        Ok((channel, read(row).map_err(|error| error.to_string())))
    }
}

impl audit::Rows for PostgresRows<'_> {
    fn next_rocket(&mut self) -> Result<Option<audit::Row<Rocket>>, StoreError> {
        if self.rockets.is_empty() {
            self.rockets = self.fetch("all_rockets")?;
        }
        self.rockets.pop_front().map(|row| self.read(&row, rows::rocket)).transpose()
    }

    fn next_range(&mut self) -> Result<Option<audit::Row<audit::AuditedRange>>, StoreError> {
        if self.ranges.is_empty() {
            self.ranges = self.fetch("all_ranges")?;
        }
        let read = |row: &PgRow| rows::range_and_blocks(row, 1);
        self.ranges.pop_front().map(|row| self.read(&row, read)).transpose()
    }

    fn next_loss(&mut self) -> Result<Option<audit::Row<Loss>>, StoreError> {
        if self.losses.is_empty() {
            self.losses = self.fetch("all_losses")?;
        }
        self.losses.pop_front().map(|row| self.read(&row, rows::loss)).transpose()
    }
}
