//! The associative fold: the summary of a set of messages of one channel.

use super::message::{Event, Message};
use super::text::Text;
use super::timestamp::Timestamp;

/// The value set by the message with the highest number, and that number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    pub number: i64,
    pub value: Text,
}

impl Latest {
    /// A copy whose text doesn't keep the message's input buffer in memory.
    pub fn detached(&self) -> Self {
        Self { number: self.number, value: self.value.detached() }
    }
}

/// The summary of a non-empty set of messages of one channel, in any order.
///
/// [`combine`](Self::combine) is associative and commutative over disjoint sets of messages. So a
/// summary can be kept for each range of processed numbers, and summaries can be combined in any
/// order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The sum of all speed changes.
    pub speed_change: i64,
    /// The type that the latest launch set.
    pub launch: Option<Latest>,
    /// The mission that the latest launch or mission change set.
    pub mission: Option<Latest>,
    /// The reason that the latest explosion set.
    pub explosion: Option<Latest>,
    /// The greatest message time.
    pub latest_time: Timestamp,
}

impl Summary {
    /// The summary of one message.
    pub fn of(message: &Message) -> Self {
        let mut summary = Self {
            speed_change: 0,
            launch: None,
            mission: None,
            explosion: None,
            latest_time: message.time,
        };
        summary.add(message);
        summary
    }

    /// Adds one message that is not yet included.
    pub fn add(&mut self, message: &Message) {
        let number = message.number.get();
        match &message.event {
            Event::Launched { rocket_type, mission, .. } => {
                set_latest(&mut self.launch, number, rocket_type);
                set_latest(&mut self.mission, number, mission);
            }
            Event::Exploded { reason } => set_latest(&mut self.explosion, number, reason),
            Event::MissionChanged { new_mission } => {
                set_latest(&mut self.mission, number, new_mission);
            }
            Event::SpeedIncreased { .. } | Event::SpeedDecreased { .. } => {}
        }
        self.change_speed(message.event.speed_change());
        self.latest_time = self.latest_time.max(message.time);
    }

    /// A copy whose texts don't keep the messages' input buffers in memory.
    pub fn detached(&self) -> Self {
        let detached = |latest: &Option<Latest>| latest.as_ref().map(Latest::detached);
        Self {
            launch: detached(&self.launch),
            mission: detached(&self.mission),
            explosion: detached(&self.explosion),
            ..*self
        }
    }

    /// Adds the summary of other messages. No message may be in both.
    pub fn combine(&mut self, other: Self) {
        self.change_speed(other.speed_change);
        combine_latest(&mut self.launch, other.launch);
        combine_latest(&mut self.mission, other.mission);
        combine_latest(&mut self.explosion, other.explosion);
        self.latest_time = self.latest_time.max(other.latest_time);
    }

    fn change_speed(&mut self, change: i64) {
        // The bounds on message numbers and speed changes keep the sum in range; only a damaged
        // database can saturate it.
        self.speed_change = self.speed_change.saturating_add(change);
    }
}

/// An older message never overwrites the value of a newer one.
fn is_later(number: i64, than: &Option<Latest>) -> bool {
    than.as_ref().is_none_or(|latest| number > latest.number)
}

fn set_latest(latest: &mut Option<Latest>, number: i64, value: &Text) {
    if is_later(number, latest) {
        *latest = Some(Latest { number, value: value.clone() });
    }
}

fn combine_latest(mine: &mut Option<Latest>, other: Option<Latest>) {
    if other.as_ref().is_some_and(|latest| is_later(latest.number, mine)) {
        *mine = other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::example::{
        exploded, faster, launched, mission_changed, slower, time,
    };

    /// The summary of some messages, added in this order.
    fn summary(messages: &[Message]) -> Summary {
        let Some((first, others)) = messages.split_first() else {
            unreachable!("a summary has at least one message");
        };
        let mut summary = Summary::of(first);
        others.iter().for_each(|message| summary.add(message));
        summary
    }

    fn combined(mut one: Summary, other: Summary) -> Summary {
        one.combine(other);
        one
    }

    /// The number and the text of a latest value.
    fn shown(latest: &Option<Latest>) -> Option<(i64, &str)> {
        latest.as_ref().map(|latest| (latest.number, latest.value.as_str()))
    }

    /// The first messages of a rocket.
    fn messages() -> [Message; 5] {
        [
            launched("Falcon-9", 500, "ARTEMIS").numbered(1).at(10),
            faster(3_000).numbered(2).at(20),
            mission_changed("APOLLO").numbered(3).at(30),
            slower(1_200).numbered(4).at(40),
            exploded("ENGINE_FAILURE").numbered(5).at(50),
        ]
    }

    #[test]
    fn it_holds_the_sum_of_the_speeds_and_the_latest_of_everything_else() {
        let summary = summary(&messages());
        assert_eq!(summary.speed_change, 500 + 3_000 - 1_200);
        assert_eq!(shown(&summary.launch), Some((1, "Falcon-9")));
        assert_eq!(shown(&summary.mission), Some((3, "APOLLO")));
        assert_eq!(shown(&summary.explosion), Some((5, "ENGINE_FAILURE")));
        assert_eq!(summary.latest_time, time(50));
    }

    #[test]
    fn an_older_message_that_arrives_late_overwrites_nothing() {
        let newer = mission_changed("APOLLO").numbered(7);
        let older = mission_changed("GEMINI").numbered(6);
        let launch = launched("Falcon-9", 500, "ARTEMIS").numbered(1);
        let summary = summary(&[newer, older, launch]);
        assert_eq!(shown(&summary.mission), Some((7, "APOLLO")));
        // But a launch still sets what no newer message has set, and counts for the speed.
        assert_eq!(shown(&summary.launch), Some((1, "Falcon-9")));
        assert_eq!(summary.speed_change, 500);
    }

    #[test]
    fn the_number_decides_what_is_latest_and_the_time_does_not() {
        let summary = summary(&[
            mission_changed("APOLLO").numbered(2).at(10),
            mission_changed("GEMINI").numbered(1).at(99),
        ]);
        assert_eq!(shown(&summary.mission), Some((2, "APOLLO")));
        assert_eq!(summary.latest_time, time(99));
    }

    #[test]
    fn summaries_of_different_messages_combine_in_any_order_and_grouping() {
        let [one, two, three, four, five] = messages();
        let whole = summary(&messages());
        // Not contiguous: a summary can be of any set of messages.
        let [a, b, c] = [summary(&[one, four]), summary(&[three]), summary(&[two, five])];
        // Commutative.
        assert_eq!(combined(a.clone(), b.clone()), combined(b.clone(), a.clone()));
        // Associative.
        assert_eq!(combined(combined(a.clone(), b.clone()), c.clone()), whole);
        assert_eq!(combined(a, combined(b, c)), whole);
    }

    #[test]
    fn a_message_must_be_in_only_one_of_the_summaries_that_are_combined() {
        let twice = combined(summary(&[faster(100)]), summary(&[faster(100)]));
        assert_eq!(twice.speed_change, 200, "it is counted twice");
    }
}
