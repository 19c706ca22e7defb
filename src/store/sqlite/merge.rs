//! Exporting rockets, and merging what other databases have exported.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::cache::CommittedChange;
use super::commits::Version;
use super::losses::{self, stored_rocket};
use super::write::{ADD_RANGE, GROW_RANGE, store_range};
use super::{SqliteStore, SqliteWriter, forget};
use crate::domain::losses::LossChanges;
use crate::domain::merge::{MergeChange, MergeEntry, MergeOutcome, MergeTarget, RocketRecord};
use crate::domain::rocket::Rocket;
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::store::merge::{self, ExportPage, ExportQuery};
use crate::store::{StoreError, rows};

const STORE_ROCKET: &str = "
    INSERT INTO rockets (channel, type, speed, mission, exploded_reason, latest_launch_msg,
                         latest_mission_msg, latest_exploded_msg, latest_update, last_received,
                         processed, complete_through, highest)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
    ON CONFLICT (channel) DO UPDATE SET
        type = excluded.type, speed = excluded.speed, mission = excluded.mission,
        exploded_reason = excluded.exploded_reason,
        latest_launch_msg = excluded.latest_launch_msg,
        latest_mission_msg = excluded.latest_mission_msg,
        latest_exploded_msg = excluded.latest_exploded_msg,
        latest_update = excluded.latest_update, last_received = excluded.last_received,
        processed = excluded.processed, complete_through = excluded.complete_through,
        highest = excluded.highest";

impl SqliteStore {
    /// See [`Store::export`](crate::store::Store::export).
    pub fn export(&self, query: &ExportQuery) -> Result<ExportPage, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut statement = snapshot.prepare_cached(&merge::export_sql("$3", ""))?;
            let after = query.after.as_ref().map_or("", Channel::as_str);
            let since = query.since.map(|since| since.to_string());
            let mut found = statement.query(params![after, query.channel_prefix, since])?;
            let mut rockets = Vec::new();
            while let Some(row) = found.next()? {
                rockets.push(rows::rocket(row)?);
            }
            let (rockets, next) = merge::export_page(rockets, query);
            let mut page = ExportPage { rockets: Vec::with_capacity(rockets.len()), next };
            for rocket in rockets {
                let record = record(&snapshot, &rocket)?;
                page.rockets.push((rocket.channel, record));
            }
            Ok(page)
        })
    }

    /// See [`Store::tombstones`](crate::store::Store::tombstones).
    pub fn tombstones(
        &self,
        since: Option<Timestamp>,
    ) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(&merge::tombstones_sql("?1", ""))?;
            let mut found = statement.query(params![since.map(|since| since.to_string())])?;
            let mut tombstones = Vec::new();
            while let Some(row) = found.next()? {
                tombstones.push((rows::channel(row, 0)?, rows::time(row, 1)?));
            }
            Ok(tombstones)
        })
    }

    /// See [`Store::merge`](crate::store::Store::merge).
    pub fn merge(
        &self,
        entries: &[MergeEntry],
        now: Timestamp,
        dry_run: bool,
    ) -> Result<Vec<MergeOutcome>, StoreError> {
        if dry_run {
            return self.with_reader(|connection| {
                let snapshot = connection.unchecked_transaction()?;
                let outcome =
                    |entry: &MergeEntry| Ok(target(&snapshot, entry.channel())?.merge(entry).1);
                entries.iter().map(outcome).collect()
            });
        }
        self.write_once(|writer| writer.merge(entries, now))
    }
}

impl SqliteWriter {
    fn merge(
        &mut self,
        entries: &[MergeEntry],
        now: Timestamp,
    ) -> Result<Vec<MergeOutcome>, StoreError> {
        self.connection.verify_index()?;
        let generation = self.connection.generation();
        let mut connection = self.connection.guard();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let open = self.cache.commits.begin(|| Version::of(generation, &transaction));
        let (mut outcomes, mut changes) = (Vec::with_capacity(entries.len()), Vec::new());
        for entry in entries {
            let target = target(&transaction, entry.channel())?;
            let (change, outcome) = target.merge(entry);
            changes.extend(store(&transaction, entry.channel(), &target, &change, now)?);
            outcomes.push(outcome);
        }
        transaction.commit()?;
        self.cache.apply(open, true, &changes, || Version::of(generation, &connection));
        Ok(outcomes)
    }
}

