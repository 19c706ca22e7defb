//! What can go wrong in a store.

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not a database of this program, and was left untouched.
    #[error("{database}: {reason}")]
    Refused {
        /// The database, as the operator gave it, without a password.
        database: String,
        /// What it is, and what to do.
        reason: String,
    },
    /// The engine failed.
    #[error("{database}: {source}")]
    Engine {
        /// The database, as the operator gave it, without a password.
        database: String,
        /// The engine's error.
        source: Box<StoreError>,
    },
}

/// Why a store could not do something. Nothing was done in part, and it is safe to retry later.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed or is locked by another process.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Postgres failed, or can't be reached.
    #[error("Postgres: {}", super::postgres::describe(.0))]
    Postgres(#[from] sqlx::Error),
    /// Postgres refuses the login. The text also says why the password may be missing.
    #[error("Postgres: {0}")]
    NotLetIn(String),
    /// Neither an encrypted nor a plain connection can be opened. The text says why encryption
    /// failed.
    #[error("Postgres: {0}, and a connection without encryption fails, too")]
    NotEncrypted(String),
    /// The server is not of the kind that `target_session_attrs` demands.
    #[error("this server can't be used: {0}")]
    WrongServer(&'static str),
    /// The tables are not distributed as they were when the program opened them.
    #[error("{0}")]
    Divided(&'static str),
    /// The tables can't be distributed, for this reason.
    #[error("the tables can't be distributed: {0}")]
    NotDistributable(&'static str),
    /// The tables can't be distributed.
    #[error(
        "distributing the tables needs the Postgres extension citus; install it on every node, and \
         run CREATE EXTENSION citus in this database"
    )]
    NotACluster,
    /// The database did not answer in time.
    #[error("the database did not answer in time")]
    TimedOut,
    /// A thread can't be started.
    #[error("can't start a thread: {0}")]
    Thread(std::io::Error),
    /// The database's files are no longer those that are open.
    #[error(transparent)]
    FileChanged(#[from] super::sqlite::FileChange),
    /// The database's files can't be examined.
    #[error("the database's files can't be checked: {0}")]
    Files(#[from] std::io::Error),
    /// The file in the place of a database that was open is not a usable database.
    #[error("the file that is now at the database's path can't be used: {0}")]
    Unusable(String),
    /// SQLite's write-ahead log can't be synced.
    #[error("the write-ahead log can't be synced: {0}")]
    Log(std::io::Error),
    /// A row holds something that no version of the program writes.
    #[error("the database is damaged (`check` shows where): {0}")]
    Damaged(String),
    /// A migration failed.
    #[error("the migration failed: {0}")]
    Migration(String),
    /// Injected by a test.
    #[error("a failure was injected {0}")]
    Injected(&'static str),
    /// The work was aborted, for example by a panic.
    #[error("the work on the database was interrupted")]
    BrokenOff,
}

impl StoreError {
    /// Whether the store failed only after a wait, which another attempt would repeat.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Sqlite(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
            }
            Self::Postgres(error) => super::postgres::is_timeout(error),
            _ => false,
        }
    }
}
