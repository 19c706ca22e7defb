//! Decodes gzip and zstd: the bodies of requests while they arrive, and files.
//!
//! A decoder returns at most as many bytes at a time as its caller has room for, however much they
//! were compressed, and its own memory is bounded. Several gzip members or zstd frames in a row
//! are one text.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;

/// The largest windows of zstd data in requests and files, as powers of two: the largest that RFC
/// 9659 allows in HTTP, and the largest that the command `zstd` decodes by default. A decoder may
/// need that much memory.
const MAX_REQUEST_WINDOW_LOG: u32 = 23;
const MAX_FILE_WINDOW_LOG: u32 = 27;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// The encoding with this name in HTTP.
    pub fn from_name(name: &str) -> Option<Self> {
        let names = [
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("zstd", Self::Zstd),
            ("identity", Self::Identity),
        ];
        let named = names.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        named.map(|(_, encoding)| encoding)
    }

    /// Its name in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The encoding of a file that starts with these bytes.
    fn from_start(bytes: &[u8]) -> Self {
        if bytes.starts_with(&GZIP_MAGIC) {
            Self::Gzip
        } else if bytes.starts_with(&ZSTD_MAGIC) {
            Self::Zstd
        } else {
            Self::Identity
        }
    }
}

/// Reads decoded bytes of an input, which may return [`io::ErrorKind::WouldBlock`].
pub struct Decoder<R: BufRead>(State<R>);

enum State<R: BufRead> {
    Identity(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// A decoder of the body of a request.
    pub fn of_request(encoding: Encoding, input: R) -> io::Result<Self> {
        Self::new(encoding, input, MAX_REQUEST_WINDOW_LOG)
    }

    fn new(encoding: Encoding, input: R, max_window_log: u32) -> io::Result<Self> {
        Ok(Self(match encoding {
            Encoding::Identity => State::Identity(input),
            Encoding::Gzip => State::Gzip(Box::new(MultiGzDecoder::new(input))),
            Encoding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(max_window_log)?;
                State::Zstd(Box::new(decoder))
            }
        }))
    }

    /// A decoder of a file, whose first bytes say how it is encoded.
    pub fn of_file(mut input: R) -> io::Result<Self> {
        // A pipe may return less, but no writer splits the first four bytes.
        let encoding = Encoding::from_start(input.fill_buf()?);
        Self::new(encoding, input, MAX_FILE_WINDOW_LOG)
    }

    /// The input. Bytes that were not decoded yet must stay.
    pub fn input(&mut self) -> &mut R {
        match &mut self.0 {
            State::Identity(input) => input,
            State::Gzip(decoder) => decoder.get_mut(),
            State::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, encoding) = match &mut self.0 {
            State::Identity(input) => return input.read(buffer),
            State::Gzip(decoder) => (decoder.read(buffer), Encoding::Gzip),
            State::Zstd(decoder) => (decoder.read(buffer), Encoding::Zstd),
        };
        read.map_err(|error| describe(error, encoding))
    }
}

/// Says what is wrong with the data, unless the input itself failed.
fn describe(error: io::Error, encoding: Encoding) -> io::Error {
    let name = encoding.name();
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), format!("the {name} data ends before its end"))
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            let detail = format!("the {name} data is damaged: {error}");
            io::Error::new(io::ErrorKind::InvalidData, detail)
        }
        _ => error,
    }
}

/// The part of an input that has arrived and was not decoded.
#[derive(Debug, Default)]
pub struct Arrived {
    bytes: Bytes,
    /// Whether nothing more will arrive.
    pub is_complete: bool,
}

impl Arrived {
    /// Adds the next part. The last must have been decoded.
    pub fn add(&mut self, bytes: Bytes) {
        assert!(self.bytes.is_empty(), "a decoder asks for more after it has used up its input");
        self.bytes = bytes;
    }
}

impl Read for Arrived {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Arrived {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.bytes.is_empty() && !self.is_complete {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.bytes)
    }

    fn consume(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(text, 3).unwrap()
    }

    /// Decodes data that arrives in parts, into a buffer of this many bytes.
    fn decode(encoding: Encoding, data: &[u8], part: usize, room: usize) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::of_request(encoding, Arrived::default())?;
        let (mut parts, mut text, mut buffer) = (data.chunks(part), Vec::new(), vec![0; room]);
        loop {
            match decoder.read(&mut buffer) {
                Ok(0) => return Ok(text),
                Ok(read) => text.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match parts.next() {
                    Some(part) => decoder.input().add(Bytes::copy_from_slice(part)),
                    None => decoder.input().is_complete = true,
                },
                Err(error) => return Err(error),
            }
        }
    }

    #[test]
    fn the_text_does_not_depend_on_how_the_data_arrives() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|n| (n * n / 77).to_le_bytes()).collect();
        let twice = [text.clone(), text.clone()].concat();
        for (encoding, data) in [
            (Encoding::Gzip, gzip(&text)),
            (Encoding::Zstd, zstd(&text)),
            (Encoding::Identity, text.clone()),
        ] {
            for (part, room) in [(1, 7), (3, 1), (100, 1_000), (1_000_000, 64), (7, 1_000_000)] {
                assert!(decode(encoding, &data, part, room).unwrap() == text, "{encoding:?}");
                let doubled = [data.clone(), data.clone()].concat();
                assert!(decode(encoding, &doubled, part, room).unwrap() == twice, "{encoding:?}");
            }
        }
    }

    #[test]
    fn truncated_and_damaged_data_is_an_error() {
        let text = b"some text, and more of the same text".repeat(100);
        for (encoding, data) in [(Encoding::Gzip, gzip(&text)), (Encoding::Zstd, zstd(&text))] {
            for end in 1..data.len() {
                let error = decode(encoding, &data[..end], 5, 100).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{encoding:?} {end}");
                assert!(error.to_string().contains("before its end"), "{error}");
            }
            let junk = b"nonsense of some length".to_vec();
            for junk in [junk.clone(), [data, junk].concat()] {
                let error = decode(encoding, &junk, 3, 100).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{encoding:?}");
            }
        }
        let mut flipped = gzip(&text);
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;
        assert!(decode(Encoding::Gzip, &flipped, 9, 100).is_err());
    }

    #[test]
    fn windows_of_zstd_are_bounded() {
        let data = |window_log| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(window_log).unwrap();
            encoder.long_distance_matching(true).unwrap();
            encoder.write_all(b"text").unwrap();
            encoder.flush().unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(decode(Encoding::Zstd, &data(23), 100, 100).unwrap(), b"text");
        let error = decode(Encoding::Zstd, &data(24), 100, 100).unwrap_err();
        assert!(error.to_string().contains("too much memory"), "{error}");
    }

    #[test]
    fn files_say_themselves_how_they_are_encoded() {
        for data in [b"{}".to_vec(), gzip(b"{}"), zstd(b"{}")] {
            let mut text = String::new();
            Decoder::of_file(&data[..]).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "{}");
        }
        let mut text = String::new();
        Decoder::of_file(&b""[..]).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
    }
}
