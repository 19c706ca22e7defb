//! What both engines have in common for exporting and merging rockets.

use std::collections::{BTreeMap, BTreeSet};

use super::StoreError;
use super::rows::ROCKET_COLUMNS;
use crate::domain::losses::Loss;
use crate::domain::merge::RocketRecord;
use crate::domain::ranges::ProcessedRange;
use crate::domain::rocket::{RangeFold, Rocket, View};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;

/// The maximum number of rockets that are exported from one snapshot.
const MAX_PAGE_ROCKETS: usize = 512;
/// A page ends after the rocket with which it may have more ranges.
const MAX_PAGE_RANGES: i64 = 8_192;

/// Which rockets to export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportQuery {
    /// The last channel of the page before; none for the first page.
    pub after: Option<Channel>,
    /// Only rockets that have received a message, a loss or a merge since then.
    pub since: Option<Timestamp>,
    /// Only channels that start with these bytes.
    pub channel_prefix: String,
}

/// Some rockets in the order of their channels, from one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportPage {
    pub rockets: Vec<(Channel, RocketRecord)>,
    /// The last channel, if more pages follow.
    pub next: Option<Channel>,
}

/// Selects the first rockets of a page. The parameters are the channel after which it begins (empty
/// at first), the prefix and the time, which is null for all rockets. `same_bucket` compares the
/// buckets of rockets with those of another table.
pub(super) fn export_sql(null_time: &str, same_bucket: &str) -> String {
    let since = |table: &str, column: &str| {
        format!(
            "EXISTS (SELECT 1 FROM {table} AS other WHERE other.channel = rockets.channel \
             {same_bucket} AND other.{column} >= $3)"
        )
    };
    format!(
        "SELECT {ROCKET_COLUMNS} FROM rockets
         WHERE channel > $1 AND channel >= $2
           AND ({null_time} IS NULL OR last_received >= $3 OR {} OR {})
         ORDER BY channel LIMIT {MAX_PAGE_ROCKETS}",
        since("rockets_merged", "merged_at"),
        since("losses", "declared_at"),
    )
}

/// Selects the tombstones that were recorded since a time, null for all of them, in the order of
/// their channels. `same_bucket` compares the buckets of both tables.
pub(super) fn tombstones_sql(time: &str, same_bucket: &str) -> String {
    format!(
        "SELECT forgotten.channel, forgotten_at FROM rockets_forgotten AS forgotten
         LEFT JOIN rockets_merged AS merged
                ON merged.channel = forgotten.channel {same_bucket}
         WHERE {time} IS NULL OR forgotten_at >= {time} OR merged_at >= {time}
         ORDER BY forgotten.channel"
    )
}

/// Cuts the rockets of [`export_sql`] to those of the page. Also returns the channel after which
/// the next page begins; none after the last page.
pub(super) fn export_page(
    mut rockets: Vec<Rocket>,
    query: &ExportQuery,
) -> (Vec<Rocket>, Option<Channel>) {
    let found = rockets.len();
    let (mut kept, mut ranges) = (0, 0);
    for rocket in &rockets {
        if !rocket.channel.as_str().starts_with(&query.channel_prefix) {
            rockets.truncate(kept);
            return (rockets, None);
        }
        kept += 1;
        ranges += rocket.progress.max_ranges();
        if ranges > MAX_PAGE_RANGES {
            break;
        }
    }
    rockets.truncate(kept);
    let has_more = kept < found || found == MAX_PAGE_ROCKETS;
    let next = rockets.last().filter(|_| has_more).map(|rocket| rocket.channel.clone());
    (rockets, next)
}

/// The record of a stored rocket.
pub(super) fn record(
    rocket: &Rocket,
    ranges: Vec<ProcessedRange>,
    losses: Vec<Loss>,
) -> Result<RocketRecord, StoreError> {
    if ranges.is_empty() {
        let channel = &rocket.channel;
        return Err(StoreError::Damaged(format!("{channel} has no processed ranges")));
    }
    Ok(RocketRecord { last_received: rocket.last_received, ranges, losses })
}

/// The row of a rocket with this record, as of a channel without losses.
pub(super) fn merged_rocket(channel: &Channel, record: &RocketRecord) -> Rocket {
    let mut fold = RangeFold::default();
    record.ranges.iter().cloned().for_each(|range| fold.add(range));
    Rocket {
        channel: channel.clone(),
        state: fold.state(View::BestEffort),
        last_received: record.last_received,
        progress: fold.progress(),
    }
}

/// How stored ranges become those of a record.
#[derive(Debug, Default)]
pub(super) struct RangeChanges<'r> {
    /// The first numbers of ranges that are no longer there.
    pub(super) removed: Vec<i64>,
    /// The ranges that are different and keep their first numbers.
    pub(super) changed: Vec<&'r ProcessedRange>,
    pub(super) added: Vec<&'r ProcessedRange>,
}

/// The changes from the old ranges, if there are some, to the new ones.
pub(super) fn range_changes<'r>(
    old: Option<&RocketRecord>,
    record: &'r RocketRecord,
) -> RangeChanges<'r> {
    let old: BTreeMap<i64, &ProcessedRange> =
        old.iter().flat_map(|old| &old.ranges).map(|range| (range.first, range)).collect();
    let mut changes = RangeChanges::default();
    for range in &record.ranges {
        match old.get(&range.first) {
            None => changes.added.push(range),
            Some(before) if *before != range => changes.changed.push(range),
            Some(_) => {}
        }
    }
    let firsts: BTreeSet<i64> = record.ranges.iter().map(|range| range.first).collect();
    changes.removed = old.into_keys().filter(|first| !firsts.contains(first)).collect();
    changes
}

/// The losses that the old record does not have. A merge removes none.
pub(super) fn added_losses(old: Option<&RocketRecord>, record: &RocketRecord) -> Vec<Loss> {
    let is_old = |loss: &&Loss| !old.is_some_and(|old| old.losses.contains(loss));
    record.losses.iter().filter(is_old).cloned().collect()
}
