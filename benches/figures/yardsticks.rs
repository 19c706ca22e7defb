//! The yardsticks: other programs doing the minimum of the same work.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

/// Inserts only the keys into SQLite, in one transaction. Returns the seconds that it takes.
pub fn bare_keys(path: &Path, keys: &[(String, u32)]) -> f64 {
    remove_database(path);
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE keys (channel TEXT, number INTEGER, PRIMARY KEY (channel, number))
                 STRICT, WITHOUT ROWID;",
        )
        .unwrap();
    let started = Instant::now();
    connection.execute_batch("BEGIN").unwrap();
    let mut insert = connection.prepare("INSERT OR IGNORE INTO keys VALUES (?1, ?2)").unwrap();
    for (channel, number) in keys {
        insert.execute(params![channel, number]).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    started.elapsed().as_secs_f64()
}

pub fn remove_database(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        // It may not exist.
        let _ = std::fs::remove_file(PathBuf::from(file));
    }
}

/// Commits one key per transaction to SQLite, `count` times. Returns the rate.
pub fn bare_commits(path: &Path, count: u32) -> f64 {
    remove_database(path);
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE keys (number INTEGER PRIMARY KEY) STRICT;",
        )
        .unwrap();
    let mut insert = connection.prepare("INSERT INTO keys VALUES (?1)").unwrap();
    let started = Instant::now();
    for number in 0..count {
        insert.execute(params![number]).unwrap();
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

/// The time that the disk needs to sync 4 KiB at the end of a file: the median of 500, in seconds.
pub fn median_sync(directory: &Path) -> f64 {
    let mut file = std::fs::File::create(directory.join("synced")).unwrap();
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            file.write_all(&[1; 4_096]).unwrap();
            let started = Instant::now();
            file.sync_data().unwrap();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// A message as read by serde's derive, borrowing what it can.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is read, but nobody looks at it")]
struct Derived<'j> {
    #[serde(borrow)]
    metadata: DerivedMetadata<'j>,
    #[serde(borrow)]
    message: DerivedMessage<'j>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is read, but nobody looks at it")]
struct DerivedMetadata<'j> {
    channel: &'j str,
    message_number: u32,
    message_time: &'j str,
    message_type: &'j str,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is read, but nobody looks at it")]
struct DerivedMessage<'j> {
    by: Option<i32>,
    launch_speed: Option<i32>,
    r#type: Option<&'j str>,
    mission: Option<&'j str>,
    new_mission: Option<&'j str>,
    reason: Option<&'j str>,
}

/// Reads every line of a file with serde_json on one core, and does nothing else. Returns the rate.
pub fn json_parse_rate(file: &Path) -> f64 {
    let bytes = std::fs::read(file).unwrap();
    let started = Instant::now();
    let mut lines = 0_u32;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        std::hint::black_box(serde_json::from_slice::<Derived<'_>>(line).unwrap());
        lines += 1;
    }
    f64::from(lines) / started.elapsed().as_secs_f64()
}
