//! Converts rows to domain values. Values are checked when they are read, because another program
//! may have written to the tables.

use bytestring::ByteString;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Column, Decode, Encode, Postgres, Row, Type};

use crate::domain::ranges::ProcessedRange;
use crate::domain::rocket::{Progress, Rocket, RocketState, Status};
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::report::{Kind, Value};

/// The columns of `processed_ranges` that [`range`] reads.
pub(super) const RANGE_COLUMNS: &str = "ranges.channel, ranges.first_msg, ranges.last_msg, ranges.speed_change, \
     ranges.launch_msg, ranges.launch_type, ranges.mission_msg, ranges.mission, ranges.exploded_msg, \
     ranges.exploded_reason, ranges.latest_time";

/// The object identifier of `timestamptz`, which is the same in every database.
const TIMESTAMPTZ: PgTypeInfo = PgTypeInfo::with_oid(Oid(1184));

/// Postgres's epoch, 2000-01-01T00:00:00Z, in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// An instant as `timestamptz`: in binary, microseconds since 2000 in 64 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct PgTime(pub(super) Timestamp);

impl Type<Postgres> for PgTime {
    fn type_info() -> PgTypeInfo {
        TIMESTAMPTZ
    }
}

impl Encode<'_, Postgres> for PgTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0.unix_micros() - EPOCH_MICROS, buffer)
    }
}

impl<'r> Decode<'r, Postgres> for PgTime {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        // Times outside the years 0001 to 9999, such as infinity, are longer or have another
        // ending.
        let outside = || "is not in the years 0001 to 9999".into();
        if value.format() == PgValueFormat::Binary {
            let micros = <i64 as Decode<Postgres>>::decode(value)?;
            let time = micros.checked_add(EPOCH_MICROS).and_then(Timestamp::from_unix_micros);
            return time.map(Self).ok_or_else(outside);
        }
        // Like 2022-02-02 18:39:05.86337+00, because our connections use UTC and ISO 8601.
        let text = value.as_str()?.strip_suffix("+00").and_then(|text| text.split_once(' '));
        let time = text.and_then(|(date, time)| Timestamp::parse(&format!("{date}T{time}Z")).ok());
        time.map(Self).ok_or_else(outside)
    }
}

/// Reads the columns that [`ROCKET_COLUMNS`](crate::store::page::ROCKET_COLUMNS) names.
pub(super) fn rocket(row: &PgRow) -> Result<Rocket, StoreError> {
    Ok(Rocket {
        channel: channel(row, 0)?,
        state: RocketState {
            status: required(row, 1, |name| {
                name.parse::<Status>().map_err(|()| "is no status".to_owned())
            })?,
            rocket_type: optional(row, 2, |text| Text::new(ByteString::from(text)))?,
            speed: row.try_get(3)?,
            mission: optional(row, 4, |text| Text::new(ByteString::from(text)))?,
            exploded_reason: optional(row, 5, |text| Text::new(ByteString::from(text)))?,
            latest_launch_message: row.try_get(6)?,
            latest_mission_message: row.try_get(7)?,
            latest_exploded_message: row.try_get(8)?,
            latest_update: row.try_get::<Option<PgTime>, _>(9)?.map(|time| time.0),
        },
        last_received: row.try_get::<PgTime, _>(10)?.0,
        progress: Progress {
            processed: row.try_get(11)?,
            complete_through: row.try_get(12)?,
            highest: row.try_get(13)?,
        },
    })
}

pub(super) fn channel(row: &PgRow, index: usize) -> Result<Channel, StoreError> {
    required(row, index, |text| Channel::new(ByteString::from(text)))
}

/// Reads the columns of [`RANGE_COLUMNS`] after the channel, the first of which has this index.
pub(super) fn range(row: &PgRow, index: usize) -> Result<ProcessedRange, StoreError> {
    Ok(ProcessedRange {
        first: row.try_get(index)?,
        last: row.try_get(index + 1)?,
        summary: Summary {
            speed_change: row.try_get(index + 2)?,
            launch: latest(row, index + 3)?,
            mission: latest(row, index + 5)?,
            explosion: latest(row, index + 7)?,
            latest_time: row.try_get::<PgTime, _>(index + 9)?.0,
        },
    })
}

/// A number and the text that its message set, from two adjacent columns.
fn latest(row: &PgRow, index: usize) -> Result<Option<Latest>, StoreError> {
    let number: Option<i64> = row.try_get(index)?;
    let value = optional(row, index + 1, |text| Text::new(ByteString::from(text)))?;
    match (number, value) {
        (Some(number), Some(value)) => Ok(Some(Latest { number, value })),
        (None, None) => Ok(None),
        _ => Err(damaged(row, index, "is there without its counterpart, or lacks it")),
    }
}

/// A cell of a report.
pub(super) fn value(row: &PgRow, index: usize, kind: Kind) -> Result<Value, StoreError> {
    let value = match kind {
        Kind::Text => row.try_get::<Option<String>, _>(index)?.map(Value::Text),
        Kind::Integer => row.try_get::<Option<i64>, _>(index)?.map(Value::Integer),
        Kind::Real => row.try_get::<Option<f64>, _>(index)?.map(Value::Real),
        Kind::Time => row.try_get::<Option<PgTime>, _>(index)?.map(|time| Value::Time(time.0)),
    };
    Ok(value.unwrap_or(Value::Null))
}

fn required<T>(
    row: &PgRow,
    index: usize,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, StoreError> {
    optional(row, index, parse)?.ok_or_else(|| damaged(row, index, "is null"))
}

fn optional<T>(
    row: &PgRow,
    index: usize,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = row.try_get(index)?;
    text.map(parse).transpose().map_err(|detail| damaged(row, index, &detail))
}

fn damaged(row: &PgRow, index: usize, detail: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{} {detail}",
        row.columns().get(index).map_or("a column", |column| column.name())
    ))
}
