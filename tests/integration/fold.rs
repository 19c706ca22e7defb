//! The domain alone: any order, any copies and any batches give the same ranges and views, which
//! equal those of the plain in-order fold.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use rocket_monitor::domain::batch::{Batch, Outcome};
use rocket_monitor::domain::message::Message;
use rocket_monitor::domain::ranges::{Applied, ProcessedRange};
use rocket_monitor::domain::rocket::{RangeFold, RocketState, View, gaps};
use rocket_monitor::domain::summary::Summary;
use rocket_monitor::domain::timestamp::Timestamp;
use rocket_monitor::wire::message::parse;
use serde_json::{Value, json};
use testkit::message::Sent;
use testkit::oracle::{Oracle, arrivals};

fn message(sent: &Sent) -> Message {
    parse(Bytes::from(sent.json().to_string())).unwrap()
}

/// The simplest store that does what the domain says.
#[derive(Default)]
struct Model {
    ranges: BTreeMap<String, BTreeMap<i64, ProcessedRange>>,
    applied: BTreeMap<String, Applied>,
}

impl Model {
    fn commit(&mut self, messages: &[Message]) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::Duplicate; messages.len()];
        for group in Batch::new(messages).groups() {
            let channel = group.channel().to_string();
            let stored = self.ranges.entry(channel.clone()).or_default();
            let numbers: Vec<i64> = messages
                .iter()
                .filter(|message| message.channel == *group.channel())
                .map(|message| message.number.get())
                .collect();
            // The ranges that have one of the numbers, or touch it. All are in a window.
            let is_near = |range: &&ProcessedRange| {
                numbers.iter().any(|number| (range.first - 1..=range.last + 1).contains(number))
            };
            let all: Vec<_> = stored.values().cloned().collect();
            let near: Vec<_> = all.iter().filter(is_near).cloned().collect();
            assert_eq!(group.near(&all), near);
            assert!(near.iter().all(|range| group.windows().any(|window| {
                range.first <= window.last + 1 && range.last >= window.first - 1
            })));
            let joined = group.join(near, Timestamp::FIRST, &mut outcomes);
            for first in joined.removed {
                assert!(stored.remove(&first).is_some(), "{first} was not there to remove");
            }
            for range in joined.grown {
                assert!(stored.insert(range.first, range).is_some(), "it was not there to grow");
            }
            for range in joined.added {
                assert!(stored.insert(range.first, range).is_none(), "it was there already");
            }
            if let Some(new) = joined.applied {
                match self.applied.get_mut(&channel) {
                    // As a store adds it to a rocket's row.
                    Some(applied) => {
                        applied.processed += new.processed;
                        applied.highest = applied.highest.max(new.highest);
                        applied.complete_through =
                            applied.complete_through.max(new.complete_through);
                        applied.summary.combine(new.summary);
                    }
                    None => _ = self.applied.insert(channel, new),
                }
            }
        }
        outcomes
    }

    fn rocket(&self, channel: &str, view: View) -> Value {
        let ranges = &self.ranges[channel];
        let mut fold = RangeFold::default();
        ranges.values().for_each(|range| fold.add(range.clone()));
        let progress = fold.progress();
        let missing = gaps(ranges.values().map(|range| (range.first, range.last)), 100);
        let counted = json!({
            "processed": progress.processed, "completeThrough": progress.complete_through,
            "highest": progress.highest, "missing": progress.missing(),
            "exactThrough": progress.exact_through, "lost": progress.lost, "gaps": missing,
        });
        rocket_json(channel, &fold.state(view), counted)
    }
}

fn rocket_json(channel: &str, state: &RocketState, messages: Value) -> Value {
    let text = |text: &Option<rocket_monitor::domain::text::Text>| {
        json!(text.as_ref().map(|text| text.as_str()))
    };
    json!({
        "channel": channel, "status": state.status.name(), "type": text(&state.rocket_type),
        "speed": state.speed, "mission": text(&state.mission),
        "explodedReason": text(&state.exploded_reason),
        "latestMissionMessage": state.latest_mission_message,
        "latestExplodedMessage": state.latest_exploded_message,
        "latestUpdate": state.latest_update, "messages": messages,
    })
}

fn check(model: &Model, sent: &[&Sent]) -> Result<(), TestCaseError> {
    let oracle = Oracle::of(sent.iter().copied());
    for channel in oracle.channels() {
        let ranges: Vec<_> =
            model.ranges[channel].values().map(|range| (range.first, range.last)).collect();
        prop_assert_eq!(ranges, oracle.ranges(channel));
        prop_assert_eq!(model.rocket(channel, View::BestEffort), oracle.rocket(channel, false));
        prop_assert_eq!(model.rocket(channel, View::Exact), oracle.rocket(channel, true));
        // The contents of the table `rockets`: the sums of what each batch added.
        let applied = &model.applied[channel];
        let mut messages = oracle.rocket(channel, false)["messages"].clone();
        for (member, value) in [
            ("processed", applied.processed),
            ("completeThrough", applied.complete_through),
            ("highest", applied.highest),
        ] {
            messages[member] = json!(value);
        }
        let added = rocket_json(channel, &RocketState::of(Some(applied.summary.clone())), messages);
        prop_assert_eq!(added, oracle.rocket(channel, false));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_order_any_copies_any_batches_give_the_in_order_fold(batches in arrivals()) {
        let mut model = Model::default();
        let mut sent = Vec::new();
        for batch in &batches {
            let messages: Vec<_> = batch.iter().map(message).collect();
            let outcomes = model.commit(&messages);
            // In the order of arrival, the first copy counts.
            for (outcome, arrived) in outcomes.into_iter().zip(batch) {
                let is_copy = |it: &&Sent| {
                    it.channel == arrived.channel && it.number == arrived.number
                };
                let seen = sent.iter().any(is_copy);
                prop_assert_eq!(outcome, if seen { Outcome::Duplicate } else { Outcome::Applied });
                sent.push(arrived);
            }
            check(&model, &sent)?;
        }
    }

    #[test]
    fn combining_summaries_is_associative_and_commutative(
        batches in arrivals(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut numbers = std::collections::BTreeSet::new();
        let parts: Vec<Summary> = batches.iter().flatten()
            .filter(|sent| numbers.insert(sent.number))
            .map(|sent| Summary::of(&message(sent)))
            .collect();
        let combined = |parts: &[Summary]| {
            parts.iter().cloned().reduce(|mut all, part| { all.combine(part); all })
        };
        let (left, right) = parts.split_at(cut.index(parts.len()));
        let halves = [combined(left), combined(right)];
        let halves: Vec<Summary> = halves.into_iter().flatten().collect();
        let reversed: Vec<Summary> = parts.iter().rev().cloned().collect();
        prop_assert_eq!(combined(&halves), combined(&parts));
        prop_assert_eq!(combined(&reversed), combined(&parts));
    }
}
