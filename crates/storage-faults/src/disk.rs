//! A simulated disk: file system calls, intercepted between the program and the system.
//!
//! This crate defines `pwrite64`, `fdatasync` and the like itself, so that SQLite (which is linked
//! into the same program) and Rust's library call these instead of the C library's. They do what
//! they should; for the files of one directory they also record the calls, and fail if a test wants
//! them to. The records give the contents of the disk if the power failed at any moment: what was
//! synced, and of the rest some, none or all, torn at sector boundaries.
//!
//! SQLite's memory-mapped file is not recorded. That is only the index of its log, which is rebuilt
//! after a crash.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// The unit that a disk writes atomically.
const SECTOR: usize = 512;

/// A call on a file in the directory, in order.
#[derive(Clone, Debug)]
pub enum Call {
    Write {
        file: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        length: usize,
    },
    /// Everything done to the file so far is on disk.
    Sync {
        file: String,
    },
    /// A sync failed: unsynced changes of the file never reach the disk, although they can be read
    /// until the power fails. Linux does the same: it reports a failed write once, and then treats
    /// the pages as clean.
    SyncFailed {
        file: String,
    },
    Remove {
        file: String,
    },
    /// New and removed names are on disk.
    SyncFolder,
    /// A mark set by a test.
    Acknowledged(u32),
}

/// The kinds of calls that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Open,
    OpenToWrite,
    Read,
    Write,
    Truncate,
    Sync,
}

/// Decides whether a call fails, and with which error.
pub type Plan = Box<dyn FnMut(Kind, &str) -> Option<c_int> + Send>;

#[derive(Default)]
struct State {
    folder: PathBuf,
    calls: Vec<Call>,
    plan: Option<Plan>,
    sync_takes: Duration,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The disk below one directory. There is one at a time: other tests wait for theirs.
pub struct Disk {
    _turn: MutexGuard<'static, ()>,
}

impl Disk {
    /// Records calls in the directory from now on.
    pub fn under(folder: &Path) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = folder.canonicalize().unwrap();
        *state() = Some(State { folder, ..State::default() });
        Self { _turn: turn }
    }

    /// Makes calls fail as planned.
    pub fn plan(&self, plan: impl FnMut(Kind, &str) -> Option<c_int> + Send + 'static) {
        with_state(|state| state.plan = Some(Box::new(plan)));
    }

    /// Ends all failures.
    pub fn mend(&self) {
        with_state(|state| {
            state.plan = None;
            state.sync_takes = Duration::ZERO;
        });
    }

    /// Makes every sync take this long.
    pub fn slow_down(&self, sync_takes: Duration) {
        with_state(|state| state.sync_takes = sync_takes);
    }

    /// Records that a message was acknowledged.
    pub fn acknowledged(&self, message: u32) {
        with_state(|state| state.calls.push(Call::Acknowledged(message)));
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        with_state(|state| state.calls.clone())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        *state() = None;
    }
}

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_state<T>(work: impl FnOnce(&mut State) -> T) -> T {
    work(state().as_mut().unwrap())
}

// -------------------------------------------------------------------------------------------------
// The contents after a power failure

/// What happens to unsynced changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    Dropped,
    /// Each write survives, or doesn't, or some of its sectors do; each truncation and removal
    /// survives or doesn't.
    Torn,
    /// All survive, as if only the process had been killed.
    Kept,
}

/// The contents of files, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The contents of the disk, call by call.
#[derive(Clone, Debug, Default)]
pub struct Platter {
    /// Synced.
    durable: Files,
    /// What was done to each file since its last sync.
    pending: BTreeMap<String, Vec<Call>>,
}

impl Platter {
    /// A disk with these synced files, and with these that are only written.
    pub fn with(durable: Files, written: &Files) -> Self {
        let mut platter = Self { durable, pending: BTreeMap::new() };
        for (file, bytes) in written {
            platter.apply(&Call::Write { file: file.clone(), offset: 0, bytes: bytes.clone() });
            platter.apply(&Call::Truncate { file: file.clone(), length: bytes.len() });
        }
        platter
    }

