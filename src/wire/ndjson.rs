//! Newline-delimited JSON as a stream: bytes in, parsed messages out, in constant memory.

use bytes::Bytes;

use super::message::{MAX_MESSAGE_BYTES, RejectionKind, parse};
use super::shorten::shorten;
use crate::domain::message::Message;

/// The maximum number of bytes of a bad line's description. The response to a stream holds a
/// hundred of them.
const MAX_DETAIL_BYTES: usize = 1_024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A line that is not a valid message, or not what else is expected.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct BadLine {
    /// The line number, from 1. Blank lines count.
    pub line: u64,
    /// Why it is not a valid message.
    pub detail: String,
    /// The kind of fault, for the metrics.
    #[serde(skip)]
    #[schema(ignore)]
    pub rejection: RejectionKind,
}

/// The parsed lines of one or more parts of a stream.
#[derive(Debug, Default)]
pub struct Lines {
    pub messages: Vec<Message>,
    /// The lines that are neither messages nor blank.
    pub bad: Vec<BadLine>,
    /// The bytes of input, line ends included.
    pub bytes: usize,
}

/// A line that is not blank.
#[derive(Debug)]
pub(crate) struct Line {
    /// From 1. Blank lines count.
    pub(crate) number: u64,
    /// What is before the line end, often a slice of the stream's buffer.
    pub(crate) text: Result<Bytes, LineTooLong>,
}

/// A line is longer than this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("longer than {0} bytes")]
pub(crate) struct LineTooLong(usize);

/// Cuts a stream into lines.
///
/// A line ends in LF or CRLF; the last may lack it. A leading byte-order mark is skipped. No more
/// of a line than its maximum length is buffered.
#[derive(Debug)]
pub(crate) struct LineCutter {
    max_line_bytes: usize,
    /// The start of a line whose end has not arrived.
    partial_line: Vec<u8>,
    /// Whether the partial line is already too long, and is dropped up to its end.
    is_too_long: bool,
    /// The number of complete lines so far.
    lines_read: u64,
}

impl LineCutter {
    pub(crate) fn new(max_line_bytes: usize) -> Self {
        Self { max_line_bytes, partial_line: Vec::new(), is_too_long: false, lines_read: 0 }
    }

    /// Passes on the lines that end in the next part of the stream.
    pub(crate) fn feed(&mut self, chunk: &Bytes, each: &mut impl FnMut(Line)) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            if self.partial_line.is_empty() && !self.is_too_long {
                self.end_line(chunk.slice(start..end), each);
            } else {
                self.extend_partial_line(&chunk[start..end]);
                self.end_partial_line(each);
            }
            start = end + 1;
        }
        self.extend_partial_line(&chunk[start..]);
    }

    /// Passes on the last line, if its line end is missing.
    pub(crate) fn finish(&mut self, each: &mut impl FnMut(Line)) {
        if !self.partial_line.is_empty() || self.is_too_long {
            self.end_partial_line(each);
        }
    }

    fn extend_partial_line(&mut self, part: &[u8]) {
        // A byte-order mark and a CR don't count as part of the line.
        let max_bytes = self.max_line_bytes + BYTE_ORDER_MARK.len() + 1;
        if self.partial_line.len() + part.len() > max_bytes {
            self.is_too_long = true;
        }
        if self.is_too_long {
            self.partial_line = Vec::new();
        } else {
            self.partial_line.extend_from_slice(part);
        }
    }

    fn end_partial_line(&mut self, each: &mut impl FnMut(Line)) {
        if std::mem::take(&mut self.is_too_long) {
            self.lines_read += 1;
            let text = Err(LineTooLong(self.max_line_bytes));
            each(Line { number: self.lines_read, text });
        } else {
            let line = Bytes::from(std::mem::take(&mut self.partial_line));
            self.end_line(line, each);
        }
    }

    fn end_line(&mut self, line: Bytes, each: &mut impl FnMut(Line)) {
        let mut text = line;
        if self.lines_read == 0 && text.starts_with(BYTE_ORDER_MARK) {
            text = text.slice(BYTE_ORDER_MARK.len()..);
        }
        if text.ends_with(b"\r") {
            text.truncate(text.len() - 1);
        }
        self.lines_read += 1;
        let text = if text.len() > self.max_line_bytes {
            Err(LineTooLong(self.max_line_bytes))
        } else if text.iter().all(u8::is_ascii_whitespace) {
            return;
        } else {
            Ok(text)
        };
        each(Line { number: self.lines_read, text });
    }
}

/// Cuts a stream into lines and parses them as messages.
///
/// A line of more than [`MAX_MESSAGE_BYTES`] is bad.
#[derive(Debug)]
pub struct LineReader(LineCutter);

impl Default for LineReader {
    fn default() -> Self {
        Self(LineCutter::new(MAX_MESSAGE_BYTES))
    }
}

impl LineReader {
    /// Parses the next part of the stream.
    pub fn feed(&mut self, chunk: &Bytes, lines: &mut Lines) {
        lines.bytes += chunk.len();
        self.0.feed(chunk, &mut |line| lines.add(line));
    }

    /// Parses the last line, if its line end is missing.
    pub fn finish(&mut self, lines: &mut Lines) {
        self.0.finish(&mut |line| lines.add(line));
    }
}

impl Lines {
    fn add(&mut self, line: Line) {
        match line.parse() {
            Ok(message) => self.messages.push(message),
            Err(bad) => self.bad.push(bad),
        }
    }
}

impl Line {
    /// The message on this line.
    pub(crate) fn parse(self) -> Result<Message, BadLine> {
        let number = self.number;
        let text = self
            .text
            .map_err(|error| BadLine::new(number, &error.to_string(), RejectionKind::TooLarge))?;
        parse(text).map_err(|rejection| {
            BadLine::new(number, &rejection.to_string(), RejectionKind::from(&rejection))
        })
    }
}

impl BadLine {
    /// Shortens a detail that is too long.
    pub(crate) fn new(line: u64, detail: &str, rejection: RejectionKind) -> Self {
        Self { line, detail: shorten(detail, MAX_DETAIL_BYTES).into_owned(), rejection }
    }
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
    fn lines_end_in_lf_or_crlf_and_the_last_needs_no_end() {
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
    fn a_byte_order_mark_after_the_start_is_rejected() {
        let stream = format!("\n\u{feff}{}\n", message(1));
        assert_eq!(read(stream.as_bytes(), 10), (vec![], vec![2]));
    }

    #[test]
    fn invalid_utf8_rejects_only_its_own_line() {
        let stream = [message(1).as_bytes(), b"\n\"\xff\"\n", message(2).as_bytes()].concat();
        assert_eq!(read(&stream, 50), (vec![1, 2], vec![2]));
    }

    #[test]
    fn lines_of_up_to_64_kib_are_accepted() {
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
