//! Exports and merges: by HTTP here, by the command line in `cli/merge.rs`.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client, rocket};
use testkit::conformance;
use testkit::events::Events;
use testkit::message::{Event, Sent, faster, launched};
use testkit::oracle::Oracle;
use testkit::process::{run, stdout};

conformance!(
    databases_with_different_messages_become_one,
    what_both_contradict_is_told_and_stays,
    what_was_forgotten_does_not_come_back,
    an_export_since_a_time_has_what_has_changed,
    a_merge_is_an_event_and_later_messages_count,
    what_is_no_export_is_refused,
    messages_and_merges_of_the_same_rockets_wait_for_each_other,
);

const ROCKETS: u32 = 12;

fn sent(rocket: u32, number: u32) -> Sent {
    let event = match number % 6 {
        1 => Event::Launched(format!("T{number}"), 100, format!("M{number}")),
        2 => Event::Mission(format!("M{number}")),
        3 if number.is_multiple_of(5) => Event::Exploded(format!("R{number}")),
        4 => Event::Slower(number as i32 * 3),
        _ => Event::Faster(1 << (number % 30)),
    };
    Sent { channel: format!("r{rocket}"), number, micros: number * 7 % 50, event }
}

fn lines<'s>(sent: impl IntoIterator<Item = &'s Sent>) -> String {
    sent.into_iter().map(|sent| sent.json().to_string() + "\n").collect()
}

fn export(client: &mut Client, query: &str) -> String {
    let answer = client.get(&format!("/export{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    String::from_utf8(answer.body).unwrap()
}

fn post(client: &mut Client, export: &str) -> Answer {
    client.request("POST", "/merge", &[], export.as_bytes()).unwrap()
}

/// Merges an export, without conflicts.
fn merge(client: &mut Client, export: &str) -> Value {
    let answer = post(client, export);
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = answer.json();
    assert_eq!(report["conflicts"], json!([]));
    report
}

fn agree(client: &mut Client, oracle: &Oracle) {
    for channel in oracle.channels() {
        assert_eq!(rocket(client, channel, "best-effort"), oracle.rocket(channel, false));
        assert_eq!(rocket(client, channel, "exact"), oracle.rocket(channel, true));
    }
    let listed = client.get("/rockets?limit=1000").json();
    assert_eq!(listed["rockets"].as_array().unwrap().len(), oracle.channels().count());
}

fn is_sound(app: &App, backend: Backend) {
    if !matches!(backend, Backend::SqliteMemory) {
        let checked = run(&["check", "--database", &app.database_argument()]);
        assert!(checked.status.success(), "{}", stdout(&checked));
    }
}

fn databases_with_different_messages_become_one(backend: Backend) {
    let mut random = StdRng::seed_from_u64(19);
    let all: Vec<Sent> = (0..ROCKETS)
        .flat_map(|rocket| (1..=60 + rocket).map(move |number| sent(rocket, number)))
        .collect();
    let apps = [App::spawn(backend), App::spawn(Backend::SqliteMemory)];
    let mut clients = apps.each_ref().map(App::client);
    let mut taken = [Vec::new(), Vec::new()];
    for round in 0..3 {
        for (client, taken) in clients.iter_mut().zip(&mut taken) {
            // Streaks, so that ranges overlap in part. Some rockets are in one database only.
            let mut streak = false;
            let part: Vec<Sent> = all
                .iter()
                .filter(|_| {
                    streak ^= random.random_range(0..8) == 0;
                    streak
                })
                .cloned()
                .collect();
            assert_eq!(client.post_lines(lines(&part).as_bytes()).json()["rejected"], 0);
            taken.extend(part);
        }
        let [one, other] = &mut clients;
        let union: Vec<Sent> = taken.iter().flatten().cloned().collect();
        let before = one.get("/stats").json()["processed"].as_u64().unwrap();
        let report = merge(one, &export(other, ""));
        let after = one.get("/stats").json()["processed"].as_u64().unwrap();
        assert_eq!(report["gained"], after - before, "{round}");
        let oracle = Oracle::of(&union);
        agree(one, &oracle);
        is_sound(&apps[0], backend);
        merge(other, &export(one, ""));
        agree(other, &oracle);
        // Again, nothing changes.
        for (from, to) in [(0, 1), (1, 0)] {
            let export = export(&mut clients[from], "");
            let report = merge(&mut clients[to], &export);
            assert_eq!((&report["changed"], &report["gained"]), (&json!(0), &json!(0)));
        }
        let ranges = |export: String| -> Vec<String> {
            let rockets = export.lines().skip(1).map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                for range in line["rocket"]["ranges"].as_array_mut().unwrap() {
                    range["firstReceived"].take();
                }
                line["rocket"]["ranges"].to_string()
            });
            rockets.collect()
        };
        // The same messages have the same form, blocks included.
        let [one, other] = &mut clients;
        assert_eq!(ranges(export(one, "")), ranges(export(other, "")));
    }
    // Copies of what was merged are duplicates, and what was missing counts.
    let union: Vec<Sent> = taken.into_iter().flatten().collect();
    for client in &mut clients {
        let counts = client.post_lines(lines(&union).as_bytes()).json();
        assert_eq!((&counts["applied"], &counts["rejected"]), (&json!(0), &json!(0)));
        client.post_lines(lines(&all).as_bytes());
        agree(client, &Oracle::of(&all));
    }
    is_sound(&apps[0], backend);
}

