//! Injected faults: nothing acknowledged is lost, nothing counts twice, other messages are not
//! affected, and the service recovers by itself.

use std::time::Duration;

use rocket_monitor::ingest::Limits;
use rocket_monitor::store::fault_injection::FailurePoint;
use serde_json::json;
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client};
use testkit::conformance;
use testkit::message::{faster, launched};
use testkit::process::{run, stdout};
use testkit::sqlite::sql;
use testkit::wait::eventually;

conformance!(
    a_failed_batch_is_told_and_can_be_sent_again,
    a_stream_tells_what_was_stored_before_it_failed,
    readiness_follows_the_store,
);

fn a_failed_batch_is_told_and_can_be_sent_again(backend: Backend) {
    for (point, stored) in [
        (FailurePoint::BeforeLoad, false),
        (FailurePoint::BeforeCommit, false),
        (FailurePoint::AfterCommit, true),
    ] {
        let app = App::spawn(backend);
        let mut client = app.client();
        assert_eq!(client.post(&launched("r", 1)).status, 204);
        app.failures.plan(point, 1);
        let failed = client.post(&faster("r", 2, 5));
        failed.problem(503);
        assert!(failed.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
        let messages = app.rocket("r", "exact")["messages"]["processed"].clone();
        assert_eq!(messages, json!(if stored { 2 } else { 1 }), "{point:?}");
        // A copy is new if nothing was stored, and a duplicate if only the answer was lost.
        let again = client.post(&faster("r", 2, 5));
        assert_eq!(
            (again.status, again.header("idempotent-replayed")),
            (204, stored.then_some("true")),
            "{point:?}"
        );
        assert_eq!(app.rocket("r", "exact")["speed"], 505);
        assert_eq!(client.post(&faster("r", 3, 1)).status, 204, "the next batch is not harmed");
    }
}

fn a_stream_tells_what_was_stored_before_it_failed(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let mut body = launched("r", 1).to_string() + "\n{\n";
    for number in 2..2_000 {
        body += &(faster("r", number, 1).to_string() + "\n");
    }
    app.failures.plan(FailurePoint::BeforeCommit, 1_000_000);
    let problem = client.post_lines(body.as_bytes()).problem(503);
    assert_eq!((&problem["applied"], &problem["duplicates"]), (&json!(0), &json!(0)));
    assert_eq!((&problem["received"], &problem["rejected"]), (&json!(1), &json!(1)));
    assert_eq!(problem["errors"][0]["line"], 2);
    app.failures.plan(FailurePoint::BeforeCommit, 0);
    let counts = client.post_lines(body.as_bytes()).json();
    assert_eq!((&counts["applied"], &counts["rejected"]), (&json!(1_999), &json!(1)));
    assert_eq!(app.rocket("r", "exact")["speed"], 2_498);
}

fn readiness_follows_the_store(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    assert_eq!(client.get("/readyz").status, 200);
    client.post(&launched("r", 1));
    assert_eq!(client.get("/readyz").status, 200);
    assert_eq!(client.get("/livez").status, 200);
}

#[test]
fn while_another_process_holds_the_write_lock_reads_go_on_and_writes_are_told_to_come_later() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    let other = rusqlite::Connection::open(app.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (blocked, probe) = std::thread::scope(|scope| {
        let blocked = scope.spawn(|| Client::new(app.address).post(&faster("r", 2, 1)));
        let probe = scope.spawn(|| Client::new(app.address).get("/readyz"));
        // Reads don't wait for the lock: they end while the post still waits, or the test times
        // out.
        for _ in 0..100 {
            assert_eq!(app.rocket("r", "exact")["speed"], 500);
            assert_eq!(client.get("/rockets").status, 200);
            assert_eq!(client.get("/livez").status, 200);
        }
        (blocked.join().unwrap(), probe.join().unwrap())
    });
    blocked.problem(503);
    assert!(blocked.header("retry-after").is_some());
    probe.problem(503);
    other.execute_batch("ROLLBACK").unwrap();
    eventually("ready again", || client.get("/readyz").status == 200);
    assert_eq!(client.post(&faster("r", 2, 1)).status, 204);
    assert_eq!(app.rocket("r", "exact")["speed"], 501);
}

/// Whether a response is an overload problem with this detail.
fn says(answer: &Answer, why: &str) -> bool {
    answer.problem(503)["detail"].as_str().unwrap().contains(why)
}

#[test]
fn who_finds_the_queue_full_is_sent_away_at_once() {
    // Room for about two messages. The store is locked, so they stay in the queue.
    let limits = Limits { single_bytes: 400, stall: Duration::MAX, ..Limits::default() };
    let app = App::spawn_with(Backend::SqliteFile, limits);
    let other = rusqlite::Connection::open(app.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let post = |number| Client::new(app.address).post(&faster("r", number, 1));
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (1..=2).map(|number| scope.spawn(move || post(number))).collect();
        let bytes = 2 * faster("r", 1, 1).to_string().len();
        eventually("they wait", || {
            app.metrics().contains(&format!("rocket_monitor_queue_bytes {bytes}\n"))
        });
        assert!(says(&post(3), "messages arrive faster"));
        assert!(
            waiting.iter().all(|waiting| !waiting.is_finished()),
            "earlier messages still wait"
        );
        other.execute_batch("ROLLBACK").unwrap();
        waiting.into_iter().for_each(|waiting| assert_eq!(waiting.join().unwrap().status, 204));
    });
    eventually("room again", || post(3).status == 204);
    assert_eq!(app.rocket("r", "best-effort")["speed"], 3);
}

