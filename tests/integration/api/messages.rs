//! POST /messages: every bound, every error, and the effect of messages in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Client, encode, rocket};
use testkit::conformance;
use testkit::message::{Sent, exploded, faster, launched, launched_as, mission_changed, slower};
use testkit::oracle::{Oracle, arrivals};
use testkit::process::{run, stdout};
use testkit::sqlite::query;

conformance!(
    the_example_is_taken_once,
    every_effect_counts,
    both_views_differ_while_a_gap_is_open,
    both_views_are_read_as_of_one_moment,
    bounds_of_texts,
    bounds_of_numbers,
    bounds_of_times,
    every_wrong_shape_is_told_with_its_place,
    unknown_members_may_hold_anything,
    bodies_that_are_not_json,
    sizes_and_encodings,
    who_sends_many_messages_as_one_is_told_how_to,
    lines_are_taken_one_by_one,
    a_stream_of_many_parts,
    identity_of_channels_is_bytes,
    health_and_unknown_places,
    any_order_over_http,
);

fn the_example_is_taken_once(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let first = client.post(&launched("r", 1));
    assert_eq!(
        (first.status, first.header("idempotent-replayed"), first.body.len()),
        (204, None, 0)
    );
    // Contents are not compared: the first copy counts.
    let mut other = launched("r", 1);
    other["message"]["mission"] = json!("OTHER");
    let again = client.post(&other);
    assert_eq!((again.status, again.header("idempotent-replayed")), (204, Some("true")));
    let answer = client.get("/rockets/r");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let mut json = answer.json();
    let received = json["lastReceived"].take();
    assert_eq!(received.as_str().unwrap().len(), 27);
    assert_eq!(
        json,
        json!({
            "channel": "r", "status": "launched", "type": "Falcon-9", "speed": 500,
            "mission": "ARTEMIS", "explodedReason": null, "latestMissionMessage": 1,
            "latestExplodedMessage": null, "latestUpdate": "2022-02-02T18:39:05.863370Z",
            "lastReceived": null,
            "messages": {
                "processed": 1, "completeThrough": 1, "highest": 1, "missing": 0,
                "exactThrough": 1, "lost": 0, "gaps": [],
            },
        })
    );
    // A duplicate does not change lastReceived.
    client.post(&other);
    assert_eq!(client.get("/rockets/r").json()["lastReceived"], received);
}

fn every_effect_counts(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let messages = [
        launched_as("r", 6, "Vega", 10, "B"),
        slower("r", 2, i32::MAX),
        slower("r", 3, i32::MIN),
        exploded("r", 5, "BOOM"),
        mission_changed("r", 4, "A"),
        launched("r", 1),
    ];
    for message in &messages {
        assert_eq!(client.post(message).status, 204);
    }
    let rocket = app.rocket("r", "exact");
    assert_eq!(rocket, app.rocket("r", "best-effort"));
    // 500 - 2147483647 + 2147483648 + 10; the second launch wins, and the explosion stays.
    assert_eq!(rocket["speed"], 511);
    assert_eq!(
        (&rocket["type"], &rocket["mission"], &rocket["status"]),
        (&json!("Vega"), &json!("B"), &json!("exploded"))
    );
    assert_eq!(
        (&rocket["latestMissionMessage"], &rocket["latestExplodedMessage"]),
        (&json!(6), &json!(5))
    );
    assert_eq!(rocket["explodedReason"], "BOOM");
}

