//! A database in a file, and its connections, which are replaced with the file.
//!
//! If the file is removed, renamed, replaced or truncated while it is open, or its log is, all
//! connections are closed. The next connection opens what the path names then, if that is a sound
//! database of ours.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::files::{FileChange, FileId, OpenFiles};
use super::{OPEN_FLAGS, connect, connect_reader, lock, schema, sync_log, wal_vfs};
use crate::store::StoreError;

/// How many idle connections are kept for readers.
const READERS_KEPT: usize = 16;

pub(super) struct DatabaseFile {
    /// Absolute, so that it doesn't depend on the current directory.
    pub(super) path: PathBuf,
    idle_readers: Mutex<Vec<Reader>>,
    anchor: Mutex<Option<Anchor>>,
    is_held: AtomicBool,
    /// How often another file has been opened at the path.
    generation: AtomicU64,
}

/// A connection that does nothing but stay open as long as the store, and longer than any other.
///
/// After the last connection has closed, the next one treats everything in the log as committed,
/// including what could not be synced and was never acknowledged. Copies of that would be
/// acknowledged, although it is still not on disk.
///
/// A read-only file is not held open, and no other connection keeps it open either: SQLite uses the
/// log's index as the first connection of the process could open it, even after it has become
/// writable again.
struct Anchor {
    connection: Connection,
    files: OpenFiles,
}

/// A connection for reading, and what it has open.
struct Reader {
    connection: Connection,
    file: FileId,
    generation: u64,
}

/// A connection for writing, and the files that it has open.
#[derive(Debug)]
pub(super) struct WriterConnection {
    pub(super) connection: Connection,
    files: OpenFiles,
    database: std::sync::Arc<DatabaseFile>,
}

impl std::fmt::Debug for DatabaseFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("DatabaseFile").field(&self.path).finish()
    }
}

