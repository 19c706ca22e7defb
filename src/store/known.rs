//! What a writer knows of the database without asking: the processed ranges of channels that had messages lately. Most
//! messages continue what the last ones of their channel began.
//!
//! It holds as long as nobody else has changed the channel, which each engine makes sure of in its own way, in every
//! transaction, before anything relies on it. It is bounded; a writer that knows nothing is as right, only slower.

use std::collections::{HashMap, hash_map};

use crate::domain::batch::Group;
use crate::domain::ranges::{Joined, ProcessedRange};
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::Channel;

/// Of a channel with more ranges only the last ones are known.
pub(super) const MOST_RANGES: usize = 32;
/// How many channels and ranges are known at a time. One takes some 200 bytes, unless its texts are long.
const MOST_ENTRIES: usize = 65_536;

/// See the module. With the ranges of a channel goes a note of the engine's.
#[derive(Debug)]
pub(super) struct Known<N> {
    channels: HashMap<Box<str>, KnownChannel<N>>,
    /// How many channels and ranges are known.
    entries: usize,
}

#[derive(Debug)]
struct KnownChannel<N> {
    /// In ascending order, and among them every range that ends at `complete_from` or later. They share no memory with
    /// messages.
    ranges: Vec<ProcessedRange>,
    complete_from: i64,
    note: N,
}

impl<N> Default for Known<N> {
    fn default() -> Self {
        Self { channels: HashMap::default(), entries: 0 }
    }
}

impl<N> Known<N> {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.channels.clear();
        self.entries = 0;
    }

    /// A channel of which something is known.
    pub(super) fn entry(&mut self, channel: &Channel) -> Option<Entry<'_, N>> {
        let known = self.channels.get_mut(channel.as_str())?;
        Some(Entry { known, entries: &mut self.entries })
    }

    /// The notes of all channels.
    pub(super) fn notes_mut(&mut self) -> impl Iterator<Item = &mut N> {
        self.channels.values_mut().map(|known| &mut known.note)
    }

    /// Remembers a channel's ranges, in ascending order, among which is every one that ends at `complete_from` or later
    /// (0: all of them), in the place of what was known of it.
    pub(super) fn remember(
        &mut self,
        channel: &Channel,
        complete_from: i64,
        ranges: Vec<ProcessedRange>,
        note: N,
    ) -> Entry<'_, N> {
        let mut known = KnownChannel { ranges, complete_from, note };
        known.trim();
        let entries = known.entries();
        if self.entries + entries > MOST_ENTRIES {
            self.clear();
        }
        self.entries += entries;
        let known = match self.channels.entry(channel.as_str().into()) {
            hash_map::Entry::Occupied(mut there) => {
                self.entries -= there.insert(known).entries();
                there.into_mut()
            }
            hash_map::Entry::Vacant(free) => free.insert(known),
        };
        Entry { known, entries: &mut self.entries }
    }
}

/// A channel of which something is known: what it takes to rely on that and to follow a change, with one search.
pub(super) struct Entry<'k, N> {
    known: &'k mut KnownChannel<N>,
    /// Those of all channels.
    entries: &'k mut usize,
}

impl<N> Entry<'_, N> {
    /// The ranges that overlap or touch the group's windows, in ascending order; none if they are not all known.
    pub(super) fn near(&self, group: &Group<'_>) -> Option<Vec<ProcessedRange>> {
        self.known.near(group)
    }

    /// Follows a change of the channel's ranges.
    pub(super) fn change(&mut self, joined: &Joined) {
        *self.entries -= self.known.entries();
        self.known.change(joined);
        *self.entries += self.known.entries();
    }

    /// What is noted of it.
    pub(super) fn note_mut(&mut self) -> &mut N {
        &mut self.known.note
    }
}

impl<N> KnownChannel<N> {
    fn entries(&self) -> usize {
        1 + self.ranges.len()
    }

    fn near(&self, group: &Group<'_>) -> Option<Vec<ProcessedRange>> {
        let lowest = group.windows().next()?.first;
        (self.complete_from < lowest).then(|| group.near(&self.ranges))
    }

    fn change(&mut self, joined: &Joined) {
        for first in &joined.removed {
            if let Ok(place) = self.ranges.binary_search_by_key(first, |range| range.first) {
                self.ranges.remove(place);
            }
        }
        for range in joined.written() {
            let place = self.ranges.binary_search_by_key(&range.first, |range| range.first);
            match place.map(|place| self.ranges.get_mut(place)) {
                Ok(Some(there)) => follow(there, range),
                Ok(None) => {}
                Err(place) => self.ranges.insert(place, range.detached()),
            }
        }
        self.trim();
    }

