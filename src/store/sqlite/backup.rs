//! A copy of the file, made while it is written to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::{Connections, SqliteStore};
use crate::store::{Audit, Backup, BackupError, OpenOptions};

impl SqliteStore {
    /// Copies the database to a file as of one moment. The copy is audited and synced before it gets its name.
    pub fn backup(&self, target: &Path, replace: bool) -> Result<Backup, BackupError> {
        if matches!(self.connections, Connections::Memory(_)) {
            return Err(BackupError::Memory);
        }
        if target.exists() && !replace {
            return Err(BackupError::Exists(target.to_owned()));
        }
        // Beside the target, so that giving it its name is one step. Removed in the end, however that comes.
        let partial = Partial(beside(target));
        self.with_reader(|connection| {
            // One read transaction, which no writer waits for.
            connection.execute("VACUUM INTO ?1", params![partial.0.to_string_lossy()])?;
            Ok(())
        })?;
        // The copy comes without a log; the service wants one.
        Connection::open(&partial.0)
            .and_then(|copy| copy.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())))
            .map_err(crate::store::StoreError::from)?;
        let audit = audit(&partial.0)?;
        let file = File::open(&partial.0)?;
        file.sync_all()?;
        fs::rename(&partial.0, target)?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(Backup { channels: audit.channels, ranges: audit.ranges, bytes: file.metadata()?.len() })
    }
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
