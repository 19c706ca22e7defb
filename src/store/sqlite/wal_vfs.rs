//! A VFS for the writer's connection that passes a commit to the operating system in one write.
//!
//! SQLite writes each page of a commit to the write-ahead log separately, and the page's header
//! before it. For a batch of small changes, these calls cost about as much as the changes. This VFS
//! is the native one, except for the log: consecutive writes are buffered until SQLite syncs the
//! log at the end of the commit, or reads, measures, truncates or closes it. When a commit extends
//! the log, zeros fill it up to the end of a part. The commits that overwrite this part then change
//! nothing about the file but its bytes, and syncing these takes a quarter less time. To SQLite the
//! zeros mark the end of the valid log, like the remains of an earlier round.
//!
//! This is safe as long as the connection has `synchronous=FULL`: SQLite reports a commit only
//! after it has synced it, and what has not been reported need not be in the file. Never use this
//! VFS for a connection that syncs less.
//!
//! SQLite's file system interface is a C interface, so this is the only module with unsafe code.
//! See <https://sqlite.org/vfs.html> and <https://sqlite.org/c3ref/io_methods.html>.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use rusqlite::Connection;
use rusqlite::ffi::{self, sqlite3_file, sqlite3_vfs};

use super::files;

/// The name of the VFS, for opening connections.
pub(super) const NAME: &CStr = c"rocket-monitor-wal";

/// A commit that writes more than this is passed on in parts. SQLite's own VFS accepts at most
/// 131,071 bytes at a time, because it never expects more than a page.
const MOST_KEPT_BYTES: usize = 120 * 1024;

/// The log grows by parts of this size.
const PART_BYTES: i64 = 256 * 1024;

/// Registers the VFS with SQLite, once per process. Returns whether it is registered.
pub(super) fn register() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        // SAFETY: the native VFS is never unregistered, and ours is leaked. A copy of the native
        // one is a valid VFS; `open` finds the native one through `pAppData`, which no other copied
        // method uses.
        unsafe {
            let native = ffi::sqlite3_vfs_find(std::ptr::null());
            let Some(mut ours) = native.as_ref().copied() else {
                return false;
            };
            ours.zName = NAME.as_ptr();
            ours.pNext = std::ptr::null_mut();
            ours.pAppData = native.cast();
            ours.szOsFile += size_of::<WalFile>() as c_int;
            ours.xOpen = Some(open);
            ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 0) == ffi::SQLITE_OK
        }
    })
}

/// An open log, in memory that SQLite provides (aligned to 8 bytes, as both structures need). The
/// native VFS's own structure of the file follows.
#[repr(C)]
struct WalFile {
    base: sqlite3_file,
    /// Owned from open to close.
    kept: *mut WriteBuffer,
}

/// Buffered bytes, and their place in the file.
#[derive(Default)]
struct WriteBuffer {
    path: PathBuf,
    bytes: Vec<u8>,
    offset: i64,
    /// The end of what has been written.
    written: i64,
    /// The minimum length of the file, as far as this connection knows.
    length: i64,
}

impl WriteBuffer {
    /// Where a write must start to continue the buffer.
    fn end(&self) -> i64 {
        self.offset + self.bytes.len() as i64
    }

