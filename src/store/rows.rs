//! The columns of the tables, and the decoding of rows, for both engines. Values are checked when
//! they are read, because another program may have written to the tables.

use std::borrow::Cow;

use bytestring::ByteString;

use super::StoreError;
use super::report::{Kind, Value};
use crate::domain::losses::Loss;
use crate::domain::query::{GapTotals, RangeAbove};
use crate::domain::ranges::ProcessedRange;
use crate::domain::rocket::{Progress, RangeFold, Rocket, RocketState, Status};
use crate::domain::speed_blocks::{BlocksError, SpeedBlocks};
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// The columns of `rockets` and `rockets_exact` that [`rocket`] reads.
pub(super) const ROCKET_COLUMNS: &str = "channel, status, type, speed, mission, exploded_reason, \
     latest_launch_msg, latest_mission_msg, latest_exploded_msg, latest_update, last_received, \
     processed, complete_through, highest";

/// [`ROCKET_COLUMNS`] of the table with this name or alias.
pub(super) fn rocket_columns(table: &str) -> String {
    let columns = ROCKET_COLUMNS.split(", ").map(|column| format!("{table}.{column}"));
    columns.collect::<Vec<_>>().join(", ")
}

/// The columns of `processed_ranges` that [`range`] reads, of the table with this name or alias.
pub(super) fn range_columns(table: &str) -> String {
    const COLUMNS: [&str; 12] = [
        "first_msg",
        "last_msg",
        "speed_change",
        "launch_msg",
        "launch_type",
        "mission_msg",
        "mission",
        "exploded_msg",
        "exploded_reason",
        "latest_time",
        "first_received",
        "speed_blocks",
    ];
    COLUMNS.map(|column| format!("{table}.{column}")).join(", ")
}

