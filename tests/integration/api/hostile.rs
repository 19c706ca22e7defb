//! Every kind of bad input: it is rejected as the client's fault, never answered 500 or 503, and
//! harms nobody else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::encode;
use testkit::message::{faster, launched};
use testkit::process::run;
use testkit::{conformance, faults};

conformance!(
    whatever_is_sent_the_service_is_not_at_fault,
    every_member_may_be_wrong_in_every_way,
    cursors_that_somebody_made_up_are_refused,
);

/// JSON values that some member can't have.
fn values() -> Vec<String> {
    let mut values: Vec<String> = [
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "1e3",
        "4294967296",
        "1e400",
        "\"\"",
        "[]",
        "{}",
        "[null]",
    ]
    .map(str::to_owned)
    .into();
    values.extend([
        json!("x".repeat(256)).to_string(),
        json!("\u{0}").to_string(),
        json!("\u{85}").to_string(),
        r#""\ud800""#.to_owned(),
        r#"{"a":1,"a":2}"#.to_owned(),
        format!("{}{}", "[".repeat(300), "]".repeat(300)),
        format!("-{}", "9".repeat(400)),
    ]);
    values
}

fn every_member_may_be_wrong_in_every_way(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let members =
        ["channel", "messageNumber", "messageTime", "messageType", "metadata", "message", "by"];
    let right = faster("hostile", 1, 7).to_string();
    let mut tried = 0;
    for member in members {
        for value in values() {
            // After the member's name comes the end of its object, or a comma.
            let body = replaced(&right, member, &value);
            let answer = client.post_bytes(body.as_bytes());
            let fits = serde_json::from_str::<Value>(&body).is_ok_and(|json| fits(&json));
            assert_eq!(answer.status == 204, fits, "{member} {value}: {answer:?}");
            if !fits {
                assert!([400, 422].contains(&answer.status), "{member} {value}: {answer:?}");
                answer.problem(answer.status);
            }
            tried += 1;
        }
    }
    assert!(tried > 100);
}

/// Replaces the value of a member in a message.
fn replaced(message: &str, member: &str, value: &str) -> String {
    let mut json: Value = serde_json::from_str(message).unwrap();
    let object = match member {
        "metadata" | "message" => &mut json,
        "by" => &mut json["message"],
        _ => &mut json["metadata"],
    };
    object[member] = json!("@");
    json.to_string().replacen("\"@\"", value, 1)
}

/// Whether it is a valid message nevertheless.
fn fits(json: &Value) -> bool {
    let by = &json["message"]["by"];
    let number = &json["metadata"]["messageNumber"];
    json["metadata"]["channel"] == "hostile"
        && number.as_u64().is_some_and(|number| (1..=4_294_967_295).contains(&number))
        && json["metadata"]["messageTime"].as_str().is_some_and(|time| time.starts_with("2022"))
        && json["metadata"]["messageType"] == "RocketSpeedIncreased"
        && by.as_i64().is_some_and(|by| i32::try_from(by).is_ok())
}

fn cursors_that_somebody_made_up_are_refused(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    client.post(&launched("a", 1));
    let keys = [
        json!(null),
        json!(1),
        json!(i64::MIN),
        json!(1.5),
        json!(""),
        json!("\u{0}"),
        json!("A\u{0}"),
        json!("lost"),
        json!("2022-02-02T18:39:05.863370Z"),
        json!("9999-99-99T99:99:99.999999Z"),
        json!(["a"]),
        json!("x".repeat(300)),
    ];
    for sort in ["latestUpdate", "channel", "type", "speed", "mission", "status"] {
        for view in ["best-effort", "exact"] {
            for (key, channel) in
                keys.iter().flat_map(|key| [(key, "a"), (key, "a\u{0}"), (key, "")])
            {
                let question = json!([[sort, "asc", view, [null, null, null, null]], key, channel]);
                let cursor = URL_SAFE_NO_PAD.encode(question.to_string());
                let answer = client
                    .get(&format!("/rockets?sort={sort}&order=asc&view={view}&cursor={cursor}"));
                assert!([200, 400].contains(&answer.status), "{question}: {answer:?}");
            }
        }
    }
}

/// Changes some bytes.
fn mutate(input: &mut Vec<u8>, random: &mut StdRng) {
    const PIECES: [&[u8]; 16] = [
        b"\"", b"{", b"}", b"[", b",", b":", b"\\u0000", b"\\ud800", b"\xff", b"\x00", b"e9",
        b"null", b"\n", b"%00", b"%", b"&",
    ];
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..4) {
            0 if at < input.len() => input[at] = random.random_range(0..=255),
            1 if at < input.len() => drop(input.remove(at)),
            2 => input.truncate(at.max(1)),
            _ => drop(input.splice(at..at, PIECES.choose(random).unwrap().iter().copied())),
        }
    }
}

