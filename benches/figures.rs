//! The project's figures: each is a ratio against a yardstick that is measured in turn in the same run, for a machine's
//! speed drifts more than what is compared. `./run bench` prints them all, `./run bench post pages` some.
//!
//! The load generator runs on the same machine as what it loads: it writes prepared requests to keep-alive
//! connections and reads just enough of the answers. What is posted is measured with wrk too, if it is installed.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "../tests/integration/postgres.rs"]
mod postgres;

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use rocket_monitor::domain::parse::parse;
use rocket_monitor::fleet::Fleet;
use rusqlite::{Connection, params};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Measures in a directory of its own, and gives rows of the table.
type Figure = fn(&Path) -> String;

/// Tells the program to be the yardstick server.
const CEILING: &str = "ROCKET_MONITOR_BENCH_CEILING";
/// Tells the program to read the events of the service at this address.
const READERS_OF: &str = "ROCKET_MONITOR_BENCH_READERS_OF";
const CONNECTIONS: usize = 64;
const PAIRS: usize = 5;
/// How many requests a run of a pair makes.
const REQUESTS: usize = 100_000;

fn main() {
    if std::env::var_os(CEILING).is_some() {
        ceiling();
        return;
    }
    if let Ok(address) = std::env::var(READERS_OF) {
        read_events(&address);
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let figures: [(&str, Figure); 7] = [
        ("post", post),
        ("ingest", ingest),
        ("headless", headless),
        ("get", get),
        ("pages", pages),
        ("events", events),
        ("postgres", on_postgres),
    ];
    println!("| figure | median | lowest to highest | how |\n|---|---|---|---|");
    for (name, figure) in figures {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            let directory = tempfile::tempdir().unwrap();
            print!("{}", figure(directory.path()));
            std::io::stdout().flush().unwrap();
        }
    }
}

/// 1,000 channels, 10% duplicates, displaced by up to 20.
fn fleet(messages: u64) -> Fleet {
    Fleet { seed: 1, rockets: 1_000, messages, duplicate_percent: 10.0, displacement: 20 }
}

// ---------------------------------------------------------------------------------------------------------------------
// The figures

fn post(directory: &Path) -> String {
    let (ours, ceiling) = (Server::ours(directory), Server::ceiling());
    let mut requests = post_requests(fleet(2 * (PAIRS as u64 + 1) * REQUESTS as u64));
    let ratios = pairs(|measured| {
        let batch: Vec<Vec<u8>> = requests.by_ref().take(REQUESTS).collect();
        drive(if measured { ours.address } else { ceiling.address }, &batch)
    });
    row("durable POST, 64 connections, of the ceiling", &ratios) + &post_by_wrk(directory)
}

/// The same by wrk, a load generator that many know (Debian has it). It takes more of the machine than ours, which takes
/// hardly more than the system calls.
fn post_by_wrk(directory: &Path) -> String {
    const SECONDS: u64 = 2;
    let what = "the same by wrk";
    if Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return format!("| {what} | | | wrk is not installed |\n");
    }
    let directory = directory.join("wrk");
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("messages.ndjson");
    // More than any run can send, so that none starts again from its first message.
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
            // The next run goes on where this one ended.
            skip += tells(" requests in ") as usize;
        }
        tells("Requests/sec:")
    });
    row(what, &ratios)
}

fn get(directory: &Path) -> String {
    let (ours, ceiling) = (Server::ours(directory), Server::ceiling());
    let fleet = fleet(20_000);
    let messages: Vec<_> = post_requests(fleet).collect();
    drive(ours.address, &messages);
    let gets: Vec<_> = (0..REQUESTS)
        .map(|index| get_request(&format!("/rockets/{}", fleet.channel((index % 1_000) as u32))))
        .collect();
    let posts: Vec<_> = post_requests(fleet).cycle_to(REQUESTS);
    let ratios = pairs(|measured| if measured { drive(ours.address, &gets) } else { drive(ceiling.address, &posts) });
    row("GET /rockets/{channel}, 64 connections, of the ceiling", &ratios)
}

