//! What has changed: rows as they are now, and whether another process has written to the file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::lists::Readers;
use super::{Anchor, Connections, SqliteStore, connect_reader, rows};
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;
use crate::store::changes::{Heard, Watch};
use crate::store::listing::ROCKET_COLUMNS;

/// How often a watch looks at the file.
const POLL: Duration = Duration::from_millis(200);

/// What the connections of one process tell each other.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// How many transactions this process has committed.
    pub(super) committed: AtomicU64,
    /// A writer has found that another process wrote.
    pub(super) others_wrote: AtomicBool,
    /// When lists were read.
    pub(super) list_readers: Readers,
}

impl SqliteStore {
    /// See [`Store::rockets_of`](crate::store::Store::rockets_of).
    pub fn rockets_of(&self, channels: &[Channel]) -> Result<Vec<Rocket>, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let sql = format!("SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel = ?1");
            let mut statement = snapshot.prepare_cached(&sql)?;
            let mut rockets = Vec::with_capacity(channels.len());
            for channel in channels {
                if let Some(row) = statement.query(params![channel.as_str()])?.next()? {
                    rockets.push(rows::rocket(row)?);
                }
            }
            Ok(rockets)
        })
    }

    /// See [`Store::received_since`](crate::store::Store::received_since).
    pub fn received_since(
        &self,
        since: Timestamp,
        after: Option<&Channel>,
        limit: i64,
    ) -> Result<Vec<Rocket>, StoreError> {
        self.with_reader(|connection| {
            let sql = format!(
                "SELECT {ROCKET_COLUMNS} FROM rockets WHERE channel > ?1 AND last_received >= ?2 ORDER BY channel LIMIT ?3"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let after = after.map_or("", Channel::as_str);
            let mut found = statement.query(params![after, since.to_string(), limit])?;
            let mut rockets = Vec::new();
            while let Some(row) = found.next()? {
                rockets.push(rows::rocket(row)?);
            }
            Ok(rockets)
        })
    }

    /// See [`Store::forgotten_since`](crate::store::Store::forgotten_since).
    pub fn forgotten_since(&self, since: Timestamp) -> Result<Vec<Channel>, StoreError> {
        self.with_reader(|connection| {
            let sql = "SELECT channel FROM rockets_forgotten WHERE forgotten_at >= ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let mut found = statement.query(params![since.to_string()])?;
            let mut channels = Vec::new();
            while let Some(row) = found.next()? {
                channels.push(rows::channel(row, 0)?);
            }
            Ok(channels)
        })
    }

    /// See [`Store::watch`](crate::store::Store::watch).
    pub fn watch(&self) -> Result<Watch, StoreError> {
        match &self.connections {
            // Whoever opens a database in memory has it for himself.
            Connections::Memory(_) => Ok(Watch::Nobody),
            Connections::File { path, anchor, .. } => {
                let mut watch = SqliteWatch {
                    path: Arc::clone(path),
                    anchor: Arc::clone(anchor),
                    connection: None,
                    writes: Arc::clone(&self.writes),
                    data_version: 0,
                    committed: 0,
                };
                watch.look()?;
                Ok(Watch::Sqlite(watch))
            }
        }
    }
}

/// Hears that another process has written to the file.
pub struct SqliteWatch {
    path: Arc<Path>,
    anchor: Arc<Anchor>,
    connection: Option<Connection>,
    writes: Arc<Writes>,
    data_version: i64,
    committed: u64,
}

impl fmt::Debug for SqliteWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SqliteWatch").field(&self.path).finish()
    }
}

impl SqliteWatch {
    pub(in crate::store) async fn hear(&mut self) -> Result<Heard, StoreError> {
        loop {
            tokio::time::sleep(POLL).await;
            if self.look()? {
                return Ok(Heard::Something);
            }
        }
    }

    /// Whether another process has written since the last look. If this process has too, only its writer can tell: it
    /// looks with its next batch, or in the pauses after it, the last of which is later than the next look here.
    fn look(&mut self) -> Result<bool, StoreError> {
        if !self.anchor.is_held() {
            // Nobody keeps the file open, and so nobody can tell.
            return Ok(true);
        }
        let connection = match &self.connection {
            Some(connection) => connection,
            None => self.connection.insert(connect_reader(&self.path)?),
        };
        let committed = self.writes.committed.load(Ordering::SeqCst);
        let data_version: i64 = connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        let by_others = data_version != self.data_version && committed == self.committed;
        (self.data_version, self.committed) = (data_version, committed);
        Ok(self.writes.others_wrote.swap(false, Ordering::SeqCst) || by_others)
    }
}