    fn keep(&mut self, bytes: &[u8], offset: i64) {
        if self.bytes.is_empty() {
            self.offset = offset;
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// The native VFS's structure of the file.
///
/// # Safety
/// `file` is a [`WalFile`] that SQLite allocated for us.
unsafe fn native(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite allocated `szOsFile` bytes: ours and then the native VFS's.
    unsafe { file.cast::<WalFile>().add(1).cast() }
}

/// # Safety
/// `file` is a [`WalFile`] that is open, and no other reference to what it keeps is alive.
unsafe fn kept<'f>(file: *mut sqlite3_file) -> &'f mut WriteBuffer {
    // SAFETY: set when the file was opened, and freed when it is closed. SQLite uses a file on one
    // thread at a time.
    unsafe { &mut *(*file.cast::<WalFile>()).kept }
}

/// Calls a method of the native file.
macro_rules! native_call {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: the file is open, so its native part is open and has its methods.
        let native = unsafe { native($file) };
        match unsafe { (*native).pMethods.as_ref() }.and_then(|methods| methods.$method) {
            Some(method) => unsafe { method(native $(, $argument)*) },
            None => ffi::SQLITE_IOERR,
        }
    }};
}

/// The length of the file; zero if it can't be determined.
///
/// # Safety
/// The native file is open.
unsafe fn native_length(file: *mut sqlite3_file) -> i64 {
    let mut length = 0;
    let told = native_call!(file, xFileSize, &raw mut length);
    if told == ffi::SQLITE_OK { length } else { 0 }
}

/// The error of a write to a log that was truncated.
pub(super) const CUT_SHORT: c_int = ffi::SQLITE_IOERR_CORRUPTFS;

/// Writes the buffer. After an error the buffer is dropped, because its transaction fails.
///
/// # Safety
/// As for [`kept`].
unsafe fn hand_over(file: *mut sqlite3_file) -> c_int {
    // SAFETY: as of the caller.
    let kept = unsafe { kept(file) };
    if kept.bytes.is_empty() {
        return ffi::SQLITE_OK;
    }
    let (bytes, length, offset) = (kept.bytes.as_ptr(), kept.bytes.len() as c_int, kept.offset);
    // A log has no holes: it was truncated, and what follows the hole would be lost in the next
    // crash. The native `xFileSize` would make the next sync slower, see `files::status`.
    if files::status(&kept.path)
        .is_ok_and(|(_, length)| i64::try_from(length).is_ok_and(|length| length < offset))
    {
        kept.bytes.clear();
        return CUT_SHORT;
    }
    let written = native_call!(file, xWrite, bytes.cast(), length, offset);
    kept.written = kept.written.max(kept.end());
    kept.bytes.clear();
    written
}

/// If the written log ends at the end of the file, fills the rest of the part with zeros. They are
/// optional: errors are ignored.
///
/// # Safety
/// As for [`kept`].
unsafe fn fill_part(file: *mut sqlite3_file) {
    // Zero is never a valid page number of a frame.
    static ZEROS: [u8; MOST_KEPT_BYTES] = [0; MOST_KEPT_BYTES];
    // SAFETY: as of the caller.
    let kept = unsafe { kept(file) };
    if kept.written <= kept.length {
        return;
    }
    let (mut from, end) = (kept.written, (kept.written / PART_BYTES + 1) * PART_BYTES);
    kept.length = end;
    while from < end {
        let length = (end - from).min(ZEROS.len() as i64);
        if native_call!(file, xWrite, ZEROS.as_ptr().cast(), length as c_int, from)
            != ffi::SQLITE_OK
        {
            return;
        }
        from += length;
    }
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `vfs` is ours, because this is called through it; `file` has room for both
    // structures.
    unsafe {
        let native_vfs: *mut sqlite3_vfs = (*vfs).pAppData.cast();
        let Some(native_open) = (*native_vfs).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        if flags & ffi::SQLITE_OPEN_WAL == 0 {
            return native_open(native_vfs, name, file, flags, out_flags);
        }
        // Without methods, SQLite doesn't close it.
        (*file).pMethods = std::ptr::null();
        let opened = native_open(native_vfs, name, native(file), flags, out_flags);
        if opened == ffi::SQLITE_OK {
            let path = OsStr::from_bytes(CStr::from_ptr(name).to_bytes()).into();
            let kept = Box::new(WriteBuffer {
                path,
                length: native_length(file),
                ..WriteBuffer::default()
            });
            (*file.cast::<WalFile>()).kept = Box::into_raw(kept);
            (*file).pMethods = &METHODS;
        }
        opened
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // The buffer belongs to a rolled-back transaction, and others may have written in its place
    // since.
    // SAFETY: SQLite closes an open file once.
    drop(unsafe { Box::from_raw((*file.cast::<WalFile>()).kept) });
    native_call!(file, xClose)
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: the file is open, and `bytes` has this length.
    unsafe {
        // A panic must not reach SQLite.
        let Ok(length) = usize::try_from(length) else { return ffi::SQLITE_IOERR_WRITE };
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), length);
        let (end, length) = (kept(file).end(), kept(file).bytes.len());
        if length > 0 && (end != offset || length + bytes.len() > MOST_KEPT_BYTES) {
            let written = hand_over(file);
            if written != ffi::SQLITE_OK {
                return written;
            }
        }
        kept(file).keep(bytes, offset);
        ffi::SQLITE_OK
    }
}

