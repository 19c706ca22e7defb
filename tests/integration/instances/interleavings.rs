//! Writers of several instances on one Postgres, interleaved by a seeded scheduler: no update is
//! lost, and no message counts twice.
//!
//! Each writer commits its batches with the program's real statements. It stops at each
//! [`FailurePoint`] until it is its turn; some fail there, and send their batch again. A writer
//! that is not at a point must be waiting for another one's lock, as reported by the server, so the
//! scheduler always knows when all are blocked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rocket_monitor::domain::batch::Outcome;
use rocket_monitor::domain::message::Message;
use rocket_monitor::domain::text::Channel;
use rocket_monitor::domain::timestamp::Timestamp;
use rocket_monitor::store::fault_injection::{FailurePoint, Failures};
use rocket_monitor::store::{Database, OpenOptions, Store, StoreError};
use rocket_monitor::wire::message::parse;
use testkit::faults;
use testkit::message::{Event, Sent};
use testkit::oracle::Oracle;
use testkit::postgres::{Session, TestDatabase, execute, query};
use testkit::wait::DEADLINE;

const WRITERS: usize = 4;
const BATCHES: usize = 4;
/// Few enough channels and numbers that batches share most of both.
const CHANNELS: u32 = 3;
const NUMBERS: u32 = 12;

/// The message of a channel with this number, which is always the same.
fn sent(channel: u32, number: u32) -> Sent {
    let event = match number % 5 {
        0 => Event::Launched(format!("T{number}"), 100, format!("M{number}")),
        1 => Event::Mission(format!("M{number}")),
        2 => Event::Exploded(format!("R{number}")),
        _ => Event::Faster(1 << (number % 30)),
    };
    Sent { channel: format!("c{channel}"), number, micros: number * 3 % 50, event }
}

fn message(&(channel, number): &(u32, u32)) -> Message {
    parse(Bytes::from(sent(channel, number).json().to_string())).unwrap()
}

/// The state of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Between points, or waiting for a lock.
    Work,
    Point(FailurePoint),
    /// It may continue, or fail.
    Told {
        fails: bool,
    },
    End,
}

#[derive(Default)]
struct Scheduler {
    places: Mutex<HashMap<usize, At>>,
    changed: Condvar,
}

impl Scheduler {
    fn set(&self, writer: usize, at: At) {
        self.places.lock().unwrap().insert(writer, at);
        self.changed.notify_all();
    }

    /// Called by a writer at a point: waits for its turn. Returns whether to fail.
    fn reach(&self, writer: usize, point: FailurePoint) -> bool {
        self.set(writer, At::Point(point));
        let mut places = self.places.lock().unwrap();
        loop {
            if let At::Told { fails } = places[&writer] {
                places.insert(writer, At::Work);
                return fails;
            }
            places = self.changed.wait(places).unwrap();
        }
    }

    /// Schedules the writers until all have ended. Returns the number of turns.
    fn run(&self, database: &TestDatabase, random: &mut StdRng) -> u64 {
        let mut monitor = Session::open(&database.url);
        let mut turns = 0;
        loop {
            let waiting = self.wait_until_quiet(&mut monitor);
            let Some((writer, point)) = waiting.choose(random).copied() else { return turns };
            // A failure here must leave nothing, or everything.
            let fails = random.random_bool(0.05) && point != FailurePoint::BeforeLoad;
            self.set(writer, At::Told { fails });
            turns += 1;
        }
    }

    /// Waits until each writer is at a point, waits for a lock, or has ended. Returns those at a
    /// point; none if all have ended.
    fn wait_until_quiet(&self, monitor: &mut Session) -> Vec<(usize, FailurePoint)> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(
                Instant::now() < deadline,
                "the writers hang: {:?}",
                self.places.lock().unwrap()
            );
            let places = self.places.lock().unwrap();
            let under_way =
                places.values().filter(|at| matches!(at, At::Work | At::Told { .. })).count();
            let mut waiting: Vec<_> =
                places
                    .iter()
                    .filter_map(|(writer, at)| {
                        if let At::Point(point) = at { Some((*writer, *point)) } else { None }
                    })
                    .collect();
            if under_way == 0 {
                waiting.sort_by_key(|(writer, _)| *writer);
                return waiting;
            }
            // Most reach a point soon.
            let (places, _) = self.changed.wait_timeout(places, Duration::from_millis(1)).unwrap();
            drop(places);
            let locked = monitor.count("SELECT count(*) FROM pg_locks WHERE NOT granted");
            let places = self.places.lock().unwrap();
            let still_under_way =
                places.values().filter(|at| matches!(at, At::Work | At::Told { .. })).count();
            if still_under_way == under_way && locked == under_way && !waiting.is_empty() {
                waiting.sort_by_key(|(writer, _)| *writer);
                return waiting;
            }
        }
    }
}

