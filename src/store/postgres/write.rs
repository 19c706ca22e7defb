//! The write path: one transaction per batch, in two messages to the server, with the same few
//! statements for any number of messages and channels.
//!
//! Rows of `rockets` are locked in the order of their channels, so that batches with common
//! channels wait for each other and don't deadlock. A rocket's data is read after its row is
//! locked.
//!
//! Most of a batch's rockets are [cached](crate::store::range_cache) together with their
//! `last_received`. That grows with every change, whatever the clocks of the instances say, so it
//! serves as the rocket's version. The first message adds the new messages to each cached rocket
//! unless its version has changed. If one has, the transaction is rolled back, and the next attempt
//! doesn't use the cache. The first message also inserts the rockets that don't exist, and locks
//! and loads the others. The second message writes the ranges, adds the new messages to the loaded
//! rockets, and commits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::runtime::Runtime;

use super::buckets::Buckets;
use super::error::{describe, is_conflict, is_connection_lost, is_timeout};
use super::rows::PgTime;
use super::session::{self, AbandonedBackends, Backend, WorkKind, within};
use super::statements::{self, Addition, Statements};
use super::url::PostgresUrl;
use crate::domain::batch::{Batch, Group, Outcome};
use crate::domain::message::Message;
use crate::domain::ranges::{Joined, ProcessedRange};
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::fault_injection::{FailurePoint, Failures};
use crate::store::range_cache::RangeCache;
use crate::store::rows;

/// How often a batch is attempted if conflicts with other transactions abort it.
const MAX_ATTEMPTS: usize = 5;

/// A connection that has been idle for this long may have been closed by the server, or dropped by
/// a firewall.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of a rocket's cache entry.
#[derive(Clone, Copy, Debug)]
struct CacheState {
    /// The `last_received` of the cached state.
    version: Timestamp,
    /// The current back-off: for how many batches the entry is not used after it was outdated.
    backoff: u16,
    /// How many of these batches are left.
    remaining_backoff: u16,
}

/// The longest back-off: for a rocket that other instances change all the time, the cache is used
/// once in this many batches.
const MAX_BACKOFF: u16 = 1_023;

impl CacheState {
    /// Whether the entry may be used in a batch that is received now.
    fn is_usable(&mut self, now: Timestamp) -> bool {
        if self.remaining_backoff > 0 {
            self.remaining_backoff -= 1;
            return false;
        }
        // Without a later time, other caches would not detect the change.
        now > self.version
    }

    fn back_off(&mut self) {
        self.backoff = (2 * self.backoff + 1).min(MAX_BACKOFF);
        self.remaining_backoff = self.backoff;
    }

    fn recover(&mut self) {
        self.backoff /= 2;
    }
}

/// Commits batches to Postgres, over its own connection, on the calling thread.
#[derive(Debug)]
pub struct PostgresWriter {
    url: PostgresUrl,
    failures: Failures,
    runtime: Runtime,
    connection: Option<WriterConnection>,
    abandoned: AbandonedBackends,
    buckets: Buckets,
    range_cache: RangeCache<CacheState>,
}

/// A connection with prepared statements.
#[derive(Debug)]
struct WriterConnection {
    connection: PgConnection,
    backend: Backend,
    last_used: Instant,
}

