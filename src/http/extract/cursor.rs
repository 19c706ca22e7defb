//! Cursors encode the end of a page and its query, so that a cursor can't continue another query.
//!
//! A cursor is a JSON array in base64url. It is opaque to clients, and its format may change with
//! any release.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::domain::query::{Position, RocketQuery, Sort, SortKey};
use crate::domain::rocket::Status;
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;

/// The query: sort, order, view, and the filters channel, type, mission and status.
type QueryParameters = (String, String, String, [Option<String>; 4]);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Null,
    Integer(i64),
    Text(String),
}

fn query_parameters(query: &RocketQuery) -> QueryParameters {
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

/// The cursor of the page after the position.
pub(in crate::http) fn encode(query: &RocketQuery, position: &Position) -> String {
    let key = match &position.key {
        SortKey::Null => Key::Null,
        SortKey::Integer(integer) => Key::Integer(*integer),
        SortKey::Text(text) => Key::Text(text.clone()),
    };
    let json = serde_json::to_vec(&(query_parameters(query), key, position.channel.as_str()));
    URL_SAFE_NO_PAD.encode(
        json.unwrap_or_else(|error| unreachable!("a tuple of texts and numbers is JSON: {error}")),
    )
}

/// The position that a cursor encodes, if it belongs to the query.
pub(in crate::http) fn decode(cursor: &str, query: &RocketQuery) -> Result<Position, String> {
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid_cursor())?;
    let (parameters, key, channel): (QueryParameters, Key, String) =
        serde_json::from_slice(&json).map_err(|_| invalid_cursor())?;
    if parameters != query_parameters(query) {
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
