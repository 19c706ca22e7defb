//! A message and its parts. The types hold only valid values;
//! [`wire::message`](crate::wire::message) makes them.

use super::text::{Channel, Text};
use super::timestamp::Timestamp;

/// One event on a channel, with its place in the channel's order. (channel, number) identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub channel: Channel,
    /// The place in the channel's order.
    pub number: MessageNumber,
    /// When it happened, by the rocket's clock.
    pub time: Timestamp,
    /// What happened.
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `RocketLaunched`: sets type and mission, adds to the speed.
    Launched {
        rocket_type: Text,
        /// Added to the speed.
        launch_speed: SpeedChange,
        mission: Text,
    },
    /// `RocketSpeedIncreased`: adds to the speed.
    SpeedIncreased {
        /// Added to the speed.
        by: SpeedChange,
    },
    /// `RocketSpeedDecreased`: subtracts from the speed, which may go below zero.
    SpeedDecreased {
        /// Subtracted from the speed.
        by: SpeedChange,
    },
    /// `RocketExploded`: sets the reason.
    Exploded { reason: Text },
    /// `RocketMissionChanged`: sets the mission.
    MissionChanged { new_mission: Text },
}

impl Event {
    pub fn event_type(&self) -> EventType {
        match self {
            Self::Launched { .. } => EventType::Launched,
            Self::SpeedIncreased { .. } => EventType::SpeedIncreased,
            Self::SpeedDecreased { .. } => EventType::SpeedDecreased,
            Self::Exploded { .. } => EventType::Exploded,
            Self::MissionChanged { .. } => EventType::MissionChanged,
        }
    }

    /// What it adds to the speed.
    pub fn speed_change(&self) -> i64 {
        match self {
            Self::Launched { launch_speed, .. } => launch_speed.get(),
            Self::SpeedIncreased { by } => by.get(),
            Self::SpeedDecreased { by } => -by.get(),
            Self::Exploded { .. } | Self::MissionChanged { .. } => 0,
        }
    }
}

/// The type of an [`Event`], which says what the message must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Launched,
    SpeedIncreased,
    SpeedDecreased,
    Exploded,
    MissionChanged,
}

impl EventType {
    pub const ALL: [Self; 5] = [
        Self::Launched,
        Self::SpeedIncreased,
        Self::SpeedDecreased,
        Self::Exploded,
        Self::MissionChanged,
    ];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Launched => "RocketLaunched",
            Self::SpeedIncreased => "RocketSpeedIncreased",
            Self::SpeedDecreased => "RocketSpeedDecreased",
            Self::Exploded => "RocketExploded",
            Self::MissionChanged => "RocketMissionChanged",
        }
    }
}

/// A message's place in its channel's order: 1 to 4,294,967,295.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageNumber(u32);

impl MessageNumber {
    /// The lowest number.
    pub const MIN: i64 = 1;
    /// The highest number.
    pub const MAX: i64 = u32::MAX as i64;
    pub const FIRST: Self = Self(1);
    pub const LAST: Self = Self(u32::MAX);

    /// The number, unless it is out of bounds.
    pub fn new(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|_| number >= Self::MIN).map(Self)
    }

    pub fn as_u32(self) -> u32 {
        self.0
    }

    /// The number as an integer with room to count beyond it.
    pub fn get(self) -> i64 {
        i64::from(self.0)
    }
}

/// A change of speed as given in a message: any 32-bit signed integer, in the rocket's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeedChange(i32);

impl SpeedChange {
    /// The greatest decrease.
    pub const MIN: i64 = i32::MIN as i64;
    /// The greatest increase.
    pub const MAX: i64 = i32::MAX as i64;

    /// The change, unless it is out of bounds.
    pub fn new(change: i64) -> Option<Self> {
        i32::try_from(change).ok().map(Self)
    }

    /// The change as an integer that can be negated and summed: 2^32 of them fit 64 bits.
    pub fn get(self) -> i64 {
        i64::from(self.0)
    }
}

/// Messages for tests. A maker makes message 1 of the channel `rocket`; [`on`](Message::on),
/// [`numbered`](Message::numbered) and [`at`](Message::at) change that.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod example {
    use super::{Channel, Event, Message, MessageNumber, SpeedChange, Text, Timestamp};

    pub(crate) fn launched(rocket_type: &str, launch_speed: i64, mission: &str) -> Message {
        let launch_speed = speed_change(launch_speed);
        message(Event::Launched {
            rocket_type: text(rocket_type),
            launch_speed,
            mission: text(mission),
        })
    }

    pub(crate) fn faster(by: i64) -> Message {
        message(Event::SpeedIncreased { by: speed_change(by) })
    }

    pub(crate) fn slower(by: i64) -> Message {
        message(Event::SpeedDecreased { by: speed_change(by) })
    }

    pub(crate) fn exploded(reason: &str) -> Message {
        message(Event::Exploded { reason: text(reason) })
    }

    pub(crate) fn mission_changed(new_mission: &str) -> Message {
        message(Event::MissionChanged { new_mission: text(new_mission) })
    }

    impl Message {
        /// The message with another channel.
        pub(crate) fn on(self, channel: &str) -> Self {
            Self { channel: Channel::from(text(channel)), ..self }
        }

        /// The message with another number.
        pub(crate) fn numbered(self, number: i64) -> Self {
            Self { number: MessageNumber::new(number).unwrap(), ..self }
        }

        /// The message with another time, in seconds since 1970.
        pub(crate) fn at(self, seconds: i64) -> Self {
            Self { time: time(seconds), ..self }
        }
    }

    /// An instant, in seconds since 1970.
    pub(crate) fn time(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
    }

    fn message(event: Event) -> Message {
        let (channel, number) = (text("rocket").into(), MessageNumber::new(1).unwrap());
        Message { channel, number, time: time(0), event }
    }

    fn text(value: &str) -> Text {
        Text::new(value.to_owned()).unwrap()
    }

    fn speed_change(change: i64) -> SpeedChange {
        SpeedChange::new(change).unwrap()
    }
}
