//! Questions about missing messages, and their answers, as JSON.

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeSeed;
use utoipa::ToSchema;

use super::members::{
    Faults, MemberNames, MemberReader, Members, ObjectSeed, Rejection, read_object,
};
use super::message::RejectionKind;
use super::ndjson::{BadLine, Line};
use crate::domain::message::MessageNumber;
use crate::domain::missing::{Missing, Question};
use crate::domain::text::Channel;

const MEMBERS: [&str; 3] = ["channel", "through", "from"];
const NUMBERS: (i64, i64) = (MessageNumber::MIN, MessageNumber::MAX);

/// Parses one question. The caller must limit its size.
pub(crate) fn parse(json: Bytes) -> Result<Question, Rejection> {
    let json = ByteString::try_from(json).map_err(|error| Rejection::NotJson(error.to_string()))?;
    let mut faults = Faults::default();
    let members =
        read_object(&json, "channel and through", &mut faults, |deserializer, faults| {
            ObjectSeed { names: MemberNames::new(MEMBERS, ""), faults }.deserialize(deserializer)
        })?;
    match members
        .and_then(|members| MemberReader { json: &json, faults: &mut faults }.question(&members))
    {
        Some(question) if faults.0.is_empty() => Ok(question),
        _ => Err(Rejection::Invalid(faults.0)),
    }
}

/// Parses the question on a line.
pub(crate) fn parse_line(Line { number, text }: Line) -> Result<Question, BadLine> {
    let text =
        text.map_err(|error| BadLine::new(number, &error.to_string(), RejectionKind::TooLarge))?;
    parse(text).map_err(|rejection| {
        BadLine::new(number, &rejection.to_string(), RejectionKind::from(&rejection))
    })
}

impl MemberReader<'_> {
    fn question(&mut self, [channel, through, from]: &Members<'_, 3>) -> Option<Question> {
        let channel = self.text("/channel", *channel).map(Channel::from);
        let mut number = |pointer: &str, member: Option<&str>| {
            self.integer(pointer, member, NUMBERS, MessageNumber::new)
        };
        let through = number("/through", *through);
        let from = number("/from", Some(from.unwrap_or("1")));
        let (channel, through, from) = (channel?, through?, from?);
        if from > through {
            self.faults.add("/from", "must not be above through");
            return None;
        }
        Some(Question { channel, from, through })
    }
}

/// A question, for the API's description.
#[derive(ToSchema)]
#[schema(as = MissingQuestion, examples(json!({
    "channel": "193270a9-c9cf-404a-8f83-838e71d9ae67", "through": 12
})))]
#[allow(dead_code)]
pub(crate) struct QuestionJson {
    #[schema(inline)]
    channel: Channel,
    /// The last number that was sent.
    #[schema(inline)]
    through: MessageNumber,
    /// The first number in question; 1 by default. Not above `through`.
    #[schema(inline)]
    from: Option<MessageNumber>,
}

/// Questions as newline-delimited JSON: any number of them, one per line.
#[derive(ToSchema)]
#[schema(as = MissingQuestionLines, value_type = String,
         content_media_type = "application/x-ndjson")]
#[allow(dead_code)]
pub(crate) struct QuestionLines(String);

/// A line of the response: an answer, or why a line can't be read.
#[derive(ToSchema)]
#[schema(as = MissingLine)]
#[serde(untagged)]
#[allow(dead_code)]
pub(crate) enum AnswerLine {
    Answer(AnswerJson<'static>),
    BadLine(BadLine),
}

/// The answer to a question.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MissingAnswer, example = json!({
    "channel": "193270a9-c9cf-404a-8f83-838e71d9ae67", "through": 12, "missing": [[5, 5], [9, 12]],
    "nextFrom": null
}))]
pub(crate) struct AnswerJson<'a> {
    channel: &'a str,
    through: i64,
    /// Ranges of numbers that have not been processed, both ends inclusive; at most 10,000.
    #[schema(value_type = Vec<[u32; 2]>)]
    missing: &'a [(u32, u32)],
    /// The first missing number that is not listed, if there are too many ranges: ask again from
    /// there.
    #[schema(required)]
    next_from: Option<u32>,
}

impl<'a> AnswerJson<'a> {
    pub(crate) fn new(question: &'a Question, answer: &'a Missing) -> Self {
        Self {
            channel: question.channel.as_str(),
            through: question.through.get(),
            missing: &answer.ranges,
            next_from: answer.next_from,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn questions_are_read_or_all_their_faults_are_named() {
        let question = parse(Bytes::from_static(br#"{"x":[],"through":7,"channel":"r"}"#)).unwrap();
        assert_eq!((question.channel.as_str(), question.from.get()), ("r", 1));
        assert_eq!(question.through.get(), 7);
        for (json, pointers) in [
            ("[]", vec![""]),
            ("1e999", vec![""]),
            ("{}", vec!["/channel", "/through"]),
            (
                r#"{"channel":"","through":0,"from":4294967296}"#,
                vec!["/channel", "/through", "/from"],
            ),
            (r#"{"channel":1,"through":"1","from":null}"#, vec!["/channel", "/through", "/from"]),
            (r#"{"channel":"r","through":4,"from":5}"#, vec!["/from"]),
            (r#"{"channel":"r","through":4,"thr\u006fugh":4}"#, vec!["/through"]),
            (r#"{"channel":"r","through":4,"x":4,"x":5}"#, vec!["/x"]),
            (r#"{"channel":"r","through":4.0}"#, vec!["/through"]),
        ] {
            match parse(Bytes::from(json.to_owned())) {
                Err(Rejection::Invalid(faults)) => {
                    let named: Vec<_> = faults.iter().map(|fault| &*fault.pointer).collect();
                    assert_eq!(named, pointers, "{json}");
                }
                other => panic!("{json}: {other:?}"),
            }
        }
        for json in ["", "{", "{} {}", "nonsense", "\u{feff}{}"] {
            let parsed = parse(Bytes::from(json.to_owned()));
            assert!(matches!(parsed, Err(Rejection::NotJson(_))), "{json}");
        }
    }

    #[test]
    fn an_answer_always_has_all_its_members() {
        let question = parse(Bytes::from_static(br#"{"channel":"\"","through":9}"#)).unwrap();
        for (answer, json) in [
            (Missing::default(), r#"{"channel":"\"","through":9,"missing":[],"nextFrom":null}"#),
            (
                Missing { ranges: vec![(1, 2), (4, 4)], next_from: Some(6) },
                r#"{"channel":"\"","through":9,"missing":[[1,2],[4,4]],"nextFrom":6}"#,
            ),
        ] {
            let written = serde_json::to_string(&AnswerJson::new(&question, &answer)).unwrap();
            assert_eq!(written, json);
        }
    }
}
