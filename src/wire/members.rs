//! Reads the members of JSON objects: finds the known ones, as slices of the text, and converts
//! them to the types of the domain. All faults are found in one pass.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytestring::ByteString;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::de::StrRead;
use serde_json::value::RawValue;

use super::shorten::shorten;
use crate::domain::text::Text;

/// The maximum number of faults of one object that are reported: more than a message has known
/// members. This bounds the size of a response.
const MAX_FAULTS: usize = 20;

/// The maximum number of bytes of a member's name that a fault quotes.
const MAX_QUOTED_BYTES: usize = 128;

/// Why bytes are not a valid message, or another object with known members.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The bytes are not one JSON text in UTF-8.
    #[error("not one JSON text in UTF-8: {0}")]
    NotJson(String),
    /// The JSON text breaks the rules for its members: all faults that were found, at least one.
    #[error("{}", join(.0))]
    Invalid(Vec<Fault>),
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
        if pointer.is_empty() { "it".to_owned() } else { pointer.to_owned() }
    };
    let sentences =
        faults.iter().map(|fault| format!("{} {}", subject(&fault.pointer), fault.detail));
    sentences.collect::<Vec<_>>().join("; ")
}

#[derive(Default)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(Fault { pointer: pointer.into(), detail: detail.into() });
        }
    }
}

/// The known members of an object, in the order of their names; `None` where one is missing.
pub(super) type Members<'j, const N: usize> = [Option<&'j str>; N];

/// Implements the visits of values that are not objects: each is a fault.
macro_rules! not_an_object {
    ($lifetime:lifetime) => {
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

pub(super) use not_an_object;

/// Reads one JSON text, which must be an object. `expected` completes the sentence "must be an
/// object that holds …".
pub(super) fn read_object<'j, T>(
    json: &'j str,
    expected: &str,
    faults: &mut Faults,
    read: impl FnOnce(
        &mut serde_json::Deserializer<StrRead<'j>>,
        &mut Faults,
    ) -> serde_json::Result<Option<T>>,
) -> Result<Option<T>, Rejection> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let members = read(&mut deserializer, faults);
    match members.and_then(|members| deserializer.end().map(|()| members)) {
        Ok(members) => Ok(members),
        // Valid JSON that the parser rejects, such as a number beyond the range of floats in place
        // of an object.
        Err(_) if serde_json::from_str::<IgnoredAny>(json).is_ok() => {
            faults.add("", format!("must be an object that holds {expected}"));
            Ok(None)
        }
        Err(error) => Err(Rejection::NotJson(error.to_string())),
    }
}

/// Reads an object's known members.
pub(super) struct ObjectSeed<'j, 'f, const N: usize> {
    pub(super) names: MemberNames<'j, N>,
    pub(super) faults: &'f mut Faults,
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
pub(super) struct MemberNames<'j, const N: usize> {
    known: [&'static str; N],
    /// The object, as a JSON Pointer.
    pointer: &'static str,
    seen: [bool; N],
    /// Senders choose these names, so the set uses the standard hash, which resists collisions.
    seen_unknown: HashSet<Cow<'j, [u8]>>,
}

impl<'j, const N: usize> MemberNames<'j, N> {
    pub(super) fn new(known: [&'static str; N], pointer: &'static str) -> Self {
        Self { known, pointer, seen: [false; N], seen_unknown: HashSet::default() }
    }

    /// The index of a known name, at its first occurrence. A repeated name is a fault, known or
    /// not.
    pub(super) fn find(&mut self, name: Cow<'j, [u8]>, faults: &mut Faults) -> Option<usize> {
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

    pub(super) fn report_missing(&self, faults: &mut Faults) {
        for (name, _) in self.known.iter().zip(self.seen).filter(|(_, seen)| !seen) {
            faults.add(format!("{}/{name}", self.pointer), "is missing");
        }
    }
}

/// Reads a member's name as bytes: a name with an unpaired surrogate is valid JSON, but not valid
/// Unicode.
pub(super) struct MemberNameSeed;

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
pub(super) struct MemberReader<'r> {
    pub(super) json: &'r ByteString,
    pub(super) faults: &'r mut Faults,
}

impl MemberReader<'_> {
    pub(super) fn text(&mut self, pointer: &str, member: Option<&str>) -> Option<Text> {
        let shared = match self.string(pointer, member)? {
            Cow::Borrowed(string) => self.json.slice_ref(string),
            Cow::Owned(string) => string.into(),
        };
        Text::new(shared).map_err(|detail| self.faults.add(pointer, detail)).ok()
    }

    pub(super) fn string<'j>(
        &mut self,
        pointer: &str,
        member: Option<&'j str>,
    ) -> Option<Cow<'j, str>> {
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

    pub(super) fn integer<T>(
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
