//! Parses bytes into a valid [`Message`], or into a list of all its faults.
//!
//! A fast path (`fast_path`) reads usual messages. For all others, one pass over the JSON text
//! finds the known members, as slices of the text. Then the `messageType` decides which members are
//! converted, and to which types. So members may come in any order, ignored members may hold
//! anything, and a valid message costs no allocation: its texts share the buffer that it arrived
//! in.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fast_path;
use super::shorten::shorten;
use crate::domain::message::{Event, EventType, Message, MessageNumber, SpeedChange};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// The largest message, as JSON.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The maximum number of faults of one message that are reported: more than a message has known
/// members. This bounds the size of a response.
const MAX_FAULTS: usize = 20;

/// The maximum number of bytes of a member's name that a fault quotes.
const MAX_QUOTED_BYTES: usize = 128;

/// Why bytes are not a valid message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The bytes are not one JSON text in UTF-8.
    #[error("not one JSON text in UTF-8: {0}")]
    NotJson(String),
    /// The JSON text breaks the rules for messages: all faults that were found, at least one.
    #[error("{}", join(.0))]
    Invalid(Vec<Fault>),
}

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

/// A fault in one member.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// The member, as a JSON Pointer (RFC 6901).
    pub pointer: String,
    /// The fault, as the second half of a sentence: "must be a string, not a number".
    pub detail: String,
}

fn join(faults: &[Fault]) -> String {
    let subject = |pointer: &str| {
        if pointer.is_empty() { "the message".to_owned() } else { pointer.to_owned() }
    };
    let sentences =
        faults.iter().map(|fault| format!("{} {}", subject(&fault.pointer), fault.detail));
    sentences.collect::<Vec<_>>().join("; ")
}

/// Parses one message. The caller must limit its size to [`MAX_MESSAGE_BYTES`].
pub fn parse(json: Bytes) -> Result<Message, Rejection> {
    let json = ByteString::try_from(json).map_err(|error| Rejection::NotJson(error.to_string()))?;
    fast_path::read(&json).map_or_else(|| parse_by_members(&json), Ok)
}

fn parse_by_members(json: &ByteString) -> Result<Message, Rejection> {
    let mut faults = Faults::default();
    let members = read_members(json, &mut faults)?;
    match members.and_then(|members| MessageReader { json, faults: &mut faults }.message(&members))
    {
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

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(Fault { pointer: pointer.into(), detail: detail.into() });
        }
    }
}

const METADATA_MEMBERS: [&str; 4] = ["channel", "messageNumber", "messageTime", "messageType"];
const MESSAGE_MEMBERS: [&str; 6] = ["type", "launchSpeed", "mission", "by", "reason", "newMission"];

/// The known members of an object, in the order of their names; `None` where one is missing.
type Members<'j, const N: usize> = [Option<&'j str>; N];

#[derive(Debug, Default)]
struct MessageMembers<'j> {
    metadata: Option<Members<'j, 4>>,
    message: Option<Members<'j, 6>>,
}

fn read_members<'j>(
    json: &'j str,
    faults: &mut Faults,
) -> Result<Option<MessageMembers<'j>>, Rejection> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let members = deserializer.deserialize_any(RootVisitor { faults });
    match members.and_then(|members| deserializer.end().map(|()| members)) {
        Ok(members) => Ok(members),
        // Valid JSON that the parser rejects, such as a number beyond the range of floats in place
        // of an object.
        Err(_) if serde_json::from_str::<IgnoredAny>(json).is_ok() => {
            faults.add("", "must be an object that holds the objects metadata and message");
            Ok(None)
        }
        Err(error) => Err(Rejection::NotJson(error.to_string())),
    }
}

/// Implements the visits of values that are not objects: each is a fault.
macro_rules! not_an_object {
    ($lifetime:lifetime) => {
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(self.wrong_type("null"))
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(self.wrong_type("a boolean"))
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(self.wrong_type("a number"))
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(self.wrong_type("a number"))
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(self.wrong_type("a number"))
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(self.wrong_type("a string"))
        }
        fn visit_seq<A: SeqAccess<$lifetime>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(self.wrong_type("an array"))
        }
    };
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

/// Reads an object's known members.
struct ObjectSeed<'j, 'f, const N: usize> {
    names: MemberNames<'j, N>,
    faults: &'f mut Faults,
}

impl<const N: usize> ObjectSeed<'_, '_, N> {
    fn wrong_type<T>(self, kind: &str) -> Option<T> {
        self.faults.add(self.names.pointer, format!("must be an object, not {kind}"));
        None
    }
}