fn ingest(directory: &Path) -> String {
    let fleet = fleet(1_000_000);
    let file = directory.join("messages.ndjson");
    write_file(&file, fleet);
    let keys: Vec<(String, u32)> = fleet.arrivals().map(|(rocket, number)| (fleet.channel(rocket), number)).collect();
    let database = directory.join("rockets.db");
    let ratios = pairs(|measured| {
        if measured {
            remove_database(&database);
            let started = Instant::now();
            let status =
                program(&["ingest", file.to_str().unwrap(), "--database", database.to_str().unwrap()]).status();
            assert!(status.unwrap().success());
            keys.len() as f64 / started.elapsed().as_secs_f64()
        } else {
            keys.len() as f64 / bare_keys(&directory.join("keys.db"), &keys)
        }
    });
    let mut table = row("ingest of 1,000,000 messages, of SQLite taking bare keys", &ratios);
    let size = std::fs::metadata(&database).unwrap().len() / 1024;
    writeln!(table, "| database after them | {size} KiB | | 1,000 rockets, no gaps |").unwrap();
    table
}

/// A channel whose message 1 never comes.
fn headless(directory: &Path) -> String {
    let fleet = Fleet { seed: 2, rockets: 1, messages: 1_000_001, duplicate_percent: 0.0, displacement: 0 };
    let (database, part) = (directory.join("rockets.db"), directory.join("part.ndjson"));
    let channel = fleet.channel(0);
    let mut rates = Vec::new();
    for tenth in 0..10 {
        let mut lines = Vec::new();
        for number in tenth * 100_000 + 2..=(tenth + 1) * 100_000 + 1 {
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
        "| 1,000,000 messages without message 1: rows | {rows} | | processed_ranges |\n\
         | the same: time of the second half over the first | {:.2} | | ingest in tenths |\n",
        second / first
    )
}

fn pages(directory: &Path) -> String {
    const ROCKETS: u32 = 100_000;
    let fleet = Fleet { seed: 3, rockets: ROCKETS, messages: 300_000, duplicate_percent: 0.0, displacement: 3 };
    let file = directory.join("messages.ndjson");
    write_file(&file, fleet);
    let database = directory.join("rockets.db");
    assert!(
        program(&["ingest", file.to_str().unwrap(), "--database", database.to_str().unwrap()])
            .status()
            .unwrap()
            .success()
    );
    let (ours, ceiling) = (Server::ours(directory), Server::ceiling());
    let posts: Vec<_> = post_requests(self::fleet(REQUESTS as u64)).cycle_to(REQUESTS);
    let mut table = String::new();
    for sort in ["latestUpdate", "channel", "type", "speed", "mission", "status"] {
        let first = format!("/rockets?sort={sort}");
        let last = last_page(ours.address, &first);
        let repeat = |path: &str| vec![get_request(path); 4_000];
        let of_ceiling =
            pairs(
                |measured| {
                    if measured { drive(ours.address, &repeat(&first)) } else { drive(ceiling.address, &posts) }
                },
            );
        table += &row(&format!("page 1 by {sort}, 100,000 rockets, of the ceiling"), &of_ceiling);
        let (first, last) = (repeat(&first), repeat(&last));
        let times = pairs(|measured| if measured { drive(ours.address, &first) } else { drive(ours.address, &last) });
        table += &row(&format!("page 1,000 by {sort}: its time over page 1's"), &times);
    }
    table
}

/// One message a transaction, as a service without group commit would do it: its key, and the rocket's guarded row.
const ONE_AT_A_TIME: &str = "\\set rocket random(1, 1000)
\\set number random(1, 2000000000)
BEGIN;
INSERT INTO keys VALUES ('193270a9-c9cf-404a-8f83-' || :rocket, :number) ON CONFLICT DO NOTHING;
INSERT INTO rockets (channel, speed, mission, latest_mission_msg, latest_update)
VALUES ('193270a9-c9cf-404a-8f83-' || :rocket, 5, 'ARTEMIS', :number, now())
ON CONFLICT (channel) DO UPDATE SET
    speed = rockets.speed + excluded.speed,
    latest_update = greatest(rockets.latest_update, excluded.latest_update),
    mission = CASE WHEN excluded.latest_mission_msg > rockets.latest_mission_msg
                   THEN excluded.mission ELSE rockets.mission END,
    latest_mission_msg = greatest(rockets.latest_mission_msg, excluded.latest_mission_msg);
COMMIT;
";

fn on_postgres(directory: &Path) -> String {
    let cluster = postgres::Cluster::start_with("-c shared_buffers=512MB -c max_wal_size=4GB");
    postgres::execute(&cluster.url("postgres"), "CREATE DATABASE rockets");
    postgres::execute(&cluster.url("postgres"), "CREATE DATABASE yardstick");
    let tables = "CREATE TABLE keys (channel text, number bigint, PRIMARY KEY (channel, number));
                  CREATE TABLE rockets (channel text PRIMARY KEY, speed bigint, mission text, latest_mission_msg bigint,
                                        latest_update timestamptz)";
    postgres::execute(&cluster.url("yardstick"), tables);
    let script = directory.join("one-at-a-time.sql");
    std::fs::write(&script, ONE_AT_A_TIME).unwrap();
    let database = cluster.url("rockets");
    let ours = Server::start(program(&["serve", "--listen", "127.0.0.1:0", "--database", &database]));
    const POSTS: usize = 40_000;
    let mut requests = post_requests(fleet((PAIRS as u64 + 1) * POSTS as u64));
    let posted = pairs(|measured| {
        if !measured {
            return pgbench(&cluster, &script);
        }
        let batch: Vec<Vec<u8>> = requests.by_ref().take(POSTS).collect();
        drive(ours.address, &batch)
    });
    let mut seed = 100;
    let streamed = pairs(|measured| {
        if !measured {
            return pgbench(&cluster, &script);
        }
        seed += 1;
        let file = directory.join("messages.ndjson");
        write_file(&file, Fleet { seed, ..fleet(1_000_000) });
        let started = Instant::now();
        let mut answer = String::new();
        stream_lines(ours.address, &file, &mut answer);
        assert!(answer.contains("\"applied\":1000000"), "{answer}");
        1_100_000.0 / started.elapsed().as_secs_f64()
    });
    row("durable POST on Postgres, 64 connections, of pgbench's one at a time", &posted)
        + &row("lines over HTTP into Postgres, 1,000,000 messages, of the same", &streamed)
}

/// What readers of events cost ingestion: rates with a hundred of them, one of which never reads, over rates without.
fn events(directory: &Path) -> String {
    const READERS: usize = 100;
    let databases = ["followed", "alone"].map(|name| directory.join(name));
    let [followed, alone] = databases.map(|folder| {
        std::fs::create_dir(&folder).unwrap();
        Server::ours(&folder)
    });
    let mut readers = readers(followed.address, READERS);
    let mut requests = post_requests(fleet(4 * (PAIRS as u64 + 1) * REQUESTS as u64));
    let mut rate = |measured: bool, count: usize, a_second: Option<usize>| {
        let batch: Vec<Vec<u8>> = requests.by_ref().take(count).collect();
        let address = if measured { followed.address } else { alone.address };
        let Some(a_second) = a_second else { return drive(address, &batch) };
        // A hundred parts a second, each of which has to be answered before the next.
        let part = a_second / 100;
        let (started, mut wait) = (Instant::now(), Duration::ZERO);
        for (index, part) in batch.chunks(part).enumerate() {
            let due = Duration::from_millis(10) * u32::try_from(index).unwrap();
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            let sent = Instant::now();
            drive(address, part);
            wait += sent.elapsed();
        }
        // How fast the parts were taken, which is what their senders see.
        count as f64 / wait.as_secs_f64()
    };
    let paced = pairs(|measured| rate(measured, 30_000, Some(10_000)));
    let full = pairs(|measured| rate(measured, REQUESTS, None));
    readers.kill().unwrap();
    readers.wait().unwrap();
    row("10,000 changes a second beside 100 readers of events: how fast they are taken, over without readers", &paced)
        + &row("the same at full rate", &full)
}

/// A process that reads events over so many connections; the first of them never does.
fn readers(address: SocketAddr, count: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(READERS_OF, address.to_string()).arg(count.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "reading\n");
    child
}

fn read_events(address: &str) {
    let count: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let local = tokio::task::LocalSet::new();
    local.spawn_local({
        let address: SocketAddr = address.parse().unwrap();
        async move {
            let mut streams = Vec::new();
            for _ in 0..count {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                let mut buffer = vec![0; 65_536];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                streams.push((stream, buffer));
            }
            println!("reading");
            let _stalled = streams.remove(0);
            for (mut stream, mut buffer) in streams {
                tokio::task::spawn_local(
                    async move { while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} },
                );
            }
            std::future::pending::<()>().await;
        }
    });
    runtime().block_on(local);
}

