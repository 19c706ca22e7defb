//! `GET /events`: a snapshot and the changes after it, on every backend and across processes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rocket_monitor::domain::timestamp::Timestamp;
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::conformance;
use testkit::events::{Event, Events};
use testkit::message::{exploded, faster, launched, launched_as, mission_changed};
use testkit::postgres::{Session, TestDatabase, divided, execute};
use testkit::process::{Service, run};
use testkit::sqlite::sql;
use testkit::wait::eventually;

conformance!(
    a_snapshot_comes_first_and_then_each_change,
    who_comes_back_is_told_what_changed_since,
    filters_tell_what_comes_and_goes,
    several_values_and_prefixes_are_followed,
    gaps_come_and_go,
    a_rocket_becomes_silent_without_a_message,
    who_comes_back_is_told_what_became_silent_since,
    silence_is_news_only_for_who_asks,
    followers_have_what_is_listed,
    changes_of_one_rocket_are_merged,
    bad_parameters_are_named,
    streams_end_when_the_service_does,
);

fn posted(client: &mut Client, message: &Value) {
    assert_eq!(client.post(message).status, 204);
}

fn a_snapshot_comes_first_and_then_each_change(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let mut empty = Events::open(app.address, "", None);
    assert!(empty.snapshot().is_empty());
    // More than fit in one chunk.
    let lines: String =
        (0..600).map(|rocket| launched(&format!("r{rocket:03}"), 1).to_string() + "\n").collect();
    assert_eq!(client.post_lines(lines.as_bytes()).json()["applied"], 600);
    let expected: Vec<String> = (0..600).map(|rocket| format!("r{rocket:03}")).collect();
    let mut told: Vec<String> = (0..600)
        .map(|_| empty.next().unwrap().data["channel"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    assert_eq!(told, expected);
    let mut full = Events::open(app.address, "", None);
    assert_eq!(full.snapshot(), expected);
    let mut bare = Events::open(app.address, "?snapshot=false", None);
    assert_eq!(bare.next().unwrap().name, "live");
    posted(&mut client, &faster("r007", 2, 5));
    let item = client.get("/rockets?channel=r007").json()["rockets"][0].clone();
    for stream in [&mut empty, &mut full, &mut bare] {
        let event = stream.until("the change", |event| event.data["messages"]["processed"] == 2);
        assert_eq!(event, Event { name: "rocket".to_owned(), data: item.clone() });
    }
    // A duplicate changes nothing.
    posted(&mut client, &faster("r007", 2, 5));
    posted(&mut client, &faster("r008", 2, 6));
    assert_eq!(full.next().unwrap().data["channel"], "r008");
}

fn who_comes_back_is_told_what_changed_since(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    posted(&mut client, &launched("a", 1));
    posted(&mut client, &launched("b", 1));
    let mut stream = Events::open(app.address, "", None);
    assert_eq!(stream.snapshot(), ["a", "b"]);
    posted(&mut client, &faster("a", 2, 1));
    stream.until("a", |event| event.data["speed"] == 501);
    let id = stream.id.clone().unwrap();
    drop(stream);
    posted(&mut client, &faster("b", 2, 2));
    let mut back = Events::open(app.address, "", Some(&id));
    assert_eq!(back.next().unwrap().data["speed"], 502);
    let id = back.id.clone().unwrap();
    posted(&mut client, &faster("a", 3, 9));
    assert_eq!(back.next().unwrap().data["speed"], 510);
    let mut again = Events::open(app.address, "", Some(&id));
    assert_eq!(again.next().unwrap().data["speed"], 510);
    for unknown in ["", "x", "0123456789abcdef-1", &id.replace('-', "-9")] {
        assert_eq!(
            Events::open(app.address, "", Some(unknown)).snapshot(),
            ["a", "b"],
            "{unknown:?}"
        );
    }
}

fn filters_tell_what_comes_and_goes(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for (channel, name) in [("a", "X"), ("b", "Y"), ("c", "X")] {
        posted(&mut client, &mission_changed(channel, 1, name));
    }
    let mut x = Events::open(app.address, "?mission=X", None);
    let mut one = Events::open(app.address, "?channel=b", None);
    let mut losses = Events::open(app.address, "?status=exploded", None);
    assert_eq!(
        (x.snapshot(), one.snapshot(), losses.snapshot()),
        (vec!["a".into(), "c".into()], vec!["b".into()], vec![])
    );
    let told = |stream: &mut Events| {
        let event = stream.next().unwrap();
        (event.name, event.data["channel"].as_str().unwrap().to_owned())
    };
    let rocket = |channel: &str| ("rocket".to_owned(), channel.to_owned());
    let gone = |channel: &str| ("gone".to_owned(), channel.to_owned());
    posted(&mut client, &faster("b", 2, 5));
    assert_eq!(told(&mut one), rocket("b"));
    posted(&mut client, &mission_changed("a", 2, "Y"));
    assert_eq!(told(&mut x), gone("a"));
    posted(&mut client, &mission_changed("b", 3, "X"));
    assert_eq!((told(&mut x), told(&mut one)), (rocket("b"), rocket("b")));
    posted(&mut client, &exploded("c", 2, "PRESSURE"));
    assert_eq!((told(&mut x), told(&mut losses)), (rocket("c"), rocket("c")));
}

/// The name of the next event, and its channel.
fn told(stream: &mut Events) -> (String, String) {
    let event = stream.next().unwrap();
    (event.name, event.data["channel"].as_str().unwrap().to_owned())
}

fn rocket(channel: &str) -> (String, String) {
    ("rocket".to_owned(), channel.to_owned())
}

fn gone(channel: &str) -> (String, String) {
    ("gone".to_owned(), channel.to_owned())
}

fn several_values_and_prefixes_are_followed(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    posted(&mut client, &launched_as("ab", 1, "T,1", 1, "X"));
    posted(&mut client, &launched_as("b", 1, "T2", 1, "Y"));
    posted(&mut client, &launched_as("a\u{10ffff}", 1, "T3", 1, "Z"));
    let mut missions = Events::open(app.address, "?mission=X&mission=Y", None);
    let mut types = Events::open(app.address, "?type=T,1&type=T3", None);
    let mut prefix = Events::open(app.address, "?channelPrefix=a&status=exploded,launched", None);
    assert_eq!(missions.snapshot(), ["ab", "b"]);
    assert_eq!(types.snapshot(), ["ab", "a\u{10ffff}"]);
    assert_eq!(prefix.snapshot(), ["ab", "a\u{10ffff}"]);
    posted(&mut client, &mission_changed("ab", 2, "Y"));
    assert_eq!(
        (told(&mut missions), told(&mut types), told(&mut prefix)),
        (rocket("ab"), rocket("ab"), rocket("ab"))
    );
    posted(&mut client, &mission_changed("b", 2, "Z"));
    assert_eq!(told(&mut missions), gone("b"));
    posted(&mut client, &launched_as("ab", 3, "T2", 1, "X"));
    assert_eq!((told(&mut types), told(&mut prefix)), (gone("ab"), rocket("ab")));
    posted(&mut client, &exploded("ab", 4, "BOOM"));
    assert_eq!(told(&mut prefix), rocket("ab"));
    // It is the only one that does not start with a.
    posted(&mut client, &faster("b", 3, 1));
    posted(&mut client, &faster("a", 1, 1));
    posted(&mut client, &launched("a", 2));
    assert_eq!(told(&mut prefix), rocket("a"));
}

fn gaps_come_and_go(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    posted(&mut client, &launched("gap", 2));
    posted(&mut client, &launched("whole", 1));
    let mut missing = Events::open(app.address, "?missing=true", None);
    let mut complete = Events::open(app.address, "?missing=false", None);
    assert_eq!(
        (missing.snapshot(), complete.snapshot()),
        (vec!["gap".into()], vec!["whole".into()])
    );
    posted(&mut client, &faster("gap", 1, 1));
    assert_eq!((told(&mut missing), told(&mut complete)), (gone("gap"), rocket("gap")));
    posted(&mut client, &faster("whole", 3, 1));
    assert_eq!((told(&mut missing), told(&mut complete)), (rocket("whole"), gone("whole")));
    posted(&mut client, &faster("whole", 5, 1));
    assert_eq!(told(&mut missing), rocket("whole"));
    // No gap opens while messages arrive in order, however many are taken together. A scan, as on a
    // cluster, doesn't know that, and may say again that the rocket is gone.
    let told_of_whole = |missing: &mut Events| loop {
        let told = told(missing);
        if told != gone("gap") {
            return told;
        }
    };
    for number in 3..60 {
        posted(&mut client, &faster("gap", number, 1));
    }
    posted(&mut client, &faster("whole", 2, 1));
    assert_eq!(told_of_whole(&mut missing), rocket("whole"));
    // The other gap closes. A rocket that comes and goes at once may or may not be told of.
    posted(&mut client, &faster("whole", 4, 1));
    assert_eq!(told_of_whole(&mut missing), gone("whole"));
}

/// How long ago the rocket of an event was last heard of.
fn silence(event: &Event) -> Duration {
    let received = Timestamp::parse(event.data["lastReceived"].as_str().unwrap()).unwrap();
    let now = Timestamp::from_system_time(SystemTime::now());
    let micros = now.unix_micros() - received.unix_micros();
    Duration::from_micros(micros.try_into().unwrap())
}

fn a_rocket_becomes_silent_without_a_message(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    posted(&mut client, &mission_changed("a", 1, "X"));
    posted(&mut client, &mission_changed("b", 1, "Y"));
    let mut silent = Events::open(app.address, "?silentFor=2s&mission=X", None);
    let mut bare = Events::open(app.address, "?silentFor=2s&snapshot=false", None);
    let mut long = Events::open(app.address, "?silentFor=1h", None);
    assert_eq!(long.snapshot(), Vec::<String>::new());
    let listed = silent.snapshot();
    assert_eq!(bare.next().unwrap().name, "live");
    for round in 2..4 {
        if round > 2 || listed.is_empty() {
            let event = silent.next().unwrap();
            assert_eq!((&*event.name, &event.data["channel"]), ("rocket", &json!("a")));
            let silence = silence(&event);
            assert!(silence >= Duration::from_secs(2), "too early: {silence:?}");
            // About a second later; but others may use the machine, too.
            assert!(silence < Duration::from_secs(10), "too late: {silence:?}");
        }
        posted(&mut client, &faster("a", round, 1));
        assert_eq!(told(&mut silent), gone("a"));
    }
    // It changes while it is silent only if it is heard of, and then it isn't.
    posted(&mut client, &mission_changed("a", 4, "Y"));
    posted(&mut client, &mission_changed("b", 2, "X"));
    let event = silent.until("b", |event| event.name == "rocket");
    assert_eq!(event.data["channel"], "b");
    let mut told = BTreeSet::new();
    while told.len() < 2 {
        let event = bare.until("both", |event| event.name == "rocket");
        told.insert(event.data["channel"].as_str().unwrap().to_owned());
    }
    // Nothing is silent for an hour. A rocket that is removed is gone for whoever may have it.
    let listed = client.get("/rockets?silentFor=1s&mission=X").json();
    assert_eq!(listed["rockets"][0]["channel"], "b");
    assert_eq!(client.get("/rockets?silentFor=1h").json()["rockets"], json!([]));
}

fn who_comes_back_is_told_what_became_silent_since(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    posted(&mut client, &launched("a", 1));
    let mut stream = Events::open(app.address, "?silentFor=1s", None);
    stream.snapshot();
    stream.until("a is silent", |event| event.name == "rocket");
    posted(&mut client, &launched("b", 1));
    posted(&mut client, &faster("a", 2, 1));
    assert_eq!(stream.until("a is gone", |event| event.name == "gone").data["channel"], "a");
    let id = stream.id.clone().unwrap();
    drop(stream);
    let is_silent = |client: &mut Client| {
        client.get("/rockets?silentFor=1s").json()["rockets"].as_array().unwrap().len() == 2
    };
    eventually("both are silent", || is_silent(&mut client));
    // No snapshot, but what has become silent meanwhile.
    let mut back = Events::open(app.address, "?silentFor=1s", Some(&id));
    let mut silent: Vec<_> = [told(&mut back), told(&mut back)].into();
    silent.sort();
    assert_eq!(silent, [rocket("a"), rocket("b")]);
    // Nobody has followed this silence, so it is not known what has become silent.
    let mut other = Events::open(app.address, "?silentFor=2s", Some(&id));
    other.snapshot();
}

fn silence_is_news_only_for_who_asks(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    posted(&mut client, &launched("a", 1));
    let mut all = Events::open(app.address, "", None);
    assert_eq!(all.snapshot(), ["a"]);
    posted(&mut client, &faster("a", 2, 1));
    assert_eq!(told(&mut all), rocket("a"));
    let mut silent = Events::open(app.address, "?silentFor=1s", None);
    silent.snapshot();
    silent.until("a is silent", |event| event.name == "rocket");
    posted(&mut client, &launched("b", 1));
    assert_eq!(told(&mut all), rocket("b"));
    // An active rocket is not gone again with each message.
    posted(&mut client, &faster("a", 3, 1));
    silent.until("a is gone", |event| event.name == "gone" && event.data["channel"] == "a");
    for number in 4..40 {
        posted(&mut client, &faster("a", number, 1));
    }
    let next = silent.until("something of a", |event| event.data["channel"] == "a");
    assert_eq!((&*next.name, &next.data["messages"]["highest"]), ("rocket", &json!(39)));
    let many: Vec<Events> = (10..73)
        .map(|seconds| Events::open(app.address, &format!("?silentFor={seconds}s"), None))
        .collect();
    let problem = client.get("/events?silentFor=99s").problem(503);
    assert!(problem["detail"].as_str().unwrap().contains("silentFor"), "{problem}");
    let same = Events::open(app.address, "?silentFor=72s", None);
    drop((many, same));
    eventually("there is room again", || {
        client.request("GET", "/livez", &[], b"").unwrap();
        let mut other = Client::new(app.address);
        other.send(b"GET /events?silentFor=99s HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        other.answer(true).is_ok_and(|answer| answer.status == 200)
    });
}

/// What a client has after the events of a stream, up to that of a rocket.
fn model(stream: &mut Events, last: &str, is_silent: bool) -> BTreeSet<String> {
    let mut model = BTreeSet::new();
    loop {
        let event = stream.next().unwrap();
        let channel = event.data["channel"].as_str().unwrap_or_default().to_owned();
        match event.name.as_str() {
            "rocket" => {
                assert!(!is_silent || silence(&event) >= Duration::from_secs(1), "{event:?}");
                model.insert(channel.clone());
                if channel == last {
                    return model;
                }
            }
            "gone" => drop(model.remove(&channel)),
            _ => {}
        }
    }
}

fn followers_have_what_is_listed(backend: Backend) {
    const FILTERS: [(&str, &str); 6] = [
        ("?missing=true", "zy-gap"),
        ("?missing=false", "zz"),
        ("?silentFor=1s", "zz"),
        ("?silentFor=1s&missing=true", "zy-gap"),
        ("?silentFor=1s&mission=A&mission=B&status=launched,exploded", "zz"),
        ("?missing=false&type=T1&type=T2&mission=A", "zz"),
    ];
    let app = App::spawn(backend);
    let mut client = app.client();
    let mut streams = FILTERS.map(|(query, _)| Events::open(app.address, query, None));
    let message = (0..24_u32, 1..9_u32, 0..4_usize, 0..3_usize);
    let messages = prop::collection::vec(message, 120);
    let mut runner = TestRunner::deterministic();
    for phase in 0..3 {
        let messages = messages.new_tree(&mut runner).unwrap().current();
        for (rocket, number, kind, which) in messages {
            // Each time, others fall silent.
            let channel = format!("r{:02}", (rocket / 2) * 2 + u32::from(phase != 1));
            let (rocket_type, mission) = (["T1", "T2", "T3"][which], ["A", "B", "C"][which]);
            posted(
                &mut client,
                &match kind {
                    0 => launched_as(&channel, number, rocket_type, 1, mission),
                    1 => mission_changed(&channel, number, mission),
                    2 if number > 7 => exploded(&channel, number, "BOOM"),
                    _ => faster(&channel, number, 1),
                },
            );
        }
        if phase == 1 {
            let path = "/rockets?silentFor=1s&limit=1";
            eventually("some are silent", || {
                client.get(path).json()["rockets"].as_array().unwrap().len() == 1
            });
        }
    }
    // The changes that are read together come in any order, so these are read after all others.
    let mut all = Events::open(app.address, "?snapshot=false", None);
    posted(&mut client, &launched("other", 1));
    all.until("the others", |event| event.data["channel"] == "other");
    posted(&mut client, &launched_as("zy-gap", 2, "T1", 1, "A"));
    posted(&mut client, &launched_as("zz", 1, "T1", 1, "A"));
    for ((query, last), stream) in FILTERS.iter().zip(&mut streams) {
        let model = model(stream, last, query.contains("silent"));
        let listed = client.get(&format!("/rockets{query}&limit=1000")).json();
        let listed: BTreeSet<String> = listed["rockets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rocket| rocket["channel"].as_str().unwrap().to_owned())
            .collect();
        assert!(listed.len() > 2, "{query}: {listed:?}");
        assert_eq!(model, listed, "{query}");
    }
}

fn changes_of_one_rocket_are_merged(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let mut stream = Events::open(app.address, "", None);
    stream.snapshot();
    let started = Instant::now();
    for number in 1..=300 {
        posted(&mut client, &faster("a", number, 1));
    }
    let mut told = 0;
    stream.until("the last", |event| {
        told += 1;
        event.data["speed"] == 300
    });
    // At most ten per second, and one at either end.
    let most = started.elapsed().as_millis() / 100 + 2;
    assert!(told <= most, "{told} in {:?}", started.elapsed());
}

fn bad_parameters_are_named(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let problem = client.get("/events?snapshot=perhaps&view=exact&status=lost").problem(400);
    let named: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["parameter"].clone())
        .collect();
    assert_eq!(named, ["view", "status", "snapshot"]);
    let head = client.request("HEAD", "/events", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
}

fn streams_end_when_the_service_does(backend: Backend) {
    let app = App::spawn(backend);
    let mut stream = Events::open(app.address, "", None);
    stream.snapshot();
    drop(app);
    assert_eq!(stream.next(), None);
}

#[test]
fn what_another_process_does_to_the_file_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    let database = database.to_str().unwrap();
    let service = Service::start(database);
    let mut client = Client::new(service.address);
    posted(&mut client, &launched("a", 1));
    let mut stream = Events::open(service.address, "", None);
    assert_eq!(stream.snapshot(), ["a"]);
    let ingest = |channel: &str| {
        let file = directory.path().join("messages");
        std::fs::write(&file, launched(channel, 1).to_string()).unwrap();
        assert!(run(&["ingest", file.to_str().unwrap(), "--database", database]).status.success());
    };
    // While the service is idle, and while it writes.
    ingest("b");
    let told = Instant::now();
    stream.until("b", |event| event.data["channel"] == "b");
    assert!(told.elapsed() < Duration::from_secs(10));
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut poster = Client::new(service.address);
            for number in 2..400 {
                posted(&mut poster, &faster("a", number, 1));
            }
        });
        ingest("c");
        stream.until("c", |event| event.data["channel"] == "c");
        busy.join().unwrap();
    });
    assert!(run(&["forget", "b", "--database", database]).status.success());
    let gone = stream.until("b is gone", |event| event.name == "gone");
    assert_eq!(gone.data, json!({ "channel": "b" }));
}

