//! The associative fold: what a set of messages of one channel comes to.

use super::message::{Event, Message};
use super::text::Text;
use super::timestamp::Timestamp;

/// The value that the message with the highest number set, and that number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// The number of the message.
    pub number: i64,
    /// What it set.
    pub value: Text,
}

/// What a non-empty set of messages of one channel comes to, whatever their order.
///
/// [`combine`](Self::combine) is associative and commutative over disjoint sets of messages, so that a summary can
/// be kept for each range of processed numbers and combined in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The sum of all speed changes.
    pub speed_change: i64,
    /// The type that the latest launch set.
    pub launch: Option<Latest>,
    /// The mission that the latest launch or change of mission set.
    pub mission: Option<Latest>,
    /// The reason that the latest explosion gave.
    pub explosion: Option<Latest>,
    /// The greatest message time.
    pub latest_time: Timestamp,
}

impl Summary {
    /// The summary of one message.
    pub fn of(message: &Message) -> Self {
        let latest = |value: &Text| Some(Latest { number: message.number.get(), value: value.clone() });
        let mut summary =
            Self { speed_change: 0, launch: None, mission: None, explosion: None, latest_time: message.time };
        match &message.event {
            Event::Launched { rocket_type, launch_speed, mission } => {
                summary.speed_change = launch_speed.get();
                summary.launch = latest(rocket_type);
                summary.mission = latest(mission);
            }
            Event::SpeedIncreased { by } => summary.speed_change = by.get(),
            Event::SpeedDecreased { by } => summary.speed_change = -by.get(),
            Event::Exploded { reason } => summary.explosion = latest(reason),
            Event::MissionChanged { new_mission } => summary.mission = latest(new_mission),
        }
        summary
    }

    /// A copy whose texts don't keep the buffers in memory that their messages arrived in.
    pub fn detached(&self) -> Self {
        let detached = |latest: &Option<Latest>| {
            latest.as_ref().map(|Latest { number, value }| Latest { number: *number, value: value.detached() })
        };
        Self {
            launch: detached(&self.launch),
            mission: detached(&self.mission),
            explosion: detached(&self.explosion),
            ..*self
        }
    }

    /// Adds the summary of other messages. No message may be in both.
    pub fn combine(&mut self, other: Self) {
        // With the bounds of message numbers and speed changes the sum fits; only a damaged database could saturate it.
        self.speed_change = self.speed_change.saturating_add(other.speed_change);
        combine_latest(&mut self.launch, other.launch);
        combine_latest(&mut self.mission, other.mission);
        combine_latest(&mut self.explosion, other.explosion);
        self.latest_time = self.latest_time.max(other.latest_time);
    }
}

fn combine_latest(mine: &mut Option<Latest>, other: Option<Latest>) {
    if other.as_ref().map(|latest| latest.number) > mine.as_ref().map(|latest| latest.number) {
        *mine = other;
    }
}
