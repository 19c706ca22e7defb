//! The write path: one IMMEDIATE transaction per batch, including its reads, so that no other
//! process can write to the file in between.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, TransactionBehavior, params};

use super::ConnectionHandle;
use super::cache::{Cache, CommittedChange};
use super::checkpoints::Checkpoints;
use super::commits::Version;
use crate::domain::batch::{Batch, Group, Outcome, Window};
use crate::domain::message::Message;
use crate::domain::ranges::{Applied, Joined, ProcessedRange};
use crate::domain::speed_blocks::SpeedBlocks;
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::fault_injection::{FailurePoint, Failures};
use crate::store::range_cache::{MAX_RANGES, RangeCache};
use crate::store::{StoreError, rows, upsert};

/// Adds the sum of new messages to a rocket.
fn upsert_rocket() -> String {
    format!(
        "INSERT INTO rockets (channel, speed, latest_update, last_received, processed,
                              complete_through, highest, type, latest_launch_msg, mission,
                              latest_mission_msg, exploded_reason, latest_exploded_msg)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) {}",
        upsert::on_conflict("max", "excluded.last_received", true)
    )
}

/// For messages that change only the speed.
fn upsert_rocket_speed() -> String {
    format!(
        "INSERT INTO rockets (channel, speed, latest_update, last_received, processed,
                              complete_through, highest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) {}",
        upsert::on_conflict("max", "excluded.last_received", false)
    )
}

pub(super) const ADD_RANGE: &str = "
    INSERT INTO processed_ranges (channel, first_msg, last_msg, speed_change, launch_msg,
                                  launch_type, mission_msg, mission, exploded_msg,
                                  exploded_reason, latest_time, first_received, speed_blocks)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

/// It has the parameters of [`ADD_RANGE`]. The row exists: the transaction has loaded or validated
/// it.
pub(super) const GROW_RANGE: &str = "
    UPDATE processed_ranges SET last_msg = ?3, speed_change = ?4, launch_msg = ?5,
                                launch_type = ?6, mission_msg = ?7, mission = ?8,
                                exploded_msg = ?9, exploded_reason = ?10, latest_time = ?11,
                                first_received = ?12, speed_blocks = ?13
    WHERE channel = ?1 AND first_msg = ?2";

const DELETE_RANGE: &str = "DELETE FROM processed_ranges WHERE channel = ?1 AND first_msg = ?2";

/// Commits batches to SQLite.
#[derive(Debug)]
pub struct SqliteWriter {
    /// None for a database in memory. Dropped, and thereby ended, before the connection.
    pub(super) checkpoints: Option<Checkpoints>,
    pub(super) connection: ConnectionHandle,
    failures: Failures,
    pub(super) cache: Arc<Cache>,
    range_cache: RangeCache<()>,
    /// The version of the database that the range cache belongs to.
    version: Option<Version>,
    statements: StatementTexts,
}

/// The statements that are assembled at run time.
#[derive(Debug)]
struct StatementTexts {
    load_ranges: String,
    upsert_rocket: String,
    upsert_rocket_speed: String,
}

impl Default for StatementTexts {
    fn default() -> Self {
        Self {
            // In descending order from the last range that starts at or before the window's end.
            // The caller stops at the first range that ends below the window, so it takes one
            // search of the index, however many ranges the channel has.
            load_ranges: format!(
                "SELECT {} FROM processed_ranges WHERE channel = ?1 AND first_msg <= ?2 ORDER BY \
                 first_msg DESC",
                rows::range_columns("processed_ranges")
            ),
            upsert_rocket: upsert_rocket(),
            upsert_rocket_speed: upsert_rocket_speed(),
        }
    }
}

impl SqliteWriter {
    pub(super) fn new(
        connection: ConnectionHandle,
        checkpoints: Option<Checkpoints>,
        failures: Failures,
        cache: Arc<Cache>,
    ) -> Self {
        let (range_cache, statements) = (RangeCache::default(), StatementTexts::default());
        Self { checkpoints, connection, failures, cache, range_cache, version: None, statements }
    }

