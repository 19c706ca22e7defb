//! What only Postgres offers: several instances on one database, and analysts next to them.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use testkit::client::{Answer, Client, rocket};
use testkit::message::{faster, launched};
use testkit::postgres::{TestDatabase, divided, execute, query};
use testkit::process::{Service, run, stderr, stdout};
use testkit::wait::eventually;

use super::{check, copies_count_once};

fn refused(database: &TestDatabase, why: &str) {
    for command in
        [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"], &["check"], &["forget", "r"]]
    {
        let output = run(&[command, &["--database", &database.url]].concat());
        assert!(!output.status.success());
        assert!(stderr(&output).contains(why), "{command:?}: {}", stderr(&output));
    }
}

#[test]
fn copies_sent_to_several_instances_count_once() {
    let database = TestDatabase::create();
    copies_count_once(&database, &[database.url.clone(), database.url.clone()]);
}

#[test]
fn they_count_once_too_where_the_fleet_is_divided_as_in_a_cluster() {
    let database = divided();
    copies_count_once(&database, &[database.url.clone(), database.url.clone()]);
}

#[test]
fn files_and_simulated_fleets_are_taken_and_agree() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    let url = format!("http://{}", service.address);
    let launched_fleet =
        run(&["launch", &url, "--verify", "--rockets", "20", "--messages", "2000"]);
    assert!(
        stdout(&launched_fleet).contains("20 rockets in both views: 0 disagree"),
        "{launched_fleet:?}"
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("messages.ndjson");
    let lines: String = (1..=3_000)
        .map(|number| faster(&format!("f{}", number % 7), number, 1).to_string() + "\n")
        .collect();
    std::fs::write(&file, lines).unwrap();
    for expected in ["3000 applied, 0 duplicates", "0 applied, 3000 duplicates"] {
        let ingested = run(&["ingest", file.to_str().unwrap(), "--database", &database.url]);
        assert!(ingested.status.success() && stdout(&ingested).contains(expected), "{ingested:?}");
    }
    // Others may write while the audit reads its snapshot.
    assert_eq!(check(&database).0, Some(0));
}

#[test]
fn twenty_may_start_at_once_on_an_empty_database() {
    let database = TestDatabase::create();
    let services: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> =
            (0..20).map(|_| scope.spawn(|| Service::start(&database.url))).collect();
        starting.into_iter().map(|service| service.join().unwrap()).collect()
    });
    for (number, service) in (1..).zip(&services) {
        assert_eq!(Client::new(service.address).post(&faster("r", number, 1)).status, 204);
    }
    assert_eq!(Client::new(services[7].address).get("/rockets/r").json()["speed"], 20);
}

#[test]
fn what_others_change_between_batches_is_noticed() {
    let database = TestDatabase::create();
    let services = [Service::start(&database.url), Service::start(&database.url)];
    let [mut one, mut other] = services.each_ref().map(|service| Client::new(service.address));
    let is_new = |answer: Answer| {
        assert_eq!(answer.status, 204, "{answer:?}");
        answer.header("idempotent-replayed").is_none()
    };
    // Each instance has the rocket cached from its last batch, and the other one has changed it
    // since.
    for number in (1..40).step_by(2) {
        assert!(is_new(one.post(&faster("r", number, 1))));
        assert!(is_new(other.post(&faster("r", number + 1, 1))));
        assert!(!is_new(one.post(&faster("r", number + 1, 1))));
        assert!(!is_new(other.post(&faster("r", number, 1))));
    }
    let expected = json!({
        "processed": 40, "completeThrough": 40, "highest": 40, "missing": 0, "exactThrough": 40,
        "lost": 0, "gaps": [],
    });
    assert_eq!(rocket(&mut one, "r", "exact")["messages"], expected);
    // Copies of a removed rocket's messages count again, with or without new ones.
    for numbers in [&[1, 2, 3][..], &[3, 4], &[40], &[41, 42]] {
        for number in 1..=40 {
            one.post(&faster("r", number, 1));
        }
        assert!(run(&["forget", "r", "--database", &database.url]).status.success());
        for &number in numbers {
            assert!(is_new(one.post(&faster("r", number, 1))), "{number} of {numbers:?}");
        }
        assert_eq!(rocket(&mut other, "r", "best-effort")["speed"], numbers.len());
        assert_eq!(check(&database).0, Some(0));
    }
}

#[test]
fn what_others_change_below_the_end_of_a_channel_is_noticed() {
    let database = TestDatabase::create();
    let services = [Service::start(&database.url), Service::start(&database.url)];
    let [mut one, mut other] = services.each_ref().map(|service| Client::new(service.address));
    for number in [1, 20] {
        assert_eq!(one.post(&faster("r", number, 1)).status, 204);
    }
    assert_eq!(other.post(&faster("r", 5, 1)).status, 204);
    // It must load now, and gets only the ranges near 10.
    assert_eq!(one.post(&faster("r", 10, 1)).status, 204);
    for _ in 0..10 {
        assert_eq!(one.post(&faster("r", 5, 1)).header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(rocket(&mut one, "r", "best-effort")["speed"], 4);
    assert_eq!(check(&database).0, Some(0));
}

#[test]
fn an_audit_sees_one_moment_while_others_write() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (done, address) = (&done, service.address);
            scope.spawn(move || {
                let mut poster = Client::new(address);
                for number in (4..).take_while(|_| done.load(Ordering::SeqCst) == 0) {
                    // Gaps open and close all the time.
                    let number = number ^ 3;
                    assert_eq!(
                        poster
                            .post(&faster(&format!("c{}", client * 5 + number % 5), number, 1))
                            .status,
                        204
                    );
                }
            });
        }
        eventually("there are ranges", || {
            query(&database.url, "SELECT 1 FROM processed_ranges").len() >= 20
        });
        let found: Vec<_> = (0..5).map(|_| check(&database)).collect();
        done.store(1, Ordering::SeqCst);
        for (status, said) in found {
            assert_eq!(status, Some(0), "{said}");
        }
    });
}

