//! The statements of the write path, and how a batch is written into them.
//!
//! Statements that go together in one message take no parameters: what they work on is written into them, by `literal`.
//! They are prepared when a connection is made, so that they are parsed and planned once. They are such that a cluster can
//! run them which holds both tables distributed by channel: every join is by channel, and no function is called whose
//! result depends on anything but its arguments. The one for which that would cost every message too much has another form
//! there ([`RangeSearch`]).

use std::fmt::Write;

use super::literal::array;
use super::{BEGIN_TO_WRITE, rows};
use crate::domain::batch::Group;
use crate::domain::ranges::{Applied, ProcessedRange};
use crate::domain::summary::{Latest, Summary};
use crate::domain::timestamp::Timestamp;
use crate::store::merge;

/// How a writer's connection is set up. Plans are made once and kept: all statements look up rows by the channels of a
/// batch, which are few, but the planner, who knows nothing of what arrays hold, would at times rather read whole tables.
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

/// Takes the batch's rockets, in order: locks each row, or makes it if it is missing, and adds at once what is new to a
/// rocket that is known, provided that nobody else has changed it. It tells (channel, `last_received`) of the rows that it
/// has written.
///
/// The proposed row says which of [`Take`] it is for: by `highest` whether there is anything to be done but to lock it,
/// and by `processed` whether anything is new; its `last_received` is that as of which the rocket is known. The last
/// parameter is the time of receipt.
///
/// A row that is there is locked before the condition is looked at, whatever that comes to.
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

/// As of when rockets are, and their highest numbers.
const LOAD_ROCKETS: &str = "
    PREPARE load_rockets (text[]) AS
    SELECT channel, last_received, highest FROM rockets WHERE channel = ANY($1);";

/// How the ranges of many channels are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeSearch {
    /// By their first numbers, on a server that holds all of the tables.
    ByFirst,
    /// By their last numbers, which takes an index that is written with every message. A cluster runs no other: it refuses
    /// subqueries that refer to the batch and have a LIMIT.
    ByLast,
}

/// The ranges that overlap or touch windows of message numbers.
fn load_ranges(search: RangeSearch) -> String {
    // Of the ranges that begin before a window, or with it, only the last one can reach into it.
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
    // Most messages belong near the end of their channel, where few ranges end later; the other condition is not for an
    // index to search by.
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

/// Adds what is new to rockets whose ranges had to be read.
fn merge_rockets() -> String {
    format!(
        "PREPARE merge_rockets ({ROCKET_PARAMETERS}) AS
         INSERT INTO rockets ({ROCKET_COLUMNS})
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) {};",
        merge::on_conflict("greatest", "excluded.last_received", true)
    )
}

/// What a connection is to be sent before anything else.
pub(super) fn set_up(search: RangeSearch) -> String {
    [SET_UP, &take_rockets(), LOAD_ROCKETS, &load_ranges(search), REMOVE_RANGES, WRITE_RANGES, &merge_rockets()]
        .concat()
}

/// What is to be done with a rocket when its row is taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Take<'a> {
    /// Nothing is known: it is locked, and what the messages come to is found out then. A rocket that is missing gets a
    /// row that holds nothing; nobody sees it before the end of the transaction.
    Lock,
    /// It is known as of an instant, and all its messages are duplicates: its row is written, though to no effect, only
    /// if that isn't so any more.
    Verify(Timestamp),
    /// It is known as of an instant, and this is new: its row is written only if that is still so.
    Merge(Timestamp, &'a Applied),
}

/// An [`Applied`] that is the same as nothing.
fn nothing() -> Applied {
    let summary =
        Summary { speed_change: 0, launch: None, mission: None, explosion: None, latest_time: Timestamp::FIRST };
    Applied { processed: 0, highest: 0, complete_through: 0, summary }
}

/// Begins the transaction and takes the batch's rockets, given in the order of their channels.
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

/// All that a batch does, to no rocket, and without an end: it fails where a batch would.
pub(super) fn attempt() -> String {
    let mut sql = begin_and_take(&[], Timestamp::FIRST);
    load(&mut sql, &[]);
    remove_ranges(&mut sql, &[]);
    write_ranges(&mut sql, &[]);
    merge_rockets_with(&mut sql, &[]);
    sql
}

/// Loads what is to be known of the groups' channels.
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

/// Writes ranges, new or in the place of those with the same first numbers.
pub(super) fn write_ranges(sql: &mut String, ranges: &[(&str, &ProcessedRange)]) {
    let keys = [
        array(ranges.iter().map(|(channel, _)| *channel)),
        array(ranges.iter().map(|(_, range)| range.first)),
        array(ranges.iter().map(|(_, range)| range.last)),
    ];
    let columns = summary_columns(ranges.iter().map(|(_, range)| &range.summary));
    execute(sql, "write_ranges", &[&keys[..], &columns].concat());
}

/// Adds to rockets what is new, received at an instant.
pub(super) fn merge_rockets_with(sql: &mut String, rockets: &[(&str, &Applied, Timestamp)]) {
    execute(sql, "merge_rockets", &rocket_columns(rockets));
}

fn execute(sql: &mut String, statement: &str, parameters: &[String]) {
    // Writing to memory doesn't fail.
    let _ = write!(sql, "EXECUTE {statement}({});", parameters.join(","));
}

/// An array for each of [`ROCKET_COLUMNS`].
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
