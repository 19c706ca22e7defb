//! Power failures: unsynced data is lost or partly lost, but no acknowledged message is.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rocket_monitor::domain::batch::Outcome;
use rocket_monitor::domain::timestamp::Timestamp;
use rocket_monitor::ingest::{Limits, Submission};
use rocket_monitor::metrics::Metrics;
use rocket_monitor::service::Pipeline;
use rocket_monitor::store::{Database, OpenOptions, Store};
use storage_faults::disk::{Call, Disk, Files, Platter, Unsynced, lay_out};
use storage_faults::synchronous_off;
use testkit::faults;
use testkit::sqlite::query;
use testkit::wait::DEADLINE;

use crate::fleet::{Verdict, arrivals, judge, message};

const MESSAGES: u32 = 600;
const CLIENTS: usize = 6;
/// How often the service is restarted in a run.
const STARTS: usize = 3;

/// Records what a service does to its disk while clients send messages, an SQLite shell checkpoints
/// now and then, and the service is restarted.
fn record(seed: u64) -> Vec<Call> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rockets.db");
    let disk = Disk::under(directory.path());
    let mut random = StdRng::seed_from_u64(seed);
    let order = arrivals(MESSAGES, &mut random);
    for part in order.chunks(order.len().div_ceil(STARTS)) {
        serve(&disk, &path, part, &with_a_short_log(), || {
            ["PASSIVE", "RESTART", "TRUNCATE", ""][random.random_range(0..4)]
        });
    }
    disk.calls()
}

/// The log is checkpointed after every few commits.
pub fn with_a_short_log() -> OpenOptions {
    OpenOptions { log_bytes: 64 * 1024..=64 * 1024, ..OpenOptions::default() }
}