/// Methods that examine the file, and need it to be complete.
macro_rules! after_handing_over {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*);)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> c_int {
            // SAFETY: the file is open.
            match unsafe { hand_over(file) } {
                ffi::SQLITE_OK => native_call!(file, $method $(, $argument)*),
                failed => failed,
            }
        }
    )*};
}

after_handing_over! {
    read = xRead(into: *mut c_void, length: c_int, offset: i64);
    file_size = xFileSize(size: *mut i64);
    lock = xLock(level: c_int);
    unlock = xUnlock(level: c_int);
    check_reserved_lock = xCheckReservedLock(reserved: *mut c_int);
    file_control = xFileControl(operation: c_int, argument: *mut c_void);
    sector_size = xSectorSize();
    device_characteristics = xDeviceCharacteristics();
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the file is open.
    let commits = unsafe { !kept(file).bytes.is_empty() };
    match unsafe { hand_over(file) } {
        ffi::SQLITE_OK => {
            // Otherwise this is a checkpoint, during which other connections may write there.
            if commits {
                unsafe { fill_part(file) };
            }
            native_call!(file, xSync, flags)
        }
        failed => failed,
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: the file is open.
    match unsafe { hand_over(file) } {
        ffi::SQLITE_OK => {
            let kept = unsafe { kept(file) };
            (kept.written, kept.length) = (kept.written.min(size), kept.length.min(size));
            native_call!(file, xTruncate, size)
        }
        failed => failed,
    }
}

/// Version 1: later versions add methods only for the main database file.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// What the file of a database and the index of its log hold that only a checkpoint changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// The first bytes of the file, not as SQLite sees them through the log.
    header: [u8; HEADER_BYTES],
    /// Before the header was read, and after: a checkpoint may run meanwhile.
    before: Checkpoint,
    after: Checkpoint,
}

impl Raw {
    /// Whether the header has changed since then without a checkpoint.
    pub(super) fn was_written_over(&self, then: &Self) -> bool {
        self.header != then.header && self.after == then.before && !self.after.is_under_way()
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
    fn of(opened: &WalHandle<'_>) -> Self {
        const SALT: usize = 8;
        const ATTEMPTED: usize = 32;
        let salt = [opened.word(SALT), opened.word(SALT + 1)];
        Self { salt, done: opened.word(DONE), attempted: opened.word(ATTEMPTED) }
    }

    fn is_under_way(self) -> bool {
        self.done != self.attempted
    }
}

const HEADER_BYTES: usize = 100;

/// The place in the log's index of the number of frames that are in the file.
const DONE: usize = 24;

/// Which commit was the last, by any process. Equal only if nothing was committed in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastCommit {
    /// Each commit that writes something adds one. It starts again at zero if a crash makes SQLite
    /// recover the log.
    number: u32,
    /// The checksum of the last commit's last page, which covers the whole log before it.
    checksum: [u32; 2],
}

