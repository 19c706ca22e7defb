//! Reads: one rocket, and pages of rockets by keyset.

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::{SqliteStore, rows};
use crate::domain::rocket::{Rocket, View, gaps};
use crate::domain::text::Channel;
use crate::store::query::{Filters, Order, Page, Position, RocketQuery, Sort, SortKey};
use crate::store::{GAPS_TOLD, RocketWithGaps, StoreError};

fn table(view: View) -> &'static str {
    match view {
        View::BestEffort => "rockets",
        View::Exact => "rockets_exact",
    }
}

impl SqliteStore {
    /// See [`Store::rocket`](crate::store::Store::rocket).
    pub fn rocket(&self, channel: &Channel, view: View) -> Result<Option<RocketWithGaps>, StoreError> {
        self.with_reader(|connection| {
            let sql = format!("SELECT {} FROM {} WHERE channel = ?1", rows::ROCKET_COLUMNS, table(view));
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
            // One more than wanted tells whether another page follows.
            let mut rockets = Vec::with_capacity(query.limit + 1);
            for part in parts(query) {
                let wanted = query.limit + 1 - rockets.len();
                if wanted > 0 {
                    read_part(&snapshot, query, part, wanted, &mut rockets)?;
                }
            }
            let more = rockets.len() > query.limit;
            rockets.truncate(query.limit);
            let next = rockets
                .last()
                .filter(|_| more)
                .map(|rocket| Position { key: query.sort.key(rocket), channel: rocket.channel.clone() });
            Ok(Page { rockets, next })
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

/// A list is read in up to two parts, each in the order of an index: the rockets that have the sort's key, then those
/// that lack it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Keyed,
    Unkeyed,
}

fn parts(query: &RocketQuery) -> impl Iterator<Item = Part> {
    let keyed = !matches!(&query.after, Some(Position { key: SortKey::Null, .. }));
    let unkeyed = query.sort.nullable(query.view);
    [(keyed, Part::Keyed), (unkeyed, Part::Unkeyed)].into_iter().filter_map(|(wanted, part)| wanted.then_some(part))
}

fn read_part(
    connection: &Connection,
    query: &RocketQuery,
    part: Part,
    limit: usize,
    rockets: &mut Vec<Rocket>,
) -> Result<(), StoreError> {
    let (sql, values) = list_statement(query, part, limit);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    while let Some(row) = found.next()? {
        rockets.push(rows::rocket(row)?);
    }
    Ok(())
}

fn list_statement(query: &RocketQuery, part: Part, limit: usize) -> (String, Vec<Value>) {
    let key = query.sort.column();
    let limit = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
    let (direction, beyond) = match query.order {
        Order::Asc => ("ASC", ">"),
        Order::Desc => ("DESC", "<"),
    };
    let (mut conditions, mut values) = conditions(&query.filters);
    let channel = |after: &Position| Value::Text(after.channel.as_str().to_owned());
    let sorted_by_channel = part == Part::Unkeyed || query.sort == Sort::Channel;
    match (part, &query.after) {
        (Part::Keyed, None) if query.sort.nullable(query.view) => conditions.push(format!("{key} IS NOT NULL")),
        (Part::Keyed, None) => {}
        (Part::Keyed, Some(after)) if sorted_by_channel => {
            conditions.push(format!("channel {beyond} ?"));
            values.push(channel(after));
        }
        (Part::Keyed, Some(after)) => {
            conditions.push(format!("({key}, channel) {beyond} (?, ?)"));
            values.extend([value(&after.key), channel(after)]);
        }
        (Part::Unkeyed, after) => {
            conditions.push(format!("{key} IS NULL"));
            if let Some(after) = after.as_ref().filter(|after| after.key == SortKey::Null) {
                conditions.push(format!("channel {beyond} ?"));
                values.push(channel(after));
            }
        }
    }
    let order = if sorted_by_channel {
        format!("channel {direction}")
    } else {
        format!("{key} {direction}, channel {direction}")
    };
    if is_listed(query) {
        // The first of those that are listed, and all whose place in the list is out of date: among them are the first
        // of all. The same condition and order hold inside, on the list's own columns.
        let beyond = conditions.iter().map(|condition| format!("AND {condition}")).collect::<String>();
        conditions.push(format!(
            "channel IN (SELECT channel
                         FROM (SELECT channel FROM rockets_listed AS listed
                               WHERE NOT EXISTS (SELECT 1 FROM rockets_unlisted AS changed
                                                 WHERE changed.channel = listed.channel) {beyond}
                               ORDER BY {order} LIMIT ?)
                         UNION ALL SELECT channel FROM rockets_unlisted)"
        ));
        values.extend(values.clone());
        values.push(limit.clone());
    }
    values.push(limit);
    let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let (columns, table) = (rows::ROCKET_COLUMNS, table(query.view));
    (format!("SELECT {columns} FROM {table} {filter} ORDER BY {order} LIMIT ?"), values)
}

/// Whether the order is one of `rockets_listed`. With a filter an index of `rockets` finds the few that match, which are
/// then sorted.
fn is_listed(query: &RocketQuery) -> bool {
    let by_list = matches!(query.sort, Sort::LatestUpdate | Sort::Speed);
    by_list && query.view == View::BestEffort && query.filters == Filters::default()
}

fn conditions(filters: &Filters) -> (Vec<String>, Vec<Value>) {
    let Filters { channel, rocket_type, mission, status } = filters;
    [
        ("channel", channel.as_ref().map(Channel::as_str)),
        ("type", rocket_type.as_ref().map(|text| text.as_str())),
        ("mission", mission.as_ref().map(|text| text.as_str())),
        ("status", status.map(|status| status.name())),
    ]
    .into_iter()
    .filter_map(|(column, wanted)| Some((format!("{column} = ?"), Value::Text(wanted?.to_owned()))))
    .unzip()
}

fn value(key: &SortKey) -> Value {
    match key {
        SortKey::Null => Value::Null,
        SortKey::Integer(integer) => Value::Integer(*integer),
        SortKey::Text(text) => Value::Text(text.clone()),
    }
}
