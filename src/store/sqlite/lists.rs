//! The sort index: the orders in which rockets are listed, kept outside the table of rockets and
//! updated in bulk.
//!
//! An index on `rockets` would be written with every message, at a different place of the file for
//! each rocket. Instead, a commit only records which rockets have changed (the backlog,
//! `rockets_unlisted`), and readers sort these in. The index (`rockets_listed`) is updated in idle
//! times and, while somebody reads lists, also under load. If the backlog becomes too large for
//! readers to sort in, as it does while nobody reads, the index is dropped and rebuilt later,
//! channel by channel (`rockets_listing`). Until then, reading a page sorts all rockets.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params, params_from_iter};

use super::rows;
use crate::domain::rocket::{Rocket, View};
use crate::store::StoreError;
use crate::store::listing::{PartStatement, ROCKET_COLUMNS};
use crate::store::query::{Filters, RocketQuery, Sort};

/// While lists are being read, a larger backlog makes each batch also index some rockets, because
/// readers must sort the backlog.
const UNLISTED_MOST: i64 = 1_500;
/// So does a batch with this many messages per rocket in the backlog: the batch takes a fifth
/// longer, but readers' pages take a quarter of the time.
const MESSAGES_A_ROCKET: i64 = 24;
/// With a larger backlog, the index is dropped.
const GIVEN_UP_AT: i64 = 65_536;
/// How many rockets are indexed in one transaction when idle: about 40 ms in a fleet of a million.
const LISTED_AT_A_TIME: i64 = 2_048;
/// The bounds on how many rockets are indexed in a transaction that others wait for. The number is
/// twice what the transaction changes, or else readers would never see an empty backlog.
const LISTED_BESIDE: (i64, i64) = (256, 4_096);
/// Lists count as being read until this long after the last read.
const READ_LATELY: Duration = Duration::from_secs(60);

/// Indexes the rockets in the backlog up to an id, in the order of the channels. Unchanged keys are
/// not written to their index.
const LIST_CHANGED: [&str; 3] = [
    "INSERT INTO rockets_listed (channel, status, type, speed, mission, latest_update)
     SELECT rockets.channel, rockets.status, rockets.type, rockets.speed, rockets.mission, rockets.latest_update
     FROM (SELECT channel FROM rockets_unlisted WHERE id <= ?1 GROUP BY channel) AS changed
     CROSS JOIN rockets ON rockets.channel = changed.channel
     WHERE true
     ON CONFLICT (channel) DO UPDATE SET speed = excluded.speed, latest_update = excluded.latest_update",
    "UPDATE rockets_listed SET status = rockets.status, type = rockets.type, mission = rockets.mission
     FROM (SELECT channel FROM rockets_unlisted WHERE id <= ?1 GROUP BY channel) AS changed
     CROSS JOIN rockets ON rockets.channel = changed.channel
     WHERE rockets_listed.channel = changed.channel
       AND (rockets_listed.status, rockets_listed.type, rockets_listed.mission)
           IS NOT (rockets.status, rockets.type, rockets.mission)",
    "DELETE FROM rockets_unlisted WHERE id <= ?1",
];

/// Indexes the rockets between two channels.
const LIST_BETWEEN: &str = "
    INSERT OR REPLACE INTO rockets_listed (channel, status, type, speed, mission, latest_update)
    SELECT channel, status, type, speed, mission, latest_update FROM rockets
    WHERE channel > ?1 AND channel <= ?2 ORDER BY channel";

/// When lists were last read by this process.
#[derive(Debug)]
pub(super) struct Readers {
    started: Instant,
    /// In milliseconds after `started`, plus one; zero if never.
    last: AtomicU64,
    /// The last read had to sort all rockets.
    sorts_all: AtomicBool,
}

impl Default for Readers {
    fn default() -> Self {
        Self { started: Instant::now(), last: AtomicU64::new(0), sorts_all: AtomicBool::new(false) }
    }
}

impl Readers {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn came(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// Whether the last read had to sort all rockets.
    pub(super) fn sorts_all(&self) -> bool {
        self.sorts_all.load(Ordering::Relaxed)
    }

    fn came_lately(&self) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last > 0 && u128::from(self.now().saturating_sub(last)) < READ_LATELY.as_millis()
    }
}

