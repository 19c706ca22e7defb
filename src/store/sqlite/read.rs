//! Reads one rocket, and pages of rockets by keyset.

use std::ops::ControlFlow;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params, params_from_iter};

use super::{SqliteStore, losses};
use crate::domain::query::{
    GapTotals, MAX_GAPS, Page, RocketInBothViews, RocketQuery, RocketWithGaps,
};
use crate::domain::rocket::{RangeFold, Rocket, View, gaps};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::page::{self, Dialect, Parameter, Part, PartStatement};
use crate::store::report::{Report, ReportQuery, ReportRows, Value};
use crate::store::rows::{self, Cells, ROCKET_COLUMNS};

/// The view `gaps` in key order, so that nothing is sorted, and reading starts after the previous
/// page and stops at the last row wanted. See [`ReportQuery::statement`].
fn gaps_sql(is_continued: bool, limit: &str) -> String {
    let beyond = if is_continued { "AND (above.channel, above.first_msg) > ($1, $2)" } else { "" };
    let order = format!("ORDER BY above.channel, above.first_msg LIMIT {limit}");
    some_gaps_sql(beyond, &order)
}

/// The gaps that meet a condition.
fn some_gaps_sql(condition: &str, order: &str) -> String {
    format!(
        "
    SELECT channel, first_missing, last_missing, after_time, since,
           (SELECT coalesce(sum(min(last_msg, last_missing) - max(first_msg, first_missing) + 1), 0)
            FROM losses
            WHERE losses.channel = missing.channel
              AND first_msg <= last_missing AND last_msg >= first_missing
              AND first_msg >= coalesce((SELECT max(first_msg) FROM losses
                                         WHERE losses.channel = missing.channel
                                           AND first_msg <= first_missing), 0)) AS lost
    FROM (SELECT above.channel AS channel, 1 + coalesce(below.last_msg, 0) AS first_missing,
                 above.first_msg - 1 AS last_missing, below.latest_time AS after_time,
                 above.first_received AS since
          FROM processed_ranges AS above
          LEFT JOIN processed_ranges AS below
                 ON below.channel = above.channel
                AND below.first_msg = (SELECT max(others.first_msg) FROM processed_ranges AS others
                                       WHERE others.channel = above.channel
                                         AND others.first_msg < above.first_msg)
          WHERE above.first_msg > 1 + coalesce(below.last_msg, 0) {condition} {order}) AS missing"
    )
}

