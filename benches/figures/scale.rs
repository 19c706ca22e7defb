//! Figures of a large fleet.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rocket_monitor::simulator::Fleet;

use crate::input::{get_request, post_requests, write_file};
use crate::measure::{REQUESTS, drive, drive_over, pairs, row, times_row};
use crate::servers::{Server, peak_kib};
use crate::writes::ingest_file;

const MILLION: u32 = 1_000_000;
/// Reads a page twice a second, until it is told to end.
fn read_lists(address: SocketAddr, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        drive_over(1, address, &[get_request("/rockets")]);
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The costs of a million rockets, compared with a thousand or none.
pub fn million(directory: &Path) -> String {
    let folder = |name: &str| {
        let folder = directory.join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let (million, thousand, empty) = (folder("million"), folder("thousand"), folder("empty"));
    let one_each = Fleet {
        seed: 4,
        rockets: MILLION,
        messages: u64::from(MILLION),
        duplicate_percent: 0.0,
        lossy_percent: 0.0,
        displacement: 0,
    };
    let few = Fleet { rockets: 1_000, ..one_each };
    let files = [directory.join("million.ndjson"), directory.join("thousand.ndjson")];
    write_file(&files[0], one_each);
    write_file(&files[1], few);
    let databases = [million.join("rockets.db"), thousand.join("rockets.db")];
    let ingested = pairs(|measured| {
        let which = usize::from(!measured);
        ingest_file(&files[which], &databases[which])
    });
    let mut table = times_row(
        "ingest of a message for each of 1,000,000 rockets, over as many for 1,000: time",
        &ingested,
    );

    let servers = [Server::ours(&million), Server::ours(&thousand)];
    // The rockets continue, in any order.
    let mut going_on = [one_each, few].map(|fleet| {
        let fleet = Fleet { messages: 4 * u64::from(MILLION), ..fleet };
        post_requests(fleet).skip(MILLION as usize)
    });
    let mut post = |measured: bool, read: bool| {
        let which = usize::from(measured);
        let batch: Vec<Vec<u8>> = going_on[which].by_ref().take(REQUESTS).collect();
        let posted = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if read {
                scope.spawn(|| read_lists(servers[which].address, &posted));
            }
            let rate = drive(servers[which].address, &batch);
            posted.store(true, Ordering::Relaxed);
            rate
        })
    };
    table += &row(
        "POST at 1,000,000 channels costs, over 1,000: rates at 1,000 over",
        &pairs(|measured| post(measured, false)),
    );
    table += &row(
        "the same, while somebody reads a page of each twice a second",
        &pairs(|measured| post(measured, true)),
    );
    let peak = peak_kib(&servers[0].child).unwrap();
    table += &format!(
        "| memory with 1,000,000 rockets, after these | {peak} kB | \
         | the most that was resident |\n"
    );
    drop(servers);

    // Each shutdown leaves nothing to recover: an ordinary start is measured.
    let start = |folder: &Path| {
        let started = Instant::now();
        let server = Server::ours(folder);
        let took = started.elapsed().as_secs_f64();
        server.terminate();
        took
    };
    start(&million);
    start(&empty);
    let started = pairs(|measured| start(if measured { &million } else { &empty }));
    table + &times_row("start with 1,000,000 rockets, over start with none", &started)
}
