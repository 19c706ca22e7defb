//! A Postgres server that goes away, has no connections to spare, doesn't answer, or breaks off transactions: nothing
//! that was acknowledged is lost, and the service goes on by itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::events::Events;
use crate::postgres::{Cluster, Session, TestDatabase, execute, query};
use crate::support::{Client, Service, eventually, faster, run, stdout};

#[test]
fn a_server_that_is_killed_under_load_loses_nothing() {
    const MESSAGES: u32 = 6_000;
    let mut cluster = Cluster::start();
    let service = Service::start(cluster.url("postgres"));
    let (next, acknowledged) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::new(service.address);
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    if index >= MESSAGES {
                        return;
                    }
                    let message = faster(&format!("c{}", index % 10), index / 10 + 1, 1);
                    // Sent until it is taken: 503 says that this is safe.
                    eventually("it is taken", || {
                        let answer = client.post(&message);
                        if answer.status != 204 {
                            answer.problem(503);
                            assert!(answer.header("retry-after").is_some());
                        }
                        answer.status == 204
                    });
                    acknowledged.lock().unwrap().push(index);
                }
            });
        }
        for part in 1..=3 {
            let wanted = part * MESSAGES as usize / 5;
            eventually("enough are acknowledged", || acknowledged.lock().unwrap().len() >= wanted);
            cluster.kill();
            let mut client = Client::new(service.address);
            eventually("it is noticed", || client.get("/readyz").status == 503);
            assert_eq!(client.get("/livez").status, 200);
            client.get("/rockets/c1").problem(503);
            cluster.restart();
            eventually("it has recovered", || client.get("/readyz").status == 200);
        }
    });
    let metrics = Client::new(service.address).get("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    for operation in ["commit", "read"] {
        let none = format!("rocket_monitor_store_errors_total{{operation=\"{operation}\"}} 0\n");
        assert!(metrics.contains(none.trim_end_matches("0\n")) && !metrics.contains(&none), "{metrics}");
    }
    let state = query(&cluster.url("postgres"), "SELECT channel, speed, processed, complete_through FROM rockets");
    assert_eq!(state.len(), 10);
    for row in state {
        assert_eq!(
            (&row["speed"], &row["processed"], &row["complete_through"]),
            (&json!(600), &json!(600), &json!(600))
        );
    }
}

#[test]
fn event_streams_go_on_when_the_server_is_back() {
    let mut cluster = Cluster::start();
    let services = [(); 2].map(|()| Service::start(cluster.url("postgres")));
    let [mut one, mut other] = services.each_ref().map(|service| Client::new(service.address));
    assert_eq!(one.post(&faster("r", 1, 1)).status, 204);
    let mut stream = Events::open(services[0].address, "", None);
    assert_eq!(stream.snapshot(), ["r"]);
    for number in 2..5 {
        cluster.kill();
        eventually("it is noticed", || one.get("/readyz").status == 503);
        cluster.restart();
        // By the other instance, which the first one has to hear again, or look for what it missed.
        eventually("it is back", || other.post(&faster("r", number, 1)).status == 204);
        stream.until("the change", |event| event.data["speed"] == number);
    }
}

#[test]
fn without_a_connection_messages_are_to_come_later() {
    let cluster = Cluster::start_with("-c fsync=off -c max_connections=12");
    let url = cluster.url("postgres");
    let service = Service::start(&url);
    let mut client = Client::new(service.address);
    // All that are left, before the service has made one for writing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let taken: Vec<PgConnection> = runtime.block_on(async {
        let mut taken = Vec::new();
        while let Ok(connection) = PgConnection::connect(&url).await {
            taken.push(connection);
        }
        taken
    });
    assert!(!taken.is_empty());
    let refused = client.post(&faster("r", 1, 1));
    let problem = refused.problem(503);
    assert!(refused.header("retry-after").is_some());
    assert!(problem["detail"].as_str().unwrap().contains("too many clients"), "{problem}");
    client.get("/readyz").problem(503);
    assert_eq!(client.get("/livez").status, 200);
    drop(taken);
    eventually("it has a connection again", || client.post(&faster("r", 1, 1)).status == 204);
    assert_eq!(client.get("/readyz").status, 200);
}

