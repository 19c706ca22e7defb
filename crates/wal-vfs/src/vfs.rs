//! The VFS: the native one, except for the log.

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rusqlite::ffi::{self, sqlite3_file, sqlite3_vfs};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

const NAME: &CStr = c"whole-commits";

/// The size of the buffer: a commit that writes more is passed on in parts. SQLite's own VFS
/// accepts at most 131,071 bytes at a time, because it never expects more than a page.
const MAX_BUFFER_BYTES: usize = 120 * 1024;

/// The log grows by chunks of this size.
const CHUNK_BYTES: i64 = 256 * 1024;

/// Opens a database through the VFS. Whenever the connection writes, it must have
/// `synchronous=FULL`.
///
/// If SQLite doesn't accept the VFS, this uses the native one: commits are as safe, only slower.
pub fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    if register() {
        Connection::open_with_flags_and_vfs(path, flags, NAME)
    } else {
        Connection::open_with_flags(path, flags)
    }
}

/// The error of a write to a log that was truncated.
const LOG_CUT_SHORT: c_int = ffi::SQLITE_IOERR_CORRUPTFS;

/// Whether a commit failed because the log was truncated while it was open. Nothing of the commit
/// was written.
pub fn is_log_cut_short(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == LOG_CUT_SHORT)
}

/// Registers the VFS with SQLite, once per process. Returns whether it is registered.
fn register() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
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
    buffer: *mut WriteBuffer,
}

/// Buffered bytes, and their offset in the file.
#[derive(Default)]
struct WriteBuffer {
    path: PathBuf,
    bytes: Vec<u8>,
    offset: i64,
    /// The end of the bytes that were written, through the buffer, to the file.
    written: i64,
    /// The file has at least this length, unless another connection has truncated it.
    length: i64,
}

impl WriteBuffer {
    /// Where a write must start to continue the buffer.
    fn end(&self) -> i64 {
        self.offset + self.bytes.len() as i64
    }

    fn append(&mut self, bytes: &[u8], offset: i64) {
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
/// `file` is a [`WalFile`] that is open, and no other reference to its buffer is alive.
unsafe fn buffer<'f>(file: *mut sqlite3_file) -> &'f mut WriteBuffer {
    // SAFETY: set when the file was opened, and freed when it is closed. SQLite uses a file on one
    // thread at a time.
    unsafe { &mut *(*file.cast::<WalFile>()).buffer }
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
    let result = native_call!(file, xFileSize, &raw mut length);
    if result == ffi::SQLITE_OK { length } else { 0 }
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
/// As for [`buffer`].
unsafe fn flush(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the caller guarantees it.
    let buffer = unsafe { buffer(file) };
    if buffer.bytes.is_empty() {
        return ffi::SQLITE_OK;
    }
    let (bytes, length, offset) =
        (buffer.bytes.as_ptr(), buffer.bytes.len() as c_int, buffer.offset);
    // A log has no holes: it was truncated, and what follows the hole would be lost in the next
    // crash.
    if length_of(&buffer.path).is_some_and(|length| length < offset) {
        buffer.bytes.clear();
        return LOG_CUT_SHORT;
    }
    let written = native_call!(file, xWrite, bytes.cast(), length, offset);
    buffer.written = buffer.written.max(buffer.end());
    buffer.bytes.clear();
    written
}

/// If the written log ends at the end of the file, fills the rest of the chunk with zeros. They are
/// optional: errors are ignored.
///
/// # Safety
/// As for [`buffer`].
unsafe fn fill_chunk(file: *mut sqlite3_file) {
    // Zero is never a valid page number of a frame.
    static ZEROS: [u8; MAX_BUFFER_BYTES] = [0; MAX_BUFFER_BYTES];
    // SAFETY: the caller guarantees it.
    let buffer = unsafe { buffer(file) };
    if buffer.written <= buffer.length {
        return;
    }
    let (mut from, end) = (buffer.written, (buffer.written / CHUNK_BYTES + 1) * CHUNK_BYTES);
    buffer.length = end;
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
            let buffer = Box::new(WriteBuffer {
                path,
                length: native_length(file),
                ..WriteBuffer::default()
            });
            (*file.cast::<WalFile>()).buffer = Box::into_raw(buffer);
            (*file).pMethods = &METHODS;
        }
        opened
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // The buffer is of a transaction that was rolled back. Another connection may have written to
    // this offset since. SAFETY: `open_file` set it from a box, and SQLite closes an open file
    // once.
    drop(unsafe { Box::from_raw((*file.cast::<WalFile>()).buffer) });
    native_call!(file, xClose)
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: the file is open, and `bytes` has this length and is not ours. No reference to
    // the buffer outlives its statement.
    unsafe {
        // A panic must not reach SQLite.
        let Ok(length) = usize::try_from(length) else { return ffi::SQLITE_IOERR_WRITE };
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), length);
        let (end, length) = (buffer(file).end(), buffer(file).bytes.len());
        if length > 0 && (end != offset || length + bytes.len() > MAX_BUFFER_BYTES) {
            let written = flush(file);
            if written != ffi::SQLITE_OK {
                return written;
            }
        }
        buffer(file).append(bytes, offset);
        ffi::SQLITE_OK
    }
}

/// Methods that examine the file, and need it to be complete.
macro_rules! after_flush {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*);)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> c_int {
            // SAFETY: the file is open, and nothing refers to its buffer.
            match unsafe { flush(file) } {
                ffi::SQLITE_OK => native_call!(file, $method $(, $argument)*),
                failed => failed,
            }
        }
    )*};
}

after_flush! {
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
    let is_commit = unsafe { !buffer(file).bytes.is_empty() };
    // SAFETY: the file is open, and nothing refers to its buffer.
    match unsafe { flush(file) } {
        ffi::SQLITE_OK => {
            // Otherwise this is a checkpoint, during which other connections may write there.
            if is_commit {
                // SAFETY: as above.
                unsafe { fill_chunk(file) };
            }
            native_call!(file, xSync, flags)
        }
        failed => failed,
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: the file is open, and nothing refers to its buffer.
    match unsafe { flush(file) } {
        ffi::SQLITE_OK => {
            // SAFETY: as above; this is the only reference.
            let buffer = unsafe { buffer(file) };
            (buffer.written, buffer.length) = (buffer.written.min(size), buffer.length.min(size));
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

    /// Without a fallback to the native VFS.
    fn open_buffered(path: &Path) -> Connection {
        assert!(register());
        open(path, OpenFlags::default()).unwrap()
    }

    /// 5,000 rows of 800 bytes: many times the buffer, and more than the cache holds, so that
    /// SQLite writes to the log long before the commit and reads it back.
    fn fill(connection: &Connection, from: i64) {
        let sql = "WITH RECURSIVE numbers(n) AS
                       (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1 + 4999)
                   INSERT INTO t SELECT n, hex(randomblob(400)) FROM numbers";
        assert_eq!(connection.execute(sql, [from]).unwrap(), 5_000);
        connection.execute("UPDATE t SET text = text || 'x' WHERE id % 7 = 0", []).unwrap();
    }

    #[test]
    fn large_transactions_are_atomic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        let writer = open_buffered(&path);
        writer
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = 20;
                 PRAGMA wal_autocheckpoint = 100;
                 CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);",
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
    fn a_rolled_back_buffer_never_overwrites_later_commits() {
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
            let sql = "WITH RECURSIVE numbers(n) AS
                           (SELECT 100000 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000 + ?1)
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
