//! Cursors: the end of a page together with its query, so that a cursor can't be used with another
//! query.
//!
//! A cursor is the base64url of a JSON array. It is opaque to clients, and may change with any
//! release.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::domain::query::{Position, RocketQuery, Sort, SortKey};
use crate::domain::rocket::Status;
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// The query: sort, order, view, and the filters channel, type, mission and status.
type Question = (String, String, String, [Option<String>; 4]);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Null,
    Integer(i64),
    Text(String),
}

fn question(query: &RocketQuery) -> Question {
    let filters = &query.filters;
    (
        query.sort.name().to_owned(),
        query.order.name().to_owned(),
        query.view.name().to_owned(),
        [
            filters.channel.as_ref().map(ToString::to_string),
            filters.rocket_type.as_ref().map(ToString::to_string),
            filters.mission.as_ref().map(ToString::to_string),
            filters.status.map(|status| status.name().to_owned()),
        ],
    )
}

/// The cursor for the page that ends at the position.
pub(in crate::http) fn encode(query: &RocketQuery, position: &Position) -> String {
    let key = match &position.key {
        SortKey::Null => Key::Null,
        SortKey::Integer(integer) => Key::Integer(*integer),
        SortKey::Text(text) => Key::Text(text.clone()),
    };
    let json = serde_json::to_vec(&(question(query), key, position.channel.as_str()));
    URL_SAFE_NO_PAD
        .encode(json.unwrap_or_else(|error| unreachable!("texts and numbers are JSON: {error}")))
}

/// The position that a cursor encodes, if it belongs to the query.
pub(in crate::http) fn decode(cursor: &str, query: &RocketQuery) -> Result<Position, String> {
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| not_ours())?;
    let (asked, key, channel): (Question, Key, String) =
        serde_json::from_slice(&json).map_err(|_| not_ours())?;
    if asked != question(query) {
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
    let fits = match (&key, query.sort) {
        (SortKey::Null, sort) => sort.nullable(query.view),
        (SortKey::Integer(_), sort) => sort == Sort::Speed,
        (SortKey::Text(text), Sort::LatestUpdate) => {
            Timestamp::parse(text).is_ok_and(|time| time.to_string() == *text)
        }
        (SortKey::Text(text), Sort::Status) => {
            Status::ALL.iter().any(|status| status.name() == text)
        }
        (SortKey::Text(text), Sort::Channel) => *text == channel,
        // Made-up cursors must not reach the store with values that no rocket can have: Postgres's
        // text can't hold NUL.
        (SortKey::Text(text), Sort::Type | Sort::Mission) => {
            Text::new(ByteString::from(text.as_str())).is_ok()
        }
        (SortKey::Text(_), Sort::Speed) => false,
    };
    if !fits {
        return Err(not_ours());
    }
    Ok(Position { key, channel: Channel::new(ByteString::from(channel)).map_err(|_| not_ours())? })
}

fn not_ours() -> String {
    "must be a nextCursor that this service returned".to_owned()
}
