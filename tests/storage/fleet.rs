//! Messages whose effects show which of them were counted, and how often.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rocket_monitor::domain::message::Message;
use rocket_monitor::store::{Database, OpenOptions, Store};
use rocket_monitor::wire::message::parse;
use testkit::message::{faster, launched_as};
use testkit::sqlite::query;

pub const CHANNELS: u32 = 7;

/// The message with this index, as JSON. Its contribution to its channel's speed is unique.
pub fn json(index: u32) -> serde_json::Value {
    let (channel, number) = identity(index);
    if number % 10 == 1 {
        return launched_as(&channel, number, "Falcon-9", speed(index), "ARTEMIS");
    }
    faster(&channel, number, speed(index))
}

pub fn message(index: u32) -> Message {
    parse(Bytes::from(json(index).to_string())).unwrap()
}

fn identity(index: u32) -> (String, u32) {
    (format!("c{}", index % CHANNELS), index / CHANNELS + 1)
}

fn speed(index: u32) -> i32 {
    1_000 + index as i32
}

/// Messages, each about ten places from its position, some of them twice.
pub fn arrivals(messages: u32, random: &mut StdRng) -> Vec<u32> {
    let mut order: Vec<u32> = (0..messages).collect();
    order.chunks_mut(20).for_each(|chunk| chunk.shuffle(random));
    let copies: Vec<(usize, u32)> = (0..messages / 10)
        .map(|_| (random.random_range(0..order.len()), random.random_range(0..messages)))
        .collect();
    copies.into_iter().for_each(|(at, copy)| order.insert(at, copy));
    order
}

/// The problems of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that were acknowledged and are missing.
    pub lost: Vec<u32>,
    /// Channels whose speed is not the sum of the contributions of their processed messages.
    pub miscounted: Vec<String>,
    /// Messages that are stored but were never sent.
    pub invented: usize,
    /// Why it can't be opened, or what the audit found.
    pub damage: Vec<String>,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        *self == Self::default()
    }
}

/// Opens a database as the program does, and compares it with what was acknowledged and sent.
pub fn judge(path: &Path, acknowledged: impl IntoIterator<Item = u32>, sent: u32) -> Verdict {
    let mut verdict = Verdict::default();
    let store = match Store::open(&Database::File(path.to_owned()), &OpenOptions::default()) {
        Ok(store) => store,
        Err(error) => {
            verdict.damage.push(error.to_string());
            verdict.lost.extend(acknowledged);
            return verdict;
        }
    };
    let checked = store.check(&mut |finding| verdict.damage.push(format!("{finding:?}")));
    verdict.damage.extend(checked.err().map(|error| error.to_string()));
    if !verdict.damage.is_empty() {
        verdict.lost.extend(acknowledged);
        return verdict;
    }
    let mut there = vec![false; sent as usize];
    let mut speeds: BTreeMap<String, i64> = BTreeMap::new();
    for row in query(path, "SELECT channel, first_msg, last_msg FROM processed_ranges") {
        let [channel, first, last] = &row[..] else { panic!("{row:?}") };
        let channel = channel.as_str().unwrap();
        let rest: u32 = channel[1..].parse().unwrap();
        for number in first.as_u64().unwrap()..=last.as_u64().unwrap() {
            let index = (number as u32 - 1) * CHANNELS + rest;
            *speeds.entry(channel.to_owned()).or_default() += i64::from(speed(index));
            match there.get_mut(index as usize) {
                Some(there) => *there = true,
                None => verdict.invented += 1,
            }
        }
    }
    for row in query(path, "SELECT channel, speed FROM rockets") {
        let channel = row[0].as_str().unwrap();
        if speeds.get(channel).copied() != row[1].as_i64() {
            verdict.miscounted.push(channel.to_owned());
        }
    }
    verdict.lost.extend(acknowledged.into_iter().filter(|index| !there[*index as usize]));
    verdict
}
