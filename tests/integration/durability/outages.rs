//! A Postgres server that goes away, has no connections to spare, doesn't respond, or aborts
//! transactions: nothing acknowledged is lost, and the service recovers by itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Connection, PgConnection};
use testkit::client::Client;
use testkit::events::Events;
use testkit::message::{faster, launched};
use testkit::postgres::{Cluster, Session, TestDatabase, execute, query};
use testkit::process::{Service, logged, program, run, stderr, stdout};
use testkit::wait::eventually;

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
                    // Sent until it is accepted: after a 503 that is safe.
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
        assert!(
            metrics.contains(none.trim_end_matches("0\n")) && !metrics.contains(&none),
            "{metrics}"
        );
    }
    let state = query(
        &cluster.url("postgres"),
        "SELECT channel, speed, processed, complete_through FROM rockets",
    );
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
        // From the other instance: the first one must receive its notification again, or scan for
        // what it missed.
        eventually("it is back", || other.post(&faster("r", number, 1)).status == 204);
        stream.until("the change", |event| event.data["speed"] == number);
    }
}

#[test]
fn without_a_connection_messages_are_to_come_later() {
    let cluster = Cluster::start_with("-c fsync=off -c max_connections=12");
    let url = cluster.url("postgres");
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let service = logged(&url, "info", &log);
    let mut client = Client::new(service.address);
    // All that are left, before the service opens one for writing.
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
    refused.problem(503);
    assert!(refused.header("retry-after").is_some());
    assert!(reason(&log).contains("too many clients"), "{}", reason(&log));
    client.get("/readyz").problem(503);
    assert_eq!(client.get("/livez").status, 200);
    drop(taken);
    eventually("it has a connection again", || client.post(&faster("r", 1, 1)).status == 204);
    assert_eq!(client.get("/readyz").status, 200);
}

/// Makes the first `count` transactions that write ranges fail. A sequence counts them, because
/// rollbacks don't reset it.
fn serialization_failures(count: u32) -> String {
    format!(
        "CREATE SEQUENCE failures;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('failures') <= {count} THEN RAISE SQLSTATE '40001'; END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER failing AFTER INSERT ON processed_ranges FOR EACH STATEMENT
             EXECUTE FUNCTION fail();"
    )
}

#[test]
fn serialization_failures_are_tried_again_within_bounds() {
    let database = TestDatabase::create();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let service = logged(&database.url, "info", &log);
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&faster("r", 1, 1)).status, 204);
    execute(&database.url, &serialization_failures(7));
    // Five attempts are too few, and the third of the next five succeeds.
    let given_up = client.post(&faster("r", 2, 1));
    assert!(!given_up.problem(503)["detail"].as_str().unwrap().contains("40001"), "{given_up:?}");
    assert!(
        reason(&log).contains("40001") && !reason(&log).contains(" at line "),
        "{}",
        reason(&log)
    );
    let taken = client.post(&faster("r", 2, 1));
    assert_eq!((taken.status, taken.header("idempotent-replayed")), (204, None));
    assert_eq!(query(&database.url, "SELECT speed FROM rockets"), [json!({ "speed": 2 })]);
    assert_eq!(
        query(&database.url, "SELECT last_value FROM failures"),
        [json!({ "last_value": 8 })]
    );
}

/// How many of the service's batches wait for a lock.
fn waiting(database: &TestDatabase) -> usize {
    let sql = "SELECT 1 AS one FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
               AND datname = current_database()";
    query(&database.url, sql).len()
}