    /// Forgets the lowest ranges if there are too many.
    fn trim(&mut self) {
        let excess = self.ranges.len().saturating_sub(MOST_RANGES);
        if let Some(lowest) = self.ranges.get(excess).filter(|_| excess > 0) {
            // Those before it end at least two numbers lower: ranges don't touch.
            self.complete_from = self.complete_from.max(lowest.first - 1);
            self.ranges.drain(..excess);
        }
    }
}

/// Makes a range what it has become, with texts that share no memory with messages: those that it has already, it keeps.
fn follow(there: &mut ProcessedRange, range: &ProcessedRange) {
    let Summary { speed_change, launch, mission, explosion, latest_time } = &range.summary;
    there.last = range.last;
    let summary = &mut there.summary;
    (summary.speed_change, summary.latest_time) = (*speed_change, *latest_time);
    follow_latest(&mut summary.launch, launch);
    follow_latest(&mut summary.mission, mission);
    follow_latest(&mut summary.explosion, explosion);
}

fn follow_latest(there: &mut Option<Latest>, latest: &Option<Latest>) {
    if there != latest {
        *there = latest.as_ref().map(Latest::detached);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::batch::Batch;
    use crate::domain::message::Message;
    use crate::domain::parse::parse;

    fn messages(numbers: &[i64]) -> Vec<Message> {
        let json = |number| {
            format!(
                r#"{{"metadata":{{"channel":"c","messageNumber":{number},"messageTime":"2022-02-02T19:39:05Z",
                "messageType":"RocketSpeedIncreased"}},"message":{{"by":1}}}}"#
            )
        };
        numbers.iter().map(|number| parse(json(*number).into()).unwrap()).collect()
    }

    /// The ends of the known ranges near messages with these numbers.
    fn near(known: &Known<()>, numbers: &[i64]) -> Option<Vec<(i64, i64)>> {
        let messages = messages(numbers);
        let ranges = known.channels.get("c")?.near(&Batch::new(&messages).groups()[0])?;
        Some(ranges.iter().map(|range| (range.first, range.last)).collect())
    }

    /// Joins messages with these numbers to what is known, as if they were committed.
    fn take(known: &mut Known<()>, numbers: &[i64]) {
        let messages = messages(numbers);
        let batch = Batch::new(&messages);
        let group = &batch.groups()[0];
        let mut known = known.entry(group.channel()).unwrap();
        let stored = known.near(group).unwrap_or_default();
        let joined = group.join(stored, &mut vec![crate::domain::batch::Outcome::Duplicate; messages.len()]);
        known.change(&joined);
    }

    fn channel() -> Channel {
        Channel::new("c").unwrap()
    }

    #[test]
    fn it_follows_what_is_committed() {
        let mut known = Known::default();
        assert_eq!(near(&known, &[1]), None);
        known.remember(&channel(), 0, Vec::new(), ());
        assert_eq!(near(&known, &[1]), Some(vec![]));
        take(&mut known, &[1, 2, 5, 9]);
        assert_eq!(near(&known, &[3]), Some(vec![(1, 2)]));
        assert_eq!(near(&known, &[4, 7]), Some(vec![(5, 5)]));
        take(&mut known, &[3, 4]);
        assert_eq!(near(&known, &[1, 10]), Some(vec![(1, 5), (9, 9)]));
        assert_eq!(known.entries, 3);
    }

    #[test]
    fn of_many_ranges_the_last_are_known() {
        let mut known = Known::default();
        known.remember(&channel(), 0, Vec::new(), ());
        let numbers: Vec<i64> = (1..=40).map(|index| index * 3).collect();
        take(&mut known, &numbers);
        assert_eq!(known.entries, 1 + MOST_RANGES);
        // The lowest is that of 27; what 26 and lower ones touch is not known.
        assert_eq!(near(&known, &[27]), Some(vec![(27, 27)]));
        assert_eq!(near(&known, &[26]), None);
        assert_eq!(near(&known, &[121]), Some(vec![(120, 120)]));
    }

    #[test]
    fn it_is_bounded() {
        let mut known = Known::default();
        for index in 0..=MOST_ENTRIES {
            known.remember(&Channel::new(index.to_string()).unwrap(), 0, Vec::new(), ());
        }
        assert_eq!(known.entries, 1);
        known.remember(&Channel::new(MOST_ENTRIES.to_string()).unwrap(), 0, Vec::new(), ());
        assert_eq!(known.entries, 1);
    }
}
