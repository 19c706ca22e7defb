//! `DELETE /rockets/{channel}`, and the removal of many rockets beside messages for them.

use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rocket_monitor::domain::message::Message;
use rocket_monitor::domain::query::{Filters, SilentFor};
use rocket_monitor::domain::rocket::Status;
use rocket_monitor::domain::text::Channel;
use rocket_monitor::domain::timestamp::Timestamp;
use rocket_monitor::store::{Database, OpenOptions, Store};
use rocket_monitor::wire::message::parse;
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client};
use testkit::conformance;
use testkit::events::Events;
use testkit::message::{exploded, faster, launched};
use testkit::postgres::{Session, TestDatabase, distributed};
use testkit::wait::eventually;

conformance!(
    a_rocket_is_forgotten_and_starts_anew,
    what_cannot_be_forgotten_changes_nothing,
    many_are_forgotten_if_they_still_match,
    a_rocket_that_is_heard_of_meanwhile_is_kept,
);

fn delete(client: &mut Client, path: &str) -> Answer {
    client.request("DELETE", path, &[], b"").unwrap()
}

fn a_rocket_is_forgotten_and_starts_anew(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for message in [launched("r/é", 1), faster("r/é", 5, 1), launched("s", 1)] {
        assert_eq!(client.post(&message).status, 204);
    }
    let loss = json!({ "first": 2, "last": 3, "reason": "overwritten" }).to_string();
    let declared = client.request("POST", "/rockets/r%2F%C3%A9/losses", &[], loss.as_bytes());
    assert_eq!(declared.unwrap().json()["lost"], 2);
    let mut stream = Events::open(app.address, "", None);
    stream.snapshot();
    let answer = delete(&mut client, "/rockets/r%2F%C3%A9");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let gone = stream.until("the rocket is gone", |event| event.name == "gone");
    assert_eq!(gone.data, json!({ "channel": "r/é" }));
    client.get("/rockets/r%2F%C3%A9").problem(404);
    client.get("/rockets/r%2F%C3%A9/gaps").problem(404);
    delete(&mut client, "/rockets/r%2F%C3%A9").problem(404);
    assert_eq!(client.get("/stats").json()["rockets"], 1);
    // Copies count again, and what was declared lost is no longer.
    for message in [launched("r/é", 1), faster("r/é", 5, 1)] {
        let again = client.post(&message);
        assert_eq!((again.status, again.header("idempotent-replayed")), (204, None));
    }
    let rocket = client.get("/rockets/r%2F%C3%A9").json();
    assert_eq!((&rocket["speed"], &rocket["messages"]["processed"]), (&json!(501), &json!(2)));
    assert_eq!(rocket["messages"]["gaps"], json!([[2, 4]]));
    let gaps = client.get("/rockets/r%2F%C3%A9/gaps").json();
    assert_eq!(gaps["gaps"][0]["lost"], Value::Null);
    let back = stream.until("the rocket is back", |event| event.name == "rocket");
    assert_eq!(back.data["channel"], "r/é");
}

fn what_cannot_be_forgotten_changes_nothing(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    for query in ["dryRun=true", "view=exact", "channel=r"] {
        let problem = delete(&mut client, &format!("/rockets/r?{query}")).problem(400);
        let name = query.split('=').next().unwrap();
        assert_eq!(problem["errors"][0]["parameter"], name);
    }
    for unknown in ["/rockets/s", "/rockets/R", "/rockets/%00", "/rockets/%ff"] {
        delete(&mut client, unknown).problem(404);
    }
    delete(&mut client, "/rockets").problem(405);
    assert_eq!(client.get("/rockets/r").json()["messages"]["processed"], 1);
}

/// A store of its own, and what must live as long.
fn store(backend: Backend) -> (Store, Option<TestDatabase>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let server = match backend {
        Backend::SqliteFile | Backend::SqliteMemory => None,
        Backend::Postgres => Some(TestDatabase::create()),
        Backend::Citus => Some(distributed()),
    };
    let database = match (backend, &server) {
        (Backend::SqliteMemory, _) => Database::Memory,
        (_, Some(server)) => server.url.parse().unwrap(),
        (_, None) => Database::File(directory.path().join("rockets.db")),
    };
    (Store::open(&database, &OpenOptions::default()).unwrap(), server, directory)
}

fn message(json: &Value) -> Message {
    parse(Bytes::from(json.to_string())).unwrap()
}

