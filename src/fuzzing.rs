//! Properties that must hold for any input. The fuzzer looks for inputs that break them (`./run
//! fuzz`), and a test checks them for the corpus. Not part of the program.
#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::merge::{MergeEntry, merge};
use crate::domain::message::Message;
use crate::domain::missing::Question;
use crate::domain::speed_blocks::{BlocksError, SpeedBlocks};
use crate::domain::timestamp::Timestamp;
pub use crate::http::fuzzing::{cursor, query};
use crate::wire::export::ExportLine;
use crate::wire::message::{MAX_MESSAGE_BYTES, Rejection, both_paths_agree, parse};
use crate::wire::missing;
use crate::wire::ndjson::{LineReader, Lines};

/// The body of one message: accepted or rejected, and an accepted message equals its JSON.
pub fn message(input: &[u8]) {
    let parsed = parse(Bytes::copy_from_slice(input));
    assert!(std::str::from_utf8(input).ok().is_none_or(both_paths_agree));
    match parsed {
        Ok(message) => {
            assert!(serde_json::from_slice::<&RawValue>(input).is_ok());
            assert_equals_json(&message, input);
        }
        Err(rejection) => assert_is_explained(&rejection, input),
    }
}

/// Compares the message with serde_json's values at the same places. (serde_json takes the last
/// value of a duplicated member, which the parser rejects for known members. It can't hold numbers
/// out of its range; only ignored members may have such values.)
fn assert_equals_json(message: &Message, input: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Value>(input) else { return };
    let metadata = &json["metadata"];
    assert_eq!(metadata["channel"], message.channel.as_str());
    assert_eq!(metadata["messageNumber"], message.number.get());
    assert_eq!(Timestamp::parse(metadata["messageTime"].as_str().unwrap()).unwrap(), message.time);
    let reparsed = Timestamp::parse(&message.time.to_string());
    assert_eq!(reparsed.unwrap(), message.time, "a written time parses to the time itself");
}

/// A question about missing messages: accepted or rejected, and an accepted one equals its JSON.
pub fn question(input: &[u8]) {
    match missing::parse(Bytes::copy_from_slice(input)) {
        Ok(Question { channel, from, through }) => {
            assert!(from <= through);
            let Ok(json) = serde_json::from_slice::<Value>(input) else { return };
            assert_eq!(json["channel"], channel.as_str());
            assert_eq!(json["through"], through.get());
            assert_eq!(json.get("from").map_or(1, |it| it.as_i64().unwrap()), from.get());
        }
        Err(rejection) => assert_is_explained(&rejection, input),
    }
}

/// A rejection says what is wrong, and it is not that the input is not JSON if it is.
fn assert_is_explained(rejection: &Rejection, input: &[u8]) {
    match rejection {
        Rejection::NotJson(reason) => assert!(!reason.is_empty()),
        Rejection::Invalid(faults) => {
            assert!(serde_json::from_slice::<&RawValue>(input).is_ok());
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(fault.pointer.is_empty() || fault.pointer.starts_with('/'), "{fault:?}");
                assert!(!fault.detail.is_empty());
            }
        }
    }
}

/// The blocks of a range, whose length is in the first byte and whose first number is in the next
/// two: accepted or rejected, and accepted ones are in the one form that they have.
pub fn speed_blocks(input: &[u8]) {
    let [length, high, low, bytes @ ..] = input else { return };
    let first = i64::from(u16::from_be_bytes([*high, *low])) + 1;
    let range = first..=first + i64::from(*length);
    let read = |total| SpeedBlocks::from_bytes(bytes, range.clone(), total);
    let blocks = match read(0) {
        Err(BlocksError::BadTotal { found, .. }) => read(found).unwrap(),
        Err(error) => return assert!(!error.to_string().is_empty()),
        Ok(blocks) => blocks,
    };
    assert_eq!(blocks.as_bytes(), bytes);
    assert_eq!(SpeedBlocks::from_blocks(blocks.blocks(range)), blocks);
}

/// A line of an export: accepted or rejected. An accepted one is written as it was read, and a
/// rocket that is merged with itself stays as it is.
pub fn export(input: &[u8]) {
    let line = match ExportLine::parse(input) {
        Ok(line) => line,
        Err(detail) => return assert!(!detail.is_empty()),
    };
    let mut text = Vec::new();
    line.write(&mut text);
    assert_eq!(ExportLine::parse(&text), Ok(line.clone()));
    if let ExportLine::Entry(MergeEntry::Rocket(_, record)) = line {
        let merged = merge(&record, &record).unwrap();
        assert_eq!((merged.record, merged.gained, merged.conflicts), (record, 0, Vec::new()));
    }
}

/// A stream of lines: the result must not depend on how the stream is cut into parts, and each line
/// must parse like a message on its own. The first bytes determine the cuts.
pub fn ndjson(input: &[u8]) {
    let (cuts, stream) = input.split_at(input.len().min(8));
    let uncut = read_in_parts(stream, &[]);
    assert_eq!(uncut, read_in_parts(stream, cuts));
    let stream = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
    let (mut messages, mut bad) = (Vec::new(), Vec::new());
    for (line, number) in stream.split(|byte| *byte == b'\n').zip(1_u64..) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() <= MAX_MESSAGE_BYTES && line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match parse(Bytes::copy_from_slice(line)) {
            Ok(message) if line.len() <= MAX_MESSAGE_BYTES => messages.push(format!("{message:?}")),
            _ => bad.push(number),
        }
    }
    assert_eq!(uncut, (messages, bad));
}

/// The messages, and the numbers of the bad lines, of a stream that arrives in parts of these
/// lengths, repeated.
fn read_in_parts(stream: &[u8], parts: &[u8]) -> (Vec<String>, Vec<u64>) {
    let (mut reader, mut lines, mut rest) = (LineReader::default(), Lines::default(), stream);
    for part in parts.iter().cycle().take_while(|_| parts.iter().any(|part| *part > 0)) {
        if rest.is_empty() {
            break;
        }
        let (first, others) = rest.split_at(rest.len().min(usize::from(*part)));
        reader.feed(&Bytes::copy_from_slice(first), &mut lines);
        rest = others;
    }
    reader.feed(&Bytes::copy_from_slice(rest), &mut lines);
    reader.finish(&mut lines);
    assert_eq!(lines.bytes, stream.len());
    let messages = lines.messages.iter().map(|message| format!("{message:?}")).collect();
    (messages, lines.bad.iter().map(|bad| bad.line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file of the corpus of a target.
    fn replay(target: &str, check: fn(&[u8])) {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut files = 0;
        for file in std::fs::read_dir(&folder).unwrap() {
            check(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 10, "{files} files in {}", folder.display());
    }

    #[test]
    fn messages_of_the_corpus() {
        replay("message", message);
    }

    #[test]
    fn streams_of_the_corpus() {
        replay("ndjson", ndjson);
    }

    #[test]
    fn questions_of_the_corpus() {
        replay("question", question);
    }

    #[test]
    fn blocks_of_the_corpus() {
        replay("speed_blocks", speed_blocks);
    }

    #[test]
    fn lines_of_exports_of_the_corpus() {
        replay("export", export);
    }

    #[test]
    fn cursors_of_the_corpus() {
        replay("cursor", cursor);
    }

    #[test]
    fn query_strings_of_the_corpus() {
        replay("query", query);
    }
}
