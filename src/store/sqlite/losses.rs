//! Losses: reading rockets and gaps with them, and declaring and withdrawing them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rusqlite::{Connection, TransactionBehavior, params};

use super::commits::Version;
use super::{SqliteStore, SqliteWriter};
use crate::domain::losses::{Loss, LossChanges, LossError, LossRequest};
use crate::domain::query::{GapPage, GapQuery};
use crate::domain::rocket::{RangeFold, Rocket};
use crate::domain::text::Channel;
use crate::store::StoreError;
use crate::store::rows::{self, LOSS_COLUMNS, ROCKET_COLUMNS};

/// The exact view of a channel as of its losses, and the progress that depends on them; none if
/// that takes more than `max_rows` rows.
pub(super) fn exact_prefix(
    connection: &Connection,
    channel: &Channel,
    max_rows: usize,
) -> Result<Option<RangeFold>, StoreError> {
    let mut statement = connection.prepare_cached(&rows::exact_prefix_sql("channel = ?1"))?;
    let mut found = statement.query(params![channel.as_str()])?;
    let (mut fold, mut rows) = (RangeFold::default(), 0);
    while let Some(row) = found.next()? {
        rows += 1;
        if rows > max_rows {
            return Ok(None);
        }
        rows::add_to_exact_prefix(row, &mut fold)?;
    }
    Ok(Some(fold))
}

/// Whether a channel has losses.
pub(super) fn are_declared(connection: &Connection, channel: &Channel) -> Result<bool, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM losses WHERE channel = ?1)")?;
    Ok(statement.query_row(params![channel.as_str()], |row| row.get(0))?)
}

/// Completes the progress of these rockets, which were read in the same snapshot without their
/// losses.
pub(super) fn add_losses(
    connection: &Connection,
    rockets: &mut [Rocket],
) -> Result<(), StoreError> {
    if rockets.iter().any(may_have_losses) && has_losses(connection)? {
        for rocket in rockets.iter_mut().filter(|rocket| may_have_losses(rocket)) {
            if are_declared(connection, &rocket.channel)? {
                add_losses_of(connection, rocket)?;
            }
        }
    }
    Ok(())
}

/// A hash of all losses of each channel that has some.
pub(super) fn hashes(snapshot: &Connection) -> Result<HashMap<String, u64>, StoreError> {
    let sql = format!("SELECT {LOSS_COLUMNS}, channel FROM losses ORDER BY channel, first_msg");
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    let mut hashers: HashMap<String, DefaultHasher> = HashMap::new();
    while let Some(row) = found.next()? {
        let Loss { first, last, reason, declared_at } = rows::loss(row)?;
        let declared_at = declared_at.unix_micros();
        let hasher = hashers.entry(rows::channel(row, 4)?.as_str().to_owned()).or_default();
        (first, last, reason.as_str(), declared_at).hash(hasher);
    }
    Ok(hashers.into_iter().map(|(channel, hasher)| (channel, hasher.finish())).collect())
}

/// Only a rocket with gaps can have losses that matter.
fn may_have_losses(rocket: &Rocket) -> bool {
    rocket.progress.missing() > 0
}

/// Whether any channel has losses.
fn has_losses(connection: &Connection) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM losses)")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

fn add_losses_of(connection: &Connection, rocket: &mut Rocket) -> Result<(), StoreError> {
    if let Some(prefix) = exact_prefix(connection, &rocket.channel, usize::MAX)? {
        rocket.progress.add_losses(&prefix);
    }
    Ok(())
}

impl SqliteStore {
    /// Completes the progress of these rockets, which are from the copy in memory. Returns false if
    /// one of them has changed since, so that its losses may belong to a later state.
    pub(super) fn add_losses_to_cached(&self, rockets: &mut [Rocket]) -> Result<bool, StoreError> {
        if !rockets.iter().any(may_have_losses) {
            return Ok(true);
        }
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            if !has_losses(&snapshot)? {
                return Ok(true);
            }
            for rocket in rockets.iter_mut().filter(|rocket| may_have_losses(rocket)) {
                if !are_declared(&snapshot, &rocket.channel)? {
                    continue;
                }
                if stored_rocket(&snapshot, &rocket.channel)?.as_ref() != Some(rocket) {
                    return Ok(false);
                }
                add_losses_of(&snapshot, rocket)?;
            }
            Ok(true)
        })
    }

    /// See [`Store::gaps`](crate::store::Store::gaps).
    pub fn gaps(&self, query: &GapQuery) -> Result<Option<GapPage>, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            if highest(&snapshot, &query.channel)?.is_none() {
                return Ok(None);
            }
            let mut page = GapPage::default();
            {
                let mut statement =
                    snapshot.prepare_cached(&rows::ranges_above_sql("channel = $1"))?;
                let mut found = statement.query(params![query.channel.as_str(), query.after])?;
                let mut below = 0;
                while let Some(row) = found.next()?
                    && page.add(query, &mut below, rows::range_above(row)?)
                {}
            }
            for gap in &mut page.gaps {
                gap.lost = losses(&snapshot, &query.channel, gap.first, gap.last)?;
            }
            Ok(Some(page))
        })
    }

    /// See [`Store::change_losses`](crate::store::Store::change_losses).
    pub fn change_losses(
        &self,
        requests: &[LossRequest],
        dry_run: bool,
    ) -> Result<Vec<Result<i64, LossError>>, StoreError> {
        if dry_run {
            return self.with_reader(|connection| {
                let snapshot = connection.unchecked_transaction()?;
                requests
                    .iter()
                    .map(|request| Ok(plan(&snapshot, request)?.map(|it| it.1)))
                    .collect()
            });
        }
        self.write_once(|writer| writer.change_losses(requests))
    }
}

