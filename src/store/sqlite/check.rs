//! The audit of a snapshot while others may write, and the checks that only SQLite needs.

use rusqlite::{Connection, ErrorCode, Row, Rows};

use super::SqliteStore;
use crate::domain::losses::Loss;
use crate::domain::rocket::Rocket;
use crate::store::audit::{self, OnFinding};
use crate::store::rows::{self, LOSS_COLUMNS, ROCKET_COLUMNS};
use crate::store::{Audit, Finding, StoreError};

/// The maximum number of reported problems of the file itself.
const MAX_FILE_PROBLEMS: usize = 100;

impl SqliteStore {
    /// See [`Store::check`](crate::store::Store::check).
    pub fn check(&self, found: OnFinding<'_>) -> Result<Audit, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            check_file(&snapshot, found)?;
            let checked = check_channels(&snapshot, found);
            match checked {
                // Damage that prevents further reading is a result, too.
                Err(StoreError::Sqlite(error))
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) =>
                {
                    found(Finding { channel: None, detail: error.to_string() });
                    Ok(Audit::default())
                }
                checked => checked,
            }
        })
    }
}

/// Runs SQLite's own check of pages, types and indexes.
fn check_file(connection: &Connection, found: OnFinding<'_>) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare(&format!("PRAGMA integrity_check({MAX_FILE_PROBLEMS})"))?;
    let problems = statement.query_map([], |row| row.get::<_, String>(0))?;
    for problem in problems {
        let detail = problem?;
        if detail != "ok" {
            found(Finding { channel: None, detail });
        }
    }
    Ok(())
}

/// Reads the tables in the order of the channels.
fn check_channels(connection: &Connection, found: OnFinding<'_>) -> Result<Audit, StoreError> {
    let all_rockets = format!("SELECT {ROCKET_COLUMNS} FROM rockets ORDER BY channel");
    let all_ranges = format!(
        "SELECT {}, channel FROM processed_ranges ORDER BY channel, first_msg",
        rows::range_columns("processed_ranges")
    );
    let mut rockets = connection.prepare(&all_rockets)?;
    let mut ranges = connection.prepare(&all_ranges)?;
    let all_losses =
        format!("SELECT {LOSS_COLUMNS}, channel FROM losses ORDER BY channel, first_msg");
    let mut losses = connection.prepare(&all_losses)?;
    let mut rows = SqliteRows {
        rockets: rockets.query([])?,
        ranges: ranges.query([])?,
        losses: losses.query([])?,
    };
    audit::run(&mut rows, found)
}

struct SqliteRows<'r> {
    rockets: Rows<'r>,
    ranges: Rows<'r>,
    losses: Rows<'r>,
}

impl audit::Rows for SqliteRows<'_> {
    fn next_rocket(&mut self) -> Result<Option<audit::Row<Rocket>>, StoreError> {
        next_row(&mut self.rockets, |row| rows::rocket(row))
    }

    fn next_range(&mut self) -> Result<Option<audit::Row<audit::AuditedRange>>, StoreError> {
        next_row(&mut self.ranges, |row| rows::range_and_blocks(row, 0))
    }

    fn next_loss(&mut self) -> Result<Option<audit::Row<Loss>>, StoreError> {
        next_row(&mut self.losses, |row| rows::loss(row))
    }
}

fn next_row<T>(
    rows: &mut Rows<'_>,
    read: fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<audit::Row<T>>, StoreError> {
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let channel = lossy(row.get_ref("channel")?);
    Ok(Some((channel, read(row).map_err(|error| error.to_string()))))
}

fn lossy(value: rusqlite::types::ValueRef<'_>) -> String {
    match value {
        rusqlite::types::ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}