/// The rate at which pgbench commits with 64 clients.
fn pgbench(cluster: &postgres::Cluster, script: &Path) -> f64 {
    let output = Command::new(postgres::programs().join("pgbench"))
        .args(["--no-vacuum", "--client=64", "--jobs=2", "--protocol=prepared", "--time=4", "--username=postgres"])
        .arg(format!("--host={}", cluster.socket().display()))
        .arg(format!("--file={}", script.display()))
        .arg("yardstick")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.unwrap_or_else(|| panic!("{said} {}", String::from_utf8_lossy(&output.stderr)))
}

/// Posts a whole file as lines.
fn stream_lines(address: SocketAddr, file: &Path, answer: &mut String) {
    use std::io::Read;
    let mut file = std::fs::File::open(file).unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = file.metadata().unwrap().len();
    write!(
        stream,
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )
    .unwrap();
    std::io::copy(&mut file, &mut stream).unwrap();
    stream.read_to_string(answer).unwrap();
}

/// The path of the last page, which is page 1,000.
fn last_page(address: SocketAddr, first: &str) -> String {
    let runtime = runtime();
    let mut path = first.to_owned();
    for page in 2.. {
        let body = runtime.block_on(async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&get_request(&path)).await.unwrap();
            let mut reader = AnswerReader::default();
            reader.read(&mut stream).await;
            reader.body
        });
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let Some(cursor) = json["nextCursor"].as_str() else {
            assert_eq!(page, 1_001);
            return path;
        };
        path = format!("{first}&cursor={cursor}");
    }
    unreachable!()
}

