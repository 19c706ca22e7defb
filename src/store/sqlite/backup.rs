//! A copy of the file, made while it is written to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::{Connections, OPEN_FLAGS, SqliteStore, configure};
use crate::store::{Audit, Backup, BackupError, OpenOptions, StoreError};

impl SqliteStore {
    /// Copies the database to a file as of one moment. The copy is audited and synced before it gets its name.
    pub fn backup(&self, target: &Path, replace: bool) -> Result<Backup, BackupError> {
        let Connections::File { path, .. } = &self.connections else {
            return Err(BackupError::Memory);
        };
        if target.exists() && !replace {
            return Err(BackupError::Exists(target.to_owned()));
        }
        // Beside the target, so that giving it its name is one step. Removed in the end, however that comes.
        let partial = Partial(beside(target));
        copy(path, &partial.0)?;
        let audit = audit(&partial.0)?;
        let file = File::open(&partial.0)?;
        file.sync_all()?;
        fs::rename(&partial.0, target)?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(Backup { channels: audit.channels, ranges: audit.ranges, bytes: file.metadata()?.len() })
    }
}

fn copy(original: &Path, copy: &Path) -> Result<(), StoreError> {
    let mut original = Connection::open_with_flags(original, OPEN_FLAGS)?;
    configure(&mut original)?;
    // One read transaction, which no writer waits for.
    original.execute("VACUUM INTO ?1", params![copy.to_string_lossy()])?;
    // The copy comes without a log; the service wants one.
    let mode = Connection::open(copy)?.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
    if mode != "wal" {
        return Err(StoreError::Damaged(format!("the copy can't keep a write-ahead log (journal mode {mode})")));
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

/// A file that is removed unless it has been given another name.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.0.as_os_str().to_owned();
            path.push(suffix);
            // It may not be there.
            let _ = fs::remove_file(PathBuf::from(path));
        }
    }
}