impl DatabaseFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle_readers: Mutex::default(),
            anchor: Mutex::default(),
            is_held: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Changes when the path names another database.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Holds the file open, unless it is held already or is read-only.
    pub(super) fn hold(&self) -> Result<(), StoreError> {
        self.let_go_if_changed();
        let mut anchor = lock(&self.anchor);
        if anchor.is_some() {
            return Ok(());
        }
        if self.generation() > 0 {
            sync_log(&self.path)?;
            schema::require_current(&self.path)?;
        }
        *anchor = self.open_anchor()?;
        self.is_held.store(anchor.is_some(), Ordering::Relaxed);
        if anchor.is_some() && self.generation() > 0 {
            tracing::info!(path = %self.path.display(), "the database was reopened");
        }
        Ok(())
    }

    fn open_anchor(&self) -> Result<Option<Anchor>, StoreError> {
        let before = FileId::of(&self.path)?;
        let mut connection = Connection::open_with_flags(&self.path, OPEN_FLAGS)?;
        if connection.is_readonly(rusqlite::MAIN_DB)? {
            return Ok(None);
        }
        // The log's index may be read-only even if the file isn't. This doesn't wait for another
        // holder of the lock.
        connection.busy_timeout(Duration::ZERO)?;
        match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => return Ok(None),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            begun => begun?,
        }
        // Another process may be recovering the log after a crash: reads wait for that.
        super::configure(&mut connection)?;
        // Most databases have a log already, but a copy made by another program may not.
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::Unusable(format!("it can't use a write-ahead log (journal mode {mode})")));
        }
        // A connection counts as a user of the log only after a read.
        schema::version(&connection)?;
        let files = OpenFiles::of(&self.path, &connection)?;
        if files.database() != before {
            return Err(FileChange::Replaced.into());
        }
        Ok(Some(Anchor { connection, files }))
    }

    /// Opens a connection for writing.
    pub(super) fn writer_connection(self: &std::sync::Arc<Self>) -> Result<WriterConnection, StoreError> {
        self.hold()?;
        let before = FileId::of(&self.path)?;
        let connection = connect(&self.path)?;
        let files = OpenFiles::of(&self.path, &connection)?;
        if files.database() != before {
            return Err(FileChange::Replaced.into());
        }
        Ok(WriterConnection { connection, files, database: std::sync::Arc::clone(self) })
    }

    /// Lends a connection that reads the file that the path names.
    pub(super) fn with_reader<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let file = FileId::of(&self.path).map_err(|_| FileChange::Removed)?;
        let generation = self.generation();
        let is_current = |reader: &Reader| reader.file == file && reader.generation == generation;
        let idle = lock(&self.idle_readers).pop().filter(is_current);
        let reader = match idle {
            Some(reader) => reader,
            None => Reader { connection: connect_reader(&self.path)?, file, generation },
        };
        let answer = read(&reader.connection);
        // After an error, the next reader gets another connection.
        if answer.is_ok() && self.is_held() {
            let mut idle = lock(&self.idle_readers);
            if idle.len() < READERS_KEPT {
                idle.push(reader);
            }
        }
        answer
    }

    fn let_go_if_changed(&self) {
        let change = {
            let mut anchor = lock(&self.anchor);
            let Some(Anchor { connection, files }) = anchor.as_mut() else { return };
            files.verify(connection).err()
        };
        if let Some(change) = change {
            self.let_go(change);
        }
    }

    /// Closes the connections to files that are no longer the database's.
    fn let_go(&self, change: FileChange) {
        let anchor = lock(&self.anchor).take();
        self.is_held.store(false, Ordering::Relaxed);
        let readers = std::mem::take(&mut *lock(&self.idle_readers));
        let Some(Anchor { connection, files }) = anchor else { return };
        tracing::error!(path = %self.path.display(), "{change}; messages are refused until a sound database is at this path");
        self.generation.fetch_add(1, Ordering::SeqCst);
        save_log(&connection, change);
        for reader in &readers {
            keep_log_apart(&reader.connection, change);
        }
        drop((connection, readers));
        if change != FileChange::LogRemoved {
            files.put_log_aside();
        }
    }

    /// Closes all idle connections. The last one to close moves the log into the file, and removes
    /// it.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        self.let_go_if_changed();
        if !self.is_held() {
            return Ok(());
        }
        // Opened before the others close, so that it doesn't recover the log as after a crash.
        let last = connect_reader(&self.path)?;
        self.is_held.store(false, Ordering::Relaxed);
        let closed = (lock(&self.anchor).take(), std::mem::take(&mut *lock(&self.idle_readers)));
        drop(closed);
        last.execute_batch("PRAGMA query_only = OFF")?;
        last.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

impl WriterConnection {
    /// Checks that what was committed is in the files that the paths name, or whether the files
    /// explain a failure. If they are not the open files, all connections are given up.
    pub(super) fn verify<T>(&mut self, committed: Result<T, StoreError>) -> Result<T, StoreError> {
        let change = match &committed {
            Err(error) if is_cut_short(error) => FileChange::LogCutShort,
            _ => match self.files.verify(&self.connection) {
                Ok(()) => return committed,
                Err(change) => change,
            },
        };
        save_log(&self.connection, change);
        self.database.let_go(change);
        Err(change.into())
    }
}

fn is_cut_short(error: &StoreError) -> bool {
    let StoreError::Sqlite(error) = error else { return false };
    error.sqlite_error().is_some_and(|error| error.extended_code == wal_vfs::CUT_SHORT)
}

/// Called before a connection closes for good. Moves the log into the open file, if that file is
/// whole: it may have been renamed, and come back.
fn save_log(connection: &Connection, change: FileChange) {
    if change.leaves_log()
        && let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    {
        tracing::warn!(%error, "the write-ahead log can't be applied to the lost database file");
    }
    keep_log_apart(connection, change);
}

/// Keeps the last connection from applying the log to a damaged file.
fn keep_log_apart(connection: &Connection, change: FileChange) {
    if !change.leaves_log()
        && let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
    {
        tracing::warn!(%error, "SQLite may apply the write-ahead log to the damaged database file \
                                on close");
    }
}
