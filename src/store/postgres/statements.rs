//! The statements of the write path, and how batches are passed to them.
//!
//! Several statements in one message take no parameters, so their values are written into the SQL
//! by `literal`. They are prepared once per connection, so that a single server parses and plans
//! them once.
//!
//! All rows of a batch are in one bucket, which every statement names: a cluster runs the statement
//! on the one node that has the bucket, as it is. It would not do so for an INSERT that selects
//! from the batch alone, so these also select from the row of the bucket in `rocket_buckets`.
//!
//! Statements that join stored rows to the batch compare the bucket with a column of the batch.
//! With a constant, the planner could read the whole index and search the batch for each row. That
//! seems cheap to it while the tables are empty, and plans are kept. `OFFSET 0` prevents it from
//! replacing the column by the constant. A cluster needs the constant, too: to choose the node.
//!
//! The first column of each row that a statement returns says what the row is.

use std::fmt::Write;

use super::BEGIN_TO_WRITE;
use super::literal::array;
use crate::domain::batch::Group;
use crate::domain::ranges::{Applied, ProcessedRange};
use crate::domain::speed_blocks::SpeedBlocks;
use crate::domain::summary::{Latest, Summary};
use crate::domain::timestamp::Timestamp;
use crate::store::{rows, upsert};

/// The settings of a writer's connection. All statements look up rows by a batch's few channels,
/// but the planner doesn't know the contents of arrays and would sometimes prefer to read whole
/// tables.
const SETTINGS: &str = "
    SET standard_conforming_strings = on;
    SET bytea_output = hex;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_bitmapscan = off;";

/// Plans are made once and kept.
const PLAN_ONCE: &str = "SET plan_cache_mode = force_generic_plan;";

/// A cluster can plan the statements only when it knows the bucket.
const PLAN_EACH_TIME: &str = "SET plan_cache_mode = force_custom_plan;";

/// The columns of `rockets` that are written, in the order of the parameters. The bucket comes
/// before them.
const BATCH_COLUMNS: &str = "channel, processed, complete_through, highest, speed, \
     latest_launch_msg, type, latest_mission_msg, mission, latest_exploded_msg, \
     exploded_reason, latest_update, last_received";

const ROCKET_PARAMETERS: &str = "text[], bigint[], bigint[], bigint[], bigint[], bigint[], text[], \
     bigint[], text[], bigint[], text[], timestamptz[], timestamptz[]";

/// Locks the rockets that exist, in the order of the batch, and inserts the others. Returns the
/// channels of the inserted rockets.
fn insert_or_lock_rockets() -> String {
    // A row is locked before the condition is evaluated.
    format!(
        "PREPARE insert_or_lock_rockets (smallint, {ROCKET_PARAMETERS}) AS
         INSERT INTO rockets (bucket, {BATCH_COLUMNS})
         SELECT buckets.bucket, batch.*
         FROM rocket_buckets AS buckets
         CROSS JOIN unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) AS batch
         WHERE buckets.bucket = $1
         ON CONFLICT (channel, bucket) DO UPDATE SET speed = rockets.speed WHERE false
         RETURNING 'inserted', channel;"
    )
}

/// Adds new messages to rockets, unless they have another version than the given one. Returns the
/// channels of the changed rockets.
fn update_rockets(is_cluster: bool) -> String {
    format!(
        "PREPARE update_rockets (smallint, {ROCKET_PARAMETERS}, timestamptz[]) AS
         UPDATE rockets SET {}
         FROM (SELECT $1 AS bucket, *
               FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
                   AS batch ({BATCH_COLUMNS}, version)
               OFFSET 0) AS batch
         WHERE rockets.bucket = batch.bucket AND rockets.channel = batch.channel
             AND rockets.last_received = batch.version
             {}
         RETURNING 'updated', rockets.channel;",
        upsert::assignments("greatest", "batch", "batch.last_received", true),
        if is_cluster { "AND rockets.bucket = $1" } else { "" }
    )
}

/// The versions of rockets, and their highest numbers.
const LOAD_ROCKETS: &str = "
    PREPARE load_rockets (smallint, text[]) AS
    SELECT 'rocket', channel, last_received, highest FROM rockets
    WHERE bucket = $1 AND channel = ANY($2);";

