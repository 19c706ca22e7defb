//! Reads one rocket, and pages of rockets by keyset.

use std::ops::ControlFlow;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params, params_from_iter};

use super::SqliteStore;
use crate::domain::query::{MAX_GAPS, Page, RocketInBothViews, RocketQuery, RocketWithGaps};
use crate::domain::rocket::{Rocket, View, gaps};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::page::{self, Dialect, Parameter, Part, PartStatement};
use crate::store::report::{Report, ReportRows, Value};
use crate::store::rows::{self, Cells, ROCKET_COLUMNS};

/// The view `gaps` in key order, so that nothing is sorted and reading stops at the last row
/// wanted.
const GAPS: &str = "
    SELECT above.channel, 1 + coalesce(below.last_msg, 0), above.first_msg - 1, below.latest_time
    FROM processed_ranges AS above
    LEFT JOIN processed_ranges AS below
           ON below.channel = above.channel
          AND below.first_msg = (SELECT max(others.first_msg) FROM processed_ranges AS others
                                 WHERE others.channel = above.channel AND others.first_msg <
                                 above.first_msg)
    WHERE above.first_msg > 1 + coalesce(below.last_msg, 0)
    ORDER BY above.channel, above.first_msg LIMIT $1";

impl SqliteStore {
    /// See [`Reader::rocket`](crate::store::Reader::rocket).
    pub fn rocket(
        &self,
        channel: &Channel,
        view: View,
    ) -> Result<Option<RocketWithGaps>, StoreError> {
        self.with_reader(|connection| rocket(connection, channel, view))
    }

    /// See [`Store::rocket_in_both_views`](crate::store::Store::rocket_in_both_views).
    pub fn rocket_in_both_views(
        &self,
        channel: &Channel,
    ) -> Result<Option<RocketInBothViews>, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let best_effort = rocket(&snapshot, channel, View::BestEffort)?;
            let exact = rocket(&snapshot, channel, View::Exact)?;
            Ok(best_effort.zip(exact).map(|(best_effort, exact)| RocketInBothViews {
                best_effort,
                exact: exact.rocket.state,
            }))
        })
    }

    /// The result of [`rocket`](Self::rocket) for each of the reads, in their order, from one
    /// snapshot.
    pub fn rockets_by_channels<'a>(
        &self,
        reads: impl Iterator<Item = (&'a Channel, View)>,
    ) -> Result<Vec<Option<RocketWithGaps>>, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            reads.map(|(channel, view)| rocket(&snapshot, channel, view)).collect()
        })
    }

    /// See [`Store::rockets`](crate::store::Store::rockets).
    pub fn rockets(&self, query: &RocketQuery) -> Result<Page, StoreError> {
        if query.view == View::BestEffort
            && query.searches_fleet()
            && let Some(page) = self.read_cache(|columns, _| columns.page(query))?
        {
            return Ok(page);
        }
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut rockets = Vec::with_capacity(query.limit + 1);
            for part in page::parts(query) {
                let remaining = page::remaining(query, rockets.len());
                if remaining > 0 {
                    read_part(&snapshot, query, part, remaining, &mut rockets)?;
                }
            }
            Ok(page::page(query, rockets))
        })
    }
}

impl SqliteStore {
    /// See [`Store::first_received_after`](crate::store::Store::first_received_after).
    pub fn first_received_after(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        if let Some(first) = self.read_cache(|columns, _| columns.first_received_after(after))? {
            return Ok(first);
        }
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(page::FIRST_RECEIVED_AFTER)?;
            let mut found = statement.query(params![Parameter::Time(after)])?;
            let row = found.next()?.ok_or(StoreError::BrokenOff)?;
            row.time(0)
        })
    }
}

/// Rounds a mean as the views do.
fn round(connection: &Connection, mean: f64) -> Result<f64, StoreError> {
    Ok(connection.prepare_cached("SELECT round(?1, 3)")?.query_row([mean], |row| row.get(0))?)
}

impl SqliteStore {
    /// See [`Store::report`](crate::store::Store::report). From the copy in memory, if possible.
    pub fn report(&self, report: Report, limit: usize) -> Result<ReportRows, StoreError> {
        let wanted = limit + 1;
        if report != Report::Gaps
            && let Some(rows) = self.read_cache(|columns, connection| {
                columns.report(report, wanted, &|mean| round(connection, mean))
            })?
        {
            return Ok(ReportRows::new(report, rows?, limit));
        }
        self.report_from_tables(report, limit)
    }

    /// Reads a report without the copy in memory.
    pub(super) fn report_from_tables(
        &self,
        report: Report,
        limit: usize,
    ) -> Result<ReportRows, StoreError> {
        let mut rows = Vec::new();
        self.each_row(report, limit as i64 + 1, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        Ok(ReportRows::new(report, rows, limit))
    }

    /// See [`Store::report_rows`](crate::store::Store::report_rows).
    pub fn report_rows(
        &self,
        report: Report,
        each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.each_row(report, i64::MAX, each)
    }

    fn each_row(
        &self,
        report: Report,
        limit: i64,
        each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(&report.sql(GAPS))?;
            let mut found = statement.query(params![limit])?;
            while let Some(row) = found.next()? {
                let cells = report.columns().iter().enumerate();
                let cells = cells.map(|(index, (_, kind))| rows::value(row, index, *kind));
                if each(cells.collect::<Result<_, _>>()?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn rocket(
    connection: &Connection,
    channel: &Channel,
    view: View,
) -> Result<Option<RocketWithGaps>, StoreError> {
    let sql = format!("SELECT {ROCKET_COLUMNS} FROM {} WHERE channel = ?1", page::table(view));
    let mut statement = connection.prepare_cached(&sql)?;
    // While this query is open, so is its snapshot: the gaps are from the same state as the row.
    let mut found = statement.query(params![channel.as_str()])?;
    let Some(row) = found.next()? else {
        return Ok(None);
    };
    let rocket = rows::rocket(row)?;
    let gaps =
        if rocket.progress.missing() == 0 { Vec::new() } else { first_gaps(connection, channel)? };
    Ok(Some(RocketWithGaps { rocket, gaps }))
}

fn first_gaps(connection: &Connection, channel: &Channel) -> Result<Vec<(i64, i64)>, StoreError> {
    // Between n ranges there are n - 1 gaps, and there may be one before the first.
    let sql = "SELECT first_msg, last_msg FROM processed_ranges WHERE channel = ?1 ORDER BY \
               first_msg LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let ranges = statement.query_map(params![channel.as_str(), MAX_GAPS as i64 + 1], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let ranges: Vec<(i64, i64)> = ranges.collect::<Result<_, _>>()?;
    Ok(gaps(ranges.into_iter(), MAX_GAPS))
}

fn read_part(
    connection: &Connection,
    query: &RocketQuery,
    part: Part,
    limit: i64,
    rockets: &mut Vec<Rocket>,
) -> Result<(), StoreError> {
    let part = PartStatement::new(query, part, limit, Dialect::Sqlite);
    let mut statement = connection.prepare_cached(&part.sql(ROCKET_COLUMNS, query.view))?;
    let mut found = statement.query(params_from_iter(part.parameters))?;
    while let Some(row) = found.next()? {
        rockets.push(rows::rocket(row)?);
    }
    Ok(())
}

impl ToSql for Parameter {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Integer(integer) => ToSqlOutput::from(*integer),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Texts(texts) => ToSqlOutput::from(serde_json::Value::from(&**texts).to_string()),
            Self::Time(time) => ToSqlOutput::from(time.to_string()),
        })
    }
}
