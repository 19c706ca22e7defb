//! Processed message numbers as ranges, and how new numbers join them.

use super::message::Message;
use super::summary::Summary;

/// Contiguous processed message numbers of one channel, with the summary of their messages.
///
/// A channel's ranges neither overlap nor touch: two that would touch are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessedRange {
    /// The lowest number.
    pub first: i64,
    /// The highest number.
    pub last: i64,
    /// What the messages from `first` to `last` come to.
    pub summary: Summary,
}

impl ProcessedRange {
    /// The range of one message.
    pub fn of(message: &Message) -> Self {
        let number = message.number.get();
        Self { first: number, last: number, summary: Summary::of(message) }
    }

    /// A copy whose texts don't keep the buffers in memory that their messages arrived in.
    pub fn detached(&self) -> Self {
        Self { summary: self.summary.detached(), ..*self }
    }

    /// How many messages it holds.
    pub fn count(&self) -> i64 {
        self.last - self.first + 1
    }
}

/// What joining new messages to stored ranges comes to: the rows to delete and to write, and what was new.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// The first numbers of stored ranges that another range has swallowed.
    pub removed: Vec<i64>,
    /// The ranges that are stored under their first number and have grown, in ascending order.
    pub grown: Vec<ProcessedRange>,
    /// The ranges whose first number no stored range has, in ascending order.
    pub added: Vec<ProcessedRange>,
    /// The new messages alone; none if all were duplicates.
    pub applied: Option<Applied>,
}

/// What the new messages of one channel add to its rocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// How many messages were new.
    pub processed: i64,
    /// The highest of their numbers.
    pub highest: i64,
    /// The last number of the range that starts at 1, if they made or enlarged it, else 0.
    pub complete_through: i64,
    /// What they come to.
    pub summary: Summary,
}

impl Applied {
    /// What one message adds, but for how far it completes the sequence from 1.
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

/// Joins one channel's messages, sorted by number, to the `stored` ranges that overlap or touch them, sorted by first
/// number; the stored ranges may include others of the channel.
///
/// `outcome` is called once for each message, in order, with whether it was new. Of copies with the same number the
/// first in the given order counts.
pub fn join<'m>(
    stored: Vec<ProcessedRange>,
    messages: impl Iterator<Item = &'m Message>,
    mut outcome: impl FnMut(bool),
) -> Joined {
    let mut joiner = Joiner::default();
    let mut stored = stored.into_iter().peekable();
    for message in messages {
        let number = message.number.get();
        while let Some(range) = stored.next_if(|range| range.first <= number) {
            joiner.take_stored(range);
        }
        outcome(joiner.take_message(message));
    }
    for range in stored {
        joiner.take_stored(range);
    }
    joiner.finish()
}

/// The state of one pass in ascending order: everything before `current` is settled.
#[derive(Default)]
struct Joiner {
    joined: Joined,
    current: Option<Current>,
}

struct Current {
    range: ProcessedRange,
    /// Whether a range is stored under its first number.
    stored: bool,
    /// Whether it differs from that.
    changed: bool,
}

impl Joined {
    /// Every range that differs from what is stored.
    pub fn written(&self) -> impl Iterator<Item = &ProcessedRange> {
        self.grown.iter().chain(&self.added)
    }
}

impl Joiner {
    fn take_stored(&mut self, range: ProcessedRange) {
        match &mut self.current {
            Some(current) if current.range.last + 1 == range.first => {
                self.joined.removed.push(range.first);
                current.range.last = range.last;
                current.range.summary.combine(range.summary);
                current.changed = true;
            }
            _ => self.start(range, true),
        }
    }

    /// Whether the message is new.
    fn take_message(&mut self, message: &Message) -> bool {
        let number = message.number.get();
        if self.current.as_ref().is_some_and(|current| number <= current.range.last) {
            return false;
        }
        self.apply(message);
        match &mut self.current {
            Some(current) if current.range.last + 1 == number => {
                current.range.last = number;
                current.range.summary.add(message);
                current.changed = true;
            }
            _ => self.start(ProcessedRange::of(message), false),
        }
        true
    }

    fn apply(&mut self, message: &Message) {
        match &mut self.joined.applied {
            Some(applied) => applied.add(message),
            none => *none = Some(Applied::of(message)),
        }
    }

    fn start(&mut self, range: ProcessedRange, stored: bool) {
        self.settle();
        self.current = Some(Current { range, stored, changed: !stored });
    }

    fn settle(&mut self) {
        let Some(Current { range, stored, changed: true }) = self.current.take() else {
            return;
        };
        if let Some(applied) = self.joined.applied.as_mut().filter(|_| range.first == 1) {
            applied.complete_through = range.last;
        }
        if stored {
            self.joined.grown.push(range);
        } else {
            self.joined.added.push(range);
        }
    }

    fn finish(mut self) -> Joined {
        self.settle();
        self.joined
    }
}
