//! Pairs, their ratios, and the load generator.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// The default number of connections of the generator.
pub const CONNECTIONS: usize = 64;
pub const PAIRS: usize = 5;
/// The number of requests in a run of a pair.
pub const REQUESTS: usize = 100_000;

/// Runs both sides of each pair, and returns the ratios. A pair before them warms up.
pub fn pairs(mut rate: impl FnMut(bool) -> f64) -> Vec<(f64, f64, f64)> {
    let mut pairs = Vec::new();
    for pair in 0..=PAIRS {
        // The second side may find the machine in another state, so the order alternates.
        let (measured, yardstick) = if pair % 2 == 0 {
            let measured = rate(true);
            (measured, rate(false))
        } else {
            let yardstick = rate(false);
            (rate(true), yardstick)
        };
        if pair > 0 {
            pairs.push((measured / yardstick, measured, yardstick));
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    pairs
}

pub fn row(what: &str, pairs: &[(f64, f64, f64)]) -> String {
    let (median, measured, yardstick) = pairs[pairs.len() / 2];
    let (lowest, highest) = (pairs[0].0, pairs[pairs.len() - 1].0);
    format!(
        "| {what} | {median:.3} | {lowest:.3} to {highest:.3} | {measured:.0}/s over \
         {yardstick:.0}/s, {} pairs |\n",
        pairs.len()
    )
}

/// The same for pairs of times in seconds.
pub fn times_row(what: &str, pairs: &[(f64, f64, f64)]) -> String {
    let (median, measured, yardstick) = pairs[pairs.len() / 2];
    let (lowest, highest) = (pairs[0].0, pairs[pairs.len() - 1].0);
    let (measured, yardstick) = (measured * 1e6, yardstick * 1e6);
    format!(
        "| {what} | {median:.2} | {lowest:.2} to {highest:.2} | {measured:.0} µs over \
         {yardstick:.0} µs, {} pairs |\n",
        pairs.len()
    )
}

/// Sends every request once over all connections, and returns the rate of responses.
pub fn drive(address: SocketAddr, requests: &[Vec<u8>]) -> f64 {
    drive_over(CONNECTIONS, address, requests)
}

/// The same over this many connections.
pub fn drive_over(connections: usize, address: SocketAddr, requests: &[Vec<u8>]) -> f64 {
    let next = Rc::new(Cell::new(0));
    let requests: Rc<[Vec<u8>]> = requests.into();
    let local = tokio::task::LocalSet::new();
    let runtime = runtime();
    let streams: Vec<_> = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            streams.push(connect(address).await);
        }
        streams
    });
    let started = Instant::now();
    for mut stream in streams {
        let (next, requests) = (Rc::clone(&next), Rc::clone(&requests));
        local.spawn_local(async move {
            let mut reader = AnswerReader::default();
            while let Some(request) = requests.get(next.replace(next.get() + 1)) {
                stream.write_all(request).await.unwrap();
                reader.read(&mut stream).await;
            }
        });
    }
    runtime.block_on(local);
    requests.len() as f64 / started.elapsed().as_secs_f64()
}

