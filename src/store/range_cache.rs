//! A writer's cache of processed ranges, for channels with recent messages. Most messages continue
//! a recent range of their channel.
//!
//! An entry is valid as long as no other writer has changed the channel. Each engine checks that in
//! its own way, in every transaction, before it relies on the entry. The cache is bounded; a writer
//! with an empty cache is equally correct, only slower.

use std::collections::{HashMap, hash_map};

use crate::domain::batch::Group;
use crate::domain::ranges::{Joined, ProcessedRange};
use crate::domain::summary::{Latest, Summary};
use crate::domain::text::Channel;

/// The maximum number of cached ranges of a channel: those with the highest numbers.
pub(super) const MAX_RANGES: usize = 32;
/// The maximum number of channels and ranges in the cache. Each takes about 200 bytes, unless its
/// texts are long.
const MAX_ENTRIES: usize = 65_536;

/// The cache. Each channel's entry also has a state `S` that the engine needs to validate it.
#[derive(Debug)]
pub(super) struct RangeCache<S> {
    channels: HashMap<Box<str>, CachedRanges<S>>,
    /// The number of cached channels and ranges.
    entries: usize,
}

#[derive(Debug)]
struct CachedRanges<S> {
    /// In ascending order, and complete from `complete_from` on: every range that ends there or
    /// later is included. They share no memory with messages.
    ranges: Vec<ProcessedRange>,
    complete_from: i64,
    state: S,
}

impl<S> Default for RangeCache<S> {
    fn default() -> Self {
        Self { channels: HashMap::default(), entries: 0 }
    }
}

impl<S> RangeCache<S> {
    /// Empties the cache.
    pub(super) fn clear(&mut self) {
        self.channels.clear();
        self.entries = 0;
    }

    /// The entry of a channel, if it is cached.
    pub(super) fn entry(&mut self, channel: &Channel) -> Option<CachedChannel<'_, S>> {
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
        state: S,
    ) -> CachedChannel<'_, S> {
        let mut cached = CachedRanges { ranges, complete_from, state };
        cached.ranges.shrink_to_fit();
        cached.trim();
        let entries = cached.entries();
        if self.entries + entries > MAX_ENTRIES {
            self.clear();
        }
        self.entries += entries;
        let cached = match self.channels.entry(channel.as_str().into()) {
            hash_map::Entry::Occupied(mut entry) => {
                self.entries -= entry.insert(cached).entries();
                entry.into_mut()
            }
            hash_map::Entry::Vacant(entry) => entry.insert(cached),
        };
        CachedChannel { cached, entries: &mut self.entries }
    }
}

/// The entry of a cached channel: reading and updating it take one lookup.
pub(super) struct CachedChannel<'k, S> {
    cached: &'k mut CachedRanges<S>,
    /// The counter of the whole cache.
    entries: &'k mut usize,
}

impl<S> CachedChannel<'_, S> {
    /// The ranges that the group needs, in ascending order; none if not all of them are cached.
    pub(super) fn near(&self, group: &Group<'_>) -> Option<Vec<ProcessedRange>> {
        self.cached.near(group)
    }

    /// Applies the result of a join to the channel's ranges.
    pub(super) fn apply(&mut self, joined: &Joined) {
        *self.entries -= self.cached.entries();
        self.cached.apply(joined);
        *self.entries += self.cached.entries();
    }

    /// The engine's state of the entry.
    pub(super) fn state_mut(&mut self) -> &mut S {
        &mut self.cached.state
    }
}

impl<S> CachedRanges<S> {
    fn entries(&self) -> usize {
        1 + self.ranges.len()
    }

    fn near(&self, group: &Group<'_>) -> Option<Vec<ProcessedRange>> {
        let lowest = group.windows().next()?.first;
        (self.complete_from < lowest).then(|| group.near(&self.ranges))
    }

    fn apply(&mut self, joined: &Joined) {
        for first in &joined.removed {
            // The lowest ranges may not be cached.
            if let Ok(index) = self.ranges.binary_search_by_key(first, |range| range.first) {
                self.ranges.remove(index);
            }
        }
        // From the highest on, so that no range is inserted that others then displace.
        for range in joined.written().rev() {
            match self.ranges.binary_search_by_key(&range.first, |range| range.first) {
                Ok(index) => update(&mut self.ranges[index], range),
                Err(0) if self.ranges.len() >= MAX_RANGES => {
                    self.complete_from = self.complete_from.max(range.last + 1);
                }
                Err(index) => {
                    if self.ranges.is_empty() {
                        // Most channels have one range. A vector would allocate memory for four.
                        self.ranges.reserve_exact(1);
                    }
                    self.ranges.insert(index, range.detached());
                    self.trim();
                }
            }
        }
    }

