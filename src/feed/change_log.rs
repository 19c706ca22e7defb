//! The log changes, only the latest of each rocket, in the order of their positions.
//!
//! A follower has a position: it has received all changes up to it. As long as no change beyond its
//! position has been dropped, everything that it has yet to receive is here. Nothing here knows the
//! followers.
//!
//! A rocket that has become silent is logged again, in the state that it has had since its last
//! message. That is a change only for followers who filter by silence.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::domain::query::Filters;
use crate::domain::rocket::Rocket;
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;
use crate::feed::silences::Silences;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FilterMarks {
    /// The rocket did not exist before this position.
    created: u64,
    rocket_type: u64,
    mission: u64,
    status: u64,
    /// It may have got its first gap, or lost its last one.
    missing: u64,
    /// Its latest change. Since then it has only become silent.
    changed: u64,
    /// The change before, and when the rocket had last been received then; none if unknown.
    previous: Option<(u64, Timestamp)>,
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
    /// What to deliver at this time to a follower that has received everything up to `position`. If
    /// it is unknown whether the rocket matched before, the follower may learn that a rocket is
    /// gone that it never received.
    pub fn delivery(&self, filters: &Filters, position: u64, now: Timestamp) -> Delivery {
        if !filters.matches_channel(&self.channel) {
            return Delivery::Nothing;
        }
        let Some(rocket) = &self.rocket else {
            return if position < self.marks.created { Delivery::Nothing } else { Delivery::Gone };
        };
        let is_news = self.marks.changed > position;
        match filters.matches(rocket, now) {
            true if is_news || filters.silent_for.is_some() => Delivery::Rocket,
            false if is_news && self.may_have_matched(filters, position, now) => Delivery::Gone,
            true | false => Delivery::Nothing,
        }
    }

    /// Whether the rocket, which doesn't match, may have matched at the position.
    fn may_have_matched(&self, filters: &Filters, position: u64, now: Timestamp) -> bool {
        let marks = &self.marks;
        let was_silent = filters.silent_cutoff(now).is_some_and(|cutoff| match marks.previous {
            // The follower has received the change before. It then had the rocket if it was silent,
            // or has become so since.
            Some((previous, last_received)) if previous <= position => last_received <= cutoff,
            _ => true,
        });
        let may_have_left = was_silent
            || (!filters.rocket_types.is_empty() && marks.rocket_type > position)
            || (!filters.missions.is_empty() && marks.mission > position)
            || (!filters.statuses.is_empty() && marks.status > position)
            || (filters.missing.is_some() && marks.missing > position);
        may_have_left && position >= marks.created
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
    pub(super) silences: Silences,
}

impl ChangeLog {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            position: 0,
            dropped: 0,
            changes: BTreeMap::new(),
            positions: HashMap::default(),
            silences: Silences::default(),
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
        self.latest(&rocket.channel)
            .is_some_and(|it| it.rocket.as_ref() == Some(rocket) && it.marks.changed > 0)
    }

    /// Whether the rocket's latest change has this state, and followers have been told of what the
    /// hint says. Otherwise the state was read after these messages were committed, and before they
    /// were reported.
    pub(super) fn has_change(&self, rocket: &Rocket, hint: ChangeHint) -> bool {
        let is_covered = |marks: FilterMarks| marks.after(hint, marks.changed) == marks;
        self.has_state(rocket)
            && self.latest(&rocket.channel).is_some_and(|latest| is_covered(latest.marks))
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
        let position = self.position + 1;
        let previous = self.latest(&channel);
        let mut marks = match previous {
            Some(previous) => previous.marks.after(hint, position),
            None => {
                let is_new = rocket
                    .as_ref()
                    .is_some_and(|it| it.progress.processed == i64::from(hint.applied));
                FilterMarks { created: if is_new { position } else { 0 }, ..FilterMarks::default() }
                    .after(hint, position)
            }
        };
        // Without a change, the log has a state of which followers know nothing but that it is
        // silent.
        let previous = previous.filter(|previous| previous.marks.changed > 0);
        let before = previous.and_then(|it| Some((it.marks.changed, it.rocket.as_ref()?)));
        let keeps_gaps = before
            .zip(rocket.as_ref())
            .is_some_and(|((_, before), after)| hint.keeps_gaps(&before.progress, &after.progress));
        if !keeps_gaps {
            marks.missing = position;
        }
        marks.changed = position;
        marks.previous = before.map(|(changed, before)| (changed, before.last_received));
        if let Some(rocket) = &rocket {
            self.silences.received(rocket.last_received);
        }
        self.insert(channel, rocket, marks);
    }

    /// Adds a rocket that has become silent, in its current state.
    pub(super) fn add_silent(&mut self, rocket: Rocket) {
        let channel = rocket.channel.clone();
        let marks = match self.latest(&channel) {
            Some(latest) if latest.rocket.as_ref() == Some(&rocket) => latest.marks,
            // It has changed, and followers have not been told.
            Some(_) => return self.add(channel, Some(rocket), ChangeHint::UNKNOWN),
            None => FilterMarks::default(),
        };
        self.insert(channel, Some(rocket), marks);
    }

    fn insert(&mut self, channel: Channel, rocket: Option<Rocket>, marks: FilterMarks) {
        self.position += 1;
        let position = self.position;
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
    use std::time::Duration;

    use super::*;
    use crate::domain::query::SilentFor;
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
        log.changes.last_key_value().unwrap().1.delivery(filters, position, log.silences.now())
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

    fn silent_for(text: &str) -> Filters {
        Filters { silent_for: SilentFor::parse(text).ok(), ..Filters::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(second * 1_000_000).unwrap()
    }

    fn received(processed: i64, second: i64) -> Rocket {
        Rocket { last_received: at(second), ..rocket("a", "x", processed) }
    }

    #[test]
    fn what_becomes_silent_is_news_only_for_followers_of_silence() {
        let mut log = ChangeLog::new(7);
        let _token = log.silences.follow(SilentFor::parse("9s").unwrap(), 0, at(100));
        let (long, short) = (silent_for("9s"), silent_for("5s"));
        let speed = ChangeHint { applied: 1, ..ChangeHint::default() };
        log.add(channel("a"), Some(received(5, 95)), speed);
        // What it was before is unknown, so it may have been silent.
        assert_eq!(delivery(&log, &long, 0), Delivery::Gone);
        assert_eq!(delivery(&log, &short, 0), Delivery::Rocket, "its change arrives late");
        log.add(channel("a"), Some(received(6, 97)), speed);
        assert_eq!(delivery(&log, &long, 1), Delivery::Nothing, "it was not silent");
        assert_eq!(delivery(&log, &short, 1), Delivery::Gone, "it was silent");
        assert_eq!(delivery(&log, &long, 0), Delivery::Gone, "unknown to who lacks change 1");
        log.silences.start_check(at(106), Duration::MAX);
        log.add_silent(received(6, 97));
        assert_eq!(log.changes.len(), 1);
        for (filters, at_1, at_2) in [
            (&long, Delivery::Rocket, Delivery::Rocket),
            (&Filters::default(), Delivery::Rocket, Delivery::Nothing),
            (&silent_for("1h"), Delivery::Nothing, Delivery::Nothing),
        ] {
            assert_eq!(delivery(&log, filters, 1), at_1, "{filters:?}");
            assert_eq!(delivery(&log, filters, 2), at_2, "{filters:?}");
        }
        log.add(channel("a"), Some(received(7, 106)), speed);
        assert_eq!(delivery(&log, &long, 3), Delivery::Gone);
        assert_eq!(delivery(&log, &silent_for("1h"), 3), Delivery::Nothing);
        assert_eq!(delivery(&log, &Filters::default(), 3), Delivery::Rocket);
    }

    #[test]
    fn a_silent_rocket_does_not_hide_a_change_that_is_yet_to_be_logged() {
        let mut log = ChangeLog::new(7);
        let _token = log.silences.follow(SilentFor::parse("1s").unwrap(), 0, at(100));
        // Its change is not logged: it was committed by another process, or a moment ago.
        log.add_silent(received(2, 98));
        let (all, one_second) = (Filters::default(), silent_for("1s"));
        assert_eq!(delivery(&log, &all, 0), Delivery::Nothing);
        assert_eq!(delivery(&log, &one_second, 0), Delivery::Rocket);
        assert!(!log.has_state(&received(2, 98)));
        log.add(channel("a"), Some(received(2, 98)), mission_change());
        assert!(log.has_change(&received(2, 98), mission_change()));
        assert_eq!(delivery(&log, &all, 1), Delivery::Rocket);
        assert_eq!(delivery(&log, &silent_for("1h"), 1), Delivery::Gone, "it may have been");
        // The log has an earlier change, and this one is known by the check alone.
        log.add_silent(received(3, 99));
        assert_eq!(delivery(&log, &all, 2), Delivery::Rocket);
        assert_eq!(delivery(&log, &of_mission("y"), 2), Delivery::Gone);
    }

    #[test]
    fn a_rocket_whose_last_gap_closes_is_gone() {
        let mut log = ChangeLog::new(7);
        let missing = |missing| Filters { missing: Some(missing), ..Filters::default() };
        let of = |processed, highest| {
            let rocket = rocket("a", "x", processed);
            Rocket { progress: Progress { highest, ..rocket.progress }, ..rocket }
        };
        let number = |number| ChangeHint {
            applied: 1,
            numbers: Some((number, number)),
            ..ChangeHint::default()
        };
        log.add(channel("a"), Some(of(1, 3)), number(3));
        log.add(channel("a"), Some(of(2, 3)), number(1));
        assert_eq!(delivery(&log, &missing(true), 1), Delivery::Rocket);
        assert_eq!(delivery(&log, &missing(false), 1), Delivery::Nothing);
        log.add(channel("a"), Some(of(3, 3)), number(2));
        assert_eq!(delivery(&log, &missing(true), 2), Delivery::Gone);
        log.add(channel("a"), Some(of(4, 4)), number(4));
        assert_eq!(delivery(&log, &missing(true), 2), Delivery::Gone);
        assert_eq!(delivery(&log, &missing(true), 3), Delivery::Nothing);
        // More has happened than the hint says: there may have been a gap.
        log.add(channel("a"), Some(of(6, 6)), number(6));
        assert_eq!(delivery(&log, &missing(true), 4), Delivery::Gone);
    }

    #[test]
    fn a_hint_that_comes_after_the_state_it_is_about_is_not_lost() {
        let mut log = ChangeLog::new(7);
        let speed = ChangeHint { applied: 1, ..ChangeHint::default() };
        log.add(channel("a"), Some(rocket("a", "x", 4)), speed);
        // Read for the hint of another message, when the change of the mission was committed.
        log.add(channel("a"), Some(rocket("a", "y", 6)), speed);
        assert_eq!(delivery(&log, &of_mission("x"), 1), Delivery::Nothing);
        assert!(log.has_change(&rocket("a", "y", 6), speed));
        assert!(!log.has_change(&rocket("a", "y", 6), mission_change()));
        log.add(channel("a"), Some(rocket("a", "y", 6)), mission_change());
        assert_eq!(delivery(&log, &of_mission("x"), 2), Delivery::Gone);
        assert!(log.has_change(&rocket("a", "y", 6), mission_change()));
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
