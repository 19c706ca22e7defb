//! What this process has committed in the last hour: how many messages, and the latest explosions.
//! It is only in memory, and of fixed size. What other instances on the same database commit is not
//! in it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Tally;
use crate::domain::batch::Outcome;
use crate::domain::message::{Event, Message};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// The messages of this time are counted together.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// An hour.
const MAX_INTERVALS: usize = 360;
const MAX_EXPLOSIONS: usize = 100;

/// The log, for all committers.
#[derive(Debug)]
pub struct Activity {
    started: Instant,
    started_at: Timestamp,
    /// A lock and not atomic counters, because a new interval clears an old one. Each batch takes
    /// it once, for an addition.
    log: Mutex<Log>,
}

/// A new explosion message. A rocket may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explosion {
    pub channel: Channel,
    pub reason: Text,
    pub received_at: Timestamp,
}

/// The state of an [`Activity`] at some time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the process began to count.
    pub started_at: Timestamp,
    /// The start of the first interval.
    pub since: Timestamp,
    /// The time of the snapshot. The last interval has not ended yet.
    pub until: Timestamp,
    /// The intervals, in their order, without a pause between them.
    pub intervals: Vec<Tally>,
    /// The latest explosions, the latest one first.
    pub explosions: Vec<Explosion>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            started_at: Timestamp::from_system_time(SystemTime::now()),
            log: Mutex::new(Log {
                intervals: [Tally::default(); MAX_INTERVALS],
                current: 0,
                explosions: VecDeque::new(),
            }),
        }
    }
}

impl Activity {
    /// Counts a batch that was committed at this time. Allocates only if it has explosions.
    pub(super) fn record(&self, messages: &[Message], outcomes: &[Outcome], at: Timestamp) {
        let tally = Tally::of(outcomes);
        let explosions = explosions(messages, outcomes, at);
        let interval = interval(self.started.elapsed());
        let mut log = self.lock();
        log.begin(interval);
        log.count(tally);
        explosions.into_iter().for_each(|explosion| log.add(explosion));
    }

    pub fn snapshot(&self) -> Snapshot {
        let elapsed = self.started.elapsed();
        let mut log = self.lock();
        log.begin(interval(elapsed));
        let first = (log.current + 1).saturating_sub(MAX_INTERVALS);
        let intervals = (first..=log.current).map(|number| log.intervals[number % MAX_INTERVALS]);
        let before = INTERVAL * u32::try_from(first).unwrap_or(u32::MAX);
        Snapshot {
            started_at: self.started_at,
            since: self.started_at.plus(before),
            until: self.started_at.plus(elapsed),
            intervals: intervals.collect(),
            explosions: log.explosions.iter().rev().cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // No panic is possible between two changes that belong together.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the interval after this time.
fn interval(elapsed: Duration) -> usize {
    usize::try_from(elapsed.as_secs() / INTERVAL.as_secs()).unwrap_or(usize::MAX)
}

#[derive(Debug)]
struct Log {
    /// A ring: the interval with number `n` is at `n % MAX_INTERVALS`.
    intervals: [Tally; MAX_INTERVALS],
    /// The number of the latest interval.
    current: usize,
    explosions: VecDeque<Explosion>,
}

impl Log {
    /// Makes this interval the latest one, unless a later one has begun.
    fn begin(&mut self, interval: usize) {
        // Beyond a whole round, the same places would be cleared again.
        let round = self.current.saturating_add(MAX_INTERVALS);
        for number in self.current + 1..=interval.min(round) {
            self.intervals[number % MAX_INTERVALS] = Tally::default();
        }
        self.current = self.current.max(interval);
    }

    fn count(&mut self, tally: Tally) {
        self.intervals[self.current % MAX_INTERVALS].add(tally);
    }

    fn add(&mut self, explosion: Explosion) {
        if self.explosions.len() == MAX_EXPLOSIONS {
            self.explosions.pop_front();
        }
        self.explosions.push_back(explosion);
    }
}

/// The last new explosions of a batch, in their order.
fn explosions(messages: &[Message], outcomes: &[Outcome], at: Timestamp) -> Vec<Explosion> {
    let is_new = |outcome: &Outcome| *outcome == Outcome::Applied;
    let new = messages.iter().zip(outcomes).rev().filter(|(_, outcome)| is_new(outcome));
    let found = new.filter_map(|(message, _)| match &message.event {
        // The message's own texts would keep its input buffer in memory.
        Event::Exploded { reason } => Some(Explosion {
            channel: message.channel.detached(),
            reason: reason.detached(),
            received_at: at,
        }),
        _ => None,
    });
    let mut found: Vec<_> = found.take(MAX_EXPLOSIONS).collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::example;

    fn tally(applied: u64) -> Tally {
        Tally { applied, duplicates: 0 }
    }

    fn log() -> Log {
        Log { intervals: [tally(7); MAX_INTERVALS], current: 0, explosions: VecDeque::new() }
    }

    #[test]
    fn a_new_interval_clears_those_that_it_passes_and_no_other() {
        for (begun, cleared) in [
            (0, 0),
            (1, 1),
            (5, 5),
            (MAX_INTERVALS - 1, MAX_INTERVALS - 1),
            (MAX_INTERVALS, MAX_INTERVALS),
            (10 * MAX_INTERVALS, MAX_INTERVALS),
            (1_000_000 * MAX_INTERVALS, MAX_INTERVALS),
        ] {
            let mut log = log();
            log.begin(begun);
            assert_eq!(log.current, begun);
            let empty = log.intervals.iter().filter(|tally| tally.applied == 0).count();
            assert_eq!(empty, cleared, "{begun}");
            // Another committer has read the clock before.
            log.begin(begun.saturating_sub(1));
            assert_eq!(log.current, begun);
        }
    }

    #[test]
    fn a_batch_is_counted_and_its_new_explosions_are_kept() {
        let activity = Activity::default();
        let messages: Vec<_> = ["a", "b", "c", "d"].map(example::exploded).into();
        let mut outcomes = [Outcome::Applied; 4];
        outcomes[1] = Outcome::Duplicate;
        activity.record(&messages, &outcomes, Timestamp::FIRST);
        activity.record(&[example::faster(1)], &[Outcome::Applied], Timestamp::FIRST);
        let Snapshot { intervals, explosions, since, started_at, .. } = activity.snapshot();
        assert_eq!(intervals.iter().map(|tally| tally.applied).sum::<u64>(), 4);
        assert_eq!(intervals.iter().map(|tally| tally.duplicates).sum::<u64>(), 1);
        assert_eq!((explosions.len(), since), (3, started_at));
    }

    #[test]
    fn the_latest_explosions_are_kept_and_no_more_than_these() {
        let activity = Activity::default();
        let explode = |second: i64, count: usize| {
            let at = Timestamp::from_unix_micros(second * 1_000_000).unwrap();
            let messages = vec![example::exploded("r"); count];
            activity.record(&messages, &vec![Outcome::Applied; count], at);
        };
        let seconds = || -> Vec<i64> {
            let explosions = activity.snapshot().explosions;
            explosions.iter().map(|it| it.received_at.unix_micros() / 1_000_000).collect()
        };
        explode(1, 2);
        explode(2, 99);
        assert_eq!(seconds(), [vec![2; 99], vec![1]].concat());
        explode(3, 1_000);
        assert_eq!(seconds(), vec![3; 100]);
    }
}
