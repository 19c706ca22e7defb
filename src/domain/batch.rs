//! Messages that are committed together, grouped by channel.
//!
//! A store goes through the groups in order. For each one it loads the ranges in the group's
//! windows, lets [`Group::join`] separate new messages from duplicates, and writes the result.

use std::collections::HashMap;

use super::message::{Message, MessageNumber};
use super::ranges::{Joined, ProcessedRange, join};
use super::text::Channel;

/// The outcome of a message once its batch is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was the first copy, and counts.
    Applied,
    /// An earlier copy counts; nothing changed.
    Duplicate,
}

/// The messages of one batch by channel. Channels are in byte order, which is the order of the
/// tables' keys, so neighbours are written together. It is also the order in which rows are locked.
#[derive(Debug)]
pub struct Batch<'m> {
    groups: Vec<Group<'m>>,
}

impl<'m> Batch<'m> {
    /// Groups the messages.
    pub fn new(messages: &'m [Message]) -> Self {
        // Senders choose the channels, so the map uses the standard hash, which resists collisions
        // (SipHash with a random key).
        let mut by_channel: HashMap<&Channel, Vec<MessagePosition>> = HashMap::new();
        for (index, message) in messages.iter().enumerate() {
            by_channel
                .entry(&message.channel)
                .or_default()
                .push(MessagePosition { number: message.number, index });
        }
        let mut groups: Vec<_> = by_channel
            .into_iter()
            .map(|(channel, order)| Group::new(channel, messages, order))
            .collect();
        groups.sort_unstable_by_key(|group| group.channel);
        Self { groups }
    }

    /// One group per channel.
    pub fn groups(&self) -> &[Group<'m>] {
        &self.groups
    }
}

/// The messages of one channel in a batch.
#[derive(Debug)]
pub struct Group<'m> {
    channel: &'m Channel,
    messages: &'m [Message],
    /// By message number and then by arrival.
    order: Vec<MessagePosition>,
}

/// Where a message is in its batch. The number is copied here, because the messages of a channel
/// lie far apart in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MessagePosition {
    number: MessageNumber,
    /// The index in the batch's messages.
    index: usize,
}

/// An interval of new message numbers. Joining them needs every stored range that overlaps or
/// touches `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The lowest new number.
    pub first: i64,
    /// The highest new number.
    pub last: i64,
}

/// Numbers further apart than this go into separate windows, so that a store never loads more
/// ranges for a message than fit between two numbers of a window, however many gaps the channel
/// has.
const WINDOW_SPACING: i64 = 64;

impl<'m> Group<'m> {
    fn new(channel: &'m Channel, messages: &'m [Message], mut order: Vec<MessagePosition>) -> Self {
        order.sort_unstable();
        Self { channel, messages, order }
    }

    /// The channel.
    pub fn channel(&self) -> &'m Channel {
        self.channel
    }

    /// The windows whose stored ranges matter, in ascending order.
    pub fn windows(&self) -> impl Iterator<Item = Window> {
        let mut numbers = self.order.iter().map(|place| place.number.get()).peekable();
        std::iter::from_fn(move || {
            let first = numbers.next()?;
            let mut last = first;
            while let Some(number) = numbers.next_if(|number| number - last <= WINDOW_SPACING) {
                last = number;
            }
            Some(Window { first, last })
        })
    }

    /// The ranges that overlap or touch the windows. Both are in ascending order.
    pub fn near(&self, ranges: &[ProcessedRange]) -> Vec<ProcessedRange> {
        let mut near = Vec::new();
        let mut rest = ranges;
        for window in self.windows() {
            (_, rest) = rest.split_at(rest.partition_point(|range| range.last < window.first - 1));
            let (these, others) =
                rest.split_at(rest.partition_point(|range| range.first <= window.last + 1));
            near.extend_from_slice(these);
            rest = others;
        }
        near
    }

    /// Joins the messages to the stored ranges of all windows (each range once, in ascending
    /// order), and stores each message's outcome at its index in the batch.
    pub fn join(&self, stored: Vec<ProcessedRange>, outcomes: &mut [Outcome]) -> Joined {
        let mut places = self.order.iter();
        join(stored, self.in_order(), |new| {
            let Some(place) = places.next() else { unreachable!("each message is joined once") };
            outcomes[place.index] = if new { Outcome::Applied } else { Outcome::Duplicate };
        })
    }

    fn in_order(&self) -> impl Iterator<Item = &'m Message> {
        let messages = self.messages;
        self.order.iter().map(move |place| &messages[place.index])
    }
}