// ---------------------------------------------------------------------------------------------------------------------
// Measuring

/// Runs both sides of a pair in turn, and gives the ratios. One pair before them warms up.
fn pairs(mut rate: impl FnMut(bool) -> f64) -> Vec<(f64, f64, f64)> {
    let mut pairs = Vec::new();
    for pair in 0..=PAIRS {
        // Whoever comes second may find the machine in another state: the order alternates.
        let (measured, yardstick) = if pair % 2 == 0 {
            let measured = rate(true);
            (measured, rate(false))
        } else {
            let yardstick = rate(false);
            (rate(true), yardstick)
        };
        if pair > 0 {
            pairs.push((measured / yardstick, measured, yardstick));
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    pairs
}

fn row(what: &str, pairs: &[(f64, f64, f64)]) -> String {
    let (median, measured, yardstick) = pairs[pairs.len() / 2];
    let (lowest, highest) = (pairs[0].0, pairs[pairs.len() - 1].0);
    format!(
        "| {what} | {median:.3} | {lowest:.3} to {highest:.3} | {measured:.0}/s over {yardstick:.0}/s, {PAIRS} pairs |\n"
    )
}

/// Sends every request once over all connections, and gives the rate at which they were answered.
fn drive(address: SocketAddr, requests: &[Vec<u8>]) -> f64 {
    let next = Rc::new(Cell::new(0));
    let requests: Rc<[Vec<u8>]> = requests.into();
    let local = tokio::task::LocalSet::new();
    let runtime = runtime();
    let streams: Vec<_> = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        streams
    });
    let started = Instant::now();
    for mut stream in streams {
        let (next, requests) = (Rc::clone(&next), Rc::clone(&requests));
        local.spawn_local(async move {
            let mut reader = AnswerReader::default();
            while let Some(request) = requests.get(next.replace(next.get() + 1)) {
                stream.write_all(request).await.unwrap();
                reader.read(&mut stream).await;
            }
        });
    }
    runtime.block_on(local);
    requests.len() as f64 / started.elapsed().as_secs_f64()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Reads answers off a connection that has one request under way at a time.
#[derive(Default)]
struct AnswerReader {
    read: Vec<u8>,
    body: Vec<u8>,
}

impl AnswerReader {
    async fn read(&mut self, stream: &mut TcpStream) {
        self.read.clear();
        let head = loop {
            assert!(stream.read_buf(&mut self.read).await.unwrap() > 0, "the connection was closed");
            if let Some(end) = memchr::memmem::find(&self.read, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.read[..head]).unwrap();
        assert!(text.starts_with("HTTP/1.1 20"), "{text}");
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |it| it.parse().unwrap());
        while self.read.len() < head + length {
            assert!(stream.read_buf(&mut self.read).await.unwrap() > 0, "the connection was closed");
        }
        self.body = self.read.split_off(head);
    }
}

fn get_request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

fn post_requests(fleet: Fleet) -> impl Iterator<Item = Vec<u8>> {
    let channels: Vec<String> = (0..fleet.rockets).map(|rocket| fleet.channel(rocket)).collect();
    fleet.arrivals().map(move |(rocket, number)| {
        let mut json = Vec::with_capacity(256);
        fleet.write_message(&channels[rocket as usize], rocket, number, &mut json);
        let mut request = Vec::with_capacity(384);
        let length = json.len();
        write!(request, "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n").unwrap();
        request.extend(json);
        request
    })
}

trait CycleTo: Iterator<Item = Vec<u8>> + Sized {
    /// So many items, from the start again when there are too few.
    fn cycle_to(self, count: usize) -> Vec<Vec<u8>> {
        let items: Vec<_> = self.take(count).collect();
        (0..count).map(|index| items[index % items.len()].clone()).collect()
    }
}

impl<I: Iterator<Item = Vec<u8>>> CycleTo for I {}

fn write_file(path: &Path, fleet: Fleet) {
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    let channels: Vec<String> = (0..fleet.rockets).map(|rocket| fleet.channel(rocket)).collect();
    let mut line = Vec::new();
    for (rocket, number) in fleet.arrivals() {
        line.clear();
        fleet.write_message(&channels[rocket as usize], rocket, number, &mut line);
        line.push(b'\n');
        file.write_all(&line).unwrap();
    }
    file.flush().unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Yardsticks and servers

/// SQLite taking the keys alone in one transaction; the seconds that it takes.
fn bare_keys(path: &Path, keys: &[(String, u32)]) -> f64 {
    remove_database(path);
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE keys (channel TEXT, number INTEGER, PRIMARY KEY (channel, number)) STRICT, WITHOUT ROWID;",
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

fn remove_database(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        // It may not be there.
        let _ = std::fs::remove_file(PathBuf::from(file));
    }
}

/// An actix-web server that parses the same message and stores nothing.
fn ceiling() {
    async fn parse_only(body: web::Bytes) -> HttpResponse {
        match parse(body) {
            Ok(message) => {
                std::hint::black_box(message);
                HttpResponse::NoContent().finish()
            }
            Err(_) => HttpResponse::UnprocessableEntity().finish(),
        }
    }
    let served = actix_web::rt::System::new().block_on(async {
        let server =
            HttpServer::new(|| App::new().route("/messages", web::post().to(parse_only))).bind("127.0.0.1:0").unwrap();
        eprintln!(r#"{{"message":"listening","address":"{}"}}"#, server.addrs()[0]);
        server.run().await
    });
    served.unwrap();
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rocket-monitor"));
    command.args(args).stdout(Stdio::null());
    command
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn ours(directory: &Path) -> Self {
        let database = directory.join("rockets.db");
        Self::start(program(&["serve", "--listen", "127.0.0.1:0", "--database", database.to_str().unwrap()]))
    }

    fn ceiling() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(CEILING, "1");
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let deadline = Instant::now() + Duration::from_secs(30);
        let address = loop {
            let line = log.next().expect("the server ended").unwrap();
            assert!(Instant::now() < deadline, "the server did not start");
            let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if json["message"] == "listening" {
                break json["address"].as_str().unwrap().parse().unwrap();
            }
        };
        // The rest of the log goes where people see it.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