/// The ranges that overlap or touch windows of message numbers.
fn load_ranges() -> String {
    // Of the ranges that start at or before the start of a window, only the last can reach into it.
    format!(
        "PREPARE load_ranges (smallint, text[], bigint[], bigint[]) AS
         SELECT 'range', ranges.channel, {}
         FROM unnest($2, $3, $4) AS batch (channel, first_msg, last_msg)
         CROSS JOIN LATERAL (
             (SELECT * FROM processed_ranges AS below
              WHERE below.bucket = $1 AND below.channel = batch.channel
                  AND below.first_msg <= batch.first_msg
              ORDER BY below.first_msg DESC LIMIT 1)
             UNION ALL
             SELECT * FROM processed_ranges AS others
             WHERE others.bucket = $1 AND others.channel = batch.channel
                 AND others.first_msg > batch.first_msg
                 AND others.first_msg <= batch.last_msg + 1
         ) AS ranges
         WHERE ranges.last_msg >= batch.first_msg - 1
         ORDER BY ranges.channel, ranges.first_msg;",
        rows::range_columns("ranges")
    )
}

/// Removes ranges by their channels and first numbers.
fn remove_ranges(is_cluster: bool) -> String {
    format!(
        "PREPARE remove_ranges (smallint, text[], bigint[]) AS
         DELETE FROM processed_ranges AS ranges
         USING (SELECT $1 AS bucket, * FROM unnest($2, $3) AS batch (channel, first_msg)
                OFFSET 0) AS batch
         WHERE ranges.bucket = batch.bucket AND ranges.channel = batch.channel
             AND ranges.first_msg = batch.first_msg
             {};",
        if is_cluster { "AND ranges.bucket = $1" } else { "" }
    )
}

const WRITE_RANGES: &str = "
    PREPARE write_ranges (smallint, text[], bigint[], bigint[], bigint[], bigint[], text[],
                          bigint[], text[], bigint[], text[], timestamptz[], timestamptz[],
                          bytea[]) AS
    INSERT INTO processed_ranges (bucket, channel, first_msg, last_msg, speed_change, launch_msg,
                                  launch_type, mission_msg, mission, exploded_msg,
                                  exploded_reason, latest_time, first_received, speed_blocks)
    SELECT buckets.bucket, batch.*
    FROM rocket_buckets AS buckets
    CROSS JOIN unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) AS batch
    WHERE buckets.bucket = $1
    ON CONFLICT (channel, bucket, first_msg) DO UPDATE SET
        last_msg = excluded.last_msg, speed_change = excluded.speed_change,
        launch_msg = excluded.launch_msg, launch_type = excluded.launch_type,
        mission_msg = excluded.mission_msg, mission = excluded.mission,
        exploded_msg = excluded.exploded_msg, exploded_reason = excluded.exploded_reason,
        latest_time = excluded.latest_time, first_received = excluded.first_received,
        speed_blocks = excluded.speed_blocks;";

/// The first statements on a new connection.
pub(super) fn set_up(is_cluster: bool) -> String {
    let planning = if is_cluster { PLAN_EACH_TIME } else { PLAN_ONCE };
    [
        SETTINGS,
        planning,
        &insert_or_lock_rockets(),
        &update_rockets(is_cluster),
        LOAD_ROCKETS,
        &load_ranges(),
        &remove_ranges(is_cluster),
        WRITE_RANGES,
    ]
    .concat()
}

/// What new messages add to a rocket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addition<'a> {
    pub(super) channel: &'a str,
    pub(super) applied: &'a Applied,
    /// The rocket's new `last_received`.
    pub(super) received: Timestamp,
}

/// A message to the server: statements for the rows of one bucket. A statement without rows is left
/// out.
#[derive(Debug)]
pub(super) struct Statements {
    sql: String,
    bucket: i16,
}

impl Statements {
    /// Starts a transaction.
    pub(super) fn begin(bucket: i16) -> Self {
        Self { sql: format!("{BEGIN_TO_WRITE};"), bucket }
    }

    /// Continues a transaction.
    pub(super) fn resume(bucket: i16) -> Self {
        Self { sql: String::new(), bucket }
    }

    /// All statements of a batch, without rows and without an end: they fail where a batch would.
    pub(super) fn probe(bucket: i16) -> Self {
        let mut probe = Self::begin(bucket);
        let no_channels = || array(std::iter::empty::<&str>());
        let no_numbers = || array(std::iter::empty::<i64>());
        let no_times = || array(std::iter::empty::<Timestamp>());
        probe.execute("insert_or_lock_rockets", &columns(&[]));
        probe.execute("update_rockets", &[columns(&[]), vec![no_times()]].concat());
        probe.execute("load_rockets", &[no_channels()]);
        probe.execute("load_ranges", &[no_channels(), no_numbers(), no_numbers()]);
        probe.execute("remove_ranges", &[no_channels(), no_numbers()]);
        probe.execute("write_ranges", &range_columns(&[]));
        probe
    }