impl SqliteStore {
    /// Reads a rocket up to this view, see [`rocket`]; none if it is unknown. If that takes too
    /// many rows for a thread that serves others too, the result is [`TooManyRows`].
    pub(super) fn rocket_in_short(
        &self,
        channel: &Channel,
        view: View,
    ) -> Result<ShortRead, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            rocket(&snapshot, channel, view, MAX_SHORT_ROWS)
        })
    }

    /// The result of [`rocket_in_short`](Self::rocket_in_short) for each of the reads, in their
    /// order, from one snapshot.
    pub(super) fn rockets_in_short<'a>(
        &self,
        reads: impl Iterator<Item = (&'a Channel, View)>,
    ) -> Result<Vec<ShortRead>, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            reads.map(|(channel, view)| rocket(&snapshot, channel, view, MAX_SHORT_ROWS)).collect()
        })
    }

    /// Reads a rocket up to this view, however many rows it takes, on another thread.
    pub(super) async fn rocket_at_length(
        &self,
        channel: &Channel,
        view: View,
    ) -> Result<Option<RocketInBothViews>, StoreError> {
        let (store, channel) = (self.clone(), channel.clone());
        let read = tokio::task::spawn_blocking(move || {
            store.with_reader(|connection| {
                let snapshot = connection.unchecked_transaction()?;
                let Ok(found) = rocket(&snapshot, &channel, view, usize::MAX)? else {
                    unreachable!("no rocket has so many rows")
                };
                Ok(found)
            })
        });
        read.await.unwrap_or(Err(StoreError::BrokenOff))
    }

    /// See [`Store::rocket_in_both_views`](crate::store::Store::rocket_in_both_views).
    pub async fn rocket_in_both_views(
        &self,
        channel: &Channel,
    ) -> Result<Option<RocketInBothViews>, StoreError> {
        match self.rocket_in_short(channel, View::Exact)? {
            Ok(found) => Ok(found),
            Err(TooManyRows) => self.rocket_at_length(channel, View::Exact).await,
        }
    }

    /// See [`Store::rockets`](crate::store::Store::rockets).
    pub fn rockets(&self, query: &RocketQuery) -> Result<Page, StoreError> {
        if query.view == View::BestEffort
            && query.searches_fleet()
            && let Some(mut page) = self.read_cache(|columns, _| columns.page(query))?
            && self.add_losses_to_cached(&mut page.rockets)?
        {
            return Ok(page);
        }
        self.page_from_tables(query)
    }

    /// Reads a page without the copy in memory.
    pub fn page_from_tables(&self, query: &RocketQuery) -> Result<Page, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut rockets = Vec::with_capacity(query.limit + 1);
            for part in page::parts(query) {
                let remaining = page::remaining(query, rockets.len());
                if remaining > 0 {
                    read_part(&snapshot, query, part, remaining, &mut rockets)?;
                }
            }
            let mut page = page::page(query, rockets, count(&snapshot, query)?);
            losses::add_losses(&snapshot, &mut page.rockets)?;
            Ok(page)
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
    pub fn report(&self, query: &ReportQuery) -> Result<ReportRows, StoreError> {
        let wanted = query.with_next_row();
        if query.report != Report::Gaps
            && let Some(rows) = self.read_cache(|columns, connection| {
                columns.report(&wanted, &|mean| round(connection, mean))
            })?
        {
            return ReportRows::new(query, rows?);
        }
        self.report_from_tables(query)
    }

    /// Reads a report without the copy in memory.
    pub(super) fn report_from_tables(&self, query: &ReportQuery) -> Result<ReportRows, StoreError> {
        let mut rows = Vec::new();
        self.report_rows(&query.with_next_row(), &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        ReportRows::new(query, rows)
    }

    /// See [`Store::report_rows`](crate::store::Store::report_rows).
    pub fn report_rows(
        &self,
        query: &ReportQuery,
        each: &mut dyn FnMut(Vec<Value>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (sql, parameters) = query.statement(|after, limit| gaps_sql(after.is_some(), limit));
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut found = statement.query(params_from_iter(parameters))?;
            while let Some(row) = found.next()? {
                let cells = query.report.columns().iter().enumerate();
                let cells = cells.map(|(index, (_, kind))| rows::value(row, index, *kind));
                if each(cells.collect::<Result<_, _>>()?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

impl SqliteStore {
    /// See [`Store::gap_totals`](crate::store::Store::gap_totals).
    pub fn gap_totals(&self) -> Result<GapTotals, StoreError> {
        let oldest = rows::oldest_gap_sql("losses.channel = ranges.channel");
        let with_losses = "AND above.channel IN (SELECT channel FROM losses)";
        let with_losses = rows::lost_gaps_sql(&some_gaps_sql(with_losses, ""));
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let (mut oldest, mut with_losses) =
                (snapshot.prepare_cached(&oldest)?, snapshot.prepare_cached(&with_losses)?);
            let (mut oldest, mut with_losses) = (oldest.query([])?, with_losses.query([])?);
            let (Some(oldest), Some(with_losses)) = (oldest.next()?, with_losses.next()?) else {
                unreachable!("both statements aggregate without grouping, so each has one row")
            };
            rows::gap_totals(oldest, with_losses)
        })
    }
}

/// How many rows of a channel's losses and ranges are read at once on a thread that serves others
/// too. They take less than a millisecond.
const MAX_SHORT_ROWS: usize = 500;

/// The losses of a channel, and the ranges that the exact view reaches across them, have too many
/// rows for a short read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyRows;

/// The result of a short read; none if the channel is unknown.
pub(super) type ShortRead = Result<Option<RocketInBothViews>, TooManyRows>;

/// Reads a rocket's best-effort view, and its exact view only if `view` asks for it.
fn rocket(
    snapshot: &Connection,
    channel: &Channel,
    view: View,
    max_rows: usize,
) -> Result<ShortRead, StoreError> {
    let sql = format!("SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel = ?1");
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut found = statement.query(params![channel.as_str()])?;
    let Some(row) = found.next()? else {
        return Ok(Ok(None));
    };
    let mut rocket = rows::rocket(row)?;
    let (mut gaps, mut exact) = (Vec::new(), None);
    // Without gaps the views are the same, and losses don't matter.
    if rocket.progress.missing() > 0 {
        gaps = first_gaps(snapshot, channel)?;
        let mut prefix = None;
        if losses::are_declared(snapshot, channel)? {
            prefix = losses::exact_prefix(snapshot, channel, max_rows)?;
            if prefix.is_none() {
                return Ok(Err(TooManyRows));
            }
        } else if view == View::Exact {
            prefix = Some(complete_prefix(snapshot, channel)?);
        }
        if let Some(prefix) = prefix {
            rocket.progress.add_losses(&prefix);
            exact = Some(prefix.state(View::Exact));
        }
    }
    let best_effort = RocketWithGaps { rocket, gaps };
    Ok(Ok(Some(RocketInBothViews { best_effort, exact })))
}

/// The fold of the messages before the first gap, which the exact view of a channel without losses
/// is.
fn complete_prefix(connection: &Connection, channel: &Channel) -> Result<RangeFold, StoreError> {
    let columns = rows::range_columns("processed_ranges");
    let sql =
        format!("SELECT {columns} FROM processed_ranges WHERE channel = ?1 AND first_msg = 1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut fold = RangeFold::default();
    if let Some(row) = statement.query(params![channel.as_str()])?.next()? {
        fold.add(rows::range(row, 0)?);
    }
    Ok(fold)
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

/// How many rockets match, if the query asks for it.
fn count(connection: &Connection, query: &RocketQuery) -> Result<Option<i64>, StoreError> {
    let Some((sql, parameters)) = PartStatement::count(query, Dialect::Sqlite) else {
        return Ok(None);
    };
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(Some(statement.query_row(params_from_iter(parameters), |row| row.get(0))?))
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
