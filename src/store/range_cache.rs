//! A writer's cache of processed ranges, for channels with recent messages. Most messages continue
//! a recent range of their channel.
//!
//! An entry is valid as long as nobody else has changed the channel. Each engine checks that in its
//! own way, in every transaction, before it relies on the entry. The cache is bounded; a writer
//! with an empty cache is equally correct, only slower.

use std::collections::{HashMap, hash_map};

use crate::domain::batch::Group;
use crate::domain::ranges::{Joined, ProcessedRange};
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::Channel;

/// For a channel with more ranges, only the last ones are cached.
pub(super) const MAX_RANGES: usize = 32;
/// The most channels and ranges in the cache. Each takes about 200 bytes, unless its texts are
/// long.
const MAX_ENTRIES: usize = 65_536;

/// See the module. Each channel's entry also has a note for the engine.
#[derive(Debug)]
pub(super) struct RangeCache<N> {
    channels: HashMap<Box<str>, CachedRanges<N>>,
    /// The number of cached channels and ranges.
    entries: usize,
}

#[derive(Debug)]
struct CachedRanges<N> {
    /// In ascending order, and complete from `complete_from` on: every range that ends there or
    /// later is included. They share no memory with messages.
    ranges: Vec<ProcessedRange>,
    complete_from: i64,
    state: N,
}

impl<N> Default for RangeCache<N> {
    fn default() -> Self {
        Self { channels: HashMap::default(), entries: 0 }
    }
}

impl<N> RangeCache<N> {
    /// Empties the cache.
    pub(super) fn clear(&mut self) {
        self.channels.clear();
        self.entries = 0;
    }

    /// The entry of a channel, if it is cached.
    pub(super) fn entry(&mut self, channel: &Channel) -> Option<CachedChannel<'_, N>> {
        let cached = self.channels.get_mut(channel.as_str())?;
        Some(CachedChannel { cached, entries: &mut self.entries })
    }

    /// Stores a channel's ranges, in ascending order and including every range that ends at
    /// `complete_from` or later (0: all of them), and replaces its entry.
    pub(super) fn insert(
        &mut self,
        channel: &Channel,
        complete_from: i64,
        ranges: Vec<ProcessedRange>,
        state: N,
    ) -> CachedChannel<'_, N> {
        let mut cached = CachedRanges { ranges, complete_from, state };
        cached.ranges.shrink_to_fit();
        cached.trim();
        let entries = cached.entries();
        if self.entries + entries > MAX_ENTRIES {
            self.clear();
        }
        self.entries += entries;
        let cached = match self.channels.entry(channel.as_str().into()) {
            hash_map::Entry::Occupied(mut there) => {
                self.entries -= there.insert(cached).entries();
                there.into_mut()
            }
            hash_map::Entry::Vacant(free) => free.insert(cached),
        };
        CachedChannel { cached, entries: &mut self.entries }
    }
}

/// The entry of a cached channel: reading and updating it take one lookup.
pub(super) struct CachedChannel<'k, N> {
    cached: &'k mut CachedRanges<N>,
    /// The counter of the whole cache.
    entries: &'k mut usize,
}

impl<N> CachedChannel<'_, N> {
    /// The ranges that overlap or touch the group's windows, in ascending order; none if not all of
    /// them are cached.
    pub(super) fn near(&self, group: &Group<'_>) -> Option<Vec<ProcessedRange>> {
        self.cached.near(group)
    }

    /// Applies a change to the channel's ranges.
    pub(super) fn change(&mut self, joined: &Joined) {
        *self.entries -= self.cached.entries();
        self.cached.change(joined);
        *self.entries += self.cached.entries();
    }

    /// The engine's note.
    pub(super) fn state_mut(&mut self) -> &mut N {
        &mut self.cached.state
    }
}

