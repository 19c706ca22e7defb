//! Processed message numbers as ranges, and how new numbers are joined to them.

use super::message::Message;
use super::speed_blocks::{Block, BlockRun, SpeedBlocks};
use super::summary::Summary;
use super::timestamp::Timestamp;

/// Contiguous processed message numbers of one channel, with the summary of their messages.
///
/// A channel's ranges neither overlap nor touch: two ranges that would touch are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessedRange {
    /// The lowest number.
    pub first: i64,
    /// The highest number.
    pub last: i64,
    /// The summary of the messages from `first` to `last`.
    pub summary: Summary,
    /// The sums of the summary's speed change by blocks of numbers. None if the range has messages
    /// that an earlier version has processed, which did not keep them.
    pub speed_blocks: Option<SpeedBlocks>,
    /// When the service first received one of them, by its own clock.
    pub first_received: Timestamp,
}

impl ProcessedRange {
    /// The range of one message.
    pub fn of(message: &Message, received: Timestamp) -> Self {
        let number = message.number.get();
        let summary = Summary::of(message);
        let speed_blocks = Some(SpeedBlocks::of(summary.speed_change));
        Self { first: number, last: number, summary, speed_blocks, first_received: received }
    }

    /// Adds the range that starts right after this one.
    pub(super) fn append(&mut self, next: Self) {
        assert_eq!(self.last + 1, next.first, "only ranges that touch are merged");
        match &next.speed_blocks {
            Some(blocks) => self.append_blocks(blocks.blocks(next.first..=next.last)),
            None => self.speed_blocks = None,
        }
        self.last = next.last;
        self.summary.combine(next.summary);
        self.first_received = self.first_received.min(next.first_received);
    }

    /// Adds the blocks of the numbers right after this range.
    fn append_blocks(&mut self, next: impl Iterator<Item = Block>) {
        if let Some(blocks) = &mut self.speed_blocks {
            next.for_each(|block| blocks.append(self.first, block));
        }
    }

    /// A copy whose texts don't keep the messages' input buffers in memory.
    pub fn detached(&self) -> Self {
        let speed_blocks = self.speed_blocks.clone();
        Self { summary: self.summary.detached(), speed_blocks, ..*self }
    }

    /// The number of messages in it.
    pub fn count(&self) -> i64 {
        self.last - self.first + 1
    }
}

/// The result of joining new messages to stored ranges: the rows to delete and to write, and what
/// was new.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// The first numbers of stored ranges that were merged into another range.
    pub removed: Vec<i64>,
    /// The stored ranges that have grown and keep their first number, in ascending order.
    pub grown: Vec<ProcessedRange>,
    /// The ranges with a new first number, in ascending order.
    pub added: Vec<ProcessedRange>,
    /// The sum of the new messages; none if all were duplicates.
    pub applied: Option<Applied>,
}

/// What the new messages of one channel add to its rocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The number of new messages.
    pub processed: i64,
    /// The highest of their numbers.
    pub highest: i64,
    /// The end of the range that starts at 1, if the new messages made or enlarged it, else 0.
    pub complete_through: i64,
    /// Their summary.
    pub summary: Summary,
}

impl Applied {
    /// A copy whose texts don't keep the messages' input buffers in memory.
    pub fn detached(&self) -> Self {
        Self { summary: self.summary.detached(), ..*self }
    }

    /// What one message adds. `complete_through` is set later.
    fn of(message: &Message) -> Self {
        let summary = Summary::of(message);
        Self { processed: 1, highest: message.number.get(), complete_through: 0, summary }
    }

    /// Adds another message.
    fn add(&mut self, message: &Message) {
        self.processed += 1;
        self.highest = self.highest.max(message.number.get());
        self.summary.add(message);
    }
}

/// Joins a channel's messages, sorted by number and received at this time, to the `stored` ranges
/// that overlap or touch them, sorted by first number. The stored ranges may include others of the
/// channel.
///
/// Calls `outcome` once per message, in order, with whether it is new. Of several copies of a
/// message, the first one counts.
pub fn join<'m>(
    stored: Vec<ProcessedRange>,
    messages: impl Iterator<Item = &'m Message>,
    received: Timestamp,
    mut outcome: impl FnMut(bool),
) -> Joined {
    let (joined, run) = (Joined::default(), BlockRun::default());
    let mut joiner = Joiner { joined, current: None, run, received };
    let mut stored = stored.into_iter().peekable();
    for message in messages {
        let number = message.number.get();
        while let Some(range) = stored.next_if(|range| range.first <= number) {
            joiner.add_stored(range);
        }
        outcome(joiner.add_message(message));
    }
    for range in stored {
        joiner.add_stored(range);
    }
    joiner.finish()
}

/// The state of one ascending pass: everything before `current` is final.
struct Joiner {
    joined: Joined,
    current: Option<Current>,
    /// The blocks of the last messages of `current`, which its own don't include yet.
    run: BlockRun,
    /// When the messages were received.
    received: Timestamp,
}

struct Current {
    range: ProcessedRange,
    /// A range with its first number is stored.
    is_stored: bool,
    /// It differs from the stored range.
    is_changed: bool,
}

impl Joined {
    /// Every range that differs from the stored ones.
    pub fn written(&self) -> impl DoubleEndedIterator<Item = &ProcessedRange> {
        self.grown.iter().chain(&self.added)
    }
}

