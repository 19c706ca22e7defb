//! Finds where each request ends in a client's bytes (RFC 9112, sections 6 and 7), so that a
//! connection can pass on one request at a time.
//!
//! actix-http reads all requests that have arrived. If the body of the last is incomplete when an
//! earlier request is answered, it closes the connection, and the requests in between are lost.
//! This module only finds ends; actix-http decides whether a request is valid. If this module can't
//! determine an end, it passes on everything.

use httparse::{EMPTY_HEADER, Header, Request, Status};

/// The same limit as in actix-http.
const MAX_HEADERS: usize = 96;

/// Tracks the bytes of a connection.
#[derive(Debug, Default)]
pub(in crate::http) struct Framing {
    position: ParsePosition,
    /// The start of a head whose end has not arrived.
    head: Vec<u8>,
}

/// The part of a request that the next byte belongs to.
#[derive(Debug, Default)]
enum ParsePosition {
    #[default]
    Head,
    /// A body with this many bytes left.
    Body(u64),
    Chunked(ChunkPosition),
    /// The end can't be determined.
    Unknown,
}

/// The part of a chunked body that the next byte belongs to.
#[derive(Debug)]
enum ChunkPosition {
    /// The size, as far as it has arrived.
    Size(u64),
    /// The rest of the line after the size.
    Extension(u64),
    /// The line feed after the size's line.
    SizeEnd(u64),
    /// Data with this many bytes left, including the line end.
    Data(u64),
    /// A line after the last chunk, and whether it is empty.
    Trailer { is_empty: bool },
    /// The line feed of such a line.
    TrailerEnd { is_empty: bool },
}

impl Framing {
    /// Takes the bytes of the current request. Returns their number, and whether they end the
    /// request.
    pub(in crate::http) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let (more, ends) = self.take_from_position(rest);
            taken += more;
            if ends {
                self.position = ParsePosition::Head;
                return (taken, true);
            }
        }
        (taken, false)
    }

    fn take_from_position(&mut self, bytes: &[u8]) -> (usize, bool) {
        match &mut self.position {
            ParsePosition::Head => self.take_head(bytes),
            ParsePosition::Body(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                (taken, *left == 0)
            }
            ParsePosition::Chunked(chunk) => match chunk.take(bytes) {
                Some(taken) => taken,
                None => self.lose_track(bytes),
            },
            ParsePosition::Unknown => (bytes.len(), false),
        }
    }

    fn lose_track(&mut self, bytes: &[u8]) -> (usize, bool) {
        self.position = ParsePosition::Unknown;
        (bytes.len(), false)
    }

    /// Whether part of a request has arrived, but not its end.
    pub(in crate::http) fn is_within_request(&self) -> bool {
        !matches!(self.position, ParsePosition::Head) || !self.head.is_empty()
    }

    fn take_head(&mut self, bytes: &[u8]) -> (usize, bool) {
        if self.head.is_empty() {
            // Empty lines before a request are ignored (RFC 9112, section 2.2).
            let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if empty > 0 {
                return (empty, false);
            }
        }
        // Most heads arrive in one piece, and are not copied.
        let before = self.head.len();
        let joined = (before > 0).then(|| {
            self.head.extend_from_slice(bytes);
            std::mem::take(&mut self.head)
        });
        match head_end(joined.as_deref().unwrap_or(bytes)) {
            Ok(Some((length, position))) => {
                let ends = matches!(position, ParsePosition::Head);
                self.position = position;
                // The earlier bytes were not a whole head, so this one ends beyond them.
                (length - before, ends)
            }
            Ok(None) => {
                self.head = joined.unwrap_or_else(|| bytes.to_vec());
                (bytes.len(), false)
            }
            Err(_) => self.lose_track(bytes),
        }
    }
}

/// The length of a head, and the part that follows it; `None` if its end has not arrived.
fn head_end(bytes: &[u8]) -> Result<Option<(usize, ParsePosition)>, httparse::Error> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    let Status::Complete(length) = request.parse(bytes)? else { return Ok(None) };
    let is_tunnel = request.method == Some("CONNECT");
    Ok(Some((
        length,
        if is_tunnel { ParsePosition::Unknown } else { body_position(request.headers) },
    )))
}