impl PostgresWriter {
    pub(super) fn new(
        url: PostgresUrl,
        failures: Failures,
        abandoned: AbandonedBackends,
        buckets: Buckets,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StoreError::Thread)?;
        Ok(Self {
            url,
            failures,
            runtime,
            connection: None,
            abandoned,
            buckets,
            range_cache: RangeCache::default(),
        })
    }

    /// See [`Writer::commit`](crate::store::Writer::commit).
    pub fn commit(
        &mut self,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<Vec<Outcome>, StoreError> {
        let mut by_bucket: BTreeMap<i16, Vec<usize>> = BTreeMap::new();
        for (index, message) in messages.iter().enumerate() {
            by_bucket.entry(self.buckets.of(&message.channel)).or_default().push(index);
        }
        if let (Some((bucket, _)), true) = (by_bucket.first_key_value(), by_bucket.len() == 1) {
            return self.commit_to(*bucket, messages, now);
        }
        let mut outcomes = vec![Outcome::Duplicate; messages.len()];
        for (bucket, indexes) in by_bucket {
            let part: Vec<Message> = indexes.iter().map(|index| messages[*index].clone()).collect();
            let part_outcomes = self.commit_to(bucket, &part, now)?;
            assert_eq!(part_outcomes.len(), part.len(), "a commit has an outcome for each message");
            for (index, outcome) in indexes.into_iter().zip(part_outcomes) {
                outcomes[index] = outcome;
            }
        }
        Ok(outcomes)
    }

    /// Commits messages whose channels are all in this bucket, in one transaction.
    fn commit_to(
        &mut self,
        bucket: i16,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<Vec<Outcome>, StoreError> {
        let batch = Batch::new(messages);
        let mut attempts = 1;
        let mut use_cache = true;
        loop {
            let mut range_cache = std::mem::take(&mut self.range_cache);
            let had_connection = self.connection.is_some();
            let mut transaction = Transaction::new(
                bucket,
                &batch,
                messages.len(),
                use_cache.then_some(&mut range_cache),
                now,
            );
            let work = async |connection: &mut PgConnection, failures: &Failures| {
                transaction.run(connection, failures, &mut range_cache).await
            };
            let committed = self.within_time(work);
            // Entries are validated whenever they are used, so they stay useful after a failure.
            self.range_cache = range_cache;
            match committed {
                Ok(Some(outcomes)) => return Ok(outcomes),
                Ok(None) => use_cache = false,
                Err(StoreError::Postgres(error))
                    if attempts < MAX_ATTEMPTS && is_conflict(&error) =>
                {
                    tracing::debug!(error = describe(&error), tries = attempts, "retrying a batch");
                    attempts += 1;
                }
                // The next attempt uses a new connection, so this happens only once.
                Err(StoreError::Postgres(error))
                    if had_connection
                        && !transaction.may_be_committed
                        && is_connection_lost(&error) =>
                {
                    tracing::debug!(
                        error = describe(&error),
                        "retrying a batch over another connection"
                    );
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// See [`Writer::probe`](crate::store::Writer::probe).
    pub fn probe(&mut self, partition: usize) -> Result<(), StoreError> {
        let bucket = self.buckets.at(partition);
        self.within_time(async |connection, _| {
            let sql = Statements::probe(bucket).and("ROLLBACK");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
            Ok(())
        })
    }

    /// Connects if necessary, and runs work with a timeout. The connection is kept if the work
    /// succeeds, or if the server reports a timeout. After any other failure its state is unknown.
    fn within_time<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection, &Failures) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Self { url, failures, runtime, connection, abandoned, buckets, .. } = self;
        runtime.block_on(async {
            let mut open = match connection.take() {
                Some(open) => open.or_reconnect(url, abandoned, buckets).await?,
                None => WriterConnection::new(url, abandoned, buckets).await?,
            };
            match within(url.patience(), work(&mut open.connection, failures)).await {
                Ok(done) => {
                    open.last_used = Instant::now();
                    *connection = Some(open);
                    Ok(done)
                }
                Err(error) => {
                    *connection = open.reusable_after(&error, abandoned).await;
                    Err(error)
                }
            }
        })
    }
}

impl WriterConnection {
    async fn new(
        url: &PostgresUrl,
        abandoned: &AbandonedBackends,
        buckets: &Buckets,
    ) -> Result<Self, StoreError> {
        let mut connection = session::connect(url, WorkKind::Bounded).await?;
        let prepared = within(url.patience(), async {
            session::terminate(abandoned, &mut connection).await?;
            let backend = Backend::of(&mut connection).await?;
            buckets.lock(&mut connection).await?;
            sqlx::raw_sql(AssertSqlSafe(statements::set_up(buckets.are_several())))
                .execute(&mut connection)
                .await?;
            Ok(backend)
        });
        match prepared.await {
            Ok(backend) => Ok(Self { connection, backend, last_used: Instant::now() }),
            Err(error) => {
                session::close(connection).await;
                Err(error)
            }
        }
    }

    /// This connection, if it can be reused after the failure.
    async fn reusable_after(
        mut self,
        failure: &StoreError,
        abandoned: &AbandonedBackends,
    ) -> Option<Self> {
        if matches!(failure, StoreError::Postgres(error) if is_timeout(error)) {
            let rolled_back =
                async { Ok(sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await?) };
            if within(session::PING_TIMEOUT, rolled_back).await.is_ok() {
                return Some(self);
            }
        }
        if matches!(failure, StoreError::TimedOut) {
            abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(self.backend);
        }
        session::close(self.connection).await;
        None
    }

    /// This connection, or a new one if the server has closed it.
    async fn or_reconnect(
        mut self,
        url: &PostgresUrl,
        abandoned: &AbandonedBackends,
        buckets: &Buckets,
    ) -> Result<Self, StoreError> {
        if self.last_used.elapsed() < IDLE_TIMEOUT || session::is_alive(&mut self.connection).await
        {
            return Ok(self);
        }
        session::close(self.connection).await;
        Self::new(url, abandoned, buckets).await
    }
}

/// The part of a batch that concerns one rocket.
struct Share<'b, 'm> {
    group: &'b Group<'m>,
    stored: Stored,
    /// The rocket's new `last_received`, if anything is new.
    received: Timestamp,
    /// The result of joining its messages to the stored ranges. Before these are loaded, the
    /// messages are joined to none.
    joined: Joined,
}

/// Where the stored state of a rocket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// The cached state, which has this version.
    Cached(Timestamp),
    /// It is not loaded yet.
    NotLoaded,
    /// There was no rocket, and this transaction has inserted it.
    Inserted,
    /// The loaded state, which has this version. The rocket is locked.
    Loaded(Timestamp),
}

impl Share<'_, '_> {
    fn channel(&self) -> &str {
        self.group.channel().as_str()
    }

    /// What its messages add to the rocket, if anything is new.
    fn addition(&self) -> Option<Addition<'_>> {
        let applied = self.joined.applied.as_ref()?;
        Some(Addition { channel: self.channel(), applied, received: self.received })
    }
}

/// One attempt to commit a batch for one bucket.
struct Transaction<'b, 'm> {
    bucket: i16,
    /// In the order of the channels.
    shares: Vec<Share<'b, 'm>>,
    outcomes: Vec<Outcome>,
    now: Timestamp,
    /// The COMMIT was sent.
    may_be_committed: bool,
}

impl<'b, 'm> Transaction<'b, 'm> {
    /// Joins the messages of cached rockets to their cached ranges.
    fn new(
        bucket: i16,
        batch: &'b Batch<'m>,
        messages: usize,
        mut range_cache: Option<&mut RangeCache<CacheState>>,
        now: Timestamp,
    ) -> Self {
        let mut outcomes = vec![Outcome::Duplicate; messages];
        let share = |group: &'b Group<'m>| {
            let cached = range_cache.as_mut().and_then(|range_cache| {
                let mut cached = range_cache.entry(group.channel())?;
                let state = cached.state_mut();
                let version = state.is_usable(now).then_some(state.version)?;
                Some((version, cached.near(group)?))
            });
            let (stored, ranges) = match cached {
                Some((version, ranges)) => (Stored::Cached(version), ranges),
                None => (Stored::NotLoaded, Vec::new()),
            };
            let joined = group.join(ranges, now, &mut outcomes);
            Share { group, stored, received: now, joined }
        };
        let shares = batch.groups().iter().map(share).collect();
        Self { bucket, shares, outcomes, now, may_be_committed: false }
    }

    /// Commits the batch, and returns the outcomes; none if a cached state was outdated, and
    /// nothing was done.
    async fn run(
        &mut self,
        connection: &mut PgConnection,
        failures: &Failures,
        range_cache: &mut RangeCache<CacheState>,
    ) -> Result<Option<Vec<Outcome>>, StoreError> {
        failures.check(FailurePoint::BeforeLoad)?;
        let first = sqlx::raw_sql(AssertSqlSafe(self.first_message().into_sql()));
        let loaded = LoadedRows::read(&first.fetch_all(&mut *connection).await?)?;
        if self.back_off_outdated(&loaded, range_cache) {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
            return Ok(None);
        }
        self.join_loaded(loaded, range_cache);
        failures.check(FailurePoint::BeforeWrites)?;
        let failure = failures.check(FailurePoint::BeforeCommit);
        let end = if failure.is_ok() { "COMMIT" } else { "ROLLBACK" };
        self.may_be_committed = failure.is_ok();
        sqlx::raw_sql(AssertSqlSafe(self.second_message().and(end)))
            .execute(&mut *connection)
            .await?;
        failure?;
        self.update_cache(range_cache);
        failures.check(FailurePoint::AfterCommit)?;
        Ok(Some(std::mem::take(&mut self.outcomes)))
    }

    /// Starts the transaction. Adds the new messages to the cached rockets, inserts those that
    /// don't exist, and locks and loads the others.
    fn first_message(&self) -> Statements {
        let mut statements = Statements::begin(self.bucket);
        let not_loaded: Vec<_> = self
            .shares
            .iter()
            .filter(|share| share.stored == Stored::NotLoaded)
            .map(|share| share.group)
            .collect();
        if !not_loaded.is_empty() {
            // Including the cached rockets, so that all are locked in order. If a cached rocket no
            // longer exists, its new row has another version than the cached one.
            let all: Vec<_> = self.shares.iter().filter_map(Share::addition).collect();
            statements.insert_or_lock_rockets(&all);
        }
        let (mut new, mut to_load) = (Vec::new(), Vec::new());
        for share in &self.shares {
            match (share.stored, share.addition()) {
                (Stored::Cached(version), Some(addition)) => new.push((addition, version)),
                // All messages are duplicates, so only the version is needed.
                (Stored::Cached(_), None) | (Stored::NotLoaded, _) => to_load.push(share.channel()),
                (Stored::Inserted | Stored::Loaded(_), _) => {
                    unreachable!("rockets are inserted or loaded by the first message")
                }
            }
        }
        statements.update_rockets(&new);
        statements.load_rockets(&to_load);
        statements.load_ranges(&not_loaded);
        statements
    }

    /// Marks the outdated cache entries. Returns whether there are any.
    fn back_off_outdated(
        &self,
        loaded: &LoadedRows,
        range_cache: &mut RangeCache<CacheState>,
    ) -> bool {
        let mut is_any_outdated = false;
        for share in &self.shares {
            let Stored::Cached(version) = share.stored else { continue };
            let is_current = if share.joined.applied.is_some() {
                loaded.updated.contains(share.channel())
            } else {
                loaded.rockets.get(share.channel()).is_some_and(|rocket| rocket.version == version)
            };
            if !is_current {
                is_any_outdated = true;
                if let Some(mut cached) = range_cache.entry(share.group.channel()) {
                    cached.state_mut().back_off();
                }
            }
        }
        is_any_outdated
    }

    /// Joins the messages of the loaded rockets to their ranges, and caches these.
    fn join_loaded(&mut self, mut loaded: LoadedRows, range_cache: &mut RangeCache<CacheState>) {
        for share in self.shares.iter_mut().filter(|share| share.stored == Stored::NotLoaded) {
            let channel = share.group.channel();
            if loaded.inserted.contains(channel.as_str()) {
                share.stored = Stored::Inserted;
                range_cache.insert(
                    channel,
                    0,
                    Vec::new(),
                    CacheState { version: share.received, backoff: 0, remaining_backoff: 0 },
                );
                continue;
            }
            let Some(LoadedRocket { version, highest }) = loaded.rockets.remove(channel.as_str())
            else {
                unreachable!(
                    "a rocket that was not inserted exists, and the transaction has locked it"
                );
            };
            let ranges = loaded.ranges.remove(channel.as_str()).unwrap_or_default();
            share.stored = Stored::Loaded(version);
            share.received = self.now.max(version.next());
            let state = match range_cache.entry(channel) {
                Some(mut cached) => CacheState { version, ..*cached.state_mut() },
                None => CacheState { version, backoff: 0, remaining_backoff: 0 },
            };
            // Always replaces the old entry, because its ranges may be of an earlier version.
            let (complete_from, cached) = match complete_from(share.group, &ranges, highest) {
                Some(complete_from) => (complete_from, ranges.clone()),
                None => (i64::MAX, Vec::new()),
            };
            range_cache.insert(channel, complete_from, cached, state);
            share.joined = share.group.join(ranges, self.now, &mut self.outcomes);
        }
    }

    /// Writes the ranges, and adds the new messages to the loaded rockets. Lacks only the end of
    /// the transaction.
    fn second_message(&self) -> Statements {
        let (mut removed, mut written, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for share in &self.shares {
            removed.extend(share.joined.removed.iter().map(|first| (share.channel(), *first)));
            written.extend(share.joined.written().map(|range| (share.channel(), range)));
            if let (Stored::Loaded(version), Some(addition)) = (share.stored, share.addition()) {
                new.push((addition, version));
            }
        }
        let mut statements = Statements::resume(self.bucket);
        statements.remove_ranges(&removed);
        statements.write_ranges(&written);
        statements.update_rockets(&new);
        statements
    }

    /// Updates the cache after a commit.
    fn update_cache(&self, range_cache: &mut RangeCache<CacheState>) {
        for share in &self.shares {
            let Some(mut cached) = range_cache.entry(share.group.channel()) else { continue };
            cached.apply(&share.joined);
            let state = cached.state_mut();
            if share.joined.applied.is_some() {
                state.version = share.received;
            }
            if matches!(share.stored, Stored::Cached(_)) {
                state.recover();
            }
        }
    }
}

/// The lowest number such that the ranges loaded for a group, in ascending order, include every
/// range that ends there or later. None if the channel has, or may have, higher ranges that were
/// not loaded.
fn complete_from(group: &Group<'_>, loaded: &[ProcessedRange], highest: i64) -> Option<i64> {
    if highest == 0 {
        return Some(0);
    }
    let window = group.windows().last()?;
    let last = loaded.last().map_or(0, |range| range.last);
    if last != highest && highest >= window.first - 1 {
        return None;
    }
    // Ranges that end below the window were loaded for other windows, and there may be more in
    // between.
    let lowest = loaded
        .iter()
        .find(|range| range.last >= window.first - 1)
        .map_or(window.first, |range| range.first);
    Some(lowest.min(window.first) - 1)
}

struct LoadedRocket {
    /// Its `last_received`.
    version: Timestamp,
    highest: i64,
}

/// The server's response to the first message, by channel.
#[derive(Default)]
struct LoadedRows {
    inserted: HashSet<String>,
    updated: HashSet<String>,
    rockets: HashMap<String, LoadedRocket>,
    /// In ascending order.
    ranges: HashMap<String, Vec<ProcessedRange>>,
}

impl LoadedRows {
    fn read(rows: &[PgRow]) -> Result<Self, StoreError> {
        let mut loaded = Self::default();
        for row in rows {
            let channel: String = row.try_get(1)?;
            match row.try_get(0)? {
                "inserted" => {
                    loaded.inserted.insert(channel);
                }
                "updated" => {
                    loaded.updated.insert(channel);
                }
                "rocket" => {
                    let rocket = LoadedRocket {
                        version: row.try_get::<PgTime, _>(2)?.0,
                        highest: row.try_get(3)?,
                    };
                    loaded.rockets.insert(channel, rocket);
                }
                "range" => {
                    let ranges = loaded.ranges.entry(channel).or_default();
                    let range = rows::range(row, 2)?;
                    // A range that overlaps two windows is returned twice.
                    if ranges.last().is_none_or(|last| last.first < range.first) {
                        ranges.push(range);
                    }
                }
                other => unreachable!("no statement returns a row {other:?}"),
            }
        }
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::example::faster;
    use crate::domain::text::Channel;

    fn message(channel: usize, number: usize) -> Message {
        faster(1).on(&format!("c{channel}")).numbered(number as i64)
    }

    #[test]
    fn the_number_of_statements_does_not_depend_on_the_batch() {
        let now = Timestamp::FIRST.next();
        // Begin, and update the rockets; or begin, insert or lock rockets, load rockets and ranges.
        // Then write the ranges; the end follows.
        for (all_cached, statements) in [(true, (2, 1)), (false, (4, 2))] {
            for messages in [1, 100, 1_000] {
                let messages: Vec<Message> =
                    (0..messages).map(|index| message(index % 70, index * 3 + 1)).collect();
                let mut range_cache = RangeCache::default();
                for channel in 0..70 {
                    let state =
                        CacheState { version: Timestamp::FIRST, backoff: 0, remaining_backoff: 0 };
                    range_cache.insert(
                        &Channel::new(format!("c{channel}")).unwrap(),
                        0,
                        Vec::new(),
                        state,
                    );
                }
                let batch = Batch::new(&messages);
                let cache = all_cached.then_some(&mut range_cache);
                let mut transaction = Transaction::new(0, &batch, messages.len(), cache, now);
                let first = transaction.first_message();
                let mut loaded = LoadedRows::default();
                for group in batch.groups() {
                    let rocket = LoadedRocket { version: Timestamp::FIRST, highest: 0 };
                    loaded.rockets.insert(group.channel().to_string(), rocket);
                }
                transaction.join_loaded(loaded, &mut range_cache);
                let second = transaction.second_message();
                let count = |statements: Statements| statements.into_sql().matches(';').count();
                assert_eq!((count(first), count(second)), statements);
            }
        }
    }

    fn ranges(ends: &[(i64, i64)]) -> Vec<ProcessedRange> {
        let summary = crate::domain::summary::Summary::of(&message(0, 1));
        ends.iter()
            .map(|&(first, last)| ProcessedRange {
                first,
                last,
                summary: summary.clone(),
                speed_blocks: None,
                first_received: Timestamp::FIRST,
            })
            .collect()
    }

    #[test]
    fn loaded_ranges_are_complete_if_they_reach_the_highest_number() {
        for (numbers, loaded, highest, expected) in [
            (&[7][..], &[][..], 0, Some(0)),
            (&[7], &[(1, 6)], 6, Some(0)),
            (&[7], &[(1, 6)], 9, None),
            (&[7], &[], 3, Some(6)),
            (&[7], &[(8, 9)], 9, Some(6)),
            (&[7], &[], 20, None),
            (&[7, 8], &[(5, 6), (9, 12)], 12, Some(4)),
            (&[7, 8], &[(5, 6), (9, 12)], 15, None),
            // There may be other ranges between the windows.
            (&[7, 500], &[(5, 6), (501, 501)], 501, Some(499)),
            (&[7, 500], &[(5, 6)], 6, Some(499)),
            (&[7, 500], &[(5, 6)], 300, Some(499)),
        ] {
            let messages: Vec<Message> = numbers.iter().map(|number| message(0, *number)).collect();
            let batch = Batch::new(&messages);
            assert_eq!(
                complete_from(&batch.groups()[0], &ranges(loaded), highest),
                expected,
                "{numbers:?} {loaded:?}"
            );
        }
    }

    #[test]
    fn the_backoff_of_an_outdated_entry_doubles() {
        let version = Timestamp::FIRST;
        let mut state = CacheState { version, backoff: 0, remaining_backoff: 0 };
        assert!(state.is_usable(version.next()) && !state.is_usable(version));
        let batches_between = |state: &mut CacheState| {
            state.back_off();
            (0..).take_while(|_| !state.is_usable(version.next())).count()
        };
        let between: Vec<usize> = (0..12).map(|_| batches_between(&mut state)).collect();
        assert_eq!(between, [1, 3, 7, 15, 31, 63, 127, 255, 511, 1_023, 1_023, 1_023]);
        state.recover();
        assert_eq!(batches_between(&mut state), 1_023);
        (0..10).for_each(|_| state.recover());
        assert_eq!(batches_between(&mut state), 1);
    }
}