    pub fn apply(&mut self, call: &Call) {
        match call {
            Call::Write { file, .. } | Call::Truncate { file, .. } | Call::Remove { file } => {
                self.pending.entry(file.clone()).or_default().push(call.clone());
            }
            Call::Sync { file } => {
                for call in self.pending.remove(file).unwrap_or_default() {
                    do_to(&mut self.durable, &call);
                }
            }
            Call::SyncFailed { file } => {
                // Names belong to the directory, not to the file.
                if let Some(pending) = self.pending.get_mut(file) {
                    pending.retain(|call| matches!(call, Call::Remove { .. }));
                }
            }
            Call::SyncFolder => {
                for pending in self.pending.values_mut() {
                    // A file that was removed and created again is another file.
                    if let Some(last) =
                        pending.iter().rposition(|call| matches!(call, Call::Remove { .. }))
                    {
                        let made_again = pending.split_off(last + 1);
                        do_to(&mut self.durable, &pending[last]);
                        *pending = made_again;
                    }
                }
            }
            Call::Acknowledged(_) => {}
        }
    }

    /// The contents after a power failure at this moment.
    pub fn after_power_loss(&self, unsynced: Unsynced, random: &mut StdRng) -> Files {
        let mut files = self.durable.clone();
        for call in self.pending.values().flatten() {
            match (unsynced, call) {
                (Unsynced::Dropped, _) => {}
                (Unsynced::Kept, call) => do_to(&mut files, call),
                (Unsynced::Torn, Call::Write { file, offset, bytes }) => {
                    let (whole, kept) = (random.random_bool(0.3), random.random_bool(0.5));
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if if whole { kept } else { random.random_bool(0.5) } {
                            let offset = offset + index * SECTOR;
                            do_to(
                                &mut files,
                                &Call::Write { file: file.clone(), offset, bytes: sector.to_vec() },
                            );
                        }
                    }
                }
                (Unsynced::Torn, call) => {
                    if random.random_bool(0.5) {
                        do_to(&mut files, call);
                    }
                }
            }
        }
        files
    }
}

