//! Exporting rockets, and merging what other databases have exported.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::read::SNAPSHOT;
use super::rows::PgTime;
use super::session::{self, WorkKind};
use super::statements::{self, Addition, Statements};
use super::{PostgresStore, forget, losses};
use crate::domain::merge::{MergeChange, MergeEntry, MergeOutcome, MergeTarget, RocketRecord};
use crate::domain::ranges::{Applied, ProcessedRange};
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::changes::ChangeHint;
use crate::store::merge::{self, ExportPage, ExportQuery};
use crate::store::rows::{self, LOSS_COLUMNS, ROCKET_COLUMNS};

/// How long reading or merging a part of the rockets may take. One with a million gaps takes some
/// seconds.
const PART_TIMEOUT: Duration = Duration::from_secs(60);

impl PostgresStore {
    /// See [`Store::export`](crate::store::Store::export).
    pub fn export(&self, query: &ExportQuery) -> Result<ExportPage, StoreError> {
        self.wait(WorkKind::Long, async |connection| {
            session::within(PART_TIMEOUT, self.export_page(connection, query)).await
        })
    }

    async fn export_page(
        &self,
        connection: &mut PgConnection,
        query: &ExportQuery,
    ) -> Result<ExportPage, StoreError> {
        let mut snapshot = connection.begin_with(SNAPSHOT).await?;
        let sql = merge::export_sql("$3::timestamptz", "AND other.bucket = rockets.bucket");
        let found = sqlx::query(AssertSqlSafe(sql))
            .bind(query.after.as_ref().map_or("", Channel::as_str))
            .bind(&query.channel_prefix)
            .bind(query.since.map(PgTime))
            .fetch_all(&mut *snapshot)
            .await?;
        let rockets = found.iter().map(rows::rocket).collect::<Result<Vec<_>, _>>()?;
        let (rockets, next) = merge::export_page(rockets, query);
        let buckets: BTreeSet<i16> =
            rockets.iter().map(|rocket| self.buckets.of(&rocket.channel)).collect();
        let buckets: Vec<i16> = buckets.into_iter().collect();
        let rockets = records(&mut snapshot, &buckets, rockets).await?;
        snapshot.commit().await?;
        Ok(ExportPage { rockets, next })
    }

    /// See [`Store::tombstones`](crate::store::Store::tombstones).
    pub fn tombstones(
        &self,
        since: Option<Timestamp>,
    ) -> Result<Vec<(Channel, Timestamp)>, StoreError> {
        self.wait(WorkKind::Long, async |connection| {
            let sql =
                merge::tombstones_sql("$1::timestamptz", "AND merged.bucket = forgotten.bucket");
            let found = sqlx::query(AssertSqlSafe(sql)).bind(since.map(PgTime));
            let found =
                session::within(PART_TIMEOUT, async { Ok(found.fetch_all(connection).await?) });
            let found = found.await?;
            found.iter().map(|row| Ok((rows::channel(row, 0)?, rows::time(row, 1)?))).collect()
        })
    }

