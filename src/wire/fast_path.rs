//! A fast path for usual messages: serde reads all members at once, into their types.
//!
//! It reads only messages whose members are all known, and whose texts have no escapes. It returns
//! `None` for any other, valid or not. Then [`parse`](super::message::parse) reads member by
//! member, which finds the same message where both succeed, and all faults. No rules about messages
//! belong here: the types of the [domain](crate::domain) have them.
//!
//! Decision 22 (`docs/decisions/0022-read-usual-messages-with-serde.md`) says what was measured.

use bytestring::ByteString;
use serde::Deserialize;

use crate::domain::message::{Event, EventType, Message, MessageNumber, SpeedChange};
use crate::domain::text::Text;
use crate::domain::timestamp::Timestamp;

/// Reads a message of the usual form. Its texts are slices of the JSON text.
pub(super) fn read(json: &ByteString) -> Option<Message> {
    // Serde would also read an object from an array of its values, and names with escapes.
    if memchr::memchr2(b'[', b'\\', json.as_bytes()).is_some() {
        return None;
    }
    let UsualMessage { metadata, message } = serde_json::from_str(json).ok()?;
    let text = |text: Option<&str>| Text::new(json.slice_ref(text?)).ok();
    let speed_change = |change: Option<i64>| SpeedChange::new(change?);
    let is_named = |event_type: &EventType| event_type.name() == metadata.message_type;
    let event = match EventType::ALL.into_iter().find(is_named)? {
        EventType::Launched => Event::Launched {
            rocket_type: text(message.r#type)?,
            launch_speed: speed_change(message.launch_speed)?,
            mission: text(message.mission)?,
        },
        EventType::SpeedIncreased => Event::SpeedIncreased { by: speed_change(message.by)? },
        EventType::SpeedDecreased => Event::SpeedDecreased { by: speed_change(message.by)? },
        EventType::Exploded => Event::Exploded { reason: text(message.reason)? },
        EventType::MissionChanged => {
            Event::MissionChanged { new_mission: text(message.new_mission)? }
        }
    };
    Some(Message {
        channel: text(Some(metadata.channel))?.into(),
        number: MessageNumber::new(metadata.message_number)?,
        time: Timestamp::parse(metadata.message_time).ok()?,
        event,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsualMessage<'j> {
    #[serde(borrow)]
    metadata: UsualMetadata<'j>,
    message: UsualEvent<'j>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UsualMetadata<'j> {
    channel: &'j str,
    message_number: i64,
    message_time: &'j str,
    message_type: &'j str,
}

/// The members of all types of events. Those that the message's type doesn't need are ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UsualEvent<'j> {
    r#type: Option<&'j str>,
    launch_speed: Option<i64>,
    mission: Option<&'j str>,
    by: Option<i64>,
    reason: Option<&'j str>,
    new_mission: Option<&'j str>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::message::both_paths_agree;

    const METADATA: &str = concat!(
        r#"{"channel":"c","messageNumber":1,"messageTime":"2022-02-02T19:39:05Z","#,
        r#""messageType":"RocketSpeedIncreased"}"#
    );

    fn is_usual(json: &str) -> bool {
        assert!(both_paths_agree(json), "{json}");
        read(&ByteString::from(json)).is_some()
    }

    /// A message with this metadata and this event.
    fn message(metadata: &str, event: &str) -> String {
        format!(r#"{{"metadata":{metadata},"message":{event}}}"#)
    }

    #[test]
    fn messages_of_all_types_are_usual() {
        for (event_type, event) in [
            ("RocketLaunched", r#"{"type":"Falcon-9","launchSpeed":500,"mission":"ARTEMIS"}"#),
            ("RocketSpeedIncreased", r#"{"by":-12}"#),
            ("RocketSpeedDecreased", r#"{"by":0}"#),
            ("RocketExploded", r#"{"reason":"PRESSURE_VESSEL_FAILURE"}"#),
            ("RocketMissionChanged", r#"{"newMission":"SHUTTLE_MIR"}"#),
        ] {
            let metadata = METADATA.replace("RocketSpeedIncreased", event_type);
            let read = read(&message(&metadata, event).into()).unwrap();
            assert_eq!(read.event.event_type().name(), event_type);
            assert!(is_usual(&message(&metadata, event)));
        }
    }

    #[test]
    fn members_may_come_in_any_order_with_any_space() {
        let spaced = "\r\n { \"message\" : {\t\"by\" : 0 , \"reason\":\"é}\" } ,\n \"metadata\": "
            .to_owned()
            + &METADATA.replace(',', " ,\n").replace('{', "{ ")
            + "\n} ";
        assert!(is_usual(&spaced));
    }

    #[test]
    fn texts_are_slices_of_the_json_text() {
        let json = ByteString::from(message(METADATA, r#"{"by":1}"#));
        let channel = read(&json).unwrap().channel;
        assert!(json.as_bytes().as_ptr_range().contains(&channel.as_str().as_ptr()));
    }

    #[test]
    fn any_other_form_is_rejected() {
        let by = |by: &str| message(METADATA, &format!(r#"{{"by":{by}}}"#));
        assert!(is_usual(&by("1")));
        for json in ["", "{}", "null", "1", r#"["metadata",{"by":1}]"#] {
            assert!(!is_usual(json), "{json}");
        }
        for value in ["01", "-", "-0", "1.0", "1e3", "null", "true", "\"1\"", "1,", "1,\"by\":1"] {
            assert!(!is_usual(&by(value)), "{value}");
        }
        let with = |from: &str, to: &str| by("1").replacen(from, to, 1);
        for json in [
            format!(r#"{{"metadata":{METADATA}}}"#),
            message("{}", r#"{"by":1}"#),
            message(METADATA, "{}"),
            // A repeated or unknown member.
            with(r#""message":"#, r#""message":{"by":1},"message":"#),
            with(r#""channel":"#, r#""channel":"c","channel":"#),
            with(r#""channel":"#, r#""unknown":1,"channel":"#),
            with(r#""message":"#, r#""unknown":1,"message":"#),
            message(METADATA, r#"{"by":1,"unknown":1}"#),
            // A member of another type.
            with(r#""c""#, "1"),
            with(r#""c""#, "null"),
            with(r#""RocketSpeedIncreased""#, r#"{"RocketSpeedIncreased":null}"#),
            message(METADATA, r#"{"by":1,"reason":1}"#),
            message(METADATA, "[null,null,null,1,null,null]"),
            message(r#"["c",1,"2022-02-02T19:39:05Z","RocketSpeedIncreased"]"#, r#"{"by":1}"#),
            format!(r#"[{METADATA},{{"by":1}}]"#),
            // An escape, or what needs one.
            with(r#""c""#, r#""\n""#),
            with(r#""c""#, "\"\n\""),
            with("channel", "ch\\u0061nnel"),
            // What breaks a rule.
            with(r#""c""#, r#""""#),
            with(":1,", ":0,"),
            with("2022-02-02", "2022-02-30"),
            with("RocketSpeedIncreased", "RocketTurned"),
            with("SpeedIncreased", "Exploded"),
            // A syntax error.
            by("1") + "x",
            by("1").trim_end_matches('}').to_owned(),
            with(r#","message""#, r#" "message""#),
        ] {
            assert!(!is_usual(&json), "{json}");
        }
    }
}
