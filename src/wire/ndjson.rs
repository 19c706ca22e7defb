//! Newline-delimited JSON as a stream: bytes in, parsed messages out, in constant memory.

use bytes::Bytes;

use super::message::{MAX_MESSAGE_BYTES, Reject, parse};
use super::shorten::shorten;
use crate::domain::message::Message;

/// The longest description of a bad line. A stream keeps a hundred of them.
const MAX_DETAIL_BYTES: usize = 1_024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A line that is not a valid message.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct BadLine {
    /// The line number, from 1. Blank lines count.
    pub line: u64,
    /// Why it is not a valid message.
    pub detail: String,
    /// The reason as a value.
    #[serde(skip)]
    #[schema(ignore)]
    pub reject: Reject,
}

/// The contents of some lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// The messages.
    pub messages: Vec<Message>,
    /// The lines that are neither messages nor blank.
    pub bad: Vec<BadLine>,
    /// How many bytes of input they took.
    pub bytes: usize,
}

/// Cuts a stream into lines and parses them.
///
/// A line ends in LF or CRLF; the last line may lack it. A leading byte-order mark is skipped. A
/// line of more than [`MAX_MESSAGE_BYTES`] is bad, and no more than that is buffered.
#[derive(Debug, Default)]
pub struct LineReader {
    /// The start of a line whose end has not arrived.
    begun: Vec<u8>,
    /// The started line is already too long, and is dropped up to its end.
    overlong: bool,
    /// The number of lines so far.
    ended: u64,
}

impl LineReader {
    /// Reads the next part of the stream.
    pub fn feed(&mut self, chunk: &Bytes, lines: &mut Lines) {
        lines.bytes += chunk.len();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            if self.begun.is_empty() && !self.overlong {
                self.end_line(chunk.slice(start..end), lines);
            } else {
                self.begin(&chunk[start..end]);
                self.end_begun(lines);
            }
            start = end + 1;
        }
        self.begin(&chunk[start..]);
    }

    /// Reads the last line, if its line end is missing.
    pub fn finish(&mut self, lines: &mut Lines) {
        if !self.begun.is_empty() || self.overlong {
            self.end_begun(lines);
        }
    }

    fn begin(&mut self, part: &[u8]) {
        // Leaves room for a byte-order mark and a CR, which are not part of the line.
        if self.begun.len() + part.len() > MAX_MESSAGE_BYTES + BYTE_ORDER_MARK.len() + 1 {
            self.overlong = true;
        }
        if self.overlong {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn end_begun(&mut self, lines: &mut Lines) {
        if std::mem::take(&mut self.overlong) {
            self.ended += 1;
            lines.bad.push(BadLine {
                line: self.ended,
                detail: too_long(),
                reject: Reject::TooLarge,
            });
        } else {
            let line = Bytes::from(std::mem::take(&mut self.begun));
            self.end_line(line, lines);
        }
    }

    fn end_line(&mut self, line: Bytes, lines: &mut Lines) {
        let mut json = line;
        if self.ended == 0 && json.starts_with(BYTE_ORDER_MARK) {
            json = json.slice(BYTE_ORDER_MARK.len()..);
        }
        if json.ends_with(b"\r") {
            json.truncate(json.len() - 1);
        }
        self.ended += 1;
        let parsed = if json.len() > MAX_MESSAGE_BYTES {
            Err((too_long(), Reject::TooLarge))
        } else if json.iter().all(u8::is_ascii_whitespace) {
            return;
        } else {
            parse(json).map_err(|rejection| (rejection.to_string(), Reject::from(&rejection)))
        };
        match parsed {
            Ok(message) => lines.messages.push(message),
            Err((detail, reject)) => {
                let detail = shorten(&detail, MAX_DETAIL_BYTES).into_owned();
                lines.bad.push(BadLine { line: self.ended, detail, reject });
            }
        }
    }
}

fn too_long() -> String {
    format!("longer than {MAX_MESSAGE_BYTES} bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(number: u32) -> String {
        format!(
            concat!(
                r#"{{"metadata":{{"channel":"c","messageNumber":{number},"#,
                r#""messageTime":"2022-02-02T19:39:05Z","messageType":"RocketSpeedIncreased"}},"#,
                r#""message":{{"by":{number}}}}}"#
            ),
            number = number
        )
    }

    /// The numbers of the messages, and the bad lines, of a stream that arrives in parts of this
    /// many bytes.
    fn read(stream: &[u8], part: usize) -> (Vec<i64>, Vec<u64>) {
        let mut reader = LineReader::default();
        let mut lines = Lines::default();
        for chunk in stream.chunks(part) {
            reader.feed(&Bytes::copy_from_slice(chunk), &mut lines);
        }
        reader.finish(&mut lines);
        assert_eq!(lines.bytes, stream.len());
        let numbers = lines.messages.iter().map(|message| message.number.get()).collect();
        (numbers, lines.bad.iter().map(|bad| bad.line).collect())
    }

    #[test]
    fn lines_end_in_lf_or_crlf_and_the_last_may_lack_it() {
        let stream = format!(
            "\u{feff}{}\n\n {}\r\n \t\r\nnonsense\n\"\u{feff}\"\n{}",
            message(1),
            message(2),
            message(3)
        );
        for part in [1, 2, 3, 7, 100, stream.len()] {
            assert_eq!(
                read(stream.as_bytes(), part),
                (vec![1, 2, 3], vec![5, 6]),
                "in parts of {part}"
            );
        }
        assert_eq!(read(b"", 1), (vec![], vec![]));
        assert_eq!(read("\u{feff}".as_bytes(), 1), (vec![], vec![]));
        assert_eq!(read(b"\n\n\n{", 2), (vec![], vec![4]));
    }

    #[test]
    fn a_byte_order_mark_elsewhere_is_no_json() {
        let stream = format!("\n\u{feff}{}\n", message(1));
        assert_eq!(read(stream.as_bytes(), 10), (vec![], vec![2]));
    }

    #[test]
    fn bad_utf8_harms_its_own_line_only() {
        let stream = [message(1).as_bytes(), b"\n\"\xff\"\n", message(2).as_bytes()].concat();
        assert_eq!(read(&stream, 50), (vec![1, 2], vec![2]));
    }

    #[test]
    fn a_line_may_have_64_kib_and_no_more() {
        let padded =
            |bytes: usize| format!("{}{}", " ".repeat(bytes - message(7).len()), message(7));
        for end in ["", "\n", "\r\n"] {
            let stream =
                format!("\u{feff}{}\n{}\n{}{end}", padded(65_536), padded(65_537), padded(65_536));
            for part in [1_000, 65_536, 65_540, stream.len()] {
                assert_eq!(
                    read(stream.as_bytes(), part),
                    (vec![7, 7], vec![2]),
                    "{end:?} in parts of {part}"
                );
            }
        }
        assert_eq!(read(&b"x".repeat(1_000_000), 4_096), (vec![], vec![1]));
        let blank = format!("{}\n{}\n{}", " ".repeat(65_537), " ".repeat(65_536), message(1));
        for part in [1_000, blank.len()] {
            assert_eq!(read(blank.as_bytes(), part), (vec![1], vec![1]));
        }
    }
}
