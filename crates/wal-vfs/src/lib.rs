//! A VFS for SQLite that passes a commit to the operating system in one write, and a view of what
//! SQLite's write-ahead log and its index say.
//!
//! # The VFS
//!
//! SQLite writes each page of a commit to the write-ahead log separately, and the page's header
//! before it. For a batch of small changes, these calls cost about as much as the changes. This VFS
//! is the native one, except for the log: consecutive writes are buffered until SQLite syncs the
//! log at the end of the commit, or reads, measures, truncates or closes it. When a commit extends
//! the log, zeros fill it up to the end of a chunk. The commits that overwrite the chunk then
//! change nothing about the file but its bytes, and syncing these takes less time. To SQLite the
//! zeros mark the end of the valid log, like the remains of an earlier round.
//! `docs/decisions/0021-write-a-commit-to-the-log-at-once.md` says what all this saves.
//!
//! This is right as long as the connection has `synchronous=FULL`: SQLite reports a commit only
//! after it has synced it, and a commit that was not reported need not be in the file. If the
//! connection synced less, others would read pages that are not in the file. [`open`] doesn't set
//! it; the caller must.
//!
//! # The index
//!
//! [`last_commit`], [`log_length`] and [`header`] read values for which SQLite has no function,
//! from the index that all connections share, without a transaction. They work for connections of
//! any VFS in WAL mode that have read from the database.
//!
//! # Unsafe code
//!
//! SQLite's file system interface is a C interface, so this crate has unsafe code. Nothing of that
//! is in the public interface. See <https://sqlite.org/vfs.html> and
//! <https://sqlite.org/c3ref/io_methods.html>.

mod index;
mod vfs;

pub use index::{Header, LastCommit, LogLength, header, last_commit, log_length, sync_database};
pub use vfs::{is_log_cut_short, open};
