//! The plain in-order fold that everything is compared with: it reads all messages of a channel at
//! once, sorted by number, and knows no ranges or summaries.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::message::{Event, Sent};

/// All messages that were sent, each number of a channel once, and the numbers that are declared
/// lost.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    channels: BTreeMap<String, BTreeMap<u32, Sent>>,
    lost: BTreeMap<String, BTreeSet<u32>>,
}

impl Oracle {
    pub fn of<'s>(sent: impl IntoIterator<Item = &'s Sent>) -> Self {
        let mut oracle = Self::default();
        sent.into_iter().for_each(|message| oracle.send(message));
        oracle
    }

    pub fn send(&mut self, message: &Sent) {
        let numbers = self.channels.entry(message.channel.clone()).or_default();
        numbers.entry(message.number).or_insert(message.clone());
    }

    /// Declares numbers lost. Returns how many are newly lost.
    pub fn lose(&mut self, channel: &str, numbers: RangeInclusive<u32>) -> usize {
        let before = self.lost(channel).len();
        self.lost.entry(channel.to_owned()).or_default().extend(numbers);
        self.lost(channel).len() - before
    }

    /// Withdraws that numbers are lost. Returns how many no longer are.
    pub fn withdraw(&mut self, channel: &str, numbers: RangeInclusive<u32>) -> usize {
        let before = self.lost(channel).len();
        let lost = self.lost.entry(channel.to_owned()).or_default();
        lost.retain(|number| !numbers.contains(number));
        before - self.lost(channel).len()
    }

    /// The numbers that are lost: declared, and not sent.
    fn lost(&self, channel: &str) -> BTreeSet<u32> {
        let declared = self.lost.get(channel).into_iter().flatten().copied();
        declared.filter(|number| !self.channels[channel].contains_key(number)).collect()
    }

    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.channels.keys().map(String::as_str)
    }

    /// The number of distinct messages of a channel.
    pub fn numbers(&self, channel: &str) -> usize {
        self.channels[channel].len()
    }

    /// The expected response of GET /rockets/{channel}, without `lastReceived`.
    pub fn rocket(&self, channel: &str, exact: bool) -> Value {
        let all = &self.channels[channel];
        let numbers: BTreeSet<u32> = all.keys().copied().collect();
        let complete = (1..).take_while(|number| numbers.contains(number)).count() as u32;
        let highest = *numbers.last().unwrap();
        let lost = self.lost(channel);
        let is_settled = |number: &u32| numbers.contains(number) || lost.contains(number);
        let exact_through = (1..).take_while(is_settled).count() as u32;
        let mut rocket = json!({
            "channel": channel, "status": "awaitingLaunch", "type": null, "speed": 0,
            "mission": null, "explodedReason": null, "latestMissionMessage": null,
            "latestExplodedMessage": null, "latestUpdate": null,
            "messages": {
                "processed": numbers.len(), "completeThrough": complete, "highest": highest,
                "missing": highest as usize - numbers.len(), "exactThrough": exact_through,
                "lost": lost.len(),
                "gaps": gaps(&numbers),
            },
        });
        let mut latest: Option<String> = None;
        let mut speed = 0_i64;
        let in_view = |number: u32| !exact || number <= exact_through;
        for (number, message) in all.iter().filter(|(number, _)| in_view(**number)) {
            latest = latest.max(Some(message.time()));
            match &message.event {
                Event::Launched(rocket_type, by, mission) => {
                    speed += i64::from(*by);
                    rocket["type"] = json!(rocket_type);
                    rocket["mission"] = json!(mission);
                    rocket["latestMissionMessage"] = json!(number);
                    if rocket["status"] != "exploded" {
                        rocket["status"] = json!("launched");
                    }
                }
                Event::Faster(by) => speed += i64::from(*by),
                Event::Slower(by) => speed -= i64::from(*by),
                Event::Exploded(reason) => {
                    rocket["status"] = json!("exploded");
                    rocket["explodedReason"] = json!(reason);
                    rocket["latestExplodedMessage"] = json!(number);
                }
                Event::Mission(mission) => {
                    rocket["mission"] = json!(mission);
                    rocket["latestMissionMessage"] = json!(number);
                }
            }
        }
        rocket["speed"] = json!(speed);
        rocket["latestUpdate"] = json!(latest);
        rocket
    }

    /// The channel's numbers as ranges.
    pub fn ranges(&self, channel: &str) -> Vec<(i64, i64)> {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for number in self.channels[channel].keys().map(|number| i64::from(*number)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        ranges
    }
}

fn gaps(numbers: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut gaps = Vec::new();
    let mut below = 0;
    for number in numbers {
        if *number > below + 1 {
            gaps.push((below + 1, number - 1));
        }
        below = *number;
    }
    gaps.truncate(100);
    gaps
}

fn event() -> impl Strategy<Value = Event> {
    let speed = prop_oneof![any::<i32>(), Just(i32::MIN), Just(i32::MAX), -5..5_i32];
    prop_oneof![
        ("[A-Z]{1,3}", speed.clone(), "[a-zé🚀]{1,3}")
            .prop_map(|(a, b, c)| Event::Launched(a, b, c)),
        speed.clone().prop_map(Event::Faster),
        speed.prop_map(Event::Slower),
        "[A-Z]{1,3}".prop_map(Event::Exploded),
        "[A-Z]{1,3}".prop_map(Event::Mission),
    ]
}

/// Messages of a few channels in any order, some of them repeated, cut into batches.
pub fn arrivals() -> impl Strategy<Value = Vec<Vec<Sent>>> {
    let channel = prop_oneof![4 => Just("a"), 2 => Just("a/b %"), 1 => Just("é\u{1F680}")];
    // Close together, so that ranges join, and sometimes far away.
    let number =
        prop_oneof![8 => 1..40_u32, 2 => 60..300_u32, 1 => Just(u32::MAX), 1 => Just(u32::MAX - 1)];
    let message = (channel, number, 0..60_000_000_u32, event());
    prop::collection::vec(message, 1..80)
        .prop_map(|messages| {
            // Copies of a message are equal.
            let mut distinct = BTreeMap::new();
            let sent = messages.into_iter().map(|(channel, number, micros, event)| {
                let sent = Sent { channel: channel.to_owned(), number, micros, event };
                distinct.entry((channel, number)).or_insert(sent).clone()
            });
            sent.collect::<Vec<_>>()
        })
        .prop_flat_map(|sent| {
            let copies = prop::collection::vec(prop::sample::select(sent.clone()), 0..20);
            (Just(sent), copies)
        })
        .prop_flat_map(|(mut sent, copies)| {
            sent.extend(copies);
            let count = sent.len();
            (Just(sent).prop_shuffle(), prop::collection::vec(1..=count, 1..=count))
        })
        .prop_map(|(mut sent, cuts)| {
            let mut batches = Vec::new();
            for cut in cuts {
                let rest = sent.split_off(cut.min(sent.len()));
                batches.push(std::mem::replace(&mut sent, rest));
            }
            batches.push(sent);
            batches
        })
}
