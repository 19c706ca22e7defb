//! The log changes, only the latest of each rocket, in the order of their positions.
//!
//! A follower has a position: it has received all changes up to it. As long as no change beyond its
//! position has been dropped, everything that it has yet to receive is here. Nothing here knows the
//! followers.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::domain::query::Filters;
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::store::changes::ChangeHint;

/// The maximum number of retained changes, one per rocket.
const MAX_CHANGES: usize = 16_384;

/// The latest change of a rocket.
#[derive(Debug)]
pub struct RocketChange {
    /// Its position among all changes.
    pub position: u64,
    pub channel: Channel,
    /// The rocket's state; none if it was removed.
    pub rocket: Option<Rocket>,
    marks: FilterMarks,
    /// The event text, written once for all followers.
    pub text: OnceLock<Bytes>,
}

/// The latest positions at which attributes that filters use may have changed. 0 means before
/// everything that is retained.
#[derive(Clone, Copy, Debug, Default)]
struct FilterMarks {
    /// The rocket did not exist before this position.
    created: u64,
    rocket_type: u64,
    mission: u64,
    status: u64,
}

impl FilterMarks {
    fn after(mut self, hint: ChangeHint, position: u64) -> Self {
        if hint.launched {
            self.rocket_type = position;
        }
        if hint.launched || hint.mission_changed {
            self.mission = position;
        }
        if hint.launched || hint.exploded {
            self.status = position;
        }
        self
    }
}

/// What a change is to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Rocket,
    /// The rocket no longer matches.
    Gone,
    /// The rocket doesn't match, and didn't before.
    Nothing,
}

impl RocketChange {
    /// What to deliver to a follower that has received everything up to `position`. If it is
    /// unknown whether the rocket matched before, the follower may learn that a rocket is gone that
    /// it never received.
    pub fn delivery(&self, filters: &Filters, position: u64) -> Delivery {
        if !filters.matches_channel(&self.channel) {
            return Delivery::Nothing;
        }
        let Some(rocket) = &self.rocket else {
            return if position < self.marks.created { Delivery::Nothing } else { Delivery::Gone };
        };
        if filters.matches(rocket, Timestamp::FIRST) {
            return Delivery::Rocket;
        }
        let may_have_left = (!filters.rocket_types.is_empty() && self.marks.rocket_type > position)
            || (!filters.missions.is_empty() && self.marks.mission > position)
            || (!filters.statuses.is_empty() && self.marks.status > position);
        if may_have_left && position >= self.marks.created {
            Delivery::Gone
        } else {
            Delivery::Nothing
        }
    }
}

/// A follower's position in a sequence of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Identifies a sequence of changes. It ends with the process, or after a time without
    /// followers.
    pub epoch: u64,
    /// The follower has received everything up to here.
    pub position: u64,
}

#[derive(Debug)]
pub(super) struct ChangeLog {
    epoch: u64,
    position: u64,
    /// The highest position of a dropped change that was its rocket's latest.
    dropped: u64,
    changes: BTreeMap<u64, Arc<RocketChange>>,
    positions: HashMap<Channel, u64>,
}