#[test]
fn who_comes_while_the_store_is_stuck_is_sent_away_at_once() {
    let app = App::spawn_with(
        Backend::SqliteFile,
        Limits { stall: Duration::from_millis(50), ..Limits::default() },
    );
    let other = rusqlite::Connection::open(app.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (told, answers) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // A request that comes before the store has been stuck for long enough still waits.
        for number in 1..1_000 {
            let (address, told) = (app.address, told.clone());
            scope.spawn(move || told.send(Client::new(address).post(&faster("r", number, 1))));
            if let Ok(answer) = answers.recv_timeout(Duration::from_millis(20)) {
                assert!(number > 1 && says(&answer, "more than a second"), "{number} {answer:?}");
                break;
            }
        }
        other.execute_batch("ROLLBACK").unwrap();
    });
    drop(told);
    let taken = answers.iter().filter(|answer| answer.status == 204).count();
    assert!(taken > 0, "waiting messages were not rejected");
    assert_eq!(app.rocket("r", "best-effort")["speed"], taken);
}

#[test]
fn a_stream_waits_for_room_and_takes_none_from_single_messages() {
    // Barely room for one part of a stream.
    let app =
        App::spawn_with(Backend::SqliteFile, Limits { stream_bytes: 1_000, ..Limits::default() });
    let lines: String =
        (1..=5_000).map(|number| faster("s", number, 1).to_string() + "\n").collect();
    let counts = std::thread::scope(|scope| {
        let streaming = scope.spawn(|| app.client().post_lines(lines.as_bytes()).json());
        for number in 1..=200 {
            assert_eq!(app.client().post(&faster("r", number, 1)).status, 204);
        }
        streaming.join().unwrap()
    });
    assert_eq!(counts["applied"], 5_000);
    assert_eq!(app.rocket("r", "exact")["messages"]["processed"], 200);
}

#[test]
fn a_damaged_row_fails_its_own_batch_and_no_other() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    client.post(&launched("bad", 1));
    client.post(&launched("good", 1));
    sql(
        &app.database(),
        "UPDATE processed_ranges SET latest_time = 'yesterday' WHERE channel = 'bad'",
    );
    client.post(&faster("bad", 2, 1)).problem(503);
    assert_eq!(client.post(&faster("good", 2, 1)).status, 204);
    sql(
        &app.database(),
        "UPDATE processed_ranges SET latest_time = '2022-02-02T18:39:05.863370Z' \
         WHERE channel = 'bad'",
    );
    assert_eq!(client.post(&faster("bad", 2, 1)).status, 204);
    assert_eq!(app.rocket("bad", "exact")["speed"], 501);
}

#[test]
fn two_writers_on_one_file_count_each_message_once() {
    let app = App::spawn(Backend::SqliteFile);
    let lines: String =
        (1..=3_000).map(|number| faster("r", number, 1).to_string() + "\n").collect();
    let file = app.directory.path().join("messages.ndjson");
    std::fs::write(&file, &lines).unwrap();
    let (ingested, posted) = std::thread::scope(|scope| {
        let ingested = scope.spawn(|| {
            run(&["ingest", file.to_str().unwrap(), "--database", app.database().to_str().unwrap()])
        });
        let posted = scope.spawn(|| {
            let mut client = app.client();
            (1..=3_000_u32)
                .rev()
                .filter(|number| {
                    let answer = client.post(&faster("r", *number, 1));
                    assert_eq!(answer.status, 204);
                    answer.header("idempotent-replayed").is_none()
                })
                .count()
        });
        (ingested.join().unwrap(), posted.join().unwrap())
    });
    assert!(ingested.status.success(), "{ingested:?}");
    let said = stdout(&ingested);
    let applied: usize =
        said.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(applied + posted, 3_000, "each message was new to one of them: {said}");
    assert_eq!(app.rocket("r", "best-effort")["speed"], 3_000);
    assert_eq!(app.rocket("r", "best-effort")["messages"]["missing"], 0);
}
