//! Numbers that are declared lost: an overlay over the gaps of a channel.
//!
//! A declaration changes nothing that was processed. The exact view goes on across lost numbers,
//! and a lost message that arrives after all counts like any other.

use super::text::{Channel, Text};
use super::timestamp::Timestamp;

/// Numbers of a channel that are declared lost, both ends inclusive.
///
/// A channel's losses don't overlap. They may include numbers that were processed, before the
/// declaration or since: these are not lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub first: i64,
    pub last: i64,
    pub reason: Text,
    pub declared_at: Timestamp,
}

/// What to do with the numbers `first..=last` of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossRequest {
    pub channel: Channel,
    pub first: i64,
    pub last: i64,
    pub action: LossAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossAction {
    /// Declare the missing ones lost, except those that already are.
    Declare { reason: Text, at: Timestamp },
    /// Withdraw all declarations about them.
    Withdraw,
}

/// Why a request about losses is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossError {
    UnknownChannel,
    /// Only numbers below the channel's highest processed number can be declared lost.
    NotBelow {
        highest: i64,
    },
}

/// The changes of a channel's stored losses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LossChanges {
    /// The stored losses to delete.
    pub removed: Vec<Loss>,
    pub added: Vec<Loss>,
    /// The numbers that become lost, or are no longer lost, unless they were processed: as ranges
    /// with both ends inclusive, in ascending order.
    pub changed: Vec<(i64, i64)>,
}

impl LossRequest {
    /// Checks the request. `highest` is the channel's highest processed number; none for an unknown
    /// channel.
    pub fn check(&self, highest: Option<i64>) -> Result<(), LossError> {
        match (highest, &self.action) {
            (None, _) => Err(LossError::UnknownChannel),
            (Some(highest), LossAction::Declare { .. }) if self.last >= highest => {
                Err(LossError::NotBelow { highest })
            }
            (Some(_), _) => Ok(()),
        }
    }

    /// The changes of the stored losses that overlap `first..=last`, in ascending order.
    pub fn changes(&self, stored: Vec<Loss>) -> LossChanges {
        let Self { first, last, .. } = *self;
        match &self.action {
            LossAction::Declare { reason, at } => {
                let declared = stored.iter().map(|loss| (loss.first, loss.last));
                let changed = uncovered(declared, first, last);
                let added = changed.iter().map(|&(first, last)| Loss {
                    first,
                    last,
                    reason: reason.clone(),
                    declared_at: *at,
                });
                LossChanges { removed: Vec::new(), added: added.collect(), changed }
            }
            LossAction::Withdraw => {
                let changed =
                    stored.iter().map(|loss| (loss.first.max(first), loss.last.min(last)));
                let changed = changed.collect();
                let rests = stored.iter().flat_map(|loss| {
                    let below = Loss { last: loss.last.min(first - 1), ..loss.clone() };
                    let above = Loss { first: loss.first.max(last + 1), ..loss.clone() };
                    [below, above].into_iter().filter(|rest| rest.first <= rest.last)
                });
                LossChanges { added: rests.collect(), changed, removed: stored }
            }
        }
    }
}

impl LossChanges {
    /// How many numbers the declarations are about, processed or not.
    pub fn numbers(&self) -> i64 {
        self.changed.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many of them are in `first..=last`.
    pub fn numbers_in(&self, first: i64, last: i64) -> i64 {
        let above = &self.changed[self.changed.partition_point(|changed| changed.1 < first)..];
        let common = above.iter().take_while(|changed| changed.0 <= last);
        common.map(|changed| changed.1.min(last) - changed.0.max(first) + 1).sum()
    }
}

/// The parts of `first..=last` outside `covered`, which yields ranges that don't overlap, in
/// ascending order. All ranges have both ends inclusive.
pub fn uncovered(
    covered: impl Iterator<Item = (i64, i64)>,
    first: i64,
    last: i64,
) -> Vec<(i64, i64)> {
    let mut next = first;
    let mut uncovered = Vec::new();
    for (covered_first, covered_last) in covered {
        if covered_first > last {
            break;
        }
        if covered_first > next {
            uncovered.push((next, covered_first - 1));
        }
        next = next.max(covered_last + 1);
    }
    if next <= last {
        uncovered.push((next, last));
    }
    uncovered
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::example::time;

    fn request(first: i64, last: i64, action: LossAction) -> LossRequest {
        LossRequest { channel: Channel::new("rocket").unwrap(), first, last, action }
    }

    fn declare(first: i64, last: i64) -> LossRequest {
        let reason = Text::new("the tape was overwritten").unwrap();
        request(first, last, LossAction::Declare { reason, at: time(9) })
    }

    fn withdraw(first: i64, last: i64) -> LossRequest {
        request(first, last, LossAction::Withdraw)
    }

    fn losses(ends: &[(i64, i64)]) -> Vec<Loss> {
        let reason = Text::new("never sent").unwrap();
        let loss =
            |&(first, last)| Loss { first, last, reason: reason.clone(), declared_at: time(1) };
        ends.iter().map(loss).collect()
    }

    fn ends(losses: &[Loss]) -> Vec<(i64, i64)> {
        losses.iter().map(|loss| (loss.first, loss.last)).collect()
    }

    #[test]
    fn only_numbers_below_the_highest_can_be_declared_lost() {
        assert_eq!(declare(3, 5).check(None), Err(LossError::UnknownChannel));
        assert_eq!(declare(3, 5).check(Some(5)), Err(LossError::NotBelow { highest: 5 }));
        assert_eq!(declare(3, 5).check(Some(6)), Ok(()));
        assert_eq!(withdraw(3, 5).check(Some(5)), Ok(()));
    }

    #[test]
    fn a_declaration_adds_what_is_not_yet_declared() {
        let changes = declare(2, 9).changes(losses(&[(1, 3), (5, 5)]));
        assert_eq!(changes.removed, []);
        assert_eq!(ends(&changes.added), [(4, 4), (6, 9)]);
        assert_eq!(changes.changed, [(4, 4), (6, 9)]);
        assert_eq!(declare(2, 3).changes(losses(&[(1, 3)])), LossChanges::default());
    }

    #[test]
    fn a_withdrawal_keeps_what_is_outside() {
        let stored = losses(&[(1, 3), (5, 5), (7, 12)]);
        let changes = withdraw(2, 9).changes(stored.clone());
        assert_eq!(changes.removed, stored);
        assert_eq!(ends(&changes.added), [(1, 1), (10, 12)]);
        assert_eq!(changes.changed, [(2, 3), (5, 5), (7, 9)]);
        // What remains keeps its reason and time.
        assert_eq!(changes.added[0].reason, stored[0].reason);
        assert_eq!(changes.added[0].declared_at, time(1));
        // A number in the middle.
        assert_eq!(ends(&withdraw(2, 2).changes(losses(&[(1, 3)])).added), [(1, 1), (3, 3)]);
    }

    #[test]
    fn numbers_are_counted_in_any_interval() {
        let changes = declare(1, 20).changes(losses(&[(8, 9)]));
        assert_eq!(changes.numbers(), 18);
        for (first, last, count) in
            [(2, 2, 1), (4, 8, 4), (8, 9, 0), (9, 10, 1), (15, 30, 6), (1, 100, 18), (21, 30, 0)]
        {
            assert_eq!(changes.numbers_in(first, last), count, "{first} to {last}");
        }
    }
}