impl LastCommit {
    /// Whether exactly one commit came after the other.
    pub(super) fn is_next_after(self, other: Self) -> bool {
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
            let told = ffi::sqlite3_file_control(
                connection.handle(),
                c"main".as_ptr(),
                operation,
                into.cast(),
            );
            let methods =
                (told == ffi::SQLITE_OK).then(|| file.as_ref()?.pMethods.as_ref()).flatten()?;
            let mut index: *mut c_void = std::ptr::null_mut();
            let mapped = methods.xShmMap?(file, 0, PART, 0, (&raw mut index).cast());
            let index = (mapped == ffi::SQLITE_OK && !index.is_null()).then_some(index.cast())?;
            Some(Self { file, methods, index, connection: PhantomData })
        }
    }

    /// A word of the index, by its place in words of four bytes. Other connections may change it at
    /// any time.
    fn word(&self, place: usize) -> u32 {
        assert!(place < 34, "the header of the index has 136 bytes");
        // SAFETY: the part is mapped as long as the connection is borrowed, and longer than this.
        unsafe { self.index.add(place).read_volatile() }
    }
}

/// Reads past SQLite's cache and log. None if the file is shorter, or has no log.
pub(super) fn raw(connection: &Connection) -> Option<Raw> {
    let opened = WalHandle::of(connection)?;
    let before = Checkpoint::of(&opened);
    let mut header = [0; HEADER_BYTES];
    // SAFETY: the file is open, and the buffer has this length.
    let read = unsafe {
        opened.methods.xRead?(opened.file, header.as_mut_ptr().cast(), HEADER_BYTES as c_int, 0)
    };
    if read != ffi::SQLITE_OK {
        return None;
    }
    Some(Raw { header, before, after: Checkpoint::of(&opened) })
}

/// The length of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogLength {
    /// How many pages are in it, each as often as it was committed.
    pub(super) frames: u32,
    /// How many of these are in the file.
    pub(super) done: u32,
    /// How many pages the database has.
    pub(super) pages: u32,
}

impl LogLength {
    /// How many frames are yet to be copied.
    pub(super) fn left(self) -> u32 {
        self.frames.saturating_sub(self.done)
    }
}

/// Reads the index as it is now; another process may just be writing to it. None if there is no
/// log.
pub(super) fn log(connection: &Connection) -> Option<LogLength> {
    const FRAMES: usize = 4;
    const PAGES: usize = 5;
    let opened = WalHandle::of(connection)?;
    Some(LogLength {
        frames: opened.word(FRAMES),
        done: opened.word(DONE),
        pages: opened.word(PAGES),
    })
}

/// Syncs the database's file. Nobody else can: closing another handle of the file would release all
/// locks that the process has on it.
pub(super) fn sync_database(connection: &Connection) -> rusqlite::Result<()> {
    let opened = WalHandle::of(connection);
    let synced = opened.and_then(|opened| {
        // SAFETY: the file is open.
        Some(unsafe { opened.methods.xSync?(opened.file, ffi::SQLITE_SYNC_NORMAL) })
    });
    match synced.unwrap_or(ffi::SQLITE_IOERR) {
        ffi::SQLITE_OK => Ok(()),
        failed => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(failed), None)),
    }
}

