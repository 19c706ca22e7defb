//! Losses: declared, listed and withdrawn, and the exact view across them.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client, encode, rocket};
use testkit::conformance;
use testkit::events::Events;
use testkit::message::{Event, Sent, faster, launched};
use testkit::oracle::Oracle;
use testkit::postgres::query as query_postgres;
use testkit::process::{Service, run, stdout};
use testkit::sqlite::query as query_sqlite;

conformance!(
    any_messages_declarations_and_withdrawals_agree_with_sets_of_numbers,
    a_loss_is_declared_listed_and_withdrawn,
    bad_declarations_name_the_field_and_change_nothing,
    declarations_and_withdrawals_are_events,
    a_forgotten_rocket_has_no_losses,
    gaps_are_listed_in_pages,
);

fn path(channel: &str) -> String {
    format!("/rockets/{}/losses", encode(channel))
}

fn declare(client: &mut Client, channel: &str, first: u32, last: u32) -> Answer {
    let body = json!({ "first": first, "last": last, "reason": "the tape is gone" });
    client.request("POST", &path(channel), &[], body.to_string().as_bytes()).unwrap()
}

fn withdraw(client: &mut Client, channel: &str, first: u32, last: u32) -> Answer {
    let path = format!("{}?first={first}&last={last}", path(channel));
    client.request("DELETE", &path, &[], b"").unwrap()
}

