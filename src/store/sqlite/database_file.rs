//! A database in a file, and its connections, which are replaced with the file.
//!
//! If the file or its log is removed, renamed, replaced or truncated while it is open, all
//! connections are closed. The next connection opens the file that the path names then, if that is
//! a sound database of this program.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, ffi};

use super::files::{FileChange, FileId, OpenFiles};
use super::{OPEN_FLAGS, connect, connect_reader, lock, schema, sync_log};
use crate::store::StoreError;

/// The maximum number of idle reader connections.
const MAX_IDLE_READERS: usize = 16;

pub(super) struct DatabaseFile {
    /// Absolute, so it doesn't depend on the current directory.
    pub(super) path: PathBuf,
    idle_readers: Mutex<Vec<ReaderConnection>>,
    state: Mutex<FileState>,
    access: Mutex<FileAccess>,
    /// Incremented when the path no longer names the open database.
    generation: AtomicU64,
}

/// Which connections may be opened.
#[derive(Default)]
struct FileAccess {
    /// The file that is held open.
    held: Option<FileId>,
    /// Why no connection may be opened; none while the files are in order.
    lost: Option<FileChange>,
    /// Shared by all connections to these files.
    users: Users,
}

/// Each connection has a clone. SQLite shares its locks and the index of the log among all
/// connections of a process to a file, so all connections to lost files must be closed before
/// others are opened.
type Users = Arc<()>;

/// Whether the files are held open.
enum FileState {
    /// They are not. The files that were lost before decide what to do with the log that is beside
    /// the path.
    NotHeld(Option<LostFiles>),
    Held(Anchor),
    /// They were lost, but the log is not yet copied, or connections are still in use.
    Lost {
        anchor: Anchor,
        change: FileChange,
        users: Weak<()>,
    },
}

/// Files that were held open until they changed.
struct LostFiles {
    files: OpenFiles,
    change: FileChange,
}

/// An idle connection that stays open as long as the store, so that it outlives all others.
///
/// After the last connection has closed, the next one treats everything in the log as committed,
/// also commits that could not be synced and were never acknowledged. Copies of their messages
/// would then be acknowledged as duplicates without being on disk.
///
/// A read-only file is not held open: SQLite keeps using the log's index in the mode in which the
/// process's first connection could open it, even after the file becomes writable again.
struct Anchor {
    connection: Connection,
    files: OpenFiles,
}

pub(super) struct ReaderConnection {
    pub(super) connection: Connection,
    file: FileId,
    pub(super) generation: u64,
    _users: Users,
}