/// The last commit, as the log's index has it. None if there is no log, or if the index is being
/// written for too long, or was never written.
pub(super) fn last_commit(connection: &Connection) -> Option<LastCommit> {
    /// A commit writes both copies of the header, one after the other: they are equal unless it is
    /// just doing so.
    const COPY: usize = 12;
    const TRIES: usize = 1_000;
    const NUMBER: usize = 2;
    /// Its first byte.
    const IS_WRITTEN: usize = 3;
    const CHECKSUM: usize = 6;
    let opened = WalHandle::of(connection)?;
    (0..TRIES).find_map(|_| {
        let copies = [0, COPY]
            .map(|copy| std::array::from_fn::<u32, COPY, _>(|place| opened.word(copy + place)));
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let [one, other] = copies;
        if one == other && one[IS_WRITTEN].to_ne_bytes()[0] != 0 {
            return Some(LastCommit {
                number: one[NUMBER],
                checksum: [one[CHECKSUM], one[CHECKSUM + 1]],
            });
        }
        std::hint::spin_loop();
        None
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::OpenFlags;

    use super::*;

    /// 5,000 rows of 800 bytes: many times the buffer, and more than the cache holds, so that
    /// SQLite writes to the log long before the commit and reads it back.
    fn fill(connection: &Connection, from: i64) {
        let sql = "WITH RECURSIVE numbers(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1 + 4999)
                   INSERT INTO t SELECT n, hex(randomblob(400)) FROM numbers";
        assert_eq!(connection.execute(sql, [from]).unwrap(), 5_000);
        connection.execute("UPDATE t SET text = text || 'x' WHERE id % 7 = 0", []).unwrap();
    }

    #[test]
    fn a_header_changes_with_checkpoints_alone() {
        let checkpoint = |done, attempted| Checkpoint { salt: [1, 2], done, attempted };
        let raw = |first, before, after| Raw { header: [first; HEADER_BYTES], before, after };
        let (none, under_way, done) = (checkpoint(0, 0), checkpoint(0, 9), checkpoint(9, 9));
        for (then, now, is_written_over) in [
            (raw(1, none, none), raw(1, none, none), false),
            (raw(1, none, none), raw(2, none, none), true),
            (raw(1, done, done), raw(2, done, done), true),
            // A checkpoint between them, or while one of them is read.
            (raw(1, none, none), raw(2, done, done), false),
            (raw(1, none, done), raw(2, done, done), false),
            (raw(1, none, none), raw(2, none, done), false),
            (raw(1, none, none), raw(2, none, under_way), false),
            (raw(1, none, under_way), raw(2, under_way, under_way), false),
        ] {
            assert_eq!(now.was_written_over(&then), is_written_over, "{then:?} {now:?}");
        }
    }

    #[test]
    fn large_transactions_are_whole_and_abandoned_ones_leave_nothing() {
        assert!(register());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        let writer =
            Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), NAME).unwrap();
        writer
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = 20;
                 PRAGMA wal_autocheckpoint = 100; CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);",
            )
            .unwrap();
        let reader = Connection::open(&path).unwrap();
        let count = |connection: &Connection| -> i64 {
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
        };
        for round in 0..4 {
            writer.execute_batch("BEGIN IMMEDIATE").unwrap();
            fill(&writer, round * 5_000);
            assert_eq!((count(&writer), count(&reader)), ((round + 1) * 5_000, round * 5_000));
            writer.execute_batch("COMMIT; BEGIN IMMEDIATE").unwrap();
            assert_eq!(count(&reader), (round + 1) * 5_000);
            fill(&writer, 100_000);
            writer.execute_batch("ROLLBACK").unwrap();
        }
        for connection in [&writer, &reader, &Connection::open(&path).unwrap()] {
            let sound: String =
                connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!((sound.as_str(), count(connection)), ("ok", 20_000));
        }
    }

    #[test]
    fn what_was_rolled_back_is_never_written_over_what_others_committed_since() {
        assert!(register());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);",
            )
            .unwrap();
        for round in 0..8 {
            // A rollback then need not read from the log, which would flush the buffer.
            other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            let writer =
                Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), NAME).unwrap();
            writer
                .execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = 5; BEGIN IMMEDIATE")
                .unwrap();
            // Enough for SQLite to start writing to the log, but little enough to stay in the
            // buffer.
            let rows = 8 + round * 5;
            let sql =
                "WITH RECURSIVE numbers(n) AS (SELECT 100000 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000 + ?1)
                       INSERT INTO t SELECT n, hex(randomblob(1500)) FROM numbers";
            writer.execute(sql, [rows]).unwrap();
            writer.execute_batch("ROLLBACK").unwrap();
            fill(&other, round * 5_000);
            drop(writer);
            // From the files alone, without the log's index in memory.
            let copy = tempfile::tempdir().unwrap();
            for suffix in ["", "-wal"] {
                let name = format!("test.db{suffix}");
                std::fs::copy(directory.path().join(&name), copy.path().join(&name)).unwrap();
            }
            let recovered = Connection::open(copy.path().join("test.db")).unwrap();
            let sound: String =
                recovered.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            let count: i64 =
                recovered.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            assert_eq!((sound.as_str(), count), ("ok", (round + 1) * 5_000), "round {round}");
        }
    }
}