fn gaps(client: &mut Client, channel: &str, query: &str) -> Value {
    let answer = client.get(&format!("/rockets/{}/gaps?{query}", encode(channel)));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A message of every kind among each five numbers.
fn sent(channel: &str, number: u32) -> Sent {
    let event = match number % 5 {
        0 => Event::Launched(format!("T{number}"), 100, format!("M{number}")),
        1 => Event::Mission(format!("M{number}")),
        2 if number.is_multiple_of(3) => Event::Exploded(format!("R{number}")),
        _ => Event::Faster(1 << (number % 30)),
    };
    Sent { channel: channel.to_owned(), number, micros: number * 7 % 50, event }
}

/// A channel without gaps, one that begins with a gap, and one that must be escaped.
const CHANNELS: [&str; 3] = ["a", "b", "a/b %é"];

fn any_messages_declarations_and_withdrawals_agree_with_sets_of_numbers(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for seed in 0..6 {
        let mut rng = StdRng::seed_from_u64(seed);
        let channels = CHANNELS.map(|channel| format!("{channel}-{seed}"));
        let mut oracle = Oracle::default();
        for channel in &channels {
            let first = sent(channel, rng.random_range(1..30));
            oracle.send(&first);
            client.post(&first.json());
        }
        for _ in 0..60 {
            let channel = channels.choose(&mut rng).unwrap();
            let first = rng.random_range(1..30_u32);
            let last = first + rng.random_range(0..6);
            match rng.random_range(0..10) {
                0..4 => {
                    let numbers = [first, last];
                    numbers.iter().for_each(|number| oracle.send(&sent(channel, *number)));
                    let lines = numbers.map(|number| sent(channel, number).json().to_string());
                    client.post_lines(lines.join("\n").as_bytes());
                }
                4..8 => {
                    let highest = oracle.rocket(channel, false)["messages"]["highest"].clone();
                    let answer = declare(&mut client, channel, first, last);
                    if last >= highest.as_u64().unwrap() as u32 {
                        answer.problem(422);
                    } else {
                        assert_eq!(
                            answer.json(),
                            json!({ "lost": oracle.lose(channel, first..=last) })
                        );
                    }
                }
                _ => {
                    let answer = withdraw(&mut client, channel, first, last).json();
                    let withdrawn = oracle.withdraw(channel, first..=last);
                    assert_eq!(answer, json!({ "withdrawn": withdrawn }));
                }
            }
            agrees(&mut client, &oracle, channel);
        }
        lists_agree(&mut client, &oracle, &channels);
        views_agree(&app, backend, &oracle);
    }
    if !matches!(backend, Backend::SqliteMemory) {
        let checked = run(&["check", "--database", &app.database_argument()]);
        assert!(stdout(&checked).contains(" 0 problems"), "{checked:?}");
    }
}

/// The rocket agrees with the oracle, alone in each view and in both, and so do its gaps.
fn agrees(client: &mut Client, oracle: &Oracle, channel: &str) {
    let views = [("best-effort", false), ("exact", true)];
    for (view, exact) in views {
        assert_eq!(rocket(client, channel, view), oracle.rocket(channel, exact), "{view}");
    }
    let both = client.get(&format!("/rockets/{}?view=both", encode(channel))).json();
    for (member, exact) in [("bestEffort", false), ("exact", true)] {
        let mut expected = oracle.rocket(channel, exact);
        assert_eq!(both["messages"], expected["messages"]);
        let members = expected.as_object_mut().unwrap();
        members.retain(|member, _| member != "channel" && member != "messages");
        assert_eq!(both[member], expected);
    }
    let gaps = gaps(client, channel, "limit=1000");
    let ends = |gap: &Value| json!([gap["first"], gap["last"]]);
    let listed: Vec<Value> = gaps["gaps"].as_array().unwrap().iter().map(ends).collect();
    let progress = &oracle.rocket(channel, false)["messages"];
    assert_eq!(json!(listed), progress["gaps"]);
    // The losses that overlap a gap, cut to it, are the lost numbers.
    let mut lost = BTreeSet::new();
    for gap in gaps["gaps"].as_array().unwrap() {
        assert_ne!(gap["lost"], json!([]));
        for loss in gap["lost"].as_array().into_iter().flatten() {
            let number = |of: &Value, member: &str| of[member].as_u64().unwrap();
            let first = number(loss, "first").max(number(gap, "first"));
            let last = number(loss, "last").min(number(gap, "last"));
            assert!(first <= last, "{gap}");
            (first..=last).for_each(|number| assert!(lost.insert(number), "twice: {gap}"));
        }
    }
    assert_eq!(json!(lost.len()), progress["lost"]);
}

/// Pages in both views agree with the oracle, in an order that the copy in memory answers and in
/// one that the tables answer.
fn lists_agree(client: &mut Client, oracle: &Oracle, channels: &[String]) {
    for sort in ["channel", "speed"] {
        for (view, exact) in [("best-effort", false), ("exact", true)] {
            let page = client.get(&format!("/rockets?view={view}&sort={sort}&limit=1000")).json();
            for channel in channels {
                let items = page["rockets"].as_array().unwrap();
                let item = items.iter().find(|item| item["channel"] == *channel);
                let item = item.unwrap_or_else(|| panic!("{channel} is not in {page}"));
                let mut item = item.clone();
                item.as_object_mut().unwrap().remove("lastReceived").unwrap();
                let mut expected = oracle.rocket(channel, exact);
                expected["messages"].as_object_mut().unwrap().remove("gaps").unwrap();
                assert_eq!(item, expected, "{view} {sort}");
            }
        }
    }
}

/// The views `rockets_exact` and `gaps` agree with the oracle.
fn views_agree(app: &App, backend: Backend, oracle: &Oracle) {
    let exact = "SELECT channel, status, type, speed, mission, exploded_reason, \
                 latest_mission_msg, latest_exploded_msg, exact_through FROM rockets_exact";
    let lost = "SELECT channel, sum(lost) AS lost, sum(last_missing - first_missing + 1) \
                AS missing FROM gaps GROUP BY channel";
    let query = |sql: &str, columns: &[&str]| -> Vec<Vec<Value>> {
        match backend {
            Backend::SqliteMemory => Vec::new(),
            Backend::SqliteFile => query_sqlite(&app.database(), sql),
            Backend::Postgres | Backend::Citus => {
                let sql = sql.replace("sum(lost)", "sum(lost)::bigint");
                let sql = sql.replace("+ 1) AS", "+ 1)::bigint AS");
                let rows = query_postgres(&app.database_argument(), &sql);
                let cells =
                    |row: &Value| columns.iter().map(|column| row[*column].clone()).collect();
                rows.iter().map(cells).collect()
            }
        }
    };
    let is_ours = |row: &[Value]| oracle.channels().any(|channel| row[0] == channel);
    let columns = [
        "channel",
        "status",
        "type",
        "speed",
        "mission",
        "exploded_reason",
        "latest_mission_msg",
        "latest_exploded_msg",
        "exact_through",
    ];
    for row in query(exact, &columns).iter().filter(|row| is_ours(row)) {
        let must = oracle.rocket(row[0].as_str().unwrap(), true);
        let must = [
            &must["channel"],
            &must["status"],
            &must["type"],
            &must["speed"],
            &must["mission"],
            &must["explodedReason"],
            &must["latestMissionMessage"],
            &must["latestExplodedMessage"],
            &must["messages"]["exactThrough"],
        ];
        assert_eq!(row.iter().collect::<Vec<_>>(), must);
    }
    for row in query(lost, &["channel", "lost", "missing"]).iter().filter(|row| is_ours(row)) {
        let must = &oracle.rocket(row[0].as_str().unwrap(), true)["messages"];
        assert_eq!([&row[1], &row[2]], [&must["lost"], &must["missing"]], "{row:?}");
    }
}

fn a_loss_is_declared_listed_and_withdrawn(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for message in [launched("r", 1), faster("r", 4, 10), faster("r", 7, 100)] {
        client.post(&message);
    }
    let since = client.get("/rockets/r").json()["lastReceived"].clone();
    assert_eq!(declare(&mut client, "r", 2, 3).json(), json!({ "lost": 2 }));
    assert_eq!(declare(&mut client, "r", 2, 3).json(), json!({ "lost": 0 }), "repeated");
    // Of 3 to 5, 3 is lost already and 4 was processed.
    assert_eq!(declare(&mut client, "r", 3, 5).json(), json!({ "lost": 1 }));
    let listed = gaps(&mut client, "r", "");
    let [first, second] = &listed["gaps"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&first["first"], &first["last"]), (&json!(2), &json!(3)));
    assert_eq!(
        (&second["first"], &second["last"], &second["since"]),
        (&json!(5), &json!(6), &since)
    );
    let declared_at = first["lost"][0]["declaredAt"].clone();
    assert!(declared_at.as_str().unwrap() > since.as_str().unwrap());
    let expected = json!([{
        "first": 2, "last": 3, "reason": "the tape is gone", "declaredAt": declared_at,
    }]);
    assert_eq!(first["lost"], expected);
    assert_eq!((&second["lost"][0]["first"], &second["lost"][0]["last"]), (&json!(4), &json!(5)));
    let exact = rocket(&mut client, "r", "exact");
    assert_eq!((&exact["speed"], &exact["status"]), (&json!(510), &json!("launched")));
    assert_eq!(exact["messages"]["exactThrough"], 5);
    assert_eq!(exact["messages"]["completeThrough"], 1);
    assert_eq!(exact["messages"]["missing"], 4);
    // A lost message that arrives after all counts like any other.
    assert_eq!(client.post(&faster("r", 3, 1_000)).status, 204);
    let healed = rocket(&mut client, "r", "exact");
    assert_eq!((&healed["speed"], &healed["messages"]["lost"]), (&json!(1_510), &json!(2)));
    assert_eq!(withdraw(&mut client, "r", 1, 4).json(), json!({ "withdrawn": 1 }));
    let messages = rocket(&mut client, "r", "exact")["messages"].clone();
    assert_eq!((&messages["exactThrough"], &messages["lost"]), (&json!(1), &json!(1)));
    assert_eq!(gaps(&mut client, "r", "")["gaps"][0]["lost"], Value::Null);
    assert_eq!(withdraw(&mut client, "r", 1, 4).json(), json!({ "withdrawn": 0 }));
}