    /// Drops the lowest ranges if there are too many.
    fn trim(&mut self) {
        let excess = self.ranges.len().saturating_sub(MAX_RANGES);
        for dropped in self.ranges.drain(..excess) {
            self.complete_from = self.complete_from.max(dropped.last + 1);
        }
    }
}

/// Updates a range. Its texts share no memory with messages; unchanged texts are kept.
fn update(cached: &mut ProcessedRange, range: &ProcessedRange) {
    let Summary { speed_change, launch, mission, explosion, latest_time } = &range.summary;
    (cached.last, cached.first_received) = (range.last, range.first_received);
    cached.speed_blocks.clone_from(&range.speed_blocks);
    let summary = &mut cached.summary;
    (summary.speed_change, summary.latest_time) = (*speed_change, *latest_time);
    update_latest(&mut summary.launch, launch);
    update_latest(&mut summary.mission, mission);
    update_latest(&mut summary.explosion, explosion);
}

fn update_latest(cached: &mut Option<Latest>, latest: &Option<Latest>) {
    if cached != latest {
        *cached = latest.as_ref().map(Latest::detached);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::batch::{Batch, Outcome};
    use crate::domain::message::Message;
    use crate::domain::message::example::faster;
    use crate::domain::timestamp::Timestamp;

    fn messages(numbers: &[i64]) -> Vec<Message> {
        numbers.iter().map(|number| faster(1).on("c").numbered(*number)).collect()
    }

    /// The ends of the cached ranges near messages with these numbers.
    fn near(cached: &RangeCache<()>, numbers: &[i64]) -> Option<Vec<(i64, i64)>> {
        let messages = messages(numbers);
        let ranges = cached.channels.get("c")?.near(&Batch::new(&messages).groups()[0])?;
        Some(ranges.iter().map(|range| (range.first, range.last)).collect())
    }

    /// Joins messages with these numbers to the cached ranges, as if they were committed.
    fn commit(cached: &mut RangeCache<()>, numbers: &[i64]) {
        let messages = messages(numbers);
        let batch = Batch::new(&messages);
        let group = &batch.groups()[0];
        let mut cached = cached.entry(group.channel()).unwrap();
        let stored = cached.near(group).unwrap();
        let joined =
            group.join(stored, Timestamp::FIRST, &mut vec![Outcome::Duplicate; messages.len()]);
        cached.apply(&joined);
    }

    fn channel() -> Channel {
        Channel::new("c").unwrap()
    }

    #[test]
    fn it_applies_committed_joins() {
        let mut cached = RangeCache::default();
        assert_eq!(near(&cached, &[1]), None);
        cached.insert(&channel(), 0, Vec::new(), ());
        assert_eq!(near(&cached, &[1]), Some(vec![]));
        commit(&mut cached, &[1, 2, 5, 9]);
        assert_eq!(near(&cached, &[3]), Some(vec![(1, 2)]));
        assert_eq!(near(&cached, &[4, 7]), Some(vec![(5, 5)]));
        commit(&mut cached, &[3, 4]);
        assert_eq!(near(&cached, &[1, 10]), Some(vec![(1, 5), (9, 9)]));
        assert_eq!(cached.entries, 3);
    }

    #[test]
    fn only_the_highest_of_many_ranges_are_cached() {
        let mut cached = RangeCache::default();
        cached.insert(&channel(), 0, Vec::new(), ());
        let numbers: Vec<i64> = (1..=400).map(|index| index * 3).collect();
        commit(&mut cached, &numbers);
        assert_eq!(cached.entries, 1 + MAX_RANGES);
        // It never has room for more, or the moves in a long vector would take most of the time.
        assert!(cached.channels["c"].ranges.capacity() <= 2 * MAX_RANGES);
        // The lowest cached range is that of 1107. That of 1104 is not cached, and touches 1105.
        assert_eq!(near(&cached, &[1106]), Some(vec![(1107, 1107)]));
        assert_eq!(near(&cached, &[1105]), None);
        assert_eq!(near(&cached, &[1201]), Some(vec![(1200, 1200)]));
        // Higher ones displace the lowest.
        let numbers: Vec<i64> = (401..=800).map(|index| index * 3).collect();
        commit(&mut cached, &numbers);
        assert_eq!((cached.entries, near(&cached, &[1201])), (1 + MAX_RANGES, None));
        assert!(cached.channels["c"].ranges.capacity() <= 2 * MAX_RANGES);
    }

    #[test]
    fn its_size_is_bounded() {
        let mut cached = RangeCache::default();
        for index in 0..=MAX_ENTRIES {
            cached.insert(&Channel::new(index.to_string()).unwrap(), 0, Vec::new(), ());
        }
        assert_eq!(cached.entries, 1);
        cached.insert(&Channel::new(MAX_ENTRIES.to_string()).unwrap(), 0, Vec::new(), ());
        assert_eq!(cached.entries, 1);
    }
}