fn serve(
    disk: &Disk,
    path: &Path,
    part: &[u32],
    options: &OpenOptions,
    mut next_checkpoint: impl FnMut() -> &'static str,
) {
    let store = Store::open(&Database::File(path.to_owned()), options).unwrap();
    let metrics = Metrics::new(rocket_monitor::http::paths()).unwrap();
    let pipeline = Pipeline::start(&store, &metrics, Limits::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for some in part.chunks(40) {
        let send = some.chunks(some.len().div_ceil(CLIENTS)).map(async |mine| {
            for &index in mine {
                pipeline.ingest.commit(Submission::One(message(index)), 200).await.unwrap();
                disk.acknowledged(index);
            }
        });
        runtime.block_on(futures_util::future::join_all(send));
        let checkpoint = next_checkpoint();
        if !checkpoint.is_empty() {
            let other = rusqlite::Connection::open(path).unwrap();
            other.busy_timeout(Duration::from_secs(10)).unwrap();
            other
                .query_row(&format!("PRAGMA wal_checkpoint({checkpoint})"), [], |_| Ok(()))
                .unwrap();
        }
    }
    pipeline.stop(DEADLINE).unwrap();
}

#[derive(Debug, Default)]
pub struct Losses {
    pub cuts: u64,
    /// How often acknowledged messages were lost.
    pub lossy: u64,
    pub bad: Vec<Verdict>,
}

/// Simulates power failures at a share of the moments of a recording, and reports the losses.
pub fn cut(calls: &[Call], seed: u64, share: f64) -> Losses {
    let mut random = StdRng::seed_from_u64(seed);
    let mut losses = Losses::default();
    let (mut platter, mut acknowledged) = (Platter::default(), BTreeSet::new());
    for (index, call) in calls.iter().enumerate() {
        platter.apply(call);
        if let Call::Acknowledged(message) = call {
            acknowledged.insert(*message);
        }
        // The moments around a sync matter most.
        let matters = calls.get(index + 1).is_some_and(|next| matches!(next, Call::Sync { .. }))
            || matches!(call, Call::Sync { .. } | Call::Remove { .. } | Call::Truncate { .. });
        if !random.random_bool(if matters { share } else { share / 4.0 }) {
            continue;
        }
        for unsynced in [Unsynced::Dropped, Unsynced::Torn, Unsynced::Kept] {
            let verdict =
                judge_files(&platter.after_power_loss(unsynced, &mut random), &acknowledged);
            losses.cuts += 1;
            losses.lossy += u64::from(!verdict.lost.is_empty());
            if !verdict.is_good() {
                losses.bad.push(verdict);
            }
        }
    }
    losses
}

pub fn judge_files(files: &Files, acknowledged: &BTreeSet<u32>) -> Verdict {
    let directory = tempfile::tempdir().unwrap();
    lay_out(files, directory.path());
    judge(&directory.path().join("rockets.db"), acknowledged.iter().copied(), MESSAGES)
}

fn acknowledgements(calls: &[Call]) -> usize {
    calls.iter().filter(|call| matches!(call, Call::Acknowledged(_))).count()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() {
    let (mut cuts, mut acknowledged) = (0, 0);
    for seed in 0..faults::times(1, 5) {
        let calls = record(seed);
        let losses = cut(&calls, seed, if faults::are_wanted() { 1.0 } else { 0.1 });
        assert!(losses.bad.is_empty(), "seed {seed}: {:?}", &losses.bad[..1]);
        assert!(losses.cuts > 100, "{}", losses.cuts);
        cuts += losses.cuts;
        acknowledged += acknowledgements(&calls);
    }
    faults::row(
        "power failures (SQLite)",
        format!("{cuts} times, around {acknowledged} messages"),
        "lost 0, counted twice 0, every audit clean",
    );
}

/// The control: the same program, with one different setting.
#[test]
fn with_synchronous_off_the_same_test_finds_losses() {
    let calls = {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rockets.db");
        let disk = Disk::under(directory.path());
        // Nobody else reads the log in the meantime: the writer passes it on when it syncs it, and
        // now it doesn't sync.
        synchronous_off::during(|| {
            serve(&disk, &path, &(0..200).collect::<Vec<_>>(), &OpenOptions::default(), || "")
        });
        disk.calls()
    };
    assert!(!calls.iter().any(|call| matches!(call, Call::Sync { .. })), "nothing was synced");
    let losses = cut(&calls, 1, 1.0);
    assert!(losses.lossy > losses.cuts / 4, "{} of {}", losses.lossy, losses.cuts);
    faults::row(
        "control: the same with `synchronous=OFF`",
        format!("{} times, around {} messages", losses.cuts, acknowledgements(&calls)),
        format!("acknowledged messages lost {} times", losses.lossy),
    );
}

/// A process is killed between writing a commit and syncing it, and the next one acknowledges a
/// copy of that message: it must have synced the log by then.
#[test]
fn what_a_killed_process_had_only_written_is_synced_before_a_copy_of_it_is_acknowledged() {
    let calls = record(7);
    let mut tried = 0;
    let (mut platter, mut acknowledged) = (Platter::default(), BTreeSet::new());
    let mut random = StdRng::seed_from_u64(7);
    for (index, call) in calls.iter().enumerate() {
        platter.apply(call);
        if let Call::Acknowledged(message) = call {
            acknowledged.insert(*message);
        }
        let only_written = matches!(call, Call::Write { file, .. } if file == "rockets.db-wal")
            && matches!(calls.get(index + 1), Some(Call::Sync { .. }));
        if !only_written || acknowledged.is_empty() || !random.random_bool(0.1) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rockets.db");
        let durable = platter.after_power_loss(Unsynced::Dropped, &mut random);
        let written = platter.after_power_loss(Unsynced::Kept, &mut random);
        lay_out(&written, directory.path());
        let disk = Disk::under(directory.path());
        let copies = acknowledge_copies(&disk, &path);
        let mut platter = Platter::with(durable, &written);
        // At the last acknowledgement, before anything is closed.
        let calls = disk.calls();
        let last = calls.iter().rposition(|call| matches!(call, Call::Acknowledged(_))).unwrap();
        calls[..last].iter().for_each(|call| platter.apply(call));
        drop(disk);
        let after = platter.after_power_loss(Unsynced::Dropped, &mut random);
        let verdict = judge_files(
            &after,
            &acknowledged.iter().copied().chain(copies.iter().copied()).collect(),
        );
        assert!(verdict.is_good(), "{verdict:?}");
        tried += u32::from(copies.iter().any(|copy| !acknowledged.contains(copy)));
    }
    assert!(tried > 3, "{tried} times something was only written");
}

/// Sends everything that is stored, while an SQLite shell has the file open: these are duplicates,
/// which are acknowledged without a commit of their own.
fn acknowledge_copies(disk: &Disk, path: &Path) -> Vec<u32> {
    // When the last connection closes, SQLite syncs the log too. This one stays open.
    let shell = rusqlite::Connection::open(path).unwrap();
    shell.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap();
    let store = Store::open(&Database::File(path.to_owned()), &OpenOptions::default()).unwrap();
    let mut writer = store.writer().unwrap();
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let mut copies = Vec::new();
    for index in 0..MESSAGES {
        // A new message would be synced together with the earlier ones.
        let (channel, number) = (format!("c{}", index % 7), index / 7 + 1);
        let sql = format!(
            "SELECT 1 FROM processed_ranges WHERE channel = '{channel}' \
             AND {number} BETWEEN first_msg AND last_msg"
        );
        if query(path, &sql).is_empty() {
            continue;
        }
        assert_eq!(writer.commit(&[message(index)], now).unwrap(), [Outcome::Duplicate]);
        disk.acknowledged(index);
        copies.push(index);
    }
    copies
}