/// Sends requests over all connections for this long. Returns the rate of responses, and the time
/// of each.
pub fn drive_for(
    time: Duration,
    address: SocketAddr,
    requests: impl Iterator<Item = Vec<u8>> + 'static,
) -> (f64, Vec<Duration>) {
    let local = tokio::task::LocalSet::new();
    let (requests, waits) = (Rc::new(RefCell::new(requests)), Rc::new(RefCell::new(Vec::new())));
    let started = Instant::now();
    for _ in 0..CONNECTIONS {
        let (requests, waits) = (Rc::clone(&requests), Rc::clone(&waits));
        local.spawn_local(async move {
            let mut stream = connect(address).await;
            let mut reader = AnswerReader::default();
            let next = || requests.borrow_mut().next();
            while started.elapsed() < time
                && let Some(request) = next()
            {
                let sent = Instant::now();
                stream.write_all(&request).await.unwrap();
                reader.read(&mut stream).await;
                waits.borrow_mut().push(sent.elapsed());
            }
        });
    }
    runtime().block_on(local);
    let rate = waits.borrow().len() as f64 / started.elapsed().as_secs_f64();
    (rate, waits.take())
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Reads responses from a connection that has one request in progress at a time.
#[derive(Default)]
pub struct AnswerReader {
    read: Vec<u8>,
    pub body: Vec<u8>,
}

impl AnswerReader {
    pub async fn read(&mut self, stream: &mut TcpStream) {
        self.read.clear();
        let head = loop {
            assert!(
                stream.read_buf(&mut self.read).await.unwrap() > 0,
                "the connection was closed"
            );
            if let Some(end) = memchr::memmem::find(&self.read, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.read[..head]).unwrap();
        assert!(text.starts_with("HTTP/1.1 20"), "{text}");
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |it| it.parse().unwrap());
        while self.read.len() < head + length {
            assert!(
                stream.read_buf(&mut self.read).await.unwrap() > 0,
                "the connection was closed"
            );
        }
        self.body = self.read.split_off(head);
    }
}

/// The time of each request over this many connections, each of which sends the next request after
/// the last response.
pub fn latencies(connections: usize, address: SocketAddr, requests: &[Vec<u8>]) -> Vec<Duration> {
    let local = tokio::task::LocalSet::new();
    let (next, waits) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let requests: Rc<[Vec<u8>]> = requests.into();
    for _ in 0..connections {
        let (next, waits, requests) = (Rc::clone(&next), Rc::clone(&waits), Rc::clone(&requests));
        local.spawn_local(async move {
            let mut stream = connect(address).await;
            let mut reader = AnswerReader::default();
            while let Some(request) = requests.get(next.replace(next.get() + 1)) {
                let sent = Instant::now();
                stream.write_all(request).await.unwrap();
                reader.read(&mut stream).await;
                waits.borrow_mut().push(sent.elapsed());
            }
        });
    }
    runtime().block_on(local);
    waits.take()
}

/// The time from its arrival to the response, for requests that arrive at a fixed rate, whether
/// earlier ones have been answered or not.
pub fn open_loop(address: SocketAddr, requests: &[Vec<u8>], rate: f64) -> Vec<Duration> {
    /// More than are ever in progress.
    const CONNECTIONS: usize = 512;
    /// How often arrivals are checked.
    const TICK: Duration = Duration::from_micros(100);
    let arrived = Arc::new(Semaphore::new(0));
    let (next, waits) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let count = requests.len();
    let requests: Rc<[Vec<u8>]> = requests.into();
    let (runtime, local) = (runtime(), tokio::task::LocalSet::new());
    let streams: Vec<_> = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            streams.push(connect(address).await);
        }
        streams
    });
    let started = Instant::now();
    for mut stream in streams {
        let (next, waits, requests, arrived) =
            (Rc::clone(&next), Rc::clone(&waits), Rc::clone(&requests), Arc::clone(&arrived));
        local.spawn_local(async move {
            let mut reader = AnswerReader::default();
            while let Ok(arrival) = arrived.acquire().await {
                arrival.forget();
                let index = next.replace(next.get() + 1);
                let Some(request) = requests.get(index) else { break };
                stream.write_all(request).await.unwrap();
                reader.read(&mut stream).await;
                let due = started + Duration::from_secs_f64(index as f64 / rate);
                waits.borrow_mut().push(due.elapsed());
            }
        });
    }
    let clock = std::thread::spawn(move || {
        let mut let_in = 0;
        // Those that come after the last request find none, and end.
        while let_in < count + CONNECTIONS {
            let due =
                ((started.elapsed().as_secs_f64() * rate) as usize + 1).min(count + CONNECTIONS);
            arrived.add_permits(due.saturating_sub(let_in));
            let_in = due;
            std::thread::sleep(TICK);
        }
    });
    runtime.block_on(local);
    clock.join().unwrap();
    waits.take()
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The percentile at this share, in seconds.
pub fn percentile(mut waits: Vec<Duration>, share: f64) -> f64 {
    waits.sort();
    waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64()
}
