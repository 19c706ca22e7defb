//! Converts rows to domain values. Values are checked when they are read, because another program
//! may have written to the file.

use bytestring::ByteString;
use rusqlite::Row;
use rusqlite::types::{Type, ValueRef};

use crate::domain::ranges::ProcessedRange;
use crate::domain::rocket::{Progress, Rocket, RocketState, Status};
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::report::{Kind, Value};

/// The columns of `processed_ranges` that [`range`] reads.
pub(super) const RANGE_COLUMNS: &str = "first_msg, last_msg, speed_change, launch_msg, launch_type, mission_msg, \
     mission, exploded_msg, exploded_reason, latest_time";

/// Reads the columns that [`ROCKET_COLUMNS`](crate::store::page::ROCKET_COLUMNS) names.
pub(super) fn rocket(row: &Row<'_>) -> Result<Rocket, StoreError> {
    let status: Status =
        parsed(row, 1, |name| name.parse().map_err(|()| "is no status".to_owned()))?;
    Ok(Rocket {
        channel: channel(row, 0)?,
        state: RocketState {
            status,
            rocket_type: optional(row, 2, |text| Text::new(ByteString::from(text)))?,
            speed: row.get(3)?,
            mission: optional(row, 4, |text| Text::new(ByteString::from(text)))?,
            exploded_reason: optional(row, 5, |text| Text::new(ByteString::from(text)))?,
            latest_launch_message: row.get(6)?,
            latest_mission_message: row.get(7)?,
            latest_exploded_message: row.get(8)?,
            latest_update: optional(row, 9, Timestamp::parse)?,
        },
        last_received: parsed(row, 10, Timestamp::parse)?,
        progress: Progress {
            processed: row.get(11)?,
            complete_through: row.get(12)?,
            highest: row.get(13)?,
        },
    })
}

pub(super) fn channel(row: &Row<'_>, index: usize) -> Result<Channel, StoreError> {
    parsed(row, index, |text| Channel::new(ByteString::from(text)))
}

pub(super) fn range(row: &Row<'_>) -> Result<ProcessedRange, StoreError> {
    Ok(ProcessedRange {
        first: row.get(0)?,
        last: row.get(1)?,
        summary: Summary {
            speed_change: row.get(2)?,
            launch: latest(row, 3)?,
            mission: latest(row, 5)?,
            explosion: latest(row, 7)?,
            latest_time: parsed(row, 9, Timestamp::parse)?,
        },
    })
}

pub(super) fn time(row: &Row<'_>, index: usize) -> Result<Timestamp, StoreError> {
    parsed(row, index, Timestamp::parse)
}

/// A number and the text that its message set, from two adjacent columns.
fn latest(row: &Row<'_>, index: usize) -> Result<Option<Latest>, StoreError> {
    let number: Option<i64> = row.get(index)?;
    let value = optional(row, index + 1, |text| Text::new(ByteString::from(text)))?;
    match (number, value) {
        (Some(number), Some(value)) => Ok(Some(Latest { number, value })),
        (None, None) => Ok(None),
        _ => Err(damaged(row, index, "is there without its counterpart, or lacks it")),
    }
}

/// A cell of a report.
pub(super) fn value(row: &Row<'_>, index: usize, kind: Kind) -> Result<Value, StoreError> {
    let value = match kind {
        Kind::Text => optional(row, index, |text| Ok(text.to_owned()))?.map(Value::Text),
        Kind::Integer => row.get::<_, Option<i64>>(index)?.map(Value::Integer),
        Kind::Real => row.get::<_, Option<f64>>(index)?.map(Value::Real),
        Kind::Time => optional(row, index, Timestamp::parse)?.map(Value::Time),
    };
    Ok(value.unwrap_or(Value::Null))
}

fn parsed<T>(
    row: &Row<'_>,
    index: usize,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, StoreError> {
    optional(row, index, parse)?.ok_or_else(|| damaged(row, index, "is null"))
}

fn optional<T>(
    row: &Row<'_>,
    index: usize,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, StoreError> {
    match row.get_ref(index)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes)
            .map_err(|error| error.to_string())
            .and_then(parse)
            .map(Some)
            .map_err(|detail| damaged(row, index, &detail)),
        other => Err(damaged(row, index, &format!("is of type {}", type_name(other.data_type())))),
    }
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Null => "NULL",
        Type::Integer => "INTEGER",
        Type::Real => "REAL",
        Type::Text => "TEXT",
        Type::Blob => "BLOB",
    }
}

fn damaged(row: &Row<'_>, index: usize, detail: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{} {detail}",
        row.as_ref().column_name(index).unwrap_or("a column")
    ))
}
