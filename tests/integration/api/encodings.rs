//! Compressed bodies: every bound holds for what they decode to.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::{Answer, Client};
use testkit::conformance;
use testkit::message::{faster, launched};
use testkit::wait::DEADLINE;

conformance!(
    messages_may_be_compressed,
    questions_may_be_compressed,
    what_is_truncated_or_damaged_is_told_so,
    bounds_hold_after_decoding,
    other_encodings_are_rejected,
    responses_are_compressed_for_those_who_accept_it,
);

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(text, 3).unwrap()
}

type Encode = fn(&[u8]) -> Vec<u8>;
const ENCODINGS: [(&str, Encode); 4] =
    [("gzip", gzip), ("zstd", zstd), ("GZip", gzip), ("x-gzip", gzip)];

fn post(
    client: &mut Client,
    path: &str,
    encoding: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let headers = [&[("Content-Encoding", encoding)], headers].concat();
    client.request("POST", path, &headers, body).unwrap()
}

fn messages_may_be_compressed(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    for (rocket, (encoding, encode)) in ENCODINGS.into_iter().enumerate() {
        let channel = format!("r{rocket}");
        let message = encode(launched(&channel, 1).to_string().as_bytes());
        assert_eq!(post(&mut client, "/messages", encoding, &[], &message).status, 204);
        let again = post(&mut client, "/messages", encoding, &[], &message);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        // Several members or frames, cut within lines.
        let lines: String =
            (2..=30_000).map(|number| faster(&channel, number, 1).to_string() + "\n").collect();
        let (first, rest) = lines.as_bytes().split_at(lines.len() / 3 + 7);
        let body = [encode(first), encode(b""), encode(rest)].concat();
        assert!(body.len() < lines.len() / 4);
        let counts = post(&mut client, "/messages", encoding, &[NDJSON], &body).json();
        let expected = json!({
            "received": 29_999, "applied": 29_999, "duplicates": 0, "rejected": 0, "errors": [],
        });
        assert_eq!(counts, expected, "{encoding}");
        assert_eq!(app.rocket(&channel, "exact")["messages"]["completeThrough"], 30_000);
    }
    let plain = launched("r0", 1).to_string();
    assert_eq!(post(&mut client, "/messages", "identity", &[], plain.as_bytes()).status, 204);
}