#[test]
fn what_other_instances_do_is_told() {
    let database = TestDatabase::create();
    let services = [Service::start(&database.url), Service::start(&database.url)];
    let [mut one, mut other] = services.each_ref().map(|service| Client::new(service.address));
    posted(&mut one, &launched("a", 1));
    let mut stream = Events::open(services[0].address, "", None);
    assert_eq!(stream.snapshot(), ["a"]);
    posted(&mut other, &launched("b", 1));
    stream.until("b", |event| event.data["channel"] == "b");
    posted(&mut other, &faster("a", 2, 1));
    stream.until("a", |event| event.data["speed"] == 501);
    // As if an instance died before its notification: only the rows are there.
    execute(
        &database.url,
        "UPDATE rockets SET speed = 7, last_received = clock_timestamp() WHERE channel = 'b'",
    );
    stream.until("b again", |event| event.data["speed"] == 7);
    assert!(run(&["forget", "b", "--database", &database.url]).status.success());
    stream.until("b is gone", |event| event.name == "gone");
    // Listening continues after the connection was lost.
    execute(
        &database.url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    eventually("the other one writes again", || other.post(&faster("a", 3, 1)).status == 204);
    stream.until("a", |event| event.data["speed"] == 502);
}

#[test]
fn who_reads_too_slowly_is_cut_off_and_holds_up_nobody() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    let mut slow = Events::open(app.address, "", None);
    slow.snapshot();
    let mut quick = Events::open(app.address, "", None);
    quick.snapshot();
    // Twice as many rockets as are kept for followers: the first changes that the slow follower
    // needs are dropped, together with what the connection's buffers don't hold.
    let id = slow.id.clone();
    for number in 1..=2_u32 {
        let lines: String = (0..40_000)
            .map(|rocket| launched(&format!("r{rocket:05}"), number).to_string() + "\n")
            .collect();
        assert_eq!(client.post_lines(lines.as_bytes()).json()["applied"], 40_000);
        posted(&mut client, &launched("last", number));
        // The fast follower gets everything, or starts again.
        let mut processed = 0;
        while processed < number {
            match quick.next() {
                Some(event) if event.data["channel"] == "last" => {
                    processed = event.data["messages"]["processed"].as_u64().unwrap() as u32;
                }
                Some(_) => {}
                None => quick = Events::open(app.address, "", quick.id.as_deref()),
            }
        }
    }
    while slow.next().is_some() {}
    assert_ne!(slow.id, id);
    let mut back = Events::open(app.address, "", slow.id.as_deref());
    assert_eq!(back.snapshot().len(), 40_001);
}

