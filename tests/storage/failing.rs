//! The disk fails, is full, or is read-only: messages are refused for now, nothing is acknowledged
//! that isn't stored, and the service recovers by itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rocket_monitor::ingest::Limits;
use rocket_monitor::store::{Database, OpenOptions, Store};
use storage_faults::disk::{Disk, Kind, Platter, Unsynced, lay_out};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client};
use testkit::faults;
use testkit::message::{faster, launched};
use testkit::sqlite::query;
use testkit::wait::eventually;

use crate::fleet::{arrivals, json, judge};
use crate::power::{cut, judge_files, with_a_short_log};

/// A service on a disk that is recorded from its first byte.
fn on_a_disk() -> (App, Disk) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::under(directory.path());
    (App::spawn_in(directory, Backend::SqliteFile, Limits::default(), with_a_short_log()), disk)
}

fn told_to_come_later(answer: &Answer) {
    answer.problem(503);
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
}

/// While the disk fails, messages are refused. Once it works again, everything is stored, and
/// counts once.
fn is_survived(plan: impl FnMut(Kind, &str) -> Option<i32> + Send + 'static) {
    let (app, disk) = on_a_disk();
    let mut client = app.client();
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    disk.plan(plan);
    for _ in 0..3 {
        told_to_come_later(&client.post(&faster("r", 2, 5)));
        told_to_come_later(&client.get("/readyz"));
        assert_eq!(client.get("/livez").status, 200);
        let lines = format!("{}\n{}\n", faster("r", 3, 5), faster("s", 1, 1));
        told_to_come_later(&client.post_lines(lines.as_bytes()));
    }
    disk.mend();
    eventually("it is ready", || client.get("/readyz").status == 200);
    assert_eq!(client.post(&faster("r", 2, 5)).status, 204);
    assert_eq!(client.post(&faster("r", 3, 5)).status, 204);
    let rocket = app.rocket("r", "exact");
    assert_eq!((&rocket["speed"], &rocket["messages"]["processed"]), (&510.into(), &3.into()));
    let mut platter = Platter::default();
    disk.calls().iter().for_each(|call| platter.apply(call));
    let directory = tempfile::tempdir().unwrap();
    lay_out(
        &platter.after_power_loss(Unsynced::Dropped, &mut StdRng::seed_from_u64(1)),
        directory.path(),
    );
    let speeds = query(
        &directory.path().join("rockets.db"),
        "SELECT speed FROM rockets WHERE channel = 'r'",
    );
    assert_eq!(speeds, [[510]]);
}

#[test]
fn a_full_disk_is_survived() {
    is_survived(|kind, _| (kind == Kind::Write).then_some(libc::ENOSPC));
}

#[test]
fn failing_writes_are_survived() {
    is_survived(|kind, _| (kind == Kind::Write).then_some(libc::EIO));
}

#[test]
fn failing_syncs_are_survived() {
    is_survived(|kind, _| (kind == Kind::Sync).then_some(libc::EIO));
}

#[test]
fn a_file_that_becomes_read_only_is_survived() {
    is_survived(|kind, _| match kind {
        Kind::OpenToWrite => Some(libc::EACCES),
        Kind::Write | Kind::Truncate => Some(libc::EROFS),
        Kind::Open | Kind::Read | Kind::Sync => None,
    });
}

#[test]
fn a_disk_that_is_gone_is_survived() {
    is_survived(|_, _| Some(libc::EIO));
}

