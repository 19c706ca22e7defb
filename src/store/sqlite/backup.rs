//! Copies the file while other connections write to it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::files::{self, FileId};
use super::{ConnectionPool, OPEN_FLAGS, SqliteStore, configure, real_path};
use crate::store::{Audit, Finding, OpenError, OpenOptions, StoreError};

/// A copy of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    pub channels: u64,
    pub ranges: u64,
    pub bytes: u64,
}

/// Why a database can't be backed up.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Postgres has its own tools.
    #[error(
        "backup copies SQLite files; for Postgres use pg_dump, which also works while instances run"
    )]
    Postgres,
    /// A database in memory can't be backed up.
    #[error("a database in memory exists only inside its process; there is nothing to copy")]
    Memory,
    /// The target already exists.
    #[error("{} already exists; give another name, or use --replace to overwrite it", .0.display())]
    Exists(PathBuf),
    /// The target is the database itself, or one of its files.
    #[error("{} is the database to copy, or one of its files; give another name", .0.display())]
    Source(PathBuf),
    /// The target is a database that a process has open.
    #[error(
        "{} is a database that is in use: stop the program that has it open, or give another name",
        .0.display()
    )]
    InUse(PathBuf),
    /// The target can't be a file.
    #[error("{}: {reason}", path.display())]
    Target {
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// The copy is damaged, so the original is damaged, too.
    #[error("the database is damaged (`check` lists all problems): {}: {}",
            .0.channel.as_deref().unwrap_or("the file"), .0.detail)]
    Damaged(Finding),
    /// The copy can't be written.
    #[error("the copy can't be written: {0}")]
    Io(#[from] std::io::Error),
    /// The copy can't be opened.
    #[error("the copy can't be opened: {0}")]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The files that belong to a database, besides the main file.
const SIBLINGS: [&str; 3] = [files::LOG, files::INDEX, "-journal"];

impl SqliteStore {
    /// Copies the database to a file, from one snapshot. The copy is audited and synced before it
    /// gets its name.
    pub fn backup(&self, target: &Path, replace: bool) -> Result<Backup, BackupError> {
        let ConnectionPool::File(file) = &self.connections else {
            return Err(BackupError::Memory);
        };
        let unusable = |reason| BackupError::Target { path: target.to_owned(), reason };
        let target = &real_path(&files::absolute(target).map_err(unusable)?);
        if is_part_of(target, &file.path) {
            return Err(BackupError::Source(target.clone()));
        }
        if SIBLINGS.iter().any(|ending| target.as_os_str().as_bytes().ends_with(ending.as_bytes()))
        {
            return Err(unusable(
                "the name is that of a file beside another database; give another name".to_owned(),
            ));
        }
        let is_replaced = target.exists();
        if is_replaced && !replace {
            return Err(BackupError::Exists(target.clone()));
        }
        // Locked until the copy has replaced it.
        let lock =
            if is_replaced && is_database(target)? { Some(lock_replaced(target)?) } else { None };
        if lock.is_none() {
            // SQLite would use them with the copy.
            let mut siblings = SIBLINGS.iter().map(|ending| files::sibling(target, ending));
            if let Some(other) = siblings.find(|path| path.exists()) {
                let reason = format!(
                    "{} is there and would be used with the copy; remove it first",
                    other.display()
                );
                return Err(unusable(reason));
            }
        }
        // Beside the target, so that a rename gives it its name in one step. Removed if an error
        // occurs.
        let partial = Partial(beside(target));
        copy(&file.path, &partial.0)?;
        let audit = audit(&partial.0)?;
        let mode = fs::metadata(&file.path)?.permissions().mode() & files::OWNER_ONLY;
        fs::set_permissions(&partial.0, Permissions::from_mode(mode))?;
        let copied = File::open(&partial.0)?;
        copied.sync_all()?;
        if is_replaced {
            fs::rename(&partial.0, target)?;
            drop(lock);
            // The log of a damaged database is still there, and would be applied to the copy.
            remove_all(SIBLINGS.map(|ending| files::sibling(target, ending)));
        } else {
            rename_new(&partial.0, target)?;
        }
        sync_folder(target)?;
        Ok(Backup {
            channels: audit.channels,
            ranges: audit.ranges,
            bytes: copied.metadata()?.len(),
        })
    }
}

/// Whether a path names the database or one of its files, perhaps by a link.
fn is_part_of(target: &Path, database: &Path) -> bool {
    let real = real_path(database);
    let parts =
        [real.clone()].into_iter().chain(SIBLINGS.map(|ending| files::sibling(&real, ending)));
    let id = FileId::of(target).ok();
    parts.into_iter().any(|part| part == target || (id.is_some() && FileId::of(&part).ok() == id))
}

/// Whether SQLite would open a file as a database, sound or damaged.
fn is_database(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.len() == 0 || files::is_sqlite_file(path)?)
}

