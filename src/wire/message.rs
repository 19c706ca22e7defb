//! Parses bytes into a valid [`Message`], or into a list of all its faults.
//!
//! A fast path (`fast_path`) reads usual messages. For all others, one pass over the JSON text
//! finds the known members, as slices of the text. Then the `messageType` decides which members are
//! converted, and to which types. So members may come in any order, ignored members may hold
//! anything, and a valid message costs no allocation: its texts share the buffer that it arrived
//! in.

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fast_path;
pub use super::members::{Fault, Rejection};
use super::members::{
    Faults, MemberNameSeed, MemberNames, MemberReader, Members, ObjectSeed, not_an_object,
    read_object,
};
use crate::domain::message::{Event, EventType, Message, MessageNumber, SpeedChange};
use crate::domain::text::Channel;
use crate::domain::timestamp::Timestamp;

/// The largest message, as JSON.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The kind of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionKind {
    /// It is not JSON.
    NotJson,
    /// It is JSON, but not a valid message.
    Invalid,
    /// It is too large.
    TooLarge,
}

impl From<&Rejection> for RejectionKind {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::NotJson(_) => Self::NotJson,
            Rejection::Invalid(_) => Self::Invalid,
        }
    }
}

/// Parses one message. The caller must limit its size to [`MAX_MESSAGE_BYTES`].
pub fn parse(json: Bytes) -> Result<Message, Rejection> {
    let json = ByteString::try_from(json).map_err(|error| Rejection::NotJson(error.to_string()))?;
    fast_path::read(&json).map_or_else(|| parse_by_members(&json), Ok)
}

fn parse_by_members(json: &ByteString) -> Result<Message, Rejection> {
    let mut faults = Faults::default();
    let members = read_members(json, &mut faults)?;
    match members.and_then(|members| MemberReader { json, faults: &mut faults }.message(&members)) {
        Some(message) if faults.0.is_empty() => Ok(message),
        _ => Err(Rejection::Invalid(faults.0)),
    }
}

/// Whether the fast path fails, or reads the message that the other way reads.
#[cfg(any(test, fuzzing))]
pub(crate) fn both_paths_agree(json: &str) -> bool {
    let json = ByteString::from(json);
    fast_path::read(&json).is_none_or(|message| parse_by_members(&json) == Ok(message))
}

const METADATA_MEMBERS: [&str; 4] = ["channel", "messageNumber", "messageTime", "messageType"];
const MESSAGE_MEMBERS: [&str; 6] = ["type", "launchSpeed", "mission", "by", "reason", "newMission"];

#[derive(Debug, Default)]
struct MessageMembers<'j> {
    metadata: Option<Members<'j, 4>>,
    message: Option<Members<'j, 6>>,
}

fn read_members<'j>(
    json: &'j str,
    faults: &mut Faults,
) -> Result<Option<MessageMembers<'j>>, Rejection> {
    read_object(json, "the objects metadata and message", faults, |deserializer, faults| {
        deserializer.deserialize_any(RootVisitor { faults })
    })
}

struct RootVisitor<'f> {
    faults: &'f mut Faults,
}

impl RootVisitor<'_> {
    fn wrong_type<T>(self, kind: &str) -> Option<T> {
        self.faults.add("", format!("must be an object, not {kind}"));
        None
    }
}

impl<'j> Visitor<'j> for RootVisitor<'_> {
    type Value = Option<MessageMembers<'j>>;

    not_an_object!('j);

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = MessageMembers::default();
        let mut names = MemberNames::new(["metadata", "message"], "");
        while let Some(name) = map.next_key_seed(MemberNameSeed)? {
            match names.find(name, self.faults) {
                Some(0) => {
                    let names = MemberNames::new(METADATA_MEMBERS, "/metadata");
                    members.metadata =
                        map.next_value_seed(ObjectSeed { names, faults: self.faults })?;
                }
                Some(_) => {
                    let names = MemberNames::new(MESSAGE_MEMBERS, "/message");
                    members.message =
                        map.next_value_seed(ObjectSeed { names, faults: self.faults })?;
                }
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        names.report_missing(self.faults);
        Ok(Some(members))
    }
}

impl MemberReader<'_> {
    fn message(&mut self, members: &MessageMembers<'_>) -> Option<Message> {
        let mut event_type = None;
        let mut identity = None;
        if let Some([channel, number, time, message_type]) = members.metadata {
            let channel = self.text("/metadata/channel", channel).map(Channel::from);
            let number = self.integer(
                "/metadata/messageNumber",
                number,
                (MessageNumber::MIN, MessageNumber::MAX),
                MessageNumber::new,
            );
            let time = self.time("/metadata/messageTime", time);
            event_type = self.event_type("/metadata/messageType", message_type);
            identity = channel.zip(number).zip(time);
        }
        let event = self.event(event_type?, members.message.as_ref()?);
        let ((channel, number), time) = identity?;
        Some(Message { channel, number, time, event: event? })
    }

    fn event(&mut self, event_type: EventType, members: &Members<'_, 6>) -> Option<Event> {
        let [rocket_type, launch_speed, mission, by, reason, new_mission] = *members;
        Some(match event_type {
            EventType::Launched => {
                let rocket_type = self.text("/message/type", rocket_type);
                let launch_speed = self.speed_change("/message/launchSpeed", launch_speed);
                let mission = self.text("/message/mission", mission);
                Event::Launched {
                    rocket_type: rocket_type?,
                    launch_speed: launch_speed?,
                    mission: mission?,
                }
            }
            EventType::SpeedIncreased => {
                Event::SpeedIncreased { by: self.speed_change("/message/by", by)? }
            }
            EventType::SpeedDecreased => {
                Event::SpeedDecreased { by: self.speed_change("/message/by", by)? }
            }
            EventType::Exploded => {
                Event::Exploded { reason: self.text("/message/reason", reason)? }
            }
            EventType::MissionChanged => Event::MissionChanged {
                new_mission: self.text("/message/newMission", new_mission)?,
            },
        })
    }

    fn event_type(&mut self, pointer: &str, member: Option<&str>) -> Option<EventType> {
        let name = self.string(pointer, member)?;
        let known = EventType::ALL.into_iter().find(|known| known.name() == name);
        if known.is_none() {
            let names = EventType::ALL.map(EventType::name).join(", ");
            self.faults.add(pointer, format!("must be one of {names}"));
        }
        known
    }

    fn speed_change(&mut self, pointer: &str, member: Option<&str>) -> Option<SpeedChange> {
        self.integer(pointer, member, (SpeedChange::MIN, SpeedChange::MAX), SpeedChange::new)
    }

    fn time(&mut self, pointer: &str, member: Option<&str>) -> Option<Timestamp> {
        let string = self.string(pointer, member)?;
        Timestamp::parse(&string).map_err(|detail| self.faults.add(pointer, detail)).ok()
    }
}
