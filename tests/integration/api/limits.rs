//! Limits: pipelining, slow readers, long quotations; the minimum number of files; and the cost and
//! accuracy of readiness.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::app::{App, Backend};
use testkit::client::Client;
use testkit::conformance;
use testkit::message::{faster, launched};
use testkit::postgres::{TestDatabase, execute};
use testkit::process::{Service, program};
use testkit::sqlite::sql;
use testkit::wait::eventually;

conformance!(requests_that_wait_for_no_answer_are_all_answered, what_is_quoted_is_bounded);

fn post_request(body: &str) -> String {
    format!(
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn requests_that_wait_for_no_answer_are_all_answered(backend: Backend) {
    const REQUESTS: u32 = 1_000;
    let app = App::spawn(backend);
    let all: String =
        (1..=REQUESTS).map(|number| post_request(&faster("r", number, 1).to_string())).collect();
    // The service stops reading while it answers: a client that only writes would wait forever.
    std::thread::scope(|scope| {
        let stream = TcpStream::connect(app.address).unwrap();
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || writer.write_all(all.as_bytes()).unwrap());
        let mut reader = std::io::BufReader::new(stream);
        for number in 1..=REQUESTS {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(
                    std::io::BufRead::read_line(&mut reader, &mut head).unwrap() > 0,
                    "ended at {number}"
                );
            }
            assert!(
                head.starts_with("HTTP/1.1 204") && !head.contains("connection: close"),
                "{number}: {head}"
            );
        }
    });
    assert_eq!(app.rocket("r", "exact")["messages"]["completeThrough"], REQUESTS);
    // Requests of all kinds, including chunked ones, and an early end.
    let mixed = [
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\
         {}\r\n0\r\n\r\n"
            .to_owned(),
        post_request("{\r\n\r\n"),
        "HEAD /rockets/r HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "DELETE /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        post_request(&faster("r", 1, 1).to_string()),
    ]
    .concat();
    for parts in [1, 7, mixed.len()] {
        let mut client = app.client();
        for part in mixed.as_bytes().chunks(mixed.len().div_ceil(parts)) {
            client.send(part).unwrap();
        }
        client.send_no_more();
        let mut statuses = Vec::new();
        for index in 0..6 {
            statuses.push(client.answer(index == 3).unwrap().status);
        }
        assert_eq!(statuses, [200, 422, 400, 200, 405, 204], "in {parts} parts");
    }
}

#[test]
fn a_request_that_is_refused_loses_none_of_those_behind_it() {
    let tokens = tempfile::tempdir().unwrap();
    let file = tokens.path().join("token");
    std::fs::write(&file, "a-token").unwrap();
    let file = file.to_str().unwrap();
    let service = Service::start_with(&[
        "--database",
        "memory",
        "--write-token-file",
        file,
        "--read-token-file",
        file,
    ]);
    let body = faster("r", 1, 1).to_string();
    let post = |path: &str, headers: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n\
             {body}"
        )
    };
    let token = "Authorization: Bearer a-token\r\n";
    let encoded = format!("{token}Content-Encoding: br\r\n");
    let foreign = "Cookie: rocket_monitor_token=YS10b2tlbg\r\nOrigin: http://evil.example\r\n";
    let requests = [
        (post("/messages", token), 204),
        (post("/messages", ""), 401),
        (post("/messages", &encoded), 415),
        (post("/nowhere", token), 404),
        (post("/rockets", token), 405),
        (post("/messages", foreign), 403),
        (post("/messages", token), 204),
    ];
    for part in [1, 100, 1_000_000] {
        let mut client = Client::new(service.address);
        let all: String = requests.iter().map(|(request, _)| request.as_str()).collect();
        for bytes in all.as_bytes().chunks(part) {
            client.send(bytes).unwrap();
        }
        for (request, status) in &requests {
            let answer = client.answer(false).unwrap();
            assert_eq!(answer.status, *status, "{request}");
            assert_eq!(answer.header("connection"), None, "{request}");
        }
    }
}

