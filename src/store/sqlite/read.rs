//! Reads: one rocket, and pages of rockets by keyset.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params, params_from_iter};

use super::{SqliteStore, rows};
use crate::domain::rocket::{Rocket, View, gaps};
use crate::domain::text::Channel;
use crate::store::listing::{self, Parameter, Part, PartStatement, ROCKET_COLUMNS};
use crate::store::query::{Filters, Page, RocketQuery, Sort};
use crate::store::report::{Report, ReportRows};
use crate::store::{GAPS_TOLD, RocketWithGaps, StoreError};

impl SqliteStore {
    /// See [`Store::rocket`](crate::store::Store::rocket).
    pub fn rocket(&self, channel: &Channel, view: View) -> Result<Option<RocketWithGaps>, StoreError> {
        self.with_reader(|connection| {
            let sql = format!("SELECT {ROCKET_COLUMNS} FROM {} WHERE channel = ?1", listing::table(view));
            let mut statement = connection.prepare_cached(&sql)?;
            // As long as this query is open, its snapshot is: the gaps are of the same state as the row.
            let mut found = statement.query(params![channel.as_str()])?;
            let Some(row) = found.next()? else {
                return Ok(None);
            };
            let rocket = rows::rocket(row)?;
            let gaps = if rocket.progress.missing() == 0 { Vec::new() } else { first_gaps(connection, channel)? };
            Ok(Some(RocketWithGaps { rocket, gaps }))
        })
    }

    /// See [`Store::rockets`](crate::store::Store::rockets).
    pub fn rockets(&self, query: &RocketQuery) -> Result<Page, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut rockets = Vec::with_capacity(query.limit + 1);
            for part in listing::parts(query) {
                let wanted = listing::wanted(query, rockets.len());
                if wanted > 0 {
                    read_part(&snapshot, query, part, wanted, &mut rockets)?;
                }
            }
            Ok(listing::page(query, rockets))
        })
    }
}

impl SqliteStore {
    /// See [`Store::report`](crate::store::Store::report).
    pub fn report(&self, report: Report, limit: u32) -> Result<ReportRows, StoreError> {
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(&report.sql())?;
            let mut found = statement.query(params![limit])?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                let cells = report.columns().iter().enumerate();
                rows.push(cells.map(|(index, (_, kind))| rows::value(row, index, *kind)).collect::<Result<_, _>>()?);
            }
            Ok(ReportRows { report, rows })
        })
    }
}

fn first_gaps(connection: &Connection, channel: &Channel) -> Result<Vec<(i64, i64)>, StoreError> {
    // Between n ranges there are n - 1 gaps, and one more before the first.
    let sql = "SELECT first_msg, last_msg FROM processed_ranges WHERE channel = ?1 ORDER BY first_msg LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let ranges =
        statement.query_map(params![channel.as_str(), GAPS_TOLD as i64 + 1], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let ranges: Vec<(i64, i64)> = ranges.collect::<Result<_, _>>()?;
    Ok(gaps(ranges.into_iter(), GAPS_TOLD))
}

fn read_part(
    connection: &Connection,
    query: &RocketQuery,
    part: Part,
    limit: i64,
    rockets: &mut Vec<Rocket>,
) -> Result<(), StoreError> {
    let mut part = PartStatement::new(query, part, limit);
    if is_listed(query) {
        use_lists(&mut part);
    }
    let mut statement = connection.prepare_cached(&part.sql(ROCKET_COLUMNS, query.view))?;
    let mut found = statement.query(params_from_iter(part.parameters))?;
    while let Some(row) = found.next()? {
        rockets.push(rows::rocket(row)?);
    }
    Ok(())
}

/// Whether the order is one of `rockets_listed`. With a filter an index of `rockets` finds the few that match, which are
/// then sorted.
fn is_listed(query: &RocketQuery) -> bool {
    let by_list = matches!(query.sort, Sort::LatestUpdate | Sort::Speed);
    by_list && query.view == View::BestEffort && query.filters == Filters::default()
}

/// Narrows a statement down to the first of those that are listed, and all whose place in the list is out of date: among
/// them are the first of all. The same conditions and order hold inside, on the list's own columns.
fn use_lists(part: &mut PartStatement) {
    let PartStatement { conditions, order, limit, .. } = part;
    let beyond = conditions.iter().map(|condition| format!("AND {condition}")).collect::<String>();
    conditions.push(format!(
        "channel IN (SELECT channel
                     FROM (SELECT channel FROM rockets_listed AS listed
                           WHERE NOT EXISTS (SELECT 1 FROM rockets_unlisted AS changed
                                             WHERE changed.channel = listed.channel) {beyond}
                           ORDER BY {order} LIMIT {limit})
                     UNION ALL SELECT channel FROM rockets_unlisted)"
    ));
}

impl ToSql for Parameter {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Integer(integer) => ToSqlOutput::from(*integer),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Time(time) => ToSqlOutput::from(time.to_string()),
        })
    }
}