fn body_position(headers: &[Header<'_>]) -> ParsePosition {
    let mut length = None;
    let mut is_chunked = false;
    for Header { name, value } in headers {
        if name.eq_ignore_ascii_case("upgrade") {
            return ParsePosition::Unknown;
        } else if name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(value).map(str::trim).unwrap_or_default();
            match text.parse::<u64>() {
                Ok(bytes) if length.is_none() => length = Some(bytes),
                _ => return ParsePosition::Unknown,
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if is_chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return ParsePosition::Unknown;
            }
            is_chunked = true;
        }
    }
    match (is_chunked, length) {
        (true, Some(_)) => ParsePosition::Unknown,
        (true, None) => ParsePosition::Chunked(ChunkPosition::Size(0)),
        (false, None | Some(0)) => ParsePosition::Head,
        (false, Some(length)) => ParsePosition::Body(length),
    }
}

impl ChunkPosition {
    /// Takes the bytes of this part. Returns their number, and whether they end the body; `None` if
    /// the chunked body is not valid.
    fn take(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        let first = *bytes.first()?;
        let mut taken = 1;
        match self {
            Self::Size(size) => match first {
                b'\r' => *self = Self::SizeEnd(*size),
                b';' | b' ' | b'\t' => *self = Self::Extension(*size),
                digit => *size = size.checked_mul(16)? + u64::from(char::from(digit).to_digit(16)?),
            },
            Self::Extension(size) => match first {
                b'\r' => *self = Self::SizeEnd(*size),
                b'\n' => return None,
                _ => {}
            },
            Self::SizeEnd(size) => match first {
                b'\n' => *self = Self::after_size(*size),
                _ => return None,
            },
            Self::Data(left) => {
                taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Size(0);
                }
            }
            Self::Trailer { is_empty } => match first {
                b'\r' => *self = Self::TrailerEnd { is_empty: *is_empty },
                b'\n' => return None,
                _ => *is_empty = false,
            },
            Self::TrailerEnd { is_empty } => match first {
                b'\n' if *is_empty => return Some((1, true)),
                b'\n' => *self = Self::Trailer { is_empty: true },
                _ => return None,
            },
        }
        Some((taken, false))
    }

    fn after_size(size: u64) -> Self {
        const LINE_END: u64 = 2;
        match size {
            0 => Self::Trailer { is_empty: true },
            size => Self::Data(size.saturating_add(LINE_END)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends of the requests in a stream that arrives in parts of `part` bytes.
    fn requests(stream: &[u8], part: usize) -> Vec<usize> {
        let (mut framing, mut ends, mut at) = (Framing::default(), Vec::new(), 0);
        for chunk in stream.chunks(part) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let (taken, ends_here) = framing.take(rest);
                assert!(taken > 0 && taken <= rest.len());
                at += taken;
                if ends_here {
                    ends.push(at);
                }
                rest = rest.get(taken..).unwrap_or_default();
            }
        }
        ends
    }

    #[test]
    fn request_ends_are_found_however_the_bytes_are_split() {
        let all = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /messages HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\n{\r\n\r\n",
            "POST /m HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST /m HTTP/1.1\r\nTransfer-Encoding: \
             chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            "POST /m HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
            "HEAD / HTTP/1.1\n\n",
            // Old clients send an empty line after a body (RFC 9112, section 2.2).
            "\r\n\nGET /end HTTP/1.1\r\n\r\n",
        ];
        let stream = all.concat();
        let mut end = 0;
        let ends: Vec<usize> = all
            .iter()
            .map(|request| {
                end += request.len();
                end
            })
            .collect();
        for part in [1, 2, 3, 7, 50, stream.len()] {
            assert_eq!(requests(stream.as_bytes(), part), ends, "in parts of {part}");
        }
    }

    #[test]
    fn empty_lines_start_no_request() {
        let mut framing = Framing::default();
        let post = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(framing.take(post), (post.len(), true));
        assert_eq!(framing.take(b"\r\n"), (2, false));
        assert!(!framing.is_within_request());
        assert_eq!(framing.take(b"\r\nG"), (3, false));
        assert!(framing.is_within_request());
    }

    #[test]
    fn requests_without_a_known_end_pass_through() {
        for head in [
            "nonsense\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            // actix-http doesn't accept bare line feeds as line ends either.
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x\nab\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n\r\n",
            "POST / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
            "CONNECT a:1 HTTP/1.1\r\n\r\n",
        ] {
            let stream = format!("{head}GET / HTTP/1.1\r\n\r\n");
            assert_eq!(requests(stream.as_bytes(), stream.len()), Vec::<usize>::new(), "{head}");
        }
    }
}
