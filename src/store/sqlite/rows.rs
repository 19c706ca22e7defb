//! The cells of SQLite's rows. Its columns hold values of any type.

use std::borrow::Cow;

use rusqlite::Row;
use rusqlite::types::{Type, ValueRef};

use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::rows::Cells;

impl Cells for Row<'_> {
    fn integer(&self, index: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.get(index)?)
    }

    fn real(&self, index: usize) -> Result<Option<f64>, StoreError> {
        Ok(self.get(index)?)
    }

    fn text(&self, index: usize) -> Result<Option<&str>, StoreError> {
        match self.get_ref(index)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(error) => Err(self.damaged(index, &error.to_string())),
            },
            other => {
                let detail = format!("is of type {}", type_name(other.data_type()));
                Err(self.damaged(index, &detail))
            }
        }
    }

    fn bytes(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        match self.get_ref(index)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(bytes) => Ok(Some(bytes.into())),
            other => {
                let detail = format!("is of type {}", type_name(other.data_type()));
                Err(self.damaged(index, &detail))
            }
        }
    }

    fn time(&self, index: usize) -> Result<Option<Timestamp>, StoreError> {
        let time = self.text(index)?.map(Timestamp::parse);
        time.transpose().map_err(|detail| self.damaged(index, &detail))
    }

    fn column_name(&self, index: usize) -> &str {
        self.as_ref().column_name(index).unwrap_or("a column")
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