impl<'j, const N: usize> DeserializeSeed<'j> for ObjectSeed<'j, '_, N> {
    type Value = Option<Members<'j, N>>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j, const N: usize> Visitor<'j> for ObjectSeed<'j, '_, N> {
    type Value = Option<Members<'j, N>>;

    not_an_object!('j);

    fn visit_map<A: MapAccess<'j>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = [None; N];
        while let Some(name) = map.next_key_seed(MemberNameSeed)? {
            match self.names.find(name, self.faults).and_then(|index| members.get_mut(index)) {
                Some(member) => *member = Some(map.next_value::<&RawValue>()?.get()),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(Some(members))
    }
}

/// The names of an object's members: the known names, and the names seen so far.
struct MemberNames<'j, const N: usize> {
    known: [&'static str; N],
    /// The object, as a JSON Pointer.
    pointer: &'static str,
    seen: [bool; N],
    /// Senders choose these names, so the set uses the standard hash, which resists collisions.
    seen_unknown: HashSet<Cow<'j, [u8]>>,
}

impl<'j, const N: usize> MemberNames<'j, N> {
    fn new(known: [&'static str; N], pointer: &'static str) -> Self {
        Self { known, pointer, seen: [false; N], seen_unknown: HashSet::default() }
    }

    /// The index of a known name, at its first occurrence. A repeated name is a fault, known or
    /// not.
    fn find(&mut self, name: Cow<'j, [u8]>, faults: &mut Faults) -> Option<usize> {
        let index = self.known.iter().position(|known| known.as_bytes() == name.as_ref());
        let repeated = match index.and_then(|index| self.seen.get_mut(index)) {
            Some(seen) => std::mem::replace(seen, true),
            None => self.seen_unknown.contains(&name),
        };
        if repeated {
            self.report_repeated(&String::from_utf8_lossy(&name), faults);
            return None;
        }
        if index.is_none() {
            self.seen_unknown.insert(name);
        }
        index
    }

    /// Shortens a name that is too long to quote: senders choose it.
    fn report_repeated(&self, name: &str, faults: &mut Faults) {
        if name.len() <= MAX_QUOTED_BYTES {
            let escaped = name.replace('~', "~0").replace('/', "~1");
            faults.add(format!("{}/{escaped}", self.pointer), "must not appear more than once");
        } else {
            let beginning = shorten(name, MAX_QUOTED_BYTES);
            faults.add(
                self.pointer,
                format!("must not have the member {beginning:?} more than once"),
            );
        }
    }

    fn report_missing(&self, faults: &mut Faults) {
        for (name, _) in self.known.iter().zip(self.seen).filter(|(_, seen)| !seen) {
            faults.add(format!("{}/{name}", self.pointer), "is missing");
        }
    }
}

/// Reads a member's name as bytes: a name with an unpaired surrogate is valid JSON, but not valid
/// Unicode.
struct MemberNameSeed;

impl<'j> DeserializeSeed<'j> for MemberNameSeed {
    type Value = Cow<'j, [u8]>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // Read it as JSON first: serde_json's bytes may hold control characters, which are not
        // valid JSON.
        let json = <&RawValue>::deserialize(deserializer)?.get();
        match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(name) if !name.contains('\\') => Ok(Cow::Borrowed(name.as_bytes())),
            _ => serde_json::Deserializer::from_str(json)
                .deserialize_bytes(EscapedNameVisitor)
                .map_err(D::Error::custom),
        }
    }
}

struct EscapedNameVisitor;

impl<'j> Visitor<'j> for EscapedNameVisitor {
    type Value = Cow<'j, [u8]>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member's name")
    }
    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_vec()))
    }
}

/// Converts members to their types. Each method adds its own faults, so that one pass finds all
/// faults.
struct MessageReader<'r> {
    json: &'r ByteString,
    faults: &'r mut Faults,
}

impl MessageReader<'_> {
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

    fn text(&mut self, pointer: &str, member: Option<&str>) -> Option<Text> {
        let shared = match self.string(pointer, member)? {
            Cow::Borrowed(string) => self.json.slice_ref(string),
            Cow::Owned(string) => string.into(),
        };
        Text::new(shared).map_err(|detail| self.faults.add(pointer, detail)).ok()
    }

    fn time(&mut self, pointer: &str, member: Option<&str>) -> Option<Timestamp> {
        let string = self.string(pointer, member)?;
        Timestamp::parse(&string).map_err(|detail| self.faults.add(pointer, detail)).ok()
    }

    fn string<'j>(&mut self, pointer: &str, member: Option<&'j str>) -> Option<Cow<'j, str>> {
        let raw = self.json_of_type(pointer, member, "a string")?;
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if memchr::memchr(b'\\', plain.as_bytes()).is_none() => {
                Some(Cow::Borrowed(plain))
            }
            _ => serde_json::from_str(raw)
                .map(Cow::Owned)
                .map_err(|_| {
                    self.faults
                        .add(pointer, "must be valid Unicode, but has an unpaired surrogate escape")
                })
                .ok(),
        }
    }

    fn integer<T>(
        &mut self,
        pointer: &str,
        member: Option<&str>,
        (min, max): (i64, i64),
        new: impl Fn(i64) -> Option<T>,
    ) -> Option<T> {
        let raw = self.json_of_type(pointer, member, "a number")?;
        if raw.contains(['.', 'e', 'E']) {
            self.faults.add(pointer, "must be an integer, written without fraction or exponent");
            return None;
        }
        let value = raw.parse().ok().and_then(new);
        if value.is_none() {
            self.faults.add(pointer, format!("must be an integer from {min} to {max}"));
        }
        value
    }

    /// The member's JSON text, if it has the expected type.
    fn json_of_type<'j>(
        &mut self,
        pointer: &str,
        member: Option<&'j str>,
        expected: &str,
    ) -> Option<&'j str> {
        let Some(raw) = member else {
            self.faults.add(pointer, "is missing");
            return None;
        };
        let kind = match raw.as_bytes().first() {
            Some(b'"') => "a string",
            Some(b'n') => "null",
            Some(b't' | b'f') => "a boolean",
            Some(b'[') => "an array",
            Some(b'{') => "an object",
            _ => "a number",
        };
        if kind != expected {
            self.faults.add(pointer, format!("must be {expected}, not {kind}"));
            return None;
        }
        Some(raw)
    }
}
