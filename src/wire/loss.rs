//! Losses and gaps as JSON.

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeSeed;
use utoipa::ToSchema;

use super::members::{
    Faults, MemberNames, MemberReader, Members, ObjectSeed, Rejection, read_object,
};
use crate::domain::losses::Loss;
use crate::domain::message::MessageNumber;
use crate::domain::query::Gap;
use crate::domain::text::Text;
use crate::domain::timestamp::Timestamp;

const MEMBERS: [&str; 3] = ["first", "last", "reason"];
const NUMBERS: (i64, i64) = (MessageNumber::MIN, MessageNumber::MAX);

/// A declaration that numbers are lost, both ends inclusive.
#[derive(Debug, PartialEq, Eq, ToSchema)]
#[schema(as = LossDeclaration, examples(json!({
    "first": 5, "last": 5, "reason": "the recorder was off"
})))]
pub(crate) struct Declaration {
    #[schema(inline)]
    pub(crate) first: MessageNumber,
    /// Not below `first`.
    #[schema(inline)]
    pub(crate) last: MessageNumber,
    #[schema(inline)]
    pub(crate) reason: Text,
}

/// Parses a declaration. The caller must limit its size.
pub(crate) fn parse(json: Bytes) -> Result<Declaration, Rejection> {
    let json = ByteString::try_from(json).map_err(|error| Rejection::NotJson(error.to_string()))?;
    let mut faults = Faults::default();
    let members =
        read_object(&json, "first, last and reason", &mut faults, |deserializer, faults| {
            ObjectSeed { names: MemberNames::new(MEMBERS, ""), faults }.deserialize(deserializer)
        })?;
    match members
        .and_then(|members| MemberReader { json: &json, faults: &mut faults }.declaration(&members))
    {
        Some(declaration) if faults.0.is_empty() => Ok(declaration),
        _ => Err(Rejection::Invalid(faults.0)),
    }
}

impl MemberReader<'_> {
    fn declaration(&mut self, [first, last, reason]: &Members<'_, 3>) -> Option<Declaration> {
        let first = self.integer("/first", *first, NUMBERS, MessageNumber::new);
        let last = self.integer("/last", *last, NUMBERS, MessageNumber::new);
        let reason = self.text("/reason", *reason);
        let (first, last, reason) = (first?, last?, reason?);
        if last < first {
            self.faults.add("/last", "must not be below first");
            return None;
        }
        Some(Declaration { first, last, reason })
    }
}

/// How many numbers are newly lost.
#[derive(Serialize, ToSchema)]
#[schema(as = NewlyLost, example = json!({ "lost": 1 }))]
pub(crate) struct LostJson {
    pub(crate) lost: i64,
}

/// How many numbers are no longer lost.
#[derive(Serialize, ToSchema)]
#[schema(as = Withdrawn, example = json!({ "withdrawn": 1 }))]
pub(crate) struct WithdrawnJson {
    pub(crate) withdrawn: i64,
}

/// A page of a rocket's gaps, in ascending order.
#[derive(Serialize, ToSchema)]
#[schema(as = GapPage, example = json!({
    "gaps": [{ "first": 5, "last": 5, "since": "2026-11-23T10:00:00.000123Z", "lost": null }],
    "nextCursor": null
}))]
#[serde(rename_all = "camelCase")]
pub(crate) struct GapPageJson<'g> {
    pub(crate) gaps: Vec<GapJson<'g>>,
    /// The `cursor` of the next page; null on the last.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// A range of missing message numbers, both ends inclusive.
#[derive(Serialize, ToSchema)]
#[schema(as = Gap)]
pub(crate) struct GapJson<'g> {
    first: i64,
    last: i64,
    /// When the service first took a message of the range above it.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// What of it is declared lost; null if nothing is.
    #[schema(required)]
    lost: Option<Vec<LossJson<'g>>>,
}

/// Numbers that are declared lost, both ends inclusive. They may reach beyond the gap.
#[derive(Serialize, ToSchema)]
#[schema(as = Loss)]
#[serde(rename_all = "camelCase")]
struct LossJson<'g> {
    first: i64,
    last: i64,
    reason: &'g str,
    #[schema(value_type = String, format = DateTime)]
    declared_at: Timestamp,
}

impl<'g> GapJson<'g> {
    pub(crate) fn new(gap: &'g Gap) -> Self {
        let Gap { first, last, since, lost } = gap;
        let losses = lost.iter().map(|loss| {
            let Loss { first, last, reason, declared_at } = loss;
            let reason = reason.as_str();
            LossJson { first: *first, last: *last, reason, declared_at: *declared_at }
        });
        let lost = (!lost.is_empty()).then(|| losses.collect());
        Self { first: *first, last: *last, since: *since, lost }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn declarations_are_read_or_all_their_faults_are_named() {
        let json = br#"{"reason":"off","x":[],"last":7,"first":4}"#;
        let declaration = parse(Bytes::from_static(json)).unwrap();
        assert_eq!((declaration.first.get(), declaration.last.get()), (4, 7));
        assert_eq!(declaration.reason.as_str(), "off");
        let too_long = format!(r#"{{"first":1,"last":1,"reason":"{}"}}"#, "x".repeat(256));
        for (json, pointers) in [
            ("[]", vec![""]),
            ("{}", vec!["/first", "/last", "/reason"]),
            (r#"{"first":0,"last":4294967296,"reason":""}"#, vec!["/first", "/last", "/reason"]),
            (r#"{"first":5,"last":4,"reason":"r"}"#, vec!["/last"]),
            (r#"{"first":1.0,"last":4,"reason":"\u0000"}"#, vec!["/first", "/reason"]),
            (r#"{"first":1,"last":1,"reason":"a","reason":"b"}"#, vec!["/reason"]),
            (&too_long, vec!["/reason"]),
        ] {
            match parse(Bytes::from(json.to_owned())) {
                Err(Rejection::Invalid(faults)) => {
                    let named: Vec<_> = faults.iter().map(|fault| &*fault.pointer).collect();
                    assert_eq!(named, pointers, "{json}");
                }
                other => panic!("{json}: {other:?}"),
            }
        }
        assert!(matches!(parse(Bytes::from_static(b"{")), Err(Rejection::NotJson(_))));
    }
}