fn channel(name: &str) -> Channel {
    Channel::new(name.to_owned()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

fn names(channels: &[Channel]) -> Vec<&str> {
    let mut names: Vec<&str> = channels.iter().map(Channel::as_str).collect();
    names.sort_unstable();
    names
}

fn assert_sound(store: &Store, channels: u64) {
    let audit = store.check(&mut |finding| panic!("{finding:?}")).unwrap();
    assert_eq!(audit.channels, channels);
}

fn many_are_forgotten_if_they_still_match(backend: Backend) {
    let (store, _server, _directory) = store(backend);
    let mut writer = store.writer().unwrap();
    let (now, day) = (now(), Duration::from_secs(86_400));
    let long_ago = now.minus(2 * day);
    let old = ["a", "b", "c", "d"].map(|name| message(&launched(name, 1)));
    writer.commit(&old, long_ago).unwrap();
    let explosions = ["b", "c"].map(|name| message(&exploded(name, 3, "BOOM")));
    writer.commit(&explosions, long_ago).unwrap();
    // These were heard of since.
    let recent = ["c", "d", "e"].map(|name| message(&faster(name, 2, 1)));
    writer.commit(&recent, now).unwrap();
    let silent =
        Filters { silent_for: Some(SilentFor::parse("1d").unwrap()), ..Filters::default() };
    let exploded = Filters { statuses: vec![Status::Exploded], ..Filters::default() };
    let both = Filters { statuses: vec![Status::Exploded], ..silent.clone() };
    let all = ["a", "b", "c", "d", "e", "unknown", "a"].map(channel);
    let forget = |filters: &Filters| {
        let forgotten = store.forget_matching(&all, filters, now).unwrap();
        names(&forgotten).join(" ")
    };
    assert_eq!(forget(&both), "b");
    assert_eq!(forget(&both), "");
    assert_eq!(forget(&exploded), "c");
    assert_eq!(forget(&silent), "a");
    assert_sound(&store, 2);
    // Only the channels that are named.
    let named = ["e", "e"].map(channel);
    let forgotten = store.forget_matching(&named, &Filters::default(), now).unwrap();
    assert_eq!(names(&forgotten), ["e"]);
    assert!(store.forget_matching(&[], &silent, now).unwrap().is_empty());
    assert_sound(&store, 1);
    store.close().unwrap();
}

/// Every rocket gets a message while silent ones are removed. Whether it arrives before or after
/// its rocket is looked at, it is there at the end.
fn a_rocket_that_is_heard_of_meanwhile_is_kept(backend: Backend) {
    const ROCKETS: usize = 300;
    const IN_A_BATCH: usize = 20;
    let (store, _server, _directory) = store(backend);
    let (now, week) = (now(), Duration::from_secs(7 * 86_400));
    let silent =
        Filters { silent_for: Some(SilentFor::parse("1d").unwrap()), ..Filters::default() };
    let all: Vec<String> = (0..ROCKETS).map(|rocket| format!("r{rocket:03}")).collect();
    let channels: Vec<Channel> = all.iter().map(|name| channel(name)).collect();
    let old: Vec<Message> = all.iter().map(|name| message(&faster(name, 1, 1))).collect();
    store.writer().unwrap().commit(&old, now.minus(week)).unwrap();
    // Each does its first batch before the other does its second: however they are scheduled, some
    // rockets get messages, and some are forgotten.
    let both_have_begun = Barrier::new(2);
    let forgotten = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = store.writer().unwrap();
            // In the opposite order, so that both meet.
            for (index, names) in all.rchunks(IN_A_BATCH).enumerate() {
                let heard: Vec<Message> =
                    names.iter().map(|name| message(&faster(name, 3, 1))).collect();
                writer.commit(&heard, now).unwrap();
                if index == 0 {
                    both_have_begun.wait();
                }
            }
        });
        let forget = scope.spawn(|| {
            let mut forgotten = 0;
            for (index, batch) in channels.chunks(IN_A_BATCH).enumerate() {
                forgotten += store.forget_matching(batch, &silent, now).unwrap().len();
                if index == 0 {
                    both_have_begun.wait();
                }
            }
            forgotten
        });
        forget.join().unwrap()
    });
    assert!((1..ROCKETS).contains(&forgotten), "{forgotten}");
    assert_sound(&store, ROCKETS as u64);
    store.close().unwrap();
}

/// The look at a rocket waits for a transaction that changes it.
#[test]
fn a_rocket_with_a_message_that_is_being_committed_is_kept() {
    let (store, server, _directory) = store(Backend::Postgres);
    let url = &server.as_ref().unwrap().url;
    let (now, week) = (now(), Duration::from_secs(7 * 86_400));
    let old = ["a", "b"].map(|name| message(&launched(name, 1)));
    store.writer().unwrap().commit(&old, now.minus(week)).unwrap();
    let mut other = Session::open(url);
    other.execute("BEGIN; UPDATE rockets SET last_received = now() WHERE channel = 'a'");
    let silent =
        Filters { silent_for: Some(SilentFor::parse("1d").unwrap()), ..Filters::default() };
    let forgotten = std::thread::scope(|scope| {
        let both = ["a", "b"].map(channel);
        let forget = scope.spawn(move || store.forget_matching(&both, &silent, now).unwrap());
        let mut observer = Session::open(url);
        eventually("the removal waits for the transaction", || {
            let waiting = "SELECT count(*) FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            observer.count(waiting) == 1
        });
        other.execute("COMMIT");
        forget.join().unwrap()
    });
    assert_eq!(names(&forgotten), ["b"]);
}