/// The time of receipt of a rocket without a notification, as left by a writer that dies after its
/// commit, or whose clock is wrong.
const OLD_CLOCK: &str = "2001-01-01 00:00:00";

#[test]
fn what_others_write_is_told_whatever_their_clocks_say() {
    tells_what_others_write(&TestDatabase::create());
}

#[test]
fn what_others_write_is_told_where_each_node_numbers_its_own_transactions() {
    tells_what_others_write(&divided());
}

fn tells_what_others_write(database: &TestDatabase) {
    let service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    posted(&mut client, &launched("a", 1));
    posted(&mut client, &launched("b", 1));
    let mut stream = Events::open(service.address, "", None);
    assert_eq!(stream.snapshot(), ["a", "b"]);
    for (channel, speed) in [("b", 7), ("a", 8), ("b", 9)] {
        execute(
            &database.url,
            &format!(
                "UPDATE rockets SET speed = {speed}, last_received = '{OLD_CLOCK}Z' \
                 WHERE channel = '{channel}'"
            ),
        );
        stream.until("the change", |event| {
            event.data["channel"] == channel && event.data["speed"] == speed
        });
    }
    // A transaction that starts long before it ends.
    let mut slow = Session::open(&database.url);
    slow.execute("BEGIN; UPDATE rockets SET speed = 10 WHERE channel = 'a'");
    for speed in [11, 12] {
        execute(&database.url, &format!("UPDATE rockets SET speed = {speed} WHERE channel = 'b'"));
        stream.until("b", |event| event.data["channel"] == "b" && event.data["speed"] == speed);
    }
    slow.execute("COMMIT");
    stream.until("a", |event| event.data["channel"] == "a" && event.data["speed"] == 10);
    execute(
        &database.url,
        &format!(
            "BEGIN; DELETE FROM rockets WHERE channel = 'b';
             DELETE FROM processed_ranges WHERE channel = 'b';
             INSERT INTO rockets_forgotten (channel, forgotten_at, bucket)
             VALUES ('b', '{OLD_CLOCK}Z', 0); COMMIT"
        ),
    );
    stream.until("b is gone", |event| event.name == "gone" && event.data["channel"] == "b");
}

