//! A set of message numbers that takes memory for its ranges, not for its numbers.

use std::collections::BTreeMap;

use super::message::MessageNumber;

/// A set of message numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberSet {
    /// The last number of each range, by its first. Ranges neither overlap nor touch.
    ranges: BTreeMap<u32, u32>,
}

impl NumberSet {
    /// Adds a number. Returns whether it is new.
    pub fn insert(&mut self, number: MessageNumber) -> bool {
        let number = number.as_u32();
        let below = self.ranges.range_mut(..=number).next_back();
        match below {
            Some((_, last)) if *last >= number => return false,
            Some((_, last)) if *last + 1 == number => {
                *last = number;
                self.join_with_next(number);
            }
            _ => {
                let last = number.checked_add(1).and_then(|next| self.ranges.remove(&next));
                self.ranges.insert(number, last.unwrap_or(number));
            }
        }
        true
    }

    /// Joins the range that ends at this number with the range that starts after it, if there is
    /// one.
    fn join_with_next(&mut self, last: u32) {
        let next = last.checked_add(1).and_then(|next| self.ranges.remove(&next));
        if let Some(next_last) = next
            && let Some((_, last)) = self.ranges.range_mut(..=last).next_back()
        {
            *last = next_last;
        }
    }

    /// Adds a range, both ends inclusive, that is above all others and doesn't touch them.
    pub fn push_range(&mut self, first: u32, last: u32) {
        assert!(first <= last, "a range is not empty");
        let highest = self.ranges.last_key_value().map(|(_, last)| u64::from(*last));
        assert!(
            highest.is_none_or(|highest| highest + 1 < u64::from(first)),
            "ranges are added in ascending order"
        );
        self.ranges.insert(first, last);
    }

    /// Removes a number. Returns whether it was there.
    pub fn remove(&mut self, number: MessageNumber) -> bool {
        let number = number.as_u32();
        let Some((&first, last)) = self.ranges.range_mut(..=number).next_back() else {
            return false;
        };
        let end = *last;
        if end < number {
            return false;
        }
        if first == number {
            self.ranges.remove(&first);
        } else {
            *last = number - 1;
        }
        if number < end {
            self.ranges.insert(number + 1, end);
        }
        true
    }

    /// Removes the numbers above this one.
    pub fn truncate(&mut self, highest: MessageNumber) {
        let highest = highest.as_u32();
        if let Some(above) = highest.checked_add(1) {
            self.ranges.split_off(&above);
        }
        if let Some((_, last)) = self.ranges.iter_mut().next_back() {
            *last = highest.min(*last);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ranges it has.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// How many numbers are in it.
    pub fn count(&self) -> u64 {
        self.ranges().map(|(first, last)| count(first, last)).sum()
    }

    /// How many numbers of a range are in it.
    pub fn count_within(&self, first: u32, last: u32) -> u64 {
        if first > last {
            return 0;
        }
        let before = self.ranges.range(..first).next_back();
        let within = before.into_iter().chain(self.ranges.range(first..=last));
        within
            .map(|(own_first, own_last)| ((*own_first).max(first), (*own_last).min(last)))
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| count(first, last))
            .sum()
    }

    /// The lowest number.
    pub fn lowest(&self) -> Option<MessageNumber> {
        let (first, _) = self.ranges.first_key_value()?;
        MessageNumber::new(i64::from(*first))
    }

    /// The highest number.
    pub fn highest(&self) -> Option<MessageNumber> {
        let (_, last) = self.ranges.last_key_value()?;
        MessageNumber::new(i64::from(*last))
    }

    /// Its ranges in ascending order, both ends inclusive.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }
}

fn count(first: u32, last: u32) -> u64 {
    u64::from(last) - u64::from(first) + 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Numbers at both ends of what is allowed.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![4 => 1..30_u32, 1 => u32::MAX - 5..=u32::MAX]
    }

    fn of(number: u32) -> MessageNumber {
        MessageNumber::new(i64::from(number)).unwrap()
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_set_of_numbers(
            changes in prop::collection::vec((any::<bool>(), number()), 0..200),
            (first, last) in (number(), number()),
        ) {
            let (mut set, mut model) = (NumberSet::default(), BTreeSet::new());
            for (inserts, number) in changes {
                if inserts {
                    prop_assert_eq!(set.insert(of(number)), model.insert(number));
                } else {
                    prop_assert_eq!(set.remove(of(number)), model.remove(&number));
                }
                let numbers = set.ranges().flat_map(|(first, last)| first..=last);
                prop_assert!(numbers.eq(model.iter().copied()));
                let ranges: Vec<_> = set.ranges().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                prop_assert_eq!(set.count(), model.len() as u64);
                prop_assert_eq!(set.lowest(), model.first().copied().map(of));
                prop_assert_eq!(set.highest(), model.last().copied().map(of));
            }
            let within = model.iter().filter(|number| (first..=last).contains(*number)).count();
            let within = if first <= last { within as u64 } else { 0 };
            prop_assert_eq!(set.count_within(first, last), within);
            let mut copy = NumberSet::default();
            set.ranges().for_each(|(first, last)| copy.push_range(first, last));
            prop_assert_eq!(&copy, &set);
            set.truncate(of(last));
            let numbers = set.ranges().flat_map(|(first, last)| first..=last);
            prop_assert!(numbers.eq(model.range(..=last).copied()));
        }
    }
}