/// A connection that writes, and its open files.
#[derive(Debug)]
pub(super) struct WriterConnection {
    pub(super) connection: Connection,
    files: OpenFiles,
    database: Arc<DatabaseFile>,
    generation: u64,
    _users: Users,
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
            state: Mutex::new(FileState::NotHeld(None)),
            access: Mutex::default(),
            generation: AtomicU64::new(0),
        }
    }

    pub(super) fn is_held(&self) -> bool {
        lock(&self.access).held.is_some()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Holds the file open, unless it is held already or is read-only.
    pub(super) fn hold(&self) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        self.release_if_changed(&mut state);
        self.finish_release(&mut state)?;
        let lost = match &*state {
            FileState::Held(_) => return Ok(()),
            FileState::Lost { change, .. } => return Err((*change).into()),
            FileState::NotHeld(lost) => lost,
        };
        if let Some(LostFiles { files, change }) = lost {
            let found = FileId::of(&self.path).map_err(|_| FileChange::Removed)?;
            if change.damages_file() || found != files.database() {
                files.put_log_aside()?;
            }
            sync_log(&self.path)?;
            schema::require_current(&self.path)?;
            if change.damages_file() {
                require_sound(&self.path)?;
            }
        }
        let is_reopened = lost.is_some();
        let Some(anchor) = self.open_anchor()? else {
            // A read-only file is not held open.
            lock(&self.access).lost = None;
            return Ok(());
        };
        *lock(&self.access) =
            FileAccess { held: Some(anchor.files.database()), ..FileAccess::default() };
        *state = FileState::Held(anchor);
        if is_reopened {
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
        // The log's index may be read-only even if the file isn't. This doesn't wait for the lock.
        connection.busy_timeout(Duration::ZERO)?;
        match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
                return Ok(None);
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            begun => begun?,
        }
        // Another process may be recovering the log after a crash: reads wait for that.
        super::configure(&mut connection)?;
        // Most databases have a log already, but a copy made by another program may not.
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::Unusable(format!(
                "it can't use a write-ahead log (journal mode {mode})"
            )));
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
    pub(super) fn writer_connection(self: &Arc<Self>) -> Result<WriterConnection, StoreError> {
        self.hold()?;
        let (generation, users) = (self.generation(), self.users()?);
        let before = FileId::of(&self.path)?;
        let connection = connect(&self.path)?;
        let files = OpenFiles::of(&self.path, &connection)?;
        if files.database() != before {
            return Err(FileChange::Replaced.into());
        }
        Ok(WriterConnection {
            connection,
            files,
            database: Arc::clone(self),
            generation,
            _users: users,
        })
    }

    /// Opens a connection for reading the file that the path names.
    pub(super) fn reader_connection(&self) -> Result<ReaderConnection, StoreError> {
        let (generation, users) = (self.generation(), self.users()?);
        let file = self.current_file()?;
        Ok(ReaderConnection {
            connection: connect_reader(&self.path)?,
            file,
            generation,
            _users: users,
        })
    }

    /// Lends a connection for reading the file that the path names.
    pub(super) fn with_reader<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (file, generation) = (self.current_file()?, self.generation());
        let is_current =
            |reader: &ReaderConnection| reader.file == file && reader.generation == generation;
        let idle = lock(&self.idle_readers).pop().filter(is_current);
        let reader = match idle {
            Some(reader) => reader,
            None => self.reader_connection()?,
        };
        let answer = read(&reader.connection);
        // After an error, the next read uses another connection.
        if answer.is_ok() && self.is_held() {
            let mut idle = lock(&self.idle_readers);
            if idle.len() < MAX_IDLE_READERS && reader.generation == self.generation() {
                idle.push(reader);
            }
        }
        answer
    }

    /// The file that the path names, if it is the one that is held open. The log beside another
    /// file is not its own, and would be applied to it.
    fn current_file(&self) -> Result<FileId, StoreError> {
        let file = FileId::of(&self.path).map_err(|_| FileChange::Removed)?;
        let held = lock(&self.access).held;
        if held.is_some_and(|held| held != file) {
            self.release_if_changed(&mut lock(&self.state));
            return Err(FileChange::Replaced.into());
        }
        Ok(file)
    }

    fn users(&self) -> Result<Users, StoreError> {
        let access = lock(&self.access);
        match access.lost {
            Some(change) => Err(change.into()),
            None => Ok(Arc::clone(&access.users)),
        }
    }

    fn release_if_changed(&self, state: &mut FileState) {
        if let FileState::Held(Anchor { connection, files }) = state
            && let Err(change) = files.verify(connection)
        {
            self.release(state, change);
        }
    }

    /// Opens no more connections to files that are no longer the database's, and closes the idle
    /// ones.
    fn release(&self, state: &mut FileState, change: FileChange) {
        let FileState::Held(anchor) = std::mem::replace(state, FileState::NotHeld(None)) else {
            unreachable!("the caller has found that the files are held");
        };
        tracing::error!(path = %self.path.display(), "{change}; messages are rejected until a \
                                                      sound database is at this path");
        self.generation.fetch_add(1, Ordering::SeqCst);
        let previous = std::mem::replace(
            &mut *lock(&self.access),
            FileAccess { held: None, lost: Some(change), users: Users::default() },
        );
        let readers = std::mem::take(&mut *lock(&self.idle_readers));
        for connection in
            readers.iter().map(|reader| &reader.connection).chain([&anchor.connection])
        {
            set_log_aside(connection, change);
        }
        *state = FileState::Lost { anchor, change, users: Arc::downgrade(&previous.users) };
    }

    /// Copies the log into the lost file. Returns an error while connections to it are in use:
    /// until they are closed, no other connection may be opened.
    fn finish_release(&self, state: &mut FileState) -> Result<(), StoreError> {
        let FileState::Lost { anchor, change, users } = state else { return Ok(()) };
        let change = *change;
        if change.requires_log_copy() {
            // This doesn't wait for readers of other programs.
            anchor.connection.busy_timeout(Duration::ZERO)?;
            match apply_log(&anchor.connection) {
                Ok(true) => {}
                Ok(false) if anchor.files.verify(&anchor.connection).is_ok() => {
                    // The file has been put back.
                    super::configure(&mut anchor.connection)?;
                    self.reopen(state);
                    return Ok(());
                }
                Ok(false) => return Err(change.into()),
                Err(error) => {
                    tracing::error!(%error, "the write-ahead log of the lost database can't be \
                                             applied to it");
                }
            }
        }
        if users.strong_count() > 0 {
            return Err(change.into());
        }
        let FileState::Lost { anchor: Anchor { connection, files }, .. } =
            std::mem::replace(state, FileState::NotHeld(None))
        else {
            unreachable!("they were lost above, and the state is locked")
        };
        drop(connection);
        *state = FileState::NotHeld(Some(LostFiles { files, change }));
        Ok(())
    }

    /// Uses files again that were lost, and are back.
    fn reopen(&self, state: &mut FileState) {
        let FileState::Lost { anchor, .. } = std::mem::replace(state, FileState::NotHeld(None))
        else {
            unreachable!("the caller has found that the files were lost");
        };
        *lock(&self.access) =
            FileAccess { held: Some(anchor.files.database()), ..FileAccess::default() };
        *state = FileState::Held(anchor);
        tracing::info!(path = %self.path.display(), "the database was reopened");
    }

    /// Closes all idle connections. When the last one closes, the log is applied to the file and
    /// removed.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        self.release_if_changed(&mut state);
        self.finish_release(&mut state)?;
        if !matches!(*state, FileState::Held(_)) {
            return Ok(());
        }
        // It is opened before the others close, so that the log is not recovered as after a crash.
        let last = connect_reader(&self.path)?;
        lock(&self.access).held = None;
        drop((
            std::mem::replace(&mut *state, FileState::NotHeld(None)),
            std::mem::take(&mut *lock(&self.idle_readers)),
        ));
        last.execute_batch("PRAGMA query_only = OFF")?;
        if !apply_log(&last)? {
            tracing::warn!(
                path = %self.path.display(),
                "another program reads the database, so its write-ahead log stays: copy the file \
                 with the file -wal"
            );
        }
        Ok(())
    }
}

