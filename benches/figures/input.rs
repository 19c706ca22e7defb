//! The input: the simulated fleet, as requests and as files.

use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use rocket_monitor::simulator::Fleet;

/// 1,000 channels, 10% duplicates, displaced by up to 20.
pub fn fleet(messages: u64) -> Fleet {
    Fleet {
        seed: 1,
        rockets: 1_000,
        messages,
        duplicate_percent: 10.0,
        lossy_percent: 0.0,
        displacement: 20,
    }
}

pub fn get_request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

pub fn post_requests(fleet: Fleet) -> impl Iterator<Item = Vec<u8>> {
    let channels: Vec<String> = (0..fleet.rockets).map(|rocket| fleet.channel(rocket)).collect();
    fleet.arrivals().map(move |(rocket, number)| {
        post_request(&fleet, &channels[rocket as usize], rocket, number)
    })
}

pub fn post_request(fleet: &Fleet, channel: &str, rocket: u32, number: u32) -> Vec<u8> {
    let mut json = Vec::with_capacity(256);
    fleet.write_message(channel, rocket, number, &mut json);
    let mut request = Vec::with_capacity(384);
    let length = json.len();
    write!(
        request,
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    request.extend(json);
    request
}

pub trait CycleTo: Iterator<Item = Vec<u8>> + Sized {
    /// `count` items, starting again when there are too few.
    fn cycle_to(self, count: usize) -> Vec<Vec<u8>> {
        let items: Vec<_> = self.take(count).collect();
        (0..count).map(|index| items[index % items.len()].clone()).collect()
    }
}

impl<I: Iterator<Item = Vec<u8>>> CycleTo for I {}

pub fn write_file(path: &Path, fleet: Fleet) {
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    let channels: Vec<String> = (0..fleet.rockets).map(|rocket| fleet.channel(rocket)).collect();
    let mut line = Vec::new();
    for (rocket, number) in fleet.arrivals() {
        line.clear();
        fleet.write_message(&channels[rocket as usize], rocket, number, &mut line);
        line.push(b'\n');
        file.write_all(&line).unwrap();
    }
    file.flush().unwrap();
}

/// Posts a whole file as NDJSON.
pub fn stream_lines(address: SocketAddr, file: &Path, answer: &mut String) {
    use std::io::Read;
    let mut file = std::fs::File::open(file).unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = file.metadata().unwrap().len();
    write!(
        stream,
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    std::io::copy(&mut file, &mut stream).unwrap();
    stream.read_to_string(answer).unwrap();
}

/// The rate at which a service accepts lines over one connection: 1,000,000 messages of 1,000
/// rockets, and every tenth of them twice. Each seed is another fleet, so only duplicates in the
/// file are duplicates.
pub fn lines_rate(address: SocketAddr, file: &Path, seed: u64) -> f64 {
    write_file(file, Fleet { seed, ..fleet(1_000_000) });
    let started = Instant::now();
    let mut answer = String::new();
    stream_lines(address, file, &mut answer);
    assert!(answer.contains("\"applied\":1000000"), "{answer}");
    1_100_000.0 / started.elapsed().as_secs_f64()
}