impl Joiner {
    fn add_stored(&mut self, range: ProcessedRange) {
        match &mut self.current {
            Some(current) if current.range.last + 1 == range.first => {
                current.range.append_blocks(self.run.drain());
                self.joined.removed.push(range.first);
                current.range.append(range);
                current.is_changed = true;
            }
            _ => self.start(range, true),
        }
    }

    /// Whether the message is new.
    fn add_message(&mut self, message: &Message) -> bool {
        let number = message.number.get();
        if self.current.as_ref().is_some_and(|current| number <= current.range.last) {
            return false;
        }
        self.apply(message);
        match &mut self.current {
            Some(current) if current.range.last + 1 == number => {
                current.range.last = number;
                current.range.summary.add(message);
                self.run.push(number, message.event.speed_change());
                current.is_changed = true;
            }
            _ => self.start(ProcessedRange::of(message, self.received), false),
        }
        true
    }

    fn apply(&mut self, message: &Message) {
        match &mut self.joined.applied {
            Some(applied) => applied.add(message),
            applied => *applied = Some(Applied::of(message)),
        }
    }

    fn start(&mut self, range: ProcessedRange, is_stored: bool) {
        self.finish_current();
        self.current = Some(Current { range, is_stored, is_changed: !is_stored });
    }

    fn finish_current(&mut self) {
        let Some(Current { mut range, is_stored, is_changed: true }) = self.current.take() else {
            return;
        };
        range.append_blocks(self.run.drain());
        if let Some(applied) = self.joined.applied.as_mut().filter(|_| range.first == 1) {
            applied.complete_through = range.last;
        }
        if is_stored {
            self.joined.grown.push(range);
        } else {
            self.joined.added.push(range);
        }
    }

    fn finish(mut self) -> Joined {
        self.finish_current();
        self.joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::example::{faster, time};

    /// A rocket that has processed messages 1 to 3 and 6 to 7. Message n adds n to the speed.
    fn stored() -> Vec<ProcessedRange> {
        vec![range(1, 3, 1 + 2 + 3), range(6, 7, 6 + 7)]
    }

    fn range(first: i64, last: i64, speed_change: i64) -> ProcessedRange {
        let summary = Summary { speed_change, ..Summary::of(&faster(0)) };
        let blocks = (first..=last).map(|n| Block { start: n, end: n + 1, sum: n });
        let speed_blocks = Some(SpeedBlocks::from_blocks(blocks));
        ProcessedRange { first, last, summary, speed_blocks, first_received: time(0) }
    }

    /// Joins messages with these numbers. Returns whether each was new, and the result.
    fn join_numbers(stored: Vec<ProcessedRange>, numbers: &[i64]) -> (Vec<bool>, Joined) {
        let messages: Vec<Message> =
            numbers.iter().map(|number| faster(*number).numbered(*number)).collect();
        let mut news = Vec::new();
        let joined = join(stored, messages.iter(), time(0), |is_new| news.push(is_new));
        (news, joined)
    }

    #[test]
    fn a_message_beyond_a_gap_becomes_a_range_of_its_own() {
        let (news, joined) = join_numbers(stored(), &[9]);
        assert_eq!(news, [true]);
        assert_eq!((joined.removed, joined.grown), (vec![], vec![]));
        assert_eq!(joined.added, [range(9, 9, 9)]);
    }

    #[test]
    fn a_message_next_to_a_range_extends_it() {
        // Above the range, which keeps its first number.
        assert_eq!(join_numbers(stored(), &[8]).1.grown, [range(6, 8, 6 + 7 + 8)]);
        // Below it: the first number is part of the key, so the row is replaced.
        let joined = join_numbers(stored(), &[5]).1;
        assert_eq!((joined.removed, joined.added), (vec![6], vec![range(5, 7, 5 + 6 + 7)]));
    }

    #[test]
    fn messages_that_fill_a_gap_merge_its_two_neighbours() {
        let (news, joined) = join_numbers(stored(), &[4, 5]);
        assert_eq!(news, [true, true]);
        assert_eq!(joined.grown, [range(1, 7, 1 + 2 + 3 + 4 + 5 + 6 + 7)]);
        assert_eq!((joined.removed, joined.added), (vec![6], vec![]));
        // What is new is only what was in the gap. It also completes the sequence up to 7.
        let applied = joined.applied.map(|applied| {
            let Applied { processed, highest, complete_through, summary } = applied;
            (processed, highest, complete_through, summary.speed_change)
        });
        assert_eq!(applied, Some((2, 5, 7, 4 + 5)));
    }

    #[test]
    fn duplicates_change_nothing() {
        let (news, joined) = join_numbers(stored(), &[1, 3, 6]);
        assert_eq!(news, [false, false, false]);
        assert_eq!(joined, Joined::default());
    }

    #[test]
    fn of_two_new_copies_the_first_counts() {
        let (news, joined) = join_numbers(stored(), &[9, 9]);
        assert_eq!(news, [true, false]);
        assert_eq!(joined.added, [range(9, 9, 9)]);
    }

    #[test]
    fn every_order_of_arrival_ends_in_the_same_range() {
        for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
            let mut ranges: Vec<ProcessedRange> = Vec::new();
            for number in order {
                let joined = join_numbers(ranges.clone(), &[number]).1;
                ranges.retain(|range| {
                    let is_replaced = joined.grown.iter().any(|grown| grown.first == range.first);
                    !is_replaced && !joined.removed.contains(&range.first)
                });
                ranges.extend(joined.written().cloned());
                ranges.sort_unstable_by_key(|range| range.first);
            }
            assert_eq!(ranges, [range(1, 3, 1 + 2 + 3)], "{order:?}");
        }
    }
}