fn bad_declarations_name_the_field_and_change_nothing(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for message in [launched("r", 1), faster("r", 9, 10)] {
        client.post(&message);
    }
    let before = rocket(&mut client, "r", "exact");
    let mut post = |channel: &str, body: &Value| {
        let body = body.to_string();
        client.request("POST", &path(channel), &[], body.as_bytes()).unwrap()
    };
    let good = json!({ "first": 2, "last": 3, "reason": "r" });
    post("never heard of", &good).problem(404);
    for (member, value, pointer) in [
        ("first", json!(0), "/first"),
        ("first", json!("2"), "/first"),
        ("first", json!(4), "/last"),
        ("last", json!(9), "/last"),
        ("last", json!(4_294_967_296_u64), "/last"),
        ("reason", json!(""), "/reason"),
        ("reason", json!("\u{7}"), "/reason"),
        ("reason", Value::Null, "/reason"),
    ] {
        let mut body = good.clone();
        body[member] = value;
        let problem = post("r", &body).problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
    }
    client.request("POST", &path("r"), &[], b"{").unwrap().problem(400);
    client.request("POST", &format!("{}?x=1", path("r")), &[], b"{}").unwrap().problem(400);
    for (query, parameters) in [
        ("", &["first", "last"][..]),
        ("first=2", &["last"]),
        ("first=2&last=x", &["last"]),
        ("first=3&last=2", &["last"]),
        ("first=0&last=2", &["first"]),
        ("first=2&first=2&last=2", &["first"]),
        ("first=2&last=2&reason=r", &["reason"]),
    ] {
        let answer = client.request("DELETE", &format!("{}?{query}", path("r")), &[], b"").unwrap();
        let problem = answer.problem(400);
        let errors = problem["errors"].as_array().unwrap();
        let named: Vec<_> =
            errors.iter().map(|error| error["parameter"].as_str().unwrap()).collect();
        assert_eq!(named, parameters, "{query}");
    }
    withdraw(&mut client, "never heard of", 1, 2).problem(404);
    client.get("/rockets/never/gaps").problem(404);
    for query in ["limit=0", "limit=1001", "cursor=x", "cursor=", "sort=first", "limit=1&limit=2"] {
        client.get(&format!("/rockets/r/gaps?{query}")).problem(400);
    }
    assert_eq!(rocket(&mut client, "r", "exact"), before);
}