#[test]
fn what_another_process_writes_to_the_file_is_told_whatever_its_clock_says() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    // More than are read at a time.
    let lines: String =
        (0..3_000).map(|rocket| launched(&format!("r{rocket:04}"), 1).to_string() + "\n").collect();
    assert_eq!(client.post_lines(lines.as_bytes()).json()["applied"], 3_000);
    let mut stream = Events::open(app.address, "", None);
    assert_eq!(stream.snapshot().len(), 3_000);
    for (channel, speed) in [("r0000", 7), ("r2999", 8), ("r1024", 9)] {
        sql(
            &app.database(),
            &format!(
                "UPDATE rockets SET speed = {speed}, last_received = '2001-01-01T00:00:00.000000Z'
                 WHERE channel = '{channel}'"
            ),
        );
        let event = stream.until("the change", |event| event.name == "rocket");
        assert_eq!(
            (&event.data["channel"], &event.data["speed"]),
            (&json!(channel), &json!(speed))
        );
    }
    sql(
        &app.database(),
        "BEGIN; DELETE FROM rockets WHERE channel = 'r1024';
         DELETE FROM processed_ranges WHERE channel = 'r1024';
         INSERT INTO rockets_forgotten VALUES ('r1024', '2001-01-01T00:00:00.000000Z'); COMMIT",
    );
    assert_eq!(stream.until("it is gone", |event| event.name == "gone").data["channel"], "r1024");
}

#[test]
fn of_messages_that_were_not_stored_followers_hear_nothing() {
    let app = App::spawn(Backend::SqliteFile);
    let mut client = app.client();
    posted(&mut client, &launched("a", 1));
    let mut stream = Events::open(app.address, "", None);
    assert_eq!(stream.snapshot(), ["a"]);
    app.failures.plan(rocket_monitor::store::fault_injection::FailurePoint::BeforeCommit, 1);
    client.post(&launched("never", 1)).problem(503);
    posted(&mut client, &faster("a", 2, 1));
    // All events are for what was stored, also those that come after it.
    let mut hears_of = |channel: &str| {
        stream.until("what was stored", |event| {
            assert_ne!(event.data["channel"], "never", "{event:?}");
            event.data["channel"] == channel
        })
    };
    hears_of("a");
    posted(&mut client, &launched("b", 1));
    hears_of("b");
}
