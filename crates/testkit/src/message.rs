//! Makers of messages, as JSON that tests can change.

use serde_json::{Value, json};

/// The time of the README's example, and of every message here but [`faster`].
const TIME: &str = "2022-02-02T19:39:05.86337+01:00";

/// The type of a message, and its content.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Launched(String, i32, String),
    Faster(i32),
    Slower(i32),
    Exploded(String),
    Mission(String),
}

/// Any message.
pub fn message(channel: &str, number: u32, time: &str, event: &Event) -> Value {
    let (kind, content) = match event {
        Event::Launched(rocket_type, speed, mission) => (
            "RocketLaunched",
            json!({ "type": rocket_type, "launchSpeed": speed, "mission": mission }),
        ),
        Event::Faster(by) => ("RocketSpeedIncreased", json!({ "by": by })),
        Event::Slower(by) => ("RocketSpeedDecreased", json!({ "by": by })),
        Event::Exploded(reason) => ("RocketExploded", json!({ "reason": reason })),
        Event::Mission(mission) => ("RocketMissionChanged", json!({ "newMission": mission })),
    };
    json!({
        "metadata": {
            "channel": channel, "messageNumber": number, "messageTime": time, "messageType": kind,
        },
        "message": content,
    })
}

/// The example of the README.
pub fn launched(channel: &str, number: u32) -> Value {
    launched_as(channel, number, "Falcon-9", 500, "ARTEMIS")
}

pub fn launched_as(
    channel: &str,
    number: u32,
    rocket_type: &str,
    speed: i32,
    mission: &str,
) -> Value {
    let event = Event::Launched(rocket_type.to_owned(), speed, mission.to_owned());
    message(channel, number, TIME, &event)
}

/// A moment later than the others.
pub fn faster(channel: &str, number: u32, by: i32) -> Value {
    message(channel, number, "2022-02-02T19:39:06Z", &Event::Faster(by))
}

pub fn slower(channel: &str, number: u32, by: i32) -> Value {
    message(channel, number, TIME, &Event::Slower(by))
}

pub fn exploded(channel: &str, number: u32, reason: &str) -> Value {
    message(channel, number, TIME, &Event::Exploded(reason.to_owned()))
}

pub fn mission_changed(channel: &str, number: u32, mission: &str) -> Value {
    message(channel, number, TIME, &Event::Mission(mission.to_owned()))
}

/// A message of a generated fleet, which the [oracle](crate::oracle) can fold.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub channel: String,
    pub number: u32,
    /// Microseconds after 2022-02-02T18:00:00Z, less than a minute.
    pub micros: u32,
    pub event: Event,
}

impl Sent {
    pub fn time(&self) -> String {
        format!("2022-02-02T18:00:{:02}.{:06}Z", self.micros / 1_000_000, self.micros % 1_000_000)
    }

    pub fn json(&self) -> Value {
        message(&self.channel, self.number, &self.time(), &self.event)
    }
}