fn both_views_differ_while_a_gap_is_open(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    client.post(&faster("r", 3, 7));
    let exact = app.rocket("r", "exact");
    assert_eq!(
        exact,
        json!({
            "channel": "r", "status": "awaitingLaunch", "type": null, "speed": 0, "mission": null,
            "explodedReason": null, "latestMissionMessage": null, "latestExplodedMessage": null,
            "latestUpdate": null,
            "messages": {
                "processed": 1, "completeThrough": 0, "highest": 3, "missing": 2,
                "exactThrough": 0, "lost": 0, "gaps": [[1, 2]],
            },
        })
    );
    assert_eq!(app.rocket("r", "best-effort")["speed"], 7);
    client.post(&launched("r", 1));
    assert_eq!(app.rocket("r", "exact")["speed"], 500);
    assert_eq!(app.rocket("r", "exact")["messages"]["gaps"], json!([[2, 2]]));
    client.post(&faster("r", 2, 1));
    assert_eq!(app.rocket("r", "exact")["speed"], 508);
    assert_eq!(app.rocket("r", "exact"), app.rocket("r", "best-effort"));
}

fn both_views_are_read_as_of_one_moment(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    client.get("/rockets/r?view=both").problem(404);
    client.post(&launched("r", 1));
    client.post(&faster("r", 3, 7));
    let both = client.get("/rockets/r?view=both").json();
    for (member, view) in [("bestEffort", "best-effort"), ("exact", "exact")] {
        let mut one = client.get(&format!("/rockets/r?view={view}")).json();
        let one = one.as_object_mut().unwrap();
        for common in ["channel", "lastReceived", "messages"] {
            assert_eq!(both[common], one.remove(common).unwrap(), "{common}");
        }
        assert_eq!(both[member], json!(one));
    }
    assert_eq!(both.as_object().unwrap().len(), 5);
    client.post(&faster("r", 2, 1));
    // There is never a gap from here on, so the views can only differ if they come from different
    // snapshots.
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut poster = app.client();
            (4..400)
                .for_each(|number| assert_eq!(poster.post(&faster("r", number, 1)).status, 204));
        });
        while !writing.is_finished() {
            let both = client.get("/rockets/r?view=both").json();
            assert_eq!(both["bestEffort"], both["exact"]);
            assert_eq!(
                both["bestEffort"]["speed"],
                505 + both["messages"]["highest"].as_i64().unwrap()
            );
        }
    });
}

/// Asserts that the message is rejected for exactly these members.
fn refused(client: &mut Client, message: &Value, pointers: &[&str]) {
    let problem = client.post(message).problem(422);
    let told: BTreeSet<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str())
        .collect();
    assert_eq!(told, pointers.iter().copied().map(Some).collect(), "{message} {problem}");
    assert!(problem["errors"].as_array().unwrap().iter().all(|error| error["detail"].is_string()));
}

fn changed(mut message: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    message.pointer_mut(parent).unwrap()[name] = value;
    message
}