fn declarations_and_withdrawals_are_events(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for message in [launched("r", 1), faster("r", 4, 10)] {
        client.post(&message);
    }
    let mut events = Events::open(app.address, "?channel=r", None);
    events.snapshot();
    // Events may repeat a state.
    let mut expect = |what: &str, lost: i64, exact_through: i64| {
        events.until(what, |event| {
            let messages = &event.data["messages"];
            (&messages["lost"], &messages["exactThrough"]) == (&json!(lost), &json!(exact_through))
        });
    };
    declare(&mut client, "r", 2, 3);
    expect("declared", 2, 4);
    withdraw(&mut client, "r", 3, 3);
    expect("withdrawn", 1, 2);
    client.post(&faster("r", 2, 10));
    expect("healed", 0, 2);
    if matches!(backend, Backend::SqliteMemory) {
        return;
    }
    // Another process declares.
    let other = Service::start(app.database_argument());
    declare(&mut Client::new(other.address), "r", 3, 3);
    expect("declared elsewhere", 1, 4);
    withdraw(&mut Client::new(other.address), "r", 3, 3);
    expect("withdrawn elsewhere", 0, 2);
}

fn a_forgotten_rocket_has_no_losses(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for message in [launched("r", 1), faster("r", 4, 10)] {
        client.post(&message);
    }
    declare(&mut client, "r", 2, 3);
    assert_eq!(client.request("DELETE", "/rockets/r", &[], b"").unwrap().status, 204);
    client.request("DELETE", "/rockets/r", &[], b"").unwrap().problem(404);
    client.post(&faster("r", 4, 10));
    let messages = rocket(&mut client, "r", "exact")["messages"].clone();
    assert_eq!((&messages["lost"], &messages["exactThrough"]), (&json!(0), &json!(0)));
    assert_eq!(gaps(&mut client, "r", "")["gaps"][0]["lost"], Value::Null);
}

fn gaps_are_listed_in_pages(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let lines: Vec<String> =
        (1..=250).map(|index| faster("a/b", 3 * index, 1).to_string()).collect();
    client.post_lines(lines.join("\n").as_bytes());
    let all = gaps(&mut client, "a/b", "limit=1000");
    assert_eq!(all["nextCursor"], Value::Null);
    let all = all["gaps"].as_array().unwrap().clone();
    assert_eq!(all.len(), 250);
    for limit in [1, 7, 125, 250] {
        let (mut listed, mut next) = (Vec::new(), format!("/rockets/a%2Fb/gaps?limit={limit}"));
        loop {
            let answer = client.get(&next);
            let page = answer.json();
            listed.extend(page["gaps"].as_array().unwrap().clone());
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            let link = answer.header("link").unwrap();
            next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().into();
            assert!(next.ends_with(&format!("cursor={cursor}")), "{next}");
        }
        assert_eq!(listed, all, "{limit}");
    }
    // A cursor belongs to its channel.
    client.post(&faster("other", 5, 1));
    let cursor = gaps(&mut client, "a/b", "limit=1")["nextCursor"].clone();
    let cursor = cursor.as_str().unwrap();
    client.get(&format!("/rockets/other/gaps?cursor={cursor}")).problem(400);
    // The gap at the cursor closes: the next page still begins right after it.
    for number in [1, 2] {
        client.post(&faster("a/b", number, 1));
    }
    let next = gaps(&mut client, "a/b", &format!("limit=1&cursor={cursor}"));
    assert_eq!((&next["gaps"][0]["first"], &next["gaps"][0]["last"]), (&json!(4), &json!(5)));
}
