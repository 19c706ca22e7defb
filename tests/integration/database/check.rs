//! `check`: the audit finds every kind of damage.

use serde_json::json;
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::message::{faster, launched};
use testkit::postgres::{TestDatabase, execute};
use testkit::process::{Service, run, stderr, stdout};
use testkit::sqlite::sql;

use super::schema::at;
use crate::instances::check;

#[test]
fn check_finds_each_kind_of_damage() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    for message in
        [launched("r", 1), faster("r", 2, 5), faster("r", 5, 1), launched("s", 1), launched("t", 2)]
    {
        assert_eq!(client.post(&message).status, 204);
    }
    let loss = json!({ "first": 3, "last": 3, "reason": "gone" }).to_string();
    let declared = client.request("POST", "/rockets/r/losses", &[], loss.as_bytes()).unwrap();
    assert_eq!(declared.status, 200);
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
        (
            "UPDATE processed_ranges SET speed_blocks = x'0102' WHERE channel = 't'",
            "t",
            "the speed_blocks of the range 2 to 2 come to 1, and not to 500",
        ),
        (
            "UPDATE processed_ranges SET speed_blocks = x'010202' WHERE channel = 't'",
            "t",
            "speed_blocks of the range 2 to 2 have fewer or more sums",
        ),
        ("UPDATE processed_ranges SET speed_blocks = x'07' WHERE channel = 't'", "t", "version 7"),
        ("DELETE FROM processed_ranges WHERE channel = 't'", "t", "has no processed ranges"),
        ("DELETE FROM rockets WHERE channel = 's'", "s", "is not in rockets"),
        ("DELETE FROM rockets WHERE channel = 't'", "t", "is not in rockets"),
        ("UPDATE losses SET first_msg = 0", "r", "the loss 0 to 3 is not a valid range"),
        ("UPDATE losses SET last_msg = 2", "r", "the loss 3 to 2 is not a valid range"),
        ("UPDATE losses SET last_msg = 5", "r", "is not below the highest, 5"),
        ("UPDATE losses SET declared_at = ''", "r", "can't be read"),
        ("UPDATE losses SET channel = 'a'", "a", "has losses, but is not in rockets"),
        ("UPDATE losses SET channel = 'z'", "z", "has losses, but is not in rockets"),
        (
            "INSERT INTO losses SELECT channel, 2, last_msg, reason, declared_at FROM losses",
            "r",
            "the losses 2 to 3 and 3 to 3 overlap",
        ),
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
         UPDATE sqlite_schema SET rootpage =
             (SELECT sum(rootpage) FROM sqlite_schema
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

#[test]
fn check_finds_damage_and_forget_forgets() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    for message in [launched("r", 1), faster("r", 2, 5), faster("r", 5, 1), launched("s", 1)] {
        assert_eq!(client.post(&message).status, 204);
    }
    assert_eq!(
        check(&database),
        (Some(0), "2 channels with 3 processed ranges checked: 0 problems\n".to_owned())
    );
    for (damage, mend, told) in [
        (
            "UPDATE rockets SET speed = 1 WHERE channel = 'r'",
            "UPDATE rockets SET speed = 506 WHERE channel = 'r'",
            "r: speed is 1",
        ),
        (
            "UPDATE processed_ranges SET last_msg = 4 WHERE channel = 'r' AND first_msg = 1",
            "UPDATE processed_ranges SET last_msg = 2 WHERE channel = 'r' AND first_msg = 1",
            "touch",
        ),
        (
            "UPDATE processed_ranges SET channel = 't' WHERE channel = 's'",
            "UPDATE processed_ranges SET channel = 's' WHERE channel = 't'",
            "t: has processed ranges",
        ),
        (
            "UPDATE rockets SET mission = E'a\\nb' WHERE channel = 's'",
            "UPDATE rockets SET mission = 'ARTEMIS' WHERE channel = 's'",
            "can't be read",
        ),
    ] {
        execute(&database.url, damage);
        let (status, lines) = check(&database);
        assert_eq!(status, Some(1), "{damage}");
        assert!(lines.contains(told), "{damage}: {lines}");
        execute(&database.url, mend);
        assert_eq!(check(&database).0, Some(0));
    }
    assert!(run(&["forget", "r", "--database", &database.url]).status.success());
    assert_eq!(client.get("/rockets/r").status, 404);
    assert_eq!(run(&["forget", "r", "--database", &database.url]).status.code(), Some(1));
    assert_eq!(client.post(&launched("r", 1)).header("idempotent-replayed"), None);
}