/// How far the index is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// All rockets are in the index; it may be outdated for those in the backlog.
    All,
    /// The rockets up to this channel are; it may be outdated for those in the backlog.
    Through(String),
}

impl Listed {
    /// Reads it in a transaction.
    pub(super) fn of(connection: &Connection) -> Result<Self, StoreError> {
        let sql = "SELECT listed_through FROM rockets_listing";
        let through: Option<String> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(through.map_or(Self::All, Self::Through))
    }

    /// Whether a change of this rocket must go to the backlog.
    pub(super) fn includes(&self, channel: &str) -> bool {
        match self {
            Self::All => true,
            Self::Through(last) => channel <= last.as_str(),
        }
    }

    fn store(&self, connection: &Connection) -> Result<(), StoreError> {
        let through = match self {
            Self::All => None,
            Self::Through(last) => Some(last),
        };
        connection.prepare_cached("UPDATE rockets_listing SET listed_through = ?1")?.execute(params![through])?;
        Ok(())
    }
}

/// The first and the last id in the backlog.
fn changes(connection: &Connection) -> Result<Option<(i64, i64)>, StoreError> {
    let sql = "SELECT (SELECT min(id) FROM rockets_unlisted), (SELECT max(id) FROM rockets_unlisted)";
    let ids = connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match ids {
        (Some(first), Some(last)) => Some((first, last)),
        _ => None,
    })
}

/// Maintenance that can't wait, inside a transaction that commits `messages` messages and has added
/// `noted` rockets to the backlog. Returns whether the writer's record of which rockets are in the
/// backlog is now invalid.
pub(super) fn keep_up(
    transaction: &Connection,
    readers: &Readers,
    listed: &mut Listed,
    messages: usize,
    noted: usize,
) -> Result<bool, StoreError> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let unlisted = changes(transaction)?.map_or(0, |(first, last)| last - first + 1);
    if unlisted > GIVEN_UP_AT {
        transaction.execute("DELETE FROM rockets_unlisted", [])?;
        *listed = Listed::Through(String::new());
        listed.store(transaction)?;
        return Ok(true);
    }
    let few = unlisted > 0 && count(messages) / unlisted >= MESSAGES_A_ROCKET;
    let behind = unlisted > UNLISTED_MOST || few || *listed != Listed::All;
    if behind && readers.came_lately() {
        let (fewest, most) = LISTED_BESIDE;
        let at_a_time = count(noted).saturating_mul(2).clamp(fewest, most);
        list_some(transaction, listed, at_a_time)?;
        return Ok(true);
    }
    Ok(false)
}

/// Indexes some rockets of the backlog, or of those not indexed yet. Returns whether there are
/// more.
pub(super) fn catch_up(transaction: &Connection, listed: &mut Listed) -> Result<bool, StoreError> {
    list_some(transaction, listed, LISTED_AT_A_TIME)
}

/// Whether there is nothing left to index.
pub(super) fn are_current(connection: &Connection) -> Result<bool, StoreError> {
    Ok(changes(connection)?.is_none() && Listed::of(connection)? == Listed::All)
}

fn list_some(transaction: &Connection, listed: &mut Listed, at_a_time: i64) -> Result<bool, StoreError> {
    let changes = changes(transaction)?;
    let mut left = false;
    if let Some((first, last)) = changes {
        let through = last.min(first.saturating_add(at_a_time - 1));
        for statement in LIST_CHANGED {
            transaction.prepare_cached(statement)?.execute(params![through])?;
        }
        left = through < last;
    }
    if let Listed::Through(from) = listed {
        let sql = "SELECT max(channel) FROM (SELECT channel FROM rockets WHERE channel > ?1 ORDER BY channel LIMIT ?2)";
        let through: Option<String> =
            transaction.prepare_cached(sql)?.query_row(params![*from, at_a_time], |row| row.get(0))?;
        if let Some(through) = &through {
            transaction.prepare_cached(LIST_BETWEEN)?.execute(params![*from, through])?;
        }
        *listed = through.map_or(Listed::All, Listed::Through);
        listed.store(transaction)?;
        left |= *listed != Listed::All;
    }
    Ok(left)
}

