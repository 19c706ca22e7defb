//! The write path: one transaction a batch, in two messages to the server, and the same seven statements however many
//! messages and channels it holds.
//!
//! Rows of `rockets` are locked in the order of their channels, so that batches which share channels wait for each other
//! and don't deadlock; only then the ranges are read, as of after that wait. The statements are such that a cluster can
//! run them which holds both tables distributed by channel: every join is by channel.
//!
//! Statements that go together in one message take no parameters: what they work on is written into them, by `literal`.
//! They are prepared when the connection is made, so that they are parsed and planned once.

use std::fmt::Write;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::Runtime;

use super::literal::array;
use super::rows;
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

/// Each statement sees what has been committed before it, also by those whose locks were waited for.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;";

/// How a writer's connection is set up. Plans are made once and kept: all statements look up rows by the channels of a
/// batch, which are few, but the planner, who knows nothing of what arrays hold, would at times rather read whole tables.
const SET_UP: &str = "
    SET standard_conforming_strings = on;
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_bitmapscan = off;";

/// Locks the channels' rows, and makes those that are missing. What a new one holds is of no account: nobody sees it
/// before the end of the transaction, and by then it has taken in its first messages; no message is older. A row that is there is locked
/// before the condition is looked at, and then left as it is.
const LOCK_ROCKETS: &str = "
    PREPARE lock_rockets (text[]) AS
    INSERT INTO rockets (channel, speed, latest_update, last_received, processed, complete_through, highest)
    SELECT channel, 0, '0001-01-01T00:00:00Z', '0001-01-01T00:00:00Z', 0, 0, 0 FROM unnest($1) AS batch (channel)
    ON CONFLICT (channel) DO UPDATE SET speed = rockets.speed WHERE false;";

/// The ranges that overlap or touch windows of message numbers. Most messages belong near the end of their channel,
/// where the index by the last number finds few; the other condition is not for an index to search by.
fn load_ranges() -> String {
    format!(
        "PREPARE load_ranges (text[], bigint[], bigint[]) AS
         SELECT {} FROM unnest($1, $2, $3) AS batch (channel, first_msg, last_msg)
         JOIN processed_ranges AS ranges ON ranges.channel = batch.channel
             AND ranges.last_msg >= batch.first_msg - 1 AND ranges.first_msg + 0 <= batch.last_msg + 1
         ORDER BY ranges.channel, ranges.first_msg;",
        rows::RANGE_COLUMNS
    )
}

const REMOVE_RANGES: &str = "
    PREPARE remove_ranges (text[], bigint[]) AS
    DELETE FROM processed_ranges AS ranges
    USING unnest($1, $2) AS batch (channel, first_msg)
    WHERE ranges.channel = batch.channel AND ranges.first_msg = batch.first_msg;";

const WRITE_RANGES: &str = "
    PREPARE write_ranges (text[], bigint[], bigint[], bigint[], bigint[], text[], bigint[], text[], bigint[], text[],
                          timestamptz[]) AS
    INSERT INTO processed_ranges (channel, first_msg, last_msg, speed_change, launch_msg, launch_type, mission_msg,
                                  mission, exploded_msg, exploded_reason, latest_time)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (channel, first_msg) DO UPDATE SET
        last_msg = excluded.last_msg, speed_change = excluded.speed_change,
        launch_msg = excluded.launch_msg, launch_type = excluded.launch_type,
        mission_msg = excluded.mission_msg, mission = excluded.mission,
        exploded_msg = excluded.exploded_msg, exploded_reason = excluded.exploded_reason,
        latest_time = excluded.latest_time;";

/// Adds what new messages came to. The last parameter is when they were received.
fn merge_rockets() -> String {
    format!(
        "PREPARE merge_rockets (text[], bigint[], bigint[], bigint[], bigint[], bigint[], text[], bigint[], text[],
                                bigint[], text[], timestamptz[], timestamptz[]) AS
         INSERT INTO rockets (channel, processed, complete_through, highest, speed, latest_launch_msg, type,
                              latest_mission_msg, mission, latest_exploded_msg, exploded_reason, latest_update,
                              last_received)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) {};",
        merge::on_conflict("greatest", true)
    )
}

/// Commits batches to Postgres, over a connection of its own that the calling thread drives.
#[derive(Debug)]
pub struct PostgresWriter {
    url: PostgresUrl,
    failures: Failures,
    runtime: Runtime,
    connection: Option<PgConnection>,
}

