//! The index of the log, which all connections to a database share, and the file below them.
//! <https://www.sqlite.org/walformat.html#the_wal_index_file_format> describes it.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

use rusqlite::Connection;
use rusqlite::ffi::{self, sqlite3_file};

/// The header of a database's file, which only a checkpoint changes as long as there is a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first bytes of the file, not as SQLite sees them through the log.
    bytes: [u8; HEADER_BYTES],
    /// The checkpoint before the header was read, and after: it may progress meanwhile.
    before: Checkpoint,
    after: Checkpoint,
}

impl Header {
    /// Whether the header has changed since `earlier` without a checkpoint: another program wrote
    /// to the file.
    pub fn was_written_over(&self, earlier: &Self) -> bool {
        self.bytes != earlier.bytes && self.after == earlier.before && !self.after.is_running()
    }
}

/// How much of which log has been copied into the file
/// (<https://www.sqlite.org/walformat.html#the_wal_index_file_format>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checkpoint {
    salt: [u32; 2],
    /// The frames that are in the file.
    done: u32,
    /// The frames that are, or are being copied.
    attempted: u32,
}

impl Checkpoint {
    fn read(handle: &WalHandle<'_>) -> Self {
        const SALT: usize = 8;
        const ATTEMPTED: usize = 32;
        let salt = [handle.word(SALT), handle.word(SALT + 1)];
        Self { salt, done: handle.word(DONE), attempted: handle.word(ATTEMPTED) }
    }

    fn is_running(self) -> bool {
        self.done != self.attempted
    }
}

const HEADER_BYTES: usize = 100;

/// The position in the log's index of the number of frames that are in the file.
const DONE: usize = 24;

/// Identifies the last commit by any process. Two are equal only if nothing was committed in
/// between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastCommit {
    /// Each commit that writes something adds one. It starts again at zero if a crash makes SQLite
    /// recover the log.
    number: u32,
    /// The checksum of the last commit's last page, which covers the whole log before it.
    checksum: [u32; 2],
}

impl LastCommit {
    /// Whether exactly one commit came after the other.
    pub fn is_next_after(self, other: Self) -> bool {
        self.number == other.number.wrapping_add(1)
    }
}

/// The file that a connection has open, its methods, and the first part of the log's index.
struct WalHandle<'c> {
    file: *mut sqlite3_file,
    methods: &'static ffi::sqlite3_io_methods,
    index: *const u32,
    connection: PhantomData<&'c Connection>,
}

impl<'c> WalHandle<'c> {
    /// None if the connection has no log.
    fn of(connection: &'c Connection) -> Option<Self> {
        /// The size of a part of the index.
        const PART: c_int = 32 * 1024;
        // SAFETY: the connection is open and used by this thread alone. SQLite gives out the file
        // that it has open, with its methods, which are static, and the first part of the index,
        // which is mapped as long as the connection has its log open.
        unsafe {
            let mut file: *mut sqlite3_file = std::ptr::null_mut();
            let into: *mut *mut sqlite3_file = &raw mut file;
            let operation = ffi::SQLITE_FCNTL_FILE_POINTER;
            let result = ffi::sqlite3_file_control(
                connection.handle(),
                c"main".as_ptr(),
                operation,
                into.cast(),
            );
            let methods =
                (result == ffi::SQLITE_OK).then(|| file.as_ref()?.pMethods.as_ref()).flatten()?;
            let mut index: *mut c_void = std::ptr::null_mut();
            let mapped = methods.xShmMap?(file, 0, PART, 0, (&raw mut index).cast());
            let index = (mapped == ffi::SQLITE_OK && !index.is_null()).then_some(index.cast())?;
            Some(Self { file, methods, index, connection: PhantomData })
        }
    }

    /// A word of four bytes of the index, by its position. Other connections may change it at any
    /// time.
    fn word(&self, position: usize) -> u32 {
        assert!(position < 34, "the header of the index has 136 bytes");
        // SAFETY: the part is mapped as long as the connection is borrowed, and longer than this.
        unsafe { self.index.add(position).read_volatile() }
    }
}

