//! Opening a database: ours is migrated, anything else is refused and left unchanged.

use std::path::Path;

use serde_json::json;
use testkit::client::Client;
use testkit::message::faster;
use testkit::process::{Service, run, stderr, stdout};
use testkit::sqlite::{query, sql};

pub(super) fn at(database: &Path) -> [&str; 2] {
    ["--database", database.to_str().unwrap()]
}

fn refused(database: &Path, why: &str) {
    let before = std::fs::read(database).unwrap();
    for command in
        [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"], &["check"], &["forget", "r"]]
    {
        let output = run(&[command, &at(database)].concat());
        assert!(!output.status.success());
        assert!(stderr(&output).contains(why), "{command:?}: {}", stderr(&output));
    }
    assert!(before == std::fs::read(database).unwrap(), "it was touched");
    let siblings = std::fs::read_dir(database.parent().unwrap()).unwrap().count();
    assert_eq!(siblings, 1, "something was left beside it");
}

#[test]
fn what_is_not_ours_is_refused_and_left_untouched() {
    for (statements, why) in [
        ("CREATE TABLE notes (text)", "another program's database"),
        (
            "CREATE TABLE rockets (channel TEXT PRIMARY KEY, name TEXT)",
            "another program's database",
        ),
        (
            "CREATE TABLE rockets (name TEXT); \
             CREATE TABLE refinery_schema_history(version INTEGER, name TEXT, applied_on TEXT, \
             checksum TEXT); \
             INSERT INTO refinery_schema_history VALUES (1, 'x', '2022-02-02T00:00:00Z', '1')",
            "not the shape",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("rockets.db");
        sql(&database, statements);
        refused(&database, why);
    }
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    std::fs::write(&database, "no database at all, but long enough to be one. ".repeat(100))
        .unwrap();
    refused(&database, "not an SQLite database");
}

#[test]
fn a_newer_or_changed_schema_is_refused() {
    for (statements, why) in [
        (
            "UPDATE refinery_schema_history SET version = 999 WHERE version = 1",
            "use a newer program",
        ),
        ("ALTER TABLE rockets ADD COLUMN crew INTEGER", "rockets has the columns"),
        ("DROP VIEW gaps", "gaps is missing"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("rockets.db");
        assert!(run(&[&["migrate"][..], &at(&database)].concat()).status.success());
        sql(&database, statements);
        refused(&database, why);
    }
}

#[test]
fn an_empty_file_is_a_fresh_database_and_no_migrate_wants_one_that_is_ready() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--no-migrate"];
    assert!(stderr(&run(&[&serve[..], &at(&database)].concat())).contains("there is no such file"));
    assert!(!database.exists());
    // Empty, or as left by a first start that was interrupted between the history and the tables.
    std::fs::write(&database, "").unwrap();
    let history = "CREATE TABLE refinery_schema_history(version INT4 PRIMARY KEY, \
                   name VARCHAR(255), applied_on VARCHAR(255), checksum VARCHAR(255))";
    sql(&database, history);
    assert!(stderr(&run(&[&serve[..], &at(&database)].concat())).contains("not up to date"));
    for _ in 0..2 {
        let migrated = run(&[&["migrate"][..], &at(&database)].concat());
        assert!(stdout(&migrated).contains("schema version 7, up to date"), "{migrated:?}");
    }
    assert_eq!(query(&database, "PRAGMA journal_mode"), [[json!("wal")]]);
}

#[test]
fn many_may_start_on_one_empty_file() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let services: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..8).map(|_| scope.spawn(|| Service::start(&database))).collect();
        starting.into_iter().map(|service| service.join().unwrap()).collect()
    });
    for (number, service) in (1..).zip(&services) {
        let mut client = Client::new(service.address);
        assert_eq!(client.post(&faster("r", number, 1)).status, 204);
    }
    let mut client = Client::new(services[0].address);
    assert_eq!(client.get("/rockets/r").json()["speed"], 8);
}
