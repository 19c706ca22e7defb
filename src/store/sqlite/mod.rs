//! SQLite, embedded: a file in WAL mode with one writer at a time and readers that never wait for
//! it, or a database in memory, with one user at a time.
//!
//! It contains opening and migrating (`schema`), the files and their connections (`files`,
//! `database_file`), the write path (`write`, on the crate [`wal_vfs`], and `checkpoints`), reads
//! (`read`, `coalesced_reads`, and `cache` with the copy in memory that answers most of them),
//! changes (`changes`, and `commits`, which detects foreign commits), the audit (`check`) and
//! backups (`backup`). Rules about messages belong to the domain.

mod backup;
mod cache;
mod changes;
mod check;
mod checkpoints;
mod coalesced_reads;
mod commits;
mod database_file;
mod files;
mod forget;
mod losses;
mod merge;
mod missing;
mod read;
mod rows;
mod schema;
mod write;

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::fault_injection::{FailurePoint, Failures};
use super::{OpenError, OpenOptions, StoreError};
pub use backup::{Backup, BackupError};
use cache::Cache;
pub use changes::{SqliteScan, SqliteWatch};
use checkpoints::Checkpoints;
pub use coalesced_reads::CoalescedReads;
use commits::Version;
use database_file::{DatabaseFile, WriterConnection};
pub use files::{FileChange, is_sqlite_file};
pub use write::SqliteWriter;

/// How long a write waits for another process's write lock.
const WRITE_LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// How often it checks whether the lock is free. With SQLite's own back-off of up to 100 ms, a
/// write would starve beside a process that commits one batch after another.
const WRITE_LOCK_POLL: Duration = Duration::from_micros(200);
/// How many prepared statements a connection caches: all that exist, including the orders and
/// filters of pages.
const STATEMENT_CACHE_CAPACITY: usize = 128;
/// Opens an existing file for reading and writing, without SQLite's mutexes, because only one
/// thread at a time uses a connection.
const OPEN_FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// An open SQLite database. Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    connections: ConnectionPool,
    pub(super) failures: Failures,
    cache: Arc<Cache>,
    log_bytes: RangeInclusive<u64>,
}

#[derive(Clone)]
enum ConnectionPool {
    File(Arc<DatabaseFile>),
    /// In memory: a single connection, because nothing can be read during a write.
    Memory(Arc<Mutex<Connection>>),
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connections {
            ConnectionPool::File(file) => {
                formatter.debug_tuple("SqliteStore").field(&file.path).finish()
            }
            ConnectionPool::Memory(_) => formatter.write_str("SqliteStore(memory)"),
        }
    }
}

impl SqliteStore {
    /// Opens a file, checks that it is ours, and migrates it if the options say so.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let database = || path.display().to_string();
        let engine = |source| OpenError::Engine { database: database(), source: Box::new(source) };
        let absolute = files::absolute(path)
            .map_err(|reason| OpenError::Refused { database: database(), reason })?;
        sync_log(&absolute).map_err(engine)?;
        schema::prepare_file(path, &absolute, options.migrate)?;
        let file = DatabaseFile::new(absolute);
        file.hold().map_err(engine)?;
        let connections = ConnectionPool::File(Arc::new(file));
        Ok(Self::new(connections, options))
    }

    /// Creates a database in memory.
    pub fn in_memory(options: &OpenOptions) -> Result<Self, OpenError> {
        let connections = ConnectionPool::Memory(Arc::new(Mutex::new(schema::new_in_memory()?)));
        Ok(Self::new(connections, options))
    }

    fn new(connections: ConnectionPool, options: &OpenOptions) -> Self {
        let OpenOptions { failures, log_bytes, .. } = options.clone();
        Self { connections, failures, cache: Arc::default(), log_bytes }
    }

    /// Creates a writer with its own connection.
    pub fn writer(&self) -> Result<SqliteWriter, StoreError> {
        let (connection, checkpoints) = match &self.connections {
            ConnectionPool::File(file) => {
                let writer = file.writer_connection()?;
                let checkpoints = Checkpoints::new(&writer, &self.log_bytes)?;
                (ConnectionHandle::Owned(Box::new(writer)), Some(checkpoints))
            }
            ConnectionPool::Memory(connection) => {
                (ConnectionHandle::Shared(Arc::clone(connection)), None)
            }
        };
        Ok(SqliteWriter::new(
            connection,
            checkpoints,
            self.failures.clone(),
            Arc::clone(&self.cache),
        ))
    }

    /// Commits with a new writer, and copies the log into the file if it has become too long.
    fn write_once<T>(
        &self,
        write: impl FnOnce(&mut SqliteWriter) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer()?;
        let written = write(&mut writer);
        let written = writer.connection.verify(written)?;
        writer.connection.shorten_log(writer.checkpoints.as_mut());
        Ok(written)
    }

    /// Lends a connection for reading.
    fn with_reader<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.failures.check(FailurePoint::BeforeRead)?;
        match &self.connections {
            ConnectionPool::Memory(connection) => read(&lock(connection)),
            ConnectionPool::File(file) => file.with_reader(read),
        }
    }

    /// Whether this process can detect foreign commits.
    fn is_held(&self) -> bool {
        match &self.connections {
            ConnectionPool::Memory(_) => true,
            ConnectionPool::File(file) => file.is_held(),
        }
    }

    /// The last commit that a connection sees.
    fn version(&self, connection: &Connection) -> Version {
        let generation = match &self.connections {
            ConnectionPool::Memory(_) => None,
            ConnectionPool::File(file) => Some(file.generation()),
        };
        Version::of(generation, connection)
    }

    /// The number of the last migration.
    pub fn schema_version(&self) -> Result<i64, StoreError> {
        self.with_reader(|connection| Ok(schema::version(connection)?.unwrap_or(0)))
    }

    /// See [`Store::close`](crate::store::Store::close).
    pub fn close(&self) -> Result<(), StoreError> {
        self.cache.close();
        match &self.connections {
            ConnectionPool::Memory(_) => Ok(()),
            ConnectionPool::File(file) => file.close(),
        }
    }
}