fn do_to(files: &mut Files, call: &Call) {
    match call {
        Call::Write { file, offset, bytes } => {
            let content = files.entry(file.clone()).or_default();
            if content.len() < offset + bytes.len() {
                content.resize(offset + bytes.len(), 0);
            }
            content[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Call::Truncate { file, length } => {
            files.entry(file.clone()).or_default().resize(*length, 0)
        }
        Call::Remove { file } => drop(files.remove(file)),
        Call::Sync { .. } | Call::SyncFailed { .. } | Call::SyncFolder | Call::Acknowledged(_) => {}
    }
}

/// Writes files into a directory.
pub fn lay_out(files: &Files, folder: &Path) {
    for (name, content) in files {
        std::fs::write(folder.join(name), content).unwrap();
    }
}

// -------------------------------------------------------------------------------------------------
// The system calls

/// A path in the recorded directory.
enum Place {
    File(String),
    Folder,
}

fn place_of(state: &State, path: &Path) -> Option<Place> {
    if path == state.folder {
        return Some(Place::Folder);
    }
    let name = path.strip_prefix(&state.folder).ok()?.to_str()?;
    // The index of the log is not on the disk.
    (!name.ends_with("-shm")).then(|| Place::File(name.trim_end_matches(" (deleted)").to_owned()))
}

/// Handles a call on an open file; none if the file is not recorded.
fn noted<T>(fd: c_int, note: impl FnOnce(&mut State, Place) -> T) -> Option<T> {
    let mut state = state();
    let state = state.as_mut()?;
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let place = place_of(state, &path)?;
    Some(note(state, place))
}

fn planned(state: &mut State, kind: Kind, place: &Place) -> Option<c_int> {
    let Place::File(name) = place else { return None };
    state.plan.as_mut()?(kind, name)
}

fn fail(error: c_int) -> c_long {
    // SAFETY: the C library's error variable of this thread.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// # Safety
/// As of the system's call.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: a path ends with a zero.
    let name = unsafe { CStr::from_ptr(path) };
    let name = Path::new(OsStr::from_bytes(name.to_bytes()));
    if let Some(state) = state().as_mut()
        && let Some(place) = place_of(state, name)
    {
        let kind =
            if flags & libc::O_ACCMODE == libc::O_RDONLY { Kind::Open } else { Kind::OpenToWrite };
        if let Some(error) = planned(state, kind, &place) {
            return fail(error) as c_int;
        }
    }
    // SAFETY: the arguments are passed on unchanged.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int }
}

/// # Safety
/// As of the system's call.
#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(fd: c_int, into: *mut c_void, count: usize, offset: i64) -> isize {
    match noted(fd, |state, place| planned(state, Kind::Read, &place)) {
        Some(Some(error)) => fail(error) as isize,
        // SAFETY: the arguments are passed on unchanged.
        _ => unsafe { libc::syscall(libc::SYS_pread64, fd, into, count, offset) as isize },
    }
}

/// # Safety
/// As of the system's call.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: usize, offset: i64) -> isize {
    let note = |state: &mut State, place: Place| {
        if let Some(error) = planned(state, Kind::Write, &place) {
            return fail(error) as isize;
        }
        // SAFETY: the arguments are passed on unchanged. Inside the lock, so that calls are
        // recorded in order.
        let written =
            unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, offset) as isize };
        if let (Place::File(file), Ok(length)) = (place, usize::try_from(written)) {
            // SAFETY: this many of the caller's bytes have been written.
            let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }.to_vec();
            state.calls.push(Call::Write { file, offset: offset as usize, bytes });
        }
        written
    };
    noted(fd, note)
        // SAFETY: the arguments are passed on unchanged.
        .unwrap_or_else(|| unsafe {
            libc::syscall(libc::SYS_pwrite64, fd, bytes, count, offset) as isize
        })
}

/// # Safety
/// As of the system's call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, length: i64) -> c_int {
    let note = |state: &mut State, place: Place| {
        if let Some(error) = planned(state, Kind::Truncate, &place) {
            return fail(error) as c_int;
        }
        // SAFETY: the arguments are passed on unchanged.
        let truncated = unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) as c_int };
        if let (Place::File(file), 0) = (place, truncated) {
            state.calls.push(Call::Truncate { file, length: length as usize });
        }
        truncated
    };
    // SAFETY: the arguments are passed on unchanged.
    noted(fd, note)
        .unwrap_or_else(|| unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) as c_int })
}

/// Records syncs in the directory. Nothing is really synced, there or elsewhere, because nothing
/// must survive on a real disk.
fn sync(fd: c_int) -> c_int {
    let takes = state().as_ref().map_or(Duration::ZERO, |state| state.sync_takes);
    let note = |state: &mut State, place: Place| {
        let failed = planned(state, Kind::Sync, &place);
        let call = match (place, failed) {
            (Place::File(file), None) => Call::Sync { file },
            (Place::File(file), Some(_)) => Call::SyncFailed { file },
            (Place::Folder, _) => Call::SyncFolder,
        };
        state.calls.push(call);
        failed.map_or(0, |error| fail(error) as c_int)
    };
    let Some(done) = noted(fd, note) else { return 0 };
    // Simulates a slow disk; this waits for nothing else.
    std::thread::sleep(takes);
    done
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd)
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd)
}

/// # Safety
/// As of the system's call.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: a path ends with a zero.
    let name = unsafe { CStr::from_ptr(path) };
    let mut state = state();
    // SAFETY: the argument is passed on unchanged.
    let removed = unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int };
    if let Some(state) = state.as_mut()
        && let (Some(Place::File(file)), 0) =
            (place_of(state, Path::new(OsStr::from_bytes(name.to_bytes()))), removed)
    {
        state.calls.push(Call::Remove { file });
    }
    removed
}
