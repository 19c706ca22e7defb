//! What a writer knows of the database without asking: the processed ranges of channels that had messages lately, and
//! which rockets are unlisted. Most messages continue what the last ones of their channel began.
//!
//! It holds as long as nobody else has written to the database, which is asked in each transaction before anything
//! relies on it: SQLite's `data_version` changes when another connection has committed. After a transaction that failed
//! nothing is known. It is bounded; who knows nothing is as right, only slower.

use std::collections::HashMap;

use rusqlite::Connection;

use crate::domain::ranges::{Joined, ProcessedRange};
use crate::domain::text::Channel;
use crate::store::StoreError;

/// A channel with more ranges is asked for each time.
pub(super) const MOST_RANGES: usize = 32;
/// How many channels and ranges are known at a time. One takes some 200 bytes, unless its texts are long.
const MOST_ENTRIES: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Known {
    channels: HashMap<Box<str>, KnownChannel, foldhash::fast::RandomState>,
    /// How many channels and ranges are known.
    entries: usize,
    /// As of when it holds.
    data_version: Option<i64>,
}

#[derive(Debug)]
struct KnownChannel {
    /// All of its ranges, in ascending order; none if they are too many. They share no memory with messages.
    ranges: Option<Vec<ProcessedRange>>,
    /// Whether its rocket is unlisted for sure.
    unlisted: bool,
}

impl Known {
    /// Forgets everything if somebody else may have changed something. There is no telling on a connection that is not
    /// the writer's own.
    pub(super) fn refresh(&mut self, transaction: &Connection, own_connection: bool) -> Result<(), StoreError> {
        let mut statement = transaction.prepare_cached("PRAGMA data_version")?;
        let version = statement.query_row([], |row| row.get(0))?;
        if !own_connection || self.data_version != Some(version) {
            self.forget();
            self.data_version = Some(version);
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.channels.clear();
        self.entries = 0;
    }

    /// Whether anything is known of the channel.
    pub(super) fn has(&self, channel: &Channel) -> bool {
        self.channels.contains_key(channel.as_str())
    }

    /// All ranges of the channel, if they are known.
    pub(super) fn ranges(&self, channel: &Channel) -> Option<&[ProcessedRange]> {
        self.channels.get(channel.as_str())?.ranges.as_deref()
    }

    /// Remembers all ranges of a channel, in ascending order.
    pub(super) fn remember(&mut self, channel: &Channel, ranges: Vec<ProcessedRange>) {
        let ranges = (ranges.len() <= MOST_RANGES).then_some(ranges);
        let entries = 1 + ranges.as_ref().map_or(0, Vec::len);
        if self.entries + entries > MOST_ENTRIES {
            self.forget();
        }
        self.entries += entries;
        self.channels.insert(channel.as_str().into(), KnownChannel { ranges, unlisted: false });
    }

    /// Follows a change of the channel's ranges.
    pub(super) fn change(&mut self, channel: &Channel, joined: &Joined) {
        let Some(known) = self.channels.get_mut(channel.as_str()) else {
            return;
        };
        let Some(ranges) = &mut known.ranges else {
            return;
        };
        self.entries -= ranges.len();
        for first in &joined.removed {
            if let Ok(place) = ranges.binary_search_by_key(first, |range| range.first) {
                ranges.remove(place);
            }
        }
        for range in joined.written() {
            let place = ranges.binary_search_by_key(&range.first, |range| range.first);
            match place.map(|place| ranges.get_mut(place)) {
                Ok(Some(there)) => *there = range.detached(),
                Ok(None) => {}
                Err(place) => ranges.insert(place, range.detached()),
            }
        }
        if ranges.len() <= MOST_RANGES {
            self.entries += ranges.len();
        } else {
            known.ranges = None;
        }
    }

    /// Whether the rocket is unlisted for sure.
    pub(super) fn is_unlisted(&self, channel: &Channel) -> bool {
        self.channels.get(channel.as_str()).is_some_and(|known| known.unlisted)
    }

    /// The rocket is unlisted now.
    pub(super) fn set_unlisted(&mut self, channel: &Channel) {
        if let Some(known) = self.channels.get_mut(channel.as_str()) {
            known.unlisted = true;
        }
    }

    /// All rockets are listed now.
    pub(super) fn set_all_listed(&mut self) {
        self.channels.values_mut().for_each(|known| known.unlisted = false);
    }
}
