//! Changes in a store: a [`Watch`](super::Watch) receives notifications of other processes'
//! changes, and a [`ChangeScan`](super::ChangeScan) finds the changed rockets.
//!
//! Other processes are the other instances on a Postgres server, and other users of an SQLite file.
//! The committers report this process's own changes.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

use serde::{Deserialize, Serialize};

use crate::domain::message::{Event, Message};
use crate::domain::rocket::{Progress, Rocket};
use crate::domain::text::Channel;

/// What new messages may have changed in one rocket, as far as filters depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeHint {
    /// The number of new messages; 0 if unknown.
    pub applied: u32,
    /// There was a launch: type, mission and status may have changed.
    pub launched: bool,
    /// There was a mission change.
    pub mission_changed: bool,
    /// There was an explosion: the status may have changed.
    pub exploded: bool,
    /// The first and the last number of the new messages, if each one was committed after its
    /// predecessor; none if they are unknown or in another order.
    pub numbers: Option<(i64, i64)>,
    /// Another process has committed the messages. In which order with those of others is unknown.
    #[serde(skip)]
    pub is_foreign: bool,
}

impl ChangeHint {
    /// An unknown change of a rocket.
    pub const UNKNOWN: Self = Self {
        applied: 0,
        launched: true,
        mission_changed: true,
        exploded: true,
        numbers: None,
        is_foreign: false,
    };

    /// Losses were declared or withdrawn. No filter depends on them.
    pub const LOSSES: Self =
        Self { launched: false, mission_changed: false, exploded: false, ..Self::UNKNOWN };

    /// The change by one new message.
    pub fn of(message: &Message) -> Self {
        let number = message.number.get();
        Self {
            applied: 1,
            launched: matches!(message.event, Event::Launched { .. }),
            mission_changed: matches!(message.event, Event::MissionChanged { .. }),
            exploded: matches!(message.event, Event::Exploded { .. }),
            numbers: Some((number, number)),
            is_foreign: false,
        }
    }

    /// Adds the changes by messages that were committed afterwards.
    pub fn add(&mut self, other: Self) {
        let is_known = self.applied > 0 && other.applied > 0;
        self.applied = if is_known { self.applied.saturating_add(other.applied) } else { 0 };
        self.launched |= other.launched;
        self.mission_changed |= other.mission_changed;
        self.exploded |= other.exploded;
        self.numbers = match (self.numbers, other.numbers) {
            (Some((first, last)), Some((next, end)))
                if last + 1 == next && !self.is_foreign && !other.is_foreign =>
            {
                Some((first, end))
            }
            _ => None,
        };
        self.is_foreign |= other.is_foreign;
    }

    /// Whether these messages brought a rocket from one state to the other, and it had gaps in
    /// every state between them, or in none.
    ///
    /// Messages in the order of their numbers can't open a gap and close it, or close the last one
    /// and open another: there, a number is above the one before it by more than one.
    pub fn keeps_gaps(&self, before: &Progress, after: &Progress) -> bool {
        self.numbers.is_some()
            && after.processed - before.processed == i64::from(self.applied)
            && (before.missing() > 0) == (after.missing() > 0)
    }
}

pub type ChangeHints = HashMap<Channel, ChangeHint>;

/// A received notification.
#[derive(Debug)]
pub enum Notified {
    /// Other processes have changed these rockets.
    ChangeHints(ChangeHints),
    /// Other processes have changed unspecified rockets; a scan must find them.
    Unspecified,
}

/// Hashes of the rows at the last scan: 16 bytes per row, also for rows that have been removed.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    hasher: RandomState,
    /// The hash of each row, by the hash of its channel.
    rows: HashMap<u64, u64>,
}

impl Fingerprints {
    /// Whether a rocket's row differs from the last scan. `hash` hashes its contents.
    pub(super) fn has_changed<E>(
        &mut self,
        channel: &str,
        hash: impl FnOnce(&mut DefaultHasher) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut hasher = self.hasher.build_hasher();
        hash(&mut hasher)?;
        let fingerprint = hasher.finish();
        Ok(self.rows.insert(self.hasher.hash_one(channel), fingerprint) != Some(fingerprint))
    }
}

/// A result of a scan.
#[derive(Debug)]
pub enum ScanProgress {
    /// The current state of some rockets that have changed, or may have. There may be more.
    Rockets(Vec<Rocket>),
    /// The scan has found every rocket that had changed before it started.
    Done,
    /// The path now names another database: everything may have changed, and rockets may be gone.
    AnotherDatabase,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::example::faster;

    /// The progress of a rocket of which these numbers are processed.
    fn progress(numbers: &[i64]) -> Progress {
        let processed = numbers.len() as i64;
        let complete_through = (1..).take_while(|number| numbers.contains(number)).count() as i64;
        let highest = numbers.iter().copied().max().unwrap();
        Progress::without_losses(processed, complete_through, highest)
    }

    fn hint(numbers: &[i64]) -> ChangeHint {
        let hints = numbers.iter().map(|number| ChangeHint::of(&faster(1).numbered(*number)));
        hints
            .reduce(|mut hint, next| {
                hint.add(next);
                hint
            })
            .unwrap()
    }

    /// Every order in which every set of the numbers can arrive.
    fn arrivals(numbers: &[i64]) -> Vec<Vec<i64>> {
        let mut all = vec![Vec::new()];
        for (index, number) in numbers.iter().enumerate() {
            let others = [&numbers[..index], &numbers[index + 1..]].concat();
            all.extend(arrivals(&others).into_iter().map(|rest| [vec![*number], rest].concat()));
        }
        all
    }

    #[test]
    fn where_gaps_are_kept_no_state_in_between_differs() {
        let mut kept = 0;
        for arrival in arrivals(&[1, 2, 3, 4, 5]) {
            for start in 1..arrival.len() {
                let has_gaps = |end: usize| progress(&arrival[..end]).missing() > 0;
                let (before, after) = (progress(&arrival[..start]), progress(&arrival));
                if hint(&arrival[start..]).keeps_gaps(&before, &after) {
                    assert!((start..arrival.len()).all(|end| has_gaps(end) == has_gaps(start)));
                    kept += 1;
                }
                // A message that is not in the hint was committed, too.
                let known = &arrival[start..arrival.len() - 1];
                assert!(known.is_empty() || !hint(known).keeps_gaps(&before, &after));
            }
        }
        assert!(kept > 100, "{kept}");
    }

    #[test]
    fn the_order_of_messages_that_different_processes_have_committed_is_unknown() {
        let (before, after) = (progress(&[1]), progress(&[1, 2, 3]));
        let foreign = |number| ChangeHint { is_foreign: true, ..hint(&[number]) };
        assert!(hint(&[2, 3]).keeps_gaps(&before, &after));
        for (mut first, then) in [
            (hint(&[2]), foreign(3)),
            (foreign(2), hint(&[3])),
            (foreign(2), foreign(3)),
            (hint(&[2]), ChangeHint::UNKNOWN),
        ] {
            first.add(then);
            assert!(!first.keeps_gaps(&before, &after));
        }
        assert!(foreign(2).keeps_gaps(&before, &progress(&[1, 2])));
    }
}
