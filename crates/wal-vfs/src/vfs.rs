//! The VFS: the native one, except for the log.

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rusqlite::ffi::{self, sqlite3_file, sqlite3_vfs};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

const NAME: &CStr = c"whole-commits";

/// A commit that writes more than this is passed on in parts. SQLite's own VFS accepts at most
/// 131,071 bytes at a time, because it never expects more than a page.
const MOST_KEPT_BYTES: usize = 120 * 1024;

/// The log grows by parts of this size.
const PART_BYTES: i64 = 256 * 1024;

/// Opens a database through the VFS. Whenever the connection writes, it must have
/// `synchronous=FULL`.
///
/// If SQLite doesn't accept the VFS, this uses the native one: commits are equally right, only
/// slower.
pub fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    if register() {
        Connection::open_with_flags_and_vfs(path, flags, NAME)
    } else {
        Connection::open_with_flags(path, flags)
    }
}

/// The error of a write to a log that was truncated.
const LOG_CUT_SHORT: c_int = ffi::SQLITE_IOERR_CORRUPTFS;

/// Whether a commit failed because the log had lost its end: somebody truncated it while it was
/// open. Nothing of the commit was written.
pub fn is_log_cut_short(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == LOG_CUT_SHORT)
}

/// Registers the VFS with SQLite, once per process. Returns whether it is registered.
fn register() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        // SAFETY: the native VFS is never unregistered, and ours is leaked. A copy of the native
        // one is a valid VFS; `open_file` finds the native one through `pAppData`, which no other
        // copied method uses.
        unsafe {
            let native = ffi::sqlite3_vfs_find(std::ptr::null());
            let Some(mut ours) = native.as_ref().copied() else {
                return false;
            };
            ours.zName = NAME.as_ptr();
            ours.pNext = std::ptr::null_mut();
            ours.pAppData = native.cast();
            ours.szOsFile += size_of::<WalFile>() as c_int;
            ours.xOpen = Some(open_file);
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

/// Calls a method of the native file. Only for open files, with arguments that the method accepts.
macro_rules! native_call {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite allocated the file for this VFS.
        let native = unsafe { native($file) };
        // SAFETY: the file is open, so its native part is open and has its methods.
        match unsafe { (*native).pMethods.as_ref() }.and_then(|methods| methods.$method) {
            // SAFETY: the native part is open, and its methods are those for it. The arguments are
            // the caller's or SQLite's own.
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

/// The length of the file that a path names; none if it can't be determined.
///
/// `std::fs::metadata` and the native `xFileSize` also request the file's times. After that, Linux
/// (since 6.13, with "multigrain timestamps") gives the file a new time at the next write, and the
/// next sync takes half as long again. So this requests the length alone.
fn length_of(path: &Path) -> Option<i64> {
    let status = statx(CWD, path, AtFlags::empty(), StatxFlags::SIZE).ok()?;
    i64::try_from(status.stx_size).ok()
}

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
    // crash.
    if length_of(&kept.path).is_some_and(|length| length < offset) {
        kept.bytes.clear();
        return LOG_CUT_SHORT;
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

unsafe extern "C" fn open_file(
    vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `vfs` is ours, because this is called through it; `file` has room for both
    // structures; the name of a log is a string of C.
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
    // SAFETY: `open_file` set it from a box, and SQLite closes an open file once.
    drop(unsafe { Box::from_raw((*file.cast::<WalFile>()).kept) });
    native_call!(file, xClose)
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: the file is open, and `bytes` has this length and is not ours. No reference to what
    // is kept outlives its statement.
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
            // SAFETY: the file is open, and nothing refers to what it keeps.
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
    // SAFETY: the file is open, and the reference ends here.
    let commits = unsafe { !kept(file).bytes.is_empty() };
    // SAFETY: the file is open, and nothing refers to what it keeps.
    match unsafe { hand_over(file) } {
        ffi::SQLITE_OK => {
            // Otherwise this is a checkpoint, during which other connections may write there.
            if commits {
                // SAFETY: as above.
                unsafe { fill_part(file) };
            }
            native_call!(file, xSync, flags)
        }
        failed => failed,
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: the file is open, and nothing refers to what it keeps.
    match unsafe { hand_over(file) } {
        ffi::SQLITE_OK => {
            // SAFETY: the same; this is the only reference.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Without the native VFS as a way out.
    fn open_buffered(path: &Path) -> Connection {
        assert!(register());
        open(path, OpenFlags::default()).unwrap()
    }

    /// 5,000 rows of 800 bytes: many times the buffer, and more than the cache holds, so that
    /// SQLite writes to the log long before the commit and reads it back.
    fn fill(connection: &Connection, from: i64) {
        let sql = "WITH RECURSIVE numbers(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1 + 4999)
                   INSERT INTO t SELECT n, hex(randomblob(400)) FROM numbers";
        assert_eq!(connection.execute(sql, [from]).unwrap(), 5_000);
        connection.execute("UPDATE t SET text = text || 'x' WHERE id % 7 = 0", []).unwrap();
    }

    #[test]
    fn large_transactions_are_whole_and_abandoned_ones_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        let writer = open_buffered(&path);
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
            let writer = open_buffered(&path);
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
