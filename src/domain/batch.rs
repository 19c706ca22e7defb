//! Messages that are committed together, grouped by channel.
//!
//! A store goes through the groups in order. For each one it loads the ranges that the group needs,
//! lets [`Group::join`] separate new messages from duplicates, and writes the result.

use std::collections::HashMap;

use super::message::{Message, MessageNumber};
use super::ranges::{Joined, ProcessedRange, join};
use super::text::Channel;
use super::timestamp::Timestamp;

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
    /// By message number, and then by arrival.
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

/// An interval of message numbers of a group. Every stored range that the group needs overlaps a
/// window, or is adjacent to one.
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

    pub fn channel(&self) -> &'m Channel {
        self.channel
    }

    /// The windows whose stored ranges matter, in ascending order.
    pub fn windows(&self) -> impl Iterator<Item = Window> {
        let mut numbers = self.order.iter().map(|position| position.number.get()).peekable();
        std::iter::from_fn(move || {
            let first = numbers.next()?;
            let mut last = first;
            while let Some(number) = numbers.next_if(|number| number - last <= WINDOW_SPACING) {
                last = number;
            }
            Some(Window { first, last })
        })
    }

    /// Whether the group needs a stored range to join its messages: a range that contains one of
    /// their numbers, or is adjacent to one. Both ends are inclusive.
    pub fn needs(&self, first: i64, last: i64) -> bool {
        let index = self.order.partition_point(|position| position.number.get() < first - 1);
        self.order.get(index).is_some_and(|position| position.number.get() <= last + 1)
    }

    /// The ranges that the group needs.
    pub fn near(&self, ranges: &[ProcessedRange]) -> Vec<ProcessedRange> {
        ranges.iter().filter(|range| self.needs(range.first, range.last)).cloned().collect()
    }

    /// Joins the messages, received at this time, to the stored ranges that they need (each range
    /// once, in ascending order, and any others), and stores each message's outcome at its index in
    /// the batch.
    pub fn join(
        &self,
        stored: Vec<ProcessedRange>,
        received: Timestamp,
        outcomes: &mut [Outcome],
    ) -> Joined {
        let mut positions = self.order.iter();
        let joined = join(stored, self.in_order(), received, |is_new| {
            let Some(position) = positions.next() else {
                unreachable!("each message has one outcome")
            };
            outcomes[position.index] = if is_new { Outcome::Applied } else { Outcome::Duplicate };
        });
        assert!(positions.next().is_none(), "each message has one outcome");
        joined
    }

    fn in_order(&self) -> impl Iterator<Item = &'m Message> {
        let messages = self.messages;
        self.order.iter().map(move |position| &messages[position.index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::example::{faster, mission_changed, time};

    /// Messages of one channel with these numbers.
    fn messages(numbers: &[i64]) -> Vec<Message> {
        numbers.iter().map(|number| faster(100).numbered(*number)).collect()
    }

    /// Joins a group to stored ranges. Returns the ranges that are written, and the outcomes.
    fn join_group(
        messages: &[Message],
        stored: Vec<ProcessedRange>,
    ) -> (Vec<(i64, i64)>, Vec<Outcome>) {
        let mut outcomes = vec![Outcome::Duplicate; messages.len()];
        let joined = Batch::new(messages).groups()[0].join(stored, time(0), &mut outcomes);
        (joined.written().map(|range| (range.first, range.last)).collect(), outcomes)
    }

    #[test]
    fn there_is_a_group_for_each_channel_in_byte_order() {
        let messages: Vec<Message> = ["b", "a", "é", "Z", "a"].map(|on| faster(1).on(on)).into();
        let batch = Batch::new(&messages);
        let channels: Vec<&str> =
            batch.groups().iter().map(|group| group.channel().as_str()).collect();
        assert_eq!(channels, ["Z", "a", "b", "é"]);
    }

    #[test]
    fn each_outcome_is_at_the_index_of_its_message() {
        let messages = [
            faster(1).on("b").numbered(1),
            faster(1).on("a").numbered(2),
            faster(1).on("b").numbered(3),
            faster(1).on("a").numbered(1),
        ];
        let mut outcomes = [Outcome::Duplicate; 4];
        for group in Batch::new(&messages).groups() {
            // Of the channel b, message 1 is stored.
            let is_b = group.channel().as_str() == "b";
            let stored =
                is_b.then(|| ProcessedRange::of(&messages[0], time(0))).into_iter().collect();
            group.join(stored, time(0), &mut outcomes);
        }
        use Outcome::{Applied, Duplicate};
        assert_eq!(outcomes, [Duplicate, Applied, Applied, Applied]);
    }

    #[test]
    fn messages_are_joined_by_number_whatever_their_order_in_the_batch() {
        let (written, outcomes) = join_group(&messages(&[3, 1, 2]), vec![]);
        assert_eq!(written, [(1, 3)]);
        assert_eq!(outcomes, [Outcome::Applied; 3]);
    }

    #[test]
    fn of_two_copies_in_a_batch_the_one_that_arrived_first_counts() {
        let messages = [
            mission_changed("APOLLO").numbered(2),
            faster(100).numbered(1),
            mission_changed("GEMINI").numbered(2),
        ];
        let mut outcomes = [Outcome::Duplicate; 3];
        let joined = Batch::new(&messages).groups()[0].join(vec![], time(0), &mut outcomes);
        assert_eq!(outcomes, [Outcome::Applied, Outcome::Applied, Outcome::Duplicate]);
        let mission = joined.applied.and_then(|applied| applied.summary.mission);
        assert_eq!(mission.map(|latest| latest.value.to_string()).as_deref(), Some("APOLLO"));
    }

    #[test]
    fn numbers_that_are_far_apart_need_separate_windows() {
        let windows = |numbers: &[i64]| -> Vec<(i64, i64)> {
            let messages = messages(numbers);
            let batch = Batch::new(&messages);
            batch.groups()[0].windows().map(|window| (window.first, window.last)).collect()
        };
        assert_eq!(windows(&[7]), [(7, 7)]);
        assert_eq!(windows(&[1_000, 3, 1, 1_010]), [(1, 3), (1_000, 1_010)]);
        assert_eq!(windows(&[1, 1 + WINDOW_SPACING]), [(1, 1 + WINDOW_SPACING)]);
        assert_eq!(windows(&[1, 2 + WINDOW_SPACING]).len(), 2);
    }

    #[test]
    fn only_ranges_that_contain_a_number_or_are_adjacent_to_one_are_near() {
        let stored =
            [2, 4, 8, 10, 500].map(|number| ProcessedRange::of(&messages(&[number])[0], time(0)));
        let new = messages(&[6, 501]);
        let near = Batch::new(&new).groups()[0].near(&stored);
        assert_eq!(near.iter().map(|range| range.first).collect::<Vec<_>>(), [500]);
        let new = messages(&[5, 9]);
        let near = Batch::new(&new).groups()[0].near(&stored);
        assert_eq!(near.iter().map(|range| range.first).collect::<Vec<_>>(), [4, 8, 10]);
        // 4 lies between two numbers of a window, but is adjacent to neither.
        let new = messages(&[2, 7]);
        let near = Batch::new(&new).groups()[0].near(&stored);
        assert_eq!(near.iter().map(|range| range.first).collect::<Vec<_>>(), [2, 8]);
    }
}