/// Locks the database that the copy replaces. A process that has it open would continue to write to
/// a file without a name.
fn lock_replaced(target: &Path) -> Result<Connection, BackupError> {
    let unusable = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => BackupError::InUse(target.to_owned()),
        _ => {
            let reason = format!("it can't be locked, so it may be in use: {error}");
            BackupError::Target { path: target.to_owned(), reason }
        }
    };
    let connection = Connection::open_with_flags(target, OPEN_FLAGS).map_err(unusable)?;
    connection.busy_timeout(Duration::ZERO).map_err(unusable)?;
    let locked = connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT; PRAGMA \
         wal_checkpoint(TRUNCATE);",
    );
    match locked {
        Ok(()) => Ok(connection),
        Err(error) => match error.sqlite_error_code() {
            // A damaged database may be replaced.
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(connection),
            _ => Err(unusable(error)),
        },
    }
}

/// Gives the copy its name, unless there is another file with that name now.
fn rename_new(copy: &Path, target: &Path) -> Result<(), BackupError> {
    match rustix::fs::renameat_with(CWD, copy, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(BackupError::Exists(target.to_owned())),
        // Some network filesystems can't do this.
        Err(Errno::INVAL | Errno::NOSYS) => Ok(fs::rename(copy, target)?),
        Err(error) => Err(BackupError::Io(error.into())),
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent() else {
        unreachable!("the absolute path of a file has a parent")
    };
    File::open(folder)?.sync_all()
}

fn copy(original: &Path, copy: &Path) -> Result<(), StoreError> {
    let mut original = Connection::open_with_flags(original, OPEN_FLAGS)?;
    configure(&mut original)?;
    files::create(copy)?;
    // A single read transaction, for which no writer waits. The name is passed as bytes, because it
    // need not be UTF-8.
    let name = ToSqlOutput::Borrowed(ValueRef::Text(copy.as_os_str().as_bytes()));
    original.execute("VACUUM INTO ?1", [name])?;
    // The copy has no log, but the service needs one.
    let copy = Connection::open_with_flags(copy, OPEN_FLAGS)?;
    let mode = copy.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
    if mode != "wal" {
        return Err(StoreError::Damaged(format!(
            "the copy can't use a write-ahead log (journal mode {mode})"
        )));
    }
    Ok(())
}

fn beside(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(format!(".partial-{}", std::process::id()));
    path.into()
}

fn audit(copy: &Path) -> Result<Audit, BackupError> {
    let copy = SqliteStore::open(copy, &OpenOptions { migrate: false, ..OpenOptions::default() })?;
    let mut first = None;
    let audit = copy.check(&mut |finding| first = first.take().or(Some(finding)))?;
    match first {
        Some(finding) => Err(BackupError::Damaged(finding)),
        None => Ok(audit),
    }
}

/// A file that is removed unless it has been renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        remove_all([self.0.clone()]);
        remove_all(SIBLINGS.map(|ending| files::sibling(&self.0, ending)));
    }
}

/// Removes the files that exist.
fn remove_all(paths: impl IntoIterator<Item = PathBuf>) {
    for path in paths {
        let _ = fs::remove_file(path);
    }
}
