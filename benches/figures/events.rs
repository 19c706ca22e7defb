//! Figures of event streams.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::input::{fleet, post_requests};
use crate::measure::{PAIRS, REQUESTS, drive, pairs, row, runtime};
use crate::servers::Server;

/// Makes the program read the events of the service at this address.
const READERS_OF: &str = "ROCKET_MONITOR_BENCH_READERS_OF";

/// The service whose events this process must read, if any.
pub fn is_reader_of() -> Option<String> {
    std::env::var(READERS_OF).ok()
}

/// What readers of events cost ingestion: the rate with a hundred readers, one of which never
/// reads, relative to the rate without.
pub fn cost(directory: &Path) -> String {
    const READERS: usize = 100;
    let databases = ["followed", "alone"].map(|name| directory.join(name));
    let [followed, alone] = databases.map(|folder| {
        std::fs::create_dir(&folder).unwrap();
        Server::ours(&folder)
    });
    let mut readers = readers(followed.address, READERS);
    let mut requests = post_requests(fleet(4 * (PAIRS as u64 + 1) * REQUESTS as u64));
    let mut rate = |measured: bool, count: usize, a_second: Option<usize>| {
        let batch: Vec<Vec<u8>> = requests.by_ref().take(count).collect();
        let address = if measured { followed.address } else { alone.address };
        let Some(a_second) = a_second else { return drive(address, &batch) };
        // A hundred parts per second, each of which must be answered before the next.
        let part = a_second / 100;
        let (started, mut wait) = (Instant::now(), Duration::ZERO);
        for (index, part) in batch.chunks(part).enumerate() {
            let due = Duration::from_millis(10) * u32::try_from(index).unwrap();
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            let sent = Instant::now();
            drive(address, part);
            wait += sent.elapsed();
        }
        // How fast the parts were accepted, from the senders' point of view.
        count as f64 / wait.as_secs_f64()
    };
    let paced = pairs(|measured| rate(measured, 30_000, Some(10_000)));
    let full = pairs(|measured| rate(measured, REQUESTS, None));
    readers.kill().unwrap();
    readers.wait().unwrap();
    row(
        "10,000 changes a second beside 100 readers of events: how fast they are taken, \
         over without readers",
        &paced,
    ) + &row("the same at full rate", &full)
}

/// A process that reads events over `count` connections; the first of them never reads.
fn readers(address: SocketAddr, count: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(READERS_OF, address.to_string()).arg(count.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "reading\n");
    child
}

pub fn read(address: &str) {
    let count: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let local = tokio::task::LocalSet::new();
    local.spawn_local({
        let address: SocketAddr = address.parse().unwrap();
        async move {
            let mut streams = Vec::new();
            for _ in 0..count {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                let mut buffer = vec![0; 65_536];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                streams.push((stream, buffer));
            }
            println!("reading");
            let _stalled = streams.remove(0);
            for (mut stream, mut buffer) in streams {
                tokio::task::spawn_local(async move {
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                });
            }
            std::future::pending::<()>().await;
        }
    });
    runtime().block_on(local);
}
