//! Which message numbers of a channel are missing: not processed, lost ones included.

use std::ops::ControlFlow;

use super::message::MessageNumber;
use super::text::Channel;

/// A question of a sender: which of these numbers has not been processed?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub channel: Channel,
    pub from: MessageNumber,
    /// Not below `from`.
    pub through: MessageNumber,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Missing ranges in ascending order, both ends inclusive. At least one processed number is
    /// between two of them.
    pub ranges: Vec<(u32, u32)>,
    /// The first missing number that is not in `ranges`, because they would be too many.
    pub next_from: Option<u32>,
}

/// Finds missing ranges in one pass over the processed ranges.
#[derive(Debug)]
pub struct MissingFinder {
    found: Missing,
    max_ranges: usize,
    /// The first number that is not decided.
    next: i64,
    through: i64,
}

impl MissingFinder {
    /// The maximum number of ranges in an answer.
    pub const MAX_RANGES: usize = 10_000;

    pub fn new(question: &Question, max_ranges: usize) -> Self {
        let (next, through) = (question.from.get(), question.through.get());
        Self { found: Missing::default(), max_ranges, next, through }
    }

    /// Adds the next processed range of the channel, in ascending order. Ranges that don't overlap
    /// the question may be left out. Breaks when no further range can change the answer.
    pub fn add(&mut self, first: i64, last: i64) -> ControlFlow<()> {
        self.add_missing(first - 1)?;
        self.next = self.next.max(last + 1);
        if self.next > self.through { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The answer after the last range.
    pub fn finish(mut self) -> Missing {
        // It doesn't matter here whether that fills the answer.
        let _ = self.add_missing(self.through);
        self.found
    }

    /// Adds the numbers up to `last`, unless they are decided. Breaks when the answer is full.
    fn add_missing(&mut self, last: i64) -> ControlFlow<()> {
        let last = last.min(self.through);
        if self.found.next_from.is_some() {
            return ControlFlow::Break(());
        }
        if self.next > last {
            return ControlFlow::Continue(());
        }
        let (Ok(first), Ok(last)) = (u32::try_from(self.next), u32::try_from(last)) else {
            unreachable!("both are within the question, whose numbers are 32-bit")
        };
        if self.found.ranges.len() == self.max_ranges {
            self.found.next_from = Some(first);
            return ControlFlow::Break(());
        }
        self.found.ranges.push((first, last));
        self.next = i64::from(last) + 1;
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn question(from: i64, through: i64) -> Question {
        let number = |number| MessageNumber::new(number).unwrap();
        let channel = Channel::new("rocket").unwrap();
        Question { channel, from: number(from), through: number(through) }
    }

    /// The answer, and how many of the ranges were read for it.
    fn answer(
        processed: &[(i64, i64)],
        question: &Question,
        max_ranges: usize,
    ) -> (Missing, usize) {
        let mut finder = MissingFinder::new(question, max_ranges);
        let mut read = 0;
        for (first, last) in processed {
            read += 1;
            if finder.add(*first, *last).is_break() {
                break;
            }
        }
        (finder.finish(), read)
    }

    #[test]
    fn what_is_missing_between_and_around_ranges() {
        let processed = [(3, 4), (6, 9), (12, 12)];
        for (from, through, ranges) in [
            (1, 15, vec![(1, 2), (5, 5), (10, 11), (13, 15)]),
            (1, 2, vec![(1, 2)]),
            (3, 4, vec![]),
            (4, 5, vec![(5, 5)]),
            (7, 11, vec![(10, 11)]),
            (13, 4_294_967_295, vec![(13, u32::MAX)]),
        ] {
            let (found, _) = answer(&processed, &question(from, through), 100);
            assert_eq!(found, Missing { ranges, next_from: None }, "{from} to {through}");
        }
        let all = answer(&[], &question(1, 4_294_967_295), 1).0;
        assert_eq!(all, Missing { ranges: vec![(1, u32::MAX)], next_from: None });
        let last = answer(&[(1, 4_294_967_295)], &question(4_294_967_295, 4_294_967_295), 1).0;
        assert_eq!(last, Missing::default());
    }

    #[test]
    fn a_full_answer_says_where_to_go_on_and_reads_no_more() {
        let processed = [(2, 2), (4, 4), (6, 6), (8, 8)];
        let (found, read) = answer(&processed, &question(1, 9), 2);
        assert_eq!(found, Missing { ranges: vec![(1, 1), (3, 3)], next_from: Some(5) });
        assert_eq!(read, 3);
        // Exactly full.
        let (found, _) = answer(&processed, &question(1, 4), 2);
        assert_eq!(found, Missing { ranges: vec![(1, 1), (3, 3)], next_from: None });
        let (found, _) = answer(&processed, &question(7, 9), 1);
        assert_eq!(found, Missing { ranges: vec![(7, 7)], next_from: Some(9) });
    }

    proptest! {
        #[test]
        fn pages_together_are_the_numbers_that_are_not_processed(
            numbers in prop::collection::btree_set(1..60_i64, 0..40),
            from in 1..60_i64,
            length in 0..60_i64,
            max_ranges in 1..4_usize,
        ) {
            let mut ranges: Vec<(i64, i64)> = Vec::new();
            for number in &numbers {
                match ranges.last_mut() {
                    Some((_, last)) if *last + 1 == *number => *last = *number,
                    _ => ranges.push((*number, *number)),
                }
            }
            let through = from + length;
            let mut missing = BTreeSet::new();
            let mut next = Some(from);
            while let Some(from) = next {
                let (page, _) = answer(&ranges, &question(from, through), max_ranges);
                prop_assert!(page.ranges.len() <= max_ranges);
                for (first, last) in page.ranges {
                    for number in i64::from(first)..=i64::from(last) {
                        prop_assert!(missing.insert(number));
                    }
                }
                next = page.next_from.map(i64::from);
            }
            let expected = (from..=through).filter(|number| !numbers.contains(number));
            prop_assert_eq!(missing, expected.collect::<BTreeSet<_>>());
        }
    }
}