impl PostgresWriter {
    pub(super) fn new(url: PostgresUrl, failures: Failures) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StoreError::Thread)?;
        Ok(Self { url, failures, runtime, connection: None })
    }

    /// See [`Writer::commit`](crate::store::Writer::commit).
    pub fn commit(&mut self, messages: &[Message], now: Timestamp) -> Result<Vec<Outcome>, StoreError> {
        let batch = Batch::new(messages);
        let mut tries = 1;
        loop {
            let outcomes = self.within_time(async |connection, failures| {
                commit(connection, failures, &batch, messages.len(), now).await
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
        self.within_time(async |connection, _| {
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
        work: impl AsyncFnOnce(&mut PgConnection, &Failures) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Self { url, failures, runtime, connection } = self;
        runtime.block_on(async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => within(url.acquire_timeout, connect(url)).await?,
            };
            let worked = tokio::time::timeout(url.statement_timeout, work(&mut open, failures)).await;
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

/// A connection on which the statements are prepared.
async fn connect(url: &PostgresUrl) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(&url.connect).await?;
    let (load_ranges, merge_rockets) = (load_ranges(), merge_rockets());
    let all = [SET_UP, LOCK_ROCKETS, &load_ranges, REMOVE_RANGES, WRITE_RANGES, &merge_rockets].concat();
    sqlx::raw_sql(AssertSqlSafe(all)).execute(&mut connection).await?;
    Ok(connection)
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
    failures: &Failures,
    batch: &Batch<'_>,
    messages: usize,
    now: Timestamp,
) -> Result<Vec<Outcome>, StoreError> {
    let mut outcomes = vec![Outcome::Duplicate; messages];
    failures.check(FailurePoint::BeforeLoad)?;
    let lock_and_load = sqlx::raw_sql(AssertSqlSafe(lock_and_load(batch.groups())));
    let rows = lock_and_load.fetch_all(&mut *connection).await?;
    let mut changes = Changes::default();
    let mut rows = rows.iter().peekable();
    for group in batch.groups() {
        changes.add(group, take_ranges(group, &mut rows)?, &mut outcomes);
    }
    let mut write = changes.write(now);
    if failures.are_plannable() {
        sqlx::raw_sql(AssertSqlSafe(std::mem::take(&mut write))).execute(&mut *connection).await?;
        failures.check(FailurePoint::BeforeCommit)?;
    }
    write.push_str("COMMIT");
    sqlx::raw_sql(AssertSqlSafe(write)).execute(&mut *connection).await?;
    failures.check(FailurePoint::AfterCommit)?;
    Ok(outcomes)
}

/// The first message: begins the transaction, locks the channels, and reads the ranges that overlap or touch each
/// group's windows, in the order of the groups and then in ascending order.
fn lock_and_load(groups: &[Group<'_>]) -> String {
    let channels = array(groups.iter().map(|group| group.channel().as_str()));
    let windows = || groups.iter().flat_map(|group| group.windows().map(|window| (group.channel(), window)));
    let mut sql = format!("{BEGIN} EXECUTE lock_rockets({channels});");
    let load = [
        array(windows().map(|(channel, _)| channel.as_str())),
        array(windows().map(|(_, window)| window.first)),
        array(windows().map(|(_, window)| window.last)),
    ];
    execute(&mut sql, "load_ranges", &load);
    sql
}

fn execute(sql: &mut String, statement: &str, parameters: &[String]) {
    // Writing to memory doesn't fail.
    let _ = write!(sql, "EXECUTE {statement}({});", parameters.join(","));
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

    /// The second message but for its end: writes all of it. Each statement is sent even if it has nothing to do, so
    /// that the cost of a batch is the same whatever it holds.
    fn write(&self, now: Timestamp) -> String {
        let mut sql = String::new();
        let Self { removed, ranges, applied } = self;
        let removed =
            [array(removed.iter().map(|(channel, _)| *channel)), array(removed.iter().map(|(_, first)| *first))];
        execute(&mut sql, "remove_ranges", &removed);

        let keys = [
            array(ranges.iter().map(|(channel, _)| *channel)),
            array(ranges.iter().map(|(_, range)| range.first)),
            array(ranges.iter().map(|(_, range)| range.last)),
        ];
        let columns = summary_columns(ranges.iter().map(|(_, range)| &range.summary));
        execute(&mut sql, "write_ranges", &[&keys[..], &columns].concat());

        let progress = [
            array(applied.iter().map(|(channel, _)| *channel)),
            array(applied.iter().map(|(_, applied)| applied.processed)),
            array(applied.iter().map(|(_, applied)| applied.complete_through)),
            array(applied.iter().map(|(_, applied)| applied.highest)),
        ];
        let columns = summary_columns(applied.iter().map(|(_, applied)| &applied.summary));
        let received = [array(applied.iter().map(|_| now))];
        execute(&mut sql, "merge_rockets", &[&progress[..], &columns, &received].concat());
        sql
    }
}

/// An array for each column: speed change; number and text of launch, mission and explosion; latest time.
fn summary_columns<'s>(summaries: impl Iterator<Item = &'s Summary> + Clone) -> [String; 8] {
    let number = |latest: &Option<Latest>| latest.as_ref().map(|latest| latest.number);
    fn text(latest: &Option<Latest>) -> Option<&str> {
        latest.as_ref().map(|latest| latest.value.as_str())
    }
    [
        array(summaries.clone().map(|summary| summary.speed_change)),
        array(summaries.clone().map(|summary| number(&summary.launch))),
        array(summaries.clone().map(|summary| text(&summary.launch))),
        array(summaries.clone().map(|summary| number(&summary.mission))),
        array(summaries.clone().map(|summary| text(&summary.mission))),
        array(summaries.clone().map(|summary| number(&summary.explosion))),
        array(summaries.clone().map(|summary| text(&summary.explosion))),
        array(summaries.map(|summary| summary.latest_time)),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::parse::parse;

    fn message(channel: usize, number: usize) -> Message {
        let json = format!(
            r#"{{"metadata":{{"channel":"c{channel}","messageNumber":{number},"messageTime":"2022-02-02T19:39:05Z",
            "messageType":"RocketSpeedIncreased"}},"message":{{"by":1}}}}"#
        );
        parse(json.into()).unwrap()
    }

    #[test]
    fn a_batch_is_the_same_few_statements_whatever_it_holds() {
        for messages in [1, 100, 1_000] {
            let messages: Vec<Message> = (0..messages).map(|index| message(index % 70, index * 3 + 1)).collect();
            let batch = Batch::new(&messages);
            let mut outcomes = vec![Outcome::Duplicate; messages.len()];
            let mut changes = Changes::default();
            for group in batch.groups() {
                changes.add(group, Vec::new(), &mut outcomes);
            }
            let statements = |sql: &str| sql.matches(';').count();
            // Begin, lock, load; remove, write, merge; and COMMIT alone remains.
            assert_eq!(statements(&lock_and_load(batch.groups())), 3);
            assert_eq!(statements(&changes.write(messages[0].time)), 3);
        }
    }
}