/// What the commits of one message returned.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    applied: u32,
    duplicates: u32,
    /// Committed, but reported as failed.
    unknown: u32,
}

type Tallies = BTreeMap<(u32, u32), Tally>;

/// Commits random batches of one writer, and repeats each until it succeeds.
fn write(store: &Store, scheduler: &Scheduler, writer: usize, seed: u64, tallies: &Mutex<Tallies>) {
    let mut random = StdRng::seed_from_u64(seed * 100 + writer as u64);
    let mut connection = store.writer().unwrap();
    for _ in 0..BATCHES {
        let count = random.random_range(1..8);
        let identities: Vec<(u32, u32)> = (0..count)
            .map(|_| (random.random_range(0..CHANNELS), random.random_range(1..=NUMBERS)))
            .collect();
        let messages: Vec<_> = identities.iter().map(message).collect();
        loop {
            let now = Timestamp::from_system_time(SystemTime::now());
            match connection.commit(&messages, now) {
                Ok(outcomes) => {
                    let mut tallies = tallies.lock().unwrap();
                    for (identity, outcome) in identities.iter().zip(outcomes) {
                        let tally = tallies.entry(*identity).or_default();
                        match outcome {
                            Outcome::Applied => tally.applied += 1,
                            Outcome::Duplicate => tally.duplicates += 1,
                        }
                    }
                    break;
                }
                Err(StoreError::Injected(point)) => {
                    if point == "after the commit" {
                        let mut tallies = tallies.lock().unwrap();
                        identities.iter().for_each(|identity| {
                            tallies.entry(*identity).or_default().unknown += 1
                        });
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    scheduler.set(writer, At::End);
}

/// Asserts that the database equals the fold of the messages.
fn is_the_fold(database: &TestDatabase, tallies: &Tallies) {
    for (identity, tally) in tallies {
        let may_have_been_told_of_a_failure = tally.unknown > 0 && tally.applied == 0;
        assert!(tally.applied == 1 || may_have_been_told_of_a_failure, "{identity:?} {tally:?}");
    }
    let all: Vec<Sent> = tallies.keys().map(|(channel, number)| sent(*channel, *number)).collect();
    let oracle = Oracle::of(&all);
    let rows = query(&database.url, "SELECT * FROM rockets ORDER BY channel");
    assert_eq!(rows.len(), oracle.channels().count());
    for (row, channel) in rows.iter().zip(oracle.channels()) {
        let expected = oracle.rocket(channel, false);
        let same = |column: &str, member: &str| {
            assert_eq!(row[column], expected[member], "{channel} {column}")
        };
        for (column, member) in [
            ("channel", "channel"),
            ("status", "status"),
            ("type", "type"),
            ("speed", "speed"),
            ("mission", "mission"),
            ("exploded_reason", "explodedReason"),
            ("latest_mission_msg", "latestMissionMessage"),
            ("latest_exploded_msg", "latestExplodedMessage"),
        ] {
            same(column, member);
        }
        let messages = &expected["messages"];
        for (column, member) in [
            ("processed", "processed"),
            ("complete_through", "completeThrough"),
            ("highest", "highest"),
        ] {
            assert_eq!(row[column], messages[member], "{channel} {column}");
        }
        let ranges = query(
            &database.url,
            &format!(
                "SELECT first_msg, last_msg FROM processed_ranges WHERE channel = '{channel}' \
                 ORDER BY 1"
            ),
        );
        let ranges: Vec<(i64, i64)> = ranges
            .iter()
            .map(|row| (row["first_msg"].as_i64().unwrap(), row["last_msg"].as_i64().unwrap()))
            .collect();
        assert_eq!(ranges, oracle.ranges(channel));
    }
}

fn findings(store: &Store) -> Vec<String> {
    let mut findings = Vec::new();
    store.check(&mut |finding| findings.push(format!("{finding:?}"))).unwrap();
    findings
}

#[test]
fn no_interleaving_loses_an_update_or_counts_twice() {
    let database = TestDatabase::create();
    // A writer may be held at a point for longer than a statement may take.
    let url = format!(
        "{}{}statement_timeout=60",
        database.url,
        if database.url.contains('?') { '&' } else { '?' }
    );
    let scheduler = Arc::new(Scheduler::default());
    // Two instances with two writers each: they don't see each other's caches.
    let stores: Vec<Store> = (0..WRITERS)
        .map(|writer| {
            let scheduler = Arc::clone(&scheduler);
            let failures = Failures::decided_by(move |point| scheduler.reach(writer, point));
            Store::open(&url.parse().unwrap(), &OpenOptions { failures, ..OpenOptions::default() })
                .unwrap()
        })
        .collect();
    let (mut turns, mut messages) = (0, 0);
    let seeds = faults::times(25, 1_500);
    for seed in 0..seeds {
        execute(&database.url, "TRUNCATE rockets, processed_ranges");
        let tallies = Mutex::new(Tallies::new());
        let mut random = StdRng::seed_from_u64(seed);
        std::thread::scope(|scope| {
            for (writer, store) in stores.iter().enumerate() {
                scheduler.set(writer, At::Work);
                let (scheduler, tallies) = (&scheduler, &tallies);
                scope.spawn(move || write(store, scheduler, writer, seed, tallies));
            }
            turns += scheduler.run(&database, &mut random);
        });
        let tallies = tallies.into_inner().unwrap();
        is_the_fold(&database, &tallies);
        assert_eq!(findings(&stores[0]), [] as [&str; 0], "seed {seed}");
        messages += tallies
            .values()
            .map(|tally| u64::from(tally.applied + tally.duplicates + tally.unknown))
            .sum::<u64>();
    }
    faults::row(
        "writers of several instances, interleaved by a seeded scheduler (Postgres)",
        format!("{seeds} schedules of {WRITERS} writers, {turns} turns, {messages} messages"),
        "lost updates 0, counted twice 0, every audit clean",
    );
}

/// Whole batches of writers with caches, one after the other: the outcomes must equal those of a
/// plain set of the processed numbers.
fn writers_that_take_turns_are_told_what_a_set_says(stores: &[Store], seed: u64) -> u64 {
    // Far apart, so that channels have more ranges than the cache holds, and batches have several
    // windows.
    const NUMBERS: u32 = 400;
    let mut random = StdRng::seed_from_u64(seed);
    let mut writers: Vec<_> = stores.iter().map(|store| store.writer().unwrap()).collect();
    let mut processed: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let mut messages = 0;
    for _ in 0..300 {
        let chosen = random.random_range(0..writers.len());
        if random.random_bool(0.01) {
            let channel = random.random_range(0..CHANNELS);
            let there = processed.remove(&channel).is_some();
            let name = Channel::new(sent(channel, 1).channel).unwrap();
            assert_eq!(stores[chosen].forget(&name).unwrap(), there);
            continue;
        }
        let near = random.random_range(1..=NUMBERS);
        let identities: Vec<(u32, u32)> = (0..random.random_range(1..6))
            .map(|_| {
                let far = random.random_bool(0.2);
                let number = if far {
                    random.random_range(1..=NUMBERS)
                } else {
                    near + random.random_range(0..4)
                };
                (random.random_range(0..CHANNELS), number)
            })
            .collect();
        let expected: Vec<Outcome> = identities
            .iter()
            .map(|&(channel, number)| {
                let is_new = processed.entry(channel).or_default().insert(number);
                if is_new { Outcome::Applied } else { Outcome::Duplicate }
            })
            .collect();
        let batch: Vec<_> = identities.iter().map(message).collect();
        let now = Timestamp::from_system_time(SystemTime::now());
        assert_eq!(
            writers[chosen].commit(&batch, now).unwrap(),
            expected,
            "seed {seed}: {identities:?}"
        );
        messages += identities.len() as u64;
    }
    for store in stores {
        assert_eq!(findings(store), [] as [&str; 0], "seed {seed}");
    }
    messages
}

#[test]
fn writers_of_one_file_that_take_turns_are_told_what_a_set_says() {
    let (mut messages, seeds) = (0, faults::times(5, 500));
    for seed in 0..seeds {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::File(directory.path().join("rockets.db"));
        let stores: Vec<Store> =
            (0..3).map(|_| Store::open(&database, &OpenOptions::default()).unwrap()).collect();
        messages += writers_that_take_turns_are_told_what_a_set_says(&stores, seed);
    }
    turns_row("SQLite", seeds, messages);
}

#[test]
fn writers_of_one_server_that_take_turns_are_told_what_a_set_says() {
    let (mut messages, seeds) = (0, faults::times(5, 500));
    let database = TestDatabase::create();
    let open = |_| Store::open(&database.url.parse().unwrap(), &OpenOptions::default()).unwrap();
    let stores: Vec<Store> = (0..3).map(open).collect();
    for seed in 0..seeds {
        execute(&database.url, "TRUNCATE rockets, processed_ranges");
        messages += writers_that_take_turns_are_told_what_a_set_says(&stores, seed);
    }
    turns_row("Postgres", seeds, messages);
}

fn turns_row(backend: &str, seeds: u64, messages: u64) {
    faults::row(
        &format!("three writers taking turns, compared with a plain set ({backend})"),
        format!("{seeds} runs, {messages} messages"),
        "every outcome as expected, every audit clean",
    );
}
