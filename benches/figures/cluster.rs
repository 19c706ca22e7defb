//! Figures of a Citus cluster, which `ROCKET_MONITOR_TEST_CITUS` names: it must run alone on this
//! machine, because it is compared with a database on its coordinator's server alone.

use std::path::Path;

use rocket_monitor::simulator::Fleet;
use testkit::postgres::{Server as Node, TestDatabase, nodes};

use crate::input::{fleet, post_requests, write_file};
use crate::measure::{PAIRS, drive_over, pairs, row};
use crate::servers::{Server, program};

/// The number of requests in a run of a pair.
const POSTS: usize = 20_000;

pub fn on_a_cluster(directory: &Path) -> String {
    if std::env::var_os("ROCKET_MONITOR_TEST_CITUS").is_none() {
        return "| POST on a Citus cluster | | | ROCKET_MONITOR_TEST_CITUS names none |\n"
            .to_owned();
    }
    let mut table = a_batch(directory);
    for buckets in buckets() {
        table += &posts(&buckets);
    }
    table + &ingests(directory)
}

/// How many buckets to try.
fn buckets() -> Vec<String> {
    let given = std::env::var("ROCKET_MONITOR_BENCH_BUCKETS").unwrap_or_else(|_| "4".to_owned());
    given.split(',').map(str::to_owned).collect()
}

fn distributed(buckets: &str) -> TestDatabase {
    let database = TestDatabase::create_on_cluster();
    let args = ["migrate", "--distribute", "--buckets", buckets, "--database", &database.url];
    assert!(program(&args).status().unwrap().success());
    database
}

fn serve(database: &TestDatabase) -> Server {
    Server::start(program(&["serve", "--listen", "127.0.0.1:0", "--database", &database.url]))
}

/// A database on the coordinator's server that is not distributed.
fn alone() -> TestDatabase {
    let coordinator: Vec<Node> = nodes().into_iter().take(1).collect();
    TestDatabase::create_on(coordinator, "")
}

fn posts(buckets: &str) -> String {
    let (alone, cluster) = (alone(), distributed(buckets));
    let servers = [serve(&alone), serve(&cluster)];
    let mut table = String::new();
    for connections in [64, 256] {
        let mut requests =
            servers.each_ref().map(|_| post_requests(fleet((PAIRS as u64 + 1) * POSTS as u64)));
        let ratios = pairs(|measured| {
            let which = usize::from(measured);
            let batch: Vec<Vec<u8>> = requests[which].by_ref().take(POSTS).collect();
            drive_over(connections, servers[which].address, &batch)
        });
        let what = format!(
            "POST on the cluster, {buckets} buckets, {connections} connections, \
             of its coordinator alone"
        );
        table += &row(&what, &ratios);
    }
    table
}

fn ingests(directory: &Path) -> String {
    let (alone, cluster) = (alone(), distributed("4"));
    let file = directory.join("messages.ndjson");
    let mut seed = 0;
    let ratios = pairs(|measured| {
        seed += 1;
        let messages = 100_000;
        write_file(&file, Fleet { seed, ..fleet(messages) });
        let url = if measured { &cluster.url } else { &alone.url };
        let started = std::time::Instant::now();
        assert!(
            program(&["ingest", file.to_str().unwrap(), "--database", url])
                .status()
                .unwrap()
                .success()
        );
        messages as f64 / started.elapsed().as_secs_f64()
    });
    row("ingest of 100,000 messages into the cluster, of its coordinator alone", &ratios)
}

/// What the coordinator asks of the workers for a batch of one message, as the log of a service
/// tells that asks for it.
fn a_batch(directory: &Path) -> String {
    const BATCHES: usize = 200;
    let database = distributed("4");
    let separator = if database.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options=-c%20citus.log_remote_commands%3Don", database.url);
    let log = directory.join("log");
    let mut serve =
        program(&["serve", "--listen", "127.0.0.1:0", "--log-level", "debug", "--database", &url]);
    let mut child = serve.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let said = |what: &str| std::fs::read_to_string(&log).unwrap().matches(what).count();
    while said("\"listening\"") == 0 {
        std::thread::yield_now();
    }
    let text = std::fs::read_to_string(&log).unwrap();
    let line = text.lines().find(|line| line.contains("\"listening\"")).unwrap();
    let address = serde_json::from_str::<serde_json::Value>(line).unwrap()["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let mut table = String::new();
    let few = Fleet { rockets: 20, ..fleet(10_000) };
    let new = Fleet { seed: 9, rockets: 10_000, duplicate_percent: 0.0, ..fleet(10_000) };
    drive_over(1, address, &post_requests(few).take(BATCHES).collect::<Vec<_>>());
    for (what, fleet, skip) in [("a known rocket", few, BATCHES), ("a new rocket", new, 0)] {
        let before = ["issuing ", "issuing COMMIT\"", "issuing PREPARE TRANSACTION"].map(said);
        drive_over(1, address, &post_requests(fleet).skip(skip).take(BATCHES).collect::<Vec<_>>());
        let after = ["issuing ", "issuing COMMIT\"", "issuing PREPARE TRANSACTION"].map(said);
        let each = |kind: usize| (after[kind] - before[kind]) as f64 / BATCHES as f64;
        table += &format!(
            "| a batch of a message for {what}: remote commands | {:.2} | | of these COMMIT \
             {:.2}, two-phase {:.2} |\n",
            each(0),
            each(1),
            each(2)
        );
    }
    let _ = child.kill();
    let _ = child.wait();
    table
}
