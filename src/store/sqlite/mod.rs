//! SQLite, embedded: one file in WAL mode with one writer at a time and readers that never wait for it; or a database
//! in memory, which everybody takes turns with.
//!
//! What lives here: opening and migrating (`schema`), the write path (`write`, its way to the disk in `wal_vfs`), reads
//! (`read`, and in which order in `lists`), what has changed (`changes`), the audit (`check`). What must not: rules about
//! messages, which are the domain's.

mod backup;
mod changes;
mod check;
mod lists;
mod read;
mod rows;
mod schema;
mod wal_vfs;
mod write;

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::failure::Failures;
use super::{Database, OpenError, OpenOptions, StoreError};
pub use changes::SqliteWatch;
use changes::Writes;
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
/// How many idle connections are kept for readers.
const READERS_KEPT: usize = 16;

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
    /// A file: a connection for the writer, as many for readers as read at the same time, and one that stays open.
    File { path: Arc<Path>, idle_readers: Arc<Mutex<Vec<Connection>>>, anchor: Arc<Anchor> },
    /// In memory: one connection, for there is no way to read beside a writer.
    Memory(Arc<Mutex<Connection>>),
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connections {
            Connections::File { path, .. } => formatter.debug_tuple("SqliteStore").field(path).finish(),
            Connections::Memory(_) => formatter.write_str("SqliteStore(memory)"),
        }
    }
}

impl SqliteStore {
    /// Opens a file, checks that it is ours, and migrates it if the options say so.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let engine = |source| OpenError::Engine { database: Database::File(path.to_owned()), source: Box::new(source) };
        sync_log(path).map_err(engine)?;
        schema::prepare_file(path, options.migrate)?;
        let anchor = Arc::<Anchor>::default();
        anchor.hold(path).map_err(engine)?;
        let connections = Connections::File { path: path.into(), idle_readers: Arc::default(), anchor };
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
            Connections::File { path, anchor, .. } => {
                anchor.hold(path)?;
                Shared::Own(connect(path)?)
            }
            Connections::Memory(connection) => Shared::Common(Arc::clone(connection)),
        };
        Ok(SqliteWriter::new(connection, self.failures.clone(), Arc::clone(&self.writes)))
    }

    /// Lends a connection that reads.
    fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &self.connections {
            Connections::Memory(connection) => read(&lock(connection)),
            Connections::File { path, idle_readers, anchor } => {
                let idle = lock(idle_readers).pop();
                let connection = match idle {
                    Some(connection) => connection,
                    None => connect_reader(path)?,
                };
                let answer = read(&connection);
                // After an error the next reader starts afresh: the file may have been replaced.
                if answer.is_ok() && anchor.is_held() {
                    let mut idle = lock(idle_readers);
                    if idle.len() < READERS_KEPT {
                        idle.push(connection);
                    }
                }
                answer
            }
        }
    }

    /// The number of the last migration.
    pub fn schema_version(&self) -> Result<i64, StoreError> {
        self.with_reader(|connection| Ok(schema::version(connection)?.unwrap_or(0)))
    }
}

/// A connection that does nothing but stay open as long as the store does, or longer than any other.
///
/// After the last one has closed, the next takes everything in the log for committed, also what could not be synced and
/// was never acknowledged: copies of it would be acknowledged, and it would still not be on the disk.
///
/// A file that can't be written is not held open, and nobody else keeps it open then: SQLite uses the log's index as
/// its first connection of a process could open it, even when it may be written to again.
#[derive(Default)]
struct Anchor {
    connection: Mutex<Option<Connection>>,
    is_held: AtomicBool,
}

impl Anchor {
    fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Holds the file open, unless it is so already or can't be written.
    fn hold(&self, path: &Path) -> Result<(), StoreError> {
        let mut held = lock(&self.connection);
        if held.is_some() {
            return Ok(());
        }
        let connection = Connection::open_with_flags(path, OPEN_FLAGS)?;
        connection.busy_timeout(Duration::ZERO)?;
        if connection.is_readonly(rusqlite::MAIN_DB)? {
            return Ok(());
        }
        // The index of the log may be read-only while the file isn't.
        match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) => return Ok(()),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {}
            begun => begun?,
        }
        // It takes a read to be counted among those that have the log open.
        schema::version(&connection)?;
        *held = Some(connection);
        self.is_held.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A connection of one's own, or the common one that is locked while it is used.
#[derive(Debug)]
enum Shared {
    Own(Connection),
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

    fn lend(&mut self) -> Lent<'_> {
        match self {
            Self::Own(connection) => Lent::Own(connection),
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
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    match std::fs::File::open(log).and_then(|log| log.sync_data()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Log(error)),
        _ => Ok(()),
    }
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
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -24576;")?;
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
    connection.execute_batch("PRAGMA temp_store = MEMORY;")?;
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
