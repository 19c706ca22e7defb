//! A Citus cluster, over which the tables are distributed: batches, instances on all nodes, and
//! what goes on while messages arrive.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;
use testkit::client::{Client, rocket};
use testkit::events::Events;
use testkit::message::{faster, launched};
use testkit::postgres::{TestDatabase, distributed, execute, query};
use testkit::process::{Service, logged, run, stderr, stdout};
use testkit::wait::eventually;

use crate::instances::{check, copies_count_once};

/// Adds a parameter to a URL.
fn with(url: &str, parameter: &str) -> String {
    format!("{url}{}{parameter}", if url.contains('?') { '&' } else { '?' })
}

#[test]
#[ignore = "needs a cluster, named by ROCKET_MONITOR_TEST_CITUS"]
fn a_batch_is_one_transaction_on_one_node() {
    let database = distributed();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let service =
        logged(&with(&database.url, "options=-c%20citus.log_remote_commands%3Don"), "debug", &log);
    let mut client = Client::new(service.address);
    let issued = |what: &str| {
        std::fs::read_to_string(&log).unwrap().matches(&format!("issuing {what}")).count()
    };
    let mut batch = |lines: &str| {
        let before = ["", "BEGIN", "COMMIT", "PREPARE TRANSACTION"].map(issued);
        assert_eq!(client.post_lines(lines.as_bytes()).status, 200);
        let after = ["", "BEGIN", "COMMIT", "PREPARE TRANSACTION"].map(issued);
        [0, 1, 2, 3].map(|kind| after[kind] - before[kind])
    };
    let lines = |from: u32| -> String {
        (from..from + 20).map(|number| faster("a channel", number, 1).to_string() + "\n").collect()
    };
    // Begin; insert or lock, load twice; write ranges; commit.
    let new = batch(&lines(1));
    assert!(new[0] <= 6 && new[1..] == [1, 1, 0], "{new:?}");
    // Begin; update; write ranges; commit.
    let known = batch(&lines(21));
    assert_eq!(known, [4, 1, 1, 0]);
    // A stream is divided by buckets, in one transaction each.
    let many: String =
        (0..80).map(|rocket| launched(&format!("r{rocket}"), 1).to_string() + "\n").collect();
    let divided = batch(&many);
    let buckets = query(&database.url, "SELECT bucket FROM rocket_buckets").len();
    assert_eq!(divided[1..], [buckets, buckets, 0]);
}

#[test]
#[ignore = "needs a cluster, named by ROCKET_MONITOR_TEST_CITUS"]
fn instances_may_use_any_node() {
    let database = distributed();
    copies_count_once(&database, &database.urls());
    // They hear of each other's changes, and know what another one removes.
    let services: Vec<Service> = database.urls().iter().map(Service::start).collect();
    let mut streams: Vec<Events> =
        services.iter().map(|service| Events::open(service.address, "?channel=r", None)).collect();
    streams.iter_mut().for_each(|stream| assert!(stream.snapshot().is_empty()));
    for (number, service) in (1..).zip(&services) {
        assert_eq!(Client::new(service.address).post(&faster("r", number, 1)).status, 204);
        for stream in &mut streams {
            stream.until("the change", |event| event.data["speed"] == number);
        }
    }
    for url in database.urls() {
        assert!(run(&["check", "--database", &url]).status.success());
    }
    assert!(run(&["forget", "r", "--database", database.urls().last().unwrap()]).status.success());
    for stream in &mut streams {
        stream.until("it is gone", |event| event.name == "gone");
    }
}

#[test]
#[ignore = "needs a cluster, named by ROCKET_MONITOR_TEST_CITUS"]
fn a_database_is_distributed_with_its_data_when_nobody_uses_it() {
    let database = TestDatabase::create_on_cluster();
    let distribute =
        || run(&["migrate", "--distribute", "--buckets", "4", "--database", &database.url]);
    let mut service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    for number in 1..=40 {
        assert_eq!(client.post(&launched(&format!("r{}", number % 13), number)).status, 204);
    }
    let before = query(&database.url, "SELECT * FROM rockets_exact");
    let refused = distribute();
    assert!(!refused.status.success() && stderr(&refused).contains("in use"), "{refused:?}");
    assert_eq!(
        client.post(&launched("r1", 1)).header("idempotent-replayed"),
        Some("true"),
        "it is as it was"
    );
    assert!(service.terminate().success());
    for said in [": distributed\n", ": distributed already\n"] {
        let done = distribute();
        assert!(done.status.success() && stdout(&done).contains(said), "{done:?}");
    }
    let without_bucket = |mut rows: Vec<serde_json::Value>| -> Vec<serde_json::Value> {
        rows.iter_mut().for_each(|row| drop(row.as_object_mut().unwrap().remove("bucket")));
        rows.sort_by_key(|row| row["channel"].to_string());
        rows
    };
    let after = query(&database.url, "SELECT * FROM rockets_exact");
    assert_eq!(without_bucket(after), without_bucket(before));
    assert_eq!(check(&database).0, Some(0));
    let service = Service::start(&database.url);
    let again = Client::new(service.address).post(&launched("r1", 1));
    assert_eq!((again.status, again.header("idempotent-replayed")), (204, Some("true")));
}