#[test]
fn deadlocks_are_tried_again() {
    let database = TestDatabase::create();
    // The session that waits this long checks for deadlocks: the program's, not the one below.
    execute(
        &database.url,
        &format!("ALTER DATABASE {} SET deadlock_timeout = '2s'", database.name),
    );
    let directory = tempfile::tempdir().unwrap();
    let ingest = |number: u32| {
        let file = directory.path().join(number.to_string());
        let lines =
            (0..40).map(|rocket| faster(&format!("c{rocket:02}"), number, 1).to_string() + "\n");
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        let ingested = run(&["ingest", file.to_str().unwrap(), "--database", &database.url]);
        assert!(stdout(&ingested).contains("40 applied"), "{ingested:?}");
    };
    ingest(1);
    // Another session locks the rows in a different order: first the upper half, which the batch
    // reaches last, and then the lower half.
    let mut other = Session::open(&database.url);
    other.execute(
        "SET deadlock_timeout = '1min'; BEGIN; UPDATE rockets SET speed = speed \
         WHERE channel >= 'c20'",
    );
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
            .map(|number| {
                scope.spawn(move || Client::new(address).post(&faster("r", number, 1)).status)
            })
            .collect();
        eventually("a batch waits", || waiting(&database) > 0);
        // A request that has not been read yet is not accepted, and may be cut off.
        let bytes: usize = (2..10).map(|number| faster("r", number, 1).to_string().len()).sum();
        let taken = format!("rocket_monitor_queue_bytes {bytes}\n");
        let mut watching = Client::new(address);
        eventually("all are taken", || {
            String::from_utf8(watching.get("/metrics").body).unwrap().contains(&taken)
        });
        let asked = Instant::now();
        assert!(service.terminate().success());
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        for client in clients {
            assert_eq!(
                client.join().unwrap(),
                503,
                "they get an error although the store never answered"
            );
        }
    });
    other.execute("COMMIT");
    assert_eq!(query(&database.url, "SELECT processed FROM rockets"), [json!({ "processed": 1 })]);
}

/// The most connections of a service: those for reads, one for writes, one that listens.
const MOST_CONNECTIONS: usize = 8 + 1 + 1;

/// A session of the test, which counts the others in the database.
fn others(session: &mut Session) -> usize {
    session.count(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )
}

#[test]
fn who_waits_for_a_locked_table_holds_no_more_connections_than_else() {
    let database = TestDatabase::create();
    let service = Service::start(format!("{}&statement_timeout=1&acquire_timeout=1", database.url));
    assert_eq!(Client::new(service.address).post(&faster("r", 1, 1)).status, 204);
    let stream = Events::open(service.address, "", None);
    let mut lock = Session::open(&database.url);
    lock.execute("BEGIN; LOCK TABLE rockets, processed_ranges");
    let mut watching = Session::open(&database.url);
    let (stop, refused) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for client in 0..24 {
            let (stop, refused, address) = (&stop, &refused, service.address);
            scope.spawn(move || {
                let mut connection = Client::new(address);
                for number in 2.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer = match client % 3 {
                        0 => connection.post(&faster(&format!("c{client}"), number, 1)),
                        1 => connection.get("/rockets/r"),
                        _ => connection.get("/rockets"),
                    };
                    answer.problem(503);
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut most = 0;
        // Many times as long as one of them waits.
        eventually("they have timed out often enough", || {
            most = most.max(others(&mut watching));
            refused.load(Ordering::SeqCst) >= 200
        });
        stop.store(true, Ordering::SeqCst);
        // Plus the one that holds the lock, and one that is closing while another one opens.
        assert!(most <= MOST_CONNECTIONS + 2, "{most}");
        drop(Session::open(&database.url));
    });
    drop(stream);
    lock.execute("COMMIT");
    let mut client = Client::new(service.address);
    eventually("it goes on", || client.post(&faster("r", 2, 1)).status == 204);
    assert_eq!(client.get("/rockets/r").json()["speed"], 2);
    // What was abandoned was not done afterwards.
    assert_eq!(query(&database.url, "SELECT channel FROM rockets"), [json!({ "channel": "r" })]);
}

/// Closes all other sessions of the database, also one that is opened in the meantime to notify
/// other instances.
fn close_others(watching: &mut Session) {
    eventually("they are closed", || {
        watching.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        others(watching) == 0
    });
}

#[test]
fn the_first_message_after_the_server_closed_the_connections_is_taken() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    let mut watching = Session::open(&database.url);
    for number in 1..=5 {
        let answer = client.post(&faster("r", number, 1));
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (204, None), "{number}");
        let rocket = client.get("/rockets/r");
        assert_eq!((rocket.status, &rocket.json()["speed"]), (200, &json!(number)), "{number}");
        assert!(others(&mut watching) >= 2);
        close_others(&mut watching);
    }
    // Also by itself, after a while.
    execute(
        &database.url,
        &format!("ALTER DATABASE {} SET idle_session_timeout = '1s'", database.name),
    );
    // A session that was opened before that has no timeout.
    close_others(&mut watching);
    for number in 6..=8 {
        assert_eq!(client.post(&faster("r", number, 1)).status, 204, "{number}");
        assert_eq!(client.get("/rockets/r").json()["speed"], number);
        eventually("they are closed", || others(&mut watching) == 0);
    }
}

