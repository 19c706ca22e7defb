//! The lines of a chunked response, read while it arrives.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;

/// The body of a response whose head has been read.
pub struct ChunkedLines {
    stream: BufReader<TcpStream>,
    /// The bytes left in the current chunk.
    left: usize,
}

impl ChunkedLines {
    pub fn new(stream: BufReader<TcpStream>) -> Self {
        Self { stream, left: 0 }
    }

    /// The next line; none at the end of the body. It is an error if the connection ends before.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if self.left == 0 {
                let mut size = String::new();
                while size.trim().is_empty() {
                    size.clear();
                    if self.stream.read_line(&mut size)? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                self.left = usize::from_str_radix(size.trim(), 16).unwrap();
                if self.left == 0 {
                    return Ok(None);
                }
            }
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            self.left -= 1;
        }
        line.pop();
        Ok(Some(String::from_utf8(line).unwrap()))
    }

    /// The connection, to send more of the request.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }
}