fn what_both_contradict_is_told_and_stays(backend: Backend) {
    let (target, source) = (App::spawn(backend), App::spawn(Backend::SqliteMemory));
    let (mut target, mut source) = (target.client(), source.client());
    let same = [launched("a", 1), faster("a", 3, 1), launched("b", 1)];
    for (client, by) in [(&mut target, 5), (&mut source, 7)] {
        same.iter().chain([&faster("a", 2, by)]).for_each(|message| {
            client.post(message);
        });
    }
    source.post(&faster("a", 4, 1));
    source.post(&faster("b", 2, 1));
    for (round, gained) in [(0, 2), (1, 0)] {
        let report = post(&mut target, &export(&mut source, "")).json();
        assert_eq!((&report["rockets"], &report["gained"]), (&json!(2), &json!(gained)), "{round}");
        // The smallest block that both have.
        let detail = "the speed changes by 6 here, and by 8 there";
        let conflict = json!({ "channel": "a", "first": 2, "last": 3, "detail": detail });
        assert_eq!(report["conflicts"], json!([conflict]), "{round}");
        assert_eq!(target.get("/rockets/a").json()["speed"], 500 + 5 + 1 + 1);
        assert_eq!(target.get("/rockets/b").json()["speed"], 501);
    }
}

fn what_was_forgotten_does_not_come_back(backend: Backend) {
    let (one, other) = (App::spawn(backend), App::spawn(Backend::SqliteMemory));
    let (mut one, mut other) = (one.client(), other.client());
    one.post(&launched("a", 1));
    one.post(&launched("b", 1));
    let old = export(&mut one, "");
    merge(&mut other, &old);
    assert_eq!(one.request("DELETE", "/rockets/a", &[], b"").unwrap().status, 204);
    assert_eq!(merge(&mut one, &old)["changed"], 0);
    assert_eq!(one.get("/rockets/a").status, 404);
    // The other database forgets it, too, and tells others.
    assert_eq!(merge(&mut other, &export(&mut one, ""))["changed"], 1);
    assert_eq!(other.get("/rockets/a").status, 404);
    assert!(export(&mut other, "").contains(r#"{"forgotten":{"channel":"a""#));
    assert_eq!(merge(&mut other, &old)["changed"], 0);
    // What is received later counts as a new rocket, and is merged.
    assert_eq!(other.post(&launched("a", 1)).header("idempotent-replayed"), None);
    assert_eq!(merge(&mut one, &export(&mut other, ""))["changed"], 1);
    assert_eq!(one.get("/rockets/a").status, 200);
}

fn an_export_since_a_time_has_what_has_changed(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    client.post(&launched("a/1", 1));
    client.post(&launched("b", 3));
    let channels = |export: &str| -> Vec<String> {
        let lines = export.lines().skip(1);
        let channel = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let entry = line.get("rocket").or(line.get("forgotten")).unwrap();
            entry["channel"].as_str().unwrap().to_owned()
        };
        lines.map(channel).collect()
    };
    let first = export(&mut client, "");
    assert_eq!(channels(&first), ["a/1", "b"]);
    let header: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(header["rocketMonitor"]["format"], 1);
    let time = |name: &str| header["rocketMonitor"][name].as_str().unwrap().to_owned();
    assert!(time("through") < time("exportedAt"));
    assert_eq!(channels(&export(&mut client, "?channelPrefix=a/")), ["a/1"]);
    assert_eq!(channels(&export(&mut client, "?since=2999-01-01T00:00:00Z")), [""; 0]);
    // From here on: a message, a loss, a rocket by a merge, a forgotten one.
    let since = format!("?since={}", time("exportedAt"));
    assert_eq!(channels(&export(&mut client, &since)), [""; 0]);
    let loss = json!({ "first": 1, "last": 2, "reason": "x" }).to_string();
    let lost = client.request("POST", "/rockets/b/losses", &[], loss.as_bytes()).unwrap();
    assert_eq!(lost.status, 200);
    assert_eq!(channels(&export(&mut client, &since)), ["b"]);
    let old = first.replace("a/1", "old");
    assert_eq!(merge(&mut client, &old)["changed"], 1);
    assert_eq!(channels(&export(&mut client, &since)), ["b", "old"]);
    client.request("DELETE", "/rockets/a%2F1", &[], b"").unwrap();
    client.post(&faster("c", 2, 1));
    assert_eq!(channels(&export(&mut client, &since)), ["b", "c", "old", "a/1"]);
    let errors = client.get("/export?since=yesterday&limit=1").problem(400)["errors"].clone();
    let parameters: Vec<_> =
        errors.as_array().unwrap().iter().map(|error| error["parameter"].clone()).collect();
    assert_eq!(parameters.len(), 2, "{errors}");
}

fn a_merge_is_an_event_and_later_messages_count(backend: Backend) {
    let (one, other) = (App::spawn(backend), App::spawn(Backend::SqliteMemory));
    let (mut client, mut other) = (one.client(), other.client());
    for number in 1..=5 {
        client.post(&faster("r", number, 1));
    }
    for number in [4, 5, 6, 9] {
        other.post(&faster("r", number, 1));
    }
    let mut events = Events::open(one.address, "", None);
    events.snapshot();
    assert_eq!(merge(&mut client, &export(&mut other, ""))["gained"], 2);
    events.until("the merged rocket", |event| event.data["messages"]["processed"] == 7);
    // The writer's cached ranges are outdated now.
    for number in [5, 6, 7, 8, 9, 10] {
        client.post(&faster("r", number, 1));
    }
    let rocket = one.rocket("r", "exact");
    assert_eq!(
        (&rocket["speed"], &rocket["messages"]["completeThrough"]),
        (&json!(10), &json!(10))
    );
    is_sound(&one, backend);
}

fn what_is_no_export_is_refused(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let other = App::spawn(Backend::SqliteMemory);
    let mut other = other.client();
    for message in [launched("a", 1), faster("a", 4, 1), launched("b", 1)] {
        other.post(&message);
    }
    let sound = export(&mut other, "");
    let [header, a, b] = sound.lines().collect::<Vec<_>>()[..] else { panic!("{sound}") };
    for bad in [
        String::new(),
        a.to_owned(),
        launched("a", 1).to_string(),
        header.replace("\"format\":1", "\"format\":2"),
        format!("{header}\n{header}"),
        format!("{header}\n{}", a.replace("\"first\":4", "\"first\":2")),
        format!("{header}\n{}", a.replace("\"first\":4", "\"first\":5")),
        format!("{header}\n{}", a.replace("\"speedChange\":1", "\"speedChange\":2")),
        format!("{header}\n{}", a.replace("\"number\":1", "\"number\":2")),
        format!("{header}\n{}", a.replace("lastReceived", "received")),
        format!("{header}\n{}", a.replace("\"ranges\"", "\"losses\"")),
    ] {
        let problem = post(&mut client, &bad).problem(422);
        assert_eq!(problem["changed"], 0, "{bad}");
        assert_eq!(client.get("/stats").json()["rockets"], 0, "{bad}");
    }
    // What is before a bad line was merged.
    let problem = post(&mut client, &format!("{header}\n{b}\nnonsense\n{a}")).problem(422);
    assert!(problem["detail"].as_str().unwrap().contains("export: line 3: "), "{problem}");
    assert_eq!((&problem["rockets"], &problem["changed"]), (&json!(1), &json!(1)));
    assert_eq!(client.get("/rockets/b").status, 200);
    assert_eq!(client.get("/rockets/a").status, 404);
}

/// Both lock rockets in the order of their channels, also those that a merge only forgets.
fn messages_and_merges_of_the_same_rockets_wait_for_each_other(backend: Backend) {
    const ROUNDS: u32 = 40;
    let channels: Vec<String> = (0..200).map(|rocket| format!("r{rocket:03}")).collect();
    let (app, other) = (App::spawn(backend), App::spawn(Backend::SqliteMemory));
    let mut other = other.client();
    let messages = |number: u32| -> String {
        channels.iter().map(|channel| faster(channel, number, 1).to_string() + "\n").collect()
    };
    other.post_lines(messages(1).as_bytes());
    let sound = export(&mut other, "");
    // The second half of the rockets, and then that the others were forgotten long ago.
    let rockets: Vec<&str> = sound.lines().skip(1 + 100).collect();
    let merged = |round: u32| -> String {
        let forgotten = channels.iter().take(100).map(|channel| {
            let at = format!("2001-01-01T00:00:{:02}Z", round % 60);
            json!({ "forgotten": { "channel": channel, "forgottenAt": at } }).to_string()
        });
        let lines = sound.lines().take(1).map(str::to_owned);
        let lines = lines.chain(rockets.iter().map(|line| (*line).to_owned())).chain(forgotten);
        lines.map(|line| line + "\n").collect()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = app.client();
            for number in 2..2 + ROUNDS {
                let counts = client.post_lines(messages(number).as_bytes()).json();
                assert_eq!(counts["applied"], 200, "{counts}");
            }
        });
        let mut client = app.client();
        for round in 0..ROUNDS {
            merge(&mut client, &merged(round));
        }
    });
    let stats = app.client().get("/stats").json();
    assert_eq!(stats["processed"], 200 * u64::from(ROUNDS) + 100, "{stats}");
    is_sound(&app, backend);
}
