//! `forget` of many rockets.

use std::time::Duration;

use serde_json::json;
use testkit::client::Client;
use testkit::events::Events;
use testkit::message::{exploded, faster, launched};
use testkit::postgres::{TestDatabase, execute};
use testkit::process::{Service, program, run, stderr, stdout};
use testkit::sqlite::sql;

/// Runs `forget`. Returns its exit status, its output, and its errors.
fn forget(database: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let ended = run(&[&["forget"], words, &["--database", database]].concat());
    (ended.status.code(), stdout(&ended), stderr(&ended))
}

fn done(output: &str, errors: &str) -> (Option<i32>, String, String) {
    (Some(0), output.to_owned(), errors.to_owned())
}

/// Forgets many rockets of a service's database. `age` makes rockets silent for a year.
fn forgets_what_matches(service: &Service, database: &str, age: impl Fn(&str)) {
    let mut client = Client::new(service.address);
    for rocket in 0..5 {
        assert_eq!(client.post(&launched(&format!("r{rocket}"), 1)).status, 204);
    }
    for rocket in ["r1", "r2"] {
        assert_eq!(client.post(&exploded(rocket, 2, "BOOM")).status, 204);
    }
    age("'r0', 'r1'");
    let forget = |words: &[&str]| forget(database, words);
    let mut stream = Events::open(service.address, "", None);
    assert_eq!(stream.snapshot().len(), 5);
    let dry = ["--dry-run", "--silent-for", "180d"];
    assert_eq!(forget(&dry), done("r0\nr1\n", "2 rockets would be forgotten\n"));
    let both = ["--silent-for", "180d", "--status", "exploded"];
    let dry = [&both[..], &["--dry-run"]].concat();
    assert_eq!(forget(&dry), done("r1\n", "1 rocket would be forgotten\n"));
    assert_eq!(client.get("/stats").json()["rockets"], 5);
    assert_eq!(forget(&both), done("forgot 1 rocket\n", ""));
    let gone = stream.until("r1 is gone", |event| event.name == "gone");
    assert_eq!(gone.data, json!({ "channel": "r1" }));
    assert_eq!(forget(&["--silent-for", "366d"]), done("forgot 0 rockets\n", ""));
    let any = ["--status", "awaitingLaunch,exploded"];
    assert_eq!(forget(&any), done("forgot 1 rocket\n", ""));
    let gone = stream.until("r2 is gone", |event| event.name == "gone");
    assert_eq!(gone.data, json!({ "channel": "r2" }));
    assert_eq!(forget(&["--dry-run", "r0"]), done("r0\n", "1 rocket would be forgotten\n"));
    let (status, output, errors) = forget(&["--dry-run", "r1"]);
    assert_eq!((status, &*output), (Some(1), ""));
    assert!(errors.contains("no message of channel r1 has been processed"), "{errors}");
    // A new message is heard of, however old the rocket is.
    assert_eq!(client.post(&faster("r0", 2, 1)).status, 204);
    assert_eq!(forget(&["--silent-for", "180d"]), done("forgot 0 rockets\n", ""));
    assert_eq!(client.get("/stats").json()["rockets"], 3);
    let checked = run(&["check", "--database", database]);
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn many_are_forgotten_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    forgets_what_matches(&service, database.to_str().unwrap(), |rockets| {
        let time = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-365 days', '-1 hour')";
        let age = format!("UPDATE rockets SET last_received = {time} WHERE channel IN ({rockets})");
        sql(&database, &age);
    });
}

#[test]
fn many_are_forgotten_on_postgres() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    forgets_what_matches(&service, &database.url, |rockets| {
        let time = "now() - interval '365 days 1 hour'";
        let age = format!("UPDATE rockets SET last_received = {time} WHERE channel IN ({rockets})");
        execute(&database.url, &age);
    });
}

#[test]
fn thousands_are_forgotten_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (database, messages) = (path("rockets.db"), path("messages"));
    let lines = (0..2_345).flat_map(|rocket| {
        let channel = format!("r{rocket}");
        let second =
            if rocket % 2 == 0 { exploded(&channel, 3, "BOOM") } else { faster(&channel, 3, 1) };
        [launched(&channel, 1), second]
    });
    let lines: String = lines.map(|line| line.to_string() + "\n").collect();
    std::fs::write(&messages, lines).unwrap();
    assert!(run(&["migrate", "--database", &database]).status.success());
    assert!(run(&["ingest", &messages, "--database", &database]).status.success());
    let (status, output, _) = forget(&database, &["--status", "exploded", "--dry-run"]);
    let mut channels: Vec<&str> = output.lines().collect();
    channels.dedup();
    assert_eq!((status, channels.len()), (Some(0), 1_173));
    // A reader who has seen enough doesn't stop the count.
    let mut head = program(&["forget", "--status", "exploded", "--dry-run"]);
    let mut head = head.args(["--database", &database]);
    head = head.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = head.spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(stderr(&ended), "1173 rockets would be forgotten\n");
    let exploded = forget(&database, &["--status", "exploded"]);
    assert_eq!(exploded, done("forgot 1173 rockets\n", ""));
    let checked = stdout(&run(&["check", "--database", &database]));
    assert_eq!(checked, "1172 channels with 2344 processed ranges checked: 0 problems\n");
}

#[test]
fn forget_needs_either_a_channel_or_filters() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let database = database.to_str().unwrap();
    assert!(run(&["migrate", "--database", database]).status.success());
    for (words, told) in [
        (&[][..], "<CHANNEL>"),
        (&["--dry-run"], "<CHANNEL>"),
        (&["r", "--silent-for", "1d"], "cannot be used with"),
        (&["r", "--status", "exploded"], "cannot be used with"),
        (&["--silent-for", "0d"], "must be an integer and a unit"),
        (&["--silent-for", "180"], "must be an integer and a unit"),
        (&["--status", "flying"], "awaitingLaunch"),
        (&["--status", ""], "awaitingLaunch"),
        (&["--status", "exploded,"], "awaitingLaunch"),
    ] {
        let (status, _, errors) = forget(database, words);
        assert_eq!(status, Some(2), "{words:?}: {errors}");
        assert!(errors.contains(told), "{words:?}: {errors}");
    }
    // By variables, in any case, and of an empty fleet.
    let mut by_variable = program(&["forget", "--database", database]);
    let by_variable = by_variable.env("ROCKET_MONITOR_STATUS", "EXPLODED,Launched");
    let ended = by_variable.output().unwrap();
    assert_eq!((ended.status.code(), stdout(&ended)), (Some(0), "forgot 0 rockets\n".to_owned()));
}

/// Another process holds the write lock for longer than the command waits.
#[test]
fn a_failure_says_how_many_were_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let service = Service::start(&database);
    assert_eq!(Client::new(service.address).post(&launched("r", 1)).status, 204);
    drop(service);
    let other = rusqlite::Connection::open(&database).unwrap();
    other.busy_timeout(Duration::from_secs(60)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (status, output, errors) = forget(database.to_str().unwrap(), &["--status", "launched"]);
    assert_eq!((status, &*output), (Some(1), ""));
    assert!(errors.contains("(forgot 0 rockets)"), "{errors}");
}