#[test]
#[ignore = "needs a cluster, named by ROCKET_MONITOR_TEST_CITUS"]
fn what_an_earlier_version_has_distributed_by_channel_is_redistributed() {
    let database = TestDatabase::create_on_cluster();
    execute(&database.url, include_str!("../../upgrade/postgres-v3.sql"));
    for table in ["rockets", "processed_ranges"] {
        execute(
            &database.url,
            &format!("SELECT create_distributed_table('public.{table}', 'channel')"),
        );
    }
    let done = run(&["migrate", "--distribute", "--database", &database.url]);
    assert!(done.status.success() && stdout(&done).contains(": distributed\n"), "{done:?}");
    assert_eq!(check(&database).0, Some(0));
    assert_eq!(query(&database.url, "SELECT count(*) AS n FROM rockets")[0]["n"], 7);
}

/// Stops the clients when it is dropped.
struct Stopping<'s>(&'s AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sends messages to services on all nodes while something happens to the cluster, each until it is
/// acknowledged. Then every message counts once.
fn under_load(database: &TestDatabase, happens: impl FnOnce(&AtomicU32)) {
    const CLIENTS: u32 = 6;
    let services: Vec<Service> = database.urls().iter().map(Service::start).collect();
    let (sent, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let last: Vec<u32> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (sent, stop) = (&sent, &stop);
                let address = services[client as usize % services.len()].address;
                scope.spawn(move || {
                    let mut connection = Client::new(address);
                    let mut number = 0;
                    while !stop.load(Ordering::SeqCst) {
                        number += 1;
                        // Each client has rockets in several buckets.
                        let message = faster(&format!("{client} {}", number % 5), number, 1);
                        eventually("it is taken", || connection.post(&message).status == 204);
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                    number
                })
            })
            .collect();
        // Also if something fails.
        let _stopping = Stopping(&stop);
        eventually("messages are taken", || sent.load(Ordering::SeqCst) > 100);
        happens(&sent);
        let before = sent.load(Ordering::SeqCst);
        eventually("more messages are taken", || sent.load(Ordering::SeqCst) > before + 200);
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(check(database).0, Some(0));
    for (client, last) in (0..CLIENTS).zip(last) {
        for rest in 0..5 {
            let count = (1..=last).filter(|number| number % 5 == rest).count();
            let mut reader = Client::new(services[0].address);
            let state = rocket(&mut reader, &format!("{client} {rest}"), "best-effort");
            assert_eq!(
                (&state["speed"], &state["messages"]["processed"]),
                (&json!(count), &json!(count))
            );
        }
    }
}

#[test]
#[ignore = "needs a cluster, named by ROCKET_MONITOR_TEST_CITUS"]
fn a_worker_may_go_and_come_back() {
    let database = distributed();
    let worker = database.servers.last().unwrap();
    let admin = |statements: &str| execute(&worker.maintenance_url(), statements);
    under_load(&database, |sent| {
        // As far as this database is concerned, the worker is down.
        admin(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", database.name));
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            database.name
        );
        admin(&end);
        let before = sent.load(Ordering::SeqCst);
        eventually("some messages are still taken", || sent.load(Ordering::SeqCst) > before);
        admin(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", database.name));
    });
}

#[test]
#[ignore = "needs a cluster, named by ROCKET_MONITOR_TEST_CITUS"]
fn a_shard_may_move_and_a_node_be_added() {
    // The last worker comes later.
    let database = distributed();
    let (host, port) = database.servers.last().unwrap().host_and_port();
    execute(&database.url, &format!("SELECT citus_drain_node('{host}', {port}, 'block_writes')"));
    let empty = format!(
        "SELECT count(*) AS n FROM citus_shards WHERE nodename = '{host}' AND nodeport = {port}
                         AND citus_table_type = 'distributed'"
    );
    assert_eq!(query(&database.url, &empty)[0]["n"], 0);
    execute(
        &database.url,
        &format!("SELECT citus_set_node_property('{host}', {port}, 'shouldhaveshards', true)"),
    );
    under_load(&database, |_| {
        let shard = "SELECT shardid, nodename, nodeport FROM citus_shards \
                     WHERE table_name = 'rockets'::regclass LIMIT 1";
        let shard = &query(&database.url, shard)[0];
        let from = format!(
            "{}, '{}', {}",
            shard["shardid"],
            shard["nodename"].as_str().unwrap(),
            shard["nodeport"]
        );
        let move_it =
            format!("SELECT citus_move_shard_placement({from}, '{host}', {port}, 'block_writes')");
        execute(&database.url, &move_it);
        assert_ne!(query(&database.url, &empty)[0]["n"], 0);
    });
}