/// An owned connection, or the shared one, which is locked while in use.
#[derive(Debug)]
enum ConnectionHandle {
    Owned(Box<WriterConnection>),
    Shared(Arc<Mutex<Connection>>),
}

enum ConnectionGuard<'c> {
    Owned(&'c mut Connection),
    Shared(MutexGuard<'c, Connection>),
}

impl ConnectionHandle {
    /// The generation of the file; none for a database in memory.
    fn generation(&self) -> Option<u64> {
        match self {
            Self::Owned(writer) => Some(writer.generation()),
            Self::Shared(_) => None,
        }
    }

    /// Checks that the commit is in the files that the database's path names.
    fn verify<T>(&mut self, committed: Result<T, StoreError>) -> Result<T, StoreError> {
        match self {
            Self::Owned(writer) => writer.verify(committed),
            Self::Shared(_) => committed,
        }
    }

    /// Copies the log into the file if it is too long.
    fn after_commit(&mut self, checkpoints: Option<&mut Checkpoints>) {
        if let (Self::Owned(writer), Some(checkpoints)) = (self, checkpoints) {
            checkpoints.after_commit(writer);
        }
    }

    /// Like [`after_commit`](Self::after_commit), at once and on this thread.
    fn shorten_log(&mut self, checkpoints: Option<&mut Checkpoints>) {
        if let (Self::Owned(writer), Some(checkpoints)) = (self, checkpoints) {
            checkpoints.shorten_log(writer);
        }
    }

    /// Checks that other processes see this connection's locks.
    fn verify_index(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Owned(writer) => writer.verify_index(),
            Self::Shared(_) => Ok(()),
        }
    }

    fn guard(&mut self) -> ConnectionGuard<'_> {
        match self {
            Self::Owned(writer) => ConnectionGuard::Owned(&mut writer.connection),
            Self::Shared(connection) => ConnectionGuard::Shared(lock(connection)),
        }
    }
}

impl Deref for ConnectionGuard<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Owned(connection) => connection,
            Self::Shared(connection) => connection,
        }
    }
}

impl DerefMut for ConnectionGuard<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        match self {
            Self::Owned(connection) => connection,
            Self::Shared(connection) => connection,
        }
    }
}

/// Ignores that the last holder panicked: its open transaction was rolled back when it was dropped.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Syncs the log that a killed process may have left: SQLite will treat its content as committed,
/// and duplicates of it are acknowledged. SQLite holds no lock on the log that closing it here
/// could release.
fn sync_log(database: &Path) -> Result<(), StoreError> {
    match std::fs::File::open(files::sibling(&real_path(database), files::LOG))
        .and_then(|log| log.sync_data())
    {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Log(error)),
        _ => Ok(()),
    }
}

/// Resolves symbolic links: SQLite keeps the log next to the actual file.
fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Opens an existing file for writing.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = wal_vfs::open(path, OPEN_FLAGS)?;
    configure(&mut connection)?;
    // The VFS relies on FULL. The system's page cache backs SQLite's cache. A writer's few sorts
    // are small. `checkpoints` makes the checkpoints.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;
         PRAGMA wal_autocheckpoint = 0;",
    )?;
    Ok(connection)
}

fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    // Not SQLITE_OPEN_READ_ONLY: the first reader after a crash may have to recover the log's
    // index.
    let mut connection = Connection::open_with_flags(path, OPEN_FLAGS)?;
    configure(&mut connection)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -2048;")?;
    // A connection uses the log and its index only after a read, and the version is in the index.
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    Ok(connection)
}

fn configure(connection: &mut Connection) -> Result<(), StoreError> {
    connection.busy_handler(Some(wait_for_lock))?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    // Otherwise SQLite may re-prepare a statement whenever its parameters change, to find a better
    // plan.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// SQLite's busy handler. Returns whether to try again.
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
