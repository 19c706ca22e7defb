//! The cells of Postgres's rows, and its instants.

use std::borrow::Cow;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Column, Decode, Encode, Postgres, Row, Type};

use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::rows::Cells;

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

impl Cells for PgRow {
    fn integer(&self, index: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(index)?)
    }

    fn real(&self, index: usize) -> Result<Option<f64>, StoreError> {
        Ok(self.try_get(index)?)
    }

    fn text(&self, index: usize) -> Result<Option<&str>, StoreError> {
        Ok(self.try_get(index)?)
    }

    fn bytes(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        // As a vector, because the response to a simple query has them in hexadecimal.
        Ok(self.try_get::<Option<Vec<u8>>, _>(index)?.map(Cow::from))
    }

    fn time(&self, index: usize) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.try_get::<Option<PgTime>, _>(index)?.map(|PgTime(time)| time))
    }

    fn column_name(&self, index: usize) -> &str {
        self.columns().get(index).map_or("a column", |column| column.name())
    }
}