    /// Locks the rockets that exist, and inserts the others with their additions. They must be in
    /// the order of their channels, which is the order of the locks.
    pub(super) fn insert_or_lock_rockets(&mut self, rockets: &[Addition<'_>]) {
        if !rockets.is_empty() {
            self.execute("insert_or_lock_rockets", &columns(rockets));
        }
    }

    /// Adds new messages to rockets that have these versions.
    pub(super) fn update_rockets(&mut self, rockets: &[(Addition<'_>, Timestamp)]) {
        if !rockets.is_empty() {
            let additions: Vec<_> = rockets.iter().map(|(addition, _)| *addition).collect();
            let versions = array(rockets.iter().map(|(_, version)| *version));
            self.execute("update_rockets", &[columns(&additions), vec![versions]].concat());
        }
    }

    /// Loads the versions and highest numbers of rockets.
    pub(super) fn load_rockets(&mut self, channels: &[&str]) {
        if !channels.is_empty() {
            self.execute("load_rockets", &[array(channels.iter().copied())]);
        }
    }

    /// Loads the ranges near the messages of groups.
    pub(super) fn load_ranges(&mut self, groups: &[&Group<'_>]) {
        if groups.is_empty() {
            return;
        }
        let windows = || {
            groups
                .iter()
                .flat_map(|group| group.windows().map(|window| (group.channel().as_str(), window)))
        };
        let parameters = [
            array(windows().map(|(channel, _)| channel)),
            array(windows().map(|(_, window)| window.first)),
            array(windows().map(|(_, window)| window.last)),
        ];
        self.execute("load_ranges", &parameters);
    }

    /// Removes ranges by their channels and first numbers.
    pub(super) fn remove_ranges(&mut self, ranges: &[(&str, i64)]) {
        if !ranges.is_empty() {
            let channels = array(ranges.iter().map(|(channel, _)| *channel));
            self.execute(
                "remove_ranges",
                &[channels, array(ranges.iter().map(|(_, first)| *first))],
            );
        }
    }

    /// Writes ranges, new ones or replacements for those with the same first numbers.
    pub(super) fn write_ranges(&mut self, ranges: &[(&str, &ProcessedRange)]) {
        if !ranges.is_empty() {
            self.execute("write_ranges", &range_columns(ranges));
        }
    }

    fn execute(&mut self, statement: &str, parameters: &[String]) {
        // Writing to memory can't fail.
        let _ = write!(
            self.sql,
            "EXECUTE {statement}({}::smallint,{});",
            self.bucket,
            parameters.join(",")
        );
    }

    /// The SQL, without an end of the transaction.
    pub(super) fn into_sql(self) -> String {
        self.sql
    }

    /// The SQL, with the end of the transaction.
    pub(super) fn and(self, end: &str) -> String {
        self.sql + end
    }
}

/// One array for each of [`BATCH_COLUMNS`].
fn columns(rockets: &[Addition<'_>]) -> Vec<String> {
    let progress = [
        array(rockets.iter().map(|rocket| rocket.channel)),
        array(rockets.iter().map(|rocket| rocket.applied.processed)),
        array(rockets.iter().map(|rocket| rocket.applied.complete_through)),
        array(rockets.iter().map(|rocket| rocket.applied.highest)),
    ];
    let columns = summary_columns(rockets.iter().map(|rocket| &rocket.applied.summary));
    let received = [array(rockets.iter().map(|rocket| rocket.received))];
    [&progress[..], &columns, &received].concat()
}

/// One array for each column of `processed_ranges` but the bucket.
fn range_columns(ranges: &[(&str, &ProcessedRange)]) -> Vec<String> {
    let keys = [
        array(ranges.iter().map(|(channel, _)| *channel)),
        array(ranges.iter().map(|(_, range)| range.first)),
        array(ranges.iter().map(|(_, range)| range.last)),
    ];
    let summaries = summary_columns(ranges.iter().map(|(_, range)| &range.summary));
    let others = [
        array(ranges.iter().map(|(_, range)| range.first_received)),
        array(
            ranges.iter().map(|(_, range)| range.speed_blocks.as_ref().map(SpeedBlocks::as_bytes)),
        ),
    ];
    [&keys[..], &summaries, &others].concat()
}

/// One array for each column: speed change; number and text of launch, mission and explosion;
/// latest time.
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
