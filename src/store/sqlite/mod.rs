//! SQLite, embedded: one file in WAL mode with one writer at a time and readers that never wait for it; or a database
//! in memory, which everybody takes turns with.
//!
//! What lives here: opening and migrating (`schema`), the write path (`write`, its way to the disk in `wal_vfs`), reads
//! (`read`, and in which order in `lists`), what has changed (`changes`), the audit (`check`). What must not: rules about
//! messages, which are the domain's.

mod backup;
mod changes;
mod check;
mod database_file;
mod files;
mod lists;
mod read;
mod rows;
mod schema;
mod wal_vfs;
mod write;

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::failure::Failures;
use super::{Database, OpenError, OpenOptions, StoreError};
use changes::Writes;
pub use changes::{SqliteScan, SqliteWatch};
use database_file::{DatabaseFile, WriterConnection};
pub use files::FileChange;
pub use write::SqliteWriter;

/// How long a write waits for another process's write lock before it gives up.
const WRITE_LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// How often it looks whether the lock is free. SQLite's own back-off of up to 100 ms would starve beside a process that
/// commits one batch after the other.
const WRITE_LOCK_POLL: Duration = Duration::from_micros(200);
/// How many prepared statements a connection keeps: all that there are, orders and filters of lists included.
const STATEMENTS_KEPT: usize = 128;
/// The log is checkpointed when it is as large as the file, within these bounds.
const FEWEST_LOG_BYTES: i64 = 32 * 1024 * 1024;
const MOST_LOG_BYTES: i64 = 256 * 1024 * 1024;
/// An existing file, to read and write; no locks within SQLite, for a connection is used by one thread at a time.
const OPEN_FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// An open SQLite database. Clones are the same database.
#[derive(Clone)]
pub struct SqliteStore {
    connections: Connections,
    failures: Failures,
    writes: Arc<Writes>,
}

#[derive(Clone)]
enum Connections {
    /// A file.
    File(Arc<DatabaseFile>),
    /// In memory: one connection, for there is no way to read beside a writer.
    Memory(Arc<Mutex<Connection>>),
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connections {
            Connections::File(file) => formatter.debug_tuple("SqliteStore").field(&file.path).finish(),
            Connections::Memory(_) => formatter.write_str("SqliteStore(memory)"),
        }
    }
}

impl SqliteStore {
    /// Opens a file, checks that it is ours, and migrates it if the options say so.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let database = || Database::File(path.to_owned());
        let engine = |source| OpenError::Engine { database: database(), source: Box::new(source) };
        let absolute = files::absolute(path).map_err(|reason| OpenError::Refused { database: database(), reason })?;
        sync_log(&absolute).map_err(engine)?;
        schema::prepare_file(path, &absolute, options.migrate)?;
        let file = DatabaseFile::new(absolute);
        file.hold().map_err(engine)?;
        let connections = Connections::File(Arc::new(file));
        Ok(Self { connections, failures: options.failures.clone(), writes: Arc::default() })
    }

    /// Makes a database in memory.
    pub fn in_memory(options: &OpenOptions) -> Result<Self, OpenError> {
        let connections = Connections::Memory(Arc::new(Mutex::new(schema::new_in_memory()?)));
        Ok(Self { connections, failures: options.failures.clone(), writes: Arc::default() })
    }

    /// A connection of its own for a writer.
    pub fn writer(&self) -> Result<SqliteWriter, StoreError> {
        let connection = match &self.connections {
            Connections::File(file) => Shared::Own(Box::new(file.writer_connection()?)),
            Connections::Memory(connection) => Shared::Common(Arc::clone(connection)),
        };
        Ok(SqliteWriter::new(connection, self.failures.clone(), Arc::clone(&self.writes)))
    }

    /// Lends a connection that reads.
    fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &self.connections {
            Connections::Memory(connection) => read(&lock(connection)),
            Connections::File(file) => file.with_reader(read),
        }
    }

    /// The number of the last migration.
    pub fn schema_version(&self) -> Result<i64, StoreError> {
        self.with_reader(|connection| Ok(schema::version(connection)?.unwrap_or(0)))
    }

    /// See [`Store::close`](crate::store::Store::close).
    pub fn close(&self) -> Result<(), StoreError> {
        match &self.connections {
            Connections::Memory(_) => Ok(()),
            Connections::File(file) => file.close(),
        }
    }
}

