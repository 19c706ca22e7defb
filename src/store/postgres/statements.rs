//! The statements of the write path, and how batches are passed to them.
//!
//! Several statements in one message take no parameters, so their values are written into the SQL
//! by `literal`. They are prepared once per connection, so that they are parsed and planned once. A
//! cluster with both tables distributed by channel can run them: every join is by channel, and no
//! function depends on anything but its arguments. Where that would make every message too
//! expensive, there is a separate form for clusters ([`RangeSearch`]).

use std::fmt::Write;

use super::literal::array;
use super::{BEGIN_TO_WRITE, rows};
use crate::domain::batch::Group;
use crate::domain::ranges::{Applied, ProcessedRange};
use crate::domain::summary::{Latest, Summary};
use crate::domain::timestamp::Timestamp;
use crate::store::merge;

/// The settings of a writer's connection. Plans are made once and kept. All statements look up rows
/// by a batch's few channels, but the planner doesn't know the contents of arrays and would
/// sometimes prefer to read whole tables.
const SET_UP: &str = "
    SET standard_conforming_strings = on;
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_bitmapscan = off;";

/// The columns of `rockets` that are written, in the order of the parameters.
const ROCKET_COLUMNS: &str = "channel, processed, complete_through, highest, speed, latest_launch_msg, type, \
     latest_mission_msg, mission, latest_exploded_msg, exploded_reason, latest_update, last_received";

const ROCKET_PARAMETERS: &str = "text[], bigint[], bigint[], bigint[], bigint[], bigint[], text[], bigint[], text[], \
     bigint[], text[], timestamptz[], timestamptz[]";

/// Takes the batch's rockets, in order: locks each row, or inserts it if it is missing, and
/// directly adds what is new to each cached rocket that nobody else has changed. Returns (channel,
/// `last_received`) of the rows that it has written.
///
/// The proposed row encodes the [`Take`]: `highest` says whether there is anything to do but lock,
/// and `processed` says whether anything is new. `last_received` is that of the cached state. The
/// last parameter is the time of receipt.
///
/// An existing row is locked before the condition is evaluated, whatever its result.
fn take_rockets() -> String {
    format!(
        "PREPARE take_rockets ({ROCKET_PARAMETERS}, timestamptz) AS
         INSERT INTO rockets ({ROCKET_COLUMNS})
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) {}
         WHERE excluded.highest > 0
             AND (rockets.last_received = excluded.last_received) = (excluded.processed > 0)
         RETURNING channel, last_received;",
        merge::on_conflict("greatest", "$14", true)
    )
}

/// The `last_received` of rockets, and their highest numbers.
const LOAD_ROCKETS: &str = "
    PREPARE load_rockets (text[]) AS
    SELECT channel, last_received, highest FROM rockets WHERE channel = ANY($1);";

/// How to find the ranges of many channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeSearch {
    /// By their first numbers, on a single server.
    ByFirst,
    /// By their last numbers, which needs an index that every message writes to. A cluster supports
    /// nothing else: it refuses subqueries that refer to the batch and have a LIMIT.
    ByLast,
}