/// Fails the first so many transactions that write ranges, counted by a sequence, which no rollback turns back.
fn serialization_failures(count: u32) -> String {
    format!(
        "CREATE SEQUENCE failures;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('failures') <= {count} THEN RAISE SQLSTATE '40001'; END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER failing AFTER INSERT ON processed_ranges FOR EACH STATEMENT EXECUTE FUNCTION fail();"
    )
}

#[test]
fn serialization_failures_are_tried_again_within_bounds() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&faster("r", 1, 1)).status, 204);
    execute(&database.url, &serialization_failures(7));
    // Five tries are too few, and the third of the next five succeeds.
    let given_up = client.post(&faster("r", 2, 1));
    assert!(given_up.problem(503)["detail"].as_str().unwrap().contains("40001"), "{given_up:?}");
    let taken = client.post(&faster("r", 2, 1));
    assert_eq!((taken.status, taken.header("idempotent-replayed")), (204, None));
    assert_eq!(query(&database.url, "SELECT speed FROM rockets"), [json!({ "speed": 2 })]);
    assert_eq!(query(&database.url, "SELECT last_value FROM failures"), [json!({ "last_value": 8 })]);
}

/// How many of the service's batches wait for somebody's lock.
fn waiting(database: &TestDatabase) -> usize {
    let sql = "SELECT 1 AS one FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    query(&database.url, sql).len()
}

#[test]
fn deadlocks_are_tried_again() {
    let database = TestDatabase::create();
    // Who has waited for so long looks for deadlocks: the program, but not the session below.
    execute(&database.url, &format!("ALTER DATABASE {} SET deadlock_timeout = '2s'", database.name));
    let directory = tempfile::tempdir().unwrap();
    let ingest = |number: u32| {
        let file = directory.path().join(number.to_string());
        let lines = (0..40).map(|rocket| faster(&format!("c{rocket:02}"), number, 1).to_string() + "\n");
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        let ingested = run(&["ingest", file.to_str().unwrap(), "--database", &database.url]);
        assert!(stdout(&ingested).contains("40 applied"), "{ingested:?}");
    };
    ingest(1);
    // Somebody locks the rows in another order: the upper half, which the batch comes to last, and then the lower one.
    let mut other = Session::open(&database.url);
    other.execute("SET deadlock_timeout = '1min'; BEGIN; UPDATE rockets SET speed = speed WHERE channel >= 'c20'");
    std::thread::scope(|scope| {
        let ingesting = scope.spawn(|| ingest(2));
        eventually("the batch waits", || waiting(&database) == 1);
        other.execute("UPDATE rockets SET speed = speed WHERE channel < 'c20'; COMMIT");
        ingesting.join().unwrap();
    });
    eventually("the deadlock is counted", || {
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        query(&database.url, deadlocks)[0]["deadlocks"] == 1
    });
    assert_eq!(query(&database.url, "SELECT 1 AS one FROM rockets WHERE speed = 2").len(), 40);
}

#[test]
fn a_store_that_does_not_answer_delays_the_end_for_less_than_ten_seconds() {
    let database = TestDatabase::create();
    let mut service = Service::start(&database.url);
    let address = service.address;
    assert_eq!(Client::new(address).post(&faster("r", 1, 1)).status, 204);
    let mut other = Session::open(&database.url);
    other.execute("BEGIN; UPDATE rockets SET speed = speed");
    std::thread::scope(|scope| {
        let clients: Vec<_> = (2..10)
            .map(|number| scope.spawn(move || Client::new(address).post(&faster("r", number, 1)).status))
            .collect();
        eventually("a batch waits", || waiting(&database) > 0);
        // A request that has not been read yet is not taken, and may be cut off.
        let bytes: usize = (2..10).map(|number| faster("r", number, 1).to_string().len()).sum();
        let taken = format!("rocket_monitor_queue_bytes {bytes}\n");
        let mut watching = Client::new(address);
        eventually("all are taken", || String::from_utf8(watching.get("/metrics").body).unwrap().contains(&taken));
        let asked = Instant::now();
        assert!(service.terminate().success());
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        for client in clients {
            assert_eq!(client.join().unwrap(), 503, "they are told, though the store never answered");
        }
    });
    other.execute("COMMIT");
    assert_eq!(query(&database.url, "SELECT processed FROM rockets"), [json!({ "processed": 1 })]);
}
