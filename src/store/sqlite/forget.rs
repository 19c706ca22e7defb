//! Removes rockets.

use std::time::SystemTime;

use rusqlite::{Connection, TransactionBehavior, params};

use super::cache::CommittedChange;
use super::commits::Version;
use super::losses::stored_rocket;
use super::{SqliteStore, SqliteWriter};
use crate::domain::query::Filters;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::{StoreError, TOMBSTONE_RETENTION};

impl SqliteStore {
    /// See [`Store::forget_matching`](crate::store::Store::forget_matching).
    pub fn forget_matching(
        &self,
        channels: &[Channel],
        filters: &Filters,
        now: Timestamp,
    ) -> Result<Vec<Channel>, StoreError> {
        self.write_once(|writer| writer.forget_matching(channels, filters, now))
    }
}

impl SqliteWriter {
    fn forget_matching(
        &mut self,
        channels: &[Channel],
        filters: &Filters,
        now: Timestamp,
    ) -> Result<Vec<Channel>, StoreError> {
        self.connection.verify_index()?;
        let generation = self.connection.generation();
        let mut connection = self.connection.guard();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let open = self.cache.commits.begin(|| Version::of(generation, &transaction));
        let forgotten_at = Timestamp::from_system_time(SystemTime::now());
        transaction.execute(
            "DELETE FROM rockets_forgotten WHERE forgotten_at < ?1",
            params![forgotten_at.minus(TOMBSTONE_RETENTION).to_string()],
        )?;
        let mut forgotten = Vec::new();
        for channel in channels {
            if matches(&transaction, channel, filters, now)?
                && forget(&transaction, channel, forgotten_at)?
            {
                forgotten.push(channel.clone());
            }
        }
        transaction.commit()?;
        let changes: Vec<_> = forgotten.iter().cloned().map(CommittedChange::Removed).collect();
        self.cache.apply(open, true, &changes, || Version::of(generation, &connection));
        Ok(forgotten)
    }
}

/// Whether the channel's rocket matches. Without filters, it need not be readable, or there.
fn matches(
    transaction: &Connection,
    channel: &Channel,
    filters: &Filters,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if *filters == Filters::default() {
        return Ok(true);
    }
    let rocket = stored_rocket(transaction, channel)?;
    Ok(rocket.is_some_and(|rocket| filters.matches(&rocket, now)))
}

/// Returns whether there was a rocket.
fn forget(
    transaction: &Connection,
    channel: &Channel,
    forgotten_at: Timestamp,
) -> Result<bool, StoreError> {
    let was_there = remove(transaction, channel)?;
    if was_there {
        insert_tombstone(transaction, channel, forgotten_at)?;
    }
    Ok(was_there)
}

/// Removes everything about a channel. Returns whether there was a rocket.
pub(super) fn remove(transaction: &Connection, channel: &Channel) -> Result<bool, StoreError> {
    for table in ["processed_ranges", "losses", "rockets_merged"] {
        let sql = format!("DELETE FROM {table} WHERE channel = ?1");
        transaction.prepare_cached(&sql)?.execute(params![channel.as_str()])?;
    }
    let mut delete = transaction.prepare_cached("DELETE FROM rockets WHERE channel = ?1")?;
    Ok(delete.execute(params![channel.as_str()])? > 0)
}

pub(super) fn insert_tombstone(
    transaction: &Connection,
    channel: &Channel,
    forgotten_at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO rockets_forgotten (channel, forgotten_at) VALUES (?1, ?2)";
    transaction
        .prepare_cached(sql)?
        .execute(params![channel.as_str(), forgotten_at.to_string()])?;
    Ok(())
}
