//! Cursors encode the end of a page, and a hash of its query, so that a cursor can't continue
//! another query.
//!
//! A cursor is a JSON array in base64url. It is opaque to clients, and its format may change with
//! any release.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::domain::message::MessageNumber;
use crate::domain::query::{Filters, GapQuery, Position, RocketQuery, SilentFor, Sort, SortKey};
use crate::domain::rocket::Status;
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::store::report::{Report, ReportPosition};

/// The number of bytes of a query's hash that a cursor has.
const HASH_BYTES: usize = 12;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Null,
    Integer(i64),
    Text(String),
}

/// A hash of the sort, order, view and filters, the same in every process. A hash, because a cursor
/// with many long filters would not fit into a URL. It protects from mistakes and not from forgery:
/// a forged cursor is checked like any other.
fn query_hash(query: &RocketQuery) -> String {
    let Filters { channel, channel_prefix, rocket_types, missions, statuses, missing, silent_for } =
        &query.filters;
    let texts = |texts: &[Text]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let parameters = json!([
        query.sort.name(),
        query.order.name(),
        query.view.name(),
        channel.as_ref().map(Channel::as_str),
        channel_prefix.as_ref().map(Text::as_str),
        texts(rocket_types),
        texts(missions),
        statuses.iter().map(|status| status.name()).collect::<Vec<_>>(),
        missing,
        // The filter itself: the time up to which it searches is another one for each page.
        silent_for.map(SilentFor::seconds),
    ]);
    URL_SAFE_NO_PAD.encode(&Sha256::digest(parameters.to_string())[..HASH_BYTES])
}

/// The cursor of the page of gaps after this one.
pub(in crate::http) fn encode_gaps(query: &GapQuery) -> String {
    let json = serde_json::to_vec(&(query.channel.as_str(), query.after));
    URL_SAFE_NO_PAD.encode(
        json.unwrap_or_else(|error| {
            unreachable!("a tuple of a text and a number is JSON: {error}")
        }),
    )
}

/// The end of the last gap on the previous page, if the cursor belongs to the channel.
pub(in crate::http) fn decode_gaps(cursor: &str, channel: &Channel) -> Result<i64, String> {
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid_cursor())?;
    let (of, after): (String, i64) = serde_json::from_slice(&json).map_err(|_| invalid_cursor())?;
    if of != channel.as_str() {
        return Err("belongs to another channel".to_owned());
    }
    MessageNumber::new(after).map(MessageNumber::get).ok_or_else(invalid_cursor)
}

/// The cursor of the page of a report after the position.
pub(in crate::http) fn encode_report(report: Report, position: &ReportPosition) -> String {
    let (text, number) = match position {
        ReportPosition::Text(text) => (text.as_str(), 0),
        ReportPosition::Gap { channel, last } => (channel.as_str(), *last),
    };
    let json = serde_json::to_vec(&(report.name(), text, number));
    URL_SAFE_NO_PAD.encode(
        json.unwrap_or_else(|error| unreachable!("a tuple of texts and a number is JSON: {error}")),
    )
}

/// The position that a cursor encodes, if it belongs to the report.
pub(in crate::http) fn decode_report(
    cursor: &str,
    report: Report,
) -> Result<ReportPosition, String> {
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid_cursor())?;
    let (name, text, number): (String, String, i64) =
        serde_json::from_slice(&json).map_err(|_| invalid_cursor())?;
    if name != report.name() {
        return Err("belongs to another report".to_owned());
    }
    let text = ByteString::from(text);
    match report {
        Report::Missions | Report::Types | Report::Explosions if number == 0 => {
            Text::new(text).map(ReportPosition::Text).map_err(|_| invalid_cursor())
        }
        Report::Gaps => {
            let channel = Channel::new(text).map_err(|_| invalid_cursor())?;
            let last = MessageNumber::new(number).ok_or_else(invalid_cursor)?.get();
            Ok(ReportPosition::Gap { channel, last })
        }
        // The totals of the fleet are one row, so they have no next page.
        Report::Fleet | Report::Missions | Report::Types | Report::Explosions => {
            Err(invalid_cursor())
        }
    }
}

/// The cursor of the page after the position.
pub(in crate::http) fn encode(query: &RocketQuery, position: &Position) -> String {
    let key = match &position.key {
        SortKey::Null => Key::Null,
        SortKey::Integer(integer) => Key::Integer(*integer),
        SortKey::Text(text) => Key::Text(text.clone()),
    };
    let json = serde_json::to_vec(&(query_hash(query), key, position.channel.as_str()));
    URL_SAFE_NO_PAD.encode(
        json.unwrap_or_else(|error| unreachable!("a tuple of texts and numbers is JSON: {error}")),
    )
}

/// The position that a cursor encodes, if it belongs to the query.
pub(in crate::http) fn decode(cursor: &str, query: &RocketQuery) -> Result<Position, String> {
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid_cursor())?;
    let (hash, key, channel): (String, Key, String) =
        serde_json::from_slice(&json).map_err(|_| invalid_cursor())?;
    if hash != query_hash(query) {
        return Err(
            "belongs to a different sort, order, view or filter: repeat those of the page \
                    that returned it"
                .to_owned(),
        );
    }
    let key = match key {
        Key::Null => SortKey::Null,
        Key::Integer(integer) => SortKey::Integer(integer),
        Key::Text(text) => SortKey::Text(text),
    };
    let is_valid_key = match (&key, query.sort) {
        (SortKey::Null, sort) => sort.nullable(query.view),
        (SortKey::Integer(_), sort) => sort == Sort::Speed,
        (SortKey::Text(text), Sort::LatestUpdate) => {
            Timestamp::parse(text).is_ok_and(|time| time.to_string() == *text)
        }
        (SortKey::Text(text), Sort::Status) => {
            Status::ALL.iter().any(|status| status.name() == text)
        }
        (SortKey::Text(text), Sort::Channel) => *text == channel,
        // Forged cursors must not reach the store with values that no rocket can have: Postgres
        // can't store NUL in a text.
        (SortKey::Text(text), Sort::Type | Sort::Mission) => {
            Text::new(ByteString::from(text.as_str())).is_ok()
        }
        (SortKey::Text(_), Sort::Speed) => false,
    };
    if !is_valid_key {
        return Err(invalid_cursor());
    }
    Ok(Position {
        key,
        channel: Channel::new(ByteString::from(channel)).map_err(|_| invalid_cursor())?,
    })
}

fn invalid_cursor() -> String {
    "must be a nextCursor that this service returned".to_owned()
}