impl<N> CachedRanges<N> {
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
                Err(place) => {
                    // Most channels have one range. A vector would make room for four.
                    self.ranges.reserve_exact(1);
                    self.ranges.insert(place, range.detached());
                }
            }
        }
        self.trim();
    }

    /// Drops the lowest ranges if there are too many.
    fn trim(&mut self) {
        let excess = self.ranges.len().saturating_sub(MAX_RANGES);
        if let Some(lowest) = self.ranges.get(excess).filter(|_| excess > 0) {
            // The dropped ranges end at least two numbers lower, because ranges don't touch.
            self.complete_from = self.complete_from.max(lowest.first - 1);
            self.ranges.drain(..excess);
        }
    }
}

/// Updates a range. Its texts share no memory with messages; unchanged texts are kept.
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
    use crate::wire::message::parse;

    fn messages(numbers: &[i64]) -> Vec<Message> {
        let json = |number| {
            format!(
                r#"{{"metadata":{{"channel":"c","messageNumber":{number},
                    "messageTime":"2022-02-02T19:39:05Z",
                "messageType":"RocketSpeedIncreased"}},"message":{{"by":1}}}}"#
            )
        };
        numbers.iter().map(|number| parse(json(*number).into()).unwrap()).collect()
    }

    /// The ends of the cached ranges near messages with these numbers.
    fn near(cached: &RangeCache<()>, numbers: &[i64]) -> Option<Vec<(i64, i64)>> {
        let messages = messages(numbers);
        let ranges = cached.channels.get("c")?.near(&Batch::new(&messages).groups()[0])?;
        Some(ranges.iter().map(|range| (range.first, range.last)).collect())
    }

    /// Joins messages with these numbers to the cached ranges, as if they were committed.
    fn take(cached: &mut RangeCache<()>, numbers: &[i64]) {
        let messages = messages(numbers);
        let batch = Batch::new(&messages);
        let group = &batch.groups()[0];
        let mut cached = cached.entry(group.channel()).unwrap();
        let stored = cached.near(group).unwrap();
        let joined =
            group.join(stored, &mut vec![crate::domain::batch::Outcome::Duplicate; messages.len()]);
        cached.change(&joined);
    }

    fn channel() -> Channel {
        Channel::new("c").unwrap()
    }

    #[test]
    fn it_follows_what_is_committed() {
        let mut cached = RangeCache::default();
        assert_eq!(near(&cached, &[1]), None);
        cached.insert(&channel(), 0, Vec::new(), ());
        assert_eq!(near(&cached, &[1]), Some(vec![]));
        take(&mut cached, &[1, 2, 5, 9]);
        assert_eq!(near(&cached, &[3]), Some(vec![(1, 2)]));
        assert_eq!(near(&cached, &[4, 7]), Some(vec![(5, 5)]));
        take(&mut cached, &[3, 4]);
        assert_eq!(near(&cached, &[1, 10]), Some(vec![(1, 5), (9, 9)]));
        assert_eq!(cached.entries, 3);
    }

    #[test]
    fn of_many_ranges_the_last_are_cached() {
        let mut cached = RangeCache::default();
        cached.insert(&channel(), 0, Vec::new(), ());
        let numbers: Vec<i64> = (1..=40).map(|index| index * 3).collect();
        take(&mut cached, &numbers);
        assert_eq!(cached.entries, 1 + MAX_RANGES);
        // The lowest cached range is that of 27; what touches 26 and lower is not cached.
        assert_eq!(near(&cached, &[27]), Some(vec![(27, 27)]));
        assert_eq!(near(&cached, &[26]), None);
        assert_eq!(near(&cached, &[121]), Some(vec![(120, 120)]));
    }

    #[test]
    fn it_is_bounded() {
        let mut cached = RangeCache::default();
        for index in 0..=MAX_ENTRIES {
            cached.insert(&Channel::new(index.to_string()).unwrap(), 0, Vec::new(), ());
        }
        assert_eq!(cached.entries, 1);
        cached.insert(&Channel::new(MAX_ENTRIES.to_string()).unwrap(), 0, Vec::new(), ());
        assert_eq!(cached.entries, 1);
    }
}
