//! Opens a database: checks that it is ours before writing to it, then migrates it.

use std::path::Path;
use std::time::{Duration, Instant};

use refinery::Target;
use rusqlite::{Connection, OptionalExtension};

use crate::store::schema::{self, Decision, Found};
use crate::store::{Database, OpenError, StoreError};

mod migrations {
    #![allow(unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::expect_used)]
    refinery::embed_migrations!("migrations/sqlite");
}

/// A page holds about fifteen rows. A commit writes every changed page to the log, and the channels
/// of a batch are spread over all pages, so small pages make small commits. Half this size would
/// make commits only a little smaller, because each page has other overhead, and a fleet of
/// millions would have twice as many pages to find and to rewrite.
const PAGE_BYTES: u32 = 2_048;

/// How long to retry while another process migrates the same file.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Older versions of SQLite have a bug that can corrupt a database when its log is reset.
const MIN_SQLITE_VERSION: i32 = 3_051_003;

/// Migrates the file to the current schema, or refuses it and leaves it untouched.
///
/// `shown` is the path as the operator gave it.
pub(super) fn prepare_file(shown: &Path, path: &Path, migrate: bool) -> Result<(), OpenError> {
    let database = || shown.display().to_string();
    let engine =
        |source: StoreError| OpenError::Engine { database: database(), source: Box::new(source) };
    let refused = |reason: String| OpenError::Refused { database: database(), reason };
    if rusqlite::version_number() < MIN_SQLITE_VERSION {
        return Err(refused(format!(
            "SQLite {} can corrupt databases; 3.51.3 or later is needed",
            rusqlite::version()
        )));
    }
    if !migrate && !path.exists() {
        return Err(refused(
            "there is no such file; create it with `migrate`, or with `serve` without --no-migrate"
                .into(),
        ));
    }
    let (started, mut has_failed, mut has_migrated) = (Instant::now(), false, false);
    loop {
        let found = inspect(path).map_err(engine)?;
        let outcome = match schema::decide(found, latest(), migrate) {
            Decision::Open => return Ok(()),
            Decision::Refuse(reason) => return Err(refused(reason)),
            Decision::Migrate if has_migrated => {
                return Err(refused(
                    "it was migrated, but then its schema was gone again; give another path".into(),
                ));
            }
            Decision::Migrate => migrate_file(path),
        };
        // Several processes may start on one file. One of them migrates it. The migration of the
        // others fails, because the file is locked or has changed meanwhile. Their next inspection
        // finds the current schema.
        match outcome {
            Ok(()) => has_migrated = true,
            Err(error) if error.is_timeout() && started.elapsed() < MIGRATION_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) if has_failed => return Err(engine(error)),
            Err(error) => {
                tracing::debug!(%error, "the migration failed; checking whether another process \
                                         has migrated");
                has_failed = true;
            }
        }
    }
}

/// Checks that a file has the current schema. The error says how it differs.
pub(super) fn require_current(path: &Path) -> Result<(), StoreError> {
    match schema::decide(inspect(path)?, latest(), false) {
        Decision::Open => Ok(()),
        Decision::Refuse(reason) => Err(StoreError::Unusable(reason)),
        Decision::Migrate => unreachable!("migrating was not allowed"),
    }
}

/// The number of the last migration.
#[expect(clippy::expect_used, reason = "the migrations are embedded in the program")]
fn latest() -> i64 {
    let runner = migrations::migrations::runner();
    let versions = runner.get_migrations().iter().map(|migration| i64::from(migration.version()));
    versions.max().expect("the program has migrations")
}

/// A database in memory with the current schema.
pub(super) fn new_in_memory() -> Result<Connection, OpenError> {
    let engine = |source| OpenError::Engine {
        database: Database::Memory.to_string(),
        source: Box::new(source),
    };
    let mut connection = Connection::open_in_memory().map_err(|error| engine(error.into()))?;
    super::configure(&mut connection).map_err(engine)?;
    run_migrations(&mut connection, Target::Latest).map_err(engine)?;
    Ok(connection)
}

/// The number of the last applied migration; none if none was applied.
pub(super) fn version(connection: &Connection) -> Result<Option<i64>, StoreError> {
    let has_history =
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'refinery_schema_history'";
    if connection.query_row(has_history, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    Ok(connection
        .query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))?)
}