fn bounds_of_texts(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let texts = [
        (launched("r", 1), "/metadata/channel"),
        (launched("r", 1), "/message/type"),
        (launched("r", 1), "/message/mission"),
        (exploded("r", 1, "x"), "/message/reason"),
        (mission_changed("r", 1, "x"), "/message/newMission"),
    ];
    for (message, pointer) in &texts {
        for good in
            ["x".repeat(255), "🚀".repeat(255), " ".to_owned(), "\u{200b}\u{fdd0}\"\\".to_owned()]
        {
            assert_eq!(
                client.post(&changed(message.clone(), pointer, json!(good))).status,
                204,
                "{pointer} {good}"
            );
        }
        for bad in ["", "\u{0}", "a\nb", "\u{7f}", "\u{9f}", &"x".repeat(256), &"é".repeat(256)] {
            refused(&mut client, &changed(message.clone(), pointer, json!(bad)), &[pointer]);
        }
        for bad in [json!(null), json!(1), json!(true), json!(["x"]), json!({ "x": 1 })] {
            refused(&mut client, &changed(message.clone(), pointer, bad), &[pointer]);
        }
        let half = launched("r", 1).to_string().replace("\"ARTEMIS\"", r#""\ud83d""#);
        assert_eq!(
            client.post_bytes(half.as_bytes()).problem(422)["errors"][0]["pointer"],
            "/message/mission"
        );
    }
    let whole = launched("pair", 1).to_string().replace("ARTEMIS", r"\ud83d\ude80\u0041\/");
    assert_eq!(client.post_bytes(whole.as_bytes()).status, 204);
    assert_eq!(app.rocket("pair", "exact")["mission"], "🚀A/");
}

/// The message with a member's value replaced literally.
fn raw(message: &Value, member: &str, value: &str) -> String {
    let marked = message.to_string();
    let start = marked.find(&format!("\"{member}\":")).unwrap() + member.len() + 3;
    let end = start + marked[start..].find([',', '}']).unwrap();
    format!("{}{value}{}", &marked[..start], &marked[end..])
}

fn bounds_of_numbers(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let slower = |by: Value| {
        let message = changed(faster("s", 9, 1), "/message/by", by);
        changed(message, "/metadata/messageType", json!("RocketSpeedDecreased"))
    };
    for (message, member, pointer, good, bad) in [
        (
            launched("n", 1),
            "messageNumber",
            "/metadata/messageNumber",
            ["1", "4294967295", "77"],
            ["0", "-1", "4294967296"],
        ),
        (
            launched("l", 1),
            "launchSpeed",
            "/message/launchSpeed",
            ["-2147483648", "2147483647", "-0"],
            ["-2147483649", "2147483648", "99999999999999999999999"],
        ),
        (
            faster("f", 1, 1),
            "by",
            "/message/by",
            ["-2147483648", "2147483647", "0"],
            ["-2147483649", "2147483648", "-99999999999999999999999"],
        ),
        (
            slower(json!(1)),
            "by",
            "/message/by",
            ["-2147483648", "2147483647", "0"],
            ["-2147483649", "2147483648", "1e400"],
        ),
    ] {
        for good in good {
            assert_eq!(
                client.post_bytes(raw(&message, member, good).as_bytes()).status,
                204,
                "{member} {good}"
            );
        }
        for bad in bad
            .into_iter()
            .chain(["1.0", "1e0", "1E2", "0.5", "-0.0", "null", "true", "\"1\"", "[]", "{}"])
        {
            let problem = client.post_bytes(raw(&message, member, bad).as_bytes()).problem(422);
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{member} {bad}");
            assert_eq!(problem["errors"].as_array().unwrap().len(), 1);
        }
    }
    assert_eq!(app.rocket("n", "best-effort")["messages"]["highest"], 4_294_967_295_u32);
    // The largest sums that the bounds allow with one number each.
    assert_eq!(client.post(&slower(json!(-2_147_483_648_i64))).status, 204);
}

fn bounds_of_times(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for (index, (time, utc)) in [
        ("2022-02-02T19:39:05.86337+01:00", "2022-02-02T18:39:05.863370Z"),
        ("0001-01-01t00:00:00z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
        ("1969-12-31T23:59:59.9999999-00:00", "1969-12-31T23:59:59.999999Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z"),
        ("2022-01-01T00:00:00+23:59", "2021-12-31T00:01:00.000000Z"),
    ]
    .into_iter()
    .enumerate()
    {
        let channel = format!("t{index}");
        let message = changed(launched(&channel, 1), "/metadata/messageTime", json!(time));
        assert_eq!(client.post(&message).status, 204, "{time}");
        assert_eq!(app.rocket(&channel, "exact")["latestUpdate"], utc);
        // The database's own text equals it.
        if matches!(backend, Backend::SqliteFile) {
            let rows = query(
                &app.database(),
                &format!(
                    "SELECT latest_update, typeof(julianday(latest_update)) FROM rockets \
                     WHERE channel = '{channel}'"
                ),
            );
            assert_eq!(rows, [[json!(utc), json!("real")]]);
        }
    }
    for bad in [
        json!("2022-02-02 19:39:05Z"),
        json!("2022-02-02T19:39:05"),
        json!("2022-02-02T19:39:05+01"),
        json!("2022-02-02T19:39:05,5Z"),
        json!("2022-02-02T19:39:05.Z"),
        json!("2022-02-30T19:39:05Z"),
        json!("2022-02-02T24:00:00Z"),
        json!("2022-02-02T19:39:61Z"),
        json!("2022-02-02T19:39:05+24:00"),
        json!("0001-01-01T00:00:00+00:01"),
        json!("9999-12-31T23:59:60Z"),
        json!(""),
        json!(1_643_824_800),
        json!(null),
    ] {
        let message = changed(launched("r", 1), "/metadata/messageTime", bad);
        refused(&mut client, &message, &["/metadata/messageTime"]);
    }
}

fn every_wrong_shape_is_told_with_its_place(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for (body, pointers) in [
        (json!(null), vec![""]),
        (json!([]), vec![""]),
        (json!("x"), vec![""]),
        (json!(-1.5), vec![""]),
        (json!({}), vec!["/metadata", "/message"]),
        (json!({ "metadata": null, "message": null }), vec!["/metadata", "/message"]),
        (json!({ "metadata": [], "message": 3 }), vec!["/metadata", "/message"]),
        (
            json!({ "metadata": {}, "message": {} }),
            vec![
                "/metadata/channel",
                "/metadata/messageNumber",
                "/metadata/messageTime",
                "/metadata/messageType",
            ],
        ),
        (
            changed(launched("r", 1), "/metadata/messageType", json!("rocketlaunched")),
            vec!["/metadata/messageType"],
        ),
        (
            changed(launched("r", 1), "/metadata/messageType", json!("RocketExploded")),
            vec!["/message/reason"],
        ),
        (
            changed(launched("r", 1), "/metadata/messageType", json!("RocketSpeedIncreased")),
            vec!["/message/by"],
        ),
        (
            changed(launched("r", 1), "/message", json!({})),
            vec!["/message/type", "/message/launchSpeed", "/message/mission"],
        ),
        (
            changed(
                changed(launched("", 1), "/message/type", json!(7)),
                "/metadata/messageNumber",
                json!(0),
            ),
            vec!["/metadata/channel", "/metadata/messageNumber", "/message/type"],
        ),
    ] {
        refused(&mut client, &body, &pointers);
    }
    let good = launched("r", 1).to_string();
    for (from, to, pointer) in [
        ("\"metadata\":", "\"metadata\":{},\"metadata\":", "/metadata"),
        ("\"message\":", "\"message\":1,\"message\":", "/message"),
        ("\"channel\":", "\"channel\":\"r\",\"channel\":", "/metadata/channel"),
        ("\"channel\":", "\"ch\\u0061nnel\":\"r\",\"channel\":", "/metadata/channel"),
        ("\"mission\":", "\"mission\":\"r\",\"mission\":", "/message/mission"),
        ("\"mission\":", "\"by\":1,\"by\":1,\"mission\":", "/message/by"),
        ("\"mission\":", "\"a/b~\":1,\"a/b~\":1,\"mission\":", "/message/a~1b~0"),
    ] {
        let problem = client.post_bytes(good.replacen(from, to, 1).as_bytes()).problem(422);
        assert!(
            problem["errors"].as_array().unwrap().iter().any(|error| error["pointer"] == pointer),
            "{problem}"
        );
    }
    assert_eq!(client.get("/rockets/r").status, 404, "nothing of them was taken");
}

fn unknown_members_may_hold_anything(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (number, extra) in (1..).zip([
        r#""x":null"#,
        r#""x":1e999"#,
        r#""x":"\ud800""#,
        r#""\ud800":1"#,
        r#""x":{"a":1,"a":2}"#,
        &format!(r#""x":{deep}"#),
        // Members of other message types.
        r#""by":"no number","reason":null,"newMission":[1]"#,
    ]) {
        let message = launched("r", number).to_string();
        let everywhere = message
            .replace(r#""message":{"#, &format!(r#""message":{{{extra},"#))
            .replace(r#""metadata":{"#, &format!(r#"{extra},"metadata":{{{extra},"#));
        let answer = client.post_bytes(everywhere.as_bytes());
        assert_eq!(answer.status, 204, "{}: {answer:?}", &everywhere[..200]);
    }
    let reordered = concat!(
        r#" {"message":{"mission":"M","launchSpeed":1,"type":"T"} ,"#,
        "\n        ",
        r#""metadata":{"messageType":"RocketLaunched","messageTime":"2022-02-02T18:00:00Z","#,
        r#""messageNumber":8,"channel":"r"}} "#,
    );
    assert_eq!(client.post_bytes(reordered.as_bytes()).status, 204);
    assert_eq!(app.rocket("r", "exact")["messages"]["completeThrough"], 8);
}

fn bodies_that_are_not_json(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let good = launched("r", 1).to_string();
    let [control, latin] = [
        good.replace("ARTEMIS", "A\u{1}").into_bytes(),
        good.replace("ARTEMIS", "\u{0}").into_bytes(),
    ];
    let bad_utf8 = [&good.as_bytes()[..20], b"\xff", &good.as_bytes()[20..]].concat();
    let ignored_utf8 = good.replace(r#""metadata":"#, r#""x":"#).into_bytes();
    let ignored_utf8: Vec<u8> = ignored_utf8
        .iter()
        .flat_map(|byte| if *byte == b'F' { vec![0xc3] } else { vec![*byte] })
        .collect();
    for body in [
        &b""[..],
        b" ",
        b"{",
        b"nonsense",
        b"{\"a\":1,}",
        b"[1]]",
        b"NaN",
        b"{'a':1}",
        b"[01]",
        format!("{good}{good}").as_bytes(),
        format!("{good},").as_bytes(),
        format!("\u{feff}{good}").as_bytes(),
        good.replacen('{', "{\"un\tknown\":0,", 1).as_bytes(),
        &control,
        &latin,
        &bad_utf8,
        &ignored_utf8,
    ] {
        let problem = client.post_bytes(body).problem(400);
        assert!(problem.get("errors").is_none(), "{problem}");
    }
}

fn sizes_and_encodings(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let message = launched("r", 1).to_string();
    let sized = |bytes: usize| format!("{}{message}", " ".repeat(bytes - message.len()));
    assert_eq!(client.post_bytes(sized(65_536).as_bytes()).status, 204);
    Client::new(app.address).post_bytes(sized(65_537).as_bytes()).problem(413);
    // Without a Content-Length, the body is counted as it arrives.
    let mut chunked = Client::new(app.address);
    chunked
        .send(b"POST /messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    for _ in 0..4 {
        chunked.send(chunk.as_bytes()).unwrap();
    }
    chunked.send(b"1\r\n \r\n0\r\n\r\n").unwrap();
    chunked.answer(false).unwrap().problem(413);

    let brotli = client
        .request("POST", "/messages", &[("Content-Encoding", "br")], message.as_bytes())
        .unwrap();
    brotli.problem(415);
    for content_type in
        ["text/plain", "application/json", "application/x-www-form-urlencoded", "nonsense"]
    {
        let answer = Client::new(app.address).request(
            "POST",
            "/messages",
            &[("Content-Type", content_type)],
            message.as_bytes(),
        );
        assert_eq!(answer.unwrap().header("idempotent-replayed"), Some("true"), "{content_type}");
    }
}

fn who_sends_many_messages_as_one_is_told_how_to(backend: Backend) {
    let app = App::spawn(backend);
    let (first, second) = (launched("r", 1).to_string(), faster("r", 2, 1).to_string());
    let many = format!("{first}\n{second}\n");
    let too_many = format!("{second}\n").repeat(1_000);
    for (body, status) in [
        (many.as_str(), 400),
        // As sent by curl -d @FILE.
        (&many.replace('\n', ""), 400),
        (&format!("[{first},{second}]"), 422),
        (&too_many, 413),
    ] {
        let problem = Client::new(app.address).post_bytes(body.as_bytes()).problem(status);
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains(
                "To send many messages, one per line, use Content-Type: application/x-ndjson."
            ),
            "{detail}"
        );
    }
    for (body, status) in [("{", 400), ("{}", 422)] {
        let problem = app.client().post_bytes(body.as_bytes()).problem(status);
        assert!(!problem["detail"].as_str().unwrap().contains("x-ndjson"), "{problem}");
    }
}

fn lines_are_taken_one_by_one(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let body = format!(
        "\u{feff}{}\r\n\n{}\n  \t\r\n{{\n{}\n{}\n{}",
        launched("r", 1),
        faster("r", 2, 5),
        faster("r", 2, 5),
        launched("", 3),
        faster("r", 4, 1),
    );
    for content_type in [
        "application/x-ndjson",
        "application/ndjson; charset=utf-8",
        "Application/JSONL",
        "application/x-ndjson;a=b",
    ] {
        let answer = client
            .request("POST", "/messages", &[("Content-Type", content_type)], body.as_bytes())
            .unwrap();
        assert_eq!(answer.status, 200);
        let json = answer.json();
        let first = content_type == "application/x-ndjson";
        assert_eq!(json["applied"], if first { 3 } else { 0 });
        assert_eq!(json["duplicates"], if first { 1 } else { 4 });
        assert_eq!((&json["received"], &json["rejected"]), (&json!(6), &json!(2)));
        assert_eq!(
            (&json["errors"][0]["line"], &json["errors"][1]["line"]),
            (&json!(5), &json!(7))
        );
        assert!(json["errors"][1]["detail"].as_str().unwrap().contains("/metadata/channel"));
        assert_eq!(json.as_object().unwrap().len(), 5);
    }
    assert_eq!(app.rocket("r", "best-effort")["messages"]["gaps"], json!([[3, 3]]));
    let empty = client.post_lines(b"").json();
    assert_eq!(
        empty,
        json!({ "received": 0, "applied": 0, "duplicates": 0, "rejected": 0, "errors": [] })
    );
}

fn a_stream_of_many_parts(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let mut body = Vec::new();
    for number in (1..=20_000).rev() {
        body.extend(
            faster(&format!("c{}", number % 7), number / 7 + 1, 1).to_string().into_bytes(),
        );
        body.push(b'\n');
        if number % 100 == 0 {
            body.extend(b"{\"bad\":");
            body.extend(vec![b' '; if number == 500 { 70_000 } else { 0 }]);
            body.extend(b"1}\n");
        }
    }
    let json = client.post_lines(&body).json();
    assert_eq!(
        (&json["received"], &json["applied"], &json["duplicates"], &json["rejected"]),
        (&json!(20_200), &json!(20_000), &json!(0), &json!(200))
    );
    assert_eq!(json["errors"].as_array().unwrap().len(), 100);
    let rocket = app.rocket("c1", "best-effort");
    assert_eq!((&rocket["speed"], &rocket["messages"]["missing"]), (&json!(2_858), &json!(0)));
}

fn identity_of_channels_is_bytes(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    // Composed and decomposed, upper and lower case, slashes, percent signs, dots, spaces.
    let channels = ["é", "e\u{301}", "A", "a", "a/b", "a%2Fb", "%", "..", " ", "?x=1#y", "🚀", "+"];
    for (speed, channel) in (1..).zip(channels) {
        assert_eq!(client.post(&faster(channel, 1, speed)).status, 204);
    }
    for (speed, channel) in (1..).zip(channels) {
        let listed = client.get(&format!("/rockets?channel={}", encode(channel))).json();
        assert_eq!(listed["rockets"].as_array().unwrap().len(), 1, "{channel}");
        assert_eq!(
            (&listed["rockets"][0]["channel"], &listed["rockets"][0]["speed"]),
            (&json!(channel), &json!(speed))
        );
        if channel != ".." {
            assert_eq!(app.rocket(channel, "best-effort")["speed"], speed, "{channel}");
        }
    }
}

fn health_and_unknown_places(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    assert_eq!(client.get("/livez").status, 200);
    assert_eq!(client.get("/readyz").status, 200);
    client.get("/nowhere").problem(404);
    client.get("/rockets/never-heard-of").problem(404);
    client.get("/rockets/a/b").problem(404);
    client.get(&format!("/rockets/{}", "x".repeat(256))).problem(404);
    client.get("/rockets/%ff").problem(404);
    for (method, path, allow) in [
        ("GET", "/messages", "POST"),
        ("PUT", "/messages", "POST"),
        ("POST", "/rockets", "GET, HEAD"),
        ("POST", "/rockets/r", "GET, HEAD, DELETE"),
        ("POST", "/livez", "GET, HEAD"),
    ] {
        let answer = client.request(method, path, &[], b"").unwrap();
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some(allow));
    }
    client.post(&launched("r", 1));
    for path in ["/rockets", "/rockets/r", "/livez", "/readyz"] {
        let (get, head) = (client.get(path), client.request("HEAD", path, &[], b"").unwrap());
        assert_eq!((get.status, head.status), (200, 200));
        assert_eq!(get.header("content-length"), head.header("content-length"));
    }
    let given = client.request("GET", "/livez", &[("X-Request-Id", "mine-7")], b"").unwrap();
    assert_eq!(given.header("x-request-id"), Some("mine-7"));
    let long = "x".repeat(200);
    let replaced = client.request("GET", "/livez", &[("X-Request-Id", &long)], b"").unwrap();
    assert!(replaced.header("x-request-id").is_some_and(|id| id != long));
    assert_ne!(
        client.get("/livez").header("x-request-id"),
        client.get("/livez").header("x-request-id")
    );
}

/// The property of the fold through the API, with concurrent clients, some of which send lines.
fn any_order_over_http(backend: Backend) {
    let cases = if matches!(backend, Backend::SqliteFile) { 24 } else { 8 };
    proptest!(ProptestConfig { cases, ..ProptestConfig::default() }, |(batches in arrivals())| {
        let app = App::spawn(backend);
        std::thread::scope(|scope| {
            for (client, part) in batches.chunks(batches.len().div_ceil(4)).enumerate() {
                let address = app.address;
                scope.spawn(move || send(&mut Client::new(address), client % 2 == 0, part));
            }
        });
        let oracle = Oracle::of(batches.iter().flatten());
        let mut client = app.client();
        for channel in oracle.channels() {
            for (view, exact) in [("best-effort", false), ("exact", true)] {
                prop_assert_eq!(rocket(&mut client, channel, view), oracle.rocket(channel, exact));
            }
        }
        if matches!(backend, Backend::SqliteFile) {
            let database = app.database();
            for channel in oracle.channels() {
                let sql = format!(
                    "SELECT first_msg, last_msg FROM processed_ranges WHERE channel = '{channel}' \
                     ORDER BY first_msg"
                );
                let ranges = query(&database, &sql);
                prop_assert_eq!(json!(ranges), json!(oracle.ranges(channel)));
            }
        }
        if !matches!(backend, Backend::SqliteMemory) {
            let checked = run(&["check", "--database", &app.database_argument()]);
            prop_assert!(checked.status.success(), "{}", stdout(&checked));
        }
    });
}

fn send(client: &mut Client, as_lines: bool, batches: &[Vec<Sent>]) {
    for batch in batches.iter().filter(|batch| !batch.is_empty()) {
        if as_lines {
            let lines: Vec<String> = batch.iter().map(|sent| sent.json().to_string()).collect();
            let answer = client.post_lines(lines.join("\n").as_bytes());
            assert_eq!(answer.json()["rejected"], 0);
        } else {
            for sent in batch {
                assert_eq!(client.post(&sent.json()).status, 204);
            }
        }
    }
}
