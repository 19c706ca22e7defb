//! Opening a database: ours is migrated, anything else is refused and left unchanged. And the audit
//! finds every kind of damage.

use std::path::Path;

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::message::{faster, launched};
use testkit::process::{Service, run, stderr, stdout};
use testkit::sqlite::{query, sql};

fn at(database: &Path) -> [&str; 2] {
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
            "CREATE TABLE rockets (name TEXT); CREATE TABLE refinery_schema_history(version INTEGER, name TEXT, applied_on TEXT, \
          checksum TEXT); INSERT INTO refinery_schema_history VALUES (1, 'x', '2022-02-02T00:00:00Z', '1')",
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
    let history = "CREATE TABLE refinery_schema_history(version INT4 PRIMARY KEY, name VARCHAR(255), \
                   applied_on VARCHAR(255), checksum VARCHAR(255))";
    sql(&database, history);
    assert!(stderr(&run(&[&serve[..], &at(&database)].concat())).contains("not up to date"));
    for _ in 0..2 {
        let migrated = run(&[&["migrate"][..], &at(&database)].concat());
        assert!(stdout(&migrated).contains("schema version 5, up to date"), "{migrated:?}");
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

#[test]
fn check_finds_each_kind_of_damage() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    for message in
        [launched("r", 1), faster("r", 2, 5), faster("r", 5, 1), launched("s", 1), launched("t", 2)]
    {
        assert_eq!(client.post(&message).status, 204);
    }
    let sound = app.directory.path().join("sound.db");
    sql(&app.database(), &format!("VACUUM INTO '{}'", sound.display()));
    let clean = run(&[&["check"][..], &at(&sound)].concat());
    assert_eq!(
        (clean.status.code(), stdout(&clean)),
        (Some(0), "3 channels with 4 processed ranges checked: 0 problems\n".into())
    );
    for (damage, channel, told) in [
        ("UPDATE rockets SET speed = speed + 1 WHERE channel = 'r'", "r", "speed is 507"),
        ("UPDATE rockets SET type = 'X' WHERE channel = 's'", "s", "type is \"X\""),
        ("UPDATE rockets SET mission = NULL WHERE channel = 's'", "s", "mission is null"),
        (
            "UPDATE rockets SET latest_exploded_msg = 1 WHERE channel = 's'",
            "s",
            "latest_exploded_msg is 1",
        ),
        ("UPDATE rockets SET exploded_reason = 'X' WHERE channel = 's'", "s", "exploded_reason"),
        (
            "UPDATE rockets SET latest_launch_msg = 2 WHERE channel = 's'",
            "s",
            "latest_launch_msg is 2",
        ),
        (
            "UPDATE rockets SET latest_mission_msg = 2 WHERE channel = 's'",
            "s",
            "latest_mission_msg is 2",
        ),
        (
            "UPDATE rockets SET latest_update = '2023-01-01T00:00:00.000000Z' WHERE channel = 's'",
            "s",
            "latest_update",
        ),
        ("UPDATE rockets SET latest_update = 'soon' WHERE channel = 's'", "s", "can't be read"),
        ("UPDATE rockets SET processed = 9 WHERE channel = 'r'", "r", "processed is 9"),
        (
            "UPDATE rockets SET complete_through = 9 WHERE channel = 'r'",
            "r",
            "complete_through is 9",
        ),
        ("UPDATE rockets SET highest = 9 WHERE channel = 'r'", "r", "highest is 9"),
        (
            "UPDATE processed_ranges SET last_msg = 4 WHERE channel = 'r' AND first_msg = 1",
            "r",
            "touch",
        ),
        (
            "UPDATE processed_ranges SET last_msg = 5 WHERE channel = 'r' AND first_msg = 1",
            "r",
            "overlap",
        ),
        (
            "UPDATE processed_ranges SET last_msg = 0 WHERE channel = 's'",
            "s",
            "not a valid range of message numbers",
        ),
        (
            "UPDATE processed_ranges SET first_msg = 0 WHERE channel = 's'",
            "s",
            "not a valid range of message numbers",
        ),
        (
            "UPDATE processed_ranges SET launch_msg = 7 WHERE channel = 's'",
            "s",
            "message 7, which is outside",
        ),
        (
            "UPDATE processed_ranges SET launch_type = NULL WHERE channel = 's'",
            "s",
            "can't be read",
        ),
        ("UPDATE processed_ranges SET speed_change = 0 WHERE channel = 't'", "t", "speed is 500"),
        ("DELETE FROM processed_ranges WHERE channel = 't'", "t", "has no processed ranges"),
        ("DELETE FROM rockets WHERE channel = 's'", "s", "is not in rockets"),
        ("DELETE FROM rockets WHERE channel = 't'", "t", "is not in rockets"),
    ] {
        let damaged = app.directory.path().join("damaged.db");
        std::fs::copy(&sound, &damaged).unwrap();
        sql(&damaged, damage);
        let found = run(&[&["check"][..], &at(&damaged)].concat());
        let lines = stdout(&found);
        assert_eq!(found.status.code(), Some(1), "{damage}: {lines}");
        let told = lines
            .lines()
            .any(|line| line.starts_with(&format!("{channel}: ")) && line.contains(told));
        assert!(told, "{damage}: {lines}");
        let others = lines.lines().filter(|line| line.contains(": ") && !line.starts_with(channel));
        assert_eq!(others.count(), 1, "only the last line is about anything else: {lines}");
        for suffix in ["", "-wal", "-shm"] {
            // The last two may not exist.
            let _ = std::fs::remove_file(format!("{}{suffix}", damaged.display()));
        }
    }
}

#[test]
fn check_finds_damage_of_the_file_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (database, file) =
        (directory.path().join("rockets.db"), directory.path().join("messages.ndjson"));
    let lines: String =
        (0..200).map(|index| launched(&format!("c{index}"), 1).to_string() + "\n").collect();
    std::fs::write(&file, lines).unwrap();
    assert!(
        run(&[&["ingest", file.to_str().unwrap()][..], &at(&database)].concat()).status.success()
    );
    // Two tables swap their pages: each then has values of types that it doesn't take.
    sql(
        &database,
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema
                                              WHERE name IN ('rockets_forgotten', 'processed_ranges')) - rootpage
         WHERE name IN ('rockets_forgotten', 'processed_ranges');",
    );
    let found = run(&[&["check"][..], &at(&database)].concat());
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(stdout(&found).contains("rockets_forgotten.forgotten_at"), "{}", stdout(&found));
}

#[test]
fn check_and_forget_want_a_database_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("none.db");
    let checked = run(&[&["check"][..], &at(&database)].concat());
    assert_eq!(checked.status.code(), Some(2));
    assert!(stderr(&checked).contains("there is no such file"));
    assert_eq!(run(&[&["forget", "r"][..], &at(&database)].concat()).status.code(), Some(1));
    assert!(!database.exists());
}
