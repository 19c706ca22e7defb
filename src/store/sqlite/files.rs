//! The files of a database: valid paths, and whether the paths still name the files that SQLite has
//! open.
//!
//! SQLite keeps using a file that was removed, renamed or replaced, because it has the file open,
//! whatever the path names now. A message would be acknowledged that is in a file without a name.
//! So every commit compares the files that the paths name with the open files (a microsecond each).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Connection;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use wal_vfs::Header;

use crate::domain::timestamp::Timestamp;

/// Only the owner can access new files. SQLite gives its log and the log's index the same
/// permissions.
pub(super) const OWNER_ONLY: u32 = 0o600;

/// The endings of the log's name and its index's name, after the database's name.
pub(super) const LOG: &str = "-wal";
pub(super) const INDEX: &str = "-shm";

/// How the file of a database begins (<https://www.sqlite.org/fileformat.html>).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Whether a file is a database, sound or damaged. An empty one is not, but SQLite would open it.
/// Nothing is read from a pipe, whose bytes can be read only once.
pub fn is_sqlite_file(path: &Path) -> io::Result<bool> {
    if !fs::metadata(path)?.is_file() {
        return Ok(false);
    }
    let mut start = Vec::with_capacity(MAGIC.len());
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start == MAGIC)
}

/// The database's sibling file with this ending.
pub(super) fn sibling(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// The absolute path of a database, which may not exist yet. The error says why no database can be
/// there.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, String> {
    let name = path.file_name().filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/"));
    let Some(name) = name else {
        return Err("this path names a directory; give the path of a file".to_owned());
    };
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            format!("there is no directory {}; create it, or give another path", parent.display())
        }
        _ => format!("the directory {} can't be used: {error}", parent.display()),
    })?;
    let absolute = parent.join(name);
    let is_link = || fs::symlink_metadata(&absolute).is_ok();
    let reason = match fs::metadata(&absolute) {
        Ok(metadata) if metadata.is_dir() => "this is a directory; give the path of a file",
        Ok(metadata) if !metadata.is_file() => "this is not a regular file; give another path",
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(format!("it can't be examined: {error}"));
        }
        Err(_) if is_link() => {
            "this is a symbolic link to a file that does not exist; create the file, or remove the \
             link"
        }
        Ok(_) | Err(_) => return Ok(absolute),
    };
    Err(reason.to_owned())
}

/// Creates an empty file that only its owner may read and write, unless it exists.
pub(super) fn create(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(OWNER_ONLY).open(path).map(|_| ())
}

/// The identity of a file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: (u32, u32),
    inode: u64,
}

impl FileId {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        status(path).map(|(id, _)| id)
    }
}

/// The identity of the file that a path names, and its length in bytes.
///
/// `fs::metadata` also requests the file's times. After that, Linux (since 6.13, with "multigrain
/// timestamps") gives the file a new time at the next write, and the next sync takes half as long
/// again. So this requests nothing else.
pub(super) fn status(path: &Path) -> io::Result<(FileId, u64)> {
    let status = statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::SIZE)?;
    let id = FileId { device: (status.stx_dev_major, status.stx_dev_minor), inode: status.stx_ino };
    Ok((id, status.stx_size))
}

/// What happened to the files of an open database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileChange {
    /// The path names no file.
    #[error(
        "the database's file was removed or renamed while it was in use; restore it or a backup"
    )]
    Removed,
    /// The path names another file.
    #[error("the database's file was replaced by another one while it was in use")]
    Replaced,
    /// The file lost its end.
    #[error(
        "the database's file was cut short or overwritten while it was in use; put a sound copy in \
         its place"
    )]
    CutShort,
    /// The log lost its end, and with it commits that were not yet in the database's file.
    #[error(
        "the database's write-ahead log was cut short while it was in use; what was only in the \
         log is lost"
    )]
    LogCutShort,
    /// The log is missing, or is another file.
    #[error(
        "the database's write-ahead log (the file -wal) was removed or replaced while it was in use"
    )]
    LogRemoved,
    /// The index of the log is missing, or is another file.
    #[error(
        "the index of the database's write-ahead log (the file -shm) was removed or replaced while \
         it was in use"
    )]
    IndexRemoved,
    /// A checkpoint could not be synced.
    #[error(
        "the database's file could not be synced; its write-ahead log will be copied again from \
         the beginning"
    )]
    NotSynced,
}

impl FileChange {
    /// Whether the log must still be copied into the open file, because no other connection will
    /// read it.
    pub(super) fn requires_log_copy(self) -> bool {
        match self {
            Self::Removed | Self::Replaced | Self::LogRemoved => true,
            // The next connection reads the log; another process may be using it already.
            Self::IndexRemoved => false,
            // SQLite would copy only the frames that it has not copied before.
            Self::NotSynced => false,
            Self::CutShort | Self::LogCutShort => false,
        }
    }

    /// Whether the file may be damaged, so that its log must not be applied to it.
    pub(super) fn damages_file(self) -> bool {
        matches!(self, Self::CutShort | Self::LogCutShort)
    }
}