/// Reads the header past SQLite's cache and log. None if the file is shorter, or has no log.
pub fn header(connection: &Connection) -> Option<Header> {
    let handle = WalHandle::of(connection)?;
    let before = Checkpoint::read(&handle);
    let mut bytes = [0; HEADER_BYTES];
    // SAFETY: the file is open, and the buffer has this length.
    let read = unsafe {
        handle.methods.xRead?(handle.file, bytes.as_mut_ptr().cast(), HEADER_BYTES as c_int, 0)
    };
    if read != ffi::SQLITE_OK {
        return None;
    }
    Some(Header { bytes, before, after: Checkpoint::read(&handle) })
}

/// The length of a log, in frames: pages that were committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLength {
    /// The number of frames in the log.
    pub frames: u32,
    /// The number of these that are in the database's file.
    pub done: u32,
    /// The number of pages in the database.
    pub pages: u32,
}

impl LogLength {
    /// How many frames are yet to be copied.
    pub fn left(self) -> u32 {
        self.frames.saturating_sub(self.done)
    }
}

/// Reads the index without a lock: another process may be writing to it. None if there is no log.
pub fn log_length(connection: &Connection) -> Option<LogLength> {
    const FRAMES: usize = 4;
    const PAGES: usize = 5;
    let handle = WalHandle::of(connection)?;
    Some(LogLength {
        frames: handle.word(FRAMES),
        done: handle.word(DONE),
        pages: handle.word(PAGES),
    })
}

/// Syncs the database's file, which SQLite does only when all of the log is in it. It uses SQLite's
/// handle: closing another handle of the file would release all locks that the process has on it.
pub fn sync_database(connection: &Connection) -> rusqlite::Result<()> {
    let handle = WalHandle::of(connection);
    let synced = handle.and_then(|handle| {
        // SAFETY: the file is open.
        Some(unsafe { handle.methods.xSync?(handle.file, ffi::SQLITE_SYNC_NORMAL) })
    });
    match synced.unwrap_or(ffi::SQLITE_IOERR) {
        ffi::SQLITE_OK => Ok(()),
        failed => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(failed), None)),
    }
}

/// The last commit, as the log's index has it. None if there is no log, or if the index is being
/// written for too long, or was never written.
pub fn last_commit(connection: &Connection) -> Option<LastCommit> {
    /// A commit writes both copies of the header, one after the other: they are equal unless a
    /// commit is writing them.
    const COPY: usize = 12;
    const MAX_ATTEMPTS: usize = 1_000;
    const NUMBER: usize = 2;
    /// Its first byte.
    const IS_WRITTEN: usize = 3;
    const CHECKSUM: usize = 6;
    let handle = WalHandle::of(connection)?;
    (0..MAX_ATTEMPTS).find_map(|_| {
        let copies = [0, COPY].map(|copy| {
            std::array::from_fn::<u32, COPY, _>(|position| handle.word(copy + position))
        });
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let [first, second] = copies;
        if first == second && first[IS_WRITTEN].to_ne_bytes()[0] != 0 {
            return Some(LastCommit {
                number: first[NUMBER],
                checksum: [first[CHECKSUM], first[CHECKSUM + 1]],
            });
        }
        std::hint::spin_loop();
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_changes_without_a_checkpoint_was_written_over() {
        let checkpoint = |done, attempted| Checkpoint { salt: [1, 2], done, attempted };
        let header = |first, before, after| Header { bytes: [first; HEADER_BYTES], before, after };
        let (none, running, done) = (checkpoint(0, 0), checkpoint(0, 9), checkpoint(9, 9));
        for (earlier, later, is_written_over) in [
            (header(1, none, none), header(1, none, none), false),
            (header(1, none, none), header(2, none, none), true),
            (header(1, done, done), header(2, done, done), true),
            // A checkpoint between them, or while one of them is read.
            (header(1, none, none), header(2, done, done), false),
            (header(1, none, done), header(2, done, done), false),
            (header(1, none, none), header(2, none, done), false),
            (header(1, none, none), header(2, none, running), false),
            (header(1, none, running), header(2, running, running), false),
        ] {
            assert_eq!(later.was_written_over(&earlier), is_written_over, "{earlier:?} {later:?}");
        }
    }
}