#[test]
fn what_is_not_ours_is_refused() {
    for statements in ["CREATE TABLE rockets (name text)", "CREATE VIEW gaps AS SELECT 1 AS one"] {
        let database = TestDatabase::create();
        execute(&database.url, statements);
        refused(&database, "");
        let migrated = run(&["migrate", "--database", &database.url]);
        assert!(stderr(&migrated).contains("did not create"), "{}", stderr(&migrated));
        assert!(
            query(
                &database.url,
                "SELECT 1 AS one FROM pg_tables WHERE tablename LIKE 'processed%'"
            )
            .is_empty()
        );
    }
    for (statements, why) in [
        (
            "UPDATE rocket_monitor_schema_history SET version = 999 WHERE version = 1",
            "use a newer program",
        ),
        ("ALTER TABLE rockets ADD COLUMN crew integer", "rockets has the columns"),
        ("DROP VIEW gaps", "gaps is missing"),
    ] {
        let database = TestDatabase::create();
        assert!(run(&["migrate", "--database", &database.url]).status.success());
        execute(&database.url, statements);
        refused(&database, why);
    }
    let ascii = TestDatabase::create_with("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'");
    refused(&ascii, "its encoding is SQL_ASCII");
    let empty = TestDatabase::create();
    let unprepared =
        run(&["serve", "--no-migrate", "--listen", "127.0.0.1:0", "--database", &empty.url]);
    assert!(stderr(&unprepared).contains("it has no schema"), "{}", stderr(&unprepared));
}

#[test]
fn other_programs_tables_may_be_beside_ours() {
    let database = TestDatabase::create();
    execute(
        &database.url,
        "CREATE TABLE refinery_schema_history (version int); CREATE TABLE notes (text text)",
    );
    let migrated = run(&["migrate", "--database", &database.url]);
    assert!(stdout(&migrated).contains("schema version 6, up to date"), "{migrated:?}");
    let alone = run(&["migrate", "--distribute", "--database", &database.url]);
    assert!(
        !alone.status.success() && stderr(&alone).contains("CREATE EXTENSION citus"),
        "{}",
        stderr(&alone)
    );
}

#[test]
fn tables_and_views_say_the_same_as_on_sqlite() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    for message in [
        launched("a", 1),
        faster("a", 4, 1),
        faster("c", 3, 7),
        faster("d", 1, 8),
        faster("e", 1, 8),
    ] {
        assert_eq!(client.post(&message).status, 204);
    }
    let rows = |sql: &str| query(&database.url, sql);
    assert_eq!(
        rows(
            "SELECT channel, first_missing, last_missing, after_time IS NULL AS start FROM gaps \
             ORDER BY 1, 2"
        ),
        [
            json!({ "channel": "a", "first_missing": 2, "last_missing": 3, "start": false }),
            json!({ "channel": "c", "first_missing": 1, "last_missing": 2, "start": true }),
        ]
    );
    let unknown = json!({
        "mission": null, "rockets": 3, "launched": 0, "exploded": 0,
        "mean_speed": 7.667, "max_speed": 8,
    });
    assert_eq!(rows("SELECT * FROM report_missions WHERE mission IS NULL"), [unknown]);
    assert_eq!(
        rows(
            "SELECT rockets, awaiting_launch, launched, processed, missing, rockets_with_gaps \
             FROM report_fleet"
        ),
        [json!({
            "rockets": 4, "awaiting_launch": 3, "launched": 1,
            "processed": 5, "missing": 4, "rockets_with_gaps": 2,
        })]
    );
    assert_eq!(
        rows("SELECT status, speed, latest_update FROM rockets_exact WHERE channel = 'c'"),
        [json!({ "status": "awaitingLaunch", "speed": 0, "latest_update": Value::Null })]
    );
    assert!(rows("SELECT * FROM report_explosions").is_empty());
    assert_eq!(
        rows("SELECT type FROM report_types ORDER BY type")[0],
        json!({ "type": "Falcon-9" })
    );
}

#[test]
fn the_queries_of_the_guide_to_sql_run() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    for message in [launched("a", 1), faster("a", 4, 1), launched("b", 1), faster("c", 3, 7)] {
        assert_eq!(client.post(&message).status, 204);
    }
    execute(
        &database.url,
        "UPDATE rockets SET last_received = '2022-02-02T00:00:00Z' WHERE channel = 'c'",
    );
    let guide = include_str!("../../../docs/sql.md");
    let blocks: Vec<&str> =
        guide.split("```sql").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [on_both, roles, on_postgres] = blocks[..] else { panic!("{blocks:?}") };
    assert!(roles.contains("CREATE ROLE"));
    let queries = on_both
        .split(';')
        .filter(|query| !query.contains("julianday"))
        .chain(on_postgres.split(';'));
    let answers: Vec<usize> = queries
        .filter(|statement| !statement.trim().is_empty())
        .map(|statement| query(&database.url, statement).len())
        .collect();
    // The fleet; one mission; the two that fly; the two that lag; the one that is silent.
    assert_eq!(answers, [1, 1, 2, 2, 1]);
}