fn what_is_quoted_is_bounded(backend: Backend) {
    let app = App::spawn(backend);
    let mut client = app.client();
    let name = |index: usize| format!("{index}\u{1}~/{}", "n".repeat(3_000));
    let members: String = (0..10)
        .map(|index| {
            let name = json!(name(index)).to_string();
            format!("{name}:1,{name}:1,")
        })
        .collect();
    let body = launched("r", 1).to_string().replacen('{', &format!("{{{members}"), 1);
    assert!(body.len() > 60_000);
    let refused = client.post_bytes(body.as_bytes());
    let problem = refused.problem(422);
    assert!(refused.body.len() < 8_192, "{} bytes", refused.body.len());
    let error = &problem["errors"][0];
    assert_eq!(error["pointer"], "", "a pointer leads to something that is there");
    assert!(error["detail"].as_str().unwrap().contains("more than once"), "{error}");
    let lines: String = (0..120).map(|_| body.clone() + "\n").collect();
    let answer = client.post_lines(lines.as_bytes());
    assert_eq!(
        (&answer.json()["rejected"], answer.json()["errors"].as_array().unwrap().len()),
        (&json!(120), 100)
    );
    assert!(answer.body.len() < 256 * 1024, "{} bytes", answer.body.len());
    // A name of reasonable length is quoted in full.
    let short = launched("r", 1).to_string().replacen('{', "{\"x\":1,\"x\":1,", 1);
    assert_eq!(client.post_bytes(short.as_bytes()).problem(422)["errors"][0]["pointer"], "/x");
    let method = "X".repeat(5_000);
    let odd = client.request(&method, "/livez", &[], b"").unwrap();
    assert!(odd.status >= 400 && odd.body.len() < 1_024, "{odd:?}");
}

/// Tells threads to end, even if the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Reads about 10 KB per second, until it is disconnected or told to end.
fn read_slowly(mut stream: TcpStream, end: &AtomicBool) {
    let mut bytes = [0; 1_000];
    while !end.load(Ordering::SeqCst) && stream.read(&mut bytes).is_ok_and(|read| read > 0) {
        // This makes it slow; it waits for nothing.
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn slow_readers_are_cut_off_and_leave_room_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path().join("rockets.db"));
    let lines: String = (0..1_000)
        .map(|rocket| {
            let mut message = launched(&format!("{rocket:0>255}"), 1);
            message["message"]["type"] = "é".repeat(255).into();
            message["message"]["mission"] = "é".repeat(255).into();
            message.to_string() + "\n"
        })
        .collect();
    assert_eq!(Client::new(service.address).post_lines(lines.as_bytes()).json()["applied"], 1_000);
    let page = "GET /rockets?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&end);
        for _ in 0..60 {
            let mut stream = TcpStream::connect(service.address).unwrap();
            // The smallest buffer that the system allows.
            socket2::SockRef::from(&stream).set_recv_buffer_size(4_096).unwrap();
            // The system buffers up to 4 MB of what a client doesn't read.
            stream.write_all(page.repeat(3).as_bytes()).unwrap();
            scope.spawn(|| read_slowly(stream, &end));
        }
        let status = || Client::new(service.address).get("/rockets?limit=1000").status;
        eventually("they have all the room", || status() == 503);
        eventually("there is room again", || status() == 200);
    });
    // A client that reads fast enough is served to the end.
    let mut decent = TcpStream::connect(service.address).unwrap();
    decent.write_all(page.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let (mut all, mut bytes) = (0, vec![0; 100_000]);
    loop {
        match decent.read(&mut bytes).unwrap() {
            0 => break,
            read => all += read,
        }
    }
    assert!(all > 1_500_000, "{all}");
}

/// A service with few files, which may fail to start.
fn with_files(database: &std::path::Path, files: u32) -> Command {
    let serve =
        program(&["serve", "--listen", "127.0.0.1:0", "--database", database.to_str().unwrap()]);
    let mut limited = Command::new("bash");
    limited.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]);
    limited.arg(serve.get_program()).args(serve.get_args());
    for (name, _) in serve.get_envs() {
        limited.env_remove(name);
    }
    limited
}

