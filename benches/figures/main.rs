//! The project's figures. Each is a ratio to a yardstick that is measured alternately in the same
//! run, because a machine's speed drifts more than what is compared. `./run bench` prints all,
//! `./run bench post pages` some.
//!
//! The load generator runs on the same machine as the server: it writes prepared requests to
//! keep-alive connections and reads just enough of the responses. POST is also measured with wrk,
//! if it is installed.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout
)]

mod cluster;
mod dashboard;
mod events;
mod growth;
mod input;
mod measure;
mod merging;
mod reads;
mod scale;
mod servers;
mod shared;
mod writes;
mod yardsticks;

use std::io::Write;
use std::path::Path;

/// Measures in its own directory, and returns rows of the table.
type Figure = fn(&Path) -> String;

fn main() {
    if servers::is_yardstick() {
        servers::ceiling();
        return;
    }
    if let Some(address) = events::is_reader_of() {
        events::read(&address);
        return;
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let figures: [(&str, Figure); 17] = [
        ("post", writes::post),
        ("few", writes::few_connections),
        ("latency", writes::latency),
        ("lines", writes::lines),
        ("singles", writes::beside_a_stream),
        ("ingest", writes::ingest),
        ("headless", writes::headless),
        ("million", scale::million),
        ("get", reads::get),
        ("pages", reads::pages),
        ("beside", reads::beside_ingestion),
        ("events", events::cost),
        ("merge", merging::merging),
        ("postgres", shared::on_postgres),
        ("dashboard", dashboard::growth),
        ("cluster", cluster::on_a_cluster),
        ("growth", growth::growth),
    ];
    println!("| figure | median | lowest to highest | how |\n|---|---|---|---|");
    for (name, figure) in figures {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            let directory = tempfile::tempdir().unwrap();
            print!("{}", figure(directory.path()));
            std::io::stdout().flush().unwrap();
        }
    }
}