    /// See [`Store::merge`](crate::store::Store::merge).
    pub fn merge(
        &self,
        entries: &[MergeEntry],
        now: Timestamp,
        dry_run: bool,
    ) -> Result<Vec<MergeOutcome>, StoreError> {
        // A statement has each channel once, so a repeated one is for a later transaction. So are
        // forgotten rockets, which other statements lock: a transaction locks rockets in the order
        // of their channels, like every writer.
        let mut parts: BTreeMap<(usize, bool, i16), BTreeMap<&Channel, usize>> = BTreeMap::new();
        let mut repetitions: HashMap<&Channel, usize> = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let channel = entry.channel();
            let repetition =
                repetitions.entry(channel).and_modify(|count| *count += 1).or_default();
            let is_forgotten = matches!(entry, MergeEntry::Forgotten(..));
            parts
                .entry((*repetition, is_forgotten, self.buckets.of(channel)))
                .or_default()
                .insert(channel, index);
        }
        let mut outcomes = vec![MergeOutcome::default(); entries.len()];
        self.wait(WorkKind::Long, async |connection| {
            if !dry_run {
                let set_up = statements::set_up(self.buckets.are_several());
                session::within(PART_TIMEOUT, async {
                    sqlx::raw_sql(AssertSqlSafe(set_up)).execute(&mut *connection).await?;
                    Ok(())
                })
                .await?;
            }
            for ((_, _, bucket), indexes) in parts {
                // In the order of their channels, which is the order of the locks.
                let part: Vec<&MergeEntry> =
                    indexes.values().map(|index| &entries[*index]).collect();
                let merged = async {
                    match dry_run {
                        true => preview(connection, bucket, &part).await,
                        false => merge_part(connection, bucket, &part, now).await,
                    }
                };
                let merged = session::within(PART_TIMEOUT, merged).await?;
                for (index, outcome) in indexes.into_values().zip(merged) {
                    outcomes[index] = outcome;
                }
            }
            Ok(())
        })?;
        let changed = entries.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_changed);
        let hints = changed.map(|(entry, _)| (entry.channel().clone(), ChangeHint::UNKNOWN));
        // Instances that miss the notification find the changed rows.
        if !dry_run && let Err(error) = self.notify_blocking(Some(&hints.collect())) {
            tracing::debug!(%error, "could not notify other instances");
        }
        Ok(outcomes)
    }
}

/// What a merge of these entries, all in this bucket, would come to.
async fn preview(
    connection: &mut PgConnection,
    bucket: i16,
    entries: &[&MergeEntry],
) -> Result<Vec<MergeOutcome>, StoreError> {
    let mut snapshot = connection.begin_with(SNAPSHOT).await?;
    let channels: Vec<&str> = entries.iter().map(|entry| entry.channel().as_str()).collect();
    let targets = targets(&mut snapshot, bucket, &channels, "").await?;
    snapshot.commit().await?;
    Ok(entries.iter().map(|entry| target_of(&targets, entry).merge(entry).1).collect())
}

fn target_of(targets: &HashMap<Channel, MergeTarget>, entry: &MergeEntry) -> MergeTarget {
    targets.get(entry.channel()).cloned().unwrap_or_default()
}

/// Merges entries, all in this bucket and in the order of their channels, in one transaction.
async fn merge_part(
    connection: &mut PgConnection,
    bucket: i16,
    entries: &[&MergeEntry],
    now: Timestamp,
) -> Result<Vec<MergeOutcome>, StoreError> {
    let channels: Vec<&str> = entries.iter().map(|entry| entry.channel().as_str()).collect();
    let forgotten = tombstones(connection, bucket, &channels).await?;
    let is_forgotten = |entry: &MergeEntry| {
        let forgotten_at = forgotten.get(entry.channel()).copied();
        MergeTarget { record: None, forgotten_at }.has_forgotten(entry)
    };
    // The rockets that the target lacks are inserted, and the others are locked.
    let rockets = entries.iter().filter(|entry| !is_forgotten(entry));
    let totals: Vec<(&Channel, Applied, Timestamp)> = rockets
        .filter_map(|entry| match entry {
            MergeEntry::Rocket(channel, record) => {
                Some((channel, record.applied(), record.last_received))
            }
            MergeEntry::Forgotten(..) => None,
        })
        .collect();
    let additions: Vec<Addition<'_>> = totals
        .iter()
        .map(|(channel, applied, received)| Addition {
            channel: channel.as_str(),
            applied,
            received: *received,
        })
        .collect();
    let mut begin = Statements::begin(bucket);
    begin.insert_or_lock_rockets(&additions);
    let inserted =
        sqlx::raw_sql(AssertSqlSafe(begin.into_sql())).fetch_all(&mut *connection).await?;
    let inserted: HashSet<String> =
        inserted.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
    let is_inserted = |entry: &MergeEntry| inserted.contains(entry.channel().as_str());
    let existing = entries.iter().filter(|entry| !is_forgotten(entry) && !is_inserted(entry));
    let existing: Vec<&str> = existing.map(|entry| entry.channel().as_str()).collect();
    let targets = targets(connection, bucket, &existing, "FOR UPDATE").await?;
    let mut outcomes = Vec::with_capacity(entries.len());
    let mut writes = Writes::default();
    for entry in entries {
        if is_forgotten(entry) {
            outcomes.push(MergeOutcome::default());
            continue;
        }
        let target = match is_inserted(entry) {
            true => MergeTarget::default(),
            false => target_of(&targets, entry),
        };
        let (change, outcome) = target.merge(entry);
        writes.add(entry.channel(), target, change);
        outcomes.push(outcome);
    }
    writes.execute(connection, bucket, now).await?;
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(outcomes)
}