fn questions_may_be_compressed(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    client.post(&launched("r7", 1));
    let lines: String =
        (0..5_000).map(|rocket| format!("{{\"channel\":\"r{rocket}\",\"through\":1}}\n")).collect();
    for (encoding, encode) in ENCODINGS {
        let one = encode(br#"{"channel":"r7","through":2}"#);
        let answer = post(&mut client, "/missing", encoding, &[], &one).json();
        assert_eq!(answer["missing"], json!([[2, 2]]));
        let answer = post(&mut client, "/missing", encoding, &[NDJSON], &encode(lines.as_bytes()));
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(text.lines().count(), 5_000);
        let seventh: Value = serde_json::from_str(text.lines().nth(7).unwrap()).unwrap();
        assert_eq!((&seventh["channel"], &seventh["missing"]), (&json!("r7"), &json!([])));
    }
}

fn what_is_truncated_or_damaged_is_told_so(backend: Backend) {
    let app = App::spawn(backend);
    let message = launched("r", 1).to_string();
    for (encoding, encode) in ENCODINGS {
        let whole = encode(message.as_bytes());
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        let trailing = [whole.clone(), b"{\"more\":\"of another kind\"}".to_vec()].concat();
        for (body, why) in [
            (&whole[..whole.len() - 1], "before its end"),
            (&whole[..3], "before its end"),
            (&damaged[..], "damaged"),
            (&trailing, "damaged"),
            (message.as_bytes(), "damaged"),
        ] {
            for (path, headers) in
                [("/messages", &[][..]), ("/messages", &[NDJSON][..]), ("/missing", &[NDJSON][..])]
            {
                let mut client = app.client();
                let answer = post(&mut client, path, encoding, headers, body);
                // A stream may have answers before its end.
                if path == "/missing" && answer.status == 200 {
                    continue;
                }
                let problem = answer.problem(400);
                assert!(problem["detail"].as_str().unwrap().contains(why), "{path} {problem}");
            }
        }
    }
    // Nothing was stored of single messages; lines before the fault may be.
    let lines = format!("{message}\n").repeat(50_000);
    let body = gzip(lines.as_bytes());
    let problem = post(&mut app.client(), "/messages", "gzip", &[NDJSON], &body[..body.len() / 2])
        .problem(400);
    assert_eq!(problem["received"].as_u64(), problem["duplicates"].as_u64().map(|it| it + 1));
}

fn bounds_hold_after_decoding(backend: Backend) {
    let app = App::spawn(backend);
    let message = launched("r", 1).to_string();
    let sized = |bytes: usize| format!("{}{message}", " ".repeat(bytes - message.len()));
    for (encoding, encode) in [("gzip", gzip as Encode), ("zstd", zstd)] {
        let mut client = app.client();
        let largest = encode(sized(65_536).as_bytes());
        assert_eq!(post(&mut client, "/messages", encoding, &[], &largest).status, 204);
        let larger = encode(sized(65_537).as_bytes());
        post(&mut app.client(), "/messages", encoding, &[], &larger).problem(413);
        post(&mut app.client(), "/missing", encoding, &[], &larger).problem(413);
        // 200 MB of one line, and a message.
        let bomb = encode(format!("{}\n{message}\n", "x".repeat(200_000_000)).as_bytes());
        assert!(bomb.len() < 250_000, "{}", bomb.len());
        post(&mut app.client(), "/messages", encoding, &[], &bomb).problem(413);
        let counts = post(&mut app.client(), "/messages", encoding, &[NDJSON], &bomb).json();
        assert_eq!((&counts["rejected"], &counts["duplicates"]), (&json!(1), &json!(1)));
        assert_eq!(counts["errors"][0]["detail"], "longer than 65536 bytes");
        let answer = post(&mut app.client(), "/missing", encoding, &[NDJSON], &bomb);
        assert_eq!(String::from_utf8(answer.body).unwrap().lines().count(), 2);
    }
    // A window that would take 64 MiB of memory.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(26).unwrap();
    encoder.write_all(message.as_bytes()).unwrap();
    // Otherwise the frame says that it is short.
    encoder.flush().unwrap();
    let body = encoder.finish().unwrap();
    let problem = post(&mut app.client(), "/messages", "zstd", &[], &body).problem(400);
    assert!(problem["detail"].as_str().unwrap().contains("too much memory"), "{problem}");
}

fn other_encodings_are_rejected(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let message = launched("r", 1).to_string();
    for path in ["/messages", "/missing"] {
        for encoding in ["br", "deflate", "gzip, gzip", "gzip, zstd", "", "nonsense"] {
            let answer = post(&mut client, path, encoding, &[], message.as_bytes());
            answer.problem(415);
            assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd"), "{encoding:?}");
        }
    }
    let twice = [("Content-Encoding", "gzip"), ("Content-Encoding", "zstd")];
    client.request("POST", "/messages", &twice, message.as_bytes()).unwrap().problem(415);
}

fn decode(answer: &Answer) -> Vec<u8> {
    let mut text = Vec::new();
    match answer.header("content-encoding") {
        None => text.clone_from(&answer.body),
        Some("gzip") => _ = GzDecoder::new(&answer.body[..]).read_to_end(&mut text).unwrap(),
        Some("zstd") => text = zstd::stream::decode_all(&answer.body[..]).unwrap(),
        Some(other) => unreachable!("{other}"),
    }
    text
}

fn responses_are_compressed_for_those_who_accept_it(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let lines: String =
        (0..200).map(|rocket| launched(&format!("r{rocket:03}"), 1).to_string() + "\n").collect();
    assert_eq!(client.post_lines(lines.as_bytes()).status, 200);
    let list = "/rockets?sort=channel&limit=200";
    let plain = client.get(list);
    assert_eq!(plain.header("content-encoding"), None);
    let mut get = |path: &str, accepted: &str, more: &[(&str, &str)]| {
        let headers = [&[("Accept-Encoding", accepted)], more].concat();
        client.request("GET", path, &headers, b"").unwrap()
    };
    for (accepted, expected) in [
        ("gzip", Some("gzip")),
        ("zstd", Some("zstd")),
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("zstd;q=0.9, gzip;q=0.5", Some("zstd")),
        ("gzip;q=0.2, br;q=1", Some("gzip")),
        ("gzip;q=0", None),
        ("identity", None),
        ("br", None),
        ("*;q=0", None),
        ("", None),
        ("nonsense ;;;", None),
    ] {
        let answer = get(list, accepted, &[]);
        assert_eq!(answer.header("content-encoding"), expected, "{accepted}");
        assert_eq!(decode(&answer), plain.body, "{accepted}");
        if expected.is_some() {
            assert!(answer.body.len() < plain.body.len() / 4);
            assert_eq!(answer.header("vary"), Some("accept-encoding"));
        }
    }
    // A stream and a document are compressed. A short report is not.
    for (path, headers) in
        [("/export", &[][..]), ("/reports/gaps", &[("Accept", "text/csv")]), ("/openapi.json", &[])]
    {
        let compressed = get(path, "gzip", headers);
        let expected = (path != "/reports/gaps").then_some("gzip");
        assert_eq!(compressed.header("content-encoding"), expected, "{path}");
        assert!(!decode(&compressed).is_empty());
    }
    // What is short is not.
    assert_eq!(get("/stats", "gzip", &[]).header("content-encoding"), None);
    // Answers to a stream of questions come while it is sent.
    let question = b"{\"channel\":\"r001\",\"through\":2}\n";
    let head = "POST /missing HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
                application/x-ndjson\r\nAccept-Encoding: gzip\r\nContent-Length: 1000000\r\n\r\n";
    client.send(&[head.as_bytes(), question].concat()).unwrap();
    assert!(client.has_answer_within(DEADLINE));
}
