//! Figures of ingestion.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rocket_monitor::simulator::Fleet;
use rusqlite::Connection;
use testkit::postgres::Cluster;

use crate::input::{fleet, lines_rate, post_requests, stream_lines, write_file};
use crate::measure::{
    PAIRS, REQUESTS, drive, drive_over, latencies, open_loop, pairs, percentile, row, times_row,
};
use crate::servers::{Server, program};
use crate::yardsticks::{bare_commits, bare_keys, json_parse_rate, median_sync, remove_database};

pub fn post(directory: &Path) -> String {
    let (ours, ceiling) = (Server::ours(directory), Server::ceiling());
    let mut requests = post_requests(fleet(4 * (PAIRS as u64 + 1) * REQUESTS as u64));
    let mut table = String::new();
    for connections in [64, 256] {
        let ratios = pairs(|measured| {
            let batch: Vec<Vec<u8>> = requests.by_ref().take(REQUESTS).collect();
            drive_over(connections, if measured { ours.address } else { ceiling.address }, &batch)
        });
        table += &row(&format!("durable POST, {connections} connections, of the ceiling"), &ratios);
    }
    table + &post_by_wrk(directory)
}

/// With one message per commit or hardly more, the disk limits the speed.
pub fn few_connections(directory: &Path) -> String {
    const COMMITS: u32 = 3_000;
    let ours = Server::ours(directory);
    let mut requests = post_requests(fleet(1_000_000));
    let mut table = String::new();
    for connections in [1, 3] {
        let ratios = pairs(|measured| {
            if !measured {
                return bare_commits(&directory.join("keys.db"), COMMITS);
            }
            let batch: Vec<Vec<u8>> =
                requests.by_ref().take(connections * COMMITS as usize).collect();
            drive_over(connections, ours.address, &batch)
        });
        let what =
            format!("durable POST, connections {connections}, of a loop of WAL commits of one key");
        table += &row(&what, &ratios);
    }
    table
}

/// Latencies of messages that arrive at a fixed rate.
pub fn latency(directory: &Path) -> String {
    let ours = Server::ours(directory);
    let mut requests = post_requests(fleet(2 * (PAIRS as u64 + 1) * REQUESTS as u64));
    let mut take = || requests.by_ref().take(REQUESTS).collect::<Vec<Vec<u8>>>();
    let ratios = pairs(|measured| {
        if !measured {
            return median_sync(directory);
        }
        let peak = drive(ours.address, &take());
        percentile(open_loop(ours.address, &take(), peak / 2.0), 0.99)
    });
    times_row(
        "p99 of a durable POST at half the peak rate, open loop, over the median fdatasync",
        &ratios,
    )
}

/// Lines over one connection.
pub fn lines(directory: &Path) -> String {
    let ours = Server::ours(directory);
    let mut seed = 1_000;
    let file = directory.join("messages.ndjson");
    write_file(&file, fleet(1_000_000));
    let ratios = pairs(|measured| {
        if !measured {
            return json_parse_rate(&file);
        }
        seed += 1;
        lines_rate(ours.address, &file, seed)
    });
    row(
        "lines over HTTP, 1,000,000 messages over 1,000 channels, of serde_json on one core",
        &ratios,
    )
}

/// How long single messages wait while a stream brings new rockets, which are the most expensive
/// for a store.
pub fn beside_a_stream(directory: &Path) -> String {
    let cluster = Cluster::start_with("-c shared_buffers=512MB -c max_wal_size=4GB");
    let on_postgres = cluster.url("postgres");
    let servers = [
        ("SQLite", Server::ours(directory)),
        (
            "Postgres",
            Server::start(program(&[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--database",
                &on_postgres,
            ])),
        ),
    ];
    let file = directory.join("stream.ndjson");
    let mut seed = 7_000;
    let mut table = String::new();
    for (store, server) in servers {
        let mut requests = post_requests(fleet(1_000_000));
        let mut some =
            || latencies(4, server.address, &requests.by_ref().take(20).collect::<Vec<_>>());
        let times = pairs(|measured| {
            if !measured {
                return percentile((0..100).flat_map(|_| some()).collect(), 0.99);
            }
            seed += 1;
            let new = Fleet {
                seed,
                rockets: 100_000,
                messages: 100_000,
                duplicate_percent: 0.0,
                lossy_percent: 0.0,
                displacement: 0,
            };
            write_file(&file, new);
            std::thread::scope(|scope| {
                let streaming =
                    scope.spawn(|| stream_lines(server.address, &file, &mut String::new()));
                let mut waits = Vec::new();
                while !streaming.is_finished() {
                    waits.extend(some());
                }
                streaming.join().unwrap();
                percentile(waits, 0.99)
            })
        });
        table += &times_row(
            &format!("p99 of a POST beside a stream of new rockets ({store}), over alone"),
            &times,
        );
    }
    table
}