    /// See [`Writer::commit`](crate::store::Writer::commit).
    pub fn commit(
        &mut self,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<Vec<Outcome>, StoreError> {
        self.connection.verify_index()?;
        let committed = self.try_commit(messages, now);
        // A commit is acknowledged only if it is in the file that the path names. If it is not,
        // that may also be the cause of a failure.
        let outcomes = self.connection.verify(committed)?;
        self.connection.after_commit(self.checkpoints.as_mut());
        Ok(outcomes)
    }

    fn try_commit(
        &mut self,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<Vec<Outcome>, StoreError> {
        // Grouped before the lock is taken.
        let batch = Batch::new(messages);
        let mut outcomes = vec![Outcome::Duplicate; messages.len()];
        // The cache is put back after the commit, and is empty after a failure.
        let (mut range_cache, version) =
            (std::mem::take(&mut self.range_cache), self.version.take());
        let generation = self.connection.generation();
        let mut connection = self.connection.guard();
        // On an error, it is dropped and thereby rolled back.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let open = self.cache.commits.begin(|| Version::of(generation, &transaction));
        self.failures.check(FailurePoint::BeforeLoad)?;
        if !open.follows(version) {
            range_cache.clear();
        }
        let mut statements = BatchStatements::prepare(&transaction, &self.statements, now)?;
        let (mut changes, mut has_written) = (Vec::new(), false);
        for group in batch.groups() {
            let Some(applied) = statements.write(group, &mut range_cache, &mut outcomes)? else {
                continue;
            };
            has_written = true;
            if open.is_recorded() {
                changes.push(CommittedChange::Messages(group.channel().clone(), applied, now));
            }
        }
        drop(statements);
        self.failures.check(FailurePoint::BeforeCommit)?;
        transaction.commit()?;
        self.version =
            self.cache.apply(open, has_written, &changes, || Version::of(generation, &connection));
        self.range_cache = range_cache;
        self.failures.check(FailurePoint::AfterCommit)?;
        Ok(outcomes)
    }

    /// See [`Writer::probe`](crate::store::Writer::probe).
    pub fn probe(&mut self) -> Result<(), StoreError> {
        self.connection.verify_index()?;
        let probed = self.try_probe();
        self.connection.verify(probed)
    }

    /// Executes the statements of a batch for a channel that no message can have, and rolls them
    /// back. Then it commits an empty change, so that the log is written and synced.
    fn try_probe(&mut self) -> Result<(), StoreError> {
        let version = self.version.take();
        let generation = self.connection.generation();
        let mut connection = self.connection.guard();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let open = self.cache.commits.begin(|| Version::of(generation, &transaction));
        if !open.follows(version) {
            self.range_cache.clear();
        }
        transaction.execute_batch("SAVEPOINT probe")?;
        let no_time = "0001-01-01T00:00:00.000000Z";
        transaction
            .prepare_cached(&self.statements.upsert_rocket_speed)?
            .execute(params!["", 0, no_time, no_time, 0, 0, 0])?;
        let no_text = None::<&str>;
        let range = params![
            "", 1, 1, 0, no_text, no_text, no_text, no_text, no_text, no_text, no_time, no_time,
            no_text
        ];
        transaction.prepare_cached(ADD_RANGE)?.execute(range)?;
        transaction.execute_batch("ROLLBACK TO probe; RELEASE probe")?;
        let user_version: i64 =
            transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        transaction.execute_batch(&format!("PRAGMA user_version = {user_version}"))?;
        transaction.commit()?;
        self.version = self.cache.apply(open, true, &[], || Version::of(generation, &connection));
        Ok(())
    }
}

/// The statements of a batch, in its transaction.
struct BatchStatements<'t> {
    load_ranges: CachedStatement<'t>,
    delete_range: CachedStatement<'t>,
    grow_range: CachedStatement<'t>,
    add_range: CachedStatement<'t>,
    upsert_rocket: CachedStatement<'t>,
    upsert_rocket_speed: CachedStatement<'t>,
    now: Timestamp,
    now_text: [u8; 27],
}

impl<'t> BatchStatements<'t> {
    fn prepare(
        transaction: &'t Connection,
        statements: &StatementTexts,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            load_ranges: transaction.prepare_cached(&statements.load_ranges)?,
            delete_range: transaction.prepare_cached(DELETE_RANGE)?,
            grow_range: transaction.prepare_cached(GROW_RANGE)?,
            add_range: transaction.prepare_cached(ADD_RANGE)?,
            upsert_rocket: transaction.prepare_cached(&statements.upsert_rocket)?,
            upsert_rocket_speed: transaction.prepare_cached(&statements.upsert_rocket_speed)?,
            now,
            now_text: now.to_text(),
        })
    }

    /// Joins a group's messages to the cached or stored ranges of their channel, and writes the
    /// result. Returns what they add to the rocket; none if all were duplicates.
    fn write(
        &mut self,
        group: &Group<'_>,
        range_cache: &mut RangeCache<()>,
        outcomes: &mut [Outcome],
    ) -> Result<Option<Applied>, StoreError> {
        let channel = group.channel();
        let mut cached = match range_cache.entry(channel) {
            Some(cached) => cached,
            None => range_cache.insert(channel, 0, self.load_last(channel)?, ()),
        };
        let near = match cached.near(group) {
            Some(ranges) => ranges,
            None => self.load(group)?,
        };
        let joined = group.join(near, self.now, outcomes);
        self.store_ranges(channel, &joined)?;
        cached.apply(&joined);
        if let Some(applied) = &joined.applied {
            self.store_rocket(channel, applied)?;
        }
        Ok(joined.applied)
    }

    /// The ranges that the group needs, in ascending order.
    fn load(&mut self, group: &Group<'_>) -> Result<Vec<ProcessedRange>, StoreError> {
        let mut stored = Vec::new();
        for window in group.windows() {
            self.load_window(group, window, &mut stored)?;
        }
        Ok(stored)
    }

    /// The channel's highest ranges, in ascending order, at most one more than the cache holds.
    fn load_last(&mut self, channel: &Channel) -> Result<Vec<ProcessedRange>, StoreError> {
        let mut ranges = Vec::new();
        let mut found = self.load_ranges.query(params![channel.as_str(), i64::MAX])?;
        while let Some(row) = found.next()? {
            ranges.push(rows::range(row, 0)?);
            if ranges.len() > MAX_RANGES {
                break;
            }
        }
        ranges.reverse();
        Ok(ranges)
    }

    /// Appends the ranges of one window, except those that the previous window has loaded.
    fn load_window(
        &mut self,
        group: &Group<'_>,
        window: Window,
        stored: &mut Vec<ProcessedRange>,
    ) -> Result<(), StoreError> {
        let loaded = stored.len();
        let loaded_through = stored.last().map_or(0, |range| range.last);
        let channel = group.channel().as_str();
        let mut found = self.load_ranges.query(params![channel, window.last + 1])?;
        while let Some(row) = found.next()? {
            let (first, last) = rows::range_ends(row, 0)?;
            if last < window.first - 1 || last <= loaded_through {
                break;
            }
            // Most ranges between distant numbers are not, and decoding them takes time.
            if group.needs(first, last) {
                stored.push(rows::range(row, 0)?);
            }
        }
        stored[loaded..].reverse();
        Ok(())
    }

    fn store_ranges(&mut self, channel: &Channel, joined: &Joined) -> Result<(), StoreError> {
        for first in &joined.removed {
            self.delete_range.execute(params![channel.as_str(), first])?;
        }
        for range in &joined.grown {
            store_range(&mut self.grow_range, channel, range)?;
        }
        for range in &joined.added {
            store_range(&mut self.add_range, channel, range)?;
        }
        Ok(())
    }

    fn store_rocket(&mut self, channel: &Channel, applied: &Applied) -> Result<(), StoreError> {
        let Summary { speed_change, launch, mission, explosion, latest_time } = &applied.summary;
        let latest_update = latest_time.to_text();
        let is_speed_only = launch.is_none() && mission.is_none() && explosion.is_none();
        let statement =
            if is_speed_only { &mut self.upsert_rocket_speed } else { &mut self.upsert_rocket };
        let common = params![
            channel.as_str(),
            speed_change,
            ascii(&latest_update),
            ascii(&self.now_text),
            applied.processed,
            applied.complete_through,
            applied.highest,
        ];
        let guarded = params![
            text(launch),
            number(launch),
            text(mission),
            number(mission),
            text(explosion),
            number(explosion),
        ];
        for (index, value) in
            common.iter().chain(guarded).take(statement.parameter_count()).enumerate()
        {
            statement.raw_bind_parameter(index + 1, value)?;
        }
        statement.raw_execute()?;
        Ok(())
    }
}

pub(super) fn store_range(
    statement: &mut CachedStatement<'_>,
    channel: &Channel,
    range: &ProcessedRange,
) -> Result<(), StoreError> {
    let Summary { speed_change, launch, mission, explosion, latest_time } = &range.summary;
    statement.execute(params![
        channel.as_str(),
        range.first,
        range.last,
        speed_change,
        number(launch),
        text(launch),
        number(mission),
        text(mission),
        number(explosion),
        text(explosion),
        ascii(&latest_time.to_text()),
        ascii(&range.first_received.to_text()),
        range.speed_blocks.as_ref().map(SpeedBlocks::as_bytes),
    ])?;
    Ok(())
}

fn number(latest: &Option<Latest>) -> Option<i64> {
    latest.as_ref().map(|latest| latest.number)
}

fn text(latest: &Option<Latest>) -> Option<&str> {
    latest.as_ref().map(|latest| latest.value.as_str())
}

/// A timestamp's bytes as a string.
fn ascii(timestamp: &[u8; 27]) -> &str {
    std::str::from_utf8(timestamp).unwrap_or_else(|_| unreachable!("digits and signs are ASCII"))
}