impl ChangeLog {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            position: 0,
            dropped: 0,
            changes: BTreeMap::new(),
            positions: HashMap::default(),
        }
    }

    /// The position of the latest change.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.position }
    }

    /// Whether all changes since the cursor are retained.
    pub(super) fn retains(&self, cursor: Cursor) -> bool {
        cursor.epoch == self.epoch && (self.dropped..=self.position).contains(&cursor.position)
    }

    /// The first changes since the cursor; none if some are no longer retained.
    pub(super) fn since(&self, cursor: Cursor, limit: usize) -> Option<Vec<Arc<RocketChange>>> {
        let beyond = (Bound::Excluded(cursor.position), Bound::Unbounded);
        self.retains(cursor).then(|| {
            self.changes.range(beyond).take(limit).map(|(_, change)| Arc::clone(change)).collect()
        })
    }

    /// Whether the rocket's latest change has this state.
    pub(super) fn has_state(&self, rocket: &Rocket) -> bool {
        self.latest(&rocket.channel).is_some_and(|change| change.rocket.as_ref() == Some(rocket))
    }

    /// Whether the latest change of the channel is a rocket.
    pub(super) fn has_rocket(&self, channel: &Channel) -> bool {
        self.latest(channel).is_some_and(|change| change.rocket.is_some())
    }

    /// Whether the latest change of the channel is its removal.
    pub(super) fn is_forgotten(&self, channel: &Channel) -> bool {
        self.latest(channel).is_some_and(|change| change.rocket.is_none())
    }

    fn latest(&self, channel: &Channel) -> Option<&Arc<RocketChange>> {
        self.changes.get(self.positions.get(channel)?)
    }

    /// Adds the current state of a rocket; none if it was removed.
    pub(super) fn add(&mut self, channel: Channel, rocket: Option<Rocket>, hint: ChangeHint) {
        self.position += 1;
        let position = self.position;
        let marks = match self.latest(&channel) {
            Some(previous) => previous.marks.after(hint, position),
            None => {
                let is_new = rocket
                    .as_ref()
                    .is_some_and(|it| it.progress.processed == i64::from(hint.applied));
                FilterMarks { created: if is_new { position } else { 0 }, ..FilterMarks::default() }
                    .after(hint, position)
            }
        };
        let change = RocketChange {
            position,
            channel: channel.clone(),
            rocket,
            marks,
            text: OnceLock::new(),
        };
        self.changes.insert(position, Arc::new(change));
        if let Some(previous) = self.positions.insert(channel, position) {
            self.changes.remove(&previous);
        }
        if self.changes.len() > MAX_CHANGES
            && let Some((position, oldest)) = self.changes.pop_first()
        {
            self.positions.remove(&oldest.channel);
            self.dropped = position;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::rocket::{Progress, RocketState, Status};
    use crate::domain::text::Text;

    fn channel(name: &str) -> Channel {
        Channel::new(name.to_owned()).unwrap()
    }

    fn rocket(name: &str, mission: &str, processed: i64) -> Rocket {
        let state = RocketState {
            mission: Some(Text::new(mission.to_owned()).unwrap()),
            ..RocketState::of(None)
        };
        let progress = Progress::without_losses(processed, processed, processed);
        Rocket { channel: channel(name), state, last_received: Timestamp::FIRST, progress }
    }

    fn mission_change() -> ChangeHint {
        ChangeHint { applied: 1, mission_changed: true, ..ChangeHint::default() }
    }

    fn of_mission(name: &str) -> Filters {
        Filters { missions: vec![Text::new(name.to_owned()).unwrap()], ..Filters::default() }
    }

    /// The delivery of the latest change to a follower at this position.
    fn delivery(log: &ChangeLog, filters: &Filters, position: u64) -> Delivery {
        log.changes.last_key_value().unwrap().1.delivery(filters, position)
    }

    #[test]
    fn the_latest_change_of_each_rocket_is_delivered_once() {
        let mut log = ChangeLog::new(7);
        let start = log.cursor();
        for (name, processed) in [("a", 1), ("b", 1), ("a", 2)] {
            log.add(channel(name), Some(rocket(name, "m", processed)), mission_change());
        }
        let since = |position| log.since(Cursor { epoch: 7, position }, 10);
        let positions = |position| {
            Some(since(position)?.iter().map(|change| change.position).collect::<Vec<_>>())
        };
        assert_eq!(positions(start.position), Some(vec![2, 3]));
        assert_eq!(positions(2), Some(vec![3]));
        assert_eq!(positions(3), Some(vec![]));
        assert_eq!(positions(4), None, "the log has not reached this position");
        assert!(!log.retains(Cursor { epoch: 8, position: 3 }));
        assert!(log.has_state(&rocket("a", "m", 2)) && !log.has_state(&rocket("a", "m", 1)));
    }

    #[test]
    fn dropped_changes_are_not_retained() {
        let mut log = ChangeLog::new(7);
        for index in 0..=MAX_CHANGES {
            log.add(channel(&index.to_string()), None, ChangeHint::UNKNOWN);
        }
        let retains = |position| log.retains(Cursor { epoch: 7, position });
        assert!(!retains(0) && retains(1) && retains(MAX_CHANGES as u64 + 1));
        assert_eq!((log.changes.len(), log.positions.len()), (MAX_CHANGES, MAX_CHANGES));
    }

    #[test]
    fn a_rocket_that_no_longer_matches_is_gone_for_its_followers() {
        let mut log = ChangeLog::new(7);
        let speed = ChangeHint { applied: 1, ..ChangeHint::default() };
        log.add(channel("a"), Some(rocket("a", "x", 5)), speed);
        // The mission was x before. Followers of x get the change; followers of y get nothing.
        assert_eq!(delivery(&log, &of_mission("x"), 0), Delivery::Rocket);
        assert_eq!(delivery(&log, &of_mission("y"), 0), Delivery::Nothing);
        log.add(channel("a"), Some(rocket("a", "y", 6)), mission_change());
        assert_eq!(delivery(&log, &of_mission("x"), 1), Delivery::Gone);
        log.add(channel("a"), Some(rocket("a", "y", 7)), speed);
        assert_eq!(
            delivery(&log, &of_mission("x"), 1),
            Delivery::Gone,
            "still, for followers that have not received it"
        );
        assert_eq!(delivery(&log, &of_mission("x"), 2), Delivery::Nothing);
        assert_eq!(delivery(&log, &of_mission("y"), 2), Delivery::Rocket);
        let other = Filters { channel: Some(channel("b")), ..of_mission("x") };
        assert_eq!(delivery(&log, &other, 1), Delivery::Nothing);
        let awaiting = Filters { statuses: vec![Status::Exploded], ..Filters::default() };
        assert_eq!(delivery(&log, &awaiting, 1), Delivery::Nothing, "its status never changed");
    }

    #[test]
    fn a_rocket_created_after_the_position_has_no_followers() {
        let mut log = ChangeLog::new(7);
        log.add(channel("a"), Some(rocket("a", "y", 1)), mission_change());
        assert_eq!(delivery(&log, &of_mission("x"), 0), Delivery::Nothing);
        log.add(channel("a"), None, ChangeHint::UNKNOWN);
        assert_eq!(delivery(&log, &Filters::default(), 0), Delivery::Nothing);
        assert_eq!(delivery(&log, &Filters::default(), 1), Delivery::Gone);
        log.add(channel("a"), Some(rocket("a", "y", 1)), mission_change());
        assert_eq!(delivery(&log, &of_mission("x"), 1), Delivery::Gone);
    }
}