/// The ranges that overlap or touch windows of message numbers.
fn load_ranges(search: RangeSearch) -> String {
    // Of the ranges that start at or before the start of a window, only the last can reach into it.
    let by_first = "
        CROSS JOIN LATERAL (
            (SELECT * FROM processed_ranges AS below
             WHERE below.channel = batch.channel AND below.first_msg <= batch.first_msg
             ORDER BY below.first_msg DESC LIMIT 1)
            UNION ALL
            SELECT * FROM processed_ranges AS others
            WHERE others.channel = batch.channel AND others.first_msg > batch.first_msg
                AND others.first_msg <= batch.last_msg + 1
        ) AS ranges
        WHERE ranges.last_msg >= batch.first_msg - 1";
    // Most messages belong near the end of their channel, where few ranges end later. The other
    // condition is written so that no index is used for it.
    let by_last = "
        JOIN processed_ranges AS ranges ON ranges.channel = batch.channel
            AND ranges.last_msg >= batch.first_msg - 1 AND ranges.first_msg + 0 <= batch.last_msg + 1";
    let found = match search {
        RangeSearch::ByFirst => by_first,
        RangeSearch::ByLast => by_last,
    };
    format!(
        "PREPARE load_ranges (text[], bigint[], bigint[]) AS
         SELECT {} FROM unnest($1, $2, $3) AS batch (channel, first_msg, last_msg) {found}
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

/// Adds what is new to rockets whose ranges had to be loaded.
fn merge_rockets() -> String {
    format!(
        "PREPARE merge_rockets ({ROCKET_PARAMETERS}) AS
         INSERT INTO rockets ({ROCKET_COLUMNS})
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) {};",
        merge::on_conflict("greatest", "excluded.last_received", true)
    )
}

/// The first statements on a new connection.
pub(super) fn set_up(search: RangeSearch) -> String {
    [SET_UP, &take_rockets(), LOAD_ROCKETS, &load_ranges(search), REMOVE_RANGES, WRITE_RANGES, &merge_rockets()]
        .concat()
}

/// What to do with a rocket's row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Take<'a> {
    /// Not cached: the row is locked, and the result is computed afterwards. A missing rocket gets
    /// an empty row, which nobody sees before the end of the transaction.
    Lock,
    /// Cached as of this instant, and all messages are duplicates: the row is written, without
    /// effect, only if the cached state is outdated.
    Verify(Timestamp),
    /// Cached as of this instant, with new messages: the row is written only if the cached state is
    /// current.
    Merge(Timestamp, &'a Applied),
}

/// An [`Applied`] without effect.
fn nothing() -> Applied {
    let summary =
        Summary { speed_change: 0, launch: None, mission: None, explosion: None, latest_time: Timestamp::FIRST };
    Applied { processed: 0, highest: 0, complete_through: 0, summary }
}

/// Starts the transaction and takes the batch's rockets, given in the order of their channels.
pub(super) fn begin_and_take(rockets: &[(&str, Take<'_>)], received: Timestamp) -> String {
    let nothing = nothing();
    let to_verify = Applied { highest: 1, ..nothing.clone() };
    let proposed: Vec<_> = rockets
        .iter()
        .map(|&(channel, take)| match take {
            Take::Lock => (channel, &nothing, Timestamp::FIRST),
            Take::Verify(stamp) => (channel, &to_verify, stamp),
            Take::Merge(stamp, applied) => (channel, applied, stamp),
        })
        .collect();
    let mut parameters = rocket_columns(&proposed);
    parameters.push(format!("'{received}'"));
    let mut sql = format!("{BEGIN_TO_WRITE};");
    execute(&mut sql, "take_rockets", &parameters);
    sql
}

/// Everything that a batch does, without rockets and without an end: it fails where a batch would.
pub(super) fn attempt() -> String {
    let mut sql = begin_and_take(&[], Timestamp::FIRST);
    load(&mut sql, &[]);
    remove_ranges(&mut sql, &[]);
    write_ranges(&mut sql, &[]);
    merge_rockets_with(&mut sql, &[]);
    sql
}

/// Loads the ranges and rockets of the groups' channels.
pub(super) fn load(sql: &mut String, groups: &[&Group<'_>]) {
    let windows = || groups.iter().flat_map(|group| group.windows().map(|window| (group.channel().as_str(), window)));
    execute(sql, "load_rockets", &[array(groups.iter().map(|group| group.channel().as_str()))]);
    let parameters = [
        array(windows().map(|(channel, _)| channel)),
        array(windows().map(|(_, window)| window.first)),
        array(windows().map(|(_, window)| window.last)),
    ];
    execute(sql, "load_ranges", &parameters);
}

/// Removes ranges by their channels and first numbers.
pub(super) fn remove_ranges(sql: &mut String, ranges: &[(&str, i64)]) {
    let columns = [array(ranges.iter().map(|(channel, _)| *channel)), array(ranges.iter().map(|(_, first)| *first))];
    execute(sql, "remove_ranges", &columns);
}

/// Writes ranges, new ones or replacements for those with the same first numbers.
pub(super) fn write_ranges(sql: &mut String, ranges: &[(&str, &ProcessedRange)]) {
    let keys = [
        array(ranges.iter().map(|(channel, _)| *channel)),
        array(ranges.iter().map(|(_, range)| range.first)),
        array(ranges.iter().map(|(_, range)| range.last)),
    ];
    let columns = summary_columns(ranges.iter().map(|(_, range)| &range.summary));
    execute(sql, "write_ranges", &[&keys[..], &columns].concat());
}

/// Adds new messages to rockets, with the times of receipt.
pub(super) fn merge_rockets_with(sql: &mut String, rockets: &[(&str, &Applied, Timestamp)]) {
    execute(sql, "merge_rockets", &rocket_columns(rockets));
}

fn execute(sql: &mut String, statement: &str, parameters: &[String]) {
    // Writing to memory can't fail.
    let _ = write!(sql, "EXECUTE {statement}({});", parameters.join(","));
}

/// One array for each of [`ROCKET_COLUMNS`].
fn rocket_columns(rockets: &[(&str, &Applied, Timestamp)]) -> Vec<String> {
    let progress = [
        array(rockets.iter().map(|(channel, _, _)| *channel)),
        array(rockets.iter().map(|(_, applied, _)| applied.processed)),
        array(rockets.iter().map(|(_, applied, _)| applied.complete_through)),
        array(rockets.iter().map(|(_, applied, _)| applied.highest)),
    ];
    let columns = summary_columns(rockets.iter().map(|(_, applied, _)| &applied.summary));
    let received = [array(rockets.iter().map(|(_, _, received)| *received))];
    [&progress[..], &columns, &received].concat()
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