fn target(connection: &Connection, channel: &Channel) -> Result<MergeTarget, StoreError> {
    let rocket = stored_rocket(connection, channel)?;
    let sql = "SELECT forgotten_at FROM rockets_forgotten WHERE channel = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let forgotten_at = statement.query_row(params![channel.as_str()], |row| Ok(rows::time(row, 0)));
    Ok(MergeTarget {
        record: rocket.map(|rocket| record(connection, &rocket)).transpose()?,
        forgotten_at: forgotten_at.optional()?.transpose()?,
    })
}

/// What is kept of a rocket.
fn record(connection: &Connection, rocket: &Rocket) -> Result<RocketRecord, StoreError> {
    let sql = format!(
        "SELECT {} FROM processed_ranges WHERE channel = ?1 ORDER BY first_msg",
        rows::range_columns("processed_ranges")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params![rocket.channel.as_str()])?;
    let mut ranges = Vec::new();
    while let Some(row) = found.next()? {
        ranges.push(rows::range(row, 0)?);
    }
    let losses = losses::losses(connection, &rocket.channel, 0, i64::MAX)?;
    merge::record(rocket, ranges, losses)
}

/// Stores a change. Returns what changes in the table `rockets`.
fn store(
    transaction: &Transaction<'_>,
    channel: &Channel,
    target: &MergeTarget,
    change: &MergeChange,
    now: Timestamp,
) -> Result<Option<CommittedChange>, StoreError> {
    let changed = match change {
        MergeChange::Nothing => return Ok(None),
        MergeChange::Store(record) => {
            store_record(transaction, channel, target.record.as_ref(), record)?;
            let rocket = merge::merged_rocket(channel, record);
            store_rocket(transaction, &rocket)?;
            Some(CommittedChange::Merged(Box::new(rocket)))
        }
        MergeChange::Forget { at, removes } => {
            if *removes {
                forget::remove(transaction, channel)?;
            }
            forget::insert_tombstone(transaction, channel, *at)?;
            removes.then(|| CommittedChange::Removed(channel.clone()))
        }
    };
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO rockets_merged (channel, merged_at) VALUES (?1, ?2)",
        )?
        .execute(params![channel.as_str(), now.to_string()])?;
    Ok(changed)
}

/// Writes the ranges and losses that differ from those of the old record.
fn store_record(
    transaction: &Transaction<'_>,
    channel: &Channel,
    old: Option<&RocketRecord>,
    record: &RocketRecord,
) -> Result<(), StoreError> {
    let changes = merge::range_changes(old, record);
    let mut delete = transaction
        .prepare_cached("DELETE FROM processed_ranges WHERE channel = ?1 AND first_msg = ?2")?;
    for first in changes.removed {
        delete.execute(params![channel.as_str(), first])?;
    }
    let mut grow = transaction.prepare_cached(GROW_RANGE)?;
    for range in changes.changed {
        store_range(&mut grow, channel, range)?;
    }
    let mut add = transaction.prepare_cached(ADD_RANGE)?;
    for range in changes.added {
        store_range(&mut add, channel, range)?;
    }
    let added = merge::added_losses(old, record);
    losses::store(transaction, channel, &LossChanges { added, ..LossChanges::default() })
}

fn store_rocket(transaction: &Transaction<'_>, rocket: &Rocket) -> Result<(), StoreError> {
    let Rocket { channel, state, last_received, progress } = rocket;
    transaction.prepare_cached(STORE_ROCKET)?.execute(params![
        channel.as_str(),
        state.rocket_type.as_ref().map(Text::as_str),
        state.speed,
        state.mission.as_ref().map(Text::as_str),
        state.exploded_reason.as_ref().map(Text::as_str),
        state.latest_launch_message,
        state.latest_mission_message,
        state.latest_exploded_message,
        state.latest_update.map(|time| time.to_string()),
        last_received.to_string(),
        progress.processed,
        progress.complete_through,
        progress.highest,
    ])?;
    Ok(())
}
