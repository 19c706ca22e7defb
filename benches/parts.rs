//! The parts of a message's path, measured separately: parsing, folding, and one batch. `./run
//! bench parts` runs them.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rocket_monitor::domain::batch::{Batch, Outcome};
use rocket_monitor::domain::message::Message;
use rocket_monitor::domain::timestamp::Timestamp;
use rocket_monitor::simulator::Fleet;
use rocket_monitor::store::{Database, OpenOptions, Store};
use rocket_monitor::wire::message::parse;

fn main() {
    divan::main();
}

/// Messages of a thousand rockets, in their order of arrival.
fn lines(messages: u64) -> Vec<Bytes> {
    let fleet = Fleet {
        seed: 1,
        rockets: 1_000,
        messages,
        duplicate_percent: 10.0,
        lossy_percent: 0.0,
        displacement: 20,
    };
    let line = |(rocket, number)| {
        let mut json = Vec::new();
        fleet.write_message(&fleet.channel(rocket), rocket, number, &mut json);
        Bytes::from(json)
    };
    fleet.arrivals().map(line).collect()
}

fn messages(count: u64) -> Vec<Message> {
    lines(count).into_iter().map(|line| parse(line).unwrap()).collect()
}

#[divan::bench]
fn parsing(bencher: Bencher<'_, '_>) {
    let lines = lines(1_000);
    bencher.counter(ItemsCount::new(lines.len())).bench_local(|| {
        for line in &lines {
            black_box(parse(line.clone()).unwrap());
        }
    });
}

/// How long serde_json takes to read the same as untyped values.
#[divan::bench]
fn parsing_by_serde_json_as_any_value(bencher: Bencher<'_, '_>) {
    let lines = lines(1_000);
    bencher.counter(ItemsCount::new(lines.len())).bench_local(|| {
        for line in &lines {
            black_box(serde_json::from_slice::<serde_json::Value>(line).unwrap());
        }
    });
}

#[divan::bench(args = [64, 1_000, 16_000])]
fn folding(bencher: Bencher<'_, '_>, count: u64) {
    let messages = messages(count);
    let mut outcomes = vec![Outcome::Duplicate; messages.len()];
    bencher.counter(ItemsCount::new(messages.len())).bench_local(|| {
        for group in Batch::new(&messages).groups() {
            black_box(group.join(Vec::new(), Timestamp::FIRST, &mut outcomes));
        }
    });
}

/// Each batch is new to the database, which is a file.
#[divan::bench(args = [1, 64, 1_000, 16_000], sample_size = 1)]
fn one_batch(bencher: Bencher<'_, '_>, count: u64) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::File(directory.path().join("rockets.db"));
    let store = Store::open(&database, &OpenOptions::default()).unwrap();
    let mut writer = store.writer().unwrap();
    let all = messages(110 * count);
    let mut batches = all.chunks(usize::try_from(count).unwrap());
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| batches.next().unwrap())
        .bench_local_values(|batch| {
            let now = Timestamp::from_system_time(std::time::SystemTime::now());
            writer.commit(batch, now).unwrap()
        });
}
