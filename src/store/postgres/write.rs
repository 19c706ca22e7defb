//! The write path: one transaction a batch, and the same few statements however many messages and channels it holds.
//!
//! Rows of `rockets` are locked in the order of their channels, so that batches which share channels wait for each other
//! and don't deadlock; only then the ranges are read, as of after that wait. The statements are such that a cluster can
//! run them which holds both tables distributed by channel: every join is by channel.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::Runtime;

use super::rows::{self, PgTime};
use super::url::PostgresUrl;
use crate::domain::batch::{Batch, Group, Outcome};
use crate::domain::message::Message;
use crate::domain::ranges::{Applied, ProcessedRange};
use crate::domain::summary::{Latest, Summary};
use crate::domain::timestamp::Timestamp;
use crate::store::failure::{FailurePoint, Failures};
use crate::store::{StoreError, merge};

/// How often a batch is tried that the server broke off because others were in its way.
const TRIES: usize = 5;

/// The states of a deadlock and of a serialization failure, after which trying again is right.
const TRY_AGAIN: [&str; 2] = ["40P01", "40001"];

/// Locks the channels' rows, and makes those that are missing. What a new one holds is of no account: nobody sees it
/// before the end of the transaction, and by then it has taken in its first messages.
const LOCK_ROCKETS: &str = "
    INSERT INTO rockets (channel, speed, latest_update, last_received, processed, complete_through, highest)
    SELECT channel, 0, '-infinity', '-infinity', 0, 0, 0 FROM unnest($1::text[]) AS batch (channel)
    ON CONFLICT (channel) DO UPDATE SET speed = rockets.speed";

const REMOVE_RANGES: &str = "
    DELETE FROM processed_ranges AS ranges
    USING unnest($1::text[], $2::bigint[]) AS batch (channel, first_msg)
    WHERE ranges.channel = batch.channel AND ranges.first_msg = batch.first_msg";

const WRITE_RANGES: &str = "
    INSERT INTO processed_ranges (channel, first_msg, last_msg, speed_change, launch_msg, launch_type, mission_msg,
                                  mission, exploded_msg, exploded_reason, latest_time)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
                         $8::text[], $9::bigint[], $10::text[], $11::timestamptz[])
    ON CONFLICT (channel, first_msg) DO UPDATE SET
        last_msg = excluded.last_msg, speed_change = excluded.speed_change,
        launch_msg = excluded.launch_msg, launch_type = excluded.launch_type,
        mission_msg = excluded.mission_msg, mission = excluded.mission,
        exploded_msg = excluded.exploded_msg, exploded_reason = excluded.exploded_reason,
        latest_time = excluded.latest_time";

/// Commits batches to Postgres, over a connection of its own that the calling thread drives.
#[derive(Debug)]
pub struct PostgresWriter {
    url: PostgresUrl,
    failures: Failures,
    runtime: Runtime,
    connection: Option<PgConnection>,
    statements: Statements,
}

/// The statements that are put together.
#[derive(Clone, Debug)]
struct Statements {
    load_ranges: String,
    merge_rockets: String,
}