/// What a part of a merge writes, beside the inserted rockets.
#[derive(Default)]
struct Writes {
    stored: Vec<(Channel, Option<RocketRecord>, RocketRecord)>,
    removed: Vec<Channel>,
    tombstones: Vec<(Channel, Timestamp)>,
}

impl Writes {
    fn add(&mut self, channel: &Channel, target: MergeTarget, change: MergeChange) {
        match change {
            MergeChange::Nothing => {}
            MergeChange::Store(record) => {
                self.stored.push((channel.clone(), target.record, record))
            }
            MergeChange::Forget { at, removes } => {
                if removes {
                    self.removed.push(channel.clone());
                }
                self.tombstones.push((channel.clone(), at));
            }
        }
    }

    async fn execute(
        &self,
        connection: &mut PgConnection,
        bucket: i16,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let changes = || {
            self.stored.iter().map(|(channel, old, record)| {
                (channel.as_str(), merge::range_changes(old.as_ref(), record))
            })
        };
        let removed: Vec<(&str, i64)> = changes()
            .flat_map(|(channel, changes)| {
                changes.removed.into_iter().map(move |first| (channel, first))
            })
            .collect();
        let written: Vec<(&str, &ProcessedRange)> = changes()
            .flat_map(|(channel, changes)| {
                let written = changes.changed.into_iter().chain(changes.added);
                written.map(move |range| (channel, range))
            })
            .collect();
        let differences: Vec<(&str, Applied, Timestamp, Timestamp)> = self
            .stored
            .iter()
            .filter_map(|(channel, old, record)| {
                let old = old.as_ref()?;
                // It is the version of the rocket, so it grows with every change.
                let received = record.last_received.max(old.last_received.next());
                Some((channel.as_str(), record.applied_since(old), received, old.last_received))
            })
            .collect();
        let updates: Vec<(Addition<'_>, Timestamp)> = differences
            .iter()
            .map(|(channel, applied, received, version)| {
                (Addition { channel, applied, received: *received }, *version)
            })
            .collect();
        let mut sql = Statements::resume(bucket);
        sql.update_rockets(&updates);
        sql.remove_ranges(&removed);
        sql.write_ranges(&written);
        sqlx::raw_sql(AssertSqlSafe(sql.into_sql())).execute(&mut *connection).await?;
        for (channel, old, record) in &self.stored {
            let added = merge::added_losses(old.as_ref(), record);
            losses::insert(connection, channel.as_str(), bucket, &added).await?;
        }
        let removed: Vec<&str> = self.removed.iter().map(Channel::as_str).collect();
        if !removed.is_empty() {
            forget::remove(connection, bucket, &removed).await?;
        }
        for (channel, at) in &self.tombstones {
            let column = ("rockets_forgotten", "forgotten_at");
            forget::set_times(connection, column, bucket, &[channel.as_str()], Some(*at)).await?;
        }
        let changed = self.stored.iter().map(|(channel, ..)| channel);
        let changed = changed.chain(self.tombstones.iter().map(|(channel, _)| channel));
        let changed: Vec<&str> = changed.map(Channel::as_str).collect();
        let column = ("rockets_merged", "merged_at");
        forget::set_times(connection, column, bucket, &changed, Some(now)).await
    }
}

/// What the database has of these channels, all in this bucket. `lock` is a locking clause.
async fn targets(
    connection: &mut PgConnection,
    bucket: i16,
    channels: &[&str],
    lock: &str,
) -> Result<HashMap<Channel, MergeTarget>, StoreError> {
    let sql = format!(
        "SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel = ANY($1) AND bucket = $2
         ORDER BY channel {lock}"
    );
    let found = sqlx::query(AssertSqlSafe(sql)).bind(channels).bind(bucket);
    let found = found.fetch_all(&mut *connection).await?;
    let rockets = found.iter().map(rows::rocket).collect::<Result<Vec<_>, _>>()?;
    let mut targets: HashMap<Channel, MergeTarget> = HashMap::new();
    for (channel, record) in records(connection, &[bucket], rockets).await? {
        targets.entry(channel).or_default().record = Some(record);
    }
    for (channel, at) in tombstones(connection, bucket, channels).await? {
        targets.entry(channel).or_default().forgotten_at = Some(at);
    }
    Ok(targets)
}

/// When the rockets of these channels, all in this bucket, were last forgotten.
async fn tombstones(
    connection: &mut PgConnection,
    bucket: i16,
    channels: &[&str],
) -> Result<HashMap<Channel, Timestamp>, StoreError> {
    let sql = "SELECT channel, forgotten_at FROM rockets_forgotten
               WHERE channel = ANY($1) AND bucket = $2";
    let found = sqlx::query(sql).bind(channels).bind(bucket).fetch_all(connection).await?;
    found.iter().map(|row| Ok((rows::channel(row, 0)?, rows::time(row, 1)?))).collect()
}

/// What is kept of these rockets, in their order.
async fn records(
    connection: &mut PgConnection,
    buckets: &[i16],
    rockets: Vec<Rocket>,
) -> Result<Vec<(Channel, RocketRecord)>, StoreError> {
    let channels: Vec<&str> = rockets.iter().map(|rocket| rocket.channel.as_str()).collect();
    let of_channels = "channel = ANY($1) AND bucket = ANY($2) ORDER BY channel, first_msg";
    let sql = format!(
        "SELECT channel, {} FROM processed_ranges WHERE {of_channels}",
        rows::range_columns("processed_ranges")
    );
    let found = sqlx::query(AssertSqlSafe(sql)).bind(&channels).bind(buckets);
    let found = found.fetch_all(&mut *connection).await?;
    let mut ranges = by_channel(&found, |row| rows::range(row, 1))?;
    let sql = format!("SELECT {LOSS_COLUMNS}, channel FROM losses WHERE {of_channels}");
    let found = sqlx::query(AssertSqlSafe(sql)).bind(&channels).bind(buckets);
    let mut losses = by_channel(&found.fetch_all(connection).await?, rows::loss)?;
    let record = |rocket: Rocket| {
        let channel = rocket.channel.as_str();
        let ranges = ranges.remove(channel).unwrap_or_default();
        let losses = losses.remove(channel).unwrap_or_default();
        let record = merge::record(&rocket, ranges, losses)?;
        Ok((rocket.channel, record))
    };
    rockets.into_iter().map(record).collect()
}

fn by_channel<T>(
    rows: &[PgRow],
    read: impl Fn(&PgRow) -> Result<T, StoreError>,
) -> Result<HashMap<String, Vec<T>>, StoreError> {
    let mut values: HashMap<String, Vec<T>> = HashMap::new();
    for row in rows {
        values.entry(row.try_get("channel")?).or_default().push(read(row)?);
    }
    Ok(values)
}
