//! SQL on a file, as another program would run it.

use std::path::Path;

use serde_json::{Value, json};

pub fn sql(database: &Path, statements: &str) {
    rusqlite::Connection::open(database).unwrap().execute_batch(statements).unwrap();
}

/// All rows of a query, each value as JSON.
pub fn query(database: &Path, query: &str) -> Vec<Vec<Value>> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut statement = connection.prepare(query).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        (0..columns)
            .map(|column| {
                Ok(match row.get_ref(column)? {
                    rusqlite::types::ValueRef::Null => Value::Null,
                    rusqlite::types::ValueRef::Integer(integer) => json!(integer),
                    rusqlite::types::ValueRef::Real(real) => json!(real),
                    rusqlite::types::ValueRef::Text(text) => {
                        json!(std::str::from_utf8(text).unwrap())
                    }
                    rusqlite::types::ValueRef::Blob(_) => panic!("a blob"),
                })
            })
            .collect()
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}