impl PostgresWriter {
    pub(super) fn new(url: PostgresUrl, failures: Failures) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StoreError::Thread)?;
        let statements = Statements {
            load_ranges: format!(
                "SELECT {} FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS batch (channel, first_msg, last_msg)
                 JOIN processed_ranges AS ranges ON ranges.channel = batch.channel
                     AND ranges.first_msg <= batch.last_msg + 1 AND ranges.last_msg >= batch.first_msg - 1
                 ORDER BY ranges.channel, ranges.first_msg",
                rows::RANGE_COLUMNS
            ),
            merge_rockets: format!(
                "INSERT INTO rockets (channel, speed, latest_update, last_received, processed, complete_through, highest,
                                      type, latest_launch_msg, mission, latest_mission_msg, exploded_reason,
                                      latest_exploded_msg)
                 SELECT channel, speed, latest_update, $4, processed, complete_through, highest, type,
                        latest_launch_msg, mission, latest_mission_msg, exploded_reason, latest_exploded_msg
                 FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $5::bigint[], $6::bigint[], $7::bigint[],
                             $8::text[], $9::bigint[], $10::text[], $11::bigint[], $12::text[], $13::bigint[])
                     AS batch (channel, speed, latest_update, processed, complete_through, highest, type,
                               latest_launch_msg, mission, latest_mission_msg, exploded_reason, latest_exploded_msg)
                 {}",
                merge::on_conflict("greatest", true)
            ),
        };
        Ok(Self { url, failures, runtime, connection: None, statements })
    }

    /// See [`Writer::commit`](crate::store::Writer::commit).
    pub fn commit(&mut self, messages: &[Message], now: Timestamp) -> Result<Vec<Outcome>, StoreError> {
        let batch = Batch::new(messages);
        let mut tries = 1;
        loop {
            let outcomes = self.within_time(async |connection, statements, failures| {
                commit(connection, statements, failures, &batch, messages.len(), now).await
            });
            match outcomes {
                Err(error) if tries < TRIES && is_to_be_tried_again(&error) => {
                    tracing::debug!(%error, tries, "trying a batch again");
                    tries += 1;
                }
                outcomes => return outcomes,
            }
        }
    }

    /// See [`Writer::probe`](crate::store::Writer::probe).
    pub fn probe(&mut self) -> Result<(), StoreError> {
        self.within_time(async |connection, _, _| {
            // Locks nothing and changes nothing, but is refused where nothing can be written.
            let sql = "DELETE FROM processed_ranges WHERE channel = ''";
            sqlx::query(sql).execute(connection).await?;
            Ok(())
        })
    }

    /// Connects if need be, and does something within the time that is allowed. The connection outlives it only if it
    /// went well: after a failure, what state it is in is anybody's guess.
    fn within_time<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection, &Statements, &Failures) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Self { url, failures, runtime, connection, statements } = self;
        runtime.block_on(async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => within(url.acquire_timeout, PgConnection::connect_with(&url.connect)).await?,
            };
            let worked = tokio::time::timeout(url.statement_timeout, work(&mut open, statements, failures)).await;
            match worked.unwrap_or(Err(StoreError::TimedOut)) {
                Ok(done) => {
                    *connection = Some(open);
                    Ok(done)
                }
                Err(error) => {
                    // Politely if possible, so that the server rolls back now.
                    let _ = tokio::time::timeout(Duration::from_millis(100), open.close()).await;
                    Err(error)
                }
            }
        })
    }
}

async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(timeout, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(StoreError::TimedOut),
    }
}

fn is_to_be_tried_again(error: &StoreError) -> bool {
    match error {
        StoreError::Postgres(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| TRY_AGAIN.contains(&code.as_ref()))
        }
        _ => false,
    }
}

async fn commit(
    connection: &mut PgConnection,
    statements: &Statements,
    failures: &Failures,
    batch: &Batch<'_>,
    messages: usize,
    now: Timestamp,
) -> Result<Vec<Outcome>, StoreError> {
    let mut outcomes = vec![Outcome::Duplicate; messages];
    let mut transaction = connection.begin().await?;
    failures.check(FailurePoint::BeforeLoad)?;
    let channels: Vec<&str> = batch.groups().iter().map(|group| group.channel().as_str()).collect();
    sqlx::query(LOCK_ROCKETS).bind(&channels).execute(&mut *transaction).await?;
    let stored = load_ranges(&mut transaction, statements, batch.groups()).await?;
    let mut changes = Changes::default();
    for (group, stored) in batch.groups().iter().zip(stored) {
        changes.add(group, stored, &mut outcomes);
    }
    changes.write(&mut transaction, statements, now).await?;
    failures.check(FailurePoint::BeforeCommit)?;
    transaction.commit().await?;
    failures.check(FailurePoint::AfterCommit)?;
    Ok(outcomes)
}