/// The same with wrk, a well-known load generator (in Debian). It uses more of the machine than
/// ours, which does little but system calls.
fn post_by_wrk(directory: &Path) -> String {
    const SECONDS: u64 = 2;
    let what = "the same by wrk";
    if Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return format!("| {what} | | | wrk is not installed |\n");
    }
    let directory = directory.join("wrk");
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("messages.ndjson");
    // More than any run can send, so that no run starts again from its first message.
    let each = 150_000 * SECONDS;
    write_file(&file, fleet((PAIRS as u64 + 1) * each));
    let (ours, ceiling) = (Server::ours(&directory), Server::ceiling());
    let mut skip = 0_usize;
    let ratios = pairs(|measured| {
        let address = if measured { ours.address } else { ceiling.address };
        let output = Command::new("wrk")
            .args([
                "-t1",
                "-c64",
                &format!("-d{SECONDS}s"),
                "-s",
                "benches/post.lua",
                &format!("http://{address}"),
                "--",
            ])
            .args([file.to_str().unwrap(), &skip.to_string(), &each.to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !said.contains("Non-2xx"), "{said}");
        let tells = |what: &str| {
            let line = said.lines().find(|line| line.contains(what)).expect("wrk tells it");
            line.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap()
        };
        if measured {
            // The next run continues where this one ended.
            skip += tells(" requests in ") as usize;
        }
        tells("Requests/sec:")
    });
    row(what, &ratios)
}

/// Ingests into a new database. Returns the seconds that it takes.
pub fn ingest_file(file: &Path, database: &Path) -> f64 {
    remove_database(database);
    let started = Instant::now();
    let status =
        program(&["ingest", file.to_str().unwrap(), "--database", database.to_str().unwrap()])
            .status();
    assert!(status.unwrap().success());
    started.elapsed().as_secs_f64()
}

pub fn ingest(directory: &Path) -> String {
    let fleet = fleet(1_000_000);
    let file = directory.join("messages.ndjson");
    write_file(&file, fleet);
    let keys: Vec<(String, u32)> =
        fleet.arrivals().map(|(rocket, number)| (fleet.channel(rocket), number)).collect();
    let database = directory.join("rockets.db");
    let ratios = pairs(|measured| {
        if measured {
            keys.len() as f64 / ingest_file(&file, &database)
        } else {
            keys.len() as f64 / bare_keys(&directory.join("keys.db"), &keys)
        }
    });
    let of_json = pairs(|measured| {
        if !measured {
            return json_parse_rate(&file);
        }
        keys.len() as f64 / ingest_file(&file, &database)
    });
    let mut table = row("ingest of 1,000,000 messages, of SQLite taking bare keys", &ratios)
        + &row("the same, of serde_json on one core", &of_json);
    let size = std::fs::metadata(&database).unwrap().len() / 1024;
    writeln!(table, "| database after them | {size} KiB | | 1,000 rockets, no gaps |").unwrap();
    table
}

/// A channel whose message 1 never arrives.
pub fn headless(directory: &Path) -> String {
    let fleet = Fleet {
        seed: 2,
        rockets: 1,
        messages: 10_000_001,
        duplicate_percent: 0.0,
        lossy_percent: 0.0,
        displacement: 0,
    };
    let (database, part) = (directory.join("rockets.db"), directory.join("part.ndjson"));
    let channel = fleet.channel(0);
    let mut rates = Vec::new();
    for tenth in 0..10 {
        let mut lines = Vec::new();
        for number in tenth * 1_000_000 + 2..=(tenth + 1) * 1_000_000 + 1 {
            fleet.write_message(&channel, 0, number, &mut lines);
            lines.push(b'\n');
        }
        std::fs::write(&part, lines).unwrap();
        let started = Instant::now();
        assert!(
            program(&["ingest", part.to_str().unwrap(), "--database", database.to_str().unwrap()])
                .status()
                .unwrap()
                .success()
        );
        rates.push(started.elapsed().as_secs_f64());
    }
    let rows: i64 = Connection::open(&database)
        .unwrap()
        .query_row("SELECT count(*) FROM processed_ranges", [], |row| row.get(0))
        .unwrap();
    let first = rates.iter().take(5).sum::<f64>();
    let second = rates.iter().skip(5).sum::<f64>();
    format!(
        "| 10,000,000 messages without message 1: rows | {rows} | | processed_ranges |\n\
         | the same: time of the second half over the first | {:.2} | | ingest in tenths |\n",
        second / first
    )
}
