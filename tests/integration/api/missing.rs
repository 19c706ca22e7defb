//! `POST /missing`: answers compared with a plain set of numbers; streams, limits, slow readers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rocket_monitor::store::fault_injection::FailurePoint;
use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::chunked::ChunkedLines;
use testkit::client::{Answer, Client};
use testkit::conformance;
use testkit::message::{faster, launched};
use testkit::process::Service;
use testkit::wait::{DEADLINE, eventually};

conformance!(
    answers_are_what_a_set_of_numbers_lacks,
    lines_are_answered_while_the_body_is_sent,
    a_single_question_and_its_faults,
    answers_of_more_than_10_000_ranges_go_on,
    questions_may_all_be_sent_before_an_answer_is_read,
    a_store_that_fails_cuts_the_answers_off,
);

const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");

fn ask(client: &mut Client, question: &Value) -> Answer {
    client.request("POST", "/missing", &[], question.to_string().as_bytes()).unwrap()
}

fn ask_lines(client: &mut Client, lines: &[u8]) -> Vec<Value> {
    let answer = client.request("POST", "/missing", &[LINES], lines).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = String::from_utf8(answer.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lines<'v>(values: impl IntoIterator<Item = &'v Value>) -> Vec<u8> {
    values.into_iter().flat_map(|value| (value.to_string() + "\n").into_bytes()).collect()
}

/// The numbers in question that are not in the set, as ranges.
fn lacking(numbers: &BTreeSet<u32>, from: u32, through: u32) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in (from..=through).filter(|number| !numbers.contains(number)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

fn answers_are_what_a_set_of_numbers_lacks(backend: Backend) {
    const CHANNELS: [&str; 5] = ["a", "b/ %", "é🚀", "full", "unknown"];
    let app = App::spawn(backend);
    let mut client = app.client();
    let mut random = StdRng::seed_from_u64(18);
    let mut processed: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for round in 0..4 {
        let mut messages: Vec<Value> = Vec::new();
        for channel in &CHANNELS[..4] {
            let numbers = processed.entry(channel).or_default();
            for _ in 0..random.random_range(1..400) {
                let number = random.random_range(1..=500);
                numbers.insert(number);
                messages.push(faster(channel, number, 1));
            }
            if *channel == "full" {
                numbers.extend(1..=500);
                messages.extend((1..=500).map(|number| faster(channel, number, 1)));
            }
        }
        assert_eq!(client.post_lines(&lines(&messages)).json()["rejected"], 0);
        let (mut questions, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..700 {
            let channel = CHANNELS[random.random_range(0..CHANNELS.len())];
            let from = random.random_range(1..=510);
            let through = random.random_range(from..=520);
            questions.push(json!({ "channel": channel, "through": through, "from": from }));
            let none = BTreeSet::new();
            let missing = lacking(processed.get(channel).unwrap_or(&none), from, through);
            expected.push(json!({
                "channel": channel, "through": through, "missing": missing, "nextFrom": null,
            }));
        }
        assert_eq!(ask_lines(&mut client, &lines(&questions)), expected, "round {round}");
        assert_eq!(ask(&mut client, &questions[0]).json(), expected[0]);
    }
    let asked = 4 * (700 + 1);
    assert!(app.metrics().contains(&format!("rocket_monitor_missing_questions_total {asked}\n")));
}

/// Begins a request whose body is sent in chunks.
fn begin(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let head = "POST /missing HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson; \
                charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn send(stream: &mut TcpStream, text: &str) {
    // An empty chunk ends the body.
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).unwrap();
}

/// Reads the head of the response.
fn answers(stream: TcpStream) -> ChunkedLines {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("transfer-encoding: chunked"));
    ChunkedLines::new(stream)
}

fn lines_are_answered_while_the_body_is_sent(backend: Backend) {
    let app = App::spawn(backend);
    app.client().post(&launched("r", 2));
    let mut stream = begin(app.address);
    let ask = |number: u32| format!("{{\"channel\":\"r\",\"through\":{number}}}");
    send(&mut stream, &format!("\u{feff}{}\n\r\n \t", ask(1)));
    let mut answers = answers(stream);
    let mut next = || {
        let line = answers.line().unwrap().unwrap();
        let json: Value = serde_json::from_str(&line).unwrap();
        (json, line)
    };
    assert_eq!(next().1, r#"{"channel":"r","through":1,"missing":[[1,1]],"nextFrom":null}"#);
    // Blank lines are counted. Each bad line has its place among the answers.
    let more = [
        format!("\n{}\r\n", ask(2)),
        "nonsense\n".to_owned(),
        format!("{}\n", ask(3)),
        "{\"channel\":\"r\",\"through\":0}\n{\"channel\":\"r\",\"through\":1,\"from\":2}\n".into(),
        format!("{}{}\n", " ".repeat(65_536), ask(4)),
        format!("{}{}\n", " ".repeat(65_536 - ask(4).len()), ask(4)),
        ask(5),
    ];
    for part in &more {
        send(answers.stream(), part);
    }
    send(answers.stream(), "");
    let mut found: Vec<Value> = Vec::new();
    while let Some(line) = answers.line().unwrap() {
        found.push(serde_json::from_str(&line).unwrap());
    }
    let details: Vec<Value> = found.iter_mut().map(|line| line["detail"].take()).collect();
    let missing = |through: u32, ranges: Value| {
        json!({
            "channel": "r", "through": through, "missing": ranges, "nextFrom": null, "detail": null,
        })
    };
    let bad = |line: u32| json!({ "line": line, "detail": null });
    let expected = [
        missing(2, json!([[1, 1]])),
        bad(5),
        missing(3, json!([[1, 1], [3, 3]])),
        bad(7),
        bad(8),
        bad(9),
        missing(4, json!([[1, 1], [3, 4]])),
        missing(5, json!([[1, 1], [3, 5]])),
    ];
    assert_eq!(found, expected);
    for (index, why) in [(1, "not one JSON"), (3, "/through"), (4, "/from"), (5, "longer than")] {
        assert!(details[index].as_str().unwrap().contains(why), "{details:?}");
    }
}

fn a_single_question_and_its_faults(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    client.post(&launched("r", 2));
    let answer = ask(&mut client, &json!({ "channel": "r", "through": 3, "other": [1] }));
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let line = r#"{"channel":"r","through":3,"missing":[[1,1],[3,3]],"nextFrom":null}"#;
    assert_eq!(String::from_utf8_lossy(&answer.body), format!("{line}\n"));
    for (question, missing) in [
        (
            json!({ "channel": "r", "through": 4_294_967_295_u32 }),
            json!([[1, 1], [3, 4_294_967_295_u32]]),
        ),
        (json!({ "channel": "x", "through": 4_294_967_295_u32 }), json!([[1, 4_294_967_295_u32]])),
        (json!({ "channel": "r", "from": 2, "through": 2 }), json!([])),
    ] {
        assert_eq!(ask(&mut client, &question).json()["missing"], missing, "{question}");
    }
    let long = "x".repeat(256);
    for (question, pointers) in [
        (json!([]), vec![""]),
        (json!({}), vec!["/channel", "/through"]),
        (json!({ "channel": "", "through": 0, "from": 0 }), vec!["/channel", "/through", "/from"]),
        (json!({ "channel": long, "through": 4_294_967_296_u64 }), vec!["/channel", "/through"]),
        (json!({ "channel": "r", "through": 3, "from": null }), vec!["/from"]),
        (json!({ "channel": "r", "through": 3, "from": 4 }), vec!["/from"]),
        (json!({ "channel": "r", "through": 3.0 }), vec!["/through"]),
    ] {
        let problem = ask(&mut client, &question).problem(422);
        let errors = problem["errors"].as_array().unwrap().iter();
        let named: Vec<_> = errors.map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!(named, pointers, "{question}");
    }
    let mut post = |body: &[u8]| client.request("POST", "/missing", &[], body).unwrap();
    let twice = br#"{"channel":"r","through":3,"through":3}"#;
    assert_eq!(post(twice).problem(422)["errors"][0]["pointer"], "/through");
    let several = post(b"{\"channel\":\"r\",\"through\":3}\n{}").problem(400);
    assert!(several["detail"].as_str().unwrap().contains("application/x-ndjson"), "{several}");
    post(b"").problem(400);
    post(b"\xff").problem(400);
    let padded = |bytes: usize| {
        let question = json!({ "channel": "r", "through": 3 }).to_string();
        " ".repeat(bytes - question.len()) + &question
    };
    assert_eq!(post(padded(65_536).as_bytes()).status, 200);
    post(padded(65_537).as_bytes()).problem(413);
    assert_eq!(ask_lines(&mut app.client(), b"\n \n"), Vec::<Value>::new());
    assert_eq!(ask_lines(&mut app.client(), b""), Vec::<Value>::new());
    app.client().get("/missing").problem(405);
}

fn answers_of_more_than_10_000_ranges_go_on(backend: Backend) {
    const HIGHEST: u32 = 50_000;
    let app = App::spawn(backend);
    let mut client = app.client();
    let even = (2..=HIGHEST).step_by(2).map(|number| faster("gaps", number, 1));
    let messages: Vec<Value> = even.chain([launched("one", 1)]).collect();
    assert_eq!(client.post_lines(&lines(&messages)).json()["applied"], 25_001);
    let (mut from, mut missing, mut pages) = (Some(1), Vec::new(), 0);
    while let Some(first) = from {
        let question = json!({ "channel": "gaps", "through": HIGHEST + 9, "from": first });
        let answer = ask(&mut client, &question).json();
        let ranges: Vec<(u32, u32)> = serde_json::from_value(answer["missing"].clone()).unwrap();
        assert!(ranges.len() <= 10_000);
        missing.extend(ranges);
        from = answer["nextFrom"].as_u64().map(|next| u32::try_from(next).unwrap());
        pages += 1;
    }
    let odd: Vec<_> = (1..HIGHEST).step_by(2).map(|number| (number, number)).collect();
    assert!(missing[..25_000] == odd[..]);
    assert_eq!((missing[25_000], missing.len(), pages), ((50_001, 50_009), 25_001, 3));
    // Many large answers in one stream, with small ones between them.
    let large = json!({ "channel": "gaps", "through": 21_001, "from": 2 });
    let small = json!({ "channel": "one", "through": 2 });
    let questions: Vec<&Value> = (0..20).flat_map(|_| [&large, &small, &small]).collect();
    let answers = ask_lines(&mut client, &lines(questions));
    assert_eq!(answers.len(), 60);
    for three in answers.chunks(3) {
        let ranges = three[0]["missing"].as_array().unwrap();
        assert_eq!((ranges.len(), &ranges[9_999]), (10_000, &json!([20_001, 20_001])));
        assert_eq!(three[0]["nextFrom"], 20_003);
        assert_eq!(three[1]["missing"], json!([[2, 2]]));
        assert_eq!(three[2], three[1]);
    }
}

/// A client that doesn't know that it should read while it writes.
fn questions_may_all_be_sent_before_an_answer_is_read(backend: Backend) {
    const QUESTIONS: usize = 100_000;
    let app = App::spawn(backend);
    app.client().post(&launched("r7", 1));
    let body: String = (0..QUESTIONS)
        .map(|rocket| {
            format!("{{\"channel\":\"r{rocket}\",\"through\":1,\"a\":\"{rocket:030}\"}}\n")
        })
        .collect();
    assert!(body.len() > 6 * 1024 * 1024 && body.len() < 8 * 1024 * 1024, "{}", body.len());
    let answers = ask_lines(&mut app.client(), body.as_bytes());
    assert_eq!(answers.len(), QUESTIONS);
    for (rocket, answer) in answers.iter().enumerate() {
        let missing = if rocket == 7 { json!([]) } else { json!([[1, 1]]) };
        assert!(answer["channel"] == format!("r{rocket}") && answer["missing"] == missing);
    }
}

fn a_store_that_fails_cuts_the_answers_off(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let question = json!({ "channel": "r", "through": 3 });
    app.failures.plan(FailurePoint::BeforeRead, 2);
    ask(&mut client, &question).problem(503);
    let answer = client.request("POST", "/missing", &[LINES], &lines([&question])).unwrap();
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    let mut stream = begin(app.address);
    send(&mut stream, &format!("{question}\n"));
    let mut answers = answers(stream);
    assert!(answers.line().unwrap().is_some());
    app.failures.plan(FailurePoint::BeforeRead, 1);
    send(answers.stream(), &format!("{question}\n"));
    // The end of the response is missing, too.
    assert!(answers.line().is_err());
    assert_eq!(ask(&mut app.client(), &question).status, 200);
}

#[test]
fn the_write_token_asks() {
    let tokens = tempfile::tempdir().unwrap();
    let [write, read] = ["write", "read"].map(|name| {
        let file = tokens.path().join(name);
        std::fs::write(&file, format!("{name}-token")).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let options =
        ["--database", "memory", "--write-token-file", &write, "--read-token-file", &read];
    let service = Service::start_with(&options);
    let mut client = Client::new(service.address);
    let body = json!({ "channel": "r", "through": 3 }).to_string();
    for (token, status) in [("write-token", 200), ("read-token", 401)] {
        let authorization = format!("Bearer {token}");
        let headers = [("Authorization", &*authorization)];
        let answer = client.request("POST", "/missing", &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{token}");
    }
}

#[test]
fn who_asks_and_does_not_read_is_cut_off_and_leaves_room_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path().join("rockets.db"));
    let mut client = Client::new(service.address);
    let even = (2..=20_000).step_by(2).map(|number| faster("gaps", number, 1));
    let messages: Vec<Value> = even.collect();
    assert_eq!(client.post_lines(&lines(&messages)).json()["applied"], 10_000);
    let question = json!({ "channel": "gaps", "through": 20_000 });
    // Each answer has more than 100 KB, and the system buffers a few MB of them.
    let questions = format!("{question}\n").repeat(500);
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..80 {
        let mut stream = begin(service.address);
        send(&mut stream, &questions);
        idle.push(stream);
    }
    let mut status = || {
        let asked = client.request("POST", "/missing", &[LINES], &lines([&question]));
        asked.unwrap().status
    };
    eventually("they have all the room", || status() == 503);
    eventually("there is room again", || status() == 200);
    // Single questions are not among the streams.
    assert_eq!(ask(&mut Client::new(service.address), &question).status, 200);
    let mut cut_off = 0;
    for mut stream in idle {
        let mut response = vec![0; 12];
        stream.read_exact(&mut response).unwrap();
        // The service drops the rest of the body of a request that it has answered.
        if response.ends_with(b"503") {
            continue;
        }
        let read = stream.read_to_end(&mut response);
        assert!(read.is_err() || !response.ends_with(b"\r\n0\r\n\r\n"));
        cut_off += 1;
    }
    assert_eq!(cut_off, 64);
}

#[test]
fn a_stop_does_not_wait_for_questions() {
    let mut service = Service::start_with(&["--database", "memory"]);
    let mut stream = begin(service.address);
    send(&mut stream, "{\"channel\":\"r\",\"through\":3}\n");
    let mut answers = answers(stream);
    assert!(answers.line().unwrap().is_some());
    let asked = std::time::Instant::now();
    assert!(service.terminate().success());
    assert!(asked.elapsed().as_secs() < 5);
    assert!(answers.line().is_err());
}
