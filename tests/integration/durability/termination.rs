//! SIGTERM under full load, with streams of lines and events in progress: the service ends cleanly
//! and in time, and answers every request that it accepted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::client::Client;
use testkit::events::Events;
use testkit::faults;
use testkit::message::{faster, launched};
use testkit::postgres::{self, TestDatabase};
use testkit::process::{Service, program, run};
use testkit::sqlite::query;
use testkit::wait::eventually;

const CLIENTS: u64 = 24;
const STREAMS: u64 = 3;
const FOLLOWERS: usize = 4;

/// What each channel's sender was told is stored: exactly that must be stored.
type Told = Vec<(String, u64)>;

/// Posts until the connection ends. Returns how many were acknowledged.
fn post(service: &Service, channel: &str, answered: &AtomicU64) -> u64 {
    let mut client = Client::new(service.address);
    for number in 1.. {
        let message = faster(channel, number, 1).to_string();
        match client.request("POST", "/messages", &[], message.as_bytes()) {
            Ok(answer) if answer.status == 204 => drop(answered.fetch_add(1, Ordering::SeqCst)),
            Ok(answer) => {
                answer.problem(503);
                return u64::from(number) - 1;
            }
            // Nothing of it was read.
            Err(_) => return u64::from(number) - 1,
        }
    }
    unreachable!()
}

/// Sends lines without end. Returns how many of them are stored according to the response.
fn stream(service: &Service, channel: &str) -> u64 {
    let mut client = Client::new(service.address);
    let head = "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/jsonl\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    client.send(head.as_bytes()).unwrap();
    for number in 1.. {
        let line = faster(channel, number, 1).to_string() + "\n";
        // After the response, the rest may not be read any more.
        if client.send(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).is_err()
            || client.has_answer()
        {
            break;
        }
    }
    let answer = client.answer(false).unwrap();
    let problem = answer.problem(503);
    problem["applied"].as_u64().unwrap()
}

/// Runs a service until it is terminated in the middle of its work. Returns what its clients were
/// told, and how long the end took.
fn terminate(database: &str, round: u64, random: &mut StdRng) -> (Told, Duration) {
    let mut service = Service::start(database);
    assert_eq!(
        Client::new(service.address).post(&launched(&format!("first {round}"), 1)).status,
        204
    );
    let mut followers: Vec<Events> =
        (0..FOLLOWERS).map(|_| Events::open(service.address, "", None)).collect();
    let wanted = random.random_range(200..1_000);
    let answered = AtomicU64::new(0);
    let told: Told = std::thread::scope(|scope| {
        let (service, answered) = (&service, &answered);
        let posting = (0..CLIENTS).map(|client| {
            let channel = format!("post {round} {client}");
            scope.spawn(move || (channel.clone(), post(service, &channel, answered)))
        });
        let streaming = (0..STREAMS).map(|client| {
            let channel = format!("stream {round} {client}");
            scope.spawn(move || (channel.clone(), stream(service, &channel)))
        });
        let clients: Vec<_> =
            posting.collect::<Vec<_>>().into_iter().chain(streaming.collect::<Vec<_>>()).collect();
        eventually("enough are answered", || answered.load(Ordering::SeqCst) >= wanted);
        service.ask_to_end();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let asked = Instant::now();
    assert!(service.child.wait().unwrap().success());
    // They end, but not in the middle of an event.
    followers.iter_mut().for_each(|events| while events.next().is_some() {});
    (told, asked.elapsed())
}

fn ends_well(database: &str, processed: impl Fn(&str) -> u64) -> u64 {
    let mut random = StdRng::seed_from_u64(1);
    let times = faults::times(3, 50);
    let (mut messages, mut slowest) = (0, Duration::ZERO);
    for round in 0..times {
        let (told, took) = terminate(database, round, &mut random);
        assert!(took < Duration::from_secs(10), "{took:?}");
        slowest = slowest.max(took);
        for (channel, stored) in told {
            assert_eq!(
                processed(&channel),
                stored,
                "{channel}: what was taken is answered, what is answered is stored"
            );
            messages += stored;
        }
        assert_eq!(run(&["check", "--database", database]).status.code(), Some(0));
    }
    faults::row(
        &format!(
            "SIGTERM under full load ({})",
            if database.starts_with("postgres") { "Postgres" } else { "SQLite" }
        ),
        format!(
            "{times} times, {CLIENTS} clients, {STREAMS} endless bodies, {FOLLOWERS} event \
             streams, {messages} messages"
        ),
        format!(
            "exit 0 each time, at most {} ms after the last response; accepted but unanswered 0",
            slowest.as_millis()
        ),
    );
    messages
}

#[test]
fn it_ends_well_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let processed = |channel: &str| {
        let rows =
            query(&database, &format!("SELECT processed FROM rockets WHERE channel = '{channel}'"));
        rows.first().map_or(0, |row| row[0].as_u64().unwrap())
    };
    assert!(ends_well(database.to_str().unwrap(), processed) > 0);
}

#[test]
fn it_ends_well_on_postgres() {
    let database = TestDatabase::create();
    let processed = |channel: &str| {
        let sql = format!("SELECT processed FROM rockets WHERE channel = '{channel}'");
        postgres::query(&database.url, &sql)
            .first()
            .map_or(0, |row| row["processed"].as_u64().unwrap())
    };
    assert!(ends_well(&database.url, processed) > 0);
}

#[test]
fn a_service_whose_log_nobody_reads_anymore_ends_well() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let mut serve =
        program(&["serve", "--listen", "127.0.0.1:0", "--database", database.to_str().unwrap()]);
    let mut child = serve.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"listening\"") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the service ended");
    }
    drop(log);
    assert!(
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success()
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    // This doesn't affect a process that has ended.
    child.kill().unwrap();
    assert!(child.wait().unwrap().success());
}