impl SqliteWriter {
    fn change_losses(
        &mut self,
        requests: &[LossRequest],
    ) -> Result<Vec<Result<i64, LossError>>, StoreError> {
        self.connection.verify_index()?;
        let generation = self.connection.generation();
        let mut connection = self.connection.guard();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let open = self.cache.commits.begin(|| Version::of(generation, &transaction));
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            let planned = plan(&transaction, request)?;
            outcomes.push(planned.as_ref().map(|(_, count)| *count).map_err(|error| *error));
            if let Ok((changes, _)) = planned {
                store(&transaction, &request.channel, &changes)?;
            }
        }
        transaction.commit()?;
        // The copy of `rockets` doesn't depend on losses.
        self.cache.apply(open, true, &[], || Version::of(generation, &connection));
        Ok(outcomes)
    }
}

/// The changes for a request, and how many numbers they concern.
fn plan(
    connection: &Connection,
    request: &LossRequest,
) -> Result<Result<(LossChanges, i64), LossError>, StoreError> {
    let LossRequest { channel, first, last, .. } = request;
    if let Err(error) = request.check(highest(connection, channel)?) {
        return Ok(Err(error));
    }
    let changes = request.changes(losses(connection, channel, *first, *last)?);
    let mut statement = connection.prepare_cached(
        "SELECT first_msg, last_msg FROM processed_ranges
         WHERE channel = ?1 AND first_msg <= ?3 AND last_msg >= ?2",
    )?;
    let mut found = statement.query(params![channel.as_str(), first, last])?;
    let mut count = changes.numbers();
    while let Some(row) = found.next()? {
        count -= changes.numbers_in(rows::integer(row, 0)?, rows::integer(row, 1)?);
    }
    Ok(Ok((changes, count)))
}

/// The highest processed number of a channel; none if it is unknown.
fn highest(connection: &Connection, channel: &Channel) -> Result<Option<i64>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT highest FROM rockets WHERE channel = ?1")?;
    let mut found = statement.query(params![channel.as_str()])?;
    found.next()?.map(|row| rows::integer(row, 0)).transpose()
}

/// The losses that overlap `first..=last`, in ascending order.
pub(super) fn losses(
    connection: &Connection,
    channel: &Channel,
    first: i64,
    last: i64,
) -> Result<Vec<Loss>, StoreError> {
    // Losses don't overlap: of those that start at or below `first`, only the last can reach it.
    let sql = format!(
        "SELECT {LOSS_COLUMNS} FROM losses
         WHERE channel = ?1 AND first_msg <= ?3 AND last_msg >= ?2
           AND first_msg >= coalesce((SELECT max(first_msg) FROM losses
                                      WHERE channel = ?1 AND first_msg <= ?2), 0)
         ORDER BY first_msg"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params![channel.as_str(), first, last])?;
    let mut losses = Vec::new();
    while let Some(row) = found.next()? {
        losses.push(rows::loss(row)?);
    }
    Ok(losses)
}

/// The row of a rocket, as of a channel without losses.
pub(super) fn stored_rocket(
    connection: &Connection,
    channel: &Channel,
) -> Result<Option<Rocket>, StoreError> {
    let sql = format!("SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params![channel.as_str()])?;
    found.next()?.map(rows::rocket).transpose()
}

pub(super) fn store(
    connection: &Connection,
    channel: &Channel,
    changes: &LossChanges,
) -> Result<(), StoreError> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM losses WHERE channel = ?1 AND first_msg = ?2 AND last_msg = ?3",
    )?;
    for Loss { first, last, .. } in &changes.removed {
        delete.execute(params![channel.as_str(), first, last])?;
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO losses (channel, first_msg, last_msg, reason, declared_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for Loss { first, last, reason, declared_at } in &changes.added {
        let declared_at = declared_at.to_string();
        insert.execute(params![channel.as_str(), first, last, reason.as_str(), declared_at])?;
    }
    Ok(())
}