#[test]
fn reads_that_fail_are_told_to_come_later_too() {
    let (app, disk) = on_a_disk();
    let mut client = app.client();
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    disk.plan(|_, _| Some(libc::EIO));
    // A connection doesn't read again what it has cached: it may still return a rocket.
    for path in ["/rockets?sort=mission", "/reports/missions"] {
        told_to_come_later(&client.get(path));
    }
    disk.mend();
    for path in ["/rockets/r", "/rockets?sort=mission", "/reports/missions"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
}

const MESSAGES: u32 = 500;
const CLIENTS: usize = 6;

/// Any call may fail at any time, while clients resend until they are acknowledged.
#[test]
fn a_disk_that_fails_now_and_then_loses_nothing() {
    let (mut failures, mut cuts) = (0, 0);
    for seed in 0..faults::times(2, 40) {
        let (app, disk) = on_a_disk();
        let failed = Arc::new(AtomicUsize::new(0));
        let (counted, mut random) = (Arc::clone(&failed), StdRng::seed_from_u64(seed));
        disk.plan(move |_, _| {
            let fails = random.random_bool(0.03);
            counted.fetch_add(usize::from(fails), Ordering::SeqCst);
            fails.then(|| [libc::EIO, libc::ENOSPC, libc::EROFS][random.random_range(0..3)])
        });
        send_until_acknowledged(&app, &disk, seed);
        disk.mend();
        eventually("it is ready", || app.client().get("/readyz").status == 200);
        let calls = disk.calls();
        drop(disk);
        let all: BTreeSet<u32> = (0..MESSAGES).collect();
        let verdict = judge(&app.database(), all.iter().copied(), MESSAGES);
        assert!(verdict.is_good(), "seed {seed}: {verdict:?}");
        let mut platter = Platter::default();
        calls.iter().for_each(|call| platter.apply(call));
        let left = platter.after_power_loss(Unsynced::Dropped, &mut StdRng::seed_from_u64(seed));
        let verdict = judge_files(&left, &all);
        assert!(verdict.is_good(), "seed {seed}: {verdict:?}");
        let losses = cut(&calls, seed, 0.05);
        assert!(losses.bad.is_empty(), "seed {seed}: {:?}", &losses.bad[..1]);
        failures += failed.load(Ordering::SeqCst);
        cuts += losses.cuts;
    }
    assert!(failures > 10, "{failures}");
    faults::row(
        "random failures of disk calls, followed by a power failure (SQLite)",
        format!("{failures} failed calls, {cuts} power failures"),
        "lost 0, counted twice 0, every audit clean",
    );
}

fn send_until_acknowledged(app: &App, disk: &Disk, seed: u64) {
    let order = arrivals(MESSAGES, &mut StdRng::seed_from_u64(seed));
    // Records are in the order of the calls only if both happen under one lock.
    let disk = Mutex::new(disk);
    std::thread::scope(|scope| {
        for part in order.chunks(order.len().div_ceil(CLIENTS)) {
            let disk = &disk;
            scope.spawn(move || {
                let mut client = Client::new(app.address);
                for &index in part {
                    eventually("it is taken", || {
                        let answer = client.post(&json(index));
                        if answer.status != 204 {
                            told_to_come_later(&answer);
                        }
                        answer.status == 204
                    });
                    disk.lock().unwrap().acknowledged(index);
                }
            });
        }
    });
}

/// The system reports a failed sync once and treats the pages as written, so a later sync succeeds.
/// And SQLite doesn't copy again what it has copied from its log.
#[test]
fn what_a_checkpoint_could_not_sync_is_copied_again() {
    let mut failures = 0;
    for seed in 0..faults::times(3, 20) {
        let (app, disk) = on_a_disk();
        // So that messages arrive while another thread copies the log.
        disk.slow_down(Duration::from_millis(2));
        let failed = Arc::new(AtomicUsize::new(0));
        let (counted, mut random) = (Arc::clone(&failed), StdRng::seed_from_u64(seed));
        disk.plan(move |kind, file| {
            let fails = kind == Kind::Sync && file == "rockets.db" && random.random_bool(0.3);
            counted.fetch_add(usize::from(fails), Ordering::SeqCst);
            fails.then_some(libc::EIO)
        });
        send_until_acknowledged(&app, &disk, seed);
        let losses = cut(&disk.calls(), seed, 0.05);
        assert!(losses.bad.is_empty(), "seed {seed}: {:?}", &losses.bad[..1]);
        failures += failed.load(Ordering::SeqCst);
    }
    assert!(failures > 3, "{failures}");
}

/// A migration that fails at any of its calls, once or from there on, leaves no schema or a
/// complete one.
#[test]
fn a_migration_that_fails_leaves_the_old_schema_or_the_new_one() {
    let mut failures = 0;
    for error in [libc::ENOSPC, libc::EIO] {
        for for_good in [false, true] {
            for call in 0.. {
                let failed = migrate_failing(call, error, for_good);
                failures += u32::from(failed);
                if !failed {
                    break;
                }
            }
        }
    }
    assert!(failures > 50, "{failures}");
    faults::row(
        "a migration with a failure at each of its disk calls (SQLite)",
        format!("{failures} failed calls"),
        "no schema or a complete one, and the next start creates it",
    );
}

/// Creates a database on a disk where the call with this number fails. Returns whether there were
/// that many calls.
fn migrate_failing(call: usize, error: i32, for_good: bool) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::File(directory.path().join("rockets.db"));
    let disk = Disk::under(directory.path());
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    disk.plan(move |_, _| {
        let now = counted.fetch_add(1, Ordering::SeqCst);
        (now == call || for_good && now > call).then_some(error)
    });
    // It may succeed nevertheless, if it could retry.
    let opened = Store::open(&database, &OpenOptions::default());
    let reached = made.load(Ordering::SeqCst) > call;
    drop(opened);
    disk.mend();
    let calls = disk.calls();
    drop(disk);
    is_whole_or_empty(&directory.path().join("rockets.db"));
    let mut platter = Platter::default();
    calls.iter().for_each(|call| platter.apply(call));
    let directory = tempfile::tempdir().unwrap();
    lay_out(
        &platter.after_power_loss(Unsynced::Dropped, &mut StdRng::seed_from_u64(1)),
        directory.path(),
    );
    is_whole_or_empty(&directory.path().join("rockets.db"));
    reached
}

fn is_whole_or_empty(path: &Path) {
    let tables = if path.exists() {
        query(path, "SELECT name FROM sqlite_schema WHERE name = 'rockets'")
    } else {
        vec![]
    };
    if !tables.is_empty() {
        let options = OpenOptions { migrate: false, ..OpenOptions::default() };
        Store::open(&Database::File(path.to_owned()), &options).unwrap();
    }
    assert!(judge(path, [], 0).is_good());
}