#[test]
fn with_few_files_it_serves_few_and_with_too_few_it_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("rockets.db");
    for files in [12, 20, 24, 28] {
        let refused = with_files(&database, files).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && !said.contains("listening"), "{files}: {said}");
        assert!(
            said.contains("lets this process open") && said.contains("ulimit"),
            "{files}: {said}"
        );
        assert!(!said.contains("panicked"), "{files}: {said}");
    }
    for files in [30, 64, 300] {
        let service = Service::spawn(with_files(&database, files));
        for _ in 0..7 {
            let connections: Vec<_> =
                (0..100).map(|_| TcpStream::connect(service.address).unwrap()).collect();
            drop(connections);
        }
        let closed = Instant::now();
        let mut client = Client::new(service.address);
        for number in 1..=20 {
            assert_eq!(client.post(&faster(&format!("r{files}"), number, 1)).status, 204);
            assert_eq!(client.get(&format!("/rockets/r{files}")).json()["speed"], number);
            assert_eq!(client.get("/stats").status, 200);
        }
        assert!(closed.elapsed() < Duration::from_secs(10), "{files}: {:?}", closed.elapsed());
    }
}

#[test]
fn readiness_follows_what_a_message_needs_and_clients_see_no_words_of_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let (database, log) = (directory.path().join("rockets.db"), directory.path().join("log"));
    let mut serve =
        program(&["serve", "--listen", "127.0.0.1:0", "--database", database.to_str().unwrap()]);
    let child = serve.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let logged = || std::fs::read_to_string(&log).unwrap();
    let listening = || {
        let logged = logged();
        let line = logged.lines().find(|line| line.contains("\"listening\""))?;
        serde_json::from_str::<Value>(line).ok()?["address"].as_str()?.parse().ok()
    };
    eventually("it listens", || listening().is_some());
    let service = Service { child, address: listening().unwrap() };
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    eventually("it is ready", || client.get("/readyz").status == 200);
    // Many requests cost no more than one.
    let length = || std::fs::metadata(directory.path().join("rockets.db-wal")).unwrap().len();
    let before = length();
    let asked = Instant::now();
    for _ in 0..500 {
        assert_eq!(client.get("/readyz").status, 200);
    }
    let most = (asked.elapsed().as_secs() + 2) * 300 * 1024;
    assert!(length() - before <= most, "{} bytes for 500 questions", length() - before);
    for table in ["processed_ranges", "rockets"] {
        sql(&database, &format!("ALTER TABLE {table} RENAME TO aside"));
        let refused = client.post(&faster("r", 2, 1));
        let problem = refused.problem(503);
        assert!(
            !problem.to_string().contains("no such table") && !problem.to_string().contains("SQL"),
            "{problem}"
        );
        // At once, although it was ready a moment ago.
        client.get("/readyz").problem(503);
        if table == "rockets" {
            let read = client.get("/rockets/r").problem(503);
            assert!(!read.to_string().contains("no such table"), "{read}");
        }
        sql(&database, &format!("ALTER TABLE aside RENAME TO {table}"));
        eventually("it is ready again", || client.get("/readyz").status == 200);
    }
    // Each of them has its reason in the log.
    let logged = logged();
    for path in ["/messages", "/readyz", "/rockets/r"] {
        let says_why = |line: &str| {
            let json: Value = serde_json::from_str(line).unwrap();
            json["path"] == path
                && json["status"] == 503
                && json["reason"].as_str().unwrap().contains("no such table")
        };
        let lines: Vec<&str> =
            logged.lines().filter(|line| line.contains("request failed")).collect();
        assert!(lines.iter().any(|line| says_why(line)), "{path}: {lines:?}");
    }
    assert_eq!(client.post(&faster("r", 2, 1)).status, 204);
}

#[test]
fn readiness_follows_what_a_message_needs_on_postgres_too() {
    let database = TestDatabase::create();
    let service = Service::start(&database.url);
    let mut client = Client::new(service.address);
    assert_eq!(client.post(&launched("r", 1)).status, 204);
    execute(&database.url, "ALTER TABLE processed_ranges RENAME TO aside");
    eventually("it says so", || client.get("/readyz").status == 503);
    client.post(&faster("r", 2, 1)).problem(503);
    execute(&database.url, "ALTER TABLE aside RENAME TO processed_ranges");
    eventually("it is ready again", || client.get("/readyz").status == 200);
    // A default that each batch overrides doesn't matter.
    execute(
        &database.url,
        &format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name),
    );
    execute(
        &database.url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    eventually("it writes", || client.post(&faster("r", 3, 1)).status == 204);
    eventually("it is ready", || client.get("/readyz").status == 200);
}