/// A connection of one's own, or the common one that is locked while it is used.
#[derive(Debug)]
enum Shared {
    Own(Box<WriterConnection>),
    Common(Arc<Mutex<Connection>>),
}

enum Lent<'c> {
    Own(&'c mut Connection),
    Common(MutexGuard<'c, Connection>),
}

impl Shared {
    fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// What was committed, if it is in the files that the database's path names.
    fn verify<T>(&mut self, committed: Result<T, StoreError>) -> Result<T, StoreError> {
        match self {
            Self::Own(writer) => writer.verify(committed),
            Self::Common(_) => committed,
        }
    }

    fn lend(&mut self) -> Lent<'_> {
        match self {
            Self::Own(writer) => Lent::Own(&mut writer.connection),
            Self::Common(connection) => Lent::Common(lock(connection)),
        }
    }
}

impl Deref for Lent<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Own(connection) => connection,
            Self::Common(connection) => connection,
        }
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        match self {
            Self::Own(connection) => connection,
            Self::Common(connection) => connection,
        }
    }
}

/// A lock whose holder panicked is taken all the same: an open transaction was rolled back when it was dropped.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes durable what a killed process may have left in the log without syncing it: SQLite will take it for committed,
/// and duplicates of it are acknowledged. SQLite holds no lock on the log that closing it here could drop.
fn sync_log(database: &Path) -> Result<(), StoreError> {
    match std::fs::File::open(files::sibling(&real_path(database), files::LOG)).and_then(|log| log.sync_data()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Log(error)),
        _ => Ok(()),
    }
}

/// Where a file is to which the path may be a symbolic link: SQLite keeps the log beside the file.
fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Opens an existing file to write to.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    // Without the VFS of ours a commit is as right, only slower.
    let mut connection = if wal_vfs::register() {
        Connection::open_with_flags_and_vfs(path, OPEN_FLAGS, wal_vfs::NAME)?
    } else {
        Connection::open_with_flags(path, OPEN_FLAGS)?
    };
    configure(&mut connection)?;
    // The VFS relies on FULL. What the cache doesn't hold the system's does.
    // The few sorts of a writer are small.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -24576; PRAGMA temp_store = MEMORY;")?;
    fit_log(&connection)?;
    Ok(connection)
}

/// Lets the log grow with the file until it is checkpointed. A checkpoint writes each changed page once, however often it is
/// in the log, and syncs twice: the less often, the better. But after a crash the log has to be read.
fn fit_log(connection: &Connection) -> Result<(), StoreError> {
    let one = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (page, pages) = (one("page_size")?, one("page_count")?);
    let pages = pages.clamp(FEWEST_LOG_BYTES / page, MOST_LOG_BYTES / page);
    connection.execute_batch(&format!("PRAGMA wal_autocheckpoint = {pages}"))?;
    Ok(())
}

fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    // Not SQLITE_OPEN_READ_ONLY: the first reader after a crash may have to recover the WAL's index.
    let mut connection = Connection::open_with_flags(path, OPEN_FLAGS)?;
    configure(&mut connection)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8192;")?;
    Ok(connection)
}

fn configure(connection: &mut Connection) -> Result<(), StoreError> {
    connection.busy_handler(Some(wait_for_lock))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Otherwise SQLite may prepare a statement anew whenever its parameters change, to find a better plan for them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// SQLite's busy handler: whether to try again.
fn wait_for_lock(tries: i32) -> bool {
    thread_local! {
        static WAITING_SINCE: Cell<Instant> = Cell::new(Instant::now());
    }
    if tries == 0 {
        WAITING_SINCE.set(Instant::now());
    }
    std::thread::sleep(WRITE_LOCK_POLL);
    WAITING_SINCE.get().elapsed() < WRITE_LOCK_TIMEOUT
}
