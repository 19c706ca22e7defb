//! Forces `synchronous=OFF` on SQLite, to test the tests.

use std::ffi::{CStr, c_char, c_int, c_void};

use rusqlite::ffi;

/// Turns syncing off on every connection that is opened in the meantime, and blocks turning it on.
pub fn during(work: impl FnOnce()) {
    // SAFETY: a function of the type that SQLite calls.
    assert_eq!(unsafe { ffi::sqlite3_auto_extension(Some(extend)) }, ffi::SQLITE_OK);
    work();
    // SAFETY: as above.
    unsafe { ffi::sqlite3_cancel_auto_extension(Some(extend)) };
}

unsafe extern "C" fn extend(
    connection: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    let off = c"PRAGMA synchronous = OFF";
    // SAFETY: the connection has just been opened, and nobody else uses it.
    unsafe {
        ffi::sqlite3_exec(
            connection,
            off.as_ptr(),
            None,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        ffi::sqlite3_set_authorizer(connection, Some(authorize), std::ptr::null_mut())
    }
}

unsafe extern "C" fn authorize(
    _: *mut c_void,
    action: c_int,
    subject: *const c_char,
    _: *const c_char,
    _: *const c_char,
    _: *const c_char,
) -> c_int {
    // SAFETY: SQLite gives the pragma's name, which ends with a zero.
    let is_synchronous =
        || unsafe { CStr::from_ptr(subject) }.to_bytes().eq_ignore_ascii_case(b"synchronous");
    if action == ffi::SQLITE_PRAGMA && is_synchronous() {
        ffi::SQLITE_IGNORE
    } else {
        ffi::SQLITE_OK
    }
}