/// The files that a connection has open, and their paths.
#[derive(Clone, Debug)]
pub(super) struct OpenFiles {
    /// As the operator gave it. It may be a symbolic link.
    database_path: PathBuf,
    log_path: PathBuf,
    index_path: PathBuf,
    database: FileId,
    log: FileId,
    index: FileId,
    /// The length of the database in bytes.
    length: u64,
    /// Changes with VACUUM, the only operation that shortens the file.
    schema_version: i64,
    /// Changes with checkpoints alone; none if it could not be read.
    header: Option<Header>,
}

impl OpenFiles {
    /// The files of a connection that has just been opened, and has read.
    pub(super) fn of(
        path: &Path,
        connection: &Connection,
    ) -> Result<Self, crate::store::StoreError> {
        let real = fs::canonicalize(path)?;
        let (log_path, index_path) = (sibling(&real, LOG), sibling(&real, INDEX));
        let (database, length) = status(path)?;
        Ok(Self {
            database_path: path.to_owned(),
            database,
            length,
            log: FileId::of(&log_path)?,
            index: FileId::of(&index_path)?,
            schema_version: schema_version(connection)?,
            header: wal_vfs::header(connection),
            log_path,
            index_path,
        })
    }

    pub(super) fn database(&self) -> FileId {
        self.database
    }

    /// Checks that the paths still name these files, and the database was not truncated.
    pub(super) fn verify(&mut self, connection: &Connection) -> Result<(), FileChange> {
        let Ok((database, length)) = status(&self.database_path) else {
            return Err(FileChange::Removed);
        };
        if database != self.database {
            return Err(FileChange::Replaced);
        }
        let names = |path: &Path, id: FileId| FileId::of(path).is_ok_and(|found| found == id);
        if !names(&self.log_path, self.log) {
            return Err(FileChange::LogRemoved);
        }
        if !names(&self.index_path, self.index) {
            return Err(FileChange::IndexRemoved);
        }
        self.verify_length(length, connection)?;
        self.verify_header(connection)
    }

    /// Whether the path still names the index that is open.
    pub(super) fn has_index(&self) -> bool {
        FileId::of(&self.index_path).is_ok_and(|found| found == self.index)
    }

    /// Detects that another program wrote over the file: its header has changed without a
    /// checkpoint.
    fn verify_header(&mut self, connection: &Connection) -> Result<(), FileChange> {
        let previous = std::mem::replace(&mut self.header, wal_vfs::header(connection));
        match (previous, &self.header) {
            (Some(previous), Some(current)) if current.was_written_over(&previous) => {
                Err(FileChange::CutShort)
            }
            _ => Ok(()),
        }
    }

    fn verify_length(&mut self, length: u64, connection: &Connection) -> Result<(), FileChange> {
        if length < self.length {
            let version = schema_version(connection).map_err(|_| FileChange::CutShort)?;
            if version == self.schema_version {
                return Err(FileChange::CutShort);
            }
            self.schema_version = version;
        }
        self.length = length;
        Ok(())
    }

    /// Keeps SQLite from using the log, or its index, for another database: renames the log unless
    /// it is empty. After this, no connection may write to it.
    pub(super) fn put_log_aside(&self) -> io::Result<()> {
        let is_ours = |path: &Path, id: FileId| status(path).is_ok_and(|(found, _)| found == id);
        if is_ours(&self.log_path, self.log) {
            let (_, length) = status(&self.log_path)?;
            if length == 0 {
                fs::remove_file(&self.log_path)?;
            } else {
                let now = Timestamp::from_system_time(SystemTime::now());
                let aside = sibling(&self.log_path, &format!(".orphaned-{now}"));
                fs::rename(&self.log_path, &aside)?;
                tracing::warn!(path = %aside.display(), "the write-ahead log of the lost database \
                                                         was set aside");
            }
        }
        if is_ours(&self.index_path, self.index) {
            fs::remove_file(&self.index_path)?;
        }
        Ok(())
    }
}

fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA schema_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn paths_become_absolute_or_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        fs::write(root.join("there.db"), "").unwrap();
        std::os::unix::fs::symlink(root.join("none.db"), root.join("dangling.db")).unwrap();
        std::os::unix::fs::symlink(root.join("there.db"), root.join("link.db")).unwrap();
        for (path, expected) in [
            ("new.db", Ok("new.db")),
            ("folder/../new.db", Ok("new.db")),
            ("./folder/./new.db", Ok("folder/new.db")),
            ("there.db", Ok("there.db")),
            ("link.db", Ok("link.db")),
            ("new.db/", Err("names a directory")),
            ("folder/..", Err("names a directory")),
            ("folder", Err("is a directory")),
            ("nodir/../new.db", Err("no directory")),
            ("nodir/new.db", Err("no directory")),
            ("there.db/new.db", Err("can't be examined")),
            ("dangling.db", Err("symbolic link")),
        ] {
            match (absolute(&root.join(path)), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, root.join(expected), "{path}"),
                (Err(reason), Err(why)) => assert!(reason.contains(why), "{path}: {reason}"),
                (found, _) => panic!("{path}: {found:?}"),
            }
        }
        assert!(absolute(Path::new("/dev/null")).unwrap_err().contains("not a regular file"));
        assert!(absolute(Path::new("plain.db")).unwrap().is_absolute());
    }
}