/// The cells of a row of either engine. None stands for null.
pub(super) trait Cells {
    /// An integer of 64 bits.
    fn integer(&self, index: usize) -> Result<Option<i64>, StoreError>;
    /// A floating-point number.
    fn real(&self, index: usize) -> Result<Option<f64>, StoreError>;
    /// A text in UTF-8.
    fn text(&self, index: usize) -> Result<Option<&str>, StoreError>;
    /// Any bytes.
    fn bytes(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, StoreError>;
    /// An instant, which SQLite stores as text.
    fn time(&self, index: usize) -> Result<Option<Timestamp>, StoreError>;
    /// The name of a column, for errors.
    fn column_name(&self, index: usize) -> &str;

    /// An error about a cell. The detail is the second half of a sentence.
    fn damaged(&self, index: usize, detail: &str) -> StoreError {
        StoreError::Damaged(format!("{} {detail}", self.column_name(index)))
    }
}

/// Reads the columns that [`ROCKET_COLUMNS`] names. The progress is that of a channel without
/// losses.
pub(super) fn rocket(row: &impl Cells) -> Result<Rocket, StoreError> {
    let status = required(row, 1, row.text(1)?)?;
    let status: Status = status.parse().map_err(|()| row.damaged(1, "is no status"))?;
    Ok(Rocket {
        channel: channel(row, 0)?,
        state: RocketState {
            status,
            rocket_type: text(row, 2)?,
            speed: integer(row, 3)?,
            mission: text(row, 4)?,
            exploded_reason: text(row, 5)?,
            latest_launch_message: row.integer(6)?,
            latest_mission_message: row.integer(7)?,
            latest_exploded_message: row.integer(8)?,
            latest_update: row.time(9)?,
        },
        last_received: time(row, 10)?,
        progress: Progress::without_losses(integer(row, 11)?, integer(row, 12)?, integer(row, 13)?),
    })
}

/// Reads the columns that [`range_columns`] names, the first of which has this index.
///
/// Blocks that don't fit the range are left out: an earlier version that still runs changes a range
/// and not its blocks.
pub(super) fn range(row: &impl Cells, index: usize) -> Result<ProcessedRange, StoreError> {
    Ok(range_and_blocks(row, index)?.0)
}

/// The first and the last number of the range that [`range`] reads.
pub(super) fn range_ends(row: &impl Cells, index: usize) -> Result<(i64, i64), StoreError> {
    Ok((integer(row, index)?, integer(row, index + 1)?))
}

/// Like [`range`], but also returns why blocks were left out.
pub(super) fn range_and_blocks(
    row: &impl Cells,
    index: usize,
) -> Result<(ProcessedRange, Option<BlocksError>), StoreError> {
    let (first, last) = range_ends(row, index)?;
    let speed_change = integer(row, index + 2)?;
    let blocks = row
        .bytes(index + 11)?
        .map(|bytes| SpeedBlocks::from_bytes(&bytes, first..=last, speed_change));
    let (speed_blocks, error) = match blocks.transpose() {
        Ok(blocks) => (blocks, None),
        Err(error) => (None, Some(error)),
    };
    let range = ProcessedRange {
        first,
        last,
        summary: Summary {
            speed_change,
            launch: latest(row, index + 3)?,
            mission: latest(row, index + 5)?,
            explosion: latest(row, index + 7)?,
            latest_time: time(row, index + 9)?,
        },
        speed_blocks,
        first_received: time(row, index + 10)?,
    };
    Ok((range, error))
}

/// Selects what the exact view of a channel consists of, if `condition` selects its rows: its
/// losses, and all ranges that it can reach across them, in ascending order. Without losses that is
/// the range that starts at 1, if it exists.
pub(super) fn exact_prefix_sql(condition: &str) -> String {
    format!(
        "SELECT {} FROM processed_ranges AS ranges
         WHERE {condition} AND first_msg <= 1 + coalesce((
             SELECT last_msg FROM losses WHERE {condition} ORDER BY first_msg DESC LIMIT 1), 0)
         UNION ALL
         SELECT first_msg, last_msg, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
         FROM losses WHERE {condition} ORDER BY first_msg",
        range_columns("ranges")
    )
}

/// Selects the ranges above the number $2, in ascending order, beginning with the one that it
/// touches. `condition` selects the ranges of the channel.
pub(super) fn ranges_above_sql(condition: &str) -> String {
    format!(
        "SELECT first_msg, last_msg, first_received FROM processed_ranges
         WHERE {condition} AND first_msg >= coalesce((
             SELECT max(first_msg) FROM processed_ranges WHERE {condition} AND first_msg <= $2 + 1
         ), 0)
         ORDER BY first_msg"
    )
}

/// Selects since when the oldest gap of channels without losses is known. `same_channel` compares
/// the channels of `losses` and `ranges`. There is a gap below each range that doesn't start at 1,
/// because ranges don't touch.
pub(super) fn oldest_gap_sql(same_channel: &str) -> String {
    format!(
        "SELECT min(first_received) FROM processed_ranges AS ranges
         WHERE first_msg > 1 AND NOT EXISTS (SELECT 1 FROM losses WHERE {same_channel})"
    )
}

/// Selects since when the oldest of some gaps is known that is not wholly declared lost, and how
/// many numbers are declared lost.
pub(super) fn lost_gaps_sql(gaps: &str) -> String {
    format!(
        "SELECT min(CASE WHEN lost <= last_missing - first_missing THEN since END) AS since,
                CAST(coalesce(sum(lost), 0) AS bigint) AS lost
         FROM ({gaps}) AS gaps"
    )
}

/// The totals of all gaps, from a row of [`oldest_gap_sql`] and one of [`lost_gaps_sql`] about the
/// channels with losses.
pub(super) fn gap_totals(
    oldest: &impl Cells,
    with_losses: &impl Cells,
) -> Result<GapTotals, StoreError> {
    let times = [oldest.time(0)?, with_losses.time(0)?];
    let oldest = times.into_iter().flatten().min();
    Ok(GapTotals { oldest, lost: integer(with_losses, 1)? })
}

/// Reads the columns that [`ranges_above_sql`] selects.
pub(super) fn range_above(row: &impl Cells) -> Result<RangeAbove, StoreError> {
    Ok(RangeAbove {
        first: integer(row, 0)?,
        last: integer(row, 1)?,
        first_received: time(row, 2)?,
    })
}

/// Adds a row of [`exact_prefix_sql`] to a fold.
pub(super) fn add_to_exact_prefix(
    row: &impl Cells,
    fold: &mut RangeFold,
) -> Result<(), StoreError> {
    if row.integer(2)?.is_some() {
        fold.add(range(row, 0)?);
    } else {
        fold.add_loss(integer(row, 0)?, integer(row, 1)?);
    }
    Ok(())
}

/// The columns of `losses` that [`loss`] reads.
pub(super) const LOSS_COLUMNS: &str = "first_msg, last_msg, reason, declared_at";

/// Reads the columns that [`LOSS_COLUMNS`] names.
pub(super) fn loss(row: &impl Cells) -> Result<Loss, StoreError> {
    Ok(Loss {
        first: integer(row, 0)?,
        last: integer(row, 1)?,
        reason: required(row, 2, text(row, 2)?)?,
        declared_at: time(row, 3)?,
    })
}

/// A number and the text that its message set, from two adjacent columns.
fn latest(row: &impl Cells, index: usize) -> Result<Option<Latest>, StoreError> {
    match (row.integer(index)?, text(row, index + 1)?) {
        (Some(number), Some(value)) => Ok(Some(Latest { number, value })),
        (None, None) => Ok(None),
        _ => Err(row.damaged(index, "is there without its counterpart, or lacks it")),
    }
}

pub(super) fn value(row: &impl Cells, index: usize, kind: Kind) -> Result<Value, StoreError> {
    let value = match kind {
        Kind::Text => row.text(index)?.map(|text| Value::Text(text.to_owned())),
        Kind::Integer => row.integer(index)?.map(Value::Integer),
        Kind::Real => row.real(index)?.map(Value::Real),
        Kind::Time => row.time(index)?.map(Value::Time),
    };
    Ok(value.unwrap_or(Value::Null))
}

pub(super) fn channel(row: &impl Cells, index: usize) -> Result<Channel, StoreError> {
    let text = required(row, index, row.text(index)?)?;
    Channel::new(ByteString::from(text)).map_err(|detail| row.damaged(index, &detail))
}

pub(super) fn time(row: &impl Cells, index: usize) -> Result<Timestamp, StoreError> {
    required(row, index, row.time(index)?)
}

pub(super) fn integer(row: &impl Cells, index: usize) -> Result<i64, StoreError> {
    required(row, index, row.integer(index)?)
}

fn text(row: &impl Cells, index: usize) -> Result<Option<Text>, StoreError> {
    let text = row.text(index)?.map(|text| Text::new(ByteString::from(text)));
    text.transpose().map_err(|detail| row.damaged(index, &detail))
}

fn required<T>(row: &impl Cells, index: usize, cell: Option<T>) -> Result<T, StoreError> {
    cell.ok_or_else(|| row.damaged(index, "is null"))
}
