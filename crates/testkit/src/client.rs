//! An HTTP client that keeps its connection, and shows the bytes on it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::wait::DEADLINE;

/// The rocket without `lastReceived`.
pub fn rocket(client: &mut Client, channel: &str, view: &str) -> Value {
    let answer = client.get(&format!("/rockets/{}?view={view}", encode(channel)));
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut json = answer.json();
    assert!(json.as_object_mut().unwrap().remove("lastReceived").unwrap().is_string());
    json
}

pub fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A chunked body.
fn chunked(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        if stream.read_line(&mut size)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let start = body.len();
        // With the line end after the chunk.
        body.resize(start + size + 2, 0);
        stream.read_exact(&mut body[start..])?;
        body.truncate(start + size);
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Whether something can be read, or the connection has ended. Waits as the stream is set to.
fn is_readable(stream: &TcpStream) -> bool {
    let peeked = stream.peek(&mut [0]);
    !peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// A client that keeps its connection, and shows the bytes on it.
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it is a problem (RFC 9457) with this status. Returns its members.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert!(self.header("x-request-id").is_some());
        let json = self.json();
        assert_eq!(json["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(json[member].is_string(), "{json}");
        }
        json
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"").unwrap()
    }

    pub fn post(&mut self, message: &Value) -> Answer {
        self.post_bytes(message.to_string().as_bytes())
    }

    pub fn post_bytes(&mut self, body: &[u8]) -> Answer {
        self.request("POST", "/messages", &[], body).unwrap()
    }

    pub fn post_lines(&mut self, body: &[u8]) -> Answer {
        self.request("POST", "/messages", &[("Content-Type", "application/x-ndjson")], body)
            .unwrap()
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        if !body.is_empty() || method == "POST" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.send(&[(head + "\r\n").as_bytes(), body].concat())?;
        self.answer(method == "HEAD")
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            self.stream = Some(BufReader::new(stream));
        }
        self.stream.as_mut().unwrap().get_mut().write_all(bytes)
    }

    /// Whether something can be read, or the connection has ended.
    pub fn has_answer(&self) -> bool {
        let stream = self.stream.as_ref().unwrap().get_ref();
        stream.set_nonblocking(true).unwrap();
        let there = is_readable(stream);
        stream.set_nonblocking(false).unwrap();
        there
    }

    /// Like `has_answer`, but waits for up to `patience`.
    pub fn has_answer_within(&self, patience: Duration) -> bool {
        let stream = self.stream.as_ref().unwrap().get_ref();
        stream.set_read_timeout(Some(patience)).unwrap();
        let there = is_readable(stream);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        there
    }

    /// Tells the service that nothing more will come.
    pub fn send_no_more(&mut self) {
        // The service may have closed the connection already.
        let _ = self.stream.as_mut().unwrap().get_mut().shutdown(std::net::Shutdown::Write);
    }

    pub fn answer(&mut self, head_only: bool) -> std::io::Result<Answer> {
        let stream = self.stream.as_mut().unwrap();
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()))
                }
                None => break,
            }
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if !head_only && answer.header("transfer-encoding") == Some("chunked") {
            answer.body = chunked(stream)?;
        } else if !head_only {
            let length = answer.header("content-length").map_or(0, |it| it.parse().unwrap());
            answer.body.resize(length, 0);
            stream.read_exact(&mut answer.body)?;
        }
        if answer.header("connection") == Some("close") {
            self.stream = None;
        }
        Ok(answer)
    }
}