/// A firewall between a service and its server, which does what firewalls do to idle connections:
/// it drops them, and notifies nobody.
struct Firewall {
    port: u16,
    /// How often it has dropped all connections.
    forgotten: Arc<AtomicU32>,
}

impl Firewall {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, forgotten) =
            (listener.local_addr().unwrap().port(), Arc::<AtomicU32>::default());
        let all = Arc::clone(&forgotten);
        std::thread::spawn(move || {
            for inside in listener.incoming() {
                let (inside, outside) =
                    (inside.unwrap(), TcpStream::connect(("127.0.0.1", server)).unwrap());
                for (from, to) in [(&inside, &outside), (&outside, &inside)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (all, age) = (Arc::clone(&all), all.load(Ordering::SeqCst));
                    std::thread::spawn(move || {
                        Self::pass(from, to, || all.load(Ordering::SeqCst) == age)
                    });
                }
            }
        });
        Self { port, forgotten }
    }

    fn pass(mut from: TcpStream, mut to: TcpStream, passes: impl Fn() -> bool) {
        let mut buffer = [0; 8_192];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if passes() && to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        if passes() {
            let _ = to.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn the_first_message_after_a_firewall_dropped_the_connections_is_taken() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _cluster =
        Cluster::start_with(&format!("-c fsync=off -c listen_addresses=127.0.0.1 -c port={port}"));
    let firewall = Firewall::start(port);
    let service =
        Service::start(format!("postgres://postgres@127.0.0.1:{}/postgres", firewall.port));
    let mut client = Client::new(service.address);
    for number in 1..=3 {
        let answer = client.post(&faster("r", number, 1));
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (204, None), "{number}");
        assert_eq!(client.get("/rockets/r").json()["speed"], number);
        let used = Instant::now();
        eventually("they have been idle", || used.elapsed() > Duration::from_millis(1_500));
        firewall.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}

/// The arguments for a database with another schema.
fn in_schema(database: &TestDatabase, schema: &str) -> String {
    format!("{}&options=-csearch_path%3D{schema}", database.url)
}

#[test]
fn starting_waits_for_a_lock_within_bounds_and_not_for_another_schema() {
    let database = TestDatabase::create();
    execute(&database.url, "CREATE SCHEMA a; CREATE SCHEMA b");
    let migrate = |schema: &str| run(&["migrate", "--database", &in_schema(&database, schema)]);
    assert!(migrate("a").status.success());
    let mut lock = Session::open(&database.url);
    lock.execute("BEGIN; LOCK TABLE a.rocket_monitor_schema_history");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| migrate("a"));
        eventually("it waits", || self::waiting(&database) == 1);
        let other = migrate("b");
        assert!(other.status.success(), "{}", stderr(&other));
        assert_eq!(self::waiting(&database), 1, "the first one waits still");
        let ended = waiting.join().unwrap();
        assert_eq!(ended.status.code(), Some(1));
        let said = stderr(&ended);
        assert!(!said.contains(" at line "), "{said}");
        assert!(
            said.contains("another session has held a lock for too long") && said.contains("55P03"),
            "{said}"
        );
    });
    lock.execute("COMMIT");
    assert!(migrate("a").status.success());
    let nowhere = migrate("nowhere");
    assert!(stderr(&nowhere).contains("CREATE SCHEMA"), "{}", stderr(&nowhere));
}