/// Inspects a file without writing to it.
fn inspect(path: &Path) -> Result<Found, StoreError> {
    if std::fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
        return Ok(Found::Nothing);
    }
    let mut connection = Connection::open_with_flags(path, super::OPEN_FLAGS)?;
    super::configure(&mut connection)?;
    // In one snapshot, because another process may be migrating the file.
    let found = connection
        .unchecked_transaction()
        .map_err(Into::into)
        .and_then(|snapshot| inspect_schema(&snapshot));
    match found {
        Err(StoreError::Sqlite(error))
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) =>
        {
            Ok(Found::Foreign("this is not an SQLite database; give another path".to_owned()))
        }
        found => found,
    }
}

fn inspect_schema(connection: &Connection) -> Result<Found, StoreError> {
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if objects == 0 {
        return Ok(Found::Nothing);
    }
    match version(connection)? {
        None if has_foreign_tables(connection)? => Ok(Found::Foreign(
            "this is another program's database, or one without its migration history; give \
             another path"
                .to_owned(),
        )),
        None => Ok(Found::Nothing),
        // This program doesn't know the shape of a newer schema.
        Some(version) if version > latest() => Ok(Found::Version(version)),
        Some(version) => match first_difference(connection, version)? {
            Some(difference) => Ok(Found::Foreign(schema::wrong_shape(&difference))),
            None => Ok(Found::Version(version)),
        },
    }
}

/// Whether there is anything but an empty migration history, which an interrupted first start can
/// leave.
fn has_foreign_tables(connection: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE tbl_name != 'refinery_schema_history'";
    Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0)
}

/// The first table or view, of the schema at this version, that is missing or has other columns.
fn first_difference(connection: &Connection, version: i64) -> Result<Option<String>, StoreError> {
    let mut model = Connection::open_in_memory()?;
    if let Ok(version) = i32::try_from(version) {
        run_migrations(&mut model, Target::Version(version))?;
    }
    let names = "SELECT name FROM sqlite_schema
                 WHERE type IN ('table', 'view') AND name != 'refinery_schema_history' ORDER BY
                 name";
    let mut names = model.prepare(names)?;
    let names = names.query_map([], |row| row.get::<_, String>(0))?;
    for name in names {
        let name = name?;
        let (actual, expected) = (columns(connection, &name)?, columns(&model, &name)?);
        if actual.is_empty() {
            return Ok(Some(format!("the table or view {name} is missing")));
        }
        if actual != expected {
            return Ok(Some(format!(
                "{name} has the columns {}, not {}",
                actual.join(", "),
                expected.join(", ")
            )));
        }
    }
    Ok(None)
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT name || ' ' || type || iif(\"notnull\", ' NOT NULL', '') || iif(pk, ' KEY '
               || pk, '')
               FROM pragma_table_xinfo(?1)";
    let mut statement = connection.prepare(sql)?;
    let columns = statement.query_map([table], |row| row.get(0))?;
    Ok(columns.collect::<Result<_, _>>()?)
}

fn migrate_file(path: &Path) -> Result<(), StoreError> {
    super::files::create(path)?;
    // Not as a URI, which would name another file.
    let mut connection = Connection::open_with_flags(path, super::OPEN_FLAGS)?;
    super::configure(&mut connection)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let reason =
            format!("the file system can't hold a write-ahead log for it (journal mode {mode})");
        return Err(StoreError::Damaged(reason));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    run_migrations(&mut connection, Target::Latest)
}

fn run_migrations(connection: &mut Connection, target: Target) -> Result<(), StoreError> {
    // Grouped: all migrations and their history entries are one transaction. Otherwise, an
    // interruption or another process in between would find tables that the history doesn't list.
    let migrated =
        migrations::migrations::runner().set_target(target).set_grouped(true).run(connection);
    migrated.map(|_| ()).map_err(|error| {
        let source = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<rusqlite::Error>());
        match source.and_then(rusqlite::Error::sqlite_error) {
            Some(sqlite) => {
                StoreError::Sqlite(rusqlite::Error::SqliteFailure(*sqlite, Some(error.to_string())))
            }
            None => StoreError::Migration(error.to_string()),
        }
    })
}