/// Whether the index can help to read a page.
pub(super) fn help(query: &RocketQuery) -> bool {
    let Filters { channel, rocket_type, mission, status } = &query.filters;
    let filtered = rocket_type.is_some() || mission.is_some() || status.is_some();
    query.view == View::BestEffort && channel.is_none() && (filtered || query.sort != Sort::Channel)
}

/// Reads a part of a page with the help of the index.
pub(super) fn read(
    connection: &Connection,
    readers: &Readers,
    mut part: PartStatement,
    rockets: &mut Vec<Rocket>,
) -> Result<(), StoreError> {
    readers.came();
    let (listed, changed) = (Listed::of(connection)?, changes(connection)?.is_some());
    readers.sorts_all.store(listed != Listed::All, Ordering::Relaxed);
    match listed {
        Listed::All if !changed => return read_listed(connection, part, rockets),
        Listed::All => use_lists(&mut part),
        Listed::Through(_) => {}
    }
    read_rockets(connection, part, View::BestEffort, rockets)
}

/// Reads a part of a page from the rockets themselves.
pub(super) fn read_rockets(
    connection: &Connection,
    part: PartStatement,
    view: View,
    rockets: &mut Vec<Rocket>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(&part.sql(ROCKET_COLUMNS, view))?;
    let mut found = statement.query(params_from_iter(part.parameters))?;
    while let Some(row) = found.next()? {
        rockets.push(rows::rocket(row)?);
    }
    Ok(())
}

/// The backlog is empty, so the index gives the channels in the wanted order.
fn read_listed(connection: &Connection, part: PartStatement, rockets: &mut Vec<Rocket>) -> Result<(), StoreError> {
    let PartStatement { conditions, order, limit, parameters } = part;
    let condition = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let sql = format!("SELECT channel FROM rockets_listed {condition} ORDER BY {order} LIMIT {limit}");
    let mut channels = connection.prepare_cached(&sql)?;
    let mut channels = channels.query(params_from_iter(parameters))?;
    let mut rocket = connection.prepare_cached(&format!("SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel = ?1"))?;
    while let Some(row) = channels.next()? {
        let mut found = rocket.query(params![row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?])?;
        // A missing row is reported by `check`.
        if let Some(row) = found.next()? {
            rockets.push(rows::rocket(row)?);
        }
    }
    Ok(())
}

/// Restricts a statement to the first rockets of the index without those in the backlog, and to all
/// rockets in the backlog: these include the first of all. The same conditions and order apply
/// inside, to the index's own columns.
fn use_lists(part: &mut PartStatement) {
    let PartStatement { conditions, order, limit, .. } = part;
    let beyond = conditions.iter().map(|condition| format!(" AND {condition}")).collect::<String>();
    conditions.push(format!(
        "channel IN (SELECT channel
                     FROM (SELECT channel FROM rockets_listed
                           WHERE channel NOT IN (SELECT channel FROM rockets_unlisted){beyond}
                           ORDER BY {order} LIMIT {limit})
                     UNION ALL SELECT channel FROM rockets_unlisted)"
    ));
}

/// The channels whose entries are wrong, in any order.
pub(super) const WRONGLY_LISTED: &str = "
    SELECT rockets.channel
    FROM rockets CROSS JOIN rockets_listing LEFT JOIN rockets_listed AS listed ON listed.channel = rockets.channel
    WHERE (listed.channel, listed.status, listed.type, listed.speed, listed.mission, listed.latest_update)
          IS NOT (rockets.channel, rockets.status, rockets.type, rockets.speed, rockets.mission, rockets.latest_update)
      AND rockets.channel <= coalesce(listed_through, rockets.channel)
      AND rockets.channel NOT IN (SELECT channel FROM rockets_unlisted)
    UNION
    SELECT channel FROM (SELECT channel FROM rockets_listed UNION SELECT channel FROM rockets_unlisted)
    WHERE channel NOT IN (SELECT channel FROM rockets)";
