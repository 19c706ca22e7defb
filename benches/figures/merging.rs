//! Figures of exports and merges.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use rocket_monitor::simulator::Fleet;
use testkit::postgres;

use crate::input::write_file;
use crate::measure::{pairs, times_row};
use crate::servers::{peak_kib, program};
use crate::yardsticks::remove_database;

/// 1,000 rockets with 1,000 messages each, of which ten are lost.
const GAPS: Fleet =
    Fleet { seed: 5, rockets: 1_000, messages: 1_000_000, lossy_percent: 1.0, ..ONCE };
/// 1,000,000 rockets with three messages each.
const MANY: Fleet = Fleet { seed: 6, rockets: 1_000_000, messages: 3_000_000, ..ONCE };
const ONCE: Fleet = Fleet {
    seed: 0,
    rockets: 0,
    messages: 0,
    duplicate_percent: 0.0,
    lossy_percent: 0.0,
    displacement: 20,
};

/// A database to merge into. Each measurement creates a new one.
enum Target<'t> {
    File(&'t Path),
    Postgres(&'t postgres::Cluster),
}

impl Target<'_> {
    /// Removes the database, and returns its argument.
    fn empty(&self) -> String {
        match self {
            Self::File(path) => {
                remove_database(path);
                path.to_str().unwrap().to_owned()
            }
            Self::Postgres(cluster) => {
                let server = cluster.url("postgres");
                postgres::execute(&server, "DROP DATABASE IF EXISTS rockets");
                postgres::execute(&server, "CREATE DATABASE rockets");
                cluster.url("rockets")
            }
        }
    }
}

pub fn merging(directory: &Path) -> String {
    let cluster = postgres::Cluster::start_with("-c shared_buffers=512MB -c max_wal_size=4GB");
    let file = directory.join("target.db");
    let targets = [("SQLite", Target::File(&file)), ("Postgres", Target::Postgres(&cluster))];
    let mut table = String::new();
    for (what, fleet) in [
        ("1,000 rockets with 1,000 messages and 10 gaps", GAPS),
        ("1,000,000 rockets with 3 messages", MANY),
    ] {
        let files = Files::write(directory, fleet);
        table += &files.sizes_row(what);
        for (store, target) in &targets {
            table += &merge_rows(&files, fleet, store, target);
        }
    }
    table
}

struct Files {
    messages: PathBuf,
    /// The first half of them, of each rocket.
    half: PathBuf,
    /// Of a database with all of them.
    export: PathBuf,
}

impl Files {
    fn write(directory: &Path, fleet: Fleet) -> Self {
        let path = |name: &str| directory.join(name);
        let (messages, half) = (path("messages.ndjson"), path("half.ndjson"));
        write_file(&messages, fleet);
        let lines = BufReader::new(File::open(&messages).unwrap()).lines();
        let mut file = BufWriter::new(File::create(&half).unwrap());
        for line in lines.take(fleet.messages as usize / 2) {
            writeln!(file, "{}", line.unwrap()).unwrap();
        }
        file.flush().unwrap();
        let (source, export) = (path("source.db"), path("export.ndjson"));
        remove_database(&source);
        timed("ingest", &messages, source.to_str().unwrap());
        timed("export", &export, source.to_str().unwrap());
        Self { messages, half, export }
    }

    fn sizes_row(&self, what: &str) -> String {
        let size = |path: &Path| std::fs::metadata(path).unwrap().len() / 1_024;
        let (export, messages) = (size(&self.export), size(&self.messages));
        format!(
            "| export of {what} each, of the messages as NDJSON: size | 1/{:.1} | | \
             {export} KiB of {messages} KiB |\n",
            messages as f64 / export as f64
        )
    }
}

fn merge_rows(files: &Files, fleet: Fleet, store: &str, target: &Target<'_>) -> String {
    let mut peak = 0;
    let mut time = |is_merge: bool| {
        let database = target.empty();
        timed("ingest", &files.half, &database);
        if !is_merge {
            return timed("ingest", &files.messages, &database).0;
        }
        let (seconds, kib) = timed("merge", &files.export, &database);
        peak = peak.max(kib);
        seconds
    };
    let times = if fleet.rockets < MANY.rockets {
        pairs(time)
    } else {
        // Pairs would take half an hour.
        let (merged, ingested) = (time(true), time(false));
        vec![(merged / ingested, merged, ingested)]
    };
    let what = format!("merge of it into half of the messages, over their ingest, {store}: time");
    times_row(&what, &times)
        + &format!("| the same: memory of the merge | {peak} kB | | the most that was resident |\n")
}

/// Runs a command with a file and a database. Returns the seconds that it takes, and the most
/// memory that was resident until just before its end.
fn timed(command: &str, file: &Path, database: &str) -> (f64, u64) {
    let started = Instant::now();
    let mut command = program(&[command, file.to_str().unwrap(), "--database", database]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut peak = None;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        peak = peak.max(peak_kib(&child));
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    assert!(status.success());
    (started.elapsed().as_secs_f64(), peak.unwrap())
}
