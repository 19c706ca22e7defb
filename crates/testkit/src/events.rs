//! A client of `GET /events`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;

use crate::chunked::ChunkedLines;
use crate::wait::DEADLINE;

/// An event stream, as read by a client.
pub struct Events {
    lines: ChunkedLines,
    pub id: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

impl Events {
    pub fn open(address: SocketAddr, query: &str, last_event_id: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let id = last_event_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        write!(stream, "GET /events{query} HTTP/1.1\r\nHost: localhost\r\n{id}\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/event-stream"),
            "{head}"
        );
        Self { lines: ChunkedLines::new(stream), id: None }
    }

    /// A line of the body; none at its end.
    fn line(&mut self) -> Option<String> {
        self.lines.line().ok().flatten()
    }

    /// The channels of the snapshot that comes next.
    pub fn snapshot(&mut self) -> Vec<String> {
        assert_eq!(self.next().unwrap().name, "snapshot");
        assert_eq!(self.id, None);
        let mut channels = Vec::new();
        loop {
            let event = self.next().unwrap();
            match event.name.as_str() {
                "rocket" => channels.push(event.data["channel"].as_str().unwrap().to_owned()),
                "live" => return channels,
                _ => panic!("{event:?}"),
            }
        }
    }

    /// Reads events until one matches.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&Event) -> bool) -> Event {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let event = self.next().unwrap_or_else(|| panic!("the stream ended before: {what}"));
            if is_so(&event) {
                return event;
            }
            assert!(Instant::now() < deadline, "{what}");
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    /// The next event; none at the end of the stream.
    fn next(&mut self) -> Option<Event> {
        let (mut name, mut data) = (String::new(), String::new());
        let deadline = Instant::now() + DEADLINE;
        loop {
            let line = self.line()?;
            // Heartbeats keep a stream alive that has no events.
            assert!(Instant::now() < deadline, "no event within {DEADLINE:?}");
            match line.split_once(": ").unwrap_or((&line, "")) {
                ("event", value) => name = value.to_owned(),
                ("data", value) => data += value,
                ("id", "") => self.id = None,
                ("id", value) => self.id = Some(value.to_owned()),
                ("", "") if !name.is_empty() => {
                    return Some(Event { name, data: serde_json::from_str(&data).unwrap() });
                }
                _ => {}
            }
        }
    }
}