/// A request target that a server must read: no spaces, no control characters.
fn target(random: &mut StdRng) -> Vec<u8> {
    let cursor = URL_SAFE_NO_PAD.encode(
        json!([["speed", "desc", "best-effort", [null, null, null, null]], 5, "a"]).to_string(),
    );
    let targets = [
        "/rockets?sort=speed&order=asc&limit=3&view=exact".to_owned(),
        format!("/rockets?sort=speed&limit=1&cursor={cursor}"),
        format!("/rockets?channel={}&type=A&mission=B&status=launched", encode("é/%")),
        "/rockets/a%2Fb?view=exact".to_owned(),
        "/reports/missions".to_owned(),
        "/reports?x=1".to_owned(),
        "/assets/dashboard.js".to_owned(),
        "/docs/..%2F..%2Fetc%2Fpasswd".to_owned(),
        "/stats".to_owned(),
    ];
    let mut target = targets.choose(random).unwrap().clone().into_bytes();
    mutate(&mut target, random);
    target.retain(|byte| *byte > b' ' && *byte != 0x7f);
    target.insert(0, b'/');
    target
}

fn whatever_is_sent_the_service_is_not_at_fault(backend: Backend) {
    let app = App::spawn(backend);
    assert_eq!(app.client().post(&launched("a", 1)).status, 204);
    let mut random = StdRng::seed_from_u64(1);
    let (mut answered, times) = (0, faults::times(1_500, 100_000));
    let mut client = app.client();
    for time in 0..times {
        let request = request(time, &mut random);
        // A client that breaks the protocol may be disconnected.
        let answer = client.send(&request).and_then(|()| {
            if time % 4 == 3 {
                client.send_no_more();
            }
            client.answer(false)
        });
        match answer {
            Ok(answer) => {
                assert!(answer.status < 500, "{}: {answer:?}", String::from_utf8_lossy(&request));
                answered += 1;
            }
            Err(_) => client = app.client(),
        }
        // A mutated head may announce another body than the one that follows.
        if time % 4 == 3 {
            client = app.client();
        }
    }
    assert!(answered > times / 2, "{answered}");
    let mut client = app.client();
    assert_eq!(client.get("/livez").status, 200);
    assert_eq!(client.post(&launched("after", 1)).status, 204);
    if !matches!(backend, Backend::SqliteMemory) {
        assert_eq!(run(&["check", "--database", &app.database_argument()]).status.code(), Some(0));
    }
    faults::row(
        &format!("requests mutated at random ({backend:?})"),
        format!("{times} requests, {answered} answered, the others disconnected"),
        "5xx responses 0, crashes 0, the audit clean",
    );
}

/// A message, lines, a query, or a whole request, with some bytes changed.
fn request(time: u64, random: &mut StdRng) -> Vec<u8> {
    let post = |kind: &str, body: &[u8]| {
        let head = format!(
            "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let mut body = faster(["a", "b", "é"].choose(random).unwrap(), random.random_range(1..50), 3)
        .to_string()
        .into_bytes();
    match time % 4 {
        0 => {
            mutate(&mut body, random);
            post("application/json", &body)
        }
        1 => {
            let mut lines =
                [&body[..], b"\n", launched("a", 9).to_string().as_bytes(), b"\r\n"].concat();
            mutate(&mut lines, random);
            post("application/x-ndjson", &lines)
        }
        2 => [b"GET ", &target(random)[..], b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat(),
        _ => {
            let mut request = post("application/json", &body);
            mutate(&mut request, random);
            request
        }
    }
}

#[test]
fn heads_that_are_not_http_are_refused_and_end_the_connection() {
    let app = App::spawn(Backend::SqliteMemory);
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(135_000));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: x\r\n".repeat(2_000));
    let heads = [
        ("\0\0\0\0\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("GET / HTTP/9.1\r\n\r\n", 400),
        ("POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (
            "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (&many, 431),
        (&long, 431),
    ];
    for after in [0, 1] {
        for (head, status) in heads {
            let mut client = app.client();
            for _ in 0..after {
                assert_eq!(client.get("/livez").status, 200);
            }
            // The service may refuse it before all of it is sent.
            let _ = client.send(head.as_bytes());
            let answer =
                client.answer(false).unwrap_or_else(|error| panic!("{error}: {:.50}", head));
            assert_eq!(answer.status, status, "{head:.50}");
            let ends = answer.header("connection") == Some("close");
            assert!(ends || client.answer(false).is_err(), "{head:.50}");
        }
    }
}
