//! Processed message numbers as ranges, and how new numbers are joined to them.

use super::message::Message;
use super::summary::Summary;

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
}

impl ProcessedRange {
    /// The range of one message.
    pub fn of(message: &Message) -> Self {
        let number = message.number.get();
        Self { first: number, last: number, summary: Summary::of(message) }
    }

    /// A copy whose texts don't keep the messages' input buffers in memory.
    pub fn detached(&self) -> Self {
        Self { summary: self.summary.detached(), ..*self }
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

/// Joins a channel's messages, sorted by number, to the `stored` ranges that overlap or touch them,
/// sorted by first number. The stored ranges may include others of the channel.
///
/// Calls `outcome` once per message, in order, with whether it was new. Of several copies of a
/// message, the first in the given order counts.
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

/// The state of one ascending pass: everything before `current` is final.
#[derive(Default)]
struct Joiner {
    joined: Joined,
    current: Option<Current>,
}

struct Current {
    range: ProcessedRange,
    /// Whether a range with its first number is stored.
    stored: bool,
    /// Whether it differs from the stored range.
    changed: bool,
}

impl Joined {
    /// Every range that differs from the stored ones.
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