#[test]
fn commits_that_never_end_use_no_more_connections_with_each_try() {
    let cluster = Cluster::start_with("-c fsync=off");
    let url = cluster.url("postgres");
    let service = Service::start(format!("{url}&statement_timeout=1&application_name=monitor"));
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&faster("r", 1, 1)).status, 204);
    // Every commit waits for a standby that there is not, and no timeout of the server's ends that.
    let standby = |names: &str| {
        execute(&url, &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        execute(&url, "SELECT pg_reload_conf()");
    };
    standby("nobody");
    let waiting = || {
        let sql = "SELECT count(*) AS waiting FROM pg_stat_activity
                   WHERE application_name = 'monitor' AND wait_event = 'SyncRep'";
        query(&url, sql)[0]["waiting"].as_u64().unwrap()
    };
    // Of rockets of their own, or they would wait for one another's locks.
    let mut early = 0;
    eventually("the setting is in force", || {
        early += 1;
        client.post(&faster(&format!("early{early}"), 1, 1)).status == 503
    });
    let channels: Vec<String> = (0..6).map(|rocket| format!("r{rocket}")).collect();
    for channel in &channels {
        client.post(&faster(channel, 1, 1)).problem(503);
        assert!(waiting() <= 2, "one for each committer at most");
    }
    standby("");
    eventually("messages are taken again", || client.post(&faster("r", 2, 1)).status == 204);
    for channel in &channels {
        assert_eq!(client.post(&faster(channel, 1, 1)).status, 204);
        let rocket = client.get(&format!("/rockets/{channel}")).json();
        assert_eq!((&rocket["speed"], &rocket["messages"]["processed"]), (&json!(1), &json!(1)));
    }
}

#[test]
fn starting_waits_for_an_instance_that_migrates_longer_than_for_other_locks() {
    let database = TestDatabase::create();
    let mut migrating = Session::open(&database.url);
    // The lock that each instance takes: the bytes of a word, and the schema.
    let key = i64::from_be_bytes(*b"rockets!");
    migrating.execute(&format!(
        "SELECT pg_advisory_lock({key} + (SELECT oid FROM pg_namespace \
         WHERE nspname = current_schema())::bigint)"
    ));
    let started = Instant::now();
    let mut command = program(&["migrate", "--database", &database.url]);
    let mut waiting = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it waits for longer than for locks of tables", || {
        assert!(waiting.try_wait().unwrap().is_none(), "it ended after {:?}", started.elapsed());
        started.elapsed() > Duration::from_secs(12)
    });
    migrating.execute("SELECT pg_advisory_unlock_all()");
    let ended = waiting.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn reads_go_only_to_servers_that_the_url_asks_for() {
    let database = TestDatabase::create();
    let service = Service::start(format!("{}&target_session_attrs=read-write", database.url));
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    assert_eq!(client.get("/rockets/r").status, 200);
    let name = query(&database.url, "SELECT current_database()::text AS name")[0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    // A session that may still write.
    let mut admin = Session::open(&database.url);
    let mut read_only = |on: &str| {
        admin.execute(&format!(
            "ALTER DATABASE \"{name}\" SET default_transaction_read_only = {on}"
        ));
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
    };
    read_only("on");
    client.get("/rockets/r").problem(503);
    read_only("off");
    eventually("it reads again", || client.get("/rockets/r").status == 200);
}

#[test]
fn fleets_in_two_schemas_hear_nothing_of_each_other() {
    let database = TestDatabase::create();
    execute(&database.url, "CREATE SCHEMA a; CREATE SCHEMA b");
    let [a, b, other_b] =
        ["a", "b", "b"].map(|schema| Service::start(in_schema(&database, schema)));
    let [mut at_a, mut at_b] = [&a, &b].map(|service| Client::new(service.address));
    assert_eq!(at_a.post(&launched("r", 1)).status, 204);
    let [mut from_a, mut from_b] =
        [&a, &other_b].map(|service| Events::open(service.address, "", None));
    assert_eq!(from_a.snapshot(), ["r"]);
    assert!(from_b.snapshot().is_empty());
    for number in 1..=3 {
        assert_eq!(at_b.post(&faster("s", number, 1)).status, 204);
        from_b.until("the change by the other instance", |event| event.data["speed"] == number);
        assert_eq!(at_a.post(&faster("r", number + 1, 1)).status, 204);
        from_a.until("our own", |event| {
            assert_eq!((event.name.as_str(), &event.data["channel"]), ("rocket", &json!("r")));
            event.data["speed"] == 500 + number
        });
    }
}

/// How often a log has this message at this level.
fn said(log: &Path, level: &str, message: &str) -> usize {
    let log = std::fs::read_to_string(log).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["level"] == level && line["message"] == message).count()
}