impl WriterConnection {
    /// The generation of the database's file.
    pub(super) fn generation(&self) -> u64 {
        self.database.generation()
    }

    pub(super) fn database(&self) -> &Arc<DatabaseFile> {
        &self.database
    }

    /// Checks that the index is shared with other processes: without it, processes don't see each
    /// other's locks, and write over each other's commits. Also checks that no other connection has
    /// found that the files are lost.
    pub(super) fn verify_index(&mut self) -> Result<(), StoreError> {
        if self.generation != self.database.generation() {
            self.database.users()?;
        }
        if self.files.has_index() { Ok(()) } else { self.verify(Ok(())) }
    }

    /// Checks that the commit is in the files that the paths name, or whether a failure is due to
    /// the files. If the files have changed, no more connections to them are opened.
    pub(super) fn verify<T>(&mut self, committed: Result<T, StoreError>) -> Result<T, StoreError> {
        let change = match (self.files.verify(&self.connection), &committed) {
            (Err(change), _) => change,
            (Ok(()), Err(error)) if is_cut_short(error) => FileChange::LogCutShort,
            (Ok(()), _) => return committed,
        };
        Err(self.handle_lost_files(change))
    }

    /// Opens no more connections to files that have changed.
    fn handle_lost_files(&mut self, change: FileChange) -> StoreError {
        set_log_aside(&self.connection, change);
        let mut state = lock(&self.database.state);
        if matches!(*state, FileState::Held(_)) {
            self.database.release(&mut state, change);
        }
        change.into()
    }

    /// Copies the log into the file, up to the first frame that a reader needs. Neither waits for
    /// other connections, nor makes them wait. Returns whether it has copied all frames that were
    /// in the log at the beginning.
    pub(super) fn checkpoint(&mut self) -> Result<bool, StoreError> {
        self.checkpoint_with(|_| Ok(()))
    }

    /// Copies the log, and syncs the file. SQLite syncs it only when all of the log is in the file.
    pub(super) fn checkpoint_and_sync(&mut self) -> Result<bool, StoreError> {
        self.checkpoint_with(wal_vfs::sync_database)
    }

    fn checkpoint_with(
        &mut self,
        sync: impl FnOnce(&Connection) -> Result<(), rusqlite::Error>,
    ) -> Result<bool, StoreError> {
        self.verify_index()?;
        self.verify(Ok(()))?;
        let copied =
            copy_log(&self.connection).and_then(|copied| sync(&self.connection).map(|()| copied));
        match copied {
            Err(error) if is_not_synced(&error) => {
                tracing::warn!(%error, "a checkpoint failed");
                Err(self.handle_lost_files(FileChange::NotSynced))
            }
            copied => self.verify(copied.map_err(Into::into)),
        }
    }
}

fn copy_log(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (is_busy, frames, copied) =
            (row.get::<_, bool>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
        Ok(!is_busy && frames == copied)
    })
}

/// Whether a file was not synced. Then frames that earlier checkpoints have copied may be lost, and
/// the next checkpoint would not copy them again.
fn is_not_synced(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC)
}

fn is_cut_short(error: &StoreError) -> bool {
    let StoreError::Sqlite(error) = error else { return false };
    wal_vfs::is_log_cut_short(error)
}

/// Copies the log into the file as far as readers allow, and truncates it if no reader needs it.
/// Returns whether all of it is in the file.
fn apply_log(connection: &Connection) -> Result<bool, StoreError> {
    let (frames, copied): (i64, i64) =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get(1)?, row.get(2)?))
        })?;
    // Both are negative while another connection copies the log.
    Ok(frames >= 0 && frames == copied)
}

/// Fails unless the pages of the database are in order.
fn require_sound(path: &std::path::Path) -> Result<(), StoreError> {
    let found: String =
        connect_reader(path)?.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Damaged(found)) }
}

/// Prevents a connection from applying the log to the file when it closes as the last one, if that
/// would be wrong.
fn set_log_aside(connection: &Connection, change: FileChange) {
    if !change.requires_log_copy()
        && let Err(error) =
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
    {
        tracing::warn!(%error, "SQLite may apply the write-ahead log to the database file on \
                                close");
    }
}
