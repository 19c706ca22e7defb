//! Figures of reads.

use std::net::SocketAddr;
use std::path::Path;

use rocket_monitor::simulator::Fleet;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::input::{self, CycleTo, fleet, get_request, post_requests, stream_lines, write_file};
use crate::measure::{
    AnswerReader, REQUESTS, drive, latencies, pairs, percentile, row, runtime, times_row,
};
use crate::servers::{Server, program};

pub fn get(directory: &Path) -> String {
    let (ours, ceiling) = (Server::ours(directory), Server::ceiling());
    let fleet = fleet(20_000);
    let messages: Vec<_> = post_requests(fleet).collect();
    drive(ours.address, &messages);
    let gets: Vec<_> = (0..REQUESTS)
        .map(|index| get_request(&format!("/rockets/{}", fleet.channel((index % 1_000) as u32))))
        .collect();
    let posts: Vec<_> = post_requests(fleet).cycle_to(REQUESTS);
    let ratios =
        pairs(
            |measured| {
                if measured { drive(ours.address, &gets) } else { drive(ceiling.address, &posts) }
            },
        );
    row("GET /rockets/{channel}, 64 connections, of the ceiling", &ratios)
}

pub fn pages(directory: &Path) -> String {
    const ROCKETS: u32 = 100_000;
    let fleet = Fleet {
        seed: 3,
        rockets: ROCKETS,
        messages: 300_000,
        duplicate_percent: 0.0,
        lossy_percent: 0.0,
        displacement: 3,
    };
    let file = directory.join("messages.ndjson");
    write_file(&file, fleet);
    let database = directory.join("rockets.db");
    assert!(
        program(&["ingest", file.to_str().unwrap(), "--database", database.to_str().unwrap()])
            .status()
            .unwrap()
            .success()
    );
    let (ours, ceiling) = (Server::ours(directory), Server::ceiling());
    let posts: Vec<_> = post_requests(input::fleet(REQUESTS as u64)).cycle_to(REQUESTS);
    let mut table = String::new();
    for sort in ["latestUpdate", "channel", "type", "speed", "mission", "status"] {
        let first = format!("/rockets?sort={sort}");
        let last = last_page(ours.address, &first);
        let repeat = |path: &str| vec![get_request(path); 4_000];
        let of_ceiling = pairs(|measured| {
            if measured {
                drive(ours.address, &repeat(&first))
            } else {
                drive(ceiling.address, &posts)
            }
        });
        table += &row(&format!("page 1 by {sort}, 100,000 rockets, of the ceiling"), &of_ceiling);
        let (first, last) = (repeat(&first), repeat(&last));
        let times =
            pairs(
                |measured| {
                    if measured { drive(ours.address, &first) } else { drive(ours.address, &last) }
                },
            );
        table += &row(&format!("page 1,000 by {sort}: its time over page 1's"), &times);
    }
    table
}

/// The path of the last page, which is page 1,000.
fn last_page(address: SocketAddr, first: &str) -> String {
    let runtime = runtime();
    let mut path = first.to_owned();
    for page in 2.. {
        let body = runtime.block_on(async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&get_request(&path)).await.unwrap();
            let mut reader = AnswerReader::default();
            reader.read(&mut stream).await;
            reader.body
        });
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let Some(cursor) = json["nextCursor"].as_str() else {
            assert_eq!(page, 1_001);
            return path;
        };
        path = format!("{first}&cursor={cursor}");
    }
    unreachable!()
}

/// Reads during NDJSON ingestion at full speed.
pub fn beside_ingestion(directory: &Path) -> String {
    const ROCKETS: u32 = 100_000;
    let ours = Server::ours(directory);
    let file = directory.join("messages.ndjson");
    let launched = Fleet {
        seed: 5,
        rockets: ROCKETS,
        messages: 300_000,
        duplicate_percent: 0.0,
        lossy_percent: 0.0,
        displacement: 3,
    };
    write_file(&file, launched);
    let mut answer = String::new();
    stream_lines(ours.address, &file, &mut answer);
    let gets = (0..4_000)
        .map(|index| get_request(&format!("/rockets/{}", launched.channel(index * 17 % ROCKETS))));
    let questions = [
        ("GET /rockets/{channel}", gets.collect::<Vec<_>>()),
        ("the first page of GET /rockets", vec![get_request("/rockets"); 2_000]),
    ];
    let mut table = String::new();
    let mut seed = 2_000;
    for (what, requests) in questions {
        let p99 = || percentile(latencies(4, ours.address, &requests), 0.99);
        let ratios = pairs(|measured| {
            if !measured {
                return p99();
            }
            seed += 1;
            write_file(&file, Fleet { seed, messages: 3_000_000, ..fleet(1) });
            std::thread::scope(|scope| {
                let streaming =
                    scope.spawn(|| stream_lines(ours.address, &file, &mut String::new()));
                let measured = p99();
                assert!(!streaming.is_finished(), "lines came in for shorter than was measured");
                streaming.join().unwrap();
                measured
            })
        });
        table +=
            &times_row(&format!("p99 of {what} while lines come in, over its p99 alone"), &ratios);
    }
    table
}