/// The ranges that overlap or touch each group's windows, in ascending order.
async fn load_ranges(
    connection: &mut PgConnection,
    statements: &Statements,
    groups: &[Group<'_>],
) -> Result<Vec<Vec<ProcessedRange>>, StoreError> {
    let (mut channels, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    for group in groups {
        for window in group.windows() {
            channels.push(group.channel().as_str());
            firsts.push(window.first);
            lasts.push(window.last);
        }
    }
    let load = sqlx::query(AssertSqlSafe(statements.load_ranges.as_str())).bind(channels).bind(firsts).bind(lasts);
    let rows = load.fetch_all(connection).await?;
    let mut rows = rows.iter().peekable();
    groups.iter().map(|group| take_ranges(group, &mut rows)).collect()
}

/// Takes the rows of one channel. A range that reaches into two windows is there twice.
fn take_ranges<'r>(
    group: &Group<'_>,
    rows: &mut std::iter::Peekable<impl Iterator<Item = &'r PgRow>>,
) -> Result<Vec<ProcessedRange>, StoreError> {
    let mut ranges: Vec<ProcessedRange> = Vec::new();
    while let Some(row) = rows.peek() {
        if rows::channel(row, 0)? != *group.channel() {
            break;
        }
        let range = rows::range(row)?;
        if ranges.last().is_none_or(|last| last.first < range.first) {
            ranges.push(range);
        }
        rows.next();
    }
    Ok(ranges)
}

/// What a batch writes.
#[derive(Default)]
struct Changes<'m> {
    removed: Vec<(&'m str, i64)>,
    ranges: Vec<(&'m str, ProcessedRange)>,
    applied: Vec<(&'m str, Applied)>,
}

impl<'m> Changes<'m> {
    fn add(&mut self, group: &Group<'m>, stored: Vec<ProcessedRange>, outcomes: &mut [Outcome]) {
        let channel = group.channel().as_str();
        let joined = group.join(stored, outcomes);
        self.removed.extend(joined.removed.into_iter().map(|first| (channel, first)));
        self.ranges.extend(joined.grown.into_iter().chain(joined.added).map(|range| (channel, range)));
        self.applied.extend(joined.applied.map(|applied| (channel, applied)));
    }

    /// Writes all of it. Each statement is sent even if it has nothing to do, so that a batch's cost is the same
    /// whatever it holds.
    async fn write(
        &self,
        connection: &mut PgConnection,
        statements: &Statements,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (channels, firsts): (Vec<&str>, Vec<i64>) = self.removed.iter().copied().unzip();
        sqlx::query(REMOVE_RANGES).bind(channels).bind(firsts).execute(&mut *connection).await?;

        let ranges = &self.ranges;
        let summaries: Vec<&Summary> = ranges.iter().map(|(_, range)| &range.summary).collect();
        let columns = SummaryColumns::of(&summaries);
        sqlx::query(WRITE_RANGES)
            .bind(column(ranges, |(channel, _)| *channel))
            .bind(column(ranges, |(_, range)| range.first))
            .bind(column(ranges, |(_, range)| range.last))
            .bind(columns.speed_change)
            .bind(columns.launch_msg)
            .bind(columns.launch_type)
            .bind(columns.mission_msg)
            .bind(columns.mission)
            .bind(columns.exploded_msg)
            .bind(columns.exploded_reason)
            .bind(columns.latest_time)
            .execute(&mut *connection)
            .await?;

        let applied = &self.applied;
        let summaries: Vec<&Summary> = applied.iter().map(|(_, applied)| &applied.summary).collect();
        let columns = SummaryColumns::of(&summaries);
        sqlx::query(AssertSqlSafe(statements.merge_rockets.as_str()))
            .bind(column(applied, |(channel, _)| *channel))
            .bind(columns.speed_change)
            .bind(columns.latest_time)
            .bind(PgTime(now))
            .bind(column(applied, |(_, applied)| applied.processed))
            .bind(column(applied, |(_, applied)| applied.complete_through))
            .bind(column(applied, |(_, applied)| applied.highest))
            .bind(columns.launch_type)
            .bind(columns.launch_msg)
            .bind(columns.mission)
            .bind(columns.mission_msg)
            .bind(columns.exploded_reason)
            .bind(columns.exploded_msg)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }
}

/// One array for each column.
struct SummaryColumns<'s> {
    speed_change: Vec<i64>,
    launch_msg: Vec<Option<i64>>,
    launch_type: Vec<Option<&'s str>>,
    mission_msg: Vec<Option<i64>>,
    mission: Vec<Option<&'s str>>,
    exploded_msg: Vec<Option<i64>>,
    exploded_reason: Vec<Option<&'s str>>,
    latest_time: Vec<PgTime>,
}

impl<'s> SummaryColumns<'s> {
    fn of(summaries: &[&'s Summary]) -> Self {
        Self {
            speed_change: column(summaries, |summary| summary.speed_change),
            launch_msg: column(summaries, |summary| number(&summary.launch)),
            launch_type: column(summaries, |summary| text(&summary.launch)),
            mission_msg: column(summaries, |summary| number(&summary.mission)),
            mission: column(summaries, |summary| text(&summary.mission)),
            exploded_msg: column(summaries, |summary| number(&summary.explosion)),
            exploded_reason: column(summaries, |summary| text(&summary.explosion)),
            latest_time: column(summaries, |summary| PgTime(summary.latest_time)),
        }
    }
}

fn column<'r, R, T>(rows: &'r [R], value: impl FnMut(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

fn number(latest: &Option<Latest>) -> Option<i64> {
    latest.as_ref().map(|latest| latest.number)
}

fn text(latest: &Option<Latest>) -> Option<&str> {
    latest.as_ref().map(|latest| latest.value.as_str())
}