/// The reason of the last failed request, from a log.
fn reason(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap();
    let mut lines =
        log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let failed = lines.rfind(|line| line["message"] == "request failed");
    failed.expect("a request failed")["reason"].as_str().unwrap().to_owned()
}

#[test]
fn an_outage_is_one_warning_however_long_it_lasts() {
    let mut cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let service = logged(&cluster.url("postgres"), "debug", &log);
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&faster("r", 1, 1)).status, 204);
    let mut stream = Events::open(service.address, "", None);
    assert_eq!(stream.snapshot(), ["r"]);
    cluster.kill();
    eventually("it is tried again and again", || {
        said(&log, "DEBUG", "changes still can't be read") >= 3
    });
    cluster.restart();
    eventually("it is back", || client.post(&faster("r", 2, 1)).status == 204);
    stream.until("the change", |event| event.data["speed"] == 2);
    eventually("it says so", || said(&log, "INFO", "changes can be read again") == 1);
    assert_eq!(said(&log, "WARN", "changes can't be read; event streams are unavailable"), 1);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains(" at line "), "{text}");
}

#[test]
fn who_is_ready_can_store_a_message_and_who_is_not_can_not() {
    let cluster = Cluster::start();
    let admin = cluster.url("postgres");
    assert!(run(&["migrate", "--database", &admin]).status.success());
    execute(
        &admin,
        "CREATE ROLE writer LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO writer",
    );
    let service = Service::start(admin.replacen("postgres@", "writer@", 1));
    let mut client = Client::new(service.address);
    let mut number = 0;
    let mut is_as_ready_as = |status: u16| {
        eventually("it is as ready as it takes messages", || {
            number += 1;
            let (taken, ready) =
                (client.post(&faster("r", number, 1)).status, client.get("/readyz").status);
            taken == status && ready == if status == 204 { 200 } else { 503 }
        });
    };
    is_as_ready_as(503);
    execute(&admin, "GRANT ALL ON ALL TABLES IN SCHEMA public TO writer");
    is_as_ready_as(204);
    for statement in
        ["REVOKE INSERT ON rockets FROM writer", "REVOKE UPDATE ON processed_ranges FROM writer"]
    {
        execute(&admin, statement);
        is_as_ready_as(503);
        execute(&admin, "GRANT ALL ON ALL TABLES IN SCHEMA public TO writer");
        is_as_ready_as(204);
    }
    execute(&admin, "ALTER TABLE rockets RENAME TO elsewhere");
    is_as_ready_as(503);
    execute(&admin, "ALTER TABLE elsewhere RENAME TO rockets");
    is_as_ready_as(204);
    // Each of our transactions declares that it writes.
    execute(&admin, "ALTER ROLE writer SET default_transaction_read_only = on");
    let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'";
    execute(&admin, ends);
    is_as_ready_as(204);
}
